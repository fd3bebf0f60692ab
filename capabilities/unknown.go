package capabilities

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// An UnknownNameError says that a name is not known, and which known names
// come near it.
type UnknownNameError struct {
	Kind    string   // "capability" or "flavor"
	Name    string   // the name that was asked for
	Nearest []string // at most three known names, the nearest first
}

func (e *UnknownNameError) Error() string {
	text := fmt.Sprintf("unknown %s %q", e.Kind, e.Name)
	if len(e.Nearest) > 0 {
		text += "; the nearest known are " + strings.Join(e.Nearest, ", ")
	}
	return text
}

// maxName bounds what is compared with the known names: the work grows with
// the length of a name that a caller may have from anywhere.
const maxName = 64

// nearest returns the three of known that need the fewest edits to become name.
func nearest(name string, known []string) []string {
	if len(name) > maxName {
		name = name[:maxName]
	}
	type ranked struct {
		name string
		cost int
	}
	list := make([]ranked, len(known))
	for i, k := range known {
		list[i] = ranked{k, edits(name, k)}
	}
	slices.SortStableFunc(list, func(a, b ranked) int { return cmp.Compare(a.cost, b.cost) })
	var out []string
	for _, r := range list[:min(3, len(list))] {
		out = append(out, r.name)
	}
	return out
}

// edits is the Levenshtein distance of a and b in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
