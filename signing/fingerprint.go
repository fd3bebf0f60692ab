package signing

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Fingerprint names an OpenPGP key: upper-case hexadecimal, 40 digits for a
// version 4 key and 64 for version 6 (RFC 9580, section 5.5.4). Short key IDs
// collide and are never accepted in its place.
type Fingerprint string

// ParseFingerprint reads a fingerprint as tools print it: upper or lower case,
// with or without spaces, with or without a leading 0x.
func ParseFingerprint(s string) (Fingerprint, error) {
	f := strings.ToUpper(strings.Join(strings.Fields(s), ""))
	f = strings.TrimPrefix(f, "0X")
	if len(f) != 40 && len(f) != 64 {
		return "", fmt.Errorf("cannot read the fingerprint: it has %d digits, not 40 or 64 (key IDs are not accepted, they collide)", len(f))
	}
	if _, err := hex.DecodeString(f); err != nil {
		return "", errors.New("cannot read the fingerprint: it is not hexadecimal")
	}
	return Fingerprint(f), nil
}

// UnmarshalText reads what [ParseFingerprint] reads.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	parsed, err := ParseFingerprint(string(text))
	if err != nil {
		return err
	}
	*f = parsed
	return nil
}

func fingerprintOf(raw []byte) Fingerprint {
	return Fingerprint(strings.ToUpper(hex.EncodeToString(raw)))
}
