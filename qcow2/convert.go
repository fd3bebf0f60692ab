package qcow2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

// Convert writes the guest's disk to dst as a raw image. Blocks of 4 KiB that
// read as zero are not written, so dst must be new, or zero; or it has the
// method WriteZeros(off, length int64) error, which is called for them. If dst
// has the method Truncate(int64) error, as *os.File, its length is set to the
// disk's size; else a last zero byte is written where the disk ends with
// zeros. Methods of dst are called concurrently. When Convert fails dst holds
// a part of the disk.
//
// Neither Convert nor the other functions that work through a disk read where
// the image has no data or, if the image was opened on an *os.File, where that
// file has a hole. While they look for holes the file's offset changes.
func Convert(ctx context.Context, dst io.WriterAt, src *Image, o Options) error {
	zeroer, _ := dst.(zeroer)
	if t, ok := dst.(interface{ Truncate(int64) error }); ok {
		if err := t.Truncate(src.virtual); err != nil {
			return fmt.Errorf("cannot set the length of the raw image: %w", err)
		}
	} else if src.virtual > 0 && zeroer == nil {
		if _, err := dst.WriteAt([]byte{0}, src.virtual-1); err != nil {
			return fmt.Errorf("cannot write the raw image: %w", err)
		}
	}
	walk := newWalker(src, toWork)
	defer walk.close()
	p := pipeline{options: o, total: src.virtual, size: src.partSize()}
	p.next = func(ctx context.Context, off int64) (part, error) {
		return walk.part(ctx, off, zerosEnd(off, src.virtual))
	}
	p.newWorker = func() func(*job) error {
		return func(j *job) error {
			b, err := src.fill(j)
			if err != nil {
				return err
			}
			return writeSparse(dst, zeroer, b, j.start)
		}
	}
	p.finish = func(j *job) (bool, error) {
		if j.zero && zeroer != nil {
			return true, zeroer.WriteZeros(j.start, j.length)
		}
		return true, nil
	}
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("cannot convert the image: %w", err)
	}
	return nil
}

// zeroer is a destination that is not zero where nothing was written.
type zeroer interface {
	WriteZeros(off, length int64) error
}

// zerosEnd bounds zeros that are written or hashed, for progress and for
// cancelling between.
func zerosEnd(off, size int64) int64 {
	const longest = 256 << 20
	if size-off > longest {
		return off + longest
	}
	return size
}

// writeSparse writes the blocks of b that are not zero, and has the others
// zeroed if z is not nil.
func writeSparse(dst io.WriterAt, z zeroer, b []byte, off int64) error {
	for at := 0; at < len(b); {
		end := at
		for end < len(b) && !isZero(b[end:min(end+zeroBlock, len(b))]) {
			end += zeroBlock
		}
		if end = min(end, len(b)); end > at {
			if _, err := dst.WriteAt(b[at:end], off+int64(at)); err != nil {
				return err
			}
		}
		for at = end; at < len(b) && isZero(b[at:min(at+zeroBlock, len(b))]); {
			at = min(at+zeroBlock, len(b))
		}
		if z != nil && at > end {
			if err := z.WriteZeros(off+int64(end), int64(at-end)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Digest returns the SHA-256 of all bytes of the guest's disk, holes included:
// what the raw image that Convert writes has. Holes are not read, but hashed:
// that takes as long as hashing data.
func Digest(ctx context.Context, src *Image, o Options) ([sha256.Size]byte, error) {
	h := sha256.New()
	if err := src.stream(ctx, h, o); err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("cannot digest the image: %w", err)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Stream writes all bytes of the guest's disk to w, one after the other:
// Convert for a pipe.
func Stream(ctx context.Context, w io.Writer, src *Image, o Options) error {
	if err := src.stream(ctx, w, o); err != nil {
		return fmt.Errorf("cannot write the guest's disk: %w", err)
	}
	return nil
}

func (i *Image) stream(ctx context.Context, w io.Writer, o Options) error {
	walk := newWalker(i, toWork)
	defer walk.close()
	p := pipeline{options: o, total: i.virtual, size: i.partSize()}
	p.next = func(ctx context.Context, off int64) (part, error) {
		return walk.part(ctx, off, zerosEnd(off, i.virtual))
	}
	p.newWorker = func() func(*job) error {
		return func(j *job) error {
			_, err := i.fill(j)
			return err
		}
	}
	p.finish = func(j *job) (bool, error) {
		if !j.zero {
			_, err := w.Write(j.buffer())
			return true, err
		}
		for left := j.length; left > 0; left -= min(left, grain) {
			if err := ctx.Err(); err != nil {
				return false, err
			}
			if _, err := w.Write(zeros[:min(left, grain)]); err != nil {
				return false, err
			}
		}
		return true, nil
	}
	return p.run(ctx)
}

// Compare returns the offset of the first byte in which two guest disks
// differ, or -1. A disk that is shorter reads as zero behind its end, so
// disks of different sizes can be equal, as for `qemu-img compare` without
// its strict mode.
func Compare(ctx context.Context, a, b *Image, o Options) (int64, error) {
	total := max(a.virtual, b.virtual)
	first := int64(-1)
	p := pipeline{options: o, total: total, size: max(a.partSize(), b.partSize())}
	walkA, walkB := newWalker(a, toWork), newWalker(b, toWork)
	defer walkA.close()
	defer walkB.close()
	p.next = func(ctx context.Context, off int64) (part, error) { return both(ctx, walkA, walkB, off) }
	p.newWorker = func() func(*job) error {
		var second []byte
		return func(j *job) error {
			if int64(cap(second)) < j.length {
				second = make([]byte, j.length, max(j.length, partBytes))
			}
			return compare(j, a, b, second[:j.length])
		}
	}
	p.finish = func(j *job) (bool, error) {
		if !j.zero && j.out.at >= 0 {
			first = j.out.at
			return false, nil
		}
		return true, nil
	}
	if err := p.run(ctx); err != nil {
		return -1, fmt.Errorf("cannot compare the images: %w", err)
	}
	return first, nil
}

// both returns the part at off of two disks: zero where both are.
func both(ctx context.Context, a, b *walker, off int64) (part, error) {
	size := max(a.image.virtual, b.image.virtual)
	pa, err := a.padded(ctx, off, size)
	if err != nil {
		return part{}, err
	}
	pb, err := b.padded(ctx, off, size)
	if err != nil {
		return part{}, err
	}
	length := min(pa.length, pb.length)
	// Behind the end of the shorter disk the part goes on to the next grain.
	if over := length & (grain - 1); over > 0 {
		length = min(length-over+grain, size-off)
	}
	return part{off, length, pa.zero && pb.zero, [2]bool{pa.zero, pb.zero}}, nil
}

// padded is part for a disk that goes on with zeros up to size.
func (w *walker) padded(ctx context.Context, off, size int64) (part, error) {
	if off >= w.image.virtual {
		return part{start: off, length: size - off, zero: true}, nil
	}
	return w.part(ctx, off, w.image.virtual)
}

// compare compares one part and leaves the first difference, or -1.
func compare(j *job, a, b *Image, second []byte) error {
	first := j.buffer()
	for n, side := range []struct {
		image *Image
		buf   []byte
	}{{a, first}, {b, second}} {
		have := int64(0)
		if !j.zeros[n] {
			have = min(j.length, max(0, side.image.virtual-j.start))
		}
		if _, err := side.image.read(side.buf[:have], j.start, false); err != nil {
			return err
		}
		clear(side.buf[have:])
	}
	j.out.at = -1
	if bytes.Equal(first, second) {
		return nil
	}
	for n := range first {
		if first[n] != second[n] {
			j.out.at = j.start + int64(n)
			return nil
		}
	}
	return nil
}
