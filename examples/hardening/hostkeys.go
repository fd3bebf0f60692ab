package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// hostKeys says which keys a machine may show.
type hostKeys struct {
	known []ssh.PublicKey // named as the machine's own
	// certified says that an authority may vouch for others.
	certified bool
	check     func(address string, remote net.Addr, key ssh.PublicKey) error
}

// algorithms are those to ask for: what is known first, so that a machine with
// several keys shows that one, and then all, so that a wrong one is seen.
func (k hostKeys) algorithms() []string {
	all := ssh.SupportedAlgorithms().HostKeys
	var names []string
	if k.certified {
		names = slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !forCertificates(name) })
	}
	names = append(names, algorithmsFor(k.known)...)
	for _, name := range all {
		if !slices.Contains(names, name) && !forCertificates(name) {
			names = append(names, name)
		}
	}
	return names
}

func forCertificates(algorithm string) bool { return strings.Contains(algorithm, "-cert-") }

// wrong is the error about a key that is none of the known ones.
func (k hostKeys) wrong(address string, got ssh.PublicKey) error {
	e := &sandbox.HostKeyError{Address: address, Got: plain(got)}
	for _, key := range k.known {
		if e.Want == nil || key.Type() == e.Got.Type() {
			e.Want = key
		}
	}
	return e
}

// readHostKeys reads public keys, one a line, each of them after a host name or
// not: it is the caller who says that they are the machine's.
func readHostKeys(name string) (hostKeys, error) {
	var keys hostKeys
	data, err := readFile(name)
	if err != nil {
		return keys, err
	}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err == nil && (isCertificate(key) || strings.HasPrefix(line, "@")) {
			err = errors.New("authorities, certificates and revoked keys are for -known-hosts")
		}
		if err != nil {
			return keys, fmt.Errorf("%s:%d: no public key: %w", name, number, err)
		}
		keys.known = append(keys.known, key)
	}
	if len(keys.known) == 0 {
		return keys, fmt.Errorf("%s holds no public key", name)
	}
	keys.check = func(address string, _ net.Addr, got ssh.PublicKey) error {
		if contains(keys.known, got) {
			return nil
		}
		return keys.wrong(address, got)
	}
	return keys, nil
}

// readKnownHosts reads known_hosts as ssh does: an entry without a port counts for
// other ports too, where none has the port, and a line that makes no sense is
// passed over, unless it could revoke a key.
func readKnownHosts(name, address string, stderr io.Writer) (hostKeys, error) {
	lines, err := knownLines(name, stderr)
	if err != nil {
		return hostKeys{}, err
	}
	check, err := newKnownHosts(lines)
	if err != nil {
		return hostKeys{}, fmt.Errorf("cannot read %s: %w", name, err)
	}
	var authorities []string
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, "@cert-authority"); ok {
			authorities = append(authorities, strings.TrimSpace(rest))
		}
	}
	authority, err := newKnownHosts(authorities)
	if err != nil {
		return hostKeys{}, fmt.Errorf("cannot read %s: %w", name, err)
	}
	address, named := entryFor(check, address)
	vouching := entries(authority, address)
	keys := hostKeys{certified: len(vouching) > 0}
	for _, key := range named {
		if !contains(vouching, key) {
			keys.known = append(keys.known, key)
		}
	}
	keys.check = func(shown string, remote net.Addr, got ssh.PublicKey) error {
		err := check(address, remote, got)
		var revoked *knownhosts.RevokedError
		var mismatch *knownhosts.KeyError
		isPlain := !isCertificate(got)
		switch {
		case err == nil && (!isPlain || contains(keys.known, got)):
			return nil
		case errors.As(err, &revoked):
			err = fmt.Errorf("it is revoked in line %d of %s", revoked.Revoked.Line, name)
		case isPlain && len(keys.known) > 0 && (err == nil || errors.As(err, &mismatch)):
			return keys.wrong(shown, got)
		case isPlain && keys.certified:
			err = fmt.Errorf("%s has only authorities for it, and it shows no certificate", name)
		case isPlain:
			err = fmt.Errorf("the machine is not in %s", name)
		}
		return fmt.Errorf("cannot trust host key of %s: got %s %s: %w", shown, plain(got).Type(), ssh.FingerprintSHA256(plain(got)), err)
	}
	return keys, nil
}

// knownLines are the lines of known_hosts, those that are of no use empty.
func knownLines(name string, stderr io.Writer) ([]string, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(data), "\n")
	pass := func(i int) {
		fmt.Fprintf(stderr, "hardening: %s:%d: passed over: it names no known host\n", name, i+1)
		lines[i] = ""
	}
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
		if lines[i] == "" || strings.HasPrefix(lines[i], "#") {
			lines[i] = ""
			continue
		}
		marker, _, _, _, _, err := ssh.ParseKnownHosts([]byte(lines[i]))
		switch {
		case err != nil && strings.HasPrefix(lines[i], "@revoked"):
			return nil, fmt.Errorf("%s:%d: cannot read a revoked key: %w", name, i+1, err)
		case err != nil || marker != "" && marker != "revoked" && marker != "cert-authority":
			pass(i)
		}
	}
	if _, err := newKnownHosts(lines); err == nil {
		return lines, nil
	}
	for i := range lines { // the pattern of a host is at fault somewhere
		if _, err := newKnownHosts(lines[i : i+1]); err != nil {
			pass(i)
		}
	}
	return lines, nil
}

// entryFor is the address to look a machine up with, and the keys of its entries.
func entryFor(check ssh.HostKeyCallback, address string) (string, []ssh.PublicKey) {
	host, _, _ := net.SplitHostPort(address)
	for _, a := range []string{address, net.JoinHostPort(host, "22")} {
		if keys := entries(check, a); len(keys) > 0 {
			return a, keys
		}
	}
	return address, nil
}

// entries are the keys of an address.
func entries(check ssh.HostKeyCallback, address string) []ssh.PublicKey {
	var unknown *knownhosts.KeyError
	var keys []ssh.PublicKey
	if errors.As(check(address, &net.TCPAddr{}, nobody{}), &unknown) {
		for _, k := range unknown.Want {
			keys = append(keys, k.Key)
		}
	}
	return keys
}

func contains(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	return slices.ContainsFunc(keys, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), key.Marshal()) })
}

// nobody is a key that is in no file.
type nobody struct{}

func (nobody) Type() string                        { return "nobody" }
func (nobody) Marshal() []byte                     { return nil }
func (nobody) Verify([]byte, *ssh.Signature) error { return errors.New("nobody's key") }

// newKnownHosts reads lines as x/crypto does, which only reads files.
func newKnownHosts(lines []string) (ssh.HostKeyCallback, error) {
	dir, err := os.MkdirTemp("", "hardening-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o600); err != nil { //nolint:gosec // made by MkdirTemp
		return nil, err
	}
	return knownhosts.New(name)
}
