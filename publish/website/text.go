package website

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds one text on a page, in bytes.
const maxText = 2000

// visible makes hostile text readable: what is not printed, or turns the direction
// of text, is shown by its number, and a long text is cut. Line feeds stay.
func visible(s string) string { return visibleUpTo(s, maxText) }

func visibleUpTo(s string, most int) string {
	size := len(s)
	if size <= most && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		return s
	}
	if size > most {
		for n := 0; n < utf8.UTFMax-1 && !utf8.RuneStart(s[most]); n++ {
			most--
		}
		s = s[:most]
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				fmt.Fprintf(&b, "‹%02X›", s[i])
				continue
			}
			b.WriteRune(r)
		case r == '\n', r == ' ', unicode.IsPrint(r) && !turns(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "‹U+%04X›", r)
		}
	}
	if size > most {
		fmt.Fprintf(&b, "… (cut, %d bytes)", size)
	}
	return b.String()
}

// turns reports characters that are printed by Unicode's categories and yet not
// seen: variation selectors, fillers and the blank braille pattern.
func turns(r rune) bool {
	return unicode.Is(unicode.Bidi_Control, r) || unicode.Is(unicode.Variation_Selector, r) ||
		r == 0x115f || r == 0x1160 || r == 0x3164 || r == 0xffa0 || r == 0x2800
}

// oneLine is visible without line feeds.
func oneLine(s string) string { return strings.ReplaceAll(visible(s), "\n", "‹U+000A›") }

// shell quotes a word for a POSIX shell, as one to be copied from a page.
func shell(s string) string {
	s = oneLine(s)
	if s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:=+,-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
