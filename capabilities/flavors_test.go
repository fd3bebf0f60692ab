package capabilities

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFamilies(t *testing.T) {
	families := Families()
	assert.Len(t, families, 65)
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
			if f.Family == "c7t" {
				break
			}
			assert.Equal(t, "ironic", f.ExtraSpecs["resource_type"], f.Family)
		}
		for _, need := range f.Needs {
			assert.Zero(t, (need.AnyOf|need.NoneOf)&^Known)
		}
		assert.NotEmpty(t, f.Sources, f.Family)
		for _, source := range f.Sources {
			assert.Regexp(t, `^20[0-9]{2}-[0-9]{2}-[0-9]{2}: .+`, source)
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
	"g3":          {"__support_kvm_gpu_type": "M60"},
	"p2s":         {"__support_kvm_gpu_type": "V100"},
	"pi2":         {"__support_gpu_t4": "true"},
	"e6":          {"__support_largememory": "true"},
	"physical":    {"virtual_env_type": "Ironic", "__support_o2m": "true"},
	"physical.h2": {"virtual_env_type": "Ironic", "__support_h2l": "true"},
	"physical.p1": {"virtual_env_type": "Ironic", "__support_p1l": "true"},
	"physical.p2": {"virtual_env_type": "Ironic", "__support_p2l": "true"},

	"physical.s4":  {"virtual_env_type": "Ironic", "__support_o2m": "true", "__support_evs": "true"},
	"physical.i7n": {"virtual_env_type": "Ironic", "__support_o2m": "true", "hw_firmware_type": "uefi"},
}

// general are the families of today that every image for KVM runs on.
var general = strings.Fields("s7n s9 x1 x2 c7n c9 x1e x2e m7n m9 x1m x2m i3 i3m g7 g7v p3 p5e p5s pi5e")

// notOnRecord are the families of which a need is not.
var notOnRecord = strings.Fields("c7t physical.g1 physical.p3 physical.pi6")

func filterOf(family string) Flags {
	if slices.Contains(general, family) {
		return Flags{"__support_kvm": "true"}
	}
	return filters[family]
}

// hypervisorFlag is what an image needs besides where the family's filter does
// not imply the drivers of its hypervisor.
var hypervisorFlag = map[string]string{
	"e1": "__support_xen", "d1": "__support_xen", "h1": "__support_xen",
	"g6": "__support_kvm", "pi2": "__support_kvm", "e6": "__support_kvm", "fp1": "__support_kvm", "fp1c": "__support_kvm",
}

// Each family accepts an image with its flags, and not with one less.
func TestFlagsAdmitToTheFlavor(t *testing.T) {
	require.Len(t, Families(), len(filters)+len(general)+len(notOnRecord))
	for _, f := range Families() {
		family := f.Family
		if slices.Contains(notOnRecord, family) {
			v := f.Explain(Known &^ (ARM64 | DataImage | ISOImage))
			assert.Equal(t, "unknown", v.Answer, family)
			assert.Equal(t, []Need{{}}, v.Missing)
			continue
		}
		flags := maps.Clone(filterOf(family))
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
			filter := filterOf(f.Family)
			if f.Family == "g1" && s.Has(M60KVM) {
				filter = Flags{"__support_kvm_gpu_type": "M60"}
			}
			for name, value := range filter {
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

// Every name that the documentation has is known, and those that it offers today
// are on record and not withdrawn; nothing else is.
func TestLookupKnowsTheDocumentedNames(t *testing.T) {
	data, err := os.ReadFile("testdata/flavor-names.txt")
	require.NoError(t, err)
	sold, all := make(map[string]bool), 0
	for line := range strings.Lines(string(data)) {
		name, mark, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" || name == "#" {
			continue
		}
		all++
		f, err := Lookup(name)
		require.NoError(t, err)
		assert.Equal(t, name, f.Name)
		if mark == "*" {
			sold[name] = true
			assert.True(t, f.OnRecord() && !f.Withdrawn, name)
		}
	}
	assert.Equal(t, 372, all)
	assert.Len(t, sold, 330)
	for _, f := range Families() {
		for _, name := range f.Names {
			assert.Equal(t, sold[name], !f.Withdrawn, name)
		}
	}
}

// A size that is younger than the sources is answered as its family.
func TestLookupOfUnlistedSizes(t *testing.T) {
	for name, family := range map[string]string{
		"s9.32xlarge.2": "s9", "c3.2xlarge": "c3", "s2.small.1": "s2", "physical.s3.8xlarge": "physical", "physical.m2.3xlarge.8": "physical",
		"fp1c.2xlarge.11": "fp1c", "x2e.4slarge.4": "x2e", "physical.p2.xlarge": "physical.p2", "c7t.14xlarge.4.physical": "c7t",
	} {
		f, err := Lookup(name)
		require.NoError(t, err)
		assert.Equal(t, family, f.Family, name)
		assert.Equal(t, family == "fp1c", f.OnRecord(), name)
		d, err := Describe(KVMVirtio, name)
		require.NoError(t, err)
		assert.Equal(t, family != "fp1c", strings.Contains(strings.Join(d.Findings, "\n"), name+" is not on record"), "%v", d.Findings)
	}
	for _, name := range []string{"s22.large.4", "physical.large", "physical.p9.large", "s2.large.0", "s2.0large.4", "s2..large", ".large", "large", "s2.large.4000"} {
		_, err := Lookup(name)
		assert.Error(t, err, name)
	}
}

func TestLookupUnknown(t *testing.T) {
	for name, near := range map[string]string{
		"s2.lage.4": "s2.large.4", "s2.large.4.linux": "s2.large.4", "computev1-3": "computev1-1", "physical.h3.large": "physical.h2.large",
		"S2.large.4": "s2.large.4", "fp1.huge": "fp1", "s22.large.4": "s2.large.4",
	} {
		_, err := Lookup(name)
		var unknown *UnknownNameError
		require.ErrorAs(t, err, &unknown, name)
		assert.Equal(t, "flavor", unknown.Kind)
		assert.Contains(t, unknown.Nearest, near, name)
		_, err = Explain(0, name)
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
		assert.Equal(t, promised[f.Family], f.LiveMigration, f.Family)
	}
	v, err := Explain(XenPVOps, "computev1-1")
	require.NoError(t, err)
	assert.True(t, v.LiveMigration)
}

// A caller's own table, and the zero values of what is in it.
func TestTableOfTheCaller(t *testing.T) {
	own := Table{{Name: "tiny", Hypervisor: KVM, Needs: []Need{{AnyOf: KVMVirtio}}}, {Name: "odd"}}
	d, err := own.Describe(KVMVirtio)
	require.NoError(t, err)
	assert.Equal(t, []Verdict{
		{Name: "tiny", Answer: "yes", Accepted: true, Missing: []Need{}},
		{Name: "odd", Answer: "unknown", Missing: []Need{{}}},
	}, d.Flavors)
	var text strings.Builder
	require.NoError(t, d.WriteText(&text))
	assert.Contains(t, text.String(), "unknown, needs something that is not on record")
	assert.False(t, d.Good())
	d, err = own.Describe(0, "tiny")
	require.NoError(t, err)
	assert.Equal(t, "no", d.Flavors[0].Answer)
	_, err = own.Describe(0, "tinny")
	var unknown *UnknownNameError
	require.ErrorAs(t, err, &unknown)
	assert.Equal(t, "tiny", unknown.Nearest[0])

	_, err = Table{}.Describe(KVMVirtio)
	assert.ErrorContains(t, err, "no flavors")
	_, err = Table{{}}.Describe(KVMVirtio)
	assert.ErrorContains(t, err, "has no name")
	_, err = Table{{}}.Lookup("")
	assert.Error(t, err)
	_, err = Table(nil).Lookup("s2")
	assert.Error(t, err)
	assert.False(t, Need{}.Met(^Set(0)))
	assert.False(t, Description{}.Good(), "nothing was described")
	require.NoError(t, Description{}.WriteText(&text))
	assert.Equal(t, "unknown", Verdict{}.String())
	assert.NotEmpty(t, Change{}.String())
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
	assert.Len(t, d.Flavors, len(Families()))
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
