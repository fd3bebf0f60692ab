package signing_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// hsm is a signer of which nothing is known but that it signs.
type hsm struct {
	crypto.Signer
	fail, spoil bool
}

func (h *hsm) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if h.fail {
		return nil, errors.New("the slot is locked")
	}
	sig, err := h.Signer.Sign(r, digest, opts)
	if h.spoil {
		sig[len(sig)-1] ^= 1
	}
	return sig, err
}

func hsmKeys(t *testing.T) map[string]crypto.Signer {
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	keys := map[string]crypto.Signer{"rsa2048": rsa2048, "ed25519": ed}
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()} {
		keys[name], err = ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
	}
	return keys
}

func TestExternalSigner(t *testing.T) {
	g := newGnuPG(t)
	for name, secret := range hsmKeys(t) {
		t.Run(name, func(t *testing.T) {
			module := &hsm{Signer: secret}
			key := newKey(t, signing.KeyConfig{Name: name, Signer: module, Lifetime: 10 * year})
			require.ErrorContains(t, key.WriteSecret(io.Discard), "no secret part")
			public := filepath.Join(t.TempDir(), "key.asc")
			require.NoError(t, key.WritePublicFile(public))
			g.gpg("--import", public)

			signer, err := signing.NewSigner(key, signing.SignerConfig{External: module, Time: clock(at)})
			require.NoError(t, err)
			dir := newRelease(t)
			_, err = signing.SignDir(t.Context(), dir, signer)
			require.NoError(t, err)
			_, err = verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
			require.NoError(t, err)
			sums := filepath.Join(dir, signing.SumsFile)
			require.Contains(t, g.gpg("--status-fd", "1", "--verify", sums+".asc", sums), "VALIDSIG "+string(key.Fingerprint()))

			module.fail = true
			_, err = signing.SignDir(t.Context(), newRelease(t), signer)
			require.ErrorContains(t, err, "the slot is locked")
			module.fail, module.spoil = false, true
			_, err = signing.SignDir(t.Context(), newRelease(t), signer)
			require.ErrorContains(t, err, "does not verify")
		})
	}
}

func TestNewSignerRefuses(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	other := hsmKeys(t)["ed25519"]
	_, err := signing.NewSigner(key, signing.SignerConfig{External: other, Time: clock(at)})
	require.ErrorContains(t, err, "the external signer has another key")

	var public bytes.Buffer
	require.NoError(t, key.WritePublic(&public))
	keys, err := signing.ReadKeys(&public)
	require.NoError(t, err)
	_, err = signing.NewSigner(keys[0], signing.SignerConfig{Time: clock(at)})
	require.ErrorContains(t, err, "has no secret part")

	expired := newKey(t, signing.KeyConfig{Lifetime: month})
	_, err = signing.NewSigner(expired, signing.SignerConfig{Time: clock(at.Add(year))})
	require.ErrorIs(t, err, signing.KeyExpired)

	_, err = signing.NewSigner(key, signing.SignerConfig{Time: clock(at), Hash: crypto.SHA1})
	require.ErrorContains(t, err, "not accepted")
	p384 := newKey(t, signing.KeyConfig{Algorithm: signing.ECDSAP384})
	_, err = signing.NewSigner(p384, signing.SignerConfig{Time: clock(at), Hash: crypto.SHA256})
	require.ErrorContains(t, err, "longer hash")

	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	for _, weak := range []crypto.Signer{small, p224} {
		_, err = signing.GenerateKey(signing.KeyConfig{Name: "weak", Signer: weak})
		require.ErrorContains(t, err, "cannot make a key for the external signer")
	}
	for _, c := range []signing.KeyConfig{{}, {Name: "a<b"}, {Name: "a", Algorithm: "dsa"}} {
		_, err = signing.GenerateKey(c)
		require.ErrorContains(t, err, "cannot generate a key")
	}
}
