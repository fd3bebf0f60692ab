package qcow2

import (
	"maps"
	"slices"
)

// What uses a cluster, in the upper bits of its count.
const (
	useData     uint8 = 1 << 7
	useMetadata uint8 = 1 << 6
	manyRefs    uint8 = useMetadata - 1 // the count is in references.many
)

const (
	chunkClusters = 1 << 10
	// maxReferences is the greatest count that is kept.
	maxReferences = 1<<30 - 1
	// maxReferenceBytes is the memory for counts. Where an image needs more,
	// its metadata is gone through again for each window of the file.
	maxReferenceBytes = 16 << 20
	entryBytes        = 48 // that an entry of a map needs
)

// chunk holds the counts of clusters that follow each other.
type chunk struct {
	counts [chunkClusters]uint8
	single int // how many are referred to once, as data
}

// references counts how often each cluster of the file, from lo up to hi, is
// referred to, up to what a refcount of the image can hold. Memory is for
// parts of the file that are referred to.
type references struct {
	lo, hi   int64 // clusters
	clusters int64 // of the file
	bits     uint32
	size     int64 // of the file
	limit    int64
	chunks   map[int64]*chunk
	many     map[int64]uint32
	last     *chunk // the chunk that was used last, or nil
	lastAt   int64
	spare    []*chunk     // zero
	plain    *chunk       // what stands for every chunk that is referred to once, as data
	plains   int          // how many those are
	full     bool         // more memory is needed
	result   *CheckResult // for what concerns clusters of the window
	outside  *CheckResult // for what lies beyond the end of the file
}

// window begins to count anew, for the clusters from lo up to hi.
func (r *references) window(lo, hi int64) {
	for _, c := range r.chunks {
		r.free(c)
	}
	r.plain, r.plains = &chunk{single: chunkClusters}, 0
	r.lo, r.hi, r.last, r.full = lo, hi, nil, false
	r.chunks, r.many = make(map[int64]*chunk), make(map[int64]uint32)
	r.clusters = (r.size + 1<<r.bits - 1) >> r.bits
}

// smaller returns an end for the window with which less memory is needed.
func (r *references) smaller() int64 {
	touched := r.touched()
	middle := touched[len(touched)/2] * chunkClusters
	return max(middle, r.lo+chunkClusters-r.lo%chunkClusters)
}

// touched returns the numbers of the chunks that are referred to, in order.
func (r *references) touched() []int64 { return slices.Sorted(maps.Keys(r.chunks)) }

// chunk returns the chunk with a number; nil if none of its clusters is
// referred to.
func (r *references) chunk(number int64) *chunk {
	if r.last == nil || r.lastAt != number {
		r.last, r.lastAt = r.chunks[number], number
	}
	return r.last
}

// count returns how often a cluster of the window is referred to.
func (r *references) count(cluster int64) int64 {
	c := r.chunk(cluster / chunkClusters)
	if c == nil {
		return 0
	}
	if c == r.plain {
		return 1
	}
	n := c.counts[cluster%chunkClusters] & manyRefs
	if n == manyRefs {
		return int64(r.many[cluster])
	}
	return int64(n)
}

// covers says whether a cluster is in the window.
func (r *references) covers(cluster int64) bool { return cluster >= r.lo && cluster < r.hi }

// overlaps says that a cluster is both metadata and data.
func (r *references) overlaps(cluster int64) bool {
	c := r.chunk(cluster / chunkClusters)
	return c != nil && c.counts[cluster%chunkClusters] >= useData|useMetadata
}

// add counts a range of the file, which the image refers to the given number
// of times, for one use. The file's last cluster may be cut.
func (r *references) add(offset, length, times int64, use uint8) {
	if length <= 0 {
		return
	}
	if offset < 0 || offset+length-r.size >= 1<<r.bits {
		r.outside.corrupt(times, "%d bytes at %#x lie beyond the end of the file", length, offset)
		return
	}
	last := (offset + length - 1) >> r.bits
	r.clusters = max(r.clusters, last+1) // the file's last cluster is cut off
	for n := max(offset>>r.bits, r.lo); n <= min(last, r.hi-1) && !r.full; n++ {
		r.addCluster(n, times, use)
	}
}

func (r *references) addCluster(n, times int64, use uint8) {
	c := r.chunk(n / chunkClusters)
	if c == nil || c == r.plain {
		if c = r.newChunk(n / chunkClusters); c == nil {
			return
		}
	}
	at := &c.counts[n%chunkClusters]
	before, want := *at, r.count(n)+times
	if over := want - r.limit; over > 0 {
		if r.limit < maxReferences {
			r.result.corrupt(over, "cluster %d has more references than a refcount can hold", n)
		}
		want = r.limit
	}
	*at = before&^manyRefs | use | uint8(min(want, int64(manyRefs)))
	if want >= int64(manyRefs) {
		r.many[n] = uint32(want)
		r.full = r.full || r.bytes() > maxReferenceBytes
	}
	const single = useData | 1
	if before == single {
		c.single--
	}
	if *at == single {
		c.single++
	}
	if c.single == chunkClusters {
		r.free(c)
		r.plains++
		r.chunks[n/chunkClusters], r.last = r.plain, nil
	}
}

// free makes a chunk ready for the next use.
func (r *references) free(c *chunk) {
	if c != r.plain {
		*c = chunk{}
		r.spare = append(r.spare, c)
	}
}

// newChunk returns a chunk of its own for a number; nil if there is no memory.
func (r *references) newChunk(number int64) *chunk {
	if r.full = r.full || r.bytes() > maxReferenceBytes; r.full {
		return nil
	}
	c := new(chunk)
	if n := len(r.spare) - 1; n >= 0 {
		c, r.spare = r.spare[n], r.spare[:n]
	}
	if r.chunks[number] == r.plain {
		for n := range c.counts {
			c.counts[n] = useData | 1
		}
		c.single = chunkClusters
		r.plains--
	}
	r.chunks[number], r.last, r.lastAt = c, c, number
	return c
}

func (r *references) bytes() int {
	return (len(r.chunks)-r.plains)*chunkClusters + (len(r.chunks)+len(r.many))*entryBytes
}
