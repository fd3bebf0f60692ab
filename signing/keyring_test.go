package signing_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// TestRollOver plays the change of keys that the original factory documents:
// the old key expires five months before the new one begins to count.
func TestRollOver(t *testing.T) {
	pins := signing.OTCPins()
	require.Len(t, pins, 3)
	day := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }
	two := func(made time.Time, c *packet.Config) { c.Time, c.KeyLifetimeSecs = clock(made), *lifetime(2 * year) }
	old := craft(t, func(c *packet.Config) { two(day(2016, 1, 7), c) }) // until 2018-01-06
	next := craft(t, func(c *packet.Config) { two(day(2018, 1, 6), c) })

	verify := func(c *crafted, when time.Time) error {
		sig := c.sign(data, when, nil)
		pins := []signing.Pin{pins[0], pins[1]}
		pins[0].Fingerprint, pins[1].Fingerprint = old.key().Fingerprint(), next.key().Fingerprint()
		ring, err := signing.NewKeyring(pins, old.key(), next.key())
		require.NoError(t, err)
		v := &signing.Verifier{Keyring: ring, Time: clock(day(2019, 1, 1))}
		_, err = v.Detached(t.Context(), "a.qcow2", bytes.NewReader(data), bytes.NewReader(sig))
		return err
	}
	require.NoError(t, verify(old, day(2017, 12, 24)))
	require.ErrorIs(t, verify(next, day(2018, 3, 1)), signing.OutsideSpan)
	require.ErrorIs(t, verify(old, day(2018, 3, 1)), signing.KeyExpired)
	require.NoError(t, verify(next, day(2018, 6, 1)))

	old.restate(day(2018, 1, 5), func(s *packet.Signature) { s.KeyLifetimeSecs = lifetime(4 * year) })
	require.NoError(t, verify(old, day(2018, 3, 1)))
	require.NoError(t, verify(old, day(2018, 5, 31)))
	require.ErrorIs(t, verify(old, day(2018, 6, 1)), signing.OutsideSpan)
}

func TestNoKeyMaterial(t *testing.T) {
	c := craft(t, nil)
	ring, err := signing.NewKeyring([]signing.Pin{{Fingerprint: c.key().Fingerprint(), Comment: "the lost key"}})
	require.NoError(t, err)
	for name, sig := range map[string][]byte{
		"with fingerprint": c.sign(data, at, nil),
		"unknown key":      craft(t, nil).sign(data, at, nil),
	} {
		_, err = verifier(ring).Detached(t.Context(), "a.qcow2", bytes.NewReader(data), bytes.NewReader(sig))
		if name == "unknown key" {
			require.ErrorIs(t, err, signing.UnknownKey)
			continue
		}
		require.ErrorIs(t, err, signing.NoKeyMaterial)
		require.ErrorContains(t, err, "the lost key")
	}
}

func TestNewKeyringRefuses(t *testing.T) {
	key := craft(t, nil).key()
	pin := signing.Pin{Fingerprint: key.Fingerprint()}
	backwards := pin
	backwards.From, backwards.Until = at, at
	strange := pin
	strange.Purposes = []signing.Purpose{"imgae"}
	for name, c := range map[string]struct {
		pins []signing.Pin
		keys []*signing.Key
		want string
	}{
		"short key ID":   {[]signing.Pin{{Fingerprint: "C4C85D49"}}, nil, "key IDs are not accepted"},
		"long key ID":    {[]signing.Pin{{Fingerprint: "B52DCBA9C4C85D49"}}, nil, "key IDs are not accepted"},
		"pinned twice":   {[]signing.Pin{pin, pin}, nil, "pinned twice"},
		"backwards":      {[]signing.Pin{backwards}, nil, "ends before it begins"},
		"purpose":        {[]signing.Pin{strange}, nil, "unknown purpose"},
		"no fingerprint": {[]signing.Pin{{}}, nil, "0 digits"},
	} {
		_, err := signing.NewKeyring(c.pins, c.keys...)
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestLoadKeyringYAML(t *testing.T) {
	dir := t.TempDir()
	key, other := craft(t, nil).key(), craft(t, nil).key()
	require.NoError(t, key.WritePublicFile(filepath.Join(dir, "key.asc")))
	fpr := string(key.Fingerprint())
	load := func(text string) (*signing.Keyring, error) {
		path := filepath.Join(dir, "keyring.yaml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return signing.LoadKeyring(path)
	}
	ring, err := load("keys:\n- fingerprint: " + strings.ToLower(fpr[:20]+" "+fpr[20:]) + "\n" +
		"  file: key.asc\n  from: 2018-06-01\n  until: 2030-01-06T12:00:00Z\n  purposes: [image, config]\n  comment: ours\n" +
		"- fingerprint: " + string(other.Fingerprint()) + "\n")
	require.NoError(t, err)
	require.Equal(t, []signing.Pin{{
		Fingerprint: key.Fingerprint(),
		From:        time.Date(2018, 6, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(2030, 1, 6, 12, 0, 0, 0, time.UTC),
		Purposes: []signing.Purpose{signing.ForImage, signing.ForConfig}, Comment: "ours",
	}, {Fingerprint: other.Fingerprint()}}, ring.Pins())
	require.NotNil(t, ring.Key(key.Fingerprint()))
	require.Nil(t, ring.Key(other.Fingerprint()))

	for text, want := range map[string]string{
		"":                                   "it is empty",
		"keys: []":                           "list `keys` is empty",
		"keys:\n- fingerprint: C4C85D49\n":   "key IDs are not accepted",
		"keys:\n- fingerprnt: " + fpr + "\n": "line 2, column 3: it is not valid YAML with the fields fingerprint, file",
		"keys:\n- fingerprint: " + fpr + "\n  from: 1.6.2018\n":                              "neither a day",
		"keys:\n- fingerprint: " + fpr + "\n  file: none.asc\n":                              "none.asc",
		"keys:\n- fingerprint: " + string(other.Fingerprint()) + "\n  file: key.asc\n":       "does not hold the key",
		"keys:\n- fingerprint: " + fpr + "\n- fingerprint: " + fpr + "\n":                    "pinned twice",
		"keys:\n- fingerprint: " + fpr + "\n  fingerprint: " + fpr + "\n":                    "line 3, column 3: it is not valid YAML with the fields",
		"keys:\n- fingerprint: " + fpr + "\n  from: 2020-01-01\n  until: 2019-01-01\n":       "ends before it begins",
		"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n": "cannot load the keyring",
		"-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n":                   `it is an OpenPGP message`,
		"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n":                                     "no end line",
	} {
		_, err := load(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestSeveralSigners(t *testing.T) {
	first, second := newKey(t, signing.KeyConfig{}), newKey(t, signing.KeyConfig{Algorithm: signing.RSA3072})
	third := newKey(t, signing.KeyConfig{V6: true})
	dir := newRelease(t)
	_, err := signing.SignDir(t.Context(), dir, newSigner(t, first), newSigner(t, second), newSigner(t, third))
	require.NoError(t, err)

	for _, one := range []*signing.Key{first, second, third} {
		result, err := verifier(pinned(t, one)).VerifyDir(t.Context(), dir)
		require.NoError(t, err)
		require.Equal(t, one.Fingerprint(), result.File(signing.SumsFile).Fingerprint)
		require.Len(t, result.File(signing.SumsFile).Signatures, 3)
	}
	all := pinned(t, first, second, third)
	v := verifier(all)
	v.Required = 3
	_, err = v.VerifyDir(t.Context(), dir)
	require.NoError(t, err)

	v = verifier(pinned(t, first, second))
	v.Required = 3
	result, err := v.VerifyDir(t.Context(), dir)
	require.ErrorIs(t, err, signing.TooFewSignatures)
	require.Contains(t, result.File(signing.SumsFile).Detail, "2 of 3")
}

func TestRequiredCountsKeysNotSignatures(t *testing.T) {
	c := craft(t, nil)
	twice := append(c.sign(data, at, nil), c.sign(data, at.Add(time.Second), nil)...)
	v := verifier(pinned(t, c.key()))
	v.Required = 2
	_, err := v.Detached(t.Context(), "a.qcow2", bytes.NewReader(data), bytes.NewReader(twice))
	require.ErrorIs(t, err, signing.TooFewSignatures)
}
