package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

const (
	connectTimeout = 90 * time.Second
	maxKeyFile     = 16 << 20 // of keys and known hosts
)

// connect logs in, unless there is no key to log in with, and pins the host key
// that the machine shows if it is right.
func (o *options) connect(ctx context.Context, user string, stderr io.Writer) (testsuite.Target, error) {
	target := testsuite.Target{User: user, NoConsole: true}
	var err error
	if target.Address, err = address(o.host); err != nil {
		return target, err
	}
	var keys hostKeys
	if o.hostKey != "" {
		keys, err = readHostKeys(o.hostKey)
	} else {
		keys, err = readKnownHosts(o.knownHosts, target.Address, stderr)
	}
	if err != nil {
		return target, err
	}
	if o.key != "" {
		if target.Signer, err = readKey(o.key, o.passphrases.Ask); err != nil {
			return target, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", target.Address)
	if err != nil {
		return target, fmt.Errorf("cannot connect to %s: %w", target.Address, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = login(conn, &target, keys)
	if !stop() {
		err = fmt.Errorf("cannot complete SSH handshake with %s: %w", target.Address, ctx.Err())
	}
	if err != nil || target.Client == nil {
		_ = conn.Close()
	}
	return target, err
}

// login sets the target's HostKey, and its Client if it has a Signer.
func login(conn net.Conn, target *testsuite.Target, keys hostKeys) error {
	var refused error
	config := &ssh.ClientConfig{
		User:              target.User,
		HostKeyAlgorithms: keys.algorithms(),
		HostKeyCallback: func(_ string, remote net.Addr, key ssh.PublicKey) error {
			if refused = keys.check(target.Address, remote, key); refused == nil {
				target.HostKey = plain(key)
			}
			return refused
		},
	}
	if target.Signer != nil {
		config.Auth = []ssh.AuthMethod{ssh.PublicKeys(target.Signer)}
	}
	c, channels, requests, err := ssh.NewClientConn(conn, target.Address, config)
	switch {
	case refused != nil:
		return refused
	case target.Signer == nil && target.HostKey != nil:
		return nil // nobody was to be let in
	case err != nil:
		return fmt.Errorf("cannot log in as %s on %s: %w", target.User, target.Address, err)
	}
	target.Client = ssh.NewClient(c, channels, requests)
	return nil
}

// address is host:port of what -host says.
func address(s string) (string, error) {
	host, port := s, "22"
	_, err := netip.ParseAddr(s)
	switch {
	case err == nil: // an address without a port, of IPv6 perhaps
	case strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]"):
		host = s[1 : len(s)-1]
	case strings.Contains(s, ":"):
		if host, port, err = net.SplitHostPort(s); err != nil {
			return "", fmt.Errorf("-host: cannot understand %.80q: want HOST, HOST:PORT or [IPV6]:PORT", s)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("-host: bad port %.20q: want 1 to 65535", port)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return net.JoinHostPort(ip.String(), port), nil // as known_hosts has it
	}
	if host == "" || strings.ContainsAny(host, "@/:[]% \t\r\n") || s[0] == '[' {
		return "", fmt.Errorf("-host: %.80q is no name of a host and no address", host)
	}
	return net.JoinHostPort(strings.ToLower(host), port), nil
}

// readKey reads a private key, and asks for its passphrase if it has one.
func readKey(name string, ask func(string) ([]byte, error)) (ssh.Signer, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		secret, perr := ask(name)
		if perr != nil {
			return nil, fmt.Errorf("cannot unlock the key %s: %w", name, perr)
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(data, secret)
	}
	if err != nil && bytes.Contains(data, []byte("BEGIN ENCRYPTED PRIVATE KEY")) {
		err = errors.New("it is locked as PKCS #8 does: ssh-keygen -p rewrites it as OpenSSH does")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the private key %s: %w", name, err)
	}
	return signer, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the path is the caller's
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxKeyFile)
	}
	return data, err
}

// plain is the key that a certificate is for, or the key itself.
func plain(key ssh.PublicKey) ssh.PublicKey {
	if c, ok := key.(*ssh.Certificate); ok {
		return c.Key
	}
	return key
}

func isCertificate(key ssh.PublicKey) bool {
	_, ok := key.(*ssh.Certificate)
	return ok
}

// algorithmsFor are the signature algorithms that prove one of the keys. An RSA key
// is not asked to prove itself by SHA-1.
func algorithmsFor(keys []ssh.PublicKey) []string {
	var names []string
	for _, key := range keys {
		types := []string{key.Type()}
		if types[0] == ssh.KeyAlgoRSA {
			types = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, t := range types {
			if !slices.Contains(names, t) {
				names = append(names, t)
			}
		}
	}
	return names
}
