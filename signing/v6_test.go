package signing_test

import (
	"bytes"
	"crypto"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// TestWithGoCrypto: what gpg 2.2 and this sq cannot read is tried with the
// library's own high-level functions, both ways.
func TestWithGoCrypto(t *testing.T) {
	for name, change := range map[string]func(*packet.Config){
		"v6 Ed25519": func(c *packet.Config) { c.V6Keys, c.Algorithm = true, packet.PubKeyAlgoEd25519 },
		"v6 Ed448":   func(c *packet.Config) { c.V6Keys, c.Algorithm = true, packet.PubKeyAlgoEd448 },
		"v6 RSA":     func(c *packet.Config) { c.V6Keys, c.Algorithm, c.RSABits = true, packet.PubKeyAlgoRSA, 3072 },
		"v6 P-384": func(c *packet.Config) {
			c.V6Keys, c.Algorithm, c.Curve = true, packet.PubKeyAlgoECDSA, packet.CurveNistP384
		},
		"v4 Ed25519":   func(c *packet.Config) { c.Algorithm = packet.PubKeyAlgoEd25519 },
		"v4 Ed448":     func(c *packet.Config) { c.Algorithm = packet.PubKeyAlgoEd448 },
		"v4 old Ed448": func(c *packet.Config) { c.Curve = packet.Curve448 },
		"v4 brainpool": func(c *packet.Config) { c.Algorithm, c.Curve = packet.PubKeyAlgoECDSA, packet.CurveBrainpoolP512 },
		"v4 EdDSA":     func(*packet.Config) {},
		"v6 with SHA-3": func(c *packet.Config) {
			c.V6Keys, c.Algorithm, c.DefaultHash = true, packet.PubKeyAlgoEd25519, crypto.SHA3_512
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := craft(t, change)
			cfg := &packet.Config{Time: clock(at)}
			change(cfg)

			var theirs bytes.Buffer
			require.NoError(t, openpgp.DetachSign(&theirs, []*openpgp.Entity{c.entity}, bytes.NewReader(data), cfg))
			_, err := verifier(pinned(t, c.key())).Detached(t.Context(), "a.qcow2", bytes.NewReader(data), &theirs)
			require.NoError(t, err)

			var secret bytes.Buffer
			require.NoError(t, c.entity.SerializePrivateWithoutSigning(&secret, nil))
			keys, err := signing.ReadKeys(&secret)
			require.NoError(t, err)
			sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, keys[0])}}
			ours, _, err := sealer.Detached(t.Context(), "a.qcow2", bytes.NewReader(data))
			require.NoError(t, err)
			armored, err := signing.Armor(ours)
			require.NoError(t, err)
			sig, _, err := openpgp.VerifyArmoredDetachedSignature(openpgp.EntityList{c.entity}, bytes.NewReader(data), bytes.NewReader(armored), cfg)
			require.NoError(t, err)
			require.Equal(t, strings.HasPrefix(name, "v6"), sig.Version == 6)
		})
	}
}
