package sbom_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/sbom"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

var update = flag.Bool("update", false, "write the golden files")

func example() *sbom.Image {
	return &sbom.Image{
		Name: "Standard_Debian_12", Build: "20261122-031507", Created: time.Date(2026, 11, 22, 3, 15, 7, 0, time.UTC),
		Creator:  sbom.Creator{Name: "Factory", URL: "https://example.com/factory"},
		Filename: "Standard_Debian_12-20261122-031507.qcow2", SHA256: strings.Repeat("a", 64), SHA512: strings.Repeat("b", 128),
		Distribution: "debian", Release: "12", Arch: "amd64", FileSystems: []string{"p1 vfat ESP", "p2 ext4 root"},
		Packages: []sbom.Package{
			{Name: "libc6", Version: "2.36-9+deb12u9", Arch: "amd64", Source: "glibc", SourceVersion: "2.36-9+deb12u9", Creator: sbom.Creator{Name: "GNU Libc Maintainers", Email: "debian-glibc@lists.debian.org"}, Licence: "LGPL-2.1"},
			{Name: "libssl3", Version: "3.0.15-1~deb12u1", Arch: "amd64", Source: "openssl", SourceVersion: "3.0.15-1~deb12u1", Needs: []string{"libc6/2.36-9+deb12u9/amd64"}},
			{Name: "libssl3", Version: "3.0.16-1~deb12u1", Arch: "amd64"},
			{Name: "login", Version: "1:4.13+dfsg1-1", Arch: "amd64"},
		},
		Files: []sbom.File{
			{Path: "/boot/initrd.img-6.1.0-26-amd64", Version: "6.1.0-26-amd64", SHA256: strings.Repeat("c", 64), Archive: true},
			{Path: "/boot/vmlinuz-6.1.0-26-amd64", Version: "6.1.0-26-amd64", SHA256: strings.Repeat("d", 64), Executable: true},
		},
	}
}

func written(t testing.TB, image *sbom.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, sbom.Write(&b, image))
	return b.Bytes()
}

func TestWriteIsReadBack(t *testing.T) {
	got := written(t, example())
	require.Equal(t, string(got), string(written(t, example())), "the same bytes")
	golden := filepath.Join("testdata", "image.cdx.json")
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
	image, err := sbom.Read(bytes.NewReader(got))
	require.NoError(t, err)
	require.Equal(t, example(), image)
}

// Without each required field, and with each that is malformed, it is refused.
func TestValidateMissesEveryField(t *testing.T) {
	good := written(t, example())
	require.NoError(t, sbom.Validate(bytes.NewReader(good)))
	type object = map[string]any
	component := func(o object, n int) object { return o["components"].([]any)[n].(object) }
	image := func(o object) object { return o["metadata"].(object)["component"].(object) }
	setProperty := func(c object, name string, value any) {
		c["properties"] = slices.DeleteFunc(c["properties"].([]any), func(p any) bool { return p.(object)["name"] == name })
		if value != nil {
			c["properties"] = append(c["properties"].([]any), object{"name": name, "value": value})
		}
	}
	cases := map[string]struct {
		spoil func(object)
		want  string
	}{
		"format":                  {func(o object) { o["bomFormat"] = "SPDX" }, "bomFormat"},
		"version of the format":   {func(o object) { o["specVersion"] = "1.5" }, "specVersion"},
		"serial number":           {func(o object) { o["serialNumber"] = "1" }, "serialNumber"},
		"vulnerabilities":         {func(o object) { o["vulnerabilities"] = []any{object{"id": "CVE-2026-1"}} }, "vulnerabilities"},
		"no metadata":             {func(o object) { delete(o, "metadata") }, "metadata"},
		"no time":                 {func(o object) { delete(o["metadata"].(object), "timestamp") }, "timestamp"},
		"no creator of the list":  {func(o object) { delete(o["metadata"].(object), "manufacturer") }, "metadata.manufacturer"},
		"creator without address": {func(o object) { o["metadata"].(object)["manufacturer"] = object{"name": "x"} }, "metadata.manufacturer"},
		"no image":                {func(o object) { delete(o["metadata"].(object), "component") }, "metadata.component"},
		"no components":           {func(o object) { delete(o, "components") }, "components"},
		"no completeness":         {func(o object) { delete(o, "compositions") }, "compositions"},
		"no dependencies":         {func(o object) { delete(o, "dependencies") }, "dependencies are not said"},
		"no name":                 {func(o object) { component(o, 0)["name"] = "" }, "no name"},
		"no version":              {func(o object) { delete(component(o, 0), "version") }, "no version"},
		"no creator":              {func(o object) { delete(component(o, 0), "manufacturer") }, "creator is missing"},
		"no licence":              {func(o object) { delete(component(o, 0), "licenses") }, "licence is missing"},
		"empty licence":           {func(o object) { component(o, 0)["licenses"] = []any{object{"license": object{}}} }, "licence is missing"},
		"no purl":                 {func(o object) { delete(component(o, 0), "purl") }, "no purl"},
		"no filename":             {func(o object) { setProperty(component(o, 0), "bsi:component:filename", nil) }, "filename"},
		"filename with a path":    {func(o object) { setProperty(component(o, 0), "bsi:component:filename", "a/b") }, "filename"},
		"not said: executable":    {func(o object) { setProperty(component(o, 0), "bsi:component:executable", nil) }, "executable"},
		"not said: archive":       {func(o object) { setProperty(component(o, 0), "bsi:component:archive", "yes") }, "archive"},
		"not said: structured":    {func(o object) { setProperty(component(o, 0), "bsi:component:structured", nil) }, "structured"},
		"digest not said unknown": {func(o object) { setProperty(component(o, 0), sbom.UnknownProperty, nil) }, "sha512 is missing"},
		"version unknown":         {func(o object) { setProperty(component(o, 0), sbom.UnknownProperty, "sha512 version") }, "cannot be unknown"},
		"known and unknown":       {func(o object) { setProperty(component(o, 0), sbom.UnknownProperty, "sha512 creator") }, "called unknown"},
		"image without digest": {func(o object) {
			delete(image(o), "hashes")
			setProperty(image(o), sbom.UnknownProperty, "licence sha512")
		}, "its SHA-512"},
		"digest too short": {func(o object) { component(o, 4)["hashes"].([]any)[0].(object)["content"] = "ab" }, "digest"},
		"twice":            {func(o object) { component(o, 1)["bom-ref"] = component(o, 0)["bom-ref"] }, "twice"},
		"needs what is not there": {func(o object) {
			o["dependencies"].([]any)[1].(object)["dependsOn"] = []any{"package:none/1/all"}
		}, "not there"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var o object
			require.NoError(t, json.Unmarshal(good, &o))
			c.spoil(o)
			data, err := json.Marshal(o)
			require.NoError(t, err)
			require.ErrorContains(t, sbom.Validate(bytes.NewReader(data)), c.want)
		})
	}
}

// What the machine's own dpkg says is what is read, with the sources.
func TestReadDpkgAsDpkgQuery(t *testing.T) {
	query := needs.Tools(t, "dpkg-query")[0]
	const status = "/var/lib/dpkg/status"
	f, err := os.Open(status)
	if err != nil {
		t.Skip("this machine is not a Debian: " + err.Error())
	}
	defer f.Close()
	packages, err := sbom.ReadDpkg(f)
	require.NoError(t, err)
	var got []string
	for _, p := range packages {
		got = append(got, fmt.Sprintln(p.Name, p.Version, p.Arch, p.Source, p.SourceVersion))
	}
	out, err := exec.Command(query, "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n").Output()
	require.NoError(t, err)
	var want []string
	for line := range strings.Lines(string(out)) {
		if state, rest, _ := strings.Cut(line, " "); state != "config-files" && state != "not-installed" {
			want = append(want, rest)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	require.Greater(t, len(want), 50)
	require.Equal(t, want, got)

	image := example()
	image.Packages = packages
	data := written(t, image)
	read, err := sbom.Read(bytes.NewReader(data))
	require.NoError(t, err)
	require.Equal(t, image, read)
}

func TestReadDpkg(t *testing.T) {
	const status = `Package: a
Status: install ok installed
Maintainer: Doe, Jane <jane@example.com>
Architecture: amd64
Source: aa (1.0)
Version: 1:1.0+b1
Depends: x | mta, b:any (>= 2), gone | c [amd64]
Description: text
 Depends: not this
Pre-Depends: b

Package: b
Status: hold ok installed
Architecture: all
Version: 2
Maintainer: nobody <"no body"@example.com>

Package: c
Status: install ok unpacked
Architecture: amd64
Version: 3
Provides: mta (= 1), other

Package: x
Status: deinstall ok config-files
Architecture: amd64
Version: 9
`
	packages, err := sbom.ReadDpkg(strings.NewReader(status))
	require.NoError(t, err)
	require.Equal(t, []sbom.Package{
		{Name: "a", Version: "1:1.0+b1", Arch: "amd64", Source: "aa", SourceVersion: "1.0", Creator: sbom.Creator{Name: "Doe, Jane", Email: "jane@example.com"}, Needs: []string{"b/2/all", "c/3/amd64"}},
		{Name: "b", Version: "2", Arch: "all", Source: "b", SourceVersion: "2"},
		{Name: "c", Version: "3", Arch: "amd64", Source: "c", SourceVersion: "3"},
	}, packages)
	for name, text := range map[string]string{
		"empty":      "",
		"no version": "Package: a\nStatus: install ok installed\nArchitecture: all\n",
		"twice":      strings.Repeat("Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n", 2),
	} {
		_, err := sbom.ReadDpkg(strings.NewReader(text))
		require.Error(t, err, name)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(written(f, example()))
	f.Add([]byte(`{"bomFormat":"CycloneDX","metadata":{"component":{"properties":[]}},"components":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := sbom.Read(bytes.NewReader(data)); err == nil {
			require.NoError(t, sbom.Validate(bytes.NewReader(data)))
		}
	})
}

func FuzzReadDpkg(f *testing.F) {
	f.Add("Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\nDepends: b | c (>= 1)\nMaintainer: A <a@b>\n")
	f.Fuzz(func(t *testing.T, status string) {
		packages, err := sbom.ReadDpkg(strings.NewReader(status))
		if err != nil {
			return
		}
		image := example()
		image.Packages = packages
		written(t, image)
	})
}

func BenchmarkWrite(b *testing.B) {
	image := example()
	image.Packages = nil
	for i := range 1000 {
		image.Packages = append(image.Packages, sbom.Package{Name: fmt.Sprintf("package%04d", i), Version: "1.2-3", Arch: "amd64", Source: "source", SourceVersion: "1.2-3"})
	}
	b.ReportAllocs()
	for b.Loop() {
		written(b, image)
	}
}

func ExampleRead() {
	f, err := os.Open("testdata/image.cdx.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	image, err := sbom.Read(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range image.Packages {
		if p.Source != "" {
			fmt.Println(p.Name, p.Version, "from", p.Source)
		}
	}
	// Output:
	// libc6 2.36-9+deb12u9 from glibc
	// libssl3 3.0.15-1~deb12u1 from openssl
}
