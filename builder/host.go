package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/isolate"
	"github.com/opentelekomcloud/go-imagefactory/internal/uploadtree"
)

// A Host is a machine on which builders run their tools. Its methods may be
// called concurrently.
type Host interface {
	// Run runs a command as root and waits for it. When ctx ends, the command
	// is sent SIGTERM and gets a grace period to clean up after itself, then
	// its process group is killed, or all of a build's; the error is then ctx's. A
	// command that exits with another status than 0 is an *ExitError.
	Run(ctx context.Context, cmd Command) error
	// Upload writes the files of fsys, with their modes, below dir on the host,
	// which is made where missing; files and links that are there are replaced.
	// Symbolic links are kept; one that leads out of fsys is an error, as is
	// anything but files, directories and links.
	Upload(ctx context.Context, dir string, fsys fs.FS) error
	// Download copies the host's file to w.
	Download(ctx context.Context, path string, w io.Writer) error
}

// Command is a program to run on a [Host], by its argv and never by a shell.
type Command struct {
	Args           []string
	Env            []string // the whole environment; if nil, only DefaultPath
	Stdin          io.Reader
	Stdout, Stderr io.Writer // if nil, discarded
	// WorkDir, if not empty, makes the command a build in a work directory that
	// [Claim] has made, one at a time: it runs in mount and PID namespaces of its
	// own. When it ends, is killed, or this process is, the kernel ends all its
	// processes and mounts, whatever they have done to get away. A process that it
	// leaves behind does not go on.
	WorkDir string
}

// DefaultPath is the PATH of commands: the system's own directories, so that
// tools installed elsewhere by a user are not run as root.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ExitError says with what a command on a host ended.
type ExitError struct {
	Program string
	Status  int // exit status; 128+n for signal n
}

func (e *ExitError) Error() string {
	if e.Status > 128 {
		return fmt.Sprintf("killed by signal %d (%v)", e.Status-128, syscall.Signal(e.Status-128))
	}
	return "exit status " + strconv.Itoa(e.Status)
}

// Local is this machine. Commands run directly where this process is root and
// through `sudo -n` where it is not.
type Local struct {
	// Grace is how long a cancelled command may take to clean up before it is
	// killed. If 0, 10 s: disk-image-create heeds a signal only when the
	// package manager that it runs has come to its end.
	Grace time.Duration
}

// Run implements [Host]. The command runs in a session of its own: a terminal's
// Ctrl-C reaches this process only, which then ends the command in order. It
// gets SIGTERM when this process dies, a build SIGKILL, unless it runs through
// sudo: then it goes on, and the next build in its work directory ends it.
func (l Local) Run(ctx context.Context, c Command) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(c.Args) == 0 {
		return errors.New("cannot run a command without Args")
	}
	env := c.Env
	if env == nil {
		env = []string{"PATH=" + DefaultPath}
	}
	argv := c.Args
	root := os.Geteuid() == 0
	death := syscall.SIGTERM
	if c.WorkDir != "" {
		program, err := lookPath(argv[0])
		if err != nil {
			return fmt.Errorf("cannot run %s: %w", argv[0], err)
		}
		argv = isolate.Run(c.WorkDir, append([]string{program}, argv[1:]...))
		death = syscall.SIGKILL // unshare heeds no other
	}
	if !root {
		argv = append(append([]string{"/usr/bin/sudo", "-n", "env", "-i"}, env...), argv...)
	}
	program, err := lookPath(argv[0])
	if err != nil {
		return fmt.Errorf("cannot run %s: %w", argv[0], err)
	}
	cmd := exec.Command(program, argv[1:]...) // cancelled below, since what to signal depends on root
	cmd.Args[0] = argv[0]
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, c.Stdin, c.Stdout, c.Stderr
	cmd.WaitDelay = 10 * time.Second // for output of a grandchild that got away
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: death}

	// The parent-death signal is bound to the thread that forks, so the thread
	// is kept until the command has ended.
	started := make(chan error, 1)
	var waitErr error
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			waitErr = cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("cannot run %s: %w", c.Args[0], err)
	}
	select {
	case <-ended:
	case <-ctx.Done():
		pid := cmd.Process.Pid
		leader := pid
		if c.WorkDir != "" {
			if leader, err = buildLeader(c.WorkDir); err != nil {
				leader = pid // it has not begun
			}
		}
		signal(root, syscall.SIGTERM, leader)
		grace := l.Grace
		if grace == 0 {
			grace = 10 * time.Second
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-ended:
		case <-timer.C:
			if c.WorkDir != "" {
				if leader, err = buildLeader(c.WorkDir); err == nil {
					signal(root, syscall.SIGKILL, leader)
				}
			}
			signal(root, syscall.SIGKILL, -pid)
			<-ended
		}
		return ctx.Err()
	}
	return exitError(c.Args[0], waitErr)
}

// buildLeader is the PID of the first process of a build's namespace.
func buildLeader(workDir string) (int, error) {
	record, err := os.ReadFile(isolate.Record(workDir))
	if err != nil {
		return 0, err
	}
	return isolate.Leader(record)
}

func exitError(program string, err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return fmt.Errorf("cannot run %s: %w", program, err)
		}
		return nil
	}
	status := exit.ExitCode()
	if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		status = 128 + int(w.Signal())
	}
	return &ExitError{Program: program, Status: status}
}

// signal sends a signal to a command that may belong to root.
func signal(root bool, sig syscall.Signal, pid int) {
	if root {
		_ = syscall.Kill(pid, sig) // gone already is as good
		return
	}
	_ = exec.Command("/usr/bin/sudo", "-n", "kill", "-"+strconv.Itoa(int(sig)), "--", strconv.Itoa(pid)).Run()
}

// lookPath finds a program in DefaultPath.
func lookPath(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range filepath.SplitList(DefaultPath) {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w in %s", exec.ErrNotFound, DefaultPath)
}

// Upload implements [Host].
func (Local) Upload(ctx context.Context, dir string, fsys fs.FS) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return uploadtree.Walk(ctx, fsys, localTree{root})
}

// localTree writes below a directory, and through no link out of it.
type localTree struct{ root *os.Root }

func (t localTree) Dir(name string) error { return t.root.MkdirAll(name, 0o755) }

func (t localTree) Link(target, name string) error {
	if err := t.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return t.root.Symlink(target, name)
}

func (t localTree) File(name string, mode fs.FileMode, content io.Reader) error {
	dst, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, content)
	return errors.Join(err, dst.Chmod(mode), dst.Close()) // whatever the umask
}

// Download implements [Host].
func (Local) Download(ctx context.Context, path string, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, uploadtree.Reader{Ctx: ctx, R: f})
	return err
}
