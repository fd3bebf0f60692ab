package imagefactory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/strictyaml"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

const (
	// keysName is a keyring for signing.LoadKeyring: the keys of publicKeyName with the
	// spans in which each counts. It is there from the first change of the key on, and
	// beside it the old key's signature.
	keysName = "imagefactory.keys.yaml"

	maxPublicKeys = 1 << 20
)

// KeyOverlap is how long an old key counts after the new one does, so that a night that
// was begun with it can end with it.
const KeyOverlap = 48 * time.Hour

// RotateKey changes the key that signs the releases in a download directory, from a
// moment on; if that is zero, from now. What the old key has signed, and signs within
// [KeyOverlap] after that, verifies as before; nothing later does. From then on the
// directory has
//
//	imagefactory.pub            all keys, the oldest first
//	imagefactory.keys.yaml      a keyring with their spans, for signing.LoadKeyring
//	imagefactory.keys.yaml.asc  the old key's signature of that
//
// so who trusts the old key can know that the new one follows it. Where the old key
// is lost, old is nil and there is no signature. To change to the key that was changed
// to last is no error and does nothing. One call at a time may change a directory; runs
// may go on.
func RotateKey(ctx context.Context, dir string, old *signing.Signer, next *signing.Key, from time.Time) error {
	if err := rotateKey(ctx, dir, old, next, from, time.Now()); err != nil {
		return fmt.Errorf("cannot change the key of the releases in %s: %w", dir, err)
	}
	return nil
}

func rotateKey(ctx context.Context, dir string, old *signing.Signer, next *signing.Key, from, now time.Time) error {
	if next == nil {
		return errors.New("there is no new key")
	}
	public, pins, err := readPublicKeys(dir)
	if err != nil {
		return err
	}
	last := &pins[len(pins)-1]
	at := slices.IndexFunc(pins, func(p signing.Pin) bool { return p.Fingerprint == next.Fingerprint() })
	switch {
	case at == len(pins)-1:
		return nil
	case at >= 0:
		return fmt.Errorf("the key %s has been used before and was followed by another", next.Fingerprint())
	case old != nil && old.Fingerprint() != last.Fingerprint:
		return fmt.Errorf("the signer's key is %s, and the releases are signed with %s", old.Fingerprint(), last.Fingerprint)
	case from.IsZero():
		from = now
	case from.Before(now.Add(-time.Minute)):
		return fmt.Errorf("%s has passed: what was signed since would not verify", from.UTC().Format(time.DateTime))
	}
	from = from.UTC().Truncate(time.Second)
	if !last.From.IsZero() && from.Before(last.From.Add(KeyOverlap)) {
		return fmt.Errorf("the key %s counts from %s, and for %v at least", last.Fingerprint, last.From.Format(time.DateTime), KeyOverlap)
	}
	if err := next.SignsAt(from); err != nil {
		return fmt.Errorf("the new key does not sign then: %w", err)
	}
	last.Until = from.Add(KeyOverlap)
	pins = append(pins, signing.Pin{Fingerprint: next.Fingerprint(), From: from})
	return writeKeys(ctx, dir, old, public, next, pins)
}

// readPublicKeys reads the keys of a download directory with their spans, the oldest
// first. Of a change that was cut only the first key counts.
func readPublicKeys(dir string) (public []*signing.Key, pins []signing.Pin, err error) {
	f, err := os.Open(filepath.Join(dir, publicKeyName))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if public, err = signing.ReadKeys(io.LimitReader(f, maxPublicKeys)); err != nil {
		return nil, nil, fmt.Errorf("cannot read %s: %w", publicKeyName, err)
	}
	file := filepath.Join(dir, keysName)
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return public[:1], []signing.Pin{{Fingerprint: public[0].Fingerprint()}}, nil
	}
	keyring, err := signing.LoadKeyring(file)
	if err != nil {
		return nil, nil, err
	}
	public = nil
	for _, p := range keyring.Pins() {
		key := keyring.Key(p.Fingerprint)
		if key == nil {
			return nil, nil, fmt.Errorf("%s names the key %s, which %s does not have", keysName, p.Fingerprint, publicKeyName)
		}
		public = append(public, key)
	}
	return public, keyring.Pins(), nil
}

// writeKeys writes the keys, then the signature, and the spans last: until they are
// there nothing has changed.
func writeKeys(ctx context.Context, dir string, old *signing.Signer, public []*signing.Key, next *signing.Key, pins []signing.Pin) error {
	type entry struct {
		Fingerprint string `yaml:"fingerprint"`
		File        string `yaml:"file"`
		From        string `yaml:"from,omitempty"`
		Until       string `yaml:"until,omitempty"`
	}
	var keyring struct {
		Keys []entry `yaml:"keys"`
	}
	text := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	for _, p := range pins {
		keyring.Keys = append(keyring.Keys, entry{string(p.Fingerprint), publicKeyName, text(p.From), text(p.Until)})
	}
	spans, err := strictyaml.Marshal(keyring)
	if err != nil {
		return err
	}
	var signature []byte
	if old != nil {
		sealer := signing.Sealer{Signers: []*signing.Signer{old}}
		if signature, _, err = sealer.Detached(ctx, keysName, bytes.NewReader(spans)); err == nil {
			signature, err = signing.Armor(signature)
		}
		if err != nil {
			return err
		}
	}
	err = writeFile(filepath.Join(dir, publicKeyName), func(w io.Writer) error {
		for _, key := range append(slices.Clone(public), next) {
			if err := key.WritePublic(w); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	signatureFile := filepath.Join(dir, keysName+".asc")
	if old == nil {
		if err := os.Remove(signatureFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	} else if err := writeFile(signatureFile, write(signature)); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, keysName), write(spans)); err != nil {
		return err
	}
	return syncDir(dir)
}

func write(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// keyring has the keys that the releases in Dir verify with. The factory's own has to
// be one that counts now.
func (f *Factory) keyring() (*signing.Keyring, error) {
	file := filepath.Join(f.Dir, keysName)
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return signing.PinKeys(f.Key)
	}
	keyring, err := signing.LoadKeyring(file)
	if err != nil {
		return nil, err
	}
	now := f.now()
	for _, p := range keyring.Pins() {
		switch {
		case p.Fingerprint != f.Key.Fingerprint():
		case now.Before(p.From):
			return nil, fmt.Errorf("the key %s signs from %s on; sign with the one before until then", p.Fingerprint, p.From.Format(time.DateTime))
		case !p.Until.IsZero() && !now.Before(p.Until):
			return nil, fmt.Errorf("the key %s has signed until %s; sign with the one after it", p.Fingerprint, p.Until.Format(time.DateTime))
		default:
			return keyring, nil
		}
	}
	return nil, f.otherKey(file)
}

func (f *Factory) otherKey(file string) error {
	return fmt.Errorf("cannot sign with the key %s: the releases in %s are signed with another, that of %s; use that one, or change to the new one with RotateKey",
		f.Key.Fingerprint(), f.Dir, file)
}

// publishKey writes the public key into the download directory. One that is there
// already must be this one, or users could no longer verify what is there, unless
// [RotateKey] has said so: see keyring.
func (f *Factory) publishKey() error {
	if _, err := os.Lstat(filepath.Join(f.Dir, keysName)); err == nil {
		_, err := f.keyring()
		return err
	}
	keys, _, err := readPublicKeys(f.Dir)
	name := filepath.Join(f.Dir, publicKeyName)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeFile(name, f.Key.WritePublic); err != nil {
			return fmt.Errorf("cannot publish the public key: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if keys[0].Fingerprint() != f.Key.Fingerprint() {
		return f.otherKey(name)
	}
	return nil
}

// keyInProcess reports whether the key that signs is in this process, where a build that
// runs beside it could reach it.
func (f *Factory) keyInProcess() bool { return f.Signer == nil || !f.Signer.External() }

// keyEnds reports whether a key of the keyring does not count any more at a time.
func keyEnds(keyring *signing.Keyring, key *signing.Key, at time.Time) bool {
	return slices.ContainsFunc(keyring.Pins(), func(p signing.Pin) bool {
		return p.Fingerprint == key.Fingerprint() && !p.Until.IsZero() && !at.Before(p.Until)
	})
}
