// Package sshconn opens SSH connections to machines whose host key is known
// and runs commands on them, bounded in time and in what they may answer.
//
// # Security
//
// The other side is not trusted. Only the host key that the caller names is
// accepted, and the handshake asks for that key's type. A peer that stalls in
// the handshake, or freezes later, is left when the context ends: then the
// client is closed, not the session, because closing a session leaves Wait
// blocked on a frozen peer. Output beyond a bound is dropped and reported.
package sshconn

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// Config says where to connect and as whom.
type Config struct {
	Address string // host:port
	// Dial opens the connection. If nil, a net.Dialer does.
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	User    string           // user to log in as
	Auth    []ssh.AuthMethod // in the order they are tried
	HostKey ssh.PublicKey    // the only host key that is accepted; must not be nil
	// HandshakeTimeout bounds everything between the TCP connection and the
	// end of authentication. If zero, 30 seconds.
	HandshakeTimeout time.Duration
	// Observe, if not nil, is told after each refused or partly accepted
	// method what the server offers. It must not keep c.Metadata.
	Observe func(c *ssh.ClientAuthContext)
}

// HostKeyError says that a server showed another host key than the known one.
type HostKeyError struct {
	Address   string
	Want, Got ssh.PublicKey
}

func (e *HostKeyError) Error() string {
	name := func(key ssh.PublicKey) string {
		if key == nil {
			return "none"
		}
		return key.Type() + " " + ssh.FingerprintSHA256(key)
	}
	return fmt.Sprintf("cannot trust host key of %s: want %s, got %s", cmp.Or(e.Address, "the server"), name(e.Want), name(e.Got))
}

// Dial connects and logs in. The caller must Close the client. Where the
// server shows another host key the error is a *HostKeyError; where ctx ends,
// it wraps ctx.Err().
func Dial(ctx context.Context, c Config) (*ssh.Client, error) {
	if c.HostKey == nil {
		return nil, fmt.Errorf("cannot connect to %s: no host key is known", c.Address)
	}
	timeout := c.HandshakeTimeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", c.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", c.Address, err)
	}
	// Closing the connection is what ends a handshake with a silent peer;
	// ClientConfig.Timeout bounds only the TCP connection.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })

	var observe func(*ssh.ClientAuthContext) (ssh.AuthMethod, error)
	if c.Observe != nil {
		observe = func(ac *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			c.Observe(ac)
			return nil, nil // the next of Auth
		}
	}
	var keyErr *HostKeyError
	sc, chans, reqs, err := ssh.NewClientConn(conn, c.Address, &ssh.ClientConfig{
		User:              c.User,
		Auth:              c.Auth,
		AuthCallback:      observe,
		HostKeyAlgorithms: hostKeyAlgorithms(c.HostKey),
		HostKeyCallback: func(_ string, _ net.Addr, got ssh.PublicKey) error {
			if bytes.Equal(got.Marshal(), c.HostKey.Marshal()) {
				return nil
			}
			keyErr = &HostKeyError{Address: c.Address, Want: c.HostKey, Got: got}
			return keyErr
		},
	})
	if !stop() { // the context ended, perhaps just after the handshake
		_ = conn.Close()
		return nil, fmt.Errorf("cannot complete SSH handshake with %s: %w", c.Address, ctx.Err())
	}
	if err != nil {
		_ = conn.Close()
		if keyErr != nil {
			return nil, keyErr
		}
		return nil, fmt.Errorf("cannot complete SSH handshake with %s: %w", c.Address, err)
	}
	return ssh.NewClient(sc, chans, reqs), nil
}

// hostKeyAlgorithms are the signature algorithms that prove key. An RSA key
// is not asked to prove itself by SHA-1.
func hostKeyAlgorithms(key ssh.PublicKey) []string {
	if key.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{key.Type()}
}

// Result is what a command left.
type Result struct {
	Stdout, Stderr []byte
	Truncated      bool // one of the two was longer than the bound
	ExitStatus     int
}

// Run runs command with stdin (nil: none) and keeps at most limit bytes of
// each of stdout and stderr, dropping what follows. A command that ends with
// another status than 0 is no error. Where ctx ends first the client is
// closed, the output so far is returned, and the error wraps ctx.Err().
func Run(ctx context.Context, client *ssh.Client, command string, stdin io.Reader, limit int) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("cannot run a command on %s: %w", client.RemoteAddr(), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	fail := func(err error) error {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("cannot run a command on %s: %w", client.RemoteAddr(), err)
	}
	session, err := client.NewSession()
	if err != nil {
		return Result{}, fail(err)
	}
	defer session.Close()
	stdout, stderr := &boundedBuffer{limit: limit}, &boundedBuffer{limit: limit}
	session.Stdin, session.Stdout, session.Stderr = stdin, stdout, stderr
	err = session.Run(command)
	res := Result{Stdout: stdout.buf, Stderr: stderr.buf, Truncated: stdout.cut || stderr.cut}
	if ctx.Err() != nil {
		return res, fail(ctx.Err())
	}
	var exit *ssh.ExitError
	if errors.As(err, &exit) && exit.Signal() == "" {
		res.ExitStatus = exit.ExitStatus()
		return res, nil
	}
	if err != nil {
		return res, fail(err)
	}
	return res, nil
}

// boundedBuffer keeps the first limit bytes and swallows the rest, so that
// the peer is neither blocked nor able to fill memory.
type boundedBuffer struct {
	buf   []byte
	limit int
	cut   bool
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	room := b.limit - len(b.buf)
	if room < len(p) {
		b.cut = true
	} else {
		room = len(p)
	}
	b.buf = append(b.buf, p[:room]...)
	return len(p), nil
}
