package deflate_test

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	kflate "github.com/klauspost/compress/flate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/internal/deflate"
)

// samples returns clusters of different kinds.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 65536)
	for n := range noise {
		noise[n] = byte(rnd.Uint32())
	}
	skewed := make([]byte, 65536)
	for n := range skewed {
		skewed[n] = byte(rnd.ExpFloat64() * 3)
	}
	runs := make([]byte, 0, 65536)
	for len(runs) < 60000 {
		period := noise[:1+rnd.IntN(20)]
		for range 1 + rnd.IntN(300) {
			runs = append(runs, period[len(runs)%len(period)])
		}
	}
	source, err := os.ReadFile("decode.go")
	require.NoError(t, err)
	program, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	return map[string][]byte{
		"zero": make([]byte, 65536), "noise": noise, "skewed": skewed, "runs": runs, "text": source,
		"program": program[1<<20:][:65536], "one": {7}, "small": source[:512], "large": program[:2<<20],
	}
}

func compress(t testing.TB, b []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, level)
	require.NoError(t, err)
	_, err = w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestDecode(t *testing.T) {
	var d deflate.Decoder
	for name, want := range samples(t) {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			packed := compress(t, want, level)
			got := make([]byte, len(want))
			require.NoError(t, d.Decode(got, packed), "%s %d", name, level)
			require.Equal(t, want, got)
			// What is behind the stream does not matter.
			clear(got)
			require.NoError(t, d.Decode(got, append(packed, bytes.Repeat([]byte{0xff}, 300)...)))
			require.Equal(t, want, got)
			// A smaller buffer gets the beginning, a larger one an error.
			require.NoError(t, d.Decode(got[:len(got)/2], packed))
			require.Equal(t, want[:len(got)/2], got[:len(got)/2])
			require.ErrorIs(t, d.Decode(make([]byte, len(want)+1), packed), deflate.ErrShort)
			if len(packed) > 30 { // else the data ends long before the stream
				require.ErrorIs(t, d.Decode(got, packed[:len(packed)/2]), deflate.ErrShort)
			}
		}
	}
}

// same decodes with us and with the standard library, which must agree.
func same(t *testing.T, d *deflate.Decoder, packed []byte, size int) {
	t.Helper()
	got := make([]byte, size)
	err := d.Decode(got, packed)
	want := make([]byte, size)
	r := flate.NewReader(bytes.NewReader(packed))
	_, wantErr := io.ReadFull(r, want)
	if err == deflate.ErrCorrupt && wantErr == nil { //nolint:errorlint // never wrapped
		// We read on until something needs room.
		_, wantErr = r.Read(make([]byte, 1))
		var corrupt flate.CorruptInputError
		require.ErrorAs(t, wantErr, &corrupt)
		return
	}
	if wantErr == nil {
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
		return
	}
	if err == nil {
		// The standard library refuses codes of a single symbol in some
		// places where zlib, and so QEMU, does not.
		return
	}
	assert.True(t, err == deflate.ErrCorrupt || err == deflate.ErrShort, "%v", err) //nolint:errorlint // exactly these
}

func TestDecodeDamaged(t *testing.T) {
	var d deflate.Decoder
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, b := range samples(t) {
		b = b[:min(len(b), 65536)]
		packed := compress(t, b, 6)
		for range 300 {
			bad := bytes.Clone(packed)
			for range 1 + rnd.IntN(3) {
				bad[rnd.IntN(len(bad))] ^= 1 << rnd.IntN(8)
			}
			same(t, &d, bad, len(b))
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range samples(f) {
		f.Add(compress(f, b[:min(len(b), 4096)], 6), 4096)
	}
	f.Fuzz(func(t *testing.T, packed []byte, size int) {
		if size < 0 || size > 1<<17 {
			return
		}
		var d deflate.Decoder
		same(t, &d, packed, size)
	})
}

// BenchmarkDecode compares with the two libraries.
func BenchmarkDecode(b *testing.B) {
	all := samples(b)
	for _, name := range []string{"text", "program", "skewed", "runs"} {
		want := all[name]
		packed := compress(b, want, 6)
		dst := make([]byte, len(want))
		b.Run(name+"/ours", func(b *testing.B) {
			var d deflate.Decoder
			b.SetBytes(int64(len(want)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(dst, packed); err != nil {
					b.Fatal(err)
				}
			}
		})
		for lib, r := range map[string]io.Reader{"std": flate.NewReader(nil), "klauspost": kflate.NewReader(nil)} {
			b.Run(name+"/"+lib, func(b *testing.B) {
				b.SetBytes(int64(len(want)))
				in := bytes.NewReader(nil)
				for b.Loop() {
					in.Reset(packed)
					if err := r.(flate.Resetter).Reset(in, nil); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(r, dst); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
