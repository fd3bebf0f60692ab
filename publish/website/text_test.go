package website

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, ünicode 日本": "plain text, ünicode 日本", "a\u202eb": "a‹U+202E›b", "a\x00\x1b[m": "a‹U+0000›‹U+001B›[m", "\xff": "‹FF›", "a\u00a0b": "a‹U+00A0›b",
		"\ufffd": "\ufffd", "a\nb": "a\nb", "a\tb": "a‹U+0009›b", "\u3164": "‹U+3164›", strings.Repeat("é", maxText): strings.Repeat("é", maxText/2) + "… (cut, 4000 bytes)",
	} {
		assert.Equal(t, want, visible(in))
	}
	assert.Equal(t, "a‹U+000A›b", oneLine("a\nb"))
}

func TestShell(t *testing.T) {
	for in, want := range map[string]string{"a=b": "a=b", "": "''", "a b": "'a b'", "it's $x": `'it'\''s $x'`, "~/x": "'~/x'", "a\n-b": "'a‹U+000A›-b'"} {
		assert.Equal(t, want, shell(in))
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("a\u202eb\xff\x00")
	f.Add(strings.Repeat("日", maxText))
	f.Fuzz(func(t *testing.T, s string) {
		got := visible(s)
		if !utf8.ValidString(got) || len(got) > 9*maxText+100 {
			t.Fatalf("%q", got)
		}
		for _, r := range got {
			if r != '\n' && (turns(r) || r < ' ') {
				t.Fatalf("%q has %U", got, r)
			}
		}
		if !strings.Contains(got, "… (cut") && visible(got) != got && len(got) <= maxText {
			t.Fatalf("%q changes again", got)
		}
	})
}
