package deflate_test

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"testing"

	kflate "github.com/klauspost/compress/flate"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/internal/deflate"
)

// roundTrip encodes b and decodes it with the standard library and with us.
func roundTrip(t testing.TB, e *deflate.Encoder, b []byte) []byte {
	t.Helper()
	packed := e.Encode([]byte("head"), b)
	require.Equal(t, "head", string(packed[:4]))
	packed = packed[4:]
	got, err := io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, got))
	var d deflate.Decoder
	got = make([]byte, len(b))
	require.NoError(t, d.Decode(got, packed))
	require.True(t, bytes.Equal(b, got))
	return packed
}

func TestEncode(t *testing.T) {
	var e deflate.Encoder
	for name, b := range samples(t) {
		b = b[:min(len(b), deflate.MaxInput)]
		packed := roundTrip(t, &e, b)
		t.Logf("%s: %d of %d, standard library %d", name, len(packed), len(b), len(compress(t, b, 6)))
		require.Equal(t, packed, new(deflate.Encoder).Encode(nil, b), "the state of an encoder shows")
		require.LessOrEqual(t, len(packed), len(b)+20)
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for n := range 300 {
		b := make([]byte, rnd.IntN(1<<rnd.IntN(17)))
		letters := 1 + rnd.IntN(256)
		for k := range b {
			b[k] = byte(rnd.IntN(letters))
			if back := rnd.IntN(9000); n%2 == 0 && back > 0 && back <= k {
				b[k] = b[k-back]
			}
		}
		roundTrip(t, &e, b)
	}
}

// TestWindow decodes with a window of exactly 4 KiB, as QEMU may.
func TestWindow(t *testing.T) {
	var e deflate.Encoder
	for _, b := range samples(t) {
		b = b[:min(len(b), deflate.MaxInput)]
		// The dictionary-less reader of the library has a window of 32 KiB, so
		// the distances are looked at one by one.
		require.LessOrEqual(t, longestDistance(t, e.Encode(nil, b), len(b)), deflate.Window)
	}
}

func FuzzEncode(f *testing.F) {
	for _, b := range samples(f) {
		f.Add(b[:min(len(b), 2000)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e deflate.Encoder
		packed := roundTrip(t, &e, b[:min(len(b), deflate.MaxInput)])
		require.LessOrEqual(t, longestDistance(t, packed, min(len(b), deflate.MaxInput)), deflate.Window)
	})
}

func BenchmarkEncode(b *testing.B) {
	all := samples(b)
	for _, name := range []string{"text", "program", "skewed"} {
		src := all[name]
		src = src[:min(len(src), deflate.MaxInput)]
		b.Run(name+"/ours", func(b *testing.B) {
			var e deflate.Encoder
			var out []byte
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				out = e.Encode(out[:0], src)
			}
			b.ReportMetric(float64(len(out))/float64(len(src)), "ratio")
		})
		b.Run(name+"/klauspost", func(b *testing.B) {
			var out bytes.Buffer
			w, err := kflate.NewWriterWindow(&out, deflate.Window)
			require.NoError(b, err)
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				out.Reset()
				w.Reset(&out)
				_, _ = w.Write(src)
				_ = w.Close()
			}
			b.ReportMetric(float64(out.Len())/float64(len(src)), "ratio")
		})
	}
}
