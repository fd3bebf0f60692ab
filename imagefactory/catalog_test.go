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

// listed are the public images of early 2019, and those of Windows in July.
const listed = `
Standard_: CentOS_6 CentOS_7 CentOS_7_BMS CentOS_7_FPGA CentOS_7_V100 Debian_8.7 Debian_9 EulerOS_2 EulerOS_2_BMS EulerOS_2_V100
Standard_: Fedora_26 Fedora_27 Fedora_28 Fedora_29 Ubuntu_14.04 Ubuntu_16.04 Ubuntu_16.04_BMS Ubuntu_16.04_V100 Ubuntu_18.04
Standard_: Ubuntu_18.04_BMS openSUSE_15 openSUSE_42_Docker openSUSE_42_JeOS
Enterprise_: OracleLinux_6 OracleLinux_7 OracleLinux_7_BMS OracleLinux_7UEK_BMS RedHat_6 RedHat_7
Enterprise_: SLES11_SP4 SLES11_SP4_BMS SLES11_SP4_SAP SLES11_SP4_SAPHANA SLES11_SP4_SAPHANA_BMS SLES11_SP4_extended SLES11_SP4_extended_BMS
Enterprise_: SLES12_SP1 SLES12_SP1_BMS SLES12_SP1_SAPHANA SLES12_SP1_SAPHANA_BMS SLES12_SP2 SLES12_SP2_BMS SLES12_SP2_SAP SLES12_SP2_SAP_BMS
Enterprise_: SLES12_SP3 SLES12_SP3_BMS SLES12_SP3_SAP SLES12_SP3_SAP_BMS SLES15_SP0 SLES15_SP0_BMS
Enterprise_: Windows_ENT_2008R2SP1_BMS Windows_ENT_2008R2SP1_KVM Windows_ENT_2008R2SP1_XEN Windows_ENT_2008R2SP1_pGPU Windows_ENT_2008R2SP1_vGPU
Enterprise_: Windows_STD_2012R2_BMS Windows_STD_2012R2_KVM Windows_STD_2012R2_XEN Windows_STD_2012R2_pGPU Windows_STD_2012R2_vGPU
Enterprise_: Windows_STD_2016_BMS Windows_STD_2016_KVM Windows_STD_2016_CORE_KVM Windows_STD_2016_XEN Windows_STD_2016_pGPU Windows_STD_2016_vGPU
Enterprise_: Windows_STD_2016_v100 Windows_STD_2019_BMS Windows_STD_2019_KVM Windows_STD_2019_CORE_KVM
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
	"Windows Server 2008 R2 Enterprise 64bit", "Windows Server 2012 R2 Standard 64bit", "Windows Server 2016 Standard 64bit",
	"Windows Server 2019 Standard 64bit", // the one that is inferred
}

var platforms = map[string]string{
	"opensuse": "OpenSUSE", "centos": "CentOS", "debian": "Debian", "fedora": "Fedora", "euleros": "EulerOS", "ubuntu": "Ubuntu",
	"oraclelinux": "Oracle Linux", "redhat": "Red Hat", "sles": "SUSE", "windows": "Windows",
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

		canonical := e.Name.Class == Community
		driver := map[string]string{"debian": "dib", "fedora": "dib", "ubuntu": "dib", windows: ""}
		want, special := driver[e.Distribution]
		if !special {
			want = "kiwi"
		}
		if canonical {
			want = ""
		}
		assert.Equal(t, want, e.Driver, name)

		size, user := 4*GiB, "linux"
		switch {
		case canonical:
			size, user = 12*GiB, "ubuntu"
		case e.Distribution == windows:
			size, user = 40*GiB, ""
		case is("SAPHANA"), is("SAP") && e.Version != "11 SP4":
			size = 96 * GiB
		case is("extended"), is("SAP"):
			size = 20 * GiB
		}
		assert.Equal(t, size, e.DiskBytes, name)
		assert.Equal(t, size, e.MinDiskBytes, name)
		assert.Equal(t, size == 20*GiB || size == 96*GiB, e.LVM, name)
		assert.Equal(t, user, e.User, name)

		assert.Equal(t, is("BMS"), e.Capabilities.Has(capabilities.Ironic), name)
		assert.Equal(t, e.Driver != "", len(e.Upstream) > 0, name)
		if e.Distribution == windows {
			continue
		}
		assert.Equal(t, is("BMS"), slices.Contains(relationNames(e.RequiredPackages), "bms-network-config"), name)
		assert.True(t, e.Capabilities.Has(capabilities.CloudInit), name)
		assert.Equal(t, e.Capabilities.Has(capabilities.UVPMonitor), slices.Contains(relationNames(e.RequiredPackages), "uvp-monitor"), name)
		assert.Equal(t, !canonical && !is("BMS") && e.Distribution != "redhat", e.Capabilities.Has(capabilities.UVPMonitor), name)
		packaged := slices.Contains([]string{"opensuse", "sles", "centos", "oraclelinux", "euleros"}, e.Distribution)
		driverPackage := func(p string) bool { return strings.Contains(p, "ixgbevf216") }
		assert.Equal(t, packaged && !is("BMS"), slices.ContainsFunc(relationNames(e.RequiredPackages), driverPackage), name)
		assert.Equal(t, e.Distribution == "redhat", len(e.ForbiddenPackages) > 0, name)
	}
	assert.Len(t, used, len(osVersions))
}

// The release that a builder asks mirrors for is the suite, and the registered
// ones are its.
func TestCatalogCodenames(t *testing.T) {
	suites := map[string]string{
		"debian 8.7": "jessie", "debian 9": "stretch", "ubuntu 14.04": "trusty", "ubuntu 16.04": "xenial", "ubuntu 18.04": "bionic",
		"sles 11 SP4": "11-sp4", "fedora 29": "29", "centos 7.6": "7.6",
	}
	seen := make(map[string]bool)
	for _, e := range Catalog() {
		want, known := suites[e.Distribution+" "+e.Version]
		if !known {
			continue
		}
		seen[want] = true
		d := registrations(t, e)[0]
		assert.Equal(t, want, d.OS.Codename, e.Name)
		assert.Equal(t, want, d.spec(nil).Release, e.Name)
		for _, r := range e.Repositories {
			for _, suite := range r.Suites {
				assert.True(t, strings.HasPrefix(suite, want) || strings.HasSuffix(suite, "/"), "%s: %s", e.Name, suite)
			}
		}
	}
	assert.Len(t, seen, len(suites))
	for _, tt := range []struct{ distribution, version, want string }{
		{"debian", "10", "buster"}, {"debian", "10.2", "buster"}, {"debian", "13", "trixie"}, {"debian", "99", "99"}, {"ubuntu", "24.04", "noble"},
		{"ubuntu", "24", "24"}, {"fedora", "12", "12"}, {"", "", ""},
	} {
		assert.Equal(t, tt.want, OS{Distribution: tt.distribution, Version: tt.version}.codename())
	}
	for _, tt := range []struct{ version, codename, want string }{
		{"10", "", "buster/updates"}, {"12", "", "bookworm-security"}, {"12", "sid", "sid-security"}, // what is said counts
	} {
		d := Definition{
			Name: "Standard_X_1", OS: OS{Distribution: "debian", Version: tt.version, Codename: tt.codename},
			DiskBytes: GiB, Builder: Component{Driver: "dib", Config: map[string]any{}},
		}
		require.NoError(t, d.Complete())
		assert.Equal(t, []string{tt.want}, d.Repositories[1].Suites)
	}
}

// A note stands with exactly the images that its source is about.
func TestCatalogNotes(t *testing.T) {
	isBMS := func(e CatalogEntry) bool { return e.Capabilities.Has(capabilities.Ironic) && e.Distribution != windows }
	for text, about := range map[string]func(CatalogEntry) bool{
		"the two overlap": isBMS,
		"LVM:":            func(e CatalogEntry) bool { return e.LVM },
		"grown partition only after a reboot": func(e CatalogEntry) bool {
			return slices.Contains([]string{"centos 6.10", "oraclelinux 6.10", "sles 11 SP4"}, e.Distribution+" "+e.Version)
		},
		"RPM database":             func(e CatalogEntry) bool { return e.Version == "11 SP4" },
		"supported by Huawei":      func(e CatalogEntry) bool { return e.Distribution == "euleros" },
		"InfiniBand drivers":       func(e CatalogEntry) bool { _, err := e.For("h2"); return err == nil },
		"two minutes and a reboot": func(e CatalogEntry) bool { return e.Name.System == "CentOS_7" },
		"ib0":                      func(e CatalogEntry) bool { _, err := e.For("h2"); return err == nil && e.Distribution == "sles" },
		"Built by Canonical":       func(e CatalogEntry) bool { return e.Name.Class == Community },
		"no custom packages":       func(e CatalogEntry) bool { return e.Distribution == "redhat" },
		"SAP HANA flavors e1":      func(e CatalogEntry) bool { _, err := e.For("e2"); return err == nil },
		"NVIDIA driver and CUDA": func(e CatalogEntry) bool {
			return e.Capabilities&(capabilities.P100|capabilities.V100) != 0 && e.Distribution != windows
		},
		"Unbreakable Enterprise": func(e CatalogEntry) bool { return strings.Contains(e.Name.System, "UEK") },
		"as recommended for SAP": func(e CatalogEntry) bool {
			return slices.Contains([]string{"SLES11_SP4_extended", "SLES11_SP4_SAP"}, e.Name.System)
		},
		"NetworkManager is not": func(e CatalogEntry) bool { return e.Distribution == "euleros" },
	} {
		for _, e := range Catalog() {
			has := slices.ContainsFunc(e.Notes, func(note string) bool { return strings.Contains(note, text) })
			assert.Equal(t, about(e), has, "%s: %q", e.Name, text)
		}
	}
}

// The Open Build Service's packages for Debian and Oracle Linux are in the
// project whose key is on record.
func TestCatalogNamesTheKeyOfTheBuildService(t *testing.T) {
	for _, e := range Catalog() {
		own, keys := 0, 0
		for _, r := range e.Repositories {
			if strings.Contains(r.URL, "/otc_") || strings.Contains(r.URL, "garloff") {
				own++
			}
			if r.Key != "" {
				keys++
				assert.Equal(t, "8A208CFD29C504168689A63184F7BE81CC6D4077", r.Key, e.Name)
			}
		}
		switch {
		case e.Name.Class == Community, e.Distribution == "redhat", e.Distribution == windows:
			assert.Zero(t, own, e.Name)
		case slices.Contains([]string{"openSUSE 42.3 64bit", "openSUSE 15.0 64bit", "SUSE Linux Enterprise Server 12 SP3 64bit", "SUSE Linux Enterprise Server 15 64bit"}, e.OSVersion):
			assert.Zero(t, keys, "%s: the key of Cloud:OTC is not on record", e.Name)
			assert.NotZero(t, own, e.Name)
		default:
			assert.NotZero(t, own, e.Name)
			assert.Equal(t, own, keys, e.Name)
		}
	}
}

func TestSLESForSAP(t *testing.T) {
	for _, e := range Catalog() {
		variants := e.Name.Variants()
		hana := slices.Contains(variants, "SAPHANA") || slices.Contains(variants, "SAP") && e.Version != "11 SP4"
		isSAP := func(url string) bool { return strings.Contains(url, "SAP") }
		assert.Equal(t, hana, slices.ContainsFunc(e.Upstream, isSAP), e.Name)
		assert.Equal(t, hana, slices.ContainsFunc(e.Repositories, func(r Repository) bool { return isSAP(r.URL) }), e.Name)
	}
}

func TestCatalogStates(t *testing.T) {
	oracle6, err := LookupImage("Enterprise_OracleLinux_6_latest")
	require.NoError(t, err)
	assert.Equal(t, Broken, oracle6.Support)
	assert.Contains(t, oracle6.SupportNote, "December 2016")
	assert.Subset(t, relationNames(oracle6.RequiredPackages), []string{"kmod-uvpmod", "kmod-ixgbevf216"})
	for _, e := range Catalog() {
		assert.Equal(t, e.Name.Class == Beta, e.Support == InBeta, e.Name)
		said := slices.ContainsFunc(e.Definition().Notes, func(note string) bool { return strings.HasPrefix(note, string(e.Support)+": ") })
		assert.Equal(t, e.Support != Supported, said, e.Name)
		assert.Equal(t, e.Name.Class == Community || e.Name.System == "SLES11_SP4_SAP", e.Support == Superseded, e.Name)
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
	assert.Equal(t, PackageRelation("cloud-init"), again.RequiredPackages[0], "a caller cannot change the catalog")
	assert.NotEqual(t, "y", again.Repositories[0].URL)
}

func TestCatalogSources(t *testing.T) {
	mirrors := make(map[string]string)
	for _, name := range []string{"opensuse", "centos", "debian", "debian-security", "fedora", "ubuntu", "euleros", "oracle", "rhel", "suse", "obs"} {
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
		osType := "Linux"
		if e.Distribution == windows {
			osType = "Windows"
		}
		assert.Equal(t, osType, properties["__os_type"], e.Name)
		_, err = json.Marshal(properties)
		require.NoError(t, err)
	}
}

func TestCatalogIsDecodedStrictly(t *testing.T) {
	const good = `defaults:
  disk: 4GiB
  min_disk: 4GiB
  user: linux
systems:
- distribution: debian
  version: "12"
  os_version: Debian GNU/Linux 12.0.0 64bit
  platform: Debian
  driver: dib
  upstream: ["{debian}"]
  repositories: [{name: debian, url: "http://mirror.example/debian"}]
  required_packages: [cloud-init]
  support: supported
  capabilities: kvm-virtio
  notes: [a]
  images:
  - name: Standard_Debian_12
    notes+: [b]
`
	entries, err := decodeCatalog(strings.NewReader(good))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	assert.Equal(t, 4*GiB, entries[0].DiskBytes)
	assert.Equal(t, []string{"a", "b"}, entries[0].Notes)
	for _, tt := range []struct{ from, to, want string }{
		{"platform:", "plattform:", "unknown field"},
		{"notes+:", "noted+:", "unknown field"},
		{"  user:", "  users:", "unknown field"},
		{"  disk: 4GiB", "  disk: 4", "bad size"},
		{"kvm-virtio", "kvm-virtoi", "kvm-virtio"},
		{"kvm-virtio", "kvm-virtio|v100", "exclude each other"},
		{"kvm-virtio", "kvm-virtio\n  alternatives: [kvm-virtio|v100]", "exclude each other"},
		{"kvm-virtio", "kvm-virtio\n  first_boot: v100", "first_boot: v100 is not claimed"},
		{"kvm-virtio", "kvm-virtio\n  first_boot: kvm-virtio", "first_boot: kvm-virtio is not claimed or does not come"},
		{"Standard_Debian_12", "Standard_Debian_12_latest", "suffix"},
		{"Standard_Debian_12", "Debian_12", "no class"},
		{"  - name: Standard_Debian_12\n", "  - name: Standard_Debian_12\n  - name: Standard_Debian_12\n", "twice"},
		{"  user: linux", "  lvm: false", "no user"},
		{"support: supported", "support: broken", "support_note"},
		{"support: supported", "support: good", "support"},
		{"driver: dib", "driver: dib\n  driver: kiwi", "defined in line"},
		{"driver: dib", "lvm: true", "driver"},
		{"driver: dib", "driver: make", `driver "make"`},
		{"  min_disk: 4GiB", "  min_disk: 2GiB", "min_disk"},
		{`  repositories: [{name: debian, url: "http://mirror.example/debian"}]` + "\n", "", "no repositories"},
		{"support: supported", "support: supported\n  forbidden_packages: ['[a']", `bad pattern "[a"`},
		{"support: supported", "support: supported\n  forbidden_packages: ['b[']", `bad pattern "b["`},
		{"support: supported", "support: supported\n  forbidden_packages: ['']", `bad pattern ""`},
		{"support: supported", "support: supported\n  forbidden_packages: [cloud-*]", "forbidden_packages: cloud-init is required"},
	} {
		text := strings.Replace(good, tt.from, tt.to, 1)
		require.NotEqual(t, good, text)
		_, err := decodeCatalog(strings.NewReader(text))
		assert.ErrorContains(t, err, tt.want, tt.to)
	}
}

// The zero values of the exported types are of use, or refused by name.
func TestZeroCatalogEntry(t *testing.T) {
	var e CatalogEntry
	assert.ErrorContains(t, e.check(), "no class")
	sources, err := e.Sources(nil)
	assert.NoError(t, err)
	assert.Empty(t, sources)
	properties, err := e.Properties()
	require.NoError(t, err)
	assert.Equal(t, "0x0", properties[capabilities.MaskProperty])
	d := e.Definition()
	assert.ErrorContains(t, d.Complete(), "os: distribution is missing")
	assert.NotContains(t, []Support{Supported, InBeta, Broken, Superseded}, e.Support, "an unknown state is no state")
}

// A waiver is for a check that is known to fail.
func TestCatalogWaivers(t *testing.T) {
	for _, e := range Catalog() {
		for _, w := range e.Waivers {
			assert.False(t, w.Expires.IsZero(), e.Name)
			assert.NotEmpty(t, w.Reason, e.Name)
		}
		assert.Equal(t, e.Name.Class == Community, len(e.Waivers) > 0, e.Name)
	}
}
