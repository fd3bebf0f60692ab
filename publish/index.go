package publish

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// IndexName is the name of the index in a release directory.
const IndexName = "release.json"

// maxIndex bounds an index, in bytes. A real one has two or three thousand.
const maxIndex = 1 << 20

// An Index says what a release is and lists its files. It is the content of
// release.json.
type Index struct {
	// Image is the image's name, such as Standard_Debian_12.
	Image string `json:"image"`
	// Build is when the image was built.
	Build BuildID `json:"build"`
	// DefinitionSHA256 is that of the definition that the image was built
	// from, in lower-case hexadecimal.
	DefinitionSHA256 string `json:"definition_sha256"`
	// Capabilities is the image's capability mask in its text form.
	Capabilities string `json:"capabilities"`
	// Properties are the image's properties in a cloud, among them the
	// flags that say which flavors it runs on.
	Properties map[string]string `json:"properties"`
	// MinDiskGiB is the smallest system disk that the image fits on.
	MinDiskGiB int `json:"min_disk_gib"`
	// Tests counts the image's checks.
	Tests Tests `json:"tests"`
	// Files are the release's files without the index itself. Signatures
	// and SHA256SUMS, which are made after the index, need not be listed.
	Files []File `json:"files"`
}

// Tests counts an image's checks by their outcome.
type Tests struct {
	Pass    int `json:"pass"`
	Fail    int `json:"fail"`
	Error   int `json:"error"`
	Waived  int `json:"waived"`
	Skipped int `json:"skipped"`
	Flaky   int `json:"flaky,omitempty"` // passed when they were tried again
}

// A File is one file of a release.
type File struct {
	// Name is the file's name in the release directory, which has no
	// directories below it.
	Name string `json:"name"`
	// SizeBytes is the file's size.
	SizeBytes int64 `json:"size_bytes"`
	// SHA256 is the file's SHA-256 in lower-case hexadecimal.
	SHA256 string `json:"sha256"`
}

// ReadIndex reads an index from r up to its end. It takes at most 1 MiB of
// JSON that has each key once, no unknown key, and values that WriteIndex
// would write.
func ReadIndex(r io.Reader) (*Index, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxIndex+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read release index: %w", err)
	}
	if len(data) > maxIndex {
		return nil, fmt.Errorf("cannot read release index: larger than %d bytes", maxIndex)
	}
	x := new(Index)
	if err := decode(data, x); err != nil {
		return nil, fmt.Errorf("cannot read release index: %w", err)
	}
	if err := x.check(); err != nil {
		return nil, fmt.Errorf("cannot read release index: %w", err)
	}
	return x, nil
}

// WriteIndex writes x to w as indented JSON. The same index gives the same
// bytes. It writes nothing that ReadIndex would refuse.
func WriteIndex(w io.Writer, x *Index) error {
	if err := x.check(); err != nil {
		return fmt.Errorf("cannot write release index: %w", err)
	}
	y := *x
	if y.Properties == nil {
		y.Properties = map[string]string{} // {} rather than null
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(y); err != nil {
		return fmt.Errorf("cannot write release index: %w", err)
	}
	if buf.Len() > maxIndex {
		return fmt.Errorf("cannot write release index: larger than %d bytes", maxIndex)
	}
	if _, err := w.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("cannot write release index: %w", err)
	}
	return nil
}

// decode strictly decodes one JSON value into x, which must not be of a type that
// nests itself.
func decode(data []byte, x any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(x); err != nil {
		return fmt.Errorf("byte %d: %w", dec.InputOffset(), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("byte %d: more after the end", dec.InputOffset())
	}
	// Only now, because the nesting is known to be no deeper than x.
	return checkKeys(json.NewDecoder(bytes.NewReader(data)))
}

// checkKeys reads one JSON value and reports a key that an object has twice:
// of two values encoding/json silently takes the last.
func checkKeys(dec *json.Decoder) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	open, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := make(map[string]bool)
	for dec.More() {
		if open == '{' {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			key, _ := tok.(string)
			if seen[key] {
				return fmt.Errorf("byte %d: key %.40q twice", dec.InputOffset(), key)
			}
			seen[key] = true
		}
		if err := checkKeys(dec); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

var (
	imageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	fileName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,254}$`)
)

// CheckImage reports a name that no image may have: an image's name is 1 to
// 128 letters, digits, dots, hyphens and underscores, a letter or digit first.
func CheckImage(name string) error {
	if !imageName.MatchString(name) {
		return fmt.Errorf("image name %.140q: want 1 to 128 of A-Z a-z 0-9 . _ -, a letter or digit first", name)
	}
	return nil
}

// check reports everything that is wrong with x.
func (x *Index) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := CheckImage(x.Image); err != nil {
		errs = append(errs, err)
	}
	if x.Build.IsZero() {
		wrong("no build ID")
	}
	if !isSHA256(x.DefinitionSHA256) {
		wrong("definition %.70q is not a SHA-256 in lower-case hexadecimal", x.DefinitionSHA256)
	}
	if x.MinDiskGiB < 1 {
		wrong("minimal disk of %d GiB: want at least 1", x.MinDiskGiB)
	}
	t := x.Tests
	if min(t.Pass, t.Fail, t.Error, t.Waived, t.Skipped, t.Flaky) < 0 {
		wrong("negative count of tests")
	}
	if len(x.Files) == 0 {
		wrong("no files")
	}
	seen := make(map[string]bool)
	for _, f := range x.Files {
		switch {
		case !fileName.MatchString(f.Name):
			wrong("file name %.260q: want 1 to 255 of A-Z a-z 0-9 . _ + ~ -, a letter or digit first", f.Name)
		case f.Name == IndexName:
			wrong("file %s lists itself", f.Name)
		case seen[f.Name]:
			wrong("file %s twice", f.Name)
		case f.SizeBytes < 0:
			wrong("file %s: negative size", f.Name)
		case !isSHA256(f.SHA256):
			wrong("file %s: %.70q is not a SHA-256 in lower-case hexadecimal", f.Name, f.SHA256)
		}
		seen[f.Name] = true
	}
	return errors.Join(errs...)
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == strings.ToLower(s)
}
