// Package visible shows text of a machine that is not trusted. What a terminal,
// a browser or a viewer of logs would act on, or show nothing for, is written as
// an escape: control characters (C0, C1, delete), direction marks, characters
// of no width, blanks that are no space, line and paragraph separators, private and
// unassigned characters, and marks that pile up over a letter.
package visible

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMarks is how many combining marks may stand on one letter: Vietnamese has
// two, vocalized Hebrew and Arabic three.
const maxMarks = 3

// Line writes s as one line of text that is safe to show. The escapes are
// Go's: \n, \t, \x1b, \u202e, \U000e0001; a byte that is not UTF-8 is \xff. What
// is shown already is not changed by showing it again.
func Line(s string) string {
	marks := 0
	plain := func(r rune) bool {
		marks++
		if !unicode.In(r, unicode.Mn, unicode.Me) {
			marks = 0
		}
		return shows(r) && marks <= maxMarks
	}
	var b strings.Builder
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				fmt.Fprintf(&b, `\x%02x`, s[i])
				continue
			}
		}
		switch {
		case plain(r):
			b.WriteRune(r)
		case r < ' ':
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

// shows reports whether a character has a look of its own.
func shows(r rune) bool {
	switch r {
	case '\u034f', '\u115f', '\u1160', '\u17b4', '\u17b5', '\u2800', '\u3164', '\uffa0': // fillers and joiners
		return false
	}
	return strconv.IsPrint(r) && !unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// JSON replaces in a JSON text the characters that Line would escape by JSON's
// own escapes: it says the same and is safe to show. Its line breaks stay.
func JSON(text []byte) []byte {
	var b strings.Builder
	b.Grow(len(text))
	for _, r := range string(text) {
		switch {
		case r < ' ' || r < utf8.RuneSelf && r != 0x7f || shows(r) && !unicode.In(r, unicode.Mn, unicode.Me):
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return []byte(b.String())
}
