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
	frame   []byte
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
		length := zstdFrame(src, len(dst)-done)
		if length < 0 {
			return errZstd
		}
		buf := d.frame[:0]
		if large {
			buf = dst[done:done:len(dst)]
		}
		out, err := d.zstd.DecodeAll(src[:length], buf)
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		if len(out) > len(dst)-done {
			return errZstd
		}
		done += copy(dst[done:], out)
		src = src[length:]
	}
	return nil
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

// zstdFrame returns the length of the zstd frame that b begins with, or -1
// (RFC 8878, section 3.1.1). A window larger than libzstd allows to a stream
// is refused, unless the frame says that its content fits into room bytes.
func zstdFrame(b []byte, room int) int {
	const maxWindow = 1<<27 + 1
	if len(b) < 6 || b[0] != 0x28 || b[1] != 0xb5 || b[2] != 0x2f || b[3] != 0xfd {
		return -1
	}
	descriptor := b[4]
	at := 5
	single := descriptor>>5&1 != 0
	window := uint64(0)
	if !single {
		window = 1 << (10 + b[at]>>3)
		window += window / 8 * uint64(b[at]&7)
		at++
	}
	at += [4]int{0, 1, 2, 4}[descriptor&3] // the dictionary's ID
	sizeLen := [4]int{0, 2, 4, 8}[descriptor>>6]
	if single && sizeLen == 0 {
		sizeLen = 1
	}
	if at+sizeLen > len(b) {
		return -1
	}
	content := uint64(0)
	for n := range sizeLen {
		content |= uint64(b[at+n]) << (8 * n)
	}
	if sizeLen == 2 {
		content += 256
	}
	at += sizeLen
	if window > maxWindow && (sizeLen == 0 || content > uint64(room)) {
		return -1
	}
	for {
		if at+3 > len(b) {
			return -1
		}
		head := int(b[at]) | int(b[at+1])<<8 | int(b[at+2])<<16
		at += 3
		if head>>1&3 == 1 { // one byte, repeated
			at++
		} else {
			at += head >> 3
		}
		if head&1 != 0 {
			break
		}
	}
	if descriptor>>2&1 != 0 {
		at += 4 // checksum
	}
	if at > len(b) {
		return -1
	}
	return at
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
