package qcow2_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// counted is a file that counts what is read of it.
type counted struct {
	file *os.File
	read atomic.Int64
}

func (c *counted) File() *os.File { return c.file }

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.file.ReadAt(p, off)
	c.read.Add(int64(n))
	return n, err
}

func (c *counted) Size() int64 {
	stat, err := c.file.Stat()
	if err != nil {
		return 0
	}
	return stat.Size()
}

func openCounted(t *testing.T, name string) *counted {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return &counted{file: f}
}

// TestHolesAreNotRead works on disks of 128 MiB with 100 kB of data.
func TestHolesAreNotRead(t *testing.T) {
	const size, at = 128 << 20, 30<<20 + 1000
	ctx := context.Background()
	dir := t.TempDir()
	data := bytes.Repeat([]byte("\x07"), 100_000)
	raw := create(t, dir, "raw")
	require.NoError(t, raw.Truncate(size))
	_, err := raw.WriteAt(data, at)
	require.NoError(t, err)
	if start, err := raw.Seek(0, 3); err != nil || start == 0 {
		needs.Missing(t, "the file system has no holes")
	}
	hash := sha256.New()
	_, err = io.Copy(hash, io.NewSectionReader(raw, 0, size))
	require.NoError(t, err)
	for name, options := range map[string]string{
		"raw": "", "empty clusters": "cluster_size=4096", "metadata": "preallocation=metadata",
		"metadata-subclusters": "preallocation=metadata,extended_l2=on", "falloc": "preallocation=falloc",
		"data-file": "data_file=external,data_file_raw=on",
	} {
		t.Run(name, func(t *testing.T) {
			if options != "" {
				qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-o", options, name, "128M")
				qemuIO(t, dir, name, "write -P 7 31458280 100000")
			}
			file := openCounted(t, filepath.Join(dir, name))
			external := file
			o := qcow2.OpenOptions{Resolve: func(ref qcow2.Reference) (qcow2.Source, error) {
				external = openCounted(t, filepath.Join(dir, ref.Name))
				return external, nil
			}}
			if options == "" {
				o.Format = "raw"
			}
			image, err := qcow2.Open(file, file.Size(), o)
			require.NoError(t, err)
			_, err = file.file.Seek(77, io.SeekStart)
			require.NoError(t, err)

			out := create(t, dir, "out")
			require.NoError(t, qcow2.Convert(ctx, out, image, qcow2.Options{}))
			compacted := create(t, dir, "compact")
			_, err = qcow2.Compact(ctx, compacted, image, qcow2.CompactOptions{})
			require.NoError(t, err)
			sum, err := qcow2.Digest(ctx, image, qcow2.Options{})
			require.NoError(t, err)
			assert.Equal(t, hash.Sum(nil), sum[:])
			for _, other := range []*os.File{raw, out} {
				difference, err := qcow2.Compare(ctx, image, qcow2.Raw(other, size), qcow2.Options{})
				require.NoError(t, err)
				assert.Equal(t, int64(-1), difference)
			}
			qemuImg(t, dir, "compare", "-f", "qcow2", "-F", "raw", "compact", "raw")
			offset, err := file.file.Seek(0, io.SeekCurrent)
			require.NoError(t, err)
			assert.Equal(t, int64(77), offset, "the file's offset is put back")
			most := int64(8 << 20)
			if name == "falloc" {
				most = 96 << 20 // what the system has read ahead counts as data in the next walk
			}
			assert.Less(t, file.read.Load()+external.read.Load(), most, "in five walks")
		})
	}
}

// TestShortFile reads files that end before the size that was said.
func TestShortFile(t *testing.T) {
	ctx := context.Background()
	const size = 3 << 20
	short := create(t, t.TempDir(), "short")
	_, err := short.Write(bytes.Repeat([]byte{1}, 1<<20))
	require.NoError(t, err)
	require.NoError(t, short.Truncate(2<<20)) // then a hole, then nothing
	for name, r := range map[string]io.ReaderAt{"file": short, "memory": bytes.NewReader(make([]byte, 2<<20))} {
		t.Run(name, func(t *testing.T) {
			disk := qcow2.Raw(r, size)
			require.ErrorIs(t, qcow2.Convert(ctx, new(memory), disk, qcow2.Options{}), io.ErrUnexpectedEOF)
			_, err := qcow2.Compact(ctx, new(memory), disk, qcow2.CompactOptions{})
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			_, err = qcow2.Digest(ctx, disk, qcow2.Options{})
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			_, err = qcow2.Compare(ctx, disk, qcow2.Raw(r, 2<<20), qcow2.Options{})
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			_, err = disk.ReadAt(make([]byte, 100), size-100)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		})
	}
	t.Run("image", func(t *testing.T) {
		whole := newSmall(t)
		image, err := qcow2.Open(bytes.NewReader(whole[:70000]), int64(len(whole)), qcow2.OpenOptions{})
		if err == nil {
			_, err = qcow2.Digest(ctx, image, qcow2.Options{})
		}
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	})
}

// newSmall returns an image of 1 MiB of data.
func newSmall(t *testing.T) []byte {
	t.Helper()
	var out memory
	disk := bytes.Repeat([]byte("some data "), 100_000)
	_, err := qcow2.Compact(context.Background(), &out, qcow2.Raw(bytes.NewReader(disk), int64(len(disk))), qcow2.CompactOptions{})
	require.NoError(t, err)
	return out.b
}

func TestStream(t *testing.T) {
	b := newSmall(t)
	image, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.OpenOptions{})
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, qcow2.Stream(context.Background(), &out, image, qcow2.Options{}))
	want, err := io.ReadAll(io.NewSectionReader(image, 0, image.Size()))
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, out.Bytes()))
}

// used is a destination that is not new.
type used struct{ b []byte }

func (u *used) WriteAt(p []byte, off int64) (int, error) { return copy(u.b[off:], p), nil }
func (u *used) WriteZeros(off, length int64) error       { clear(u.b[off : off+length]); return nil }

// TestUsedDestination writes over old content.
func TestUsedDestination(t *testing.T) {
	ctx := context.Background()
	disk := make([]byte, 900<<20/512)
	disk = append(bytes.Repeat([]byte("text "), 30_000), disk...)
	disk = append(disk, guest(t, t.TempDir())...)
	raw := qcow2.Raw(bytes.NewReader(disk), int64(len(disk)))
	old := func() *used { return &used{bytes.Repeat([]byte{0xaa}, 8<<20)} }

	u := old()
	require.NoError(t, qcow2.Convert(ctx, u, raw, qcow2.Options{}))
	assert.True(t, bytes.Equal(disk, u.b[:len(disk)]))
	assert.Equal(t, byte(0xaa), u.b[len(disk)])

	var fresh memory
	u = old()
	size, err := qcow2.Compact(ctx, &fresh, raw, qcow2.CompactOptions{})
	require.NoError(t, err)
	_, err = qcow2.Compact(ctx, u, raw, qcow2.CompactOptions{})
	require.NoError(t, err)
	assert.True(t, bytes.Equal(fresh.b[:size], u.b[:size]))
}

func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "image")
	require.NoError(t, os.WriteFile(name, newSmall(t), 0o600))
	image, err := qcow2.OpenFile(name, qcow2.OpenOptions{})
	require.NoError(t, err)
	stat, err := os.Stat(name)
	require.NoError(t, err)
	assert.True(t, image.Uses(stat))
	other, err := os.Stat(dir)
	require.NoError(t, err)
	assert.False(t, image.Uses(other))
	require.NoError(t, image.Close())
	_, err = image.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, os.ErrClosed)

	raw, err := qcow2.OpenFile(name, qcow2.OpenOptions{Format: "raw"})
	require.NoError(t, err)
	assert.Equal(t, stat.Size(), raw.Size())
	require.NoError(t, raw.Close())
	_, err = qcow2.OpenFile(name, qcow2.OpenOptions{Format: "vmdk"})
	require.ErrorIs(t, err, qcow2.ErrUnsupported)
	_, err = qcow2.OpenFile(dir, qcow2.OpenOptions{})
	require.ErrorContains(t, err, "a directory is not a regular file")
	_, err = qcow2.OpenFile(filepath.Join(dir, "missing"), qcow2.OpenOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
}
