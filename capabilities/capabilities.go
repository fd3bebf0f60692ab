// Package capabilities says what a cloud image can do and which flavors of the
// Open Telekom Cloud it runs on.
//
// A [Set] is the bitmask that an image carries as __image_capabilities: the
// hypervisors whose drivers it has, its accelerators, the platforms it is made
// for, its firmware. [Set.Flags] translates it into the properties by which
// the platform filters images (__support_xen, __is_support_xen, …),
// [FromFlags] reads the properties of a registered image back and [Diff] says
// how to correct them. [Flavors] and [Explain] tell which flavors accept an
// image and what another one misses. [Detect] says what an image really has,
// and [Verify] holds a claim against it.
//
// [Families] are the flavors of the Open Telekom Cloud; a [Table] may as well be
// a caller's own, or what the cloud's API answers ([ReadFlavors]). [ReadImages]
// reads images from such answers. [Table.Describe] and [Table.DescribeImage]
// bring all of this together.
//
// # The layout is this package's own
//
// The positions of the bits in the original image factory's mask were never
// published: the layout here is defined by the constants below. It is
// append-only: a bit never changes its meaning and new bits come after the last
// one. Bits that this version does not know are kept by every conversion.
//
// # Hypervisor bits are claims
//
// [XenClassic], [XenPVOps] and [KVMVirtio] say that the image is offered on the
// general flavors of that hypervisor, and so become __support_xen and
// __support_kvm. The Image Management Service (IMS) forbids these two on images
// that are made for GPU or SAP HANA flavors. Such an image has the bit of its
// platform instead ([HANAXen], [V100], …), which includes that the drivers of
// the platform's hypervisor are there.
//
// # Flags that need several bits
//
// A flag is written when all bits that it stands for are there:
// __support_diskintensive needs [DiskIntensive] and the driver [IXGBEVF] of the
// flavors behind it. A claim without its driver gives no flag, and [Explain]
// names the driver as missing. [Set.Carried] is the part of a set that flags
// express. Not translated are __support_fc_inject, __support_agent_list,
// __support_static_ip and the Hi1822 modes other than SR-IOV; properties that
// the package does not know are left alone.
//
// # Sources
//
// The flags are those of the IMS API reference (image attributes, April 2026)
// and of the image factory's table of images and flavors of July 2019. The
// flavors are those of the manuals of the Elastic Cloud Server (July 2026) and
// the Bare Metal Server (December 2025), and those that only older documents
// have, which are no longer sold; [Flavor.Sources] says which. Where a need is
// inferred rather than documented, its Reason or Note says so. What no document
// says is the zero [Need], by which an answer is "unknown": the manuals do not
// give the properties by which the platform chooses images for bare metal with
// the GPUs of today, nor for its flavor c7t.
//
// Everything in this package is safe for concurrent use.
package capabilities

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// MaskProperty is the image property that records a [Set].
const MaskProperty = "__image_capabilities"

// A Set is a set of capabilities, one bit each. The zero Set has none.
type Set uint64

// The capabilities. The order is append-only: the positions are on record in
// published images.
const (
	XenClassic       Set = 1 << iota // general Xen flavors, with the classic xen-vbd and xen-vnif drivers
	XenPVOps                         // general Xen flavors, with the kernel's own xen-blkfront and xen-netfront drivers
	KVMVirtio                        // general KVM flavors, with virtio drivers
	IXGBEVF                          // SR-IOV network of the Intel 82599, driver ixgbevf
	XenSCSI                          // paravirtualized SCSI disks of the Xen HANA flavors
	SCSIEPFront                      // EVS volumes on bare metal, driver scsi_ep_front
	NVMe                             // local NVMe disks
	Hi1822                           // SR-IOV network of the Hi1822, driver hinic
	InfiniBand                       // InfiniBand: ECS flavors on KVM, or bare metal
	M60VGPU                          // NVIDIA M60 as a virtual GPU, on Xen
	M60                              // NVIDIA M60 passed through, on Xen
	P100                             // NVIDIA P100, on KVM or bare metal
	V100                             // NVIDIA V100, on KVM or bare metal
	T4                               // NVIDIA T4, on KVM
	Ascend310                        // Ascend 310, on KVM
	FPGAVU9P                         // Xilinx VU9P FPGA, on KVM
	FPGAVU9PCommon                   // Xilinx VU9P FPGA with the common shell, on KVM
	LargeMemory                      // large-memory flavors
	DiskIntensive                    // disk-intensive flavors on Xen
	HighPerformance                  // high-performance flavors on Xen
	HANAXen                          // SAP HANA flavors on Xen
	HANAKVM                          // SAP HANA flavors on KVM
	Ironic                           // bare metal; the image is registered for it alone
	BMSNetworkConfig                 // package bms-network-config: network bonds of bare metal
	BIOS                             // boots with a BIOS
	UEFI                             // boots with UEFI
	ARM64                            // Arm; all others are x86-64
	AMD                              // x86-64 of AMD
	Multiqueue                       // several queues a virtual NIC
	LiveResize                       // resized while it runs
	UVPMonitor                       // agent uvp-monitor
	CloudInit                        // cloud-init
	V100VGPU                         // NVIDIA V100 as a virtual GPU, on KVM
	P2VV100                          // NVIDIA V100 with NVLink (flavors p2v), on KVM
	M60KVM                           // NVIDIA M60, on KVM
	DataImage                        // registered as the image of a data disk, which boots no server
	ISOImage                         // registered as an ISO image, which boots no flavor by itself

	end
)

// Known has every capability that this version knows.
const Known = end - 1

// names holds the name of each bit, by position.
var names = [...]string{
	"xen-classic", "xen-pvops", "kvm-virtio", "ixgbevf", "xen-scsi", "scsi-ep-front", "nvme", "hi1822", "infiniband",
	"m60-vgpu", "m60", "p100", "v100", "t4", "ascend-310", "fpga-vu9p", "fpga-vu9p-common",
	"large-memory", "disk-intensive", "high-performance", "hana-xen", "hana-kvm", "ironic", "bms-network-config",
	"bios", "uefi", "arm64", "amd", "multiqueue", "live-resize", "uvp-monitor", "cloud-init",
	"v100-vgpu", "p2v-v100", "m60-kvm", "data-image", "iso-image",
}

// Has reports whether s has every capability of want.
func (s Set) Has(want Set) bool { return s&want == want }

// Bits returns the capabilities of s one by one, lowest first.
func (s Set) Bits() []Set {
	out := make([]Set, 0, bits.OnesCount64(uint64(s)))
	for rest := s; rest != 0; rest &= rest - 1 {
		out = append(out, rest&-rest)
	}
	return out
}

// String returns the names of the capabilities joined by "|", lowest bit first
// and bits without a name last, as one hexadecimal number; "0" for none.
// [Parse] reads it back.
func (s Set) String() string {
	if s == 0 {
		return "0"
	}
	var parts []string
	for _, b := range (s & Known).Bits() {
		parts = append(parts, names[bits.TrailingZeros64(uint64(b))])
	}
	if unknown := s &^ Known; unknown != 0 {
		parts = append(parts, unknown.Hex())
	}
	return strings.Join(parts, "|")
}

// Hex returns the mask as a hexadecimal number with 0x before it, the form in
// which this module writes [MaskProperty].
func (s Set) Hex() string { return "0x" + strconv.FormatUint(uint64(s), 16) }

// Decimal returns the mask as a decimal number.
func (s Set) Decimal() string { return strconv.FormatUint(uint64(s), 10) }

// MarshalText implements [encoding.TextMarshaler] with [Set.String].
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] with [Parse].
func (s *Set) UnmarshalText(text []byte) error {
	v, err := Parse(string(text))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// UnmarshalYAML reads a string for [Parse] or a list of such strings. It is the
// interface that YAML packages offer to types that do not import them.
func (s *Set) UnmarshalYAML(decode func(any) error) error {
	var list []string
	var text string
	if err := decode(&text); err != nil {
		if decode(&list) != nil {
			return err
		}
		if len(list) == 0 {
			*s = 0
			return nil
		}
		text = strings.Join(list, " ")
	}
	return s.UnmarshalText([]byte(text))
}

// Parse reads names and numbers, decimal or hexadecimal with 0x, that are
// separated by "|", commas or white space, and returns their union. So it reads
// what [Set.String], [Set.Hex] and [Set.Decimal] write. Upper case and
// underscores are accepted in names. An unknown name is an [*UnknownNameError].
func Parse(text string) (Set, error) {
	var s Set
	fields := strings.FieldsFunc(text, func(r rune) bool {
		return r == '|' || r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r'
	})
	if len(fields) == 0 {
		return 0, fmt.Errorf("cannot parse capabilities: %s names none; write 0 for the empty set", quote(text))
	}
	for _, field := range fields {
		b, err := parseOne(field)
		if err != nil {
			return 0, fmt.Errorf("cannot parse capabilities: %w", err)
		}
		s |= b
	}
	return s, nil
}

func parseOne(field string) (Set, error) {
	if c := field[0]; c >= '0' && c <= '9' {
		digits, base := field, 10
		if rest, ok := strings.CutPrefix(strings.ToLower(field), "0x"); ok {
			digits, base = rest, 16
		}
		n, err := strconv.ParseUint(digits, base, 64)
		if err != nil {
			return 0, fmt.Errorf("%s is not a decimal or 0x… number of 64 bits", quote(field))
		}
		return Set(n), nil
	}
	name := strings.ReplaceAll(strings.ToLower(field), "_", "-")
	if i := slices.Index(names[:], name); i >= 0 {
		return 1 << i, nil
	}
	near := meant(name)
	if near == nil {
		near = nearest(name, names[:])
	}
	return 0, &UnknownNameError{Kind: "capability", Name: field, Nearest: near}
}
