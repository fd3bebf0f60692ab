package qcow2

import (
	"encoding/binary"
	"io"
	"slices"
	"sort"
	"sync"
)

// tableCache keeps what was read of the tables last, at most 10 MiB: slices of
// 4 KiB, and of L2 tables that say little a summary, so that a table that an
// image uses again and again is gone through once.
type tableCache struct {
	mu         sync.Mutex
	young, old map[int64][]byte

	summaries    map[int64]summary
	oldSummaries map[int64]summary
	kept         int // runs in summaries

	building sync.Mutex // guards buf
	buf      []byte
}

const (
	sliceBytes = 4 << 10
	maxSlices  = 256
	maxRuns    = 1 << 12 // of a table that is worth a summary
	maxKept    = 1 << 16 // runs in either of the two generations of summaries
)

// A run is a row of units of an L2 table that say the same. Their data, if
// they have any, is in one piece.
type run struct {
	first int64 // unit
	kind  clusterKind
	host  int64 // where the first unit's data begins
}

// summary is what an L2 table says.
type summary struct {
	runs []run // nil if there are too many
	zero bool  // all of it reads as zero, wherever it is used and whatever the image's backing file holds
}

// entry returns the one or two words of the table entry at offset.
func (c *tableCache) entry(r io.ReaderAt, offset, size int64) ([2]uint64, error) {
	begin := offset &^ (sliceBytes - 1)
	b, err := c.slice(r, begin)
	if err != nil {
		return [2]uint64{}, err
	}
	b = b[offset-begin:]
	out := [2]uint64{binary.BigEndian.Uint64(b)}
	if size == 16 {
		out[1] = binary.BigEndian.Uint64(b[8:])
	}
	return out, nil
}

// slice returns the 4 KiB of the file at begin.
func (c *tableCache) slice(r io.ReaderAt, begin int64) ([]byte, error) {
	c.mu.Lock()
	b, ok := c.young[begin]
	if !ok {
		b, ok = c.old[begin]
	}
	c.mu.Unlock()
	if ok {
		return b, nil
	}
	b = make([]byte, sliceBytes)
	if _, err := readFull(r, b, begin); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= maxSlices {
		c.old, c.young = c.young, make(map[int64][]byte)
	}
	c.young[begin] = b
	return b, nil
}

// run returns what the L2 table at an offset says of unit n, and of how many
// units from n on. A run is of unit n alone where the table has too many.
func (c *tableCache) run(i *Image, table, n int64, p purpose) (run, int64, error) {
	s, err := c.summary(i, table)
	if err != nil {
		return run{}, 0, err
	}
	per := i.cluster / i.unitSize()
	end := per << i.h.l2Bits()
	if p == toWork && s.zero {
		return run{n, kindZero, 0}, end - n, nil
	}
	if s.runs == nil {
		b, err := c.entry(i.r, table+n/per*i.h.l2EntrySize(), i.h.l2EntrySize())
		kind, host, _ := i.unit(b[0], b[1], n%per)
		return run{n, kind, host}, 1, err
	}
	at := sort.Search(len(s.runs), func(k int) bool { return s.runs[k].first > n }) - 1
	r := s.runs[at]
	if at+1 < len(s.runs) {
		end = s.runs[at+1].first
	}
	if r.hasData() {
		r.host += (n - r.first) * i.unitSize()
	}
	return r, end - n, nil
}

func (r *run) hasData() bool { return r.kind == kindNormal || r.kind == kindZeroAlloc }

func (c *tableCache) summary(i *Image, table int64) (summary, error) {
	if s, ok := c.known(table); ok {
		return s, nil
	}
	c.building.Lock()
	defer c.building.Unlock()
	if s, ok := c.known(table); ok {
		return s, nil
	}
	s, err := c.summarize(i, table)
	if err != nil {
		return s, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept += len(s.runs) + 4; c.summaries == nil || c.kept > maxKept {
		c.oldSummaries, c.summaries, c.kept = c.summaries, make(map[int64]summary), len(s.runs)+4
	}
	c.summaries[table] = s
	return s, nil
}

func (c *tableCache) known(table int64) (summary, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.summaries[table]
	if !ok {
		s, ok = c.oldSummaries[table]
	}
	return s, ok
}

// summarize reads a table. The caller holds c.building.
func (c *tableCache) summarize(i *Image, table int64) (summary, error) {
	if c.buf == nil {
		c.buf = make([]byte, min(i.cluster, 64<<10))
	}
	out := summary{zero: true}
	size, unit := i.h.l2EntrySize(), i.unitSize()
	per := i.cluster / unit
	external := i.h.Incompatible.Has(ExternalData) // each cluster has its place
	many := false
	for at := int64(0); at < i.cluster && (!many || out.zero); at += int64(len(c.buf)) {
		if _, err := readFull(i.r, c.buf, table+at); err != nil {
			return out, err
		}
		for in := int64(0); in < int64(len(c.buf)) && (!many || out.zero); in += size {
			first := (at + in) / size * per
			entry, bitmap := binary.BigEndian.Uint64(c.buf[in:]), uint64(0)
			if size == 16 {
				bitmap = binary.BigEndian.Uint64(c.buf[in+8:])
			}
			for n := range per {
				kind, host, _ := i.unit(entry, bitmap, n)
				out.zero = out.zero && (kind == kindZero || kind == kindZeroAlloc && !external || kind == kindUnallocated && i.backing == nil)
				if last := len(out.runs) - 1; many || last >= 0 && out.runs[last].goesOn(kind, host, first+n, unit) {
					continue
				}
				if many = len(out.runs) == maxRuns; !many {
					out.runs = append(out.runs, run{first + n, kind, host})
				}
			}
		}
	}
	if many {
		out.runs = nil
	}
	out.runs = slices.Clip(out.runs)
	return out, nil
}

// goesOn says whether the run has what unit n says.
func (r *run) goesOn(kind clusterKind, host, n, unit int64) bool {
	return kind == r.kind && (!r.hasData() || host == r.host+(n-r.first)*unit)
}
