package qcow2

import (
	"encoding/binary"
	"io"
)

// The upper bits of a cluster's count in references say what uses it.
const (
	useData       uint32 = 1 << 31
	useMetadata   uint32 = 1 << 30
	maxReferences        = useMetadata - 1
)

// references counts how often each cluster of the file is referred to, up to
// what a refcount of the image can hold.
type references struct {
	counts []uint32
	bits   uint32 // of a cluster's size
	size   int64  // of the file
	limit  uint32
	result *CheckResult
}

func (r *references) count(cluster int64) uint32 { return r.counts[cluster] & maxReferences }
func (r *references) overlaps(cluster int64) bool {
	return r.counts[cluster]&(useData|useMetadata) == useData|useMetadata
}

// add counts a range of the file, which the image refers to the given number
// of times, for one use. The file's last cluster may be cut.
func (r *references) add(offset, length, times int64, use uint32) {
	if length <= 0 {
		return
	}
	if offset < 0 || offset+length-r.size >= 1<<r.bits {
		r.result.corrupt(times, "%d bytes at %#x lie beyond the end of the file", length, offset)
		return
	}
	for n := offset >> r.bits; n <= (offset+length-1)>>r.bits; n++ {
		for n >= int64(len(r.counts)) {
			r.counts = append(r.counts, 0) // the file's last cluster is cut off
		}
		have := int64(r.counts[n] & maxReferences)
		if over := have + times - int64(r.limit); over > 0 {
			if r.limit < maxReferences {
				r.result.corrupt(over, "cluster %d has more references than a refcount can hold", n)
			}
			r.counts[n] = r.counts[n]&^maxReferences | r.limit | use
			continue
		}
		r.counts[n] = r.counts[n]&^maxReferences | uint32(have+times) | use
	}
}

// refcounts reads the refcounts that the file holds, keeping the block that
// was used last.
type refcounts struct {
	r       io.ReaderAt
	h       *Header
	size    int64
	perBits uint32 // log2 of a block's refcounts
	table   []byte // a part of the refcount table
	tableAt int64  // its first entry's index; -1 if nothing was read
	block   []byte
	blockAt int64 // the block's index; -1 if nothing was read
	state   blockState
	err     error
}

type blockState uint8

const (
	blockRead   blockState = iota
	blockAbsent            // every refcount is 0
	blockBad               // the refcount table's entry cannot be followed
)

func openRefcounts(r io.ReaderAt, h *Header, size int64) (*refcounts, error) {
	return &refcounts{r: r, h: h, size: size, perBits: h.ClusterBits + 3 - h.RefcountOrder,
		table: make([]byte, 4<<10), tableAt: -1, block: make([]byte, h.clusterSize()), blockAt: -1}, nil
}

// get returns the refcount of a cluster; false if it cannot be read.
func (d *refcounts) get(cluster int64) (uint64, bool) {
	index := cluster >> d.perBits
	if index != d.blockAt {
		d.load(index)
	}
	switch d.state {
	case blockAbsent:
		return 0, true
	case blockBad:
		return 0, false
	}
	return refcountAt(d.block, d.h.RefcountOrder, cluster&(1<<d.perBits-1)), true
}

// load reads a refcount block.
func (d *refcounts) load(index int64) {
	d.blockAt, d.state = index, blockAbsent
	if index >= int64(d.h.RefcountTableClusters)<<(d.h.ClusterBits-3) {
		return
	}
	const perPart = 512
	if first := index &^ (perPart - 1); first != d.tableAt {
		if _, err := readFull(d.r, d.table, int64(d.h.RefcountTableOffset)+first*8); err != nil {
			d.fail(err)
			return
		}
		d.tableAt = first
	}
	offset := binary.BigEndian.Uint64(d.table[(index-d.tableAt)*8:]) &^ reftableReserved
	switch {
	case offset == 0:
	case offset%uint64(d.h.clusterSize()) != 0 || offset > 1<<63-1:
		d.state = blockBad
	case offset >= uint64(d.size): // reads as zero
	default:
		d.state = blockRead
		if _, err := readFull(d.r, d.block, int64(offset)); err != nil {
			d.fail(err)
		}
	}
}

func (d *refcounts) fail(err error) {
	d.state = blockBad
	if d.err == nil {
		d.err = err
	}
}

// refcountAt returns the refcount with the given index of a block.
func refcountAt(block []byte, order uint32, index int64) uint64 {
	switch order {
	case 3:
		return uint64(block[index])
	case 4:
		return uint64(binary.BigEndian.Uint16(block[index*2:]))
	case 5:
		return uint64(binary.BigEndian.Uint32(block[index*4:]))
	case 6:
		return binary.BigEndian.Uint64(block[index*8:])
	}
	// Below a byte the first refcount is in the lowest bits.
	perByte := int64(8) >> order
	shift := index % perByte << order
	return uint64(block[index/perByte]) >> shift & (1<<(1<<order) - 1)
}
