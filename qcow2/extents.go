package qcow2

// extent is a part of the guest's disk that is one thing.
type extent struct {
	start, length int64
	kind          clusterKind // kindUnallocated: in no layer
	hole          bool        // kindNormal: the file has a hole here
	layer         *Image      // that holds it; nil if none does
	depth         int         // of the layer, or of the last one that was asked
	host          int64       // kindNormal, kindZeroAlloc: where its data begins
	entry         uint64      // kindCompressed, not of a walk: the L2 entry
	begin         int64       // kindCompressed, not of a walk: where its cluster begins in the guest
}

func (e *extent) end() int64 { return e.start + e.length }

func (e *extent) zero() bool { return e.kind != kindNormal && e.kind != kindCompressed || e.hole }

// read fills p, which is as long as the extent.
func (e *extent) read(p []byte, keep bool) error {
	switch e.kind {
	case kindNormal:
		n, err := readFull(e.layer.data, p, e.host)
		if err == nil && n == 0 && len(p) > 0 {
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
// it returns is never empty, and may be followed by more of the same. A
// compressed extent lies within one cluster. With a walker, whose disk it must
// be, it has what the walker remembers, and compressed clusters follow each
// other in one extent.
func (i *Image) extent(off, end int64, w *walker) (extent, error) {
	e := extent{start: off, layer: i, kind: kindUnallocated}
	for {
		layer := e.layer
		var err error
		switch {
		case layer.h == nil:
			e.kind, e.host, e.length = kindNormal, off, end-off
		case w != nil:
			err = w.own(layer, &e, end)
		default:
			err = layer.own(&e, end, toRead)
		}
		if err != nil {
			return e, err
		}
		end = min(end, e.end())
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

// purpose is what extents are wanted for.
type purpose uint8

const (
	toRead purpose = iota // each compressed cluster is an extent
	toMap                 // compressed clusters that follow each other are one
	toWork                // and so is what reads as zero, where a whole table does
)

// maxSteps is how many runs of tables are joined to one extent: between two
// extents a walk can be cancelled.
const maxSteps = 256

// own finds what the layer itself says about e.start up to end.
func (i *Image) own(e *extent, end int64, p purpose) error {
	first, err := i.ownRun(e.start, p)
	if err != nil {
		return err
	}
	e.kind, e.host, e.entry, e.begin, e.length = first.kind, first.host, first.entry, first.begin, min(first.length, end-e.start)
	for steps := 0; steps < maxSteps && e.end() < end; steps++ {
		next, err := i.ownRun(e.end(), p)
		if err != nil || !e.goesOn(&next, p) {
			return nil //nolint:nilerr // it is found again where it begins
		}
		e.length += min(next.length, end-e.end())
	}
	return nil
}

// goesOn says whether next, which follows, is the same thing.
func (e *extent) goesOn(next *extent, p purpose) bool {
	switch {
	case next.kind != e.kind:
		return false
	case e.kind == kindCompressed:
		return p != toRead
	case e.kind == kindNormal || e.kind == kindZeroAlloc:
		return next.host == e.host+e.length
	}
	return true
}

// ownRun finds what begins at an offset, within what one L1 entry covers.
func (i *Image) ownRun(at int64, p purpose) (extent, error) {
	perL2 := int64(1) << (i.h.ClusterBits + i.h.l2Bits())
	index := at / perL2
	words, err := i.tables.entry(i.r, i.l1+index*8, 8)
	if err != nil {
		return extent{}, err
	}
	if words[0]&entryOffset == 0 {
		return extent{kind: kindUnallocated, length: perL2 - at%perL2}, nil
	}
	return i.inTable(words[0], index, at, p)
}

// inTable finds what the L2 table of an L1 entry says of the guest's offset
// at, and how long that goes on within the table.
func (i *Image) inTable(l1Entry uint64, l1Index, at int64, p purpose) (extent, error) {
	table := int64(l1Entry & entryOffset)
	if table%i.cluster != 0 || table >= i.size {
		return extent{}, malformed(i.l1+l1Index*8, l1Entry, "the L2 table is not aligned or outside the file")
	}
	units := i.unitSize()
	n := at >> i.h.ClusterBits & (1<<i.h.l2Bits() - 1) * (i.cluster / units)
	n += at % i.cluster / units
	r, left, err := i.tables.run(i, table, n, p)
	if err != nil {
		return extent{}, err
	}
	e := extent{kind: r.kind, host: r.host + at%units, length: left*units - at%units}
	misplaced := r.hasData() && i.h.Incompatible.Has(ExternalData) && e.host != at
	if r.kind != kindBad && !misplaced && (r.kind != kindCompressed || p != toRead) {
		return e, nil
	}
	number := n / (i.cluster / units)
	b, err := i.tables.entry(i.r, table+number*i.h.l2EntrySize(), i.h.l2EntrySize())
	if err != nil {
		return extent{}, err
	}
	if _, _, fault := i.unit(b[0], b[1], n%(i.cluster/units)); fault != "" {
		return extent{}, malformed(table+number*i.h.l2EntrySize(), b[0], "%s", fault)
	}
	if misplaced {
		return extent{}, malformed(table+number*i.h.l2EntrySize(), b[0], "a cluster elsewhere in the data file than in the guest's disk")
	}
	e.entry, e.begin, e.length = b[0], at-at%i.cluster, i.cluster-at%i.cluster
	return e, nil
}

// unitSize is the length of what an L2 entry can say something of: a cluster,
// or with extended L2 entries a subcluster.
func (i *Image) unitSize() int64 {
	if i.h.Incompatible.Has(ExtendedL2) {
		return i.cluster / subclusters
	}
	return i.cluster
}

// unit tells what an L2 entry says of its nth unit, where the unit's data
// begins, and what is wrong with it.
func (i *Image) unit(entry, bitmap uint64, n int64) (kind clusterKind, host int64, fault string) {
	external := i.h.Incompatible.Has(ExternalData)
	kind, host = i.h.l2Kind(entry), int64(entry&entryOffset)
	inside := external || host < i.dataLen
	switch kind {
	case kindCompressed:
		if external {
			return kindBad, 0, "a compressed cluster in an image with a data file"
		}
		return kind, 0, ""
	case kindZero, kindZeroAlloc:
		if i.h.Version == 2 {
			return kindBad, 0, "a zero cluster in a version 2 image"
		}
		if host%i.cluster != 0 {
			return kindBad, 0, "a zero cluster that is not aligned"
		}
		return kind, host, ""
	case kindNormal:
		if host%i.cluster != 0 {
			return kindBad, 0, "a cluster that is not aligned"
		}
	case kindUnallocated, kindBad:
		host = 0
	}
	if i.h.Incompatible.Has(ExtendedL2) {
		allocated, zero := bitmap>>n&1 != 0, bitmap>>(n+subclusters)&1 != 0
		switch {
		case allocated && (zero || kind == kindUnallocated):
			return kindBad, 0, "subclusters that contradict each other"
		case zero && kind == kindNormal:
			return kindZeroAlloc, host + n*(i.cluster/subclusters), ""
		case zero:
			return kindZero, 0, ""
		case !allocated:
			return kindUnallocated, 0, ""
		}
		host += n * (i.cluster / subclusters)
	}
	if kind == kindNormal && !inside {
		return kindBad, 0, "a cluster beyond the end of the file"
	}
	return kind, host, ""
}
