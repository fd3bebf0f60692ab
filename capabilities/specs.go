package capabilities

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// ReadFlavors reads flavors with their extra_specs from what the APIs and tools
// answer with, as JSON of at most 8 MiB: {"flavor": {…}} and {"flavors": […]}
// of Nova (extra_specs) or of the Elastic Cloud and Bare Metal Server
// (os_extra_specs), {"extra_specs": {…}}, what the openstack program prints of a
// flavor, with its properties nested or as one text, and a plain object of
// specs. A flavor without a name gets the given one.
//
// The findings say what of the specs is not known. An error is: no JSON
// object, one in which nothing is an extra spec, an empty list or one of more
// than 10,000, and a spec that is there twice with different values.
func ReadFlavors(r io.Reader, name string) (table Table, findings []string, err error) {
	v, err := readJSON(r)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read flavors: %w", err)
	}
	list, _, err := items(v, []string{"flavors"}, []string{"flavor"})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read flavors: %w", err)
	}
	for i, o := range list {
		specs, err := readSpecs(o)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read flavor %d: %w", i+1, err)
		}
		own := cmp.Or(o.text("name", "Name", "original_name"), o.text("id", "ID"), name, "unnamed")
		f, unknown := FlavorOf(own, specs)
		table = append(table, f)
		for _, finding := range unknown {
			findings = append(findings, "flavor "+plain(own)+": "+finding)
		}
	}
	return table, findings, nil
}

// readSpecs returns the extra specs of a flavor, or the object itself if it has
// none of the names that they go by.
func readSpecs(o object) (map[string]string, error) {
	parts, err := containers(o, "extra_specs", "os_extra_specs", "properties", "Properties")
	if err != nil {
		return nil, err
	}
	if len(parts) > 1 || o.text("name", "Name", "id", "ID") != "" {
		parts = parts[1:]
	} else if !slices.ContainsFunc(o, func(m member) bool { return isSpec(m.name) }) {
		return nil, errors.New("nothing in it is an extra spec")
	}
	specs := make(map[string]string)
	for _, part := range parts {
		for _, m := range part {
			text, ok := scalar(m.value)
			if before, there := specs[m.name]; there && before != text {
				return nil, fmt.Errorf("extra spec %s is there twice, with different values", quote(m.name))
			}
			if ok {
				specs[m.name] = text
			}
		}
	}
	return specs, nil
}

// The extra specs that say what a flavor needs of an image.
const (
	specEnv        = "ecs:virtualization_env_types"
	specType       = "ecs:performancetype"
	specGeneration = "ecs:generation"
	specResource   = "resource_type"
	specIronic     = "capabilities:hypervisor_type"
	specArch       = "capabilities:cpu_arch"
	specECSArch    = "ecs:instance_architecture"
	specBoard      = "capabilities:board_type"
	specEVS        = "baremetal:__support_evs"
	specBoot       = "baremetal:extBootType"
	specDisk       = "quota:local_disk"
	specNVMe       = "quota:nvme_ssd"
	specGPU        = "pci_passthrough:enable_gpu"
	specAlias      = "pci_passthrough:alias"
	specGPUs       = "pci_passthrough:gpu_specs"
	specGPUName    = "info:gpu:name"
	specStatus     = "cond:operation:status"
	specAZ         = "cond:operation:az"
)

var readSpecNames = []string{
	specEnv, specType, specGeneration, specResource, specIronic, specArch, specECSArch, specBoard, specEVS, specBoot, specDisk,
	specNVMe, specGPU, specAlias, specGPUs, specGPUName, specStatus, specAZ, "hpet_support",
}

// neutralSpecs begin the names of extra specs that are documented and say
// nothing of an image.
var neutralSpecs = []string{
	"instance_vnic:", "network_interface:", "cond:", "quota:", "sched:", "security:", "baremetal:", "hw:", "info:", "extra_spec:",
	"aggregate_instance_extra_specs:",
}

// FlavorOf makes a flavor of its extra_specs. What they leave open is taken from
// the family of that name, or of the generation that they name, if the Open
// Telekom Cloud has it, on the same hypervisor and of the same kind. The
// findings say what of the specs is not known and what was taken for granted;
// what a need depends on and is not known is the zero Need.
func FlavorOf(name string, specs map[string]string) (f Flavor, findings []string) {
	r := specReader{specs: specs, flavor: Flavor{Name: name, Family: name, ExtraSpecs: maps.Clone(specs)}}
	family, known := r.family(name)
	r.flavor.Hypervisor = r.hypervisor(family.Hypervisor)
	arch := r.arch()
	r.flavor.Hardware = strings.Join(r.hardware(), ", ")
	if known && r.is(family) {
		r.flavor.Needs = slices.DeleteFunc(slices.Clone(family.Needs), func(n Need) bool { return n == Need{NoneOf: ARM64} })
		r.flavor.Needs = append(r.flavor.Needs, arch)
		r.flavor.LiveMigration, r.flavor.Note = family.LiveMigration, family.Note
	} else {
		r.flavor.Needs = append(r.needs(), everyFlavor(r.flavor.Hypervisor, arch)...)
	}
	r.status()
	r.unknown()
	return r.flavor, r.findings
}

// specReader gathers what extra specs say of a flavor.
type specReader struct {
	specs    map[string]string
	flavor   Flavor
	findings []string
}

func (r *specReader) find(format string, args ...any) {
	r.findings = append(r.findings, fmt.Sprintf(format, args...))
}

// family finds the family of the flavor, by its name or its generation.
func (r *specReader) family(name string) (Flavor, bool) {
	for _, try := range []string{name, r.specs[specGeneration]} {
		if f, ok := families().find(try); ok {
			return f, true
		}
	}
	return Flavor{}, false
}

// is reports whether the specs are those of a flavor of the family: its
// hypervisor, and its kind where that takes a special image.
func (r *specReader) is(family Flavor) bool {
	if family.Hypervisor != r.flavor.Hypervisor {
		r.find("the family %s runs on %s, the specs say %s", family.Family, family.Hypervisor, cmp.Or(r.flavor.Hypervisor, "nothing known"))
		return false
	}
	special := []string{"gpu", "fpga", "saphana", "highcpu", "diskintensive"}
	if kind, own := r.kind(), family.ExtraSpecs[specType]; kind != own && slices.Contains(special, kind) {
		r.find("the family %s is of kind %s, the specs say %s", family.Family, cmp.Or(own, "unknown"), kind)
		return false
	}
	return true
}

// kind is the performance type, lower case.
func (r *specReader) kind() string {
	kind := strings.ToLower(r.specs[specType])
	if kind != "gpu" && strings.EqualFold(r.specs[specGPU], "true") {
		return "gpu"
	}
	return kind
}

// hypervisor reads the specs that name it. That of the family is taken where
// they do not.
func (r *specReader) hypervisor(ofFamily string) string {
	ironic := r.specs[specIronic]
	if strings.EqualFold(ironic, "ironic") || strings.EqualFold(r.specs[specResource], "ironic") {
		return BareMetal
	}
	switch value := cmp.Or(r.specs[specEnv], ironic); strings.ToLower(value) {
	case "fusioncompute", "xen":
		return Xen
	case "cloudcompute", "kvm", "qemu":
		return KVM
	case "":
		if ofFamily != "" {
			return ofFamily
		}
		r.find("nothing names the hypervisor: taken as KVM, which all servers have that are sold today")
		return KVM
	default:
		r.find("unknown hypervisor %s", quote(value))
		return ""
	}
}

func (r *specReader) arch() Need {
	switch value := cmp.Or(r.specs[specArch], r.specs[specECSArch]); {
	case isArm(value):
		return Need{AnyOf: ARM64}
	case value != "" && !isX86(value):
		r.find("unknown architecture %s", quote(value))
		return Need{}
	}
	return Need{NoneOf: ARM64}
}

// hardware names the local disks and GPUs.
func (r *specReader) hardware() []string {
	var out []string
	for _, disks := range []struct {
		spec, kind   string
		parts, count int
	}{{specDisk, "local disks", 4, 1}, {specNVMe, "local NVMe disks", 5, 2}} {
		value, ok := r.specs[disks.spec]
		if !ok {
			continue
		}
		parts := strings.Split(value, ":")
		if len(parts) != disks.parts {
			r.find("%s has not the documented form: %s", disks.spec, quote(value))
			continue
		}
		count, err := strconv.ParseUint(parts[disks.count], 10, 16)
		if err != nil {
			r.find("%s has no number of disks: %s", disks.spec, quote(value))
			continue
		}
		out = append(out, fmt.Sprintf("%d %s", count, disks.kind))
	}
	if gpus := cmp.Or(r.specs[specGPUs], r.specs[specAlias]); gpus != "" {
		out = append(out, "PCI devices "+plain(gpus))
	}
	return out
}

// needs derives the needs of a flavor whose family is not known.
func (r *specReader) needs() []Need {
	if r.flavor.Hypervisor == BareMetal {
		return r.bareMetalNeeds()
	}
	if r.flavor.Hypervisor == "" {
		return []Need{{}}
	}
	general, isXen := Need{AnyOf: KVMVirtio}, r.flavor.Hypervisor == Xen
	if isXen {
		general = Need{AnyOf: XenClassic | XenPVOps}
	}
	switch kind := r.kind(); kind {
	case "normal", "computingv3", "highmem", "cpuv1", "cpuv2":
		return []Need{general}
	case "diskintensive":
		if isXen {
			return []Need{general, {AnyOf: DiskIntensive}, {AnyOf: IXGBEVF}}
		}
		return []Need{general}
	case "highcpu":
		if isXen {
			return []Need{general, {AnyOf: HighPerformance}, {AnyOf: IXGBEVF}}
		}
		return []Need{{AnyOf: InfiniBand}}
	case "saphana":
		if isXen {
			return []Need{{AnyOf: HANAXen}, {AnyOf: IXGBEVF}, {AnyOf: XenSCSI}}
		}
		return []Need{{AnyOf: HANAKVM}, {AnyOf: LargeMemory}}
	case "gpu":
		return r.gpuNeeds(general)
	case "":
		r.find("nothing names the kind of flavor (%s): taken as a general one", specType)
		return []Need{general}
	case "fpga":
		r.find("which FPGA it has is not said")
	default:
		r.find("unknown kind of flavor %s", quote(kind))
	}
	return []Need{general, {}}
}

// gpuNeeds reads which GPU a flavor has: nvidia-p100:1 (an alias and a number),
// m60_1q:virt:1, m60:direct_graphics:1, or 1 * NVIDIA Tesla V100.
func (r *specReader) gpuNeeds(general Need) []Need {
	value := cmp.Or(r.specs[specGPUs], r.specs[specAlias], r.specs[specGPUName])
	words := strings.FieldsFunc(strings.ToLower(value), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) })
	is := func(word string) bool { return slices.Contains(words, word) }
	isXen, isVirtual := r.flavor.Hypervisor == Xen, is("virt")
	noUEFI := Need{NoneOf: UEFI} // the ECS manual on private images
	switch {
	case isXen && is("m60") && isVirtual:
		return []Need{{AnyOf: M60VGPU}, noUEFI}
	case isXen && is("m60"):
		return []Need{{AnyOf: M60}, {AnyOf: IXGBEVF}, noUEFI}
	case is("m60"):
		return []Need{{AnyOf: M60KVM}, noUEFI}
	case is("p100"):
		return []Need{{AnyOf: P100}, noUEFI}
	case is("v100") && isVirtual:
		return []Need{{AnyOf: V100VGPU}, noUEFI}
	case is("v100"):
		return []Need{{AnyOf: V100}, noUEFI}
	case is("t4"):
		return []Need{general, {AnyOf: T4}, noUEFI}
	case value == "":
		r.find("which GPU it has is not said")
		return []Need{general, {}, noUEFI}
	}
	r.find("no flag is documented for the GPU %s: its driver may be installed on the server", quote(value))
	return []Need{general, noUEFI}
}

// bareMetalNeeds reads the board type, which is the name of the flag by which
// the platform chooses images: o2m is __support_o2m.
func (r *specReader) bareMetalNeeds() []Need {
	needs := []Need{{AnyOf: Ironic}, {AnyOf: BMSNetworkConfig}}
	switch board := strings.ToLower(r.specs[specBoard]); board {
	case "o2m", "":
	default:
		i := slices.IndexFunc(rules, func(x rule) bool { return x.on == bms && x.name == supportPrefix+board })
		if i < 0 {
			r.find("unknown board type %s", quote(board))
			needs = append(needs, Need{})
			break
		}
		for _, bit := range (rules[i].claim | rules[i].with&^bareMetal).Bits() {
			needs = append(needs, Need{AnyOf: bit})
		}
	}
	if strings.EqualFold(r.specs[specBoot], "Volume") {
		needs = append(needs, Need{AnyOf: SCSIEPFront})
	}
	return needs
}

// status reads whether the flavor is sold anywhere: the status of an
// availability zone, as in az1(normal), goes before that of the region.
func (r *specReader) status() {
	switch value := strings.ToLower(r.specs[specStatus]); value {
	case "", "normal", "obt", "promotion":
	case "abandon", "sellout", "obt_sellout":
		r.flavor.Withdrawn = !slices.ContainsFunc([]string{"(normal)", "(obt)", "(promotion)"}, func(sold string) bool {
			return strings.Contains(r.specs[specAZ], sold)
		})
	default:
		r.find("unknown status %s", quote(value))
	}
}

// unknown names the specs that nothing here reads.
func (r *specReader) unknown() {
	for _, name := range slices.Sorted(maps.Keys(r.specs)) {
		if !isSpec(name) {
			r.find("unknown extra spec %s", quote(name))
		}
	}
}

// isSpec reports whether an extra spec is known.
func isSpec(name string) bool {
	return slices.Contains(readSpecNames, name) ||
		slices.ContainsFunc(neutralSpecs, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}
