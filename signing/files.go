package signing

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// maxDirEntries bounds a release directory.
const maxDirEntries = 100_000

// writeNewFile writes a file that must not exist, which is complete when it gets
// its name.
func writeNewFile(path string, mode os.FileMode, data []byte) error {
	dir, name := filepath.Split(path)
	root, err := os.OpenRoot(filepath.Clean(dir + "."))
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(err, error(&fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}))
	}
	temp := unfinishedName(name, ".new")
	s := &stage{root: root}
	if err := s.remove(temp); err != nil { // of a run that was killed
		return err
	}
	err = s.writeOne(temp, output{name: name, data: data, mode: mode}, nil)
	if err == nil {
		err = root.Link(temp, name) // which never replaces
		if err != nil && !errors.Is(err, fs.ErrExist) {
			err = root.Rename(temp, name) // where there are no links
		}
	}
	return errors.Join(err, s.remove(temp), syncDir(root))
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

// openRegular opens a file in root or in a directory below it. It follows no
// link, waits for no pipe and refuses anything but a regular file.
func openRegular(root *os.Root, name string) (*os.File, error) {
	if !filepath.IsLocal(name) {
		return nil, BadName
	}
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		if info, err := root.Lstat(dir); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, NotRegular
		}
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

// openFile opens a regular file that the caller names; it follows links, but
// waits for no pipe.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(cmp.Or(err, error(NotRegular)), f.Close())
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
