package qcow2

import (
	"encoding/binary"
	"io"
)

// refcounts reads the refcounts that the file holds, in slices of at most
// 4 KiB, keeping the slice that was used last at hand.
type refcounts struct {
	r       io.ReaderAt
	h       *Header
	size    int64
	perBits uint32 // log2 of a slice's refcounts
	tables  tableCache
	slice   []byte
	at      int64 // the slice's index; -1 if nothing was read
	state   sliceState
	err     error
}

type sliceState uint8

const (
	sliceRead   sliceState = iota
	sliceAbsent            // every refcount is 0
	sliceBad               // the refcount table's entry cannot be followed
)

func openRefcounts(r io.ReaderAt, h *Header, size int64) *refcounts {
	return &refcounts{r: r, h: h, size: size, perBits: sliceBits(h) + 3 - h.RefcountOrder, at: -1}
}

func sliceBits(h *Header) uint32 { return min(h.ClusterBits, 12) }

// get returns the refcount of a cluster; false if it cannot be read.
func (d *refcounts) get(cluster int64) (uint64, bool) {
	d.seek(cluster)
	switch d.state {
	case sliceAbsent:
		return 0, true
	case sliceBad:
		return 0, false
	}
	return refcountAt(d.slice, d.h.RefcountOrder, cluster&(1<<d.perBits-1)), true
}

// seek goes to the slice of a cluster, and returns the first cluster behind
// those that have the same state as a whole, or lie in the slice.
func (d *refcounts) seek(cluster int64) int64 {
	if index := cluster >> d.perBits; index != d.at {
		d.load(index)
	}
	perBlock := d.h.ClusterBits + 3 - d.h.RefcountOrder
	switch {
	case d.state == sliceRead:
		return (d.at + 1) << d.perBits
	case cluster>>perBlock >= d.blocks():
		return 1<<63 - 1
	}
	return (cluster>>perBlock + 1) << perBlock
}

// blocks is how many entries the refcount table has.
func (d *refcounts) blocks() int64 { return int64(d.h.RefcountTableClusters) << (d.h.ClusterBits - 3) }

// load reads a slice of a refcount block.
func (d *refcounts) load(index int64) {
	d.at, d.state = index, sliceAbsent
	inBlock := d.h.ClusterBits - sliceBits(d.h) // log2 of a block's slices
	block := index >> inBlock
	if block >= d.blocks() {
		return
	}
	words, err := d.tables.entry(d.r, int64(d.h.RefcountTableOffset)+block*8, 8)
	if err != nil {
		d.fail(err)
		return
	}
	offset := words[0] &^ reftableReserved
	switch {
	case offset == 0:
	case offset%uint64(d.h.clusterSize()) != 0 || offset > 1<<63-1:
		d.state = sliceBad
	case offset >= uint64(d.size): // reads as zero
	default:
		at := int64(offset) + (index&(1<<inBlock-1))<<sliceBits(d.h)
		b, err := d.tables.slice(d.r, at&^(sliceBytes-1))
		if err != nil {
			d.fail(err)
			return
		}
		d.state, d.slice = sliceRead, b[at&(sliceBytes-1):]
	}
}

func (d *refcounts) fail(err error) {
	d.state = sliceBad
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
