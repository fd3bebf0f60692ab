package directory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// lifecycleName is the file in an image's directory that says what its
// directory entries cannot: by build, when a release lost its last label and why
// it was withdrawn. It stays when the release is removed, so that a withdrawn one
// does not come back.
const lifecycleName = "lifecycle.json"

// maxLifecycle bounds the file, in bytes: some ten thousand builds.
const maxLifecycle = 4 << 20

// lifecycle is what lifecycleName holds.
type lifecycle map[string]fate

// fate is what became of one build.
type fate struct {
	LabelLost *time.Time `json:"label_lost,omitempty"`
	Withdrawn string     `json:"withdrawn,omitempty"` // why; "" if it was not
}

// lifecycle reads the file; a missing one is empty. One that cannot be read is
// an error, for a release that was withdrawn could come back.
func (d *imageDir) lifecycle() (lifecycle, error) {
	path := filepath.Join(d.path, lifecycleName)
	data, err := d.readSmall(lifecycleName, maxLifecycle)
	if errors.Is(err, fs.ErrNotExist) {
		return lifecycle{}, nil
	}
	var l lifecycle
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		err = dec.Decode(&l)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, which says what was withdrawn: %w; mend it, or remove it if nothing was", path, err)
	}
	return l, nil
}

// record changes what the file says of a build.
func (d *imageDir) record(build publish.BuildID, change func(*fate)) error {
	l, err := d.lifecycle()
	if err != nil {
		return err
	}
	key := build.String()
	old := l[key]
	now := old
	change(&now)
	if now == old {
		return nil
	}
	l = maps.Clone(l)
	if l == nil {
		l = lifecycle{}
	}
	if l[key] = now; now == (fate{}) {
		delete(l, key)
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if len(data) >= maxLifecycle {
		return fmt.Errorf("%s would exceed %d bytes", filepath.Join(d.path, lifecycleName), maxLifecycle)
	}
	if err := d.replace(lifecycleName, append(data, '\n')); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(d.path, lifecycleName), err)
	}
	return nil
}

// replace writes a small file beside the one of the name and renames it.
func (d *imageDir) replace(name string, data []byte) (err error) {
	temp, err := d.free(tempPrefix + name)
	if err != nil {
		return err
	}
	f, err := d.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(fileMode), f.Sync(), f.Close())
	if err == nil {
		err = d.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, d.Remove(temp))
	}
	return syncDir(d.Root, ".")
}
