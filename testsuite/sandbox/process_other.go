//go:build unix && !linux

package sandbox

import "syscall"

// diesWithParent can do nothing here: a child outlives a parent that is killed.
func diesWithParent(*syscall.SysProcAttr) {}
