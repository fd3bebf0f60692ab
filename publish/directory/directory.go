// Package directory publishes releases in a download directory, which a web
// server can serve as it is:
//
//	DIR/Standard_Debian_12/20261121-031502/            a release
//	DIR/Standard_Debian_12/20261122-031507/            the next one
//	DIR/Standard_Debian_12/latest -> 20261122-031507   relative symbolic links
//	DIR/Standard_Debian_12/prev -> 20261121-031502
//
// A release directory appears by one rename when all its files are written,
// compared with their digests and synced, and a link changes by one rename. So
// who reads the directory sees the state before a step or the one after it,
// also after a crash of the machine.
//
// Releases are copied, not moved: the source stays as it is, and after a crash
// the next run has it still. That takes the room for a second copy until the
// caller removes the source.
//
// # Security
//
// The directory's content is not trusted. No path leaves it: what is a link
// and should be a directory, the reverse, and links that point elsewhere are
// errors that name the path, and nothing is changed.
//
// # Limits
//
// Names that start with ".publish-" in an image's directory are the package's
// own: temporary, and removed by the next run if one was killed. Files get the
// modes that the process's umask leaves of 0644, directories of 0755. The lock
// is flock(2) on the image's directory, which needs a Unix system and, on
// network file systems, a server that has it.
package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// tempPrefix begins the names of what is not finished.
const tempPrefix = ".publish-"

// lockPoll is how often a lock that another run holds is tried.
const lockPoll = 100 * time.Millisecond

// Target is a download directory. It implements [publish.Target] and
// [publish.Locker] and may be used concurrently.
type Target struct {
	// Dir is the directory's path. It is made when something is published.
	Dir string
}

// List implements [publish.Target]. An entry's ID is NAME/BUILD.
func (t *Target) List(_ context.Context, image string) ([]publish.Entry, error) {
	d, err := t.open(image)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list releases: %w", err)
	}
	defer d.Close()
	entries, err := d.list()
	if err != nil {
		return nil, fmt.Errorf("cannot list releases: %w", err)
	}
	return entries, nil
}

// Push implements [publish.Target].
func (t *Target) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	e, err := t.push(ctx, r)
	if err != nil {
		return e, fmt.Errorf("cannot copy release to %s: %w", t.Dir, err)
	}
	return e, nil
}

func (t *Target) push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	d, err := t.create(r.Index.Image)
	if err != nil {
		return publish.Entry{}, err
	}
	defer d.Close()
	have, err := d.list()
	if err != nil {
		return publish.Entry{}, err
	}
	for _, e := range have {
		if e.Build == r.Index.Build {
			if e.Digest != r.Digest {
				return e, fmt.Errorf("%s: %w", e.ID, publish.ErrConflict)
			}
			return e, nil
		}
	}

	build := r.Index.Build.String()
	temp := tempPrefix + build
	if err := d.Mkdir(temp, 0o755); err != nil {
		return publish.Entry{}, err
	}
	if err := d.fill(ctx, temp, r); err != nil {
		return publish.Entry{}, errors.Join(err, d.RemoveAll(temp))
	}
	if err := d.Rename(temp, build); err != nil {
		return publish.Entry{}, errors.Join(err, d.RemoveAll(temp))
	}
	if err := syncDir(d.Root, "."); err != nil {
		return publish.Entry{}, err
	}
	return d.entry(r.Index.Build)
}

// Apply implements [publish.Target].
func (t *Target) Apply(_ context.Context, s publish.Step) error {
	if s.Entry.Build.IsZero() {
		return errors.New("the step names no build")
	}
	d, err := t.open(s.Entry.Image)
	if err != nil {
		return err
	}
	defer d.Close()
	switch s.Op {
	case publish.Assign:
		return d.assign(s.Label, s.Entry.Build)
	case publish.Remove:
		return d.delete(s.Entry.Build)
	default:
		return fmt.Errorf("a directory has no step %q", s.Op)
	}
}

// Lock implements [publish.Locker]. With the lock it removes what killed runs
// left unfinished.
func (t *Target) Lock(ctx context.Context, image string) (func(), error) {
	d, err := t.create(image)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", filepath.Join(t.Dir, image), err)
	}
	defer d.Close()
	f, err := d.Open(".")
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", d.path, err)
	}
	for {
		ok, err := tryLock(f)
		if err == nil && ok {
			err = d.sweep()
		}
		if err != nil {
			return nil, fmt.Errorf("cannot lock %s: %w", d.path, errors.Join(err, f.Close()))
		}
		if ok {
			return func() { _ = f.Close() }, nil // which cannot lose data
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("cannot lock %s, which another run holds: %w", d.path, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}
