package qcow2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/internal/deflate"
)

// CompactOptions configure Compact.
type CompactOptions struct {
	Options
	// Compression is how clusters are compressed. The zero value, Zlib, is
	// read by every QEMU; Zstd by QEMU 5.1 and later.
	Compression Compression
}

// Compact writes the guest's disk to dst as a new image: version 3, clusters
// of 64 KiB, each compressed or, where that would not be shorter, plain.
// The disk's size is rounded up to whole sectors of 512 bytes. Clusters that
// read as zero are left out, and so are backing files, snapshots
// and bitmaps. Only dst's first bytes up to the returned size are written; it
// must be new, or have the method WriteZeros as for [Convert]. The header is
// written last: an image that was cut short is not a qcow2 image.
//
// The same guest disk gives the same bytes, whatever the number of workers
// and however the source is stored.
func Compact(ctx context.Context, dst io.WriterAt, src *Image, o CompactOptions) (size int64, err error) {
	if o.Compression > Zstd {
		return 0, fmt.Errorf("cannot compact the image: %w", unsupported(0, uint64(o.Compression), "unknown compression type"))
	}
	w, err := newImageWriter(dst, src.virtual, o.Compression)
	if err != nil {
		return 0, fmt.Errorf("cannot compact the image: %w", err)
	}
	walk := newWalker(src, toWork)
	defer walk.close()
	p := pipeline{options: o.Options, total: src.virtual, size: src.partSize()}
	p.next = func(ctx context.Context, off int64) (part, error) { return walk.part(ctx, off, src.virtual) }
	p.newWorker = func() func(*job) error {
		var c compressor
		return func(j *job) error {
			b, err := src.fill(j)
			if err != nil {
				return err
			}
			return c.part(j, b, o.Compression)
		}
	}
	p.finish = func(j *job) (bool, error) {
		if j.zero {
			return true, nil
		}
		return true, w.part(j)
	}
	if err = p.run(ctx); err == nil {
		size, err = w.close()
	}
	if err != nil {
		return 0, fmt.Errorf("cannot compact the image: %w", err)
	}
	return size, nil
}

// A piece is what a worker made of one cluster.
type piece struct {
	begin, end int // in the job's output; equal for a zero cluster
	plain      bool
}

// compressor compresses clusters. It is not for concurrent use.
type compressor struct {
	deflate *deflate.Encoder
	zstd    *zstd.Encoder
}

// part compresses each cluster of a part.
func (c *compressor) part(j *job, b []byte, kind Compression) error {
	out, pieces := j.out.bytes[:0], j.out.pieces[:0]
	for len(b) > 0 {
		cluster := b[:min(grain, len(b))]
		b = b[len(cluster):]
		begin := len(out)
		switch {
		case isZero(cluster):
			pieces = append(pieces, piece{begin, begin, false})
			continue
		case len(cluster) < grain: // the disk's end
			cluster = append(cluster[:len(cluster):len(cluster)], zeros[len(cluster):]...)
		}
		var err error
		if out, err = c.compress(out, cluster, kind); err != nil {
			return err
		}
		plain := len(out)-begin >= grain
		if plain {
			out = append(out[:begin], cluster...)
		}
		pieces = append(pieces, piece{begin, len(out), plain})
	}
	j.out.bytes, j.out.pieces = out, pieces
	return nil
}

func (c *compressor) compress(out, cluster []byte, kind Compression) ([]byte, error) {
	if kind == Zlib {
		if c.deflate == nil {
			c.deflate = new(deflate.Encoder)
		}
		return c.deflate.Encode(out, cluster), nil
	}
	if c.zstd == nil {
		var err error
		c.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithWindowSize(grain), zstd.WithEncoderLevel(zstd.SpeedDefault))
		if err != nil {
			return nil, err
		}
	}
	return c.zstd.EncodeAll(cluster, out), nil
}

const (
	grainBits     = 16
	refsPerBlock  = grain / 2 // 16 bit refcounts
	l2PerTable    = grain / 8
	headerWritten = 112 // with the compression type, and the end of the extensions behind it
)

// imageWriter lays out a new image: header, then clusters and L2 tables in
// the order of the guest's disk, each refcount block where its range is full,
// L1 table and refcount table at the end.
type imageWriter struct {
	dst     io.WriterAt
	zeroer  zeroer // nil if dst is new
	kind    Compression
	virtual int64
	entries int64     // of the L1 table
	l1      []l1Entry // those that are not zero
	l2      []byte    // of the table that is being filled
	l2Index int64     // of its L1 entry; -1 before the first
	l2Used  bool
	end     int64 // the next free cluster
	pack    int64 // where the next compressed cluster goes
	packEnd int64 // of the cluster that pack is in

	// Refcounts of the clusters from refsAt on. They are written as soon as
	// nothing can change them.
	refs   []uint16
	refsAt int64 // cluster, a multiple of refsPerBlock
	blocks []uint64

	buf   []byte // not yet written
	bufAt int64
}

// l1Entry is one entry of an L1 table that may be mostly zero.
type l1Entry struct {
	index int64
	value uint64
}

func newImageWriter(dst io.WriterAt, virtual int64, kind Compression) (*imageWriter, error) {
	virtual = (virtual + sectorSize - 1) &^ (sectorSize - 1) // QEMU knows whole sectors only
	perL2 := int64(l2PerTable) * grain
	entries := (virtual + perL2 - 1) / perL2
	if entries*8 > maxL1Bytes {
		return nil, unsupported(24, uint64(virtual), "the disk is too large for clusters of 64 KiB")
	}
	w := &imageWriter{dst: dst, kind: kind, virtual: virtual, entries: entries,
		l2: make([]byte, grain), l2Index: -1, refs: make([]uint16, 0, 2*refsPerBlock), bufAt: grain}
	w.zeroer, _ = dst.(zeroer)
	w.allocate(1, 1) // the header
	return w, nil
}

// allocate returns the offset of n new clusters, each with the given refcount.
func (w *imageWriter) allocate(n int64, refs uint16) int64 {
	at := w.end
	w.end += n * grain
	for range n {
		w.refs = append(w.refs, refs)
	}
	return at
}

// part writes the clusters of a part.
func (w *imageWriter) part(j *job) error {
	for n, p := range j.out.pieces {
		if p.begin == p.end {
			continue
		}
		cluster := j.start/grain + int64(n)
		if err := w.cluster(cluster, j.out.bytes[p.begin:p.end], p.plain); err != nil {
			return err
		}
	}
	return nil
}

func (w *imageWriter) cluster(number int64, b []byte, plain bool) error {
	if index := number / l2PerTable; index != w.l2Index {
		if err := w.flushL2(); err != nil {
			return err
		}
		w.l2Index = index
	}
	var entry uint64
	var at int64
	if plain {
		at = w.allocate(1, 1)
		entry = entryCopied | uint64(at)
	} else {
		var err error
		if at, err = w.packed(int64(len(b))); err != nil {
			return err
		}
		sectors := (at&(sectorSize-1) + int64(len(b)) - 1) / sectorSize
		entry = l2Compressed | uint64(at) | uint64(sectors)<<(62-(grainBits-8))
	}
	binary.BigEndian.PutUint64(w.l2[number%l2PerTable*8:], entry)
	w.l2Used = true
	if err := w.put(at, b); err != nil {
		return err
	}
	return w.flushRefs(false)
}

// packed returns where a compressed cluster goes: behind the one before, if
// the space goes on without a gap.
func (w *imageWriter) packed(length int64) (int64, error) {
	if left := w.packEnd - w.pack; length > left {
		if left == 0 || w.packEnd != w.end {
			if err := w.endPack(); err != nil {
				return 0, err
			}
			w.pack = w.end
		}
		// At most one more cluster, since length is less than one.
		w.allocate((w.pack+length-w.end+grain-1)/grain, 0)
		w.packEnd = w.end
	}
	at := w.pack
	w.pack += length
	for n := at / grain; n <= (w.pack-1)/grain; n++ {
		w.refs[n-w.refsAt]++
	}
	return at, nil
}

// endPack gives up the space behind the last compressed cluster.
func (w *imageWriter) endPack() error {
	from := w.pack
	w.pack = w.packEnd
	return w.zero(from, w.packEnd)
}

// zero is called for what is not written.
func (w *imageWriter) zero(from, to int64) error {
	if w.zeroer == nil || from == to {
		return nil
	}
	return w.zeroer.WriteZeros(from, to-from)
}

// put writes b, of which much goes to one place after the other.
func (w *imageWriter) put(at int64, b []byte) error {
	if at != w.bufAt+int64(len(w.buf)) || len(w.buf)+len(b) > partBytes {
		if err := w.flush(); err != nil {
			return err
		}
		w.bufAt = at
	}
	w.buf = append(w.buf, b...)
	return nil
}

func (w *imageWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.dst.WriteAt(w.buf, w.bufAt)
	w.bufAt += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}

// flushL2 writes the L2 table that was filled.
func (w *imageWriter) flushL2() error {
	if !w.l2Used {
		return nil
	}
	at := w.allocate(1, 1)
	w.l1 = append(w.l1, l1Entry{w.l2Index, entryCopied | uint64(at)})
	err := w.put(at, w.l2)
	clear(w.l2)
	w.l2Used = false
	return err
}

// flushRefs writes the refcount blocks whose clusters are all settled; at the
// end those of all clusters.
func (w *imageWriter) flushRefs(last bool) error {
	for {
		settled := w.refsAt + refsPerBlock
		if w.end/grain > settled+refsPerBlock/2 && w.pack/grain < settled {
			if err := w.endPack(); err != nil { // nothing was packed for long
				return err
			}
		}
		if !last && (w.end/grain < settled || w.pack < w.packEnd && w.pack/grain < settled) || last && len(w.refs) == 0 {
			return nil
		}
		at := int64(0)
		if !last {
			at = w.allocate(1, 1)
		} else {
			at = int64(w.blocks[w.refsAt/refsPerBlock])
		}
		block := make([]byte, grain)
		n := min(refsPerBlock, len(w.refs))
		for k, v := range w.refs[:n] {
			binary.BigEndian.PutUint16(block[k*2:], v)
		}
		w.refs = append(w.refs[:0], w.refs[n:]...)
		w.refsAt += refsPerBlock
		if !last {
			w.blocks = append(w.blocks, uint64(at))
		}
		if err := w.put(at, block); err != nil {
			return err
		}
	}
}

// close writes what remains and returns the image's size.
func (w *imageWriter) close() (int64, error) {
	if err := errors.Join(w.flushL2(), w.endPack()); err != nil {
		return 0, err
	}
	l1At := w.end
	l1Clusters := (w.entries*8 + grain - 1) / grain
	w.allocate(l1Clusters, 1)
	// The refcount table and the remaining blocks count themselves.
	tableAt := w.end
	var tableClusters int64
	for {
		total := w.end/grain + tableClusters
		missing := (total+refsPerBlock-1)/refsPerBlock - int64(len(w.blocks))
		for (total+missing+refsPerBlock-1)/refsPerBlock-int64(len(w.blocks)) > missing {
			missing++
		}
		need := ((int64(len(w.blocks))+missing)*8 + grain - 1) / grain
		if need == tableClusters {
			w.allocate(tableClusters, 1)
			for range missing {
				w.blocks = append(w.blocks, uint64(w.allocate(1, 1)))
			}
			break
		}
		tableClusters = need
	}
	if err := w.putL1(l1At); err != nil {
		return 0, err
	}
	if err := w.put(tableAt, bigEndian(w.blocks, tableClusters)); err != nil {
		return 0, err
	}
	if err := w.flushRefs(true); err != nil {
		return 0, err
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	_, err := w.dst.WriteAt(w.header(l1At, tableAt, tableClusters), 0)
	return w.end, err
}

// putL1 writes the clusters of the L1 table that are not zero.
func (w *imageWriter) putL1(at int64) error {
	const perCluster = grain / 8
	if err := w.zero(at, at+(w.entries*8+grain-1)/grain*grain); err != nil {
		return err
	}
	for rest := w.l1; len(rest) > 0; {
		number := rest[0].index / perCluster
		b := make([]byte, grain)
		for len(rest) > 0 && rest[0].index/perCluster == number {
			binary.BigEndian.PutUint64(b[rest[0].index%perCluster*8:], rest[0].value)
			rest = rest[1:]
		}
		if err := w.put(at+number*grain, b); err != nil {
			return err
		}
	}
	return nil
}

func bigEndian(words []uint64, clusters int64) []byte {
	b := make([]byte, clusters*grain)
	for n, v := range words {
		binary.BigEndian.PutUint64(b[n*8:], v)
	}
	return b
}

// header returns the first cluster.
func (w *imageWriter) header(l1At, tableAt, tableClusters int64) []byte {
	b := make([]byte, grain)
	be := binary.BigEndian
	be.PutUint32(b, magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], grainBits)
	be.PutUint64(b[24:], uint64(w.virtual))
	be.PutUint32(b[36:], uint32(w.entries))
	be.PutUint64(b[40:], uint64(l1At))
	be.PutUint64(b[48:], uint64(tableAt))
	be.PutUint32(b[56:], uint32(tableClusters))
	if w.kind != Zlib {
		be.PutUint64(b[72:], uint64(CompressionType))
	}
	be.PutUint32(b[96:], 4)
	be.PutUint32(b[100:], headerWritten)
	b[104] = byte(w.kind)
	return b
}
