package website_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
)

func sha256Of(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// snapshot has the content of all files that readers see.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || strings.HasPrefix(rel, ".website") {
			return err
		}
		data, err := os.ReadFile(name)
		if to, linkErr := os.Readlink(name); linkErr == nil {
			data, err = []byte("-> "+to), nil
		}
		files[filepath.ToSlash(rel)] = string(data)
		return err
	}))
	require.NotEmpty(t, files)
	return files
}

func TestPages(t *testing.T) {
	p := newPlace(t)
	p.add(t, "Standard_Debian_12", build(0), plain)
	p.add(t, "Standard_Debian_12", build(1), plain)
	p.write(t)
	index := p.read(t, "index.html")
	assert.Contains(t, index, `<a href="images/Standard_Debian_12/index.html">`)
	assert.Contains(t, index, "<p>needs infiniband</p>")
	page := p.read(t, "images/Standard_Debian_12/index.html")
	for _, want := range []string{
		"gpg --verify SHA256SUMS.asc SHA256SUMS", "sha256sum --check", "--property __support_kvm=true", "The first boot takes long.",
		"it must (until 2027-01-01)", "1:9.2p1-1 amd64", "openssh-server", `<svg viewBox="0 0 240 64"`, sha256Of(plain.packages), string(p.key.Fingerprint()),
	} {
		assert.Contains(t, page, want)
	}
	to, err := os.Readlink(filepath.Join(p.site.Out, "latest/Standard_Debian_12"))
	require.NoError(t, err)
	assert.Equal(t, "../download/Standard_Debian_12/"+build(1), to)
}

// The same input gives the same bytes, in a first, a second and an incremental run.
func TestDeterministic(t *testing.T) {
	p := newPlace(t)
	p.site.Signer = p.signer
	p.site.URL = "https://example.test/images"
	p.add(t, "Standard_Debian_12", build(0), plain)
	p.add(t, "Standard_Debian_11", build(0), plain)
	p.write(t)
	first := snapshot(t, p.site.Out)
	kept := p.read(t, ".website/cache/Standard_Debian_12.json")
	p.write(t)
	assert.Equal(t, first, snapshot(t, p.site.Out))
	assert.Equal(t, kept, p.read(t, ".website/cache/Standard_Debian_12.json"), "a second run verifies nothing again")

	p.add(t, "Standard_Debian_12", build(1), plain)
	p.write(t)
	incremental := snapshot(t, p.site.Out)
	require.NoError(t, os.RemoveAll(p.site.Out))
	p.write(t)
	whole := snapshot(t, p.site.Out)
	for name := range whole { // signatures have a time
		if strings.HasSuffix(name, ".sjson") {
			delete(whole, name)
			delete(incremental, name)
		}
	}
	assert.Equal(t, whole, incremental)
}

// What does not verify is named, not linked, not offered and an error, in each run;
// and nothing of it is shown.
func TestBadRelease(t *testing.T) {
	p := newPlace(t)
	secret := plain
	secret.packages = "unverified-word 1 all\n"
	p.add(t, "Standard_Debian_12", build(0), plain)
	p.add(t, "Standard_Debian_12", build(1), secret)
	file := filepath.Join(p.dir, "Standard_Debian_12", build(1), "Standard_Debian_12-"+build(1)+".qcow2")
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	data[100] ^= 1
	require.NoError(t, os.WriteFile(file, data, 0o644))
	for range 2 {
		err := p.site.Write(t.Context())
		var bad *website.BadReleaseError
		require.ErrorAs(t, err, &bad)
		assert.Equal(t, build(1), bad.Build)
		files := snapshot(t, p.site.Out)
		for name, text := range files {
			assert.NotContains(t, text, "unverified-word", name)
			assert.NotContains(t, name, build(1))
			assert.NotContains(t, text, "download/Standard_Debian_12/"+build(1), name)
			assert.NotContains(t, text, build(1)+".html", name)
		}
		assert.Contains(t, files["images/Standard_Debian_12/index.html"], "not verified")
		assert.Contains(t, files["index.html"], "not verified")
	}
	// One that was good and is not any more loses its page and its files.
	data[100] ^= 1
	require.NoError(t, os.WriteFile(file, data, 0o644))
	p.write(t)
	require.FileExists(t, filepath.Join(p.site.Out, "images/Standard_Debian_12", build(1)+".html"))
	st, err := os.Stat(file)
	require.NoError(t, err)
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{data[7] ^ 1}, 7)
	require.NoError(t, errors.Join(err, f.Close()))
	require.NoError(t, os.Chtimes(file, st.ModTime(), st.ModTime())) // hidden as well as its owner can
	require.Error(t, p.site.Write(t.Context()))
	require.NoFileExists(t, filepath.Join(p.site.Out, "images/Standard_Debian_12", build(1)+".html"))
	require.NoDirExists(t, filepath.Join(p.site.Out, "download/Standard_Debian_12", build(1)))
}

// A release of a key that is no longer trusted is not shown from what was kept.
func TestOtherKeyring(t *testing.T) {
	p, other := newPlace(t), newPlace(t)
	p.add(t, "Standard_Debian_12", build(0), plain)
	p.write(t)
	p.site.Keyring = other.site.Keyring
	require.Error(t, p.site.Write(t.Context()))
	assert.NotContains(t, p.read(t, "images/Standard_Debian_12/index.html"), "openssh-server")
}

func TestLifecycle(t *testing.T) {
	p := newPlace(t)
	for i := range 4 {
		p.add(t, "Standard_Debian_12", build(i), plain)
	}
	target := &directory.Target{Dir: p.dir}
	id, err := publish.ParseBuildID(build(3))
	require.NoError(t, err)
	_, err = publish.Withdraw(t.Context(), target, "Standard_Debian_12", id, "it does <b>not</b> boot")
	require.NoError(t, err)
	p.write(t)
	states := func() map[string]string {
		var feed struct {
			Releases []struct {
				Build, State, Withdrawn string
				ReplacedBy              string `json:"replaced_by"`
			}
		}
		require.NoError(t, json.Unmarshal([]byte(p.read(t, "images/Standard_Debian_12/index.json")), &feed))
		got := map[string]string{}
		for _, r := range feed.Releases {
			got[r.Build] = strings.TrimSpace(r.State + " " + r.Withdrawn + " " + r.ReplacedBy)
		}
		return got
	}
	assert.Equal(t, map[string]string{
		build(3): "withdrawn it does <b>not</b> boot " + build(2), build(2): "active", build(1): "active  " + build(2), build(0): "deprecated  " + build(2),
	}, states())
	require.NoError(t, os.RemoveAll(filepath.Join(p.dir, "Standard_Debian_12", build(0))))
	p.write(t)
	assert.Equal(t, "deleted  "+build(2), states()[build(0)])
	p.write(t)
	assert.Equal(t, "deleted  "+build(2), states()[build(0)])
	assert.NoDirExists(t, filepath.Join(p.site.Out, "download/Standard_Debian_12", build(0)))
}

// serve serves the site.
func (p *place) serve(t testing.TB) *httptest.Server {
	t.Helper()
	root, err := os.OpenRoot(p.site.Out)
	require.NoError(t, err)
	server := httptest.NewServer(website.Handler(root.FS()))
	t.Cleanup(func() {
		server.Close()
		_ = root.Close()
	})
	return server
}

// Every address on every page and in every feed leads somewhere on the site.
func TestNoDeadLinks(t *testing.T) {
	p := newPlace(t)
	p.site.Report = []byte(`{"started":"2026-11-01T00:00:00Z","finished":"2026-11-01T01:00:00Z","images":[{"name":"Standard_Debian_12","result":"published"},{"name":"Gone","result":"failed","stage":"build","error":"no"}]}`)
	p.site.Images = []website.Image{{Name: "Standard_Nothing_1"}}
	p.add(t, "Standard_Debian_12", build(0), plain)
	p.add(t, "Standard_Debian_12", build(1), plain)
	p.write(t)
	server := p.serve(t)
	p.site.URL = server.URL
	p.write(t)
	links := regexp.MustCompile(`(?:href|src|data-fetch)="([^"]*)"|"(?:path|page|releases)": "([^"]*)"|<loc>([^<]*)</loc>|Sitemap: (\S+)`)
	seen := map[string]bool{}
	queue := []string{"/", "/robots.txt", "/streams/v1/index.json"}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if seen[at] {
			continue
		}
		seen[at] = true
		answer, err := http.Get(server.URL + at)
		require.NoError(t, err)
		body := new(strings.Builder)
		_, err = copyAll(body, answer)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.StatusCode, at)
		if strings.HasPrefix(at, "/download/") {
			continue
		}
		base, err := url.Parse(server.URL + at)
		require.NoError(t, err)
		for _, m := range links.FindAllStringSubmatch(body.String(), -1) {
			to := html.UnescapeString(m[1] + m[2] + m[3] + m[4])
			if m[2] != "" {
				to = "/" + to
			}
			u, err := base.Parse(to)
			require.NoError(t, err)
			if u.Scheme != "http" || strings.HasPrefix(to, "#") {
				require.NotEqual(t, "javascript", u.Scheme)
				continue
			}
			require.Equal(t, base.Host, u.Host, "%s leads away: %s", at, to)
			queue = append(queue, u.Path)
		}
	}
	assert.Greater(t, len(seen), 20)
	for _, hidden := range []string{"/.website/files", "/download/", "/.website/", "/latest/Standard_Debian_12/"} {
		answer, err := http.Get(server.URL + hidden)
		require.NoError(t, err)
		assert.Equal(t, http.StatusNotFound, answer.StatusCode, hidden)
		_ = answer.Body.Close()
	}
}

// What hostile releases, definitions, reports and lists say is text.
func TestHostileText(t *testing.T) {
	for name, evil := range map[string]string{
		"script": `<script>alert(1)</script>`, "img": `"><img src=x onerror=alert(1)>`, "apostrophe": `'><img src=x onerror=alert(1)>`,
		"url": "javascript:alert(1)", "bidi": "a\u202eb\u2066c\u200ed\u061c", "control": "a\x1b[31mb\x00c\u200bd\ufeff",
		"large": strings.Repeat("A", 1<<20), "markup": "]]></summary></svg></style><script>alert(1)</script>", "shell": "a'; touch /tmp/x #\n$(id)`id`", "template": `{{.}}${x}`, "not UTF-8": "a\xff\xfeb",
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			c := content{
				packages: strings.ReplaceAll(evil, "\n", " ") + " 1 all\nx " + evil + " y\n", changes: "+" + evil + " 1 all\n", size: 100,
				properties: map[string]string{"__os_version": short(evil), short(evil): short(evil)},
				tests:      map[string]any{"profile": evil, "host": evil, "boot_ms": 1, "checks": []map[string]any{{"id": evil, "group": evil, "title": evil, "severity": evil, "status": evil, "reason": evil, "expected": evil, "found": evil}}},
			}
			p.site.Title = evil
			row := p.site.Row
			p.site.Flavors[0] = website.Flavor{Name: evil, Group: evil, Hypervisor: evil, Hardware: evil}
			p.site.Row = func(x *publish.Index) (website.Image, error) {
				i, err := row(x)
				i.Class, i.Distribution, i.Version, i.Arch, i.User, i.Mask = evil, evil, evil, evil, evil, evil
				i.Capabilities, i.Notes, i.Waivers = []string{evil}, []string{evil}, []website.Waiver{{Check: evil, Reason: evil, Expires: evil}}
				i.Answers[2] = website.Answer{Answer: evil, Missing: []string{evil}, Instead: evil}
				return i, err
			}
			list := p.site.List
			p.site.List = func(ctx ctx, image string) ([]publish.Entry, error) {
				entries, err := list(ctx, image)
				for i := range entries {
					entries[i].Problem, entries[i].Labels = evil, append(entries[i].Labels, publish.Label(evil))
					if entries[i].Build.String() == build(0) {
						entries[i].Withdrawn, entries[i].LabelLost = evil, time.Unix(0, 0)
					}
				}
				return entries, err
			}
			report, err := json.Marshal(map[string]any{"images": []map[string]any{{"name": evil, "build": evil, "result": evil, "stage": evil, "error": evil, "duration_ms": map[string]int{evil: 1}, "artifacts": []string{evil, "../../etc/passwd.log", evil + ".log"}}}})
			require.NoError(t, err)
			p.site.Report = report
			p.add(t, "Standard_Debian_12", build(0), c)
			p.add(t, "Standard_Debian_12", build(1), c)
			p.write(t)
			for name, text := range snapshot(t, p.site.Out) {
				if strings.HasPrefix(name, "download/") || path.Ext(name) == ".js" {
					continue
				}
				for i, r := range text {
					if r != '\n' && !unicode.IsPrint(r) && r != '\t' {
						t.Fatalf("%s has %U at byte %d", name, r, i)
					}
				}
				if path.Ext(name) == ".html" {
					inert(t, name, text)
					assert.Less(t, len(text), 300<<10, name)
				}
			}
		})
	}
}

// short is a text that fits a release's index.
func short(s string) string {
	if len(s) > 200<<10 {
		return s[:200<<10]
	}
	return strings.ToValidUTF8(s, "?")
}

// inert fails on elements and attributes that no page of ours has.
func inert(t *testing.T, name, text string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(text))
	require.NoError(t, err)
	scripts := 0
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script":
			scripts++
			require.Nil(t, n.FirstChild, name)
		case "img", "iframe", "object", "embed", "style", "base":
			t.Fatalf("%s has an element %s", name, n.Data)
		}
		for _, a := range n.Attr {
			require.False(t, strings.HasPrefix(a.Key, "on") || a.Key == "style", "%s: attribute %s", name, a.Key)
			if a.Key == "href" || a.Key == "src" {
				u, err := url.Parse(a.Val)
				require.NoError(t, err)
				require.Empty(t, u.Scheme, "%s: %s", name, a.Val)
			}
		}
	}
	require.Equal(t, 1, scripts, name)
}
