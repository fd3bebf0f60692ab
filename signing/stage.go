package signing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// unfinished ends the names of files that are not yet, or no longer, what is
// meant: new contents before they get their names, and old ones until all have.
const unfinished = ".signing-unfinished"

// output is a file that is to be written.
type output struct {
	name string
	data []byte
	mode os.FileMode // of a new file; one that is replaced keeps its own, and its owner
}

// stage writes files of one directory so that what fails changes nothing. All
// are complete under other names, and read back, before the first is renamed; if
// a rename fails those before it are undone. A process that is killed between
// the renames, which take a moment, leaves some of each: then it is to be done
// again.
type stage struct {
	root *os.Root
	step func(what string) error // if not nil, is told of each step and can fail it: for tests
	done []replaced
}

// replaced is a file under way.
type replaced struct {
	name, temp, old string
	was             fs.FileInfo // nil if there was none
	renamed         bool
	stuck           bool // old could not be given its name back: it stays as it is
}

// isUnfinished says whether the name is one that a stage gives.
func isUnfinished(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, unfinished)
}

// unfinishedName is the same for each run, so that the next one finds what a
// killed one left, and short, whatever the name.
func unfinishedName(name, kind string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf(".%x%s%s", sum[:8], kind, unfinished)
}

// replace writes all outputs, the last one last.
func (s *stage) replace(ctx context.Context, outputs ...output) error {
	err := s.write(outputs)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.commit()
	}
	return errors.Join(err, s.clean(), syncDir(s.root))
}

func (s *stage) at(what string) error {
	if s.step == nil {
		return nil
	}
	return s.step(what)
}

// write makes the new files under their temporary names.
func (s *stage) write(outputs []output) error {
	for _, o := range outputs {
		r := replaced{name: o.name, temp: unfinishedName(o.name, ""), old: unfinishedName(o.name, ".old")}
		old, err := s.root.Lstat(o.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !old.Mode().IsRegular():
			return &Error{File: o.name, Reason: NotRegular, Detail: "it would be replaced"}
		default:
			r.was = old
		}
		for _, left := range []string{r.temp, r.old} { // by a run that was killed
			if err := s.remove(left); err != nil {
				return err
			}
		}
		s.done = append(s.done, r)
		if err := s.writeOne(r.temp, o, r.was); err != nil {
			return fmt.Errorf("cannot write %s: %w", o.name, err)
		}
	}
	return nil
}

// writeOne writes a new file; was is the one that it will replace, or nil.
func (s *stage) writeOne(temp string, o output, was fs.FileInfo) error {
	if err := s.at("write " + o.name); err != nil {
		return err
	}
	mode := o.mode
	if was != nil {
		mode = was.Mode().Perm()
	}
	f, err := s.root.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(o.data)
	if err == nil && was != nil { // which the umask does not concern
		err = errors.Join(keepOwner(f, was), f.Chmod(mode))
	}
	if err = errors.Join(err, f.Sync()); err == nil {
		if _, err = f.Seek(0, 0); err == nil {
			var back []byte
			if back, err = readBounded(f, int64(len(o.data))); err == nil && !bytes.Equal(back, o.data) {
				err = errors.New("what was written is not what is read back")
			}
		}
	}
	return errors.Join(err, f.Close())
}

// commit gives the files their names, and takes that back if one fails.
func (s *stage) commit() error {
	if len(s.done) > 1 { // a single rename needs nothing to go back to
		for _, r := range s.done {
			if r.was != nil {
				if err := s.keep(r); err != nil {
					return fmt.Errorf("cannot keep the old %s: %w", r.name, err)
				}
			}
		}
	}
	for i := range s.done {
		r := &s.done[i]
		err := s.at("rename " + r.name)
		if err == nil {
			err = s.root.Rename(r.temp, r.name)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("cannot replace %s: %w", r.name, err), s.undo())
		}
		r.renamed = true
	}
	return nil
}

// keep gives the old file a second name: a link or, where the file system has
// none, a copy.
func (s *stage) keep(r replaced) error {
	if err := s.at("keep " + r.name); err != nil {
		return err
	}
	if s.root.Link(r.name, r.old) == nil {
		return nil
	}
	data, err := s.root.ReadFile(r.name)
	if err != nil {
		return err
	}
	return s.writeOne(r.old, output{name: r.name, data: data}, r.was)
}

func (s *stage) undo() error {
	var all []error
	for i := len(s.done) - 1; i >= 0; i-- {
		r := &s.done[i]
		switch {
		case !r.renamed:
		case r.was == nil:
			all = append(all, s.root.Remove(r.name))
		default:
			if err := s.root.Rename(r.old, r.name); err != nil {
				r.stuck = true
				all = append(all, fmt.Errorf("the old %s is now %s: %w", r.name, r.old, err))
			}
		}
	}
	return errors.Join(all...)
}

// clean removes the temporary names.
func (s *stage) clean() error {
	var all []error
	for _, r := range s.done {
		all = append(all, s.remove(r.temp))
		if !r.stuck {
			all = append(all, s.remove(r.old))
		}
	}
	return errors.Join(all...)
}

func (s *stage) remove(name string) error {
	if err := s.root.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
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
