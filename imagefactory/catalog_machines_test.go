package imagefactory

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// machines2019 is testdata/machines-2019.yaml.
type machines2019 struct {
	Kernels map[string]kernel2019 `yaml:"kernels"`
	Systems map[string]struct {
		Kernel       kernel2019 `yaml:"kernel"`
		Packages     []string   `yaml:"packages"`
		Repositories []string   `yaml:"repositories"`
		SAP          []string   `yaml:"sap"`
	} `yaml:"systems"`
	Variants map[string]struct {
		Modules      []string `yaml:"modules"`
		Packages     []string `yaml:"packages"`
		Without      []string `yaml:"without"`
		Repositories int      `yaml:"repositories"`
		LVM          bool     `yaml:"lvm"`
		SAP          bool     `yaml:"sap"`
	} `yaml:"variants"`
	ShownBy map[string][][]string `yaml:"shown_by"`
}

type kernel2019 struct {
	BuiltIn []string `yaml:"builtin"`
	Initrd  []string `yaml:"initrd"`
	Modules []string `yaml:"modules"`
}

func readMachines(t *testing.T) machines2019 {
	t.Helper()
	data, err := os.ReadFile("testdata/machines-2019.yaml")
	require.NoError(t, err)
	var m machines2019
	require.NoError(t, yaml.UnmarshalWithOptions(data, &m, yaml.Strict()))
	return m
}

// A machine is a server that runs on an image.
type machine struct {
	kernel2019
	packages     []string
	repositories []string
	lvm, uefi    bool
}

func (m machines2019) boot(t *testing.T, image Name) machine {
	t.Helper()
	for name, system := range m.Systems {
		if !strings.HasPrefix(image.System+"_", name+"_") && !strings.HasPrefix(image.System, name+".") && !strings.HasPrefix(image.System, name+"UEK") {
			continue
		}
		out := machine{kernel2019: system.Kernel, packages: slices.Clone(system.Packages), repositories: slices.Clone(system.Repositories)}
		out.Modules = slices.Clone(out.Modules)
		for _, part := range image.Variants() {
			v := m.Variants[part]
			out.Modules = append(out.Modules, v.Modules...)
			out.packages = append(out.packages, v.Packages...)
			out = out.without(v.Without...)
			out.lvm = out.lvm || v.LVM
			if v.Repositories > 0 {
				out.repositories = out.repositories[:v.Repositories]
			}
			// The image of SLES 11 that was once called SAP is not built from
			// SLES for SAP.
			if v.SAP && image.System != "SLES11_SP4_SAP" {
				out.repositories = append(out.repositories, system.SAP...)
			}
		}
		return out
	}
	require.Fail(t, "no machine is known for "+image.String())
	return machine{}
}

// without takes modules and packages away.
func (m machine) without(names ...string) machine {
	drop := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool {
			return slices.Contains(names, s) || slices.Contains(names, strings.ReplaceAll(s, "-", "_"))
		})
	}
	m.BuiltIn, m.Initrd, m.Modules, m.packages = drop(m.BuiltIn), drop(m.Initrd), drop(m.Modules), drop(m.packages)
	return m
}

const overlay = 200 << 30 // more than any image's disk

// facts are what the test suite gathers on such a machine.
func (m machine) facts() testsuite.Facts {
	var initrd, modules, packages, sources strings.Builder
	for _, name := range m.BuiltIn {
		fmt.Fprintf(&initrd, "builtin %s.ko\n", name)
	}
	for _, name := range m.Initrd {
		fmt.Fprintf(&initrd, "initrd %s.ko\n", name)
	}
	for _, name := range slices.Concat(m.Initrd, m.Modules) {
		fmt.Fprintf(&modules, "%s /lib/modules/k/%s.ko 1\n", strings.ReplaceAll(name, "-", "_"), name)
	}
	for _, name := range m.packages {
		fmt.Fprintf(&packages, "ii %s 1-1\n", name)
	}
	sources.WriteString("### /etc/repositories\n")
	for _, url := range m.repositories {
		if !strings.Contains(url, "://") {
			url = "http://smt01-suse.otc-service.com/repo/" + url
		}
		fmt.Fprintf(&sources, "baseurl=%s/\ngpgcheck=1\n", url)
	}
	// A system without systemd shows no units.
	agents := ""
	if slices.Contains(m.packages, "uvp-monitor") {
		agents = "package ii uvp-monitor 1-1\nfile /usr/bin/uvp-monitor uvp-monitor\nfile /etc/init.d/uvp-monitor uvp-monitor\n" +
			"starts /etc/rc3.d/S50uvp-monitor\nprocess 2 uvp-monitor /usr/bin/uvp-monitor\nprocess 3 uvp-monitor /usr/bin/uvp-monitor\n"
	}
	disk := fmt.Sprintf("source /dev/vda1\nfstype ext4\nfilesystem-bytes %d\ndisk-bytes %d\n", overlay/100*98, overlay)
	boot := "### /proc/cmdline\nroot=LABEL=ROOT\n### /etc/fstab\nLABEL=ROOT / ext4 defaults 1 1\n"
	if m.lvm { // the volume is as large as it was made
		disk = "source /dev/mapper/systemVG-LVRoot\nfstype ext4\nfilesystem-bytes 8000000000\n"
		boot = "### /proc/cmdline\nroot=/dev/systemVG/LVRoot\n### /etc/fstab\n/dev/systemVG/LVRoot / ext4 defaults 1 1\n"
	}
	out := make(map[string]testsuite.Fact)
	for name, text := range map[string]string{
		"architecture": "kernel x86_64\npackages x86_64\n", "initrd": initrd.String(), "modules": modules.String(), "packages": packages.String(), "package-sources": sources.String(),
		"agents": agents, "disk": disk, "boot": boot, "apt-targets": "no apt\n", "apt-config": "no apt\n", "package-options": "",
	} {
		out[name] = testsuite.Fact{Output: text}
	}
	return testsuite.Facts{Facts: out}
}

// ofTheCatalog are the checks whose verdict depends on what the catalog says.
var ofTheCatalog = []string{
	"disk.root-grown", "disk.root-by-name", "drivers.xen", "drivers.virtio", "drivers.ixgbevf", "uvp.monitor",
	"updates.repositories", "updates.verified", "packages.required",
}

// bad are the checks of the catalog that did not pass.
func bad(t *testing.T, d *Definition, m machine) []string {
	t.Helper()
	parts, err := (&Factory{}).parts()
	require.NoError(t, err)
	suite, err := parts.suite(d, nil)
	require.NoError(t, err)
	suite.Params.OverlayBytes = overlay
	report, err := suite.Judge(m.facts())
	require.NoError(t, err)
	var out []string
	judged := 0
	for _, c := range report.Checks {
		if !slices.Contains(ofTheCatalog, c.ID) {
			continue
		}
		judged++
		if c.Status != testsuite.Pass && c.Status != testsuite.Skipped {
			out = append(out, fmt.Sprintf("%s: %s: want %s, found %s%s", c.ID, c.Status, c.Expected, c.Found, c.Reason))
		}
	}
	require.Equal(t, len(ofTheCatalog), judged)
	return out
}

func claims(d *Definition, m machine) error {
	p := &product{def: d}
	return p.verifyClaims(m.facts(), &guestdisk.Disk{BootBIOS: !m.uefi, BootUEFI: m.uefi})
}

// demands are the definition's findings about the packages of a machine.
func demands(t *testing.T, d *Definition, m machine) string {
	t.Helper()
	packages, err := installedIn(m.facts())
	require.NoError(t, err)
	var out []string
	for _, f := range d.packageFindings(packages) {
		out = append(out, f.Text)
	}
	return strings.Join(out, "\n")
}

// registrations are the definitions of an entry: with its capabilities, and
// with each of the alternatives.
func registrations(t *testing.T, e CatalogEntry) []*Definition {
	t.Helper()
	var out []*Definition
	for _, s := range append([]capabilities.Set{e.Capabilities}, e.Alternatives...) {
		d := e.Definition()
		d.Capabilities = s
		if e.Driver == "" {
			d.Builder = Component{Driver: "existing", Config: map[string]any{}}
		}
		require.NoError(t, d.Complete(), e.Name)
		out = append(out, &d)
	}
	return out
}

// Each image passes its own checks with what such an image truly has, and fails
// them when something that the catalog says of it is taken away.
func TestEntriesPassTheirOwnChecks(t *testing.T) {
	data := readMachines(t)
	tried := make(map[capabilities.Set]int)
	for _, e := range Catalog() {
		if e.Distribution == windows {
			continue // nothing looks into these
		}
		m := data.boot(t, e.Name)
		for _, d := range registrations(t, e) {
			assert.NoError(t, claims(d, m), e.Name)
			assert.Empty(t, bad(t, d, m), e.Name)

			firmware := m
			firmware.uefi = true
			assert.ErrorContains(t, claims(d, firmware), "bios claimed", e.Name)
			for _, claim := range (d.Capabilities &^ (capabilities.BIOS | capabilities.Undetectable)).Bits() {
				ways := data.ShownBy[claim.String()]
				require.NotEmpty(t, ways, claim)
				for _, way := range ways {
					var unproven *capabilities.UnprovenError
					if assert.ErrorAs(t, claims(d, m.without(way...)), &unproven, "%s: %s without %v", e.Name, claim, way) {
						assert.True(t, unproven.Unproven.Has(claim), "%s: %s without %v: %v", e.Name, claim, way, unproven)
					}
					tried[claim]++
				}
			}
			for _, name := range relationNames(e.RequiredPackages) {
				assert.Contains(t, strings.Join(bad(t, d, m.without(name)), "\n"), "packages.required: fail", "%s without %s", e.Name, name)
			}
			fewer := m
			fewer.repositories = slices.DeleteFunc(slices.Clone(m.repositories), func(s string) bool { return s == m.repositories[0] })
			fewer.repositories = append(fewer.repositories, "http://other.example")
			assert.Contains(t, strings.Join(bad(t, d, fewer), "\n"), "updates.repositories: fail", e.Name)
			other := m
			other.lvm = !m.lvm
			assert.NotEmpty(t, bad(t, d, other), "%s with the root file system elsewhere", e.Name)
		}
	}
	for name := range data.ShownBy {
		s, err := capabilities.Parse(name)
		require.NoError(t, err)
		assert.NotZero(t, tried[s], "no image claims %s", name)
	}
}

// Red Hat's images have none of the factory's packages, in whichever version,
// and do have those of Red Hat that are called alike.
func TestRedHatForbidsByPattern(t *testing.T) {
	data := readMachines(t)
	for _, name := range []string{"Enterprise_RedHat_6", "Enterprise_RedHat_7"} {
		e, err := LookupImage(name)
		require.NoError(t, err)
		d := registrations(t, e)[0]
		m := data.boot(t, e.Name)
		require.NoError(t, claims(d, m))
		require.Empty(t, demands(t, d, m))
		assert.Equal(t, testsuite.UVPForbidden, d.UVPMonitor.State)
		for _, foreign := range []string{
			"uvp-monitor", "libxenstore_uvp3_0", "kmod-uvpmod", "kmod-ixgbevf", "kmod-ixgbevf216", "kmod-ixgbevf453", "ixgbevf216", "ixgbevf453",
			"bms-network-config", "bms-network-setup", "scsi_ep_front", "kmod-scsi_ep_front", "otc-tools", "otc-tools-extra",
		} {
			with := m
			with.packages = append(slices.Clone(m.packages), foreign)
			assert.Contains(t, demands(t, d, with), foreign+" 1-1 is installed", name)
		}
	}
}
