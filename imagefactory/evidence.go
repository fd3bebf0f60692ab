package imagefactory

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// verifyClaims holds what the definition claims against what was found in the
// machine that the image was booted as: the architecture and the capabilities.
func (p *product) verifyClaims(facts testsuite.Facts, disk *guestdisk.Disk) error {
	d := p.def
	e, err := EvidenceFrom(facts, disk, d.OS.Arch)
	if err != nil {
		return err
	}
	if d.Capabilities == 0 {
		return nil
	}
	e.FirstBoot = d.FirstBoot
	return capabilities.Verify(d.Capabilities, e)
}

// evidenceFacts are the facts that EvidenceFrom reads.
var evidenceFacts = []string{"architecture", "initrd", "modules", "packages"}

// EvidenceFrom takes from the facts of a booted image and from its disk what
// shows its capabilities. The architecture is that of the kernel that ran: arch,
// which is what somebody claims, is only compared with it, as are the packages'
// and the boot loaders' on the disk, and it is an error if one of them is for
// another machine. If arch is empty nothing is claimed; if disk is nil nothing
// is known of it, and no firmware is shown. The facts that it needs are
// architecture, initrd, modules and packages; one that is missing is a
// *testsuite.FactError.
func EvidenceFrom(facts testsuite.Facts, disk *guestdisk.Disk, arch string) (capabilities.Evidence, error) {
	if disk == nil {
		disk = new(guestdisk.Disk)
	}
	var e capabilities.Evidence
	var firmware []string
	if disk.BootBIOS {
		firmware = append(firmware, string(guestdisk.BIOS))
	}
	if disk.BootUEFI {
		firmware = append(firmware, string(guestdisk.UEFI))
	}
	e.Firmware = strings.Join(firmware, " ")
	var errs []error
	lines := func(fact string) []string {
		text, err := facts.Text(fact)
		errs = append(errs, err)
		return strings.Split(text, "\n")
	}
	guest := map[string]string{}
	for _, line := range lines("architecture") {
		if f := strings.Fields(line); len(f) == 2 {
			guest[f[0]] = goArch(f[1])
		}
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
	// "STATUS NAME VERSION ARCH", where the status of what is installed is "ii" or,
	// for a package that is held, "hi". Facts of before had no architecture.
	for _, line := range lines("packages") {
		if f := strings.Fields(line); len(f) >= 3 && strings.HasSuffix(f[0], "i") {
			e.Packages = append(e.Packages, f[1])
		}
	}
	if err := errors.Join(errs...); err != nil {
		return e, err
	}
	e.Arch = guest["kernel"]
	return e, checkArch(goArch(arch), guest, disk)
}

// checkArch reports an architecture that nothing tells, and all that is for
// another one than it should be.
func checkArch(claimed string, guest map[string]string, disk *guestdisk.Disk) error {
	kernel := guest["kernel"]
	if kernel == "" {
		return &testsuite.FactError{Fact: "architecture", Reason: "it does not tell the kernel's"}
	}
	var errs []error
	if claimed != "" && claimed != kernel {
		errs = append(errs, fmt.Errorf("the image should be for %s, but its kernel is for %s", claimed, kernel))
	}
	if packages := guest["packages"]; packages != "" && packages != kernel {
		errs = append(errs, fmt.Errorf("the image's kernel is for %s, but its packages are for %s", kernel, packages))
	}
	loaders := slices.Clone(disk.EFIArchs)
	if disk.BootBIOS { // which only PCs have
		loaders = append(loaders, "amd64", "386")
	}
	if len(loaders) > 0 && !slices.Contains(loaders, kernel) {
		errs = append(errs, fmt.Errorf("the image's kernel is for %s, but its boot loaders are for %s", kernel, strings.Join(loaders, ", ")))
	}
	return errors.Join(errs...)
}

// goArch is Go's name of an architecture that uname, dpkg or rpm names.
func goArch(name string) string {
	switch name = strings.ToLower(name); name {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i486", "i586", "i686":
		return "386"
	}
	return name
}
