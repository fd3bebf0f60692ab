package imagefactory

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

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
		"no images":        {"images: []\n", "f.yaml:1:9: no images are defined"},
		"unknown key":      {replace("disk:", "disc: 1GiB\n    disk:"), `f.yaml:4:5: unknown field "disc"; the nearest known is disk`},
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
		"name too long":    {replace("Standard_Debian_12", "Standard_"+strings.Repeat("x", 113)), "f.yaml:2:11: name: bad image name"},
		"name with suffix": {replace("Standard_Debian_12", "Standard_Debian_12_latest"), "f.yaml:2:11: name: "},
		"duplicate name":   {minimal + strings.TrimPrefix(minimal, "images:\n"), "f.yaml:6:11: duplicate image name Standard_Debian_12, defined in line 2 already"},
		"duplicate key":    {replace("disk:", "disk: 4GiB\n    disk:"), "f.yaml:5:5: "},
		"two drivers":      {replace("{dib: {elements: [vm]}}", "{dib: {}, kiwi: {}}"), "f.yaml:5:24: only one driver"},
		"no driver":        {replace("{dib: {elements: [vm]}}", "dib"), "f.yaml:5:14: want a driver's name"},
		"unreasoned":       {minimal + "    uvp_monitor: {state: optional}\n", "uvp_monitor: optional needs a reason"},
		"bad state":        {minimal + "    uvp_monitor: {state: maybe}\n", `f.yaml:6:26: cannot take uvp-monitor state "maybe"`},
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
	one, err := (&product{def: &got[0]}).inputs()
	require.NoError(t, err)
	two, err := (&product{def: &again[0]}).inputs()
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
	require.EqualError(t, err, `f.yaml:5:20: image Standard_Debian_12: builder: unknown driver "dib"; there is none`)

	f.Builders = []BuilderDriver{canned{}}
	err = validate(strings.Replace(minimal, "{dib: {elements: [vm]}}", "{canned: {imagee: x}}", 1))
	require.EqualError(t, err, `f.yaml:5:24: image Standard_Debian_12: builder: unknown field "imagee"; the nearest known is image`)
	err = validate(strings.Replace(minimal, "{dib: {elements: [vm]}}", "{canned: {image: x}}", 1))
	require.EqualError(t, err, `f.yaml: image Standard_Debian_12: publish: unknown driver "directory"; there is none`)
}

// A driver's text fields are read as strictly as the definition's own.
func TestTextIsAsWritten(t *testing.T) {
	got, err := parse("f.yaml", "/", []byte(`images:
  - name: Standard_Debian_12
    os: {distribution: debian, version: 22.10, codename: 5.10}
    disk: 4GiB
    builder: {dib: {elements: [0755, 1e3], environment: {DIB_A: 0755, DIB_B: 0x1F, DIB_C: 1_000, DIB_D: yes, DIB_E: true, DIB_F: "null", DIB_G: 1:30}}}
    notes: [22.10, 0o17, 2027-01-01, off, true, .inf, 1.0, "~", 'a "b" # c']
    properties: {__os_bit: 64, build: 007}
    test: {waivers: [{check: sshd.macs, reason: 1e3, expires: "2027-06-30"}]}
`))
	require.NoError(t, err)
	d := got[0]
	require.Equal(t, "22.10", d.OS.Version)
	require.Equal(t, "5.10", d.OS.Codename)
	require.Equal(t, []string{"22.10", "0o17", "2027-01-01", "off", "true", ".inf", "1.0", "~", `a "b" # c`}, d.Notes)
	require.Equal(t, map[string]string{"__os_bit": "64", "build": "007"}, d.Properties)
	require.Equal(t, "1e3", d.Test.Waivers[0].Reason)
	var config struct {
		Elements    []string          `yaml:"elements"`
		Environment map[string]string `yaml:"environment"`
	}
	want := map[string]string{"DIB_A": "0755", "DIB_B": "0x1F", "DIB_C": "1_000", "DIB_D": "yes", "DIB_E": "true", "DIB_F": "null", "DIB_G": "1:30"}
	require.NoError(t, d.Builder.decode(&config))
	require.Equal(t, []string{"0755", "1e3"}, config.Elements)
	require.Equal(t, want, config.Environment)

	data, err := MarshalDefinitions(got)
	require.NoError(t, err)
	again, err := parse("f.yaml", "/", data)
	require.NoError(t, err, string(data))
	require.NoError(t, again[0].Builder.decode(&config))
	require.Equal(t, want, config.Environment, string(data))
}

// What could be meant in two ways, or what the reader would have to drop, is
// refused where it stands.
func TestNothingIsDropped(t *testing.T) {
	for text, want := range map[string]string{
		"notes: !include x":            `f.yaml:6:12: tag "!include" is not known here`,
		"notes: [!env X]":              `f.yaml:6:13: tag "!env" is not known here`,
		"notes: !x [a]":                `f.yaml:6:12: tag "!x" is not known here`,
		"test: !x {}":                  `f.yaml:6:11: tag "!x" is not known here`,
		"properties: {!x a: b}":        `f.yaml:6:18: tag "!x" is not known here`,
		"notes: [~]":                   "f.yaml:6:13: ~ is null and not text: quote it",
		"notes:\n      -":              "f.yaml:7:8: want text, found nothing",
		"notes:":                       "f.yaml:6:11: want a list, found nothing: leave the key out",
		"notes: text":                  "f.yaml:6:12: want a list, found text",
		"test: ~":                      "f.yaml:6:11: want a map, found nothing",
		"user: null":                   "f.yaml:6:11: null is null and not text",
		"user:":                        "f.yaml:6:10: want text, found nothing",
		"from:":                        "f.yaml:6:10: want text, found nothing",
		"ntp: {a: b}":                  "f.yaml:6:10: want a list, found a map",
		"capabilities: ~":              "f.yaml:6:19: ",
		"properties: {\"a\\nb\": c}":   `f.yaml:6:17: properties: bad name "a\nb"`,
		"properties: {\"\": c}":        `f.yaml:6:17: properties: bad name ""`,
		"min_disk: ~":                  "f.yaml:6:15: ~ is null",
		"publish: [~]":                 "f.yaml:6:15: want a driver's name",
		"publish: [directory]":         "f.yaml:6:15: want a driver's name",
		"repositories: [~]":            "f.yaml:6:20: want a map, found nothing",
		"trusted_keys: [{file: }]":     "f.yaml:6:27: want text, found nothing",
		"test: {profil: otc}":          `f.yaml:6:12: unknown field "profil"; the nearest known is profile`,
		"test: {waivers: [{chek: x}]}": `f.yaml:6:23: unknown field "chek"; the nearest known is check`,
		"uvp-monitor: {}":              `f.yaml:6:5: unknown field "uvp-monitor"; the nearest known is uvp_monitor`,
		"notes+: [a]":                  `f.yaml:6:5: unknown field "notes+"; the nearest known is notes`,
		"notes: [\"a\u2028b\"]":        `f.yaml:6:15: U+2028 ends a line to some readers`,
		"notes: [a\x00]":               "f.yaml:6:14: the control character U+0000",
		"notes: *nobody":               "f.yaml:6:12: ",
	} {
		_, err := parse("f.yaml", "/", []byte(minimal+"    "+text+"\n"))
		require.ErrorContains(t, err, want, text)
	}
	for text, want := range map[string]string{
		"images: [~]":               "f.yaml:1:10: want a map, found nothing",
		"images:\n  -":              "f.yaml:2:4: want a map, found nothing",
		"images:":                   "f.yaml:1:8: want a list, found nothing",
		"images: {a: b}":            "f.yaml:1:9: want a list, found a map",
		"- a":                       "f.yaml:1:1: want a map, found a list",
		"~":                         "f.yaml:1:1: want a map, found nothing",
		"image: []":                 `f.yaml:1:1: unknown field "image"; the nearest known is images`,
		minimal + "---\n" + minimal: "f.yaml:6:1: want one YAML document, a second one begins here",
		"\xff\xfei\x00":             "f.yaml:1:1: the file is UTF-16: save it as UTF-8",
		"images: [\xff]":            "f.yaml:1:10: a byte that is not UTF-8",
		"images:\n\t- a":            "f.yaml:2:1: a tab cannot stand here: indent with spaces",
	} {
		_, err := parse("f.yaml", "/", []byte(text))
		require.ErrorContains(t, err, want, text)
	}
	for name, text := range map[string]string{
		"byte order mark": "\ufeff" + minimal, "CRLF": strings.ReplaceAll(minimal, "\n", "\r\n"), "directive": "%YAML 1.2\n---\n" + minimal + "...\n", "comments": "# a\n" + minimal + "# b",
	} {
		got, err := parse("f.yaml", "/", []byte(text))
		require.NoError(t, err, name)
		require.Equal(t, "Standard_Debian_12", got[0].Name)
		_, err = parse("f.yaml", "/", []byte(strings.Replace(text, "images", "imagez", 1)))
		require.ErrorContains(t, err, ":1: unknown field", name)
	}
}

func TestAnchorsAreSharedOverImages(t *testing.T) {
	got, err := parse("f.yaml", "/", []byte(`x-defaults: &defaults
  os: {distribution: debian, version: "12", codename: bookworm}
  disk: 4GiB
  builder: &dib {dib: {elements: [vm]}}
x-user: &user admin
images:
  - &first
    <<: *defaults
    name: Standard_Debian_12
    x-notes: &notes [a, b]
    user: *user
    notes: *notes
  - {<<: *defaults, name: Standard_Debian_12_BMS, disk: 5GiB, notes: *notes}
  - <<: *first
    name: Standard_Debian_12_FPGA
    builder: *dib
`))
	require.NoError(t, err)
	require.Len(t, got, 3)
	for i, want := range []string{"Standard_Debian_12", "Standard_Debian_12_BMS", "Standard_Debian_12_FPGA"} {
		require.Equal(t, want, got[i].Name)
		require.Equal(t, "bookworm", got[i].OS.Codename)
		require.Equal(t, []string{"a", "b"}, got[i].Notes)
		require.Equal(t, "dib", got[i].Builder.Driver)
	}
	require.Equal(t, "admin", got[0].User)
	require.Equal(t, "linux", got[1].User)
	require.Equal(t, "admin", got[2].User)
	require.Equal(t, 5*GiB, got[1].DiskBytes)
	_, err = parse("f.yaml", "/", []byte(minimal+"    test: {x-y: z}\n"))
	require.ErrorContains(t, err, `unknown field "x-y"`, "only where it is said")
}

// A definition is published, and so is what an error says of it.
func TestPasswordsAreRefusedAndNotShown(t *testing.T) {
	for _, url := range []string{
		"http://u:hunter2@mirror.example.org/debian", "http://u:hunter2@x:port/", "https://hunter2@x", "ftp://u:hunter2@x/", "http://u:hunter2/hunter2@x/", "see git+ssh://u:hunter2@x for more",
	} {
		for _, text := range []string{
			"mirrors: {debian: %q}", "repositories: [{name: a, url: %q}]", "notes: [%q]", "properties: {a: %q}", "properties: {%q: a}", "ntp: [%q]", "trusted_keys: [{file: %q}]",
			"publish: [{directory: {path: %q}}]", "user: %q", "x-a: %q", "disk: %q",
		} {
			_, err := parse("f.yaml", "/", []byte(minimal+"    "+strings.ReplaceAll(text, "%q", `"`+url+`"`)+"\n"))
			require.Error(t, err, url)
			require.NotContains(t, err.Error(), "hunter2", text)
			if !strings.HasPrefix(text, "disk") { // which is there twice
				require.ErrorContains(t, err, "f.yaml:6:")
				require.ErrorContains(t, err, "a URL with a user or password")
			}
		}
		var d Definition
		d.Mirrors = map[string]string{"debian": url}
		require.NotContains(t, d.Complete().Error(), "hunter2")
	}
	_, err := parse("f.yaml", "/", []byte(minimal+"    notes: [\"write to a@example.org\", \"https://example.org:8080/@scope/x\", \"http://[::1]:80/a@b\"]\n"))
	require.NoError(t, err)
}

func TestLoadFileWaitsForNothing(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o644))
	large := filepath.Join(dir, "large")
	require.NoError(t, os.WriteFile(large, nil, 0o644))
	require.NoError(t, os.Truncate(large, 1<<40))
	missing := filepath.Join(dir, "missing")
	for name, want := range map[string]string{
		fifo: fifo + ": not a regular file", dir: dir + ": not a regular file", "/dev/zero": "/dev/zero: not a regular file", "/dev/null": "/dev/null: not a regular file",
		large: large + ": larger than 4194304 bytes", missing: missing + ": no such file or directory",
	} {
		_, err := LoadFile(name)
		require.EqualError(t, err, want)
	}
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte(minimal), 0o644))
	require.NoError(t, os.Symlink("file", link))
	_, err := LoadFile(link)
	require.NoError(t, err)
}

// Ten thousand images are read in linear time.
func TestManyImages(t *testing.T) {
	var b strings.Builder
	b.WriteString("images:\n")
	for i := range 10_000 {
		b.WriteString(strings.Replace(strings.TrimPrefix(minimal, "images:\n"), "Debian_12", fmt.Sprintf("Debian_12_%d", i), 1))
	}
	got, err := parse("f.yaml", "/", []byte(b.String()))
	require.NoError(t, err)
	require.Len(t, got, 10_000)

	_, err = parse("f.yaml", "/", []byte("images: ["+strings.Repeat("x,", 1<<20)+"]"))
	require.Len(t, unjoin(err), 101)
	require.ErrorContains(t, err, "there are too many mistakes")
	_, err = parse("f.yaml", "/", []byte("x-a: &a "+strings.Repeat("x", 1<<20)+"\nimages: ["+strings.Repeat("{notes: [*a]},", 1<<10)+"]"))
	require.ErrorContains(t, err, "aliases stand for more than 4194304 bytes")
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"4GiB": 4 << 30, "4 GiB": 4 << 30, "512MiB": 512 << 20, "12GB": 12e9, "500MB": 500e6, "1024MiB": 1 << 30, "2TiB": 2 << 40, "3TB": 3e12, "8388607TiB": 8388607 << 40, "9223372TB": 9223372e12,
	} {
		got, err := ParseSize(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		written, err := got.MarshalText()
		require.NoError(t, err)
		back, err := ParseSize(string(written))
		require.NoError(t, err)
		require.Equal(t, want, back)
	}
	require.Equal(t, "1TiB", (1024 * GiB).String())
	require.Equal(t, 12, (12 * GB).CeilGiB())
	require.Equal(t, 4, (4 * GiB).CeilGiB())
	require.Equal(t, 5, (4*GiB + 1).CeilGiB())
	for text, want := range map[string]string{
		"4G": `bad size "4G": unknown unit "G": want a whole number above 0 and a unit, TiB, TB, GiB, GB, MiB or MB, such as 4GiB`, "4gib": `unknown unit "gib"`, "4PiB": `unknown unit "PiB"`, "4KiB": "unknown unit", "4B": "unknown unit",
		"4": "the unit is missing", "": "bad size", "GiB": "bad size", "4.5GiB": `bad size "4.5GiB": want a whole number`, "4,5GiB": "bad size", "-4GiB": "bad size", "+4GiB": "bad size", "0GiB": "want a whole number above 0",
		"8388608TiB": "that is more than 8388607TiB", "9223373TB": "that is more", "99999999999999999999GiB": "that is more", "4  GiB": "bad size", " 4GiB": "bad size", "4GiB ": "bad size", "0x4GiB": "bad size", "1e3GiB": "bad size", "٤GiB": "bad size",
	} {
		_, err := ParseSize(text)
		require.ErrorContains(t, err, want, text)
	}
	for _, size := range []Size{-GiB, 1, MiB + 1, math.MaxInt64, math.MinInt64, 0} {
		_, err := size.MarshalText()
		require.Error(t, err, size)
		d := inGo()
		d.DiskBytes = size
		require.ErrorContains(t, d.Complete(), "disk: ")
	}
}

// A name has to leave room for the suffixes of its registrations.
func TestNamesLeaveRoomForTheirSuffixes(t *testing.T) {
	d := inGo()
	d.Name = "Standard_" + strings.Repeat("x", 107) // 116
	require.NoError(t, d.Complete())
	name, err := ParseName(d.Name)
	require.NoError(t, err)
	for _, registered := range []Name{name.Latest(), name.Prev(), name.Dated(time.Now(), 99)} {
		_, err := registered.MarshalText()
		require.NoError(t, err)
	}
	for n := 117; n <= 130; n++ {
		d.Name = "Standard_" + strings.Repeat("x", n-9)
		require.ErrorContains(t, d.Complete(), "name: ", n)
	}
	// Whose names need a class is the factory's to say.
	d.Name = "my-image"
	require.NoError(t, d.Complete())
	d.Name = "my-image_latest"
	require.ErrorContains(t, d.Complete(), "want it without _latest, _prev or date")
}

// inGo is a definition that is made in Go.
func inGo() Definition {
	return Definition{
		Name: "Standard_Debian_12", OS: OS{Distribution: "debian", Version: "12", Codename: "bookworm"}, DiskBytes: 4 * GiB,
		Builder: Component{Driver: "dib", Config: map[string]any{"elements": []string{"vm"}}},
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	for _, s := range []string{
		"notes: !include x", "notes: [!env X, ~, 0755, 22.10]", "notes:\n    -", "capabilities: [kvm-virtio, ~]", "properties: {__support_kvm_gpu_type: V100, %s: d}", "<<: *a", "min_disk: 4 TiB", "x-a: &a {b: c}",
		"publish: [{directory: }, {a: b, c: d}]", "publish: [{a: b, name: c}, {name: 1, a: b}]", "test: {waivers: [{check: sshd.macs, expires: 2027-06-30}]}", "mirrors: {debian: \"http://u:p@h\"}", "? x\n    : y", "notes: |\n      a\n\n      b", "uvp_monitor: {state: optional, reason: r}",
	} {
		f.Add([]byte(minimal + "    " + s + "\n"))
	}
	f.Add([]byte("images:\n  - from: Standard_Debian_9\n    notes+: [a]\n    test: {required_packages+: [b]}\n"))
	f.Add([]byte("images: [~]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parse("f.yaml", "/", data)
		for _, err := range unjoin(err) {
			var config *ConfigError
			if !errors.As(err, &config) {
				t.Fatalf("%T: %v", err, err)
			}
			if len(err.Error()) > 2000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
		}
		if err != nil || len(got) == 0 {
			return
		}
		for i := range got {
			require.NoError(t, got[i].Complete(), "accepted, but not complete")
		}
		requireSameWhenWritten(t, got)
	})
}

// requireSameWhenWritten writes complete definitions in each way and reads them.
func requireSameWhenWritten(t *testing.T, want []Definition) {
	t.Helper()
	ours, err := MarshalDefinitions(want)
	require.NoError(t, err)
	other, err := yaml.Marshal(map[string]any{"images": want}) // a library of the importer's
	require.NoError(t, err)
	for _, data := range [][]byte{ours, other} {
		got, err := parse("again.yaml", want[0].Dir, data)
		require.NoError(t, err, string(data))
		require.Equal(t, bare(want), bare(got), string(data))
	}
}

// bare leaves out where definitions come from.
func bare(definitions []Definition) []Definition {
	out := slices.Clone(definitions)
	plain := func(c Component) Component {
		var config any
		if err := c.decode(&config); err != nil {
			panic(err)
		}
		return Component{Driver: c.Driver, Host: c.Host, Name: c.Name, Config: config}
	}
	for i := range out {
		d := &out[i]
		d.source = source{}
		d.Builder = plain(d.Builder)
		d.Publish = slices.Clone(d.Publish)
		for i := range d.Publish {
			d.Publish[i] = plain(d.Publish[i])
		}
		for _, list := range []*[]string{&d.Notes, &d.NTPServers} {
			if len(*list) == 0 {
				*list = nil // an empty list is not written
			}
		}
		for _, list := range []*[]PackageRelation{&d.Test.RequiredPackages, &d.Test.ForbiddenPackages} {
			if len(*list) == 0 {
				*list = nil
			}
		}
		if len(d.Properties) == 0 {
			d.Properties = nil
		}
		if len(d.Repositories) == 0 {
			d.Repositories = nil
		}
		if len(d.Test.Waivers) == 0 {
			d.Test.Waivers = nil
		}
		if len(d.Mirrors) == 0 {
			d.Mirrors = nil
		}
		if len(d.TrustedKeys) == 0 {
			d.TrustedKeys = nil
		}
		d.Repositories = slices.Clone(d.Repositories)
		for i := range d.Repositories {
			r := &d.Repositories[i]
			if len(r.Suites) == 0 {
				r.Suites = nil
			}
			if len(r.Components) == 0 {
				r.Components = nil
			}
		}
		d.TrustedKeys = slices.Clone(d.TrustedKeys)
		for i := range d.TrustedKeys {
			if len(d.TrustedKeys[i].Fingerprints) == 0 {
				d.TrustedKeys[i].Fingerprints = nil
			}
		}
	}
	return out
}

func FuzzMarshal(f *testing.F) {
	for _, s := range []string{
		"? x", "\t", "a\tb", " a", "a ", "- a", "#", "a #b", "a: b", "\u2028", "\u0085", "\ufeff", "0755", "null", "~", "", "2027-01-01", "1e3", "true", "yes", "<<", "*a", "&a", "!a b", "|", ">\n a", "a\nb\n", "\r\n", "'", "\"\\", "%a", "@", "`", "[a", "{", "\x00", "\x7f", "😀",
	} {
		f.Add(s, s, int64(4<<30))
	}
	f.Fuzz(func(t *testing.T, key, text string, size int64) {
		if !utf8.ValidString(key) || !utf8.ValidString(text) {
			return
		}
		d := inGo()
		d.DiskBytes = Size(size)
		d.Notes = []string{text, key}
		d.Properties = map[string]string{key: text}
		if PackageRelation(text).check() == nil {
			d.Test.RequiredPackages = []PackageRelation{PackageRelation(text)}
		}
		d.Test.Waivers = []Waiver{{Check: "sshd.macs", Reason: "r" + text, Expires: Date{time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)}}}
		d.UVPMonitor = UVPMonitor{State: testsuite.UVPOptional, Reason: "r" + text}
		d.Builder.Config = map[string]any{"elements": []any{text}, "environment": map[string]any{"DIB_X": text}}
		if d.Complete() != nil || secretsIn(text) || secretsIn(key) {
			return
		}
		requireSameWhenWritten(t, []Definition{d})
	})
}

func secretsIn(text string) bool { return userInfo.MatchString(text) || userInfo.MatchString("r"+text) }
