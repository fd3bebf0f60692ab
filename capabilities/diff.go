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
	}
	return fmt.Sprintf("%s %s=%s by %s", c.Op, c.Name, c.From, c.To)
}

// Diff says what to change on an image that has the properties have so that its
// flags are want, which [Set.Flags] or [Scheme.Flags] made. Removals come
// first, so that applied in order no step adds a flag beside one that excludes
// it.
//
// Left alone are properties that this package does not write, flags that are
// "false" (which means absent), the other spelling of a wanted flag if it
// agrees, and hw_firmware_type where want says nothing of it. A misspelt flag
// is removed.
func Diff(want, have Flags) []Change {
	var out []Change
	for name, value := range want {
		switch old, ok := have[name]; {
		case !ok:
			out = append(out, Change{Op: Add, Name: name, To: value})
		case old != value:
			out = append(out, Change{Op: Replace, Name: name, From: old, To: value})
		}
	}
	for name, value := range have {
		if _, ok := want[name]; !ok && stale(name, value, want) {
			out = append(out, Change{Op: Remove, Name: name, From: value})
		}
	}
	order := []string{Remove, Replace, Add}
	slices.SortFunc(out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Op), slices.Index(order, b.Op)), strings.Compare(a.Name, b.Name))
	})
	return out
}

// stale reports whether a property that is not wanted has to go.
func stale(name, value string, want Flags) bool {
	full := canonicalName(name)
	if full == "" || full == envProperty || full == firmwareProperty {
		return false
	}
	key := strings.TrimPrefix(full, supportPrefix)
	misspelt := name != full && name != isSupportPrefix+key
	if misspelt {
		return true
	}
	if normal(strings.TrimSpace(value)) == "" {
		return false
	}
	other, ok := want[full]
	if !ok {
		other, ok = want[isSupportPrefix+key]
	}
	return !ok || other != value
}
