package qcow2

import (
	"bytes"
	"encoding/binary"
	"io"
)

// The header of LUKS version 1, as far as QEMU judges it before it has a key
// (crypto/block-luks.c).
const (
	luksHeader     = 592 // bytes
	luksSlots      = 8
	luksFirstSlot  = 208
	luksSlotLength = 48
	luksStripes    = 4000
	luksKeySector  = 4096 / sectorSize // where the first key may lie
	luksEnabled    = 0x00ac71f3
	luksDisabled   = 0x0000dead
)

// readLUKS judges the LUKS header that an encrypted image has in a place of its
// own. Whether ciphers and hashes are known is not judged.
func (i *Info) readLUKS(r io.ReaderAt) error {
	if i.LUKSHeader == (Range{}) {
		return nil
	}
	at := i.LUKSHeader.Offset
	if i.LUKSHeader.Length < luksHeader {
		return i.fault(malformed(at, uint64(i.LUKSHeader.Length), "the LUKS header is shorter than %d bytes", luksHeader))
	}
	b := make([]byte, luksHeader)
	if _, err := readFull(r, b, at); err != nil {
		return err
	}
	if fault := judgeLUKS(b, at); fault != nil {
		return i.fault(fault)
	}
	return nil
}

// judgeLUKS judges a LUKS header that stands at an offset in the file.
func judgeLUKS(b []byte, at int64) *FormatError {
	be := binary.BigEndian
	if !bytes.HasPrefix(b, []byte("LUKS\xba\xbe")) {
		return malformed(at, uint64(be.Uint32(b)), "there is no LUKS header")
	}
	if v := be.Uint16(b[6:]); v != 1 {
		return unsupported(at+6, uint64(v), "only version 1 of LUKS is known")
	}
	for _, field := range []int64{8, 40, 72} { // cipher, mode, hash
		if text := b[field : field+32]; bytes.IndexByte(text, 0) < 0 || field == 40 && !bytes.Contains([]byte(cString(text)), []byte("-")) {
			return malformed(at+field, 0, "a name in the LUKS header is not acceptable")
		}
	}
	payload := uint64(be.Uint32(b[104:]))
	if payload < luksKeySector {
		return malformed(at+104, payload, "the payload overlaps the LUKS header")
	}
	type sectors struct{ begin, end uint64 }
	var keys [luksSlots]sectors
	for n := range keys {
		slot := b[luksFirstSlot+n*luksSlotLength:]
		offset := at + luksFirstSlot + int64(n)*luksSlotLength
		active, begin, stripes := be.Uint32(slot), uint64(be.Uint32(slot[40:])), be.Uint32(slot[44:])
		length := (uint64(be.Uint32(b[108:])*stripes) + sectorSize - 1) / sectorSize
		length = (length + luksKeySector - 1) / luksKeySector * luksKeySector
		keys[n] = sectors{begin, begin + length}
		switch {
		case stripes != luksStripes:
			return malformed(offset+44, uint64(stripes), "key slot %d of the LUKS header has not %d stripes", n, luksStripes)
		case active != luksEnabled && active != luksDisabled:
			return malformed(offset, uint64(active), "key slot %d of the LUKS header is neither enabled nor disabled", n)
		case begin < luksKeySector || begin+length > payload:
			return malformed(offset+40, begin, "key slot %d of the LUKS header overlaps the header or the payload", n)
		}
	}
	for n, a := range keys {
		for m, other := range keys[n+1:] {
			if a.begin < other.end && other.begin < a.end {
				return malformed(at+luksFirstSlot+40, uint64(n), "the key slots %d and %d of the LUKS header overlap", n, n+1+m)
			}
		}
	}
	return nil
}
