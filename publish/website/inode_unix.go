//go:build linux

package website

import (
	"fmt"
	"io/fs"
	"syscall"
)

// inode tells a file's inode and when that changed last, also by a change of the
// file's content. A further link changes that time too, so it counts only where the
// file has no more links than the release's own.
func inode(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprint(st.Dev, st.Ino, st.Ctim.Nano())
}
