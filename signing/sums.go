package signing

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The names of the checksum file of a release directory and its signature.
const (
	SumsFile = "SHA256SUMS"
	SumsSig  = "SHA256SUMS.asc"
)

const (
	maxSumsFile    = 32 << 20 // 100,000 entries with long names
	maxSumsEntries = 100_000
	maxFileName    = 255
)

// sumEntry is one line of a checksum file. A hostile name is kept, so that it
// can be reported, together with why it is refused.
type sumEntry struct {
	name   string
	sha256 string
	bad    Reason
}

// bsdLine is the format of BSD's sha256 and of sha256sum --tag.
var bsdLine = regexp.MustCompile(`^SHA256 \((.*)\) = ([0-9a-fA-F]{64})$`)

// parseSums reads what sha256sum writes: GNU lines (text or binary mode, with
// its escapes) or BSD lines.
func parseSums(data []byte) ([]sumEntry, error) {
	if len(data) > maxSumsFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxSumsFile)
	}
	if len(data) == 0 {
		return nil, errors.New("it is empty")
	}
	if data[len(data)-1] != '\n' {
		return nil, errors.New("it is cut short: the last line has no end")
	}
	var entries []sumEntry
	seen := map[string]bool{}
	for n := 1; len(data) > 0; n++ {
		if n > maxSumsEntries {
			return nil, fmt.Errorf("it has more than %d lines", maxSumsEntries)
		}
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		e, err := parseSumLine(string(bytes.TrimSuffix(line, []byte("\r"))))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if e.bad == "" && seen[e.name] {
			e.bad = DuplicateName
		}
		seen[e.name] = true
		entries = append(entries, e)
	}
	return entries, nil
}

func parseSumLine(line string) (sumEntry, error) {
	rest, escaped := strings.CutPrefix(line, `\`)
	var e sumEntry
	if m := bsdLine.FindStringSubmatch(rest); m != nil {
		e.name, e.sha256 = m[1], m[2]
	} else {
		const digits = 64
		if len(rest) < digits+3 || rest[digits] != ' ' || rest[digits+1] != ' ' && rest[digits+1] != '*' {
			return e, errors.New("it is neither in GNU nor in BSD format")
		}
		e.sha256, e.name = rest[:digits], rest[digits+2:]
	}
	if _, err := hex.DecodeString(e.sha256); err != nil {
		return e, errors.New("its digest is not hexadecimal")
	}
	e.sha256 = strings.ToLower(e.sha256)
	if escaped {
		name, err := unescape(e.name)
		if err != nil {
			return e, err
		}
		e.name = name
	}
	if !goodName(e.name) {
		e.bad = BadName
	}
	return e, nil
}

func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", errors.New("its name ends in a backslash")
		}
		switch s[i] {
		case '\\':
			b.WriteByte('\\')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		default:
			return "", fmt.Errorf("its name has the unknown escape %q", s[i-1:i+1])
		}
	}
	return b.String(), nil
}

// goodName says whether a file of a release directory may have the name: one
// path element of printable text.
func goodName(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > maxFileName || !utf8.ValidString(name) {
		return false
	}
	if name == SumsFile || name == SumsSig {
		return false // they cannot list themselves
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return r == '/' || r == '\\' || !unicode.IsPrint(r)
	})
}

// formatSums writes the file that sha256sum -c reads. The names must be good.
func formatSums(files []FileDigest) []byte {
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "%s  %s\n", f.SHA256, f.Name)
	}
	return b.Bytes()
}
