//go:build !linux

package website

import "io/fs"

func inode(fs.FileInfo) string { return "" }
