// Package qcow2reader lets the package qcow2 and
// github.com/lima-vm/go-qcow2reader meet, a reader of qcow2 images that other
// programs of this field use.
//
//   - [Image] hands a disk of ours to what takes an image.Image, such as its
//     package convert.
//   - [Open] reads an image with go-qcow2reader, as a qcow2.Source.
//   - [CrossCheck] reads an image with both and says where they differ: two
//     independent readers seldom have the same fault.
//
// # Limits
//
// go-qcow2reader trusts an image's header and opens files of the host that the
// image names. Open lets it see only what [qcow2.Open] has accepted, without
// other files; a panic in it becomes an error. It needs at most 150 MiB. It
// reads no image without an L1 table, and zstd only in a program that says
//
//	theirs.SetDecompressor(theirs.CompressionTypeZstd, qcow2reader.Zstd)
//
// where theirs is its package image/qcow2, whose table of decompressors is
// global.
package qcow2reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader/image"
	theirs "github.com/lima-vm/go-qcow2reader/image/qcow2"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// ErrDiffers says that the two readers read different disks.
var ErrDiffers = errors.New("qcow2 and go-qcow2reader read different content")

// Image gives a disk the interface of go-qcow2reader. Its methods may be
// called concurrently, except Close, which closes i.
func Image(i *qcow2.Image) image.Image { return ours{i} }

type ours struct{ *qcow2.Image }

// Extent describes what begins at start, up to length bytes.
func (o ours) Extent(start, length int64) (image.Extent, error) {
	if length <= 0 || start < 0 || start > o.Size()-length {
		return image.Extent{}, fmt.Errorf("cannot map the guest's disk: %d bytes at %d are not in it", length, start)
	}
	e, err := o.ExtentAt(start)
	if err != nil {
		return image.Extent{}, err
	}
	return image.Extent{Start: start, Length: min(length, e.Length), Allocated: e.Present, Zero: e.Zero, Compressed: e.Compressed}, nil
}

// Type is "qcow2" or "raw".
func (o ours) Type() image.Type {
	if o.Info() == nil {
		return "raw"
	}
	return theirs.Type
}

// Readable returns nil: what cannot be read was not opened.
func (o ours) Readable() error { return nil }

// A Source is the guest's disk of an image as go-qcow2reader reads it.
// ReadAt may be called concurrently.
type Source struct {
	image image.Image
	size  int64
}

// Open opens the image in r, which is size bytes long, with go-qcow2reader. It
// must be one that [qcow2.Open] accepts without other files; what go-qcow2reader
// does not read is an error of the kind qcow2.ErrUnsupported.
func Open(r io.ReaderAt, size int64) (s *Source, err error) {
	bounded, err := qcow2.Open(r, size, qcow2.OpenOptions{})
	if err != nil {
		return nil, err
	}
	info := bounded.Info()
	if err := bounded.Close(); err != nil {
		return nil, err
	}
	if info.Header.BackingFileOffset != 0 { // it would open a file even of no name
		return nil, fmt.Errorf("%w: the header names a backing file", qcow2.ErrUnsupported)
	}
	defer recovered(&err)
	// The section is no *os.File, whose name would be the way to others.
	i, err := theirs.Open(io.NewSectionReader(r, 0, size), func(io.ReaderAt, image.Type) (image.Image, error) {
		return nil, errors.New("no other files")
	})
	if err == nil {
		err = i.Readable()
	}
	if err != nil {
		return nil, fmt.Errorf("%w by go-qcow2reader: %v", qcow2.ErrUnsupported, err) //nolint:errorlint // nobody can act on its errors
	}
	return &Source{i, info.VirtualSize}, nil
}

// recovered turns a panic of go-qcow2reader into an error.
func recovered(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("go-qcow2reader panics: %v", v)
	}
}

// ReadAt reads guest data, as io.ReaderAt says.
func (s *Source) ReadAt(p []byte, off int64) (n int, err error) {
	if s.image == nil || off >= s.size {
		return 0, io.EOF
	}
	if off < 0 {
		return 0, fmt.Errorf("cannot read the guest's disk: offset %d is negative", off)
	}
	defer recovered(&err)
	want := p[:min(int64(len(p)), s.size-off)]
	for n < len(want) {
		more, err := s.image.ReadAt(want[n:], off+int64(n))
		n += more
		switch {
		case more > 0 && (err == nil || errors.Is(err, io.EOF)): // it ends with each compressed cluster
		case errors.Is(err, io.EOF):
			return n, io.ErrUnexpectedEOF
		case err == nil:
			return n, io.ErrNoProgress
		default:
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size is the guest disk's size in bytes.
func (s *Source) Size() int64 { return s.size }

// Close closes what go-qcow2reader opened, not r.
func (s *Source) Close() error {
	if s.image == nil {
		return nil
	}
	return s.image.Close()
}

// zero returns how many of the length bytes at off go-qcow2reader holds for
// zeros, or for data.
func (s *Source) zero(off, length int64) (n int64, zero bool, err error) {
	defer recovered(&err)
	e, err := s.image.Extent(off, length)
	if err == nil && e.Length <= 0 {
		err = io.ErrNoProgress
	}
	return min(e.Length, length), e.Zero, err
}

// CrossCheck reads the guest's disk of the image in r with both readers and
// compares each byte that is not zero for both. The error is ErrDiffers where
// they differ, or what Open or either reader fails with.
func CrossCheck(ctx context.Context, r io.ReaderAt, size int64) error {
	a, err := qcow2.Open(r, size, qcow2.OpenOptions{})
	if err != nil {
		return fmt.Errorf("cannot cross-check: %w", err)
	}
	defer a.Close()
	b, err := Open(r, size)
	if err != nil {
		return fmt.Errorf("cannot cross-check: %w", err)
	}
	defer b.Close()
	const atOnce, farthest = 1 << 20, 1 << 30
	bufA, bufB := make([]byte, atOnce), make([]byte, atOnce)
	for off := int64(0); off < a.Size(); {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		e, err := a.ExtentAt(off)
		if err != nil {
			return fmt.Errorf("cannot cross-check at %d: %w", off, err)
		}
		n, zero, err := b.zero(off, min(e.Length, farthest))
		if err != nil {
			return fmt.Errorf("cannot cross-check at %d with go-qcow2reader: %w", off, err)
		}
		if zero && e.Zero {
			off += n
			continue
		}
		// The buffer ends where it would if each one did before, or clusters
		// would be decompressed twice.
		n = min(off&^(atOnce-1)+atOnce, a.Size()) - off
		if err := same(a, b, bufA[:n], bufB[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// same compares what both read at off.
func same(a, b io.ReaderAt, bufA, bufB []byte, off int64) error {
	if n, err := a.ReadAt(bufA, off); n < len(bufA) {
		return fmt.Errorf("cannot cross-check at %d: %w", off, err)
	}
	if n, err := b.ReadAt(bufB, off); n < len(bufB) {
		return fmt.Errorf("cannot cross-check at %d with go-qcow2reader: %w", off, err)
	}
	if bytes.Equal(bufA, bufB) {
		return nil
	}
	for n := range bufA {
		if bufA[n] != bufB[n] {
			off += int64(n)
			break
		}
	}
	return fmt.Errorf("%w at offset %d", ErrDiffers, off)
}

// Zstd decompresses a zstd cluster for go-qcow2reader.
func Zstd(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}
