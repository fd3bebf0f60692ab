package signing

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// maxDirEntries bounds a release directory.
const maxDirEntries = 100_000

// unfinished ends the names of files that are being written.
const unfinished = ".signing-unfinished"

// writeNewFile writes a file that must not exist. What was begun is removed if
// it cannot be completed.
func writeNewFile(path string, mode os.FileMode, content func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = errors.Join(content(f), f.Sync())
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// replaceFile writes data beside the named file, syncs it and renames it into
// place.
func replaceFile(root *os.Root, name string, data []byte) error {
	beside := "." + name + unfinished
	if err := root.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed
		return err
	}
	f, err := root.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync())
	err = errors.Join(err, f.Close())
	if err == nil {
		err = root.Rename(beside, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(beside))
	}
	return nil
}

// syncDir makes renames in the directory lasting.
func syncDir(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// listDir returns the entries by name.
func listDir(root *os.Root) ([]fs.DirEntry, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var all []fs.DirEntry
	for {
		some, err := d.ReadDir(1000)
		all = append(all, some...)
		if len(all) > maxDirEntries {
			return nil, fmt.Errorf("it has more than %d entries", maxDirEntries)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return all, nil
}

// openRegular opens a file directly in root. It follows no link, waits for no
// pipe and refuses anything but a regular file.
func openRegular(root *os.Root, name string) (*os.File, error) {
	if strings.ContainsAny(name, "/\\") {
		return nil, BadName
	}
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, NotRegular
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err != nil || !os.SameFile(before, after) {
		return nil, errors.Join(NotRegular, err, f.Close())
	}
	return f, nil
}

// readSmall reads a whole file of at most limit bytes.
func readSmall(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, limit)
}
