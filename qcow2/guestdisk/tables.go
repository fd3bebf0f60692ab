package guestdisk

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"unicode/utf16"
)

type mbrEntry struct {
	status, kind byte
	start, count int64 // sectors
}

func mbrEntries(b []byte) [4]mbrEntry {
	var out [4]mbrEntry
	for n := range out {
		e := b[446+16*n:]
		out[n] = mbrEntry{e[0], e[4], int64(le.Uint32(e[8:])), int64(le.Uint32(e[12:]))}
	}
	return out
}

func extended(kind byte) bool { return kind == 0x05 || kind == 0x0f || kind == 0x85 }

func (d *Disk) add(number int, e mbrEntry) {
	d.Partitions = append(d.Partitions, Partition{Number: number, OffsetBytes: e.start * sector, SizeBytes: e.count * sector,
		Type: fmt.Sprintf("0x%02x", e.kind), Active: e.status&0x80 != 0})
}

// mbr reads the primary partitions and the chain of logical ones.
func (d *Disk) mbr(v view, entries [4]mbrEntry) error {
	for n, e := range entries {
		switch {
		case e.kind == 0 || e.count == 0:
		case extended(e.kind):
			if err := d.logical(v, e.start); err != nil {
				return err
			}
		default:
			d.add(n+1, e)
		}
	}
	return nil
}

// logical follows the chain of the extended partition that begins at base.
func (d *Disk) logical(v view, base int64) error {
	at := base
	for number := 5; number < 5+maxPartitions; number++ {
		b, err := v.read(at*sector, sector)
		if err != nil {
			return err
		}
		if len(b) < sector || b[510] != 0x55 || b[511] != 0xaa {
			d.Problems = append(d.Problems, fmt.Sprintf("the chain of logical partitions breaks at sector %d", at))
			return nil
		}
		entries := mbrEntries(b)
		if e := entries[0]; e.kind != 0 && e.count > 0 {
			e.start += at
			d.add(number, e)
		}
		next := entries[1]
		if !extended(next.kind) || next.count == 0 {
			return nil
		}
		if base+next.start <= at {
			d.Problems = append(d.Problems, "the chain of logical partitions goes backwards")
			return nil
		}
		at = base + next.start
	}
	d.Problems = append(d.Problems, fmt.Sprintf("more than %d logical partitions", maxPartitions))
	return nil
}

// gpt reads the partition table at the disk's begin, or its copy at the end.
func (d *Disk) gpt(v view) error {
	d.Table = GPT
	last := v.size/sector - 1
	for _, lba := range []int64{1, last} {
		ok, err := d.gptAt(v, lba)
		if err != nil || ok {
			return err
		}
		d.Problems = append(d.Problems, fmt.Sprintf("no valid GPT at sector %d", lba))
	}
	return nil
}

// gptAt reads the table whose header is at a sector (UEFI specification,
// section 5.3). It returns false if it is not valid.
func (d *Disk) gptAt(v view, lba int64) (bool, error) {
	h, err := v.read(lba*sector, sector)
	if err != nil {
		return false, err
	}
	if len(h) < sector || string(h[:8]) != "EFI PART" {
		return false, nil
	}
	length := le.Uint32(h[12:])
	if length < 92 || length > sector {
		return false, nil
	}
	sum := le.Uint32(h[16:])
	copy(h[16:20], []byte{0, 0, 0, 0})
	count, size := le.Uint32(h[80:]), le.Uint32(h[84:])
	if crc32.ChecksumIEEE(h[:length]) != sum || size < 128 || size > 4096 || count > 1024 {
		return false, nil
	}
	table := le.Uint64(h[72:])
	if table > uint64(v.size/sector) {
		return false, nil
	}
	b, err := v.read(int64(table)*sector, int(count*size))
	if err != nil {
		return false, err
	}
	if len(b) < int(count*size) || crc32.ChecksumIEEE(b) != le.Uint32(h[88:]) {
		return false, nil
	}
	for n := range int(count) {
		e := b[n*int(size):][:128]
		first, end := le.Uint64(e[32:]), le.Uint64(e[40:])
		if allZero(e[:16]) {
			continue
		}
		if first > end || end >= 1<<53 || len(d.Partitions) == maxPartitions {
			d.Problems = append(d.Problems, fmt.Sprintf("partition %d from sector %d to %d is not acceptable", n+1, first, end))
			continue
		}
		var name [36]uint16
		for k := range name {
			name[k] = le.Uint16(e[56+2*k:])
		}
		text := []byte(string(utf16.Decode(name[:])))
		text, _, _ = bytes.Cut(text, []byte{0})
		d.Partitions = append(d.Partitions, Partition{Number: n + 1, OffsetBytes: int64(first) * sector,
			SizeBytes: int64(end-first+1) * sector, Type: guid(e), Name: string(text)})
	}
	return true, nil
}

// guid formats the 16 bytes of a GUID as in a GPT: the first three parts are
// little-endian.
func guid(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}
