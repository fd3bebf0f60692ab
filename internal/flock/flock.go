// Package flock locks a directory among processes with flock(2).
package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// poll is how often a lock that somebody else holds is tried.
const poll = 100 * time.Millisecond

// Dir opens the directory named "." in root and waits until it has its lock.
// Closing the file, and so the end of the process, frees it. Before it waits for
// another holder it calls waiting once, if that is not nil. It ends early with
// ctx. The error is [errors.ErrUnsupported] where the system has no flock.
func Dir(ctx context.Context, root *os.Root, waiting func()) (*os.File, error) {
	f, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	for {
		ok, err := try(f)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if ok {
			return f, nil
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			_ = f.Close() // which cannot lose data
			return nil, fmt.Errorf("another run holds the lock: %w", ctx.Err())
		case <-time.After(poll):
		}
	}
}

// Try takes the lock of an open file or directory, unless another open file has it.
// Closing f, and so the end of the process, frees it. The error is
// [errors.ErrUnsupported] where the system has no flock.
func Try(f *os.File) (bool, error) { return try(f) }
