package imagefactory

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
)

// A CatalogEntry is one image that is registered in the Open Telekom Cloud: the
// facts from which a [Definition] may be made. Sizes are in bytes.
type CatalogEntry struct {
	Name Name `yaml:"name"` // without suffix

	Distribution string `yaml:"distribution"` // centos, debian, euleros, fedora, opensuse, oraclelinux, redhat, sles, ubuntu
	Version      string `yaml:"version"`
	OSVersion    string `yaml:"os_version"` // __os_version in the spelling of IMS
	Platform     string `yaml:"platform"`   // __platform

	Origin Origin `yaml:"origin"`
	// Driver is the name of the builder driver: kiwi or dib. Empty for images
	// that are built elsewhere; those are inspected, tested, signed and
	// published all the same.
	Driver string `yaml:"driver"`

	DiskBytes    Size   `yaml:"disk"`     // virtual size of the image
	MinDiskBytes Size   `yaml:"min_disk"` // smallest disk that it may be put on
	LVM          bool   `yaml:"lvm"`      // the root disk is a volume group
	User         string `yaml:"user"`     // login user

	Capabilities capabilities.Set `yaml:"capabilities"`
	// IXGBEVF is the version of the SR-IOV driver ixgbevf that the image must
	// have; empty for any.
	IXGBEVF string `yaml:"ixgbevf"`

	// BYOL says that the image may also be booted with a licence of one's own;
	// the cloud's repositories are then not registered.
	BYOL bool `yaml:"byol"`
	// Upstream are the repositories to build from, with a placeholder {NAME} for
	// each mirror: see [CatalogEntry.Sources].
	Upstream []string `yaml:"upstream"`
	// Repositories are the cloud's own, registered in the finished image.
	Repositories []Repository `yaml:"repositories"`

	RequiredPackages  []string `yaml:"required_packages"`
	ForbiddenPackages []string `yaml:"forbidden_packages"`

	// ExtraReboot says that the first boot reboots once to see the grown
	// partition, and takes about a minute longer.
	ExtraReboot bool     `yaml:"extra_reboot"`
	Notes       []string `yaml:"notes"` // known issues, for reports

	Profile string   `yaml:"profile"` // test profile
	Waivers []Waiver `yaml:"waivers"`

	Support     Support `yaml:"support"`
	SupportNote string  `yaml:"support_note"` // why, where the image is not simply supported
}

// An Origin is who makes an image.
type Origin string

// The origins.
const (
	OriginFactory   Origin = "factory"   // built by the image factory
	OriginCommunity Origin = "community" // built elsewhere, with no or minor changes
	OriginVendor    Origin = "vendor"    // built by the vendor of the system
)

// Support is the state of an image.
type Support string

// The states.
const (
	Supported  Support = "supported"
	InBeta     Support = "beta"       // offered, not yet promised
	Broken     Support = "broken"     // cannot be built: what is offered is outdated
	Superseded Support = "superseded" // there is another name for it
)

//go:embed catalog.yaml
var catalogYAML []byte

// catalog decodes the embedded file once. That it can be decoded is tested; it
// does not depend on the caller.
var catalog = sync.OnceValue(func() []CatalogEntry {
	entries, err := decodeCatalog(bytes.NewReader(catalogYAML))
	if err != nil {
		panic("imagefactory: embedded catalog: " + err.Error())
	}
	return entries
})

// system is what the images of one version of a distribution share. Each image
// is decoded over a copy of it.
type system struct{ entries []CatalogEntry }

// deferred keeps a part of the document to decode it when its defaults are
// known.
type deferred struct{ decode func(any) error }

func (d *deferred) UnmarshalYAML(decode func(any) error) error {
	d.decode = decode
	return nil
}

func (s *system) UnmarshalYAML(decode func(any) error) error {
	var shape struct {
		CatalogEntry `yaml:",inline"`
		Images       []deferred `yaml:"images"`
	}
	if err := decode(&shape); err != nil {
		return err
	}
	for _, image := range shape.Images {
		entry := shape.clone()
		if err := image.decode(&entry); err != nil {
			return err
		}
		s.entries = append(s.entries, entry)
	}
	return nil
}

func decodeCatalog(r io.Reader) ([]CatalogEntry, error) {
	var file struct {
		Systems []system `yaml:"systems"`
	}
	if err := yaml.NewDecoder(r, yaml.Strict()).Decode(&file); err != nil {
		return nil, fmt.Errorf("cannot read catalog: %w", err)
	}
	var entries []CatalogEntry
	seen := make(map[Name]bool)
	for _, s := range file.Systems {
		for _, e := range s.entries {
			if err := e.check(); err != nil {
				return nil, fmt.Errorf("cannot read catalog: %s: %w", e.Name, err)
			}
			if seen[e.Name] {
				return nil, fmt.Errorf("cannot read catalog: %s is there twice", e.Name)
			}
			seen[e.Name] = true
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b CatalogEntry) int { return a.Name.Compare(b.Name) })
	return entries, nil
}

func (e CatalogEntry) check() error {
	var errs []error
	for what, value := range map[string]string{
		"class": string(e.Name.Class), "distribution": e.Distribution, "version": e.Version, "os_version": e.OSVersion,
		"platform": e.Platform, "user": e.User, "profile": e.Profile,
	} {
		if value == "" {
			errs = append(errs, fmt.Errorf("no %s", what))
		}
	}
	if e.Name.Suffix != (Suffix{}) {
		errs = append(errs, errors.New("the name has a suffix"))
	}
	if e.DiskBytes <= 0 || e.MinDiskBytes < e.DiskBytes {
		errs = append(errs, fmt.Errorf("min_disk %v, disk %v", e.MinDiskBytes, e.DiskBytes))
	}
	if !slices.Contains([]Origin{OriginFactory, OriginCommunity, OriginVendor}, e.Origin) {
		errs = append(errs, fmt.Errorf("origin %q", e.Origin))
	}
	if (e.Origin == OriginFactory) != (e.Driver == "kiwi" || e.Driver == "dib") {
		errs = append(errs, fmt.Errorf("origin %s with driver %q", e.Origin, e.Driver))
	}
	if !slices.Contains([]Support{Supported, InBeta, Broken, Superseded}, e.Support) {
		errs = append(errs, fmt.Errorf("support %q", e.Support))
	}
	if (e.Support == Broken || e.Support == Superseded) && e.SupportNote == "" {
		errs = append(errs, errors.New("no support_note"))
	}
	if _, err := e.Capabilities.Flags(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (e CatalogEntry) clone() CatalogEntry {
	e.Upstream, e.Notes = slices.Clone(e.Upstream), slices.Clone(e.Notes)
	e.RequiredPackages, e.ForbiddenPackages = slices.Clone(e.RequiredPackages), slices.Clone(e.ForbiddenPackages)
	e.Waivers, e.Repositories = slices.Clone(e.Waivers), slices.Clone(e.Repositories)
	for i, r := range e.Repositories {
		e.Repositories[i].Suites, e.Repositories[i].Components = slices.Clone(r.Suites), slices.Clone(r.Components)
	}
	return e
}

// Catalog returns the public Linux images, ordered by name.
func Catalog() []CatalogEntry {
	var out []CatalogEntry
	for _, e := range catalog() {
		out = append(out, e.clone())
	}
	return out
}

// ErrUnknownImage says that a name is not in the catalog.
var ErrUnknownImage = errors.New("not in the catalog of images")

// LookupImage finds the catalog's entry of an image, by its name with or
// without a suffix: Standard_CentOS_7_latest and Standard_CentOS_7 are one. An
// unknown name is an [ErrUnknownImage].
func LookupImage(name string) (CatalogEntry, error) {
	n, err := ParseName(name)
	if err != nil {
		return CatalogEntry{}, err
	}
	base := n.Base()
	for _, e := range catalog() {
		if e.Name == base {
			return e.clone(), nil
		}
	}
	var near []string
	for _, e := range catalog() {
		if strings.HasPrefix(strings.ToLower(e.Name.System), strings.ToLower(familyOf(base.System))) {
			near = append(near, e.Name.String())
		}
	}
	if len(near) == 0 {
		return CatalogEntry{}, fmt.Errorf("cannot find image %s: %w", base, ErrUnknownImage)
	}
	return CatalogEntry{}, fmt.Errorf("cannot find image %s: %w; there are %s", base, ErrUnknownImage, strings.Join(near, ", "))
}

// familyOf returns the letters with which a system begins.
func familyOf(system string) string {
	end := strings.IndexFunc(system, func(r rune) bool { return r < 'A' || r > 'z' || r == '_' })
	if end < 0 {
		return system
	}
	return system[:end]
}

// Sources returns the repositories to build from, with mirrors (base URLs by
// name) in place of the placeholders. The error names every mirror that is
// missing.
func (e CatalogEntry) Sources(mirrors map[string]string) ([]string, error) {
	missing := make(map[string]bool)
	out := make([]string, len(e.Upstream))
	for i, source := range e.Upstream {
		rest, ok := strings.CutPrefix(source, "{")
		name, path, closed := strings.Cut(rest, "}")
		if !ok || !closed {
			return nil, fmt.Errorf("cannot name the sources of %s: %q does not begin with a mirror in braces", e.Name, source)
		}
		base, ok := mirrors[name]
		if !ok || base == "" {
			missing[name] = true
			continue
		}
		out[i] = strings.TrimSuffix(base, "/") + path
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("cannot name the sources of %s: no mirror for %s", e.Name, strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
	}
	return out, nil
}

// Properties returns the properties with which the image is registered: the
// system, the support flags and the capability mask.
func (e CatalogEntry) Properties() (map[string]string, error) {
	flags, err := e.Capabilities.Flags()
	if err != nil {
		return nil, err
	}
	properties := e.systemProperties()
	properties[capabilities.MaskProperty] = e.Capabilities.Hex()
	maps.Copy(properties, flags)
	return properties, nil
}

func (e CatalogEntry) systemProperties() map[string]string {
	return map[string]string{"__os_type": "Linux", "__os_bit": "64", "__os_version": e.OSVersion, "__platform": e.Platform}
}
