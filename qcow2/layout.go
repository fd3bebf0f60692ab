package qcow2

// Masks of the entries of L1, L2 and refcount tables and of bitmap tables
// (sections "Cluster mapping", "Refcount management" and "Bitmaps").
const (
	entryOffset       = 0x00fffffffffffe00 // of L1, standard L2 and bitmap table entries
	entryCopied       = 1 << 63
	l1Reserved        = 0x7f000000000001ff
	l2Compressed      = 1 << 62
	l2Zero            = 1
	l2Reserved        = 0x3f000000000001fe // of standard cluster descriptors
	reftableReserved  = 0x1ff
	bitmapAllOnes     = 1
	bitmapReserved    = 0xff000000000001fe
	allSubclusters    = 1<<32 - 1
	subclusters       = 32
	maxBitmapTable    = 0x8000000
	maxBitmapPhysical = 0x20000000
	maxSnapshotExtra  = 1024
	maxSnapshotBytes  = 64 << 20
)

// clusterKind is what an L2 entry says about a guest cluster.
type clusterKind uint8

const (
	kindUnallocated clusterKind = iota
	kindZero                    // reads as zero, has no host cluster
	kindZeroAlloc               // reads as zero, has a host cluster
	kindNormal
	kindCompressed
	kindBad // cannot be accepted
)

// l2Kind tells what an L2 entry is. With extended L2 the subclusters' bitmap
// says what is data and what is zero, and a kindNormal entry may be all zero.
func (h *Header) l2Kind(entry uint64) clusterKind {
	extended := h.Incompatible.Has(ExtendedL2)
	switch {
	case entry&l2Compressed != 0:
		return kindCompressed
	case entry&l2Zero != 0 && !extended && entry&entryOffset != 0:
		return kindZeroAlloc
	case entry&l2Zero != 0 && !extended:
		return kindZero
	case entry&entryOffset != 0:
		return kindNormal
	case h.Incompatible.Has(ExternalData) && entry&entryCopied != 0:
		return kindNormal // the first cluster of the data file
	}
	return kindUnallocated
}

// compressedRange returns where a compressed cluster's data begins and how
// long it may be: it ends at the end of a 512 byte sector, so the length is
// an upper bound.
func (h *Header) compressedRange(entry uint64) (offset, length int64) {
	shift := 62 - (h.ClusterBits - 8)
	offset = int64(entry & (1<<shift - 1))
	sectors := int64(entry>>shift)&(1<<(h.ClusterBits-8)-1) + 1
	return offset, sectors*sectorSize - offset&(sectorSize-1)
}
