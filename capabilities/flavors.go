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
// of and what it needs of an image. The zero Flavor is one of which nothing is
// known: its answer to every image is "unknown".
type Flavor struct {
	Name       string // full name, such as s2.large.4; of a family that of the family
	Family     string // s2, physical.h2, …
	Hypervisor string // Xen, KVM or BareMetal
	Hardware   string // what is special; empty for none
	Needs      []Need // all of them

	// LiveMigration is whether a server survives the maintenance of its host
	// without a restart. It is true only where this is promised.
	LiveMigration bool

	// Withdrawn is whether new servers can no longer be had: none of Sources
	// lists what is sold at its date.
	Withdrawn bool

	// Sources are the documents that know the family, each with its date as
	// "2026-07-02: title"; the newest first.
	Sources []string

	// ExtraSpecs are the family's extra_specs in the compute API. Those of one
	// flavor, such as its local disks, are not on record.
	ExtraSpecs map[string]string

	Names []string // full names in the family; empty if not on record
	Note  string   // what is inferred or worth knowing; empty for nothing
}

// OnRecord reports whether the flavor's name is one that its sources list: a
// family, or a full name. One that is not is of a size or ratio that may be
// younger than they are, or never was; the answer is that of its family.
func (f Flavor) OnRecord() bool {
	return f.Name == f.Family || len(f.Names) == 0 || slices.Contains(f.Names, f.Name)
}

// A Need is one requirement of a flavor: any one of AnyOf, or none of NoneOf.
// Its text form is the names joined by "|", with "!" before for NoneOf. The zero
// Need, "unknown", is one that is not on record: nothing is known to meet it.
type Need struct {
	AnyOf  Set
	NoneOf Set
}

// Met reports whether an image with s meets the need.
func (n Need) Met(s Set) bool {
	return n != Need{} && (n.AnyOf == 0 || s&n.AnyOf != 0) && s&n.NoneOf == 0
}

// unknownNeed is the text of the zero Need.
const unknownNeed = "unknown"

func (n Need) String() string {
	switch {
	case n == Need{}:
		return unknownNeed
	case n.NoneOf != 0:
		return "!" + n.NoneOf.String()
	}
	return n.AnyOf.String()
}

// MarshalText implements [encoding.TextMarshaler] with [Need.String].
func (n Need) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (n *Need) UnmarshalText(text []byte) error {
	if string(text) == unknownNeed {
		*n = Need{}
		return nil
	}
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

// flavorFile is the form of flavors.json. The families are listed as they are
// printed.
type flavorFile struct {
	Sources  map[string]source `json:"sources"`
	Families []record          `json:"families"`
}

// source is a document that flavors were taken from.
type source struct {
	Document string `json:"document"`
	Date     string `json:"date"` // YYYY-MM-DD
	Sold     bool   `json:"sold"` // whether it lists what is sold at that date
}

// record is one family in flavors.json. Its full names are the listed ones and
// each size with each ratio of memory to processors.
type record struct {
	Family        string            `json:"family"`
	Sources       []string          `json:"sources"` // keys of flavorFile.Sources
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
var families = sync.OnceValue(func() Table {
	list, err := decodeFamilies(flavorData)
	if err != nil {
		panic("capabilities: embedded flavors: " + err.Error())
	}
	return list
})

func decodeFamilies(data []byte) (Table, error) {
	var file flavorFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("cannot decode flavors: %w", err)
	}
	table := make(Table, len(file.Families))
	for i, r := range file.Families {
		// No flavor on record has Arm processors.
		table[i] = Flavor{
			Name: r.Family, Family: r.Family, Hypervisor: r.Hypervisor, Hardware: r.Hardware, LiveMigration: r.LiveMigration,
			Needs: append(slices.Clone(r.Needs), everyFlavor(r.Hypervisor, Need{NoneOf: ARM64})...), ExtraSpecs: r.ExtraSpecs,
			Names: fullNames(r), Note: r.Note,
		}
		sold := false
		for _, key := range r.Sources {
			from, ok := file.Sources[key]
			if !ok {
				return nil, fmt.Errorf("cannot decode flavors: %s has the unknown source %q", r.Family, key)
			}
			table[i].Sources = append(table[i].Sources, from.Date+": "+from.Document)
			sold = sold || from.Sold
		}
		table[i].Withdrawn = !sold
		slices.Sort(table[i].Sources)
		slices.Reverse(table[i].Sources)
	}
	return table, nil
}

// everyFlavor is what a flavor on the hypervisor needs whatever its family:
// besides its architecture, an image that is registered for its kind of server.
func everyFlavor(hypervisor string, arch Need) []Need {
	if hypervisor == BareMetal {
		return []Need{arch, {NoneOf: DataImage | ISOImage}}
	}
	return []Need{arch, {NoneOf: Ironic | DataImage | ISOImage}}
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
	f.Needs, f.Names, f.Sources = slices.Clone(f.Needs), slices.Clone(f.Names), slices.Clone(f.Sources)
	f.ExtraSpecs = maps.Clone(f.ExtraSpecs)
	return f
}

// A Table is a list of flavors or families of flavors: those of the Open Telekom
// Cloud ([Families]), those that an API answered with ([ReadFlavors]), or the
// caller's own.
type Table []Flavor

// Families returns every family of flavors that the Open Telekom Cloud has or
// had.
func Families() Table {
	var out Table
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

// sizeName is the grammar of what follows the family in a flavor's name: a size,
// the ratio of memory to processors, and a mark of whole hosts.
var sizeName = regexp.MustCompile(`\.(tiny|small|x?medium|(([1-9][0-9]{0,2})?[sx])?large)(\.[1-9][0-9]{0,2})?(\.physical)?$`)

// Lookup finds a flavor of the table by its full name (s2.large.4,
// physical.h2.large, computev1-1) or by its family's name. A name that is not
// listed is found if it is a family's with a size that a flavor may have, see
// [Flavor.OnRecord]. Any other is an [*UnknownNameError] with the nearest names.
func (t Table) Lookup(name string) (Flavor, error) {
	if f, ok := t.find(name); ok {
		return f, nil
	}
	return Flavor{}, &UnknownNameError{Kind: "flavor", Name: name, Nearest: t.nearest(name)}
}

func (t Table) find(name string) (Flavor, bool) {
	found := slices.IndexFunc(t, func(f Flavor) bool {
		return name != "" && (name == f.Name || name == f.Family || slices.Contains(f.Names, name))
	})
	if size := sizeName.FindStringIndex(name); found < 0 && size != nil {
		stem := name[:size[0]]
		found = slices.IndexFunc(t, func(f Flavor) bool { return f.hasStem(stem) })
	}
	if found < 0 {
		return Flavor{}, false
	}
	f := t[found].clone()
	f.Name = name
	return f, true
}

// nearest returns the names that come near an unknown one: its family, if it
// begins with one, and what is spelt alike.
func (t Table) nearest(name string) []string {
	var known, family []string
	for _, f := range t {
		known = append(append(known, f.Name, f.Family), f.Names...)
		if strings.HasPrefix(name, f.Family+".") && len(f.Names) == 0 {
			family = []string{f.Family}
		}
	}
	slices.Sort(known)
	return append(family, nearest(name, slices.Compact(known))...)
}

// hasStem reports whether the flavors of a family begin with stem, which is the
// family's name, but for those families that have several kinds (physical.s3,
// physical.m2).
func (f Flavor) hasStem(stem string) bool {
	if len(f.Names) == 0 {
		return stem == f.Family
	}
	return slices.ContainsFunc(f.Names, func(name string) bool {
		size := sizeName.FindStringIndex(name)
		return size != nil && name[:size[0]] == stem
	})
}

// Lookup is [Table.Lookup] in the flavors of the Open Telekom Cloud.
func Lookup(name string) (Flavor, error) { return families().Lookup(name) }

// A Verdict is what a flavor says to an image. As JSON it is one entry of the
// flavors in a [Description].
type Verdict struct {
	Name   string `json:"name"`
	Answer string `json:"answer"` // "yes", "no", or "unknown" where all is met that is known and something is not

	Accepted      bool   `json:"accepted"` // whether the answer is yes
	Missing       []Need `json:"missing"`  // what is not met; empty if and only if accepted
	LiveMigration bool   `json:"live_migration"`
	Withdrawn     bool   `json:"withdrawn"` // whether new servers can no longer be had
}

// Explain says whether the flavor accepts an image with s, and if not, why. Of
// a NoneOf that is not met, only what is in the way is named.
func (f Flavor) Explain(s Set) Verdict {
	v := Verdict{Name: f.Name, Answer: "yes", Missing: []Need{}, LiveMigration: f.LiveMigration, Withdrawn: f.Withdrawn}
	needs := f.Needs
	if len(needs) == 0 {
		needs = []Need{{}}
	}
	for _, need := range needs {
		switch {
		case need.Met(s):
			continue
		case need == Need{}:
			if v.Answer == "yes" {
				v.Answer = "unknown"
			}
		default:
			v.Answer = "no"
		}
		if need.NoneOf != 0 && need.AnyOf == 0 {
			need.NoneOf &= s
		}
		v.Missing = append(v.Missing, need)
	}
	v.Accepted = v.Answer == "yes"
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
