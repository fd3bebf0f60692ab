package imagefactory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

const minimal = `images:
  - name: Standard_Debian_12
    os: {distribution: debian, version: "12", codename: bookworm}
    disk: 4GiB
    builder: {dib: {elements: [vm]}}
`

func TestLoadFillsDefaults(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.yaml")
	require.NoError(t, os.WriteFile(name, []byte(minimal), 0o644))
	got, err := LoadFile(name)
	require.NoError(t, err)
	require.Len(t, got, 1)
	d := got[0]
	require.Equal(t, 4*GiB, d.DiskBytes)
	require.Equal(t, 4*GiB, d.MinDiskBytes)
	require.Equal(t, "linux", d.User)
	require.Equal(t, "amd64", d.OS.Arch)
	require.Equal(t, map[string]string{"debian": "host"}, d.Mirrors)
	require.Equal(t, []string{"ntp01.otc-service.com", "ntp02.otc-service.com"}, d.NTPServers)
	require.Equal(t, "http://debmirror.otc-service.com/debian", d.Repositories[0].URL)
	require.Equal(t, testsuite.UVPRequired, d.UVPMonitor.State)
	require.Equal(t, "directory", d.Publish[0].Driver)
	require.Equal(t, filepath.Dir(name), d.Dir)
}

func TestLoadReportsMistakesWithTheirPlace(t *testing.T) {
	replace := func(old, by string) string { return strings.Replace(minimal, old, by, 1) }
	for name, test := range map[string]struct{ yaml, want string }{
		"not YAML":         {"images: [", "f.yaml:1:9: "},
		"empty":            {"", "f.yaml: want one YAML document"},
		"no images":        {"images: []\n", "f.yaml:1:7: no images are defined"},
		"unknown key":      {replace("disk:", "disc: 1GiB\n    disk:"), `f.yaml:4:5: unknown field "disc"`},
		"unknown top key":  {minimal + "more: 1\n", `f.yaml:6:1: unknown field "more"`},
		"no unit":          {replace("4GiB", "4"), `f.yaml:4:11: bad size "4"`},
		"wrong unit":       {replace("4GiB", "4G"), `f.yaml:4:11: bad size "4G"`},
		"fraction":         {replace("4GiB", "4.5GiB"), `f.yaml:4:11: bad size "4.5GiB"`},
		"too large":        {replace("4GiB", "99999999999GiB"), `f.yaml:4:11: bad size`},
		"no size":          {replace("4GiB", "0GiB"), `f.yaml:4:11: bad size "0GiB"`},
		"bad server":       {minimal + "    ntp: [\"a b\"]\n", `f.yaml:6:10: ntp: bad value "a b"`},
		"root":             {minimal + "    user: root\n", `f.yaml:6:11: user: bad value "root"`},
		"bad mirror":       {minimal + "    mirrors: {debian: \"ftp://x/\"}\n", `mirrors: debian: bad value "ftp://x/"`},
		"small min_disk":   {replace("disk: 4GiB", "disk: 4GiB\n    min_disk: 2GiB"), "f.yaml:5:15: min_disk: 2GiB is less than the disk's 4GiB"},
		"bad name":         {replace("Standard_Debian_12", "../x"), "f.yaml:2:11: name: "},
		"name with suffix": {replace("Standard_Debian_12", "Standard_Debian_12_latest"), "f.yaml:2:11: name: "},
		"duplicate name":   {minimal + strings.TrimPrefix(minimal, "images:\n"), "f.yaml:6:11: duplicate image name Standard_Debian_12, defined in line 2 already"},
		"duplicate key":    {replace("disk:", "disk: 4GiB\n    disk:"), "f.yaml:5:5: "},
		"two drivers":      {replace("{dib: {elements: [vm]}}", "{dib: {}, kiwi: {}}"), "f.yaml:5:24: only one driver"},
		"no driver":        {replace("{dib: {elements: [vm]}}", "dib"), "f.yaml:5:14: want a driver's name"},
		"unreasoned":       {minimal + "    uvp_monitor: {state: optional}\n", "uvp_monitor: optional needs a reason"},
		"bad state":        {minimal + "    uvp_monitor: {state: maybe}\n", `f.yaml:2:9: cannot take uvp-monitor state "maybe"`},
		"bad date":         {minimal + "    test: {waivers: [{check: sshd.macs, reason: r, expires: soon}]}\n", `bad date "soon"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("f.yaml", "/", []byte(test.yaml))
			require.ErrorContains(t, err, test.want)
			var config *ConfigError
			require.ErrorAs(t, err, &config)
		})
	}
}

func TestEveryMistakeIsReported(t *testing.T) {
	_, err := parse("f.yaml", "/", []byte(strings.Replace(minimal, "4GiB", "4", 1)+strings.TrimPrefix(strings.Replace(minimal, "_12", "_13_prev", 1), "images:\n")))
	require.ErrorContains(t, err, "f.yaml:4:11")
	require.ErrorContains(t, err, "f.yaml:6:11")
}

func TestDefinitionRoundTrip(t *testing.T) {
	data, err := os.ReadFile("../examples/nightly/nightly.yaml")
	require.NoError(t, err)
	got, err := parse("nightly.yaml", "/x", data)
	require.NoError(t, err)
	text, err := yaml.Marshal(map[string]any{"images": got})
	require.NoError(t, err)
	again, err := parse("again.yaml", "/x", text)
	require.NoError(t, err, string(text))
	one, err := (&job{def: &got[0]}).inputs()
	require.NoError(t, err)
	two, err := (&job{def: &again[0]}).inputs()
	require.NoError(t, err)
	require.Equal(t, one, two)
}

func TestUnknownDriversAndTheirMistakes(t *testing.T) {
	f := &Factory{}
	validate := func(yaml string) error {
		d, err := parse("f.yaml", "/", []byte(yaml))
		require.NoError(t, err)
		return f.Validate(d)
	}
	err := validate(minimal)
	require.EqualError(t, err, `f.yaml:5:20: image Standard_Debian_12: builder: unknown driver "dib": there is none`)

	f.Builders = []BuilderDriver{canned{}}
	err = validate(strings.Replace(minimal, "{dib: {elements: [vm]}}", "{canned: {imagee: x}}", 1))
	require.EqualError(t, err, `f.yaml:5:24: image Standard_Debian_12: builder: unknown field "imagee"`)
	err = validate(strings.Replace(minimal, "{dib: {elements: [vm]}}", "{canned: {image: x}}", 1))
	require.EqualError(t, err, `f.yaml: image Standard_Debian_12: publish: unknown driver "directory": there is none`)
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{"4GiB": 4 << 30, "512MiB": 512 << 20, "12GB": 12e9, "500MB": 500e6, "1024MiB": 1 << 30} {
		got, err := ParseSize(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		back, err := ParseSize(got.String())
		require.NoError(t, err)
		require.Equal(t, want, back)
	}
	require.Equal(t, 12, (12 * GB).CeilGiB())
	require.Equal(t, 4, (4 * GiB).CeilGiB())
	require.Equal(t, 5, (4*GiB + 1).CeilGiB())
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parse("f.yaml", "/", data)
		var config *ConfigError
		if err != nil && !errors.As(err, &config) {
			t.Fatalf("%T: %v", err, err)
		}
		for _, d := range got {
			if d.Complete() != nil {
				t.Fatal("accepted, but not complete")
			}
		}
	})
}
