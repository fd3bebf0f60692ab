// Package configtar reads the archives of configuration that releases have.
package configtar

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Mirrors is the name in an archive of what the mirrors had when the image was built, a
// builder.State. It says when something was built rather than from what.
const Mirrors = "mirrors.json"

const (
	maxBytes = 256 << 20 // of an archive, unpacked
	maxFiles = 50_000
)

// Walk calls do for each entry of an archive, in order.
func Walk(r io.Reader, do func(*tar.Header, io.Reader) error) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return errors.New("it is not compressed with gzip")
	}
	limited := &io.LimitedReader{R: z, N: maxBytes + 1}
	t := tar.NewReader(limited)
	claimed := int64(0) // holes of files take no place in an archive
	for n := 0; ; n++ {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case limited.N <= 0:
			return fmt.Errorf("it has more than %d bytes", maxBytes)
		case n >= maxFiles:
			return fmt.Errorf("it has more than %d files", maxFiles)
		case err != nil:
			return errors.New("it is not a tar archive, or damaged")
		case h.Size > maxBytes-claimed:
			return fmt.Errorf("it has more than %d bytes", maxBytes)
		}
		claimed += h.Size
		if err := do(h, t); err != nil {
			return err
		}
	}
}

// Digest stands for all of an archive but Mirrors, and the order of its entries: who
// builds from archives of the same digest builds from the same.
func Digest(r io.Reader) (string, error) {
	entries, err := Entries(r)
	if err != nil {
		return "", err
	}
	delete(entries, Mirrors)
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		fmt.Fprintf(sum, "%q %s\n", name, entries[name])
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Entries are an archive's entries by name, each as a text that stands for its kind,
// mode and content.
func Entries(r io.Reader) (map[string]string, error) {
	entries := map[string]string{}
	err := Walk(r, func(h *tar.Header, r io.Reader) error {
		if _, twice := entries[h.Name]; twice {
			return errors.New("it has a file twice")
		}
		content := sha256.New()
		if _, err := io.Copy(content, r); err != nil {
			return errors.New("it is damaged")
		}
		entries[h.Name] = fmt.Sprintf("%c %o %q %x", h.Typeflag, h.Mode, h.Linkname, content.Sum(nil))
		return nil
	})
	return entries, err
}

// File is the content of a file of an archive, or nil if it has none of that name.
func File(r io.Reader, name string) ([]byte, error) {
	const most = 4 << 20
	var data []byte
	err := Walk(r, func(h *tar.Header, r io.Reader) error {
		if h.Name != name || h.Typeflag != tar.TypeReg {
			return nil
		}
		if h.Size > most {
			return fmt.Errorf("its %s has more than %d bytes", name, most)
		}
		var err error
		if data, err = io.ReadAll(r); err != nil {
			return errors.New("it is damaged")
		}
		return nil
	})
	return data, err
}

// Extract writes an archive's files and links below dir, which must be there, and
// nothing outside it.
func Extract(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return Walk(r, func(h *tar.Header, r io.Reader) error {
		if !filepath.IsLocal(h.Name) {
			return errors.New("it has a file with a path that leads out of it")
		}
		if err := root.MkdirAll(filepath.Dir(h.Name), 0o755); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode)&0o755)
			if err != nil {
				return err
			}
			_, err = io.Copy(f, r)
			return errors.Join(err, f.Close())
		case tar.TypeSymlink:
			return root.Symlink(h.Linkname, h.Name)
		}
		return errors.New("it has something that is neither a file nor a link")
	})
}
