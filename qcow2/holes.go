package qcow2

import (
	"io"
	"os"
)

// holes finds the holes of a file, where nothing is read. They are asked for
// in the file's order, so one answer serves many questions.
type holes struct {
	file       *os.File
	offset     int64 // of the file before it was asked
	start, end int64 // of the last answer
	hole       bool  // the last answer
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
	if off < h.start || off >= h.end {
		h.start, h.end, h.hole = off, off+length, false
		if start, end, err := nextData(h.file, off); err == nil && start > off {
			h.end, h.hole = start, true
		} else if err == nil && end > off {
			h.end = end
		}
	}
	return min(length, h.end-off), h.hole
}
