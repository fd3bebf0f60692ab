package rebuild_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/rebuild"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

var at = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// files are those of a build by suffix; the image's content stands for it.
type files map[string]string

func zipped(t *testing.T, text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.String()
}

// write writes a build; qemu-img makes the image, compressed or not.
func write(t *testing.T, dir, base string, f files, more ...string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for suffix, data := range f {
		path := filepath.Join(dir, base+suffix)
		if suffix != ".qcow2" {
			require.NoError(t, os.WriteFile(path, []byte(data), 0o644))
			continue
		}
		raw := filepath.Join(t.TempDir(), "raw")
		require.NoError(t, os.WriteFile(raw, []byte(strings.Repeat(data, 1<<20/len(data))), 0o644))
		args := append([]string{"convert", "-f", "raw", "-O", "qcow2"}, more...)
		out, err := exec.Command(needs.Tools(t, "qemu-img")[0], append(args, raw, path)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// release seals a build as a release of Standard_A.
func release(t *testing.T, build string, f files) *publish.Release {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "Standard_A", build)
	write(t, dir, "Standard_A-"+build, f)
	id, err := publish.ParseBuildID(build)
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(dir, "Standard_A-"+build+".qcow2"))
	require.NoError(t, err)
	var index bytes.Buffer
	require.NoError(t, publish.WriteIndex(&index, &publish.Index{Image: "Standard_A", Build: id, DefinitionSHA256: strings.Repeat("a", 64), MinDiskGiB: 4,
		Files: []publish.File{{Name: "Standard_A-" + build + ".qcow2", SizeBytes: int64(len(data)), SHA256: fmt.Sprintf("%x", sha256.Sum256(data))}}}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, publish.IndexName), index.Bytes(), 0o644))
	key, signer := newKey(t)
	_, err = signing.SignDir(t.Context(), dir, signer)
	require.NoError(t, err)
	keyring, err := signing.PinKeys(key)
	require.NoError(t, err)
	r, err := publish.Open(t.Context(), dir, keyring)
	require.NoError(t, err)
	return r
}

func newKey(t testing.TB) (*signing.Key, *signing.Signer) {
	t.Helper()
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "Test", Email: "test@example.com"})
	require.NoError(t, err)
	signer, err := signing.NewSigner(key, signing.SignerConfig{})
	require.NoError(t, err)
	return key, signer
}

func TestCompare(t *testing.T) {
	a := files{".qcow2": "disk", ".packages": "a 1 amd64\n", ".config.tar.gz": "config", ".files.gz": zipped(t, "/etc/a f 0644 0:0 1 x\n")}
	released := release(t, "20261122-031507", a)
	with := func(more ...string) files {
		out := files{}
		for k, v := range a {
			out[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			if out[more[i]] = more[i+1]; more[i+1] == "" {
				delete(out, more[i])
			}
		}
		return out
	}
	unread := zipped(t, "/etc/a f 0644 0:0 1 x\n\"/b c\" f 0600 0:0 99 -\n")
	releasedUnread := release(t, "20261123-031507", files{".qcow2": "disk", ".files.gz": unread})
	dir := t.TempDir()
	write(t, dir, "x", files{".qcow2": "DISK", ".files.gz": unread})
	r, err := rebuild.Compare(t.Context(), releasedUnread, dir, "https://example.com/rebuilder", at)
	require.NoError(t, err)
	require.Equal(t, signing.Differs, r.Same)
	for name, c := range map[string]struct {
		rebuilt    files
		compressed bool
		same       signing.Sameness
		differs    []string
	}{
		"the same file":       {a, false, signing.SameBytes, nil},
		"compressed":          {a, true, signing.SameContent, nil},
		"another disk":        {with(".qcow2", "DISK"), false, signing.SameFiles, []string{".qcow2 at byte 0 of the disk"}},
		"other packages":      {with(".qcow2", "DISK", ".packages", "a 2 amd64\n", ".files.gz", ""), false, signing.Differs, []string{".packages", "package -a 1 amd64", "package +a 2 amd64", ".qcow2 at byte 0 of the disk", ".files.gz, which one of them has not"}},
		"another file":        {with(".qcow2", "DISK", ".files.gz", zipped(t, "/etc/a f 0644 0:0 1 y\n")), false, signing.Differs, []string{".qcow2 at byte 0 of the disk", "file */etc/a"}},
		"other configuration": {with(".config.tar.gz", "other"), true, signing.Differs, []string{".config.tar.gz"}},
		"no configuration":    {with(".config.tar.gz", ""), true, signing.Differs, []string{".config.tar.gz"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var more []string
			if c.compressed {
				more = []string{"-c"}
			}
			write(t, dir, "Standard_A-20261125-000000", c.rebuilt, more...)
			r, err := rebuild.Compare(t.Context(), released, dir, "https://example.com/rebuilder", at)
			require.NoError(t, err)
			require.Equal(t, c.same, r.Same, "%q", r.Differences)
			require.Len(t, r.Differences, len(c.differs), "%q", r.Differences)
			for i, want := range c.differs {
				require.Contains(t, r.Differences[i], want)
			}
			statement, err := r.Statement()
			require.NoError(t, err)
			data, err := json.Marshal(statement)
			require.NoError(t, err)
			var back signing.Statement
			require.NoError(t, json.Unmarshal(data, &back))
			again, err := signing.ReadRebuild(&back)
			require.NoError(t, err)
			if len(again.Differences) == 0 {
				again.Differences = r.Differences
			}
			require.Equal(t, r, again)
			require.NoError(t, again.IsOf("Standard_A", "20261122-031507", released.Digest))
			require.ErrorContains(t, again.IsOf("Standard_B", "20261122-031507", released.Digest), `about another release: "Standard_A"`)
			require.ErrorContains(t, again.IsOf("Standard_A", "20261122-031507", strings.Repeat("0", 64)), "other files")
		})
	}
	for name, f := range map[string]files{"no image": {".packages": "x"}} {
		dir := t.TempDir()
		write(t, dir, "Standard_A-20261125-000000", f)
		_, err := rebuild.Compare(t.Context(), released, dir, "https://example.com/rebuilder", at)
		require.ErrorContains(t, err, "the rebuild has no image", name)
	}
}

// Who names the release's own image has built nothing, also by another name.
func TestItself(t *testing.T) {
	released := release(t, "20261122-031507", files{".qcow2": "disk"})
	dir := t.TempDir()
	require.NoError(t, os.Link(filepath.Join(released.Dir, "Standard_A-20261122-031507.qcow2"), filepath.Join(dir, "a.qcow2")))
	for _, again := range []string{released.Dir, dir} {
		_, err := rebuild.Compare(t.Context(), released, again, "https://example.com/rebuilder", at)
		require.ErrorContains(t, err, "it is the release itself, and no rebuild")
	}
}

// Two that have built a release again say the same of it.
func TestTwoRebuildersAgree(t *testing.T) {
	a := files{".qcow2": "disk", ".packages": "a 1 amd64\n"}
	released := release(t, "20261122-031507", a)
	var said [2]*signing.Rebuild
	for i := range said {
		dir := t.TempDir()
		write(t, dir, fmt.Sprintf("Standard_A-2026112%d-000000", i+4), a, "-c")
		r, err := rebuild.Compare(t.Context(), released, dir, fmt.Sprintf("https://example.com/%d", i), at)
		require.NoError(t, err)
		said[i] = r
	}
	require.Equal(t, said[0].Subjects, said[1].Subjects)
	require.Equal(t, said[0].Same, said[1].Same)
	require.Equal(t, said[0].Rebuilt[1].Digest, said[1].Rebuilt[1].Digest)
}

// archive is one of configuration: names and contents.
func archive(t *testing.T, files ...string) string {
	var tarred bytes.Buffer
	w := tar.NewWriter(&tarred)
	for i := 0; i < len(files); i += 2 {
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}))
		_, err := w.Write([]byte(files[i+1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return zipped(t, tarred.String())
}

// TestCompareBuilds compares builds that are no releases, and says why they differ.
func TestCompareBuilds(t *testing.T) {
	state := func(day int) string {
		digest := strings.Repeat(fmt.Sprint(day%10), 64)
		return fmt.Sprintf(`{"tool":"disk-image-create 3","indexes":[{"mirror":"debian","path":"dists/x/InRelease","sha256":"%s","date":"2026-11-%02dT00:00:00Z"}]}`, digest, day)
	}
	one := files{".qcow2": "disk", ".packages": "a 1 all\nb 1 all\n", ".config.tar.gz": archive(t, "nightly.yaml", "x", "mirrors.json", state(20), "elements/0/a", "1")}
	for name, c := range map[string]struct {
		other files
		same  signing.Sameness
		want  []string
	}{
		"the same":     {one, signing.SameBytes, nil},
		"a later time": {files{".qcow2": "disk", ".packages": one[".packages"], ".config.tar.gz": archive(t, "nightly.yaml", "x", "mirrors.json", state(21), "elements/0/a", "1")}, signing.SameBytes, nil},
		"new packages": {
			files{".qcow2": "DISK", ".packages": "a 2 all\nb 1 all\n", ".config.tar.gz": archive(t, "nightly.yaml", "x", "mirrors.json", state(21), "elements/0/a", "1")}, signing.Differs,
			[]string{".packages", "package -a 1 all", "package +a 2 all", ".qcow2 at byte 0 of the disk", ".files.gz, which one of them has not", "mirror debian, dists/x/InRelease: of 2026-11-20 00:00:00, 2026-11-21 00:00:00"},
		},
		"another element": {
			files{".qcow2": "disk", ".packages": one[".packages"], ".config.tar.gz": archive(t, "nightly.yaml", "x", "elements/0/a", "2")}, signing.SameBytes,
			[]string{".config.tar.gz", `configuration "elements/0/a"`, "mirrors: it is not known what they had"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := t.TempDir(), t.TempDir()
			write(t, a, "Standard_A-20261122-031507", one)
			write(t, b, "Standard_A-20261125-000000", c.other)
			same, differences, err := rebuild.CompareBuilds(t.Context(), a, b)
			require.NoError(t, err)
			require.Equal(t, c.same, same)
			require.Equal(t, c.want, differences)
		})
	}
	_, _, err := rebuild.CompareBuilds(t.Context(), t.TempDir(), t.TempDir())
	require.ErrorContains(t, err, "the first build has no image")
}
