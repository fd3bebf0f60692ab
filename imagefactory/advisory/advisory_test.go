package advisory_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/sbom"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// The shapes are those of the publishers' exports.
const (
	tracker = `{"openssl": {
  "CVE-2026-0001": {"description": "x", "scope": "remote", "releases": {
    "bookworm": {"status": "resolved", "repositories": {"bookworm": "3.0.15-1~deb12u1"}, "fixed_version": "3.0.15-1~deb12u1", "urgency": "not yet assigned"},
    "trixie": {"status": "resolved", "fixed_version": "0", "urgency": "not yet assigned"},
    "sid": {"status": "open", "urgency": "high"}}},
  "CVE-2026-0002": {"releases": {"bookworm": {"status": "open", "repositories": {"bookworm": "3.0.15-1~deb12u1"}, "urgency": "high"}}},
  "CVE-2026-0003": {"releases": {"bookworm": {"status": "resolved", "fixed_version": "0", "urgency": "low"}}}},
 "linux": {"CVE-2026-0004": {"releases": {"bookworm": {"status": "resolved", "fixed_version": "6.1.115-1", "urgency": "medium"}}}},
 "id": {"CVE-2026-0005": {"releases": {"bookworm": {"status": "undetermined", "urgency": "low"}}}}}`
	osv = `{"schema_version": "1.7.0", "id": "DSA-6000-1", "details": "x", "upstream": ["CVE-2026-0011"], "modified": "2026-01-01T00:00:00Z",
 "database_specific": {"cwe": []},
 "affected": [{"package": {"ecosystem": "Debian:12", "name": "curl", "purl": "pkg:deb/debian/curl?arch=source"},
   "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "7.88.1-10+deb12u8"}, {"introduced": "7.90"}, {"last_affected": "7.95"}]}], "versions": ["7.88.1-10"],
   "ecosystem_specific": {"urgency": "medium"}},
  {"package": {"ecosystem": "npm", "name": "curl"}}]}`
)

func load(t testing.TB, files map[string]string) (*advisory.Database, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return advisory.Load(t.Context(), dir)
}

func debian(packages ...advisory.Package) *advisory.Installed {
	return &advisory.Installed{Distribution: "debian", Release: "12", Packages: packages}
}

func source(name, version string) advisory.Package {
	return advisory.Package{Name: "lib" + name, Version: "9", Arch: "amd64", Source: name, SourceVersion: version}
}

func TestJudge(t *testing.T) {
	db, err := load(t, map[string]string{"tracker.json": tracker, "DSA-6000-1.json": osv})
	require.NoError(t, err)
	for _, c := range []struct {
		id        string
		installed *advisory.Installed
		want      advisory.Status
		fixedIn   string
	}{
		{"CVE-2026-0001", debian(source("openssl", "3.0.14-1~deb12u2")), advisory.Affected, "3.0.15-1~deb12u1"},
		{"CVE-2026-0001", debian(source("openssl", "3.0.15-1~deb12u1")), advisory.Fixed, "3.0.15-1~deb12u1"},
		{"CVE-2026-0001", debian(source("openssl", "1:1")), advisory.Fixed, "3.0.15-1~deb12u1"},
		{"CVE-2026-0001", debian(source("openssl", "3.0.16-1"), source("openssl", "3.0.1-1")), advisory.Affected, "3.0.15-1~deb12u1"},
		{"CVE-2026-0001", debian(source("zlib", "1")), advisory.NotPresent, ""},
		{"CVE-2026-0001", debian(advisory.Package{Name: "openssl", Version: "3.0.1", Arch: "amd64"}), advisory.Affected, "3.0.15-1~deb12u1"},
		{"CVE-2026-0001", &advisory.Installed{Distribution: "debian", Release: "13.1", Packages: []advisory.Package{source("openssl", "3.5")}}, advisory.NotAffected, ""},
		{"CVE-2026-0001", &advisory.Installed{Distribution: "sles", Release: "15", Packages: []advisory.Package{source("openssl", "1")}}, advisory.Unknown, ""},
		{"CVE-2026-0002", debian(source("openssl", "99")), advisory.Affected, ""},
		{"CVE-2026-0003", debian(source("openssl", "1")), advisory.NotAffected, ""},
		{"CVE-2026-9999", debian(source("openssl", "1")), advisory.Unknown, ""},
		{"CVE-2026-0004", debian(source("linux-signed-amd64", "6.1.112+1")), advisory.Affected, "6.1.115-1"},
		{"CVE-2026-0004", debian(source("linux-signed-amd64", "6.1.115+1")), advisory.Fixed, "6.1.115-1"},
		{"CVE-2026-0005", debian(source("id", "1")), advisory.Affected, ""},
		{"CVE-2026-0011", debian(source("curl", "7.88.1-10+deb12u7")), advisory.Affected, "7.88.1-10+deb12u8"},
		{"DSA-6000-1", debian(source("curl", "7.88.1-10+deb12u8")), advisory.Fixed, "7.88.1-10+deb12u8"},
		{"CVE-2026-0011", debian(source("curl", "7.95")), advisory.Affected, ""},
		{"CVE-2026-0011", debian(source("curl", "7.96")), advisory.Fixed, ""},
	} {
		got := db.Judge(c.id, c.installed)
		require.Equal(t, c.want, got.Status, "%s %v: %s", c.id, c.installed, got.Status)
		require.Equal(t, c.fixedIn, got.FixedIn, "%s %v", c.id, c.installed)
	}
	require.Equal(t, []string{"bookworm"}, db.Judge("CVE-2026-0001", debian(source("openssl", "3.0.14-1"))).Repositories)
	open := db.Open(debian(source("openssl", "3.0.15-1~deb12u1"), source("curl", "7.88.1-1")))
	require.Equal(t, []advisory.Verdict{
		{ID: "CVE-2026-0011", Status: advisory.Affected, Package: "curl", Version: "7.88.1-1", FixedIn: "7.88.1-10+deb12u8", Severity: "medium"},
		{ID: "DSA-6000-1", Status: advisory.Affected, Package: "curl", Version: "7.88.1-1", FixedIn: "7.88.1-10+deb12u8", Severity: "medium"},
		{ID: "CVE-2026-0002", Status: advisory.Affected, Package: "openssl", Version: "3.0.15-1~deb12u1", Severity: "high"},
	}, open)
}

func TestLoadEveryContainer(t *testing.T) {
	var packed, archive bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write([]byte("[" + osv + "," + strings.ReplaceAll(osv, "0011", "0012") + "]"))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	a := zip.NewWriter(&archive)
	w, err := a.Create("DSA-6000-1.json")
	require.NoError(t, err)
	_, err = w.Write([]byte(osv))
	require.NoError(t, err)
	require.NoError(t, a.Close())
	for name, c := range map[string]struct{ data, id string }{
		"gzip": {packed.String(), "CVE-2026-0012"}, "zip": {archive.String(), "CVE-2026-0011"}, "plain": {tracker, "CVE-2026-0001"},
	} {
		db, err := load(t, map[string]string{name: c.data})
		require.NoError(t, err, name)
		require.Contains(t, db.IDs(), c.id, name)
	}
}

// What is damaged is no all-clear.
func TestLoadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut off": tracker[:len(tracker)/2], "cut off at its end": tracker[:len(tracker)-1], "two": tracker + tracker, "text": "hello",
		"number": "1", "empty object": "{}", "empty array": "[]", "no id": `{"affected": []}`, "cut off advisory": osv[:len(osv)-2],
		"kind": `{"openssl": {"CVE-2026-1": {"releases": []}}}`, "gzip": "\x1f\x8bxx", "zip": "PK\x03\x04xx",
		"fixed before introduced": strings.Replace(osv, `{"introduced": "0"}, `, "", 1),
	} {
		_, err := load(t, map[string]string{"x": text})
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "bookworm", name)
	}
	_, err := advisory.Load(t.Context(), "/nowhere")
	require.ErrorIs(t, err, os.ErrNotExist)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "x")
	require.NoError(t, os.WriteFile(file, []byte(tracker), 0o644))
	_, err = advisory.Load(ctx, file)
	require.ErrorIs(t, err, context.Canceled)
}

func TestWithdrawn(t *testing.T) {
	db, err := load(t, map[string]string{"a": osv, "b": strings.ReplaceAll(strings.Replace(osv, `"details"`, `"withdrawn": "2026-01-02T00:00:00Z", "details"`, 1), "0011", "0013")})
	require.NoError(t, err)
	require.NotContains(t, db.IDs(), "CVE-2026-0013")
}

// releases makes a download directory; the packages of each build follow.
type releases struct {
	t    testing.TB
	dir  string
	key  *signing.Key
	sign *signing.Signer
}

func newReleases(t testing.TB) *releases {
	t.Helper()
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "Test", Email: "test@example.com"})
	require.NoError(t, err)
	signer, err := signing.NewSigner(key, signing.SignerConfig{})
	require.NoError(t, err)
	return &releases{t, t.TempDir(), key, signer}
}

func (r *releases) add(image, build, sources string) string {
	r.t.Helper()
	dir := filepath.Join(r.dir, image, build)
	require.NoError(r.t, os.MkdirAll(dir, 0o755))
	id, err := publish.ParseBuildID(build)
	require.NoError(r.t, err)
	name := image + "-" + build + ".sources"
	require.NoError(r.t, os.WriteFile(filepath.Join(dir, name), []byte(sources), 0o644))
	var index bytes.Buffer
	require.NoError(r.t, publish.WriteIndex(&index, &publish.Index{
		Image: image, Build: id, DefinitionSHA256: strings.Repeat("a", 64), MinDiskGiB: 4, Properties: map[string]string{},
		Files: []publish.File{{Name: name, SizeBytes: int64(len(sources)), SHA256: strings.Repeat("a", 64)}},
	}))
	require.NoError(r.t, os.WriteFile(filepath.Join(dir, publish.IndexName), index.Bytes(), 0o644))
	_, err = signing.SignDir(r.t.Context(), dir, r.sign)
	require.NoError(r.t, err)
	return dir
}

func (r *releases) keyring() *signing.Keyring {
	k, err := signing.PinKeys(r.key)
	require.NoError(r.t, err)
	return k
}

func TestReport(t *testing.T) {
	r := newReleases(t)
	list := func(version string) string {
		return "debian 12 amd64\nlibssl3 " + version + " amd64 openssl " + version + "\nbase-files 12 amd64 base-files 12\n"
	}
	r.add("Standard_A", "20261101-000000", list("3.0.14-1"))
	r.add("Standard_A", "20261102-000000", list("3.0.15-1"))
	r.add("Standard_A", "20261103-000000", list("3.0.15-1"))
	r.add("Standard_B", "20261101-000000", list("3.0.14-1"))
	r.add("Standard_C", "20261101-000000", "debian 12 amd64\nbase-files 12 amd64 base-files 12\n")
	forged := r.add("Standard_D", "20261101-000000", list("3.0.14-1"))
	require.NoError(t, os.WriteFile(filepath.Join(forged, "Standard_D-20261101-000000.sources"), []byte(list("9")), 0o644))
	replayed := r.add("Standard_D", "20261102-000000", list("3.0.15-1"))
	require.NoError(t, os.Rename(replayed, filepath.Join(r.dir, "Standard_D", "20261103-000000")))
	require.NoError(t, os.Symlink("20261103-000000", filepath.Join(r.dir, "Standard_A", "latest")))

	db, err := load(t, map[string]string{"tracker.json": tracker})
	require.NoError(t, err)
	all, err := advisory.ReadReleases(t.Context(), r.dir, r.keyring())
	require.NoError(t, err)
	var got []string
	for _, v := range db.Report("CVE-2026-0001", all) {
		line := fmt.Sprint(v.Image, " ", v.Status, " ", v.Since)
		for _, r := range v.Releases {
			line += fmt.Sprint(" ", r.Build[:8], "=", r.Status)
			require.Equal(t, r.Problem != "", v.Image == "Standard_D", "%s", r.Problem)
		}
		got = append(got, line)
	}
	require.Equal(t, []string{
		"Standard_A fixed 20261102-000000 20261101=affected 20261102=fixed 20261103=fixed",
		"Standard_B affected  20261101=affected",
		"Standard_C not present  20261101=not present",
		"Standard_D unknown  20261101=unknown 20261103=unknown",
	}, got)

	// A bill of materials counts where there is no list, if it is the release's own.
	for build, of := range map[string]string{"20261104-000000": "20261104-000000", "20261105-000000": "20261104-000000"} {
		dir := r.add("Standard_E", build, "")
		name := filepath.Join(dir, "Standard_E-"+build)
		require.NoError(t, os.Remove(name+".sources"))
		created, err := publish.ParseBuildID(build)
		require.NoError(t, err)
		var bill bytes.Buffer
		require.NoError(t, sbom.Write(&bill, &sbom.Image{
			Name: "Standard_E", Build: of, Created: created.Time(), Creator: sbom.Creator{Name: "x", URL: "https://example.com"}, Filename: "x.qcow2",
			SHA256: strings.Repeat("a", 64), SHA512: strings.Repeat("a", 128), Distribution: "debian", Release: "12", Arch: "amd64",
			Packages: []sbom.Package{{Name: "libssl3", Version: "3.0.14-1", Arch: "amd64", Source: "openssl", SourceVersion: "3.0.14-1"}},
		}))
		require.NoError(t, os.WriteFile(name+".cdx.json", bill.Bytes(), 0o644))
		_, err = signing.SignDir(t.Context(), dir, r.sign)
		require.NoError(t, err)
	}
	all, err = advisory.ReadReleases(t.Context(), r.dir, r.keyring(), "Standard_E")
	require.NoError(t, err)
	report := db.Report("CVE-2026-0001", all)[0].Releases
	require.Equal(t, advisory.Affected, report[0].Status)
	require.Contains(t, report[1].Problem, `the bill of materials is one of "Standard_E" build "20261104-000000"`)

	// Other keys sign nothing here.
	all, err = advisory.ReadReleases(t.Context(), r.dir, newReleases(t).keyring(), "Standard_A")
	require.NoError(t, err)
	require.Len(t, all, 3)
	for _, r := range all {
		require.Error(t, r.Err)
		require.Nil(t, r.Installed)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(tracker))
	f.Add([]byte(osv))
	f.Add([]byte(oval))
	f.Add([]byte("[" + osv + "]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "x")
		require.NoError(t, os.WriteFile(file, data, 0o644))
		db, err := advisory.Load(t.Context(), file)
		if err != nil {
			return
		}
		for _, id := range db.IDs() {
			db.Judge(id, debian(source("openssl", "1"), source("curl", "1")))
		}
	})
}

func FuzzParseSources(f *testing.F) {
	f.Add("debian 12 amd64\na 1 all b 2\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := advisory.ParseSources(strings.NewReader(text)); err == nil {
			require.Equal(t, max(0, strings.Count(strings.TrimSuffix(text, "\n"), "\n")), len(got.Packages))
		}
	})
}

// The releases of a month of all images, read, verified and judged.
func BenchmarkReport(b *testing.B) {
	r := newReleases(b)
	var list strings.Builder
	list.WriteString("debian 12 amd64\n")
	for i := range 500 {
		fmt.Fprintf(&list, "package%d 1.2.3-4+deb12u1 amd64 source%d 1.2.3-4+deb12u1\n", i, i)
	}
	list.WriteString("libssl3 3.0.14-1 amd64 openssl 3.0.14-1\n")
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for image := range 60 {
		for day := range 30 {
			r.add(fmt.Sprintf("Standard_Image_%d", image), publish.NewBuildID(start.AddDate(0, 0, day)).String(), list.String())
		}
	}
	db, err := load(b, map[string]string{"tracker.json": tracker})
	require.NoError(b, err)
	keyring := r.keyring()
	for b.Loop() {
		all, err := advisory.ReadReleases(b.Context(), r.dir, keyring)
		require.NoError(b, err)
		require.Len(b, all, 1800)
		require.Len(b, db.Report("CVE-2026-0001", all), 60)
	}
}

// Advisories as many as Debian's tracker has, of which one matters, or all.
func BenchmarkLoad(b *testing.B) {
	var text strings.Builder
	text.WriteString("{")
	for i := range 3600 {
		if i > 0 {
			text.WriteString(",")
		}
		fmt.Fprintf(&text, "\"source%d\": {", i)
		for k := range 12 {
			if k > 0 {
				text.WriteString(",")
			}
			fmt.Fprintf(&text, `"CVE-2026-%06d": {"description": %q, "scope": "local", "releases": {`, i*100+k, strings.Repeat("what is wrong ", 30))
			for n, release := range []string{"bullseye", "bookworm", "trixie", "forky", "sid"} {
				if n > 0 {
					text.WriteString(",")
				}
				fmt.Fprintf(&text, `%q: {"status": "resolved", "repositories": {%q: "1.2.3-4"}, "fixed_version": "1.2.3-4", "urgency": "not yet assigned"}`, release, release)
			}
			text.WriteString("}}")
		}
		text.WriteString("}")
	}
	text.WriteString("}")
	file := filepath.Join(b.TempDir(), "tracker.json")
	require.NoError(b, os.WriteFile(file, []byte(text.String()), 0o644))
	for name, ids := range map[string][]string{"one": {"CVE-2026-000100"}, "all": nil} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(text.Len()))
			b.ReportAllocs()
			for b.Loop() {
				_, err := advisory.Load(b.Context(), file, ids...)
				require.NoError(b, err)
			}
		})
	}
}

func ExampleDatabase_Judge() {
	dir, err := os.MkdirTemp("", "advisories")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "tracker.json"), []byte(tracker), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	db, err := advisory.Load(context.Background(), dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	v := db.Judge("CVE-2026-0001", &advisory.Installed{Distribution: "debian", Release: "12", Packages: []advisory.Package{
		{Name: "libssl3", Version: "3.0.14-1~deb12u2", Arch: "amd64", Source: "openssl", SourceVersion: "3.0.14-1~deb12u2"},
	}})
	fmt.Println(v.Status, v.Package, v.Version, "fixed in", v.FixedIn)
	// Output: affected openssl 3.0.14-1~deb12u2 fixed in 3.0.15-1~deb12u1
}
