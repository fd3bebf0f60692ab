package signedindex

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

var now = time.Date(2026, 11, 22, 3, 15, 7, 0, time.UTC)

// newKey makes a key that was made two days before now.
func newKey(t *testing.T, lifetime time.Duration) *openpgp.Entity {
	e, err := openpgp.NewEntity("archive", "", "archive@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: uint32(lifetime / time.Second),
		Time: func() time.Time { return now.Add(-48 * time.Hour) },
	})
	require.NoError(t, err)
	return e
}

// signedAt is when the tests' indexes are signed: a day before now.
var signedAt = &packet.Config{Time: func() time.Time { return now.Add(-24 * time.Hour) }}

func clearSign(t *testing.T, key *openpgp.Entity, text string) []byte {
	var out bytes.Buffer
	private, ok := key.SigningKey(signedAt.Now(), signedAt)
	require.True(t, ok)
	w, err := clearsign.Encode(&out, private.PrivateKey, signedAt)
	require.NoError(t, err)
	_, err = io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func detach(t *testing.T, key *openpgp.Entity, data []byte) []byte {
	var out bytes.Buffer
	require.NoError(t, openpgp.DetachSign(&out, []*openpgp.Entity{key}, bytes.NewReader(data), signedAt))
	return out.Bytes()
}

// mirror is a web server whose files are changed by tests.
type mirror struct {
	sync.Mutex
	files map[string][]byte
	asked map[string]int
	each  func(m *mirror, name string) // before an answer
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.Lock()
	defer m.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/")
	m.asked[name]++
	if m.each != nil {
		m.each(m, name)
	}
	data, ok := m.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(data)
}

const (
	inRelease = "debian/dists/bookworm/InRelease"
	packages  = "debian/dists/bookworm/main/binary-amd64/Packages.xz"
	list      = "the list of packages"
)

func releaseText(change ...string) string {
	text := fmt.Sprintf(`Origin: Debian
Suite: stable
Codename: bookworm
Date: Sat, 21 Nov 2026 03:15:07 UTC
Valid-Until: Sat, 28 Nov 2026 03:15:07 UTC
Components: main
SHA256:
 %x %d main/binary-amd64/Packages.xz
 %x %d main/binary-amd64/Packages
`, sha256.Sum256([]byte(list)), len(list), sha256.Sum256(nil), 10*len(list))
	return strings.NewReplacer(change...).Replace(text)
}

func newMirror(t *testing.T) (*mirror, string) {
	m := &mirror{files: map[string][]byte{packages: []byte(list)}, asked: map[string]int{}}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	return m, server.URL + "/debian/"
}

func reader(keys ...*openpgp.Entity) *Reader {
	return &Reader{Keys: keys, Now: func() time.Time { return now }, Pause: time.Millisecond}
}

func TestApt(t *testing.T) {
	key, other, expired := newKey(t, 0), newKey(t, 0), newKey(t, 36*time.Hour)
	for name, c := range map[string]struct {
		change func(m *mirror)
		keys   []*openpgp.Entity
		want   builder.MirrorFault // "" is a good one
		detail string
	}{
		"good":                {},
		"one of several keys": {keys: []*openpgp.Entity{other, key}},
		"not there":           {change: func(m *mirror) { m.files = nil }, want: builder.Unreachable},
		"foreign key":         {keys: []*openpgp.Entity{other}, want: builder.Unsigned},
		"unsigned":            {change: func(m *mirror) { m.files[inRelease] = []byte(releaseText()) }, want: builder.Unsigned},
		"only unsigned": {change: func(m *mirror) {
			delete(m.files, inRelease)
			m.files["debian/dists/bookworm/Release"] = []byte(releaseText())
		}, want: builder.Unsigned, detail: "it has no signature"},
		"changed": {change: func(m *mirror) {
			m.files[inRelease] = bytes.Replace(m.files[inRelease], []byte("Origin: Debian"), []byte("Origin: debian"), 1)
		}, want: builder.Unsigned},
		"text before":          {change: func(m *mirror) { m.files[inRelease] = append([]byte("Codename: bookworm\n"), m.files[inRelease]...) }, want: builder.Unsigned},
		"key that has expired": {change: func(m *mirror) { m.files[inRelease] = clearSign(t, expired, releaseText()) }, keys: []*openpgp.Entity{expired}, want: builder.Unsigned, detail: "expired"},
		"expired": {change: func(m *mirror) {
			m.files[inRelease] = clearSign(t, key, releaseText("28 Nov", "22 Nov", "Sat, 22", "Sun, 22"))
		}, want: builder.Expired, detail: "it was valid until 2026-11-22 03:15:07"},
		"expires in a second": {change: func(m *mirror) {
			m.files[inRelease] = clearSign(t, key, releaseText("Sat, 28 Nov 2026 03:15:07", "Sun, 22 Nov 2026 03:15:08"))
		}},
		"never expires": {change: func(m *mirror) { m.files[inRelease] = clearSign(t, key, releaseText("Valid-Until", "X-Until")) }},
		"another suite": {change: func(m *mirror) {
			m.files[inRelease] = clearSign(t, key, releaseText("bookworm", "bullseye", "stable", "oldstable"))
		}, want: builder.Malformed, detail: "another suite"},
		"two dates": {change: func(m *mirror) {
			m.files[inRelease] = clearSign(t, key, releaseText("Origin: Debian", "Date: Sat, 21 Nov 2026 03:15:07 UTC"))
		}, want: builder.Malformed, detail: "twice"},
		"no date":         {change: func(m *mirror) { m.files[inRelease] = clearSign(t, key, releaseText("Date:", "When:")) }, want: builder.Malformed, detail: "no date"},
		"date of a place": {change: func(m *mirror) { m.files[inRelease] = clearSign(t, key, releaseText("UTC", "MEST")) }, want: builder.Malformed, detail: "bad date"},
		"no list":         {change: func(m *mirror) { m.files[inRelease] = clearSign(t, key, releaseText("amd64", "arm64")) }, want: builder.Malformed, detail: "no list of the packages"},
		"list leads out":  {change: func(m *mirror) { m.files[inRelease] = clearSign(t, key, releaseText("main/", "../main/")) }, want: builder.Malformed, detail: "bad name"},
		"old list":        {change: func(m *mirror) { m.files[packages] = []byte("the list of yesterday") }, want: builder.MidSync},
		"cut list":        {change: func(m *mirror) { m.files[packages] = []byte(list[:10]) }, want: builder.MidSync},
		"longer list":     {change: func(m *mirror) { m.files[packages] = []byte(list + "x") }, want: builder.MidSync},
		"no list there":   {change: func(m *mirror) { delete(m.files, packages) }, want: builder.MidSync},
		"list comes": {change: func(m *mirror) {
			delete(m.files, packages)
			m.each = func(m *mirror, name string) {
				if name == inRelease && m.asked[name] == 3 {
					m.files[packages] = []byte(list)
				}
			}
		}},
		"too large": {change: func(m *mirror) { m.files[inRelease] = make([]byte, maxIndex+1) }, want: builder.Unreachable, detail: "more than"},
		"signature beside it": {change: func(m *mirror) {
			delete(m.files, inRelease)
			m.files["debian/dists/bookworm/Release"] = []byte(releaseText())
			m.files["debian/dists/bookworm/Release.gpg"] = detach(t, key, []byte(releaseText()))
		}},
		"signature of another": {change: func(m *mirror) {
			delete(m.files, inRelease)
			m.files["debian/dists/bookworm/Release"] = []byte(releaseText())
			m.files["debian/dists/bookworm/Release.gpg"] = detach(t, key, []byte("something else"))
		}, want: builder.Unsigned},
	} {
		t.Run(name, func(t *testing.T) {
			m, url := newMirror(t)
			m.files[inRelease] = clearSign(t, key, releaseText())
			if c.change != nil {
				c.change(m)
			}
			if c.keys == nil {
				c.keys = []*openpgp.Entity{key}
			}
			x, err := reader(c.keys...).Apt(t.Context(), Apt{Mirror: "debian", URL: url, Suite: "bookworm", Components: []string{"main"}, Arch: "amd64"})
			if c.want != "" {
				var fault *builder.MirrorError
				require.ErrorAs(t, err, &fault)
				require.Equal(t, c.want, fault.Fault, err)
				require.ErrorContains(t, err, c.detail)
				return
			}
			require.NoError(t, err)
			require.Equal(t, time.Date(2026, 11, 21, 3, 15, 7, 0, time.UTC), x.Date)
			require.Equal(t, fmt.Sprintf("%X", key.PrimaryKey.Fingerprint), x.Signer)
			require.NoError(t, (&builder.State{Tool: "tool", Indexes: []builder.Index{x}}).Validate())
			sum := sha256.Sum256(m.files[strings.Replace("debian/"+x.Path, "//", "/", 1)])
			require.Equal(t, fmt.Sprintf("%x", sum), x.SHA256)
		})
	}
}

// TestFlat reads a repository without dists, as the Open Build Service has them, from
// files of a host.
func TestFlat(t *testing.T) {
	key, dir := newKey(t, 0), t.TempDir()
	text := releaseText("main/binary-amd64/", "")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "Debian_12"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Debian_12/InRelease"), clearSign(t, key, text), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Debian_12/Packages.xz"), []byte(list), 0o644))
	r := reader(key)
	r.Host = builder.Local{}
	x, err := r.Apt(t.Context(), Apt{Mirror: "obs", URL: "file://" + dir, Suite: "Debian_12/", Arch: "amd64"})
	require.NoError(t, err)
	require.Equal(t, "Debian_12/InRelease", x.Path)
}

func TestRPM(t *testing.T) {
	key, other := newKey(t, 0), newKey(t, 0)
	hex256 := fmt.Sprintf("%x", sha256.Sum256([]byte(list)))
	const repomd, primary = "debian/15/repodata/repomd.xml", "debian/15/repodata/0-primary.xml.gz"
	index := func(change ...string) []byte {
		text := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo">
  <revision>1795230907</revision>
  <data type="primary">
    <checksum type="sha256">%x</checksum>
    <location href="repodata/0-primary.xml.gz"/>
    <timestamp>1795230907</timestamp>
    <size>%d</size>
  </data>
  <data type="other"><timestamp>1795230000.5</timestamp></data>
</repomd>
`, sha256.Sum256([]byte(list)), len(list))
		return []byte(strings.NewReplacer(change...).Replace(text))
	}
	for name, c := range map[string]struct {
		change []string
		files  func(m *mirror)
		keys   []*openpgp.Entity
		want   builder.MirrorFault
	}{
		"good":           {},
		"SHA-512":        {change: []string{`"sha256">` + hex256, fmt.Sprintf(`"sha512">%x`, sha512.Sum512([]byte(list)))}},
		"other SHA-512":  {change: []string{`"sha256">` + hex256, fmt.Sprintf(`"sha512">%x`, sha512.Sum512(nil))}, want: builder.MidSync},
		"digest's kind":  {change: []string{`"sha256"`, `"sha512"`}, want: builder.Malformed},
		"no digest":      {change: []string{` type="sha256">` + hex256, ">abcd"}, want: builder.Malformed},
		"endless list":   {change: []string{fmt.Sprintf("<size>%d", len(list)), "<size>9000000000"}, want: builder.Malformed},
		"not there":      {files: func(m *mirror) { delete(m.files, repomd) }, want: builder.Unreachable},
		"unsigned":       {files: func(m *mirror) { delete(m.files, repomd+".asc") }, want: builder.Unsigned},
		"foreign key":    {keys: []*openpgp.Entity{other}, want: builder.Unsigned},
		"changed":        {files: func(m *mirror) { m.files[repomd] = append(m.files[repomd], '\n') }, want: builder.Unsigned},
		"old list":       {files: func(m *mirror) { m.files[primary] = []byte("yesterday's") }, want: builder.MidSync},
		"no list there":  {files: func(m *mirror) { delete(m.files, primary) }, want: builder.MidSync},
		"no list":        {change: []string{`"primary"`, `"filelists"`}, want: builder.Malformed},
		"two lists":      {change: []string{`"other"`, `"primary"`}, want: builder.Malformed},
		"weak digest":    {change: []string{`"sha256"`, `"sha"`}, want: builder.Malformed},
		"list leads out": {change: []string{"repodata/0", "../repodata/0"}, want: builder.Malformed},
		"no size":        {change: []string{"<size>", "<!--", "</size>", "-->"}, want: builder.Malformed},
		"no XML":         {change: []string{"<repomd", "<html", "</repomd", "</html"}, want: builder.Malformed},
		"no time":        {change: []string{"1795230907</t", "-1</t"}, want: builder.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			m, url := newMirror(t)
			m.files[primary] = []byte(list)
			m.files[repomd] = index(c.change...)
			m.files[repomd+".asc"] = detach(t, key, m.files[repomd])
			if c.files != nil {
				c.files(m)
			}
			if c.keys == nil {
				c.keys = []*openpgp.Entity{key}
			}
			x, err := reader(c.keys...).RPM(t.Context(), RPM{Mirror: "suse", URL: url, Path: "15"})
			if c.want != "" {
				var fault *builder.MirrorError
				require.ErrorAs(t, err, &fault)
				require.Equal(t, c.want, fault.Fault, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "15/repodata/repomd.xml", x.Path)
			require.Equal(t, time.Unix(1795230907, 0).UTC(), x.Date)
		})
	}
}

func TestCancelled(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := reader(newKey(t, 0)).Apt(ctx, Apt{URL: server.URL, Suite: "x"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func FuzzParseRelease(f *testing.F) {
	f.Add([]byte(releaseText()))
	f.Add([]byte("Date: Sat, 21 Nov 2026 03:15:07 +0200\nSHA256:\n x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRelease(data)
		if err != nil {
			return
		}
		for name, l := range r.files {
			if l.name != name || l.size < 0 || strings.Contains("/"+name+"/", "/../") || r.date.IsZero() {
				t.Fatalf("%q: %+v", name, l)
			}
		}
	})
}

func FuzzParseRepomd(f *testing.F) {
	f.Add([]byte(`<repomd><data type="primary"><checksum type="sha256">` + strings.Repeat("a", 64) + `</checksum><location href="repodata/x"/><timestamp>1</timestamp><size>1</size></data></repomd>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		md, err := parseRepomd(data)
		if err == nil && (md.primary.size <= 0 || strings.Contains("/"+md.primary.name+"/", "/../")) {
			t.Fatalf("%+v", md)
		}
	})
}
