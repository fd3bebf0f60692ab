package deflate

import "math/bits"

// The bases and extra bits of length and distance codes (RFC 1951, section
// 3.2.5).
var (
	lengthBase = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31,
		35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2,
		3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193,
		257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6,
		7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
	// codeOrder is the order in which the lengths of the code length codes
	// stand (section 3.2.7).
	codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

const endOfBlock = 256

// Table entries of one bit: an error, and the symbol 0.
const (
	oneBit = 1<<8 | 1
	noCode = entryOther | oneBit
)

// litEntry is the table entry of a literal or length symbol, without bits.
func litEntry(symbol int) uint32 {
	switch {
	case symbol < endOfBlock:
		return entryLiteral | uint32(symbol)<<16
	case symbol == endOfBlock:
		return entryOther | entryEnd
	case symbol-257 < len(lengthBase):
		return uint32(lengthBase[symbol-257])<<16 | uint32(lengthExtra[symbol-257])
	}
	return entryOther
}

func distEntry(symbol int) uint32 {
	if symbol < len(distBase) {
		return uint32(distBase[symbol])<<16 | uint32(distExtra[symbol])
	}
	return entryOther
}

func codeEntry(symbol int) uint32 { return uint32(symbol) << 16 }

// buildTable fills table for the code lengths of a canonical Huffman code.
// Index bits are the first tableBits bits of the input; longer codes have
// links to subtables. Returns false if the lengths are not those of a complete
// code. As in zlib a code of no symbol is complete enough, and where lone is
// set also one of a single symbol with one bit; what is not a code is none.
func buildTable(table []uint32, tableBits int, lens []uint8, entry func(int) uint32, none uint32, lone bool) bool {
	var count [maxCode + 1]int
	for _, l := range lens {
		count[l]++
	}
	if count[0] == len(lens) {
		fill(table[:1<<tableBits], none)
		return true
	}
	left, longest := 1, 0
	var first [maxCode + 2]int // index in sorted of each length's first symbol
	for l := 1; l <= maxCode; l++ {
		first[l+1] = first[l] + count[l]
		if left = left*2 - count[l]; left < 0 {
			return false
		}
		if count[l] > 0 {
			longest = l
		}
	}
	if left > 0 {
		if longest != 1 || !lone {
			return false
		}
		fill(table[:1<<tableBits], none)
	}
	var sorted [288]uint16
	for symbol, l := range lens {
		if l > 0 {
			sorted[first[l]] = uint16(symbol)
			first[l]++
		}
	}
	b := builder{table: table, bits: tableBits, count: count, used: 1 << tableBits}
	return b.fill(sorted[:], entry)
}

func fill(table []uint32, v uint32) {
	for n := range table {
		table[n] = v
	}
}

// builder is the state while a table is filled.
type builder struct {
	table   []uint32
	bits    int // of the main table's index
	count   [maxCode + 1]int
	used    int // entries
	prefix  int // of the current subtable
	sub     int // index of the current subtable
	subBits int
}

// fill enters the symbols, which are sorted by the length of their codes.
func (b *builder) fill(sorted []uint16, entry func(int) uint32) bool {
	code, next := 0, 0
	b.prefix = -1
	for l := 1; l <= maxCode; l++ {
		code <<= 1
		for left := b.count[l]; left > 0; left-- {
			e := entry(int(sorted[next]))
			next++
			reversed := int(bits.Reverse16(uint16(code)) >> (16 - l))
			if l <= b.bits {
				// The low bits count the code, the entry's own extra bits.
				e += uint32(l) + uint32(l)<<8
				for at := reversed; at < 1<<b.bits; at += 1 << l {
					b.table[at] = e
				}
			} else {
				if prefix := reversed & (1<<b.bits - 1); prefix != b.prefix && !b.subtable(prefix, l, left) {
					return false
				}
				rest := l - b.bits
				e += uint32(rest) + uint32(rest)<<8
				for at := reversed >> b.bits; at < 1<<b.subBits; at += 1 << rest {
					b.table[b.sub+at] = e
				}
			}
			code++
		}
	}
	return true
}

// subtable begins the subtable of the codes with a prefix. The first of them
// is l bits long, and left codes of that length are still to come.
func (b *builder) subtable(prefix, l, left int) bool {
	b.prefix, b.sub, b.subBits = prefix, b.used, l-b.bits
	for room := 1<<b.subBits - left; room > 0 && b.subBits+b.bits < maxCode; {
		b.subBits++
		room = room*2 - b.count[b.bits+b.subBits]
	}
	if b.used += 1 << b.subBits; b.used > len(b.table) {
		return false
	}
	b.table[prefix] = entryOther | entryLink | uint32(b.sub)<<16 | uint32(b.subBits)<<8 | uint32(b.bits)
	return true
}

// fixedTables makes the tables of the fixed codes (section 3.2.6).
func (d *Decoder) fixedTables() {
	if d.fixed {
		return
	}
	var lens [288]uint8
	for n := range lens {
		switch {
		case n < 144, n >= 280:
			lens[n] = 8
		case n < 256:
			lens[n] = 9
		default:
			lens[n] = 7
		}
	}
	buildTable(d.lit[:], litBits, lens[:], litEntry, noCode, true)
	for n := range 32 {
		lens[n] = 5
	}
	buildTable(d.dist[:], distBits, lens[:32], distEntry, noCode, true)
	d.fixed = true
}

// dynamicTables reads the codes of a dynamic block (section 3.2.7).
func (d *Decoder) dynamicTables(s *stream) error {
	d.fixed = false
	s.refill()
	if s.n < 14 {
		return ErrShort
	}
	nlit, ndist, ncode := int(s.bits&31)+257, int(s.bits>>5&31)+1, int(s.bits>>10&15)+4
	s.take(14)
	if nlit > 286 || ndist > 30 {
		return ErrCorrupt
	}
	var codeLens [19]uint8
	for _, at := range codeOrder[:ncode] {
		s.refill()
		if s.n < 3 {
			return ErrShort
		}
		codeLens[at] = uint8(s.bits & 7)
		s.take(3)
	}
	// zlib reads a zero from each bit where no length has a code.
	if !buildTable(d.code[:], codeBits, codeLens[:], codeEntry, oneBit, false) {
		return ErrCorrupt
	}
	lens := d.lens[:nlit+ndist]
	if err := d.readLengths(s, lens); err != nil {
		return err
	}
	if lens[endOfBlock] == 0 || !buildTable(d.lit[:], litBits, lens[:nlit], litEntry, noCode, true) ||
		!buildTable(d.dist[:], distBits, lens[nlit:], distEntry, noCode, true) {
		return ErrCorrupt
	}
	return nil
}

// readLengths reads the run-length coded lengths of both codes.
func (d *Decoder) readLengths(s *stream, lens []uint8) error {
	for n := 0; n < len(lens); {
		e, ok := s.code(d.code[:], codeBits)
		if !ok {
			return ErrShort
		}
		length, symbol := uint(e&0xff), e>>16
		var repeat, extra uint
		value := uint8(0)
		switch symbol {
		case 16:
			repeat, extra = 3, 2
			if n > 0 {
				value = lens[n-1]
			}
		case 17:
			repeat, extra = 3, 3
		case 18:
			repeat, extra = 11, 7
		default:
			repeat, value = 1, uint8(symbol)
		}
		if s.n < length+extra {
			return ErrShort
		}
		s.take(length)
		repeat += uint(s.bits & (1<<extra - 1))
		s.take(extra)
		if n+int(repeat) > len(lens) || symbol == 16 && n == 0 {
			return ErrCorrupt
		}
		for range repeat {
			lens[n] = value
			n++
		}
	}
	return nil
}
