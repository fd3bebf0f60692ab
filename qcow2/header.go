package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Limits of the format, and those that QEMU keeps beyond it. A file that
// claims more is malformed, whatever its length.
const (
	magic              = 0x514649fb // "QFI\xfb"
	headerLengthV2     = 72
	headerLengthV3     = 104
	minClusterBits     = 9
	maxClusterBits     = 21
	maxRefcountOrder   = 6
	maxBackingName     = 1023
	maxL1Bytes         = 32 << 20
	maxRefTableBytes   = 8 << 20
	maxSnapshots       = 65536
	maxBitmaps         = 65535
	maxBitmapDirBytes  = 65535 << 10
	maxFormatName      = 15
	maxHostOffset      = 1<<56 - 1
	maxExtensionsBytes = 64 << 10 // of the first cluster; QEMU writes less than 1 KiB
	sectorSize         = 512
)

// Incompatible holds the header's incompatible feature bits: a reader that
// does not know one of them must refuse the image.
type Incompatible uint64

// The incompatible feature bits of the specification.
const (
	Dirty             Incompatible = 1 << iota // refcounts may be out of date
	Corrupt                                    // some structure is damaged
	ExternalData                               // guest clusters lie in another file
	CompressionType                            // compressed clusters are not deflate
	ExtendedL2                                 // L2 entries have 32 subclusters
	knownIncompatible = 1<<iota - 1
)

// Compatible holds the header's compatible feature bits.
type Compatible uint64

// LazyRefcounts says that refcounts are brought up to date late.
const LazyRefcounts Compatible = 1

// Autoclear holds the header's autoclear feature bits.
type Autoclear uint64

// The autoclear feature bits of the specification.
const (
	BitmapsConsistent Autoclear = 1 << iota // the bitmaps extension holds
	RawExternalData                         // the data file reads as a raw image
)

// Has says whether every bit of want is set.
func (f Incompatible) Has(want Incompatible) bool { return f&want == want }

// String names the bits, unknown ones in hexadecimal.
func (f Incompatible) String() string {
	return bitNames(uint64(f), "dirty", "corrupt", "external-data", "compression-type", "extended-l2")
}

// String names the bits, unknown ones in hexadecimal.
func (f Compatible) String() string { return bitNames(uint64(f), "lazy-refcounts") }

// String names the bits, unknown ones in hexadecimal.
func (f Autoclear) String() string { return bitNames(uint64(f), "bitmaps", "raw-external-data") }

// Compression is the header's compression type.
type Compression uint8

// The compression types of the specification.
const (
	Zlib Compression = 0 // raw deflate with a window of 4 KiB
	Zstd Compression = 1
)

// String gives QEMU's name of the type.
func (c Compression) String() string {
	switch c {
	case Zlib:
		return "zlib"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("unknown (%d)", uint8(c))
}

// Header is the header of a version 2 or 3 image as it stands in the file
// (docs/interop/qcow2, section "Header"). For version 2 the fields that only
// version 3 has hold the values that the specification gives them.
type Header struct {
	Version               uint32
	BackingFileOffset     uint64
	BackingFileSize       uint32 // bytes of the backing file's name
	ClusterBits           uint32
	Size                  uint64 // of the guest's disk, in bytes
	CryptMethod           uint32 // 0 none, 1 AES, 2 LUKS
	L1Size                uint32 // entries
	L1TableOffset         uint64
	RefcountTableOffset   uint64
	RefcountTableClusters uint32
	SnapshotCount         uint32
	SnapshotsOffset       uint64
	Incompatible          Incompatible
	Compatible            Compatible
	Autoclear             Autoclear
	RefcountOrder         uint32 // refcounts are 1<<RefcountOrder bits wide
	HeaderLength          uint32
	Compression           Compression
}

func (h *Header) clusterSize() int64 { return 1 << h.ClusterBits }

// l2EntrySize is 8 bytes, or 16 with extended L2.
func (h *Header) l2EntrySize() int64 {
	if h.Incompatible.Has(ExtendedL2) {
		return 16
	}
	return 8
}

func (h *Header) l2Bits() uint32 {
	if h.Incompatible.Has(ExtendedL2) {
		return h.ClusterBits - 4
	}
	return h.ClusterBits - 3
}

// parseHeader decodes the fields; it judges only what it needs to decode.
func parseHeader(b []byte) (Header, error) {
	be := binary.BigEndian
	if len(b) < 4 {
		v := uint64(0)
		for _, c := range b {
			v = v<<8 | uint64(c)
		}
		return Header{}, &FormatError{Kind: ErrNotQCOW2, Value: v, Text: "the file is too short for a header"}
	}
	if m := be.Uint32(b); m != magic {
		return Header{}, &FormatError{Kind: ErrNotQCOW2, Value: uint64(m), Text: "no qcow2 magic"}
	}
	if len(b) < 8 {
		return Header{}, malformed(int64(len(b)), uint64(len(b)), "the file ends within the header")
	}
	h := Header{Version: be.Uint32(b[4:]), RefcountOrder: 4, HeaderLength: headerLengthV2}
	if h.Version != 2 && h.Version != 3 {
		return h, unsupported(4, uint64(h.Version), "%s", qcowVersion(h.Version))
	}
	need := headerLengthV2
	if h.Version == 3 {
		need = headerLengthV3
	}
	if len(b) < need {
		return h, malformed(int64(len(b)), uint64(len(b)), "the file ends within the header")
	}
	h.BackingFileOffset = be.Uint64(b[8:])
	h.BackingFileSize = be.Uint32(b[16:])
	h.ClusterBits = be.Uint32(b[20:])
	h.Size = be.Uint64(b[24:])
	h.CryptMethod = be.Uint32(b[32:])
	h.L1Size = be.Uint32(b[36:])
	h.L1TableOffset = be.Uint64(b[40:])
	h.RefcountTableOffset = be.Uint64(b[48:])
	h.RefcountTableClusters = be.Uint32(b[56:])
	h.SnapshotCount = be.Uint32(b[60:])
	h.SnapshotsOffset = be.Uint64(b[64:])
	if h.Version == 3 {
		h.Incompatible = Incompatible(be.Uint64(b[72:]))
		h.Compatible = Compatible(be.Uint64(b[80:]))
		h.Autoclear = Autoclear(be.Uint64(b[88:]))
		h.RefcountOrder = be.Uint32(b[96:])
		h.HeaderLength = be.Uint32(b[100:])
		if h.HeaderLength > headerLengthV3 && len(b) > headerLengthV3 {
			h.Compression = Compression(b[headerLengthV3])
		}
	}
	return h, nil
}

// faults returns every value that the specification, or QEMU, does not
// allow, in the order of the fields. Nothing else of the image may be
// computed from a header that has a fault.
func (h *Header) faults() []*FormatError {
	var out []*FormatError
	bad := func(offset int64, value uint64, format string, args ...any) {
		out = append(out, malformed(offset, value, format, args...))
	}
	if unknown := h.Incompatible &^ knownIncompatible; unknown != 0 {
		out = append(out, unsupported(72, uint64(unknown), "unknown incompatible features %v", unknown))
	}
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		bad(20, uint64(h.ClusterBits), "cluster_bits is not within %d to %d", minClusterBits, maxClusterBits)
		return out // every other size depends on it
	}
	cluster := uint64(1) << h.ClusterBits
	if h.Version == 3 && (h.HeaderLength < headerLengthV3 || uint64(h.HeaderLength) > cluster) {
		bad(100, uint64(h.HeaderLength), "header_length is not within %d and the cluster size", headerLengthV3)
	}
	if h.BackingFileOffset != 0 && (h.BackingFileSize > maxBackingName || h.BackingFileOffset > cluster ||
		h.BackingFileOffset+uint64(h.BackingFileSize) > cluster) {
		bad(8, h.BackingFileOffset, "the backing file's name (%d bytes) is not within the first cluster", h.BackingFileSize)
	}
	if h.RefcountOrder > maxRefcountOrder {
		bad(96, uint64(h.RefcountOrder), "refcount_order is greater than %d", maxRefcountOrder)
	}
	if h.Autoclear&RawExternalData != 0 && !h.Incompatible.Has(ExternalData) {
		bad(88, uint64(h.Autoclear), "the raw external data bit is set without an external data file")
	}
	if h.CryptMethod > 2 {
		out = append(out, unsupported(32, uint64(h.CryptMethod), "unknown encryption method"))
	}
	if h.Incompatible.Has(CompressionType) != (h.Compression != Zlib) {
		bad(104, uint64(h.Compression), "compression type and its feature bit contradict each other")
	} else if h.Compression > Zstd {
		out = append(out, unsupported(104, uint64(h.Compression), "unknown compression type"))
	}
	if h.Incompatible.Has(ExtendedL2) && h.ClusterBits < 14 {
		bad(20, uint64(h.ClusterBits), "extended L2 entries need clusters of at least 16 KiB")
	}
	return append(out, h.tableFaults(cluster)...)
}

// tableFaults judges where the tables lie and how large they claim to be. As
// in QEMU a table without entries must have a possible place too.
func (h *Header) tableFaults(cluster uint64) []*FormatError {
	var out []*FormatError
	bad := func(offset int64, value uint64, format string, args ...any) {
		out = append(out, malformed(offset, value, format, args...))
	}
	overflow := func(offset int64, value uint64, format string, args ...any) {
		bad(offset, value, format, args...)
		out[len(out)-1].finding = FindSizeOverflow
	}
	table := func(offset int64, value, length uint64, name string) {
		if value%cluster != 0 {
			bad(offset, value, "the %s does not begin at a cluster", name)
		}
		limit := uint64(maxHostOffset)
		if length == 0 {
			limit = 1<<63 - 1
		}
		if value > limit-length {
			overflow(offset, value, "the %s's end overflows the range of host offsets", name)
		}
	}
	if uint64(h.L1Size)*8 > maxL1Bytes {
		bad(36, uint64(h.L1Size), "the L1 table is larger than %d bytes", maxL1Bytes)
	}
	if perL1 := h.ClusterBits + h.l2Bits(); h.Size > 1<<63-1 {
		overflow(24, h.Size, "the virtual size overflows a signed 64 bit number")
	} else if need := (h.Size + 1<<perL1 - 1) >> perL1; need > uint64(h.L1Size) {
		bad(36, uint64(h.L1Size), "the L1 table has not the %d entries that the virtual size needs", need)
	}
	table(40, h.L1TableOffset, uint64(h.L1Size)*8, "L1 table")
	if uint64(h.RefcountTableClusters)<<h.ClusterBits > maxRefTableBytes {
		bad(56, uint64(h.RefcountTableClusters), "the refcount table is larger than %d bytes", maxRefTableBytes)
	}
	if h.RefcountTableClusters == 0 {
		bad(56, 0, "there is no refcount table")
	}
	table(48, h.RefcountTableOffset, uint64(h.RefcountTableClusters)<<h.ClusterBits, "refcount table")
	if h.SnapshotCount > maxSnapshots {
		bad(60, uint64(h.SnapshotCount), "more than %d snapshots", maxSnapshots)
	}
	table(64, h.SnapshotsOffset, uint64(h.SnapshotCount)*snapshotFixed, "snapshot table")
	return out
}

// An ExtensionType is the number of a header extension.
type ExtensionType uint32

// The header extensions of the specification.
const (
	ExtBackingFormat    ExtensionType = 0xe2792aca
	ExtFeatureNames     ExtensionType = 0x6803f857
	ExtBitmaps          ExtensionType = 0x23852875
	ExtEncryption       ExtensionType = 0x0537be77
	ExtDataFile         ExtensionType = 0x44415441
	extEnd              ExtensionType = 0
	featureNameLength                 = 48
	bitmapsExtLength                  = 24
	encryptionExtLength               = 16
)

// String names the extension, or gives its number.
func (t ExtensionType) String() string {
	switch t {
	case ExtBackingFormat:
		return "backing-format"
	case ExtFeatureNames:
		return "feature-names"
	case ExtBitmaps:
		return "bitmaps"
	case ExtEncryption:
		return "encryption"
	case ExtDataFile:
		return "data-file"
	}
	return fmt.Sprintf("unknown-%#08x", uint32(t))
}

// An Extension is one header extension as it stands in the file.
type Extension struct {
	Type   ExtensionType
	Offset int64 // in the file, of its data
	Data   []byte
}

// readExtensions reads the extensions between the header and the backing
// file's name, or the end of the first cluster. It reads at most
// maxExtensionsBytes.
func readExtensions(r io.ReaderAt, h *Header) ([]Extension, error) {
	start := int64(h.HeaderLength)
	end := h.clusterSize()
	if h.BackingFileOffset != 0 {
		end = int64(h.BackingFileOffset)
	}
	if start >= end {
		return nil, nil // the backing file's name lies in the header, which QEMU does not mind
	}
	area := make([]byte, min(end-start, 4<<10))
	n, err := readFull(r, area, start)
	if err != nil {
		return nil, err
	}
	var out []Extension
	for at := int64(0); ; {
		if at >= end-start { // by the padding of the last one, maybe
			return out, nil // the area is full: no end marker is needed
		}
		if at+8 > end-start {
			return out, malformed(start+at, uint64(end-start-at), "a header extension does not fit into its area")
		}
		if at+8 > int64(n) && n < len(area) {
			return out, nil // the file ends here and reads as zero: the end marker
		}
		if at+8 > int64(len(area)) {
			if area, n, err = growArea(r, area, start, at+8); err != nil {
				return out, err
			}
			continue
		}
		typ := ExtensionType(binary.BigEndian.Uint32(area[at:]))
		length := int64(binary.BigEndian.Uint32(area[at+4:]))
		if at+8+length > end-start { // of the end marker too
			return out, malformed(start+at+4, uint64(length), "header extension %v reaches beyond its area", typ)
		}
		if typ == extEnd {
			return out, nil
		}
		if at+8+length > int64(len(area)) {
			if area, n, err = growArea(r, area, start, at+8+length); err != nil {
				return out, err
			}
			continue
		}
		if at+8+length > int64(n) {
			return out, malformed(start+at+4, uint64(length), "the file ends within header extension %v", typ)
		}
		out = append(out, Extension{typ, start + at + 8, slices.Clone(area[at+8 : at+8+length])})
		at += 8 + (length+7)&^7
	}
}

// growArea reads the extensions' area again, up to at least need bytes.
func growArea(r io.ReaderAt, area []byte, start, need int64) ([]byte, int, error) {
	if need > maxExtensionsBytes {
		return nil, 0, malformed(start, uint64(need), "the header extensions are larger than %d bytes", maxExtensionsBytes)
	}
	area = make([]byte, min(max(need, 2*int64(len(area))), maxExtensionsBytes))
	n, err := readFull(r, area, start)
	return area, n, err
}

// readFull fills b from offset as far as the file goes; what is beyond the
// end of the file is zero and not counted.
func readFull(r io.ReaderAt, b []byte, offset int64) (int, error) {
	n, err := r.ReadAt(b, offset)
	if n == len(b) || errors.Is(err, io.EOF) {
		clear(b[n:])
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return n, fmt.Errorf("cannot read %d bytes at offset %d: %w", len(b), offset, err)
}
