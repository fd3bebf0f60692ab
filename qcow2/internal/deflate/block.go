package deflate

import (
	"math/bits"
	"slices"
)

const (
	litSymbols  = 286
	distSymbols = 30
)

// blockCoder writes blocks of tokens.
type blockCoder struct {
	lit, dist, code huffman
	header          []uint16 // the run-length coded lengths: symbol, and extra bits above bit 8
	lens            [litSymbols + distSymbols]uint8
}

// lengthSymbols and distSymbol tell the codes of lengths and distances.
var lengthSymbols = func() (table [maxMatch + 1]uint8) {
	for symbol, base := range lengthBase {
		for n := int(base); n < int(base)+1<<lengthExtra[symbol] && n <= maxMatch; n++ {
			table[n] = uint8(symbol)
		}
	}
	return table
}()

func distSymbol(distance uint32) uint32 {
	if distance <= 2 {
		return distance - 1
	}
	d := distance - 1
	high := uint32(bits.Len32(d)) - 1
	return 2*high + d>>(high-1)&1
}

// count counts the symbols of the tokens.
func (b *blockCoder) count(tokens []uint32) {
	clear(b.lit.freq[:])
	clear(b.dist.freq[:])
	for _, t := range tokens {
		if t < 256 {
			b.lit.freq[t]++
		} else {
			b.lit.freq[257+int(lengthSymbols[t>>tokenLengthShift])]++
			b.dist.freq[distSymbol(t&0xffff)]++
		}
	}
	b.lit.freq[endOfBlock]++
}

// cut returns how many of the tokens the next block should take. A block ends
// where the symbols' statistics become different from those so far.
func (b *blockCoder) cut(tokens []uint32) int {
	const step = splitCheck / 4
	if len(tokens) < splitCheck {
		return len(tokens)
	}
	var seen, fresh statistics
	total := 0
	for total+step <= len(tokens) {
		fresh = statistics{}
		fresh.add(tokens[total : total+step])
		if total >= step && len(tokens)-total >= step && seen.differs(&fresh) {
			return total
		}
		seen.merge(&fresh)
		total += step
	}
	return len(tokens)
}

// statistics is a coarse histogram of tokens: literals by their upper bits,
// matches by whether they are short.
type statistics struct {
	kinds [10]int
	total int
}

func (s *statistics) add(tokens []uint32) {
	for _, t := range tokens {
		switch {
		case t < 256:
			s.kinds[t>>5&6|t&1]++
		case t>>tokenLengthShift < 9:
			s.kinds[8]++
		default:
			s.kinds[9]++
		}
	}
	s.total += len(tokens)
}

func (s *statistics) merge(o *statistics) {
	for n, v := range o.kinds {
		s.kinds[n] += v
	}
	s.total += o.total
}

// differs says whether the distribution of o is another one.
func (s *statistics) differs(o *statistics) bool {
	sum := 0
	for n, v := range o.kinds {
		expected := s.kinds[n] * o.total
		sum += max(v*s.total-expected, expected-v*s.total)
	}
	return sum > s.total*o.total*2/5
}

// write writes one block in the shortest of the three forms.
func (b *blockCoder) write(w *bitWriter, tokens []uint32, raw []byte, final bool) {
	b.count(tokens)
	b.lit.build(litSymbols, maxCode)
	b.dist.build(distSymbols, maxCode)
	nlit, ndist := b.lit.used(257), b.dist.used(1)
	headerBits := b.makeHeader(nlit, ndist)
	ncode := 19
	for ncode > 4 && b.code.lens[codeOrder[ncode-1]] == 0 {
		ncode--
	}
	dynamic := 14 + 3*ncode + headerBits + b.cost(b.lit.lens[:], b.dist.lens[:])
	fixed := b.cost(fixedLens.lit[:], fixedLens.dist[:])
	last := uint32(0)
	if final {
		last = 1
	}
	switch stored := 8*len(raw) + 40*(1+len(raw)/0xffff); {
	case stored < min(dynamic, fixed):
		writeStored(w, raw, last)
	case fixed <= dynamic:
		w.put(last|1<<1, 3)
		copy(b.lit.lens[:], fixedLens.lit[:])
		copy(b.dist.lens[:], fixedLens.dist[:])
		b.lit.assign(288)
		b.dist.assign(distSymbols)
		b.symbols(w, tokens)
	default:
		w.put(last|2<<1, 3)
		w.put(uint32(nlit-257)|uint32(ndist-1)<<5|uint32(ncode-4)<<10, 14)
		for _, at := range codeOrder[:ncode] {
			w.put(uint32(b.code.lens[at]), 3)
		}
		b.writeHeader(w)
		b.symbols(w, tokens)
	}
}

// cost returns the bits that the counted symbols need with given lengths.
func (b *blockCoder) cost(lit, dist []uint8) int {
	sum := 0
	for n, f := range b.lit.freq[:litSymbols] {
		length := int(lit[n])
		if n > endOfBlock {
			length += int(lengthExtra[n-257])
		}
		sum += int(f) * length
	}
	for n, f := range b.dist.freq[:distSymbols] {
		sum += int(f) * (int(dist[n]) + int(distExtra[n]))
	}
	return sum
}

// makeHeader codes the lengths of both codes in runs, and returns the bits
// that they take.
func (b *blockCoder) makeHeader(nlit, ndist int) int {
	lens := append(append(b.lens[:0], b.lit.lens[:nlit]...), b.dist.lens[:ndist]...)
	b.header = b.header[:0]
	clear(b.code.freq[:])
	sum := 0
	put := func(symbol, extra, extraBits int) {
		b.header = append(b.header, uint16(symbol|extra<<8))
		b.code.freq[symbol]++
		sum += extraBits
	}
	for n := 0; n < len(lens); {
		run := 1
		for n+run < len(lens) && lens[n+run] == lens[n] {
			run++
		}
		left := run
		if lens[n] == 0 {
			for ; left >= 11; left -= min(left, 138) {
				put(18, min(left, 138)-11, 7)
			}
			if left >= 3 {
				put(17, left-3, 3)
				left = 0
			}
		} else {
			put(int(lens[n]), 0, 0)
			left--
			for ; left >= 3; left -= min(left, 6) {
				put(16, min(left, 6)-3, 2)
			}
		}
		for ; left > 0; left-- {
			put(int(lens[n]), 0, 0)
		}
		n += run
	}
	b.code.build(19, 7)
	for n, f := range b.code.freq[:19] {
		sum += int(f) * int(b.code.lens[n])
	}
	return sum
}

func (b *blockCoder) writeHeader(w *bitWriter) {
	for _, h := range b.header {
		symbol, extra := h&0xff, uint32(h>>8)
		w.put(uint32(b.code.codes[symbol]), b.code.lens[symbol])
		switch symbol {
		case 16:
			w.put(extra, 2)
		case 17:
			w.put(extra, 3)
		case 18:
			w.put(extra, 7)
		}
	}
}

// symbols writes the tokens and the end of the block.
func (b *blockCoder) symbols(w *bitWriter, tokens []uint32) {
	for _, t := range tokens {
		if t < 256 {
			w.put(uint32(b.lit.codes[t]), b.lit.lens[t])
			continue
		}
		length, distance := t>>tokenLengthShift, t&0xffff
		symbol := lengthSymbols[length]
		code := 257 + int(symbol)
		l := b.lit.lens[code]
		w.put(uint32(b.lit.codes[code])|(length-uint32(lengthBase[symbol]))<<l, l+lengthExtra[symbol])
		ds := distSymbol(distance)
		l = b.dist.lens[ds]
		w.put(uint32(b.dist.codes[ds])|(distance-uint32(distBase[ds]))<<l, l+distExtra[ds])
	}
	w.put(uint32(b.lit.codes[endOfBlock]), b.lit.lens[endOfBlock])
}

// writeStored writes raw bytes as stored blocks.
func writeStored(w *bitWriter, raw []byte, last uint32) {
	for {
		part := raw[:min(len(raw), 0xffff)]
		raw = raw[len(part):]
		flag := uint32(0)
		if len(raw) == 0 {
			flag = last
		}
		w.put(flag, 3)
		w.put(0, uint8(-w.n&7))
		w.put(uint32(len(part))|^uint32(len(part))<<16, 32)
		w.out = w.finish()
		w.out = append(w.out, part...)
		if len(raw) == 0 {
			return
		}
	}
}

// fixedLens are the lengths of the fixed codes.
var fixedLens = func() (f struct {
	lit  [288]uint8
	dist [distSymbols]uint8
}) {
	for n := range f.lit {
		switch {
		case n < 144, n >= 280:
			f.lit[n] = 8
		case n < 256:
			f.lit[n] = 9
		default:
			f.lit[n] = 7
		}
	}
	for n := range f.dist {
		f.dist[n] = 5
	}
	return f
}()

// huffman makes one canonical Huffman code.
type huffman struct {
	freq  [288]uint32
	lens  [288]uint8
	codes [288]uint16 // reversed: the first bit lowest
	nodes []uint64
}

// used returns how many of the first symbols have to be described.
func (h *huffman) used(least int) int {
	n := litSymbols
	for n > least && h.lens[n-1] == 0 {
		n--
	}
	return n
}

// build makes lengths of at most limit bits, and codes, for the counted
// symbols. A code of one symbol has one bit.
func (h *huffman) build(symbols, limit int) {
	clear(h.lens[:])
	h.nodes = h.nodes[:0]
	for n, f := range h.freq[:symbols] {
		if f > 0 {
			h.nodes = append(h.nodes, uint64(f)<<16|uint64(n))
		}
	}
	switch len(h.nodes) {
	case 0:
	case 1:
		h.lens[h.nodes[0]&0xffff] = 1
	default:
		slices.Sort(h.nodes)
		h.limited(limit)
	}
	h.assign(symbols)
}

// limited gives the sorted nodes their lengths.
func (h *huffman) limited(limit int) {
	n := len(h.nodes)
	var weight, parent [2 * 288]uint32
	for k, node := range h.nodes {
		weight[k] = uint32(node >> 16)
	}
	// Two queues: the leaves, and the inner nodes in the order of their making.
	leaf, inner := 0, n
	for next := n; next < 2*n-1; next++ {
		for range 2 {
			pick := inner
			if leaf < n && (inner >= next || weight[leaf] <= weight[inner]) {
				pick = leaf
				leaf++
			} else {
				inner++
			}
			weight[next] += weight[pick]
			parent[pick] = uint32(next)
		}
	}
	// Depths, from the root; then as many codes of each length.
	var depth [2 * 288]uint8
	var count [maxCode + 2]int
	for k := 2*n - 3; k >= 0; k-- {
		depth[k] = depth[parent[k]] + 1
		if k < n {
			count[min(int(depth[k]), limit)]++
		}
	}
	// Cutting long codes short made the code too full: lengthen others.
	full := 0
	for l := 1; l <= limit; l++ {
		full += count[l] << (limit - l)
	}
	for ; full > 1<<limit; full-- {
		l := limit - 1
		for count[l] == 0 {
			l--
		}
		count[l]--
		count[l+1] += 2
		count[limit]--
	}
	k := 0 // the rarest symbols get the longest codes
	for l := limit; l > 0; l-- {
		for range count[l] {
			h.lens[h.nodes[k]&0xffff] = uint8(l)
			k++
		}
	}
}

// assign makes the codes for the lengths.
func (h *huffman) assign(symbols int) {
	var count, next [maxCode + 2]uint16
	for _, l := range h.lens[:symbols] {
		count[l]++
	}
	code := uint16(0)
	count[0] = 0
	for l := 1; l <= maxCode; l++ {
		code = (code + count[l-1]) << 1
		next[l] = code
	}
	for n, l := range h.lens[:symbols] {
		if l > 0 {
			h.codes[n] = bits.Reverse16(next[l]) >> (16 - l)
			next[l]++
		}
	}
}
