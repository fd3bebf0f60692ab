package visible

import (
	"encoding/json"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"": "",
		"plain, Größe, 日本語, שלום, 🙂": "plain, Größe, 日本語, שלום, 🙂",
		"\x1b[31mred\x07\x00":        `\x1b[31mred\a\x00`,
		"a\nb\tc\r":                  `a\nb\tc\r`,
		"\x7f\u0085\u009b31m":        `\x7f\x85\x9b31m`,
		"abc\u202edcba\u202c":        `abc\u202edcba\u202c`,
		"\u2066x\u2069\u061c\u200e":  `\u2066x\u2069\u061c\u200e`,
		"a\u200bb\u2060\ufeff":       `a\u200bb\u2060\ufeff`,
		"\u2028\u2029\u00a0\u00ad":   `\u2028\u2029\xa0\xad`,
		"\U000e0041\ufe0f\u3164":     `\U000e0041\ufe0f\u3164`,
		"\ue000\ufdd0\U0010ffff":     `\ue000\ufdd0\U0010ffff`,
		"bad \xff\xc3":               `bad \xff\xc3`,
		"real \ufffd":                "real \ufffd",
		"e\u0301":                    "e\u0301",
		"e\u0301\u0301\u0301\u0301":  "e\u0301\u0301\u0301" + `\u0301`,
		`already \u202e`:             `already \u202e`,
	} {
		assert.Equal(t, want, Line(in), "%+q", in)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("\x1b]0;x\x07\u202e\u200b\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := Line(s)
		require.True(t, utf8.ValidString(got))
		require.Equal(t, got, Line(got))
		for _, r := range got {
			require.True(t, r >= ' ' && r != 0x7f && !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs), "%U", r)
		}
		text, err := json.Marshal(s)
		require.NoError(t, err)
		var was, is string
		shown := JSON(text)
		require.NoError(t, json.Unmarshal(text, &was))
		require.NoError(t, json.Unmarshal(shown, &is))
		require.Equal(t, was, is)
		require.Equal(t, string(shown), Line(string(shown)))
	})
}
