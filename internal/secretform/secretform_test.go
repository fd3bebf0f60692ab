package secretform

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const secret = "Wq7~Zf?e/9uN3xRt"

func TestFinder(t *testing.T) {
	wide := ""
	for _, r := range secret {
		wide += string(r) + "\x00"
	}
	for name, row := range map[string]struct{ text, want string }{
		"text":              {"password: " + secret + "\n", "text"},
		"over two lines":    {secret[:5] + "\n" + secret[5:], "text"},
		"16 bits":           {wide, "text"},
		"base64":            {base64.StdEncoding.EncodeToString([]byte(secret)), "base64"},
		"base64 behind one": {base64.StdEncoding.EncodeToString([]byte("x" + secret + "\n")), "base64"},
		"base64 behind two": {base64.URLEncoding.EncodeToString([]byte("xy" + secret + "more")), "base64"},
		"wrapped base64":    {base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 50) + secret))[:76] + "\n" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 50) + secret))[76:], "base64"},
		"hex":               {hex.EncodeToString([]byte(secret)), "hex"},
		"spaced hex":        {strings.ToUpper(hex.EncodeToString([]byte(secret[:8])) + "  " + hex.EncodeToString([]byte(secret[8:]))), "hex"},
		"of a URL":          {"x?password=Wq7~Zf%3Fe%2F9uN3xRt&y", "percent-encoded"},
		"another":           {"Wq7~Zf?e/9uN3xRs", ""},
		"the beginning":     {secret[:15], ""},
		"nothing":           {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 7, 1 << 20} {
				f := NewFinder("", secret)
				for rest := []byte(row.text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
					_, _ = f.Write(rest[:min(size, len(rest))])
				}
				require.Equal(t, row.want, f.Next(), "%d bytes at once", size)
				require.Empty(t, f.Next(), "a text of its own")
			}
		})
	}
	f := NewFinder(secret)
	_, _ = f.Write([]byte(secret[:8]))
	f.Next()
	_, _ = f.Write([]byte(secret[8:]))
	require.Empty(t, f.Next(), "two texts")
	require.Empty(t, Forms("short"))
}

func BenchmarkFinder(b *testing.B) {
	f, data := NewFinder(secret), []byte(strings.Repeat("The quick brown fox jumps over the lazy dog 0123456789 abcdef\n", 1<<14))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		_, _ = f.Write(data)
		f.Next()
	}
}
