package capabilities

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An UnknownNameError says that a name is not known, and which known names
// come near it.
type UnknownNameError struct {
	Kind    string   // "capability", "flag" (the property of an image) or "flavor"
	Name    string   // the name that was asked for
	Nearest []string // known names, the nearest first: those that may be meant, or at most three that are spelt alike
}

func (e *UnknownNameError) Error() string {
	text := fmt.Sprintf("unknown %s %s", cmp.Or(e.Kind, "name"), quote(e.Name))
	switch len(e.Nearest) {
	case 0:
		return text
	case 1:
		return text + "; the nearest known is " + e.Nearest[0]
	}
	return text + "; the nearest known are " + strings.Join(e.Nearest, ", ")
}

// maxName bounds what is compared with the known names and what errors quote:
// the work grows with the length of a name that a caller may have from anywhere.
const maxName = 64

// quote quotes text in an error.
func quote(text string) string {
	if len(text) > maxName {
		return strconv.QuoteToASCII(text[:maxName]) + "…"
	}
	return strconv.Quote(text)
}

// plain is text as it stands if that prints on one short line, and else quoted:
// names and values come from anywhere.
func plain(text string) string {
	if quoted := quote(text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}

// synonyms are other words for capabilities, for the error about such a word.
var synonyms = map[string]Set{
	"kvm": KVMVirtio, "virtio": KVMVirtio, "qemu": KVMVirtio, "cloudcompute": KVMVirtio,
	"xen": XenPVOps | XenClassic, "pvops": XenPVOps, "xen-pv": XenPVOps | XenClassic, "pv": XenPVOps | XenClassic,
	"gpu": anyGPU, "nvidia": anyGPU, "cuda": P100 | V100 | P2VV100, "vgpu": M60VGPU | V100VGPU, "grid": M60VGPU | V100VGPU,
	"tesla": anyGPU, "nvlink": P2VV100, "p2v": P2VV100, "npu": Ascend310, "ascend": Ascend310,
	"fpga": FPGAVU9P | FPGAVU9PCommon, "vu9p": FPGAVU9P | FPGAVU9PCommon, "xilinx": FPGAVU9P | FPGAVU9PCommon,
	"efi": UEFI, "ovmf": UEFI, "secure-boot": UEFI, "legacy": BIOS, "mbr": BIOS, "seabios": BIOS,
	"arm": ARM64, "aarch64": ARM64, "x86-64": AMD, "x86": AMD, "amd64": AMD, "intel": AMD,
	"bms": Ironic | BMSNetworkConfig, "baremetal": Ironic | BMSNetworkConfig, "bare-metal": Ironic | BMSNetworkConfig,
	"physical": Ironic | BMSNetworkConfig, "o2m": Ironic | BMSNetworkConfig, "evs": SCSIEPFront,
	"ib": InfiniBand, "mellanox": InfiniBand, "mlx5": InfiniBand, "mlx4": InfiniBand, "rdma": InfiniBand,
	"sriov": IXGBEVF | Hi1822, "sr-iov": IXGBEVF | Hi1822, "ixgbe": IXGBEVF, "82599": IXGBEVF, "hinic": Hi1822,
	"hana": HANAXen | HANAKVM, "sap": HANAXen | HANAKVM, "saphana": HANAXen | HANAKVM, "sap-hana": HANAXen | HANAKVM,
	"memory": LargeMemory, "largememory": LargeMemory, "hpc": HighPerformance, "local-disk": DiskIntensive | NVMe,
	"ssd": NVMe, "disk": DiskIntensive, "uvp": UVPMonitor, "monitor": UVPMonitor, "cloud": CloudInit,
	"mq": Multiqueue, "resize": LiveResize, "iso": ISOImage, "data": DataImage, "scsi": XenSCSI | SCSIEPFront,
}

// meant returns the capabilities that a word or the name of a flag is about;
// nil where it is about none.
func meant(name string) []string {
	s := synonyms[name]
	if s == 0 {
		flag := canonicalName(strings.ReplaceAll(name, "-", "_"))
		for _, r := range rules {
			if r.name == flag {
				s |= r.claim
			}
		}
	}
	var out []string
	for _, b := range s.Bits() {
		out = append(out, b.String())
	}
	return out
}

// nearest returns the three of known that name is the beginning of, or that
// need the fewest edits to become it.
func nearest(name string, known []string) []string {
	if len(name) > maxName {
		name = name[:maxName]
	}
	type ranked struct {
		name string
		cost int
	}
	var best []ranked
	for _, k := range known {
		limit := len(name) + len(k)
		if len(best) == 3 {
			limit = best[2].cost - 1 // of equals the first stays
		}
		cost := edits(name, k, limit)
		if len(name) > 1 && strings.HasPrefix(k, name) {
			cost = min(cost, 1)
		}
		if cost > limit {
			continue
		}
		i := slices.IndexFunc(best, func(r ranked) bool { return r.cost > cost })
		if i < 0 {
			i = len(best)
		}
		best = slices.Insert(best, i, ranked{k, cost})
		best = best[:min(3, len(best))]
	}
	var out []string
	for _, r := range best {
		out = append(out, r.name)
	}
	return out
}

// edits is the Levenshtein distance of a and b in bytes, or any number above
// limit if it is above that.
func edits(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
		if slices.Min(row) > limit {
			return limit + 1
		}
	}
	return row[len(b)]
}
