package signing

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Purpose is what a pinned key may sign.
type Purpose string

// The purposes. SHA256SUMS may be signed with a key for images or configs.
const (
	ForImage      Purpose = "image"      // *.qcow2, and whatever has no purpose of its own
	ForConfig     Purpose = "config"     // *.config.tar.gz
	ForRepository Purpose = "repository" // package repositories
)

// Pin is a key that counts: its full fingerprint, and for what and when.
type Pin struct {
	Fingerprint Fingerprint

	// From and Until bound the time at which the key may have signed: From is
	// included, Until is not. If zero, that side is open. The key's own
	// validity must hold besides.
	From, Until time.Time

	// Purposes of the key; if empty, every purpose.
	Purposes []Purpose

	// Comment is for people.
	Comment string
}

// String returns the pin on one line.
func (p Pin) String() string {
	text := string(p.Fingerprint)
	if !p.From.IsZero() {
		text += " from " + day(p.From)
	}
	if !p.Until.IsZero() {
		text += " until " + day(p.Until)
	}
	if len(p.Purposes) > 0 {
		text += fmt.Sprintf(" for %v", p.Purposes)
	}
	if p.Comment != "" {
		text += " # " + printable(p.Comment)
	}
	return text
}

// Keyring is an ordered list of pinned keys and the key material there is. It
// is not changed after it was made and may be used concurrently.
type Keyring struct {
	pins    []Pin
	pinOf   map[Fingerprint]*Pin
	keys    map[Fingerprint]*Key
	parts   map[uint64][]keyRef // by key ID, for looking up only
	skipped []error
}

type keyRef struct {
	key  *Key
	part int
}

// NewKeyring returns a keyring with the given pins. Keys are the material for
// them, and copies of a key are merged. A key that no pin names or that could not
// be read does no harm: [Keyring.Skipped] tells. A pin without a key does none
// either: what it signed is reported as [NoKeyMaterial].
func NewKeyring(pins []Pin, keys ...*Key) (*Keyring, error) {
	k := &Keyring{
		pins: slices.Clone(pins), pinOf: map[Fingerprint]*Pin{},
		keys: map[Fingerprint]*Key{}, parts: map[uint64][]keyRef{},
	}
	for i := range k.pins {
		if err := k.addPin(&k.pins[i]); err != nil {
			return nil, fmt.Errorf("cannot make the keyring: %w", err)
		}
	}
	for _, key := range keys {
		if err := k.addKey(key); err != nil {
			return nil, fmt.Errorf("cannot make the keyring: %w", err)
		}
	}
	for _, key := range k.keys {
		for i := range key.countParts() {
			id := key.publicKey(i).KeyId
			k.parts[id] = append(k.parts[id], keyRef{key: key, part: i})
		}
	}
	return k, nil
}

func (k *Keyring) addKey(key *Key) error {
	fpr := key.Fingerprint()
	if err := key.Err(); err != nil {
		k.skipped = append(k.skipped, err)
		return nil
	}
	if k.pinOf[fpr] == nil {
		k.skipped = append(k.skipped, &Error{Fingerprint: fpr, Reason: UnknownKey, Detail: "no pin names it"})
		return nil
	}
	if have := k.keys[fpr]; have != nil && have != key {
		both, err := merge(have, key)
		if err != nil {
			return fmt.Errorf("cannot merge the copies of key %s: %w", fpr, err)
		}
		key = both
	}
	k.keys[fpr] = key
	return nil
}

func (k *Keyring) addPin(p *Pin) error {
	fpr, err := ParseFingerprint(string(p.Fingerprint))
	if err != nil {
		return err
	}
	p.Fingerprint = fpr
	if k.pinOf[fpr] != nil {
		return fmt.Errorf("%s is pinned twice", fpr)
	}
	if !p.From.IsZero() && !p.Until.IsZero() && !p.From.Before(p.Until) {
		return fmt.Errorf("the span of %s ends before it begins", fpr)
	}
	for _, purpose := range p.Purposes {
		if !slices.Contains([]Purpose{ForImage, ForConfig, ForRepository}, purpose) {
			return fmt.Errorf("%s has an unknown purpose: there are %s, %s and %s", fpr, ForImage, ForConfig, ForRepository)
		}
	}
	k.pinOf[fpr] = p
	return nil
}

// PinKeys returns a keyring in which each of the keys counts without limits. Those
// that could not be read are skipped, but not all may be.
func PinKeys(keys ...*Key) (*Keyring, error) {
	var pins []Pin
	pinned := map[Fingerprint]bool{}
	for _, key := range keys {
		if fpr := key.Fingerprint(); key.Err() == nil && !pinned[fpr] {
			pinned[fpr] = true
			pins = append(pins, Pin{Fingerprint: fpr, Comment: key.UserID()})
		}
	}
	if len(pins) == 0 && len(keys) > 0 {
		return nil, fmt.Errorf("cannot make the keyring: there is no key that can be used: %w", keys[0].Err())
	}
	return NewKeyring(pins, keys...)
}

// Pins returns the pinned keys in order.
func (k *Keyring) Pins() []Pin { return slices.Clone(k.pins) }

// Key returns the material of a pinned key, merged of all copies, or nil.
func (k *Keyring) Key(fpr Fingerprint) *Key { return k.keys[fpr] }

// Skipped returns why keys that were given are not in the keyring: an [Error] for
// each, with its fingerprint as far as that is known.
func (k *Keyring) Skipped() []error { return slices.Clone(k.skipped) }

// whyUnusable returns why the material of a pinned key could not be read, or
// empty.
func (k *Keyring) whyUnusable(fpr Fingerprint) string {
	for _, err := range k.skipped {
		var e *Error
		if errors.As(err, &e) && e.Fingerprint == fpr {
			return e.Detail
		}
	}
	return ""
}
