package capabilities

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func recorded(t *testing.T, name string) Evidence {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "evidence", name+".json"))
	require.NoError(t, err)
	var e Evidence
	require.NoError(t, json.Unmarshal(data, &e))
	require.NotEmpty(t, e.Modules)
	return e
}

// The evidence was recorded from images that diskimage-builder built: the
// modules of their kernel, the content of their initial RAM disk, dpkg's list of
// packages and the enabled units.
func TestDetectOnRecordedImages(t *testing.T) {
	const common = "xen-pvops|kvm-virtio|ixgbevf|xen-scsi|nvme|large-memory|disk-intensive|high-performance|hana-xen|hana-kvm|bios|amd|cloud-init"
	for name, want := range map[string]string{
		"debian-12-generic-kernel": common + "|hi1822|infiniband",
		"debian-12-cloud-kernel":   common,
	} {
		s, err := Parse(want)
		require.NoError(t, err)
		assert.Equal(t, s, Detect(recorded(t, name)), "%s: %v", name, Detect(recorded(t, name)))
	}
}

// Taking a driver out of a real image takes its capabilities away.
func TestDetectMissesWhatIsTakenOut(t *testing.T) {
	drop := func(list []string, name string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(entry string) bool { return strings.HasPrefix(entry, name) })
	}
	for _, tt := range []struct {
		name string
		take func(*Evidence)
		gone Set
	}{
		{"virtio disks in the initrd", func(e *Evidence) {
			e.InitrdModules = drop(drop(e.InitrdModules, "virtio_blk.ko"), "virtio_scsi.ko")
		}, KVMVirtio | HANAKVM},
		{"virtio's bus in the initrd", func(e *Evidence) { e.InitrdModules = drop(e.InitrdModules, "virtio_pci.ko") }, KVMVirtio | HANAKVM},
		{"one of two virtio disks", func(e *Evidence) { e.InitrdModules = drop(e.InitrdModules, "virtio_blk.ko") }, 0},
		{"Xen network", func(e *Evidence) { e.Modules = drop(e.Modules, "xen-netfront.ko") }, XenPVOps | DiskIntensive | HighPerformance | HANAXen},
		{"Xen disks in the initrd", func(e *Evidence) { e.InitrdModules = drop(e.InitrdModules, "xen-blkfront.ko") }, XenPVOps | DiskIntensive | HighPerformance | HANAXen},
		{"ixgbevf", func(e *Evidence) { e.Modules = drop(e.Modules, "ixgbevf.ko") }, IXGBEVF | DiskIntensive | HighPerformance | HANAXen},
		{"Xen SCSI", func(e *Evidence) { e.Modules = drop(e.Modules, "xen-scsifront.ko") }, XenSCSI | HANAXen},
		{"cloud-init", func(e *Evidence) {
			e.Packages, e.Agents = drop(e.Packages, "cloud-init "), drop(e.Agents, "cloud-init.")
		}, CloudInit},
		{"no initrd", func(e *Evidence) { e.InitrdModules = nil }, XenPVOps | KVMVirtio | LargeMemory | DiskIntensive | HighPerformance | HANAXen | HANAKVM},
		{"firmware unknown", func(e *Evidence) { e.Firmware = "" }, BIOS},
	} {
		e := recorded(t, "debian-12-generic-kernel")
		all := Detect(e)
		tt.take(&e)
		assert.Equal(t, all&^tt.gone, Detect(e), "%s: %v", tt.name, all&^Detect(e))
	}
}

// What the images of other distributions hold, after the module and package
// names that UVP-Tools, bms-network-setup and NVIDIA document. These are not
// recordings.
func TestDetect(t *testing.T) {
	virtio := []string{"virtio_pci", "virtio-blk"}
	for _, tt := range []struct {
		name string
		have Evidence
		want Set
	}{
		{"nothing", Evidence{}, 0},
		{"SLES 11 with classic drivers", Evidence{
			InitrdModules: []string{"/lib/modules/3.0.101/updates/pvdriver/xen-vbd/xen-vbd.ko"},
			Modules:       []string{"xen-vbd", "xen-vnif", "xen-scsi", "ixgbevf"},
			Packages:      []string{"uvp-monitor-2.2.0.315-3.1", "cloud-init 0.7.8-1 x86_64"}, Arch: "x86_64", Firmware: "bios",
		}, XenClassic | XenSCSI | IXGBEVF | LargeMemory | DiskIntensive | HighPerformance | HANAXen | UVPMonitor | CloudInit | BIOS | AMD},
		{"bare metal", Evidence{
			Modules: []string{"scsi_ep_front", "mlx5_ib", "ib_ipoib", "nvme"}, Packages: []string{"bms-network-config 1.2-1 noarch", "cloud-init"},
		}, SCSIEPFront | InfiniBand | NVMe | Ironic | BMSNetworkConfig | CloudInit},
		{"bare metal without cloud-init", Evidence{Packages: []string{"bms-network-config"}}, 0},
		{"GPU", Evidence{InitrdModules: virtio, Modules: []string{"virtio_net", "nvidia"}, Packages: []string{"cuda-drivers-418.87"}},
			KVMVirtio | LargeMemory | HANAKVM | P100 | V100 | P2VV100 | T4 | M60KVM},
		{"GPU without CUDA", Evidence{InitrdModules: virtio, Modules: []string{"virtio_net", "nvidia"}}, KVMVirtio | LargeMemory | HANAKVM | T4 | M60KVM},
		{"virtual GPU on Xen", Evidence{InitrdModules: []string{"xen_blkfront"}, Modules: []string{"xen_netfront", "nvidia"}, Agents: []string{"nvidia-gridd.service"}},
			XenPVOps | LargeMemory | M60 | M60VGPU},
		{"Arm with UEFI", Evidence{InitrdModules: virtio, Modules: []string{"virtio_net.ko.zst"}, Firmware: "UEFI", Arch: "aarch64"},
			KVMVirtio | LargeMemory | HANAKVM | UEFI | ARM64},
		{"both firmwares", Evidence{Firmware: "bios+uefi", Arch: "amd64"}, BIOS | UEFI | AMD},
		{"names that only begin alike", Evidence{Modules: []string{"ixgbevfx", "nvme-core"}, Packages: []string{"cloud-init-doc", "uvp-monitors"}}, 0},
	} {
		assert.Equal(t, tt.want, Detect(tt.have), "%s: %v", tt.name, Detect(tt.have))
	}
}

func TestVerify(t *testing.T) {
	e := recorded(t, "debian-12-cloud-kernel")
	require.NoError(t, Verify(0, e))
	require.NoError(t, Verify(KVMVirtio|XenPVOps|BIOS|CloudInit, e))
	require.NoError(t, Verify(KVMVirtio|FPGAVU9P|Multiqueue|1<<60, e), "nothing in an image shows these")

	err := Verify(KVMVirtio|UVPMonitor|Hi1822, e)
	var unproven *UnprovenError
	require.ErrorAs(t, err, &unproven)
	assert.Equal(t, UVPMonitor|Hi1822, unproven.Unproven)
	assert.ErrorContains(t, err, "hi1822|uvp-monitor claimed but not found")

	e.Arch = "arm64"
	assert.ErrorContains(t, Verify(KVMVirtio, e), "arm64 is not claimed")
	require.NoError(t, Verify(KVMVirtio|ARM64, e))
}

// What comes at the first boot is believed where it is said and can come.
func TestVerifyWhatComesAtTheFirstBoot(t *testing.T) {
	e := recorded(t, "debian-12-cloud-kernel")
	var unproven *UnprovenError
	err := Verify(V100|InfiniBand, e)
	require.ErrorAs(t, err, &unproven)
	assert.Equal(t, V100|InfiniBand, unproven.Unproven)
	assert.ErrorContains(t, err, "at the first boot")

	e.FirstBoot = V100 | InfiniBand | UVPMonitor
	require.NoError(t, Verify(V100|InfiniBand|KVMVirtio, e))
	for _, tt := range []struct {
		name  string
		claim Set
		take  func(*Evidence)
		lacks Set
	}{
		{"not said of this GPU", P100, func(*Evidence) {}, P100},
		{"a thing that has to be in the image", UVPMonitor, func(*Evidence) {}, UVPMonitor},
		{"nothing installs it", V100, func(e *Evidence) { e.Packages, e.Agents = nil, nil }, V100},
		{"no virtio", V100 | InfiniBand, func(e *Evidence) { e.InitrdModules = nil }, V100},
	} {
		e := e
		tt.take(&e)
		require.ErrorAs(t, Verify(tt.claim, e), &unproven, tt.name)
		assert.Equal(t, tt.lacks, unproven.Unproven, tt.name)
	}
	bms := Evidence{Packages: []string{"bms-network-config", "cloud-init"}, FirstBoot: P100 | InfiniBand | T4}
	require.NoError(t, Verify(Ironic|P100|InfiniBand, bms))
	assert.Error(t, Verify(T4, bms), "no bare metal has a T4")
}
