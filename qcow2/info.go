package qcow2

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Limits on what Inspect reads of tables whose length the file claims. An
// ordinary image has a few hundred bytes of each.
const (
	inspectTableBytes = 128 << 10
	snapshotFixed     = 40 // bytes of a snapshot table entry without its strings
	bitmapFixed       = 24 // bytes of a bitmap directory entry without its name
)

// Info is what the metadata of an image says, without the clusters' tables.
type Info struct {
	Header         Header
	Extensions     []Extension
	FileSize       int64  // bytes of the file
	VirtualSize    int64  // bytes of the guest's disk, in whole sectors
	ClusterSize    int64  // bytes
	BackingFile    string // as it stands in the file; empty if there is none
	BackingFormat  string // empty if the image does not say
	DataFile       string // external data file's name; empty if unknown
	DataFileRaw    bool
	LUKSHeader     Range // of the LUKS header in the file; zero if there is none
	FeatureNames   []FeatureName
	Snapshots      []Snapshot // the first ones, if their table is very large
	Bitmaps        []Bitmap   // likewise
	ImageEndOffset int64      // end of the last used cluster by refcount; 0 if unknown

	findings []Finding
}

// A Range is a part of a file or disk, in bytes.
type Range struct{ Offset, Length int64 }

// A FeatureName is one row of the feature name table.
type FeatureName struct {
	Kind string // "incompatible", "compatible", "autoclear", or a number
	Bit  uint8
	Name string
}

// A Snapshot is one internal snapshot (section "Snapshots").
type Snapshot struct {
	ID, Name    string
	Time        time.Time     // when it was taken, UTC
	VMClock     time.Duration // the guest's clock
	VMStateSize uint64        // bytes
	VirtualSize uint64        // bytes of the disk at that time
	ICount      uint64        // executed instructions; ^0 if unknown
	L1Offset    uint64
	L1Size      uint32 // entries

	offset int64 // of the entry
}

// A Bitmap is one persistent dirty bitmap (section "Bitmaps").
type Bitmap struct {
	Name        string
	Granularity uint64 // bytes
	Flags       uint32 // 1 in-use, 2 auto
	TableOffset uint64
	TableSize   uint32 // entries

	kind, nameLen, extra int   // of the directory entry
	offset               int64 // of the directory entry
}

// acceptable says whether QEMU would load the bitmap.
func (b *Bitmap) acceptable(h *Header) bool {
	cluster := uint64(h.clusterSize())
	physical := uint64(b.TableSize) * cluster
	return b.TableSize > 0 && b.TableSize <= maxBitmapTable && b.TableOffset != 0 && b.TableOffset%cluster == 0 &&
		b.TableOffset <= maxHostOffset && b.Granularity >= 1<<9 && b.Flags&^3 == 0 && b.kind == 1 &&
		b.nameLen > 0 && b.nameLen <= maxBackingName && b.extra == 0 && physical <= maxBitmapPhysical &&
		(b.Flags&1 != 0 || h.Size/b.Granularity <= physical*8)
}

// Inspect reads the metadata of the image in r, which is size bytes long. It
// reads at most a few hundred KiB, whatever the file claims.
//
// Where the header is a qcow2 header but damaged or unsupported, Inspect
// returns a *FormatError together with what could be read, so that a caller
// who wants the verdict on it can still ask for [Info.Safety]; Open and Check
// refuse such an image. Where Info is nil nothing could be read.
func Inspect(r io.ReaderAt, size int64) (*Info, error) {
	head := make([]byte, headerLengthV3+1)
	n, err := readFull(r, head, 0)
	if err != nil {
		return nil, err
	}
	h, err := parseHeader(head[:n])
	if err != nil {
		return nil, err
	}
	i := &Info{Header: h, FileSize: size}
	if h.Size <= 1<<63-1 {
		i.VirtualSize = int64(h.Size) &^ (sectorSize - 1) // as QEMU has it
	}
	i.findFeatures()
	var first error
	for _, f := range h.faults() {
		i.addFault(f)
		if first == nil {
			first = f
		}
	}
	if h.ClusterBits >= minClusterBits && h.ClusterBits <= maxClusterBits {
		i.ClusterSize = h.clusterSize()
		if err := i.readNames(r); err != nil && first == nil {
			first = err
		}
	}
	if first != nil {
		return i, first
	}
	i.findTablesOutside()
	for _, read := range []func(io.ReaderAt) error{i.readSnapshots, i.readBitmaps, i.readImageEnd} {
		if err := read(r); err != nil {
			return i, err
		}
	}
	return i, nil
}

func (i *Info) add(name string, offset int64, format string, args ...any) {
	i.findings = append(i.findings, Finding{name, fmt.Sprintf(format, args...), offset})
}

func (i *Info) addFault(f *FormatError) {
	name := f.finding
	switch {
	case name != "":
	case f.Kind == ErrUnsupported:
		name = FindUnknownFeatures
	default:
		name = FindInvalidValue
	}
	i.add(name, f.Offset, "%s: %#x", f.Text, f.Value)
}

// findFeatures finds what the header's bits and fields say.
func (i *Info) findFeatures() {
	h := &i.Header
	if h.BackingFileOffset != 0 {
		i.add(FindBackingFile, 8, "the image reads a backing file")
	}
	if h.CryptMethod != 0 {
		i.add(FindEncryption, 32, "the guest's data is encrypted (method %d)", h.CryptMethod)
	}
	if h.SnapshotCount > 0 {
		i.add(FindSnapshots, 60, "%d internal snapshots", h.SnapshotCount)
	}
	if h.Incompatible.Has(Dirty) {
		i.add(FindDirty, 72, "the dirty bit is set: refcounts may be wrong")
	}
	if h.Incompatible.Has(Corrupt) {
		i.add(FindCorrupt, 72, "the corrupt bit is set")
	}
	if h.Incompatible.Has(ExternalData) {
		i.add(FindDataFile, 72, "the guest's data lies in another file")
	}
	// Unknown compatible and autoclear bits may be ignored when reading, but
	// nobody can say what such an image holds.
	if unknown := h.Compatible &^ LazyRefcounts; unknown != 0 {
		i.add(FindUnknownFeatures, 80, "unknown compatible features %v", unknown)
	}
	if unknown := h.Autoclear &^ (BitmapsConsistent | RawExternalData); unknown != 0 {
		i.add(FindUnknownFeatures, 88, "unknown autoclear features %v", unknown)
	}
	if h.Autoclear&RawExternalData != 0 && !h.Incompatible.Has(ExternalData) {
		i.add(FindInvalidValue, 88, "the raw external data bit is set without an external data file")
	}
}

// fault records an error of the format as a finding; other errors pass.
func (i *Info) fault(err error) error {
	if f, ok := err.(*FormatError); ok { //nolint:errorlint // only our own, unwrapped
		i.addFault(f)
	}
	return err
}

// readNames reads the extensions and the backing file's name.
func (i *Info) readNames(r io.ReaderAt) error {
	h := &i.Header
	if h.BackingFileOffset != 0 && h.BackingFileOffset <= uint64(i.ClusterSize) && h.BackingFileSize <= maxBackingName &&
		h.BackingFileOffset+uint64(h.BackingFileSize) <= uint64(i.ClusterSize) {
		b := make([]byte, h.BackingFileSize)
		if _, err := readFull(r, b, int64(h.BackingFileOffset)); err != nil {
			return err
		}
		i.BackingFile = string(b)
	}
	if int64(h.HeaderLength) > i.ClusterSize {
		return nil // a fault that is known
	}
	if h.BackingFileOffset > uint64(i.ClusterSize) {
		return nil
	}
	var err error
	if i.Extensions, err = readExtensions(r, h); err != nil {
		return i.fault(err)
	}
	for _, e := range i.Extensions {
		switch e.Type {
		case ExtBackingFormat:
			i.BackingFormat = string(e.Data)
		case ExtDataFile:
			i.DataFile = string(e.Data)
			i.DataFileRaw = h.Autoclear&RawExternalData != 0
		case ExtFeatureNames:
			i.FeatureNames = parseFeatureNames(e.Data)
		case ExtEncryption:
			if len(e.Data) < encryptionExtLength {
				return i.fault(malformed(e.Offset, uint64(len(e.Data)), "the encryption extension is shorter than %d bytes", encryptionExtLength))
			}
			offset, length := binary.BigEndian.Uint64(e.Data), binary.BigEndian.Uint64(e.Data[8:])
			if offset > maxHostOffset || length > maxHostOffset {
				return i.fault(malformed(e.Offset, offset, "the LUKS header is out of range"))
			}
			i.LUKSHeader = Range{int64(offset), int64(length)}
		}
	}
	return nil
}

func parseFeatureNames(b []byte) []FeatureName {
	var out []FeatureName
	for ; len(b) >= featureNameLength; b = b[featureNameLength:] {
		kind := fmt.Sprint(b[0])
		if b[0] < 3 {
			kind = [...]string{"incompatible", "compatible", "autoclear"}[b[0]]
		}
		name, _, _ := strings.Cut(string(b[2:featureNameLength]), "\x00")
		out = append(out, FeatureName{kind, b[1], name})
	}
	return out
}

// findTablesOutside compares the tables' places with the file's length.
func (i *Info) findTablesOutside() {
	h := &i.Header
	check := func(field int64, offset uint64, length int64, name string) {
		if length > 0 && (offset > uint64(i.FileSize) || int64(offset) > i.FileSize-length) {
			i.add(FindTableOutside, field, "the %s at %d, %d bytes long, reaches beyond the file of %d bytes",
				name, offset, length, i.FileSize)
		}
	}
	check(40, h.L1TableOffset, int64(h.L1Size)*8, "L1 table")
	// A new image's refcount table may be preallocated beyond the end of the
	// file; only its entries must lie within.
	check(48, h.RefcountTableOffset, 8, "refcount table")
	check(64, h.SnapshotsOffset, int64(h.SnapshotCount)*snapshotFixed, "snapshot table")
	check(0, uint64(i.LUKSHeader.Offset), i.LUKSHeader.Length, "LUKS header")
}

// readSnapshots reads the snapshot table as far as inspectTableBytes go.
func (i *Info) readSnapshots(r io.ReaderAt) error {
	if i.Header.SnapshotCount == 0 {
		return nil
	}
	b := make([]byte, min(inspectTableBytes, max(0, i.FileSize-int64(i.Header.SnapshotsOffset))))
	if _, err := readFull(r, b, int64(i.Header.SnapshotsOffset)); err != nil {
		return err
	}
	var fault *FormatError
	i.Snapshots, _, fault = parseSnapshots(b, int64(i.Header.SnapshotsOffset), i.Header.SnapshotCount)
	if fault != nil && len(b) < inspectTableBytes {
		i.addFault(fault)
	}
	for _, s := range i.Snapshots {
		if s.L1Offset%uint64(i.ClusterSize) != 0 || uint64(s.L1Size)*8 > maxL1Bytes {
			i.add(FindInvalidValue, s.offset, "the L1 table of snapshot %q is not acceptable", s.ID)
		} else if s.L1Offset > maxHostOffset || int64(s.L1Offset)+int64(s.L1Size)*8 > i.FileSize {
			i.add(FindTableOutside, s.offset, "the L1 table of snapshot %q reaches beyond the file", s.ID)
		}
	}
	return nil
}

// parseSnapshots decodes up to count entries of a snapshot table that stands
// at offset in the file, and returns them with the table's length. It stops
// where b ends.
func parseSnapshots(b []byte, offset int64, count uint32) ([]Snapshot, int64, *FormatError) {
	be := binary.BigEndian
	var out []Snapshot
	at := 0
	for range count {
		e := b[min(at, len(b)):]
		if len(e) < snapshotFixed {
			return out, int64(at), malformed(offset+int64(at), uint64(count), "the snapshot table is cut")
		}
		extra := int(be.Uint32(e[36:]))
		idLen, nameLen := int(be.Uint16(e[12:])), int(be.Uint16(e[14:]))
		length := snapshotFixed + extra + idLen + nameLen
		if extra > 1<<20 || length > len(e) {
			return out, int64(at), malformed(offset+int64(at), uint64(extra), "a snapshot table entry is cut")
		}
		s := Snapshot{
			Time:        time.Unix(int64(be.Uint32(e[16:])), int64(be.Uint32(e[20:]))).UTC(),
			VMClock:     time.Duration(be.Uint64(e[24:]) & (1<<63 - 1)), //nolint:gosec // the sign bit is cut off
			VMStateSize: uint64(be.Uint32(e[32:])),
			ICount:      ^uint64(0),
			L1Offset:    be.Uint64(e),
			L1Size:      be.Uint32(e[8:]),
			offset:      offset + int64(at),
		}
		if extra >= 8 {
			s.VMStateSize = be.Uint64(e[40:])
		}
		if extra >= 16 {
			s.VirtualSize = be.Uint64(e[48:])
		}
		if extra >= 24 {
			s.ICount = be.Uint64(e[56:])
		}
		names := e[snapshotFixed+extra:]
		s.ID, s.Name = string(names[:idLen]), string(names[idLen:idLen+nameLen])
		out = append(out, s)
		at += (length + 7) &^ 7
	}
	return out, int64(at), nil
}

// bitmapDirectory returns count, place and length of the bitmap directory.
func (i *Info) bitmapDirectory() (count uint32, offset, length int64, fault *FormatError) {
	for _, e := range i.Extensions {
		if e.Type != ExtBitmaps {
			continue
		}
		if len(e.Data) != bitmapsExtLength {
			return 0, 0, 0, malformed(e.Offset, uint64(len(e.Data)), "the bitmaps extension is not %d bytes long", bitmapsExtLength)
		}
		be := binary.BigEndian
		count = be.Uint32(e.Data)
		size, at := be.Uint64(e.Data[8:]), be.Uint64(e.Data[16:])
		switch {
		case be.Uint32(e.Data[4:]) != 0:
			fault = malformed(e.Offset+4, uint64(be.Uint32(e.Data[4:])), "a reserved field of the bitmaps extension is not zero")
		case count == 0 || count > maxBitmaps:
			fault = malformed(e.Offset, uint64(count), "the number of bitmaps is not within 1 and %d", maxBitmaps)
		case size > maxBitmapDirBytes || size < uint64(count)*bitmapFixed:
			fault = malformed(e.Offset+8, size, "the bitmap directory's size is out of range")
		case at%uint64(i.ClusterSize) != 0 || at > maxHostOffset:
			fault = malformed(e.Offset+16, at, "the bitmap directory does not begin at a cluster")
		}
		return count, int64(at), int64(size), fault
	}
	return 0, 0, 0, nil
}

// readBitmaps reads the bitmap directory as far as inspectTableBytes go.
func (i *Info) readBitmaps(r io.ReaderAt) error {
	if i.Header.Autoclear&BitmapsConsistent == 0 {
		return nil // the extension does not hold
	}
	count, offset, length, fault := i.bitmapDirectory()
	if fault != nil {
		return i.fault(fault)
	}
	if count == 0 {
		return nil
	}
	if offset+length > i.FileSize {
		i.add(FindTableOutside, offset, "the bitmap directory reaches beyond the file")
	}
	b := make([]byte, min(length, inspectTableBytes))
	if _, err := readFull(r, b, offset); err != nil {
		return err
	}
	if i.Bitmaps, fault = parseBitmaps(b, offset, count); fault != nil && length <= inspectTableBytes {
		i.addFault(fault)
	}
	return nil
}

// parseBitmaps decodes up to count entries of a bitmap directory that stands
// at offset in the file. It stops where b ends.
func parseBitmaps(b []byte, offset int64, count uint32) ([]Bitmap, *FormatError) {
	be := binary.BigEndian
	var out []Bitmap
	at := 0
	for range count {
		e := b[min(at, len(b)):]
		if len(e) < bitmapFixed {
			return out, malformed(offset+int64(at), uint64(count), "the bitmap directory is cut")
		}
		extra, nameLen := int(be.Uint32(e[20:])), int(be.Uint16(e[18:]))
		length := bitmapFixed + extra + nameLen
		if extra > 1<<20 || length > len(e) {
			return out, malformed(offset+int64(at), uint64(extra), "a bitmap directory entry is cut")
		}
		if e[17] > 31 {
			return out, malformed(offset+int64(at)+17, uint64(e[17]), "a bitmap's granularity is out of range")
		}
		out = append(out, Bitmap{
			Name:        string(e[bitmapFixed+extra : length]),
			Granularity: 1 << e[17],
			Flags:       be.Uint32(e[12:]),
			TableOffset: be.Uint64(e),
			TableSize:   be.Uint32(e[8:]),
			kind:        int(e[16]),
			nameLen:     nameLen,
			extra:       extra,
			offset:      offset + int64(at),
		})
		at += (length + 7) &^ 7
	}
	return out, nil
}

// readImageEnd finds the last cluster that has a refcount, by reading the
// refcount table and its last blocks from the back.
func (i *Info) readImageEnd(r io.ReaderAt) error {
	h := &i.Header
	blocks, err := lastRefcountBlocks(r, h, i.FileSize)
	if err != nil {
		return err
	}
	bits := int64(1) << h.RefcountOrder
	perBlock := i.ClusterSize * 8 / bits
	for _, b := range blocks {
		last, err := lastNonZero(r, b.offset, i.ClusterSize)
		if errors.Is(err, errNotKept) {
			return nil
		}
		if err != nil {
			return err
		}
		if last < 0 {
			continue // a block without references
		}
		// Of refcounts narrower than a byte, the last one in it may be 0; the
		// few clusters between do not matter here.
		cluster := b.index*perBlock + (last*8+7)/bits
		if cluster > maxHostOffset>>h.ClusterBits {
			return nil
		}
		i.ImageEndOffset = (cluster + 1) << h.ClusterBits
		if i.FileSize > i.ImageEndOffset {
			i.add(FindTrailingData, i.ImageEndOffset, "%d bytes lie behind the last used cluster", i.FileSize-i.ImageEndOffset)
		}
		return nil
	}
	return nil
}

type refcountBlock struct{ index, offset int64 }

// lastRefcountBlocks returns the last blocks of the refcount table, the last
// one first: enough of them to find one that is in use.
func lastRefcountBlocks(r io.ReaderAt, h *Header, fileSize int64) ([]refcountBlock, error) {
	const chunk, enough = 64 << 10, 8
	var out []refcountBlock
	begin := int64(h.RefcountTableOffset)
	end := min(begin+int64(h.RefcountTableClusters)<<h.ClusterBits, fileSize)
	buf := make([]byte, min(chunk, max(0, end-begin)&^7))
	for end-begin >= 8 && len(out) < enough {
		start := max(begin, end-int64(len(buf)))
		b := buf[:(end-start)&^7]
		if _, err := readFull(r, b, start); err != nil {
			return nil, err
		}
		for at := len(b) - 8; at >= 0 && len(out) < enough; at -= 8 {
			if v := binary.BigEndian.Uint64(b[at:]); v != 0 && v <= maxHostOffset && v%uint64(h.clusterSize()) == 0 {
				out = append(out, refcountBlock{(start - begin + int64(at)) / 8, int64(v)})
			}
		}
		end = start
	}
	return out, nil
}

// lastNonZero returns the index of the last byte that is not zero of length
// bytes at offset, or -1.
func lastNonZero(r io.ReaderAt, offset, length int64) (int64, error) {
	if s, ok := r.(sparse); ok {
		return s.lastNonZero(offset)
	}
	buf := make([]byte, min(length, 64<<10))
	for end := length; end > 0; {
		start := max(0, end-int64(len(buf)))
		if _, err := readFull(r, buf[:end-start], offset+start); err != nil {
			return 0, err
		}
		if at := lastByte(buf[:end-start]); at >= 0 {
			return start + int64(at), nil
		}
		end = start
	}
	return -1, nil
}

// lastByte returns the index of the last byte of b that is not zero, or -1.
func lastByte(b []byte) int {
	for len(b) >= 8 && binary.LittleEndian.Uint64(b[len(b)-8:]) == 0 {
		b = b[:len(b)-8]
	}
	for at, c := range slices.Backward(b) {
		if c != 0 {
			return at
		}
	}
	return -1
}

func bitNames(bits uint64, names ...string) string {
	var out []string
	for n, name := range names {
		if bits&(1<<n) != 0 {
			out = append(out, name)
			bits &^= 1 << n
		}
	}
	if bits != 0 {
		out = append(out, fmt.Sprintf("%#x", bits))
	}
	return strings.Join(out, ",")
}

// MarshalJSON gives the fields that `qemu-img info --output=json` has under
// the same names, and beside them "header", "extensions" and "file-size".
func (i *Info) MarshalJSON() ([]byte, error) { return json.Marshal(i.jsonView()) }
