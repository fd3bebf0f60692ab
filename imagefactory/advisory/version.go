package advisory

import (
	"cmp"
	"strings"
)

// compareDeb compares two versions as dpkg does (deb-version(7)). It takes any
// text: what is no version has some place in the order.
func compareDeb(a, b string) int {
	aEpoch, a := cutEpoch(a)
	bEpoch, b := cutEpoch(b)
	aUpstream, aRevision := cutLast(a)
	bUpstream, bRevision := cutLast(b)
	return cmp.Or(compareDigits(aEpoch, bEpoch), verrevcmp(aUpstream, bUpstream), verrevcmp(aRevision, bRevision))
}

func cutEpoch(v string) (epoch, rest string) {
	if epoch, rest, ok := strings.Cut(v, ":"); ok {
		return epoch, rest
	}
	return "", v
}

func cutLast(v string) (upstream, revision string) {
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, ""
}

// verrevcmp compares in turns what is no digit, byte by byte with its own order,
// and numbers, which may be longer than any integer.
func verrevcmp(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !isDigit(a[0]) || b != "" && !isDigit(b[0]) {
			if c := cmp.Compare(debOrder(a), debOrder(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:] // of the same order, so neither has ended
		}
		aDigits, bDigits := leading(a, isDigit), leading(b, isDigit)
		if c := compareDigits(aDigits, bDigits); c != 0 {
			return c
		}
		a, b = a[len(aDigits):], b[len(bDigits):]
	}
	return 0
}

// debOrder is the place of the first byte: a tilde before the end, the end and
// digits before letters, letters before the rest.
func debOrder(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case isLetter(s[0]):
		return int(s[0])
	}
	return int(s[0]) + 256
}

// compareRPM compares two "[EPOCH:]VERSION[-RELEASE]" as rpm does
// (rpm-version(7)). A release that one of them lacks is not compared.
func compareRPM(a, b string) int {
	aEpoch, a := cutEpoch(a)
	bEpoch, b := cutEpoch(b)
	aVersion, aRelease := cutLast(a)
	bVersion, bRelease := cutLast(b)
	if c := cmp.Or(compareDigits(aEpoch, bEpoch), rpmvercmp(aVersion, bVersion)); c != 0 || aRelease == "" || bRelease == "" {
		return c
	}
	return rpmvercmp(aRelease, bRelease)
}

// rpmvercmp compares segments of digits or letters; what lies between them only
// separates. A tilde is before the end, a caret after it but before a segment.
func rpmvercmp(a, b string) int {
	if a == b {
		return 0
	}
	for a != "" || b != "" {
		a, b = strings.TrimLeftFunc(a, separates), strings.TrimLeftFunc(b, separates)
		if c, both := special(a, b, '~'); c != 0 {
			return c
		} else if both {
			a, b = a[1:], b[1:]
			continue
		}
		if hasByte(a, '^') || hasByte(b, '^') {
			switch {
			case a == "":
				return -1
			case b == "":
				return 1
			}
			if c, _ := special(a, b, '^'); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
			continue
		}
		if a == "" || b == "" {
			break
		}
		kind := isLetter
		if isDigit(a[0]) {
			kind = isDigit
		}
		aSegment, bSegment := leading(a, kind), leading(b, kind)
		if bSegment == "" { // of the other kind: numbers are newer than letters
			if isDigit(a[0]) {
				return 1
			}
			return -1
		}
		c := strings.Compare(aSegment, bSegment)
		if isDigit(a[0]) {
			c = compareDigits(aSegment, bSegment)
		}
		if c != 0 {
			return c
		}
		a, b = a[len(aSegment):], b[len(bSegment):]
	}
	return cmp.Compare(len(a), len(b)) // one of them has ended
}

// special compares what may begin with the byte c: who has it, alone, is first.
func special(a, b string, c byte) (order int, both bool) {
	switch {
	case hasByte(a, c) && hasByte(b, c):
		return 0, true
	case hasByte(a, c):
		return -1, false
	case hasByte(b, c):
		return 1, false
	}
	return 0, false
}

func hasByte(s string, c byte) bool { return s != "" && s[0] == c }

func separates(r rune) bool {
	return r != '~' && r != '^' && (r > '~' || !isDigit(byte(r)) && !isLetter(byte(r)))
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func leading(s string, is func(byte) bool) string {
	n := 0
	for n < len(s) && is(s[n]) {
		n++
	}
	return s[:n]
}

// compareDigits compares decimal numbers of any length; none is 0.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
