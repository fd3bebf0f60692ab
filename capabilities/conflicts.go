package capabilities

import (
	"fmt"
	"strings"
)

// A Conflict is two properties that may not stand together on one image. A side
// is a property's name, with "=value" where the rule is about the value.
type Conflict struct {
	A, B   string
	Reason string
}

// A ConflictError says that capabilities of one image exclude each other.
type ConflictError struct {
	Set       Set
	Conflicts []Conflict // at least one
}

func (e *ConflictError) Error() string {
	if len(e.Conflicts) == 0 {
		return "cannot translate capabilities " + e.Set.String() + ": a conflict that is not named"
	}
	parts := make([]string, len(e.Conflicts))
	for i, c := range e.Conflicts {
		parts[i] = fmt.Sprintf("%s and %s (%s)", c.A, c.B, c.Reason)
	}
	return "cannot translate capabilities " + e.Set.String() + ": these exclude each other: " + strings.Join(parts, "; ")
}

// A side is one half of an exclusion: any of the bits, and how the flag is
// called that they become.
type side struct {
	bits Set
	name string
}

type exclusion struct {
	a, b   side
	reason string
	except Set // where one of these is there the exclusion does not count
}

const (
	byIMS      = "the IMS API does not allow both"
	byInfer    = "inferred: SAP HANA on KVM is treated as IMS treats it on Xen"
	oneValue   = "one property has one value"
	oneVenue   = "inferred: an image is registered for virtual machines or for bare metal"
	armIsUEFI  = "Arm boots with UEFI only, and an absent hw_firmware_type means bios"
	oneMachine = "an image is for one processor architecture"
)

var (
	xenFlag = side{XenClassic | XenPVOps, "__support_xen"}
	kvmFlag = side{KVMVirtio, "__support_kvm"}
	bmsFlag = side{Ironic, envProperty + "=" + envBMS}
)

// The GPUs that have a flag of their hypervisor, and all of them.
const (
	xenGPUs = M60VGPU | M60
	kvmGPUs = P100 | V100 | V100VGPU | P2VV100 | M60KVM
	anyGPU  = xenGPUs | kvmGPUs | T4
)

var exclusions = allExclusions()

func allExclusions() []exclusion {
	xenGPU := side{xenGPUs, "__support_xen_gpu_type"}
	kvmGPU := side{kvmGPUs, "__support_kvm_gpu_type"}
	xenHANA := side{HANAXen, "__support_xen_hana"}
	kvmHANA := side{HANAKVM, "__support_kvm_hana"}
	list := []exclusion{
		{a: xenFlag, b: side{InfiniBand, "__support_kvm_infiniband"}, reason: byIMS},
		{a: side{ARM64, "__support_arm"}, b: side{AMD, "__support_amd"}, reason: oneMachine},
	}
	for _, general := range []side{xenFlag, kvmFlag} {
		list = append(list,
			exclusion{a: general, b: xenGPU, reason: byIMS},
			exclusion{a: general, b: kvmGPU, reason: byIMS},
			exclusion{a: general, b: xenHANA, reason: byIMS},
			exclusion{a: general, b: kvmHANA, reason: byInfer})
	}
	for i, a := range rules {
		for _, b := range rules[i+1:] {
			if a.name == b.name {
				x := exclusion{a: side{a.claim, a.name + "=" + a.value}, b: side{b.claim, b.name + "=" + b.value}, reason: oneValue}
				if a.on == ecs {
					x.except = Ironic
				}
				list = append(list, x)
			}
		}
	}
	for _, ecsOnly := range []side{
		xenFlag, kvmFlag, xenGPU, {V100VGPU | P2VV100 | M60KVM, "__support_kvm_gpu_type"}, {T4, "__support_gpu_t4"}, xenHANA, kvmHANA,
		{FPGAVU9P | FPGAVU9PCommon, "__support_kvm_fpga_type"}, {Ascend310, "__support_kvm_ascend_310"},
		{LargeMemory, "__support_largememory"}, {DiskIntensive, "__support_diskintensive"}, {HighPerformance, "__support_highperformance"},
	} {
		list = append(list, exclusion{a: bmsFlag, b: ecsOnly, reason: oneVenue})
	}
	return list
}

// Conflicts returns the capabilities of s that exclude each other, as the
// properties they become; nil if there are none.
func (s Set) Conflicts() []Conflict {
	var out []Conflict
	for _, x := range exclusions {
		if s&x.a.bits != 0 && s&x.b.bits != 0 && s&x.except == 0 {
			out = append(out, Conflict{x.a.name, x.b.name, x.reason})
		}
	}
	if s.Has(ARM64) && (!s.Has(UEFI) || s.Has(BIOS)) {
		out = append(out, Conflict{"__support_arm", firmwareProperty + "=bios", armIsUEFI})
	}
	return out
}
