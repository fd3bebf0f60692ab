package existing_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/existing"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

const disk = 8 << 20

// makeImage is a qcow2 with a few MiB of content.
func makeImage(t *testing.T, args ...string) []byte {
	qemu := needs.Tools(t, "qemu-img")[0]
	dir := t.TempDir()
	raw, image := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	content := make([]byte, disk)
	_, err := rand.Read(content[1<<20 : 5<<20])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(raw, content, 0o644))
	out, err := exec.Command(qemu, append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, args...), raw, image)...).CombinedOutput()
	require.NoError(t, err, string(out))
	data, err := os.ReadFile(image)
	require.NoError(t, err)
	return data
}

func hex256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func spec(t *testing.T) builder.Spec {
	dir := t.TempDir()
	s := builder.Spec{
		Name: "Community_Linux_1", Distribution: "linux", Release: "1", Arch: "amd64", DiskBytes: disk, User: "linux",
		Dir: dir, WorkDir: filepath.Join(dir, "build"), OutputDir: filepath.Join(dir, "out"),
	}
	require.NoError(t, os.Mkdir(s.OutputDir, 0o755))
	return s
}

// build builds into a new output directory of spec's and holds the result to the
// contract of builders.
func build(ctx context.Context, t *testing.T, c existing.Config, s builder.Spec) (*builder.Result, error) {
	require.NoError(t, os.RemoveAll(s.OutputDir))
	require.NoError(t, os.Mkdir(s.OutputDir, 0o755))
	b, err := existing.New(c)
	require.NoError(t, err)
	r, err := b.Build(ctx, builder.Local{}, s)
	if err == nil {
		require.NoError(t, r.Validate(s))
		return r, nil
	}
	require.Nil(t, r)
	left, globErr := filepath.Glob(filepath.Join(s.OutputDir, "*.qcow2"))
	require.NoError(t, globErr)
	require.Empty(t, left, "an image that is not good is not left")
	return nil, err
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// file answers as web servers do, with ranges.
func file(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

func TestNewRefuses(t *testing.T) {
	sum := strings.Repeat("a", 64)
	for want, c := range map[string]existing.Config{
		"image: none named":         {SHA256: sum},
		"neither a digest nor":      {Image: "x.qcow2"},
		"sha256: want 64":           {Image: "x.qcow2", SHA256: sum[1:]},
		"sha512: want 128":          {Image: "x.qcow2", SHA512: sum},
		"keyring: a signature":      {Image: "x.qcow2", Signature: "x.qcow2.asc"},
		"keyring: ":                 {Image: "x.qcow2", SHA256: sum, Keyring: "keys.asc"},
		"with http on this machine": {Image: "http://images.example.org/x.qcow2", SHA256: sum},
		"image: want a path":        {Image: "ftp://images.example.org/x.qcow2", SHA256: sum},
		"may have no user":          {Image: "https://user:password@images.example.org/x.qcow2", SHA256: sum},
		"may have no user, passw":   {Image: "https://images.example.org/x.qcow2?token=password", SHA256: sum},
		"cannot be parsed":          {Image: "https://user:password@images.example.org:x/%zz", SHA256: sum},
		"names no file":             {Image: "https://images.example.org/", SHA256: sum},
		"redirect_hosts: bad host":  {Image: "x", SHA256: sum, RedirectHosts: []string{"https://x"}},
		"max_mib: bad value":        {Image: "x", SHA256: sum, MaxMiB: -1},
		"timeout: bad value":        {Image: "x", SHA256: sum, Timeout: -time.Second},
		"signature: want a path":    {Image: "x", Signature: "http://images.example.org/x.asc", Keyring: "k"},
		"checksums: want a path":    {Image: "x", Checksums: "http://images.example.org/x.asc", Keyring: "k"},
	} {
		_, err := existing.New(c)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "password@")
		require.NotContains(t, err.Error(), "token=")
	}
}

func TestFile(t *testing.T) {
	image, s := makeImage(t), spec(t)
	require.NoError(t, os.WriteFile(filepath.Join(s.Dir, "vendor.qcow2"), image, 0o600))
	var log bytes.Buffer
	s.Log = &log
	long := sha512.Sum512(image)
	r, err := build(t.Context(), t, existing.Config{Image: "vendor.qcow2", SHA512: strings.ToUpper(hex.EncodeToString(long[:]))}, s)
	require.NoError(t, err)
	have, err := os.ReadFile(r.ImagePath)
	require.NoError(t, err)
	require.True(t, bytes.Equal(image, have))
	require.Empty(t, r.Packages)
	require.Equal(t, existing.Config{Image: "vendor.qcow2", SHA256: hex256(image), MaxMiB: 20480, Timeout: 2 * time.Hour}, r.Config)
	require.Contains(t, log.String(), hex256(image))

	_, err = build(t.Context(), t, existing.Config{Image: "vendor.qcow2", SHA256: strings.Repeat("0", 64)}, s)
	require.ErrorContains(t, err, "its SHA-256 is "+hex256(image)+", and should be 0000")
	// All that is given has to be right.
	_, err = build(t.Context(), t, existing.Config{Image: "vendor.qcow2", SHA256: hex256(image), SHA512: strings.Repeat("0", 128)}, s)
	require.ErrorContains(t, err, "its SHA-512 is")

	s.DiskBytes *= 2
	_, err = build(t.Context(), t, existing.Config{Image: "vendor.qcow2", SHA256: hex256(image)}, s)
	require.ErrorContains(t, err, "the image's disk has 8388608 bytes, and should have 16777216")

	out, err := exec.Command("mkfifo", filepath.Join(s.Dir, "pipe.qcow2")).CombinedOutput()
	require.NoError(t, err, string(out))
	_, err = build(t.Context(), t, existing.Config{Image: "pipe.qcow2", SHA256: hex256(image)}, s)
	require.ErrorContains(t, err, "is not a regular file")
}

func TestUnsafeImage(t *testing.T) {
	s := spec(t)
	dir := t.TempDir()
	secret, image := filepath.Join(dir, "secret"), filepath.Join(s.Dir, "evil.qcow2")
	require.NoError(t, os.WriteFile(secret, make([]byte, disk), 0o644))
	out, err := exec.Command(needs.Tools(t, "qemu-img")[0], "create", "-f", "qcow2", "-b", secret, "-F", "raw", image).CombinedOutput()
	require.NoError(t, err, string(out))
	data, err := os.ReadFile(image)
	require.NoError(t, err)
	_, err = build(t.Context(), t, existing.Config{Image: image, SHA256: hex256(data)}, s)
	require.ErrorContains(t, err, "unsafe image: backing_file")

	require.NoError(t, os.WriteFile(image, []byte("<html>not found</html>"), 0o644))
	_, err = build(t.Context(), t, existing.Config{Image: image, SHA256: hex256([]byte("<html>not found</html>"))}, s)
	require.ErrorContains(t, err, "not a qcow2 image")
}

// TestServers takes an image from servers with faults of all kinds.
func TestServers(t *testing.T) {
	image := makeImage(t)
	var asked atomic.Int64
	endless := func(w http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 1<<20); r.Context().Err() == nil; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	cut := func(w http.ResponseWriter, r *http.Request) { // each answer brings 1.5 MiB
		if asked.Add(1) > 20 {
			http.Error(w, "enough", http.StatusTeapot)
			return
		}
		http.ServeContent(&cutWriter{w, 3 << 19}, r, "", time.Time{}, bytes.NewReader(image))
	}
	other := serve(t, file(image))
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		config  existing.Config
		want    string // "" is a good image
	}{
		"good":            {handler: file(image)},
		"cut three times": {handler: cut},
		"not there":       {handler: http.NotFound, want: "file does not exist"},
		"forbidden":       {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, want: "status 403"},
		"another image":   {handler: file(append(bytes.Clone(image[:len(image)-1]), 'x')), want: "is not the image that is named: its SHA-256"},
		"truncated":       {handler: file(image[:len(image)/2]), want: "is not the image that is named: its SHA-256"},
		"longer":          {handler: file(append(bytes.Clone(image), 'x')), want: "is not the image that is named: its SHA-256"},
		"empty":           {handler: file(nil), want: "is not the image that is named: its SHA-256"},
		"endless":         {handler: endless, config: existing.Config{MaxMiB: 100}, want: "it is too large: more than the 104857600 bytes"},
		"slow":            {handler: slow, config: existing.Config{Timeout: 300 * time.Millisecond}, want: "it took longer than the 300ms of timeout"},
		"silent":          {handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, config: existing.Config{Timeout: 300 * time.Millisecond}, want: "it took longer than the 300ms of timeout"},
		"compressed on way": {handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			file(image)(w, r)
		}, want: "encodes the file"},
		"elsewhere":         {handler: http.RedirectHandler(other+"/x.qcow2", http.StatusFound).ServeHTTP, want: "redirects to another host"},
		"elsewhere allowed": {handler: http.RedirectHandler(other+"/x.qcow2", http.StatusFound).ServeHTTP, config: existing.Config{RedirectHosts: []string{strings.TrimPrefix(other, "http://")}}},
		"to a file":         {handler: http.RedirectHandler("file:///etc/passwd", http.StatusFound).ServeHTTP, want: "redirects"},
		"in circles":        {handler: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x.qcow2", http.StatusFound) }, want: "redirects more than 10 times"},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Image, c.config.SHA256 = serve(t, c.handler)+"/x.qcow2", hex256(image)
			r, err := build(t.Context(), t, c.config, spec(t))
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			have, err := os.ReadFile(r.ImagePath)
			require.NoError(t, err)
			require.True(t, bytes.Equal(image, have))
		})
	}
}

func slow(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		_, _ = w.Write(make([]byte, 16<<10))
		_ = http.NewResponseController(w).Flush()
		time.Sleep(10 * time.Millisecond)
	}
}

// cutWriter breaks the connection after so many bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

// TestResume cuts a build in the middle of its download: the next one goes on from
// there. One whose rest is of another image is fetched anew.
func TestResume(t *testing.T) {
	image, s := makeImage(t), spec(t)
	var ranges []string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half := true
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if half {
			w.Header().Set("Content-Length", fmt.Sprint(len(image)))
			_, _ = w.Write(image[:2<<20])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(200 * time.Millisecond)
			cancel()
			<-r.Context().Done()
			return
		}
		file(image)(w, r)
	}) + "/x.qcow2"
	c := existing.Config{Image: url, SHA256: hex256(image)}
	_, err := build(ctx, t, c, s)
	require.ErrorIs(t, err, context.Canceled)
	half = false
	_, err = build(t.Context(), t, c, s)
	require.NoError(t, err)
	require.Equal(t, []string{"", "bytes=2097152-"}, ranges)

	parts := func() []string {
		found, err := filepath.Glob(s.WorkDir + ".*")
		require.NoError(t, err)
		return found
	}
	require.Empty(t, parts(), "nothing is left beside the work directory")

	for name, rest := range map[string][]byte{"of another image": make([]byte, 1<<20), "longer than the image": make([]byte, 2*len(image))} {
		t.Run(name, func(t *testing.T) {
			half = true
			ctx, cancelAgain := context.WithCancel(t.Context())
			cancel = cancelAgain
			_, err := build(ctx, t, c, s)
			require.ErrorIs(t, err, context.Canceled)
			require.Len(t, parts(), 1)
			require.NoError(t, os.WriteFile(parts()[0], rest, 0o600))
			half = false
			_, err = build(t.Context(), t, c, s)
			require.NoError(t, err)
		})
	}

	t.Run("what is left of other images goes", func(t *testing.T) {
		require.NoError(t, os.WriteFile(s.WorkDir+".0123456789abcdef.part", nil, 0o600))
		_, err := build(t.Context(), t, c, s)
		require.NoError(t, err)
		require.Empty(t, parts())
	})
}

// TestSignatures verifies what the real gpg has signed.
func TestSignatures(t *testing.T) {
	gpg := needs.Tools(t, "gpg")[0]
	image, s := makeImage(t), spec(t)
	home := t.TempDir()
	run := func(args ...string) []byte {
		cmd := exec.Command(gpg, append([]string{"--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always"}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		return out
	}
	at := func(name string) string { return filepath.Join(s.Dir, name) }
	write := func(name string, data []byte) { require.NoError(t, os.WriteFile(at(name), data, 0o644)) }
	for _, who := range []string{"vendor", "other"} {
		run("--quick-generate-key", who+"@example.org", "ed25519", "sign", "never")
		write(who+".asc", run("--armor", "--export", who+"@example.org"))
	}
	write("x.qcow2", image)
	write("SHA256SUMS", fmt.Appendf(nil, "%s  another.qcow2\n%s *x.qcow2\n", strings.Repeat("0", 64), hex256(image)))
	write("WRONG", fmt.Appendf(nil, "%s  x.qcow2\n", strings.Repeat("0", 64)))
	write("LACKS", fmt.Appendf(nil, "%s  another.qcow2\n", hex256(image)))
	for _, name := range []string{"x.qcow2", "SHA256SUMS", "WRONG", "LACKS"} {
		run("-u", "vendor@example.org", "--armor", "--detach-sign", "-o", at(name+".sig"), at(name))
	}
	run("-u", "vendor@example.org", "--clearsign", "-o", at("CHECKSUM"), at("SHA256SUMS"))

	url := serve(t, http.FileServer(http.Dir(s.Dir)).ServeHTTP) + "/"
	for name, c := range map[string]struct {
		config existing.Config
		want   string
	}{
		"signed":             {existing.Config{Image: url + "x.qcow2", Signature: url + "x.qcow2.sig", Keyring: "vendor.asc"}, ""},
		"signed file":        {existing.Config{Image: "x.qcow2", Signature: "x.qcow2.sig", Keyring: "vendor.asc"}, ""},
		"signed list":        {existing.Config{Image: url + "x.qcow2", Checksums: url + "SHA256SUMS", Signature: url + "SHA256SUMS.sig", Keyring: "vendor.asc"}, ""},
		"list with its own":  {existing.Config{Image: url + "x.qcow2", Checksums: url + "CHECKSUM", Keyring: "vendor.asc"}, ""},
		"another's":          {existing.Config{Image: url + "x.qcow2", Signature: url + "x.qcow2.sig", Keyring: "other.asc"}, "is not the image that is named"},
		"another's list":     {existing.Config{Image: url + "x.qcow2", Checksums: url + "CHECKSUM", Keyring: "other.asc"}, "is not the image that is named"},
		"of something else":  {existing.Config{Image: url + "x.qcow2", Signature: url + "SHA256SUMS.sig", Keyring: "vendor.asc"}, "is not the image that is named"},
		"unsigned list":      {existing.Config{Image: url + "x.qcow2", Checksums: url + "SHA256SUMS", Keyring: "vendor.asc"}, "is not the image that is named"},
		"list of another":    {existing.Config{Image: url + "x.qcow2", Checksums: url + "WRONG", Signature: url + "WRONG.sig", Keyring: "vendor.asc"}, "is not the image that is named"},
		"list lacks it":      {existing.Config{Image: url + "x.qcow2", Checksums: url + "LACKS", Signature: url + "LACKS.sig", Keyring: "vendor.asc"}, "is not the image that is named"},
		"no signature there": {existing.Config{Image: url + "x.qcow2", Signature: url + "none.sig", Keyring: "vendor.asc"}, "file does not exist"},
		"no keys there":      {existing.Config{Image: url + "x.qcow2", Signature: url + "x.qcow2.sig", Keyring: "none.asc"}, "keyring: "},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := build(t.Context(), t, c.config, s)
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, hex256(image), r.Config.(existing.Config).SHA256, "whoever rebuilds gets the same")
		})
	}

	t.Run("too large a signature", func(t *testing.T) {
		big := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, zeros{}, 2<<20) })
		_, err := build(t.Context(), t, existing.Config{Image: "x.qcow2", Signature: big + "/x.sig", Keyring: "vendor.asc"}, s)
		require.ErrorContains(t, err, "it is too large: more than the 1048576 bytes")
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestCheck(t *testing.T) {
	s := spec(t)
	b, err := existing.New(existing.Config{Image: "x.qcow2", Signature: "https://images.example.org/x.sig", Keyring: "keys.asc"})
	require.NoError(t, err)
	err = b.(builder.Checker).Check(s)
	require.ErrorContains(t, err, "image: open")
	require.ErrorContains(t, err, "keyring: ")
	require.NotContains(t, err.Error(), "signature", "no server is asked")
}

func TestInputsDigest(t *testing.T) {
	s := spec(t)
	digest := func(c existing.Config) string {
		b, err := existing.New(c)
		require.NoError(t, err)
		d, err := b.(builder.Digester).InputsDigest(s)
		require.NoError(t, err)
		return d
	}
	one := digest(existing.Config{Image: "x", SHA256: strings.Repeat("a", 64)})
	require.Equal(t, one, digest(existing.Config{Image: "x", SHA256: strings.Repeat("A", 64)}))
	require.NotEqual(t, one, digest(existing.Config{Image: "x", SHA256: strings.Repeat("b", 64)}))
}
