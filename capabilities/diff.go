package capabilities

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The operations of a [Change], as in the PATCH calls of IMS and Glance.
const (
	Remove  = "remove"
	Replace = "replace"
	Add     = "add"
)

// A Change is one property to correct on a registered image.
type Change struct {
	Op   string // Remove, Replace or Add
	Name string
	From string // what the image has; empty for Add
	To   string // what it shall have; empty for Remove
}

func (c Change) String() string {
	switch c.Op {
	case Add:
		return fmt.Sprintf("add %s=%s", c.Name, c.To)
	case Remove:
		return fmt.Sprintf("remove %s=%s", c.Name, c.From)
	case Replace:
		return fmt.Sprintf("replace %s=%s by %s", c.Name, c.From, c.To)
	}
	return fmt.Sprintf("unknown operation %s on %s", quote(c.Op), quote(c.Name))
}

// Diff says what to change on an image that has the properties have so that its
// flags are want, which [Set.Flags] or [Scheme.Flags] made. In want may be a
// [MaskProperty], too.
//
// Applied in order, no step makes the image worse than it was: no state between
// has flags side by side that exclude each other, the two spellings of one flag
// with different values, or a mask that contradicts the flags, unless have did.
// So what goes away goes first, then the kind of server and the firmware change,
// and what comes, comes last; where both spellings of a flag get another value,
// one is taken away before and put back after.
//
// Left alone are properties that this package does not write, unwanted flags
// that are "false" (which means absent), the other spelling of a wanted flag if it
// agrees, a mask that agrees, and hw_firmware_type where want says nothing of
// it. A flag with a wrong number of underscores before it is removed.
func Diff(want, have Flags) []Change {
	var out []Change
	for name, value := range want {
		old, ok := have[name]
		switch {
		case !ok:
			out = append(out, Change{Op: Add, Name: name, To: value})
		case old == value:
		case name == MaskProperty || bothChange(name, want, have):
			out = append(out, Change{Op: Remove, Name: name, From: old}, Change{Op: Add, Name: name, To: value})
		default:
			out = append(out, Change{Op: Replace, Name: name, From: old, To: value})
		}
	}
	for name, value := range have {
		if _, ok := want[name]; !ok && stale(name, value, want) {
			out = append(out, Change{Op: Remove, Name: name, From: value})
		}
	}
	slices.SortFunc(out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.phase(), b.phase()), strings.Compare(a.Name, b.Name))
	})
	return out
}

// bothChange reports whether name is the __is_support_ spelling of a flag of
// which both spellings are there and change.
func bothChange(name string, want, have Flags) bool {
	key, ok := strings.CutPrefix(name, isSupportPrefix)
	if !ok {
		return false
	}
	old, has := have[supportPrefix+key]
	value, wanted := want[supportPrefix+key]
	return has && wanted && old != value
}

// phase orders the steps of a Diff.
func (c Change) phase() int {
	switch isMask := c.Name == MaskProperty; {
	case c.Op == Remove && isMask:
		return 0
	case c.Op == Remove:
		return 1
	case c.Name == envProperty || c.Name == firmwareProperty:
		return 2
	case c.Op == Replace:
		return 3
	case isMask:
		return 5
	}
	return 4
}

// stale reports whether a property that is not wanted has to go.
func stale(name, value string, want Flags) bool {
	if bare := strings.TrimLeft(name, "_"); bare != name && canonicalName(name) == "" && canonicalName("__"+bare) != "" || name == factoryHANA {
		return true // misspelt
	}
	if name == MaskProperty {
		mask, err := Parse(value)
		values, _ := canonical(want)
		return err != nil || len(contradictions(mask, values)) > 0
	}
	full := canonicalName(name)
	if full == "" || full == envProperty || full == firmwareProperty {
		return false
	}
	other, ok := want[full]
	if !ok {
		other, ok = want[isSupportPrefix+strings.TrimPrefix(full, supportPrefix)]
	}
	if normal(strings.TrimSpace(value)) == "" {
		return ok
	}
	return !ok || other != value
}
