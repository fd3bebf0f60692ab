package capabilities

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// The hypervisors of [Flavor.Hypervisor].
const (
	Xen       = "Xen"
	KVM       = "KVM"
	BareMetal = "bare metal"
)

// A Flavor is a family of flavors, or one flavor of it: what a server is made
// of and what it needs of an image.
type Flavor struct {
	Name       string // full name, such as s2.large.4; of a family that of the family
	Family     string // s2, physical.h2, …
	Hypervisor string // Xen, KVM or BareMetal
	Hardware   string // what is special; empty for none
	Needs      []Need // all of them

	// LiveMigration is whether a server survives the maintenance of its host
	// without a restart. It is true only where this is promised.
	LiveMigration bool

	// ExtraSpecs are the family's extra_specs in the compute API. Those of one
	// flavor, such as its local disks, are not on record.
	ExtraSpecs map[string]string

	Names []string // full names in the family; empty if not on record
	Note  string   // what is inferred or worth knowing; empty for nothing
}

// A Need is one requirement of a flavor: any one of AnyOf, or none of NoneOf.
// Its text form is the names joined by "|", with "!" before for NoneOf.
type Need struct {
	AnyOf  Set
	NoneOf Set
}

// Met reports whether an image with s meets the need.
func (n Need) Met(s Set) bool { return (n.AnyOf == 0 || s&n.AnyOf != 0) && s&n.NoneOf == 0 }

func (n Need) String() string {
	if n.NoneOf != 0 {
		return "!" + n.NoneOf.String()
	}
	return n.AnyOf.String()
}

// MarshalText implements [encoding.TextMarshaler] with [Need.String].
func (n Need) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (n *Need) UnmarshalText(text []byte) error {
	names, none := strings.CutPrefix(string(text), "!")
	s, err := Parse(names)
	if err != nil {
		return err
	}
	if *n = (Need{AnyOf: s}); none {
		*n = Need{NoneOf: s}
	}
	return nil
}

//go:embed flavors.json
var flavorData []byte

// record is one family in flavors.json. Its full names are the listed ones and
// each size with each ratio of memory to processors.
type record struct {
	Family        string            `json:"family"`
	Hypervisor    string            `json:"hypervisor"`
	Hardware      string            `json:"hardware"`
	LiveMigration bool              `json:"live_migration"`
	Needs         []Need            `json:"needs"`
	ExtraSpecs    map[string]string `json:"extra_specs"`
	Sizes         []string          `json:"sizes"`
	Ratios        []string          `json:"ratios"`
	Names         []string          `json:"names"`
	Note          string            `json:"note"`
}

// families decodes the embedded data once. That it can be decoded is tested;
// it does not depend on the caller.
var families = sync.OnceValue(func() []Flavor {
	list, err := decodeFamilies(flavorData)
	if err != nil {
		panic("capabilities: embedded flavors: " + err.Error())
	}
	return list
})

func decodeFamilies(data []byte) ([]Flavor, error) {
	var records []record
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&records); err != nil {
		return nil, fmt.Errorf("cannot decode flavors: %w", err)
	}
	list := make([]Flavor, len(records))
	for i, r := range records {
		// No flavor on record has Arm processors.
		needs := append(r.Needs, Need{NoneOf: ARM64})
		if r.Hypervisor != BareMetal {
			needs = append(needs, Need{NoneOf: Ironic})
		}
		list[i] = Flavor{
			Name: r.Family, Family: r.Family, Hypervisor: r.Hypervisor, Hardware: r.Hardware, Needs: needs,
			LiveMigration: r.LiveMigration, ExtraSpecs: r.ExtraSpecs, Names: fullNames(r), Note: r.Note,
		}
	}
	return list, nil
}

func fullNames(r record) []string {
	out := slices.Clone(r.Names)
	for _, size := range r.Sizes {
		if len(r.Ratios) == 0 {
			out = append(out, r.Family+"."+size)
		}
		for _, ratio := range r.Ratios {
			out = append(out, r.Family+"."+size+"."+ratio)
		}
	}
	return out
}

// clone keeps callers from changing the shared data.
func (f Flavor) clone() Flavor {
	f.Needs, f.Names, f.ExtraSpecs = slices.Clone(f.Needs), slices.Clone(f.Names), maps.Clone(f.ExtraSpecs)
	return f
}

// Families returns every family of flavors.
func Families() []Flavor {
	var out []Flavor
	for _, f := range families() {
		out = append(out, f.clone())
	}
	return out
}

// Flavors returns the families of flavors that accept an image with s. Whether
// s can be registered at all is for [Set.Conflicts] to say.
func Flavors(s Set) []Flavor {
	var out []Flavor
	for _, f := range families() {
		if f.Explain(s).Accepted {
			out = append(out, f.clone())
		}
	}
	return out
}

// sizeName is the form of a flavor's name after its family.
var sizeName = regexp.MustCompile(`^\.(small|medium|([1-9][0-9]{0,2})?x?large)(\.[1-9][0-9]{0,2})?$`)

// Lookup finds a flavor by its full name (s2.large.4, physical.h2.large,
// computev1-1) or by its family's name. An unknown name is an
// [*UnknownNameError].
func Lookup(name string) (Flavor, error) {
	var known []string
	for _, f := range families() {
		rest, inFamily := strings.CutPrefix(name, f.Family)
		unlisted := inFamily && len(f.Names) == 0 && sizeName.MatchString(rest)
		if name == f.Family || unlisted || slices.Contains(f.Names, name) {
			f = f.clone()
			f.Name = name
			return f, nil
		}
		known = append(append(known, f.Family), f.Names...)
		if inFamily && len(f.Names) == 0 && strings.HasPrefix(rest, ".") {
			return Flavor{}, &UnknownNameError{Kind: "flavor", Name: name, Nearest: []string{f.Family}}
		}
	}
	return Flavor{}, &UnknownNameError{Kind: "flavor", Name: name, Nearest: nearest(name, known)}
}

// LiveMigration reports whether a server of the named flavor is migrated live.
// An unknown name is an [*UnknownNameError].
func LiveMigration(name string) (bool, error) {
	f, err := Lookup(name)
	return f.LiveMigration, err
}

// A Verdict is what a flavor says to an image. As JSON it is one entry of the
// flavors in a [Description].
type Verdict struct {
	Name          string `json:"name"`
	Accepted      bool   `json:"accepted"`
	Missing       []Need `json:"missing"` // what is not met; empty if and only if accepted
	LiveMigration bool   `json:"live_migration"`
}

// Explain says whether the flavor accepts an image with s, and if not, why.
func (f Flavor) Explain(s Set) Verdict {
	v := Verdict{Name: f.Name, Missing: []Need{}, LiveMigration: f.LiveMigration}
	for _, need := range f.Needs {
		if !need.Met(s) {
			v.Missing = append(v.Missing, need)
		}
	}
	v.Accepted = len(v.Missing) == 0
	return v
}

// Explain says whether the named flavor accepts an image with s, and if not,
// which bits are missing. An unknown name is an [*UnknownNameError].
func Explain(s Set, flavor string) (Verdict, error) {
	f, err := Lookup(flavor)
	if err != nil {
		return Verdict{}, err
	}
	return f.Explain(s), nil
}
