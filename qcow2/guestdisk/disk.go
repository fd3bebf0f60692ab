// Package guestdisk tells what a virtual machine's disk holds: its partition
// table, which firmware can boot it, the file systems and LVM, and from these
// the smallest disk it fits on. It reads through io.ReaderAt, for instance a
// [github.com/opentelekomcloud/go-imagefactory/qcow2.Image].
//
// # Limits
//
// A file system's type and sizes are what its superblock claims; nothing is
// mounted, and no file is read but the headers of boot loaders on an EFI system
// partition. Logical volumes are found in physical volumes
// that hold all of them, in segments that are not striped or mirrored.
// Sectors are 512 bytes.
//
// # Security
//
// Everything on the disk is hostile. At most a few MiB are read, a few hundred KiB
// are kept, and every number is checked before it is used as an offset or length.
package guestdisk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	sector        = 512
	maxPartitions = 256
	// Boot code has these many bytes before the disk's signature.
	bootCodeBytes = 440
)

// The values of Disk.Table.
const (
	MBR = "mbr"
	GPT = "gpt"
)

// Firmware is the value of the image property hw_firmware_type.
type Firmware string

// The two firmware types.
const (
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
)

// Disk is what was found on a disk.
type Disk struct {
	SizeBytes  int64       `json:"size"`
	Table      string      `json:"partition-table,omitempty"` // MBR, GPT, or empty if there is none
	Partitions []Partition `json:"partitions,omitempty"`
	// Content is what the whole disk holds if it has no partition table.
	Content *Content `json:"content,omitempty"`
	// BootBIOS says that there is boot code and a partition to go on with;
	// BootUEFI that there is an EFI system partition with a FAT file system.
	BootBIOS bool `json:"boot-bios"`
	BootUEFI bool `json:"boot-uefi"`
	// EFIArchs are the architectures of the boot loaders on the EFI system
	// partition, EFI/BOOT/BOOT*.EFI, sorted and each once: "amd64", "arm64" and
	// others as GOARCH names them, or the number of PE's machine such as "0x0200".
	EFIArchs []string `json:"efi-archs,omitempty"`
	// MinDiskGiB is the size of the smallest disk the image can be written to,
	// in GiB: the disk's own size rounded up, and not less than its partitions
	// claim.
	MinDiskGiB int64 `json:"min-disk"`
	// UsedEndBytes is where the last partition ends: what is behind could be
	// cut off, but for a GPT's second copy.
	UsedEndBytes int64 `json:"used-end"`
	// Problems say what in the tables contradicts the disk.
	Problems []string `json:"problems,omitempty"`
}

// A Partition is one entry of the partition table.
type Partition struct {
	Number      int      `json:"number"` // from 1; logical partitions from 5
	OffsetBytes int64    `json:"offset"`
	SizeBytes   int64    `json:"size"`
	Type        string   `json:"type"` // GUID of a GPT, or like "0x83"
	Name        string   `json:"name,omitempty"`
	Active      bool     `json:"active,omitempty"` // the MBR's flag
	Content     *Content `json:"content,omitempty"`
}

// Content is what a partition, a logical volume or a whole disk holds.
type Content struct {
	Type      string `json:"type"` // "ext4", "xfs", "vfat", "swap", "LVM2_member", … as blkid has it
	Label     string `json:"label,omitempty"`
	UUID      string `json:"uuid,omitempty"`
	SizeBytes int64  `json:"size,omitempty"` // that it claims; 0 if unknown
	FreeBytes int64  `json:"free,omitempty"` // that it claims; 0 if unknown
	// VolumeGroup and Volumes are for LVM2_member.
	VolumeGroup string   `json:"volume-group,omitempty"`
	Volumes     []Volume `json:"volumes,omitempty"`
}

// A Volume is a logical volume of LVM.
type Volume struct {
	Name      string   `json:"name"`
	SizeBytes int64    `json:"size"`
	Content   *Content `json:"content,omitempty"` // nil if its place is not simple
	// OffsetBytes is where it begins in what holds it; 0 if its place is not simple.
	OffsetBytes int64 `json:"offset,omitempty"`
}

// Firmware is the image property that fits: BIOS if the disk boots with it,
// else UEFI if it boots with that, else empty.
func (d *Disk) Firmware() Firmware {
	switch {
	case d.BootBIOS:
		return BIOS
	case d.BootUEFI:
		return UEFI
	}
	return ""
}

// Inspect examines the disk in r, which is size bytes long. The error is
// about reading; whatever is on the disk gives a Disk.
func Inspect(r io.ReaderAt, size int64) (*Disk, error) {
	d := &Disk{SizeBytes: size}
	v := view{r: r, size: size}
	first, err := v.read(0, sector)
	if err != nil {
		return nil, fmt.Errorf("cannot inspect the disk: %w", err)
	}
	if err := d.tables(v, first); err != nil {
		return nil, fmt.Errorf("cannot inspect the disk: %w", err)
	}
	if d.Table == "" {
		if d.Content, err = content(v, true); err != nil {
			return nil, fmt.Errorf("cannot inspect the disk: %w", err)
		}
	}
	slices.SortStableFunc(d.Partitions, func(a, b Partition) int { return a.Number - b.Number })
	for n := range d.Partitions {
		p := &d.Partitions[n]
		if p.Content, err = content(v.sub(p.OffsetBytes, p.SizeBytes), true); err != nil {
			return nil, fmt.Errorf("cannot inspect partition %d: %w", p.Number, err)
		}
	}
	if err := d.loaders(v); err != nil {
		return nil, fmt.Errorf("cannot inspect the EFI system partition: %w", err)
	}
	d.conclude(first)
	return d, nil
}

// loaders looks for boot loaders on EFI system partitions.
func (d *Disk) loaders(v view) error {
	looked := 0
	for _, p := range d.Partitions {
		if !p.isESP() || looked == maxESPs {
			continue
		}
		looked++
		archs, err := efiArchs(v.sub(p.OffsetBytes, p.SizeBytes))
		if err != nil {
			return err
		}
		d.EFIArchs = append(d.EFIArchs, archs...)
	}
	slices.Sort(d.EFIArchs)
	d.EFIArchs = slices.Compact(d.EFIArchs)
	return nil
}

const (
	guidESP  = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	guidBIOS = "21686148-6449-6e6f-744e-656564454649"
)

func (p *Partition) isESP() bool { return p.Type == guidESP || p.Type == "0xef" }

// tables reads the partition tables.
func (d *Disk) tables(v view, first []byte) error {
	if len(first) < sector || first[510] != 0x55 || first[511] != 0xaa {
		return nil
	}
	entries := mbrEntries(first)
	for _, e := range entries {
		if e.kind == 0xee {
			return d.gpt(v)
		}
	}
	// A file system's boot sector has the same signature; as a partition
	// table it makes no sense.
	valid := 0
	for _, e := range entries {
		switch {
		case e.status&0x7f != 0:
			return nil
		case e.kind != 0 && e.count > 0:
			valid++
		}
	}
	if valid == 0 {
		return nil
	}
	d.Table = MBR
	return d.mbr(v, entries)
}

// conclude draws the conclusions.
func (d *Disk) conclude(first []byte) {
	code := len(first) == sector && !allZero(first[:bootCodeBytes])
	for _, p := range d.Partitions {
		end := p.OffsetBytes + p.SizeBytes
		d.UsedEndBytes = max(d.UsedEndBytes, end)
		if end > d.SizeBytes {
			d.Problems = append(d.Problems, fmt.Sprintf("partition %d ends at %d, beyond the disk", p.Number, end))
		}
		fat := p.Content != nil && p.Content.Type == "vfat"
		switch {
		case p.isESP():
			d.BootUEFI = d.BootUEFI || fat
		case p.Type == guidBIOS, p.Active:
			d.BootBIOS = d.BootBIOS || code
		}
		// GRUB in the gap before the first partition needs no active flag.
		if d.Table == MBR && code && p.Content != nil && p.Type != "0xef" {
			d.BootBIOS = true
		}
	}
	if d.Content != nil {
		d.UsedEndBytes = d.SizeBytes
	}
	const gib = 1 << 30
	d.MinDiskGiB = (max(d.SizeBytes, d.UsedEndBytes) + gib - 1) / gib
}

// view is a range of the disk.
type view struct {
	r            io.ReaderAt
	offset, size int64
}

func (v view) sub(offset, size int64) view {
	offset = min(max(0, offset), v.size)
	return view{v.r, v.offset + offset, min(max(0, size), v.size-offset)}
}

// read returns up to length bytes at off; fewer where the range ends.
func (v view) read(off int64, length int) ([]byte, error) {
	if off < 0 || off >= v.size {
		return nil, nil
	}
	b := make([]byte, min(int64(length), v.size-off))
	n, err := v.r.ReadAt(b, v.offset+off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

var le = binary.LittleEndian
