package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// options of all commands; each has the flags that it needs.
type options struct {
	out, diag io.Writer
	json      bool
	args      []string

	name, email, file, algorithm string
	lifetime                     time.Duration
	v6                           bool

	keys, agents, params list
	keyring              string
	passphraseFD         int
	passphrases          *bufio.Reader
	clear                bool
	buildType, builder   string
	at, signature        string
	required             int
	ignoreMissing        bool
}

// list is a flag that can be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

// Set adds one.
func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

func parse(command string, args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{out: stdout, diag: stderr}
	f := flag.NewFlagSet("signing "+command, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.json, "json", false, "write JSON")
	switch command {
	case "keygen":
		f.StringVar(&o.name, "name", "", "`name` of the user ID")
		f.StringVar(&o.email, "email", "", "email `address` of the user ID")
		f.StringVar(&o.file, "out", "", "`file` for the secret key; the public key goes beside it, into FILE.pub")
		f.StringVar(&o.algorithm, "algorithm", "", "ed25519 (the default), rsa3072, rsa4096, ecdsa-p256 or ecdsa-p384")
		f.DurationVar(&o.lifetime, "lifetime", 0, "`time` until the key expires, as 17520h; without it never")
		f.BoolVar(&o.v6, "v6", false, "make a version 6 key, which gpg does not read")
	case "sign", "sign-dir", "attest":
		f.Var(&o.keys, "key", "`file` with the secret key; can be given several times")
		f.Var(&o.agents, "agent", "`fingerprint` of a key in gpg-agent, with its public key in -keyring; can be given several times")
		f.StringVar(&o.keyring, "keyring", "", "keyring `file` with the public keys for -agent")
		f.IntVar(&o.passphraseFD, "passphrase-fd", -1, "file descriptor `number` to read the passphrases of -key from, each a line")
	case "verify", "verify-dir", "verify-sums", "verify-attestation", "keys":
		f.StringVar(&o.keyring, "keyring", "", "keyring `file`: OpenPGP keys, or YAML with a list `keys`")
	}
	switch command {
	case "sign":
		f.BoolVar(&o.clear, "clear", false, "write the text with a cleartext signature")
	case "attest":
		f.StringVar(&o.file, "out", "", "`file` for the attestation")
		f.StringVar(&o.buildType, "build-type", "", "`URI` that says how the files were built")
		f.StringVar(&o.builder, "builder", "", "`URI` that says who built them")
		f.Var(&o.params, "param", "`name=value` that the build was given; can be given several times")
	case "verify", "verify-sums":
		f.StringVar(&o.signature, "signature", "", "`file` with the signature; without it the one beside the file (.asc, .sig, .gpg, .sign) or in it")
	}
	if strings.HasPrefix(command, "verify") {
		f.StringVar(&o.at, "at", "", "judge as of this `time` (RFC 3339) instead of now")
		f.IntVar(&o.required, "required", 1, "`number` of different keys that must have signed")
	}
	if strings.HasPrefix(command, "verify-") {
		f.BoolVar(&o.ignoreMissing, "ignore-missing", false, "pass over files that are listed but not there")
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	o.args = f.Args()
	return o, nil
}

// signers are those that -key and -agent name.
func (o *options) signers(ctx context.Context) ([]*signing.Signer, error) {
	if len(o.keys)+len(o.agents) == 0 {
		return nil, errors.New("give -key or -agent")
	}
	var all []*signing.Signer
	for _, path := range o.keys {
		key, err := signing.LoadKey(path, o.passphrase)
		if err != nil {
			return nil, err
		}
		signer, err := signing.NewSigner(key, signing.SignerConfig{})
		if err != nil {
			return nil, err
		}
		all = append(all, signer)
	}
	if len(o.agents) == 0 {
		return all, nil
	}
	ring, err := o.loadKeyring()
	if err != nil {
		return nil, err
	}
	for _, text := range o.agents {
		fpr, err := signing.ParseFingerprint(text)
		if err != nil {
			return nil, err
		}
		key := ring.Key(fpr)
		if key == nil {
			return nil, fmt.Errorf("the keyring %s does not hold the key %s", o.keyring, fpr)
		}
		agent := signing.AgentConfig{TTY: os.Getenv("GPG_TTY")}
		signer, err := signing.NewAgentSigner(ctx, key, agent, signing.SignerConfig{})
		if err != nil {
			return nil, err
		}
		all = append(all, signer)
	}
	return all, nil
}

// loadKeyring says on stderr which keys were skipped.
func (o *options) loadKeyring() (*signing.Keyring, error) {
	if o.keyring == "" {
		return nil, errors.New("give the -keyring")
	}
	ring, err := signing.LoadKeyring(o.keyring)
	if err != nil {
		return nil, err
	}
	for _, skipped := range ring.Skipped() {
		if _, err := fmt.Fprintf(o.diag, "signing: %s: skipped: %v\n", o.keyring, skipped); err != nil {
			return nil, err
		}
	}
	return ring, nil
}

func (o *options) verifier() (*signing.Verifier, error) {
	ring, err := o.loadKeyring()
	if err != nil {
		return nil, err
	}
	if o.required < 1 {
		return nil, errors.New("-required must be at least 1")
	}
	v := &signing.Verifier{Keyring: ring, Required: o.required, IgnoreMissing: o.ignoreMissing}
	if o.at != "" {
		at, err := time.Parse(time.RFC3339, o.at)
		if err != nil {
			return nil, fmt.Errorf("-at must be an RFC 3339 time: %w", err)
		}
		v.Time = func() time.Time { return at }
	}
	return v, nil
}

// passphrase reads a line from -passphrase-fd or the terminal.
func (o *options) passphrase(hint string) ([]byte, error) {
	if o.passphraseFD >= 0 {
		if o.passphrases == nil {
			f := os.NewFile(uintptr(o.passphraseFD), "passphrase")
			if f == nil {
				return nil, fmt.Errorf("file descriptor %d is not open", o.passphraseFD)
			}
			o.passphrases = bufio.NewReader(io.LimitReader(f, 64<<10))
		}
		line, err := o.passphrases.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return []byte(strings.TrimRight(line, "\r\n")), nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal to ask on: give -passphrase-fd")
	}
	defer tty.Close()
	if _, err := fmt.Fprintf(tty, "Passphrase of %s: ", hint); err != nil {
		return nil, err
	}
	secret, err := term.ReadPassword(int(tty.Fd()))
	_, _ = fmt.Fprintln(tty)
	return secret, err
}
