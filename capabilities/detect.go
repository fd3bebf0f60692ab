package capabilities

import (
	"cmp"
	"fmt"
	"path"
	"strings"
)

// Evidence is what was found in an image. Names of modules may be file names
// (kernel/drivers/net/virtio_net.ko.xz), with hyphens or underscores; packages
// may carry version and architecture after a space, or version after a hyphen;
// agents may end in ".service".
type Evidence struct {
	// Modules are the kernel modules of the kernel that boots, loadable or
	// built in.
	Modules []string `json:"modules"`

	// InitrdModules are the modules at hand when the root disk is looked for:
	// those in the initial RAM disk and those built into the kernel. A disk
	// driver that is not among them does not count, so without this list no
	// hypervisor is detected.
	InitrdModules []string `json:"initrd_modules"`

	Packages []string `json:"packages"` // installed packages
	Agents   []string `json:"agents"`   // enabled services

	// Firmware is how the image boots: "bios", "uefi", or both with any
	// separator. Empty means that it is not known.
	Firmware string `json:"firmware"`

	Arch string `json:"arch"` // as uname -m or GOARCH name it

	// FirstBoot are the capabilities whose drivers come at the first boot and
	// are not looked for in the image. It is not found in the image but said of
	// it. Those that are not in the constant FirstBoot are passed over.
	FirstBoot Set `json:"first_boot,omitempty"`
}

// Undetectable are the capabilities that nothing in an image shows. [Verify]
// believes a claim of these. They are, and why:
//   - [FPGAVU9P], [FPGAVU9PCommon]: which drivers these flavors need was never
//     published;
//   - [Multiqueue], [LiveResize]: it is for the hypervisor to offer them, and
//     every kernel with its drivers takes them;
//   - [DataImage], [ISOImage]: how the image is registered, which is not in it.
const Undetectable = FPGAVU9P | FPGAVU9PCommon | Multiqueue | LiveResize | DataImage | ISOImage

// FirstBoot are the capabilities whose drivers need not be in an image, because
// a server can boot without them and get them at its first boot: the platform
// hands the flavors behind them vendor data by which cloud-init installs the
// drivers. [Verify] believes a claim of these where [Evidence.FirstBoot] says so
// and the image has cloud-init and the drivers to boot there: virtio for those
// on KVM, a Xen front end for those on Xen, cloud-init alone for [InfiniBand],
// which is on bare metal as well.
const FirstBoot = InfiniBand | anyGPU | Ascend310

// A proof is what shows a capability. Each string is a list of alternatives
// separated by "|", where a trailing "*" stands for any ending.
type proof struct {
	shows    Set
	with     Set // capabilities that must have been shown before
	withAny  Set
	initrd   []string
	modules  []string
	packages string
	agents   string // either packages or agents is enough
}

const anyXen = XenClassic | XenPVOps

// proofs are in order: a later one may build on an earlier one.
var proofs = []proof{
	{shows: XenClassic, initrd: []string{"xen_vbd"}, modules: []string{"xen_vnif"}},
	{shows: XenPVOps, initrd: []string{"xen_blkfront"}, modules: []string{"xen_netfront"}},
	{shows: KVMVirtio, initrd: []string{"virtio_pci", "virtio_blk|virtio_scsi"}, modules: []string{"virtio_net"}},
	{shows: IXGBEVF, modules: []string{"ixgbevf"}},
	{shows: XenSCSI, modules: []string{"xen_scsi|xen_scsifront"}},
	{shows: SCSIEPFront, modules: []string{"scsi_ep_front"}},
	{shows: NVMe, modules: []string{"nvme"}},
	{shows: Hi1822, modules: []string{"hinic"}},
	{shows: InfiniBand, modules: []string{"mlx4_ib|mlx5_ib", "ib_ipoib"}},
	{shows: M60, withAny: anyXen, modules: []string{"nvidia"}},
	{shows: M60VGPU, withAny: anyXen, modules: []string{"nvidia"}, packages: "nvidia-grid*", agents: "nvidia-gridd"},
	{shows: V100VGPU, with: KVMVirtio, modules: []string{"nvidia"}, packages: "nvidia-grid*", agents: "nvidia-gridd"},
	{shows: P100 | V100 | P2VV100, with: KVMVirtio, modules: []string{"nvidia"}, packages: "cuda|cuda-*|nvidia-cuda-*"},
	{shows: T4 | M60KVM, with: KVMVirtio, modules: []string{"nvidia"}},
	{shows: Ascend310, with: KVMVirtio, modules: []string{"drv_davinci*"}},
	{shows: LargeMemory, withAny: anyXen | KVMVirtio},
	{shows: DiskIntensive | HighPerformance, with: IXGBEVF, withAny: anyXen},
	{shows: HANAXen, with: IXGBEVF | XenSCSI, withAny: anyXen},
	{shows: HANAKVM, with: KVMVirtio},
	{shows: UVPMonitor, packages: "uvp-monitor", agents: "uvp-monitor"},
	{shows: CloudInit, packages: "cloud-init", agents: "cloud-init"},
	{shows: Ironic | BMSNetworkConfig, with: CloudInit, packages: "bms-network-config|bms-network-setup", agents: "bms-network-config"},
}

// Detect returns the capabilities that the evidence shows. An image can often
// do more than it may be registered for, so the result may have conflicts; it is
// for holding a claim against it, see [Verify].
func Detect(e Evidence) Set {
	modules, initrd := nameSet(e.Modules, moduleName), nameSet(e.InitrdModules, moduleName)
	packages, agents := nameSet(e.Packages, packageName), nameSet(e.Agents, agentName)
	s := detectMachine(e)
	for _, p := range proofs {
		if !s.Has(p.with) || (p.withAny != 0 && s&p.withAny == 0) {
			continue
		}
		if !hasAll(initrd, p.initrd) || !hasAll(modules, p.modules) {
			continue
		}
		if p.packages != "" && !hasOne(packages, p.packages) && !hasOne(agents, p.agents) {
			continue
		}
		s |= p.shows
	}
	return s
}

// detectMachine judges the firmware and the architecture.
func detectMachine(e Evidence) Set {
	var s Set
	firmware := strings.ToLower(e.Firmware)
	if strings.Contains(firmware, "bios") {
		s |= BIOS
	}
	if strings.Contains(firmware, "efi") {
		s |= UEFI
	}
	switch strings.ToLower(e.Arch) {
	case "x86_64", "amd64":
		s |= AMD
	case "aarch64", "arm64":
		s |= ARM64
	}
	return s
}

// An UnprovenError says that more is claimed of an image than it has.
type UnprovenError struct {
	Unproven Set // claimed and not found
	Detected Set // what was found
	Arch     string
}

func (e *UnprovenError) Error() string {
	if e.Unproven == 0 {
		return fmt.Sprintf("cannot confirm capabilities: the image is for %s and arm64 is not claimed", cmp.Or(e.Arch, "an unknown architecture"))
	}
	text := fmt.Sprintf("cannot confirm capabilities: %s claimed but not found in the image, which has %s", e.Unproven, e.Detected)
	if late := e.Unproven & FirstBoot; late != 0 {
		text += fmt.Sprintf("; if the drivers of %s come at the first boot, the claim has to say so", late)
	}
	return text
}

// Verify holds what is claimed of an image against the evidence. It returns an
// [*UnprovenError] if a capability is claimed that [Detect] does not find, but
// for those in [Undetectable], those that come at the first boot (see
// [FirstBoot]) and bits that this version does not know; and if an Arm image is
// claimed to be something else.
func Verify(claimed Set, e Evidence) error {
	found := Detect(e)
	unproven := (claimed & Known) &^ (found | Undetectable | atFirstBoot(e, found))
	if unproven != 0 || (found.Has(ARM64) && !claimed.Has(ARM64)) {
		return &UnprovenError{Unproven: unproven, Detected: found, Arch: e.Arch}
	}
	return nil
}

// atFirstBoot returns the capabilities that an image in which found was found
// will have after its first boot.
func atFirstBoot(e Evidence, found Set) Set {
	if !found.Has(CloudInit) {
		return 0
	}
	comes := InfiniBand
	switch {
	case found.Has(Ironic):
		comes |= P100 | V100
	case found.Has(KVMVirtio):
		comes |= kvmGPUs | T4 | Ascend310
	}
	if found&anyXen != 0 {
		comes |= xenGPUs
	}
	return comes & FirstBoot & e.FirstBoot
}

func nameSet(list []string, normalize func(string) string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, entry := range list {
		set[normalize(entry)] = true
	}
	return set
}

func moduleName(entry string) string {
	name, _, _ := strings.Cut(path.Base(strings.TrimSpace(entry)), ".ko")
	return strings.ReplaceAll(strings.ToLower(name), "-", "_")
}

// packageName cuts the version off: at the first space or colon (dpkg's
// architecture), or at the first hyphen before a digit.
func packageName(entry string) string {
	entry = strings.TrimSpace(entry)
	if i := strings.IndexAny(entry, " \t:"); i >= 0 {
		return entry[:i]
	}
	for i := 0; i+1 < len(entry); i++ {
		if c := entry[i+1]; entry[i] == '-' && c >= '0' && c <= '9' {
			return entry[:i]
		}
	}
	return entry
}

func agentName(entry string) string { return strings.TrimSuffix(strings.TrimSpace(entry), ".service") }

func hasAll(have map[string]bool, wants []string) bool {
	for _, want := range wants {
		if !hasOne(have, want) {
			return false
		}
	}
	return true
}

func hasOne(have map[string]bool, alternatives string) bool {
	if alternatives == "" {
		return false
	}
	for want := range strings.SplitSeq(alternatives, "|") {
		prefix, open := strings.CutSuffix(want, "*")
		if have[want] {
			return true
		}
		if open {
			for name := range have {
				if strings.HasPrefix(name, prefix) {
					return true
				}
			}
		}
	}
	return false
}
