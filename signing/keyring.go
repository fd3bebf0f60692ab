package signing

import (
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
	pins  []Pin
	pinOf map[Fingerprint]*Pin
	keys  map[Fingerprint]*Key
	parts map[uint64][]keyRef // by key ID, for looking up only
}

type keyRef struct {
	key  *Key
	part int
}

// NewKeyring returns a keyring with the given pins. Keys are the material for
// them: a key that no pin names or that comes twice is an error, a pin without a
// key is not (what it signed is then reported as [NoKeyMaterial]).
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
		fpr := key.Fingerprint()
		if k.pinOf[fpr] == nil {
			return nil, fmt.Errorf("cannot make the keyring: key %s is not pinned", fpr)
		}
		if k.keys[fpr] != nil {
			return nil, fmt.Errorf("cannot make the keyring: key %s comes twice", fpr)
		}
		k.keys[fpr] = key
		for i := range key.countParts() {
			id := key.publicKey(i).KeyId
			k.parts[id] = append(k.parts[id], keyRef{key: key, part: i})
		}
	}
	return k, nil
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
			return fmt.Errorf("%s has the unknown purpose %q", fpr, purpose)
		}
	}
	k.pinOf[fpr] = p
	return nil
}

// PinKeys returns a keyring in which each of the keys counts without limits.
func PinKeys(keys ...*Key) (*Keyring, error) {
	var pins []Pin
	for _, key := range keys {
		pins = append(pins, Pin{Fingerprint: key.Fingerprint(), Comment: key.UserID()})
	}
	return NewKeyring(pins, keys...)
}

// Pins returns the pinned keys in order.
func (k *Keyring) Pins() []Pin { return slices.Clone(k.pins) }

// Key returns the material of a pinned key, or nil.
func (k *Keyring) Key(fpr Fingerprint) *Key { return k.keys[fpr] }
