package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

// A Command is a program that is given messages.
type Command struct {
	// Args are the program and its arguments. Required.
	Args []string
	// Timeout is how long it may take; if zero, a minute.
	Timeout time.Duration
}

const (
	maxTail = 1 << 10
	grace   = 5 * time.Second
)

// Run gives the program the message, and waits for its end.
func (c *Command) Run(ctx context.Context, m Message) error {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return errors.New("cannot run a command: it is empty")
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(limited, c.Args[0], c.Args[1:]...)
	cmd.Stdin = bytes.NewReader(m.Body)
	output := &tail{}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	if cmd.Process != nil && limited.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what SIGTERM has left running
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case limited.Err() != nil:
		err = fmt.Errorf("it did not end within %v", timeout)
	case err == nil:
		return nil
	}
	if text := output.String(); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return fmt.Errorf("cannot run the command %s: %w", filepath.Base(c.Args[0]), err)
}

// tail keeps the end of what is written.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if cut := len(t.data) - maxTail; cut > 0 {
		t.data = append([]byte(nil), t.data[cut:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return visible.Line(strings.Join(strings.Fields(strings.ToValidUTF8(string(t.data), "")), " "))
}
