package imagefactory_test

import (
	"fmt"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

func ExampleLookupImage() {
	e, err := imagefactory.LookupImage("Enterprise_SLES11_SP4_SAPHANA_latest")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.OSVersion)
	fmt.Println(e.Driver, e.DiskBytes, e.Capabilities)
	// Output:
	// SUSE Linux Enterprise Server 11 SP4 64bit
	// kiwi 96GiB ixgbevf|xen-scsi|large-memory|hana-xen|bios|uvp-monitor|cloud-init
}

func ExampleParseName() {
	n, err := imagefactory.ParseName("Standard_CentOS_7_134_20171211_0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(n.Class, n.System, n.Suffix.Build, n.Suffix.Date)
	fmt.Println(n.Latest())
	// Output:
	// Standard CentOS_7 134 20171211
	// Standard_CentOS_7_latest
}
