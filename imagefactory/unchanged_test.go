package imagefactory

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// An image that is what latest is has to pass again when what it passed by is over: a
// waiver of the gate that has expired or was taken back.
func TestUnchangedButNotWaivedAnyMore(t *testing.T) {
	for name, lose := range map[string]func(*Definition, *time.Time){
		"expired":    func(_ *Definition, now *time.Time) { *now = now.AddDate(0, 0, 10) },
		"taken back": func(d *Definition, _ *time.Time) { d.Gate.Waivers = nil },
	} {
		t.Run(name, func(t *testing.T) {
			f, d := embedded(t)
			now := f.Now()
			f.Now = func() time.Time { return now }
			d.DiskBytes = 5 * GiB // the builder makes 4
			d.Gate.Waivers = []Waiver{{Check: "inspection.size", Reason: "r", Expires: until("2026-11-30")}}
			first := night(t, f, d)
			require.Equal(t, Published, first.Result, first.Error)
			now = now.Add(time.Hour)
			require.Equal(t, Unchanged, night(t, f, d).Result)
			lose(&d, &now)
			var blocked *GateError
			got := night(t, f, d)
			require.ErrorAs(t, got.Err, &blocked, got.Result)
			require.Equal(t, first.Release, got.Release)
		})
	}
}

// A waiver that had expired before latest was built is no reason to release it again.
func TestWaiverOfLongAgo(t *testing.T) {
	f, d := embedded(t)
	now := f.Now()
	f.Now = func() time.Time { return now }
	d.Test.Waivers = []Waiver{{Check: "failed-units", Reason: "r", Expires: until("2026-01-01")}}
	f.Profiles = []testsuite.Profile{{Name: "otc", Checks: []testsuite.Check{passing("failed-units")}}}
	require.Equal(t, Published, night(t, f, d).Result)
	now = now.AddDate(0, 0, 1)
	got := night(t, f, d)
	require.Equal(t, Unchanged, got.Result, got.Error)
}

func passing(id string) testsuite.Check { return judged(id, testsuite.Pass) }

func judged(id string, status testsuite.Status) testsuite.Check {
	return testsuite.Check{ID: id, Severity: testsuite.High, Judge: func(testsuite.Facts, testsuite.Params) testsuite.Verdict {
		return testsuite.Verdict{Status: status, Expected: "x", Found: "y"}
	}}
}

// An image is not unchanged for a check that has never seen it, with and without a build.
func TestUnchangedButForANewCheck(t *testing.T) {
	for name, state := range map[string]*builder.State{
		"built":     nil,
		"not built": {Tool: "own 1", Indexes: []builder.Index{{Mirror: "m", Path: "p", SHA256: strings.Repeat("a", 64)}}},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := embedded(t)
			now := f.Now()
			f.Now = func() time.Time { return now }
			f.Builders = []BuilderDriver{builderDriver{"good", func(decode func(any) error) (builder.Builder, error) {
				return statedBuilder{goodBuild, state}, decode(&struct{}{})
			}}}
			profile := testsuite.Profile{Name: "otc", Checks: []testsuite.Check{passing("own.one")}}
			f.Profiles = []testsuite.Profile{profile}
			require.Equal(t, Published, night(t, f, d).Result)
			now = now.Add(time.Hour)
			require.Equal(t, Unchanged, night(t, f, d).Result)
			profile.Checks = append(profile.Checks, judged("own.two", testsuite.Fail))
			f.Profiles = []testsuite.Profile{profile}
			now = now.Add(time.Hour)
			got := night(t, f, d)
			require.Equal(t, StageTest, got.Stage, got.Result)
			require.Contains(t, got.Error, "own.two")
		})
	}
}

type statedBuilder struct {
	builderFunc
	state *builder.State
}

func (b statedBuilder) State(context.Context, builder.Host, builder.Spec) (*builder.State, error) {
	return b.state, nil
}
