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
			VMClock:     time.Duration(be.Uint64(e[24:]) & (1<<63 - 1)),
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
