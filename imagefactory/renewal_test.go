package imagefactory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

func TestDue(t *testing.T) {
	at := func(text string) time.Time {
		d, err := time.Parse(time.DateTime, text)
		require.NoError(t, err)
		return d
	}
	update := []Update{{ID: "CVE-2026-1", Package: "openssl", Version: "3.0.15-1", FixedIn: "3.0.17-1", Severity: testsuite.Medium}}
	built := publish.NewBuildID(at("2026-01-20 03:00:00"))
	month, fifteenth := Renewal{Every: EveryMonth}, Renewal{Every: EveryMonth, Day: 15}
	for name, test := range map[string]struct {
		renewal Renewal
		latest  publish.BuildID
		updates []Update
		now     string
		why     DueReason
		next    string
		text    string
	}{
		"nothing is latest":                   {renewal: month, now: "2026-01-20 03:00:00", why: DueFirst},
		"every night":                         {latest: built, now: "2026-01-21 03:00:00", why: DueNight},
		"29 days and a bit":                   {renewal: month, latest: built, now: "2026-02-19 02:59:59", why: NotDue, next: "2026-02-19 03:00:00", text: "latest was built on 2026-01-20 and is due on 2026-02-19"},
		"30 days":                             {renewal: month, latest: built, now: "2026-02-19 03:00:00", why: DueMonth, next: "2026-02-19 03:00:00"},
		"before the 15th":                     {renewal: fifteenth, latest: built, now: "2026-02-14 23:59:59", why: NotDue, next: "2026-02-15 00:00:00"},
		"on the 15th":                         {renewal: fifteenth, latest: built, now: "2026-02-15 00:00:00", why: DueMonth, next: "2026-02-15 00:00:00"},
		"built on the 15th":                   {renewal: fifteenth, latest: publish.NewBuildID(at("2026-12-15 00:00:00")), now: "2027-01-14 00:00:00", why: NotDue, next: "2027-01-15 00:00:00"},
		"built before the 15th":               {renewal: fifteenth, latest: publish.NewBuildID(at("2026-03-14 23:00:00")), now: "2026-03-15 00:00:00", why: DueMonth, next: "2026-03-15 00:00:00"},
		"a security update":                   {renewal: month, latest: built, updates: update, now: "2026-01-21 03:00:00", why: DueSecurity, next: "2026-02-19 03:00:00", text: "3.0.17-1 of openssl is out (CVE-2026-1, medium) and latest has 3.0.15-1"},
		"a security update that is too small": {renewal: Renewal{Every: EveryMonth, SecurityFrom: "high"}, latest: built, updates: update, now: "2026-01-21 03:00:00", why: NotDue, next: "2026-02-19 03:00:00"},
		"security updates do not matter":      {renewal: Renewal{Every: EveryMonth, SecurityFrom: Never}, latest: built, updates: update, now: "2026-01-21 03:00:00", why: NotDue, next: "2026-02-19 03:00:00"},
		"a clock that was set back":           {renewal: month, latest: built, now: "2025-01-01 00:00:00", why: NotDue, next: "2026-02-19 03:00:00"},
	} {
		t.Run(name, func(t *testing.T) {
			got := test.renewal.due(test.latest, test.updates, at(test.now))
			require.Equal(t, test.why, got.Why)
			require.Equal(t, test.why != NotDue, got.Due)
			require.NotEmpty(t, got.Text)
			if test.text != "" {
				require.Equal(t, test.text, got.Text)
			}
			if test.next != "" {
				require.Equal(t, at(test.next), got.Next)
			}
			require.Equal(t, test.updates, got.Updates)
		})
	}
}

// Two years of nights of an image whose packages change each night, by the functions
// that decide, with an outage of forty nights and three security updates.
func TestTwoYearsOfNights(t *testing.T) {
	start := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	outage := func(n int) bool { return n >= 205 && n < 245 }
	updates := map[int]bool{100: true, 101: true, 220: true} // one of them in the outage
	for _, r := range []Renewal{{Every: EveryMonth}, {Every: EveryMonth, Day: 15}} {
		state := &nights{First: start, Fixes: map[string]time.Time{}}
		var have []publish.Entry
		var latest publish.BuildID
		var open []Update // that latest lacks
		var renewed, alarmed []int
		security, removed := 0, 0
		for n := range 3 * 365 {
			now := start.AddDate(0, 0, n)
			if updates[n] {
				open = append(open, Update{ID: "CVE-" + now.Format(time.DateOnly), Severity: testsuite.High})
			}
			due := r.due(latest, open, now)
			outcome := Candidate
			switch {
			case outage(n):
				outcome = Failed
			case due.Due:
				outcome, open, latest = Published, nil, publish.NewBuildID(now)
				have = renew(have, latest, now)
				renewed = append(renewed, n)
				if due.Why == DueSecurity {
					security++
				}
			}
			state.end(outcome, "the mirror is down", now)
			if text := r.alarm(state, now); text != "" {
				alarmed = append(alarmed, n)
				require.Contains(t, text, "nights failed, the last with: the mirror is down")
			}
			for _, s := range publish.PlanRetire(have, now) {
				require.False(t, s.Entry.LabelLost.AddDate(2, 0, 0).After(now), "two years for those who used it")
				have = slices.DeleteFunc(have, func(e publish.Entry) bool { return e.Build == s.Entry.Build })
				removed++
			}
		}
		require.Equal(t, 3, security)
		require.Subset(t, renewed, []int{0, 100, 101, 245}, "at once, and when the outage is over")
		for i := 1; i < len(renewed); i++ {
			gap := renewed[i] - renewed[i-1]
			require.True(t, gap <= 31 || renewed[i] == 245, "night %d after %d", renewed[i], renewed[i-1])
			require.True(t, gap >= 28 || renewed[i] == 100 || renewed[i] == 101 || r.Day != 0, "night %d after %d", renewed[i], renewed[i-1])
		}
		require.InDelta(t, 36, len(renewed), 4)
		require.NotEmpty(t, alarmed, "latest is older than 45 days by the outage's end")
		for _, n := range alarmed {
			require.True(t, outage(n))
			require.Greater(t, n, 205)
		}
		require.InDelta(t, 10, removed, 3, "those of the first year, but for the last two")
	}
}

// renew does what publish.Plan says.
func renew(have []publish.Entry, build publish.BuildID, now time.Time) []publish.Entry {
	for _, s := range publish.Plan(have, publish.Desired{Image: "i", Build: build}) {
		if s.Op == publish.Push {
			have = append(have, publish.Entry{ID: build.String(), Image: "i", Build: build})
			s.Entry = have[len(have)-1]
		}
		for i := range have {
			e := &have[i]
			own := e.Build == s.Entry.Build
			if s.Op == publish.Assign && e.Has(s.Label) && !own {
				e.Labels = slices.DeleteFunc(slices.Clone(e.Labels), func(l publish.Label) bool { return l == s.Label })
				if len(e.Labels) == 0 {
					e.LabelLost = now
				}
			}
			if s.Op == publish.Assign && own && !e.Has(s.Label) {
				e.Labels = append(e.Labels, s.Label)
			}
		}
	}
	return have
}

// The same with a factory: candidates wait, a security update is out at once, forty
// failing nights leave latest and raise the alarm, and what is over two years old goes.
func TestNightsOfAFactory(t *testing.T) {
	f, d, now, _ := changing(t)
	d.Renewal = Renewal{Every: EveryMonth, AlarmDays: 35, Retire: true}
	first := night(t, f, d)
	require.Equal(t, Published, first.Result, first.Error)
	require.Equal(t, DueFirst, first.Due.Why)

	*now = now.AddDate(0, 0, 1)
	got := night(t, f, d)
	require.Equal(t, Candidate, got.Result, got.Error)
	require.Equal(t, "not due: latest was built on 2026-01-01 and is due on 2026-01-31", got.Held)
	require.Equal(t, first.Release, got.Release)
	due, err := f.Due(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, &Due{
		Image: d.Name, Why: NotDue, Text: strings.TrimPrefix(got.Held, "not due: "), Latest: "20260101-030000",
		Built: time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC), Next: time.Date(2026, 1, 31, 3, 0, 0, 0, time.UTC),
	}, due)

	f.Updates = func(_ context.Context, _ *Definition, i *advisory.Installed) ([]Update, error) {
		if i.Packages[0].Version >= "3" {
			return nil, nil
		}
		return []Update{{ID: "CVE-2026-1", Package: "a", Version: i.Packages[0].Version, FixedIn: "3", Severity: testsuite.High}}, nil
	}
	due, err = f.Due(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, DueSecurity, due.Why)
	*now = now.AddDate(0, 0, 1)
	got = night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, DueSecurity, got.Due.Why)
	require.Equal(t, "3 of a is out (CVE-2026-1, high) and latest has 1", got.Due.Text)

	good := f.Builders
	f.Builders = []BuilderDriver{builds("good", func(context.Context, builder.Spec) (*builder.Result, error) {
		return nil, errors.New("the mirror is down")
	})}
	latest := got.Release
	for n := 1; n <= 40; n++ {
		*now = now.AddDate(0, 0, 1)
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		got = report.Images[0]
		require.Equal(t, Failed, got.Result)
		require.Equal(t, latest, got.Release, "latest stays")
		if n <= 35 {
			require.Empty(t, got.Alarms)
			continue
		}
		require.Equal(t, []string{fmt.Sprintf("latest was last released or found unchanged on 2026-01-03, %d days ago; the limit is 35; the last %d nights failed, the last with: the mirror is down", n, n)}, got.Alarms)
	}
	text := new(strings.Builder)
	require.NoError(t, (&Report{Images: []ImageReport{got}}).WriteText(text))
	require.Contains(t, text.String(), "  ALARM: latest was last released")
	work, err := os.ReadDir(filepath.Join(f.Dir, ".work", d.Name))
	require.NoError(t, err)
	require.LessOrEqual(t, len(work), 11, "what nights leave is bounded")

	f.Builders = good
	*now = now.AddDate(0, 0, 1)
	got = night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, DueMonth, got.Due.Why)
	require.Empty(t, got.Alarms)

	// Releases are retired also while nights fail.
	f.Builders = []BuilderDriver{builds("good", func(context.Context, builder.Spec) (*builder.Result, error) {
		return nil, errors.New("the mirror is down")
	})}
	*now = now.AddDate(2, 0, 0)
	got = night(t, f, d)
	require.Equal(t, []string{"directory/20260101-030000"}, got.Retired)
	require.Len(t, got.Alarms, 1)
	require.NoDirExists(t, filepath.Join(f.Dir, d.Name, "20260101-030000"))
	require.DirExists(t, filepath.Join(f.Dir, d.Name, "20260103-030000"))
}

// An image that is held for too long is somebody's to decide about: that is an alarm
// and a failed run, although each night went well.
func TestHeldForTooLong(t *testing.T) {
	f, d, now, _ := changing(t)
	d.Gate.Approval, d.Renewal.AlarmDays = true, 10
	require.Equal(t, Candidate, night(t, f, d).Result)
	*now = now.AddDate(0, 0, 11)
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, Candidate, report.Images[0].Result)
	require.Equal(t, []string{"no night has released it since the first, on 2026-01-01, 11 days ago; the limit is 10"}, report.Images[0].Alarms)
	require.False(t, report.OK())
}

// An image that does not change is as good as new.
func TestUnchangedIsNoAlarm(t *testing.T) {
	f, d := embedded(t)
	now := f.Now()
	f.Now = func() time.Time { return now }
	d.Renewal.Every = EveryMonth
	first := night(t, f, d)
	require.Equal(t, Published, first.Result, first.Error)
	for range 3 {
		now = now.AddDate(0, 0, 40)
		got := night(t, f, d)
		require.Equal(t, Unchanged, got.Result, got.Error)
		require.Empty(t, got.Alarms)
	}
}

// What was remembered of earlier nights may be lost or damaged: the nights go on.
func TestLostMemory(t *testing.T) {
	f, d, now, _ := changing(t)
	d.Renewal.Every = EveryMonth
	first := night(t, f, d)
	require.Equal(t, Published, first.Result, first.Error)
	file := filepath.Join(f.Dir, ".work", ".nights", d.Name+".json")
	for _, text := range []string{"", "{", "[]", `{"fixes": null, "installed": {"Packages": null}, "latest": "x"}`, strings.Repeat("[", 1<<20)} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		*now = now.AddDate(0, 0, 1)
		got := night(t, f, d)
		require.Equal(t, Candidate, got.Result, got.Error)
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, new(nights)))
	}
}

// Security updates that nobody can tell do not renew latest, and that is said.
func TestUnknownUpdates(t *testing.T) {
	f, d, now, _ := changing(t)
	d.Renewal.Every = EveryMonth
	first := night(t, f, d)
	require.Equal(t, Published, first.Result, first.Error)
	f.Updates = func(context.Context, *Definition, *advisory.Installed) ([]Update, error) {
		return nil, errors.New("no advisory is about own 1")
	}
	*now = now.AddDate(0, 0, 1)
	got := night(t, f, d)
	require.Equal(t, Candidate, got.Result, got.Error)
	require.Equal(t, "no advisory is about own 1", got.Due.UpdatesError)
	require.Contains(t, got.Held, "which security updates it lacks is not known")
}

// shelf adds a target driver to a factory, whose Push and List fail as long as there is
// an error.
func shelf(t *testing.T, f *Factory) (dir string, push, list *error) {
	dir, push, list = t.TempDir(), new(error), new(error)
	f.Targets = append(f.Targets, targetDriver{"shelf", func(func(any) error) (publish.Target, error) {
		return deafTarget{downTarget{&directory.Target{Dir: dir, Now: f.Now}, push}, list}, nil
	}})
	return dir, push, list
}

type deafTarget struct {
	publish.Target
	err *error
}

func (t deafTarget) List(ctx context.Context, image string) ([]publish.Entry, error) {
	if *t.err != nil {
		return nil, *t.err
	}
	return t.Target.List(ctx, image)
}

// A release that came to one target is no candidate when the next run brings it to the
// other, though by the calendar the next one is due in a month.
func TestMonthlyReleaseComesToAllTargets(t *testing.T) {
	f, d, now, builds := changing(t)
	dir, push, _ := shelf(t, f)
	asked := 0
	f.Approve = func(context.Context, ImageReport) error { asked++; return nil }
	d.Renewal.Every, d.Gate.Approval = EveryMonth, true
	d.Publish = []Component{{Driver: "directory"}, {Driver: "shelf"}}
	*push = errors.New("the shelf is full")
	got := night(t, f, d)
	require.Equal(t, Failed, got.Result)
	*push, *now = nil, now.Add(time.Hour)
	got = night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error+got.Held)
	require.Equal(t, "20260101-030000", got.Build)
	require.FileExists(t, filepath.Join(dir, d.Name, "latest", "SHA256SUMS"))
	require.Equal(t, 1, *builds)
	require.Equal(t, 1, asked, "it was approved when it became public")
}

// A target that cannot be listed may have a latest: that another has none is not that
// there is no release.
func TestUnlistedTargetIsNotEmpty(t *testing.T) {
	f, d, _, _ := changing(t)
	_, _, list := shelf(t, f)
	d.Renewal.Every = EveryMonth
	d.Publish = []Component{{Driver: "shelf"}}
	require.Equal(t, Published, night(t, f, d).Result)
	d.Publish = append(d.Publish, Component{Driver: "directory"})
	due, err := f.Due(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, NotDue, due.Why)
	*list = errors.New("no answer")
	_, err = f.Due(t.Context(), d)
	require.ErrorContains(t, err, "no answer")
}

// A staging target that is down for long does not keep the factory at an old build.
func TestStagingIsDownForLong(t *testing.T) {
	f, d, now, builds := changing(t)
	_, push, _ := shelf(t, f)
	d.Staging = []Component{{Driver: "shelf"}}
	*push = errors.New("the shelf is full")
	require.Equal(t, Failed, night(t, f, d).Result)
	*now = now.Add(time.Hour)
	require.Equal(t, Failed, night(t, f, d).Result)
	require.Equal(t, 1, *builds)
	*now = now.AddDate(0, 0, 1)
	got := night(t, f, d)
	require.Contains(t, got.Error, "the shelf is full")
	require.Equal(t, 2, *builds, "a newer build is worth more")
	*push, *now = nil, now.Add(time.Hour)
	got = night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, 2, *builds)
}

// A night under a clock that ran ahead does not silence the alarm, nor the gate.
func TestClockThatRanAhead(t *testing.T) {
	f, d, now, _ := changing(t)
	f.Updates = func(_ context.Context, _ *Definition, i *advisory.Installed) ([]Update, error) {
		return []Update{{ID: "CVE-2026-1", Package: "a", Version: "1", FixedIn: "99", Severity: testsuite.High}}, nil
	}
	d.Gate.Versions.From, d.Gate.VersionsAfterDays, d.Renewal.AlarmDays = "high", 1, 10
	file := filepath.Join(f.Dir, ".work", ".nights", d.Name+".json")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	const ahead = `"2036-01-01T00:00:00Z"`
	require.NoError(t, os.WriteFile(file, []byte(`{"first":`+ahead+`,"good":`+ahead+`,"fixes":{"CVE-2026-1":`+ahead+`}}`), 0o600))
	require.Equal(t, Published, night(t, f, d).Result, "it is known since today")
	*now = now.AddDate(0, 0, 2)
	require.Equal(t, Failed, night(t, f, d).Result)
	*now = now.AddDate(0, 0, 11)
	require.Len(t, night(t, f, d).Alarms, 1)
}
