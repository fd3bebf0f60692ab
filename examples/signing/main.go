// Command signing makes OpenPGP keys, signs files and release directories with
// them, and verifies both against pinned keys.
//
//	signing keygen -name NAME -email MAIL -out FILE
//	signing sign -key FILE [-clear] FILE...
//	signing sign-dir -key FILE DIR
//	signing attest -key FILE -out FILE -build-type URI -builder URI [-param NAME=VALUE] FILE...
//	signing verify -keyring FILE [-signature FILE] FILE...
//	signing verify-dir -keyring FILE [-ignore-missing] DIR
//	signing verify-sums -keyring FILE [-signature FILE] [-ignore-missing] SUMSFILE [NAME...]
//	signing verify-attestation -keyring FILE [-ignore-missing] ATTESTATION [FILE...]
//	signing keys -keyring FILE
//
// Instead of -key, or besides, -agent FINGERPRINT signs with gpg-agent, which
// needs the public key in -keyring; both can be given several times, and all
// sign. What verifies takes -required N for signatures by N keys and -at TIME.
// Every command takes -json. Exit codes: 0 good, 1 bad or untrusted, 2 usage,
// configuration or I/O, which a file that cannot be read is everywhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes.
const (
	exitGood = iota
	exitBad
	exitTrouble
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once, also where it waits for a pipe
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitGood
	case errors.Is(err, errNotGood):
		return exitBad
	}
	_, _ = fmt.Fprintln(stderr, "signing:", strings.ReplaceAll(err.Error(), "\n", "; "))
	return exitTrouble
}

// errNotGood says that the result, which is printed, is not good.
var errNotGood = errors.New("not good")

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	const usage = "usage: signing keygen|sign|sign-dir|attest|verify|verify-dir|verify-sums|verify-attestation|keys [flags] [files]; -h after a command tells its flags"
	commands := map[string]func(context.Context, *options) error{
		"keygen": keygen, "sign": sign, "sign-dir": signDir, "attest": attest,
		"verify": verify, "verify-dir": verifyDir, "verify-sums": verifySums, "verify-attestation": verifyAttestation, "keys": keys,
	}
	if len(args) == 0 {
		return errors.New(usage)
	}
	if args[0] == "-h" || args[0] == "-help" || args[0] == "--help" {
		_, err := fmt.Fprintln(stdout, usage)
		return err
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("unknown command %q; %s", args[0], usage)
	}
	o, err := parse(args[0], args[1:], stdout, stderr)
	if err != nil {
		return err
	}
	return command(ctx, o)
}
