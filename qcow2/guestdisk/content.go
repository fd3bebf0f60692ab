package guestdisk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// content recognises what a range holds, or returns nil. Inside physical
// volumes it looks once.
func content(v view, lvm bool) (*Content, error) {
	head, err := v.read(0, 8<<10)
	if err != nil || len(head) < 4<<10 {
		return nil, err
	}
	for _, known := range []func([]byte) *Content{luks, xfs, ext, ntfs, vfat, swap, squashfs} {
		if c := known(head); c != nil {
			return c, nil
		}
	}
	if lvm {
		if c, err := physicalVolume(v, head); c != nil || err != nil {
			return c, err
		}
	}
	if b, err := v.read(64<<10, 4<<10); err != nil || btrfs(b) != nil {
		return btrfs(b), err
	}
	b, err := v.read(32<<10, 2<<10)
	if err != nil {
		return nil, err
	}
	return iso9660(b), nil
}

// sized fills in sizes that are products of hostile numbers.
func (c *Content) sized(blocks, free, blockSize uint64) *Content {
	if high, size := bits.Mul64(blocks, blockSize); high == 0 && size < 1<<62 {
		c.SizeBytes = int64(size)
		if free <= blocks {
			c.FreeBytes = int64(free * blockSize)
		}
	}
	return c
}

// text returns a label up to its first zero, without blanks at its end, and
// with what is not printable replaced.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	s := bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, bytes.ToValidUTF8(b, []byte("?")))
	return string(bytes.TrimRight(s, " "))
}

func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// ext recognises ext2, ext3 and ext4.
func ext(b []byte) *Content {
	s := b[1024:]
	if le.Uint16(s[56:]) != 0xef53 || le.Uint32(s[24:]) > 6 {
		return nil
	}
	const (
		compatJournal  = 0x4
		incompatExtent = 0x40 | 0x80 | 0x200 // extents, 64bit, flex_bg
		roExt4         = 0x8 | 0x10 | 0x20 | 0x40 | 0x400
	)
	compat, incompat, ro := le.Uint32(s[92:]), le.Uint32(s[96:]), le.Uint32(s[100:])
	c := &Content{Type: "ext2", Label: text(s[120:136]), UUID: uuid(s[104:])}
	switch {
	case incompat&incompatExtent != 0 || ro&roExt4 != 0:
		c.Type = "ext4"
	case compat&compatJournal != 0:
		c.Type = "ext3"
	}
	blocks, free := uint64(le.Uint32(s[4:])), uint64(le.Uint32(s[12:]))
	if incompat&0x80 != 0 {
		blocks |= uint64(le.Uint32(s[0x150:])) << 32
		free |= uint64(le.Uint32(s[0x158:])) << 32
	}
	return c.sized(blocks, free, 1024<<le.Uint32(s[24:]))
}

func xfs(b []byte) *Content {
	be := binary.BigEndian
	if string(b[:4]) != "XFSB" {
		return nil
	}
	c := &Content{Type: "xfs", Label: text(b[108:120]), UUID: uuid(b[32:])}
	return c.sized(be.Uint64(b[8:]), be.Uint64(b[144:]), uint64(be.Uint32(b[4:])))
}

func btrfs(b []byte) *Content {
	if len(b) < 0x300 || string(b[0x40:0x48]) != "_BHRfS_M" {
		return nil
	}
	c := &Content{Type: "btrfs", Label: text(b[0x12b:0x22b]), UUID: uuid(b[0x20:])}
	total, used := le.Uint64(b[0x70:]), le.Uint64(b[0x78:])
	return c.sized(total, total-min(used, total), 1)
}

func vfat(b []byte) *Content {
	if b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	c := &Content{Type: "vfat"}
	switch {
	case string(b[82:87]) == "FAT32":
		c.Label, c.UUID = text(b[71:82]), fmt.Sprintf("%04X-%04X", le.Uint16(b[69:]), le.Uint16(b[67:]))
	case string(b[54:57]) == "FAT":
		c.Label, c.UUID = text(b[43:54]), fmt.Sprintf("%04X-%04X", le.Uint16(b[41:]), le.Uint16(b[39:]))
	default:
		return nil
	}
	if c.Label == "NO NAME" {
		c.Label = ""
	}
	sectors := uint64(le.Uint16(b[19:]))
	if sectors == 0 {
		sectors = uint64(le.Uint32(b[32:]))
	}
	c.sized(sectors, 0, uint64(le.Uint16(b[11:])))
	return c
}

func ntfs(b []byte) *Content {
	if string(b[3:11]) != "NTFS    " {
		return nil
	}
	c := &Content{Type: "ntfs", UUID: fmt.Sprintf("%016X", le.Uint64(b[72:]))}
	return c.sized(le.Uint64(b[40:]), 0, uint64(le.Uint16(b[11:])))
}

func swap(b []byte) *Content {
	if string(b[4086:4096]) != "SWAPSPACE2" {
		return nil
	}
	c := &Content{Type: "swap", UUID: uuid(b[1036:]), Label: text(b[1052:1068])}
	return c.sized(uint64(le.Uint32(b[1028:]))+1, 0, 4096)
}

func luks(b []byte) *Content {
	if string(b[:6]) != "LUKS\xba\xbe" {
		return nil
	}
	return &Content{Type: "crypto_LUKS", UUID: text(b[168:208])}
}

func squashfs(b []byte) *Content {
	if string(b[:4]) != "hsqs" {
		return nil
	}
	return (&Content{Type: "squashfs"}).sized(le.Uint64(b[40:]), 0, 1)
}

func iso9660(b []byte) *Content {
	if len(b) < 2<<10 || string(b[1:6]) != "CD001" {
		return nil
	}
	c := &Content{Type: "iso9660", Label: text(b[40:72])}
	return c.sized(uint64(le.Uint32(b[80:])), 0, uint64(le.Uint16(b[128:])))
}
