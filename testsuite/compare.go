package testsuite

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

// A Comparison says what has changed from one report of an image to the next.
type Comparison struct {
	Old     ReportHead `json:"old"`
	New     ReportHead `json:"new"`
	Changes []Change   `json:"changes"` // worst kind first, then in the order of the profile
	Same    int        `json:"same"`    // checks of which there is nothing to say
}

// ReportHead says which report is meant.
type ReportHead struct {
	Profile string    `json:"profile"`
	Host    string    `json:"host"`
	Started time.Time `json:"started"`
	OK      bool      `json:"ok"`
}

// A Change is what has become of one check.
type Change struct {
	Kind     ChangeKind `json:"kind"`
	ID       string     `json:"id"`
	Title    string     `json:"title"`
	Severity Severity   `json:"severity"`
	Was      *Result    `json:"was,omitempty"` // nil if the check is new
	Is       *Result    `json:"is,omitempty"`  // nil if it is gone
	// Course has the check's status in each report, the oldest first; it is empty where
	// the check was not made.
	Course []Status `json:"course"`
	// Flapping says that the check went from good to bad or back more than once, or is
	// flaky: its last change says little of the last release.
	Flapping bool `json:"flapping,omitempty"`
}

// ChangeKind is what has become of a check. Bad is what failed or ended in an error, or
// failed and then passed; what passed, is waived or does not apply is good.
type ChangeKind string

// The kinds of changes, the worst first.
const (
	ChangeBroken ChangeKind = "broken"  // was good, is bad
	ChangeNew    ChangeKind = "new"     // was not made, and is good or bad: see Is
	ChangeStill  ChangeKind = "still"   // was bad, is bad
	ChangeGone   ChangeKind = "gone"    // was made, and is no more
	ChangeOther  ChangeKind = "changed" // good both times, by another status: what passed is skipped now
	ChangeFlaps  ChangeKind = "flaps"   // as in the report before, and Flapping
	ChangeFixed  ChangeKind = "fixed"   // was bad, is good
)

var changeKinds = []ChangeKind{ChangeBroken, ChangeNew, ChangeStill, ChangeGone, ChangeOther, ChangeFlaps, ChangeFixed}

// Compare says what has changed from the report before to the one after. In earlier reports,
// the oldest first, it looks for checks that flap. None of the reports may be nil.
func Compare(before, after *Report, earlier ...*Report) *Comparison {
	all := append(append([]*Report{}, earlier...), before, after)
	byID := make([]map[string]*Result, len(all))
	for i, r := range all {
		byID[i] = map[string]*Result{}
		for k := range r.Checks {
			byID[i][r.Checks[k].ID] = &r.Checks[k]
		}
	}
	was, is := byID[len(all)-2], byID[len(all)-1]
	c := &Comparison{Old: before.head(), New: after.head(), Changes: []Change{}}
	kinds := map[ChangeKind][]Change{}
	seen := map[string]bool{}
	for _, r := range append(append([]Result{}, after.Checks...), before.Checks...) {
		if seen[r.ID] {
			continue
		}
		seen[r.ID] = true
		change := Change{ID: r.ID, Title: r.Title, Severity: r.Severity, Was: was[r.ID], Is: is[r.ID]}
		for _, results := range byID {
			var status Status
			if result := results[r.ID]; result != nil {
				status = result.Status
			}
			change.Course = append(change.Course, status)
		}
		change.Flapping = flaps(byID, r.ID)
		if change.Kind = change.kind(); change.Kind == "" {
			c.Same++
			continue
		}
		kinds[change.Kind] = append(kinds[change.Kind], change)
	}
	for _, kind := range changeKinds {
		c.Changes = append(c.Changes, kinds[kind]...)
	}
	return c
}

func (r *Report) head() ReportHead {
	return ReportHead{Profile: r.Profile, Host: r.Host, Started: r.Started, OK: r.OK()}
}

// kind is what the change is, or "" for none.
func (c *Change) kind() ChangeKind {
	switch {
	case c.Was == nil:
		return ChangeNew
	case c.Is == nil:
		return ChangeGone
	case c.Is.bad() && !c.Was.bad():
		return ChangeBroken
	case c.Was.bad() && !c.Is.bad():
		return ChangeFixed
	case c.Is.bad():
		return ChangeStill
	case c.Is.Status != c.Was.Status:
		return ChangeOther
	case c.Flapping:
		return ChangeFlaps
	}
	return ""
}

// flaps reports whether good and bad changed more than once, or within the last of the
// reports. Where the check was not made, nothing changed.
func flaps(reports []map[string]*Result, id string) bool {
	turns := 0
	var last *Result
	for _, results := range reports {
		r := results[id]
		if r == nil {
			continue
		}
		if last != nil && r.bad() != last.bad() {
			turns++
		}
		last = r
	}
	return turns > 1 || last != nil && last.Status == Flaky
}

// lines are what there is to be said of a change: name and text, safe to show.
func (c *Change) lines() [][2]string {
	var lines [][2]string
	for _, side := range []struct {
		name   string
		result *Result
	}{{"was", c.Was}, {"is", c.Is}} {
		if side.result == nil || side.result.Status == Pass {
			continue
		}
		for _, l := range side.result.details() {
			lines = append(lines, [2]string{side.name + " " + l[0], l[1]})
		}
	}
	return lines
}

// course is the change's Course in words.
func (c *Change) course() string {
	var words []string
	for _, s := range c.Course {
		if s == "" {
			s = "not made"
		}
		words = append(words, string(s))
	}
	text := strings.Join(words, " → ")
	if c.Flapping {
		text = "flapping: " + text
	}
	return text
}

// count is how many changes there are of a kind.
func (c *Comparison) count(kind ChangeKind) int {
	return len(filter(c.Changes, func(change Change) bool { return change.Kind == kind }))
}

// WriteJSON writes the comparison as indented JSON.
func (c *Comparison) WriteJSON(w io.Writer) error {
	if err := writeJSON(w, c); err != nil {
		return fmt.Errorf("cannot write comparison as JSON: %w", err)
	}
	return nil
}

// WriteText writes the comparison for people: one line per change with the check's
// course, what was expected and found below it, and the counts.
func (c *Comparison) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, side := range []struct {
		name string
		head ReportHead
	}{{"from", c.Old}, {"to  ", c.New}} {
		fmt.Fprintf(&b, "%s profile %s on %s, %s\n", side.name, visible.Line(side.head.Profile), visible.Line(side.head.Host), shownTime(side.head.Started))
	}
	b.WriteByte('\n')
	for _, change := range c.Changes {
		fmt.Fprintf(&b, "%-8s%-32s %s (%s)\n", change.Kind, visible.Line(change.ID), visible.Line(change.Title), change.course())
		for _, l := range change.lines() {
			fmt.Fprintf(&b, "        %-13s %s\n", l[0]+":", l[1])
		}
	}
	var counts []string
	for _, kind := range changeKinds {
		counts = append(counts, fmt.Sprintf("%d %s", c.count(kind), kind))
	}
	fmt.Fprintf(&b, "\n%s, %d as before\n", strings.Join(counts, ", "), c.Same)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("cannot write comparison as text: %w", err)
	}
	return nil
}

// htmlChange is a Change on a page.
type htmlChange struct {
	Change
	Open   bool
	Course string
}

func (c htmlChange) Lines() [][2]string { return c.lines() }

type htmlKind struct {
	Kind    ChangeKind
	Title   string
	Number  int
	Changes []htmlChange
}

// WriteHTML writes the comparison as one page, as Report's WriteHTML does.
func (c *Comparison) WriteHTML(w io.Writer) error {
	titles := map[ChangeKind]string{
		ChangeBroken: "Broken: good before, bad now", ChangeNew: "New checks", ChangeStill: "Still bad", ChangeGone: "Gone: no longer checked",
		ChangeOther: "Good as before, for another reason", ChangeFlaps: "Flapping: as before, and not to be relied on", ChangeFixed: "Fixed: bad before, good now",
	}
	var kinds []htmlKind
	for _, kind := range changeKinds {
		k := htmlKind{Kind: kind, Title: titles[kind], Number: c.count(kind)}
		for _, change := range c.Changes {
			if change.Kind == kind {
				k.Changes = append(k.Changes, htmlChange{change, kind == ChangeBroken || kind == ChangeNew && change.Is.bad(), change.course()})
			}
		}
		kinds = append(kinds, k)
	}
	return writePage(w, "comparison", map[string]any{
		"Title": "What has changed", "Comparison": c,
		"OldStarted": shownTime(c.Old.Started), "NewStarted": shownTime(c.New.Started),
		"Counts":   kinds,
		"Sections": filter(kinds, func(k htmlKind) bool { return k.Number > 0 }),
	})
}
