package guestdisk

import (
	"bytes"
	"fmt"
	"slices"
)

const (
	maxESPs      = 4        // EFI system partitions that are looked into
	maxDirectory = 64 << 10 // bytes of a directory that are read
	maxLoaders   = 16       // that are read on each
	maxPEHeader  = 4 << 10  // where a loader's PE header is looked for
)

// efiArchs returns the architectures of the boot loaders on an EFI system
// partition: those of the PE headers of EFI/BOOT/BOOT*.EFI, which is where
// firmware looks on a disk that it has not seen before (UEFI specification,
// section 3.5.1.1). What is not a FAT, or is damaged, has none.
func efiArchs(v view) ([]string, error) {
	f, err := openFAT(v)
	if f == nil || err != nil {
		return nil, err
	}
	dir := f.root
	for _, name := range []string{"EFI        ", "BOOT       "} {
		entries, err := f.directory(dir)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(entries, func(e fatEntry) bool { return e.dir && e.name == name })
		if i < 0 {
			return nil, nil
		}
		dir = entries[i].cluster
	}
	entries, err := f.directory(dir)
	if err != nil {
		return nil, err
	}
	var archs []string
	looked := 0
	for _, e := range entries {
		if e.dir || e.name[:4] != "BOOT" || e.name[8:] != "EFI" || looked == maxLoaders {
			continue
		}
		looked++
		head, err := f.read(e.cluster, min(maxPEHeader, int(e.size)))
		if err != nil {
			return nil, err
		}
		if arch := peArch(head); arch != "" && !slices.Contains(archs, arch) {
			archs = append(archs, arch)
		}
	}
	slices.Sort(archs)
	return archs, nil
}

// peArch is the architecture of a PE file, as GOARCH names it, or its number
// where that has no name here; "" if it is no PE file.
func peArch(b []byte) string {
	if len(b) < 64 || b[0] != 'M' || b[1] != 'Z' {
		return ""
	}
	at := int64(le.Uint32(b[60:]))
	if at+6 > int64(len(b)) || string(b[at:at+4]) != "PE\x00\x00" {
		return ""
	}
	switch machine := le.Uint16(b[at+4:]); machine {
	case 0x8664:
		return "amd64"
	case 0xaa64:
		return "arm64"
	case 0x014c:
		return "386"
	case 0x01c0, 0x01c2, 0x01c4:
		return "arm"
	case 0x5064:
		return "riscv64"
	case 0x6264:
		return "loong64"
	default:
		return fmt.Sprintf("0x%04x", machine)
	}
}

// fat is a FAT file system, as Microsoft's specification (FAT: General Overview
// of On-Disk Format, 1.03) has it.
type fat struct {
	v        view
	bits     int   // 12, 16 or 32
	table    int64 // offset of the first FAT
	fixed    view  // the root directory of FAT12 and FAT16
	data     int64 // offset of cluster 2
	cluster  int64 // bytes of a cluster
	clusters uint32
	root     uint32 // its cluster; 0 for fixed
}

// openFAT returns nil if there is none.
func openFAT(v view) (*fat, error) {
	b, err := v.read(0, sector)
	if err != nil || len(b) < sector || b[510] != 0x55 || b[511] != 0xaa {
		return nil, err
	}
	sectorBytes, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, tables, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	total, tableSectors := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	if tableSectors == 0 {
		tableSectors = int64(le.Uint32(b[36:]))
	}
	powerOfTwo := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	if sectorBytes < 512 || sectorBytes > 4096 || !powerOfTwo(sectorBytes) || !powerOfTwo(perCluster) || tables == 0 {
		return nil, nil
	}
	rootSectors := (rootEntries*32 + sectorBytes - 1) / sectorBytes
	first := reserved + tables*tableSectors + rootSectors
	count := (total - first) / perCluster
	if reserved == 0 || count < 1 || count >= 0x0ffffff5 {
		return nil, nil
	}
	f := &fat{v: v, bits: 32, table: reserved * sectorBytes, data: first * sectorBytes, cluster: perCluster * sectorBytes, clusters: uint32(count)}
	switch {
	case count < 4085:
		f.bits = 12
	case count < 65525:
		f.bits = 16
	default:
		f.root = le.Uint32(b[44:])
	}
	if f.bits != 32 {
		f.fixed = v.sub((reserved+tables*tableSectors)*sectorBytes, rootEntries*32)
	}
	return f, nil
}

// next returns the cluster after one, or 0 at the end of the chain.
func (f *fat) next(cluster uint32) (uint32, error) {
	b, err := f.v.read(f.table+int64(cluster)*int64(f.bits)/8, (f.bits+7)/8)
	if err != nil || len(b) < (f.bits+7)/8 {
		return 0, err
	}
	var n uint32
	switch f.bits {
	case 12:
		n = uint32(le.Uint16(b)) >> (4 * (cluster & 1)) & 0xfff
	case 16:
		n = uint32(le.Uint16(b))
	default:
		n = le.Uint32(b) & 0x0fffffff
	}
	if n < 2 || n >= f.clusters+2 {
		return 0, nil
	}
	return n, nil
}

// read reads up to length bytes of a chain of clusters. A chain that goes in
// circles ends with them.
func (f *fat) read(cluster uint32, length int) ([]byte, error) {
	var out []byte
	for len(out) < length && cluster >= 2 && cluster < f.clusters+2 {
		want := min(int64(length-len(out)), f.cluster)
		b, err := f.v.read(f.data+int64(cluster-2)*f.cluster, int(want))
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
		if int64(len(b)) < want {
			break
		}
		if cluster, err = f.next(cluster); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fatEntry is a file or directory: its short name has eight bytes and three.
type fatEntry struct {
	name    string
	dir     bool
	cluster uint32
	size    uint32
}

// directory reads a directory, the root's where cluster is 0.
func (f *fat) directory(cluster uint32) ([]fatEntry, error) {
	var b []byte
	var err error
	if cluster == 0 {
		b, err = f.fixed.read(0, maxDirectory)
	} else {
		b, err = f.read(cluster, maxDirectory)
	}
	if err != nil {
		return nil, err
	}
	const (
		isLabel, isDir, isLongName = 0x08, 0x10, 0x0f
		deleted                    = 0xe5
	)
	var entries []fatEntry
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		if attr := b[11]; b[0] == deleted || attr&isLongName == isLongName || attr&isLabel != 0 {
			continue
		}
		entries = append(entries, fatEntry{
			name: string(bytes.ToUpper(b[:11])), dir: b[11]&isDir != 0,
			cluster: uint32(le.Uint16(b[20:]))<<16 | uint32(le.Uint16(b[26:])), size: le.Uint32(b[28:]),
		})
	}
	return entries, nil
}
