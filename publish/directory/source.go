package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Open implements [publish.Source].
func (t *Target) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	r, err := t.openAt(ctx, name, offset)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", t.Dir, err)
	}
	return r, nil
}

func (t *Target) openAt(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	image, inImage, _ := strings.Cut(name, "/")
	d, err := t.open(image)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if inImage != lifecycleName {
		if inImage, err = d.resolve(inImage); err != nil {
			return nil, err
		}
	}
	f, err := d.openRegular(inImage)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// resolve returns BUILD/FILE for that or LABEL/FILE.
func (d *imageDir) resolve(name string) (string, error) {
	which, file, _ := strings.Cut(name, "/")
	if !filepath.IsLocal(file) || filepath.Base(file) != file {
		return "", fmt.Errorf("%.300q is no file of a release", name)
	}
	build, err := publish.ParseBuildID(which)
	if label := publish.Label(which); slices.Contains(labels, label) {
		build, err = d.labelled(label)
	}
	switch {
	case err != nil:
		return "", err
	case build.IsZero():
		return "", fmt.Errorf("nothing is %s: %w", which, fs.ErrNotExist)
	}
	if info, err := d.Lstat(build.String()); err != nil || !info.IsDir() {
		return "", fmt.Errorf("%s is not there, or not a directory: %w", build, fs.ErrNotExist)
	}
	return filepath.Join(build.String(), file), nil
}
