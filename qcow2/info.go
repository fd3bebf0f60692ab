package qcow2

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// inspectTableBytes is how much Inspect reads of the snapshot table and of the
// bitmap directory. An ordinary image has a few hundred bytes of each.
const inspectTableBytes = 128 << 10

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

	inspected   bool // to its end, or to what is wrong with the image
	findings    []Finding
	bitmapCount uint32
	bitmapDir   Range // the bitmap directory
}

// A Range is a part of a file or disk, in bytes.
type Range struct{ Offset, Length int64 }

// A FeatureName is one row of the feature name table.
type FeatureName struct {
	Kind string // "incompatible", "compatible", "autoclear", or a number
	Bit  uint8
	Name string
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
	if fault, ok := err.(*FormatError); ok && fault.Kind == ErrNotQCOW2 { //nolint:errorlint // only our own, unwrapped
		return nil, notQCOW2(r, size, fault)
	}
	if err != nil {
		return nil, err
	}
	i := &Info{Header: h, FileSize: size}
	err = i.inspect(r)
	var fault *FormatError
	i.inspected = err == nil || errors.As(err, &fault)
	return i, err
}

// inspect reads what the header leads to.
func (i *Info) inspect(r io.ReaderAt) error {
	h := &i.Header
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
		return first
	}
	i.findTablesOutside()
	for _, read := range []func(io.ReaderAt) error{i.readLUKS, i.readSnapshots, i.readBitmaps, i.readImageEnd} {
		if err := read(r); err != nil {
			return err
		}
	}
	return nil
}

func (i *Info) add(name string, offset int64, format string, args ...any) {
	i.findings = append(i.findings, Finding{name, fmt.Sprintf(format, args...), offset})
}

func (i *Info) addFault(f *FormatError) {
	name := f.finding
	switch {
	case name != "":
	case errors.Is(f.Kind, ErrUnsupported):
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
		i.BackingFile = cString(b)
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
		if err := i.extension(e); err != nil {
			return i.fault(err)
		}
	}
	switch {
	case h.Incompatible.Has(ExternalData) && i.DataFile == "":
		return i.fault(malformed(72, uint64(h.Incompatible), "the external data file has no name"))
	case h.CryptMethod == 2 && i.LUKSHeader == Range{}:
		return i.fault(malformed(32, 2, "LUKS encryption without the extension that says where its header is"))
	}
	return nil
}

// extension reads and judges one extension as QEMU does. Of two of a type the
// last one counts.
func (i *Info) extension(e Extension) error {
	length := uint64(len(e.Data))
	switch e.Type {
	case ExtBackingFormat:
		if length > maxFormatName {
			return malformed(e.Offset, length, "the name of the backing file's format is longer than %d bytes", maxFormatName)
		}
		i.BackingFormat = cString(e.Data)
	case ExtDataFile:
		i.DataFile = cString(e.Data)
		i.DataFileRaw = i.Header.Autoclear&RawExternalData != 0
	case ExtFeatureNames:
		i.FeatureNames = parseFeatureNames(e.Data)
	case ExtBitmaps:
		if fault := i.judgeBitmaps(e); fault != nil {
			return fault
		}
	case ExtEncryption:
		if i.Header.CryptMethod != 2 {
			return malformed(e.Offset, uint64(i.Header.CryptMethod), "an encryption extension without LUKS encryption")
		}
		if length != encryptionExtLength {
			return malformed(e.Offset, length, "the encryption extension is not %d bytes long", encryptionExtLength)
		}
		offset, length := binary.BigEndian.Uint64(e.Data), binary.BigEndian.Uint64(e.Data[8:])
		if offset > maxHostOffset || length > maxHostOffset || offset%uint64(i.ClusterSize) != 0 {
			return malformed(e.Offset, offset, "the LUKS header is not aligned or out of range")
		}
		i.LUKSHeader = Range{int64(offset), int64(length)}
	}
	return nil
}

// cString cuts b where C ends a string: QEMU does not see what follows.
func cString(b []byte) string {
	name, _, _ := strings.Cut(string(b), "\x00")
	return name
}

func parseFeatureNames(b []byte) []FeatureName {
	var out []FeatureName
	for ; len(b) >= featureNameLength; b = b[featureNameLength:] {
		kind := fmt.Sprint(b[0])
		if b[0] < 3 {
			kind = [...]string{"incompatible", "compatible", "autoclear"}[b[0]]
		}
		out = append(out, FeatureName{kind, b[1], cString(b[2:featureNameLength])})
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
