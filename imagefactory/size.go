package imagefactory

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Size is a number of bytes. Its text form is a whole number and a unit:
// "4GiB", "512MiB", "12GB" or "500MB".
type Size int64

// The units of sizes.
const (
	MB  Size = 1e6
	GB  Size = 1e9
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

var units = []struct {
	name string
	size Size
}{{"GiB", GiB}, {"GB", GB}, {"MiB", MiB}, {"MB", MB}} // as String prefers them

// ParseSize reads the text form.
func ParseSize(s string) (Size, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(number, " "), 10, 63)
		if err != nil || n == 0 || n > math.MaxInt64/uint64(u.size) {
			break
		}
		return Size(n) * u.size, nil
	}
	return 0, fmt.Errorf("bad size %q: want a whole number above 0 and a unit, GiB, MiB, GB or MB, such as 4GiB", s)
}

// String is the text form, in the largest unit that gives a whole number.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + " bytes"
}

// CeilGiB is the size in GiB, rounded up: the unit of a cloud's min_disk.
func (s Size) CeilGiB() int { return int((s + GiB - 1) / GiB) }

// MarshalYAML writes the text form.
func (s Size) MarshalYAML() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalYAML reads the text form; the error has its position.
func (s *Size) UnmarshalYAML(node ast.Node) error {
	text := node.String()
	if n, ok := node.(*ast.StringNode); ok {
		text = n.Value
	}
	v, err := ParseSize(text)
	if err != nil {
		return at(node, err)
	}
	*s = v
	return nil
}
