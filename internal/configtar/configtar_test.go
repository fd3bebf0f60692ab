package configtar_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/configtar"
)

func pack(t testing.TB, mode int64, files ...string) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: mode, Size: int64(len(files[i+1]))}))
		_, err := w.Write([]byte(files[i+1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return out.Bytes()
}

func TestDigest(t *testing.T) {
	digest := func(data []byte) string {
		d, err := configtar.Digest(bytes.NewReader(data))
		require.NoError(t, err)
		return d
	}
	one := digest(pack(t, 0o644, "a", "1", configtar.Mirrors, "today"))
	require.Equal(t, one, digest(pack(t, 0o644, "a", "1", configtar.Mirrors, "tomorrow")))
	require.Equal(t, one, digest(pack(t, 0o644, "a", "1")))
	require.NotEqual(t, one, digest(pack(t, 0o644, "a", "2")))
	require.NotEqual(t, one, digest(pack(t, 0o755, "a", "1")))
	require.NotEqual(t, one, digest(pack(t, 0o644, "b", "1")))
	require.NotEqual(t, one, digest(pack(t, 0o644, "a", "1", "b", "")))

	data, err := configtar.File(bytes.NewReader(pack(t, 0o644, "a", "1", "b", "2")), "b")
	require.NoError(t, err)
	require.Equal(t, "2", string(data))
	data, err = configtar.File(bytes.NewReader(pack(t, 0o644, "a", "1")), "b")
	require.NoError(t, err)
	require.Nil(t, data)
}

// sparse is an archive of a file with a hole (GNU tar's type S): it has size bytes, of
// which only the first 512 are in the archive.
func sparse(t testing.TB, size int64) []byte {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "hole", Mode: 0o644, Size: 512, Format: tar.FormatGNU}))
	_, err := w.Write(make([]byte, 512))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	header := plain.Bytes()[:512]
	header[156] = tar.TypeGNUSparse
	copy(header[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, 512))
	copy(header[483:], fmt.Sprintf("%011o\x00", size))
	copy(header[148:], "        ")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err = z.Write(plain.Bytes())
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return out.Bytes()
}

// What a header claims counts, not only what the archive holds: a hole takes no place in
// it.
func TestHoles(t *testing.T) {
	_, err := configtar.Digest(bytes.NewReader(sparse(t, 1<<20)))
	require.NoError(t, err)
	for name, read := range map[string]func(io.Reader) error{
		"digest":  func(r io.Reader) error { _, err := configtar.Digest(r); return err },
		"extract": func(r io.Reader) error { return configtar.Extract(r, t.TempDir()) },
	} {
		require.ErrorContains(t, read(bytes.NewReader(sparse(t, 257<<20))), "more than 268435456 bytes", name)
	}
}

func FuzzDigest(f *testing.F) {
	f.Add(pack(f, 0o644, "a", "1", configtar.Mirrors, "x"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = configtar.Digest(bytes.NewReader(data))
		_, _ = configtar.File(bytes.NewReader(data), "a")
	})
}

func TestExtract(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, configtar.Extract(bytes.NewReader(pack(t, 0o755, "a/b", "1", "c", "2")), dir))
	data, err := os.ReadFile(filepath.Join(dir, "a", "b"))
	require.NoError(t, err)
	require.Equal(t, "1", string(data))
	for _, name := range []string{"../x", "/x", "a/../../x"} {
		require.Error(t, configtar.Extract(bytes.NewReader(pack(t, 0o644, name, "1")), t.TempDir()), name)
	}
	require.Error(t, configtar.Extract(bytes.NewReader(pack(t, 0o644, "a", "1", "a", "2")), t.TempDir()), "twice")

	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "d", Linkname: t.TempDir()}))
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "d/x", Mode: 0o644}))
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	require.Error(t, configtar.Extract(&out, t.TempDir()), "through a link that leads out")
}
