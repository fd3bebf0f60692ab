// Package sshhost is a [builder.Host] on another machine, reached over SSH.
//
// # Lost connections
//
// A command runs detached under a supervisor on the host, with its output and its
// exit status in files, and is followed over SFTP: a lost connection does not end
// it. The host is dialled again and the output goes on where it was cut; only when
// the host cannot be reached for Config.Patience the command is given up. It goes
// on there then, until the next build in its work directory ends it, as it does
// when this process is killed.
//
// # What it needs
//
// On the host: Linux, sshd with SFTP, util-linux, GNU coreutils and findutils. A user
// other than root needs sudo without a password. Config.Dir holds a directory for each
// running command; what is a week old there is removed.
//
// # Security
//
// Only the known host key is accepted. The host is trusted with what is built on it.
// Arguments and environment can be seen by the host's users while a command runs.
package sshhost

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/isolate"
	"github.com/opentelekomcloud/go-imagefactory/internal/uploadtree"
)

var (
	//go:embed start.sh
	startScript string
	//go:embed stop.sh
	stopScript string
	//go:embed alive.sh
	aliveScript string
)

// beginScript makes a command's directory, removes old ones and prints where the
// command's program is: in the PATH that is the second argument.
const beginScript = `umask 077
mkdir -p -- "$1" && find "${1%/*}" -mindepth 1 -maxdepth 1 -mtime +7 -exec rm -rf -- {} + && : >"$1/stdin" || exit
IFS=:
for d in $2; do
    [ -f "$d/$3" ] && [ -x "$d/$3" ] && echo "$d/$3" && exit
done
exit 0`

// Config says how a host is reached.
type Config struct {
	Address string // host:port
	// Dial opens the connection. If nil, a net.Dialer does.
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	User    string // if empty, root
	Auth    []ssh.AuthMethod
	HostKey ssh.PublicKey // the only one that is accepted; required

	// Dir is an absolute path on the host for the commands' files, made where
	// missing. If empty, /var/lib/imagefactory. Factories may share it.
	Dir string
	// KeepAlive is the time between two signs of life that the host is asked for;
	// one that gives none in this time has lost the connection. If 0, 15 s.
	KeepAlive time.Duration
	// Patience is how long a host that was reached once is dialled again before
	// a command fails. If 0, 10 minutes.
	Patience time.Duration
	// Grace is how long a cancelled command may take to clean up before it is
	// killed. If 0, 10 s.
	Grace time.Duration
	// Logger is told of lost connections. If nil, nothing is logged.
	Logger *slog.Logger
}

// Host is a machine reached over SSH. Its methods may be called concurrently.
type Host struct {
	config Config
	log    *slog.Logger

	mu     sync.Mutex
	conn   *connection // nil before the first use and after a loss
	ever   bool        // it was reached once
	closed bool
}

var _ builder.Host = (*Host)(nil)

// New returns a host without connecting to it. The caller closes it.
func New(c Config) (*Host, error) {
	switch {
	case c.HostKey == nil:
		return nil, fmt.Errorf("cannot use the host %s: its host key must be known", c.Address)
	case c.Dir != "" && !path.IsAbs(c.Dir):
		return nil, fmt.Errorf("cannot use the host %s: its directory %q is not absolute", c.Address, c.Dir)
	}
	c.User = cmp.Or(c.User, "root")
	c.Dir = cmp.Or(c.Dir, "/var/lib/imagefactory")
	c.KeepAlive = cmp.Or(c.KeepAlive, 15*time.Second)
	c.Patience = cmp.Or(c.Patience, 10*time.Minute)
	c.Grace = cmp.Or(c.Grace, 10*time.Second)
	h := &Host{config: c, log: c.Logger}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h, nil
}

// Close closes the connection. Commands that run then fail here and go on there.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.conn != nil {
		h.conn.close()
		h.conn = nil
	}
	return nil
}

// Run implements [builder.Host].
func (h *Host) Run(ctx context.Context, c builder.Command) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(c.Args) == 0 {
		return errors.New("cannot run a command without Args")
	}
	fail := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("cannot run %s on %s: %w", c.Args[0], h.config.Address, err)
	}
	j := job{host: h, dir: path.Join(h.config.Dir, "jobs", rand.Text())}
	if c.WorkDir != "" {
		j.record = isolate.Record(c.WorkDir)
	}
	program, err := h.output(ctx, beginScript, j.dir, builder.DefaultPath, c.Args[0])
	if err != nil {
		return fail(err)
	}
	if program = strings.TrimSuffix(program, "\n"); path.IsAbs(c.Args[0]) {
		program = c.Args[0]
	}
	if program == "" {
		j.remove(ctx)
		return fail(fmt.Errorf("%w in %s", exec.ErrNotFound, builder.DefaultPath))
	}
	status, err := j.run(ctx, c, argv(program, c))
	if err != nil {
		// Whatever went wrong, the command must not go on.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.config.Grace+h.config.KeepAlive+30*time.Second)
		defer cancel()
		stop := h.script(end, stopScript, j.dir, j.record, strconv.FormatInt(h.config.Grace.Milliseconds()/100, 10))
		if stop != nil {
			h.log.WarnContext(ctx, "a command may still run on its host", "host", h.config.Address, "command", c.Args[0], "error", stop)
			return fail(errors.Join(err, stop))
		}
		j.remove(end)
		return fail(err)
	}
	j.remove(ctx)
	if status != 0 {
		return &builder.ExitError{Program: c.Args[0], Status: status}
	}
	return nil
}

// argv is what the supervisor runs.
func argv(program string, c builder.Command) []string {
	env := c.Env
	if env == nil {
		env = []string{"PATH=" + builder.DefaultPath}
	}
	argv := append([]string{"env", "-i"}, env...)
	argv = append(append(argv, program), c.Args[1:]...)
	if c.WorkDir != "" {
		argv = isolate.Run(c.WorkDir, argv)
	}
	return argv
}

// Upload implements [builder.Host].
func (h *Host) Upload(ctx context.Context, dir string, fsys fs.FS) error {
	err := h.do(ctx, func(c *connection) error {
		if err := c.sftp.MkdirAll(dir); err != nil {
			return err
		}
		return uploadtree.Walk(ctx, fsys, remoteTree{c.sftp, dir})
	})
	if err != nil {
		return fmt.Errorf("cannot upload to %s: %w", h.config.Address, err)
	}
	return nil
}

// Download implements [builder.Host].
func (h *Host) Download(ctx context.Context, name string, w io.Writer) error {
	out := &resumed{w: w}
	err := h.do(ctx, func(c *connection) error {
		_, err := out.copy(c.sftp, name)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot download %s from %s: %w", name, h.config.Address, err)
	}
	return nil
}
