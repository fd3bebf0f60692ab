package publish

import (
	"fmt"
	"slices"
	"time"
)

// CheckFresh reports ErrTooOld if what is latest among the entries that a target lists was
// built more than maxAge before now, or if nothing that can be used is latest, which a
// build dated in the future cannot: users then get an old image, or none, because
// publications fail or are not tried. It is for an alarm that does not depend on whether
// anything was published: whoever runs each night calls it with a few nights.
func CheckFresh(have []Entry, maxAge time.Duration, now time.Time) error {
	have = slices.DeleteFunc(slices.Clone(have), func(e Entry) bool { return inFuture(e.Build, now) != nil }) // fresh until then
	latest, ok := newest(byPreference(have))
	if !ok || !latest.Has(Latest) {
		return fmt.Errorf("%w: nothing that can be used is latest", ErrTooOld)
	}
	if age := now.Sub(latest.Build.Time()); age > maxAge {
		const day = 24 * time.Hour
		return fmt.Errorf("%w: %s is latest, which began %d days ago; the limit is %d", ErrTooOld, latest.Build, age/day, maxAge/day)
	}
	return nil
}
