package website_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// newestOf is a reader of simplestreams, written from the description of the format
// and not from the writer: from the index over the products to the greatest
// version's item of a file type, whose path is relative to the stream's root.
func newestOf(t *testing.T, root, index string, get func(name string) []byte) map[string]map[string]any {
	t.Helper()
	decode := func(name string) map[string]any {
		var v map[string]any
		require.NoError(t, json.Unmarshal(get(name), &v), name)
		return v
	}
	found := map[string]map[string]any{}
	top := decode(index)
	require.Equal(t, "index:1.0", top["format"])
	for contentID, e := range top["index"].(map[string]any) {
		entry := e.(map[string]any)
		require.Equal(t, "products:1.0", entry["format"])
		require.Equal(t, "image-downloads", entry["datatype"])
		stream := decode(entry["path"].(string))
		assert.Equal(t, contentID, stream["content_id"])
		_, err := time.Parse(time.RFC1123Z, stream["updated"].(string))
		require.NoError(t, err)
		products := stream["products"].(map[string]any)
		for _, name := range entry["products"].([]any) {
			product := products[name.(string)].(map[string]any)
			versions := product["versions"].(map[string]any)
			var serials []string
			for serial := range versions {
				serials = append(serials, serial)
			}
			for _, i := range versions[slices.Max(serials)].(map[string]any)["items"].(map[string]any) {
				item := i.(map[string]any)
				if item["ftype"] == "disk1.img" {
					item["url"] = root + "/" + item["path"].(string)
					found[product["aliases"].(string)] = item
				}
			}
		}
	}
	return found
}

func TestSimplestreams(t *testing.T) {
	p := newPlace(t)
	p.site.Signer = p.signer
	for i := range 4 {
		p.add(t, "Standard_Debian_12", build(i), plain)
	}
	p.add(t, "Standard_Debian_11", build(7), plain)
	id, err := publish.ParseBuildID(build(2))
	require.NoError(t, err)
	_, err = publish.Rollback(t.Context(), &directory.Target{Dir: p.dir}, "Standard_Debian_12", id, "no good")
	require.NoError(t, err)
	p.write(t)
	server := p.serve(t)
	get := func(name string) []byte {
		answer, err := http.Get(server.URL + "/" + name)
		require.NoError(t, err)
		var b bytes.Buffer
		_, err = io.Copy(&b, answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, http.StatusOK, answer.StatusCode, name)
		return b.Bytes()
	}
	// As the reader of a signed stream does: no word before its signature is good.
	verified := func(name string) []byte {
		text, v, err := (&signing.Verifier{Keyring: p.site.Keyring}).Cleartext(t.Context(), name, bytes.NewReader(get(name)))
		require.NoError(t, err)
		require.NoError(t, v.Err())
		return text
	}
	for index, read := range map[string]func(string) []byte{"streams/v1/index.json": get, "streams/v1/index.sjson": verified} {
		found := newestOf(t, server.URL, index, read)
		require.Len(t, found, 2)
		for image, want := range map[string]string{"Standard_Debian_12": build(2), "Standard_Debian_11": build(7)} {
			name := image + "-" + want + ".qcow2"
			data, err := os.ReadFile(filepath.Join(p.dir, image, want, name))
			require.NoError(t, err)
			sum := sha256.Sum256(data)
			item := found[image]
			assert.True(t, strings.HasSuffix(item["path"].(string), "/"+name), item["path"])
			assert.Equal(t, hex.EncodeToString(sum[:]), item["sha256"])
			assert.Equal(t, float64(len(data)), item["size"])
			u, err := url.Parse(item["url"].(string))
			require.NoError(t, err)
			assert.Equal(t, data, get(strings.TrimPrefix(u.Path, "/")))
		}
	}
}

// gpg verifies what our own reader does.
func TestGPGVerifiesStreams(t *testing.T) {
	gpg := needs.Tools(t, "gpg")[0]
	p := newPlace(t)
	p.site.Signer = p.signer
	p.add(t, "Standard_Debian_12", build(0), plain)
	p.write(t)
	home, err := os.MkdirTemp("", "gpg") // short, for the agent's socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	for _, args := range [][]string{
		{"--import", filepath.Join(p.site.Out, "imagefactory.pub")}, {"--verify", filepath.Join(p.site.Out, "streams/v1/index.sjson")},
		{"--verify", filepath.Join(p.site.Out, "latest/Standard_Debian_12/SHA256SUMS.gpg"), filepath.Join(p.site.Out, "latest/Standard_Debian_12/SHA256SUMS")},
	} {
		out, err := exec.Command(gpg, append([]string{"--homedir", home, "--batch", "--no-autostart"}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
}

func TestAtom(t *testing.T) {
	p := newPlace(t)
	p.site.URL = "https://example.test/images/"
	for i := range 60 {
		p.add(t, "Standard_Debian_12", build(i), plain)
	}
	p.write(t)
	for _, name := range []string{"atom.xml", "images/Standard_Debian_12/atom.xml"} {
		var feed struct {
			XMLName xml.Name `xml:"http://www.w3.org/2005/Atom feed"`
			ID      string   `xml:"id"`
			Updated time.Time
			Entries []struct {
				ID      string    `xml:"id"`
				Updated time.Time `xml:"updated"`
				Link    struct {
					Href string `xml:"href,attr"`
				} `xml:"link"`
			} `xml:"entry"`
		}
		require.NoError(t, xml.Unmarshal([]byte(p.read(t, name)), &feed))
		require.Len(t, feed.Entries, 50)
		assert.Equal(t, "https://example.test/images/images/Standard_Debian_12/"+build(59)+".html", feed.Entries[0].Link.Href)
		ids := map[string]bool{}
		for _, e := range feed.Entries {
			ids[e.ID] = true
		}
		assert.Len(t, ids, 50)
	}
}

// systemd takes an image from the directory by its signature, and refuses one of
// which a bit is flipped.
func TestSystemdPull(t *testing.T) {
	needs.Root(t)
	pull := "/lib/systemd/systemd-pull"
	if _, err := os.Stat(pull); err != nil {
		needs.Missing(t, pull+" of the package systemd-container is not installed")
	}
	tools := needs.Tools(t, "unshare", "gpg", "mount", "sh")
	p := newPlace(t)
	c := plain
	c.size = 1 << 20
	p.add(t, "Standard_Debian_12", build(0), c)
	p.write(t)
	server := p.serve(t)
	address := server.URL + "/latest/Standard_Debian_12/Standard_Debian_12-" + build(0) + ".qcow2"
	work := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(work, "empty"), 0o755))
	// systemd's keyring is in /etc, of which a namespace of our own has another.
	script := `set -e
mount --make-rprivate /
mount -t tmpfs none /etc/systemd
mount --bind "$1/empty" /var/lib/machines 2>/dev/null || true
` + tools[1] + ` --batch --dearmor -o /etc/systemd/import-pubring.gpg "$2"
exec ` + pull + ` --image-root="$1/machines" --verify=signature --settings=no raw "$3" "$4"
`
	// systemd-pull of systemd 252 now and then waits for ever with all that it asked
	// for in its hands: in epoll_wait, with every answer sent, whether the server keeps
	// connections or not. Otherwise it takes a second or two. It is then ended and
	// asked again.
	take := func(local string) (out []byte, err error) {
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			cmd := exec.CommandContext(ctx, tools[0], "--mount", tools[3], "-c", script, "sh", work, filepath.Join(p.site.Out, "imagefactory.pub"), address, local)
			cmd.Env = append(os.Environ(), "TMPDIR="+work)
			out, err = cmd.CombinedOutput()
			waited := ctx.Err() != nil
			cancel()
			if !waited {
				return out, err
			}
		}
		t.Fatalf("systemd-pull does not end: %s", out)
		return nil, nil
	}
	out, err := take("good")
	if err != nil && strings.Contains(string(out), "Operation not permitted") {
		needs.Missing(t, "cannot make a mount namespace: "+string(out))
	}
	require.NoError(t, err, string(out))
	got, err := os.ReadFile(filepath.Join(work, "machines", "good.raw"))
	require.NoError(t, err, string(out))
	want, err := os.ReadFile(filepath.Join(p.dir, "Standard_Debian_12", build(0), "Standard_Debian_12-"+build(0)+".qcow2"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(got, want))

	file := filepath.Join(p.dir, "Standard_Debian_12", build(0), "Standard_Debian_12-"+build(0)+".qcow2")
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{want[1000] ^ 4}, 1000)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	out, err = take("bad")
	require.Error(t, err)
	require.Contains(t, string(out), "Checksum of Standard_Debian_12-"+build(0)+".qcow2 file did not check out")
	require.NoFileExists(t, filepath.Join(work, "machines", "bad.raw"))
}
