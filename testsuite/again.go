package testsuite

import (
	"context"
	"maps"
	"slices"
)

// Again tries the checks of a report that failed or could not be decided once more, on
// the machine that the report and its facts are of. Facts that Gather cannot read are
// taken as they were. The new report has each such check's second outcome, with the
// first one as evidence beside it:
//
//   - What could not be decided and now passes is [Flaky], and does not count as failed.
//   - What failed and now passes is [Flaky], and counts as failed.
//   - What failed and now cannot be decided still fails: its first outcome stands.
//   - What does not apply the second time was not tried again, and stays as it was.
//
// A report in which nothing is bad is returned as it is. The report and the facts that
// are given stay as they are. Errors are those of [Suite.Run].
func (s *Suite) Again(ctx context.Context, target Target, facts Facts, report *Report) (*Report, error) {
	once := *s
	once.Facts, once.Profile.Checks = nil, nil
	for _, c := range s.Profile.Checks {
		if slices.ContainsFunc(report.Checks, func(r Result) bool { return r.ID == c.ID && r.First == nil && r.bad() }) {
			once.Profile.Checks = append(once.Profile.Checks, c)
		}
	}
	if len(once.Profile.Checks) == 0 {
		return report, nil
	}
	once.Waivers = filter(s.Waivers, func(w Waiver) bool {
		return slices.ContainsFunc(once.Profile.Checks, func(c Check) bool { return c.ID == w.Check })
	})
	seen, err := once.Gather(ctx, target)
	if err != nil {
		return nil, err
	}
	now := facts
	now.Facts = map[string]Fact{}
	maps.Copy(now.Facts, facts.Facts)
	for name, fact := range seen.Facts {
		if fact.Omitted == "" {
			now.Facts[name] = fact
		}
	}
	second, err := once.Judge(now)
	if err != nil {
		return nil, err
	}
	merged := *report
	merged.DurationMS += seen.DurationMS
	merged.RoundTrips += seen.RoundTrips
	merged.Checks, merged.Summary = slices.Clone(report.Checks), Summary{}
	for i := range merged.Checks {
		r := &merged.Checks[i]
		if at := slices.IndexFunc(second.Checks, func(other Result) bool { return other.ID == r.ID }); at >= 0 {
			*r = r.again(second.Checks[at])
		}
		merged.Summary.count(r.Status)
	}
	return &merged, nil
}

// again is the outcome of a check that was bad and then tried a second time.
func (r Result) again(second Result) Result {
	first := &First{Status: r.Status, Reason: r.Reason, Expected: r.Expected, Found: r.Found}
	switch {
	case second.Status == Skipped, r.Status == Fail && second.Status == Error:
		return r
	case second.Status == Pass:
		second.Status = Flaky
	}
	second.First = first
	second.Advisory = r.Advisory && second.bad()
	second.DurationMS += r.DurationMS
	return second
}
