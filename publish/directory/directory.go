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
// DIR/NAME/lifecycle.json records, by build, what the releases themselves cannot
// say: when one lost its last label, in UTC, and why one was withdrawn.
//
//	{
//	  "20261121-031502": {
//	    "label_lost": "2026-11-22T03:21:44Z",
//	    "withdrawn": "it does not boot on flavors with NVMe disks"
//	  }
//	}
//
// # What somebody else did to the directory
//
// A release is complete when the files that its SHA256SUMS lists are there with
// the sizes that its release.json says, and these two belong together; before it
// gets a label, all its content is compared with SHA256SUMS. What is not complete
// is listed with a Problem and repaired when the release is published again. A
// label that is missing, dangles or points elsewhere is set anew by the next
// publication. What is no release, and leftovers that cannot be removed, stay and
// hinder nobody. A file or directory in the place of a label or of a release is
// not replaced: the error says to move it away. Target.Verify finds all of it but
// what has no name of a release's. A file of which only the content changed is
// mended when it is removed and its release is published again.
//
// # Security
//
// The directory's content is not trusted. No path leaves it, links are not
// followed, and what is read whole is bounded.
//
// # Limits
//
// Names that start with ".publish-" in an image's directory are the package's
// own: temporary, and removed by the next run if one was killed. Files have the
// mode 0644 and directories 0755, whatever the umask. The lock is flock(2) on the
// image's directory, which needs a Unix system and, on network file systems, a
// server that has it.
package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/flock"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// tempPrefix begins the names of what is not finished.
const tempPrefix = ".publish-"

// Target is a download directory. It implements [publish.Target],
// [publish.Locker] and [publish.Source], and may be used concurrently.
type Target struct {
	// Dir is the directory's path. It is made when something is published.
	Dir string
	// Logger is told when a run waits for another one's lock, and what was left
	// by a killed run and cannot be removed. If nil, nobody is.
	Logger *slog.Logger
	// Now is the clock for when a release loses its last label. If nil, time.Now.
	Now func() time.Time
}

func (t *Target) now() time.Time {
	if t.Now == nil {
		return time.Now()
	}
	return t.Now()
}

func (t *Target) logger() *slog.Logger {
	if t.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Logger
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
	if err := ctx.Err(); err != nil {
		return publish.Entry{}, err
	}
	for _, label := range labels { // before the work is done
		var stray *strayLabelError
		if _, err := d.labelled(label); err != nil && !errors.As(err, &stray) {
			return publish.Entry{}, err
		}
	}
	build := r.Index.Build.String()
	switch info, err := d.Lstat(build); {
	case err == nil && info.IsDir():
		if err := d.repair(ctx, r); err != nil {
			return publish.Entry{}, err
		}
		return d.entry(r.Index.Build), nil
	case err == nil:
		return publish.Entry{}, fmt.Errorf("%s is not a directory; move it away and publish again", filepath.Join(d.path, build))
	case !errors.Is(err, fs.ErrNotExist):
		return publish.Entry{}, err
	}
	temp, err := d.makeTemp(build)
	if err != nil {
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
	return d.entry(r.Index.Build), nil
}

// Apply implements [publish.Target].
func (t *Target) Apply(ctx context.Context, s publish.Step) error {
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
		return d.assign(ctx, s.Label, s.Entry.Build, t.now())
	case publish.MarkWithdrawn:
		return d.record(s.Entry.Build, func(f *fate) { f.Withdrawn = s.Reason })
	case publish.ClearWithdrawn:
		return d.record(s.Entry.Build, func(f *fate) { f.Withdrawn = "" })
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
	f, err := flock.Dir(ctx, d.Root, func() {
		t.logger().InfoContext(ctx, "waiting for another run that publishes the image", "directory", d.path)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", d.path, err)
	}
	if err := d.sweep(); err != nil {
		t.logger().WarnContext(ctx, "cannot remove what a killed run left", "directory", d.path, "error", err)
	}
	return func() { _ = f.Close() }, nil // which cannot lose data
}
