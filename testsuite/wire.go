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
	return offeredAlgorithms(ctx, new(net.Dialer).DialContext, address)
}

// A dialer is net.Dialer's DialContext, or a witness's.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func offeredAlgorithms(ctx context.Context, dial dialer, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", address)
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
func probeLogin(ctx context.Context, t Target, dial dialer, user string, wanted []string, auth []ssh.AuthMethod) (string, error) {
	var seen *ssh.ClientAuthContext
	client, err := sshconn.Dial(ctx, sshconn.Config{
		Dial: dial, Address: t.Address, User: user, HostKey: t.HostKey, HandshakeTimeout: probeTimeout, Auth: auth,
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
	return probeLogin(ctx, t, nil, t.User, []string{"password", "keyboard-interactive"}, byPassword(t.Password))
}

func byPassword(password string) []ssh.AuthMethod {
	return []ssh.AuthMethod{
		ssh.Password(password),
		ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range answers {
				answers[i] = password
			}
			return answers, nil
		}),
	}
}

// probeRoot tries signer, whose key is in root's authorized_keys, as root.
func probeRoot(ctx context.Context, t Target, signer ssh.Signer) (string, error) {
	return probeLogin(ctx, t, nil, "root", []string{"publickey"}, []ssh.AuthMethod{ssh.PublicKeys(signer)})
}

// probeListeners looks at everything that listens on TCP, as ports says it: whether it
// speaks SSH, with which algorithms, and whether it lets anybody in by a password
// that is made up or by nothing at all:
//
//	### ADDRESS:PORT
//	not SSH
//
// or the lines of wire-algorithms and wire-password. A server with another host key
// than the machine's is "another host key".
func probeListeners(ctx context.Context, t Target, ports string) (string, error) {
	var b strings.Builder
	n := 0
	for line := range strings.Lines(ports) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "tcp" {
			continue
		}
		if n++; n > maxListeners {
			return b.String(), fmt.Errorf("more than %d ports of TCP are open", maxListeners)
		}
		t.Address = net.JoinHostPort(f[1], f[2])
		fmt.Fprintf(&b, "### %s\n", t.Address)
		listening, cancel := context.WithTimeout(ctx, listenerTimeout)
		offer, err := offeredAlgorithms(listening, t.Witness.DialContext, t.Address)
		cancel()
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err != nil {
			b.WriteString("not SSH\n")
			continue
		}
		b.WriteString(offer)
		login, err := probeLogin(ctx, t, t.Witness.DialContext, t.User, []string{"password", "keyboard-interactive"}, byPassword(rand.Text()))
		var keyErr *sshconn.HostKeyError
		switch {
		case errors.As(err, &keyErr):
			login = "another host key\n"
		case err != nil:
			return "", err
		}
		b.WriteString(login)
	}
	return b.String(), nil
}

const (
	maxListeners    = 100
	listenerTimeout = 20 * time.Second // a listener that says nothing is no sshd
)
