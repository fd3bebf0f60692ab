package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// inDir resolves references to the files of a directory.
func inDir(dir string) func(qcow2.Reference) (qcow2.Source, error) {
	return func(ref qcow2.Reference) (qcow2.Source, error) {
		b, err := os.ReadFile(filepath.Join(dir, filepath.Base(ref.Name)))
		return bytes.NewReader(b), err
	}
}

func openFile(t testing.TB, path string, o qcow2.OpenOptions) (*qcow2.Image, error) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	stat, err := f.Stat()
	require.NoError(t, err)
	return qcow2.Open(f, stat.Size(), o)
}

// rawOf returns the guest's disk as qemu-img convert gives it.
func rawOf(t testing.TB, path string) []byte {
	t.Helper()
	out := path + ".out"
	qemuImg(t, filepath.Dir(path), "convert", "-f", "qcow2", "-O", "raw", path, out)
	b, err := os.ReadFile(out)
	require.NoError(t, err)
	require.NoError(t, os.Remove(out))
	return b
}

// sameContent reads the whole image in different ways, some at the same time.
func sameContent(t testing.TB, image *qcow2.Image, want []byte) {
	t.Helper()
	require.Equal(t, int64(len(want)), image.Size())
	got, err := io.ReadAll(io.NewSectionReader(image, 0, image.Size()))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "the content differs")
	if len(want) > 4<<20 {
		return
	}
	var group sync.WaitGroup
	for n := range 4 {
		group.Go(func() {
			at := int64(n * 777777)
			assert.NoError(t, iotest.TestReader(io.NewSectionReader(image, at, 90000), want[at:at+90000]))
		})
	}
	group.Wait()
	_, err = image.ReadAt(make([]byte, 10), image.Size()-5)
	assert.ErrorIs(t, err, io.EOF)
	_, err = image.ReadAt(make([]byte, 10), -1)
	assert.Error(t, err)
}

// sameMap compares Map with qemu-img map.
func sameMap(t testing.TB, image *qcow2.Image, path string) {
	t.Helper()
	var want, got []map[string]any
	require.NoError(t, json.Unmarshal(qemuImg(t, filepath.Dir(path), "map", "--output=json", "-f", "qcow2", path), &want))
	for e, err := range image.Map(context.Background()) {
		require.NoError(t, err)
		b, err := json.Marshal(e)
		require.NoError(t, err)
		var fields map[string]any
		require.NoError(t, json.Unmarshal(b, &fields))
		delete(fields, "compressed") // newer than QEMU 7.2
		got = append(got, fields)
	}
	assert.Equal(t, unallocated(want), got)
}

// unallocated drops the places that QEMU names for subclusters without data,
// and joins what it parts for them.
func unallocated(list []map[string]any) []map[string]any {
	var out []map[string]any
	for _, e := range list {
		if e["present"] == false {
			delete(e, "offset")
			if n := len(out) - 1; n >= 0 && out[n]["present"] == false && out[n]["depth"] == e["depth"] {
				out[n]["length"] = out[n]["length"].(float64) + e["length"].(float64)
				continue
			}
		}
		out = append(out, e)
	}
	return out
}

func TestBackingChain(t *testing.T) {
	dir := t.TempDir()
	guest(t, dir)
	qemuImg(t, dir, "convert", "-O", "qcow2", "-c", "raw", "base")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", "base", "-F", "qcow2", "middle", "5M")
	qemuIO(t, dir, "middle", "write -P 3 10k 5k")
	qemuIO(t, dir, "middle", "write -z 500k 100k")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", "-b", "middle", "-F", "qcow2", "top", "6M")
	qemuIO(t, dir, "top", "write -P 4 12k 1k")
	qemuIO(t, dir, "top", "write -P 5 5900k 10k")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-b", "raw", "-F", "raw", "over-raw", "4M")
	for _, name := range []string{"middle", "top", "over-raw"} {
		path := filepath.Join(dir, name)
		image, err := openFile(t, path, qcow2.OpenOptions{Resolve: inDir(dir)})
		require.NoError(t, err)
		sameContent(t, image, rawOf(t, path))
		sameMap(t, image, path)
	}

	t.Run("no resolver", func(t *testing.T) {
		_, err := openFile(t, filepath.Join(dir, "top"), qcow2.OpenOptions{})
		require.ErrorIs(t, err, qcow2.ErrUnsupported)
		assert.ErrorContains(t, err, `"middle"`)
	})
	t.Run("depth", func(t *testing.T) {
		_, err := openFile(t, filepath.Join(dir, "top"), qcow2.OpenOptions{Resolve: inDir(dir), MaxDepth: 1})
		require.ErrorIs(t, err, qcow2.ErrUnsupported)
	})
	t.Run("resolver fails", func(t *testing.T) {
		refused := errors.New("refused")
		_, err := openFile(t, filepath.Join(dir, "top"), qcow2.OpenOptions{
			Resolve: func(qcow2.Reference) (qcow2.Source, error) { return nil, refused }})
		require.ErrorIs(t, err, refused)
	})
}

// openedFile is a file that a resolver opens anew each time.
type openedFile struct{ *os.File }

func (f openedFile) Size() int64 {
	stat, err := f.Stat()
	if err != nil {
		return 0
	}
	return stat.Size()
}

func TestBackingLoop(t *testing.T) {
	dir := t.TempDir()
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "a", "1M")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-b", "a", "-F", "qcow2", "b")
	qemuImg(t, dir, "rebase", "-u", "-b", "b", "-F", "qcow2", "a")
	opened := 0
	_, err := openFile(t, filepath.Join(dir, "a"), qcow2.OpenOptions{Resolve: func(ref qcow2.Reference) (qcow2.Source, error) {
		opened++
		f, err := os.Open(filepath.Join(dir, ref.Name))
		return openedFile{f}, err
	}})
	require.ErrorIs(t, err, qcow2.ErrMalformed)
	assert.ErrorContains(t, err, "loop")
	assert.Equal(t, 2, opened)
}

func TestEncryptedIsRefused(t *testing.T) {
	dir := t.TempDir()
	// QEMU measures the time of key derivation, which some machines do not
	// let it do; the method alone decides here.
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "image", "1M")
	b, err := os.ReadFile(filepath.Join(dir, "image"))
	require.NoError(t, err)
	b = put32(32, 1)(b)
	_, err = qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.OpenOptions{})
	require.ErrorIs(t, err, qcow2.ErrEncrypted)
	var format *qcow2.FormatError
	require.ErrorAs(t, err, &format)
	assert.Equal(t, int64(32), format.Offset)
}

// TestDamagedTables reads images whose tables lie.
func TestDamagedTables(t *testing.T) {
	const l1, l2 = 3 << 16, 4 << 16
	with := func(entry uint64) func([]byte) []byte {
		return func(b []byte) []byte {
			b = append(b, make([]byte, 2<<16)...)
			return put64(l2, entry)(put64(l1, 1<<63|l2)(b))
		}
	}
	for name, change := range map[string]func([]byte) []byte{
		"L2 outside":         put64(l1, 1<<40),
		"L2 unaligned":       put64(l1, l2+512),
		"cluster unaligned":  with(5<<16 + 512),
		"cluster outside":    with(1 << 40),
		"compressed outside": with(1<<62 | 1<<40),
		"compressed noise":   with(1<<62 | 20),
	} {
		t.Run(name, func(t *testing.T) {
			r := image(change)
			image, err := qcow2.Open(r, r.Size(), qcow2.OpenOptions{})
			require.NoError(t, err)
			_, err = image.ReadAt(make([]byte, 100), 0)
			require.ErrorIs(t, err, qcow2.ErrMalformed)
		})
	}
	r := image(put64(40, 1<<40))
	_, err := qcow2.Open(r, r.Size(), qcow2.OpenOptions{})
	require.ErrorIs(t, err, qcow2.ErrMalformed)
}

// TestPlaces has entries whose clusters are not aligned, or not where a data
// file must have them. QEMU and we read the same ones.
func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	const cluster, copied = 65536, 1 << 63
	edits := map[string]func(entry uint64) uint64{
		"as it is":       func(e uint64) uint64 { return e },
		"zero":           func(e uint64) uint64 { return e | 1 },
		"next":           func(e uint64) uint64 { return e + cluster },
		"zero, next":     func(e uint64) uint64 { return e + cluster | 1 },
		"first":          func(uint64) uint64 { return copied },
		"unaligned":      func(e uint64) uint64 { return e + 512 },
		"zero unaligned": func(e uint64) uint64 { return e + 512 | 1 },
		"no place":       func(uint64) uint64 { return 0 },
	}
	for name, options := range map[string]string{
		"inside": "extended_l2=off", "external": "data_file=a,extended_l2=off", "raw": "data_file=b,data_file_raw=on",
		"extended": "extended_l2=on", "external extended": "data_file=c,extended_l2=on",
	} {
		qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-o", options, "image", "1M")
		qemuIO(t, dir, "image", "write -P 5 0 1M")
		path := filepath.Join(dir, "image")
		good, err := os.ReadFile(path)
		require.NoError(t, err)
		l1 := binary.BigEndian.Uint64(good[40:])
		entry := binary.BigEndian.Uint64(good[l1:])&^copied + 3*8
		if strings.Contains(options, "extended_l2=on") {
			entry += 3 * 8
		}
		for what, edit := range edits {
			b := bytes.Clone(good)
			binary.BigEndian.PutUint64(b[entry:], edit(binary.BigEndian.Uint64(b[entry:])))
			require.NoError(t, os.WriteFile(path, b, 0o600))
			convert := exec.Command(needs.Tools(t, "qemu-img")[0], "convert", "-f", "qcow2", "-O", "raw", "image", "image.raw")
			convert.Dir = dir
			refused := convert.Run() != nil
			image, err := qcow2.OpenFile(path, qcow2.OpenOptions{Dir: dir})
			require.NoError(t, err)
			content := make([]byte, image.Size())
			_, read := image.ReadAt(content, 0)
			_, walked := qcow2.Digest(context.Background(), image, qcow2.Options{})
			require.NoError(t, image.Close())
			if refused {
				require.ErrorIs(t, read, qcow2.ErrMalformed, "%s: %s", name, what)
				require.ErrorIs(t, walked, qcow2.ErrMalformed, "%s: %s", name, what)
				continue
			}
			require.NoError(t, errors.Join(read, walked), "%s: %s", name, what)
			want, err := os.ReadFile(path + ".raw")
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, content), "%s: %s", name, what)
		}
	}
}

func TestDamagedCompression(t *testing.T) {
	dir := t.TempDir()
	guest(t, dir)
	for _, kind := range []string{"zlib", "zstd"} {
		qemuImg(t, dir, "convert", "-c", "-O", "qcow2", "-o", "compression_type="+kind, "raw", kind)
		b, err := os.ReadFile(filepath.Join(dir, kind))
		require.NoError(t, err)
		failed := 0
		for at := len(b) - 30<<10; at < len(b); at += 97 { // what compresses well is at the end
			bad := bytes.Clone(b)
			bad[at] ^= 0x55
			image, err := qcow2.Open(bytes.NewReader(bad), int64(len(bad)), qcow2.OpenOptions{})
			if err != nil {
				continue
			}
			if _, err = io.Copy(io.Discard, io.NewSectionReader(image, 0, image.Size())); err != nil {
				require.ErrorIs(t, err, qcow2.ErrMalformed, fmt.Sprint(kind, at))
				failed++
			}
		}
		assert.Greater(t, failed, 5)
	}
}
