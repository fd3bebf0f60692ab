package advisory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ErrOlder is that advisories are older than those that were seen before: somebody has
// put back an old file, with which what has been found since would be no finding.
var ErrOlder = errors.New("the advisories are older than were seen before")

// fileRead is what tells the age of a file of advisories.
type fileRead struct {
	Name string `json:"name"`
	// Newest is the newest time that the file states: OVAL's generator's, OSV's
	// modified. Debian's tracker states none.
	Newest time.Time `json:"newest,omitzero"`
	// Advisories are how often Debian's tracker names one.
	Advisories int `json:"advisories,omitempty"`
}

// at notes a time that the file states, in one of the forms of RFC 3339.
func (f *fileRead) at(text string) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			if t.After(f.Newest) {
				f.Newest = t.UTC()
			}
			return
		}
	}
}

// tracker counts the advisories in the text about a package.
func (f *fileRead) tracker(text []byte) { f.Advisories += bytes.Count(text, []byte(`"CVE-`)) }

// current is the file that is being read.
func (d *Database) current() *fileRead {
	if len(d.files) == 0 {
		d.files = append(d.files, fileRead{})
	}
	return &d.files[len(d.files)-1]
}

// Remember compares what was loaded with what is noted in the state file from the
// times before, by the names of the advisories' files. Where a file states an older
// time than it did, where Debian's tracker, which states none, names fewer advisories,
// or where a file is gone, it is [ErrOlder], and the note stays as it is: remove the
// state file to accept that. Otherwise what was loaded is noted. Its runs must not
// overlap on one state file.
func (d *Database) Remember(state string) error {
	if err := d.remember(state); err != nil {
		return fmt.Errorf("cannot remember what advisories were seen: %s: %w", state, err)
	}
	return nil
}

func (d *Database) remember(state string) error {
	var seen []fileRead
	data, err := os.ReadFile(state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && json.Unmarshal(data, &seen) != nil {
		return errors.New("it is damaged")
	}
	now := make(map[string]fileRead, len(d.files))
	for _, f := range d.files {
		now[f.Name] = f
	}
	for _, was := range seen {
		is, ok := now[was.Name]
		switch {
		case !ok:
			return fmt.Errorf("%w: %.200q is gone", ErrOlder, was.Name)
		case is.Newest.Before(was.Newest):
			return fmt.Errorf("%w: %.200q is of %s, and was of %s", ErrOlder, was.Name, is.Newest.Format(time.RFC3339), was.Newest.Format(time.RFC3339))
		case is.Advisories < was.Advisories:
			return fmt.Errorf("%w: %.200q names %d advisories, and had %d", ErrOlder, was.Name, is.Advisories, was.Advisories)
		}
	}
	if data, err = json.MarshalIndent(d.files, "", " "); err != nil {
		return err
	}
	return replaceFile(state, append(data, '\n'))
}

// replaceFile writes a file by one rename.
func replaceFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".seen-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
