package publish

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// KeepYears is for how many years a release stays after it stopped being
// latest or prev.
const KeepYears = 2

// A Label is a name under which one release of an image is found at a time. A
// release without a label is found by its build or the target's ID alone; a
// cloud hides it from its list of images. While latest moves, one release has
// both labels.
type Label string

// The labels, with the names that they have in a download directory. In a
// cloud an image NAME has them as NAME_latest and NAME_prev.
const (
	Latest Label = "latest" // the release to use
	Prev   Label = "prev"   // the one that was latest before it
)

// An Entry is one release on a target.
type Entry struct {
	// ID is the target's own key. Two entries may have the same build and
	// label, never the same ID.
	ID    string
	Image string
	Build BuildID
	// Digest is the Digest of the release, or "" where the target cannot
	// tell.
	Digest string
	Labels []Label
}

// Has reports whether e has the label.
func (e Entry) Has(l Label) bool { return slices.Contains(e.Labels, l) }

// Desired is the release that is to be latest.
type Desired struct {
	Image  string
	Build  BuildID
	Digest string
}

// An Op is what a Step does.
type Op string

// The operations.
const (
	Push   Op = "push"   // bring the release to the target, without a label
	Assign Op = "assign" // give the entry the label and take it from all others
	Remove Op = "remove" // delete the entry
)

// A Step is one change on a target.
type Step struct {
	Op Op
	// Label is what an Assign gives; "" otherwise.
	Label Label
	// Entry is what is pushed, labelled or removed. It has no ID before it
	// is pushed.
	Entry Entry
	// From are the entries that lose Label.
	From []Entry
}

// String describes s in one line.
func (s Step) String() string {
	if s.Op != Assign {
		return fmt.Sprintf("%s %s %s", s.Op, s.Entry.Image, s.Entry.Build)
	}
	from := "no release"
	if len(s.From) > 0 {
		builds := make([]string, len(s.From))
		for i, e := range s.From {
			builds[i] = e.Build.String()
		}
		from = strings.Join(builds, ", ")
	}
	return fmt.Sprintf("move %s of %s from %s to %s", s.Label, s.Entry.Image, from, s.Entry.Build)
}

// Plan returns the steps that make the desired release latest and what was
// latest prev, in their order. It returns none if that is so already. After
// each step there is one latest if there was one before, and a plan made from
// what is there then ends in the same state: it need not be known where an
// earlier run was cut.
//
// Prev moves first, to the release that is still latest. That needs no memory
// of what was latest once the label is gone.
//
// Where earlier trouble left several entries with one label, the plan leaves
// one.
func Plan(have []Entry, want Desired) []Step {
	have = byPreference(have)
	var steps []Step
	next := Entry{Image: want.Image, Build: want.Build, Digest: want.Digest}
	if i := slices.IndexFunc(have, func(e Entry) bool { return e.Build == want.Build }); i >= 0 {
		next = have[i]
	} else {
		steps = append(steps, Step{Op: Push, Entry: next})
	}

	old := others(have, Latest, next.ID)
	heirs := old // of prev
	if prevs := others(have, Prev, next.ID); len(old) == 0 && (len(prevs) > 1 || next.Has(Prev)) {
		heirs = prevs
	}
	if len(heirs) > 0 {
		prev := heirs[0]
		if from := others(have, Prev, prev.ID); !prev.Has(Prev) || len(from) > 0 {
			steps = append(steps, Step{Op: Assign, Label: Prev, Entry: prev, From: from})
		}
	}
	if !next.Has(Latest) || len(old) > 0 {
		steps = append(steps, Step{Op: Assign, Label: Latest, Entry: next, From: old})
	}
	return steps
}

// byPreference returns the entries with what is latest first, then what is
// newer, then by ID, so that a plan does not depend on the target's order.
func byPreference(have []Entry) []Entry {
	rank := func(e Entry) int {
		if e.Has(Latest) {
			return 0
		}
		return 1
	}
	return slices.SortedFunc(slices.Values(have), func(a, b Entry) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.Build.Compare(a.Build), cmp.Compare(a.ID, b.ID))
	})
}

// others returns the entries other than id that have the label, in the order
// of have.
func others(have []Entry, l Label, id string) []Entry {
	var out []Entry
	for _, e := range have {
		if e.Has(l) && e.ID != id {
			out = append(out, e)
		}
	}
	return out
}

// PlanRetire returns the steps that remove, oldest first, the releases whose
// time is over at now: those without a label for which the second release
// after them was built at least [KeepYears] years ago. Up to then they were
// latest or prev, so users have had that long since to move on.
func PlanRetire(have []Entry, now time.Time) []Step {
	limit := now.AddDate(-KeepYears, 0, 0)
	sorted := slices.SortedFunc(slices.Values(have), func(a, b Entry) int {
		return cmp.Or(a.Build.Compare(b.Build), cmp.Compare(a.ID, b.ID))
	})
	var builds []BuildID // in order, each once
	for _, e := range sorted {
		builds = append(builds, e.Build)
	}
	builds = slices.Compact(builds)

	var steps []Step
	for _, e := range sorted {
		i, _ := slices.BinarySearchFunc(builds, e.Build, BuildID.Compare)
		if len(e.Labels) == 0 && i+2 < len(builds) && !builds[i+2].Time().After(limit) {
			steps = append(steps, Step{Op: Remove, Entry: e})
		}
	}
	return steps
}
