package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// maxNotes bounds the texts that a CheckResult keeps: a hostile image can
// have a mistake in every entry.
const maxNotes = 100

// CheckResult says how consistent an image's metadata is. The JSON names, and
// what is counted, are those of `qemu-img check --output=json`.
type CheckResult struct {
	Corruptions        int64 `json:"corruptions"`  // errors that can damage data
	Leaks              int64 `json:"leaks"`        // clusters that nothing uses
	CheckErrors        int64 `json:"check-errors"` // what could not be checked
	ImageEndOffset     int64 `json:"image-end-offset"`
	TotalClusters      int64 `json:"total-clusters"`
	AllocatedClusters  int64 `json:"allocated-clusters"`
	FragmentedClusters int64 `json:"fragmented-clusters"`
	CompressedClusters int64 `json:"compressed-clusters"`

	// Problems says what was counted above, in words.
	Problems []string `json:"problems"`
	// Notes says what QEMU does not look at. Notes change no count. Of either
	// the first hundred are kept.
	Notes []string `json:"notes"`
}

// Clean says that the check was complete and found nothing. The zero
// CheckResult is of no check, and not clean.
func (c *CheckResult) Clean() bool {
	return c.ImageEndOffset > 0 && c.Corruptions == 0 && c.Leaks == 0 && c.CheckErrors == 0
}

// ExitCode is the exit code that qemu-img check has for the result: 0 clean, 1
// not completed, 2 corruptions, 3 leaks only.
func (c *CheckResult) ExitCode() int {
	switch {
	case c.CheckErrors > 0 || c.ImageEndOffset == 0:
		return 1
	case c.Corruptions > 0:
		return 2
	case c.Leaks > 0:
		return 3
	}
	return 0
}

func (c *CheckResult) corrupt(times int64, format string, args ...any) {
	c.Corruptions += times
	c.problem(format, args...)
}

func (c *CheckResult) incomplete(format string, args ...any) {
	c.CheckErrors++
	c.problem(format, args...)
}

func (c *CheckResult) problem(format string, args ...any) {
	if len(c.Problems) < maxNotes {
		c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
	}
}

func (c *CheckResult) note(format string, args ...any) {
	if len(c.Notes) < maxNotes {
		c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
	}
}

// Check examines all metadata of the image: refcounts against what really
// refers to each cluster, and every table entry. It reads no guest data and
// changes nothing. The error is not about consistency: the header cannot be
// accepted (see [Inspect]), reading failed, or ctx was cancelled.
//
// Memory is less than 48 MiB; time is linear in the length of the file. Where
// the counts of an image of several TiB do not fit into that, its metadata is
// gone through several times. Where tables overlap each other in a way that
// would take longer, the check stops and counts a check error.
func Check(ctx context.Context, r io.ReaderAt, size int64) (*CheckResult, error) {
	info, err := Inspect(r, size)
	if err != nil {
		return nil, fmt.Errorf("cannot check the image: %w", err)
	}
	c := newChecker(sized{r, size}, size, info)
	result := &CheckResult{TotalClusters: c.clusters(info.VirtualSize), Problems: []string{}, Notes: []string{}}
	for lo, hi := int64(0), c.clusters(c.size)+1; ; {
		before := *result
		if err := c.pass(ctx, lo, hi, result); err != nil {
			return nil, fmt.Errorf("cannot check the image: %w", err)
		}
		switch {
		case c.refs.full:
			*result, hi = before, c.refs.smaller()
		case c.stopped || hi >= c.refs.clusters:
			return result, nil
		default:
			lo, hi = hi, hi+(hi-lo)
		}
	}
}

// checker holds the state of one Check.
type checker struct {
	h        *Header
	info     *Info
	r        io.ReaderAt
	size     int64 // of the file, as QEMU sees it: whole sectors
	cluster  int64
	refs     *references
	l2       []int64 // offsets of L2 tables that are to be visited
	stored   *refcounts
	result   *CheckResult
	stopped  bool   // the pass cannot go on
	budget   int64  // bytes of tables that may still be read
	snapSize int64  // bytes of the snapshot table
	highest  int64  // the last cluster with a refcount or a reference so far
	buf      []byte // for an L2 table
	part     []byte // for a part of any other table
}

func newChecker(r io.ReaderAt, size int64, info *Info) *checker {
	c := &checker{h: &info.Header, info: info, r: r, cluster: info.ClusterSize}
	c.size = (size + sectorSize - 1) &^ (sectorSize - 1)
	c.refs = &references{bits: c.h.ClusterBits, size: c.size, limit: maxReferences}
	if c.h.RefcountOrder < 5 {
		c.refs.limit = 1<<(1<<c.h.RefcountOrder) - 1
	}
	c.l2 = make([]int64, 0, 1<<17)
	c.buf, c.part = make([]byte, c.cluster), make([]byte, 64<<10)
	c.stored = openRefcounts(c.r, c.h, c.size)
	return c
}

// clusters returns how many clusters a number of bytes has.
func (c *checker) clusters(bytes int64) int64 { return (bytes-1)>>c.h.ClusterBits + 1 }

// pass goes through the metadata, and compares the refcounts of the clusters
// from lo up to hi. The first pass alone reports what concerns no cluster.
func (c *checker) pass(ctx context.Context, lo, hi int64, result *CheckResult) error {
	c.result = result
	if lo > 0 {
		c.result = new(CheckResult)
	}
	c.refs.window(lo, hi)
	c.refs.result, c.refs.outside = result, c.result
	c.stopped, c.l2 = false, c.l2[:0]
	// No table may overlap another, so together they are no longer than the
	// file; a table may end beyond it by less than a cluster.
	c.budget = c.size + 2*c.cluster
	for _, step := range []func(context.Context) error{
		c.header, c.activeTables, c.snapshotTables, c.otherTables, c.bitmaps, c.refcountBlocks, c.compare,
	} {
		if err := step(ctx); err != nil || c.stopped || c.refs.full {
			return err
		}
	}
	return nil
}

// header accounts for the header, and notes what Inspect found.
func (c *checker) header(context.Context) error {
	c.refs.add(0, c.cluster, 1, useMetadata)
	for _, f := range c.info.findings {
		switch f.Name {
		case FindTrailingData, FindInvalidValue, FindUnknownFeatures, FindTableOutside:
			c.result.note("%v", f)
		}
	}
	return nil
}

// snapshotTables reads the snapshot table and the tables of each snapshot.
func (c *checker) snapshotTables(ctx context.Context) error {
	count := c.h.SnapshotCount
	if count == 0 {
		return nil
	}
	var list []Snapshot
	err := c.readSnapshotTable(count, func(s Snapshot, extra uint32) {
		if c.h.Version >= 3 && extra < 16 {
			c.result.corrupt(1, "snapshot %d's table entry is incomplete", len(list))
		}
		s.Name = ""
		list = append(list, s)
	})
	if err != nil || c.stopped {
		return err
	}
	if c.h.Incompatible.Has(ExternalData) {
		c.result.corrupt(1, "%d snapshots in an image with a data file", count)
	}
	for _, s := range list {
		switch {
		case s.L1Offset%uint64(c.cluster) != 0:
			c.result.corrupt(1, "the L1 table of snapshot %q at %#x is not aligned", s.ID, s.L1Offset)
			continue
		case uint64(s.L1Size)*8 > maxL1Bytes:
			c.result.corrupt(1, "the L1 table of snapshot %q is too large: %d entries", s.ID, s.L1Size)
			continue
		case s.L1Offset > maxHostOffset:
			c.stopped = true
			c.result.incomplete("the L1 table of snapshot %q at %#x is out of range", s.ID, s.L1Offset)
			return nil
		}
		if err := c.l1(ctx, s.L1Offset, s.L1Size, false); err != nil || c.stopped {
			return err
		}
	}
	c.refs.add(int64(c.h.SnapshotsOffset), c.snapSize, 1, useMetadata)
	return c.l2Tables(ctx, false)
}

// readSnapshotTable calls visit for each entry, and leaves the table's length
// in snapSize.
func (c *checker) readSnapshotTable(count uint32, visit func(Snapshot, uint32)) error {
	const chunk = snapshotFixed + maxSnapshotExtra + 2*0xffff
	buf := make([]byte, chunk)
	offset := int64(c.h.SnapshotsOffset)
	at := offset
	for n := range count {
		at = (at + 7) &^ 7
		if c.take(snapshotFixed) {
			return nil
		}
		if _, err := readFull(c.r, buf[:snapshotFixed], at); err != nil {
			return err
		}
		extra := binary.BigEndian.Uint32(buf[36:])
		if extra > maxSnapshotExtra {
			c.stopped = true
			c.result.incomplete("snapshot %d claims %d bytes of extra data", n, extra)
			return nil
		}
		length := snapshotFixed + int64(extra) + int64(binary.BigEndian.Uint16(buf[12:])) + int64(binary.BigEndian.Uint16(buf[14:]))
		if _, err := readFull(c.r, buf[:length], at); err != nil {
			return err
		}
		s, _, _ := parseSnapshots(buf[:length], at, 1)
		visit(s[0], extra)
		at += length
	}
	if c.snapSize = at - offset; c.snapSize > maxSnapshotBytes {
		c.stopped = true
		c.result.incomplete("the snapshot table is %d bytes long", c.snapSize)
	}
	return nil
}

// otherTables accounts for the refcount table and the encryption header.
func (c *checker) otherTables(ctx context.Context) error {
	c.refs.add(int64(c.h.RefcountTableOffset), int64(c.h.RefcountTableClusters)<<c.h.ClusterBits, 1, useMetadata)
	c.refs.add(c.info.LUKSHeader.Offset, c.info.LUKSHeader.Length, 1, useMetadata)
	return ctx.Err()
}

// bitmaps reads the bitmap directory and each bitmap's table.
func (c *checker) bitmaps(ctx context.Context) error {
	count, offset, length := c.info.bitmapCount, c.info.bitmapDir.Offset, c.info.bitmapDir.Length
	if count == 0 {
		return nil
	}
	c.refs.add(offset, length, 1, useMetadata)
	if c.take(length) {
		return nil
	}
	b := make([]byte, min(length, max(0, c.size-offset)))
	if _, err := readFull(c.r, b, offset); err != nil {
		return err
	}
	list, fault := parseBitmaps(b, offset, count)
	bad := func(b Bitmap) bool { return !b.acceptable(c.h) }
	if fault != nil || slices.ContainsFunc(list, bad) {
		c.stopped = true
		c.result.corrupt(1, "the bitmap directory is not acceptable")
		c.result.incomplete("the check stopped at the bitmap directory")
		return nil //nolint:nilerr // the fault is in the result
	}
	for _, m := range list {
		c.refs.add(int64(m.TableOffset), int64(m.TableSize)*8, 1, useMetadata)
		if c.take(int64(m.TableSize) * 8) {
			return nil
		}
		err := c.entries(ctx, int64(m.TableOffset), int64(m.TableSize)*8, func(index int64, entry uint64) error {
			at := int64(entry & entryOffset)
			if entry&bitmapReserved != 0 || at != 0 && (entry&bitmapAllOnes != 0 || at%c.cluster != 0) {
				c.result.corrupt(1, "entry %d (%#x) of the table of bitmap %q is not acceptable", index, entry, m.Name)
			} else if at != 0 {
				c.refs.add(at, c.cluster, 1, useMetadata)
			}
			return nil
		})
		if err != nil || c.stopped {
			return err
		}
	}
	return nil
}

// refcountBlocks accounts for the refcount blocks.
func (c *checker) refcountBlocks(ctx context.Context) error {
	length := int64(c.h.RefcountTableClusters) << c.h.ClusterBits
	if c.take(length) {
		return nil
	}
	return c.entries(ctx, int64(c.h.RefcountTableOffset), length, func(index int64, entry uint64) error {
		switch cluster := entry >> c.h.ClusterBits; {
		case entry&reftableReserved != 0:
			c.result.corrupt(1, "refcount table entry %d has reserved bits set: %#x", index, entry)
		case entry%uint64(c.cluster) != 0:
			c.result.corrupt(1, "refcount block %d at %#x is not aligned", index, entry)
		case cluster >= uint64(c.refs.clusters):
			c.result.corrupt(1, "refcount block %d at %#x lies outside the file", index, entry)
		default:
			c.refs.add(int64(entry), c.cluster, 1, useMetadata)
			if n := c.refs.count(int64(cluster)); n != 1 && c.refs.covers(int64(cluster)) {
				c.refs.result.corrupt(1, "refcount block %d has %d references", index, n)
			}
		}
		return nil
	})
}

// compare compares the refcounts in the file with what was counted.
func (c *checker) compare(ctx context.Context) error {
	if c.refs.lo == 0 {
		c.highest = 0
	}
	touched := c.refs.touched()
	end := min(c.refs.hi, c.refs.clusters)
	for n := c.refs.lo; n < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		next := min(end, c.stored.seek(n))
		switch c.stored.state {
		case sliceRead:
			for ; n < next; n++ {
				stored, _ := c.stored.get(n)
				c.compareCluster(n, stored)
			}
		case sliceAbsent:
			first, _ := slices.BinarySearch(touched, n/chunkClusters)
			for _, chunk := range touched[first:] {
				if chunk*chunkClusters >= next {
					break
				}
				for k := max(n, chunk*chunkClusters); k < min(next, (chunk+1)*chunkClusters); k++ {
					c.compareCluster(k, 0)
				}
			}
		case sliceBad:
			for k := n; k < min(next, n+maxNotes); k++ {
				c.refs.result.problem("the refcount of cluster %d cannot be read", k)
			}
			c.refs.result.CheckErrors += next - n
		}
		n = next
	}
	c.refs.result.ImageEndOffset = (c.highest + 1) << c.h.ClusterBits
	return c.stored.err
}

func (c *checker) compareCluster(n int64, stored uint64) {
	counted := uint64(c.refs.count(n))
	if counted == 0 && stored == 0 {
		return
	}
	c.highest = n
	result := c.refs.result
	switch {
	case stored < counted:
		result.corrupt(1, "cluster %d has the refcount %d and %d references", n, stored, counted)
	case stored > counted:
		result.Leaks++
		result.problem("leaked cluster %d has the refcount %d and %d references", n, stored, counted)
	}
	if c.refs.overlaps(n) {
		result.note("cluster %d is both metadata and data", n)
	}
}
