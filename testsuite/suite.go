package testsuite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// A Suite holds a machine to a profile. Its methods may be called
// concurrently, on different machines.
type Suite struct {
	Profile Profile // which checks; it must have at least one
	Params  Params  // what they expect
	Waivers []Waiver
	// FailFrom is the severity from which a check that fails or cannot be decided
	// makes the report bad. Those below it are reported as they are, and do not
	// count: Result.Advisory. If empty, every check counts.
	FailFrom Severity
	// Rerun says that Run tries what failed or could not be decided once more: see
	// [Suite.Again].
	Rerun bool
	// Probes read facts of one's own, in the same script as the built-in ones, and
	// only those that a check of the profile needs.
	Probes []Probe
	// Now is the clock that waivers expire by. If nil, time.Now.
	Now func() time.Time
	// GatherTimeout bounds gathering as a whole. What was not read by then is
	// an error in the report. If zero, 10 minutes: an emulated guest is slow.
	GatherTimeout time.Duration
	// Facts are the names of facts to gather beyond those that the checks need,
	// for a caller who reads them himself.
	Facts []string
	// ReadOnly leaves out what writes on the machine beyond a directory of its own
	// in /run, which goes again: the attempt to log in as root, for which root's
	// authorized_keys is changed and put back. The check of it is then skipped. What
	// Probes do is theirs to say.
	ReadOnly bool
	Logger   *slog.Logger // if nil, nothing is logged
}

// Run gathers the facts of the machine and judges them. A machine that cannot
// be reached or read gives a report whose checks are errors; the error that
// Run itself returns is a mistake in s or the end of ctx.
func (s *Suite) Run(ctx context.Context, target Target) (*Report, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	facts, err := s.Gather(ctx, target)
	if err != nil {
		return nil, err
	}
	report, err := s.Judge(facts)
	if err == nil && s.Rerun {
		report, err = s.Again(ctx, target, facts, report)
	}
	return report, err
}

// Validate reports every mistake in the suite: a profile without checks or
// with two of one ID, a probe that cannot be used, a waiver without reason or
// expiry, two waivers of one check, and, as *UnknownCheckError, a waiver of a
// check that the profile does not have.
func (s *Suite) Validate() error {
	errs := []error{s.validateProbes()}
	if s.FailFrom != "" && s.FailFrom.rank() == 0 {
		errs = append(errs, fmt.Errorf("cannot fail from severity %.20q: want low, medium, high or critical", s.FailFrom))
	}
	if len(s.Profile.Checks) == 0 {
		errs = append(errs, fmt.Errorf("cannot use profile %q: it has no checks", s.Profile.Name))
	}
	known := map[string]bool{}
	for _, c := range s.Profile.Checks {
		switch {
		case known[c.ID]:
			errs = append(errs, fmt.Errorf("cannot use profile %q: it has check %s twice", s.Profile.Name, c.ID))
		case c.ID == "" || c.Judge == nil:
			errs = append(errs, fmt.Errorf("cannot use profile %q: check %q lacks its ID or its judge", s.Profile.Name, c.ID))
		}
		known[c.ID] = true
	}
	waived := map[string]bool{}
	for _, w := range s.Waivers {
		switch {
		case !known[w.Check]:
			errs = append(errs, &UnknownCheckError{Profile: s.Profile.Name, Check: w.Check})
		case waived[w.Check]:
			errs = append(errs, fmt.Errorf("cannot waive check %s twice", w.Check))
		case w.Reason == "":
			errs = append(errs, fmt.Errorf("cannot waive check %s without a reason", w.Check))
		case w.Expires.IsZero():
			errs = append(errs, fmt.Errorf("cannot waive check %s without an expiry date", w.Check))
		}
		waived[w.Check] = true
	}
	return errors.Join(errs...)
}

// Judge judges facts that were gathered before. It needs no machine.
func (s *Suite) Judge(facts Facts) (*Report, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	waivers := map[string]Waiver{}
	for _, w := range s.Waivers {
		waivers[w.Check] = w
	}
	r := &Report{
		Profile: s.Profile.Name, Host: facts.Host, Started: facts.Started,
		DurationMS: facts.DurationMS, RoundTrips: facts.RoundTrips, Checks: []Result{},
	}
	for _, c := range s.Profile.Checks {
		res := judge(c, facts, s.Params)
		if w, ok := waivers[c.ID]; ok {
			applyWaiver(&res, w, now())
		}
		res.Advisory = res.bad() && c.Severity.rank() < s.FailFrom.rank()
		r.Checks = append(r.Checks, res)
		r.Summary.count(res.Status)
	}
	return r, nil
}

func judge(c Check, facts Facts, params Params) Result {
	res := Result{ID: c.ID, Group: c.Group, Title: c.Title, Severity: c.Severity, References: c.References}
	if res.References == nil {
		res.References = []string{}
	}
	var missing []error
	cut := false // what was gathered ends before a fact that is needed
	for _, need := range c.Needs {
		if why := facts.Facts[need].Omitted; why != "" {
			res.Status, res.Reason = Skipped, why
			return res
		}
		if _, err := facts.Text(need); err != nil {
			missing = append(missing, err)
		}
		if _, ok := facts.Facts[need]; !ok && facts.Facts["script"].Error != "" {
			cut = true
		}
		res.DurationMS += facts.Facts[need].DurationMS
	}
	if err := errors.Join(missing...); err != nil {
		res.Status, res.Reason = Error, err.Error()
		if cut { // the cause is said once
			res.Reason = "not gathered: see gather.complete"
		}
		return res
	}
	v := ask(c, facts, params)
	res.Status, res.Reason, res.Expected, res.Found = v.Status, v.Reason, v.Expected, v.Found
	switch v.Status {
	case Pass, Fail, Error, Skipped:
	default:
		res.Status, res.Reason = Error, fmt.Sprintf("its judge gave no verdict but %q", v.Status)
	}
	return res
}

// ask calls a check's judge, whose panic is an error of that check: an importer
// may have written it.
func ask(c Check, facts Facts, params Params) (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			v = Verdict{Status: Error, Reason: fmt.Sprintf("its judge panicked: %v", p)}
		}
	}()
	return c.Judge(facts, params)
}

// applyWaiver turns a failure into a waived one. Errors are not waived: what
// could not be read is not known to fail.
func applyWaiver(res *Result, w Waiver, now time.Time) {
	if res.Status != Fail {
		return
	}
	if !now.Before(w.Expires) {
		res.Reason = fmt.Sprintf("its waiver (%s) expired on %s", w.Reason, w.Expires.Format(time.DateOnly))
		return
	}
	res.Status, res.Reason = Waived, fmt.Sprintf("%s (until %s)", w.Reason, w.Expires.Format(time.DateOnly))
}

func (s *Summary) count(st Status) {
	switch st {
	case Pass:
		s.Pass++
	case Fail:
		s.Fail++
	case Error:
		s.Error++
	case Waived:
		s.Waived++
	case Skipped:
		s.Skipped++
	case Flaky:
		s.Flaky++
	}
}

func (s *Suite) logger() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}
