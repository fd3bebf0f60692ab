package qcow2reader_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lima-vm/go-qcow2reader/convert"
	theirs "github.com/lima-vm/go-qcow2reader/image/qcow2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/qcow2reader"
)

var (
	mutations = flag.Int("mutations", 100, "`number` of damaged images that both readers read")
	seed      = flag.Uint64("seed", 0, "of what is random in these tests (default from the clock)")
)

func TestMain(m *testing.M) {
	theirs.SetDecompressor(theirs.CompressionTypeZstd, qcow2reader.Zstd)
	os.Exit(m.Run())
}

// images makes images of one disk with QEMU.
func images(t *testing.T) (dir string, disk []byte, names []string) {
	t.Helper()
	img := needs.Tools(t, "qemu-img")[0]
	dir = t.TempDir()
	disk = make([]byte, 3<<20)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(disk[:300<<10])
	for n := 400 << 10; n < 1<<20; n++ {
		disk[n] = "the quick brown fox jumps over the lazy dog. "[n%45] ^ byte(n>>13)
	}
	_, _ = rnd.Read(disk[len(disk)-700:])
	require.NoError(t, os.WriteFile(filepath.Join(dir, "raw"), disk, 0o600))
	for name, args := range map[string][]string{
		"v2": {"-o", "compat=0.10"}, "plain": nil, "small": {"-o", "cluster_size=512"}, "large": {"-o", "cluster_size=2M"},
		"zlib": {"-c"}, "zlib-small": {"-c", "-o", "cluster_size=4k"}, "zlib-large": {"-c", "-o", "cluster_size=2M"},
		"zstd": {"-c", "-o", "compression_type=zstd"}, "extended": {"-o", "extended_l2=on"}, "narrow": {"-o", "refcount_bits=1"},
	} {
		args = append(append([]string{"convert", "-O", "qcow2"}, args...), "raw", name)
		cmd := exec.Command(img, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoErrorf(t, err, "%s", out)
		names = append(names, name)
	}
	return dir, disk, names
}

// TestBothReaders reads good images with both, each in the other's clothes.
func TestBothReaders(t *testing.T) {
	dir, disk, names := images(t)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			r := bytes.NewReader(b)
			require.NoError(t, qcow2reader.CrossCheck(context.Background(), r, r.Size()))

			source, err := qcow2reader.Open(r, r.Size())
			require.NoError(t, err)
			at, err := qcow2.Compare(context.Background(), qcow2.Raw(source, source.Size()), qcow2.Raw(bytes.NewReader(disk), int64(len(disk))), qcow2.Options{})
			require.NoError(t, err)
			assert.Equal(t, int64(-1), at)
			require.NoError(t, source.Close())

			image, err := qcow2.Open(r, r.Size(), qcow2.OpenOptions{})
			require.NoError(t, err)
			out, err := os.Create(filepath.Join(dir, "out"))
			require.NoError(t, err)
			defer out.Close()
			require.NoError(t, convert.Convert(out, qcow2reader.Image(image), convert.Options{}))
			got := make([]byte, len(disk))
			_, err = out.ReadAt(got, 0)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(disk, got))
		})
	}
	raw := qcow2reader.Image(qcow2.Raw(bytes.NewReader(disk), int64(len(disk))))
	assert.EqualValues(t, "raw", raw.Type())
	_, err := raw.Extent(raw.Size()-1, 2)
	assert.Error(t, err)
}

// changing is a file whose content is another after some time.
type changing struct {
	before, after *bytes.Reader
	reads, when   atomic.Int64
}

func (c *changing) ReadAt(p []byte, off int64) (int, error) {
	if c.reads.Add(1) > c.when.Load() {
		return c.after.ReadAt(p, off)
	}
	return c.before.ReadAt(p, off)
}

// TestDifference lets the file change while the two read, at each moment that
// there is: then they differ, or one of them fails, or both saw the same.
func TestDifference(t *testing.T) {
	dir, _, _ := images(t)
	for _, name := range []string{"plain", "zlib"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		other := bytes.Clone(b)
		for n := len(b) / 2; n < len(b); n += 64 {
			other[n] ^= 1
		}
		found := 0
		for when := range int64(60) {
			c := &changing{before: bytes.NewReader(b), after: bytes.NewReader(other)}
			c.when.Store(when)
			if err := qcow2reader.CrossCheck(context.Background(), c, int64(len(b))); errors.Is(err, qcow2reader.ErrDiffers) {
				found++
			}
		}
		assert.True(t, found > 0 || name == "zlib", name) // damaged streams are seldom read
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b, err := os.ReadFile(filepath.Join(dir, "plain"))
	require.NoError(t, err)
	require.ErrorIs(t, qcow2reader.CrossCheck(ctx, bytes.NewReader(b), int64(len(b))), context.Canceled)
}

// TestRefused gives what go-qcow2reader must not see.
func TestRefused(t *testing.T) {
	dir, _, _ := images(t)
	img := needs.Tools(t, "qemu-img")[0]
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, make([]byte, 1<<20), 0o600))
	overlay := filepath.Join(dir, "overlay")
	out, err := exec.Command(img, "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", overlay).CombinedOutput()
	require.NoErrorf(t, err, "%s", out)
	f, err := os.Open(overlay)
	require.NoError(t, err)
	defer f.Close()
	stat, err := f.Stat()
	require.NoError(t, err)
	require.ErrorIs(t, qcow2reader.CrossCheck(context.Background(), f, stat.Size()), qcow2.ErrUnsupported)
	b, err := os.ReadFile(filepath.Join(dir, "plain"))
	require.NoError(t, err)
	b[23] = 63 // cluster_bits, with which it panics
	_, err = qcow2reader.Open(bytes.NewReader(b), int64(len(b)))
	require.ErrorIs(t, err, qcow2.ErrMalformed)

	n, err := new(qcow2reader.Source).ReadAt(make([]byte, 1), 0)
	assert.Zero(t, n)
	assert.ErrorIs(t, err, io.EOF)
	assert.NoError(t, new(qcow2reader.Source).Close())
}

// TestDamaged reads damaged images with both. What both read is the same.
func TestDamaged(t *testing.T) {
	from := *seed
	if from == 0 {
		from = uint64(time.Now().UnixNano())
	}
	t.Logf("again with -seed %d", from)
	dir, _, names := images(t)
	counts := map[string]int{}
	for n := range *mutations {
		rnd := rand.New(rand.NewPCG(from, uint64(n)))
		name := names[rnd.IntN(len(names))]
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		for range 1 + rnd.IntN(3) {
			at := rnd.IntN(len(b))
			switch rnd.IntN(3) {
			case 0:
				at = rnd.IntN(120)
			case 1: // the tables lie in the first clusters
				at = rnd.IntN(min(len(b), 6<<b[23]))
			}
			b[at] ^= 1 << rnd.IntN(8)
		}
		if rnd.IntN(10) == 0 {
			b = b[:rnd.IntN(len(b))]
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err = qcow2reader.CrossCheck(ctx, bytes.NewReader(b), int64(len(b)))
		cancel()
		switch {
		case err == nil:
			counts["same"]++
		case errors.Is(err, qcow2reader.ErrDiffers):
			t.Errorf("%s %d of -seed %d: %v", name, n, from, err)
		default:
			counts["refused"]++
		}
	}
	t.Log(counts)
}
