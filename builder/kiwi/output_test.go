package kiwi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// What testdata holds was recorded from builds; see testdata/README.

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return data
}

func TestParseLine(t *testing.T) {
	for line, want := range map[string][2]string{
		"[ INFO    ]: 12:52:13 | Loading XML description":                                                               {"Loading XML description", "Loading XML description"},
		"[ INFO    ]: 12:52:14 | --> Selected build type: oem":                                                          {"--> Selected build type: oem"},
		"[ INFO    ]: 12:52:14 | Cleaning up SystemPrepare instance":                                                    {"Cleaning up SystemPrepare instance"},
		"[ DEBUG   ]: 12:52:19 | EXEC: [rm -f /x]":                                                                      {},
		"[ ERROR   ]: 12:52:19 | KiwiDescriptionInvalid: Failed to validate":                                            {"KiwiDescriptionInvalid: Failed to validate"},
		"E: Release signed by unknown key (key id 0E98404D386FA1D9)":                                                    {"E: Release signed by unknown key (key id 0E98404D386FA1D9)"},
		"[ DEBUG   ]: 12:52:19 | bootstrap: I: Retrieving InRelease":                                                    {"I: Retrieving InRelease"},
		"[ INFO    ]: Processing: [                                        ] 0%[ DEBUG   ]: 12:54:30 | bootstrap: I: x": {"I: x"},
		"[ INFO    ]: Processing: [####                                    ] 10%":                                       {},
		"[ INFO    ]: " + strings.Repeat("x", 200):                                                                      {strings.Repeat("x", 200)},
	} {
		text, phase := parseLine(line)
		require.Equal(t, want, [2]string{text, phase}, line)
	}
}

func TestParseResult(t *testing.T) {
	got, err := parseResult(testdata(t, "debian.result.json"), "/var/tmp/build/result")
	require.NoError(t, err)
	require.Equal(t, files{
		image:    "Standard_Debian_12.x86_64-20261122.031507.0.qcow2",
		packages: "Standard_Debian_12.x86_64-20261122.031507.0.packages",
		verified: "Standard_Debian_12.x86_64-20261122.031507.0.verified",
	}, got)
	for name, data := range map[string]string{
		"empty":         ``,
		"no object":     `[]`,
		"nothing":       `{}`,
		"no packages":   `{"disk_format_image": {"filename": "/r/x.qcow2"}}`,
		"elsewhere":     `{"disk_format_image": {"filename": "/etc/x.qcow2"}, "image_packages": {"filename": "/r/x.packages"}}`,
		"out of it":     `{"disk_format_image": {"filename": "/r/../x.qcow2"}, "image_packages": {"filename": "/r/x.packages"}}`,
		"another type":  `{"disk_format_image": {"filename": 5}, "image_packages": {"filename": "/r/x.packages"}}`,
		"another image": `{"disk_format_image": {"filename": "/r/x.raw"}, "image_packages": {"filename": "/r/x.packages"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseResult([]byte(data), "/r")
			require.Error(t, err)
		})
	}
}

func TestParsePackages(t *testing.T) {
	got, err := parsePackages(testdata(t, "debian.packages"))
	require.NoError(t, err)
	require.True(t, slices.IsSortedFunc(got, builder.Package.Compare))
	require.Len(t, got, 6, "vim-tiny is not installed")
	require.Contains(t, got, builder.Package{Name: "adduser", Version: "3.134", Arch: "all"})
	got, err = parsePackages([]byte("zlib|(none)|1.2.8|7.1|x86_64|obs://x|Zlib\ngpg-pubkey|(none)|39db7c82|5f68629b|(none)|(none)|pubkey\nbind|32|9.11|4.el7|x86_64|(none)|MPLv2.0\n"))
	require.NoError(t, err)
	require.Equal(t, []builder.Package{{Name: "bind", Version: "32:9.11-4.el7", Arch: "x86_64"}, {Name: "zlib", Version: "1.2.8-7.1", Arch: "x86_64"}}, got)
	for _, bad := range []string{"", "a", "a|b|c|d", "a|None||None|all|x|y", "a b|None|1|None|all|x|y", "a|None|1|None|None|x|y", "a|None||None||x|y"} {
		_, err := parsePackages([]byte(bad))
		require.Error(t, err, bad)
	}
}

func TestParseVerified(t *testing.T) {
	require.Empty(t, parseVerified(nil))
	require.Equal(t, []string{"/usr/bin/changed", "/usr/lib/gone"}, parseVerified([]byte(`S.5....T.  c /etc/ssh/sshd_config
S.5....T.    /usr/bin/changed
.......T.    /usr/bin/touched
missing      /usr/lib/gone
missing   d  /usr/share/doc/gone
Unsatisfied dependencies for x
`)))
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"debian.result.json", "debian.packages"} {
		f.Add(testdata(f, name))
	}
	f.Add([]byte("S.5....T.  c /etc/ssh/sshd_config\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseResult(data, "/r"); err == nil && strings.Contains(r.image+r.packages+r.verified, "/") {
			t.Fatal("a file outside the directory")
		}
		packages, err := parsePackages(data)
		for _, p := range packages {
			if strings.ContainsAny(p.Name+p.Version+p.Arch, " \n") || p.Name == "" || err != nil {
				t.Fatalf("%q would break a .packages line", p)
			}
		}
		for _, file := range parseVerified(data) {
			if !strings.HasPrefix(file, "/") {
				t.Fatalf("%q is no path", file)
			}
		}
	})
}
