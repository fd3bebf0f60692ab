package sandbox

import "cmp"

// defaultMemoryMiB is what a machine has where QEMU.MemoryMiB does not say.
const defaultMemoryMiB = 1024

// MemoryBytes is what each machine has, for who shares a host's memory among them.
func (q QEMU) MemoryBytes() int64 { return int64(cmp.Or(q.MemoryMiB, defaultMemoryMiB)) << 20 }
