package signing

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// RebuildType is the type of the predicate of a [Rebuild].
const RebuildType = "https://github.com/opentelekomcloud/go-imagefactory/rebuild/v1"

// Sameness is how far a rebuild is the same as a release.
type Sameness string

// From nothing to everything.
const (
	Differs     Sameness = "differs"
	SameFiles   Sameness = "files"   // every file of the disk; not file systems' own data, such as UUIDs and times
	SameContent Sameness = "content" // every byte that a guest can read of the disk
	SameBytes   Sameness = "bytes"   // the image's file itself
)

var samenesses = []Sameness{Differs, SameFiles, SameContent, SameBytes}

// Reaches reports whether it is as much as want, or more. What is none of the
// constants reaches nothing.
func (s Sameness) Reaches(want Sameness) bool {
	return slices.Contains(samenesses, want) && slices.Index(samenesses, s) >= slices.Index(samenesses, want)
}

// Rebuild says how what somebody has built again compares with a release. It is
// for whoever wants more than the publisher's word that the release was made of
// what it says.
type Rebuild struct {
	// Subjects are the release's SHA256SUMS, which stands for the whole release, and
	// its image, with their SHA-256. Image and Build name the release.
	Subjects     []FileDigest
	Image, Build string

	// Same is how far the image is the same. Differences name what differs, a line
	// each, such as ".packages" or "file /etc/hostname"; of more than 1000 the first.
	Same        Sameness
	Differences []string

	// Rebuilt are the files of the rebuild that were compared; its image at least.
	Rebuilt []Resource

	// Rebuilder is a URI that names who built again, and Finished when it was
	// compared.
	Rebuilder string
	Finished  time.Time
}

const maxDifferences = 1000

type rebuildPredicate struct {
	Release struct {
		Image string `json:"image"`
		Build string `json:"build"`
	} `json:"release"`
	Same        Sameness   `json:"same"`
	Differences []string   `json:"differences"`
	Rebuilt     []Resource `json:"rebuilt"`
	Rebuilder   struct {
		ID string `json:"id"`
	} `json:"rebuilder"`
	FinishedOn time.Time `json:"finishedOn"`
}

// Statement returns the comparison as an in-toto statement, to be put in an
// envelope by [Sealer.Envelope], with the rebuilder's own key.
func (r Rebuild) Statement() (*Statement, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("cannot state a rebuild: %w", err)
	}
	var p rebuildPredicate
	p.Release.Image, p.Release.Build = r.Image, r.Build
	p.Same, p.Differences, p.Rebuilt = r.Same, r.Differences, r.Rebuilt
	if p.Differences == nil {
		p.Differences = []string{}
	}
	p.Rebuilder.ID, p.FinishedOn = r.Rebuilder, r.Finished.UTC()
	return state(r.Subjects, RebuildType, p)
}

func (r *Rebuild) check() error {
	switch {
	case r.Image == "" || r.Build == "" || r.Rebuilder == "" || r.Finished.IsZero():
		return errors.New("it needs the release's image and build, who built it again, and when")
	case !r.Same.Reaches(Differs):
		return errors.New("it does not say how far the image is the same")
	case r.Same == Differs && len(r.Differences) == 0:
		return errors.New("it differs in nothing")
	case len(r.Differences) > maxDifferences:
		return fmt.Errorf("it has more than %d differences", maxDifferences)
	case len(r.Rebuilt) == 0:
		return errors.New("it does not name what was built")
	case r.sums() == "":
		return errors.New("it is not about a " + SumsFile)
	}
	return nil
}

// sums is the digest that stands for the release.
func (r *Rebuild) sums() string {
	for _, s := range r.Subjects {
		if s.Name == SumsFile {
			return s.SHA256
		}
	}
	return ""
}

// ReadRebuild reads what a statement says, which [Verifier.Envelope] has verified.
// One of another type, or that says less than [Rebuild.Statement] demands, is an
// error.
func ReadRebuild(s *Statement) (*Rebuild, error) {
	if s.PredicateType != RebuildType {
		return nil, errors.New("cannot read a rebuild: the statement is about something else")
	}
	var p rebuildPredicate
	if err := json.Unmarshal(s.Predicate, &p); err != nil {
		return nil, errors.New("cannot read a rebuild: the predicate has another form")
	}
	r := &Rebuild{
		Image: p.Release.Image, Build: p.Release.Build, Same: p.Same, Differences: p.Differences, Rebuilt: p.Rebuilt,
		Rebuilder: p.Rebuilder.ID, Finished: p.FinishedOn,
	}
	for _, subject := range s.Subject {
		r.Subjects = append(r.Subjects, FileDigest{Name: subject.Name, SHA256: subject.Digest["sha256"], SHA512: subject.Digest["sha512"]})
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("cannot read a rebuild: %w", err)
	}
	return r, nil
}

// IsOf reports, as an error, a rebuild of another release than the one with this
// image, build and SHA-256 of SHA256SUMS.
func (r *Rebuild) IsOf(image, build, sums string) error {
	if r.Image == image && r.Build == build && r.sums() == sums {
		return nil
	}
	what := "other files of that name"
	if r.Image != image || r.Build != build {
		what = fmt.Sprintf("%.100q build %.30q", r.Image, r.Build)
	}
	return fmt.Errorf("it is about another release: %s", what)
}
