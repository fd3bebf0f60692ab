package publish_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// origin is a download directory with releases of Image, one a month of 2018 from
// January on, and the keys that signed them.
type origin struct {
	*directory.Target
	keyring  *signing.Keyring
	keys     []*signing.Key
	releases []*publish.Release // in the order of their builds
}

func newOrigin(t testing.TB, releases int) *origin {
	o := &origin{Target: &directory.Target{Dir: filepath.Join(t.TempDir(), "origin")}}
	work := t.TempDir()
	for range releases {
		o.publish(t, work)
	}
	return o
}

// publish publishes the release of the next month.
func (o *origin) publish(t testing.TB, work string) {
	month := time.Month(len(o.releases) + 1)
	build := publish.NewBuildID(time.Date(2018, month, 1, 0, 0, 0, 0, time.UTC))
	r, err := publishtest.Release(t.Context(), work, "Image", build)
	require.NoError(t, err)
	_, err = publish.Publish(t.Context(), o.Target, r)
	require.NoError(t, err)
	f, err := os.Open(r.Dir + ".pub")
	require.NoError(t, err)
	defer f.Close()
	keys, err := signing.ReadKeys(f)
	require.NoError(t, err)
	o.keys = append(o.keys, keys...)
	o.keyring, err = signing.PinKeys(o.keys...)
	require.NoError(t, err)
	o.releases = append(o.releases, r)
}

// dir is the directory of a release at the origin.
func (o *origin) dir(r *publish.Release) string {
	return filepath.Join(o.Dir, r.Index.Image, r.Index.Build.String())
}

// label lets the label lead to the release, as somebody does who sets the
// directory back.
func (o *origin) label(t testing.TB, l publish.Label, r *publish.Release) {
	link := filepath.Join(o.Dir, "Image", string(l))
	require.NoError(t, os.RemoveAll(link))
	require.NoError(t, os.Symlink(r.Index.Build.String(), link))
}

func (o *origin) fetch(t testing.TB, name, dir string) (*publish.Release, error) {
	return publish.Fetch(t.Context(), o.Target, name, o.keyring, dir)
}

// content returns the files below dir by name.
func content(t testing.TB, dir string) map[string]string {
	files := make(map[string]string)
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = string(data)
		return err
	}))
	return files
}

// names returns the names in dir.
func names(t testing.TB, dir string) []string {
	dirents, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, d := range dirents {
		names = append(names, d.Name())
	}
	return names
}

func TestFetch(t *testing.T) {
	o := newOrigin(t, 3)
	for name, want := range map[string]int{"Image": 2, "Image/latest": 2, "Image/prev": 1, "Image/20180101-000000": 0} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new", "download")
			r, err := o.fetch(t, name, dir)
			require.NoError(t, err)
			assert.Equal(t, o.releases[want].Digest, r.Digest)
			assert.Equal(t, o.releases[want].Files, r.Files)
			assert.Equal(t, content(t, o.releases[want].Dir), content(t, r.Dir))
			build := o.releases[want].Index.Build.String()
			assert.Equal(t, filepath.Join(dir, "Image", build), r.Dir)
			assert.Equal(t, []string{build, "fetch.json"}, names(t, filepath.Join(dir, "Image")))

			_, err = publish.Publish(t.Context(), &directory.Target{Dir: t.TempDir()}, r)
			require.NoError(t, err, "it can be published elsewhere")
		})
	}
}

// What was fetched is what the tools of everybody else call good.
func TestFetchPeers(t *testing.T) {
	tools := needs.Tools(t, "gpg", "sha256sum")
	o := newOrigin(t, 1)
	r, err := o.fetch(t, "Image", t.TempDir())
	require.NoError(t, err)
	home := t.TempDir()
	run := func(tool string, args ...string) {
		cmd := exec.CommandContext(t.Context(), tool, args...)
		cmd.Dir = r.Dir
		cmd.Env = append(os.Environ(), "GNUPGHOME="+home)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	run(tools[0], "--batch", "--import", o.releases[0].Dir+".pub")
	run(tools[0], "--batch", "--verify", "SHA256SUMS.asc", "SHA256SUMS")
	run(tools[1], "--check", "--strict", "SHA256SUMS")
	for _, f := range r.Files {
		if sig := f.Name; strings.HasSuffix(sig, ".asc") {
			run(tools[0], "--batch", "--verify", sig, strings.TrimSuffix(sig, ".asc"))
		}
	}
}

// counting is a source that counts what is opened, and where.
type counting struct {
	publish.Source
	mu     sync.Mutex
	opened []string // NAME@OFFSET
}

func (c *counting) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = append(c.opened, fmt.Sprintf("%s@%d", name, offset))
	return c.Source.Open(ctx, name, offset)
}

// What is there is not fetched again, but verified.
func TestFetchAgain(t *testing.T) {
	o := newOrigin(t, 1)
	dir := t.TempDir()
	r, err := o.fetch(t, "Image", dir)
	require.NoError(t, err)
	c := &counting{Source: o.Target}
	again, err := publish.Fetch(t.Context(), c, "Image", o.keyring, dir)
	require.NoError(t, err)
	assert.Equal(t, r.Files, again.Files)
	assert.NotContains(t, strings.Join(c.opened, " "), ".qcow2")

	require.NoError(t, os.Truncate(filepath.Join(r.Dir, "Image-20180101-000000.qcow2"), 5))
	_, err = o.fetch(t, "Image", dir)
	require.ErrorContains(t, err, "is there already but is not what was asked for")
	require.ErrorContains(t, err, "move it away")
	require.NoError(t, os.RemoveAll(r.Dir))
	_, err = o.fetch(t, "Image", dir)
	require.NoError(t, err)

	// Another release of the same build, of the same signer's keyring.
	other := newOrigin(t, 1)
	both, err := signing.PinKeys(append(other.keys, o.keys...)...)
	require.NoError(t, err)
	_, err = publish.Fetch(t.Context(), other.Target, "Image", both, dir)
	require.ErrorIs(t, err, publish.ErrConflict)
}

func TestFetchSuffixes(t *testing.T) {
	o := newOrigin(t, 1)
	dir := t.TempDir()
	f := &publish.Fetcher{Source: o.Target, Keyring: o.keyring, Dir: dir, Suffixes: []string{".qcow2", ".qcow2.asc"}}
	for range 2 {
		r, err := f.Fetch(t.Context(), "Image")
		require.NoError(t, err)
		const name = "Image-20180101-000000"
		want := []string{name + ".qcow2", name + ".qcow2.asc", "SHA256SUMS", "SHA256SUMS.asc", "release.json"}
		assert.Equal(t, want, names(t, r.Dir))
		var got []string
		for _, file := range r.Files {
			got = append(got, file.Name)
		}
		assert.Equal(t, want, got)
		file, err := r.Open(name + ".qcow2")
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, file)
		require.NoError(t, errors.Join(err, file.Close()))
		_, err = publish.Publish(t.Context(), o.Target, r)
		require.ErrorContains(t, err, "did not return", "a part of a release is none")
	}
	_, err := o.fetch(t, "Image", dir)
	require.ErrorContains(t, err, "not what was asked for")
	f.Suffixes = []string{".iso"}
	_, err = f.Fetch(t.Context(), "Image")
	require.ErrorContains(t, err, `no file of 20180101-000000 ends in [".iso"]`)
}

func TestFetchRollback(t *testing.T) {
	o := newOrigin(t, 3)
	dir := t.TempDir()
	for _, name := range []string{"Image", "Image/prev"} {
		_, err := o.fetch(t, name, dir)
		require.NoError(t, err)
	}
	o.label(t, publish.Latest, o.releases[1])
	o.label(t, publish.Prev, o.releases[0])
	for _, name := range []string{"Image/latest", "Image/prev"} {
		_, err := o.fetch(t, name, dir)
		require.ErrorIs(t, err, publish.ErrRollback)
		require.ErrorContains(t, err, filepath.Join(dir, "Image", "fetch.json"))
	}
	_, err := o.fetch(t, "Image/20180101-000000", dir)
	require.NoError(t, err, "who asks for a build gets it")
	_, err = o.fetch(t, "Image/latest", dir)
	require.ErrorIs(t, err, publish.ErrRollback, "which changes nothing of what was seen")
	_, err = o.fetch(t, "Image/latest", t.TempDir())
	require.NoError(t, err, "another directory has seen nothing")
	require.NoError(t, os.Remove(filepath.Join(dir, "Image", "fetch.json")))
	_, err = o.fetch(t, "Image/latest", dir)
	require.NoError(t, err)

	// It is seen when it is known, not when all of it came.
	dir = t.TempDir()
	o.label(t, publish.Latest, o.releases[2])
	require.NoError(t, os.Remove(filepath.Join(o.dir(o.releases[2]), "Image-20180301-000000.qcow2")))
	_, err = o.fetch(t, "Image/latest", dir)
	require.ErrorIs(t, err, publish.ErrNotAsSigned)
	o.label(t, publish.Latest, o.releases[1])
	_, err = o.fetch(t, "Image/latest", dir)
	require.ErrorIs(t, err, publish.ErrRollback)
}

func TestFetchDamagedState(t *testing.T) {
	o := newOrigin(t, 1)
	dir := t.TempDir()
	path := filepath.Join(dir, "Image", "fetch.json")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	for _, data := range []string{
		"", "{", "{}", "null", "[]", `"20180101-000000"`, `{"newest":""}`, `{"newest":"2018"}`, `{"newest":null}`,
		`{"newest":"20180101-000000"}x`, `{"newest":"20180101-000000","x":1}`,
		`{"newest":"20180101-000000","newest":"20170101-000000"}`, `{"newest_prev":"20180101-000000"}`,
		`{"newest":"20180101-000000","newest_prev":"20190101-000000"}`,
		`{"newest":"20180101-000000"}` + strings.Repeat(" ", 1<<20), strings.Repeat("[", 1000),
	} {
		require.NoError(t, os.WriteFile(path, []byte(data), 0o644))
		_, err := o.fetch(t, "Image", dir)
		require.ErrorContains(t, err, path+", which says what was seen before, is damaged", "%.100q", data)
		assert.Equal(t, []string{"fetch.json"}, names(t, filepath.Dir(path)))
	}
	require.NoError(t, os.Remove(path))
	for _, mk := range []func() error{
		func() error { return os.Mkdir(path, 0o755) },
		func() error { return syscall.Mkfifo(path, 0o644) },
		func() error { return os.Symlink("/etc/hostname", path) },
		func() error { return os.Symlink("fetch.json", path) },
	} {
		require.NoError(t, mk())
		_, err := o.fetch(t, "Image", dir)
		require.ErrorContains(t, err, "is damaged")
		require.NoError(t, os.Remove(path))
	}
}

func TestFetchRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(t *testing.T, o *origin, f *publish.Fetcher)
		want error
		text string
	}{
		"too old": {func(_ *testing.T, o *origin, f *publish.Fetcher) {
			now := time.Now()
			f.Now = func() time.Time { return now }
			f.MaxAge = now.Sub(o.releases[1].Index.Build.Time()) - 1
		}, publish.ErrTooOld, "20180201-000000"},
		"from the future": {func(t *testing.T, o *origin, f *publish.Fetcher) {
			r, err := publishtest.Release(t.Context(), o.Dir, "Image", publish.NewBuildID(time.Now().Add(2*time.Hour)))
			require.NoError(t, err)
			f.Keyring, err = signing.LoadKeyring(r.Dir + ".pub")
			require.NoError(t, err)
			o.label(t, publish.Latest, r)
		}, publish.ErrFuture, ""},
		"withdrawn": {func(t *testing.T, o *origin, _ *publish.Fetcher) {
			_, err := publish.Withdraw(t.Context(), o.Target, "Image", o.releases[1].Index.Build, "why")
			require.NoError(t, err)
			o.label(t, publish.Latest, o.releases[1])
		}, publish.ErrWithdrawn, "Image/lifecycle.json says why"},
		"no JSON": {func(t *testing.T, o *origin, _ *publish.Fetcher) {
			require.NoError(t, os.WriteFile(filepath.Join(o.Dir, "Image", "lifecycle.json"), []byte("<html>"), 0o644))
		}, nil, "Image/lifecycle.json, which says what was withdrawn, cannot be read"},
		"endless lifecycle": {func(t *testing.T, o *origin, _ *publish.Fetcher) {
			path := filepath.Join(o.Dir, "Image", "lifecycle.json")
			require.NoError(t, os.WriteFile(path, nil, 0o644))
			require.NoError(t, os.Truncate(path, 1<<40))
		}, publish.ErrNotAsSigned, "more than 4194304 bytes"},
		"another image": {func(t *testing.T, o *origin, _ *publish.Fetcher) {
			require.NoError(t, os.Rename(filepath.Join(o.Dir, "Image"), filepath.Join(o.Dir, "Other")))
			require.NoError(t, os.Mkdir(filepath.Join(o.Dir, "Image"), 0o755))
			require.NoError(t, os.Rename(filepath.Join(o.Dir, "Other", "20180201-000000"), filepath.Join(o.Dir, "Image", "20180301-000000")))
			require.NoError(t, os.Symlink("20180301-000000", filepath.Join(o.Dir, "Image", "latest")))
		}, publish.ErrUnknownBuild, "20180201-000000"},
		"another key": {func(t *testing.T, o *origin, f *publish.Fetcher) {
			var err error
			f.Keyring, err = signing.PinKeys(o.keys[0])
			require.NoError(t, err)
		}, nil, "not in the keyring"},
		"no signature": {func(t *testing.T, o *origin, _ *publish.Fetcher) {
			require.NoError(t, os.Remove(filepath.Join(o.dir(o.releases[1]), "SHA256SUMS.asc")))
		}, publish.ErrNotAsSigned, "has no Image/20180201-000000/SHA256SUMS.asc"},
		"empty signature": {func(t *testing.T, o *origin, _ *publish.Fetcher) {
			require.NoError(t, os.Truncate(filepath.Join(o.dir(o.releases[1]), "SHA256SUMS.asc"), 0))
		}, nil, "signature"},
		"another signature": {func(t *testing.T, o *origin, _ *publish.Fetcher) {
			data, err := os.ReadFile(filepath.Join(o.dir(o.releases[0]), "SHA256SUMS.asc"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(o.dir(o.releases[1]), "SHA256SUMS.asc"), data, 0o644))
		}, nil, "signature"},
		"checksums of another release": {func(t *testing.T, o *origin, _ *publish.Fetcher) {
			require.NoError(t, os.RemoveAll(o.dir(o.releases[1])))
			require.NoError(t, os.CopyFS(o.dir(o.releases[1]), os.DirFS(o.releases[0].Dir)))
			index, err := os.ReadFile(filepath.Join(o.releases[1].Dir, "release.json"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(o.dir(o.releases[1]), "release.json"), index, 0o644))
		}, nil, "release.json"},
		"an old release in the place of the new": {func(_ *testing.T, o *origin, f *publish.Fetcher) {
			f.Source = renamed{o.Target}
		}, nil, "named after Image 20180201-000000 but holds Image 20180101-000000"},
		"too many bytes": {func(_ *testing.T, _ *origin, f *publish.Fetcher) { f.MaxBytes = 100 }, nil, "more bytes than the bound"},
		"no source":      {func(_ *testing.T, _ *origin, f *publish.Fetcher) { f.Source = nil }, nil, "there is no source"},
		"no keyring":     {func(_ *testing.T, _ *origin, f *publish.Fetcher) { f.Keyring = nil }, nil, "there is no keyring"},
		"no directory":   {func(_ *testing.T, _ *origin, f *publish.Fetcher) { f.Dir = "" }, nil, "there is no directory"},
		"no reader":      {func(_ *testing.T, _ *origin, f *publish.Fetcher) { f.Source = noReader{} }, nil, "neither a reader nor an error"},
		"nothing again and again": {func(_ *testing.T, _ *origin, f *publish.Fetcher) {
			f.Source = nothing{}
		}, io.ErrNoProgress, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t, 2)
			dir := filepath.Join(t.TempDir(), "download")
			f := &publish.Fetcher{Source: o.Target, Keyring: o.keyring, Dir: dir}
			test.do(t, o, f)
			_, err := f.Fetch(t.Context(), "Image")
			require.Error(t, err)
			if test.want != nil {
				require.ErrorIs(t, err, test.want)
			}
			require.ErrorContains(t, err, test.text)
			require.NoDirExists(t, dir, "nothing is written before it is known to be signed")
		})
	}
}

// renamed gives an old release's files in the place of the new one's.
type renamed struct{ publish.Source }

func (r renamed) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if !strings.Contains(name, "latest") {
		name = strings.ReplaceAll(name, "20180201", "20180101")
	}
	return r.Source.Open(ctx, name, offset)
}

type noReader struct{}

func (noReader) Open(context.Context, string, int64) (io.ReadCloser, error) { return nil, nil }

type nothing struct{}

func (nothing) Open(context.Context, string, int64) (io.ReadCloser, error) {
	return io.NopCloser(emptyReader{}), nil
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

// The bounds themselves are allowed.
func TestFetchBounds(t *testing.T) {
	o := newOrigin(t, 1)
	now := time.Now()
	var size int64
	for _, f := range o.releases[0].Index.Files {
		size += f.SizeBytes
	}
	f := &publish.Fetcher{
		Source: o.Target, Keyring: o.keyring, Dir: t.TempDir(), Now: func() time.Time { return now },
		MaxAge: now.Sub(o.releases[0].Index.Build.Time()), MaxBytes: size,
	}
	_, err := f.Fetch(t.Context(), "Image")
	require.NoError(t, err)
	f.MaxBytes--
	_, err = f.Fetch(t.Context(), "Image")
	require.ErrorContains(t, err, "more bytes")
}

func TestFetchNames(t *testing.T) {
	o := newOrigin(t, 1)
	dir := filepath.Join(t.TempDir(), "download")
	for name, want := range map[string]string{
		"": "image name", "/": "image name", "../Image": "image name", "Image/": "build ID", "Image/..": "build ID",
		"Image/latest/": "build ID", "Image/Latest": "build ID", "Image/20180101": "build ID", "Image/20180101-000000/x": "build ID",
		"Imag": "no such build", "Image/prev": "no such build", "Image/20180101-000001": "no such build",
		"Image/" + strings.Repeat("x", 1<<20): "build ID",
	} {
		_, err := o.fetch(t, name, dir)
		require.ErrorContains(t, err, want, "%.100q", name)
		assert.Less(t, len(err.Error()), 1000)
	}
	require.NoDirExists(t, dir)
}

// cut is a source that fails for good after some bytes, counted over all files.
type cut struct {
	publish.Source
	mu   sync.Mutex
	left int64
	fail func() error
}

func (c *cut) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	r, err := c.Source.Open(ctx, name, offset)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{readFunc(func(p []byte) (int, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.left == 0 {
			return 0, c.fail()
		}
		n, err := r.Read(p[:min(int64(len(p)), c.left)])
		c.left -= int64(n)
		return n, err
	}), r}, nil
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

var errFault = errors.New("fault")

// A source that fails, or a caller who cancels, after each number of bytes leaves
// only what the next run goes on from.
func TestFetchCutAnywhere(t *testing.T) {
	o := newOrigin(t, 1)
	c := &cut{Source: o.Target, left: 1 << 40}
	_, err := publish.Fetch(t.Context(), c, "Image", o.keyring, t.TempDir())
	require.NoError(t, err)
	total := 1<<40 - c.left
	resumed := 0
	for _, cancel := range []bool{false, true} {
		for at := int64(0); at < total; at += 419 {
			ctx, stop := context.WithCancel(t.Context())
			c := &cut{Source: o.Target, left: at, fail: func() error { return errFault }}
			want := errFault
			if cancel {
				c.fail, want = func() error { stop(); return ctx.Err() }, context.Canceled
			}
			dir := t.TempDir()
			image := filepath.Join(dir, "Image")
			_, err := publish.Fetch(ctx, c, "Image", o.keyring, dir)
			stop()
			require.ErrorIs(t, err, want, "cut at %d", at)
			if _, err := os.Stat(image); err == nil {
				assert.Equal(t, []string{".fetch-20180101-000000", "fetch.json"}, names(t, image))
			}
			whole := make(map[string]bool) // files that need not come again
			partial := ""
			if part := filepath.Join(image, ".fetch-20180101-000000"); there(part) {
				for name, data := range content(t, part) {
					switch full := content(t, o.dir(o.releases[0]))[name]; {
					case data == full:
						whole[name] = true
					case strings.HasPrefix(full, data) && len(data) > 0 && !strings.HasSuffix(name, ".asc"):
						resumed++
						partial = fmt.Sprintf("Image/20180101-000000/%s@%d", name, len(data))
					}
				}
			}
			again := &counting{Source: o.Target}
			r, err := publish.Fetch(t.Context(), again, "Image", o.keyring, dir)
			require.NoError(t, err, "cut at %d", at)
			require.Equal(t, content(t, o.releases[0].Dir), content(t, r.Dir))
			assert.Equal(t, []string{"20180101-000000", "fetch.json"}, names(t, image))
			opened := strings.Join(again.opened, " ")
			assert.Contains(t, opened, partial)
			if whole["Image-20180101-000000.qcow2"] {
				assert.NotContains(t, opened, ".qcow2@")
			}
		}
	}
	assert.Greater(t, resumed, 5)
}

func there(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

// What lies where a partial file should be is nothing to trust, and nothing to
// stumble over.
func TestFetchDistrustsPartial(t *testing.T) {
	o := newOrigin(t, 1)
	const qcow2 = "Image-20180101-000000.qcow2"
	victim := filepath.Join(t.TempDir(), "victim")
	good, err := os.ReadFile(filepath.Join(o.releases[0].Dir, qcow2))
	require.NoError(t, err)
	for name, mk := range map[string]func(part string) error{
		"garbage":    func(p string) error { return os.WriteFile(filepath.Join(p, qcow2), []byte("garbage"), 0o644) },
		"same size":  func(p string) error { return os.WriteFile(filepath.Join(p, qcow2), make([]byte, len(good)), 0o644) },
		"too long":   func(p string) error { return os.WriteFile(filepath.Join(p, qcow2), append(good, 0), 0o644) },
		"empty":      func(p string) error { return os.WriteFile(filepath.Join(p, qcow2), nil, 0o644) },
		"whole":      func(p string) error { return os.WriteFile(filepath.Join(p, qcow2), good, 0o644) },
		"link":       func(p string) error { return os.Symlink(victim, filepath.Join(p, qcow2)) },
		"pipe":       func(p string) error { return syscall.Mkfifo(filepath.Join(p, qcow2), 0o644) },
		"directory":  func(p string) error { return os.MkdirAll(filepath.Join(p, qcow2, "x"), 0o755) },
		"more files": func(p string) error { return os.WriteFile(filepath.Join(p, ".more"), nil, 0o644) },
		"more links": func(p string) error { return os.Symlink(victim, filepath.Join(p, "more")) },
		"more directories": func(p string) error {
			return os.MkdirAll(filepath.Join(p, "more", "x"), 0o755)
		},
		"checksums are a link":      func(p string) error { return os.Symlink(victim, filepath.Join(p, "SHA256SUMS")) },
		"checksums are a directory": func(p string) error { return os.MkdirAll(filepath.Join(p, "SHA256SUMS", "x"), 0o755) },
		"packages are garbage": func(p string) error {
			return os.WriteFile(filepath.Join(p, "Image-20180101-000000.packages"), []byte("x"), 0o644)
		},
		"a signature is garbage": func(p string) error { return os.WriteFile(filepath.Join(p, qcow2+".asc"), []byte("x"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(victim, []byte("untouched"), 0o644))
			dir := t.TempDir()
			part := filepath.Join(dir, "Image", ".fetch-20180101-000000")
			older := filepath.Join(dir, "Image", ".fetch-20171231-000000")
			newer := filepath.Join(dir, "Image", ".fetch-20180301-000000")
			for _, d := range []string{part, older, newer} {
				require.NoError(t, os.MkdirAll(d, 0o755))
			}
			require.NoError(t, mk(part))
			r, err := o.fetch(t, "Image", dir)
			require.NoError(t, err)
			assert.Equal(t, content(t, o.releases[0].Dir), content(t, r.Dir))
			data, err := os.ReadFile(victim)
			require.NoError(t, err)
			assert.Equal(t, "untouched", string(data))
			assert.NoDirExists(t, older)
			assert.DirExists(t, newer)
		})
	}
	t.Run("no directory", func(t *testing.T) {
		dir := t.TempDir()
		part := filepath.Join(dir, "Image", ".fetch-20180101-000000")
		require.NoError(t, os.MkdirAll(filepath.Dir(part), 0o755))
		require.NoError(t, os.Symlink(t.TempDir(), part))
		_, err := o.fetch(t, "Image", dir)
		require.ErrorContains(t, err, part+" is not a directory; move it away")
	})
}

// Provenance is about files that are fetched after it. It does not fit before
// they are complete, and that is no reason to give up.
func TestFetchGoesOnWithProvenance(t *testing.T) {
	work := t.TempDir()
	made, err := publishtest.Release(t.Context(), work, "Image", publish.NewBuildID(time.Date(2018, 1, 1, 0, 0, 0, 0, time.UTC)))
	require.NoError(t, err)
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "signs provenance too"})
	require.NoError(t, err)
	signer, err := signing.NewSigner(key, signing.SignerConfig{})
	require.NoError(t, err)
	sealer := &signing.Sealer{Signers: []*signing.Signer{signer}}
	image := filepath.Join(made.Dir, "Image-20180101-000000.qcow2")
	_, err = sealer.Attest(t.Context(), filepath.Join(made.Dir, "Image-20180101-000000.provenance.json"),
		signing.Provenance{BuildType: "https://example.com/type", BuilderID: "https://example.com/builder"}, image)
	require.NoError(t, err)
	for _, name := range []string{image + ".asc", filepath.Join(made.Dir, signing.SumsFile), filepath.Join(made.Dir, signing.SumsSig)} {
		require.NoError(t, os.RemoveAll(name))
	}
	_, err = sealer.SignDir(t.Context(), made.Dir)
	require.NoError(t, err)
	keyring, err := signing.PinKeys(key)
	require.NoError(t, err)
	source := &directory.Target{Dir: work}

	for how, damage := range map[string]func(image string) error{
		"cut":     func(image string) error { return os.Truncate(image, 1000) },
		"garbage": func(image string) error { return os.WriteFile(image, []byte("garbage"), 0o644) },
		"missing": os.Remove,
	} {
		dir := t.TempDir()
		part := filepath.Join(dir, "Image", ".fetch-20180101-000000")
		require.NoError(t, os.CopyFS(part, os.DirFS(made.Dir)))
		require.NoError(t, damage(filepath.Join(part, filepath.Base(image))))
		r, err := publish.Fetch(t.Context(), source, "Image/20180101-000000", keyring, dir)
		require.NoError(t, err, how)
		assert.Equal(t, content(t, made.Dir), content(t, r.Dir), how)
	}
}

// Whatever file of the release is changed in whatever way at the source, nothing
// appears.
func TestFetchChangedSource(t *testing.T) {
	o := newOrigin(t, 1)
	at := o.dir(o.releases[0])
	for name, data := range content(t, at) {
		for how, change := range map[string]func(path string) error{
			"missing": os.Remove,
			"empty":   func(p string) error { return os.Truncate(p, 0) },
			"short":   func(p string) error { return os.Truncate(p, int64(len(data)-1)) },
			"endless": func(p string) error { return os.Truncate(p, 1<<40) },
			"changed": func(p string) error {
				changed := []byte(data)
				changed[len(data)/2] ^= 1
				return os.WriteFile(p, changed, 0o644)
			},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				path := filepath.Join(at, name)
				require.NoError(t, change(path))
				dir := t.TempDir()
				_, err := o.fetch(t, "Image", dir)
				restore := os.WriteFile(path, []byte(data), 0o644)
				require.NoError(t, restore)
				if err == nil {
					// What comes after the signed size is not read, and a signature may
					// be good without its last line end.
					require.True(t, how == "endless" || how == "short" && name == signing.SumsSig)
					got := content(t, filepath.Join(dir, "Image", "20180101-000000"))
					got[signing.SumsSig] = content(t, at)[signing.SumsSig]
					require.Equal(t, content(t, at), got)
					return
				}
				var bad *signing.Error
				require.True(t, errors.Is(err, publish.ErrNotAsSigned) || errors.As(err, &bad) || errors.Is(err, publish.ErrUnknownBuild), "%v", err)
				require.NoDirExists(t, filepath.Join(dir, "Image", "20180101-000000"))
				_, err = o.fetch(t, "Image", dir)
				require.NoError(t, err, "what is mended there comes")
			})
		}
	}
}

// Runs at once take turns; a lock that is held ends with the context.
func TestFetchTogether(t *testing.T) {
	o := newOrigin(t, 1)
	dir := t.TempDir()
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			r, err := o.fetch(t, "Image", dir)
			if assert.NoError(t, err) {
				assert.Equal(t, o.releases[0].Files, r.Files)
			}
		})
	}
	wait.Wait()
	assert.Equal(t, []string{"20180101-000000", "fetch.json"}, names(t, filepath.Join(dir, "Image")))

	unlock, err := (&directory.Target{Dir: dir}).Lock(t.Context(), "Image")
	require.NoError(t, err)
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = publish.Fetch(ctx, o.Target, "Image", o.keyring, dir)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// FuzzFetch lets a source give anything for one of the files that are read before
// the signature is verified, and for those after it.
func FuzzFetch(f *testing.F) {
	o := newOrigin(f, 1)
	files := []string{"lifecycle.json", "latest/release.json"}
	for _, file := range o.releases[0].Files {
		files = append(files, "20180101-000000/"+file.Name)
	}
	for n, name := range files {
		data, _ := os.ReadFile(filepath.Join(o.Dir, "Image", name))
		f.Add(n, data)
	}
	f.Add(0, []byte(`{"20180101-000000":{"withdrawn":"x"}}`))
	want := content(f, o.releases[0].Dir)
	f.Fuzz(func(t *testing.T, n int, data []byte) {
		if n < 0 || n >= len(files) {
			return
		}
		dir := t.TempDir()
		r, err := publish.Fetch(t.Context(), replaced{o.Target, "Image/" + files[n], data}, "Image", o.keyring, dir)
		if err == nil && fmt.Sprint(content(t, r.Dir)) != fmt.Sprint(want) && !strings.HasSuffix(files[n], ".asc") {
			t.Errorf("with another %s the release has other files", files[n])
		}
		if _, statErr := os.Stat(filepath.Join(dir, "Image", "20180101-000000")); err != nil && statErr == nil {
			t.Errorf("there is a release in spite of %v", err)
		}
	})
}

// replaced is a source with another content of one file.
type replaced struct {
	publish.Source
	name string
	data []byte
}

func (r replaced) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if name != r.name {
		return r.Source.Open(ctx, name, offset)
	}
	return io.NopCloser(bytes.NewReader(r.data[min(offset, int64(len(r.data))):])), nil
}
