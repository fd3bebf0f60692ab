package sandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/internal/flock"
)

// workDirPrefix begins the names of directories that hold a machine's files while it runs.
const workDirPrefix = "imagefactory-"

// lockName is a file in each of them, which is locked until the program that made it has
// removed it, or has ended in another way.
const lockName = "lock"

// newWorkDir makes a directory for the files of one machine, below parent, and removes
// those that programs left there which were killed. Of a machine that runs, nothing is touched.
// The caller calls remove, which may be called more than once.
func newWorkDir(parent, kind string, logger *slog.Logger) (dir string, remove func() error, err error) {
	if parent == "" {
		parent = os.TempDir()
	}
	prefix := workDirPrefix + kind + "-"
	sweep(parent, prefix, logger)
	for range 10 { // another program may sweep what is not locked yet
		dir, err = os.MkdirTemp(parent, prefix)
		if err != nil {
			return "", nil, err
		}
		lock, err := lockDir(dir)
		if err == nil {
			return dir, sync.OnceValue(func() error { return errors.Join(removeDir(dir), lock.Close()) }), nil
		}
		if rerr := os.RemoveAll(dir); !errors.Is(err, errSwept) {
			return "", nil, errors.Join(err, rerr)
		}
	}
	return "", nil, fmt.Errorf("cannot make a directory in %s: %w each time", parent, errSwept)
}

var errSwept = errors.New("another program removed it")

// lockDir makes the lock of a new directory.
func lockDir(dir string) (_ *os.File, err error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errSwept
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	ours, err := flock.Try(lock)
	if errors.Is(err, errors.ErrUnsupported) {
		return lock, os.Remove(lock.Name()) // nothing is swept then
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(lock.Name()); err != nil || !ours {
		return nil, errSwept
	}
	return lock, nil
}

// sweep removes the directories below parent that nobody holds any more. Others'
// may lie there, and cannot be removed: it is no error.
func sweep(parent, prefix string, logger *slog.Logger) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if dir := filepath.Join(parent, e.Name()); e.IsDir() && strings.HasPrefix(e.Name(), prefix) && sweepDir(dir) {
			logger.Info("removed what a killed program left", "directory", dir)
		}
	}
}

// sweepDir removes a directory, if the one who made it has ended, and says whether it did.
// One without a lock is just being made, unless it is empty: its maker notices then.
func sweepDir(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return false
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return os.Remove(dir) == nil
	}
	if err != nil {
		return false
	}
	defer lock.Close()
	free, err := flock.Try(lock)
	return err == nil && free && removeDir(dir) == nil
}

// removeDir removes a directory, its lock last: whoever is killed meanwhile leaves
// something to be swept.
func removeDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if e.Name() != lockName {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
