// Package secretform finds a secret in texts, also where it is encoded.
package secretform

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
)

// A Form is one way to write a secret.
type Form struct {
	Name string // "text", "base64", "hex" or "percent-encoded"
	Text string
}

// Forms are the ways to write a secret of at least 8 bytes: as it is, in base64 of both
// alphabets wherever it begins in the encoded text, in hexadecimal digits of either
// case, and as in a URL. Of a shorter one there are none: it would be found everywhere.
func Forms(secret string) []Form {
	if len(secret) < 8 {
		return nil
	}
	var forms []Form
	add := func(name, text string) {
		if !slices.ContainsFunc(forms, func(f Form) bool { return f.Text == text }) {
			forms = append(forms, Form{name, text})
		}
	}
	add("text", secret)
	for before := range 3 {
		padded := append(make([]byte, before), secret...)
		// The characters that no byte before or behind the secret has a part in.
		from, to := (before*8+5)/6, len(padded)*8/6
		for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			add("base64", alphabet.EncodeToString(padded)[from:to])
		}
	}
	digits := hex.EncodeToString([]byte(secret))
	add("hex", digits)
	add("hex", strings.ToUpper(digits))
	add("percent-encoded", url.QueryEscape(secret))
	return forms
}

// A Finder looks for secrets in what is written to it. White space and zero bytes
// are passed over: an encoded text may have line breaks anywhere, and one of 16 bits
// a character has zeros between them. The zero value finds nothing.
type Finder struct {
	forms []Form
	most  int // the longest form's length
	rest  []byte
	found string
}

// NewFinder returns a Finder for the secrets that are not empty.
func NewFinder(secrets ...string) *Finder {
	f := new(Finder)
	for _, s := range secrets {
		for _, form := range Forms(s) {
			f.forms = append(f.forms, form)
			f.most = max(f.most, len(form.Text))
		}
	}
	return f
}

// Write looks at what comes next. It never fails.
func (f *Finder) Write(p []byte) (int, error) {
	const piece = 64 << 10
	for part := range slices.Chunk(p, piece) {
		if len(f.forms) == 0 || f.found != "" {
			break
		}
		for _, c := range part {
			switch c {
			case 0, ' ', '\t', '\n', '\r':
			default:
				f.rest = append(f.rest, c)
			}
		}
		for _, form := range f.forms {
			if bytes.Contains(f.rest, []byte(form.Text)) {
				f.found = form.Name
				break
			}
		}
		if over := len(f.rest) - f.most + 1; over > 0 {
			f.rest = append(f.rest[:0], f.rest[over:]...)
		}
	}
	return len(p), nil
}

// Next ends a text and returns the name of the form in which a secret was found in
// it, or "".
func (f *Finder) Next() string {
	found := f.found
	f.rest, f.found = f.rest[:0], ""
	return found
}
