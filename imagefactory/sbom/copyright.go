package sbom

import (
	"regexp"
	"slices"
	"strings"
)

// ReadCopyright returns the licences that a package's debian/copyright states, as an
// SPDX expression (SPDX 2.3, annex D): all that are said of any of its files, joined
// by AND, sorted. It reads the machine-readable form only (DEP-5, version 1.0); of
// anything else, and where no licence is said, it returns "". What has no identifier
// in SPDX is a LicenseRef-Debian-NAME; at most 1 MiB is looked at, and an
// expression of more than 16 KiB is none.
func ReadCopyright(text string) string {
	text = text[:min(len(text), maxCopyright)]
	if !machineReadable.MatchString(text[:min(len(text), 2<<10)]) {
		return ""
	}
	var all []string
	seen, size := map[string]bool{}, 0
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		paragraph = "\n" + strings.Trim(paragraph, "\n") + "\n"
		if !strings.Contains(paragraph, "\nFiles:") && !strings.Contains(paragraph, "\nFormat:") {
			continue // the text of a licence that others name
		}
		m := licenceField.FindStringSubmatch(paragraph)
		if m == nil {
			continue
		}
		e := spdxExpression(m[1])
		if e == "" || seen[e] {
			continue
		}
		if size += len(e); size > maxExpression {
			return ""
		}
		seen[e], all = true, append(all, e)
	}
	if len(all) > 1 {
		for i, e := range all {
			if strings.Contains(e, " OR ") {
				all[i] = "(" + e + ")"
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, " AND ")
}

const (
	maxCopyright  = 1 << 20
	maxExpression = 16 << 10
)

var (
	machineReadable = regexp.MustCompile(`(?m)^Format: *https?://[^ \n]*/(copyright-format|dep5?)[/#.]`)
	licenceField    = regexp.MustCompile(`\nLicense:[ \t]*([^\n]*)\n`)
	versioned       = regexp.MustCompile(`(?i)^(A?GPL|LGPL|GFDL|GFDL-NIV)-([0-9])(?:\.([0-9]))?(?:\.0)*(\+?)$`)
	notInRef        = regexp.MustCompile(`[^A-Za-z0-9.]+`)
)

// spdxExpression translates the short form of a licence. What a comma divides is joined
// last: "A, and B or C" is A AND (B OR C).
func spdxExpression(text string) string {
	join := func(parts []string, word string, group func(string) string) string {
		var out []string
		for _, p := range parts {
			if p = group(strings.TrimSpace(p)); p != "" {
				out = append(out, p)
			}
		}
		if len(out) > 1 {
			for i := range out { // "or" binds less than "and"
				if strings.Contains(out[i], " OR ") || word == " OR " && strings.Contains(out[i], " AND ") {
					out[i] = "(" + out[i] + ")"
				}
			}
		}
		return strings.Join(out, word)
	}
	clause := func(s string) string {
		return join(orWord.Split(s, -1), " OR ", func(s string) string {
			return join(andWord.Split(s, -1), " AND ", spdxName)
		})
	}
	// What a comma divides is combined by the word behind it.
	parts := commaWord.Split(text, -1)
	words := commaWord.FindAllStringSubmatch(text, -1)
	word := " AND "
	if len(words) > 0 && !slices.ContainsFunc(words, func(m []string) bool { return !strings.EqualFold(m[1], "or") }) {
		word = " OR "
	}
	return join(parts, word, clause)
}

var (
	commaWord = regexp.MustCompile(`(?i),\s*(?:(and|or)\s+)?`)
	orWord    = regexp.MustCompile(`(?i)\s+or\s+`)
	andWord   = regexp.MustCompile(`(?i)\s+and\s+`)
)

// spdxNames are those of Debian's short names that SPDX calls otherwise, or whose case
// differs.
var spdxNames = map[string]string{
	"expat": "MIT", "mit": "MIT", "x11": "X11", "isc": "ISC", "zlib": "Zlib", "zlib/libpng": "Zlib", "apache-2": "Apache-2.0", "apache-2.0": "Apache-2.0",
	"artistic": "Artistic-1.0-Perl", "artistic-2": "Artistic-2.0", "artistic-2.0": "Artistic-2.0", "bsd-2-clause": "BSD-2-Clause",
	"bsd-3-clause": "BSD-3-Clause", "bsd-4-clause": "BSD-4-Clause", "bsd-4-clause-uc": "BSD-4-Clause-UC", "bsl-1.0": "BSL-1.0", "cc0": "CC0-1.0", "cc0-1.0": "CC0-1.0",
	"curl": "curl", "ftl": "FTL", "mpl-1.1": "MPL-1.1", "mpl-2.0": "MPL-2.0", "openssl": "OpenSSL", "psf-2": "PSF-2.0", "psf-2.0": "PSF-2.0", "python-2.0": "Python-2.0",
	"unlicense": "Unlicense", "0bsd": "0BSD", "wtfpl": "WTFPL", "wtfpl-2": "WTFPL", "hpnd": "HPND", "ntp": "NTP", "ofl-1.1": "OFL-1.1", "bzip2": "bzip2-1.0.6",
	"cc-by-3.0": "CC-BY-3.0", "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-3.0": "CC-BY-SA-3.0", "cc-by-sa-4.0": "CC-BY-SA-4.0", "beerware": "Beerware", "tcl": "TCL",
}

// spdxName translates one licence.
func spdxName(s string) string {
	if s == "" {
		return ""
	}
	if name, ok := spdxNames[strings.ToLower(s)]; ok {
		return name
	}
	if m := versioned.FindStringSubmatch(s); m != nil {
		family, suffix := strings.ToUpper(m[1]), "-only"
		minor := m[3]
		if minor == "" {
			minor = "0"
		}
		if m[4] != "" {
			suffix = "-or-later"
		}
		if family == "GFDL-NIV" {
			family, suffix = "GFDL", "-no-invariants"+suffix
		}
		if name := family + "-" + m[2] + "." + minor + suffix; slices.Contains(gnu, name[:len(name)-len(suffix)]) {
			return name
		}
	}
	ref := strings.Trim(notInRef.ReplaceAllString(strings.ReplaceAll(s, "+", "-or-later"), "-"), "-")
	if ref == "" {
		return ""
	}
	return "LicenseRef-Debian-" + ref[:min(len(ref), 100)]
}

// gnu are the versions that there are.
var gnu = []string{"GPL-1.0", "GPL-2.0", "GPL-3.0", "LGPL-2.0", "LGPL-2.1", "LGPL-3.0", "AGPL-1.0", "AGPL-3.0", "GFDL-1.1", "GFDL-1.2", "GFDL-1.3"}

// isExpression reports whether the text is an expression of identifiers, AND, OR, WITH
// and parentheses, and not merely a name.
func isExpression(text string) bool {
	depth, operand := 0, false // whether an operand has just come
	for _, token := range strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text)) {
		switch {
		case token == "(":
			if operand {
				return false
			}
			depth++
		case token == ")":
			if !operand || depth == 0 {
				return false
			}
			depth--
		case token == "AND" || token == "OR" || token == "WITH":
			if !operand {
				return false
			}
			operand = false
		case operand || !identifier.MatchString(token):
			return false
		default:
			operand = true
		}
	}
	return operand && depth == 0
}

var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*\+?$`)
