package imagefactory

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
)

// properties are those with which the image is registered: the definition's
// own, the flags of its capabilities, and the capability mask. What a definition
// says of flags is held to the rules that capabilities guards: the error names
// every flag that is unknown or misspelt, that excludes another one, or that
// its capabilities or its architecture contradict.
func (d *Definition) properties() (map[string]string, error) {
	out := make(map[string]string)
	maps.Copy(out, d.Properties)
	flags := make(capabilities.Flags)
	if d.Capabilities != 0 {
		var err error
		if flags, err = d.Capabilities.Flags(); err != nil {
			return nil, fmt.Errorf("capabilities: %w", err)
		}
		flags[capabilities.MaskProperty] = d.Capabilities.Hex()
	}
	var errs []error
	said := make(map[string]bool) // what is wrong with a property is said once
	wrong := func(name, format string, args ...any) {
		if !said[name] {
			said[name] = true
			errs = append(errs, fmt.Errorf("properties: %s %w", name, fmt.Errorf(format, args...)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if own, ok := d.Properties[name]; ok && !sameFlag(name, own, flags[name]) {
			wrong(name, "is %.80q, but the capabilities make it %q", own, flags[name])
			continue
		}
		out[name] = flags[name]
	}
	set, err := capabilities.FromFlags(out)
	for _, err := range unjoin(err) {
		d.explainFlag(err, wrong)
	}
	if d.Capabilities == 0 {
		for _, c := range set.Conflicts() {
			d.explainFlag(&capabilities.ConflictError{Set: set, Conflicts: []capabilities.Conflict{c}}, wrong)
		}
	} else {
		set = d.Capabilities
	}
	if arm := set.Has(capabilities.ARM64); set != 0 && arm != (d.OS.Arch == "arm64") {
		errs = append(errs, fmt.Errorf("os: arch is %s, but the capabilities %s an Arm image", d.OS.Arch, map[bool]string{true: "are those of", false: "are not those of"}[arm]))
	}
	return out, errors.Join(errs...)
}

// sameFlag compares two values of a property as the platform does.
func sameFlag(name, a, b string) bool {
	if name == capabilities.MaskProperty {
		x, err := capabilities.Parse(a)
		y, err2 := capabilities.Parse(b)
		return err == nil && err2 == nil && x == y
	}
	return strings.EqualFold(strings.TrimSpace(a), b)
}

// explainFlag says of one of the definition's own properties what
// [capabilities.FromFlags] found.
func (d *Definition) explainFlag(err error, wrong func(name, format string, args ...any)) {
	var unknown *capabilities.UnknownNameError
	var value *capabilities.ValueError
	var conflict *capabilities.ConflictError
	switch {
	case errors.As(err, &unknown) && unknown.Kind == "flag":
		wrong(unknown.Name, "is no flag: %w", err)
	case errors.As(err, &value):
		wrong(value.Name, "has no meaning: %w", err)
	case errors.As(err, &conflict):
		for _, c := range conflict.Conflicts {
			mine, other := c.A, c.B
			if own := d.spelling(c.B); own != "" && own != capabilities.MaskProperty {
				mine, other = c.B, c.A
			}
			name := cmp.Or(d.spelling(mine), mine)
			if other == capabilities.MaskProperty && d.Capabilities != 0 {
				other = "the capabilities " + d.Capabilities.String()
			}
			wrong(name, "is %.80q, which cannot stand beside %s: %s", d.Properties[name], other, c.Reason)
		}
	default:
		wrong(capabilities.MaskProperty, "cannot be read: %w", err)
	}
}

// spelling is how the definition itself names the property of a
// [capabilities.Conflict]'s side; empty if it does not.
func (d *Definition) spelling(side string) string {
	name, _, _ := strings.Cut(side, "=")
	for _, own := range []string{name, strings.Replace(name, "__support_", "__is_support_", 1), "_" + name} {
		if _, ok := d.Properties[own]; ok {
			return own
		}
	}
	if _, ok := d.Properties["architecture"]; ok && name == "__support_arm" {
		return "architecture"
	}
	return ""
}
