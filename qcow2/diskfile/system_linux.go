package diskfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func deviceNumber(stat os.FileInfo) uint64 {
	if s, ok := stat.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Rdev) //nolint:unconvert // 32 bits on some machines
	}
	return 0
}

// replaceable says whether a new file under the name would be all that the
// old one is.
func replaceable(name string, stat os.FileInfo) bool {
	s, ok := stat.Sys().(*syscall.Stat_t)
	return ok && s.Nlink == 1 && !hasAttributes(name) && !isMountPoint(name)
}

// hasAttributes says whether a file has extended attributes, as access control
// lists are, besides those that the system gives to each file.
func hasAttributes(name string) bool {
	b := make([]byte, 64<<10)
	n, err := syscall.Listxattr(name, b)
	if err != nil {
		return !errors.Is(err, syscall.ENOTSUP)
	}
	for attribute := range strings.SplitSeq(string(b[:n]), "\x00") {
		if attribute != "" && !strings.HasPrefix(attribute, "security.") {
			return true
		}
	}
	return false
}

// isMountPoint says whether a file is mounted over another, as containers are
// given files.
func isMountPoint(name string) bool {
	path, err := filepath.Abs(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return true
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == escape.Replace(path) {
			return true
		}
	}
	return false
}

// likeness gives a new file mode and owner of the old one.
func likeness(f *os.File, old os.FileInfo) error {
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	have, ok := stat.Sys().(*syscall.Stat_t)
	want, also := old.Sys().(*syscall.Stat_t)
	if !ok || !also || hasAttributes(f.Name()) {
		return errInPlace
	}
	if have.Uid != want.Uid || have.Gid != want.Gid {
		if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(old.Mode().Perm())
}

// zeroRange has a block device zero a range.
func zeroRange(f *os.File, off, length int64) error {
	const zeroRange, keepSize = 0x10, 0x01
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = syscall.Fallocate(int(fd), zeroRange|keepSize, off, length) })
	return errors.Join(err, failed)
}
