// Package pkgversion orders the versions of packages as dpkg and rpm do, and says
// which of both a distribution has.
package pkgversion

import (
	"cmp"
	"regexp"
	"strings"
)

// A Scheme is how a package manager writes and orders versions.
type Scheme struct {
	// Compare orders two versions. It takes any text: what is no version has some
	// place in the order.
	Compare func(a, b string) int
	form    *regexp.Regexp
}

// Valid reports whether text is a version as the package manager takes them.
func (s Scheme) Valid(text string) bool { return s.form.MatchString(text) }

var (
	// deb-version(7); a colon in the upstream version, which nobody has, is refused.
	debForm = regexp.MustCompile(`^([0-9]{1,9}:)?[0-9][A-Za-z0-9.+~]*(-[A-Za-z0-9.+~]+)*$`)
	// rpm-version(7): no hyphen but the one before the release.
	rpmForm = regexp.MustCompile(`^([0-9]{1,9}:)?[A-Za-z0-9][A-Za-z0-9._+~^]*(-[A-Za-z0-9._+~^]+)?$`)
)

// For returns the scheme of a distribution, by the name that a definition has for
// it; false if that is not known.
func For(distribution string) (Scheme, bool) {
	switch distribution {
	case "debian", "ubuntu", "devuan", "kali":
		return Scheme{Compare: Deb, form: debForm}, true
	case "almalinux", "amazon", "centos", "euleros", "fedora", "hce", "openeuler", "opensuse", "oraclelinux", "redhat", "rhel", "rocky", "sles":
		return Scheme{Compare: RPM, form: rpmForm}, true
	}
	return Scheme{}, false
}

// Split takes "[EPOCH:]VERSION[-RELEASE]" apart. What is not there is empty.
func Split(v string) (epoch, version, release string) {
	epoch, v = cutEpoch(v)
	version, release = cutLast(v)
	return epoch, version, release
}

// Deb compares two versions as dpkg does (deb-version(7)). It takes any
// text: what is no version has some place in the order.
func Deb(a, b string) int {
	aEpoch, aUpstream, aRevision := Split(a)
	bEpoch, bUpstream, bRevision := Split(b)
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

// RPM compares two "[EPOCH:]VERSION[-RELEASE]" as rpm does
// (rpm-version(7)). A release that one of them lacks is not compared.
func RPM(a, b string) int {
	aEpoch, aVersion, aRelease := Split(a)
	bEpoch, bVersion, bRelease := Split(b)
	if c := cmp.Or(compareDigits(aEpoch, bEpoch), RPMPart(aVersion, bVersion)); c != 0 || aRelease == "" || bRelease == "" {
		return c
	}
	return RPMPart(aRelease, bRelease)
}

// RPMPart compares two versions, or two releases, as rpm does: segments of digits or
// letters; what lies between them only
// separates. A tilde is before the end, a caret after it but before a segment.
func RPMPart(a, b string) int {
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
