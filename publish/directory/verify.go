package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// Verify reads all releases of an image and reports everything that is wrong with
// them, with the labels and with what else lies in the image's directory,
// joined: releases that [publish.Open] refuses, labels that lead nowhere, nothing
// latest, leftovers. The next publication mends most of it.
func (t *Target) Verify(ctx context.Context, image string, keyring *signing.Keyring) error {
	d, err := t.open(image)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there are no releases of %s in %s", image, t.Dir)
	}
	if err != nil {
		return fmt.Errorf("cannot verify %s: %w", image, err)
	}
	defer d.Close()
	entries, err := d.list()
	errs := []error{err}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.Problem != "" {
			errs = append(errs, fmt.Errorf("%s: %s", filepath.Join(d.path, e.Build.String()), e.Problem))
			continue
		}
		_, err := publish.Open(ctx, filepath.Join(d.path, e.Build.String()), keyring)
		errs = append(errs, err)
	}
	for _, label := range labels {
		build, err := d.labelled(label)
		if err == nil && !build.IsZero() {
			if _, lerr := d.Lstat(build.String()); lerr != nil {
				err = fmt.Errorf("%s points to %s, which is not there", filepath.Join(d.path, string(label)), build)
			}
		}
		if err == nil && build.IsZero() && label == publish.Latest {
			err = fmt.Errorf("%s: nothing is latest", d.path)
		}
		errs = append(errs, err)
	}
	dirents, err := fs.ReadDir(d.FS(), ".")
	errs = append(errs, err)
	for _, dirent := range dirents {
		if strings.HasPrefix(dirent.Name(), tempPrefix) {
			errs = append(errs, fmt.Errorf("%s is left by a killed run, or one is at work", filepath.Join(d.path, dirent.Name())))
		}
	}
	return errors.Join(errs...)
}
