package publish

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// stateName is the file in an image's download directory that says what was seen
// of it.
const stateName = "fetch.json"

const maxState = 4 << 10

// state is what stateName holds.
type state struct {
	Newest     BuildID `json:"newest,omitzero"`      // by whatever name it was fetched
	NewestPrev BuildID `json:"newest_prev,omitzero"` // as prev
}

// remember records that the build was seen under the label, or by its ID if that
// is "". It is ErrRollback if a newer one was seen under the label.
func remember(root *os.Root, label Label, build BuildID) error {
	path := filepath.Join(root.Name(), stateName)
	was, err := readState(root)
	if err != nil {
		return fmt.Errorf("%s, which says what was seen before, is damaged: %w; mend it, or remove it to begin anew", path, err)
	}
	now, bound := was, BuildID{}
	if build.Compare(was.Newest) > 0 {
		now.Newest = build
	}
	switch label {
	case Latest:
		bound = was.Newest
	case Prev:
		bound, now.NewestPrev = was.NewestPrev, build
	}
	if build.Compare(bound) < 0 {
		return fmt.Errorf("%w: %s is now %s, but %s was seen; if the publisher went back on purpose, ask for the build by its ID, or remove %s", ErrRollback, label, build, bound, path)
	}
	if now == was {
		return nil
	}
	data, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		return err
	}
	const beside = fetchPrefix + "state"
	err = replace(root, beside, append(data, '\n'))
	if err == nil {
		err = root.Rename(beside, stateName)
	}
	if err != nil {
		return errors.Join(err, root.RemoveAll(beside))
	}
	return syncDir(root)
}

func readState(root *os.Root) (state, error) {
	// Without O_NONBLOCK, a named pipe would wait for its writer.
	f, err := root.OpenFile(stateName, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return state{}, err
	}
	if len(data) > maxState {
		return state{}, fmt.Errorf("it has more than %d bytes", maxState)
	}
	return parseState(data)
}

// parseState parses what remember writes.
func parseState(data []byte) (state, error) {
	var s *state
	if err := decode(data, &s); err != nil {
		return state{}, err
	}
	if s == nil || s.Newest.Compare(s.NewestPrev) < 0 || s.Newest.IsZero() {
		return state{}, errors.New("it names no newest build")
	}
	return *s, nil
}
