//go:build !linux

package diskfile

import (
	"errors"
	"os"
)

func deviceNumber(os.FileInfo) uint64 { return 0 }

// Elsewhere a file that is there is written in place.
func replaceable(string, os.FileInfo) bool   { return false }
func likeness(*os.File, os.FileInfo) error   { return errInPlace }
func zeroRange(*os.File, int64, int64) error { return errors.ErrUnsupported }
