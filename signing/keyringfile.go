package signing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/strictyaml"
)

// maxKeyringYAML bounds a YAML keyring: 10,000 pins fit.
const maxKeyringYAML = 4 << 20

// pinYAML is an entry of a YAML keyring.
type pinYAML struct {
	Fingerprint pinned    `yaml:"fingerprint"`
	File        string    `yaml:"file"`
	From        moment    `yaml:"from"`
	Until       moment    `yaml:"until"`
	Purposes    []Purpose `yaml:"purposes"`
	Comment     string    `yaml:"comment"`
}

// fieldError is an error of ours, which quotes nothing.
type fieldError struct{ error }

// pinned is a Fingerprint.
type pinned string

func (p *pinned) UnmarshalText(text []byte) error {
	fpr, err := ParseFingerprint(string(text))
	if err != nil {
		return fieldError{err}
	}
	*p = pinned(fpr)
	return nil
}

// moment is a day, which begins at midnight UTC, or an RFC 3339 time.
type moment time.Time

// UnmarshalText reads 2018-06-01 or 2018-06-01T00:00:00Z.
func (m *moment) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, string(text)); err == nil {
			*m = moment(t)
			return nil
		}
	}
	return fieldError{errors.New("a time is neither a day (2018-06-01) nor RFC 3339")}
}

// LoadKeyring reads a keyring file. It holds public OpenPGP keys as [ReadKeys]
// reads them, every one of which is then pinned without limits; or it is YAML:
//
//	keys:
//	  - fingerprint: 85C8 D136 9BA0 A102 47E5  F8A3 B52D CBA9 C4C8 5D49
//	    file: imagefactory-2018.asc # may hold other keys too; relative to the YAML file
//	    from: 2018-06-01            # included; a day in UTC, or RFC 3339
//	    until: 2020-01-06           # not included
//	    purposes: [image, config]   # of image, config, repository; without it all
//	    comment: image signing key 2018/19
//
// Only the fingerprint is required: without a file the key is pinned, but what
// it signed cannot be verified. Unknown fields are errors. Keys that cannot be
// used are skipped, as [Keyring.Skipped] tells, and so are secret keys, which
// have no place in a keyring; but one key there must be.
func LoadKeyring(path string) (*Keyring, error) {
	k, err := loadKeyring(path)
	if err != nil {
		return nil, fmt.Errorf("cannot load the keyring %s: %w", path, err)
	}
	return k, nil
}

func loadKeyring(path string) (*Keyring, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readBounded(f, maxKeyFile)
	if err != nil {
		return nil, err
	}
	if yamlText := trimBOM(data); len(yamlText) > 0 && yamlText[0]&0x80 == 0 && keysList.Match(yamlText) && !armorLine.Match(yamlText) {
		entries, err := parseKeyringYAML(yamlText)
		if err != nil {
			return nil, err
		}
		return entries.load(filepath.Dir(path))
	}
	keys, err := readPublic(data)
	if err != nil {
		return nil, fmt.Errorf("%w (a keyring is a file of public OpenPGP keys, or YAML with a list `keys`)", err)
	}
	return PinKeys(keys...)
}

// keysList is what a YAML keyring has and an OpenPGP one has not, and armorLine
// the reverse.
var (
	keysList  = regexp.MustCompile(`(?m)^(---\s*)?\{?\s*["']?keys["']?\s*:`)
	armorLine = regexp.MustCompile(`(?m)^-----BEGIN PGP `)
)

// readPublic is readKeys for a keyring: secret keys are refused each, unless their
// public form is there too.
func readPublic(data []byte) ([]*Key, error) {
	keys, err := readKeys(data, true)
	if err != nil {
		return nil, err
	}
	usable := false
	for i, key := range keys {
		keys[i] = publicOnly(key)
		usable = usable || keys[i].bad == nil
	}
	if !usable {
		return nil, keys[0].bad
	}
	return keys, nil
}

// publicOnly returns the key, or one that cannot be used for a secret key.
func publicOnly(key *Key) *Key {
	if !key.secret() {
		return key
	}
	return &Key{fpr: key.fpr, bad: &Error{
		Fingerprint: key.fpr, Reason: KeyInvalid, Detail: "it is a secret key, a keyring holds public ones (gpg --export writes them)",
	}}
}

type keyringYAML []pinYAML

func parseKeyringYAML(data []byte) (keyringYAML, error) {
	if len(data) > maxKeyringYAML {
		return nil, fmt.Errorf("it is larger than %d bytes", maxKeyringYAML)
	}
	var doc struct {
		Keys keyringYAML `yaml:"keys"`
	}
	document, err := strictyaml.Parse(data)
	if err == nil {
		err = document.Decode(&doc)
	}
	if err != nil {
		return nil, yamlError(err)
	}
	if len(doc.Keys) == 0 {
		return nil, errors.New("its list `keys` is empty")
	}
	return doc.Keys, nil
}

// yamlError says where the first mistake is, without the text of the file, which
// could be anything.
func yamlError(err error) error {
	what := errors.New("it is not valid YAML with the fields fingerprint, file, from, until, purposes and comment, each once")
	var own fieldError
	if errors.As(err, &own) {
		what = own
	}
	var e *strictyaml.Error
	if !errors.As(err, &e) || e.Line == 0 {
		return what
	}
	return fmt.Errorf("line %d, column %d: %w", e.Line, e.Column, what)
}

func (entries keyringYAML) load(dir string) (*Keyring, error) {
	var pins []Pin
	var keys []*Key
	for _, e := range entries {
		pins = append(pins, Pin{
			Fingerprint: Fingerprint(e.Fingerprint), From: time.Time(e.From), Until: time.Time(e.Until),
			Purposes: e.Purposes, Comment: e.Comment,
		})
		if e.File == "" {
			continue
		}
		file := e.File
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		key, err := loadPinned(file, Fingerprint(e.Fingerprint))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return NewKeyring(pins, keys...)
}

// loadPinned returns the pinned key of a file; it may be one that cannot be used.
func loadPinned(path string, fpr Fingerprint) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readBounded(f, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	keys, err := parseKeys(data, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, key := range keys {
		if key.fpr == fpr {
			return publicOnly(key), nil
		}
	}
	return nil, fmt.Errorf("%s does not hold the key %s", path, fpr)
}
