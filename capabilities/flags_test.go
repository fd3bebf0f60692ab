package capabilities

import (
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// excluded are the pairs of properties that may not stand together, written
// down apart from the package's own table.
var excluded = [][2]string{
	{"__support_xen", "__support_xen_gpu_type"}, {"__support_kvm", "__support_xen_gpu_type"},
	{"__support_xen", "__support_kvm_gpu_type"}, {"__support_kvm", "__support_kvm_gpu_type"},
	{"__support_xen", "__support_xen_hana"}, {"__support_kvm", "__support_xen_hana"},
	{"__support_xen", "__support_kvm_hana"}, {"__support_kvm", "__support_kvm_hana"},
	{"__support_xen", "__support_kvm_infiniband"},
	{"__support_arm", "__support_amd"},
}

func TestFlagsOfEverySet(t *testing.T) {
	good := 0
	sets(t, func(s Set) {
		flags, err := s.Flags()
		if err != nil {
			require.True(t, isConflict(err), "%v: %v", s, err)
			require.Nil(t, flags)
			text := err.Error()
			for _, c := range s.Conflicts() {
				require.Contains(t, text, c.A)
				require.Contains(t, text, c.B)
				require.NotEmpty(t, c.Reason)
			}
			return
		}
		good++
		require.Empty(t, s.Conflicts())
		checkFlags(t, s, flags)
		back, err := FromFlags(flags)
		require.NoError(t, err, "%v", s)
		require.Equal(t, s.Carried(), back, "%v as %v", s, flags)
		again, err := back.Flags()
		require.NoError(t, err)
		require.Equal(t, flags, again)

		flags[MaskProperty] = s.Hex()
		back, err = FromFlags(flags)
		require.NoError(t, err)
		require.Equal(t, s, back, "with its mask a set is read back whole")
	})
	assert.Greater(t, good, 1000, "the generator must reach sets without conflicts")
}

// checkFlags holds the properties of s against what is documented.
func checkFlags(t *testing.T, s Set, flags Flags) {
	t.Helper()
	for _, pair := range excluded {
		_, a := flags[pair[0]]
		_, b := flags[pair[1]]
		require.False(t, a && b, "%v: %v stand together", s, pair)
	}
	if flags["__support_arm"] == "true" {
		require.Equal(t, "uefi", flags["hw_firmware_type"], "%v", s)
	}
	switch env := flags["virtual_env_type"]; env {
	case "Ironic":
		require.NotContains(t, flags, "__support_xen")
		require.NotContains(t, flags, "__support_kvm")
	default:
		want := "FusionCompute"
		if s.Has(DataImage) {
			want = "DataImage"
		} else if s.Has(ISOImage) {
			want = "IsoImage"
		}
		require.Equal(t, want, env)
		require.NotContains(t, flags, "__support_o2m")
	}
	for name, value := range flags {
		if key, ok := strings.CutPrefix(name, "__support_"); ok {
			require.Equal(t, value, flags["__is_support_"+key])
		}
		if key, ok := strings.CutPrefix(name, "__is_support_"); ok {
			require.Equal(t, value, flags["__support_"+key])
		}
	}
}

func TestUnknownScheme(t *testing.T) {
	_, err := Scheme(7).Flags(KVMVirtio)
	assert.ErrorContains(t, err, "unknown scheme 7")
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		set  Set
		want Flags // in the IMS spelling
	}{
		{0, Flags{"virtual_env_type": "FusionCompute"}},
		{XenClassic, Flags{"virtual_env_type": "FusionCompute", "__support_xen": "true"}},
		{XenPVOps | KVMVirtio | UEFI | Multiqueue, Flags{"virtual_env_type": "FusionCompute", "__support_xen": "true",
			"__support_kvm": "true", "hw_firmware_type": "uefi", "hw_vif_multiqueue_enabled": "true"}},
		{DiskIntensive, Flags{"virtual_env_type": "FusionCompute"}},
		{DiskIntensive | HighPerformance | IXGBEVF, Flags{"virtual_env_type": "FusionCompute",
			"__support_diskintensive": "true", "__support_highperformance": "true"}},
		{M60VGPU, Flags{"virtual_env_type": "FusionCompute", "__support_xen_gpu_type": "M60_vGPU"}},
		{M60 | IXGBEVF, Flags{"virtual_env_type": "FusionCompute", "__support_xen_gpu_type": "M60_GPU"}},
		{HANAXen | IXGBEVF | XenSCSI, Flags{"virtual_env_type": "FusionCompute", "__support_xen_hana": "true"}},
		{InfiniBand, Flags{"virtual_env_type": "FusionCompute", "__support_kvm_infiniband": "true"}},
		{V100, Flags{"virtual_env_type": "FusionCompute", "__support_kvm_gpu_type": "V100"}},
		{KVMVirtio | FPGAVU9PCommon, Flags{"virtual_env_type": "FusionCompute", "__support_kvm": "true", "__support_kvm_fpga_type": "VU9P_COMMON"}},
		{Ironic, Flags{"virtual_env_type": "Ironic"}},
		{Ironic | BMSNetworkConfig | SCSIEPFront, Flags{"virtual_env_type": "Ironic", "__support_o2m": "true", "__support_evs": "true"}},
		{Ironic | BMSNetworkConfig | InfiniBand | P100 | V100, Flags{"virtual_env_type": "Ironic", "__support_o2m": "true",
			"__support_h2l": "true", "__support_p1l": "true", "__support_p2l": "true"}},
		{ARM64 | UEFI | KVMVirtio, Flags{"virtual_env_type": "FusionCompute", "__support_kvm": "true", "__support_arm": "true", "hw_firmware_type": "uefi"}},
	} {
		got, err := Support.Flags(tt.set)
		require.NoError(t, err)
		assert.Equal(t, tt.want, got, tt.set.String())
	}
	got, err := IsSupport.Flags(KVMVirtio)
	require.NoError(t, err)
	assert.Equal(t, Flags{"virtual_env_type": "FusionCompute", "__is_support_kvm": "true"}, got)
}

func TestConflictsNameBothSides(t *testing.T) {
	for _, tt := range []struct {
		set  Set
		a, b string
	}{
		{XenPVOps | V100, "__support_xen", "__support_kvm_gpu_type"},
		{KVMVirtio | M60, "__support_kvm", "__support_xen_gpu_type"},
		{XenClassic | HANAXen, "__support_xen", "__support_xen_hana"},
		{KVMVirtio | HANAKVM, "__support_kvm", "__support_kvm_hana"},
		{XenPVOps | InfiniBand, "__support_xen", "__support_kvm_infiniband"},
		{ARM64, "__support_arm", "hw_firmware_type=bios"},
		{ARM64 | UEFI | BIOS, "__support_arm", "hw_firmware_type=bios"},
		{ARM64 | UEFI | AMD, "__support_arm", "__support_amd"},
		{BIOS | UEFI, "hw_firmware_type=bios", "hw_firmware_type=uefi"},
		{P100 | V100, "__support_kvm_gpu_type=P100", "__support_kvm_gpu_type=V100"},
		{FPGAVU9P | FPGAVU9PCommon, "__support_kvm_fpga_type=VU9P", "__support_kvm_fpga_type=VU9P_COMMON"},
		{Ironic | KVMVirtio, "virtual_env_type=Ironic", "__support_kvm"},
		{Ironic | T4, "virtual_env_type=Ironic", "__support_gpu_t4"},
	} {
		_, err := tt.set.Flags()
		var conflict *ConflictError
		require.ErrorAs(t, err, &conflict, tt.set.String())
		assert.Equal(t, tt.set, conflict.Set)
		found := false
		for _, c := range conflict.Conflicts {
			found = found || (c.A == tt.a && c.B == tt.b)
		}
		assert.True(t, found, "%v: %v", tt.set, err)
	}
	assert.Empty(t, (Ironic | P100 | V100).Conflicts(), "on bare metal they are two flags")
}

func TestFromFlags(t *testing.T) {
	for _, tt := range []struct {
		name string
		have Flags
		want Set
	}{
		{"none", nil, 0},
		{"absent and false", Flags{"__support_arm": "false", "__support_xen": "", "hw_vif_multiqueue_enabled": "False"}, 0},
		{"the factory's misspelling", Flags{"___support_kvm_hana": "true"}, HANAKVM},
		{"spelling of the factory", Flags{"__is_support_kvm": "true"}, KVMVirtio},
		{"as the cloud writes it", Flags{"__support_xen_gpu_type": " M60_vgpu ", "__support_largememory": "True"}, M60VGPU | LargeMemory},
		{"others' properties", Flags{"__os_type": "Linux", "__support_o3s": "true", "__support_agent_list": "ces"}, 0},
		{"drivers behind a flag", Flags{"__support_xen": "true", "__support_diskintensive": "true"}, XenPVOps | DiskIntensive | IXGBEVF},
		{"bare metal", Flags{"virtual_env_type": "Ironic", "__support_p2l": "true"}, bmsV100},
		{"KVM's M60", Flags{"__support_kvm_gpu_type": "M60"}, M60KVM},
		{"a data disk", Flags{"virtual_env_type": "DataImage"}, DataImage},
		{"an ISO", Flags{"virtual_env_type": "isoimage"}, ISOImage},
		{"Arm of Glance", Flags{"architecture": "aarch64", "hw_firmware_type": "uefi"}, ARM64 | UEFI},
		{"Arm of IMS", Flags{"architecture": "arm", "__support_arm": "true", "hw_firmware_type": "uefi"}, ARM64 | UEFI},
		{"x86 of Glance", Flags{"architecture": "x86_64", "__support_kvm": "true"}, KVMVirtio},
		{"the mask's own default firmware", Flags{"hw_firmware_type": "bios", "__support_kvm": "true", MaskProperty: "kvm-virtio"}, KVMVirtio | BIOS},
		{"mask of the same flags", Flags{"virtual_env_type": "FusionCompute", "__support_xen": "true", MaskProperty: "0x1"}, XenClassic},
		{"mask in decimal", Flags{"__support_kvm": "true", MaskProperty: "1073741828"}, KVMVirtio | UVPMonitor},
	} {
		got, err := FromFlags(tt.have)
		require.NoError(t, err, tt.name)
		assert.Equal(t, tt.want, got, "%s: %v", tt.name, got)
	}
}

const bmsV100 = Ironic | BMSNetworkConfig | InfiniBand | V100

func TestFromFlagsRefuses(t *testing.T) {
	s, err := FromFlags(Flags{"__support_kvm": "true", "__support_kvm_gpu_type": "RTX5000", "virtual_env_type": "VMware"})
	var value *ValueError
	require.ErrorAs(t, err, &value)
	assert.Equal(t, "__support_kvm_gpu_type", value.Name)
	assert.Contains(t, err.Error(), "VMware")
	assert.Contains(t, err.Error(), "IsoImage", "what is known")
	assert.Equal(t, KVMVirtio, s, "the rest is read")

	for _, have := range []Flags{
		{"__support_kvm": "true", "__is_support_kvm": "false"},
		{"virtual_env_type": "FusionCompute", "__support_o2m": "true"},
		{"virtual_env_type": "Ironic", "__support_kvm_infiniband": "true"},
		{"virtual_env_type": "DataImage", "__support_o2m": "true"},
		{"architecture": "x86_64", "__support_arm": "true"},
		{"architecture": "aarch64", "__is_support_arm": "false"},
	} {
		_, err := FromFlags(have)
		assert.True(t, isConflict(err), "%v: %v", have, err)
	}
	_, err = FromFlags(Flags{MaskProperty: "a lot"})
	assert.ErrorContains(t, err, MaskProperty)
}

// A flag that is misspelt is not seen by the platform, whatever its value.
func TestFromFlagsNamesUnknownFlags(t *testing.T) {
	for name, near := range map[string]string{
		"___support_kvm": "__support_kvm", "__supprt_kvm": "__support_kvm", "__support_kmv": "__support_kvm", "_support_kvm": "__support_kvm",
		"support_kvm": "__support_kvm", "__SUPPORT_KVM": "__support_kvm", "__support-kvm": "__support_kvm", "__supports_xen": "__support_xen",
		"__is_supprt_xen": "__is_support_xen", "is_support_kvm": "__is_support_kvm", "__support_kvm_gputype": "__support_kvm_gpu_type",
		"__support_xen_gpu": "__support_xen_gpu_type", "__support_largememroy": "__support_largememory", "__support_fc_injct": "__support_fc_inject",
		"hw_firmware_typ": "hw_firmware_type", "hw-firmware-type": "hw_firmware_type", "virtual_env_typ": "virtual_env_type",
		"hw_vif_multiqueue_enable": "hw_vif_multiqueue_enabled", "__image_capability": MaskProperty, "___support_kvm_infiniband": "__support_kvm_infiniband",
	} {
		for _, value := range []string{"true", "false", "", "V100"} {
			s, err := FromFlags(Flags{name: value, "__support_largememory": "true"})
			var unknown *UnknownNameError
			require.ErrorAs(t, err, &unknown, name)
			assert.Equal(t, "flag", unknown.Kind)
			assert.Equal(t, name, unknown.Name)
			assert.Contains(t, unknown.Nearest, near, name)
			assert.Equal(t, LargeMemory, s, name)
		}
	}
	_, err := FromFlags(Flags{"__support_foo": "1", "___support_xen": "true", "__support_kvm_gpu_type": "x"})
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok)
	assert.Len(t, joined.Unwrap(), 3, "each is named: %v", err)
}

// The properties that IMS, Glance and Nova document besides the flags.
func TestFromFlagsPassesOverOtherProperties(t *testing.T) {
	properties := Flags{}
	for _, name := range append(strings.Fields(`__os_type __platform __os_version __os_bit __imagetype __isregistered __is_registered
		__image_source_type __image_location __image_size __root_origin __originalimagename __data_origin __backup_id __system__cmkid
		__sequence_num __whole_image __description __lazyloading __quick_start __image_cache_type __is_config_init __is_offshelved
		__os_feature_list __image_displayname __image_login_user __account_code __productcode __system_support_market __is_offshelved enterprise_project_id min_disk min_ram max_ram
		disk_format container_format visibility protected checksum virtual_size os_hash_algo os_hash_value os_hidden hw_disk_bus
		hw_machine_type hw_video_model hw_vif_model hw_scsi_model hw_qemu_guest_agent hw_rng_model hw_boot_menu hw_cdrom_bus os_distro
		os_version os_type os_admin_user os_secure_boot img_config_drive img_hv_type hypervisor_type vm_mode kernel_id ramdisk_id
		instance_uuid image_name image_id size file_format metering.image_id metering.imagetype metering.resourcespeccode vpc_id charging_mode
		owner owner_specified.openstack.md5 stores direct_url self schema file tags created_at updated_at image_tags`), otherFlags...) {
		properties[name] = "some value"
	}
	s, err := FromFlags(properties)
	require.NoError(t, err)
	assert.Zero(t, s)
}

// A mask that says other things than the flags is said, and the flags count.
func TestFromFlagsMaskAgainstFlags(t *testing.T) {
	for _, tt := range []struct {
		name string
		have Flags
		want Set
		says []string // the flags that differ
	}{
		{"claims more", Flags{"__support_kvm": "true", MaskProperty: (XenPVOps | KVMVirtio | CloudInit).Hex()}, KVMVirtio | CloudInit, []string{"__support_xen"}},
		{"claims less", Flags{"__support_kvm": "true", MaskProperty: "cloud-init"}, KVMVirtio | CloudInit, []string{"__support_kvm"}},
		{"other", Flags{"__support_kvm": "true", MaskProperty: "xen-pvops"}, KVMVirtio, []string{"__support_kvm", "__support_xen"}},
		{"other GPU", Flags{"__support_kvm_gpu_type": "V100", MaskProperty: "p100"}, V100, []string{"__support_kvm_gpu_type"}},
		{"no flags", Flags{MaskProperty: "0x4"}, 0, []string{"__support_kvm"}},
		{"other firmware", Flags{MaskProperty: "uefi"}, 0, []string{"hw_firmware_type"}},
		{"other server", Flags{MaskProperty: (Ironic | BMSNetworkConfig).Hex()}, 0, []string{"__support_o2m", "virtual_env_type"}},
		{"excludes itself", Flags{"__support_kvm_gpu_type": "V100", MaskProperty: (P100 | V100).Hex()}, V100, []string{"__support_kvm_gpu_type=V100"}},
	} {
		s, err := FromFlags(tt.have)
		var conflict *ConflictError
		require.ErrorAs(t, err, &conflict, tt.name)
		var names []string
		for _, c := range conflict.Conflicts {
			names = append(names, c.B)
			assert.NotEmpty(t, c.Reason)
		}
		assert.Equal(t, tt.says, names, tt.name)
		assert.Equal(t, tt.want, s, "%s: %v", tt.name, s)
	}
}

func TestFromFlagsUnknownArchitecture(t *testing.T) {
	s, err := FromFlags(Flags{"architecture": "s390x", "__support_kvm": "true"})
	var value *ValueError
	require.ErrorAs(t, err, &value)
	assert.Equal(t, "architecture", value.Name)
	assert.Equal(t, KVMVirtio, s)
}

func TestDiff(t *testing.T) {
	want, err := (KVMVirtio | XenPVOps | LargeMemory).Flags()
	require.NoError(t, err)
	have := Flags{
		"__support_kvm": "True", "__is_support_kvm": "true", "__support_xen_hana": "true", "___support_kvm_hana": "true",
		"__support_arm": "false", "__support_o3s": "true", "hw_firmware_type": "bios", "__os_type": "Linux",
		"virtual_env_type": "FusionCompute",
	}
	var lines []string
	for _, c := range Diff(want, have) {
		lines = append(lines, c.String())
	}
	assert.Equal(t, []string{
		"remove ___support_kvm_hana=true",
		"remove __support_xen_hana=true",
		"replace __support_kvm=True by true",
		"add __is_support_largememory=true",
		"add __is_support_xen=true",
		"add __support_largememory=true",
		"add __support_xen=true",
	}, lines)
	assert.Empty(t, Diff(want, want))

	one, err := Support.Flags(KVMVirtio)
	require.NoError(t, err)
	both, err := KVMVirtio.Flags()
	require.NoError(t, err)
	assert.Empty(t, Diff(one, both), "the other spelling agrees")
}

// badness are the exclusions that an image's properties break, the package's and
// those of the tests.
func badness(properties Flags) map[string]bool {
	out := make(map[string]bool)
	s, err := FromFlags(properties)
	list := s.Conflicts()
	var conflict *ConflictError
	if errors.As(err, &conflict) {
		list = append(list, conflict.Conflicts...)
	}
	for _, c := range list {
		out[c.A+" "+c.B] = true
	}
	is := func(name string) bool { return normal(properties[name]) != "" }
	for _, pair := range excluded {
		for _, a := range []string{pair[0], strings.Replace(pair[0], "__support", "__is_support", 1)} {
			for _, b := range []string{pair[1], strings.Replace(pair[1], "__support", "__is_support", 1)} {
				if is(a) && is(b) {
					out[a+" "+b] = true
				}
			}
		}
	}
	return out
}

// untidy changes properties as they are found in the wild, where they say the
// same: a spelling is gone, a flag is false, misspelt or in capitals.
func untidy(random *rand.Rand, properties Flags) Flags {
	out := maps.Clone(properties)
	for name, value := range properties {
		_, isFlag := strings.CutPrefix(name, "__is_support_")
		switch random.IntN(6) {
		case 0:
			if isFlag {
				delete(out, name)
			}
		case 1:
			if value == "true" {
				out[name] = "True"
			}
		case 2:
			out["_"+name] = value
		}
	}
	for _, r := range rules {
		if _, there := out[r.name]; !there && random.IntN(8) == 0 && r.value == "true" {
			out[r.name] = "false"
		}
	}
	return out
}

// Whatever an image has, the changes bring it to the wanted flags, and no state
// between breaks an exclusion that it did not break before.
func TestDiffLeadsToTheFlags(t *testing.T) {
	var sides []Flags
	random := rand.New(rand.NewPCG(3, 4)) // the same pairs on every run
	sets(t, func(s Set) {
		scheme := Scheme(random.IntN(3))
		want, err := scheme.Flags(s)
		if err != nil || random.IntN(3) > 0 {
			return
		}
		if s&(BIOS|UEFI) != 0 && random.IntN(2) == 0 { // else the firmware is left alone, whatever the mask says
			want[MaskProperty] = s.Hex()
		}
		sides = append(sides, want)
	})
	require.Greater(t, len(sides), 1000)
	steps := 0
	for range 1500 {
		want, before := sides[random.IntN(len(sides))], sides[random.IntN(len(sides))]
		if random.IntN(2) == 0 {
			before = untidy(random, before)
		}
		have, bad := maps.Clone(before), badness(before)
		changes := Diff(want, before)
		for i, c := range changes {
			steps++
			require.Equal(t, have[c.Name], c.From, "%v of %v", c, changes)
			if c.Op == Remove {
				delete(have, c.Name)
			} else {
				_, there := have[c.Name]
				require.Equal(t, c.Op == Replace, there, "%v of %v", c, changes)
				have[c.Name] = c.To
			}
			for broken := range badness(have) {
				require.True(t, bad[broken], "step %d of %v from %v to %v breaks %s", i+1, changes, before, want, broken)
			}
		}
		for name, value := range want {
			require.Equal(t, value, have[name])
		}
		require.Empty(t, Diff(want, have), "nothing is left to do")
		if _, ok := want["hw_firmware_type"]; ok {
			s, _ := FromFlags(want)
			got, _ := FromFlags(have)
			require.Equal(t, s&^Known, got&^Known)
			if _, ok := want[MaskProperty]; ok {
				require.Equal(t, s, got)
			}
		}
	}
	assert.Greater(t, steps, 5000)
}

func FuzzFromFlags(f *testing.F) {
	f.Add("__support_kvm", "true", "virtual_env_type", "Ironic")
	f.Add("___support_kvm_hana", " True", MaskProperty, "0xffffffffffffffff")
	f.Add("__is_support_kvm_gpu_type", "V100", "__support_kvm_gpu_type", "P100")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		have := Flags{name1: value1, name2: value2}
		s, err := FromFlags(have)
		if err != nil {
			return
		}
		flags, err := s.Flags()
		if err != nil {
			if !isConflict(err) {
				t.Fatal(err)
			}
			return
		}
		again, err := FromFlags(flags)
		if err != nil || again != s.Carried() {
			t.Fatalf("%v: %v, then %v, %v", have, s, again, err)
		}
	})
}
