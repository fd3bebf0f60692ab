package qcow2

import (
	"encoding/binary"
	"io"
	"sync"
)

// tableCache keeps slices of L1 and L2 tables: at most 2 × maxSlices × 4 KiB.
type tableCache struct {
	mu         sync.Mutex
	young, old map[int64][]byte
}

const (
	sliceBytes = 4 << 10
	maxSlices  = 256
)

// entry returns the one or two words of the table entry at offset.
func (c *tableCache) entry(r io.ReaderAt, offset, size, cluster int64) ([2]uint64, error) {
	length := min(sliceBytes, cluster)
	begin := offset &^ (length - 1)
	b, err := c.slice(r, begin, length)
	if err != nil {
		return [2]uint64{}, err
	}
	b = b[offset-begin:]
	out := [2]uint64{binary.BigEndian.Uint64(b)}
	if size == 16 {
		out[1] = binary.BigEndian.Uint64(b[8:])
	}
	return out, nil
}

func (c *tableCache) slice(r io.ReaderAt, begin, length int64) ([]byte, error) {
	c.mu.Lock()
	b, ok := c.young[begin]
	if !ok {
		b, ok = c.old[begin]
	}
	c.mu.Unlock()
	if ok {
		return b, nil
	}
	b = make([]byte, length)
	if _, err := readFull(r, b, begin); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= maxSlices {
		c.old, c.young = c.young, make(map[int64][]byte)
	}
	c.young[begin] = b
	return b, nil
}
