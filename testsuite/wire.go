package testsuite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
)

// probeTimeout bounds one probe of the wire.
const probeTimeout = 90 * time.Second

// probeAlgorithms reads what the server offers before any login.
func probeAlgorithms(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", fmt.Errorf("cannot connect to %s: %w", address, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	// OpenSSH drops a client that says nothing; the version is the least.
	if _, err := conn.Write([]byte("SSH-2.0-otc_testsuite\r\n")); err != nil {
		return "", fmt.Errorf("cannot greet %s: %w", address, err)
	}
	offer, err := readKexInit(conn)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("cannot read the algorithms that %s offers: %w", address, err)
	}
	return offer.String(), nil
}

// probeLogin tries to log in as user, by every one of auth that the server
// offers, and says what it offered and whether it let the user in:
//
//	login accepted|refused|undecided
//	offered METHOD,METHOD
//	tried METHOD,METHOD
//	partial METHOD,METHOD
func probeLogin(ctx context.Context, t Target, user string, wanted []string, auth []ssh.AuthMethod) (string, error) {
	var seen *ssh.ClientAuthContext
	client, err := sshconn.Dial(ctx, sshconn.Config{
		Address: t.Address, User: user, HostKey: t.HostKey, HandshakeTimeout: probeTimeout, Auth: auth,
		Observe: func(c *ssh.ClientAuthContext) { seen = c },
	})
	login := "undecided"
	switch {
	case err == nil:
		login = "accepted"
		_ = client.Close()
	case seen == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return "", err
	case !slices.ContainsFunc(wanted, func(m string) bool {
		return slices.Contains(seen.AllowedMethods, m) && !slices.Contains(seen.TriedMethods, m)
	}):
		login = "refused"
	}
	if seen == nil { // let in by "none", before anything was asked
		seen = &ssh.ClientAuthContext{}
	}
	return fmt.Sprintf("login %s\noffered %s\ntried %s\npartial %s\n", login, strings.Join(seen.AllowedMethods, ","),
		strings.Join(seen.TriedMethods, ","), strings.Join(seen.PartialSuccessMethods, ",")), nil
}

// probePassword tries the console's password as the login user, or where nobody
// sees the console one that is made up: a server that offers no login by password
// refuses the right one too.
func probePassword(ctx context.Context, t Target) (string, error) {
	if t.NoConsole && t.Password == "" {
		t.Password = rand.Text()
	}
	if t.Password == "" {
		return "", errors.New("the console showed no password to try")
	}
	return probeLogin(ctx, t, t.User, []string{"password", "keyboard-interactive"}, []ssh.AuthMethod{
		ssh.Password(t.Password),
		ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range answers {
				answers[i] = t.Password
			}
			return answers, nil
		}),
	})
}

// probeRoot tries signer, whose key is in root's authorized_keys, as root.
func probeRoot(ctx context.Context, t Target, signer ssh.Signer) (string, error) {
	return probeLogin(ctx, t, "root", []string{"publickey"}, []ssh.AuthMethod{ssh.PublicKeys(signer)})
}
