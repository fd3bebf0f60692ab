package qcow2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

// Convert writes the guest's disk to dst as a raw image. Blocks of 4 KiB that
// read as zero are not written, so dst must be new, or zero. If dst has the
// method Truncate(int64) error, as *os.File, its length is set to the disk's
// size; else a last zero byte is written where the disk ends with zeros.
// WriteAt is called concurrently. When Convert fails dst holds a part of the
// disk.
func Convert(ctx context.Context, dst io.WriterAt, src *Image, o Options) error {
	if t, ok := dst.(interface{ Truncate(int64) error }); ok {
		if err := t.Truncate(src.virtual); err != nil {
			return fmt.Errorf("cannot set the length of the raw image: %w", err)
		}
	} else if src.virtual > 0 {
		if _, err := dst.WriteAt([]byte{0}, src.virtual-1); err != nil {
			return fmt.Errorf("cannot write the raw image: %w", err)
		}
	}
	p := pipeline{options: o, total: src.virtual, size: src.partSize(), next: src.part}
	p.newWorker = func() func(*job) error {
		return func(j *job) error {
			b, err := src.fill(j)
			if err != nil {
				return err
			}
			return writeSparse(dst, b, j.start)
		}
	}
	p.finish = func(*job) (bool, error) { return true, nil }
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("cannot convert the image: %w", err)
	}
	return nil
}

// writeSparse writes the blocks of b that are not zero.
func writeSparse(dst io.WriterAt, b []byte, off int64) error {
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
		at = end + zeroBlock // what ended the run is zero
	}
	return nil
}

// Digest returns the SHA-256 of all bytes of the guest's disk, holes included:
// what the raw image that Convert writes has.
func Digest(ctx context.Context, src *Image, o Options) ([sha256.Size]byte, error) {
	h := sha256.New()
	p := pipeline{options: o, total: src.virtual, size: src.partSize(), next: src.part}
	p.newWorker = func() func(*job) error {
		return func(j *job) error {
			_, err := src.fill(j)
			return err
		}
	}
	p.finish = func(j *job) (bool, error) {
		if !j.zero {
			h.Write(j.buffer())
			return true, nil
		}
		for left := j.length; left > 0; left -= min(left, grain) {
			if err := ctx.Err(); err != nil {
				return false, err
			}
			h.Write(zeros[:min(left, grain)])
		}
		return true, nil
	}
	if err := p.run(ctx); err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("cannot digest the image: %w", err)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Compare returns the offset of the first byte in which two guest disks
// differ, or -1. A disk that is shorter reads as zero behind its end, so
// disks of different sizes can be equal, as for `qemu-img compare` without
// its strict mode.
func Compare(ctx context.Context, a, b *Image, o Options) (int64, error) {
	total := max(a.virtual, b.virtual)
	first := int64(-1)
	p := pipeline{options: o, total: total, size: max(a.partSize(), b.partSize())}
	p.next = func(off int64) (part, error) { return both(a, b, off) }
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
func both(a, b *Image, off int64) (part, error) {
	pa, err := a.padded(off, max(a.virtual, b.virtual))
	if err != nil {
		return part{}, err
	}
	pb, err := b.padded(off, max(a.virtual, b.virtual))
	if err != nil {
		return part{}, err
	}
	length := min(pa.length, pb.length)
	if pa.zero != pb.zero {
		length = min(length, partBytes)
	}
	// Behind the end of the shorter disk the part goes on to the next grain.
	length = min((length+grain-1)&^(grain-1), max(a.virtual, b.virtual)-off)
	return part{off, length, pa.zero && pb.zero}, nil
}

// padded is part for a disk that goes on with zeros up to size.
func (i *Image) padded(off, size int64) (part, error) {
	if off >= i.virtual {
		return part{off, size - off, true}, nil
	}
	return i.part(off)
}

// compare compares one part and leaves the first difference, or -1.
func compare(j *job, a, b *Image, second []byte) error {
	first := j.buffer()
	for _, side := range []struct {
		image *Image
		buf   []byte
	}{{a, first}, {b, second}} {
		n := min(j.length, max(0, side.image.virtual-j.start))
		if _, err := side.image.read(side.buf[:n], j.start, false); err != nil {
			return err
		}
		clear(side.buf[n:])
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
