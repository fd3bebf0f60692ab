package qcow2_test

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// smallImage is a valid image with clusters of 512 bytes: header, refcount
// table, refcount block, L1 table, L2 table, one plain cluster, and one
// compressed. The fuzzer works on few bytes better than on many.
func smallImage(version uint32, incompatible uint64, packed []byte) []byte {
	b := make([]byte, 7*512)
	compression := uint64(0)
	if incompatible&8 != 0 {
		compression = 1
	}
	for offset, v := range map[int]uint64{
		0: 0x514649fb<<32 | uint64(version), 16: 9, 24: 32 << 10, 32: 1, 40: 3 * 512, 48: 512, 56: 1 << 32,
		72: incompatible, 96: 4<<32 | 112, 104: compression << 56,
		512: 1024, 1024: 0x0001_0001_0001_0001, 1032: 0x0001_0001_0001_0000,
		3 * 512: 1<<63 | 4*512, 4 * 512: 1<<63 | 5*512, 4*512 + 8: 1<<62 | 6*512, 4*512 + 16: 1,
	} {
		binary.BigEndian.PutUint64(b[offset:], v)
	}
	for n := 5 * 512; n < 6*512; n++ {
		b[n] = byte(n)
	}
	copy(b[6*512:], packed)
	return b
}

// seeds adds small images of each kind.
func seeds(f *testing.F) {
	cluster := bytes.Repeat([]byte("qcow2 "), 100)[:512]
	var deflated bytes.Buffer
	w, err := flate.NewWriter(&deflated, 9)
	require.NoError(f, err)
	_, err = w.Write(cluster)
	require.NoError(f, err)
	require.NoError(f, w.Close())
	z, err := zstd.NewWriter(nil)
	require.NoError(f, err)
	for _, b := range [][]byte{
		smallImage(3, 0, deflated.Bytes()), smallImage(3, 8, z.EncodeAll(cluster, nil)), smallImage(2, 0, deflated.Bytes()),
	} {
		result, err := qcow2.Check(context.Background(), bytes.NewReader(b), int64(len(b)))
		require.NoError(f, err)
		require.True(f, result.Clean() || b[7] == 2, "%v", result)
		image, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.OpenOptions{})
		require.NoError(f, err)
		got := make([]byte, 512)
		_, err = image.ReadAt(got, 512)
		require.NoError(f, err)
		require.Equal(f, cluster, got)
		f.Add(b)
		for _, change := range []func([]byte) []byte{
			put32(60, 1), put64(88, 1), put64(8, 120), put32(96, 0), put64(72, 4), put32(112, 0x23852875), put32(112, 0xe2792aca),
		} {
			f.Add(change(bytes.Clone(b)))
		}
	}
}

// typed says that an error is one of ours.
func typed(t *testing.T, err error) {
	t.Helper()
	var format *qcow2.FormatError
	require.Truef(t, errors.As(err, &format), "%v", err)
}

// allocated returns how many bytes f allocates, freed ones included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzInspect(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var info *qcow2.Info
		var err error
		used := allocated(func() { info, err = qcow2.Inspect(bytes.NewReader(b), int64(len(b))) })
		require.LessOrEqual(t, used, uint64(1<<20))
		if err != nil {
			typed(t, err)
		} else {
			require.NotNil(t, info)
		}
		if info != nil {
			safety := info.Safety(qcow2.Policy{})
			require.True(t, err == nil || !safety.Safe)
			_, err := json.Marshal(info)
			require.NoError(t, err)
			_ = info.String()
		}
		s := qcow2.NewInspector()
		_, _ = s.Write(b[:len(b)/3])
		_, _ = s.Write(b[len(b)/3:])
		streamed, streamedErr := s.Info()
		require.Equal(t, err, streamedErr)
		require.Equal(t, info, streamed)
	})
}

func FuzzCheck(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var result *qcow2.CheckResult
		var err error
		used := allocated(func() { result, err = qcow2.Check(context.Background(), bytes.NewReader(b), int64(len(b))) })
		// Clusters may be as small as 512 bytes or as large as 2 MiB, of which
		// a table and a refcount block are in memory.
		require.LessOrEqual(t, used, uint64(len(b)/512*8+6<<20))
		if err != nil {
			typed(t, err)
			return
		}
		_ = result.String()
	})
}

func FuzzRead(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		image, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.OpenOptions{
			Resolve: func(qcow2.Reference) (qcow2.Source, error) { return bytes.NewReader(b), nil }})
		if err != nil {
			typed(t, err)
			return
		}
		p := make([]byte, 3000)
		for _, at := range []int64{0, 1000, 65000, 1 << 20, image.Size()/2 - 1000, image.Size() - 2000} {
			if at < 0 {
				continue
			}
			if _, err := image.ReadAt(p, at); err != nil && !errors.Is(err, io.EOF) {
				typed(t, err)
			}
		}
		extents, next := 0, int64(0)
		for e, err := range image.Map(context.Background()) {
			if err != nil {
				typed(t, err)
				break
			}
			require.Equal(t, next, e.Start)
			require.Positive(t, e.Length)
			next += e.Length
			if extents++; extents > 1000 {
				break
			}
		}
		require.NoError(t, image.Close())
	})
}
