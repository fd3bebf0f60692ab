package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Stater is a Builder that can tell in seconds what it would build from.
type Stater interface {
	// State asks the spec's mirrors for their signed indexes, verifies these with the
	// spec's trusted keys, and asks host which tool it has. The spec has no Build,
	// WorkDir, OutputDir or Log. A mirror that is at fault is a *MirrorError. The State
	// is nil if nobody can tell.
	State(ctx context.Context, host Host, spec Spec) (*State, error)
}

// State is what a build depends on beside its spec and the builder's inputs
// ([Digester]): as long as it is the same, so are the packages.
type State struct {
	Tool    string  `json:"tool"`    // with its version
	Indexes []Index `json:"indexes"` // in the order of [Index.Compare], at least one
}

// Index is the signed index of a repository, or of one that has only a digest.
type Index struct {
	Mirror string    `json:"mirror"` // the mirror's name in Spec.Mirrors
	Path   string    `json:"path"`   // of the index below the mirror: "dists/bookworm/InRelease"
	SHA256 string    `json:"sha256"` // of the index as it was read, in hexadecimal
	Date   time.Time `json:"date"`   // that the index has; zero if it has none
	// ValidUntil is when the index is no longer to be believed; zero for never.
	ValidUntil time.Time `json:"valid_until,omitzero"`
	Signer     string    `json:"signer,omitempty"` // fingerprint of the trusted key that signed it
}

// Compare orders indexes by mirror and path.
func (x Index) Compare(y Index) int {
	return cmp.Or(strings.Compare(x.Mirror, y.Mirror), strings.Compare(x.Path, y.Path))
}

// Bounds of a State.
const maxIndexes = 1000

// Validate reports all that is wrong with what a Stater has returned. A nil State
// is good.
func (s *State) Validate() error {
	if s == nil {
		return nil
	}
	var errs []error
	if s.Tool == "" || len(s.Tool) > maxWord || strings.ContainsFunc(s.Tool, func(c rune) bool { return c < ' ' || c > '~' }) {
		errs = append(errs, fmt.Errorf("state: bad tool %.300q", s.Tool))
	}
	if n := len(s.Indexes); n == 0 || n > maxIndexes {
		return errors.Join(append(errs, fmt.Errorf("state: %d indexes: want 1 to %d", n, maxIndexes))...)
	}
	for i, x := range s.Indexes {
		if !validWord(x.Mirror) || !validWord(x.Path) || !sha256Text.MatchString(x.SHA256) || x.Signer != "" && !validWord(x.Signer) {
			errs = append(errs, fmt.Errorf("state: index number %d: bad mirror, path, digest or signer", i+1))
		}
		if i > 0 && s.Indexes[i-1].Compare(x) >= 0 {
			errs = append(errs, fmt.Errorf("state: index number %d is there twice or not in its place", i+1))
		}
	}
	return errors.Join(errs...)
}

// Equal reports whether s and t are the same, and not unknown: the same tool and
// the same indexes, whoever signed them.
func (s *State) Equal(t *State) bool {
	return s != nil && t != nil && s.Tool == t.Tool && slices.EqualFunc(s.Indexes, t.Indexes, func(x, y Index) bool {
		return x.Compare(y) == 0 && x.SHA256 == y.SHA256
	})
}

// After reports each mirror that has gone back in time since earlier, as a
// *MirrorError: an index of the same path that is older. Who controls the way to a
// mirror can hide updates so.
func (s *State) After(earlier *State) error {
	if s == nil || earlier == nil {
		return nil
	}
	var errs []error
	for _, x := range s.Indexes {
		i, found := slices.BinarySearchFunc(earlier.Indexes, x, Index.Compare)
		if found && x.Date.Before(earlier.Indexes[i].Date) {
			errs = append(errs, &MirrorError{Index: x.Mirror + ": " + x.Path, Fault: WentBack,
				Detail: fmt.Sprintf("it is of %s, and was of %s already", x.Date.UTC().Format(time.DateTime), earlier.Indexes[i].Date.UTC().Format(time.DateTime))})
		}
	}
	return errors.Join(errs...)
}

// MirrorFault is what is wrong with a mirror.
type MirrorFault string

// What can be wrong with a mirror. The text is what [ToolError.Cause] calls it,
// where a tool can tell.
const (
	Unreachable MirrorFault = "mirror unreachable"
	Unsigned    MirrorFault = "not signed by a trusted key"
	Expired     MirrorFault = "index expired"
	Malformed   MirrorFault = "index malformed"
	MidSync     MirrorFault = "mirror in the middle of an update" // its files are not those of its index
	WentBack    MirrorFault = "mirror gone back in time"
)

// MirrorError says that a mirror cannot be built from now.
type MirrorError struct {
	Index  string // the index, or the file of it: a URL without password, or mirror and path
	Fault  MirrorFault
	Detail string // more about it, or empty
	Err    error  // the cause, or nil
}

func (e *MirrorError) Error() string {
	s := fmt.Sprintf("%s: %s", e.Fault, e.Index)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *MirrorError) Unwrap() error { return e.Err }
