// Package deflate compresses and decompresses whole buffers of raw deflate
// data (RFC 1951), as the compressed clusters of qcow2 images are: the length
// of the result is known, the input is in memory, and matches reach at most
// 4 KiB back. Knowing that makes it several times faster than a stream.
package deflate

import (
	"encoding/binary"
	"errors"
)

// The reasons why Decode fails.
var (
	ErrCorrupt = errors.New("invalid deflate data")
	ErrShort   = errors.New("deflate data ends early")
)

// errFull ends the decoding at what does not fit into the buffer any more.
var errFull = errors.New("the buffer is full")

// An entry of a decoding table says what the next bits of the input mean.
//
//	bits 0 to 7    how many bits to consume, extra bits included
//	bits 8 to 12   how many of them are the code; the rest are extra bits.
//	               For a link, how many bits index the subtable.
//	bits 16 to 30  the literal, the base of the length or distance, or the
//	               index of the subtable
const (
	entryLiteral = 1 << 31
	entryOther   = 1 << 15 // a link, the end of the block, or no code at all
	entryLink    = 1 << 14
	entryEnd     = 1 << 13
)

const (
	litBits  = 11
	distBits = 8
	codeBits = 7
	// The greatest sizes that tables with links can have for 288 and 32
	// symbols whose codes are at most 15 bits long (zlib's "enough").
	litTable  = 2342
	distTable = 402
	maxCode   = 15

	maxMatch = 258
	// What the fast loop may write without looking: two literals, a match and
	// what copying words overshoots.
	outSlack = 3 + maxMatch + 16
	// What it may read: two refills.
	inSlack = 16
)

// A Decoder decompresses. Its zero value is ready for use; it is not for
// concurrent use. Reusing one saves building tables, nothing else.
type Decoder struct {
	lit   [litTable]uint32
	dist  [distTable]uint32
	code  [1 << codeBits]uint32
	fixed bool // lit and dist are the fixed codes
	lens  [320]uint8
}

// stream is the state between two blocks.
type stream struct {
	dst, src []byte
	in, out  int
	bits     uint64 // the next bits; those above n are valid too, or zero
	n        uint   // how many were counted
}

// Decode fills dst with what the deflate stream in src decompresses to. If
// the stream ends before, Decode fails.
//
// The stream may go on when dst is full, and src may go on behind the stream.
// As zlib does, and so QEMU, Decode reads on until something needs room in
// dst, src ends, or the final block does: what is damaged up to there is an
// error, such as noise behind a stream whose last block is not the final one.
func (d *Decoder) Decode(dst, src []byte) error {
	s := stream{dst: dst, src: src}
	for {
		final, err := d.oneBlock(&s)
		full := s.out == len(dst)
		switch {
		case full && (err == errFull || err == ErrShort): //nolint:errorlint // never wrapped
			return nil
		case err != nil:
			return err
		case final && full:
			return nil
		case final:
			return ErrShort
		}
	}
}

// oneBlock decodes a block and says whether it is the last one.
func (d *Decoder) oneBlock(s *stream) (final bool, err error) {
	s.refill()
	if s.n < 3 {
		return false, ErrShort
	}
	final = s.bits&1 != 0
	kind := s.bits >> 1 & 3
	s.take(3)
	switch kind {
	case 0:
		err = s.stored()
	case 1:
		d.fixedTables()
		err = d.block(s)
	case 2:
		if err = d.dynamicTables(s); err == nil {
			err = d.block(s)
		}
	default:
		err = ErrCorrupt
	}
	return final, err
}

// refill makes at least 56 bits available, if the input has them.
func (s *stream) refill() {
	for s.n <= 56 && s.in < len(s.src) {
		s.bits |= uint64(s.src[s.in]) << (s.n & 63)
		s.in++
		s.n += 8
	}
}

func (s *stream) take(n uint) {
	s.bits >>= n & 63
	s.n -= n
}

// stored copies a stored block.
func (s *stream) stored() error {
	s.take(s.n & 7)
	s.in -= int(s.n / 8)
	s.bits, s.n = 0, 0
	if len(s.src)-s.in < 4 {
		return ErrShort
	}
	length := int(binary.LittleEndian.Uint16(s.src[s.in:]))
	if length != int(^binary.LittleEndian.Uint16(s.src[s.in+2:])) {
		return ErrCorrupt
	}
	s.in += 4
	n := copy(s.dst[s.out:], s.src[s.in:min(len(s.src), s.in+length)])
	s.in += n
	s.out += n
	switch {
	case n == length:
		return nil
	case s.out == len(s.dst):
		return errFull
	}
	return ErrShort
}

// block decodes symbols to the end of the block, or until dst is full and more
// would follow.
func (d *Decoder) block(s *stream) error {
	done, err := d.fast(s)
	if done || err != nil {
		return err
	}
	return d.slow(s)
}

// fast decodes while input and output have room enough to look at neither. It
// returns true at the end of the block.
func (d *Decoder) fast(s *stream) (bool, error) {
	dst, src := s.dst, s.src
	in, out := s.in, s.out
	bits, n := s.bits, uint64(s.n)
	inLimit, outLimit := len(src)-inSlack, len(dst)-outSlack
	done := false
	var err error
	for in <= inLimit && out <= outLimit {
		bits |= binary.LittleEndian.Uint64(src[in:]) << (n & 63)
		in += int((63 - n) >> 3)
		n |= 56
		e := d.lit[bits&(1<<litBits-1)]
		if e&entryLiteral != 0 {
			bits >>= e & 63
			n -= uint64(e & 0xff)
			dst[out] = byte(e >> 16)
			out++
			e = d.lit[bits&(1<<litBits-1)]
			if e&entryLiteral != 0 {
				bits >>= e & 63
				n -= uint64(e & 0xff)
				dst[out] = byte(e >> 16)
				out++
				e = d.lit[bits&(1<<litBits-1)]
				if e&entryLiteral != 0 {
					bits >>= e & 63
					n -= uint64(e & 0xff)
					dst[out] = byte(e >> 16)
					out++
					continue
				}
			}
		}
		if e&entryOther != 0 {
			if e&entryLink != 0 {
				bits >>= e & 63
				n -= uint64(e & 0xff)
				at := uint64(e>>16&0x7fff) + bits&(1<<(e>>8&31)-1)
				if at >= litTable {
					err = ErrCorrupt
					break
				}
				e = d.lit[at]
				if e&entryLiteral != 0 {
					bits >>= e & 63
					n -= uint64(e & 0xff)
					dst[out] = byte(e >> 16)
					out++
					continue
				}
			}
			if e&entryOther != 0 {
				if e&entryEnd == 0 {
					err = ErrCorrupt
					break
				}
				bits >>= e & 63
				n -= uint64(e & 0xff)
				done = true
				break
			}
		}
		length := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&31))
		bits >>= e & 63
		n -= uint64(e & 0xff)

		bits |= binary.LittleEndian.Uint64(src[in:]) << (n & 63)
		in += int((63 - n) >> 3)
		n |= 56
		e = d.dist[bits&(1<<distBits-1)]
		if e&entryOther != 0 {
			if e&entryLink == 0 {
				err = ErrCorrupt
				break
			}
			bits >>= e & 63
			n -= uint64(e & 0xff)
			at := uint64(e>>16&0x7fff) + bits&(1<<(e>>8&31)-1)
			if at >= distTable {
				err = ErrCorrupt
				break
			}
			if e = d.dist[at]; e&entryOther != 0 {
				err = ErrCorrupt
				break
			}
		}
		distance := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&31))
		bits >>= e & 63
		n -= uint64(e & 0xff)
		if distance > out {
			err = ErrCorrupt
			break
		}
		copyMatch(dst, out, distance, length)
		out += length
	}
	s.in, s.out, s.bits, s.n = in, out, bits, uint(n)
	return done, err
}

// copyMatch repeats what stands distance bytes before out. It may write up to
// 16 bytes more than length.
func copyMatch(dst []byte, out, distance, length int) {
	to := dst[out : out+length+16]
	from := dst[out-distance:]
	switch {
	case distance >= 16:
		for {
			a, b := binary.LittleEndian.Uint64(from), binary.LittleEndian.Uint64(from[8:])
			binary.LittleEndian.PutUint64(to, a)
			binary.LittleEndian.PutUint64(to[8:], b)
			if length -= 16; length <= 0 {
				return
			}
			to, from = to[16:], from[16:]
		}
	case distance >= 8:
		for {
			binary.LittleEndian.PutUint64(to, binary.LittleEndian.Uint64(from))
			if length -= 8; length <= 0 {
				return
			}
			to, from = to[8:], from[8:]
		}
	case distance == 1:
		v := uint64(from[0]) * 0x0101010101010101
		for {
			binary.LittleEndian.PutUint64(to, v)
			if length -= 8; length <= 0 {
				return
			}
			to = to[8:]
		}
	}
	for n := range length {
		to[n] = from[n]
	}
}

// slow decodes one symbol after the other and looks at both ends each time.
func (d *Decoder) slow(s *stream) error {
	for {
		e, ok := s.code(d.lit[:], litBits)
		switch {
		case !ok:
			return ErrShort
		case e&entryLiteral != 0:
			if s.out == len(s.dst) {
				return errFull
			}
			s.take(uint(e & 0xff))
			s.dst[s.out] = byte(e >> 16)
			s.out++
			continue
		case e&entryOther != 0 && e&entryEnd != 0:
			s.take(uint(e & 0xff))
			return nil
		case e&entryOther != 0:
			return ErrCorrupt
		}
		length := s.value(e)
		if e, ok = s.code(d.dist[:], distBits); !ok {
			return ErrShort
		}
		if e&entryOther != 0 {
			return ErrCorrupt
		}
		distance := s.value(e)
		room := len(s.dst) - s.out
		if room == 0 {
			return errFull
		}
		if distance > s.out {
			return ErrCorrupt
		}
		for range min(length, room) {
			s.dst[s.out] = s.dst[s.out-distance]
			s.out++
		}
		if length > room {
			return errFull
		}
	}
}

// code looks the next code up. What it returns is not consumed, but for the
// part that leads to a subtable; it is not ok if the input ends within the
// code or its extra bits.
func (s *stream) code(table []uint32, tableBits int) (uint32, bool) {
	s.refill()
	e := table[s.bits&(1<<tableBits-1)]
	if e&entryLink != 0 && e&(entryOther|entryLiteral) == entryOther {
		s.take(uint(e & 0xff))
		e = table[min(uint64(e>>16&0x7fff)+s.bits&(1<<(e>>8&31)-1), uint64(len(table)-1))]
	}
	return e, s.n <= 64 && s.n >= uint(e&0xff)
}

// value consumes a code with its extra bits.
func (s *stream) value(e uint32) int {
	v := int(e>>16) + int(s.bits&(1<<(e&63)-1)>>(e>>8&31))
	s.take(uint(e & 0xff))
	return v
}
