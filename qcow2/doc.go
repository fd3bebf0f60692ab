// Package qcow2 tells everything about a qcow2 image that qemu-img tells, and
// whether it can be trusted, without running QEMU.
package qcow2
