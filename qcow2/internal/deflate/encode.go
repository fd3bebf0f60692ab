package deflate

import (
	"encoding/binary"
	"math/bits"
)

const (
	// Window is how far back matches reach: QEMU inflates with a window of 12
	// bits.
	Window = 4096
	// MaxInput is the longest buffer that Encode takes at once.
	MaxInput = 1 << 16

	minMatch  = 3
	hashBits  = 13
	hash3Bits = 11
	hashMul   = 0x9e3779b1
	// How many candidates are looked at for a match, and when one is good
	// enough to stop looking.
	chainDepth = 16
	niceMatch  = 64
	// From this length on the next byte is not tried, or less thoroughly.
	lazyMatch = 16
	goodMatch = 8
	// A block of fewer symbols than this is not split.
	splitCheck = 8192
)

// An Encoder compresses. Its zero value is ready for use; it is not for
// concurrent use. The same input always gives the same bytes.
type Encoder struct {
	head   [1 << hashBits]uint16  // latest position + 1 of four bytes' hash
	head3  [1 << hash3Bits]uint16 // of three bytes' hash
	prev   [Window]uint16         // the position before with the same hash, + 1
	tokens []uint32
	block  blockCoder
	w      bitWriter
}

// A token is a literal, or a match with its length in the upper half and its
// distance in the lower.
const tokenLengthShift = 16

// Encode appends the raw deflate stream of src to dst and returns it. It
// panics if src is longer than MaxInput; the caller cuts what it has.
func (e *Encoder) Encode(dst, src []byte) []byte {
	if len(src) > MaxInput {
		panic("deflate: input longer than MaxInput")
	}
	e.w = bitWriter{out: dst}
	e.match(src)
	e.blocks(src)
	return e.w.finish()
}

// match turns src into tokens.
func (e *Encoder) match(src []byte) {
	clear(e.head[:])
	clear(e.head3[:])
	e.tokens = e.tokens[:0]
	at, end := 0, len(src)
	length, distance := 0, 0 // of the match at at-1 that waits for a better one
	for at < end {
		if at+4 > end { // too near to the end to be worth a search
			if length > 0 {
				break
			}
			e.tokens = append(e.tokens, uint32(src[at]))
			at++
			continue
		}
		depth := chainDepth
		if length >= goodMatch {
			depth /= 4
		}
		l, d := e.longest(src, at, max(length, minMatch-1), depth)
		if length > 0 && l <= length {
			// The waiting match stays. Its first two bytes are entered.
			at = e.accept(src, at-1, at+1, length, distance)
			length = 0
			continue
		}
		if length > 0 { // the byte before is a literal after all
			e.tokens = append(e.tokens, uint32(src[at-1]))
		}
		if l < minMatch {
			e.tokens = append(e.tokens, uint32(src[at]))
			at++
			length = 0
			continue
		}
		if l >= lazyMatch {
			at = e.accept(src, at, at+1, l, d)
			length = 0
			continue
		}
		length, distance = l, d
		at++
	}
	if length > 0 {
		// at is one beyond the start of the waiting match.
		for at = e.accept(src, at-1, end, length, distance); at < end; at++ {
			e.tokens = append(e.tokens, uint32(src[at]))
		}
	}
}

// accept writes the match that begins at start, enters its positions from
// next on, and returns where it ends.
func (e *Encoder) accept(src []byte, start, next, length, distance int) int {
	e.tokens = append(e.tokens, uint32(length)<<tokenLengthShift|uint32(distance))
	end := start + length
	for ; next < end && next+4 <= len(src); next++ {
		v := binary.LittleEndian.Uint32(src[next:])
		h := v * hashMul >> (32 - hashBits)
		e.prev[next%Window] = e.head[h]
		e.head[h] = uint16(next + 1)
		e.head3[v<<8*hashMul>>(32-hash3Bits)] = uint16(next + 1)
	}
	return end
}

// longest enters the position at and returns the longest match for it that is
// longer than best. Four bytes from at on lie in src.
func (e *Encoder) longest(src []byte, at, best, depth int) (length, distance int) {
	v := binary.LittleEndian.Uint32(src[at:])
	h := v * hashMul >> (32 - hashBits)
	h3 := v << 8 * hashMul >> (32 - hash3Bits)
	candidate, candidate3 := int(e.head[h])-1, int(e.head3[h3])-1
	e.prev[at%Window] = e.head[h]
	e.head[h] = uint16(at + 1)
	e.head3[h3] = uint16(at + 1)
	limit := min(len(src)-at, maxMatch)
	oldest := at - Window
	if best < minMatch && candidate3 >= 0 && candidate3 >= oldest &&
		binary.LittleEndian.Uint32(src[candidate3:])<<8 == v<<8 {
		best, length, distance = minMatch, minMatch, at-candidate3
	}
	for ; depth > 0 && candidate >= 0 && candidate >= oldest; depth-- {
		// The byte that a longer match would add rules out most candidates.
		if best < limit && src[candidate+best] == src[at+best] && binary.LittleEndian.Uint32(src[candidate:]) == v {
			if l := matchLength(src, candidate, at, limit); l > best {
				best, length, distance = l, l, at-candidate
				if l >= niceMatch || l >= limit {
					break
				}
			}
		}
		next := int(e.prev[candidate%Window]) - 1
		if next >= candidate {
			break // entered since, in a later turn of the window
		}
		candidate = next
	}
	return length, distance
}

// matchLength returns how many bytes at a and b are the same, up to limit.
func matchLength(src []byte, a, b, limit int) int {
	n := 4
	for n+8 <= limit {
		if x := binary.LittleEndian.Uint64(src[a+n:]) ^ binary.LittleEndian.Uint64(src[b+n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for n < limit && src[a+n] == src[b+n] {
		n++
	}
	return n
}

// blocks writes the tokens as one block, or as several where that is shorter.
func (e *Encoder) blocks(src []byte) {
	tokens := e.tokens
	at := 0
	for first := true; first || len(tokens) > 0; first = false {
		n := e.block.cut(tokens)
		part := tokens[:n]
		tokens = tokens[n:]
		length := 0
		for _, t := range part {
			length += tokenLength(t)
		}
		e.block.write(&e.w, part, src[at:at+length], len(tokens) == 0)
		at += length
	}
}

func tokenLength(t uint32) int {
	if t < 256 {
		return 1
	}
	return int(t >> tokenLengthShift)
}

// bitWriter collects bits, the first one lowest.
type bitWriter struct {
	out  []byte
	bits uint64
	n    uint
}

// put adds up to 32 bits.
func (w *bitWriter) put(v uint32, n uint8) {
	w.bits |= uint64(v) << (w.n & 63)
	if w.n += uint(n); w.n >= 32 {
		w.out = binary.LittleEndian.AppendUint32(w.out, uint32(w.bits))
		w.bits >>= 32
		w.n -= 32
	}
}

// finish fills the last byte with zeros and returns all bytes.
func (w *bitWriter) finish() []byte {
	for w.n > 0 {
		w.out = append(w.out, byte(w.bits))
		w.bits >>= 8
		w.n -= min(w.n, 8)
	}
	w.bits = 0
	return w.out
}
