// Package qcow2 tells everything about a qcow2 image that qemu-img tells, and
// whether the image can be trusted, without running QEMU; and it reads,
// converts, compares and rewrites the guest's disk. It implements versions 2
// and 3 of the format as specified in QEMU's docs/interop/qcow2.
//
//   - [Inspect] reads the header, its extensions and the lists of snapshots and
//     bitmaps; [Info.Safety] judges them under a [Policy]. An [Inspector] does
//     the same with an upload while it passes.
//   - [Check] compares refcounts and tables with each other, as qemu-img check.
//   - [Open] and [OpenFile] give the guest's disk, or that of an internal
//     snapshot, as an io.ReaderAt; [Image.Map] its extents. [Image.Safety] also
//     judges how the disk begins.
//   - [Convert] and [Stream], [Digest] and [Compare] work through the disk,
//     [Compact] writes it as a new, compressed image.
//
// What is in the guest's disk tells the package guestdisk; the package diskfile
// writes images where users want them.
//
// # Errors
//
// What is wrong with an image is a *[FormatError] with offset and value. Its
// kind is for errors.Is: [ErrNotQCOW2], which names the file's format where it
// is known, [ErrMalformed], [ErrUnsupported] or [ErrEncrypted]. OpenFile refuses
// with [ErrInUse] what QEMU is writing to. Other errors come from the reader,
// the resolver or the context.
//
// # Security
//
// Every number in an image is hostile until it was compared with the file's
// length and the specification's range. Nothing is allocated because a header
// claims it: Inspect needs less than 1 MiB, Check less than 48 MiB, everything
// else less than 64 MiB for any image and number of workers. Each table is gone
// through once, however often the image uses it. Other files are opened only by
// the resolver that the caller passes, or by OpenFile in the directory that it
// is given. A small file can claim, with tables that it uses again and again, a
// disk of exabytes full of data, which takes time: pass a context with a
// deadline, and look at Info.VirtualSize first.
//
// # Holes
//
// What works through a disk reads nothing where the image has no data, nor
// where the *os.File that holds the data has a hole. That is asked of Linux;
// elsewhere a file is all data. Space that was allocated and never written is a
// hole, but for what the system happens to have read of it.
//
// # Compatibility
//
// An image is accepted, and clean for Check, where QEMU 7.2 opens it and
// qemu-img check finds nothing, and nowhere else; a compressed cluster is read
// where QEMU reads it, with the same bytes. The tests compare both over
// thousands of damaged images and streams, with another seed each time, and the
// results of Check and Map over images of all kinds. Known differences:
//
//   - A table or cluster behind the end of the file reads as zero in QEMU; here
//     Open refuses the one and ReadAt the other. Check counts both as QEMU.
//   - Where tables overlap so much that checking them takes QEMU minutes, Check
//     stops with a check error.
//   - Map does not ask the host's file system for holes.
//   - Images without a refcount table, which qemu-img check reports corrupt,
//     are refused as malformed; so are more than 64 KiB of header extensions.
//   - QEMU knows which ciphers and hashes of LUKS it has, and needs the key to
//     check an encrypted image.
//   - libzstd before 1.5.5 does not look at reserved bits, nor always at whether
//     a frame keeps to the window that it claims. We do, and do not read the
//     frames of zstd before 0.8.
//
// # Limits
//
// Guest data of encrypted images cannot be read, nor the state of a machine
// that a snapshot holds. Snapshots are found in the first 128 KiB of their
// table. Check does not decompress clusters. Nothing is repaired. The format
// of a backing file must be named in the image: it is never guessed.
package qcow2
