package sandboxtest

import (
	"encoding/binary"
	"fmt"
	"os"
)

// WriteImage writes a new file with a qcow2 of size bytes, for a test's builder
// to hand out: a disk with a BIOS boot sector and one partition, and nothing in
// it. Size is from 2 MiB to 4 TiB.
func WriteImage(path string, size int64) error {
	const most = 4 << 40 // what one cluster of the L1 table maps
	if size < 2<<20 || size > most || size%512 != 0 {
		return fmt.Errorf("cannot write an image of %d bytes: want full sectors, from 2 MiB to 4 TiB", size)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("cannot write an image: %w", err)
	}
	_, err = f.Write(emptyImage(size))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("cannot write an image: %w", err)
	}
	return nil
}

// emptyImage has a cluster each for the header, the refcount table, a refcount
// block, the L1 table, an L2 table and the disk's first 64 KiB.
func emptyImage(size int64) []byte {
	const (
		cluster = 1 << 16
		copied  = 1 << 63
	)
	be, le := binary.BigEndian, binary.LittleEndian
	b := make([]byte, 6*cluster)
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 3)                               // version
	be.PutUint32(b[20:], 16)                             // cluster_bits
	be.PutUint64(b[24:], uint64(size))                   //
	be.PutUint32(b[36:], uint32((size+1<<29-1)/(1<<29))) // L1 entries, 512 MiB each
	be.PutUint64(b[40:], 3*cluster)                      // L1 table
	be.PutUint64(b[48:], 1*cluster)                      // refcount table
	be.PutUint32(b[56:], 1)                              // its clusters
	be.PutUint32(b[96:], 4)                              // refcount order: 16 bits
	be.PutUint32(b[100:], 104)                           // header length
	be.PutUint64(b[1*cluster:], 2*cluster)               // the refcount block
	be.PutUint64(b[3*cluster:], copied|4*cluster)        // the L2 table
	be.PutUint64(b[4*cluster:], copied|5*cluster)        // the first cluster
	for i := range 6 {
		be.PutUint16(b[2*cluster+2*i:], 1)
	}
	mbr := b[5*cluster:][:512]
	copy(mbr, "\xfa\xf4\xeb\xfd") // cli; hlt; jmp back to hlt
	entry := mbr[446:]
	entry[0], entry[4] = 0x80, 0x83 // active, Linux
	le.PutUint32(entry[8:], 2048)   // first sector
	le.PutUint32(entry[12:], uint32(min(size/512-2048, 1<<32-2049)))
	mbr[510], mbr[511] = 0x55, 0xaa
	return b
}
