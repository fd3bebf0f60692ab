package sandbox_test

import (
	"context"
	"log"
	"os"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// Boots an image, holds it to the profile otc, and writes the report. It needs
// QEMU and an image, so it is compiled but not run here.
func ExampleQEMU_Boot() {
	ctx := context.Background()
	machine, err := sandbox.QEMU{}.Boot(ctx, sandbox.Image{Path: "Standard_Debian_12.qcow2", ConsoleLog: "console.log"})
	if err != nil {
		log.Fatal(err)
	}
	defer machine.Close()
	suite := testsuite.Suite{Profile: testsuite.OTC(), Params: testsuite.Params{
		Hostname:     machine.Hostname,
		DiskBytes:    machine.ImageBytes,
		OverlayBytes: machine.DiskBytes,
		NTPServers:   []string{"ntp01.otc-service.com", "ntp02.otc-service.com"},
		Repositories: []testsuite.Repository{
			{URL: "http://debmirror.otc-service.com/debian", Suites: []string{"bookworm", "bookworm-updates"}},
		},
		UVPMonitor: testsuite.UVPMonitor{State: testsuite.UVPOptional, Reason: "not in Debian's archive"},
	}}
	report, err := suite.Run(ctx, machine.Target)
	if err != nil {
		log.Print(err)
		return
	}
	if err := report.WriteText(os.Stdout); err != nil {
		log.Print(err)
	}
}
