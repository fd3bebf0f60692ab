package capabilities_test

import (
	"fmt"
	"os"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
)

func Example() {
	s := capabilities.XenPVOps | capabilities.KVMVirtio | capabilities.IXGBEVF
	fmt.Println(s.Hex(), s)
	flags, err := capabilities.Support.Flags(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(flags)
	v, err := capabilities.Explain(s, "d1.xlarge")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(v.Name, v)
	// Output:
	// 0xe xen-pvops|kvm-virtio|ixgbevf
	// map[__support_kvm:true __support_xen:true virtual_env_type:FusionCompute]
	// d1.xlarge no, needs disk-intensive; no longer sold
}

func ExampleSet_Flags_conflict() {
	_, err := (capabilities.XenPVOps | capabilities.InfiniBand).Flags()
	fmt.Println(err)
	// Output:
	// cannot translate capabilities xen-pvops|infiniband: these exclude each other: __support_xen and __support_kvm_infiniband (the IMS API does not allow both)
}

func ExampleDiff() {
	want, err := capabilities.Support.Flags(capabilities.KVMVirtio)
	if err != nil {
		fmt.Println(err)
		return
	}
	have := capabilities.Flags{"__support_xen_hana": "true", "virtual_env_type": "FusionCompute", "__os_type": "Linux"}
	for _, change := range capabilities.Diff(want, have) {
		fmt.Println(change)
	}
	// Output:
	// remove __support_xen_hana=true
	// add __support_kvm=true
}

func ExampleVerify() {
	e := capabilities.Evidence{
		Modules:       []string{"virtio_net", "xen_netfront"},
		InitrdModules: []string{"virtio_pci", "virtio_blk"},
		Arch:          "x86_64",
	}
	fmt.Println(capabilities.Verify(capabilities.KVMVirtio|capabilities.XenPVOps, e))
	// Output:
	// cannot confirm capabilities: xen-pvops claimed but not found in the image, which has kvm-virtio|large-memory|hana-kvm|amd
}

// A flavor that the Open Telekom Cloud got after this package's sources, from
// its API's answer, beside one of the caller's own making.
func ExampleTable_Describe() {
	const answer = `{"flavors": [{"name": "n9.large.2", "os_extra_specs": {
		"ecs:virtualization_env_types": "CloudCompute", "ecs:performancetype": "gpu", "pci_passthrough:alias": "nvidia-v100:1"}}]}`
	table, findings, err := capabilities.ReadFlavors(strings.NewReader(answer), "")
	if err != nil {
		fmt.Println(err)
		return
	}
	table = append(table, capabilities.Flavor{Name: "own", Needs: []capabilities.Need{{AnyOf: capabilities.KVMVirtio}}})
	d, err := table.Describe(capabilities.KVMVirtio)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range d.Flavors {
		fmt.Println(v.Name, v)
	}
	fmt.Println(len(findings), "findings")
	// Output:
	// n9.large.2 no, needs v100
	// own yes
	// 0 findings
}

// What a registered image claims, and what stands beside the answer.
func ExampleTable_DescribeImage() {
	const answer = `{"volume": {"volume_image_metadata": {"image_name": "web", "__support_kvm": "true", "__support_kvm_gpu_type": "RTX5000"}}}`
	images, _, err := capabilities.ReadImages(strings.NewReader(answer))
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := capabilities.Families().DescribeImage(images[0], "s9.large.2", "g6.4xlarge.4")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := d.WriteText(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// image     web
	// mask      0x4
	// bits      kvm-virtio
	// flag      __is_support_kvm=true
	// flag      __support_kvm=true
	// flag      virtual_env_type=FusionCompute
	// finding   flavor g6.4xlarge.4: the needed flag is inferred from the name of __support_gpu_t4
	// finding   cannot read property __support_kvm_gpu_type: unknown value "RTX5000"; known are P100, V100, V100_vGPU, P2V_V100, M60
	// flavor    s9.large.2   yes
	// flavor    g6.4xlarge.4 no, needs t4
}

func ExampleFromFlags() {
	s, err := capabilities.FromFlags(capabilities.Flags{"__support_xen": "true", "___support_kvm": "true"})
	fmt.Println(s)
	fmt.Println(err)
	// Output:
	// xen-pvops
	// unknown flag "___support_kvm"; the nearest known are __support_kvm, __is_support_kvm, __support_arm
}
