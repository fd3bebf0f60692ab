// Package diskfile opens disk images for reading, and writes them where a
// user wants them: to a new file, over an old one, through a symbolic link, to
// a block device or into a pipe.
//
// # What is written over
//
// A new file has the mode that the umask leaves. It appears under its name
// when it is complete: until then it is called .NAME.….partial and stands in
// the same directory. An error or a cancelled context leaves nothing; a killed
// process at most that file.
//
// A file that is there is replaced in the same way, and keeps mode and owner;
// bits for set-user-ID and the like go, as they do with any write. Symbolic
// links are followed, never replaced. A file that may not be written to is not
// replaced either, even where its directory would allow it.
//
// Where replacing would lose something the file is written in place: it has
// several names, extended attributes or access control lists, an owner that
// cannot be given to a new file, is a mount point, was named by a descriptor
// (/dev/stdout), or no file can be made beside it. After an error such a file
// is empty, so that a part of an image is not taken for the whole.
//
// A block device is opened exclusively, which fails while it is mounted, and
// must be large enough. Its old content is overwritten as far as the image
// goes, and stays behind it.
package diskfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Open opens a regular file or a block device for reading, and returns its
// size in bytes. Anything else is an error at once: a pipe would wait for its
// writer, and none of them can be read at an offset.
func Open(name string) (*os.File, int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	size, err := sizeOf(f)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("cannot read %s: %w", name, err), f.Close())
	}
	return f, size, nil
}

func sizeOf(f *os.File) (int64, error) {
	stat, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !stat.Mode().IsRegular() && !isBlock(stat) {
		return 0, fmt.Errorf("%s is not a regular file or block device", kind(stat))
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return size, err
}

// Same says whether two descriptions are of the same file or device.
func Same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) || isBlock(a) && isBlock(b) && deviceNumber(a) == deviceNumber(b)
}

func isBlock(stat os.FileInfo) bool {
	return stat.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice
}

// kind names what a file is.
func kind(stat os.FileInfo) string {
	switch mode := stat.Mode(); {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeCharDevice != 0:
		return "a character device"
	}
	return "this kind of file"
}
