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
)

// debian12 are three of the facts that the test suite recorded from a Debian 12
// that ran in its sandbox.
func debian12(t *testing.T) testsuite.Facts {
	t.Helper()
	f, err := os.Open("testdata/facts-debian-12.json")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	facts, err := testsuite.LoadFacts(f)
	require.NoError(t, err)
	return facts
}

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
	e, err := evidence(debian12(t), &guestdisk.Disk{BootBIOS: true}, "amd64")
	require.NoError(t, err)
	s := capabilities.Detect(e)
	const want = capabilities.XenPVOps | capabilities.KVMVirtio | capabilities.IXGBEVF | capabilities.NVMe | capabilities.LargeMemory |
		capabilities.DiskIntensive | capabilities.HighPerformance | capabilities.BIOS | capabilities.AMD | capabilities.CloudInit
	assert.Equal(t, want, s&want, s.String())
	assert.Zero(t, s&(capabilities.UVPMonitor|capabilities.Ironic|capabilities.UEFI|capabilities.ARM64|capabilities.V100), s.String())
}

func TestClaimsAreHeldAgainstTheImage(t *testing.T) {
	facts := debian12(t)
	const claim = capabilities.KVMVirtio | capabilities.XenPVOps | capabilities.BIOS | capabilities.CloudInit
	for _, tt := range []struct {
		name  string
		claim capabilities.Set
		facts testsuite.Facts
		lacks capabilities.Set
	}{
		{"nothing claimed", 0, testsuite.Facts{}, 0},
		{"all there", claim, facts, 0},
		{"agent not installed", claim | capabilities.UVPMonitor, facts, capabilities.UVPMonitor},
		{"no EFI system partition", claim | capabilities.UEFI, facts, capabilities.UEFI},
		{"Xen disk not in the initrd", claim, without(t, facts, "initrd", "xen-blkfront.ko"), capabilities.XenPVOps},
		{"virtio network missing", claim, without(t, without(t, facts, "modules", "virtio_net"), "initrd", "virtio_net.ko"), capabilities.KVMVirtio},
		{"cloud-init removed", claim, without(t, facts, "packages", "ii  cloud-init"), capabilities.CloudInit},
	} {
		j := &job{disk: &guestdisk.Disk{BootBIOS: true}, def: &Definition{OS: OS{Arch: "amd64"}, Capabilities: tt.claim}, facts: tt.facts}
		err := j.verifyClaims()
		if tt.lacks == 0 {
			assert.NoError(t, err, tt.name)
			continue
		}
		var unproven *capabilities.UnprovenError
		require.ErrorAs(t, err, &unproven, tt.name)
		assert.Equal(t, tt.lacks, unproven.Unproven, tt.name)
	}

	delete(facts.Facts, "initrd")
	j := &job{disk: &guestdisk.Disk{BootBIOS: true}, def: &Definition{OS: OS{Arch: "amd64"}, Capabilities: claim}, facts: facts}
	var missing *testsuite.FactError
	assert.ErrorAs(t, j.verifyClaims(), &missing, "a fact that was not read proves nothing")
}

func TestForbiddenPackagesFail(t *testing.T) {
	j := &job{disk: &guestdisk.Disk{BootBIOS: true}, def: &Definition{OS: OS{Arch: "amd64"}, Test: Test{ForbiddenPackages: []string{"uvp-monitor", "otc-tools"}}}, facts: debian12(t)}
	require.NoError(t, j.verifyClaims())
	j.def.Test.ForbiddenPackages = append(j.def.Test.ForbiddenPackages, "chrony")
	assert.ErrorContains(t, j.verifyClaims(), "forbidden packages are installed: chrony")
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
	report := Report{Images: []ImageReport{j.report}}
	report.Images[0].Notes = j.def.Notes
	require.NoError(t, report.WriteText(&b))
	assert.Contains(t, b.String(), "note: a known issue\n")
}
