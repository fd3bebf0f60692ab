package capabilities

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
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

	// archProperty is of Glance, and read only: IMS has __support_arm.
	archProperty = "architecture"
	armProperty  = "__support_arm"

	envECS   = "FusionCompute"
	envBMS   = "Ironic"
	envData  = "DataImage"
	envISO   = "IsoImage"
	boolTrue = "true"
)

// otherFlags are support flags that are documented, or seen on public images,
// and that no capability stands for: their names are right, and they are passed
// over.
var otherFlags = []string{
	"__support_fc_inject", "__support_agent_list", "__support_static_ip", "__support_kvm_hi1822_hivirtionet", "__support_kvm_hi1822_hiovs",
	"__support_kvm_nvme_spdk", "__support_nvme_highio", "__support_kvm_vgpu", "__support_kvm_gpu", "__support_kvm_npu",
	"__support_o3s", "__support_p3l", "__support_h2l_sell", "__support_d1t",
}

// factoryHANA is how the image factory's table of flavors writes the flag of
// HANA on KVM. It is read as that flag.
const factoryHANA = "___support_kvm_hana"

// A rule ties a property's value to the bits that it stands for.
type rule struct {
	name  string // in the __support_ spelling
	value string
	claim Set  // what the flag says; with any, one of these bits is enough
	any   bool // for __support_xen alone: either kind of driver
	with  Set  // what must be there besides
	on    venue
}

// ruleNames are the properties that the rules are about, sorted.
var ruleNames = allRuleNames()

func allRuleNames() []string {
	var list []string
	for _, r := range rules {
		list = append(list, r.name)
	}
	slices.Sort(list)
	return slices.Compact(list)
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
	{name: "__support_kvm_gpu_type", value: "M60", claim: M60KVM, on: ecs},
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
	{name: armProperty, value: boolTrue, claim: ARM64},
	{name: "__support_amd", value: boolTrue, claim: AMD},
	{name: "__support_live_resize", value: boolTrue, claim: LiveResize},
	{name: firmwareProperty, value: "bios", claim: BIOS},
	{name: firmwareProperty, value: "uefi", claim: UEFI},
	{name: multiqueueProperty, value: boolTrue, claim: Multiqueue},
	{name: envProperty, value: envBMS, claim: Ironic},
	{name: envProperty, value: envData, claim: DataImage},
	{name: envProperty, value: envISO, claim: ISOImage},
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
	if scheme < Both || scheme > IsSupport {
		return nil, fmt.Errorf("cannot translate capabilities %s: unknown scheme %d", s, scheme)
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
	text := fmt.Sprintf("cannot read property %s: unknown value %s", e.Name, quote(e.Value))
	if len(e.Known) > 0 {
		text += "; known are " + strings.Join(e.Known, ", ")
	}
	return text
}

// FromFlags reads the capabilities that the properties of an image claim. It
// accepts both spellings of the support flags, True for true, and space around
// values. An architecture of Glance is read as __support_arm. Properties that
// are no flags are passed over, and so are flags that no capability stands for,
// such as __support_fc_inject. The image factory's own table of flavors has
// ___support_kvm_hana with three underscores, which is read as the flag it means.
//
// A mask in [MaskProperty] adds what flags cannot tell. Where the two disagree
// the flags count, because it is the flags that the platform filters by.
//
// The Set is what could be read even if the error is not nil. The error is a
// join ([errors.Join]: it has Unwrap() []error) of
//   - an [*UnknownNameError] of kind "flag" for each name that is a flag's and
//     not known, or that is nearly a flag's: __support_kmv, ___support_kvm,
//     support_kvm. The platform does not see these, and neither does the Set;
//   - a [*ValueError] for each value that is not known;
//   - one [*ConflictError] for all properties that contradict each other: the two
//     spellings of one flag, a flag and the kind of server it is registered for,
//     the mask and a flag. Whether the Set as such has conflicts is for
//     [Set.Conflicts] to say.
func FromFlags(properties Flags) (Set, error) {
	values, conflicts := canonical(properties)
	s, valueErrs := readValues(values)
	errs := append(unknownFlags(properties), valueErrs...)
	if arch, ok := properties[archProperty]; ok && !knownArch(arch) {
		errs = append(errs, &ValueError{Name: archProperty, Value: arch, Known: []string{"x86_64", "i686", "x86", "aarch64", "arm"}})
	}
	conflicts = append(conflicts, wrongVenue(values)...)
	if text, ok := properties[MaskProperty]; ok && strings.TrimSpace(text) != "" {
		mask, err := Parse(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot read property %s: %w", MaskProperty, err))
		} else {
			conflicts = append(conflicts, contradictions(mask, values)...)
			s = withMask(s, mask)
		}
	}
	if len(conflicts) > 0 {
		errs = append(errs, &ConflictError{Set: s, Conflicts: conflicts})
	}
	return s, errors.Join(errs...)
}

func readValues(values Flags) (Set, []error) {
	var s Set
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v, err := readValue(name, values[name])
		if err != nil {
			errs = append(errs, err)
		}
		s |= v
	}
	return s, errs
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

// contradictions names the flags in which a recorded mask and an image's
// properties differ. A property that says what its absence says as well does
// not count.
func contradictions(mask Set, values Flags) []Conflict {
	var out []Conflict
	for _, c := range mask.Conflicts() {
		out = append(out, Conflict{c.A, c.B, MaskProperty + " claims both; " + c.Reason})
	}
	claimed := translate(mask)
	for _, name := range ruleNames {
		want, have := effective(name, claimed[name]), effective(name, values[name])
		if strings.EqualFold(want, have) {
			continue
		}
		c := Conflict{A: MaskProperty, B: name, Reason: "the mask claims it and the flag does not"}
		switch {
		case want == "":
			c.Reason = "the flag says it and the mask does not claim it"
		case want != boolTrue:
			c.Reason = "the mask claims " + want
		}
		out = append(out, c)
	}
	return out
}

// effective is what a property's value comes to: empty for what is the same as
// its absence.
func effective(name, value string) string {
	value = normal(strings.TrimSpace(value))
	if (name == envProperty && strings.EqualFold(value, envECS)) || (name == firmwareProperty && strings.EqualFold(value, "bios")) {
		return ""
	}
	return value
}

// canonicalName returns the spelling of the rules for a property's name, and
// "" for a property that the rules are not about.
func canonicalName(name string) string {
	if name == factoryHANA {
		name = name[1:]
	}
	if key, ok := strings.CutPrefix(name, isSupportPrefix); ok {
		name = supportPrefix + key
	}
	if _, ok := slices.BinarySearch(ruleNames, name); !ok {
		return ""
	}
	return name
}

// flagNames are the names of all flags, for telling what a name was meant to
// be.
var flagNames = allFlagNames()

func allFlagNames() []string {
	list := append(slices.Clone(otherFlags), ruleNames...)
	for _, name := range list {
		if key, ok := strings.CutPrefix(name, supportPrefix); ok {
			list = append(list, isSupportPrefix+key)
		}
	}
	return append(list, MaskProperty)
}

// misspelling is how many edits make a name another's misspelling. Between the
// names of the platform's other properties and those of the flags there are
// many more.
const misspelling = 3

// unknownFlags names the properties that are flags, or are nearly spelt as
// one, and are not known.
func unknownFlags(properties Flags) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if name == factoryHANA || slices.Contains(flagNames, name) {
			continue
		}
		lower := strings.ReplaceAll(strings.ToLower(name), "-", "_")
		bare := strings.TrimLeft(lower, "_")
		isFlag := strings.HasPrefix(bare, "support_") || strings.HasPrefix(bare, "is_support_")
		if !isFlag && !slices.ContainsFunc(flagNames, func(known string) bool { return edits(lower, known, misspelling) <= misspelling }) {
			continue
		}
		near := nearest(lower, flagNames)
		errs = append(errs, &UnknownNameError{Kind: "flag", Name: name, Nearest: near})
	}
	return errs
}

// canonical gathers the known properties under the spelling of the rules, and
// names the spellings that disagree. Of those the one of IMS counts.
func canonical(properties Flags) (Flags, []Conflict) {
	values, source := make(Flags), make(map[string]string)
	var conflicts []Conflict
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		full, value := canonicalName(name), strings.TrimSpace(properties[name])
		if name == archProperty && knownArch(value) {
			full, value = armProperty, strconv.FormatBool(isArm(value))
		}
		if full == "" {
			continue
		}
		before, seen := source[full]
		if seen && !strings.EqualFold(normal(values[full]), normal(value)) {
			conflicts = append(conflicts, Conflict{A: before, B: name, Reason: "they say different things of one flag"})
		}
		if !seen || name == full {
			values[full], source[full] = value, name
		}
	}
	return values, conflicts
}

// isArm judges an architecture as uname -m, GOARCH, Glance and IMS name it.
func isArm(arch string) bool {
	return slices.Contains([]string{"aarch64", "arm64", "arm"}, strings.ToLower(strings.TrimSpace(arch)))
}

func isX86(arch string) bool {
	return slices.Contains([]string{"x86_64", "amd64", "x86", "i686", "i386"}, strings.ToLower(strings.TrimSpace(arch)))
}

func knownArch(arch string) bool { return strings.TrimSpace(arch) == "" || isArm(arch) || isX86(arch) }

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
	if len(known) == 1 && known[0] == boolTrue {
		known = append(known, "false")
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
			out = append(out, Conflict{A: r.name, B: envProperty + "=" + plain(env), Reason: "the flag counts only for the other kind of server"})
		}
	}
	return out
}
