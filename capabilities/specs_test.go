package capabilities

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func needs(f Flavor) string {
	var names []string
	for _, need := range f.Needs {
		if text := need.String(); text != "!arm64" && text != "!ironic|data-image|iso-image" && text != "!data-image|iso-image" {
			names = append(names, text)
		}
	}
	return strings.Join(names, " ")
}

// One flavor, as each API and tool shows it.
func TestReadFlavors(t *testing.T) {
	const specs = `"ecs:performancetype": "normal", "ecs:virtualization_env_types": "CloudCompute", "quota:max_rate": "1000"`
	for name, text := range map[string]string{
		"Nova":                          `{"flavor": {"id": "n1.large", "name": "n1.large", "ram": 4096, "swap": "", "links": [], "extra_specs": {` + specs + `}}}`,
		"Nova, list":                    `{"flavors": [{"name": "n1.large", "extra_specs": {` + specs + `}}]}`,
		"Elastic Cloud Server":          `{"flavors": [{"id": "n1.large", "name": "n1.large", "vcpus": "8", "rxtx_cap": null, "os_extra_specs": {` + specs + `}}]}`,
		"openstack flavor show":         `{"OS-FLV-DISABLED:disabled": false, "access_project_ids": null, "name": "n1.large", "properties": {` + specs + `}}`,
		"openstack flavor show, 2019":   `{"name": "n1.large", "properties": "ecs:performancetype='normal', ecs:virtualization_env_types='CloudCompute', quota:max_rate='1000'"}`,
		"openstack flavor list --long":  `[{"ID": "n1.large", "Name": "n1.large", "RAM": 4096, "Properties": {` + specs + `}}]`,
		"os-extra_specs":                `{"extra_specs": {` + specs + `}}`,
		"a plain object":                `{` + specs + `}`,
		"a flavor embedded in a server": `{"flavor": {"original_name": "n1.large", "extra_specs": {` + specs + `}}}`,
	} {
		table, findings, err := ReadFlavors(strings.NewReader(text), "n1.large")
		require.NoError(t, err, name)
		require.Len(t, table, 1, name)
		assert.Empty(t, findings, name)
		assert.Equal(t, "n1.large", table[0].Name, name)
		assert.Equal(t, KVM, table[0].Hypervisor, name)
		assert.Equal(t, "kvm-virtio", needs(table[0]), name)
		assert.Equal(t, "1000", table[0].ExtraSpecs["quota:max_rate"], name)
		assert.True(t, table[0].Explain(KVMVirtio).Accepted)
		assert.False(t, table[0].Withdrawn)
	}
	table, _, err := ReadFlavors(strings.NewReader(`{"extra_specs": {}}`), "")
	require.NoError(t, err)
	assert.Equal(t, "unnamed", table[0].Name)
}

func TestFlavorOf(t *testing.T) {
	for _, tt := range []struct {
		name  string
		specs string // k=v, separated by spaces
		needs string
		finds []string // what each finding has
	}{
		{"n1.large", "ecs:virtualization_env_types=FusionCompute ecs:performancetype=normal", "xen-classic|xen-pvops", nil},
		{"n1.large", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=highmem hw:numa_nodes=2", "kvm-virtio", nil},
		{"n1", "ecs:performancetype=computingv3 resource_type=IOoptimizedC3_2", "kvm-virtio", []string{"taken as KVM"}},
		{"n1", "", "kvm-virtio", []string{"taken as KVM", "taken as a general one"}},
		{"n1", "ecs:virtualization_env_types=VMware ecs:performancetype=normal", "unknown", []string{`unknown hypervisor "VMware"`}},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=quantum", "kvm-virtio unknown", []string{`unknown kind of flavor "quantum"`}},
		{"n1", "ecs:virtualization_env_types=FusionCompute ecs:performancetype=diskintensive quota:local_disk=HDD:12:1675:True", "xen-classic|xen-pvops disk-intensive ixgbevf", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=diskintensive quota:local_disk=HDD", "kvm-virtio", []string{"documented form"}},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=normal quota:nvme_ssd=1.6T:large:x:1600:True", "kvm-virtio", []string{"number of disks"}},
		{"n1", "ecs:virtualization_env_types=FusionCompute ecs:performancetype=highcpu", "xen-classic|xen-pvops high-performance ixgbevf", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=highcpu", "infiniband", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=saphana", "hana-kvm large-memory", nil},
		{"n1", "ecs:virtualization_env_types=FusionCompute ecs:performancetype=saphana", "hana-xen ixgbevf xen-scsi", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=fpga", "kvm-virtio unknown", []string{"which FPGA"}},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=gpu pci_passthrough:alias=nvidia-p100:1", "p100 !uefi", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute pci_passthrough:enable_gpu=true pci_passthrough:alias=nvidia-v100:8", "v100 !uefi", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=gpu pci_passthrough:alias=nvidia-t4:1", "kvm-virtio t4 !uefi", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=gpu pci_passthrough:alias=nvidia-a30:1", "kvm-virtio !uefi", []string{`the GPU "nvidia-a30:1"`}},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=gpu", "kvm-virtio unknown !uefi", []string{"which GPU"}},
		{"n1", "ecs:virtualization_env_types=FusionCompute ecs:performancetype=gpu pci_passthrough:gpu_specs=m60_1q:virt:1", "m60-vgpu !uefi", nil},
		{"n1", "ecs:virtualization_env_types=FusionCompute ecs:performancetype=gpu pci_passthrough:gpu_specs=m60:direct_graphics:1", "m60 ixgbevf !uefi", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=gpu pci_passthrough:gpu_specs=v100_8q:virt:1", "v100-vgpu !uefi", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=gpu pci_passthrough:gpu_specs=m60:direct:1", "m60-kvm !uefi", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=normal capabilities:cpu_arch=aarch64", "kvm-virtio arm64", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=normal capabilities:cpu_arch=mips", "kvm-virtio unknown", []string{`architecture "mips"`}},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=normal cond:operation:status=half", "kvm-virtio", []string{`unknown status "half"`}},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=normal vendor:magic=1", "kvm-virtio", []string{`unknown extra spec "vendor:magic"`}},
		{"physical.x1.large", "resource_type=ironic capabilities:cpu_arch=x86_64", "ironic bms-network-config", nil},
		{"physical.x1.large", "capabilities:hypervisor_type=ironic capabilities:board_type=o2m baremetal:extBootType=Volume", "ironic bms-network-config scsi-ep-front", nil},
		{"physical.x1.large", "capabilities:hypervisor_type=ironic capabilities:board_type=p2l baremetal:__support_evs=true", "ironic bms-network-config infiniband v100", nil},
		{"physical.x1.large", "capabilities:hypervisor_type=ironic capabilities:board_type=h2l capabilities:cpu_arch=aarch64", "ironic bms-network-config infiniband arm64", nil},
		{"physical.x1.large", "capabilities:hypervisor_type=ironic capabilities:board_type=z9", "ironic bms-network-config unknown", []string{`board type "z9"`}},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=gpu info:gpu:name=1*NVIDIA-Tesla-V100", "v100 !uefi", nil},
		{"n1", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=normal ecs:instance_architecture=arm64 hpet_support=true", "kvm-virtio arm64", nil},
		// What the specs leave open comes from the family.
		{"p2v.32xlarge.8", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=gpu pci_passthrough:alias=nvidia-v100:16", "p2v-v100 !uefi", nil},
		{"n1", "ecs:generation=h2", "infiniband", nil},
		{"physical.h2.large", "resource_type=ironic", "ironic bms-network-config infiniband", nil},
		{"n1", "ecs:generation=s3 ecs:virtualization_env_types=CloudCompute ecs:performancetype=gpu pci_passthrough:alias=nvidia-t4:1", "kvm-virtio t4 !uefi", []string{"the family s3 is of kind normal"}},
		{"s9.large.2", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=normal_s9", "kvm-virtio", nil},
		{"s1.large", "ecs:virtualization_env_types=CloudCompute ecs:performancetype=normal", "kvm-virtio", []string{"the family s1 runs on Xen"}},
	} {
		specs := make(map[string]string)
		for pair := range strings.FieldsSeq(tt.specs) {
			key, value, _ := strings.Cut(pair, "=")
			specs[key] = value
		}
		f, findings := FlavorOf(tt.name, specs)
		assert.Equal(t, tt.needs, needs(f), "%s of %s", tt.name, tt.specs)
		require.Len(t, findings, len(tt.finds), "%s: %v", tt.specs, findings)
		for i, says := range tt.finds {
			assert.Contains(t, findings[i], says, tt.specs)
		}
	}
}

// The specs on record of each family lead to its needs.
func TestFlavorOfEachFamily(t *testing.T) {
	for _, f := range Families() {
		if f.Family == "c7t" {
			continue // it has none
		}
		got, findings := FlavorOf(f.Name, f.ExtraSpecs)
		assert.Empty(t, findings, f.Family)
		assert.ElementsMatch(t, f.Needs, got.Needs, f.Family)
		assert.Equal(t, f.Hypervisor, got.Hypervisor)
		assert.Equal(t, f.LiveMigration, got.LiveMigration)
		assert.False(t, got.Withdrawn, "who has its specs can have it")
	}
}

func TestFlavorOfStatusAndHardware(t *testing.T) {
	f, findings := FlavorOf("n1", map[string]string{
		"ecs:virtualization_env_types": "CloudCompute", "ecs:performancetype": "normal", "cond:operation:status": "sellout",
		"quota:local_disk": "HDD:12:1675:True", "quota:nvme_ssd": "1.6T:large:2:1600:True",
	})
	assert.Empty(t, findings)
	assert.True(t, f.Withdrawn)
	assert.Equal(t, "12 local disks, 2 local NVMe disks", f.Hardware)
}

// The specs of a flavor as the cloud answered with them.
func TestFlavorOfARecordedFlavor(t *testing.T) {
	f, findings := FlavorOf("s2.medium.1", map[string]string{
		"cond:compute": "autorecovery", "cond:operation:az": "az01(normal),az02(normal),az03(normal)", "cond:operation:status": "abandon",
		"ecs:generation": "s3", "ecs:performancetype": "normal", "ecs:virtualization_env_types": "CloudCompute", "hw:cpu_cores": "1",
		"hw:numa_nodes": "1", "quota:conn_limit_total": "1000000", "quota:vif_max_num": "12", "resource_type": "IOoptimizedS2",
		"sched:policy": "flat_balance",
	})
	assert.Empty(t, findings)
	assert.False(t, f.Withdrawn, "a zone has it")
	assert.Equal(t, "kvm-virtio", needs(f))
	assert.True(t, f.LiveMigration)
}

func TestReadFlavorsRefuses(t *testing.T) {
	for input, says := range map[string]string{
		``:                                "cannot read flavors: not JSON at byte 0",
		`null`:                            "want a JSON object",
		`{"itemNotFound": {"code": 404}}`: "nothing in it is an extra spec",
		`{"images": [{"name": "x"}]}`:     "nothing in it is an extra spec",
		`{}`:                              "nothing in it is an extra spec",
		`[` + strings.Repeat(`{"name":"x"},`, maxItems) + `{"name":"x"}]`: "more than 10000 entries",
		`{"flavors": []}`:                       "the list is empty",
		`[1]`:                                   "entry 1 of the list",
		`{"extra_specs": {"a": "1", "a": "2"}}`: "twice, with different values",
		`{"flavors": [{"name": "x", "properties": "a='b"}]}`:              "cannot read flavor 1",
		`{"extra_specs": {"b": "` + strings.Repeat("b", maxInput) + `"}}`: "more than",
	} {
		_, _, err := ReadFlavors(strings.NewReader(input), "x")
		require.Error(t, err, "%.60s", input)
		assert.Contains(t, err.Error(), says)
	}
}

func FuzzReadFlavors(f *testing.F) {
	f.Add(`{"flavors": [{"name": "a", "os_extra_specs": {"ecs:performancetype": "gpu", "pci_passthrough:alias": "nvidia-p100:1"}}]}`)
	f.Add(`{"properties": "resource_type='ironic', capabilities:board_type=o2m"}`)
	f.Fuzz(func(t *testing.T, text string) {
		table, findings, err := ReadFlavors(strings.NewReader(text), "x")
		if err != nil {
			return
		}
		d, err := table.Describe(KVMVirtio)
		if err != nil {
			t.Fatal(err)
		}
		d.Findings = findings
		var out strings.Builder
		if err := d.WriteText(&out); err != nil || strings.ContainsAny(out.String(), "\x00\x1b\r") {
			t.Fatalf("%q, %v", out.String(), err)
		}
	})
}
