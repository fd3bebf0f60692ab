package publish_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

func ExamplePlan() {
	id := func(s string) publish.BuildID {
		b, _ := publish.ParseBuildID(s)
		return b
	}
	have := []publish.Entry{
		{ID: "1", Image: "Standard_Debian_12", Build: id("20260915-031501"), Labels: []publish.Label{publish.Prev}},
		{ID: "2", Image: "Standard_Debian_12", Build: id("20261015-031509"), Labels: []publish.Label{publish.Latest}},
	}
	want := publish.Desired{Image: "Standard_Debian_12", Build: id("20261115-031507")}
	for _, step := range publish.Plan(have, want) {
		fmt.Println(step)
	}
	// Output:
	// push Standard_Debian_12 20261115-031507
	// move prev of Standard_Debian_12 from 20260915-031501 to 20261015-031509
	// move latest of Standard_Debian_12 from 20261015-031509 to 20261115-031507
}

// state reads what a test writes: "ID:BUILD DAY:LABELS …", with l and p for
// the labels, x for an entry with a problem and w for one that was withdrawn, as
// in "a:1:p b:2:l c:3:xw".
func state(t testing.TB, s string) []publish.Entry {
	var have []publish.Entry
	for _, field := range strings.Fields(s) {
		part := strings.Split(field, ":")
		e := publish.Entry{ID: part[0], Image: "I", Build: day(t, part[1])}
		for _, l := range part[2] {
			switch l {
			case 'x':
				e.Problem = "a file is missing"
			case 'w':
				e.Withdrawn = "it does not boot"
			default:
				e.Labels = append(e.Labels, map[rune]publish.Label{'l': publish.Latest, 'p': publish.Prev}[l])
			}
		}
		have = append(have, e)
	}
	return have
}

func day(t testing.TB, s string) publish.BuildID {
	return build(t, fmt.Sprintf("202601%02s-000000", s))
}

func TestPlan(t *testing.T) {
	for name, test := range map[string]struct {
		have, want string
		steps      []string
	}{
		"first": {"", "1", []string{"push I 1", "move latest of I from no release to 1"}},
		"second": {"a:1:l", "2", []string{"push I 2",
			"move prev of I from no release to 1", "move latest of I from 1 to 2"}},
		"third": {"a:1:p b:2:l", "3", []string{"push I 3",
			"move prev of I from 1 to 2", "move latest of I from 2 to 3"}},
		"done":                  {"a:1: b:2:p c:3:l", "3", nil},
		"cut after push":        {"a:1:p b:2:l c:3:", "3", []string{"move prev of I from 1 to 2", "move latest of I from 2 to 3"}},
		"cut between labels":    {"a:1: b:2:lp c:3:", "3", []string{"move latest of I from 2 to 3"}},
		"cut, then a newer":     {"a:1: b:2:lp c:3:", "4", []string{"push I 4", "move latest of I from 2 to 4"}},
		"back to prev":          {"a:1: b:2:p c:3:l", "2", []string{"move prev of I from 2 to 3", "move latest of I from 3 to 2"}},
		"back to a dated one":   {"a:1: b:2:p c:3:l", "1", []string{"move prev of I from 2 to 3", "move latest of I from 3 to 1"}},
		"labels lost":           {"a:1: b:2:", "2", []string{"move prev of I from no release to 1", "move latest of I from no release to 2"}},
		"latest lost":           {"a:1:p b:2:", "2", []string{"move latest of I from no release to 2"}},
		"latest lost, newer":    {"a:1:p b:2:", "3", []string{"push I 3", "move prev of I from 1 to 2", "move latest of I from no release to 3"}},
		"prev lost":             {"a:1: b:2: c:3:l", "3", []string{"move prev of I from no release to 2"}},
		"prev lost, cut after":  {"a:1: b:2:l c:3:", "2", []string{"move prev of I from no release to 1"}},
		"latest damaged":        {"a:1:p b:2:lx", "2", []string{"push I 2"}},
		"latest damaged, newer": {"a:1:p b:2:lx", "3", []string{"push I 3", "move latest of I from 2 to 3"}},
		"latest damaged, back":  {"a:1:p b:2:lx", "1", []string{"move latest of I from 2 to 1"}},
		"prev damaged":          {"a:1: b:2:px c:3:l", "3", []string{"move prev of I from 2 to 1"}},
		"prev damaged, alone":   {"b:2:px c:3:l", "3", []string{"move prev of I from 2 to 3"}},
		"only a damaged one":    {"a:1:lx", "2", []string{"push I 2", "move latest of I from 1 to 2"}},
		"no heir is damaged":    {"a:1:x b:2:", "3", []string{"push I 3", "move prev of I from no release to 2", "move latest of I from no release to 3"}},
		"latest withdrawn":      {"a:1: b:2:p c:3:lw", "2", []string{"move prev of I from 2 to 1", "move latest of I from 3 to 2"}},
		"withdrawn, newer":      {"a:1: b:2:p c:3:lw", "4", []string{"push I 4", "move latest of I from 3 to 4"}},
		"withdrawn comes back":  {"a:1: b:2:l c:3:w", "3", []string{"restore I 3", "move prev of I from no release to 2", "move latest of I from 2 to 3"}},
		"two latest":            {"a:1:l b:2:l", "2", []string{"move prev of I from no release to 1", "move latest of I from 1 to 2"}},
		"two latest, prev set":  {"a:1:lp b:2:l", "2", []string{"move latest of I from 1 to 2"}},
		"two latest, newer":     {"a:1:l b:2:l", "3", []string{"push I 3", "move prev of I from no release to 2", "move latest of I from 2, 1 to 3"}},
		"two prev, done":        {"a:1:p b:2:p c:3:l", "3", []string{"move prev of I from 1 to 2"}},
		"two prev":              {"a:1:p b:2:p c:3:l", "4", []string{"push I 4", "move prev of I from 2, 1 to 3", "move latest of I from 3 to 4"}},
		"one build, two IDs":    {"a:1:l b:1:", "1", nil},
		"both latest":           {"a:1:l b:1:l", "1", []string{"move latest of I from 1 to 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range publish.Plan(state(t, test.have), publish.Desired{Image: "I", Build: day(t, test.want)}) {
				short := strings.NewReplacer("2026010", "", "-000000", "")
				got = append(got, short.Replace(s.String()))
			}
			assert.Equal(t, test.steps, got)
		})
	}
}

// Runs at once have made one release several times.
func TestPlanLeavesOneOfARelease(t *testing.T) {
	entry := func(id string, n int, digest string, labels ...publish.Label) publish.Entry {
		return publish.Entry{ID: id, Image: "I", Build: day(t, fmt.Sprint(n)), Digest: digest, Labels: labels}
	}
	held := entry("c", 2, "d2")
	held.Held = "somebody else has protected it"
	have := []publish.Entry{
		entry("a", 2, "d2"), entry("b", 2, "d2", publish.Latest), held, entry("d", 2, "d2"),
		entry("e", 1, "d1", publish.Prev), entry("f", 1, "d1"), entry("g", 1, "another"),
	}
	var removed []string
	for _, s := range publish.Plan(have, publish.Desired{Image: "I", Build: day(t, "2"), Digest: "d2"}) {
		require.Equal(t, publish.Remove, s.Op)
		removed = append(removed, s.Entry.ID)
	}
	require.Equal(t, []string{"a", "d", "f"}, removed)
}

// apply is what a target does, in the model: only From loses the label.
func apply(have []publish.Entry, s publish.Step) []publish.Entry {
	have = slices.Clone(have)
	if s.Op == publish.Push && s.Entry.ID == "" {
		s.Entry.ID = "pushed"
		return append(have, s.Entry)
	}
	if s.Op == publish.Remove {
		return slices.DeleteFunc(have, func(e publish.Entry) bool { return e.ID == s.Entry.ID })
	}
	for i, e := range have {
		if e.ID == s.Entry.ID {
			switch s.Op {
			case publish.Push:
				e.Problem = ""
			case publish.MarkWithdrawn:
				e.Withdrawn = s.Reason
			case publish.ClearWithdrawn:
				e.Withdrawn = ""
			}
		}
		e.Labels = slices.Clone(e.Labels)
		if slices.ContainsFunc(s.From, func(f publish.Entry) bool { return f.ID == e.ID }) {
			e.Labels = slices.DeleteFunc(e.Labels, func(l publish.Label) bool { return l == s.Label })
		}
		if s.Op == publish.Assign && (e.ID == s.Entry.ID || s.Entry.ID == "" && e.Build == s.Entry.Build) && !e.Has(s.Label) {
			e.Labels = append(e.Labels, s.Label)
		}
		have[i] = e
	}
	return have
}

func count(have []publish.Entry, l publish.Label) (n int) {
	for _, e := range have {
		if e.Has(l) {
			n++
		}
	}
	return n
}

// From every state that there can be, also a damaged one, a plan that is cut
// after any of its steps and made anew ends in the same state, and on the way
// there is never a second latest, nor none, where there was one.
func TestPlanIsSafeAtEveryPoint(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2018, 4))
	for range 5000 {
		var have []publish.Entry
		for i := range rnd.IntN(6) {
			e := publish.Entry{ID: fmt.Sprint(i), Image: "I", Build: day(t, fmt.Sprint(1+rnd.IntN(6)))}
			if rnd.IntN(2) == 0 { // as all targets tell it that keep several of a build
				e.Digest = "of " + e.Build.String()
			}
			for _, l := range []publish.Label{publish.Latest, publish.Prev} {
				if rnd.IntN(3) == 0 {
					e.Labels = append(e.Labels, l)
				}
			}
			if rnd.IntN(4) == 0 {
				e.Problem = "a file is missing"
			}
			if rnd.IntN(4) == 0 {
				e.Withdrawn = "it does not boot"
			}
			have = append(have, e)
		}
		want := publish.Desired{Image: "I", Build: day(t, fmt.Sprint(1+rnd.IntN(7)))}
		if rnd.IntN(2) == 0 {
			want.Rollback = "the newer ones do not boot"
		}
		for cut := range 4 {
			now := have
			for i, s := range publish.Plan(have, want) {
				if i == cut {
					break
				}
				now = check(t, now, s)
			}
			for _, s := range publish.Plan(now, want) {
				now = check(t, now, s)
			}
			require.Empty(t, publish.Plan(now, want), "from %v", have)
			require.Equal(t, 1, count(now, publish.Latest), "from %v", have)
			i := slices.IndexFunc(now, func(e publish.Entry) bool { return e.Has(publish.Latest) })
			require.Equal(t, want.Build, now[i].Build, "from %v", have)
			require.LessOrEqual(t, count(now, publish.Prev), 1, "from %v", have)
			for _, e := range now {
				require.True(t, len(e.Labels) == 0 || e.Problem == "" && e.Withdrawn == "", "from %v", have)
				require.True(t, want.Rollback == "" || e.Withdrawn != "" || e.Build.Compare(want.Build) <= 0, "from %v", have)
			}
		}
	}
}

// check applies s and compares the number of latest before and after.
func check(t *testing.T, have []publish.Entry, s publish.Step) []publish.Entry {
	now := apply(have, s)
	before, after := count(have, publish.Latest), count(now, publish.Latest)
	if before == 1 {
		require.Equal(t, 1, after, "%v: %v", s, have)
	}
	require.LessOrEqual(t, after, max(1, before), "%v: %v", s, have)
	return now
}

func TestPlanDoesNotDependOnOrder(t *testing.T) {
	have := state(t, "a:1:p b:2:l c:2:l d:3: e:3:")
	want := publish.Desired{Image: "I", Build: day(t, "3")}
	steps := publish.Plan(have, want)
	slices.Reverse(have)
	assert.Equal(t, steps, publish.Plan(have, want))
}

func TestPlanRetire(t *testing.T) {
	// DAY[!][@DAY][:LABEL]: the build, ! for what is no release, and when it lost its label.
	entries := func(s string) (have []publish.Entry) {
		for i, field := range strings.Fields(s) {
			day, label, _ := strings.Cut(field, ":")
			day, lost, _ := strings.Cut(day, "@")
			day, bad := strings.CutSuffix(day, "!")
			e := publish.Entry{ID: fmt.Sprint(i), Build: build(t, day+"-120000")}
			if bad {
				e.Problem = "it is empty"
			}
			if lost != "" {
				e.LabelLost = build(t, lost+"-120000").Time()
			}
			if label != "" {
				e.Labels = []publish.Label{publish.Label(label)}
			}
			have = append(have, e)
		}
		return have
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		have string
		want []string
	}{
		"nothing":                        {"", nil},
		"only old ones":                  {"20180401:prev 20180501:latest", nil},
		"monthly":                        {"20240901 20240922 20241001 20241101 20241122 20241201 20261001:prev 20261101:latest", []string{"20240901", "20240922", "20241001"}},
		"to the second":                  {"20240901 20241001 20241122 20261001:prev 20261101:latest", []string{"20240901"}},
		"latest until a month ago":       {"20180401 20261001:prev 20261101:latest", nil},
		"a label protects its own":       {"20180401:latest 20180501 20180601 20180701", []string{"20180501"}},
		"one build uploaded twice":       {"20180401 20180401 20180501:prev 20261101:latest", nil},
		"no release":                     {"20180401! 20180501 20180601 20180701:prev 20261101:latest", []string{"20180501"}},
		"no release is no successor":     {"20180401 20180501! 20180601! 20180701:latest", nil},
		"rolled back an hour ago":        {"20180401:latest 20180501@20261122 20180601 20180701 20180801:prev", []string{"20180601"}},
		"lost its label early":           {"20180401@20180601 20260501:prev 20260601:latest", nil},
		"lost its label two years ago":   {"20180401@20241122 20180501@20241123 20180601:prev 20180701:latest", []string{"20180401"}},
		"one build uploaded twice, over": {"20180401 20180401 20180501 20180601:prev 20261101:latest", []string{"20180401", "20180401"}},
	} {
		t.Run(name, func(t *testing.T) {
			have := entries(test.have)
			slices.Reverse(have) // the order does not matter
			got := []string{}
			for _, s := range publish.PlanRetire(have, now) {
				assert.Equal(t, publish.Remove, s.Op)
				got = append(got, s.Entry.Build.String()[:8])
			}
			assert.ElementsMatch(t, test.want, got)
			assert.True(t, slices.IsSorted(got))
		})
	}
}

// TestHeldAndForeign has what a target says that somebody else has a hand in.
func TestHeldAndForeign(t *testing.T) {
	at := func(n int) publish.BuildID {
		return publish.NewBuildID(time.Date(2018, time.Month(n), 1, 0, 0, 0, 0, time.UTC))
	}
	have := []publish.Entry{
		{ID: "1", Image: "I", Build: at(1), Digest: "a", Held: "somebody has protected it"},
		{ID: "2", Image: "I", Build: at(2), Digest: "b"},
		{ID: "3", Image: "I", Build: at(3), Digest: "c", Labels: []publish.Label{publish.Prev}},
		{ID: "4", Image: "I", Build: at(4), Digest: "d", Labels: []publish.Label{publish.Latest}},
		{ID: "5", Image: "I", Foreign: true, Problem: "it is somebody else's"},
	}
	steps := publish.PlanRetire(have, at(1).Time().AddDate(100, 0, 0))
	require.Len(t, steps, 1)
	require.Equal(t, "2", steps[0].Entry.ID)
	require.Equal(t, "foreign", have[4].State())
	require.Empty(t, publish.Plan(have, publish.Desired{Image: "I", Build: at(4), Digest: "d"}))
	for _, s := range publish.Plan(have, publish.Desired{Image: "I", Build: at(3), Digest: "c", Rollback: "why"}) {
		require.NotEqual(t, "5", s.Entry.ID)
	}
}
