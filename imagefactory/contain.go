package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// PanicError says that something that the caller handed to the factory, such as
// a driver, a target or a callback, panicked or ended its goroutine with
// runtime.Goexit. That fails the image that it was called for, and no other.
type PanicError struct {
	Driver string // what it was, such as "builder dib"
	Call   string // what it was called for, such as "Build"
	Value  any    // what panic was given
	Stack  []byte // of its goroutine. It is logged and not part of the text.
}

func (e *PanicError) Error() string {
	driver := e.Driver
	if driver == "" {
		driver = "a driver"
	}
	if e.Call != "" {
		driver += ": " + e.Call
	}
	return fmt.Sprintf("%s panicked: %s", driver, oneLine(fmt.Sprint(e.Value)))
}

// Unwrap returns what panic was given if that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

var (
	// errGoexit is the Value of a call that neither returned nor panicked.
	errGoexit = errors.New("it ended its goroutine")
	// errNothing says that a call returned neither an error nor what it is for.
	errNothing = errors.New("returned neither a result nor an error")
)

// contain calls what somebody else wrote and makes its panic a *PanicError. It
// calls it in a goroutine of its own, which is all that runtime.Goexit ends. A
// goroutine that f has started is beyond its reach, as is os.Exit.
func contain(log *slog.Logger, driver, call string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		returned := false
		defer func() {
			v := recover()
			if returned {
				return
			}
			if v == nil {
				v = errGoexit
			}
			if err, ok := v.(error); ok && !canRead(err) {
				v = fmt.Sprintf("%T", err)
			}
			done <- &PanicError{Driver: driver, Call: call, Value: v, Stack: debug.Stack()}
		}()
		err := f()
		if err != nil {
			read(err)
		}
		returned = true
		done <- err
	}()
	err := <-done
	if p, ok := err.(*PanicError); ok && p.Driver == driver && p.Call == call { //nolint:errorlint // only what was made here
		log.Error("panic", "driver", driver, "call", call, "value", oneLine(fmt.Sprint(p.Value)), "stack", string(p.Stack))
	}
	return err
}

// read does with an error what will be done with it. It is somebody else's code
// too, and may panic: such as a nil pointer in an interface.
func read(err error) {
	_ = err.Error()
	_ = errors.Is(err, errGoexit)
	var p *PanicError
	_ = errors.As(err, &p)
}

func canRead(err error) (ok bool) {
	defer func() { _ = recover() }()
	read(err)
	return true
}

// isFault reports whether err is a driver's own fault and says nothing of what
// it was given.
func isFault(err error) bool {
	var p *PanicError
	return errors.As(err, &p) || errors.Is(err, errNothing)
}

// interrupted says that err, which may be nil, came when ctx had ended, with
// ctx's error and its cause where err does not tell of them.
func interrupted(ctx context.Context, err error) error {
	for _, why := range []error{context.Cause(ctx), ctx.Err()} {
		switch {
		case err == nil:
			err = why
		case !errors.Is(err, why):
			err = fmt.Errorf("%w: %w", why, err)
		}
	}
	return fmt.Errorf("interrupted: %w", err)
}

// quietLog is a log handler whose panics are not the images' matter.
type quietLog struct{ slog.Handler }

func (q quietLog) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	defer func() { _ = recover() }()
	return q.Handler.Enabled(ctx, level)
}

func (q quietLog) Handle(ctx context.Context, r slog.Record) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the log handler panicked: %v", v)
		}
	}()
	return q.Handler.Handle(ctx, r)
}

func (q quietLog) WithAttrs(attrs []slog.Attr) (h slog.Handler) {
	defer func() {
		if recover() != nil {
			h = slog.DiscardHandler
		}
	}()
	return quietLog{q.Handler.WithAttrs(attrs)}
}

func (q quietLog) WithGroup(name string) (h slog.Handler) {
	defer func() {
		if recover() != nil {
			h = slog.DiscardHandler
		}
	}()
	return quietLog{q.Handler.WithGroup(name)}
}
