package qcow2

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
)

// readImageEnd finds the last cluster that has a refcount, by reading the
// refcount table and its last blocks from the back.
func (i *Info) readImageEnd(r io.ReaderAt) error {
	h := &i.Header
	blocks, err := lastRefcountBlocks(r, h, i.FileSize)
	if err != nil {
		return err
	}
	bits := int64(1) << h.RefcountOrder
	perBlock := i.ClusterSize * 8 / bits
	for _, b := range blocks {
		last, err := lastNonZero(r, b.offset, i.ClusterSize)
		if errors.Is(err, errNotKept) {
			return nil
		}
		if err != nil {
			return err
		}
		if last < 0 {
			continue // a block without references
		}
		// Of refcounts narrower than a byte, the last one in it may be 0; the
		// few clusters between do not matter here.
		cluster := b.index*perBlock + (last*8+7)/bits
		if cluster > maxHostOffset>>h.ClusterBits {
			return nil
		}
		i.ImageEndOffset = (cluster + 1) << h.ClusterBits
		if i.FileSize > i.ImageEndOffset {
			i.add(FindTrailingData, i.ImageEndOffset, "%d bytes lie behind the last used cluster", i.FileSize-i.ImageEndOffset)
		}
		return nil
	}
	return nil
}

type refcountBlock struct{ index, offset int64 }

// lastRefcountBlocks returns the last blocks of the refcount table, the last
// one first: enough of them to find one that is in use.
func lastRefcountBlocks(r io.ReaderAt, h *Header, fileSize int64) ([]refcountBlock, error) {
	const chunk, enough = 16 << 10, 8
	var out []refcountBlock
	begin := int64(h.RefcountTableOffset)
	end := min(begin+int64(h.RefcountTableClusters)<<h.ClusterBits, fileSize)
	buf := make([]byte, min(chunk, max(0, end-begin)&^7))
	for end-begin >= 8 && len(out) < enough {
		start := max(begin, end-int64(len(buf)))
		b := buf[:(end-start)&^7]
		if _, err := readFull(r, b, start); err != nil {
			return nil, err
		}
		for at := lastByte(b) &^ 7; at >= 0 && len(out) < enough; at -= 8 {
			if v := binary.BigEndian.Uint64(b[at:]); v != 0 && v <= maxHostOffset && v%uint64(h.clusterSize()) == 0 {
				out = append(out, refcountBlock{(start - begin + int64(at)) / 8, int64(v)})
			}
		}
		end = start
	}
	return out, nil
}

// lastNonZero returns the index of the last byte that is not zero of length
// bytes at offset, or -1.
func lastNonZero(r io.ReaderAt, offset, length int64) (int64, error) {
	if s, ok := r.(sparse); ok {
		return s.lastNonZero(offset)
	}
	buf := make([]byte, min(length, 16<<10))
	for end := length; end > 0; {
		start := max(0, end-int64(len(buf)))
		if _, err := readFull(r, buf[:end-start], offset+start); err != nil {
			return 0, err
		}
		if at := lastByte(buf[:end-start]); at >= 0 {
			return start + int64(at), nil
		}
		end = start
	}
	return -1, nil
}

// lastByte returns the index of the last byte of b that is not zero, or -1.
func lastByte(b []byte) int {
	for len(b) >= 8 && binary.LittleEndian.Uint64(b[len(b)-8:]) == 0 {
		b = b[:len(b)-8]
	}
	for at, c := range slices.Backward(b) {
		if c != 0 {
			return at
		}
	}
	return -1
}
