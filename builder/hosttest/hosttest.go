// Package hosttest tells whether a [builder.Host] keeps to its contract, by
// running real commands on it. It needs a Linux host with util-linux and GNU
// coreutils.
package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// Test reports everything in which host differs from what builder.Host says. dir
// is an absolute path on the host that does not exist: it is made, used and
// removed. It takes some seconds.
func Test(ctx context.Context, host builder.Host, dir string) error {
	t := tester{host, dir}
	var errs []error
	for _, check := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"streams", t.streams},
		{"environment", t.environment},
		{"arguments", t.arguments},
		{"exit status", t.status},
		{"cancelled command", t.cancelled},
		{"files", t.files},
		{"upload", t.refusedUploads},
		{"build", t.build},
		{"cancelled build", t.cancelledBuild},
		{"two builds", t.twoBuilds},
	} {
		if err := check.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", check.name, err))
		}
	}
	if _, err := t.output(ctx, "rm", "-rf", "--", dir); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

type tester struct {
	host builder.Host
	dir  string
}

func (t tester) output(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := t.host.Run(ctx, builder.Command{Args: args, Stdout: &out})
	return out.String(), err
}

func same(what string, got, want any) error {
	if g, w := fmt.Sprintf("%.200q", got), fmt.Sprintf("%.200q", want); g != w {
		return fmt.Errorf("%s is %s, want %s", what, g, w)
	}
	return nil
}

func (t tester) streams(ctx context.Context) error {
	data := bytes.Repeat([]byte("\x00\xff line\r\n"), 100_000)
	var out, msg bytes.Buffer
	err := t.host.Run(ctx, builder.Command{
		Args: []string{"sh", "-c", "cat; echo end >&2"}, Stdin: bytes.NewReader(data), Stdout: &out, Stderr: &msg,
	})
	if !bytes.Equal(out.Bytes(), data) {
		err = errors.Join(err, fmt.Errorf("%d bytes through cat came back as %d", len(data), out.Len()))
	}
	err = errors.Join(err, same("stderr", msg.String(), "end\n"))
	return errors.Join(err, t.host.Run(ctx, builder.Command{Args: []string{"sh", "-c", "echo x; echo y >&2"}})) // discarded
}

func (t tester) environment(ctx context.Context) error {
	out, err := t.output(ctx, "env")
	err = errors.Join(err, same("the environment", out, "PATH="+builder.DefaultPath+"\n"))
	var given bytes.Buffer
	want := []string{"A=b c'd", "E=", "PATH=/nowhere"}
	err = errors.Join(err, t.host.Run(ctx, builder.Command{Args: []string{"env"}, Env: want, Stdout: &given}))
	lines := strings.Split(strings.TrimSpace(given.String()), "\n")
	slices.Sort(lines)
	return errors.Join(err, same("the given environment", lines, want))
}

func (t tester) arguments(ctx context.Context) error {
	args := []string{"", " ", "'", `"`, `\`, "$HOME", "`id`", "$(id)", "a\nb", "*", "-n", "é", "!", ";"}
	out, err := t.output(ctx, append([]string{"printf", `%s\0`}, args...)...)
	return errors.Join(err, same("what printf got", strings.Split(strings.TrimSuffix(out, "\x00"), "\x00"), args))
}

func (t tester) status(ctx context.Context) error {
	var errs []error
	for script, want := range map[string]int{"exit 3": 3, "kill -TERM $$": 128 + 15, "kill -KILL $$": 128 + 9} {
		_, err := t.output(ctx, "sh", "-c", script)
		var exit *builder.ExitError
		if !errors.As(err, &exit) || exit.Status != want || exit.Program != "sh" {
			errs = append(errs, fmt.Errorf("after `%s` the error is %w, want an ExitError of sh with status %d", script, err, want))
		}
	}
	var exit *builder.ExitError
	if _, err := t.output(ctx, "no-such-program"); err == nil || errors.As(err, &exit) {
		errs = append(errs, fmt.Errorf("for a program that is not there the error is %w, want one that is no ExitError", err))
	}
	if err := t.host.Run(ctx, builder.Command{}); err == nil {
		errs = append(errs, errors.New("a command without Args is no error"))
	}
	return errors.Join(errs...)
}

// cancelled ends a command that ignores SIGTERM and has a child.
func (t tester) cancelled(ctx context.Context) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := t.output(ended, "true"); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("with an ended context the error is %w", err)
	}
	return t.cancelOnOutput(ctx, builder.Command{Args: []string{"sh", "-c", `trap "" TERM; sleep 1000 & echo $$ $!; wait; wait; sleep 1000`}}, true)
}

// cancelOnOutput cancels a command when it has written a line of PIDs, none of
// which may run afterwards.
func (t tester) cancelOnOutput(ctx context.Context, c builder.Command, hostPIDs bool) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	var line bytes.Buffer
	c.Stdout = writerFunc(func(p []byte) (int, error) {
		line.Write(p)
		if bytes.Contains(p, []byte("\n")) {
			cancel()
		}
		return len(p), nil
	})
	if err := t.host.Run(running, c); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the error of a cancelled command is %w", err)
	}
	if !hostPIDs {
		return nil
	}
	for _, pid := range strings.Fields(line.String()) {
		if err := t.eventually(ctx, "process "+pid+" still runs", "sh", "-c", `! grep -qs "^State:[[:space:]]*[^ZX]" "/proc/$1/status"`, "sh", pid); err != nil {
			return err
		}
	}
	return nil
}

// eventually waits until a command ends well.
func (t tester) eventually(ctx context.Context, otherwise string, args ...string) error {
	for range 100 {
		if _, err := t.output(ctx, args...); err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return errors.New(otherwise)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (t tester) files(ctx context.Context) error {
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	tree := fstest.MapFS{
		"hook.d/10-x": {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
		"empty":       {Mode: 0o600},
		"large":       {Data: large, Mode: 0o444},
		"link":        {Data: []byte("hook.d/10-x"), Mode: 0o777 | fs.ModeSymlink},
		"hook.d/up":   {Data: []byte("../large"), Mode: 0o777 | fs.ModeSymlink},
	}
	dir := path.Join(t.dir, "new", "tree")
	for range 2 { // the second replaces the first
		if err := t.host.Upload(ctx, dir, tree); err != nil {
			return err
		}
	}
	list, err := t.output(ctx, "find", dir, "-mindepth", "1", "-printf", `%P %y %m %s [%l]\n`)
	lines := strings.Split(strings.TrimSpace(list), "\n")
	slices.Sort(lines)
	want := []string{"empty f 600 0 []", "hook.d/10-x f 755 10 []", "hook.d/up l 777 8 [../large]", "large f 644 1048576 []", "link l 777 11 [hook.d/10-x]"}
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "hook.d d 755 ") })
	err = errors.Join(err, same("the uploaded tree", lines, want))
	var got bytes.Buffer
	err = errors.Join(err, t.host.Download(ctx, path.Join(dir, "hook.d", "up"), &got))
	if !bytes.Equal(got.Bytes(), large) {
		err = errors.Join(err, fmt.Errorf("a file of %d bytes was downloaded as %d", len(large), got.Len()))
	}
	if t.host.Download(ctx, path.Join(dir, "missing"), io.Discard) == nil {
		err = errors.Join(err, errors.New("downloading a file that is not there is no error"))
	}
	full := errors.New("full")
	if e := t.host.Download(ctx, path.Join(dir, "large"), writerFunc(func([]byte) (int, error) { return 0, full })); !errors.Is(e, full) {
		err = errors.Join(err, fmt.Errorf("a download's writer failed and the error is %w", e))
	}
	return err
}

func (t tester) refusedUploads(ctx context.Context) error {
	var errs []error
	for _, target := range []string{"/etc/passwd", "../x", "sub/../../x", "sub/../sub/hook"} {
		tree := fstest.MapFS{"sub/hook": {}, "link": {Data: []byte(target), Mode: 0o777 | fs.ModeSymlink}}
		if t.host.Upload(ctx, path.Join(t.dir, "refused"), tree) == nil {
			errs = append(errs, fmt.Errorf("a link to %s is uploaded", target))
		}
	}
	if t.host.Upload(ctx, path.Join(t.dir, "refused"), fstest.MapFS{"pipe": {Mode: fs.ModeNamedPipe}}) == nil {
		errs = append(errs, errors.New("a pipe is uploaded"))
	}
	return errors.Join(errs...)
}

// build leaves a process and a mount behind, of which nothing may remain.
func (t tester) build(ctx context.Context) error {
	work := path.Join(t.dir, "build")
	if err := builder.Claim(ctx, t.host, work); err != nil {
		return err
	}
	err := t.host.Run(ctx, builder.Command{
		Args: []string{"sh", "-c", `mkdir "$1/mnt" && mount -t tmpfs tmpfs "$1/mnt" || exit; setsid sleep 1000 & exit 7`, "sh", work},
		Env:  []string{"PATH=" + builder.DefaultPath, "BUILD=" + work}, WorkDir: work,
	})
	var exit *builder.ExitError
	if !errors.As(err, &exit) || exit.Status != 7 {
		err = fmt.Errorf("the error of a build that ended with 7 is %w", err)
	} else {
		err = nil
	}
	err = errors.Join(err, t.gone(ctx, work))
	err = errors.Join(err, builder.Cleanup(ctx, t.host, work))
	if _, e := t.output(ctx, "test", "!", "-e", work); e != nil {
		err = errors.Join(err, errors.New("the work directory is still there"))
	}
	if t.host.Run(ctx, builder.Command{Args: []string{"true"}, WorkDir: work}) == nil {
		err = errors.Join(err, errors.New("a build runs in a directory that was not claimed"))
	}
	return err
}

// gone looks for processes and mounts of a build on the host.
func (t tester) gone(ctx context.Context, work string) error {
	return errors.Join(
		t.eventually(ctx, "a process of a build still runs", "sh", "-c", `! grep -qszxF "BUILD=$1" /proc/[0-9]*/environ`, "sh", work),
		t.eventually(ctx, "a mount of a build is still there", "sh", "-c", `! grep -qsF " $1/" /proc/[0-9]*/mountinfo`, "sh", work))
}

func (t tester) cancelledBuild(ctx context.Context) error {
	work := path.Join(t.dir, "cancelled")
	if err := builder.Claim(ctx, t.host, work); err != nil {
		return err
	}
	err := t.cancelOnOutput(ctx, builder.Command{
		Args: []string{"sh", "-c", `trap "" TERM; setsid sleep 1000 & echo begun; while :; do sleep 1; done`},
		Env:  []string{"PATH=" + builder.DefaultPath, "BUILD=" + work}, WorkDir: work,
	}, false)
	return errors.Join(err, t.gone(ctx, work), builder.Cleanup(ctx, t.host, work))
}

// twoBuilds cleans one build up while another runs.
func (t tester) twoBuilds(ctx context.Context) error {
	first, second := path.Join(t.dir, "one"), path.Join(t.dir, "one-more")
	if err := errors.Join(builder.Claim(ctx, t.host, first), builder.Claim(ctx, t.host, second)); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- t.host.Run(ctx, builder.Command{Args: []string{"sh", "-c", `echo >"$1/begun"; while [ -e "$1/begun" ]; do sleep 0.1; done`, "sh", second}, WorkDir: second})
	}()
	err := t.eventually(ctx, "the second build does not begin", "test", "-e", path.Join(second, "begun"))
	err = errors.Join(err, builder.Cleanup(ctx, t.host, first))
	select {
	case e := <-ended:
		return fmt.Errorf("a build ended when another was cleaned up: %w", e)
	default:
	}
	_, e := t.output(ctx, "rm", "--", path.Join(second, "begun"))
	return errors.Join(err, e, <-ended, builder.Cleanup(ctx, t.host, second))
}
