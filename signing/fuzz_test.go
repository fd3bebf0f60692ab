package signing_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// FuzzKeyring: whatever a keyring file holds, loading it ends in a keyring or
// an error, and each key of it can be judged.
func FuzzKeyring(f *testing.F) {
	key := craft(f, nil)
	key.addSubkey(nil)
	key.revoke(2, at)
	var binary, armored bytes.Buffer
	require.NoError(f, key.entity.Serialize(&binary))
	require.NoError(f, key.key().WritePublic(&armored))
	f.Add(binary.Bytes())
	f.Add(armored.Bytes())
	f.Add([]byte("keys:\n- fingerprint: 85C8D1369BA0A10247E5F8A3B52DCBA9C4C85D49\n  from: 2018-06-01\n  purposes: [image]\n"))
	f.Add([]byte("keys: &a\n- <<: *a\n"))
	path := filepath.Join(f.TempDir(), "keyring")
	sig := key.sign(data, at, nil)
	f.Fuzz(func(t *testing.T, content []byte) {
		require.NoError(t, os.WriteFile(path, content, 0o644))
		ring, err := signing.LoadKeyring(path)
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "cannot load the keyring"))
			require.NotContains(t, err.Error(), "\n", "it quotes the file")
			return
		}
		require.NotEmpty(t, ring.Pins())
		for _, pin := range ring.Pins() {
			_, err := signing.ParseFingerprint(string(pin.Fingerprint))
			require.NoError(t, err)
		}
		_, err = verifier(ring).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
		typed(t, err)
	})
}

// typed says that an error is none or tells the reason.
func typed(t *testing.T, err error) {
	var problem *signing.Error
	if err != nil && !errors.As(err, &problem) {
		t.Fatalf("%T %v is not typed", err, err)
	}
}

// FuzzVerify: no signature file verifies but the one that was made, and none
// does harm.
func FuzzVerify(f *testing.F) {
	keys := []*signing.Key{newKey(f, signing.KeyConfig{}), newKey(f, signing.KeyConfig{Algorithm: signing.ECDSAP256}), newKey(f, signing.KeyConfig{V6: true})}
	good := map[string]bool{}
	for _, key := range keys {
		sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(f, key)}}
		sig, _, err := sealer.Detached(f.Context(), "a", bytes.NewReader(data))
		require.NoError(f, err)
		armored, err := signing.Armor(sig)
		require.NoError(f, err)
		text, err := sealer.Cleartext(f.Context(), bytes.NewReader(data))
		require.NoError(f, err)
		for _, s := range [][]byte{sig, armored, text} {
			f.Add(s)
		}
		good[string(sig)] = true
	}
	v := verifier(pinned(f, keys...))
	f.Fuzz(func(t *testing.T, sig []byte) {
		result, err := v.Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
		typed(t, err)
		require.Equal(t, err == nil, result.OK())
		_, _, err = v.Cleartext(t.Context(), "a", bytes.NewReader(sig))
		typed(t, err)
		_, _, err = v.Envelope(t.Context(), "a", bytes.NewReader(sig))
		typed(t, err)
		// A forgery would be binary; armor and text may be written in several ways.
		if len(sig) > 0 && sig[0]&0x80 != 0 && result.OK() && !contains(good, sig) {
			t.Fatalf("%x verifies", sig)
		}
	})
}

// contains says whether sig is made of good signatures, as they are or in
// another packet framing.
func contains(good map[string]bool, sig []byte) bool {
	for g := range good {
		if bytes.Contains(sig, []byte(g)[2:]) {
			return true
		}
	}
	return false
}
