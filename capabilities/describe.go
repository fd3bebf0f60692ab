package capabilities

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// A Description is all that this package knows of a set, for people
// ([Description.WriteText]) and, as JSON, for programs.
type Description struct {
	Image     string      `json:"image,omitempty"` // the image's name
	Mask      string      `json:"mask"`            // [Set.Hex]
	Bits      []string    `json:"bits"`            // the capabilities' names
	Flags     Flags       `json:"flags"`           // both spellings; empty if there are conflicts
	Conflicts [][2]string `json:"conflicts"`       // the properties that exclude or contradict each other, in pairs
	Findings  []string    `json:"findings"`        // what could not be judged or is inferred, and why properties contradict each other
	Flavors   []Verdict   `json:"flavors"`         // in the order of the table, or of the names
}

// Describe is [Table.Describe] with the flavors of the Open Telekom Cloud.
func Describe(s Set, flavors ...string) (Description, error) {
	return families().Describe(s, flavors...)
}

// Describe describes s and what the named flavors of the table say to it, with
// their notes as findings; if none is named, what every one says. An unknown
// name is an [*UnknownNameError]; a table without flavors, or a flavor without a
// name, is an error.
func (t Table) Describe(s Set, flavors ...string) (Description, error) {
	d := Description{Mask: s.Hex(), Bits: []string{}, Flags: Flags{}, Conflicts: [][2]string{}, Findings: []string{}}
	for _, b := range s.Bits() {
		d.Bits = append(d.Bits, b.String())
	}
	d.addConflicts(s.Conflicts())
	if flags, err := s.Flags(); err == nil {
		d.Flags = flags
	}
	if len(t) == 0 {
		return Description{}, errors.New("cannot describe capabilities: the table has no flavors")
	}
	if len(flavors) == 0 {
		for i, f := range t {
			if f.Name == "" {
				return Description{}, fmt.Errorf("cannot describe capabilities: flavor %d of the table has no name", i+1)
			}
			d.Flavors = append(d.Flavors, f.Explain(s))
		}
		return d, nil
	}
	for _, name := range flavors {
		f, err := t.Lookup(name)
		if err != nil {
			return Description{}, err
		}
		if !f.OnRecord() {
			d.Findings = append(d.Findings, fmt.Sprintf("flavor %s is not on record: the answer is that of its family %s", plain(name), f.Family))
		}
		if f.Note != "" {
			d.Findings = append(d.Findings, fmt.Sprintf("flavor %s: %s", plain(name), f.Note))
		}
		d.Flavors = append(d.Flavors, f.Explain(s))
	}
	return d, nil
}

// DescribeImage is [Table.Describe] of what a registered image claims. What
// [FromFlags] has to say of its properties stands beside the answers.
func (t Table) DescribeImage(image Image, flavors ...string) (Description, error) {
	s, err := FromFlags(image.Properties)
	d, tableErr := t.Describe(s, flavors...)
	if tableErr != nil {
		return Description{}, tableErr
	}
	d.Image = cmp.Or(image.Name, image.ID)
	if s == 0 {
		d.Findings = append(d.Findings, "no property says what the image can do")
	}
	joined, _ := err.(interface{ Unwrap() []error })
	if joined == nil {
		return d, nil
	}
	for _, err := range joined.Unwrap() {
		var conflict *ConflictError
		if !errors.As(err, &conflict) {
			d.Findings = append(d.Findings, err.Error())
			continue
		}
		d.addConflicts(conflict.Conflicts)
		for _, c := range conflict.Conflicts {
			d.Findings = append(d.Findings, fmt.Sprintf("%s and %s: %s", c.A, c.B, c.Reason))
		}
	}
	return d, nil
}

func (d *Description) addConflicts(list []Conflict) {
	for _, c := range list {
		if pair := [2]string{c.A, c.B}; !slices.Contains(d.Conflicts, pair) {
			d.Conflicts = append(d.Conflicts, pair)
		}
	}
}

// Good reports whether the set has no conflict and every described flavor, of
// which there is one at least, accepts it.
func (d Description) Good() bool {
	return len(d.Conflicts) == 0 && len(d.Flavors) > 0 && !slices.ContainsFunc(d.Flavors, func(v Verdict) bool { return !v.Accepted })
}

// WriteText writes the description as lines for people.
func (d Description) WriteText(w io.Writer) error {
	var b strings.Builder
	if d.Image != "" {
		fmt.Fprintf(&b, "image     %s\n", plain(d.Image))
	}
	fmt.Fprintf(&b, "mask      %s\n", d.Mask)
	fmt.Fprintf(&b, "bits      %s\n", strings.Join(d.Bits, " "))
	for _, name := range slices.Sorted(maps.Keys(d.Flags)) {
		fmt.Fprintf(&b, "flag      %s=%s\n", name, d.Flags[name])
	}
	for _, c := range d.Conflicts {
		fmt.Fprintf(&b, "conflict  %s excludes %s\n", c[0], c[1])
	}
	for _, finding := range d.Findings {
		fmt.Fprintf(&b, "finding   %s\n", finding)
	}
	for _, v := range d.Flavors {
		fmt.Fprintf(&b, "flavor    %-12s %s\n", plain(v.Name), v)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String says the verdict in words, such as "yes, migrated live" or "no, needs
// infiniband and !ironic; no longer sold".
func (v Verdict) String() string {
	text := cmp.Or(v.Answer, "unknown")
	if len(v.Missing) > 0 {
		parts := make([]string, len(v.Missing))
		for i, need := range v.Missing {
			if parts[i] = need.String(); need == (Need{}) {
				parts[i] = "something that is not on record"
			}
		}
		text += ", needs " + strings.Join(parts, " and ")
	} else if v.LiveMigration {
		text += ", migrated live"
	}
	if v.Withdrawn {
		text += "; no longer sold"
	}
	return text
}
