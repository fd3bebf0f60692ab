package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/internal/deflate"
)

// readCompressed fills p with a part of a compressed cluster.
func (i *Image) readCompressed(p []byte, e *extent, keep bool) error {
	within := e.start - e.begin
	if keep {
		if b := i.recent.get(e.entry); b != nil {
			copy(p, b[within:])
			return nil
		}
	}
	d := i.decoders.get()
	defer i.decoders.put(d)
	if !keep && int64(len(p)) == i.cluster {
		return i.decode(d, p, e.entry)
	}
	b := d.out
	if keep || int64(len(b)) < i.cluster {
		b = make([]byte, i.cluster)
	}
	if err := i.decode(d, b, e.entry); err != nil {
		return err
	}
	copy(p, b[within:])
	if keep {
		i.recent.put(e.entry, b)
	} else {
		d.out = b
	}
	return nil
}

// decode decompresses a whole cluster into dst.
func (i *Image) decode(d *decoder, dst []byte, entry uint64) error {
	offset, length := i.h.compressedRange(entry)
	if offset >= i.size {
		return malformed(offset, entry, "a compressed cluster beyond the end of the file")
	}
	if int64(cap(d.in)) < length {
		d.in = make([]byte, length, (length+grain-1)&^(grain-1))
	}
	in := d.in[:length]
	// Behind the end of the file are zeros, as for QEMU.
	if _, err := readFull(i.r, in, offset); err != nil {
		return err
	}
	var err error
	if i.h.Compression == Zstd {
		err = d.inflateZstd(dst, in)
	} else {
		err = d.deflate.Decode(dst, in)
	}
	if err != nil {
		return malformed(offset, entry, "a compressed cluster cannot be decompressed (%v)", err)
	}
	return nil
}

// decoder decompresses one cluster after the other. It is not for concurrent
// use.
type decoder struct {
	in, out []byte
	deflate deflate.Decoder
	zstd    *zstd.Decoder
	frame   []byte // what it decompresses to
	edited  []byte // a frame with another header
}

var errZstd = errors.New("the zstd frames are not a whole cluster")

// inflateZstd decompresses the frames in src until dst is full. QEMU writes
// one frame; behind it are other clusters' bytes. Like QEMU it accepts
// several, and empty and skippable ones before the last; the last one must end
// where dst does.
func (d *decoder) inflateZstd(dst, src []byte) error {
	if d.zstd == nil {
		var err error
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(false))
		if err != nil {
			return err
		}
	}
	// With room for a whole block behind the cluster the library takes its
	// faster path; copying the result costs less.
	// Clusters of several blocks are large enough without it.
	const block = 128<<10 + 64
	large := len(dst) > 2*block
	if !large && cap(d.frame) < len(dst)+block {
		d.frame = make([]byte, 0, len(dst)+block)
	}
	for done := 0; done < len(dst); {
		if length := skippableFrame(src); length > 0 {
			src = src[length:]
			continue
		}
		f, ok := parseZstdFrame(src)
		if !ok {
			return errZstd
		}
		room := len(dst) - done
		frame := src[:f.length]
		fits := f.sized && f.content <= uint64(room)
		if f.window > maxZstdWindow && !fits || f.window >= windowTooLarge {
			return errZstd
		}
		if f.window > maxWindowKept {
			frame = d.withWindow(frame, f)
		}
		buf := d.frame[:0]
		if large {
			buf = dst[done:done:len(dst)]
		}
		out, err := d.zstd.DecodeAll(frame, buf)
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		if len(out) > room || f.sized && uint64(len(out)) != f.content {
			return errZstd
		}
		done += copy(dst[done:], out)
		src = src[f.length:]
	}
	return nil
}

// withWindow returns the frame with a header that says a window of 2 MiB, as
// large as any cluster: our library refuses larger ones, libzstd does not.
func (d *decoder) withWindow(frame []byte, f zstdFrame) []byte {
	const window2MiB = 11 << 3
	d.edited = append(d.edited[:0], frame[0], frame[1], frame[2], frame[3], f.descriptor&zstdChecksum, window2MiB)
	d.edited = append(d.edited, frame[f.header:]...)
	return d.edited
}

// skippableFrame returns the length of the skippable frame that b begins with,
// or 0 (RFC 8878, section 3.1.2).
func skippableFrame(b []byte) int {
	if len(b) < 8 || b[0]&0xf0 != 0x50 || b[1] != 0x2a || b[2] != 0x4d || b[3] != 0x18 {
		return 0
	}
	length := 8 + int64(binary.LittleEndian.Uint32(b[4:]))
	if length > int64(len(b)) {
		return 0
	}
	return int(length)
}

const (
	// What libzstd accepts: less where the content's size is not known.
	maxZstdWindow  = 1<<27 + 1
	windowTooLarge = 1 << 32
	maxWindowKept  = 2 << 20
	zstdChecksum   = 1 << 2 // in a frame's descriptor
	zstdReserved   = 1 << 3
)

// zstdFrame is what the header of a zstd frame says (RFC 8878, section 3.1.1).
type zstdFrame struct {
	descriptor     byte
	header, length int    // bytes
	window         uint64 // bytes; 0 if it is the content
	sized          bool   // the content's size is known
	content        uint64 // bytes
}

// parseZstdFrame tells about the frame that b begins with. The whole frame
// must be in b, and need no dictionary.
func parseZstdFrame(b []byte) (f zstdFrame, ok bool) {
	if len(b) < 6 || b[0] != 0x28 || b[1] != 0xb5 || b[2] != 0x2f || b[3] != 0xfd || b[4]&zstdReserved != 0 {
		return f, false
	}
	f.descriptor = b[4]
	at := 5
	single := f.descriptor>>5&1 != 0
	if !single {
		f.window = 1 << (10 + b[at]>>3)
		f.window += f.window / 8 * uint64(b[at]&7)
		at++
	}
	field := func(length int) (v uint64) {
		for n := range min(length, max(0, len(b)-at)) {
			v |= uint64(b[at+n]) << (8 * n)
		}
		at += length
		return v
	}
	if field([4]int{0, 1, 2, 4}[f.descriptor&3]) != 0 {
		return f, false // a dictionary's ID
	}
	size := [4]int{0, 2, 4, 8}[f.descriptor>>6]
	if single && size == 0 {
		size = 1
	}
	f.content, f.sized = field(size), size > 0
	if size == 2 {
		f.content += 256
	}
	f.header = at
	for last := false; !last; {
		if at+3 > len(b) {
			return f, false
		}
		head := int(field(3))
		last = head&1 != 0
		if head>>1&3 == 1 { // one byte, repeated
			at++
		} else {
			at += head >> 3
		}
	}
	if f.descriptor&zstdChecksum != 0 {
		at += 4
	}
	f.length = at
	return f, at <= len(b)
}

// decoderPool keeps decoders for the next call.
type decoderPool struct{ pool sync.Pool }

func (p *decoderPool) get() *decoder {
	if d, ok := p.pool.Get().(*decoder); ok {
		return d
	}
	return new(decoder)
}

func (p *decoderPool) put(d *decoder) { p.pool.Put(d) }

// clusterCache keeps the last compressed clusters that ReadAt decoded.
type clusterCache struct {
	mu     sync.Mutex
	recent [4]struct {
		entry uint64
		data  []byte
	}
	next int
}

func (c *clusterCache) get(entry uint64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.recent {
		if r.data != nil && r.entry == entry {
			return r.data
		}
	}
	return nil
}

func (c *clusterCache) put(entry uint64, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent[c.next].entry, c.recent[c.next].data = entry, data
	c.next = (c.next + 1) % len(c.recent)
}
