package qcow2_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// memory is a file in memory, as far as it was written.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

// create makes a file in dir and closes it with the test.
func create(t testing.TB, dir, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// sameConversion compares Convert, Digest and Compare with the raw image.
func sameConversion(t testing.TB, image *qcow2.Image, want []byte) {
	t.Helper()
	ctx := context.Background()
	out := create(t, t.TempDir(), "out")
	require.NoError(t, qcow2.Convert(ctx, out, image, qcow2.Options{Workers: 3}))
	got, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "the raw image differs")

	sum, err := qcow2.Digest(ctx, image, qcow2.Options{})
	require.NoError(t, err)
	require.Equal(t, sha256.Sum256(want), sum)

	at, err := qcow2.Compare(ctx, image, qcow2.Raw(bytes.NewReader(want), int64(len(want))), qcow2.Options{})
	require.NoError(t, err)
	require.Equal(t, int64(-1), at)
}

func TestCompactAgainstQEMU(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	guest(t, dir)
	var first [2][]byte
	for _, name := range []string{"v3-16", "zlib-9", "zstd-21", "extended-14", "snapshots", "preallocated-full"} {
		for _, v := range variants() {
			if v.name != name {
				continue
			}
			t.Run(name, func(t *testing.T) {
				path := v.build(t, dir)
				image, err := openFile(t, path, qcow2.OpenOptions{})
				require.NoError(t, err)
				for kind := range qcow2.Zstd + 1 {
					out := create(t, dir, "compact")
					size, err := qcow2.Compact(ctx, out, image, qcow2.CompactOptions{Compression: kind, Options: qcow2.Options{Workers: 1 + len(name)%4}})
					require.NoError(t, err)
					b, err := os.ReadFile(out.Name())
					require.NoError(t, err)
					require.Equal(t, int64(len(b)), size)
					qemuImg(t, dir, "compare", path, "compact")
					sound(t, out.Name(), kind)
					if name == "snapshots" {
						continue // another guest disk
					}
					if first[kind] == nil {
						first[kind] = b
					}
					require.True(t, bytes.Equal(first[kind], b), "the same disk gave other bytes")
				}
			})
		}
	}
}

// sound checks a compacted image in every way.
func sound(t testing.TB, path string, kind qcow2.Compression) {
	t.Helper()
	peer := qemuCheck(t, path)
	require.Zero(t, peer.exit, peer.text)
	ours, err := checkFile(t, path)
	require.NoError(t, err)
	sameCheck(t, peer, ours)
	assert.Empty(t, ours.Notes)
	info, err := inspectFile(t, path)
	require.NoError(t, err)
	assert.Equal(t, kind, info.Header.Compression)
	assert.Empty(t, info.Safety(qcow2.Policy{}).Findings)
}

// TestCompactLarge makes an image with several L2 tables and refcount blocks.
func TestCompactLarge(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "sparse", "1T")
	for _, at := range []string{"0", "3G", "511M", "700G", "1048575M"} {
		qemuIO(t, dir, "sparse", "write -P 65 "+at+" 1M")
	}
	image, err := openFile(t, filepath.Join(dir, "sparse"), qcow2.OpenOptions{})
	require.NoError(t, err)
	out := create(t, dir, "compact")
	_, err = qcow2.Compact(ctx, out, image, qcow2.CompactOptions{})
	require.NoError(t, err)
	sound(t, out.Name(), qcow2.Zlib)
	qemuImg(t, dir, "compare", "sparse", "compact")
}

func TestCompactEmpty(t *testing.T) {
	for _, size := range []int64{0, 512, 65536, 65537} {
		dir := t.TempDir()
		out := create(t, dir, "compact")
		_, err := qcow2.Compact(context.Background(), out, qcow2.Raw(bytes.NewReader(make([]byte, size)), size), qcow2.CompactOptions{})
		require.NoError(t, err)
		sound(t, out.Name(), qcow2.Zlib)
	}
}

func TestCompare(t *testing.T) {
	ctx := context.Background()
	a := make([]byte, 3<<20+700)
	for n := 0; n < len(a); n += 1000 {
		a[n] = byte(n)
	}
	raw := func(b []byte) *qcow2.Image { return qcow2.Raw(bytes.NewReader(b), int64(len(b))) }
	for _, at := range []int{-1, 0, 1, 65535, 65536, 1<<20 - 1, 1<<20 + 5, len(a) - 1} {
		b := bytes.Clone(a)
		if at >= 0 {
			b[at] ^= 1
			b[len(b)-1] ^= 1
		}
		want := int64(at)
		for _, pad := range []int{0, 1, 65536, 1 << 20} {
			padded := append(b[:len(b):len(b)], make([]byte, pad)...)
			for _, pair := range [][2][]byte{{a, padded}, {padded, a}} {
				got, err := qcow2.Compare(ctx, raw(pair[0]), raw(pair[1]), qcow2.Options{})
				require.NoError(t, err)
				if at == len(a)-1 {
					want = -1 // flipped twice
				}
				require.Equal(t, want, got, "%d %d", at, pad)
			}
			if pad > 0 && at < 0 {
				padded[len(padded)-1] = 1
				got, err := qcow2.Compare(ctx, raw(a), raw(padded), qcow2.Options{})
				require.NoError(t, err)
				require.Equal(t, int64(len(padded)-1), got)
			}
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	disk := qcow2.Raw(bytes.NewReader(make([]byte, 64<<20)), 64<<20)
	stop := qcow2.Options{Progress: func(_, total int64) {
		assert.Equal(t, int64(64<<20), total)
		cancel()
	}}
	_, err := qcow2.Digest(ctx, disk, stop)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, qcow2.Convert(ctx, new(memory), disk, stop), context.Canceled)
	_, err = qcow2.Compact(ctx, new(memory), disk, qcow2.CompactOptions{})
	require.ErrorIs(t, err, context.Canceled)
	r := image(nil)
	_, err = qcow2.Check(ctx, r, r.Size())
	require.ErrorIs(t, err, context.Canceled)
}
