package qcow2

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// QEMU locks a byte of the file for each thing that it does with the image,
// and another for each that it lets nobody else do (block/file-posix.c).
const (
	lockDoes    = 100
	lockForbids = 200
	permRead    = 0
	permWrite   = 1
	permResize  = 3

	ofdGetLock = 36 // F_OFD_GETLK
)

// InUse returns an error (ErrInUse) if QEMU, or another process that locks
// files as QEMU does, has the file open for writing or lets nobody read it.
// Readers do not count. On other systems than Linux it returns nil.
func InUse(f *os.File) error {
	for _, probe := range []struct {
		at   int64
		what string
	}{
		{lockDoes + permWrite, "another process, such as QEMU, has it open for writing"},
		{lockDoes + permResize, "another process, such as QEMU, has it open for resizing"},
		{lockForbids + permRead, "another process, such as QEMU, does not let others read it"},
	} {
		lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart, Start: probe.at, Len: 1}
		if err := syscall.FcntlFlock(f.Fd(), ofdGetLock, &lock); err != nil {
			return nil //nolint:nilerr // the file system has no locks
		}
		if lock.Type != syscall.F_UNLCK {
			return fmt.Errorf("%w: %s", ErrInUse, probe.what)
		}
	}
	return nil
}
