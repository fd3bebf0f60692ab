// Package sandbox boots an image so that it can be tested, without changing
// the image and without letting the guest out.
//
// [Sandbox] is the interface that the factory boots images with, and [QEMU] its
// default: [QEMU.Boot] starts QEMU on an overlay that is larger than the image, gives
// cloud-init a NoCloud seed that holds an instance ID, a host name and one SSH
// public key and nothing else, reads the guest's SSH host keys from its serial
// console, and returns when the guest lets its user in by that key. What the
// guest is otherwise (its user, sudo, password, sshd, time servers) comes from
// the image, so that it is the image that is tested.
//
// [Existing] is the Sandbox of a machine that runs already.
//
// [Reader] reads the files of an image that is not booted, for package ledger: the
// file systems are mounted by the kernel of another such machine, which has
// nothing but them and a way to write to. After [Machine.PowerOff] it reads the disk
// of a machine that ran likewise.
//
// # Security
//
// The guest is not trusted. It has no way to the host's loopback or to the
// network: what it has for a network is package network, in this process, at the other
// end of a pair of sockets that only QEMU inherits; a port on 127.0.0.1 leads
// in. That network serves addresses, names and the time, and is the Target's Witness
// of what answers from outside and of what the guest sends.
//
// The disk's header is read before QEMU sees it, and an image that names a backing file or an external data file is refused. What it
// prints is bounded in memory, and only the first complete block of host keys
// on the console counts. QEMU runs with a system call filter.
//
// A boot is judged while it runs, by the console, the firmware's own words and QEMU's
// events: a guest that cannot be used any more ends it at once with a [*GuestError]. One that
// says nothing at all is waited for until the boot timeout. A machine that is started again
// by Restart is judged likewise; what happens while it is used is not, so that a panic in
// a Reboot ends by that reboot's timeout.
//
// The password that the console shows is kept in the Target and nowhere else:
// logs and errors have it redacted.
//
// # Limits
//
// Linux guests of x86-64 with BIOS or UEFI boot, cloud-init and an sshd; they must
// print to the first serial port. QEMU ends with this program even when the
// program is killed, but only on Linux; elsewhere only Close ends it. What else such a
// program leaves, a directory imagefactory-sandbox-* in its WorkDir, the next Boot with
// that WorkDir removes.
package sandbox
