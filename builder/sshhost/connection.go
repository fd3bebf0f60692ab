package sshhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
)

const (
	writeOnly   = os.O_WRONLY
	maxOutput   = 64 << 10        // bytes of what the driver's own scripts say
	maxSettling = 5 * time.Second // for a call whose context has ended
)

type connection struct {
	ssh  *ssh.Client
	sftp *sftp.Client
	lost chan struct{} // closed when the connection is
}

func (c *connection) close() { _ = c.ssh.Close() } // which ends sftp

// do calls f with a connection, again after each one that was lost, until the
// host could not be reached for Config.Patience.
func (h *Host) do(ctx context.Context, f func(*connection) error) error {
	var since time.Time // the connection is lost
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := h.connection(ctx)
		if err == nil {
			err = h.call(ctx, c, f)
			if err == nil || !c.isLost(err, h.config.KeepAlive) {
				return err
			}
			h.forget(c)
			since, pause = time.Now(), 100*time.Millisecond
		} else if h.final(err) {
			return err
		} else if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > h.config.Patience {
			return fmt.Errorf("the host could not be reached for %v: %w", h.config.Patience, err)
		}
		h.log.WarnContext(ctx, "the connection to the build host is lost; trying again", "host", h.config.Address, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// call bounds f by ctx: a peer that has frozen is left some seconds after its end.
func (h *Host) call(ctx context.Context, c *connection, f func(*connection) error) error {
	done := make(chan struct{})
	defer close(done)
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-done:
		case <-time.After(maxSettling):
			c.close()
		}
	})
	defer stop()
	return f(c)
}

// isLost tells whether f failed because of the connection.
func (c *connection) isLost(err error, patience time.Duration) bool {
	var write *writeError
	var status *sftp.StatusError
	var failed *scriptError
	if errors.As(err, &write) || errors.As(err, &status) || errors.As(err, &failed) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false
	}
	return !c.answers(patience)
}

// answers asks for a sign of life.
func (c *connection) answers(patience time.Duration) bool {
	answered := make(chan error, 1)
	go func() {
		_, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil)
		answered <- err
	}()
	select {
	case err := <-answered:
		return err == nil
	case <-c.lost:
		return false
	case <-time.After(patience):
		c.close()
		return false
	}
}

func (c *connection) keepAlive(every time.Duration) {
	for {
		select {
		case <-c.lost:
			return
		case <-time.After(every):
		}
		if !c.answers(every) {
			c.close()
			return
		}
	}
}

// final tells whether dialling again is of no use: the host shows another key,
// or it has never let us in.
func (h *Host) final(err error) bool {
	var key *sshconn.HostKeyError
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.As(err, &key) || !h.ever || h.closed
}

func (h *Host) forget(c *connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.close()
	if h.conn == c {
		h.conn = nil
	}
}

// connection is the open one, or a new one.
func (h *Host) connection(ctx context.Context) (*connection, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errors.New("the host is closed")
	}
	if h.conn != nil {
		select {
		case <-h.conn.lost:
			h.conn = nil
		default:
			return h.conn, nil
		}
	}
	client, err := sshconn.Dial(ctx, sshconn.Config{
		Address: h.config.Address, Dial: h.config.Dial, User: h.config.User, Auth: h.config.Auth, HostKey: h.config.HostKey,
	})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	files, err := h.openSFTP(client)
	if !stop() || err != nil {
		_ = client.Close()
		return nil, fmt.Errorf("cannot begin SFTP: %w", errors.Join(ctx.Err(), err))
	}
	c := &connection{ssh: client, sftp: files, lost: make(chan struct{})}
	go func() {
		_ = client.Wait()
		close(c.lost)
	}()
	go c.keepAlive(h.config.KeepAlive)
	h.conn, h.ever = c, true
	return c, nil
}

// sftpServer is run through sudo where the user is not root.
const sftpServer = `for s in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/lib/ssh/sftp-server /usr/libexec/sftp-server; do
[ -x "$s" ] && exec "$s"; done; echo "no sftp-server" >&2; exit 127`

func (h *Host) openSFTP(client *ssh.Client) (*sftp.Client, error) {
	if h.config.User == "root" {
		return sftp.NewClient(client)
	}
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	in, inErr := session.StdinPipe()
	out, outErr := session.StdoutPipe()
	if err := errors.Join(inErr, outErr, session.Start(h.shell(sftpServer))); err != nil {
		return nil, err
	}
	return sftp.NewClientPipe(out, in)
}

// scriptError is one of a script that ran.
type scriptError struct {
	status int
	said   string
}

func (e *scriptError) Error() string {
	return fmt.Sprintf("exit status %d: %s", e.status, strings.Join(strings.Fields(e.said), " "))
}

// script runs one of the driver's own programs for a POSIX shell as root. It may
// run twice, if the connection is lost meanwhile.
func (h *Host) script(ctx context.Context, text string, args ...string) error {
	_, err := h.output(ctx, text, args...)
	return err
}

func (h *Host) output(ctx context.Context, text string, args ...string) (out string, err error) {
	command := h.shell(text, args...)
	err = h.do(ctx, func(c *connection) error {
		r, err := sshconn.Run(context.WithoutCancel(ctx), c.ssh, command, nil, maxOutput)
		if err == nil && r.ExitStatus != 0 {
			err = &scriptError{r.ExitStatus, string(r.Stderr)}
		}
		out = string(r.Stdout)
		return err
	})
	return out, err
}

// shell is a command line for the user's shell on the host, each word quoted.
func (h *Host) shell(text string, args ...string) string {
	words := append([]string{"sh", "-c", text, "sh"}, args...)
	if h.config.User != "root" {
		words = append([]string{"sudo", "-n"}, words...)
	}
	for i, w := range words {
		words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}

// remoteTree writes below a directory of the host.
type remoteTree struct {
	sftp *sftp.Client
	dir  string
}

func (t remoteTree) Dir(name string) error { return t.sftp.MkdirAll(path.Join(t.dir, name)) }

func (t remoteTree) Link(target, name string) error {
	name = path.Join(t.dir, name)
	if err := t.sftp.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return t.sftp.Symlink(target, name)
}

func (t remoteTree) File(name string, mode fs.FileMode, content io.Reader) error {
	f, err := t.sftp.OpenFile(path.Join(t.dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.ReadFrom(content)
	return errors.Join(err, f.Chmod(mode), f.Close())
}
