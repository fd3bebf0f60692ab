package capabilities

import (
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFamilies(t *testing.T) {
	families := Families()
	require.Len(t, families, 35)
	seen := make(map[string]bool)
	for _, f := range families {
		for _, name := range append(f.Names, f.Family) {
			require.False(t, seen[name], "%s is there twice", name)
			seen[name] = true
			got, err := Lookup(name)
			require.NoError(t, err)
			assert.Equal(t, f.Family, got.Family)
			assert.Equal(t, name, got.Name)
		}
		switch f.Hypervisor {
		case Xen:
			assert.Equal(t, "FusionCompute", f.ExtraSpecs["ecs:virtualization_env_types"], f.Family)
		case KVM:
			assert.Equal(t, "CloudCompute", f.ExtraSpecs["ecs:virtualization_env_types"], f.Family)
		default:
			assert.Equal(t, BareMetal, f.Hypervisor)
			assert.Equal(t, "ironic", f.ExtraSpecs["resource_type"], f.Family)
		}
		for _, need := range f.Needs {
			assert.Zero(t, (need.AnyOf|need.NoneOf)&^Known)
			assert.NotZero(t, need.AnyOf|need.NoneOf)
		}
		assert.False(t, f.Explain(0).Accepted, "%s accepts an image that can do nothing", f.Family)
	}
	families[0].Needs[0] = Need{}
	families[0].ExtraSpecs["x"] = "y"
	assert.NotEqual(t, families[0], Families()[0], "a caller cannot change the data")
}

// filters are the flags by which the image factory's table says that each
// family is filtered.
var filters = map[string]Flags{
	"s1": {"__support_xen": "true"}, "c1": {"__support_xen": "true"}, "c2": {"__support_xen": "true"}, "m1": {"__support_xen": "true"},
	"computev1": {"__support_xen": "true"}, "computev2": {"__support_xen": "true"},
	"c3": {"__support_kvm": "true"}, "m2": {"__support_kvm": "true"}, "s2": {"__support_kvm": "true"}, "m3": {"__support_kvm": "true"},
	"d3": {"__support_kvm": "true"}, "d2": {"__support_kvm": "true"}, "s3": {"__support_kvm": "true"}, "c4": {"__support_kvm": "true"}, "m4": {"__support_kvm": "true"},
	"e1":          {"__support_largememory": "true"},
	"d1":          {"__support_diskintensive": "true"},
	"h1":          {"__support_highperformance": "true"},
	"e2":          {"__support_xen_hana": "true"},
	"e3":          {"__support_largememory": "true", "__support_kvm_hana": "true"},
	"h2":          {"__support_kvm_infiniband": "true"},
	"hl1":         {"__support_kvm_infiniband": "true"},
	"g1":          {"__support_xen_gpu_type": "M60_vGPU"},
	"g2":          {"__support_xen_gpu_type": "M60_GPU"},
	"p1":          {"__support_kvm_gpu_type": "P100"},
	"p2":          {"__support_kvm_gpu_type": "V100"},
	"p2v":         {"__support_kvm_gpu_type": "P2V_V100"},
	"g5":          {"__support_kvm_gpu_type": "V100_vGPU"},
	"g6":          {"__support_gpu_t4": "true"},
	"fp1":         {"__support_kvm_fpga_type": "VU9P"},
	"fp1c":        {"__support_kvm_fpga_type": "VU9P_COMMON"},
	"physical":    {"virtual_env_type": "Ironic", "__support_o2m": "true"},
	"physical.h2": {"virtual_env_type": "Ironic", "__support_h2l": "true"},
	"physical.p1": {"virtual_env_type": "Ironic", "__support_p1l": "true"},
	"physical.p2": {"virtual_env_type": "Ironic", "__support_p2l": "true"},
}

// hypervisorFlag is what an image needs besides where the family's filter does
// not imply the drivers of its hypervisor.
var hypervisorFlag = map[string]string{
	"e1": "__support_xen", "d1": "__support_xen", "h1": "__support_xen",
	"g6": "__support_kvm", "fp1": "__support_kvm", "fp1c": "__support_kvm",
}

// Each family accepts an image with its flags, and not with one less.
func TestFlagsAdmitToTheFlavor(t *testing.T) {
	require.Len(t, filters, len(Families()))
	for family, filter := range filters {
		flags := maps.Clone(filter)
		if name := hypervisorFlag[family]; name != "" {
			flags[name] = "true"
		}
		s, err := FromFlags(flags)
		require.NoError(t, err)
		v, err := Explain(s, family)
		require.NoError(t, err)
		assert.True(t, v.Accepted, "%s of %v misses %v", family, flags, v.Missing)
		for name := range flags {
			if name == "virtual_env_type" {
				continue // a flag of bare metal says it as well
			}
			fewer := maps.Clone(flags)
			delete(fewer, name)
			s, err := FromFlags(fewer)
			require.NoError(t, err)
			v, err := Explain(s, family)
			require.NoError(t, err)
			assert.False(t, v.Accepted, "%s without %s", family, name)
			assert.NotEmpty(t, v.Missing)
		}
	}
}

// What this package accepts passes the platform's filter, too.
func TestAcceptedImagesPassTheFilter(t *testing.T) {
	families, passed := Families(), 0
	sets(t, func(s Set) {
		flags, err := s.Flags()
		if err != nil {
			return
		}
		for _, f := range families {
			if !f.Explain(s).Accepted {
				continue
			}
			passed++
			for name, value := range filters[f.Family] {
				require.Equal(t, value, flags[name], "%v on %s", s, f.Family)
			}
		}
	})
	assert.Greater(t, passed, 1000)
}

func TestExplainNamesWhatIsMissing(t *testing.T) {
	for _, tt := range []struct {
		set     Set
		flavor  string
		missing string
	}{
		{KVMVirtio, "s1.medium", "xen-classic|xen-pvops"},
		{XenPVOps, "d1.xlarge", "disk-intensive ixgbevf"},
		{XenClassic | DiskIntensive | IXGBEVF, "d1.xlarge", ""},
		{HANAXen | IXGBEVF | XenSCSI | LargeMemory, "e1.xlarge", ""},
		{HANAXen, "e2.9xlarge", "ixgbevf xen-scsi"},
		{Ironic | BMSNetworkConfig | InfiniBand, "h2.3xlarge.10", "!ironic"},
		{Ironic | BMSNetworkConfig | InfiniBand, "physical.h2.large", ""},
		{KVMVirtio | ARM64 | UEFI, "s2.large.4", "!arm64"},
		{0, "physical.p1.large", "ironic bms-network-config infiniband p100"},
		{KVMVirtio, "fp1c.2xlarge.11", "fpga-vu9p-common"},
	} {
		v, err := Explain(tt.set, tt.flavor)
		require.NoError(t, err)
		names := make([]string, len(v.Missing))
		for i, need := range v.Missing {
			names[i] = need.String()
			text, err := need.MarshalText()
			require.NoError(t, err)
			var back Need
			require.NoError(t, back.UnmarshalText(text))
			assert.Equal(t, need, back)
		}
		assert.Equal(t, tt.missing, strings.Join(names, " "), "%v on %s", tt.set, tt.flavor)
		assert.Equal(t, tt.missing == "", v.Accepted)
		assert.Equal(t, tt.flavor, v.Name)
	}
}

func TestLookupUnknown(t *testing.T) {
	for name, near := range map[string]string{
		"s2.lage.4": "s2.large.4", "s2.large.3": "s2.large.4", "computev1-3": "computev1-1", "physical.h3.large": "physical.h2.large",
		"S2.large.4": "s2.large.4", "fp1.huge": "fp1", "s22.large.4": "s2.large.4",
	} {
		_, err := Lookup(name)
		var unknown *UnknownNameError
		require.ErrorAs(t, err, &unknown, name)
		assert.Equal(t, "flavor", unknown.Kind)
		assert.Contains(t, unknown.Nearest, near, name)
		_, err = Explain(0, name)
		require.Error(t, err)
		_, err = LiveMigration(name)
		require.Error(t, err)
	}
	_, err := Lookup(strings.Repeat("s2.large.4", 1<<16))
	assert.Error(t, err)
	_, err = Lookup("")
	assert.Error(t, err)
}

func TestLiveMigration(t *testing.T) {
	promised := map[string]bool{"s1": true, "c1": true, "c2": true, "m1": true, "s2": true, "m2": true, "computev1": true, "computev2": true}
	for _, f := range Families() {
		got, err := LiveMigration(f.Family)
		require.NoError(t, err)
		assert.Equal(t, promised[f.Family], got, f.Family)
	}
	got, err := LiveMigration("computev1-1")
	require.NoError(t, err)
	assert.True(t, got)
}

func TestDescribe(t *testing.T) {
	d, err := Describe(KVMVirtio|HANAKVM, "s2.large.4")
	require.NoError(t, err)
	assert.Equal(t, [][2]string{{"__support_kvm", "__support_kvm_hana"}}, d.Conflicts)
	assert.Empty(t, d.Flags)
	assert.False(t, d.Good())
	d, err = Describe(KVMVirtio, "s2.large.4")
	require.NoError(t, err)
	assert.True(t, d.Good())
	_, err = Describe(KVMVirtio, "s2.large.4", "nope")
	assert.Error(t, err)
	d, err = Describe(KVMVirtio)
	require.NoError(t, err)
	assert.Len(t, d.Flavors, 35)
	assert.Equal(t, len(Flavors(KVMVirtio)), accepted(d))
}

func accepted(d Description) (n int) {
	for _, v := range d.Flavors {
		if v.Accepted {
			n++
		}
	}
	return n
}
