package imagefactory

import (
	"fmt"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// verifyClaims holds what the definition claims against what was found in the
// machine that the image was booted as: the capabilities, and that forbidden
// packages are absent.
func (j *job) verifyClaims() error {
	d := j.def
	if d.Capabilities == 0 && len(d.Test.ForbiddenPackages) == 0 {
		return nil
	}
	e, err := evidence(j.facts, j.disk, d.OS.Arch)
	if err != nil {
		return err
	}
	if found := forbidden(d.Test.ForbiddenPackages, e.Packages); len(found) > 0 {
		return fmt.Errorf("forbidden packages are installed: %s", strings.Join(found, ", "))
	}
	if d.Capabilities == 0 {
		return nil
	}
	e.FirstBoot = d.FirstBoot
	return capabilities.Verify(d.Capabilities, e)
}

// evidence takes from the facts of a booted image and from its disk what shows
// its capabilities.
func evidence(facts testsuite.Facts, disk *guestdisk.Disk, arch string) (capabilities.Evidence, error) {
	e := capabilities.Evidence{Arch: arch}
	var firmware []string
	if disk.BootBIOS {
		firmware = append(firmware, string(guestdisk.BIOS))
	}
	if disk.BootUEFI {
		firmware = append(firmware, string(guestdisk.UEFI))
	}
	e.Firmware = strings.Join(firmware, " ")
	var err error
	lines := func(fact string) []string {
		text, factErr := facts.Text(fact)
		if factErr != nil && err == nil {
			err = factErr
		}
		return strings.Split(text, "\n")
	}
	// "initrd NAME.ko", or "builtin NAME.ko" for the kernel's own.
	for _, line := range lines("initrd") {
		if f := strings.Fields(line); len(f) == 2 && (f[0] == "initrd" || f[0] == "builtin") {
			e.InitrdModules = append(e.InitrdModules, f[1])
		}
	}
	e.Modules = append(e.Modules, e.InitrdModules...)
	// "NAME FILE VERSION"; FILE is "missing" where there is no such module.
	for _, line := range lines("modules") {
		if f := strings.Fields(line); len(f) >= 2 && f[1] != "missing" {
			e.Modules = append(e.Modules, f[0])
		}
	}
	// "STATUS NAME VERSION", where the status of what is installed is "ii" or,
	// for a package that is held, "hi".
	for _, line := range lines("packages") {
		if f := strings.Fields(line); len(f) == 3 && strings.HasSuffix(f[0], "i") {
			e.Packages = append(e.Packages, f[1])
		}
	}
	return e, err
}
