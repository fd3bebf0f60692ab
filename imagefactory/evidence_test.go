package imagefactory

import (
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// debian12 are the facts that were recorded from a Debian 12 in the sandbox.
func debian12() testsuite.Facts { return testsuite.Facts{Facts: sandboxtest.Good()} }

func without(t *testing.T, facts testsuite.Facts, name, text string) testsuite.Facts {
	t.Helper()
	facts.Facts = maps.Clone(facts.Facts)
	fact := facts.Facts[name]
	require.Contains(t, fact.Output, text)
	fact.Output = strings.ReplaceAll(fact.Output, text, "")
	facts.Facts[name] = fact
	return facts
}

func TestEvidenceOfARecordedMachine(t *testing.T) {
	e, err := EvidenceFrom(debian12(), &guestdisk.Disk{BootBIOS: true}, "amd64")
	require.NoError(t, err)
	s := capabilities.Detect(e)
	const want = capabilities.XenPVOps | capabilities.KVMVirtio | capabilities.IXGBEVF | capabilities.NVMe | capabilities.LargeMemory |
		capabilities.DiskIntensive | capabilities.HighPerformance | capabilities.BIOS | capabilities.AMD | capabilities.CloudInit
	assert.Equal(t, want, s&want, s.String())
	assert.Zero(t, s&(capabilities.UVPMonitor|capabilities.Ironic|capabilities.UEFI|capabilities.ARM64|capabilities.V100), s.String())
}

func TestClaimsAreHeldAgainstTheImage(t *testing.T) {
	facts := debian12()
	const claim = capabilities.KVMVirtio | capabilities.XenPVOps | capabilities.BIOS | capabilities.CloudInit
	for _, tt := range []struct {
		name  string
		claim capabilities.Set
		facts testsuite.Facts
		lacks capabilities.Set
	}{
		{"nothing claimed", 0, facts, 0},
		{"all there", claim, facts, 0},
		{"agent not installed", claim | capabilities.UVPMonitor, facts, capabilities.UVPMonitor},
		{"no EFI system partition", claim | capabilities.UEFI, facts, capabilities.UEFI},
		{"Xen disk not in the initrd", claim, without(t, facts, "initrd", "xen-blkfront.ko"), capabilities.XenPVOps},
		{"virtio network missing", claim, without(t, without(t, facts, "modules", "virtio_net"), "initrd", "virtio_net.ko"), capabilities.KVMVirtio},
		{"cloud-init removed", claim, without(t, facts, "packages", "ii  cloud-init"), capabilities.CloudInit},
	} {
		p := &product{def: &Definition{OS: OS{Arch: "amd64"}, Capabilities: tt.claim}}
		err := p.verifyClaims(tt.facts, &guestdisk.Disk{BootBIOS: true})
		if tt.lacks == 0 {
			assert.NoError(t, err, tt.name)
			continue
		}
		var unproven *capabilities.UnprovenError
		require.ErrorAs(t, err, &unproven, tt.name)
		assert.Equal(t, tt.lacks, unproven.Unproven, tt.name)
	}

	delete(facts.Facts, "initrd")
	p := &product{def: &Definition{OS: OS{Arch: "amd64"}, Capabilities: claim}}
	var missing *testsuite.FactError
	assert.ErrorAs(t, p.verifyClaims(facts, &guestdisk.Disk{BootBIOS: true}), &missing, "a fact that was not read proves nothing")
}

// What the image is for is told by what ran and by what boots it.
func TestArchitectureIsTheGuests(t *testing.T) {
	arm := debian12()
	arm.Facts["architecture"] = testsuite.Fact{Output: "kernel aarch64\npackages arm64\n"}
	mixed := debian12()
	mixed.Facts["architecture"] = testsuite.Fact{Output: "kernel x86_64\npackages i386\n"}
	none := debian12()
	delete(none.Facts, "architecture")
	silent := debian12()
	silent.Facts["architecture"] = testsuite.Fact{Output: "packages amd64\n"}
	bios, uefi := &guestdisk.Disk{BootBIOS: true}, func(archs ...string) *guestdisk.Disk { return &guestdisk.Disk{BootUEFI: true, EFIArchs: archs} }
	for name, test := range map[string]struct {
		facts testsuite.Facts
		disk  *guestdisk.Disk
		arch  string
		want  string // "" for none
		is    string
	}{
		"amd64":                 {debian12(), bios, "amd64", "", "amd64"},
		"amd64 by its kernel":   {debian12(), bios, "x86_64", "", "amd64"},
		"amd64 with UEFI":       {debian12(), uefi("amd64"), "amd64", "", "amd64"},
		"both loaders":          {debian12(), uefi("386", "amd64"), "amd64", "", "amd64"},
		"nothing claimed":       {debian12(), nil, "", "", "amd64"},
		"arm64":                 {arm, uefi("arm64"), "arm64", "", "arm64"},
		"arm64 claimed":         {debian12(), bios, "arm64", "should be for arm64, but its kernel is for amd64", "amd64"},
		"amd64 claimed":         {arm, uefi("arm64"), "amd64", "should be for amd64, but its kernel is for arm64", "arm64"},
		"foreign loader":        {debian12(), uefi("arm64"), "amd64", "its boot loaders are for arm64", "amd64"},
		"BIOS on Arm":           {arm, bios, "arm64", "its boot loaders are for amd64, 386", "arm64"},
		"packages of another":   {mixed, bios, "amd64", "its packages are for 386", "amd64"},
		"no fact":               {none, bios, "amd64", "cannot read fact architecture: it was not gathered", ""},
		"fact without a kernel": {silent, bios, "amd64", "cannot read fact architecture: it does not tell", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := EvidenceFrom(test.facts, test.disk, test.arch)
			assert.Equal(t, test.is, e.Arch)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
		})
	}

	f, d := embedded(t)
	d.OS.Arch = "arm64"
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, StageTest, report.Images[0].Stage)
	require.ErrorContains(t, report.Images[0].Err, "should be for arm64, but its kernel is for amd64")
}

// A release says what its image can do.
func TestReleaseCarriesFlagsAndNotes(t *testing.T) {
	f, d := newFactory(t)
	d.Capabilities = capabilities.KVMVirtio | capabilities.BIOS
	d.Properties = map[string]string{"__os_type": "Linux"}
	d.Notes = []string{"a known issue"}
	j, dir := sealed(t, f, d)
	index, err := os.ReadFile(dir + "/release.json")
	require.NoError(t, err)
	for _, want := range []string{
		`"capabilities": "0x1000004"`, `"__image_capabilities": "0x1000004"`, `"__support_kvm": "true"`, `"__is_support_kvm": "true"`,
		`"hw_firmware_type": "bios"`, `"virtual_env_type": "FusionCompute"`, `"__os_type": "Linux"`,
	} {
		assert.Contains(t, string(index), want)
	}
	var b strings.Builder
	report := Report{Images: []ImageReport{*j.report}}
	report.Images[0].Notes = j.def.Notes
	require.NoError(t, report.WriteText(&b))
	assert.Contains(t, b.String(), "note: a known issue\n")
}
