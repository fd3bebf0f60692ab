package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Gate says what keeps an image that was built from being released. What is found is
// a [Finding] with a severity; each area has a [Rule] from which severity on, and by
// name, its findings block. The zero Gate lets pass what is said at its fields.
//
// No rule makes up for an image that is unsafe or corrupt, whose signatures do not
// verify, or of which no check passed: these are never released.
type Gate struct {
	// Inspection is about the image file: leaks (low), clusters that nothing uses;
	// disk (medium), a disk that is not as it should be; size (high), another virtual
	// size than the definition's; lvm (high), no logical volume for the root file system
	// that the definition says is on one; and about what is installed: required-packages and
	// forbidden-packages (high). Default: from medium.
	Inspection Rule `yaml:"inspection,omitempty"`
	// Tests are by the checks' own severities and IDs. From is the same as test's
	// fail_from, and only one of them may be said. Default: from low.
	Tests Rule `yaml:"tests,omitempty"`
	// Versions are the security updates of installed packages that Factory.Updates
	// knows and the image lacks, by the advisory's ID; or unknown (high), it cannot
	// tell. Default: from never.
	Versions Rule `yaml:"versions,omitempty"`
	// VersionsAfterDays is how many days a security update must have been known before
	// it is found to be missing. The mirror may be late by as much.
	VersionsAfterDays int `yaml:"versions_after_days,omitempty"`
	// Signing is about the key: key-expires, in less than 30 days (medium) or 7 (high);
	// key-in-process (low), the factory was given the secret key and no Signer, whose key
	// an agent could keep. Default: from never.
	Signing Rule `yaml:"signing,omitempty"`
	// Waivers accept findings up to a day, by their whole IDs: versions.CVE-2026-1234.
	// Those of checks are in test.
	Waivers []Waiver `yaml:"waivers,omitempty"`
	// Approval demands somebody's consent before a release becomes public: see
	// [Factory.Approve] and [Factory.Promote].
	Approval bool `yaml:"approval,omitempty"`
}

// A Rule says which findings of an area block.
type Rule struct {
	// From is the severity from which findings block: low, medium, high, critical, or
	// never. The default is the area's.
	From Threshold `yaml:"from,omitempty"`
	// Block and Allow name findings that do, or do not, whatever their severity, by
	// patterns of path.Match for the ID without its area: key-*, CVE-2026-1234. Where
	// both do, it blocks.
	Block []string `yaml:"block,omitempty"`
	Allow []string `yaml:"allow,omitempty"`
}

// Threshold is the least severity that counts, or "never". If empty, a default.
type Threshold string

// Never is above all severities.
const Never Threshold = "never"

// UnmarshalText accepts the four severities, never, and nothing.
func (t *Threshold) UnmarshalText(text []byte) error {
	var s testsuite.Severity
	if err := s.UnmarshalText(text); err != nil && Threshold(text) != Never {
		return fmt.Errorf("bad threshold %.20q: want low, medium, high, critical or never", text)
	}
	*t = Threshold(text)
	return nil
}

// reached reports whether a severity counts; def stands for an empty threshold. One
// that nobody has told counts as the highest.
func (t Threshold) reached(s testsuite.Severity, def Threshold) bool {
	if t == "" {
		t = def
	}
	rank := slices.Index(severities, s)
	return t != Never && (rank < 0 || rank >= slices.Index(severities, testsuite.Severity(t)))
}

var severities = []testsuite.Severity{testsuite.Low, testsuite.Medium, testsuite.High, testsuite.Critical}

// A Finding is something that a gate judges.
type Finding struct {
	ID       string             `json:"id"` // AREA.NAME, such as versions.CVE-2026-1234
	Severity testsuite.Severity `json:"severity"`
	Text     string             `json:"text"`
	Blocks   bool               `json:"blocks"`
	// Reason is why it does not block, although the severity is reached: the gate
	// allows it, or a waiver holds; or that a waiver has expired.
	Reason string `json:"reason,omitempty"`
}

// GateError says what of an image its definition's gate does not let pass.
type GateError struct {
	Findings []Finding // those that block
}

func (e *GateError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the gate does not let the image pass: %d findings block", len(e.Findings))
	for _, f := range e.Findings {
		fmt.Fprintf(&b, "; %s (%s): %s", f.ID, f.Severity, oneLine(f.Text))
		if f.Reason != "" {
			fmt.Fprintf(&b, " (%s)", f.Reason)
		}
	}
	return b.String()
}

// The areas of findings, and the names of those that are not an advisory's ID.
const (
	areaInspection = "inspection"
	areaVersions   = "versions"
	areaSigning    = "signing"
)

var findingNames = map[string][]string{
	areaInspection: {"leaks", "disk", "size", "lvm", requiredPackages, forbiddenPackages},
	areaSigning:    {"key-expires", "key-in-process"},
	areaVersions:   nil, // any
}

// judge says of each finding whether it blocks.
func (g *Gate) judge(findings []Finding, now time.Time) []Finding {
	out := slices.Clone(findings)
	for i := range out {
		f := &out[i]
		area, name, _ := strings.Cut(f.ID, ".")
		rule, def := g.rule(area)
		reached := rule.From.reached(f.Severity, def)
		switch {
		case matches(rule.Block, name):
			f.Blocks = true
		case matches(rule.Allow, name):
			f.Blocks = false
			if reached {
				f.Reason = "the gate allows it"
			}
		default:
			f.Blocks = reached
		}
		if f.Blocks {
			g.waive(f, now)
		}
	}
	return out
}

func (g *Gate) waive(f *Finding, now time.Time) {
	for _, w := range g.Waivers {
		switch {
		case w.Check != f.ID:
		case now.Before(w.until()):
			f.Blocks, f.Reason = false, fmt.Sprintf("waived until %s: %s", w.Expires.Format(time.DateOnly), w.Reason)
		default:
			f.Reason = fmt.Sprintf("its waiver (%s) expired on %s", w.Reason, w.Expires.Format(time.DateOnly))
		}
	}
}

// ofImage is the part of the gate that an image has passed by the time it is sealed.
func (g *Gate) ofImage() Gate {
	waivers := slices.DeleteFunc(slices.Clone(g.Waivers), func(w Waiver) bool { return !strings.HasPrefix(w.Check, areaInspection+".") })
	return Gate{Inspection: g.Inspection, Tests: g.Tests, Waivers: waivers}
}

func (g *Gate) rule(area string) (Rule, Threshold) {
	switch area {
	case areaInspection:
		return g.Inspection, Threshold(testsuite.Medium)
	case areaVersions:
		return g.Versions, Never
	}
	return g.Signing, Never
}

// judgeTests lets the checks that the gate names count, or not. The severity is the
// suite's matter.
func (g *Gate) judgeTests(r *testsuite.Report) {
	for i := range r.Checks {
		c := &r.Checks[i]
		if !slices.Contains([]testsuite.Status{testsuite.Fail, testsuite.Error, testsuite.Flaky}, c.Status) {
			continue
		}
		if matches(g.Tests.Block, c.ID) {
			c.Advisory = false
		} else if matches(g.Tests.Allow, c.ID) {
			c.Advisory = true
		}
	}
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name) // which check has tried
		return ok
	})
}

// check reports what is wrong with the gate; each message begins with its key.
func (g *Gate) check(failFrom testsuite.Severity) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, r := range []struct {
		area string
		Rule
	}{{areaInspection, g.Inspection}, {"tests", g.Tests}, {areaVersions, g.Versions}, {areaSigning, g.Signing}} {
		for _, p := range slices.Concat(r.Block, r.Allow) {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				wrong("%s: bad pattern %.40q", r.area, p)
			} else if names := findingNames[r.area]; names != nil && !slices.ContainsFunc(names, func(n string) bool { return matches([]string{p}, n) }) {
				wrong("%s: %.40q names none of its findings, %s", r.area, p, strings.Join(names, ", "))
			}
		}
	}
	if g.Tests.From != "" && failFrom != "" {
		wrong("tests: from says what fail_from in test says already")
	}
	if g.Tests.From == Never {
		wrong("tests: from never would release what fails; allow the checks that may fail")
	}
	if g.VersionsAfterDays < 0 {
		wrong("versions_after_days: %d is negative", g.VersionsAfterDays)
	}
	for _, w := range g.Waivers {
		if err := w.check(); err != nil {
			wrong("waivers: %w", err)
			continue
		}
		area, name, _ := strings.Cut(w.Check, ".")
		names, known := findingNames[area]
		if !known || name == "" || names != nil && !slices.Contains(names, name) {
			wrong("waivers: no finding is called %.80q: want inspection.NAME, versions.ADVISORY or signing.NAME; waivers of checks are in test", w.Check)
		}
	}
	return errors.Join(errs...)
}

// checkTests reports patterns that no check of the profile has, which would allow or
// block nothing.
func (g *Gate) checkTests(profile testsuite.Profile) error {
	var errs []error
	for _, p := range slices.Concat(g.Tests.Block, g.Tests.Allow) {
		if !slices.ContainsFunc(profile.Checks, func(c testsuite.Check) bool { return matches([]string{p}, c.ID) }) {
			errs = append(errs, fmt.Errorf("gate: tests: %.80q names no check of the profile %s", p, profile.Name))
		}
	}
	return errors.Join(errs...)
}

// pass judges findings, reports them all, and returns a *GateError of those that
// block.
func (j *job) pass(findings []Finding) error {
	judged := j.def.Gate.judge(findings, j.factory.now())
	j.report.Findings = append(j.report.Findings, judged...)
	blocking := slices.DeleteFunc(slices.Clone(judged), func(f Finding) bool { return !f.Blocks })
	if len(blocking) == 0 {
		return nil
	}
	return &GateError{Findings: blocking}
}

// signingFindings are those of the key that signs.
func (j *job) signingFindings() []Finding {
	var out []Finding
	add := func(name string, s testsuite.Severity, text string) {
		out = append(out, Finding{ID: areaSigning + "." + name, Severity: s, Text: text})
	}
	key, now := j.factory.Key, j.factory.now()
	days := func(n int) bool {
		at := now.AddDate(0, 0, n)
		return key.SignsAt(at) != nil || keyEnds(j.keyring, key, at)
	}
	switch {
	case days(7):
		add("key-expires", testsuite.High, fmt.Sprintf("the key %s does not sign any more in 7 days", key.Fingerprint()))
	case days(30):
		add("key-expires", testsuite.Medium, fmt.Sprintf("the key %s does not sign any more in 30 days", key.Fingerprint()))
	}
	if j.factory.Signer == nil {
		add("key-in-process", testsuite.Low, "the factory's process has the secret key; an agent could keep it")
	}
	return out
}

// versionFindings are the security updates that an image lacks, of those that were
// known long enough.
func (j *job) versionFindings(updates []Update, n *nights) []Finding {
	var out []Finding
	limit := j.factory.now().AddDate(0, 0, -j.def.Gate.VersionsAfterDays)
	for _, u := range updates {
		since, ok := n.Fixes[u.ID]
		if !ok || since.After(limit) {
			continue
		}
		out = append(out, Finding{
			ID: areaVersions + "." + u.ID, Severity: u.Severity,
			Text: fmt.Sprintf("%s %s lacks the fix in %s, known since %s", u.Package, u.Version, u.FixedIn, since.Format(time.DateOnly)),
		})
	}
	return out
}

// An Update is a security update of an installed package that is in the registered
// repositories.
type Update struct {
	ID       string             `json:"id"`      // of the advisory
	Package  string             `json:"package"` // source package
	Version  string             `json:"version"` // that is installed
	FixedIn  string             `json:"fixed_in"`
	Severity testsuite.Severity `json:"severity"`
}

// UpdatesFrom makes a [Factory.Updates] of advisories: every one that affects what is
// installed and has a fix, which the distribution has published then. Where the
// registered repositories are late, the gate's versions_after_days allows for it. A
// severity that is none of the four words or their usual equivalents counts as high.
func UpdatesFrom(db *advisory.Database) func(context.Context, *Definition, *advisory.Installed) ([]Update, error) {
	return func(_ context.Context, _ *Definition, installed *advisory.Installed) ([]Update, error) {
		if !db.Covers(installed.Distribution, installed.Release) {
			return nil, fmt.Errorf("no advisory is about %s %s", installed.Distribution, installed.Release)
		}
		var out []Update
		for _, v := range db.Open(installed) {
			if v.FixedIn != "" {
				out = append(out, Update{ID: v.ID, Package: v.Package, Version: v.Version, FixedIn: v.FixedIn, Severity: severityOf(v.Severity)})
			}
		}
		return out, nil
	}
}

// severityOf translates what publishers of advisories say.
func severityOf(text string) testsuite.Severity {
	switch strings.ToLower(strings.TrimRight(text, "*")) {
	case "unimportant", "negligible", "low", "none", "end-of-life":
		return testsuite.Low
	case "medium", "moderate":
		return testsuite.Medium
	case "critical":
		return testsuite.Critical
	}
	return testsuite.High
}
