package sandbox

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A process is a running QEMU. It does not outlive this program, not even one
// that is killed, where the system can see to that (Linux).
type process struct {
	pid    int
	stderr *tailBuffer
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	err    error         // how it ended; read only after done
}

// startProcess starts QEMU with its standard output going to console and the files,
// which it closes here, as its descriptors from 3.
func startProcess(binary string, args []string, console io.Writer, files ...*os.File) (*process, error) {
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	p := &process{stderr: &tailBuffer{}, cmd: exec.Command(binary, args...), done: make(chan struct{})} //nolint:gosec // by argv
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = console, p.stderr, files
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is ours to handle
	diesWithParent(p.cmd.SysProcAttr)
	started := make(chan error)
	go func() {
		// The kernel takes the end of the starting thread for the end of the
		// parent, so that thread is kept until QEMU has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = p.cmd.Process.Pid
		started <- nil
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start QEMU: %w", err)
	}
	return p, nil
}

// ended returns why QEMU ended, or nil while it runs.
func (p *process) ended() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	text := p.stderr.String()
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	if text != "" {
		how += ": " + text
	}
	return fmt.Errorf("%w: %s", ErrDied, how)
}

// stopPatience is how long QEMU may take to end by itself. It has nothing to
// save: its disk is thrown away.
const stopPatience = 10 * time.Second

// stop ends QEMU and waits until it has ended.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(stopPatience):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// tailBuffer keeps the last bytes of what QEMU says.
type tailBuffer struct {
	mu  sync.Mutex
	buf []byte
}

const maxStderr = 2 << 10

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - maxStderr; over > 0 {
		t.buf = append([]byte(nil), t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(t.buf), "?")), " ")
}
