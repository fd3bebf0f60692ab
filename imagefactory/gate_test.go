package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

func TestGateJudges(t *testing.T) {
	now := time.Date(2026, 1, 22, 12, 0, 0, 0, time.UTC)
	waiver := func(id, expires string) []Waiver {
		var d Date
		require.NoError(t, d.UnmarshalText([]byte(expires)))
		return []Waiver{{Check: id, Reason: "because", Expires: d}}
	}
	for name, test := range map[string]struct {
		gate     Gate
		id       string
		severity testsuite.Severity
		blocks   bool
		reason   string
	}{
		"disk, by default":                {id: "inspection.disk", severity: testsuite.Medium, blocks: true},
		"leaks, by default":               {id: "inspection.leaks", severity: testsuite.Low},
		"leaks, from low":                 {gate: Gate{Inspection: Rule{From: "low"}}, id: "inspection.leaks", severity: testsuite.Low, blocks: true},
		"leaks, by name":                  {gate: Gate{Inspection: Rule{Block: []string{"leak*"}}}, id: "inspection.leaks", severity: testsuite.Low, blocks: true},
		"disk, allowed":                   {gate: Gate{Inspection: Rule{Allow: []string{"disk"}}}, id: "inspection.disk", severity: testsuite.Medium, reason: "the gate allows it"},
		"blocked and allowed":             {gate: Gate{Inspection: Rule{Allow: []string{"*"}, Block: []string{"disk"}}}, id: "inspection.disk", severity: testsuite.Medium, blocks: true},
		"a fix, by default":               {id: "versions.CVE-2026-1", severity: testsuite.Critical},
		"a fix, from high":                {gate: Gate{Versions: Rule{From: "high"}}, id: "versions.CVE-2026-1", severity: testsuite.High, blocks: true},
		"a lesser fix, from high":         {gate: Gate{Versions: Rule{From: "high"}}, id: "versions.CVE-2026-1", severity: testsuite.Medium},
		"a fix, from never":               {gate: Gate{Versions: Rule{From: Never}}, id: "versions.CVE-2026-1", severity: testsuite.Critical},
		"one fix alone":                   {gate: Gate{Versions: Rule{From: Never, Block: []string{"CVE-2026-*"}}}, id: "versions.CVE-2026-1", severity: testsuite.Low, blocks: true},
		"another area's rule":             {gate: Gate{Signing: Rule{From: "low"}}, id: "versions.CVE-2026-1", severity: testsuite.Critical},
		"waived":                          {gate: Gate{Versions: Rule{From: "low"}, Waivers: waiver("versions.CVE-2026-1", "2026-01-22")}, id: "versions.CVE-2026-1", severity: testsuite.High, reason: "waived until 2026-01-22: because"},
		"waived until yesterday":          {gate: Gate{Versions: Rule{From: "low"}, Waivers: waiver("versions.CVE-2026-1", "2026-01-21")}, id: "versions.CVE-2026-1", severity: testsuite.High, blocks: true, reason: "its waiver (because) expired on 2026-01-21"},
		"another is waived":               {gate: Gate{Versions: Rule{From: "low"}, Waivers: waiver("versions.CVE-2026-10", "2026-01-30")}, id: "versions.CVE-2026-1", severity: testsuite.High, blocks: true},
		"a severity that nobody has told": {gate: Gate{Versions: Rule{From: "low"}}, id: "versions.CVE-2026-1", blocks: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := test.gate.judge([]Finding{{ID: test.id, Severity: test.severity, Text: "x"}}, now)
			require.Equal(t, []Finding{{ID: test.id, Severity: test.severity, Text: "x", Blocks: test.blocks, Reason: test.reason}}, got)
		})
	}
}

func TestGateMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"gate: {inspection: {from: hi}}":                                                `f.yaml:6:31: bad threshold "hi": want low, medium, high, critical or never`,
		"gate: {inspection: {block: [leak]}}":                                           `f.yaml:6:24: gate: inspection: "leak" names none of its findings, leaks, disk, size, lvm, required-packages, forbidden-packages`,
		"gate: {signing: {allow: ['[']}}":                                               `gate: signing: bad pattern "["`,
		"gate: {versions: {allow: ['']}}":                                               `gate: versions: bad pattern ""`,
		"gate: {tests: {from: never}}":                                                  `gate: tests: from never would release what fails`,
		"gate: {tests: {from: high}}\n    test: {fail_from: low}":                       `gate: tests: from says what fail_from in test says already`,
		"gate: {versions_after_days: -1}":                                               `gate: versions_after_days: -1 is negative`,
		"gate: {waivers: [{check: sshd.macs, reason: r, expires: 2027-06-30}]}":         `waivers of checks are in test`,
		"gate: {waivers: [{check: inspection.unsafe, reason: r, expires: 2027-06-30}]}": `no finding is called "inspection.unsafe"`,
		"gate: {waivers: [{check: versions., reason: r, expires: 2027-06-30}]}":         `no finding is called "versions."`,
		"gate: {waivers: [{check: versions.CVE-1, reason: r}]}":                         `a waiver needs check, reason and expires`,
		"gate: {approve: true}":                                                         `unknown field`,
		"renewal: {every: week}":                                                        `bad period "week": want night or month`,
		"renewal: {every: month, day: 29}":                                              `renewal: day: 29 is not in every month`,
		"renewal: {day: 15}":                                                            `renewal: day: is for every: month only`,
		"renewal: {alarm_days: -1}":                                                     `renewal: alarm_days: -1 is negative`,
		"staging: [{directory: {}, host: a}]":                                           `staging: a host is for builders only`,
		"staging: [directory]":                                                          `want a driver's name`,
	} {
		_, err := parse("f.yaml", "/", []byte(minimal+"    "+text+"\n"))
		assert.ErrorContains(t, err, want, text)
	}
	f, d := embedded(t)
	d.Gate.Tests.Allow = []string{"sshd.mcas"}
	require.ErrorContains(t, f.Validate([]Definition{d}), `gate: tests: "sshd.mcas" names no check of the profile otc`)
}

// night runs one night and returns what came of its one image.
func night(t *testing.T, f *Factory, d Definition) ImageReport {
	t.Helper()
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	return report.Images[0]
}

func TestGateOfTheInspection(t *testing.T) {
	f, d := embedded(t)
	d.DiskBytes = 5 * GiB // the builder makes 4
	got := night(t, f, d)
	var blocked *GateError
	require.ErrorAs(t, got.Err, &blocked)
	require.Equal(t, StageInspect, got.Stage)
	require.Contains(t, got.Error, "the gate does not let the image pass: 1 findings block; inspection.size (high): the disk has 4GiB, the definition says 5GiB")

	d.Gate.Inspection.Allow = []string{"size"}
	got = night(t, f, d)
	require.NotEqual(t, StageInspect, got.Stage, got.Error)
	require.Equal(t, "the gate allows it", got.Findings[0].Reason)
}

func TestGateOfTheTests(t *testing.T) {
	f, d := embedded(t)
	facts := sandboxtest.Good()
	facts["failed-units"] = testsuite.Fact{Output: "chrony.service loaded failed failed\n"}
	f.Sandbox = sandboxtest.Sandbox{Facts: facts}
	got := night(t, f, d)
	var failed *TestError
	require.ErrorAs(t, got.Err, &failed)
	id := failed.Report.Bad()[0].ID

	d.Gate.Tests.From = "critical"
	require.Equal(t, Published, night(t, f, d).Result, "its severity does not count")
	d.Gate.Tests.Block = []string{id}
	got = night(t, f, d)
	require.Equal(t, StageTest, got.Stage)
	require.Contains(t, got.Error, id)
	d.Gate.Tests = Rule{Allow: []string{id}}
	got = night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, 1, got.Checks.Fail, "it is reported as it is")
}

// A profile of which every check is skipped, or waived, has shown nothing.
func TestNothingShownIsNotReleased(t *testing.T) {
	for name, status := range map[string]testsuite.Status{"skipped": testsuite.Skipped, "waived": testsuite.Fail} {
		t.Run(name, func(t *testing.T) {
			f, d := embedded(t)
			f.Profiles = []testsuite.Profile{{Name: "own", Checks: []testsuite.Check{
				{ID: "own.one", Severity: testsuite.High, Judge: func(testsuite.Facts, testsuite.Params) testsuite.Verdict {
					return testsuite.Verdict{Status: status, Reason: "it does not apply"}
				}},
			}}}
			d.Test.Profile = "own"
			d.Gate.Tests.Allow = []string{"*.*"}
			if status == testsuite.Fail {
				d.Test.Waivers = []Waiver{{Check: "own.one", Reason: "r", Expires: Date{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}}}
			}
			got := night(t, f, d)
			require.Equal(t, Failed, got.Result)
			require.Contains(t, got.Error, "no check passed")
			require.NoDirExists(t, filepath.Join(f.Dir, d.Name))
		})
	}
}

// changing is a factory whose image has another version of a package each night, and
// the nights' clock.
func changing(t *testing.T) (f *Factory, d Definition, now *time.Time, builds *int) {
	f, d = embedded(t)
	now, builds = new(time.Time), new(int)
	*now = time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	f.Now = func() time.Time { return *now }
	f.Targets = []TargetDriver{directory.Driver{Dir: f.Dir, Now: f.Now}}
	f.Builders = []BuilderDriver{builderDriver{"good", func(decode func(any) error) (builder.Builder, error) {
		return builderFunc(func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
			*builds++
			r, err := goodBuild(ctx, s)
			r.Packages[0].Version = fmt.Sprint(*builds)
			return r, err
		}), decode(&struct{}{})
	}}}
	return f, d, now, builds
}

func TestGateOfVersions(t *testing.T) {
	f, d, now, builds := changing(t)
	f.Updates = func(_ context.Context, d *Definition, i *advisory.Installed) ([]Update, error) {
		if len(i.Packages) != 1 || i.Packages[0].Name != "a" || i.Distribution != d.OS.Distribution {
			return nil, errors.New("these are not the image's packages")
		}
		return []Update{{ID: "CVE-2026-1", Package: "a", Version: i.Packages[0].Version, FixedIn: "99", Severity: testsuite.High}}, nil
	}
	d.Gate.Versions.From, d.Gate.VersionsAfterDays = "high", 2
	for range 2 {
		got := night(t, f, d)
		require.Equal(t, Published, got.Result, got.Error)
		require.Empty(t, got.Findings[1:], "the fix is too new")
		*now = now.AddDate(0, 0, 1)
	}
	got := night(t, f, d)
	require.Equal(t, Failed, got.Result)
	require.Equal(t, StagePublish, got.Stage)
	require.Contains(t, got.Error, "versions.CVE-2026-1 (high): a 3 lacks the fix in 99, known since 2026-01-01")
	require.Equal(t, "Standard_Good_1/20260102-030000", got.Release)
	require.Equal(t, 3, *builds)

	// The candidate waits, and passes when somebody accepts it.
	_, err := f.Promote(t.Context(), d, publish.BuildID{})
	var blocked *GateError
	require.ErrorAs(t, err, &blocked)
	d.Gate.Waivers = []Waiver{{Check: "versions.CVE-2026-1", Reason: "not reachable", Expires: Date{time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)}}}
	promoted, err := f.Promote(t.Context(), d, publish.BuildID{})
	require.NoError(t, err)
	require.Equal(t, Published, promoted.Result)
	require.Equal(t, 3, *builds)
	target, err := os.Readlink(filepath.Join(f.Dir, d.Name, "latest"))
	require.NoError(t, err)
	require.Equal(t, "20260103-030000", target)

	// Who cannot tell gives no all-clear.
	*now = now.AddDate(0, 0, 1)
	f.Updates = func(context.Context, *Definition, *advisory.Installed) ([]Update, error) { panic("no data") }
	require.Contains(t, night(t, f, d).Error, "versions.unknown (high): Updates panicked: no data")
}

func TestApproval(t *testing.T) {
	f, d, now, builds := changing(t)
	d.Gate.Approval = true
	got := night(t, f, d)
	require.Equal(t, Candidate, got.Result, got.Error)
	require.Equal(t, "it waits for approval", got.Held)
	require.NoDirExists(t, filepath.Join(f.Dir, d.Name))

	var asked []ImageReport
	answer := ErrNotYet
	f.Approve = func(_ context.Context, r ImageReport) error { asked = append(asked, r); return answer }
	*now = now.AddDate(0, 0, 1)
	require.Equal(t, Candidate, night(t, f, d).Result)
	require.Equal(t, "20260102-030000", asked[0].Build)
	require.Greater(t, asked[0].Checks.Pass, 50)
	require.NotNil(t, asked[0].Due)
	left, err := os.ReadDir(filepath.Join(f.Dir, ".work", ".candidate", d.Name))
	require.NoError(t, err)
	require.Len(t, left, 1, "the newest candidate alone is kept")

	answer = errors.New("the kernel is wrong")
	*now = now.AddDate(0, 0, 1)
	got = night(t, f, d)
	require.Equal(t, Failed, got.Result)
	require.ErrorIs(t, got.Err, answer)
	require.Contains(t, got.Error, "the release was refused: the kernel is wrong")

	f.Approve = func(context.Context, ImageReport) error { panic("no connection") }
	*now = now.AddDate(0, 0, 1)
	require.Contains(t, night(t, f, d).Error, "Approve panicked: no connection")

	f.Approve = func(context.Context, ImageReport) error { return nil }
	*now = now.AddDate(0, 0, 1)
	got = night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, "Standard_Good_1/20260105-030000", got.Release)
	require.Equal(t, 5, *builds)
	require.NoDirExists(t, filepath.Join(f.Dir, ".work", ".candidate", d.Name, "20260102-030000"), "it is older than what is public")
}

// A tested candidate goes from a staging target to the public one as it is, also from
// a machine that has not built it.
func TestPromotionFromStaging(t *testing.T) {
	f, d, now, builds := changing(t)
	staging := t.TempDir()
	d.Staging = []Component{{Driver: "directory", Config: directory.Config{Path: staging}}}
	d.Gate.Approval = true
	for range 4 {
		require.Equal(t, Candidate, night(t, f, d).Result)
		*now = now.AddDate(0, 0, 1)
	}
	entries, err := (&directory.Target{Dir: staging}).List(t.Context(), d.Name)
	require.NoError(t, err)
	require.Len(t, entries, 2, "the newest candidate and the one before")
	require.NoDirExists(t, filepath.Join(f.Dir, d.Name))

	other := *f
	other.Dir = t.TempDir()
	other.Targets = []TargetDriver{directory.Driver{Dir: other.Dir}}
	third, err := publish.ParseBuildID("20260103-030000")
	require.NoError(t, err)
	got, err := other.Promote(t.Context(), d, third)
	require.NoError(t, err)
	require.Equal(t, Published, got.Result)
	require.Equal(t, "20260103-030000", got.Build)
	got, err = other.Promote(t.Context(), d, publish.BuildID{})
	require.NoError(t, err)
	require.Equal(t, "20260104-030000", got.Build)
	require.Equal(t, 4, *builds)
	for _, f := range []string{".qcow2", ".provenance.json"} {
		name := filepath.Join(d.Name, "20260104-030000", d.Name+"-20260104-030000"+f)
		want, err := os.ReadFile(filepath.Join(staging, name))
		require.NoError(t, err)
		have, err := os.ReadFile(filepath.Join(other.Dir, name))
		require.NoError(t, err)
		require.Equal(t, string(want), string(have))
	}

	first, err := publish.ParseBuildID("20260101-030000")
	require.NoError(t, err)
	_, err = other.Promote(t.Context(), d, first)
	require.ErrorIs(t, err, publish.ErrUnknownBuild)
	// What was changed on the staging target is nobody's candidate.
	require.NoError(t, os.WriteFile(filepath.Join(staging, d.Name, "20260104-030000", d.Name+"-20260104-030000.qcow2"), []byte("x"), 0o644))
	third2 := other
	third2.Dir = t.TempDir()
	third2.Targets = []TargetDriver{directory.Driver{Dir: third2.Dir}}
	_, err = third2.Promote(t.Context(), d, publish.BuildID{})
	require.Error(t, err)
	require.NoDirExists(t, filepath.Join(third2.Dir, d.Name))
}

func until(text string) Date {
	d, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return Date{d}
}

// A candidate that passed its tests by what does not hold any more is not promoted.
func TestPromoteJudgesTestsAgain(t *testing.T) {
	for name, lose := range map[string]func(*Definition, *time.Time){
		"expired":     func(_ *Definition, now *time.Time) { *now = now.AddDate(0, 1, 0) },
		"taken back":  func(d *Definition, _ *time.Time) { d.Test.Waivers = nil },
		"it counts":   func(d *Definition, _ *time.Time) { d.Gate.Tests.Allow = nil },
		"by severity": func(d *Definition, _ *time.Time) { d.Gate.Tests = Rule{From: "medium"} },
	} {
		t.Run(name, func(t *testing.T) {
			f, d, now, _ := changing(t)
			f.Profiles = []testsuite.Profile{{Name: "otc", Checks: []testsuite.Check{
				passing("own.one"), judged("own.two", testsuite.Fail), judged("own.three", testsuite.Fail),
			}}}
			d.Gate.Approval, d.Gate.Tests.Allow = true, []string{"own.three"}
			d.Test.Waivers = []Waiver{{Check: "own.two", Reason: "r", Expires: until("2026-01-15")}}
			got := night(t, f, d)
			require.Equal(t, Candidate, got.Result, got.Error)
			good, then := d, *now
			lose(&d, now)
			_, err := f.Promote(t.Context(), d, publish.BuildID{})
			var failed *TestError
			require.ErrorAs(t, err, &failed)
			*now = then
			image, err := f.Promote(t.Context(), good, publish.BuildID{})
			require.NoError(t, err)
			require.Equal(t, d.Name+"/"+got.Build, image.Release)
		})
	}
}

// Versions that nobody can tell give no all-clear.
func TestGateOfVersionsWithoutAdvisories(t *testing.T) {
	f, d, _, _ := changing(t)
	d.Gate.Versions.From = "high"
	got := night(t, f, d)
	require.Equal(t, Failed, got.Result)
	require.Contains(t, got.Error, "versions.unknown (high): ")
	d.Gate.Versions.From = Never
	require.Equal(t, Published, night(t, f, d).Result)
}

// What the gate finds is told once, however often a target is tried.
func TestFindingsAreToldOnce(t *testing.T) {
	f, d, _, _ := changing(t)
	_, push, _ := shelf(t, f)
	f.Limits = Limits{Pause: time.Nanosecond}
	tries := 0
	f.Progress = func(e Event) {
		if *push = nil; e.Stage == StagePublish && !e.Done {
			if tries++; tries < 3 {
				*push = status(503)
			}
		}
	}
	d.Publish = []Component{{Driver: "shelf"}}
	got := night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, 3, tries)
	require.Len(t, got.Findings, 1, "key-in-process")
}

// A check that the gate allows may fail, also now and then.
func TestGateAllowsFlaky(t *testing.T) {
	r := &testsuite.Report{Checks: []testsuite.Result{{ID: "own.one", Status: testsuite.Flaky, First: &testsuite.First{Status: testsuite.Fail}}}}
	(&Gate{Tests: Rule{Allow: []string{"own.*"}}}).judgeTests(r)
	require.Empty(t, r.Bad())
	(&Gate{Tests: Rule{Block: []string{"own.*"}}}).judgeTests(r)
	require.Len(t, r.Bad(), 1)
}
