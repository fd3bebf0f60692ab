package testsuite

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// courses are what becomes of a check that is tried again, by what it says the first
// time and the second.
var courses = []struct {
	first, second Status
	want          Status
	bad           bool
	evidence      Status // of the first run, if any
}{
	{Pass, Fail, Pass, false, ""}, // it is not tried again
	{Skipped, Fail, Skipped, false, ""},
	{Error, Pass, Flaky, false, Error},
	{Fail, Pass, Flaky, true, Fail},
	{Error, Fail, Fail, true, Error},
	{Error, Error, Error, true, Error},
	{Fail, Fail, Fail, true, Fail},
	{Fail, Error, Fail, true, ""},
	{Fail, Skipped, Fail, true, ""},
	{Error, Skipped, Error, true, ""},
}

// flakyReport is the report of a suite that tries again on a machine that changes in
// all ways of courses; a check has the name of its way.
func flakyReport(t *testing.T, change func(*Suite)) (*Report, *fakeGuest) {
	t.Helper()
	suite := &Suite{Rerun: true, Now: func() time.Time { return time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC) }}
	for _, c := range courses {
		name := fmt.Sprintf("%s-%s", c.first, c.second)
		suite.Probes = append(suite.Probes, Probe{Name: name, Script: "x"})
		suite.Profile.Checks = append(suite.Profile.Checks, Check{ID: "group." + name, Group: "group", Title: "holds", Severity: High, Needs: []string{name},
			Judge: func(f Facts, _ Params) Verdict {
				text, _ := f.Text(name)
				return Verdict{Status: Status(text), Reason: "because", Expected: "expected " + text, Found: "found " + text}
			}})
	}
	if change != nil {
		change(suite)
	}
	g := startChangingGuest(t, func(time int) string {
		var b strings.Builder
		for _, c := range courses {
			status := c.first
			if time > 1 {
				status = c.second
			}
			code := 0
			if status == Error {
				code, status = 124, ""
			}
			fmt.Fprintf(&b, "@@fact %s-%s %d 0 1 %d\n%s\n", c.first, c.second, code, len(status), status)
		}
		return b.String() + "@@end\n"
	}, 0)
	r, err := suite.Run(t.Context(), g.target)
	require.NoError(t, err)
	return r, g
}

func TestAgain(t *testing.T) {
	r, g := flakyReport(t, nil)
	var bad []string
	for _, c := range r.Bad() {
		bad = append(bad, c.ID)
	}
	for i, c := range courses {
		got := r.Checks[i]
		assert.Equal(t, c.want, got.Status, got.ID)
		assert.Equal(t, c.bad, slices.Contains(bad, got.ID), got.ID)
		if c.evidence == "" {
			assert.Nil(t, got.First, got.ID)
			continue
		}
		require.NotNil(t, got.First, got.ID)
		assert.Equal(t, c.evidence, got.First.Status, got.ID)
		if c.evidence == Fail {
			assert.Equal(t, "found fail", got.First.Found, got.ID)
		} else {
			assert.Contains(t, got.First.Reason, "it took too long", got.ID)
		}
	}
	assert.Equal(t, Summary{Pass: 1, Skipped: 1, Flaky: 2, Fail: 4, Error: 2}, r.Summary)
	assert.NotContains(t, g.stdin[1], "pass-fail", "what was good is not read again")

	good, _ := flakyReport(t, func(s *Suite) { s.Profile.Checks = s.Profile.Checks[:3] })
	assert.True(t, good.OK(), "what was not decided and passes now is good")
	still, _ := flakyReport(t, func(s *Suite) { s.Profile.Checks = s.Profile.Checks[:4] })
	assert.False(t, still.OK(), "what once failed is not")
	once, _ := flakyReport(t, func(s *Suite) { s.Rerun = false })
	assert.Zero(t, once.Summary.Flaky)
	advisory, _ := flakyReport(t, func(s *Suite) { s.FailFrom = Critical })
	assert.True(t, advisory.OK())
	assert.True(t, advisory.Checks[3].Advisory)
	assert.False(t, advisory.Checks[2].Advisory, "it is good, and needs no excuse")
	waived, _ := flakyReport(t, func(s *Suite) {
		for _, c := range s.Profile.Checks {
			s.Waivers = append(s.Waivers, Waiver{Check: c.ID, Reason: "lab", Expires: time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)})
		}
	})
	assert.Equal(t, Summary{Pass: 1, Skipped: 1, Flaky: 1, Waived: 5, Error: 2}, waived.Summary)
}

// Each form of a report says of a flaky check that it is one, whether it counts, and
// what it first was.
func TestFlakyForms(t *testing.T) {
	r, _ := flakyReport(t, func(s *Suite) { s.Profile.Checks = s.Profile.Checks[:4] })
	all := forms(t, r)
	for name, text := range all {
		assert.Contains(t, text, "found fail", name)
		if name != "tap" && name != "junit" {
			assert.Contains(t, text, "flaky", name)
		}
	}
	assert.Contains(t, all["text"], "4 checks: 1 pass, 0 fail, 0 error, 0 waived, 1 skipped, 2 flaky")
	assert.Contains(t, all["tap"], "\nok 3 - group.error-pass")
	assert.Contains(t, all["tap"], "\nnot ok 4 - group.fail-pass: holds\n")
	assert.Contains(t, all["tap"], `first: "fail; reason because; expected expected fail; found found fail"`)
	assert.Contains(t, all["junit"], `failures="1" errors="0"`)
	assert.Contains(t, all["junit"], `<flakyError message="error; reason cannot read fact error-pass`)
	assert.Contains(t, all["junit"], `<rerunFailure message="fail; reason because`)
	assert.Contains(t, all["html"], "Flaky: passed when tried again (1)")
	assert.Contains(t, all["html"], "Bad (1)")

	back, err := LoadReport(strings.NewReader(all["json"]))
	require.NoError(t, err)
	assert.Equal(t, r, back)
	var b bytes.Buffer
	back.Checks[2].First = nil
	require.NoError(t, back.WriteJSON(&b))
	_, err = LoadReport(&b)
	require.ErrorContains(t, err, "check 3 does not say how it first failed")

	before := &Report{Checks: []Result{{ID: "group.error-pass", Status: Pass}, {ID: "group.fail-pass", Status: Pass}}}
	changes := Compare(before, r).Changes
	assert.Equal(t, []ChangeKind{ChangeBroken, ChangeNew, ChangeNew, ChangeOther}, []ChangeKind{changes[0].Kind, changes[1].Kind, changes[2].Kind, changes[3].Kind})
	assert.True(t, changes[0].Flapping && changes[3].Flapping)
	changes = Compare(r, r).Changes
	require.Len(t, changes, 2)
	assert.Equal(t, ChangeStill, changes[0].Kind)
	assert.Equal(t, ChangeFlaps, changes[1].Kind)
}
