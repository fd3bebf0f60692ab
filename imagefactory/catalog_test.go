package imagefactory

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
)

// listed are the public Linux images of early 2019.
const listed = `
Standard_: CentOS_6 CentOS_7 CentOS_7_BMS CentOS_7_FPGA CentOS_7_V100 Debian_8.7 Debian_9 EulerOS_2 EulerOS_2_BMS EulerOS_2_V100
Standard_: Fedora_26 Fedora_27 Fedora_28 Fedora_29 Ubuntu_14.04 Ubuntu_16.04 Ubuntu_16.04_BMS Ubuntu_16.04_V100 Ubuntu_18.04
Standard_: Ubuntu_18.04_BMS openSUSE_15 openSUSE_42_Docker openSUSE_42_JeOS
Enterprise_: OracleLinux_6 OracleLinux_7 OracleLinux_7_BMS OracleLinux_7UEK_BMS RedHat_6 RedHat_7
Enterprise_: SLES11_SP4 SLES11_SP4_BMS SLES11_SP4_SAP SLES11_SP4_SAPHANA SLES11_SP4_SAPHANA_BMS SLES11_SP4_extended SLES11_SP4_extended_BMS
Enterprise_: SLES12_SP1 SLES12_SP1_BMS SLES12_SP1_SAPHANA SLES12_SP1_SAPHANA_BMS SLES12_SP2 SLES12_SP2_BMS SLES12_SP2_SAP SLES12_SP2_SAP_BMS
Enterprise_: SLES12_SP3 SLES12_SP3_BMS SLES12_SP3_SAP SLES12_SP3_SAP_BMS SLES15_SP0 SLES15_SP0_BMS
Community_: Ubuntu_14.04_TSI Ubuntu_16.04_TSI
Beta_: openSUSE_15 OracleLinux_7UEK OracleLinux_7UEK_BMS
CCE_: EulerOS_2_BMS`

func TestCatalogHasEveryListedImage(t *testing.T) {
	var want []string
	for line := range strings.Lines(strings.TrimSpace(listed)) {
		class, systems, _ := strings.Cut(line, ": ")
		for _, system := range strings.Fields(systems) {
			want = append(want, class+system)
		}
	}
	var have []string
	for _, e := range Catalog() {
		have = append(have, e.Name.String())
	}
	assert.ElementsMatch(t, want, have)
	assert.True(t, slices.IsSortedFunc(Catalog(), func(a, b CatalogEntry) int { return a.Name.Compare(b.Name) }))
}

// osVersions are the values of __os_version that the IMS API reference lists
// and that the catalog uses.
var osVersions = []string{
	"openSUSE 42.3 64bit", "openSUSE 15.0 64bit", "CentOS 6.10 64bit", "CentOS 7.6 64bit", "Debian GNU/Linux 8.7.0 64bit",
	"Debian GNU/Linux 9.3.0 64bit", "Fedora 26 64bit", "Fedora 27 64bit", "Fedora 28 64bit", "Fedora 29 64bit", "EulerOS 2.3 64bit",
	"Ubuntu 14.04.5 server 64bit", "Ubuntu 16.04 server 64bit", "Ubuntu 18.04 server 64bit", "Oracle Linux Server release 6.10 64bit",
	"Oracle Linux Server release 7.6 64bit", "Redhat Linux Enterprise 6.10 64bit", "Redhat 7.6 64bit",
	"SUSE Linux Enterprise Server 11 SP4 64bit", "SUSE Linux Enterprise Server 12 SP1 64bit", "SUSE Linux Enterprise Server 12 SP2 64bit",
	"SUSE Linux Enterprise Server 12 SP3 64bit", "SUSE Linux Enterprise Server 15 64bit",
}

var platforms = map[string]string{
	"opensuse": "OpenSUSE", "centos": "CentOS", "debian": "Debian", "fedora": "Fedora", "euleros": "EulerOS", "ubuntu": "Ubuntu",
	"oraclelinux": "Oracle Linux", "redhat": "Red Hat", "sles": "SUSE",
}

// The facts of the image factory's introduction, image by image.
func TestCatalogFacts(t *testing.T) {
	used := make(map[string]bool)
	for _, e := range Catalog() {
		name := e.Name.String()
		variants := e.Name.Variants()
		is := func(variant string) bool { return slices.Contains(variants, variant) }
		used[e.OSVersion] = true
		assert.Contains(t, osVersions, e.OSVersion, name)
		assert.Equal(t, platforms[e.Distribution], e.Platform, name)
		assert.NoError(t, CheckName(e.Name.Latest().String()))

		wantDriver := map[string]string{"debian": "dib", "fedora": "dib", "ubuntu": ""}
		driver, special := wantDriver[e.Distribution]
		if !special {
			driver = "kiwi"
		}
		assert.Equal(t, driver, e.Driver, name)

		size, user := 4*GiB, "linux"
		switch {
		case e.Distribution == "ubuntu":
			size, user = 12*GiB, "ubuntu"
		case e.Capabilities.Has(capabilities.HANAXen) || is("SAPHANA"), is("SAP") && e.Version != "11 SP4":
			size = 96 * GiB
		case is("extended"), is("SAP"):
			size = 20 * GiB
		}
		assert.Equal(t, size, e.DiskBytes, name)
		assert.Equal(t, size, e.MinDiskBytes, name)
		assert.Equal(t, size >= 20*GiB, e.LVM, name)
		assert.Equal(t, user, e.User, name)

		assert.Equal(t, e.Distribution == "sles" || e.Distribution == "oraclelinux" || e.Distribution == "redhat", e.BYOL, name)
		slowRoot := e.Version == "6.10" && e.Distribution != "redhat" || e.Version == "11 SP4"
		assert.Equal(t, slowRoot, e.ExtraReboot, name)
		assert.Equal(t, is("BMS"), e.Capabilities.Has(capabilities.Ironic), name)
		assert.Equal(t, is("BMS"), slices.Contains(e.RequiredPackages, "bms-network-config"), name)
		assert.True(t, e.Capabilities.Has(capabilities.CloudInit), name)
		assert.Equal(t, e.Capabilities.Has(capabilities.UVPMonitor), slices.Contains(e.RequiredPackages, "uvp-monitor"), name)
		if e.Distribution == "redhat" {
			assert.Subset(t, e.ForbiddenPackages, []string{"uvp-monitor", "ixgbevf216", "bms-network-config", "otc-tools"}, name)
			assert.Equal(t, "2.12.1k", e.IXGBEVF, name)
		} else {
			assert.Empty(t, e.ForbiddenPackages, name)
		}
		for _, p := range e.RequiredPackages {
			assert.NotContains(t, e.ForbiddenPackages, p, name)
		}
		assert.Equal(t, e.Driver != "", len(e.Upstream) > 0, name)
	}
	assert.Len(t, used, len(osVersions))
}

func TestCatalogStates(t *testing.T) {
	oracle6, err := LookupImage("Enterprise_OracleLinux_6_latest")
	require.NoError(t, err)
	assert.Equal(t, Broken, oracle6.Support)
	assert.Contains(t, oracle6.SupportNote, "December 2016")
	assert.Subset(t, oracle6.RequiredPackages, []string{"kmod-uvpmod", "kmod-ixgbevf216"})
	for _, e := range Catalog() {
		if e.Name.Class == Beta {
			assert.Equal(t, InBeta, e.Support, e.Name)
		}
	}
}

func TestLookupImage(t *testing.T) {
	for _, name := range []string{
		"Standard_CentOS_7", "Standard_CentOS_7_latest", "Standard_CentOS_7_prev", "Standard_CentOS_7_134_20171211_0", "Standard_CentOS_7_20261122_1",
	} {
		e, err := LookupImage(name)
		require.NoError(t, err)
		assert.Equal(t, "Standard_CentOS_7", e.Name.String())
	}
	_, err := LookupImage("Standard_CentOS_8")
	require.ErrorIs(t, err, ErrUnknownImage)
	assert.ErrorContains(t, err, "Standard_CentOS_7_BMS")
	_, err = LookupImage("Standard_TempleOS_5")
	require.ErrorIs(t, err, ErrUnknownImage)
	_, err = LookupImage("a/b")
	assert.Error(t, err)

	e, err := LookupImage("Standard_CentOS_7")
	require.NoError(t, err)
	e.Notes, e.RequiredPackages[0], e.Repositories[0].URL = nil, "x", "y"
	again, err := LookupImage("Standard_CentOS_7")
	require.NoError(t, err)
	assert.Equal(t, "cloud-init", again.RequiredPackages[0], "a caller cannot change the catalog")
	assert.NotEqual(t, "y", again.Repositories[0].URL)
}

func TestCatalogSources(t *testing.T) {
	mirrors := make(map[string]string)
	for _, name := range []string{"opensuse", "centos", "debian", "debian-security", "fedora", "euleros", "oracle", "rhel", "suse", "obs"} {
		mirrors[name] = "https://mirror.example/" + name + "/"
	}
	for _, e := range Catalog() {
		sources, err := e.Sources(mirrors)
		require.NoError(t, err, e.Name)
		for _, s := range sources {
			assert.Regexp(t, `^https://mirror\.example/[a-z-]+(/[A-Za-z0-9._:-]+)*$`, s)
		}
	}
	e, err := LookupImage("Standard_CentOS_7")
	require.NoError(t, err)
	sources, err := e.Sources(mirrors)
	require.NoError(t, err)
	assert.Equal(t, "https://mirror.example/centos/7.6/os/x86_64", sources[0])
	_, err = e.Sources(nil)
	assert.ErrorContains(t, err, "no mirror for centos, obs")
}

func TestCatalogProperties(t *testing.T) {
	for _, e := range Catalog() {
		properties, err := e.Properties()
		require.NoError(t, err)
		assert.Equal(t, e.OSVersion, properties["__os_version"])
		set, err := capabilities.FromFlags(properties)
		require.NoError(t, err)
		assert.Equal(t, e.Capabilities, set, e.Name)
		_, err = json.Marshal(properties)
		require.NoError(t, err)
	}
}

func TestCatalogIsDecodedStrictly(t *testing.T) {
	const good = `systems:
- distribution: debian
  version: "12"
  os_version: Debian GNU/Linux 12.0.0 64bit
  platform: Debian
  origin: factory
  driver: dib
  disk: 4GiB
  min_disk: 4GiB
  user: linux
  profile: otc
  support: supported
  capabilities: kvm-virtio
  images:
  - name: Standard_Debian_12
`
	entries, err := decodeCatalog(strings.NewReader(good))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	for _, tt := range []struct{ from, to, want string }{
		{"platform:", "plattform:", "unknown field"},
		{"disk: 4GiB", "disk: 4", "bad size"},
		{"kvm-virtio", "kvm-virtoi", "kvm-virtio"},
		{"kvm-virtio", "kvm-virtio|v100", "exclude each other"},
		{"Standard_Debian_12", "Standard_Debian_12_latest", "suffix"},
		{"Standard_Debian_12", "Debian_12", "no class"},
		{"  - name: Standard_Debian_12\n", "  - name: Standard_Debian_12\n  - name: Standard_Debian_12\n", "twice"},
		{"user: linux", "lvm: false", "no user"},
		{"support: supported", "support: broken", "support_note"},
		{"driver: dib", "driver: dib\n  driver: kiwi", "already defined"},
		{"driver: dib", "lvm: true", "driver"},
		{"  min_disk: 4GiB", "  min_disk: 2GiB", "min_disk"},
	} {
		text := strings.Replace(good, tt.from, tt.to, 1)
		require.NotEqual(t, good, text)
		_, err := decodeCatalog(strings.NewReader(text))
		assert.ErrorContains(t, err, tt.want, tt.to)
	}
}

// A waiver is for a check that is known to fail: none where the capabilities
// say otherwise.
func TestCatalogWaivers(t *testing.T) {
	waived := make(map[string][]string)
	for _, e := range Catalog() {
		for _, w := range e.Waivers {
			assert.False(t, w.Expires.IsZero(), e.Name)
			assert.NotEmpty(t, w.Reason, e.Name)
			waived[w.Check] = append(waived[w.Check], e.Name.String())
			if w.Check == "drivers.ixgbevf" {
				assert.False(t, e.Capabilities.Has(capabilities.IXGBEVF), e.Name)
			}
		}
	}
	assert.Len(t, waived["ntp.servers"], 8, "all images of Ubuntu")
	assert.Equal(t, []string{"Community_Ubuntu_14.04_TSI", "Standard_Ubuntu_14.04"}, waived["drivers.ixgbevf"])
}
