package imagefactory

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Definition makes a definition of the image, for the caller to complete: the
// builder has no configuration, or is missing where the image is built
// elsewhere, and mirrors and trusted keys are the defaults.
func (e CatalogEntry) Definition() Definition {
	e = e.clone()
	d := Definition{
		Name: e.Name.String(), OS: OS{Distribution: e.Distribution, Version: e.Version},
		DiskBytes: e.DiskBytes, MinDiskBytes: e.MinDiskBytes, LVM: e.LVM, User: e.User,
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
	case slices.Contains(e.RequiredPackages, agent):
		return UVPMonitor{State: testsuite.UVPRequired}
	case len(forbidden(e.ForbiddenPackages, []string{agent})) > 0:
		return UVPMonitor{State: testsuite.UVPForbidden, Reason: "the vendor allows no custom packages"}
	}
	return UVPMonitor{State: testsuite.UVPOptional, Reason: "the catalog does not demand it of " + e.Name.String()}
}

// decodeDefinition decodes one image of a definition file over what it inherits.
func decodeDefinition(node ast.Node) (Definition, error) {
	var d Definition
	if from := value(node, "from"); from != node {
		var name string
		if err := yaml.NodeToValue(from, &name); err != nil {
			return d, err
		}
		entry, err := LookupImage(name)
		if err != nil {
			return d, at(from, fmt.Errorf("from: %w", err))
		}
		d = entry.Definition()
	}
	inherited := d.Properties
	d.Properties = nil
	if err := yaml.NodeToValue(node, &d, yaml.Strict()); err != nil {
		var unknown *capabilities.UnknownNameError
		if errors.As(err, &unknown) { // the one decoder that does not know its place
			err = at(value(node, "capabilities"), err)
		}
		return d, err
	}
	d.From = ""
	if inherited != nil {
		maps.Copy(inherited, d.Properties)
		d.Properties = inherited
	}
	return d, nil
}

// properties are those with which the image is registered: the definition's
// own, the flags of its capabilities, and the capability mask.
func (d *Definition) properties() (map[string]string, error) {
	out := maps.Clone(d.Properties)
	if out == nil {
		out = make(map[string]string)
	}
	if d.Capabilities == 0 {
		return out, nil
	}
	flags, err := d.Capabilities.Flags()
	if err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	flags[capabilities.MaskProperty] = d.Capabilities.Hex()
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if own, ok := out[name]; ok && own != flags[name] {
			return nil, fmt.Errorf("properties: %s is %q, but the capabilities make it %q", name, own, flags[name])
		}
		out[name] = flags[name]
	}
	return out, nil
}
