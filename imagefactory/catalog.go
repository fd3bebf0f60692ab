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

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/internal/strictyaml"
)

// A CatalogEntry is one image that is registered in the Open Telekom Cloud: the
// facts from which a [Definition] may be made, see [CatalogEntry.Definition].
// Sizes are in bytes.
//
// The images of Windows are here for their names, properties and flavors: no
// driver builds them, and nothing in this module looks into them.
type CatalogEntry struct {
	Name Name `yaml:"name"` // without suffix

	Distribution string `yaml:"distribution"` // centos, debian, euleros, fedora, opensuse, oraclelinux, redhat, sles, ubuntu, windows
	Version      string `yaml:"version"`
	OSVersion    string `yaml:"os_version"` // __os_version in the spelling of IMS
	Platform     string `yaml:"platform"`   // __platform

	// Driver is the name of the builder driver: kiwi or dib. Empty for images
	// that are built elsewhere; those are inspected, tested, signed and
	// published all the same.
	Driver string `yaml:"driver"`

	DiskBytes    Size   `yaml:"disk"`     // virtual size of the image
	MinDiskBytes Size   `yaml:"min_disk"` // smallest disk that it may be put on
	LVM          bool   `yaml:"lvm"`      // the root disk is a volume group: see [Definition]
	User         string `yaml:"user"`     // login user; empty for Windows
	// ExtraReboot says that the first boot is not over before another one, of which
	// Notes tell: see [Definition].
	ExtraReboot bool `yaml:"extra_reboot"`

	// Capabilities are what the image is registered for.
	Capabilities capabilities.Set `yaml:"capabilities"`
	// Alternatives are what the same image can be registered for instead, under
	// another ID: for flavors whose flags may not stand beside those of
	// Capabilities. See [CatalogEntry.For].
	Alternatives []capabilities.Set `yaml:"alternatives"`
	// FirstBoot are those of all these whose drivers are not in the image but
	// come with the first boot: see [capabilities.FirstBoot].
	FirstBoot capabilities.Set `yaml:"first_boot"`

	// Upstream are the repositories to build from, with a placeholder {NAME} for
	// each mirror: see [CatalogEntry.Sources].
	Upstream []string `yaml:"upstream"`
	// Repositories are registered in the finished image: the cloud's own, as far
	// as it has them. A server that is booted with a licence of one's own has
	// the vendor's instead.
	Repositories []Repository `yaml:"repositories"`

	RequiredPackages  []PackageRelation `yaml:"required_packages"`
	ForbiddenPackages []PackageRelation `yaml:"forbidden_packages"`

	Notes   []string `yaml:"notes"` // known issues, for reports
	Waivers []Waiver `yaml:"waivers"`

	Support     Support `yaml:"support"`
	SupportNote string  `yaml:"support_note"` // why, where the image is not simply supported; a note of its definition
}

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

// deferred keeps a part of the document to decode it when its defaults are
// known.
type deferred struct{ decode func(any) error }

func (d *deferred) UnmarshalYAML(decode func(any) error) error {
	d.decode = decode
	return nil
}

// system is one version of a distribution: what its images share, and the
// images.
type system struct {
	CatalogEntry `yaml:",inline"`
	Images       []deferred `yaml:"images"`
}

// image is decoded over a copy of its system. A list that it names replaces the
// system's, with + after the name it is added.
type image struct {
	CatalogEntry     `yaml:",inline"`
	MoreUpstream     []string     `yaml:"upstream+"`
	MoreRepositories []Repository `yaml:"repositories+"`
	MoreNotes        []string     `yaml:"notes+"`
}

func (s system) image(d deferred) (CatalogEntry, error) {
	i := image{CatalogEntry: s.clone()}
	err := d.decode(&i)
	e := i.CatalogEntry
	e.Upstream = append(e.Upstream, i.MoreUpstream...)
	e.Repositories = append(e.Repositories, i.MoreRepositories...)
	e.Notes = withRebootNote(append(e.Notes, i.MoreNotes...), e.ExtraReboot)
	return e, err
}

// rebootNote is the known issue of images with an extra reboot.
const rebootNote = "The kernel sees the grown partition only after a reboot, so the first boot takes about a minute longer."

func withRebootNote(notes []string, extraReboot bool) []string {
	if extraReboot && !slices.Contains(notes, rebootNote) {
		return append(slices.Clone(notes), rebootNote)
	}
	return notes
}

func decodeCatalog(r io.Reader) ([]CatalogEntry, error) {
	var file struct {
		Defaults CatalogEntry `yaml:"defaults"`
		Systems  []deferred   `yaml:"systems"`
	}
	data, err := io.ReadAll(&whole{r: r, left: maxConfig})
	if err != nil {
		return nil, fmt.Errorf("cannot read catalog: %w", err)
	}
	document, err := strictyaml.Parse(data)
	if err == nil {
		err = document.Decode(&file)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read catalog: %w", err)
	}
	var entries []CatalogEntry
	seen := make(map[Name]bool)
	for _, d := range file.Systems {
		s := system{CatalogEntry: file.Defaults.clone()}
		if err := d.decode(&s); err != nil {
			return nil, fmt.Errorf("cannot read catalog: %w", err)
		}
		for _, d := range s.Images {
			e, err := s.image(d)
			if err != nil {
				return nil, fmt.Errorf("cannot read catalog: %w", err)
			}
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

// windows is the distribution of the images that are not Linux.
const windows = "windows"

func (e CatalogEntry) check() error {
	var errs []error
	wanted := map[string]string{
		"class": string(e.Name.Class), "distribution": e.Distribution, "version": e.Version, "os_version": e.OSVersion, "platform": e.Platform,
	}
	if e.Distribution != windows {
		wanted["user"] = e.User
		if len(e.Repositories) == 0 {
			errs = append(errs, errors.New("no repositories"))
		}
	}
	for _, what := range slices.Sorted(maps.Keys(wanted)) {
		if wanted[what] == "" {
			errs = append(errs, fmt.Errorf("no %s", what))
		}
	}
	if e.Name.Suffix != (Suffix{}) {
		errs = append(errs, errors.New("the name has a suffix"))
	}
	if e.DiskBytes <= 0 || e.MinDiskBytes < e.DiskBytes {
		errs = append(errs, fmt.Errorf("min_disk %v, disk %v", e.MinDiskBytes, e.DiskBytes))
	}
	if !slices.Contains([]string{"", "kiwi", "dib"}, e.Driver) {
		errs = append(errs, fmt.Errorf("driver %q", e.Driver))
	}
	if (e.Driver != "") != (len(e.Upstream) > 0) {
		errs = append(errs, fmt.Errorf("driver %q with %d upstream repositories", e.Driver, len(e.Upstream)))
	}
	if !slices.Contains([]Support{Supported, InBeta, Broken, Superseded}, e.Support) {
		errs = append(errs, fmt.Errorf("support %q", e.Support))
	}
	if (e.Support != Supported) != (e.SupportNote != "") {
		errs = append(errs, fmt.Errorf("support %q with support_note %q", e.Support, e.SupportNote))
	}
	return errors.Join(append(errs, e.checkCapabilities(), checkPackages(e.Distribution, e.RequiredPackages, e.ForbiddenPackages))...)
}

func (e CatalogEntry) checkCapabilities() error {
	var errs []error
	all := e.Capabilities
	for _, s := range append([]capabilities.Set{e.Capabilities}, e.Alternatives...) {
		if _, err := s.Flags(); err != nil {
			errs = append(errs, err)
		}
		all |= s
	}
	if late := e.FirstBoot &^ (all & capabilities.FirstBoot); late != 0 {
		errs = append(errs, fmt.Errorf("first_boot: %s is not claimed or does not come with the first boot", late))
	}
	return errors.Join(errs...)
}

func (e CatalogEntry) clone() CatalogEntry {
	e.Upstream, e.Notes = slices.Clone(e.Upstream), slices.Clone(e.Notes)
	// An image without packages has the same definition, whether the file says [] or nothing.
	e.RequiredPackages, e.ForbiddenPackages = append([]PackageRelation(nil), e.RequiredPackages...), append([]PackageRelation(nil), e.ForbiddenPackages...)
	e.Waivers, e.Repositories = slices.Clone(e.Waivers), slices.Clone(e.Repositories)
	e.Alternatives = slices.Clone(e.Alternatives)
	for i, r := range e.Repositories {
		e.Repositories[i].Suites, e.Repositories[i].Components = slices.Clone(r.Suites), slices.Clone(r.Components)
	}
	return e
}

// Catalog returns the public images, ordered by name.
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

// For returns what to register the image for so that the named flavor, or
// family of flavors, accepts it: Capabilities where they do, else the first of
// Alternatives that does. If none does, the error says what Capabilities miss;
// an unknown flavor is a [*capabilities.UnknownNameError].
func (e CatalogEntry) For(flavor string) (capabilities.Set, error) {
	f, err := capabilities.Lookup(flavor)
	if err != nil {
		return 0, err
	}
	for _, s := range append([]capabilities.Set{e.Capabilities}, e.Alternatives...) {
		if f.Explain(s).Accepted {
			return s, nil
		}
	}
	return 0, fmt.Errorf("cannot register %s for %s: it needs %v", e.Name, flavor, f.Explain(e.Capabilities).Missing)
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
	osType := "Linux"
	if e.Distribution == windows {
		osType = "Windows"
	}
	return map[string]string{"__os_type": osType, "__os_bit": "64", "__os_version": e.OSVersion, "__platform": e.Platform}
}
