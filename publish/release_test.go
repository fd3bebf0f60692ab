package publish_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// signer is a key and the keyring that trusts it alone.
type signer struct {
	*signing.Signer
	keyring *signing.Keyring
}

func newSigner(t testing.TB) signer {
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "test"})
	require.NoError(t, err)
	s, err := signing.NewSigner(key, signing.SignerConfig{})
	require.NoError(t, err)
	keyring, err := signing.PinKeys(key)
	require.NoError(t, err)
	return signer{s, keyring}
}

const (
	debian   = "Standard_Debian_12"
	buildID  = "20261122-031507"
	packages = debian + "-" + buildID + ".packages"
)

// unsigned writes a release directory up to the signatures and returns its
// path and its index.
func unsigned(t testing.TB, image, id string) (string, *publish.Index) {
	dir := filepath.Join(t.TempDir(), image, id)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	x := &publish.Index{Image: image, Build: build(t, id), DefinitionSHA256: fmt.Sprintf("%064x", 1), MinDiskGiB: 4, Properties: map[string]string{}}
	for _, ext := range []string{".qcow2", ".packages"} {
		data := []byte("content of " + ext)
		name := image + "-" + id + ext
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
		sum := sha256.Sum256(data)
		x.Files = append(x.Files, publish.File{Name: name, SizeBytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
	}
	writeIndex(t, dir, x)
	return dir, x
}

func writeIndex(t testing.TB, dir string, x *publish.Index) {
	f, err := os.Create(filepath.Join(dir, publish.IndexName))
	require.NoError(t, err)
	require.NoError(t, publish.WriteIndex(f, x))
	require.NoError(t, f.Close())
}

func sign(t testing.TB, dir string, s signer) {
	_, err := signing.SignDir(context.Background(), dir, s.Signer)
	require.NoError(t, err)
}

func TestOpen(t *testing.T) {
	s := newSigner(t)
	dir, x := unsigned(t, debian, buildID)
	sign(t, dir, s)
	latest := filepath.Join(filepath.Dir(dir), "latest")
	require.NoError(t, os.Symlink(buildID, latest))

	for _, path := range []string{dir, dir + "/", latest} {
		r, err := publish.Open(t.Context(), path, s.keyring)
		require.NoError(t, err)
		assert.Equal(t, dir, r.Dir)
		assert.Equal(t, *x, r.Index)
		var names []string
		for _, f := range r.Files {
			names = append(names, f.Name)
			data, err := os.ReadFile(filepath.Join(dir, f.Name))
			require.NoError(t, err)
			sum := sha256.Sum256(data)
			assert.Equal(t, publish.File{Name: f.Name, SizeBytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}, f)
			if f.Name == "SHA256SUMS" {
				assert.Equal(t, f.SHA256, r.Digest)
			}
		}
		base := debian + "-" + buildID
		assert.Equal(t, []string{"SHA256SUMS", "SHA256SUMS.asc", base + ".packages", base + ".qcow2", base + ".qcow2.asc", "release.json"}, names)
		assert.Equal(t, s.Fingerprint(), r.Signatures.File("SHA256SUMS").Fingerprint)
	}

	t.Chdir(dir)
	r, err := publish.Open(t.Context(), ".", s.keyring)
	require.NoError(t, err)
	assert.Equal(t, build(t, buildID), r.Index.Build)
}

func TestOpenRefuses(t *testing.T) {
	good, other := newSigner(t), newSigner(t)
	type prepared struct {
		dir string
		x   *publish.Index
	}
	signed := func(t *testing.T) prepared {
		dir, x := unsigned(t, debian, buildID)
		sign(t, dir, good)
		return prepared{dir, x}
	}
	// sealed changes the index before the directory is signed, rightly.
	sealed := func(change func(x *publish.Index)) func(t *testing.T) string {
		return func(t *testing.T) string {
			dir, x := unsigned(t, debian, buildID)
			change(x)
			writeIndex(t, dir, x)
			sign(t, dir, good)
			return dir
		}
	}
	renamed := func(elements ...string) func(t *testing.T) string {
		return func(t *testing.T) string {
			p := signed(t)
			to := filepath.Join(append([]string{t.TempDir()}, elements...)...)
			require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
			require.NoError(t, os.Rename(p.dir, to))
			return to
		}
	}
	var wrong *publish.WrongReleaseError
	var untrusted *signing.Error
	for name, test := range map[string]struct {
		dir  func(t *testing.T) string
		want string
		as   any
	}{
		"no directory": {func(t *testing.T) string { return filepath.Join(t.TempDir(), debian, buildID) }, "no such file", nil},
		"not signed": {func(t *testing.T) string {
			dir, _ := unsigned(t, debian, buildID)
			return dir
		}, "SHA256SUMS is not good", &untrusted},
		"another key": {func(t *testing.T) string {
			dir, _ := unsigned(t, debian, buildID)
			sign(t, dir, other)
			return dir
		}, "not in the keyring", &untrusted},
		"changed file": {func(t *testing.T) string {
			p := signed(t)
			require.NoError(t, os.WriteFile(filepath.Join(p.dir, packages), []byte("evil"), 0o644))
			return p.dir
		}, "differs from SHA256SUMS", &untrusted},
		"added file": {func(t *testing.T) string {
			p := signed(t)
			require.NoError(t, os.WriteFile(filepath.Join(p.dir, "evil"), nil, 0o644))
			return p.dir
		}, "not listed in SHA256SUMS", &untrusted},
		"index changed after signing": {func(t *testing.T) string {
			p := signed(t)
			p.x.Capabilities = "0xff"
			writeIndex(t, p.dir, p.x)
			return p.dir
		}, "differs from SHA256SUMS", &untrusted},
		"no index": {func(t *testing.T) string {
			dir, _ := unsigned(t, debian, buildID)
			require.NoError(t, os.Remove(filepath.Join(dir, publish.IndexName)))
			sign(t, dir, good)
			return dir
		}, "release.json: file does not exist", nil},
		"index is not one": {func(t *testing.T) string {
			dir, _ := unsigned(t, debian, buildID)
			require.NoError(t, os.WriteFile(filepath.Join(dir, publish.IndexName), []byte(`{"name": "x"}`), 0o644))
			sign(t, dir, good)
			return dir
		}, "unknown field", nil},
		"index has another digest": {sealed(func(x *publish.Index) { x.Files[0].SHA256 = fmt.Sprintf("%064x", 7) }), "release.json lists", nil},
		"index has another size":   {sealed(func(x *publish.Index) { x.Files[0].SizeBytes++ }), "release.json lists", nil},
		"index has a missing file": {sealed(func(x *publish.Index) { x.Files[0].Name = "missing" }), "release.json lists missing", nil},
		"replay of an old build":   {renamed(debian, "20261123-031507"), "named after Standard_Debian_12 20261123-031507 but holds Standard_Debian_12 20261122-031507", &wrong},
		"another image":            {renamed("Enterprise_SLES_15", buildID), "named after Enterprise_SLES_15 20261122-031507 but holds Standard_Debian_12", &wrong},
		"not named after a build":  {renamed(debian, "new"), "not named after its build", nil},
		"link to another image": {func(t *testing.T) string {
			p := signed(t)
			link := filepath.Join(t.TempDir(), "Enterprise_SLES_15")
			require.NoError(t, os.Symlink(filepath.Dir(p.dir), link))
			return filepath.Join(link, buildID)
		}, "named after Enterprise_SLES_15", &wrong},
		"label leads out": {func(t *testing.T) string {
			p := signed(t)
			image := filepath.Join(t.TempDir(), "Enterprise_SLES_15")
			require.NoError(t, os.Mkdir(image, 0o755))
			require.NoError(t, os.Symlink(p.dir, filepath.Join(image, "latest")))
			return filepath.Join(image, "latest")
		}, "not a build beside it", nil},
		"build is a link to another build": {func(t *testing.T) string {
			p := signed(t)
			link := filepath.Join(filepath.Dir(p.dir), "20261123-031507")
			require.NoError(t, os.Symlink(buildID, link))
			return link
		}, "named after Standard_Debian_12 20261123-031507", &wrong},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := publish.Open(t.Context(), test.dir(t), good.keyring)
			require.ErrorContains(t, err, test.want)
			assert.Nil(t, r)
			assert.ErrorContains(t, err, "cannot open release ")
			if test.as != nil {
				assert.ErrorAs(t, err, test.as)
			}
		})
	}
}

func TestReleaseFileChangedAfterOpen(t *testing.T) {
	s := newSigner(t)
	for name, change := range map[string]func(t *testing.T, path string){
		"content": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte("content of .packagez"), 0o644))
		},
		"shorter": func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 3)) },
		"longer": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte("content of .packages!"), 0o644))
		},
		"gone": func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) },
		"pipe": func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, syscall.Mkfifo(path, 0o644))
		},
		"directory": func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o755))
		},
		"link out": func(t *testing.T, path string) {
			out := filepath.Join(t.TempDir(), "same")
			require.NoError(t, os.Rename(path, out))
			require.NoError(t, os.Symlink(out, path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := unsigned(t, debian, buildID)
			sign(t, dir, s)
			r, err := publish.Open(t.Context(), dir, s.keyring)
			require.NoError(t, err)
			f, err := r.Open(packages)
			require.NoError(t, err)
			require.NoError(t, iotest.TestReader(f, []byte("content of .packages")))
			require.NoError(t, f.Close())

			change(t, filepath.Join(dir, packages))
			f, err = r.Open(packages)
			if err == nil {
				_, err = io.ReadAll(f)
				require.NoError(t, f.Close())
			}
			require.Error(t, err)
		})
	}

	dir, _ := unsigned(t, debian, buildID)
	sign(t, dir, s)
	r, err := publish.Open(t.Context(), dir, s.keyring)
	require.NoError(t, err)
	for _, name := range []string{"", ".", "missing", "../" + buildID + "/" + packages, "/etc/passwd"} {
		_, err := r.Open(name)
		assert.ErrorIs(t, err, fs.ErrNotExist, "%q", name)
	}
}

func TestPublishTakesOnlyVerifiedReleases(t *testing.T) {
	for _, r := range []*publish.Release{nil, {}, {Index: *index(t), Dir: t.TempDir()}} {
		p, err := publish.Publish(t.Context(), nil, r)
		assert.ErrorContains(t, err, "that Open did not return")
		assert.Empty(t, p.Steps)
	}
}
