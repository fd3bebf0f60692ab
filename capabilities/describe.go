package capabilities

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// A Description is all that this package knows of a set, for people
// ([Description.WriteText]) and, as JSON, for programs.
type Description struct {
	Mask      string      `json:"mask"`      // [Set.Hex]
	Bits      []string    `json:"bits"`      // the capabilities' names
	Flags     Flags       `json:"flags"`     // both spellings; empty if there are conflicts
	Conflicts [][2]string `json:"conflicts"` // the properties that exclude each other, in pairs
	Flavors   []Verdict   `json:"flavors"`
}

// Describe describes s and what the named flavors say to it; if none is named,
// every family. An unknown name is an [*UnknownNameError].
func Describe(s Set, flavors ...string) (Description, error) {
	d := Description{Mask: s.Hex(), Bits: []string{}, Flags: Flags{}, Conflicts: [][2]string{}}
	for _, b := range s.Bits() {
		d.Bits = append(d.Bits, b.String())
	}
	for _, c := range s.Conflicts() {
		d.Conflicts = append(d.Conflicts, [2]string{c.A, c.B})
	}
	if flags, err := s.Flags(); err == nil {
		d.Flags = flags
	}
	if len(flavors) == 0 {
		for _, f := range families() {
			d.Flavors = append(d.Flavors, f.Explain(s))
		}
		return d, nil
	}
	for _, name := range flavors {
		v, err := Explain(s, name)
		if err != nil {
			return Description{}, err
		}
		d.Flavors = append(d.Flavors, v)
	}
	return d, nil
}

// Good reports whether the set has no conflict and every described flavor
// accepts it.
func (d Description) Good() bool {
	return len(d.Conflicts) == 0 && !slices.ContainsFunc(d.Flavors, func(v Verdict) bool { return !v.Accepted })
}

// WriteText writes the description as lines for people.
func (d Description) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "mask      %s\n", d.Mask)
	fmt.Fprintf(&b, "bits      %s\n", strings.Join(d.Bits, " "))
	for _, name := range slices.Sorted(maps.Keys(d.Flags)) {
		fmt.Fprintf(&b, "flag      %s=%s\n", name, d.Flags[name])
	}
	for _, c := range d.Conflicts {
		fmt.Fprintf(&b, "conflict  %s excludes %s\n", c[0], c[1])
	}
	for _, v := range d.Flavors {
		fmt.Fprintf(&b, "flavor    %-12s %s\n", v.Name, v)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (v Verdict) String() string {
	if !v.Accepted {
		parts := make([]string, len(v.Missing))
		for i, need := range v.Missing {
			parts[i] = need.String()
		}
		return "no, needs " + strings.Join(parts, " and ")
	}
	if v.LiveMigration {
		return "yes, migrated live"
	}
	return "yes"
}
