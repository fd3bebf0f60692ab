package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Bounds of the files of a release that are read whole, in bytes.
const (
	maxSums  = 32 << 20
	maxIndex = 1 << 20
)

// What is published is for everybody to read, also under a strict umask.
const (
	fileMode = 0o644
	dirMode  = 0o755
)

// imageDir is the directory of one image.
type imageDir struct {
	*os.Root
	name string // the image's name
	path string // for errors
}

// open opens the image's directory, which must be one.
func (t *Target) open(image string) (*imageDir, error) {
	if err := t.check(image); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	d := &imageDir{name: image, path: filepath.Join(t.Dir, image)}
	info, err := root.Lstat(image)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", d.path)
	}
	d.Root, err = root.OpenRoot(image)
	return d, err
}

func (t *Target) check(image string) error {
	if t.Dir == "" {
		return errors.New("the target has no Dir")
	}
	return publish.CheckImage(image)
}

// create opens the image's directory and makes it if needed.
func (t *Target) create(image string) (*imageDir, error) {
	if err := t.check(image); err != nil {
		return nil, err
	}
	if err := makeDir(t.Dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	switch err := root.Mkdir(image, dirMode); {
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		return nil, err
	default:
		if err := errors.Join(root.Chmod(image, dirMode), syncDir(root, ".")); err != nil {
			return nil, err
		}
	}
	return t.open(image)
}

// makeDir is os.MkdirAll without the umask.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := filepath.Dir(filepath.Clean(dir)); parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, dirMode)
	if errors.Is(err, fs.ErrExist) {
		return nil // another run was faster
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, dirMode)
}

var labels = []publish.Label{publish.Latest, publish.Prev}

// list returns the releases. It reads the labels first: a run that publishes
// meanwhile moves them only to what is there by then.
func (d *imageDir) list() ([]publish.Entry, error) {
	builds := make([]publish.BuildID, len(labels))
	for i, label := range labels {
		builds[i], _ = d.labelled(label) // what leads elsewhere labels nothing
	}
	fates, err := d.lifecycle()
	if err != nil {
		return nil, err
	}
	dirents, err := fs.ReadDir(d.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	var entries []publish.Entry
	for _, dirent := range dirents {
		build, err := publish.ParseBuildID(dirent.Name())
		if err != nil {
			continue
		}
		e := d.entry(build)
		for i, label := range labels {
			if builds[i] == build {
				e.Labels = append(e.Labels, label)
			}
		}
		fate := fates[build.String()]
		e.Withdrawn = fate.Withdrawn
		if fate.LabelLost != nil && len(e.Labels) == 0 {
			e.LabelLost = *fate.LabelLost
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// entry returns the release of the build as it stands in its directory.
func (d *imageDir) entry(build publish.BuildID) publish.Entry {
	e := publish.Entry{ID: d.name + "/" + build.String(), Image: d.name, Build: build}
	if info, err := d.Lstat(build.String()); err != nil || !info.IsDir() {
		e.Problem = "it is not a directory"
		return e
	}
	c, err := d.look(build)
	e.Digest = c.digest
	if err != nil {
		e.Problem = err.Error()
	}
	return e
}

// labelled returns the build that the label points to, or none where there is no
// label. The error says why it is not a label, and what to do.
func (d *imageDir) labelled(label publish.Label) (publish.BuildID, error) {
	path := filepath.Join(d.path, string(label))
	info, err := d.Lstat(string(label))
	if errors.Is(err, fs.ErrNotExist) {
		return publish.BuildID{}, nil
	}
	if err != nil {
		return publish.BuildID{}, fmt.Errorf("%s: %w", d.path, err)
	}
	if info.Mode().Type() != fs.ModeSymlink {
		return publish.BuildID{}, fmt.Errorf("%s is not a symbolic link; move it away and publish again", path)
	}
	to, err := d.Readlink(string(label))
	if err != nil {
		return publish.BuildID{}, fmt.Errorf("%s: %w", d.path, err)
	}
	build, err := publish.ParseBuildID(to)
	if err != nil {
		return publish.BuildID{}, &strayLabelError{path: path, to: to}
	}
	return build, nil
}

// strayLabelError is that a label is a link, but not to a build beside it. To
// assign the label replaces it.
type strayLabelError struct{ path, to string }

func (e *strayLabelError) Error() string {
	return fmt.Sprintf("%s points to %.300q, which is not a build beside it", e.path, e.to)
}

// assign lets the label point to the build, if that is what its checksums say.
func (d *imageDir) assign(ctx context.Context, label publish.Label, build publish.BuildID, now time.Time) error {
	if !slices.Contains(labels, label) {
		return fmt.Errorf("label %q is unknown", label)
	}
	// What is there may be replaced if it is a link.
	was, err := d.labelled(label)
	var stray *strayLabelError
	if err != nil && !errors.As(err, &stray) || was == build {
		return err
	}
	if err := d.compare(ctx, build); err != nil {
		return err
	}
	if err := d.recordLoss(was, label, now); err != nil {
		return err
	}
	temp, err := d.free(tempPrefix + string(label))
	if err == nil {
		err = d.Symlink(build.String(), temp)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	if err := d.Rename(temp, string(label)); err != nil {
		return fmt.Errorf("%s: %w", d.path, errors.Join(err, d.Remove(temp)))
	}
	return syncDir(d.Root, ".")
}

// recordLoss records that the build is about to lose the label, if that is its
// last. Before, so that it is not forgotten: while it has the label, nobody asks.
func (d *imageDir) recordLoss(build publish.BuildID, label publish.Label, now time.Time) error {
	if _, err := d.Lstat(build.String()); build.IsZero() || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, l := range labels {
		if other, _ := d.labelled(l); l != label && other == build {
			return nil
		}
	}
	now = now.UTC().Truncate(time.Second)
	return d.record(build, func(f *fate) { f.LabelLost = &now })
}

// delete removes the build. It takes its name first, so that at no time there
// is a part of a release under the name of a whole one.
func (d *imageDir) delete(build publish.BuildID) error {
	for _, label := range labels {
		if b, _ := d.labelled(label); b == build {
			return fmt.Errorf("%s is %s", filepath.Join(d.path, build.String()), label)
		}
	}
	temp, err := d.free(tempPrefix + build.String())
	if err == nil {
		err = d.Rename(build.String(), temp)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	if err := syncDir(d.Root, "."); err != nil {
		return err
	}
	if err := d.RemoveAll(temp); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	return d.record(build, func(f *fate) { f.LabelLost = nil })
}

// sweep removes what killed runs left. What cannot be removed hinders nobody:
// see free.
func (d *imageDir) sweep() error {
	dirents, err := fs.ReadDir(d.FS(), ".")
	if err != nil {
		return err
	}
	var errs []error
	for _, dirent := range dirents {
		if strings.HasPrefix(dirent.Name(), tempPrefix) {
			errs = append(errs, d.RemoveAll(dirent.Name()))
		}
	}
	return errors.Join(errs...)
}

// free returns the name, or where a leftover has it, one with a number.
func (d *imageDir) free(name string) (string, error) {
	const most = 1000
	for n := range most {
		try := name
		if n > 0 {
			try = fmt.Sprintf("%s.%d", name, n)
		}
		if _, err := d.Lstat(try); errors.Is(err, fs.ErrNotExist) {
			return try, nil
		}
	}
	return "", fmt.Errorf("%s: %d leftovers that could not be removed have the name", filepath.Join(d.path, name), most)
}

// fill copies the release's files into the new directory named temp.
func (d *imageDir) fill(ctx context.Context, temp string, r *publish.Release) error {
	buf := make([]byte, 1<<20)
	for _, f := range r.Files {
		if err := d.copy(ctx, filepath.Join(temp, f.Name), r, f.Name, buf); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return syncDir(d.Root, temp)
}

// repair makes the build's directory the release, unless it holds another one.
// Files that differ are copied beside it and renamed in their place one by one,
// so that none is ever worse than it was.
func (d *imageDir) repair(ctx context.Context, r *publish.Release) (err error) {
	build := r.Index.Build
	c, problem := d.readContent(build)
	if c.digest != r.Digest && c.rightly {
		if problem == nil {
			_, problem = d.look(build)
		}
		if problem != nil {
			problem = fmt.Errorf("which is damaged too: %w; remove it to publish this one", problem)
		}
		return errors.Join(fmt.Errorf("%s/%s: %w", d.name, build, publish.ErrConflict), problem)
	}

	var temp string
	defer func() {
		if temp != "" {
			err = errors.Join(err, d.RemoveAll(temp))
		}
	}()
	buf := make([]byte, 1<<20)
	for _, f := range r.Files {
		name := filepath.Join(build.String(), f.Name)
		if same, err := d.same(ctx, name, f.SHA256); same || ctx.Err() != nil {
			if err != nil {
				return err
			}
			continue
		}
		if temp == "" {
			if temp, err = d.makeTemp(build.String()); err != nil {
				return err
			}
		}
		beside := filepath.Join(temp, f.Name)
		if err := d.copy(ctx, beside, r, f.Name, buf); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		if info, err := d.Lstat(name); err == nil && info.IsDir() {
			return fmt.Errorf("%s is a directory; move it away and publish again", filepath.Join(d.path, name))
		}
		if err := d.Rename(beside, name); err != nil {
			return err
		}
	}
	if temp == "" {
		return nil
	}
	return syncDir(d.Root, build.String())
}

// makeTemp makes a directory for what is not finished.
func (d *imageDir) makeTemp(name string) (string, error) {
	temp, err := d.free(tempPrefix + name)
	if err == nil {
		err = d.Mkdir(temp, dirMode)
	}
	if err == nil {
		err = d.Chmod(temp, dirMode)
	}
	return temp, err
}

// copy copies the release's file named from. What is read is compared with the
// release's digests as it is read.
func (d *imageDir) copy(ctx context.Context, to string, r *publish.Release, from string, buf []byte) (err error) {
	src, err := r.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := d.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if err := dst.Chmod(fileMode); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return dst.Sync()
		}
		if err != nil {
			return err
		}
	}
}

// syncDir makes the names in a directory durable.
func syncDir(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
