package deflate_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// longestDistance reads a deflate stream symbol by symbol, in the plainest
// way, and returns the greatest distance of a match in it.
func longestDistance(t testing.TB, packed []byte, size int) int {
	t.Helper()
	r := plainReader{t: t, b: packed}
	longest, out := 0, 0
	for final := false; !final; {
		final = r.bits(1) == 1
		var lit, dist map[[2]int]int
		switch r.bits(2) {
		case 0:
			r.at = (r.at + 7) &^ 7
			n := r.bits(16)
			require.Equal(t, n^0xffff, r.bits(16))
			r.at += 8 * n
			out += n
			continue
		case 1:
			lens := make([]int, 288)
			for n := range lens {
				lens[n] = 8
				if n >= 144 && n < 256 {
					lens[n] = 9
				} else if n >= 256 && n < 280 {
					lens[n] = 7
				}
			}
			lit = canonical(lens)
			lens = make([]int, 30)
			for n := range lens {
				lens[n] = 5
			}
			dist = canonical(lens)
		case 2:
			lit, dist = r.codes()
		default:
			t.Fatal("reserved block type")
		}
		for symbol := r.symbol(lit); symbol != 256; symbol = r.symbol(lit) {
			if symbol < 256 {
				out++
				continue
			}
			length := 3
			if symbol == 285 {
				length = 258
			} else if symbol -= 257; symbol < 8 {
				length += symbol
			} else {
				extra := symbol/4 - 1
				length += (4+symbol%4)<<extra + r.bits(extra)
			}
			symbol := r.symbol(dist)
			distance := symbol + 1
			if symbol >= 4 {
				extra := symbol/2 - 1
				distance = (2+symbol%2)<<extra + r.bits(extra) + 1
			}
			require.LessOrEqual(t, distance, out)
			longest = max(longest, distance)
			out += length
		}
	}
	require.Equal(t, size, out)
	require.Equal(t, len(packed), (r.at+7)/8, "bytes behind the stream")
	return longest
}

type plainReader struct {
	t  testing.TB
	b  []byte
	at int
}

func (r *plainReader) bits(n int) int {
	v := 0
	for k := range n {
		require.Less(r.t, r.at/8, len(r.b))
		v |= int(r.b[r.at/8]) >> (r.at % 8) & 1 << k
		r.at++
	}
	return v
}

// canonical maps {length, code} to the symbol.
func canonical(lens []int) map[[2]int]int {
	out := map[[2]int]int{}
	code := 0
	for l := 1; l <= 15; l++ {
		for symbol, have := range lens {
			if have == l {
				out[[2]int{l, code}] = symbol
				code++
			}
		}
		code <<= 1
	}
	return out
}

func (r *plainReader) symbol(codes map[[2]int]int) int {
	code := 0
	for l := 1; l <= 15; l++ {
		code = code<<1 | r.bits(1)
		if symbol, ok := codes[[2]int{l, code}]; ok {
			return symbol
		}
	}
	r.t.Fatal("no such code")
	return 0
}

// codes reads the two codes of a dynamic block.
func (r *plainReader) codes() (lit, dist map[[2]int]int) {
	nlit, ndist, ncode := r.bits(5)+257, r.bits(5)+1, r.bits(4)+4
	order := []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	lens := make([]int, 19)
	for _, n := range order[:ncode] {
		lens[n] = r.bits(3)
	}
	code := canonical(lens)
	all := []int{}
	for len(all) < nlit+ndist {
		switch symbol := r.symbol(code); symbol {
		case 16:
			last := all[len(all)-1]
			for range 3 + r.bits(2) {
				all = append(all, last)
			}
		case 17:
			all = append(all, make([]int, 3+r.bits(3))...)
		case 18:
			all = append(all, make([]int, 11+r.bits(7))...)
		default:
			all = append(all, symbol)
		}
	}
	return canonical(all[:nlit]), canonical(all[nlit:])
}
