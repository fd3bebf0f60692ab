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

	// Created is when the target got it, and Hidden that it is in no list of images
	// that users are shown, where the target knows of that.
	Created time.Time
	Hidden  bool

	// Problem says why the release cannot be used as it is, such as a file
	// that is missing; "" if it is complete as far as List looks.
	Problem string
	// Withdrawn says why the release was taken back; "" if it was not.
	Withdrawn string
	// LabelLost is when the release lost its last label: the zero time if it
	// has one, never had one, or the target does not know.
	LabelLost time.Time
	// Held says why the release must not be removed, such as that somebody else
	// has protected it; "" if the target knows of no reason.
	Held string
	// Foreign is that this is no release but something of somebody else's that
	// users may take for one. It has a Problem and neither labels nor a Digest.
	Foreign bool
}

// Has reports whether e has the label.
func (e Entry) Has(l Label) bool { return slices.Contains(e.Labels, l) }

// State is what users are told of e: "foreign", "incomplete", "withdrawn",
// "latest", "prev" or, without a label, "dated"; the first of them that it is.
func (e Entry) State() string {
	switch {
	case e.Foreign:
		return "foreign"
	case e.Problem != "":
		return "incomplete"
	case e.Withdrawn != "":
		return "withdrawn"
	case e.Has(Latest):
		return string(Latest)
	case e.Has(Prev):
		return string(Prev)
	}
	return "dated"
}

// usable reports whether e may have a label.
func (e Entry) usable() bool { return e.Problem == "" && e.Withdrawn == "" }

// Desired is the release that is to be latest.
type Desired struct {
	Image  string
	Build  BuildID
	Digest string
	// Rollback, if not "", is why newer releases are withdrawn, so that they do
	// not become latest again. A release that was withdrawn is restored.
	Rollback string
}

// An Op is what a Step does.
type Op string

// The operations.
const (
	Push           Op = "push"     // bring the release to the target, without a label, or complete it there
	Assign         Op = "assign"   // give the entry the label and take it from all others
	MarkWithdrawn  Op = "withdraw" // record that the release is taken back; its labels stay until they move
	ClearWithdrawn Op = "restore"  // remove that record
	Remove         Op = "remove"   // delete the entry
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
	// Reason is why a release is withdrawn; "" otherwise.
	Reason string
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
// of what was latest once the label is gone. Where no release that can be used
// is latest, its heir is the newest one before the desired release.
//
// Only complete releases that were not withdrawn get a label. Where earlier
// trouble left several entries with one label, or one on an entry that cannot be
// used, the plan leaves one on an entry that can. What a rollback withdraws is
// withdrawn last: the release in its place may turn out to be damaged.
//
// Of entries that are one release, which runs at once have made where the target
// does not keep them apart, one is left.
func Plan(have []Entry, want Desired) []Step {
	have = byPreference(have)
	next := Entry{Image: want.Image, Build: want.Build, Digest: want.Digest}
	if i := slices.IndexFunc(have, func(e Entry) bool { return e.Build == want.Build }); i >= 0 {
		next = have[i]
	}
	var steps []Step
	if next.ID == "" || next.Problem != "" {
		steps = append(steps, Step{Op: Push, Entry: next})
	}
	if next.Withdrawn != "" {
		steps = append(steps, Step{Op: ClearWithdrawn, Entry: next})
	}
	var withdrawals []Step
	if want.Rollback != "" {
		for i, e := range have {
			if e.Build.Compare(want.Build) > 0 && e.Withdrawn == "" {
				withdrawals = append(withdrawals, Step{Op: MarkWithdrawn, Entry: e, Reason: want.Rollback})
				have[i].Withdrawn = want.Rollback
			}
		}
	}
	if prev, ok := heir(have, next); ok {
		if from := others(have, Prev, prev.ID); !prev.Has(Prev) || len(from) > 0 {
			steps = append(steps, Step{Op: Assign, Label: Prev, Entry: prev, From: from})
		}
	}
	if from := others(have, Latest, next.ID); !next.Has(Latest) || len(from) > 0 {
		steps = append(steps, Step{Op: Assign, Label: Latest, Entry: next, From: from})
	}
	return append(append(steps, withdrawals...), surplus(have, steps)...)
}

// surplus returns the steps that remove the doubles of releases: of complete entries of
// one build and digest those that come after the first by preference, have no label when
// steps are done and may be removed.
func surplus(have []Entry, steps []Step) []Step {
	var out []Step
	for i, e := range have {
		double := e.Digest != "" && slices.ContainsFunc(have[:i], func(o Entry) bool {
			return o.usable() && o.Build == e.Build && o.Digest == e.Digest
		})
		if !double || !e.usable() || e.Held != "" {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(e.Labels), func(l Label) bool {
			return slices.ContainsFunc(steps, func(s Step) bool { return s.Op == Assign && s.Label == l && s.Entry.ID != e.ID })
		})
		given := slices.ContainsFunc(steps, func(s Step) bool { return s.Op == Assign && s.Entry.ID == e.ID })
		if len(left) == 0 && !given {
			out = append(out, Step{Op: Remove, Entry: e})
		}
	}
	return out
}

// heir returns what is to be prev when next is latest, if anything must have
// that label.
func heir(have []Entry, next Entry) (Entry, bool) {
	var candidates []Entry // the other releases that can be used, by preference
	for _, e := range have {
		if e.ID != next.ID && e.Build != next.Build && e.usable() { // not a double of next
			candidates = append(candidates, e)
		}
	}
	first := func(ok func(Entry) bool) (Entry, bool) {
		i := slices.IndexFunc(candidates, ok)
		if i < 0 {
			return Entry{}, false
		}
		return candidates[i], true
	}
	if e, ok := first(func(e Entry) bool { return e.Has(Latest) }); ok {
		return e, true
	}
	if next.Has(Latest) {
		if e, ok := first(func(e Entry) bool { return e.Has(Prev) }); ok {
			return e, true
		}
	}
	if e, ok := first(func(e Entry) bool { return e.Build.Compare(next.Build) < 0 }); ok {
		return e, true
	}
	// Rather two labels on one release than one on what cannot be used.
	return next, len(others(have, Prev, next.ID)) > 0
}

// byPreference returns the entries that can be used before the others, what is
// latest first, then what is newer, then by ID, so that a plan does not depend
// on the target's order.
func byPreference(have []Entry) []Entry {
	rank := func(e Entry) int {
		switch {
		case !e.usable():
			return 2
		case !e.Has(Latest):
			return 1
		}
		return 0
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
// time is over at now: those that lost their last label at least [KeepYears]
// years ago, so that users have had that long since to move on. Where the
// target does not know when that was, it counts as the time at which the second
// complete release after them was built. There are always two complete releases
// after what is removed.
//
// An entry with a problem and without a digest is not known to be a release, and
// stays, as does one that is held.
func PlanRetire(have []Entry, now time.Time) []Step {
	limit := now.AddDate(-KeepYears, 0, 0)
	sorted := slices.SortedFunc(slices.Values(have), func(a, b Entry) int {
		return cmp.Or(a.Build.Compare(b.Build), cmp.Compare(a.ID, b.ID))
	})
	var complete []BuildID // in order, each once
	for _, e := range sorted {
		if e.usable() {
			complete = append(complete, e.Build)
		}
	}
	complete = slices.Compact(complete)

	var steps []Step
	for _, e := range sorted {
		if len(e.Labels) > 0 || e.Held != "" || e.Problem != "" && e.Digest == "" {
			continue
		}
		after, found := slices.BinarySearchFunc(complete, e.Build, BuildID.Compare)
		if found {
			after++
		}
		if after+1 >= len(complete) {
			continue
		}
		lost := complete[after+1].Time()
		if e.LabelLost.After(lost) {
			lost = e.LabelLost
		}
		if !lost.After(limit) {
			steps = append(steps, Step{Op: Remove, Entry: e})
		}
	}
	return steps
}
