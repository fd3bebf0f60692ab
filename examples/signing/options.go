package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/passphrase"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// options of all commands; each has the flags that it needs.
type options struct {
	out  io.Writer
	json bool
	args []string

	name, email, file, algorithm string
	lifetime                     time.Duration
	v6                           bool

	key, agent, keyring string
	passphraseFD        int
	clear               bool
	at                  string
}

func parse(command string, args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{out: stdout}
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
	case "sign", "sign-dir":
		f.StringVar(&o.key, "key", "", "`file` with the secret key")
		f.StringVar(&o.agent, "agent", "", "`fingerprint` of a key in gpg-agent, with its public key in -keyring")
		f.StringVar(&o.keyring, "keyring", "", "keyring `file` with the public key for -agent")
		f.IntVar(&o.passphraseFD, "passphrase-fd", -1, "file descriptor `number` to read the passphrase of -key from")
		if command == "sign" {
			f.BoolVar(&o.clear, "clear", false, "write the text with a cleartext signature")
		}
	case "verify", "verify-dir":
		f.StringVar(&o.keyring, "keyring", "", "keyring `file`: OpenPGP keys, or YAML with a list `keys`")
		f.StringVar(&o.at, "at", "", "judge as of this `time` (RFC 3339) instead of now")
	case "keys":
		f.StringVar(&o.keyring, "keyring", "", "keyring `file`: OpenPGP keys, or YAML with a list `keys`")
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	o.args = f.Args()
	return o, nil
}

// signer is the one that -key or -agent names.
func (o *options) signer(ctx context.Context) (*signing.Signer, error) {
	if (o.key == "") == (o.agent == "") {
		return nil, errors.New("give one of -key and -agent")
	}
	if o.key != "" {
		key, err := signing.LoadKey(o.key, o.passphrase)
		if err != nil {
			return nil, err
		}
		return signing.NewSigner(key, signing.SignerConfig{})
	}
	fpr, err := signing.ParseFingerprint(o.agent)
	if err != nil {
		return nil, err
	}
	ring, err := o.loadKeyring()
	if err != nil {
		return nil, err
	}
	key := ring.Key(fpr)
	if key == nil {
		return nil, fmt.Errorf("the keyring %s does not hold the key %s", o.keyring, fpr)
	}
	agent := signing.AgentConfig{TTY: os.Getenv("GPG_TTY")}
	return signing.NewAgentSigner(ctx, key, agent, signing.SignerConfig{})
}

func (o *options) loadKeyring() (*signing.Keyring, error) {
	if o.keyring == "" {
		return nil, errors.New("give the -keyring")
	}
	return signing.LoadKeyring(o.keyring)
}

func (o *options) verifier() (*signing.Verifier, error) {
	ring, err := o.loadKeyring()
	if err != nil {
		return nil, err
	}
	v := &signing.Verifier{Keyring: ring}
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
	return passphrase.Read(o.passphraseFD, hint)
}
