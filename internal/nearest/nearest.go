// Package nearest finds the known name that somebody meant.
package nearest

import (
	"errors"
	"fmt"
	"strings"
)

// maxName bounds what is compared and quoted, for a name may come from anywhere.
const maxName = 64

// Name returns the one of known that needs the fewest edits to become name, or
// "" where none is so near that it is likely to be meant.
func Name(name string, known []string) string {
	if len(name) > maxName {
		return ""
	}
	best, cost := "", max(1, len(name)/3)+1
	for _, k := range known {
		if c := edits(strings.ToLower(name), strings.ToLower(k)); c < cost && c < len(k) {
			best, cost = k, c
		}
	}
	return best
}

// Unknown is the error about a name that is none of known: it names the nearest,
// or all where none is near.
func Unknown(kind, name string, known []string) error {
	text := fmt.Sprintf("unknown %s %.*q", kind, maxName, name)
	switch near := Name(name, known); {
	case near != "":
		text += "; the nearest known is " + near
	case len(known) > 0:
		text += "; known are " + strings.Join(known, ", ")
	default:
		text += "; there is none"
	}
	return errors.New(text)
}

// edits is the number of bytes to add, remove, replace or exchange with their
// neighbour to make b of a.
func edits(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := row[j]
			if a[i] != b[j] {
				cost++
			}
			cost = min(cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cost = min(cost, before[j-1]+1)
			}
			next[j+1] = cost
		}
		before, row = row, next
	}
	return row[len(b)]
}
