package imagefactory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/sbom"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Renewal says when an image's latest is renewed. A release that a night makes before
// is a candidate: signed, tested, on the definition's staging targets, and public only
// when latest is due, or with [Factory.Promote].
type Renewal struct {
	// Every is night, the default: whenever the image has changed; or month: about once
	// a month, and at once for a security update.
	Every Period `yaml:"every,omitempty"`
	// Day is the day of the month, 1 to 28 in UTC, from which a month's renewal is due.
	// If 0, it is due when 30 days have passed since latest was built.
	Day int `yaml:"day,omitempty"`
	// SecurityFrom is the severity from which a security update of an installed package
	// makes a renewal due at once. Default: low, every one.
	SecurityFrom Threshold `yaml:"security_from,omitempty"`
	// AlarmDays is how many days latest may go unrenewed before there is an alarm: no
	// night has released the image or found it unchanged since. Default: 45.
	AlarmDays int `yaml:"alarm_days,omitempty"`
	// Retire removes, at the end of each night of the image, the releases whose two
	// years are over: see [Factory.Retire].
	Retire bool `yaml:"retire,omitempty"`
}

// Period is how often latest is renewed.
type Period string

// The periods.
const (
	EveryNight Period = "night"
	EveryMonth Period = "month"
)

// UnmarshalText accepts night and month, and nothing for night.
func (p *Period) UnmarshalText(text []byte) error {
	switch v := Period(text); v {
	case "", EveryNight, EveryMonth:
		*p = v
		return nil
	}
	return fmt.Errorf("bad period %.20q: want night or month", text)
}

const (
	renewalDays      = 30
	defaultAlarmDays = 45
	day              = 24 * time.Hour
)

func (r *Renewal) check() error {
	var errs []error
	if r.Day < 0 || r.Day > 28 {
		errs = append(errs, fmt.Errorf("day: %d is not in every month: want 1 to 28", r.Day))
	}
	if r.Day != 0 && r.Every != EveryMonth {
		errs = append(errs, errors.New("day: is for every: month only"))
	}
	if r.AlarmDays < 0 {
		errs = append(errs, fmt.Errorf("alarm_days: %d is negative", r.AlarmDays))
	}
	return errors.Join(errs...)
}

// A Due says whether an image's latest is to be renewed, and why or why not.
type Due struct {
	Image string    `json:"image"`
	Due   bool      `json:"due"`
	Why   DueReason `json:"why"`
	Text  string    `json:"text"` // the same for people
	// Latest is the build that is latest, or "" where there is none, Built when it was
	// begun, and Next when it is due by the calendar; the zero time for every night.
	Latest string    `json:"latest"`
	Built  time.Time `json:"built,omitzero"`
	Next   time.Time `json:"next,omitzero"`
	// Updates are the security updates that latest lacks, as far as they are known.
	Updates []Update `json:"updates,omitempty"`
	// UpdatesError is why they are not known; otherwise "".
	UpdatesError string `json:"updates_error,omitempty"`
}

// DueReason is why an image is due or not.
type DueReason string

// The reasons.
const (
	DueFirst    DueReason = "first"    // nothing is latest
	DueNight    DueReason = "night"    // its renewal is every night
	DueMonth    DueReason = "month"    // latest is a month old
	DueSecurity DueReason = "security" // a security update is there
	DueForced   DueReason = "forced"   // Factory.Force
	NotDue      DueReason = "not yet"
)

// due decides. What is latest may be no build: the zero BuildID.
func (r *Renewal) due(latest publish.BuildID, updates []Update, now time.Time) Due {
	d := Due{Updates: updates}
	yes := func(why DueReason, format string, args ...any) Due {
		d.Due, d.Why, d.Text = true, why, fmt.Sprintf(format, args...)
		return d
	}
	if latest.IsZero() {
		return yes(DueFirst, "there is no release yet")
	}
	d.Latest, d.Built = latest.String(), latest.Time()
	if r.Every != EveryMonth {
		return yes(DueNight, "it is renewed whenever it has changed")
	}
	d.Next = r.next(d.Built)
	for _, u := range updates {
		if r.SecurityFrom.reached(u.Severity, Threshold(testsuite.Low)) {
			return yes(DueSecurity, "%s of %s is out (%s, %s) and latest has %s", u.FixedIn, u.Package, u.ID, u.Severity, u.Version)
		}
	}
	if !now.Before(d.Next) {
		return yes(DueMonth, "latest was built on %s and due on %s", d.Built.Format(time.DateOnly), d.Next.Format(time.DateOnly))
	}
	d.Why, d.Text = NotDue, fmt.Sprintf("latest was built on %s and is due on %s", d.Built.Format(time.DateOnly), d.Next.Format(time.DateOnly))
	return d
}

// next is when what was built then is due by the calendar.
func (r *Renewal) next(built time.Time) time.Time {
	if r.Day == 0 {
		return built.AddDate(0, 0, renewalDays)
	}
	next := time.Date(built.Year(), built.Month(), r.Day, 0, 0, 0, 0, time.UTC)
	if !next.After(built) {
		next = next.AddDate(0, 1, 0)
	}
	return next
}

// Due tells whether the image's latest is to be renewed now, and why or why not. It
// needs what [Factory.Run] does and changes nothing.
func (f *Factory) Due(ctx context.Context, definition Definition) (*Due, error) {
	products, err := f.prepare([]Definition{definition})
	if err != nil {
		return nil, err
	}
	j := &job{product: products[0], report: products[0].newReport()}
	if j.fault != nil {
		return nil, fmt.Errorf("image %s: %w", j.name, j.fault)
	}
	d, err := j.due(ctx, j.readNights())
	if err != nil {
		return nil, fmt.Errorf("cannot tell whether %s is due: %w", j.name, err)
	}
	return d, nil
}

// due asks the targets for what is latest, and notes the security updates that were
// not known before.
func (j *job) due(ctx context.Context, n *nights) (*Due, error) {
	latest, err := j.latest(ctx)
	if err != nil {
		return nil, err
	}
	var updates []Update
	var unknown error
	if !latest.IsZero() && j.factory.Updates != nil {
		var installed *advisory.Installed
		if installed, unknown = j.installedIn(ctx, latest, n); unknown == nil {
			updates, unknown = j.updates(ctx, installed, n)
		}
	}
	d := j.def.Renewal.due(latest, updates, j.factory.now())
	d.Image = j.name
	if j.factory.Force && !d.Due {
		d.Due, d.Why, d.Text = true, DueForced, "it is forced"
	}
	if unknown != nil {
		d.UpdatesError = bounded(unknown.Error())
		d.Text += "; which security updates it lacks is not known"
		j.log.WarnContext(ctx, "security updates of the latest release are not known", "error", unknown)
	}
	return &d, ctx.Err()
}

// updates asks for the security updates of what is installed, and notes when each was
// first seen.
func (j *job) updates(ctx context.Context, installed *advisory.Installed, n *nights) (updates []Update, err error) {
	err = contain(j.log, "Updates", "", func() (err error) {
		updates, err = j.factory.Updates(ctx, j.def, installed)
		return err
	})
	for _, u := range updates {
		if _, ok := n.Fixes[u.ID]; !ok {
			n.Fixes[u.ID] = j.factory.now()
		}
	}
	return updates, err
}

// latest is the newest build that is latest on a target. A target that cannot be
// listed hinders only where no other can or, by the month, where no other has one: it
// may be there.
func (j *job) latest(ctx context.Context) (publish.BuildID, error) {
	var newest publish.BuildID
	var errs []error
	for _, t := range j.targets {
		var have []publish.Entry
		err := contain(j.log, t.String(), "List", func() (err error) {
			have, err = t.List(ctx, j.name)
			return err
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", t, err))
			continue
		}
		for _, e := range have {
			if e.Has(publish.Latest) && e.Problem == "" && e.Withdrawn == "" && e.Build.Compare(newest) > 0 {
				newest = e.Build
			}
		}
	}
	// Every night a release is due anyhow, and comes to the others.
	if len(errs) == len(j.targets) || newest.IsZero() && j.def.Renewal.Every == EveryMonth {
		return newest, errors.Join(errs...)
	}
	return newest, nil
}

// installedIn tells what is installed in a release of the image, from what was noted
// when it became public or from the download directory.
func (j *job) installedIn(ctx context.Context, build publish.BuildID, n *nights) (*advisory.Installed, error) {
	if n.Installed != nil && n.Latest == build.String() {
		return n.Installed, nil
	}
	if _, err := os.Stat(filepath.Join(j.dir, j.name, build.String())); err != nil {
		return nil, fmt.Errorf("what is installed in %s is not known: it is not in %s", build, j.dir)
	}
	releases, err := advisory.ReadReleases(ctx, j.dir, j.keyring, j.name)
	if err != nil {
		return nil, err
	}
	for _, r := range releases {
		if r.Build == build {
			return r.Installed, r.Err
		}
	}
	return nil, fmt.Errorf("what is installed in %s is not known", build)
}

// installed reads what is installed in a verified release.
func installed(r *publish.Release) (*advisory.Installed, error) {
	base := r.Index.Image + "-" + r.Index.Build.String()
	has := func(suffix string) bool {
		return slices.ContainsFunc(r.Files, func(f publish.File) bool { return f.Name == base+suffix })
	}
	if has(sourcesSuffix) {
		f, err := r.Open(base + sourcesSuffix)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return advisory.ParseSources(f)
	}
	if !has(sbomSuffix) {
		return nil, errors.New("the release has no list of what is installed")
	}
	f, err := r.Open(base + sbomSuffix)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	bill, err := sbom.Read(f)
	if err != nil {
		return nil, err
	}
	out := &advisory.Installed{Distribution: bill.Distribution, Release: bill.Release}
	for _, p := range bill.Packages {
		out.Packages = append(out.Packages, advisory.Package{Name: p.Name, Version: p.Version, Arch: p.Arch, Source: p.Source, SourceVersion: p.SourceVersion})
	}
	return out, nil
}

// nights is what is remembered of an image from night to night, in
// .work/.nights/NAME.json. It is lost without harm: what it has then begins anew.
type nights struct {
	First time.Time `json:"first"` // the first night
	// Good is the last night that released the image or found it unchanged.
	Good time.Time `json:"good,omitzero"`
	// Failing counts the nights in a row that failed, and Error is why the last did.
	Failing int    `json:"failing,omitempty"`
	Error   string `json:"error,omitempty"`
	// Latest is the build that was made public last, and Installed what is in it.
	Latest    string              `json:"latest,omitempty"`
	Installed *advisory.Installed `json:"installed,omitempty"`
	// Fixes are when security updates were first seen that latest or a candidate lacked.
	Fixes map[string]time.Time `json:"fixes"`
}

const (
	nightsName = ".nights" // below workName; no image is called so
	maxNights  = 64 << 20
	maxFixes   = 100_000
)

func (p *product) nightsFile() string {
	return filepath.Join(p.dir, workName, nightsName, p.name+".json")
}

// readNights is empty where the file is missing or damaged.
func (p *product) readNights() *nights {
	n := &nights{}
	f, err := os.Open(p.nightsFile())
	if err == nil {
		err = errors.Join(json.NewDecoder(io.LimitReader(f, maxNights)).Decode(n), f.Close())
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.log.Warn("what was known of earlier nights is lost", "error", err)
		}
		n = &nights{}
	}
	if n.Fixes == nil || len(n.Fixes) > maxFixes {
		n.Fixes = map[string]time.Time{}
	}
	n.until(p.factory.now())
	return n
}

// until has nothing be of later than now, when a clock ran ahead once: it would silence
// the alarm and the gate for as long.
func (n *nights) until(now time.Time) {
	if n.First.IsZero() || n.First.After(now) {
		n.First = now
	}
	if n.Good.After(now) {
		n.Good = now
	}
	for id, first := range n.Fixes {
		if first.After(now) {
			n.Fixes[id] = now
		}
	}
}

func (p *product) writeNights(n *nights) error {
	file := p.nightsFile()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return writeFile(file, func(w io.Writer) error { return json.NewEncoder(w).Encode(n) })
}

// endNight accounts for a night of the image that was not cut, retires what is old,
// and raises the alarms.
func (p *product) endNight(ctx context.Context, report *ImageReport) {
	j := &job{product: p, report: report}
	n := j.readNights()
	now := j.factory.now()
	n.end(report.Result, report.Error, now)
	if err := j.writeNights(n); err != nil {
		j.alarm("cannot note how the night was: %v", err)
	}
	if text := j.def.Renewal.alarm(n, now); text != "" {
		j.alarm("%s", text)
	}
	if !j.def.Renewal.Retire {
		return
	}
	for _, t := range j.targets {
		steps, err := j.retire(ctx, t)
		for _, s := range steps {
			j.report.Retired = append(j.report.Retired, path.Join(t.name, s.Entry.Build.String()))
		}
		if err != nil {
			j.alarm("cannot retire releases: %v", err)
		}
	}
}

// end notes how a night ended.
func (n *nights) end(outcome Outcome, err string, now time.Time) {
	switch outcome {
	case Published, Unchanged:
		n.Good, n.Failing, n.Error = now, 0, ""
	case Failed:
		n.Failing, n.Error = n.Failing+1, oneLine(err)
	default: // a candidate: the nights are well, and latest stays
		n.Failing, n.Error = 0, ""
	}
}

func (j *job) alarm(format string, args ...any) {
	text := bounded(fmt.Sprintf(format, args...))
	j.report.Alarms = append(j.report.Alarms, text)
	j.log.Error("alarm", "alarm", text)
}

// alarm says that latest has gone unrenewed for too long, or "".
func (r *Renewal) alarm(n *nights, now time.Time) string {
	limit := r.AlarmDays
	if limit == 0 {
		limit = defaultAlarmDays
	}
	fresh, what := n.Good, "latest was last released or found unchanged on "
	if fresh.IsZero() {
		fresh, what = n.First, "no night has released it since the first, on "
	}
	age := now.Sub(fresh)
	if age <= time.Duration(limit)*day {
		return ""
	}
	text := fmt.Sprintf("%s%s, %d days ago; the limit is %d", what, fresh.Format(time.DateOnly), age/day, limit)
	if n.Failing > 0 {
		text += fmt.Sprintf("; the last %d nights failed, the last with: %s", n.Failing, n.Error)
	}
	return text
}
