package website

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

const (
	privateDir = ".website"
	nextDir    = privateDir + "/next"
	listName   = privateDir + "/files" // what an earlier run wrote
)

// output is the directory that is written. Nothing outside of it is changed.
type output struct {
	root *os.Root
	// files are those of the site in the order in which they are put;
	// staged are those among them that wait below nextDir.
	files  []string
	has    map[string]bool
	staged []string
	links  []link
}

// link is a symbolic link to be.
type link struct{ name, to string }

func openOutput(dir string) (*output, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	o := &output{root: root, has: map[string]bool{}}
	err = root.RemoveAll(nextDir)
	if err == nil {
		err = root.MkdirAll(nextDir, 0o755)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return o, nil
}

func (o *output) close() error { return errors.Join(o.root.RemoveAll(nextDir), o.root.Close()) }

// keep says that a file stays as it is, and reports whether it is there.
func (o *output) keep(name string) bool {
	st, err := o.root.Lstat(name)
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	o.add(name)
	return true
}

func (o *output) add(name string) {
	if !o.has[name] {
		o.has[name] = true
		o.files = append(o.files, name)
	}
}

// put gives a file its content.
func (o *output) put(name string, data []byte) error {
	if o.same(name, data) {
		o.add(name)
		return nil
	}
	temp, err := o.stage(name)
	if err != nil {
		return err
	}
	return o.root.WriteFile(temp, data, 0o644)
}

// stage returns the place where a file waits.
func (o *output) stage(name string) (string, error) {
	if o.has[name] {
		return "", fmt.Errorf("%s is written twice", name)
	}
	o.add(name)
	o.staged = append(o.staged, name)
	temp := path.Join(nextDir, name)
	return temp, o.root.MkdirAll(path.Dir(temp), 0o755)
}

// same reports whether a file has the content already.
func (o *output) same(name string, data []byte) bool {
	st, err := o.root.Lstat(name)
	if err != nil || !st.Mode().IsRegular() || st.Size() != int64(len(data)) {
		return false
	}
	have, err := o.root.ReadFile(name)
	return err == nil && bytes.Equal(have, data)
}

// take links a file from elsewhere, or copies what open reads where it cannot.
func (o *output) take(name, from string, open func() (io.ReadCloser, error)) error {
	if src, err := os.Lstat(from); err == nil {
		if st, err := o.root.Lstat(name); err == nil && os.SameFile(src, st) {
			o.add(name)
			return nil
		}
	}
	temp, err := o.stage(name)
	if err != nil {
		return err
	}
	if os.Link(from, path.Join(o.root.Name(), temp)) == nil {
		if st, err := o.root.Lstat(temp); err == nil && st.Mode().IsRegular() {
			return nil
		}
		if err := o.root.Remove(temp); err != nil {
			return err
		}
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := o.root.Create(temp)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// link makes a relative symbolic link at commit.
func (o *output) link(name, to string) {
	o.add(name)
	o.links = append(o.links, link{name, to})
}

// commit renames what waits into place, in the order in which it was put, and
// removes what an earlier run wrote and this one did not.
func (o *output) commit() error {
	old, err := o.root.ReadFile(listName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// What may have to be removed is written down before it is made.
	all := append(strings.Fields(string(old)), o.files...)
	slices.Sort(all)
	if err := o.replace(listName, []byte(strings.Join(slices.Compact(all), "\n")+"\n")); err != nil {
		return err
	}
	isDownload := func(name string) bool { return strings.HasPrefix(name, "download/") }
	pages := slices.DeleteFunc(slices.Clone(o.staged), isDownload)
	for _, name := range o.staged {
		if isDownload(name) {
			if err := o.place(name); err != nil {
				return err
			}
		}
	}
	if err := o.makeLinks(); err != nil {
		return err
	}
	for _, name := range pages {
		if err := o.place(name); err != nil {
			return err
		}
	}
	for _, name := range strings.Fields(string(old)) {
		if !o.has[name] && fs.ValidPath(name) {
			o.remove(name)
		}
	}
	slices.Sort(o.files)
	return o.replace(listName, []byte(strings.Join(o.files, "\n")+"\n"))
}

// place renames what waits into its place.
func (o *output) place(name string) error {
	if err := o.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	return o.root.Rename(path.Join(nextDir, name), name)
}

func (o *output) makeLinks() error {
	for _, l := range o.links {
		if have, err := o.root.Readlink(l.name); err == nil && have == l.to {
			continue
		}
		temp := path.Join(nextDir, "link")
		if err := o.root.MkdirAll(path.Dir(l.name), 0o755); err != nil {
			return err
		}
		if err := o.root.Symlink(l.to, temp); err != nil {
			return err
		}
		if err := o.root.Rename(temp, l.name); err != nil {
			return err
		}
	}
	return nil
}

func (o *output) replace(name string, data []byte) error {
	temp := path.Join(nextDir, "file")
	if err := o.root.WriteFile(temp, data, 0o644); err != nil {
		return err
	}
	return o.root.Rename(temp, name)
}

// remove removes a file, which nothing links to, and the directories that are empty
// then. One that cannot be removed hinders nobody.
func (o *output) remove(name string) {
	for err := error(nil); err == nil && name != "."; name = path.Dir(name) {
		err = o.root.Remove(name)
	}
}
