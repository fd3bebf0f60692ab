package qcow2

import (
	"io"
	"math"
	"os"
)

// holes finds the holes of a file, where nothing is read. It is asked in the
// file's order, so one answer serves many questions: a hole, data, and the hole
// behind it. That one must be known before the data is read, since what the
// system reads ahead into space that is allocated but was never written counts
// as data from then on.
type holes struct {
	file   *os.File
	offset int64 // of the file before it was asked
	known  int64 // from here on: a hole,
	start  int64 // data,
	end    int64 // a hole,
	next   int64 // and what is not known
}

// newHoles returns nil if r is not known to be a file as it lies on a disk:
// what a reader makes of a file's holes is its own affair.
func newHoles(r io.ReaderAt) *holes {
	var f *os.File
	switch r := r.(type) {
	case *os.File:
		f = r
	case interface{ File() *os.File }:
		f = r.File()
	}
	if f == nil {
		return nil
	}
	offset, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil
	}
	return &holes{file: f, offset: offset}
}

// close puts the file's offset back.
func (h *holes) close() {
	if h != nil {
		_, _ = h.file.Seek(h.offset, io.SeekStart)
	}
}

// at returns how much of the length bytes at off are one hole, or data. What
// lies beyond the end of the file is data: reading it is an error.
func (h *holes) at(off, length int64) (int64, bool) {
	if h == nil {
		return length, false
	}
	if off < h.known || off >= h.next {
		h.ask(off)
	}
	switch {
	case off < h.start:
		return min(length, h.start-off), true
	case off < h.end:
		return min(length, h.end-off), false
	}
	return min(length, h.next-off), true
}

func (h *holes) ask(off int64) {
	known := off
	if off == h.next {
		known = h.end
	}
	start, end, err := nextData(h.file, off)
	switch {
	case err != nil || end <= off: // no answer, or behind the end of the file
		*h = holes{file: h.file, offset: h.offset, known: off, start: off, end: math.MaxInt64, next: math.MaxInt64}
		return
	case start == end: // no data up to the end of the file
		h.known, h.start, h.end, h.next = known, end, end, end
		return
	}
	h.known, h.start, h.end, h.next = known, start, end, end
	if next, _, err := nextData(h.file, end); err == nil && next > end {
		h.next = next
	}
}
