package sshhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// job is a command that runs on the host.
type job struct {
	host   *Host
	dir    string
	record string // of a build's work directory
}

func (j job) file(name string) string { return path.Join(j.dir, name) }

// run starts the command and follows it to its end.
func (j job) run(ctx context.Context, c builder.Command, argv []string) (status int, err error) {
	if c.Stdin != nil {
		if err := j.send(ctx, c.Stdin); err != nil {
			return 0, fmt.Errorf("cannot send its input: %w", err)
		}
	}
	if err := j.host.script(ctx, startScript, append([]string{j.dir}, argv...)...); err != nil {
		return 0, err
	}
	return j.follow(ctx, &resumed{w: c.Stdout}, &resumed{w: c.Stderr})
}

// send writes the command's whole input to the host.
func (j job) send(ctx context.Context, r io.Reader) error {
	buf := make([]byte, 1<<18)
	for at := int64(0); ; {
		n, readErr := io.ReadFull(r, buf)
		if n > 0 {
			err := j.host.do(ctx, func(c *connection) error {
				f, err := c.sftp.OpenFile(j.file("stdin"), writeOnly)
				if err != nil {
					return err
				}
				_, err = f.WriteAt(buf[:n], at)
				return errors.Join(err, f.Close())
			})
			if err != nil {
				return err
			}
			at += int64(n)
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

// follow passes the command's output on until it has ended.
func (j job) follow(ctx context.Context, stdout, stderr *resumed) (status int, err error) {
	const shortest, longest, patience = 20 * time.Millisecond, time.Second, 10 * time.Second
	wait, checked := shortest, time.Now()
	for {
		var ended bool
		var copied int64
		err := j.host.do(ctx, func(c *connection) (err error) {
			// The status first: what was written before it is complete.
			if status, ended, err = readStatus(c.sftp, j.file("status")); err != nil {
				return err
			}
			for name, out := range map[string]*resumed{"stdout": stdout, "stderr": stderr} {
				n, err := out.copy(c.sftp, j.file(name))
				copied += n
				if err != nil && !errors.Is(err, fs.ErrNotExist) { // the supervisor has just begun
					return err
				}
			}
			return nil
		})
		if err != nil || ended {
			return status, err
		}
		if time.Since(checked) > patience {
			if err := j.host.script(ctx, aliveScript, j.dir); err != nil {
				return 0, fmt.Errorf("its supervisor on the host is gone: was the host restarted? (%w)", err)
			}
			checked = time.Now()
		}
		if wait = min(2*wait, longest); copied > 0 {
			wait = shortest
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func readStatus(c *sftp.Client, name string) (status int, ended bool, err error) {
	f, err := c.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 16))
	if err != nil {
		return 0, false, err
	}
	status, err = strconv.Atoi(strings.TrimSpace(string(data)))
	return status, err == nil, err
}

// remove removes the command's files. What is left for lack of a connection goes
// when it is a week old.
func (j job) remove(ctx context.Context) {
	_ = j.host.script(ctx, `rm -rf -- "$1"`, j.dir)
}

// resumed copies a growing file of the host, from where it has come to. A nil
// writer discards it.
type resumed struct {
	w  io.Writer
	at int64
}

// copy copies what there is. The writer's error is a *writeError.
func (r *resumed) copy(c *sftp.Client, name string) (n int64, err error) {
	if r.w == nil {
		return 0, nil
	}
	f, err := c.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.Seek(r.at, io.SeekStart); err != nil {
		return 0, err
	}
	return f.WriteTo(r)
}

// Write implements [io.Writer].
func (r *resumed) Write(p []byte) (int, error) {
	n, err := r.w.Write(p)
	r.at += int64(n)
	if err != nil {
		return n, &writeError{err}
	}
	return n, nil
}

// writeError is one of the caller's writer, which no new connection mends.
type writeError struct{ err error }

func (e *writeError) Error() string { return "cannot pass its output on: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }
