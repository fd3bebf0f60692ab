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
	assert.Equal(t, []string{"chrony"}, d.Test.RequiredPackages)
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
	assert.Equal(t, []string{"cloud-init", "uvp-monitor", "otc-tools", "rng-tools"}, e.RequiredPackages, "the catalog is as it was")
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
