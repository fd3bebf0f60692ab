package qcow2

// extent is a part of the guest's disk that is one thing.
type extent struct {
	start, length int64
	kind          clusterKind // kindUnallocated: in no layer
	layer         *Image      // that holds it; nil if none does
	depth         int         // of the layer, or of the last one that was asked
	host          int64       // kindNormal, kindZeroAlloc: where its data begins
	entry         uint64      // kindCompressed: the L2 entry
	begin         int64       // kindCompressed: where its cluster begins in the guest
}

func (e *extent) zero() bool { return e.kind != kindNormal && e.kind != kindCompressed }

// read fills p, which is as long as the extent.
func (e *extent) read(p []byte, keep bool) error {
	switch e.kind {
	case kindNormal:
		n, err := readFull(e.layer.data, p, e.host)
		if err == nil && n == 0 && len(p) > 0 && e.layer.h != nil {
			return malformed(e.host, uint64(len(p)), "guest data at %d lies beyond the end of the file", e.start)
		}
		return err
	case kindCompressed:
		return e.layer.readCompressed(p, e, keep)
	}
	clear(p)
	return nil
}

// extent returns what begins at off and goes on at most to end. The part that
// it returns is never empty. A compressed extent lies within one cluster.
func (i *Image) extent(off, end int64) (extent, error) {
	e := extent{start: off, layer: i, kind: kindUnallocated}
	for {
		layer := e.layer
		if layer.h == nil {
			e.kind, e.host, e.length = kindNormal, off, end-off
			return e, nil
		}
		if err := layer.own(&e, end); err != nil {
			return e, err
		}
		end = min(end, off+e.length)
		if e.kind != kindUnallocated {
			return e, nil
		}
		if layer.backing == nil || off >= layer.backing.virtual {
			e.layer = nil
			return e, nil
		}
		e.layer = layer.backing
		e.depth++
		end = min(end, layer.backing.virtual)
	}
}

// own finds what the layer itself says about e.start up to end.
func (i *Image) own(e *extent, end int64) error {
	perL2 := int64(1) << (i.h.ClusterBits + i.h.l2Bits())
	at := e.start
	first := true
	for at < end {
		index := at / perL2
		words, err := i.tables.entry(i.r, int64(i.h.L1TableOffset)+index*8, 8, i.cluster)
		if err != nil {
			return err
		}
		next := extent{kind: kindUnallocated, length: perL2 - at%perL2}
		if words[0]&entryOffset != 0 {
			if next, err = i.inTable(words[0], index, at); err != nil {
				return err
			}
		}
		if first {
			e.kind, e.host, e.entry, e.begin, e.length, first = next.kind, next.host, next.entry, next.begin, next.length, false
		} else if next.kind == e.kind && e.kind != kindCompressed &&
			(e.kind != kindNormal && e.kind != kindZeroAlloc || next.host == e.host+e.length) {
			e.length += next.length
		} else {
			break
		}
		at += next.length
		if e.kind == kindCompressed {
			break
		}
	}
	e.length = min(e.length, end-e.start)
	return nil
}

// inTable finds what the L2 table of an L1 entry says of the guest's offset at,
// up to the end of the cluster or subcluster.
func (i *Image) inTable(l1Entry uint64, l1Index, at int64) (extent, error) {
	table := int64(l1Entry & entryOffset)
	if table%i.cluster != 0 || table >= i.size {
		return extent{}, malformed(int64(i.h.L1TableOffset)+l1Index*8, l1Entry, "the L2 table is not aligned or outside the file")
	}
	index := at >> i.h.ClusterBits & (1<<i.h.l2Bits() - 1)
	size := i.h.l2EntrySize()
	b, err := i.tables.entry(i.r, table+index*size, size, i.cluster)
	if err != nil {
		return extent{}, err
	}
	entry, bitmap := b[0], b[1]
	within := at % i.cluster
	e := extent{kind: i.h.l2Kind(entry), length: i.cluster - within, entry: entry, begin: at - within}
	bad := func(text string) (extent, error) {
		return extent{}, malformed(table+index*size, entry, "%s", text)
	}
	switch e.kind {
	case kindCompressed:
		if i.h.Incompatible.Has(ExternalData) {
			return bad("a compressed cluster in an image with a data file")
		}
		return e, nil
	case kindZero, kindZeroAlloc:
		if i.h.Version == 2 {
			return bad("a zero cluster in a version 2 image")
		}
		e.host = int64(entry&entryOffset) + within
		return e, nil
	case kindNormal:
		if e.host = int64(entry&entryOffset) + within; (e.host-within)%i.cluster != 0 {
			return bad("a cluster that is not aligned")
		}
		if e.host-within >= i.dataLen && !i.h.Incompatible.Has(ExternalData) && size == 8 {
			return bad("a cluster beyond the end of the file")
		}
	case kindUnallocated:
	}
	if size == 16 {
		sub := i.cluster / subclusters
		n := within / sub
		e.length = sub - within%sub
		allocated, zero := bitmap>>n&1 != 0, bitmap>>(n+subclusters)&1 != 0
		switch {
		case allocated && (zero || e.kind == kindUnallocated):
			return bad("subclusters that contradict each other")
		case zero && e.kind == kindNormal:
			e.kind = kindZeroAlloc
		case zero:
			e.kind = kindZero
		case !allocated:
			e.kind = kindUnallocated
		case e.host-within >= i.dataLen && !i.h.Incompatible.Has(ExternalData):
			return bad("a cluster beyond the end of the file")
		}
	}
	return e, nil
}
