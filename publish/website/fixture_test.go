package website_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// place is a download directory with a key, and a site of it.
type place struct {
	dir    string
	key    *signing.Key
	signer *signing.Signer
	site   *website.Site
}

func newPlace(t testing.TB) *place {
	t.Helper()
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "Website test", Algorithm: signing.Ed25519})
	require.NoError(t, err)
	signer, err := signing.NewSigner(key, signing.SignerConfig{})
	require.NoError(t, err)
	keyring, err := signing.PinKeys(key)
	require.NoError(t, err)
	dir := t.TempDir()
	p := &place{dir: filepath.Join(dir, "releases"), key: key, signer: signer}
	require.NoError(t, os.Mkdir(p.dir, 0o755))
	p.site = &website.Site{
		Dir: p.dir, List: (&directory.Target{Dir: p.dir}).List, Keyring: keyring, Out: filepath.Join(dir, "out"),
		Flavors: []website.Flavor{
			{Name: "s2", Group: "KVM", Hypervisor: "KVM"}, {Name: "s3", Group: "KVM", Hypervisor: "KVM"},
			{Name: "h2", Group: "HPC", Hypervisor: "KVM", Hardware: "InfiniBand"}, {Name: "x", Group: "HPC", Withdrawn: true},
		},
		Row: func(x *publish.Index) (website.Image, error) {
			return website.Image{
				Name: x.Image, Class: "Standard", Distribution: "debian", Version: "12", Arch: "amd64", User: "linux", DiskBytes: 4 << 30,
				Mask: x.Capabilities, Capabilities: []string{"kvm-virtio"}, Properties: x.Properties, Notes: []string{"The first boot takes long."},
				Answers: []website.Answer{
					{Answer: "yes", LiveMigration: true}, {Answer: "yes"}, {Answer: "no", Missing: []string{"infiniband"}}, {Answer: "unknown", Missing: []string{"something"}},
				},
			}, nil
		},
	}
	return p
}

// content is what a release is made of.
type content struct {
	packages, changes string
	properties        map[string]string
	tests             any
	size              int // of the image, in bytes
}

var plain = content{
	packages: "adduser 3.134 all\nopenssh-server 1:9.2p1-2 amd64\n", changes: "-openssh-server 1:9.2p1-1 amd64\n+openssh-server 1:9.2p1-2 amd64\n",
	properties: map[string]string{"__os_version": "Debian GNU/Linux 12.0.0 64bit", "__support_kvm": "true"},
	tests: map[string]any{"profile": "otc", "duration_ms": 4000, "checks": []map[string]any{
		{"id": "sshd.root", "group": "sshd", "title": "no root", "severity": "high", "status": "pass", "expected": "no", "found": "no"},
		{"id": "sshd.x", "group": "sshd", "title": "no x", "severity": "low", "status": "waived", "reason": "it must (until 2027-01-01)", "expected": "no", "found": "yes"},
	}},
	size: 4096,
}

// add makes a release and gives it the label latest.
func (p *place) add(t testing.TB, image, build string, c content) {
	t.Helper()
	id, err := publish.ParseBuildID(build)
	require.NoError(t, err)
	dir := filepath.Join(p.dir, image, build)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	base := image + "-" + build
	tests, err := json.Marshal(c.tests)
	require.NoError(t, err)
	x := &publish.Index{Image: image, Build: id, DefinitionSHA256: fmt.Sprintf("%064x", 1), Capabilities: "0x4", Properties: c.properties, MinDiskGiB: 4, Tests: publish.Tests{Pass: 1, Waived: 1}}
	for _, f := range []struct{ suffix, data string }{
		{".qcow2", strings.Repeat(base, c.size/len(base)+1)}, {".packages", c.packages}, {".changes", c.changes}, {".test.json", string(tests)}, {".config.tar.gz", "x"},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, base+f.suffix), []byte(f.data), 0o644))
		x.Files = append(x.Files, publish.File{Name: base + f.suffix, SizeBytes: int64(len(f.data)), SHA256: sha256Of(f.data)})
	}
	f, err := os.Create(filepath.Join(dir, publish.IndexName))
	require.NoError(t, err)
	require.NoError(t, publish.WriteIndex(f, x))
	require.NoError(t, f.Close())
	_, err = signing.SignDir(t.Context(), dir, p.signer)
	require.NoError(t, err)
	p.label(t, image, build, "latest")
}

func (p *place) label(t testing.TB, image, build, label string) {
	t.Helper()
	name := filepath.Join(p.dir, image, label)
	require.NoError(t, os.RemoveAll(name))
	require.NoError(t, os.Symlink(build, name))
}

func (p *place) write(t testing.TB) {
	t.Helper()
	require.NoError(t, p.site.Write(t.Context()))
}

func (p *place) read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.site.Out, name))
	require.NoError(t, err)
	return string(data)
}

// build is a build ID some minutes after a day of 2026.
func build(minutes int) string {
	return time.Date(2026, 11, 1, 3, 15, 7, 0, time.UTC).Add(time.Duration(minutes) * time.Minute).Format("20060102-150405")
}

type ctx = context.Context

func copyAll(w io.Writer, answer *http.Response) (int64, error) {
	defer answer.Body.Close()
	return io.Copy(w, answer.Body)
}
