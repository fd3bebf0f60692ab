package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// maxSums bounds the SHA256SUMS of a release, in bytes.
const maxSums = 32 << 20

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
	if err := os.MkdirAll(t.Dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	switch err := root.Mkdir(image, 0o755); {
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		return nil, err
	default:
		if err := syncDir(root, "."); err != nil {
			return nil, err
		}
	}
	return t.open(image)
}

// list returns the releases. It reads the labels first: a run that publishes
// meanwhile moves them only to what is there by then.
func (d *imageDir) list() ([]publish.Entry, error) {
	labels := []publish.Label{publish.Latest, publish.Prev}
	builds := make([]publish.BuildID, len(labels))
	for i, label := range labels {
		var err error
		if builds[i], err = d.labelled(label); err != nil {
			return nil, err
		}
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
		e, err := d.entry(build)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	for i, label := range labels {
		at := slices.IndexFunc(entries, func(e publish.Entry) bool { return e.Build == builds[i] })
		switch {
		case at >= 0:
			entries[at].Labels = append(entries[at].Labels, label)
		case !builds[i].IsZero():
			return nil, fmt.Errorf("%s points to %s, which does not exist", filepath.Join(d.path, string(label)), builds[i])
		}
	}
	return entries, nil
}

// entry returns the release of the build, without its labels.
func (d *imageDir) entry(build publish.BuildID) (publish.Entry, error) {
	e := publish.Entry{ID: d.name + "/" + build.String(), Image: d.name, Build: build}
	path := filepath.Join(d.path, build.String())
	info, err := d.Lstat(build.String())
	if err != nil {
		return e, fmt.Errorf("%s: %w", d.path, err)
	}
	if !info.IsDir() {
		return e, fmt.Errorf("%s is not a directory", path)
	}
	if e.Digest, err = d.digest(filepath.Join(build.String(), signing.SumsFile)); err != nil {
		return e, fmt.Errorf("%s is not a release: %w", path, err)
	}
	return e, nil
}

// digest returns the SHA-256 of a small file.
func (d *imageDir) digest(name string) (string, error) {
	info, err := d.Lstat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSums {
		return "", fmt.Errorf("%s is not a regular file of at most %d bytes", name, maxSums)
	}
	data, err := d.ReadFile(name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// labelled returns the build that the label points to, or none.
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
		return publish.BuildID{}, fmt.Errorf("%s is not a symbolic link", path)
	}
	to, err := d.Readlink(string(label))
	if err != nil {
		return publish.BuildID{}, fmt.Errorf("%s: %w", d.path, err)
	}
	build, err := publish.ParseBuildID(to)
	if err != nil {
		return publish.BuildID{}, fmt.Errorf("%s points to %q, which is not a build beside it", path, to)
	}
	return build, nil
}

// assign lets the label point to the build.
func (d *imageDir) assign(label publish.Label, build publish.BuildID) error {
	if label != publish.Latest && label != publish.Prev {
		return fmt.Errorf("label %q is unknown", label)
	}
	if _, err := d.entry(build); err != nil {
		return err
	}
	// What is there may be replaced if it is a label.
	if now, err := d.labelled(label); err != nil || now == build {
		return err
	}
	temp := tempPrefix + string(label)
	if err := d.Symlink(build.String(), temp); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	if err := d.Rename(temp, string(label)); err != nil {
		return fmt.Errorf("%s: %w", d.path, errors.Join(err, d.Remove(temp)))
	}
	return syncDir(d.Root, ".")
}

// delete removes the build. It takes its name first, so that at no time there
// is a part of a release under the name of a whole one.
func (d *imageDir) delete(build publish.BuildID) error {
	for _, label := range []publish.Label{publish.Latest, publish.Prev} {
		if b, err := d.labelled(label); err != nil {
			return err
		} else if b == build {
			return fmt.Errorf("%s is %s", filepath.Join(d.path, build.String()), label)
		}
	}
	temp := tempPrefix + build.String()
	err := d.Rename(build.String(), temp)
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
	return nil
}

// sweep removes what killed runs left.
func (d *imageDir) sweep() error {
	dirents, err := fs.ReadDir(d.FS(), ".")
	if err != nil {
		return err
	}
	for _, dirent := range dirents {
		if strings.HasPrefix(dirent.Name(), tempPrefix) {
			if err := d.RemoveAll(dirent.Name()); err != nil {
				return err
			}
		}
	}
	return nil
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

// copy copies the release's file named from. What is read is compared with the
// release's digests as it is read.
func (d *imageDir) copy(ctx context.Context, to string, r *publish.Release, from string, buf []byte) (err error) {
	src, err := r.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := d.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
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
