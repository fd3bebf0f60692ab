package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

func (c *checker) activeTables(ctx context.Context) error {
	if err := c.l1(ctx, c.h.L1TableOffset, c.h.L1Size, true); err != nil {
		return err
	}
	return c.l2Tables(ctx, true)
}

// l1 reads one L1 table and counts what its entries refer to.
func (c *checker) l1(ctx context.Context, offset uint64, entries uint32, active bool) error {
	length := int64(entries) * 8
	c.refs.add(int64(offset), length, 1, useMetadata)
	if c.take(length) {
		return nil
	}
	return c.entries(ctx, int64(offset), length, func(index int64, entry uint64) error {
		return c.l1Entry(ctx, index, entry, active)
	})
}

// take reserves length bytes of the budget, or stops the check.
func (c *checker) take(length int64) bool {
	// What lies beyond the end of the file reads as zero and costs little.
	if c.budget -= min(length, c.size); c.budget < 0 && !c.stopped {
		c.stopped = true
		c.result.Problems = c.result.Problems[:min(len(c.result.Problems), maxNotes-1)]
		c.result.Corruptions++ // together the tables are longer than the file
		c.result.incomplete("the check stopped at overlapping tables")
	}
	return c.stopped
}

// entries calls visit for each 8 byte entry of a table. What lies beyond the
// end of the file is zero, and not visited.
func (c *checker) entries(ctx context.Context, offset, length int64, visit func(int64, uint64) error) error {
	length = min(length, max(0, c.size-offset))
	for at := int64(0); at < length; at += int64(len(c.part)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := c.part[:min(int64(len(c.part)), length-at)]
		if _, err := readFull(c.r, b, offset+at); err != nil {
			return err
		}
		for n := 0; n+8 <= len(b); n += 8 {
			if v := binary.BigEndian.Uint64(b[n:]); v != 0 {
				if err := visit((at+int64(n))/8, v); err != nil || c.stopped || c.refs.full {
					return err
				}
			}
		}
	}
	return nil
}

func (c *checker) l1Entry(ctx context.Context, index int64, entry uint64, active bool) error {
	res := c.result
	if entry&l1Reserved != 0 {
		res.corrupt(1, "L1 entry %d has reserved bits set: %#x", index, entry)
	}
	offset := int64(entry & entryOffset)
	c.refs.add(offset, c.cluster, 1, useMetadata)
	if active && offset != 0 {
		if count, ok := c.stored.get(offset >> c.h.ClusterBits); ok && (count == 1) != (entry&entryCopied != 0) {
			res.corrupt(1, "L1 entry %d (%#x) and the refcount %d of its L2 table contradict each other", index, entry, count)
		}
	}
	if offset%c.cluster != 0 {
		res.corrupt(1, "the L2 table of L1 entry %d at %#x is not aligned", index, offset)
		if c.take(c.cluster) {
			return nil
		}
		return c.l2Table(ctx, offset, 1, active)
	}
	if offset == 0 {
		// The header's cluster as L2 table: QEMU looks at its entries when it
		// counts references.
		if c.take(c.cluster) {
			return nil
		}
		return c.l2Table(ctx, 0, 1, active)
	}
	if offset >= c.size {
		return nil // was counted as lying beyond the end
	}
	if c.l2 = append(c.l2, offset); len(c.l2) == cap(c.l2) {
		return c.l2Tables(ctx, active)
	}
	return nil
}

// l2Tables visits each of the L2 tables that were found, once.
func (c *checker) l2Tables(ctx context.Context, active bool) error {
	slices.Sort(c.l2)
	for at := 0; at < len(c.l2); {
		times := 1
		for at+times < len(c.l2) && c.l2[at+times] == c.l2[at] {
			times++
		}
		if err := c.l2Table(ctx, c.l2[at], int64(times), active); err != nil || c.stopped {
			return err
		}
		at += times
	}
	c.l2 = c.l2[:0]
	return nil
}

// l2Table counts what the entries of one L2 table refer to, which the image
// has the given number of times.
func (c *checker) l2Table(ctx context.Context, offset, times int64, active bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := c.buf[:c.cluster]
	if _, err := readFull(c.r, b, offset); err != nil {
		return err
	}
	step := int(c.h.l2EntrySize())
	v := l2Visit{times: times, active: active, table: offset}
	if active && offset != 0 {
		// As QEMU does: without the table's own refcount those of its clusters
		// are not looked at.
		_, v.copied = c.stored.get(offset >> c.h.ClusterBits)
	}
	for at := 0; at < len(b); at += step {
		v.index, v.entry, v.bitmap = at/step, binary.BigEndian.Uint64(b[at:]), 0
		if step == 16 {
			v.bitmap = binary.BigEndian.Uint64(b[at+8:])
		}
		if v.entry|v.bitmap != 0 {
			c.l2Entry(&v)
		}
	}
	c.stopped = c.stopped || c.refs.full
	return nil
}

// l2Visit is one entry while its table is visited.
type l2Visit struct {
	times  int64
	active bool
	copied bool // judge the copied bits
	table  int64
	index  int
	entry  uint64
	bitmap uint64
	next   int64 // where the next data cluster would continue the last one
}

// String names the entry, for problems.
func (v *l2Visit) String() string {
	return fmt.Sprintf("entry %d (%#x) of the L2 table at %#x", v.index, v.entry, v.table)
}

func (c *checker) l2Entry(v *l2Visit) {
	res, external := c.result, c.h.Incompatible.Has(ExternalData)
	kind := c.h.l2Kind(v.entry)
	if kind != kindCompressed && v.entry&l2Reserved != 0 {
		res.corrupt(v.times, "%v has reserved bits set", v)
	}
	if c.h.Version == 2 && (kind == kindZero || kind == kindZeroAlloc) {
		res.note("%v is a zero cluster, which version 2 does not have", v)
	}
	switch kind {
	case kindCompressed:
		c.compressedEntry(v)
	case kindNormal, kindZeroAlloc:
		offset := int64(v.entry & entryOffset)
		if v.copied {
			count, ok := uint64(1), true
			if !external {
				count, ok = c.stored.get(offset >> c.h.ClusterBits)
			}
			if ok && (count == 1) != (v.entry&entryCopied != 0) {
				res.corrupt(v.times, "%v and the refcount %d of its cluster contradict each other", v, count)
			}
		}
		if v.bitmap>>subclusters&v.bitmap != 0 {
			res.corrupt(v.times, "%v has subclusters that are both allocated and zero: %#x", v, v.bitmap)
		}
		if offset%c.cluster != 0 {
			res.corrupt(v.times, "%v refers to a cluster that is not aligned", v)
		}
		if v.active {
			res.AllocatedClusters += v.times
			if v.next != 0 && offset != v.next {
				res.FragmentedClusters += v.times
			}
			v.next = offset + c.cluster
		}
		if !external {
			c.refs.add(offset, c.cluster, v.times, useData)
		}
	case kindZero, kindUnallocated:
		if v.bitmap&allSubclusters != 0 {
			res.corrupt(v.times, "%v has no cluster but allocated subclusters", v)
		}
	}
}

func (c *checker) compressedEntry(v *l2Visit) {
	res := c.result
	if v.entry&entryCopied != 0 {
		res.corrupt(v.times, "%v is compressed and has the copied bit", v)
	}
	switch {
	case c.h.Incompatible.Has(ExternalData):
		res.corrupt(v.times, "%v is compressed in an image with a data file", v)
		return
	case v.bitmap != 0:
		res.corrupt(v.times, "%v is compressed and has subclusters", v)
		return
	}
	offset, length := c.h.compressedRange(v.entry)
	c.refs.add(offset, length, v.times, useData)
	if v.active {
		res.AllocatedClusters += v.times
		res.CompressedClusters += v.times
		res.FragmentedClusters += v.times
	}
}
