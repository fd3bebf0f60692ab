package imagefactory

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

// Size is a number of bytes. Its text form is a whole number and a unit:
// "4GiB", "4 GiB", "512MiB", "12GB" or "2TiB".
type Size int64

// The units of sizes.
const (
	MB  Size = 1e6
	GB  Size = 1e9
	TB  Size = 1e12
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

var units = []struct {
	name string
	size Size
}{{"TiB", TiB}, {"TB", TB}, {"GiB", GiB}, {"GB", GB}, {"MiB", MiB}, {"MB", MB}} // as String prefers them

// sizeText is a number and what may be meant for its unit.
var sizeText = regexp.MustCompile(`^([0-9]+) ?([A-Za-z]*)$`)

// ParseSize reads the text form.
func ParseSize(s string) (Size, error) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return 0, badSize(s, "")
	}
	for _, u := range units {
		if m[2] != u.name {
			continue
		}
		n, err := strconv.ParseUint(m[1], 10, 63)
		switch {
		case err != nil || n > math.MaxInt64/uint64(u.size):
			return 0, badSize(s, "that is more than 8388607TiB: ")
		case n == 0:
			return 0, badSize(s, "")
		}
		return Size(n) * u.size, nil
	}
	if m[2] == "" {
		return 0, badSize(s, "the unit is missing: ")
	}
	return 0, badSize(s, fmt.Sprintf("unknown unit %.20q: ", m[2]))
}

func badSize(s, why string) error {
	return fmt.Errorf("bad size %.40q: %swant a whole number above 0 and a unit, TiB, TB, GiB, GB, MiB or MB, such as 4GiB", s, why)
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

// MarshalText writes the text form. A size that has none, because it is no
// whole number of MB or MiB, is an error.
func (s Size) MarshalText() ([]byte, error) {
	if s <= 0 || !s.whole() {
		return nil, fmt.Errorf("cannot write the size %v: no whole number of MiB or MB", s)
	}
	return []byte(s.String()), nil
}

// whole reports whether there is a text form for s, or s is 0.
func (s Size) whole() bool { return s >= 0 && (s%MiB == 0 || s%MB == 0) }

// UnmarshalText reads the text form.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = v
	return nil
}
