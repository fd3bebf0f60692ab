package capabilities

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Flags are image properties by name. All values are strings, as in IMS.
type Flags map[string]string

// A Scheme is a spelling of the support flags.
type Scheme int

// The spellings. The zero value writes both.
const (
	Both      Scheme = iota // every __support_X, and an __is_support_X of the same value
	Support                 // __support_X, which the IMS API documents
	IsSupport               // __is_support_X, which the image factory names
)

const (
	supportPrefix   = "__support_"
	isSupportPrefix = "__is_support_"

	envProperty        = "virtual_env_type"
	firmwareProperty   = "hw_firmware_type"
	multiqueueProperty = "hw_vif_multiqueue_enabled"

	envECS   = "FusionCompute"
	envBMS   = "Ironic"
	boolTrue = "true"
)

// A rule ties a property's value to the bits that it stands for.
type rule struct {
	name  string // in the __support_ spelling
	value string
	claim Set  // what the flag says; with any, one of these bits is enough
	any   bool // for __support_xen alone: either kind of driver
	with  Set  // what must be there besides
	on    venue
}

// A venue is where a flag counts: bits such as P100 have one flag on virtual
// machines and another on bare metal.
type venue int

const (
	everywhere venue = iota
	ecs
	bms
)

const bareMetal = Ironic | BMSNetworkConfig

var rules = []rule{
	{name: "__support_xen", value: boolTrue, claim: XenClassic | XenPVOps, any: true},
	{name: "__support_kvm", value: boolTrue, claim: KVMVirtio},
	{name: "__support_largememory", value: boolTrue, claim: LargeMemory},
	{name: "__support_diskintensive", value: boolTrue, claim: DiskIntensive, with: IXGBEVF},
	{name: "__support_highperformance", value: boolTrue, claim: HighPerformance, with: IXGBEVF},
	{name: "__support_xen_gpu_type", value: "M60_vGPU", claim: M60VGPU},
	{name: "__support_xen_gpu_type", value: "M60_GPU", claim: M60, with: IXGBEVF},
	{name: "__support_kvm_gpu_type", value: "P100", claim: P100, on: ecs},
	{name: "__support_kvm_gpu_type", value: "V100", claim: V100, on: ecs},
	{name: "__support_kvm_gpu_type", value: "V100_vGPU", claim: V100VGPU, on: ecs},
	{name: "__support_kvm_gpu_type", value: "P2V_V100", claim: P2VV100, on: ecs},
	{name: "__support_gpu_t4", value: boolTrue, claim: T4},
	{name: "__support_xen_hana", value: boolTrue, claim: HANAXen, with: IXGBEVF | XenSCSI},
	{name: "__support_kvm_hana", value: boolTrue, claim: HANAKVM},
	{name: "__support_kvm_infiniband", value: boolTrue, claim: InfiniBand, on: ecs},
	{name: "__support_kvm_fpga_type", value: "VU9P", claim: FPGAVU9P},
	{name: "__support_kvm_fpga_type", value: "VU9P_COMMON", claim: FPGAVU9PCommon},
	{name: "__support_kvm_ascend_310", value: boolTrue, claim: Ascend310},
	{name: "__support_kvm_nvme_ssd", value: boolTrue, claim: NVMe, on: ecs},
	{name: "__support_kvm_hi1822_hisriov", value: boolTrue, claim: Hi1822, on: ecs},
	{name: "__support_o2m", value: boolTrue, claim: BMSNetworkConfig, with: Ironic, on: bms},
	{name: "__support_evs", value: boolTrue, claim: SCSIEPFront, with: Ironic, on: bms},
	{name: "__support_h2l", value: boolTrue, claim: InfiniBand, with: bareMetal, on: bms},
	{name: "__support_p1l", value: boolTrue, claim: P100, with: bareMetal | InfiniBand, on: bms},
	{name: "__support_p2l", value: boolTrue, claim: V100, with: bareMetal | InfiniBand, on: bms},
	{name: "__support_arm", value: boolTrue, claim: ARM64},
	{name: "__support_amd", value: boolTrue, claim: AMD},
	{name: "__support_live_resize", value: boolTrue, claim: LiveResize},
	{name: firmwareProperty, value: "bios", claim: BIOS},
	{name: firmwareProperty, value: "uefi", claim: UEFI},
	{name: multiqueueProperty, value: boolTrue, claim: Multiqueue},
	{name: envProperty, value: envBMS, claim: Ironic},
}

// holds reports whether s has what the rule's flag stands for.
func (r rule) holds(s Set) bool {
	if r.on == ecs && s.Has(Ironic) {
		return false
	}
	if r.any {
		return s&r.claim != 0 && s.Has(r.with)
	}
	return s.Has(r.claim | r.with)
}

// reads is what the rule's flag says of an image.
func (r rule) reads() Set {
	if r.any {
		// The flag does not say which kind of driver: the one of every kernel
		// since Linux 3.0.
		return XenPVOps
	}
	return r.claim | r.with
}

// Flags translates s into the properties of an image in both spellings:
// the support flags, virtual_env_type always, and hw_firmware_type and
// hw_vif_multiqueue_enabled where s says so. Bits that stand for no flag are
// left out. Where s has capabilities that may not stand together the error is a
// [*ConflictError] and no flags are returned.
func (s Set) Flags() (Flags, error) { return Both.Flags(s) }

// Flags is [Set.Flags] in one spelling of the support flags.
func (scheme Scheme) Flags(s Set) (Flags, error) {
	if list := s.Conflicts(); len(list) > 0 {
		return nil, &ConflictError{Set: s, Conflicts: list}
	}
	flags := make(Flags)
	for name, value := range translate(s) {
		key, isSupport := strings.CutPrefix(name, supportPrefix)
		if !isSupport {
			flags[name] = value
			continue
		}
		if scheme != IsSupport {
			flags[name] = value
		}
		if scheme != Support {
			flags[isSupportPrefix+key] = value
		}
	}
	return flags, nil
}

// translate returns the properties of a set without conflicts in the
// __support_ spelling.
func translate(s Set) Flags {
	flags := Flags{envProperty: envECS}
	for _, r := range rules {
		if r.holds(s) {
			flags[r.name] = r.value
		}
	}
	return flags
}

// Carried returns what flags can carry of s: [FromFlags] of its flags is the
// same set, for every s without conflicts. Either kind of Xen driver counts as
// [XenPVOps], because __support_xen does not tell them apart.
func (s Set) Carried() Set {
	var out Set
	for _, r := range rules {
		if r.holds(s) {
			out |= r.reads()
		}
	}
	return out
}

// A ValueError says that a property has a value which is not known.
type ValueError struct {
	Name, Value string
	Known       []string // the values that are
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("cannot read property %s: value %q is none of %s", e.Name, e.Value, strings.Join(e.Known, ", "))
}

// FromFlags reads the capabilities that the properties of an image claim. It
// accepts both spellings of the support flags, one underscore or more before
// them (the image factory's own table has ___support_kvm_hana), True for true,
// and space around values; properties that it does not know are passed over.
//
// A mask in [MaskProperty] adds what flags cannot tell. Where the two disagree
// the flags count, because it is the flags that the platform filters by.
//
// The Set is what could be read even if the error is not nil. The error joins a
// [*ValueError] for each value that is not known and a [*ConflictError] for
// properties that contradict each other, such as the two spellings of one flag;
// whether the Set as such has conflicts is for [Set.Conflicts] to say.
func FromFlags(properties Flags) (Set, error) {
	values, conflicts := canonical(properties)
	var s Set
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v, err := readValue(name, values[name])
		if err != nil {
			errs = append(errs, err)
		}
		s |= v
	}
	conflicts = append(conflicts, wrongVenue(values)...)
	if text, ok := properties[MaskProperty]; ok && strings.TrimSpace(text) != "" {
		mask, err := Parse(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot read property %s: %w", MaskProperty, err))
		}
		s = withMask(s, mask)
	}
	if len(conflicts) > 0 {
		errs = append(errs, &ConflictError{Set: s, Conflicts: conflicts})
	}
	return s, errors.Join(errs...)
}

// withMask adds to s, which was read from flags, what the recorded mask knows
// better: all of it where it means the same flags, else only the bits that no
// flag is about.
func withMask(s, mask Set) Set {
	if len(mask.Conflicts()) == 0 && maps.Equal(translate(mask), translate(s)) {
		return mask
	}
	var decided Set
	for _, r := range rules {
		decided |= r.claim
	}
	return s | mask&^decided
}

// canonicalName returns the spelling of the rules for a property's name, and
// "" for a property that the rules are not about.
func canonicalName(name string) string {
	switch name {
	case envProperty, firmwareProperty, multiqueueProperty:
		return name
	}
	bare := strings.TrimLeft(name, "_")
	key, ok := strings.CutPrefix(strings.TrimPrefix(bare, "is_"), "support_")
	if !ok || bare == name {
		return ""
	}
	full := supportPrefix + key
	if !slices.ContainsFunc(rules, func(r rule) bool { return r.name == full }) {
		return ""
	}
	return full
}

// canonical gathers the known properties under the spelling of the rules, and
// names the spellings that disagree. Of those the one of IMS counts.
func canonical(properties Flags) (Flags, []Conflict) {
	values, source := make(Flags), make(map[string]string)
	var conflicts []Conflict
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		full := canonicalName(name)
		if full == "" {
			continue
		}
		value := strings.TrimSpace(properties[name])
		before, seen := source[full]
		if seen && !strings.EqualFold(normal(values[full]), normal(value)) {
			conflicts = append(conflicts, Conflict{A: before, B: name, Reason: "two spellings of one flag have different values"})
		}
		if !seen || name == full {
			values[full], source[full] = value, name
		}
	}
	return values, conflicts
}

// normal maps the ways to say that a flag is absent to one.
func normal(value string) string {
	if strings.EqualFold(value, "false") {
		return ""
	}
	return value
}

func readValue(name, value string) (Set, error) {
	if normal(value) == "" {
		return 0, nil
	}
	var known []string
	for _, r := range rules {
		if r.name != name {
			continue
		}
		if strings.EqualFold(r.value, value) {
			return r.reads(), nil
		}
		known = append(known, r.value)
	}
	if name == envProperty {
		if strings.EqualFold(value, envECS) {
			return 0, nil
		}
		known = append(known, envECS)
	}
	return 0, &ValueError{Name: name, Value: value, Known: known}
}

// wrongVenue names the flags that do not count where the image is registered:
// bare metal's on a virtual machine's image and the other way round.
func wrongVenue(values Flags) []Conflict {
	env, said := values[envProperty]
	isBMS := strings.EqualFold(env, envBMS)
	var out []Conflict
	seen := make(map[string]bool)
	for _, r := range rules {
		if normal(values[r.name]) == "" || seen[r.name] {
			continue
		}
		if (r.on == bms && said && !isBMS) || (r.on == ecs && isBMS) {
			seen[r.name] = true
			out = append(out, Conflict{A: r.name, B: envProperty + "=" + env, Reason: "the flag counts only for the other kind of server"})
		}
	}
	return out
}
