// Command signing makes OpenPGP keys, signs files and release directories with
// them, and verifies both against pinned keys.
//
//	signing keygen -name NAME -email MAIL -out FILE
//	signing sign [-key FILE | -agent FPR -keyring FILE] [-clear] FILE...
//	signing sign-dir [-key FILE | -agent FPR -keyring FILE] DIR
//	signing verify -keyring FILE [-at TIME] FILE...
//	signing verify-dir -keyring FILE [-at TIME] DIR
//	signing keys -keyring FILE
//
// Every command takes -json. Exit codes: 0 good, 1 bad or untrusted, 2 usage,
// configuration or I/O.
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
	const usage = "usage: signing keygen|sign|sign-dir|verify|verify-dir|keys [flags] [files]; -h after a command tells its flags"
	commands := map[string]func(context.Context, *options) error{
		"keygen": keygen, "sign": sign, "sign-dir": signDir, "verify": verify, "verify-dir": verifyDir, "keys": keys,
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
