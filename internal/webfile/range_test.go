package webfile

import (
	"strings"
	"testing"
)

func FuzzRangeStart(f *testing.F) {
	for _, s := range []string{"bytes 4-9/10", "bytes 4-9/*", "bytes */10", "bytes -4-9/10", "bytes 99999999999999999999-/1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if n, ok := rangeStart(header); ok && (n < 0 || !strings.HasPrefix(header, "bytes ") || !strings.Contains(header, "-")) {
			t.Errorf("%q begins at %d", header, n)
		}
	})
}
