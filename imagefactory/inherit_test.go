package imagefactory

import (
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

func TestDefinitionInherits(t *testing.T) {
	got, err := parse("f.yaml", "/dir", []byte(`images:
  - from: Standard_Debian_9_latest
    name: Standard_Debian_12
    os: {version: "12", codename: bookworm}
    repositories: [{name: debian, url: "http://debmirror.otc-service.com/debian", suites: [bookworm]}]
    disk: 5GiB
    min_disk: 6GiB
    builder: {dib: {elements: [vm]}}
    test: {required_packages: [chrony]}
    capabilities: [kvm-virtio, bios, cloud-init]
    properties: {__os_version: Debian GNU/Linux 12.0.0 64bit, x: y}
  - from: Enterprise_RedHat_7
`))
	require.NoError(t, err)
	require.Len(t, got, 2)
	d := got[0]
	assert.Empty(t, d.From, "a definition stands for itself")
	assert.Equal(t, "Standard_Debian_12", d.Name)
	assert.Equal(t, OS{Distribution: "debian", Version: "12", Codename: "bookworm", Arch: "amd64"}, d.OS)
	assert.Equal(t, 5*GiB, d.DiskBytes)
	assert.Equal(t, 6*GiB, d.MinDiskBytes)
	assert.Equal(t, "dib", d.Builder.Driver)
	assert.Equal(t, []PackageRelation{"chrony"}, d.Test.RequiredPackages)
	assert.Equal(t, "otc", d.Test.Profile)
	assert.Equal(t, capabilities.KVMVirtio|capabilities.BIOS|capabilities.CloudInit, d.Capabilities)
	assert.Equal(t, map[string]string{
		"__os_type": "Linux", "__os_bit": "64", "__platform": "Debian", "__os_version": "Debian GNU/Linux 12.0.0 64bit", "x": "y",
	}, d.Properties)
	assert.Equal(t, "/dir", d.Dir)

	d = got[1]
	assert.Equal(t, "Enterprise_RedHat_7", d.Name)
	assert.Equal(t, "kiwi", d.Builder.Driver)
	assert.Equal(t, testsuite.UVPForbidden, d.UVPMonitor.State)
	assert.Contains(t, d.Notes[0], "no custom packages")

	e, err := LookupImage("Standard_Debian_9")
	require.NoError(t, err)
	assert.Equal(t, []PackageRelation{"cloud-init", "uvp-monitor", "otc-tools", "rng-tools"}, e.RequiredPackages, "the catalog is as it was")
}

// Every entry that is built makes a definition that is complete, and says the
// same when it is written and read again.
func TestCatalogMakesDefinitions(t *testing.T) {
	for _, e := range Catalog() {
		d := e.Definition()
		if e.Driver == "" {
			d.Builder = Component{Driver: "existing", Config: map[string]any{}}
		}
		require.NoError(t, d.Complete(), e.Name)
		properties, err := d.properties()
		require.NoError(t, err)
		want, err := e.Properties()
		require.NoError(t, err)
		assert.Equal(t, want, properties, e.Name)

		data, err := yaml.Marshal(map[string]any{"images": []Definition{d}})
		require.NoError(t, err)
		again, err := parse("f.yaml", "", data)
		require.NoError(t, err, string(data))
		assert.Equal(t, d.Capabilities, again[0].Capabilities)
		assert.Equal(t, d.Notes, again[0].Notes)
		assert.Equal(t, d.Properties, again[0].Properties)
		assert.Equal(t, d.Repositories, again[0].Repositories)
		assert.Equal(t, d.Test, again[0].Test)
	}
}

func TestOracle6SaysThatItIsBroken(t *testing.T) {
	e, err := LookupImage("Enterprise_OracleLinux_6")
	require.NoError(t, err)
	assert.Contains(t, strings.Join(e.Definition().Notes, "\n"), "broken: Since December 2016")
}

func TestInheritanceReportsMistakes(t *testing.T) {
	const good = "images:\n  - from: Standard_Debian_9\n    capabilities: kvm-virtio\n"
	_, err := parse("f.yaml", "/", []byte(good))
	require.NoError(t, err)
	for _, tt := range []struct{ from, to, want string }{
		{"Standard_Debian_9", "Standard_Debian_7", "f.yaml:2:11: from: cannot find image Standard_Debian_7"},
		{"Standard_Debian_9", "[x]", "f.yaml:2:11: "},
		{"kvm-virtio", "kvm-vitrio", `f.yaml:3:19: cannot parse capabilities: unknown capability "kvm-vitrio"; the nearest known are kvm-virtio`},
		{"kvm-virtio", "{a: b}", "f.yaml:3:"},
		{"kvm-virtio", "kvm-virtio|v100", "f.yaml:3:19: capabilities: "},
		{"kvm-virtio", "kvm-virtio\n    properties: {__support_kvm: \"false\"}", `properties: __support_kvm is "false", but the capabilities make it "true"`},
	} {
		_, err := parse("f.yaml", "/", []byte(strings.Replace(good, tt.from, tt.to, 1)))
		var config *ConfigError
		require.ErrorAs(t, err, &config, tt.to)
		assert.ErrorContains(t, err, tt.want)
	}
}

// What an image's own properties say of flags is held to the rules that
// capabilities guards, and the mistake is where the property stands.
func TestPropertiesCannotBreakWhatCapabilitiesGuard(t *testing.T) {
	const inherits = "images:\n  - from: Standard_Debian_9\n    properties:\n      a: b\n      "
	const alone = "images:\n  - name: Standard_X_1\n    os: {distribution: debian, version: \"12\", codename: bookworm%s}\n    disk: 4GiB\n    builder: {dib: {}}\n    properties:\n      a: b\n      "
	x86, arm := strings.Replace(alone, "%s", "", 1), strings.Replace(alone, "%s", ", arch: arm64", 1)
	for _, tt := range []struct{ file, properties, want string }{
		// Beside the capabilities that are inherited: xen-pvops and kvm-virtio.
		{inherits, "__support_kvm_gpu_type: V100", "f.yaml:5:31: properties: __support_kvm_gpu_type is \"V100\", which cannot stand beside"},
		{inherits, "__is_support_kvm_gpu_type: V100", "f.yaml:5:34: "},
		{inherits, "__support_kvm_gpu_type: V1000", "f.yaml:5:31: properties: __support_kvm_gpu_type has no meaning"},
		{inherits, "__support_xen_gpu_type: M60_vGPU", "f.yaml:5:31: "},
		{inherits, "__support_xen_hana: true", "f.yaml:5:27: properties: __support_xen_hana is"},
		{inherits, "__support_kvm_hana: \"true\"", "f.yaml:5:27: "},
		{inherits, "___support_kvm_hana: \"true\"", "f.yaml:5:"},
		{inherits, "__is_support_kvm_infiniband: true", "f.yaml:5:36: properties: __is_support_kvm_infiniband is"},
		{inherits, "__support_kvm_infiniband: True", "f.yaml:5:33: "},
		{inherits, "__support_o2m: true", "f.yaml:5:22: properties: __support_o2m is"},
		{inherits, "__support_evs: true", "f.yaml:5:22: "},
		{inherits, "__support_p2l: true", "f.yaml:5:22: "},
		{inherits, "__support_arm: true", "f.yaml:5:22: "},
		{inherits, "__support_kvm_fpga_type: VU9P", "f.yaml:5:32: "},
		{inherits, "__support_kvm: false", "f.yaml:5:22: properties: __support_kvm is \"false\", but the capabilities make it \"true\""},
		{inherits, "__support_kvm: \"\"", "f.yaml:5:22: properties: __support_kvm is \"\", but the capabilities make it \"true\""},
		{inherits, "__is_support_xen: no", "f.yaml:5:25: "},
		{inherits, "virtual_env_type: Ironic", "f.yaml:5:25: properties: virtual_env_type is \"Ironic\", but the capabilities make it \"FusionCompute\""},
		{inherits, "hw_firmware_type: uefi", "f.yaml:5:25: properties: hw_firmware_type is \"uefi\", but the capabilities make it \"bios\""},
		{inherits, "hw_vif_multiqueue_enabled: true", "f.yaml:5:34: "},
		{inherits, "__image_capabilities: 0x5", "f.yaml:5:29: properties: __image_capabilities is \"0x5\", but the capabilities make it"},
		{inherits, "__image_capabilities: kvm-vitrio", "f.yaml:5:29: "},
		{inherits, "___support_kvm: \"false\"", "f.yaml:5:23: properties: ___support_kvm is no flag"},
		{inherits, "___support_kvm: \"true\"", "f.yaml:5:23: "},
		{inherits, "_support_kvm: true", "f.yaml:5:21: "},
		{inherits, "__supor_kvm: true", "f.yaml:5:20: properties: __supor_kvm is no flag: unknown flag \"__supor_kvm\"; the nearest known are __support_kvm"},
		{inherits, "__support_kvmm: true", "f.yaml:5:23: "},
		{inherits, "__support_nonsense: true", "f.yaml:5:27: "},
		{inherits, "__is_supor_xen: true", "f.yaml:5:23: "},
		{inherits, "__Support_kvm: true", "f.yaml:5:22: "},
		{inherits, "support_kvm: true", "f.yaml:5:20: "},
		{inherits, "architecture: aarch64", "f.yaml:5:21: "},
		// Without capabilities the properties stand for themselves.
		{x86, "__support_kvm: true\n      __support_kvm_gpu_type: V100", "f.yaml:9:31: properties: __support_kvm_gpu_type is \"V100\", which cannot stand beside __support_kvm: the IMS API does not allow both"},
		{x86, "__is_support_xen: true\n      __is_support_kvm_infiniband: true", "f.yaml:9:36: "},
		{x86, "__support_xen: true\n      __is_support_xen: false", "f.yaml:8:22: "},
		{x86, "__support_o2m: true\n      virtual_env_type: FusionCompute", "f.yaml:"},
		{x86, "__supor_kvm: true", "f.yaml:8:20: "},
		{x86, "__support_kvm: maybe", "f.yaml:8:22: properties: __support_kvm has no meaning"},
		{x86, "__image_capabilities: 0x1\n      __support_kvm: true", "f.yaml:9:22: "},
		{x86, "__image_capabilities: nonsense", "f.yaml:8:29: properties: __image_capabilities cannot be read"},
		{x86, "__support_arm: true\n      hw_firmware_type: uefi", "f.yaml:3:9: os: arch is amd64, but the capabilities are those of an Arm image"},
		{arm, "__support_kvm: true", "f.yaml:3:73: os: arch is arm64, but the capabilities are not those of an Arm image"},
		{arm, "__support_arm: true\n      hw_firmware_type: bios", "f.yaml:"},
	} {
		_, err := parse("f.yaml", "/", []byte(tt.file+tt.properties+"\n"))
		if assert.Error(t, err, tt.properties) {
			assert.ErrorContains(t, err, tt.want, tt.properties)
			assert.NotContains(t, err.Error(), "%!", tt.properties)
		}
	}
	for _, good := range []struct{ file, properties string }{
		{inherits, "__support_kvm: true"}, {inherits, "__is_support_kvm: \"True\""}, {inherits, "__support_o2m: false"}, {inherits, "__support_fc_inject: true"}, {inherits, "virtual_env_type: FusionCompute"},
		{inherits, "hw_firmware_type: bios"}, {inherits, "architecture: x86_64"}, {inherits, "supported_until: 2030"}, {inherits, "__os_bit: 64"},
		{x86, "__support_kvm: true"}, {x86, "__support_kvm_gpu_type: V100"}, {x86, "__support_xen: true\n      __support_kvm: true"}, {arm, "__support_kvm: true\n      __support_arm: true\n      hw_firmware_type: uefi"}, {arm, "c: d"},
	} {
		_, err := parse("f.yaml", "/", []byte(good.file+good.properties+"\n"))
		assert.NoError(t, err, good.properties)
	}
}

// Another release than the inherited one's says itself what follows from it.
func TestInheritingForAnotherReleaseNamesWhatIsStale(t *testing.T) {
	const repositories = "    repositories: [{name: debian, url: \"http://debmirror.otc-service.com/debian\", suites: [bookworm]}]\n"
	const version = "    properties: {__os_version: Debian GNU/Linux 12.0.0 64bit}\n"
	const image = "images:\n  - from: Standard_Debian_9\n"
	const next = image + "    os: {version: \"12\", codename: bookworm}\n"
	for text, want := range map[string]string{
		next:                                    `f.yaml:3:19: release "12 bookworm" is not that of Standard_Debian_9, which is "9`,
		next + "    name: Standard_Debian_12\n": "would be inherited: properties.__os_version, repositories",
		next + "    name: Standard_Debian_12\n" + repositories:                                                 "would be inherited: properties.__os_version",
		next + "    name: Standard_Debian_12\n" + version:                                                      "would be inherited: repositories",
		next + version + repositories:                                                                          "would be inherited: name",
		next + "    name: A_1\n" + version + strings.Replace(repositories, "repositories", "repositories+", 1): "would be inherited: repositories",
		image + "    os: {distribution: ubuntu}\n":                                                             "f.yaml:3:24: ubuntu is not the distribution of Standard_Debian_9, which is debian",
		image + "    os: {codename: buster}\n":                                                                 "f.yaml:3:9: release \"9 buster\" is not that of Standard_Debian_9, which is \"9 stretch\": say as well what follows from it and would be inherited: name, os.version, properties.__os_version, repositories",
		"images:\n  - from: Standard_CentOS_6\n    name: Standard_CentOS_7\n    os: {version: \"7.6\"}\n":      "properties.__os_version, repositories, test.required_packages, extra_reboot, notes",
	} {
		_, err := parse("f.yaml", "/", []byte(text))
		assert.ErrorContains(t, err, want, text)
	}
	for from, names := range map[string][2][]string{
		"Standard_Debian_9":     {{"Standard_Debian_12", "Beta_Debian_8.7", "Standard_Debian_12_amd64_bios"}, {"Standard_Debian_9.13", "Beta_Debian_9_minimal", "Standard_Web_2", "Standard_Debian_Web_2"}},
		"Standard_Ubuntu_16.04": {{"Standard_Ubuntu_18.04"}, {"Standard_Ubuntu_16.04.3", "Standard_Ubuntu_16"}},
		"Enterprise_SLES12_SP1": {{"Enterprise_SLES12_SP2", "Enterprise_SLES15"}, {"Enterprise_SLES12_SP1_mine", "Enterprise_SLES12_mine"}},
	} {
		entry, err := LookupImage(from)
		require.NoError(t, err)
		for i, list := range names {
			for _, name := range list {
				assert.Equal(t, i == 0, ofAnotherRelease(name, entry.Definition()), "%s from %s", name, from)
			}
		}
	}
	_, err := parse("f.yaml", "/", []byte(image+"    name: Standard_Debian_12\n"))
	assert.ErrorContains(t, err, `f.yaml:3:11: name: Standard_Debian_12 is not of the release of Standard_Debian_9, which is "9 stretch": say os.version`)
	_, err = parse("f.yaml", "/", []byte(image+"    name: Standard_Debian_12\n    os: {version: \"9\"}\n"))
	assert.NoError(t, err, "said so")
	_, err = parse("f.yaml", "/", []byte(next+"    name: Standard_Debian_12\n"+version+repositories))
	assert.NoError(t, err)
	_, err = parse("f.yaml", "/", []byte(image+"    name: Standard_Debian_9_mine\n    os: {version: \"9\"}\n"))
	assert.NoError(t, err, "the same release")
	got, err := parse("f.yaml", "/", []byte(image+"    name: Standard_Debian_12\n    os: {version: \"12\"}\n"+version+repositories))
	require.NoError(t, err)
	assert.Equal(t, "bookworm", got[0].OS.Codename, "follows from the version")
	_, err = parse("f.yaml", "/", []byte(image+"    os: {codename: bookworm}\n    name: Standard_Debian_12\n"+version+repositories))
	assert.ErrorContains(t, err, "would be inherited: os.version")
}

func TestInheritedListsAreAddedTo(t *testing.T) {
	got, err := parse("f.yaml", "/", []byte(`images:
  - from: Standard_Debian_9
    notes+: [one more]
    repositories+: [{name: mine, url: "https://example.org/debian", suites: [stretch]}]
    test: {required_packages+: [chrony], forbidden_packages+: [telnetd], waivers+: [{check: sshd.macs, reason: r, expires: 2027-06-30}]}
`))
	require.NoError(t, err)
	e, err := LookupImage("Standard_Debian_9")
	require.NoError(t, err)
	d := got[0]
	assert.Equal(t, append(e.Definition().Notes, "one more"), d.Notes)
	assert.Equal(t, append(e.Definition().Test.RequiredPackages, "chrony"), d.Test.RequiredPackages)
	assert.Equal(t, append(e.Definition().Test.ForbiddenPackages, "telnetd"), d.Test.ForbiddenPackages)
	assert.Len(t, d.Repositories, len(e.Repositories)+1)
	assert.Equal(t, "sshd.macs", d.Test.Waivers[len(d.Test.Waivers)-1].Check)

	for text, want := range map[string]string{
		"notes: [a]\n    notes+: [b]":                             "f.yaml:4:5: notes is replaced and added to",
		"test: {required_packages: [a], required_packages+: [b]}": "f.yaml:3:36: required_packages is replaced and added to",
		"ntp+: [a]":              `f.yaml:3:5: unknown field "ntp+"`,
		"notes+: x":              "f.yaml:3:13: want a list, found text",
		"test: {required+: [a]}": `f.yaml:3:12: unknown field "required+"`,
		"repositories+: [{name: a/b, url: \"http://x/\"}]": "f.yaml:3:20: repositories: name",
	} {
		_, err := parse("f.yaml", "/", []byte("images:\n  - from: Standard_Debian_9\n    "+text+"\n"))
		assert.ErrorContains(t, err, want, text)
	}
}

func TestAnEmptyTextTakesAnInheritedPropertyAway(t *testing.T) {
	got, err := parse("f.yaml", "/", []byte("images:\n  - from: Standard_Debian_9\n    properties: {__platform: \"\", mine: \"\"}\n"))
	require.NoError(t, err)
	assert.NotContains(t, got[0].Properties, "__platform")
	assert.Equal(t, "", got[0].Properties["mine"])
	assert.Equal(t, "64", got[0].Properties["__os_bit"])
}
