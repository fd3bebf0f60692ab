package website

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/flock"
)

const (
	privateDir = ".website"
	nextDir    = privateDir + "/next"   // where what is new waits
	planDir    = nextDir + "/.plan"     // what is to be done with it
	listDir    = privateDir + "/parts"  // what an earlier run wrote
	sitePart   = ".site"                // the part that is no image's, whose name none can have
	indexName  = "index.html"           // to which nothing has to lead before the rest is there
	cacheDir   = privateDir + "/cache/" // facts of releases
)

// output is the directory that is written. Nothing outside of it is changed. Its
// parts may be filled concurrently.
type output struct {
	root *os.Root
	lock *os.File
}

// part is the files that belong together: those of an image, or of the site. What
// there is to be done with it lies in a file from finish to commit.
type part struct {
	*output
	plan
	has  map[string]bool
	made map[string]bool // directories
}

type plan struct {
	Name string
	// Files are all of the part; New and Changed wait below nextDir, and so do
	// the directories Dirs, which are new as a whole, and Last, which comes after
	// all else.
	Files, New, Changed, Dirs, Last []string
	Links                           []link
}

// link is a symbolic link to be.
type link struct{ Name, To string }

// openOutput waits for another run to end.
func openOutput(ctx context.Context, dir string) (o *output, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	o = new(output)
	if o.root, err = os.OpenRoot(dir); err != nil {
		return nil, err
	}
	if err = o.prepare(ctx); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

func (o *output) prepare(ctx context.Context) error {
	if err := o.root.MkdirAll(listDir, 0o755); err != nil {
		return err
	}
	private, err := o.root.OpenRoot(privateDir)
	if err != nil {
		return err
	}
	defer private.Close()
	if o.lock, err = flock.Dir(ctx, private, nil); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := o.root.RemoveAll(nextDir); err != nil {
		return err
	}
	if err := o.root.Mkdir(nextDir, 0o700); err != nil { // some of it is not verified yet
		return err
	}
	return o.root.Mkdir(planDir, 0o755)
}

func (o *output) close() error {
	if o.lock == nil {
		return o.root.Close()
	}
	return errors.Join(o.root.RemoveAll(nextDir), o.root.Close(), o.lock.Close())
}

func (o *output) part(name string) *part {
	return &part{output: o, plan: plan{Name: name}, has: map[string]bool{}, made: map[string]bool{}}
}

// keep says that a file stays as it is, and reports whether it is there.
func (p *part) keep(name string) bool {
	st, err := p.root.Lstat(name)
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	p.add(name)
	return true
}

// keepIn is keep for files of one directory.
func (p *part) keepIn(dir string, names []string) bool {
	d, err := p.root.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	dirents, err := d.ReadDir(-1)
	if err != nil {
		return false
	}
	there := map[string]bool{}
	for _, e := range dirents {
		there[e.Name()] = e.Type().IsRegular()
	}
	for _, name := range names {
		if !there[name] {
			return false
		}
	}
	for _, name := range names {
		p.add(path.Join(dir, name))
	}
	return true
}

func (p *part) add(name string) {
	if !p.has[name] {
		p.has[name] = true
		p.Files = append(p.Files, name)
	}
}

// put gives a file its content.
func (p *part) put(name string, data []byte) error {
	st, err := p.root.Lstat(name)
	there := err == nil
	if there && st.Mode().IsRegular() && st.Size() == int64(len(data)) {
		if have, err := p.root.ReadFile(name); err == nil && bytes.Equal(have, data) {
			p.add(name)
			return nil
		}
	}
	temp, err := p.stage(name, there)
	if err != nil {
		return err
	}
	return p.root.WriteFile(temp, data, 0o644)
}

// stage returns the place where a file waits.
func (p *part) stage(name string, there bool) (string, error) {
	if p.has[name] {
		return "", fmt.Errorf("%s is written twice", name)
	}
	p.add(name)
	switch {
	case name == indexName || strings.HasPrefix(name, cacheDir):
		p.Last = append(p.Last, name)
	case there:
		p.Changed = append(p.Changed, name)
	default:
		p.New = append(p.New, name)
	}
	temp := path.Join(nextDir, name)
	return temp, p.mkdir(path.Dir(temp))
}

func (p *part) mkdir(dir string) error {
	if p.made[dir] || dir == "." {
		return nil
	}
	p.made[dir] = true
	if err := p.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if err := p.root.Mkdir(dir, 0o755); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// link makes a relative symbolic link at commit.
func (p *part) link(name, to string) {
	p.add(name)
	p.Links = append(p.Links, link{name, to})
}

// linkDir links files of a directory elsewhere to where dir waits, apart from those
// that dir has already. That is done before they are verified, for a link changes
// the time of an inode. What cannot be linked is left out.
func (p *part) linkDir(dir, from string, files map[string]fs.FileInfo, rename map[string]string) error {
	temp := path.Join(nextDir, dir)
	if err := p.mkdir(temp); err != nil {
		return err
	}
	have, err := p.in(dir)
	if err != nil {
		return err
	}
	defer have.close()
	for name, info := range files {
		for _, to := range []string{name, rename[name]} {
			if to == "" || have.is(to, info) {
				continue
			}
			if os.Link(path.Join(from, name), path.Join(p.root.Name(), temp, to)) != nil {
				return nil // it will be copied
			}
		}
	}
	return nil
}

// openDir is a directory of the output; without a root if there is none.
type openDir struct{ *os.Root }

func (o *output) in(dir string) (openDir, error) {
	root, err := o.root.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return openDir{}, nil
	}
	return openDir{root}, err
}

func (d openDir) close() {
	if d.Root != nil {
		_ = d.Close()
	}
}

// is reports whether a file of the directory is the one that info is of.
func (d openDir) is(name string, info fs.FileInfo) bool {
	if d.Root == nil {
		return false
	}
	st, err := d.Lstat(name)
	return err == nil && os.SameFile(st, info)
}

// source is a file that was verified: what it was then, and how to read it.
type source struct {
	info fs.FileInfo
	open func() (io.ReadCloser, error)
}

// takeDir puts the files that were linked by linkDir and verified after that, each
// only if it is the one that was verified; else its verified content is copied.
func (p *part) takeDir(dir string, files map[string]source) error {
	temp := path.Join(nextDir, dir)
	have, err := p.in(dir)
	if err != nil {
		return err
	}
	defer have.close()
	waiting, err := p.in(temp)
	if err != nil {
		return err
	}
	defer waiting.close()
	for name, f := range files {
		final := path.Join(dir, name)
		if have.is(name, f.info) {
			p.add(final)
			continue
		}
		if !waiting.is(name, f.info) {
			if err := p.copy(path.Join(temp, name), f.open); err != nil {
				return err
			}
		}
		if have.Root == nil {
			p.add(final)
			continue
		}
		_, err := have.Lstat(name)
		if _, err := p.stage(final, err == nil); err != nil {
			return err
		}
	}
	if have.Root == nil {
		p.Dirs = append(p.Dirs, dir)
	}
	return waiting.removeExcept(files)
}

// drop removes the files that were linked by linkDir.
func (p *part) drop(dir string) error { return p.root.RemoveAll(path.Join(nextDir, dir)) }

func (d openDir) removeExcept(files map[string]source) error {
	f, err := d.Open(".")
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	err = errors.Join(err, f.Close())
	for _, name := range names {
		if _, ok := files[name]; !ok {
			err = errors.Join(err, d.RemoveAll(name))
		}
	}
	return err
}

func (p *part) copy(name string, open func() (io.ReadCloser, error)) error {
	if err := p.root.RemoveAll(name); err != nil {
		return err
	}
	in, err := open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := p.root.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// finish writes down what is to be done with the part, which needs no memory then.
func (p *part) finish() error {
	slices.Sort(p.Files)
	slices.Sort(p.Dirs)
	return p.save(path.Join(planDir, p.Name+".json"), p.plan)
}

func (o *output) save(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	temp := path.Join(planDir, ".file")
	if strings.HasPrefix(name, planDir) {
		temp = name
	}
	if err := o.root.WriteFile(temp, data, 0o644); err != nil || temp == name {
		return err
	}
	return o.root.Rename(temp, name)
}

func (o *output) load(name string, v any) error {
	data, err := o.root.ReadFile(name)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// commit puts the parts' files into their places: what is new first, to which no
// page leads yet, then what replaces another, then index.html and the facts that
// the next run relies on. What no page leads to any more is removed at the end. So
// every link leads somewhere at every moment, also if the run ends in between.
func (o *output) commit(names []string) error {
	if err := o.writeDown(names); err != nil {
		return err
	}
	for _, step := range []func(*plan) error{o.placeNew, o.placeChanged, o.placeLast} {
		if err := o.each(names, step); err != nil {
			return err
		}
	}
	return o.removeOld(names)
}

// each calls do with the plan of each part.
func (o *output) each(names []string, do func(*plan) error) error {
	for _, name := range names {
		var p plan
		if err := o.load(path.Join(planDir, name+".json"), &p); err != nil {
			return err
		}
		if err := do(&p); err != nil {
			return err
		}
	}
	return nil
}

func listName(part string) string { return path.Join(listDir, part+".json") }

// listed is what an earlier run wrote of a part.
func (o *output) listed(part string) (files []string, err error) {
	err = o.load(listName(part), &files)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return files, err
}

// writeDown lists what may have to be removed before it is there.
func (o *output) writeDown(names []string) error {
	return o.each(names, func(p *plan) error {
		old, err := o.listed(p.Name)
		if err != nil {
			return err
		}
		all := append(old, p.Files...)
		slices.Sort(all)
		return o.save(listName(p.Name), slices.Compact(all))
	})
}

func (o *output) placeNew(p *plan) error {
	for _, dir := range p.Dirs {
		if err := o.place(dir); err != nil {
			return err
		}
	}
	if err := o.placeAll(p.New); err != nil {
		return err
	}
	for _, l := range p.Links {
		if err := o.makeLink(l); err != nil {
			return err
		}
	}
	return nil
}

func (o *output) placeChanged(p *plan) error { return o.placeAll(p.Changed) }

func (o *output) placeLast(p *plan) error { return o.placeAll(p.Last) }

func (o *output) placeAll(names []string) error {
	for _, name := range names {
		if err := o.place(name); err != nil {
			return err
		}
	}
	return nil
}

// place renames what waits into its place.
func (o *output) place(name string) error {
	if err := o.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	return o.root.Rename(path.Join(nextDir, name), name)
}

func (o *output) makeLink(l link) error {
	if have, err := o.root.Readlink(l.Name); err == nil && have == l.To {
		return nil
	}
	temp := path.Join(planDir, ".link")
	if err := o.root.MkdirAll(path.Dir(l.Name), 0o755); err != nil {
		return err
	}
	if err := o.root.Symlink(l.To, temp); err != nil {
		return err
	}
	return o.root.Rename(temp, l.Name)
}

// removeOld removes what earlier runs wrote and this one did not, also of parts that
// are no more.
func (o *output) removeOld(names []string) error {
	err := o.each(names, func(p *plan) error {
		old, err := o.listed(p.Name)
		if err != nil {
			return err
		}
		o.removeExcept(old, p.Files)
		if slices.Equal(old, p.Files) {
			return nil
		}
		return o.save(listName(p.Name), p.Files)
	})
	if err != nil {
		return err
	}
	d, err := o.root.Open(listDir)
	if err != nil {
		return err
	}
	lists, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, list := range lists {
		name := strings.TrimSuffix(list, ".json")
		if slices.Contains(names, name) {
			continue
		}
		old, err := o.listed(name)
		if err != nil {
			return err
		}
		o.removeExcept(old, nil)
		if err := o.root.Remove(path.Join(listDir, list)); err != nil {
			return err
		}
	}
	return nil
}

// removeExcept removes files to which nothing leads, pages before downloads, and the
// directories that are empty then. One that cannot be removed hinders nobody.
func (o *output) removeExcept(old, files []string) {
	keep := map[string]bool{}
	for _, name := range files {
		keep[name] = true
	}
	var gone, downloads []string
	for _, name := range old {
		switch {
		case keep[name] || !fs.ValidPath(name):
		case strings.HasPrefix(name, "download/"):
			downloads = append(downloads, name)
		default:
			gone = append(gone, name)
		}
	}
	for _, name := range append(gone, downloads...) {
		for err := error(nil); err == nil && name != "."; name = path.Dir(name) {
			err = o.root.Remove(name)
		}
	}
}
