//go:build !linux

package qcow2

import "os"

// InUse returns nil: only on Linux it is known how QEMU locks files.
func InUse(*os.File) error { return nil }
