package imagefactory

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/strictyaml"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Definition makes a definition of the image, for the caller to complete: the
// builder has no configuration, or is missing where the image is built
// elsewhere, and mirrors and trusted keys are the defaults.
func (e CatalogEntry) Definition() Definition {
	e = e.clone()
	d := Definition{
		Name: e.Name.String(), OS: OS{Distribution: e.Distribution, Version: e.Version},
		DiskBytes: e.DiskBytes, MinDiskBytes: e.MinDiskBytes, LVM: e.LVM, ExtraReboot: e.ExtraReboot, User: e.User,
		Builder: Component{Driver: e.Driver}, Repositories: e.Repositories, UVPMonitor: e.uvpMonitor(),
		Test:         Test{Waivers: e.Waivers, RequiredPackages: e.RequiredPackages, ForbiddenPackages: e.ForbiddenPackages},
		Capabilities: e.Capabilities, FirstBoot: e.FirstBoot, Properties: e.systemProperties(), Notes: e.Notes,
	}
	if e.SupportNote != "" {
		d.Notes = append(d.Notes, fmt.Sprintf("%s: %s", e.Support, e.SupportNote))
	}
	return d
}

// uvpMonitor is what the lists of packages say of the agent.
func (e CatalogEntry) uvpMonitor() UVPMonitor {
	const agent = "uvp-monitor"
	switch {
	case slices.Contains(relationNames(e.RequiredPackages), agent):
		return UVPMonitor{State: testsuite.UVPRequired}
	case forbids(e.ForbiddenPackages, agent):
		return UVPMonitor{State: testsuite.UVPForbidden, Reason: "the vendor allows no custom packages"}
	}
	return UVPMonitor{State: testsuite.UVPOptional, Reason: "the catalog does not demand it of " + e.Name.String()}
}

// heir is a definition that inherits: it may add to the lists that the catalog
// has, by their names with + behind.
type heir struct {
	Test struct { // instead of the Definition's
		Test          `yaml:",inline"`
		MoreWaivers   []Waiver          `yaml:"waivers+"`
		MoreRequired  []PackageRelation `yaml:"required_packages+"`
		MoreForbidden []PackageRelation `yaml:"forbidden_packages+"`
	} `yaml:"test"`
	Definition       `yaml:",inline"`
	MoreRepositories []Repository `yaml:"repositories+"`
	MoreNotes        []string     `yaml:"notes+"`
}

// decodeDefinition decodes one image of a definition file over what it inherits.
func decodeDefinition(node *strictyaml.Node) (Definition, error) {
	from := node.Get("from")
	if from == nil {
		var d Definition
		return d, withoutExtensions(node).Decode(&d)
	}
	var name string
	if err := from.Decode(&name); err != nil {
		return Definition{}, err
	}
	entry, err := LookupImage(name)
	if err != nil {
		return Definition{}, from.At(fmt.Errorf("from: %w", err))
	}
	inherited := entry.Definition()
	h := heir{Definition: entry.Definition()}
	h.Test.Test = h.Definition.Test
	h.Properties = nil
	if err := withoutExtensions(node).Decode(&h); err != nil {
		return Definition{}, err
	}
	d := h.Definition
	if d.OS.Version != inherited.OS.Version && node.Get("os").Get("codename") == nil {
		d.OS.Codename = "" // follows from the version
	}
	d.Test = h.Test.Test
	d.Test.Waivers = append(d.Test.Waivers, h.Test.MoreWaivers...)
	d.Test.RequiredPackages = append(d.Test.RequiredPackages, h.Test.MoreRequired...)
	d.Test.ForbiddenPackages = append(d.Test.ForbiddenPackages, h.Test.MoreForbidden...)
	if d.BYOL && node.Get("repositories") == nil {
		d.Repositories = nil
	}
	d.Repositories = append(d.Repositories, h.MoreRepositories...)
	d.Notes = append(d.Notes, h.MoreNotes...)
	d.From = ""
	d.inheritProperties(inherited.Properties)
	return d, errors.Join(twice(node), twice(node.Get("test")), stale(node, inherited, d))
}

// inheritProperties adds those that the definition does not say; what it says
// to be empty it does not have.
func (d *Definition) inheritProperties(inherited map[string]string) {
	own := d.Properties
	d.Properties = inherited
	for name, value := range own {
		if _, ok := inherited[name]; ok && value == "" {
			delete(inherited, name)
			continue
		}
		inherited[name] = value
	}
}

// twice reports lists that are both replaced and added to.
func twice(node *strictyaml.Node) error {
	if node == nil {
		return nil
	}
	var errs []error
	for _, p := range node.Pairs {
		list, more := strings.CutSuffix(p.Key.Text(), "+")
		if more && node.Get(list) != nil {
			errs = append(errs, p.Key.At(fmt.Errorf("%s is replaced and added to: say all of it there", list)))
		}
	}
	return errors.Join(errs...)
}

var (
	hasVersion    = regexp.MustCompile(`[0-9]`)
	releaseNumber = regexp.MustCompile(`^[0-9.]+(_SP[0-9]+)?`)
)

// ofAnotherRelease is whether a name differs from the inherited one in the
// number of the release: Standard_Debian_12 from Standard_Debian_9, but not
// Standard_Debian_9.13 or Beta_Debian_9_minimal.
func ofAnotherRelease(name string, inherited Definition) bool {
	split := func(name string) (system, number string) {
		_, name, _ = strings.Cut(name, "_")
		at := hasVersion.FindStringIndex(name)
		if at == nil {
			return name, ""
		}
		return name[:at[0]], releaseNumber.FindString(name[at[0]:])
	}
	system, number := split(name)
	oldSystem, old := split(inherited.Name)
	same := strings.HasPrefix(number+".", old+".") || strings.HasPrefix(old+"_", number+"_") || strings.HasPrefix(inherited.OS.Version+".", number+".")
	return old != "" && number != "" && system == oldSystem && !same
}

// stale reports what an image of another release than the inherited one's has
// to say itself, because it follows from the release, and does not.
func stale(node *strictyaml.Node, inherited, d Definition) error {
	os := node.Get("os")
	if d.OS.Distribution != inherited.OS.Distribution {
		return os.Get("distribution").At(fmt.Errorf("%s is not the distribution of %s, which is %s: there is nothing to inherit",
			d.OS.Distribution, inherited.Name, inherited.OS.Distribution))
	}
	codename := func(d Definition) string { return cmp.Or(d.OS.Codename, d.OS.codename()) }
	release := func(d Definition) string {
		if name := codename(d); name != (OS{Version: d.OS.Version}).codename() {
			return strings.TrimSpace(d.OS.Version + " " + name)
		}
		return d.OS.Version
	}
	newVersion := d.OS.Version != inherited.OS.Version
	if !newVersion && codename(d) == codename(inherited) {
		if (os == nil || os.Get("version") == nil) && ofAnotherRelease(d.Name, inherited) {
			return value(node, "name").At(fmt.Errorf("name: %s is not of the release of %s, which is %q: say os.version, and what else follows from the release",
				d.Name, inherited.Name, release(inherited)))
		}
		return nil
	}
	versioned := func(packages []PackageRelation) bool {
		return slices.ContainsFunc(packages, func(r PackageRelation) bool { return hasVersion.MatchString(string(r)) })
	}
	var missing []string
	for _, field := range []struct {
		key, sub string
		follows  bool // something that follows from the release is inherited
	}{
		{"name", "", true},
		{"os", "version", !newVersion},
		{"properties", "__os_version", inherited.Properties["__os_version"] != ""},
		{"repositories", "", len(inherited.Repositories) > 0 && !d.BYOL},
		{"test", "required_packages", versioned(inherited.Test.RequiredPackages)},
		{"test", "forbidden_packages", versioned(inherited.Test.ForbiddenPackages)},
		{"test", "waivers", len(inherited.Test.Waivers) > 0},
		{"extra_reboot", "", inherited.ExtraReboot},
		{"notes", "", len(inherited.Notes) > 0},
	} {
		said, name := node.Get(field.key), field.key
		if field.sub != "" {
			name += "." + field.sub
			if said != nil {
				said = said.Get(field.sub)
			}
		}
		if field.follows && said == nil {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil
	}
	return value(os, "version").At(fmt.Errorf("release %q is not that of %s, which is %q: say as well what follows from it and would be inherited: %s",
		release(d), inherited.Name, release(inherited), strings.Join(missing, ", ")))
}
