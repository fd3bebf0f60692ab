package qcow2

import (
	"encoding/binary"
	"io"
	"time"
)

const (
	snapshotFixed = 40 // bytes of a snapshot table entry without its strings
	bitmapFixed   = 24 // bytes of a bitmap directory entry without its name
)

// A Snapshot is one internal snapshot (section "Snapshots").
type Snapshot struct {
	ID, Name    string
	Time        time.Time     // when it was taken, UTC
	VMClock     time.Duration // the guest's clock
	VMStateSize uint64        // bytes
	VirtualSize uint64        // bytes of the disk at that time; as now if the image does not say
	ICount      uint64        // executed instructions; ^0 if unknown
	L1Offset    uint64
	L1Size      uint32 // entries

	offset int64 // of the entry
	extra  int   // bytes of extra data
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
	if b.TableSize == 0 || b.TableSize > maxBitmapTable || b.TableOffset == 0 || b.TableOffset%cluster != 0 ||
		b.TableOffset > maxHostOffset || b.Granularity < 1<<9 || b.Flags&^3 != 0 || b.kind != 1 ||
		b.nameLen == 0 || b.nameLen > maxBackingName || b.extra != 0 || physical > maxBitmapPhysical {
		return false
	}
	if b.Flags&1 != 0 {
		return true // nobody reads it
	}
	bits := (h.Size&^(sectorSize-1) + b.Granularity - 1) / b.Granularity
	bytes := (bits + 63) / 64 * 8
	return uint64(b.TableSize) == (bytes+cluster-1)/cluster
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
	switch {
	case fault == nil:
	case fault.finding == "":
		return i.fault(fault)
	case len(b) < inspectTableBytes: // QEMU reads zeros behind the end
		i.addFault(fault)
	}
	for n := range i.Snapshots {
		s := &i.Snapshots[n]
		if s.extra < 16 {
			s.VirtualSize = uint64(i.VirtualSize)
		}
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
	cut := func() ([]Snapshot, int64, *FormatError) {
		fault := malformed(offset+int64(at), uint64(count), "the snapshot table is cut")
		fault.finding = FindTableOutside
		return out, int64(at), fault
	}
	for range count {
		e := b[min(at, len(b)):]
		if len(e) < snapshotFixed {
			return cut()
		}
		extra := int(be.Uint32(e[36:]))
		idLen, nameLen := int(be.Uint16(e[12:])), int(be.Uint16(e[14:]))
		length := snapshotFixed + extra + idLen + nameLen
		if extra > maxSnapshotExtra {
			return out, int64(at), malformed(offset+int64(at)+36, uint64(extra), "a snapshot has more than %d bytes of extra data", maxSnapshotExtra)
		}
		if length > len(e) {
			return cut()
		}
		s := Snapshot{
			Time:        time.Unix(int64(be.Uint32(e[16:])), int64(be.Uint32(e[20:]))).UTC(),
			VMClock:     time.Duration(be.Uint64(e[24:]) & (1<<63 - 1)),
			VMStateSize: uint64(be.Uint32(e[32:])),
			ICount:      ^uint64(0),
			L1Offset:    be.Uint64(e),
			L1Size:      be.Uint32(e[8:]),
			offset:      offset + int64(at),
			extra:       extra,
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
		s.ID, s.Name = cString(names[:idLen]), cString(names[idLen:idLen+nameLen])
		out = append(out, s)
		at += (length + 7) &^ 7
	}
	return out, int64(at), nil
}

// judgeBitmaps judges a bitmaps extension, and remembers where it says that
// the directory is. Without its autoclear bit only the length counts.
func (i *Info) judgeBitmaps(e Extension) *FormatError {
	if len(e.Data) != bitmapsExtLength {
		return malformed(e.Offset, uint64(len(e.Data)), "the bitmaps extension is not %d bytes long", bitmapsExtLength)
	}
	if i.Header.Autoclear&BitmapsConsistent == 0 {
		return nil
	}
	be := binary.BigEndian
	count, size, at := be.Uint32(e.Data), be.Uint64(e.Data[8:]), be.Uint64(e.Data[16:])
	switch {
	case be.Uint32(e.Data[4:]) != 0:
		return malformed(e.Offset+4, uint64(be.Uint32(e.Data[4:])), "a reserved field of the bitmaps extension is not zero")
	case count == 0 || count > maxBitmaps:
		return malformed(e.Offset, uint64(count), "the number of bitmaps is not within 1 and %d", maxBitmaps)
	case size > maxBitmapDirBytes || size < uint64(count)*bitmapFixed:
		return malformed(e.Offset+8, size, "the bitmap directory's size is out of range")
	case at%uint64(i.ClusterSize) != 0 || at > maxHostOffset:
		return malformed(e.Offset+16, at, "the bitmap directory does not begin at a cluster")
	}
	i.bitmapCount, i.bitmapDir = count, Range{int64(at), int64(size)}
	return nil
}

// readBitmaps reads the bitmap directory as far as inspectTableBytes go.
func (i *Info) readBitmaps(r io.ReaderAt) error {
	if i.bitmapCount == 0 {
		return nil
	}
	dir := i.bitmapDir
	if dir.Offset+dir.Length > i.FileSize {
		i.add(FindTableOutside, dir.Offset, "the bitmap directory reaches beyond the file")
	}
	b := make([]byte, min(dir.Length, inspectTableBytes))
	if _, err := readFull(r, b, dir.Offset); err != nil {
		return err
	}
	var fault *FormatError
	i.Bitmaps, fault = parseBitmaps(b, dir.Offset, i.bitmapCount)
	for n := range i.Bitmaps {
		if m := &i.Bitmaps[n]; !m.acceptable(&i.Header) {
			return i.fault(malformed(m.offset, uint64(n), "a bitmap that QEMU does not accept"))
		}
	}
	if fault != nil && dir.Length <= inspectTableBytes {
		return i.fault(fault)
	}
	return nil
}

// parseBitmaps decodes up to count entries of a bitmap directory that stands
// at offset in the file. It stops where b ends, which must be the end of the
// directory.
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
			Name:        cString(e[bitmapFixed+extra : length]),
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
	if at != len(b) {
		return out, malformed(offset+int64(at), uint64(len(b)), "the bitmap directory is longer than its bitmaps")
	}
	return out, nil
}
