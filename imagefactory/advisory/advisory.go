package advisory

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/pkgversion"
)

// A Status is what an advisory means for an image.
type Status int

// The worst is the last.
const (
	Unknown     Status = iota // no advisory that was read is about it
	NotPresent                // the package is not installed
	NotAffected               // it is installed in a version that never was
	Fixed                     // it is installed in a version with the fix, or newer
	Affected
)

var statusText = []string{"unknown", "not present", "not affected", "fixed", "affected"}

func (s Status) String() string { return statusText[s] }

// MarshalText gives the text of String.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Package is one that is installed.
type Package struct {
	Name, Version, Arch string
	// Source and SourceVersion name the source package that it was made of; if
	// empty, its own name and version.
	Source, SourceVersion string
}

// Installed is what is installed in an image.
type Installed struct {
	Distribution string // "debian", "ubuntu", "redhat", "oraclelinux", "sles", "opensuse"
	Release      string // "12", "24.04"; of all but Ubuntu and openSUSE its first number counts
	Packages     []Package
}

// A Verdict is what an advisory means for an image.
type Verdict struct {
	ID     string `json:"id"`
	Status Status `json:"status"`
	// Package, Version and FixedIn are those of the source package, where one is
	// installed; FixedIn is empty where there is no fix.
	Package string `json:"package,omitempty"`
	Version string `json:"version,omitempty"`
	FixedIn string `json:"fixed_in,omitempty"`
	// Severity is the publisher's word: "high", "unimportant", "CVSS:3.1/…"; or empty.
	Severity string `json:"severity,omitempty"`
	// Repositories have the fix, as Debian's tracker tells: "bookworm-security".
	// Elsewhere a fix that is named has been published with its advisory.
	Repositories []string `json:"repositories,omitempty"`
}

// A Database is what was read of advisories.
type Database struct {
	entries map[string][]*entry // by ID
	covers  map[string]bool     // "debian 12": that an advisory is about it
	count   int
	only    [][]byte   // the IDs that are kept; if none, all
	files   []fileRead // the last one is being read
	// definitions are those of OVAL, by ID.
	definitions map[string][]*ovalDefinition
}

// entry is what an advisory says of a package in a release of a distribution.
type entry struct {
	release  string // "debian 12"
	name     string // of the source package
	ranges   []versions
	severity string

	repositories []string // that have the fix
}

// versions are affected: from introduced on, up to but without fixed, or up to and
// with last. Empty: from the beginning; without end.
type versions struct{ introduced, fixed, last string }

// releaseKey is how entries name a release of a distribution.
func releaseKey(distribution, release string) string {
	switch distribution {
	case "debian", "redhat", "oraclelinux", "sles":
		release = release[:len(release)-len(strings.TrimLeft(release, "0123456789"))]
	}
	return distribution + " " + release
}

// IDs are the advisories' IDs, sorted: CVEs and the publishers' own.
func (d *Database) IDs() []string {
	ids := slices.AppendSeq(slices.Collect(maps.Keys(d.entries)), maps.Keys(d.definitions))
	slices.Sort(ids)
	return slices.Compact(ids)
}

// sources are what is installed, by source package; of several versions, each.
func (i *Installed) sources() map[string][]string {
	out := make(map[string][]string, len(i.Packages))
	for _, p := range i.Packages {
		for _, o := range p.origins() {
			if !slices.Contains(out[o.name], o.version) {
				out[o.name] = append(out[o.name], o.version)
			}
		}
	}
	return out
}

// names are the packages by name, as OVAL asks for them.
func (i *Installed) names() map[string][]Package {
	out := make(map[string][]Package, len(i.Packages))
	for _, p := range i.Packages {
		out[p.Name] = append(out[p.Name], p)
	}
	return out
}

// Judge tells what the advisory with this ID means for an image.
func (d *Database) Judge(id string, installed *Installed) Verdict {
	key := releaseKey(installed.Distribution, installed.Release)
	verdict := Verdict{ID: id}
	for _, e := range d.entries[id] {
		if e.release != key {
			continue
		}
		verdict.Status = max(verdict.Status, NotPresent)
		for _, p := range installed.Packages {
			for _, o := range p.origins() {
				if o.name == e.name {
					verdict = worse(verdict, e.judge(id, o.version))
				}
			}
		}
	}
	if len(d.definitions[id]) > 0 {
		byName := installed.names()
		for _, o := range d.definitions[id] {
			if o.releases[key] {
				verdict = worse(verdict, o.judge(id, byName))
			}
		}
	}
	// A publisher that lists what is wrong in a release, and does not list this ID
	// there although it knows it, says that no package of it is concerned.
	if verdict.Status == Unknown && len(d.entries[id])+len(d.definitions[id]) > 0 && d.covers[key] {
		verdict.Status = NotPresent
	}
	return verdict
}

// Open are the advisories that affect an image, sorted by package and ID.
func (d *Database) Open(installed *Installed) []Verdict {
	key := releaseKey(installed.Distribution, installed.Release)
	sources := installed.sources()
	var out []Verdict
	for id, entries := range d.entries {
		verdict := Verdict{ID: id}
		for _, e := range entries {
			if e.release == key {
				for _, version := range sources[e.name] {
					verdict = worse(verdict, e.judge(id, version))
				}
			}
		}
		if verdict.Status == Affected {
			out = append(out, verdict)
		}
	}
	byName := installed.names()
	for id, definitions := range d.definitions {
		verdict := Verdict{ID: id}
		for _, o := range definitions {
			if o.releases[key] {
				verdict = worse(verdict, o.judge(id, byName))
			}
		}
		if verdict.Status == Affected {
			out = append(out, verdict)
		}
	}
	slices.SortFunc(out, func(a, b Verdict) int {
		return cmp.Or(strings.Compare(a.Package, b.Package), strings.Compare(a.ID, b.ID))
	})
	return out
}

// Covers reports whether an advisory is about this release of a distribution.
func (d *Database) Covers(distribution, release string) bool {
	return d.covers[releaseKey(distribution, release)]
}

func worse(a, b Verdict) Verdict {
	if b.Status > a.Status || b.Status == a.Status && pkgversion.Deb(b.FixedIn, a.FixedIn) > 0 {
		return b
	}
	return a
}

// judge compares an installed version with those that are affected.
func (e *entry) judge(id, version string) Verdict {
	v := Verdict{ID: id, Status: NotAffected, Package: e.name, Version: version, Severity: e.severity}
	for _, r := range e.ranges {
		switch {
		case r.introduced != "" && r.introduced != "0" && pkgversion.Deb(version, r.introduced) < 0:
			continue
		case r.fixed != "" && pkgversion.Deb(version, r.fixed) >= 0, r.last != "" && pkgversion.Deb(version, r.last) > 0:
			if v.Status != Affected {
				v.Status, v.FixedIn = Fixed, r.fixed
			}
		default:
			v.Status, v.FixedIn, v.Repositories = Affected, r.fixed, e.repositories
		}
	}
	return v
}

const maxEntries = 5_000_000

func (d *Database) add(id string, e *entry) error {
	if d.count++; d.count > maxEntries {
		return errTooMany
	}
	d.covers[e.release] = true
	if !d.keeps(id) {
		return nil
	}
	d.entries[id] = append(d.entries[id], e)
	return nil
}

// keeps reports whether an ID is wanted.
func (d *Database) keeps(id string) bool {
	return len(d.only) == 0 || slices.ContainsFunc(d.only, func(want []byte) bool { return string(want) == id })
}
