package capabilities_test

import (
	"fmt"

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
	// d1.xlarge no, needs disk-intensive
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
