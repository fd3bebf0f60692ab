package signing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"
)

// maxKeyringYAML bounds a YAML keyring: 10,000 pins fit.
const maxKeyringYAML = 4 << 20

// pinYAML is an entry of a YAML keyring.
type pinYAML struct {
	Fingerprint Fingerprint `yaml:"fingerprint"`
	File        string      `yaml:"file"`
	From        moment      `yaml:"from"`
	Until       moment      `yaml:"until"`
	Purposes    []Purpose   `yaml:"purposes"`
	Comment     string      `yaml:"comment"`
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
	return fmt.Errorf("%q is neither a day (2018-06-01) nor an RFC 3339 time", text)
}

// LoadKeyring reads a keyring file. It holds OpenPGP keys, armored or binary,
// every one of which is then pinned without limits; or it is YAML:
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
// it signed cannot be verified. Unknown fields are errors.
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
	if isOpenPGP(data) {
		keys, err := ReadKeys(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return PinKeys(keys...)
	}
	entries, err := parseKeyringYAML(data)
	if err != nil {
		return nil, err
	}
	return entries.load(filepath.Dir(path))
}

func isOpenPGP(data []byte) bool {
	return len(data) > 0 && data[0]&0x80 != 0 || bytes.Contains(data, []byte("-----BEGIN PGP "))
}

type keyringYAML []pinYAML

func parseKeyringYAML(data []byte) (keyringYAML, error) {
	if len(data) > maxKeyringYAML {
		return nil, fmt.Errorf("it is larger than %d bytes", maxKeyringYAML)
	}
	var doc struct {
		Keys keyringYAML `yaml:"keys"`
	}
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(doc.Keys) == 0 {
		return nil, errors.New("it has no keys: it must hold OpenPGP keys, or YAML with a list `keys`")
	}
	return doc.Keys, nil
}

func (entries keyringYAML) load(dir string) (*Keyring, error) {
	var pins []Pin
	var keys []*Key
	for _, e := range entries {
		pins = append(pins, Pin{
			Fingerprint: e.Fingerprint, From: time.Time(e.From), Until: time.Time(e.Until),
			Purposes: e.Purposes, Comment: e.Comment,
		})
		if e.File == "" {
			continue
		}
		file := e.File
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		key, err := loadPinned(file, e.Fingerprint)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return NewKeyring(pins, keys...)
}

func loadPinned(path string, fpr Fingerprint) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys, err := ReadKeys(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, key := range keys {
		if key.Fingerprint() == fpr {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%s does not hold the key %s", path, fpr)
}
