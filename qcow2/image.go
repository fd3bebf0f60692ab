package qcow2

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

const defaultMaxDepth = 16

// A Source is a file that a resolver opened. If it is an io.Closer it is
// closed with the image. ReadAt is called concurrently. That it ends before its
// size is an error. If it has a method File() *os.File, its content is that
// file's, and holes of the file are not read.
type Source interface {
	io.ReaderAt
	Size() int64 // bytes
}

// A Reference is what an image says of another file that it needs. It is the
// word of whoever made the image: the name may be any path or URL.
type Reference struct {
	Name   string
	Format string // "qcow2" or "raw" for a backing file; empty if not said
	Data   bool   // the external data file, not the backing file
	// From is the file that says so: what was passed to Open, or a Source that
	// Resolve returned before.
	From io.ReaderAt
}

// OpenOptions configure Open. The zero value opens images that need no other
// file.
type OpenOptions struct {
	// Resolve opens the backing file or the external data file. Without it, and
	// without Dir, an image that needs another file is refused with
	// ErrUnsupported.
	Resolve func(Reference) (Source, error)
	// Format is "qcow2", the default, or "raw". It is never guessed.
	Format string
	// Dir, if not empty and Resolve is nil, is the directory in which the
	// backing files and the external data file must lie. Only OpenFile heeds
	// it. Names are relative to the directory of the file that gives them, as
	// for QEMU (which takes a data file's name relative to its working
	// directory). Symbolic links and ".." may lead about in Dir, not out of it.
	Dir string
	// MaxDepth is the greatest number of backing files that follow each
	// other. If 0 it is 16.
	MaxDepth int
	// Snapshot, if not empty, is the ID or else the name of the internal
	// snapshot that is shown instead of the disk as it is now. Its disk may
	// have another size. It must be one of those in Info.Snapshots.
	Snapshot string
	// Force lets OpenFile open files that another process writes to.
	Force bool
}

// An Image is the guest's disk of an opened image. Its methods may be called
// concurrently, except Close.
type Image struct {
	info    *Info
	h       *Header // nil for a raw disk
	r       io.ReaderAt
	size    int64 // of the file
	l1      int64 // offset of the L1 table: the disk's or a snapshot's
	virtual int64
	cluster int64
	data    io.ReaderAt // where the guest clusters lie: r, or the data file
	dataLen int64
	// The files as they were passed.
	file, dataFile io.ReaderAt
	backing        *Image
	closers        []io.Closer

	tables   tableCache
	decoders decoderPool
	recent   clusterCache
}

// Open opens the image in r, which is size bytes long, for reading the
// guest's disk. The header is validated as by [Inspect], and each table entry
// when it is used; what contradicts the specification is an error
// (ErrMalformed), never data. Encrypted images are refused with ErrEncrypted.
// An image whose dirty or corrupt bit is set can be read.
//
// The caller must Close the image; r remains the caller's.
func Open(r io.ReaderAt, size int64, o OpenOptions) (*Image, error) {
	switch o.Format {
	case "raw":
		if o.Snapshot != "" {
			return nil, unsupported(0, 0, "a raw disk has no snapshot %q", o.Snapshot)
		}
		return Raw(r, size), nil
	case "", "qcow2":
		c := chain{options: o}
		return c.open(r, size)
	}
	return nil, unsupported(0, 0, "the format %q is neither qcow2 nor raw", o.Format)
}

// Raw gives a raw disk, size bytes long, the methods of an Image. That r ends
// before is an error (io.ErrUnexpectedEOF) when it is read, not zeros.
func Raw(r io.ReaderAt, size int64) *Image {
	whole := sized{r, size}
	return &Image{r: whole, size: size, virtual: size, cluster: grain, data: whole, dataLen: size, file: r, dataFile: r}
}

// chain is the state while a chain of backing files is opened.
type chain struct {
	options OpenOptions
	seen    []io.ReaderAt
}

func (c *chain) open(r io.ReaderAt, size int64) (*Image, error) {
	if c.visited(r) {
		return nil, malformed(8, uint64(len(c.seen)), "the chain of backing files is a loop")
	}
	if depth := cmp.Or(c.options.MaxDepth, defaultMaxDepth); len(c.seen) > depth {
		return nil, unsupported(8, uint64(len(c.seen)), "more than %d backing files", depth)
	}
	c.seen = append(c.seen, r)
	info, err := Inspect(r, size)
	if err != nil {
		return nil, fmt.Errorf("cannot open the image: %w", err)
	}
	h := &info.Header
	if h.CryptMethod != 0 {
		return nil, &FormatError{Kind: ErrEncrypted, Offset: 32, Value: uint64(h.CryptMethod), Text: "there is no decryption here"}
	}
	whole := sized{r, size}
	i := &Image{info: info, h: h, r: whole, size: size, virtual: info.VirtualSize, cluster: info.ClusterSize,
		data: whole, dataLen: size, file: r, dataFile: r, l1: int64(h.L1TableOffset)}
	entries := h.L1Size
	if name := c.options.Snapshot; name != "" && len(c.seen) == 1 {
		if entries, err = i.selectSnapshot(name); err != nil {
			return nil, fmt.Errorf("cannot open the image: %w", err)
		}
	}
	if err := i.checkL1(entries); err != nil {
		return nil, fmt.Errorf("cannot open the image: %w", err)
	}
	if err := c.references(i); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open the image: %w", err), i.Close())
	}
	return i, nil
}

// visited says whether r is a file of the chain already.
func (c *chain) visited(r io.ReaderAt) bool {
	for _, s := range c.seen {
		if same(s, r) {
			return true
		}
	}
	return false
}

// same says whether two readers are the same value or open the same file.
func same(a, b io.ReaderAt) bool {
	type stater interface{ Stat() (os.FileInfo, error) }
	fa, ok := a.(stater)
	if fb, also := b.(stater); ok && also {
		sa, errA := fa.Stat()
		sb, errB := fb.Stat()
		return errA == nil && errB == nil && os.SameFile(sa, sb)
	}
	defer func() { _ = recover() }() // a reader of a type that cannot be compared is not the same
	return a == b
}

// references opens the files that the image refers to.
func (c *chain) references(i *Image) error {
	if i.h.Incompatible.Has(ExternalData) {
		source, err := c.resolve(i, Reference{Name: i.info.DataFile, Format: "raw", Data: true, From: c.seen[len(c.seen)-1]}, 72)
		if err != nil {
			return err
		}
		i.dataLen, i.dataFile = source.Size(), source
		i.data = sized{source, i.dataLen}
	}
	if i.h.BackingFileOffset == 0 || i.info.BackingFile == "" {
		return nil
	}
	format := i.info.BackingFormat
	if format != "qcow2" && format != "raw" {
		return unsupported(8, i.h.BackingFileOffset, "the backing file's format %q is neither qcow2 nor raw", format)
	}
	source, err := c.resolve(i, Reference{Name: i.info.BackingFile, Format: format, From: c.seen[len(c.seen)-1]}, 8)
	if err != nil {
		return err
	}
	if format == "raw" {
		i.backing = Raw(source, source.Size())
		return nil
	}
	i.backing, err = c.open(source, source.Size())
	return err
}

func (c *chain) resolve(i *Image, ref Reference, offset int64) (Source, error) {
	if c.options.Resolve == nil {
		return nil, unsupported(offset, i.h.BackingFileOffset, "the image needs the file %q, and no other files are allowed", ref.Name)
	}
	source, err := c.options.Resolve(ref)
	if err != nil {
		return nil, fmt.Errorf("cannot open the file %q that the image needs: %w", ref.Name, err)
	}
	if closer, ok := source.(io.Closer); ok {
		i.closers = append(i.closers, closer)
	}
	return source, nil
}

// selectSnapshot lets the image show an internal snapshot, and returns how many
// entries its L1 table has.
func (i *Image) selectSnapshot(name string) (uint32, error) {
	list := i.info.Snapshots
	n := slices.IndexFunc(list, func(s Snapshot) bool { return s.ID == name })
	if n < 0 {
		n = slices.IndexFunc(list, func(s Snapshot) bool { return s.Name == name })
	}
	if n < 0 {
		return 0, fmt.Errorf("there is no snapshot %q among the %d that were read", name, len(list))
	}
	s := &list[n]
	switch {
	case s.L1Offset%uint64(i.cluster) != 0 || s.L1Offset > maxHostOffset || uint64(s.L1Size)*8 > maxL1Bytes:
		return 0, malformed(s.offset, s.L1Offset, "the L1 table of snapshot %q is not acceptable", name)
	case s.VirtualSize > 1<<63-1:
		return 0, malformed(s.offset, s.VirtualSize, "the size of snapshot %q overflows", name)
	case i.h.Incompatible.Has(ExternalData):
		return 0, unsupported(s.offset, uint64(i.h.Incompatible), "a snapshot in an image with a data file")
	}
	i.l1, i.virtual = int64(s.L1Offset), int64(s.VirtualSize)&^(sectorSize-1)
	return s.L1Size, nil
}

// checkL1 says whether the L1 table has the entries that the disk's size needs,
// and has them in the file. It is not kept in memory: it may be 32 MiB long.
func (i *Image) checkL1(entries uint32) error {
	perL1 := i.h.ClusterBits + i.h.l2Bits()
	need := (uint64(i.virtual) + 1<<perL1 - 1) >> perL1
	if need > uint64(entries) {
		return malformed(i.l1, uint64(entries), "the L1 table has not the %d entries that the disk needs", need)
	}
	if end := uint64(i.l1) + need*8; need > 0 && end > uint64(i.size) {
		return malformed(40, uint64(i.l1), "the L1 table reaches beyond the file of %d bytes", i.size)
	}
	return nil
}

// Close closes the files that the resolver opened.
func (i *Image) Close() error {
	var errs []error
	if i.backing != nil {
		errs = append(errs, i.backing.Close())
	}
	for _, c := range i.closers {
		errs = append(errs, c.Close())
	}
	i.closers, i.backing = nil, nil
	return errors.Join(errs...)
}

// Size is the guest disk's size in bytes.
func (i *Image) Size() int64 { return i.virtual }

// Info is what Inspect found; nil for a raw disk.
func (i *Image) Info() *Info { return i.info }

// Backing is the disk of the backing file; nil if there is none. It is closed
// with the image.
func (i *Image) Backing() *Image { return i.backing }

// ReadAt reads guest data, as io.ReaderAt says. Memory in use is a few
// clusters for each call that runs.
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("cannot read the guest's disk: offset %d is negative", off)
	}
	if off >= i.virtual {
		return 0, io.EOF
	}
	want := min(int64(len(p)), i.virtual-off)
	n, err := i.read(p[:want], off, true)
	if err == nil && want < int64(len(p)) {
		err = io.EOF
	}
	return n, err
}

// read fills p from the guest's disk, which it must lie in. Small reads of
// compressed clusters are worth keeping what was decoded.
func (i *Image) read(p []byte, off int64, keep bool) (int, error) {
	done := 0
	for done < len(p) {
		e, err := i.extent(off+int64(done), off+int64(len(p)), nil)
		if err != nil {
			return done, err
		}
		if err := e.read(p[done:done+int(e.length)], keep); err != nil {
			return done, err
		}
		done += int(e.length)
	}
	return done, nil
}

// sized is a file of a known size: that it ends before is an error, not zeros.
type sized struct {
	io.ReaderAt
	size int64
}

// ReadAt implements io.ReaderAt.
func (s sized) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(p, off)
	if at := off + int64(n); n < len(p) && at < s.size && (err == nil || errors.Is(err, io.EOF)) {
		err = fmt.Errorf("the file ends at %d, not at %d: %w", at, s.size, io.ErrUnexpectedEOF)
	}
	return n, err
}
