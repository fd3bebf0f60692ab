package qcow2_test

import (
	"bytes"
	stdflate "compress/flate"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// TestStreams puts streams of all kinds, many of them damaged, into compressed
// clusters. QEMU and we read the same ones, and the same bytes from them.
func TestStreams(t *testing.T) {
	const perImage = 500
	seed := clockSeed(t)
	for _, kind := range []qcow2.Compression{qcow2.Zlib, qcow2.Zstd} {
		t.Run(kind.String(), func(t *testing.T) {
			good, refused := 0, 0
			for n := 0; good+refused < *mutations && !t.Failed(); n++ {
				rnd := rand.New(rand.NewPCG(seed, uint64(n)))
				g := generator{rnd: rnd, cluster: pick(rnd, 512, 4096, 4096, 65536, 65536, 1<<20)}
				streams := make([]stream, min(perImage, *mutations, 32<<20/g.cluster, g.cluster/8))
				for k := range streams {
					if kind == qcow2.Zlib {
						streams[k] = g.deflate(t)
					} else {
						streams[k] = g.zstd(t)
					}
				}
				a, b := sameStreams(t, kind, g, streams, fmt.Sprintf("-seed %d, image %d", seed, n))
				good, refused = good+a, refused+b
			}
			t.Logf("%d read, %d refused", good, refused)
			assert.NotZero(t, good)
			assert.NotZero(t, refused)
		})
	}
}

type stream struct {
	packed  []byte
	content []byte // what was compressed
	what    string
}

// readStreams reads each cluster with QEMU, and returns which ones it refuses
// and the bytes of all others.
func readStreams(t *testing.T, b []byte, g generator, count int) (failed []bool, content []byte) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	args := []string{"-r", "-f", "qcow2"}
	for n := range count {
		args = append(args, "-c", fmt.Sprintf("read %d %d", n*g.cluster, g.cluster))
	}
	text, _ := exec.Command(needs.Tools(t, "qemu-io")[0], append(args, path)...).Output() // fails where a read does
	good := bytes.Clone(b)
	for line := range bytes.Lines(text) {
		switch {
		case bytes.HasPrefix(line, []byte("read failed")):
			clear(good[4*g.cluster+8*len(failed):][:8]) // reads as zero
			failed = append(failed, true)
		case bytes.HasPrefix(line, []byte("read ")):
			failed = append(failed, false)
		}
	}
	require.Len(t, failed, count)
	require.NoError(t, os.WriteFile(path, good, 0o600))
	content = rawOf(t, path)
	require.NoError(t, os.Remove(path))
	return failed, content
}

// sameStreams reads an image of the streams with QEMU and with us.
func sameStreams(t *testing.T, kind qcow2.Compression, g generator, streams []stream, name string) (good, refused int) {
	t.Helper()
	b := g.image(kind, streams)
	failed, want := readStreams(t, b, g, len(streams))
	image, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.OpenOptions{})
	require.NoError(t, err)
	got := make([]byte, g.cluster)
	for n, s := range streams {
		_, err := image.ReadAt(got, int64(n*g.cluster))
		switch {
		case !failed[n] && err != nil && kind == qcow2.Zstd && misread(s, want[n*g.cluster:][:g.cluster], err):
			refused++
		case failed[n] && err == nil:
			t.Errorf("%s, %v cluster %d of %d bytes: %s: read, which QEMU refuses", name, kind, n, g.cluster, s.what)
		case failed[n]:
			assert.ErrorIs(t, err, qcow2.ErrMalformed)
			refused++
		case err != nil:
			t.Errorf("%s, %v cluster %d of %d bytes: %s: %v, which QEMU reads", name, kind, n, g.cluster, s.what, err)
		case !bytes.Equal(got, want[n*g.cluster:][:g.cluster]):
			t.Errorf("%s, %v cluster %d of %d bytes: %s: other bytes than QEMU's", name, kind, n, g.cluster, s.what)
		default:
			good++
		}
	}
	return good, refused
}

// strictly are the reasons why our zstd library refuses frames that libzstd
// reads, in some versions: reserved bits, and a window that blocks or
// matches do not keep to.
var strictly = regexp.MustCompile("reserved bits|too big|block size|history|window")

// misread says whether it is right to refuse a zstd stream that QEMU reads: it
// is damaged, and QEMU took other bytes from it than were put in, or it is one
// that only libzstd reads.
func misread(s stream, theirs []byte, err error) bool {
	return !bytes.HasPrefix(s.content, theirs) || strictly.MatchString(err.Error())
}

// generator makes streams for clusters of one size.
type generator struct {
	rnd     *rand.Rand
	cluster int
}

// image returns an image whose clusters are the streams.
func (g *generator) image(kind qcow2.Compression, streams []stream) []byte {
	c := g.cluster
	bits := 9
	for 1<<bits < c {
		bits++
	}
	b := make([]byte, 5*c)
	incompatible := uint64(0)
	if kind == qcow2.Zstd {
		incompatible = 8
	}
	for offset, v := range map[int]uint64{
		0: 0x514649fb_00000003, 16: uint64(bits), 24: uint64(c * len(streams)), 32: 1, 40: uint64(3 * c), 48: uint64(c), 56: 1 << 32,
		72: incompatible, 96: 4<<32 | 112, 104: uint64(kind) << 56, c: uint64(2 * c), 3 * c: 1<<63 | uint64(4*c),
	} {
		binary.BigEndian.PutUint64(b[offset:], v)
	}
	for n, s := range streams {
		// The data may begin anywhere, and goes on to the end of a sector.
		if g.rnd.IntN(2) == 0 {
			b = append(b, make([]byte, -len(b)&511)...)
		}
		at := len(b)
		b = append(b, s.packed[:min(len(s.packed), c+c/4)]...)
		sectors := (len(b)-1)/512 - at/512
		entry := uint64(1)<<62 | uint64(sectors)<<(62-(bits-8)) | uint64(at)
		binary.BigEndian.PutUint64(b[4*c+8*n:], entry)
		switch g.rnd.IntN(4) {
		case 0, 1:
			b = append(b, make([]byte, -len(b)&511)...)
		case 2:
			for len(b)&511 != 0 {
				b = append(b, byte(g.rnd.Uint32()))
			}
		} // else the next stream follows
	}
	return b
}

// content returns what a stream is made from: a whole cluster, mostly.
func (g *generator) content() []byte {
	length := g.cluster
	switch g.rnd.IntN(8) {
	case 0:
		length += pick(g.rnd, 1, 2, 100, 258, 512, g.cluster)
	case 1:
		length -= pick(g.rnd, 1, 2, 100, 258, 511)
	}
	b := make([]byte, length)
	letters := pick(g.rnd, 1, 2, 5, 30, 256)
	far := pick(g.rnd, 1, 3, 100, 4000, 5000, 32768, 65536)
	for n := range b {
		if n > 0 && n%700 > 100 {
			b[n] = b[max(0, n-far)]
			continue
		}
		b[n] = byte(g.rnd.IntN(letters))
	}
	return b
}

// damage changes a stream, mostly.
func (g *generator) damage(s stream) stream {
	b := bytes.Clone(s.packed)
	for g.rnd.IntN(3) == 0 && len(b) > 0 {
		switch g.rnd.IntN(6) {
		case 0:
			b = b[:g.rnd.IntN(len(b))]
			s.what += " cut"
		case 1:
			b[g.rnd.IntN(len(b))] ^= 1 << g.rnd.IntN(8)
			s.what += " flipped"
		case 2:
			b[g.rnd.IntN(min(20, len(b)))] ^= 1 << g.rnd.IntN(8)
			s.what += " flipped at the beginning"
		case 3:
			b[len(b)-1-g.rnd.IntN(min(20, len(b)))] ^= 1 << g.rnd.IntN(8)
			s.what += " flipped at the end"
		case 4:
			b = b[:len(b)-1-g.rnd.IntN(min(8, len(b)))]
			s.what += " cut at the end"
		case 5:
			for range 1 + g.rnd.IntN(40) {
				b = append(b, pick(g.rnd, 0, 0xff, byte(g.rnd.Uint32()), 4, 3, 2))
			}
			s.what += " noise"
		}
	}
	s.packed = b
	return s
}

// deflate makes a raw deflate stream.
func (g *generator) deflate(t *testing.T) stream {
	content := g.content()
	var out bytes.Buffer
	level := g.rnd.IntN(12) - 2
	var w interface {
		Write([]byte) (int, error)
		Flush() error
		Close() error
	}
	what := fmt.Sprintf("level %d, %d bytes", level, len(content))
	var err error
	switch g.rnd.IntN(4) {
	case 0:
		w, err = stdflate.NewWriter(&out, level)
	case 1:
		w, err = stdflate.NewWriterDict(&out, level, content[:min(len(content), 300)])
		what += ", dictionary"
	default:
		w, err = flate.NewWriter(&out, level)
	}
	require.NoError(t, err)
	pieces := 1 + g.rnd.IntN(3)
	for n := range pieces {
		_, err = w.Write(content[n*len(content)/pieces : (n+1)*len(content)/pieces])
		require.NoError(t, err)
		if n < pieces-1 || g.rnd.IntN(3) == 0 {
			require.NoError(t, w.Flush())
			what += ", flushed"
		}
	}
	if g.rnd.IntN(3) > 0 {
		require.NoError(t, w.Close())
		what += ", closed"
	}
	b := out.Bytes()
	if g.rnd.IntN(10) == 0 {
		b, what = g.bits(len(content)), "random codes"
	}
	return g.damage(stream{b, content, what})
}

// bits makes blocks of random symbols in the fixed code, and random dynamic
// headers.
func (g *generator) bits(length int) []byte {
	var out []byte
	used := 0
	put := func(v uint32, n int) {
		for k := range n {
			if used%8 == 0 {
				out = append(out, 0)
			}
			out[used/8] |= byte(v>>k&1) << (used % 8)
			used++
		}
	}
	reversed := func(v uint32, n int) {
		for k := n - 1; k >= 0; k-- {
			put(v>>k, 1)
		}
	}
	for done := 0; done < length; {
		put(uint32(pick(g.rnd, 0, 0, 0, 1)), 1)
		if g.rnd.IntN(20) == 0 {
			put(2, 2)
			for range g.rnd.IntN(200) {
				put(pick(g.rnd, g.rnd.Uint32(), 0), 8)
			}
			return out
		}
		put(1, 2)
		for range 1 + g.rnd.IntN(300) {
			switch g.rnd.IntN(10) {
			case 0:
				code := uint32(g.rnd.IntN(24))
				reversed(code, 7)
				if code == 0 {
					continue
				}
				put(g.rnd.Uint32(), max(0, (int(code)-5)/4))
				distance := uint32(g.rnd.IntN(pick(g.rnd, 4, 4, 30, 32)))
				reversed(distance, 5)
				put(g.rnd.Uint32(), max(0, int(distance)/2-1))
				done += 10
			case 1:
				reversed(uint32(0xc0+g.rnd.IntN(8)), 8)
				done += 100
			default:
				reversed(uint32(0x30+g.rnd.IntN(144)), 8)
				done++
			}
		}
		reversed(0, 7)
	}
	return out
}

// zstd makes zstd frames.
func (g *generator) zstd(t *testing.T) stream {
	content := g.content()
	var b []byte
	pieces := 1 + g.rnd.IntN(3)
	what := fmt.Sprintf("%d bytes", len(content))
	extra := func() {
		switch g.rnd.IntN(8) {
		case 0:
			length := g.rnd.IntN(30)
			b = binary.LittleEndian.AppendUint32(b, 0x184d2a50+uint32(g.rnd.IntN(16)))
			b = binary.LittleEndian.AppendUint32(b, uint32(length))
			b = append(b, make([]byte, length)...)
			what += ", skippable"
		case 1:
			b = append(b, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0)
			what += ", empty"
		case 2:
			b = append(b, 0x28, 0xb5, 0x2f, 0xfd, 0, byte(g.rnd.Uint32()), 1, 0, 0)
			what += ", empty without a length"
		}
	}
	for n := range pieces {
		extra()
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.EncoderLevel(1+g.rnd.IntN(4))),
			zstd.WithEncoderCRC(g.rnd.IntN(2) == 0), zstd.WithSingleSegment(g.rnd.IntN(2) == 0), zstd.WithZeroFrames(g.rnd.IntN(2) == 0),
			zstd.WithWindowSize(1<<(10+g.rnd.IntN(8))))
		require.NoError(t, err)
		start := len(b)
		piece := content[n*len(content)/pieces : (n+1)*len(content)/pieces]
		if g.rnd.IntN(3) == 0 {
			var out bytes.Buffer
			e.Reset(&out)
			_, err = e.Write(piece)
			require.NoError(t, err)
			if g.rnd.IntN(2) == 0 {
				require.NoError(t, e.Flush())
			}
			require.NoError(t, e.Close())
			b = append(b, out.Bytes()...)
			what += ", streamed"
		} else {
			b = e.EncodeAll(piece, b)
		}
		if g.rnd.IntN(10) == 0 && len(b) > start+6 {
			b[start+4+g.rnd.IntN(2)] = byte(g.rnd.Uint32())
			what += ", other descriptor"
		}
		if g.rnd.IntN(10) == 0 && len(b) > start+10 && b[start+4]&0x20 == 0 {
			b[start+5] = byte(g.rnd.IntN(256))
			what += ", other window"
		}
	}
	extra()
	return g.damage(stream{b, content, what})
}
