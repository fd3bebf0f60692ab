package qcow2

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// nextData returns where data begins at or behind off, and where it ends. In
// a hole that reaches to the end of the file both are that end.
func nextData(f *os.File, off int64) (start, end int64, err error) {
	const seekData, seekHole = 3, 4
	start, err = f.Seek(off, seekData)
	if errors.Is(err, syscall.ENXIO) {
		end, err = f.Seek(0, io.SeekEnd)
		return end, end, err
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = f.Seek(start, seekHole)
	return start, end, err
}
