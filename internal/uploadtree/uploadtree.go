// Package uploadtree walks a tree of files that a host is to have and refuses
// what could lead out of it.
package uploadtree

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
)

// A Writer makes what Walk finds. Names are slash-separated and local. What is
// there already is replaced.
type Writer interface {
	Dir(name string) error
	Link(target, name string) error
	File(name string, mode fs.FileMode, content io.Reader) error
}

// Walk hands the files of fsys to w, parents first. Anything but files,
// directories and links is an error, as is a link that leads out of fsys.
func Walk(ctx context.Context, fsys fs.FS, w Writer) error {
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			return w.Dir(name)
		case fs.ModeSymlink:
			target, err := fs.ReadLink(fsys, name)
			if err != nil {
				return err
			}
			// In its shortest form a target has ".." only at its beginning, where it
			// cannot go through another link.
			if path.IsAbs(target) || path.Clean(target) != target || !filepath.IsLocal(path.Join(path.Dir(name), target)) {
				return fmt.Errorf("cannot upload %s: the link to %s leads out of its tree", name, target)
			}
			return w.Link(target, name)
		case 0:
			return file(ctx, fsys, name, w)
		}
		return fmt.Errorf("cannot upload %s: not a file, directory or link", name)
	})
}

func file(ctx context.Context, fsys fs.FS, name string, w Writer) error {
	src, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	return w.File(name, st.Mode().Perm()|0o200, Reader{ctx, src})
}

// Reader reads from R until Ctx ends.
type Reader struct {
	Ctx context.Context //nolint:containedctx // lives for one copy
	R   io.Reader
}

// Read implements [io.Reader].
func (r Reader) Read(p []byte) (int, error) {
	if err := r.Ctx.Err(); err != nil {
		return 0, err
	}
	return r.R.Read(p)
}
