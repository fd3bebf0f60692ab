package signing

import (
	"bytes"
	"crypto"
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
	maxSumsLine    = 16 << 10 // every byte of a long path escaped
	maxFileName    = 255
)

// sumEntry is a file of a checksum file. A hostile name is kept, so that it
// can be reported, together with why it is refused.
type sumEntry struct {
	name           string
	sha256, sha512 string // as far as they are listed
	other          string // an algorithm that does not count
	bad            Reason
}

// counted says whether the entry has a digest by which the file can be judged.
func (e *sumEntry) counted() bool { return e.sha256 != "" || e.sha512 != "" }

// fits compares the digests.
func (e *sumEntry) fits(d FileDigest) bool {
	return e.counted() && (e.sha256 == "" || e.sha256 == d.SHA256) && (e.sha512 == "" || e.sha512 == d.SHA512)
}

// algorithms to compute besides SHA-256.
func (e *sumEntry) algorithms() []crypto.Hash {
	if e.sha512 == "" {
		return nil
	}
	return []crypto.Hash{crypto.SHA512}
}

func (e *sumEntry) digester() *digester {
	return newDigester(append(e.algorithms(), crypto.SHA256)...)
}

var (
	// bsdLine is the format of BSD's sha256, of sha256sum --tag and of openssl.
	bsdLine = regexp.MustCompile(`^([A-Za-z0-9/_-]+) ?\((.*)\) ?= ?([0-9a-fA-F]+)$`)

	// hashComment stands before GNU lines of an algorithm that their length does
	// not tell, as in Gentoo's DIGESTS.
	hashComment = regexp.MustCompile(`(?i)^#\s*((?:MD|SHA|BLAKE|RMD|RIPEMD|WHIRLPOOL|STREEBOG)[A-Z0-9/_-]*) HASH$`)

	// releaseField begins the list of a Debian Release file.
	releaseField = regexp.MustCompile(`(?m)^(MD5Sum|SHA1|SHA256|SHA512):$`)
)

// parseSums reads what sha256sum and its like write, in any mixture: GNU lines
// (text or binary mode, with escapes), BSD lines, comments and blank lines. A
// file can be listed once with each algorithm. SHA-256 and SHA-512 count; others
// are noted. Where nested is set the names may be paths to below the directory.
func parseSums(data []byte, nested bool) ([]sumEntry, error) {
	if len(data) > maxSumsFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxSumsFile)
	}
	p := sumsParser{nested: nested, index: map[string]int{}}
	data = trimBOM(data)
	for n := 1; len(data) > 0; n++ {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		if len(line) > maxSumsLine {
			return nil, fmt.Errorf("line %d is longer than %d bytes", n, maxSumsLine)
		}
		if err := p.line(string(bytes.TrimSuffix(line, []byte("\r")))); err != nil {
			if releaseField.Match(data) {
				err = errors.New("it is a Debian Release file, whose lists are not read")
			}
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(p.entries) > maxSumsEntries {
			return nil, fmt.Errorf("it has more than %d entries", maxSumsEntries)
		}
	}
	if len(p.entries) == 0 {
		return nil, errors.New("it lists no file")
	}
	return p.entries, nil
}

type sumsParser struct {
	nested  bool
	hash    string // of the GNU lines that follow, if a comment said so
	entries []sumEntry
	index   map[string]int // of the entries whose names are good
}

func (p *sumsParser) line(line string) error {
	line = strings.TrimLeft(line, " \t")
	if strings.HasPrefix(line, "#") {
		if m := hashComment.FindStringSubmatch(strings.TrimRight(line, " \t")); m != nil {
			p.hash = m[1]
		}
		return nil
	}
	if strings.TrimRight(line, " \t") == "" {
		return nil
	}
	name, hash, digest, err := p.split(line)
	if err != nil {
		return err
	}
	for strings.HasPrefix(name, "./") {
		name = strings.TrimPrefix(name, "./")
	}
	if !goodPath(name, p.nested) || !p.nested && !goodName(name) {
		p.entries = append(p.entries, sumEntry{name: name, bad: BadName})
		return nil
	}
	i, known := p.index[name]
	if !known {
		i = len(p.entries)
		p.index[name] = i
		p.entries = append(p.entries, sumEntry{name: name})
	}
	p.entries[i].set(hash, digest)
	return nil
}

// set notes a digest. One that is there already is a finding, also if both are
// the same: whoever wrote the list did not mean that.
func (e *sumEntry) set(hash, digest string) {
	var field *string
	switch hash {
	case "SHA256":
		field = &e.sha256
	case "SHA512":
		field = &e.sha512
	default:
		e.other = hash
		return
	}
	if *field != "" {
		e.bad = DuplicateName
		return
	}
	*field = digest
}

// split returns the parts of a line in GNU or BSD format.
func (p *sumsParser) split(line string) (name, hash, digest string, err error) {
	rest, escaped := strings.CutPrefix(line, `\`)
	if m := bsdLine.FindStringSubmatch(rest); m != nil {
		hash, name, digest = m[1], m[2], m[3]
	} else {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789abcdefABCDEF"))
		if len(rest) < digits+3 || rest[digits] != ' ' || rest[digits+1] != ' ' && rest[digits+1] != '*' {
			return "", "", "", errors.New("it is neither in GNU nor in BSD format")
		}
		digest, hash, name = rest[:digits], p.hash, rest[digits+2:]
		if hash == "" {
			hash = map[int]string{32: "MD5", 40: "SHA1", 56: "SHA224", 64: "SHA256", 96: "SHA384", 128: "SHA512"}[digits]
		}
	}
	hash = strings.ReplaceAll(strings.ReplaceAll(strings.ToUpper(hash), "SHA2-", "SHA"), "SHA-", "SHA")
	if want := map[string]int{"SHA256": 64, "SHA512": 128}[hash]; want != 0 && len(digest) != want || hash == "" {
		return "", "", "", errors.New("its digest has a wrong length")
	}
	if _, err := hex.DecodeString(digest); err != nil {
		return "", "", "", errors.New("its digest is not hexadecimal")
	}
	if escaped {
		if name, err = unescape(name); err != nil {
			return "", "", "", err
		}
	}
	if name == "" {
		return "", "", "", errors.New("it has no name")
	}
	return name, hash, strings.ToLower(digest), nil
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
			return "", errors.New("its name has an unknown escape")
		}
	}
	return b.String(), nil
}

// goodName says whether a file of a release directory may have the name: one
// path element of printable text.
func goodName(name string) bool {
	if name == SumsFile || name == SumsSig {
		return false // they cannot list themselves
	}
	return goodPath(name, false)
}

// goodPath is goodName for any directory, or for a path to below it.
func goodPath(name string, nested bool) bool {
	if len(name) > 16*maxFileName || !utf8.ValidString(name) {
		return false
	}
	elements := []string{name}
	if nested {
		elements = strings.Split(name, "/")
	}
	for _, e := range elements {
		if e == "" || e == "." || e == ".." || len(e) > maxFileName {
			return false
		}
		if strings.ContainsFunc(e, func(r rune) bool { return r == '/' || r == '\\' || !unicode.IsPrint(r) }) {
			return false
		}
	}
	return true
}

// formatSums writes the file that sha256sum -c reads. The names must be good.
func formatSums(files []FileDigest) []byte {
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "%s  %s\n", f.SHA256, f.Name)
	}
	return b.Bytes()
}
