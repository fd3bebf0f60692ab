package qcow2

import (
	"errors"
	"io"
)

// maxWatched bounds the clusters of a stream whose content an Inspector
// remembers in four bytes each.
const maxWatched = 1 << 20

// An Inspector inspects an image that passes as a stream, as an upload does:
// write the file's bytes to it, in order and beside wherever else they go,
// then ask Info. It keeps the header, the tables that Inspect reads and four
// bytes for each of the first million clusters: at most 13 MiB, of a file
// that really is that long. The zero Inspector has seen nothing. It is not for
// concurrent use.
type Inspector struct {
	written int64
	header  bool // was parsed, and ranges are known
	refused error
	cluster int64
	ranges  []captured
	// last holds for each cluster the index of its last byte that is not zero,
	// + 1. Which clusters are refcount blocks is known later.
	last []uint32
	tail []byte // the last bytes that passed
}

// errNotKept says that a cluster passed and was not remembered.
var errNotKept = errors.New("not kept")

// captured is a part of the stream that is kept.
type captured struct {
	offset, length int64
	data           []byte
}

// NewInspector returns an Inspector that has seen nothing.
func NewInspector() *Inspector { return new(Inspector) }

// Write takes the next bytes of the file. As soon as the header shows that
// Inspect would refuse the file it returns that error, so that an upload can
// end there; a caller who goes on writing gets the same error each time, and
// the verdict of Info is still the one that Inspect has.
func (s *Inspector) Write(p []byte) (int, error) {
	if s.ranges == nil {
		s.ranges = []captured{{length: headerLengthV3 + 8}, {length: formatHead}, {offset: isoOffset, length: 5}}
	}
	for rest := p; len(rest) > 0; {
		// The ranges depend on what the header, then the first cluster, say.
		n := int64(len(rest))
		if first := int64(headerLengthV3 + 8); !s.header {
			n = min(n, first-s.written)
		} else if s.cluster > 0 {
			n = min(n, s.cluster-s.written%s.cluster)
		}
		s.take(rest[:n])
		rest = rest[n:]
		switch {
		case !s.header && s.written == headerLengthV3+8:
			s.parse()
		case s.header && s.written == s.cluster:
			s.more()
		}
	}
	return len(p), s.refused
}

// take keeps what is needed of bytes that lie within one cluster.
func (s *Inspector) take(p []byte) {
	for n := range s.ranges {
		r := &s.ranges[n]
		begin, end := max(s.written, r.offset), min(s.written+int64(len(p)), r.offset+r.length)
		if begin < end {
			r.data = append(r.data, p[begin-s.written:end-s.written]...)
		}
	}
	if s.cluster > 0 {
		number, within := s.written/s.cluster, s.written%s.cluster
		for int64(len(s.last)) <= number && len(s.last) < maxWatched {
			s.last = append(s.last, 0)
		}
		if last := lastByte(p); last >= 0 && number < int64(len(s.last)) {
			s.last[number] = uint32(within) + uint32(last) + 1
		}
	}
	s.written += int64(len(p))
	if len(p) < formatTail {
		s.tail = append(s.tail, p...)
		s.tail = s.tail[max(0, len(s.tail)-formatTail):]
	} else {
		s.tail = append(s.tail[:0], p[len(p)-formatTail:]...)
	}
}

// parse reads the header and decides which tables to keep.
func (s *Inspector) parse() {
	s.header = true
	h, err := parseHeader(s.ranges[0].data)
	if err != nil {
		s.refused = err
		return
	}
	if faults := h.faults(); len(faults) > 0 {
		s.refused = faults[0]
	}
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		return
	}
	s.cluster = h.clusterSize()
	s.keep(0, min(s.cluster, int64(min(h.HeaderLength, 1<<maxClusterBits))+maxExtensionsBytes))
	if h.BackingFileOffset != 0 && h.BackingFileOffset < uint64(s.cluster) {
		s.keep(int64(h.BackingFileOffset), maxBackingName)
	}
	if h.SnapshotCount > 0 && h.SnapshotsOffset <= maxHostOffset {
		s.keep(int64(h.SnapshotsOffset), inspectTableBytes)
	}
	if h.RefcountTableOffset <= maxHostOffset {
		s.keep(int64(h.RefcountTableOffset), min(int64(h.RefcountTableClusters)<<h.ClusterBits, maxRefTableBytes))
	}
	// The header's own bytes have passed; they begin the first cluster.
	s.last = []uint32{headerLengthV3}
}

// more finds what the extensions lead to when the first cluster has passed.
func (s *Inspector) more() {
	i, err := Inspect(sparse{s}, s.written)
	if err != nil && s.refused == nil {
		s.refused = err
	}
	if i == nil {
		return
	}
	if i.LUKSHeader.Length >= luksHeader {
		s.keep(i.LUKSHeader.Offset, luksHeader)
	}
	if i.bitmapCount > 0 {
		s.keep(i.bitmapDir.Offset, min(i.bitmapDir.Length, inspectTableBytes))
	}
}

// keep captures a range. What of it has passed already is in the first range,
// which is kept as a whole.
func (s *Inspector) keep(offset, length int64) {
	r := captured{offset: offset, length: length}
	if offset < s.written {
		have := s.ranges[0].data[min(offset, int64(len(s.ranges[0].data))):]
		r.data = append(r.data, have[:min(length, int64(len(have)))]...)
	}
	s.ranges = append(s.ranges, r)
}

// Info returns what Inspect would return for the bytes that were written.
// Trailing data is not found where a refcount block lies behind the first
// million clusters of the file.
func (s *Inspector) Info() (*Info, error) { return Inspect(sparse{s}, s.written) }

// sparse reads from what an Inspector kept; everything else is zero.
type sparse struct{ s *Inspector }

// ReadAt implements io.ReaderAt.
func (r sparse) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), max(0, r.s.written-off)))
	clear(p[:n])
	ranges := append(r.s.ranges[:len(r.s.ranges):len(r.s.ranges)], captured{offset: r.s.written - int64(len(r.s.tail)), data: r.s.tail})
	for _, c := range ranges {
		end := min(off+int64(n), c.offset+int64(len(c.data)))
		if begin := max(off, c.offset); begin < end {
			copy(p[begin-off:], c.data[begin-c.offset:end-c.offset])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// lastNonZero is used by Inspect in place of reading a refcount block.
func (r sparse) lastNonZero(offset int64) (int64, error) {
	if r.s.cluster == 0 {
		return -1, nil // the file is shorter than any cluster
	}
	number := offset / r.s.cluster
	switch {
	case number < int64(len(r.s.last)):
		return int64(r.s.last[number]) - 1, nil
	case offset >= r.s.written:
		return -1, nil
	}
	return 0, errNotKept
}
