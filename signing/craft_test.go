package signing_test

import (
	"bytes"
	"crypto"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// crafted is a key in the hands of a test that gives it states and makes
// signatures that a Signer refuses to make.
type crafted struct {
	t      testing.TB
	entity *openpgp.Entity
}

const (
	year  = 365 * 24 * time.Hour
	month = 30 * 24 * time.Hour
)

// craft makes a key two years before at.
func craft(t testing.TB, change func(*packet.Config)) *crafted {
	t.Helper()
	c := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: clock(at.Add(-2 * year))}
	if change != nil {
		change(c)
	}
	e, err := openpgp.NewEntity("Crafted", "", "crafted@example.com", c)
	require.NoError(t, err)
	e.Subkeys = nil
	return &crafted{t: t, entity: e}
}

// key is what a keyring gets of it.
func (c *crafted) key() *signing.Key {
	c.t.Helper()
	var b bytes.Buffer
	require.NoError(c.t, c.entity.Serialize(&b))
	keys, err := signing.ReadKeys(&b)
	require.NoError(c.t, err)
	require.Len(c.t, keys, 1)
	return keys[0]
}

func (c *crafted) revoke(reason packet.ReasonForRevocation, when time.Time) {
	c.t.Helper()
	require.NoError(c.t, c.entity.Revoke(reason, "", &packet.Config{Time: clock(when)}))
}

// restate adds a self-certification to the one that is there.
func (c *crafted) restate(when time.Time, change func(*packet.Signature)) {
	c.t.Helper()
	for _, id := range c.entity.Identities {
		sig := &packet.Signature{
			Version: c.entity.PrimaryKey.Version, SigType: packet.SigTypePositiveCert,
			PubKeyAlgo: c.entity.PrimaryKey.PubKeyAlgo, Hash: crypto.SHA256, CreationTime: when,
			IssuerKeyId: &c.entity.PrimaryKey.KeyId, FlagsValid: true, FlagSign: true, FlagCertify: true,
		}
		change(sig)
		require.NoError(c.t, sig.SignUserId(id.Name, c.entity.PrimaryKey, c.entity.PrivateKey, nil))
		id.SelfCertifications = append(id.SelfCertifications, packet.NewVerifiableSig(sig))
	}
}

func lifetime(d time.Duration) *uint32 {
	secs := uint32(d / time.Second)
	return &secs
}

// addSubkey adds a signing subkey a year before at.
func (c *crafted) addSubkey(change func(*packet.Config)) *openpgp.Subkey {
	c.t.Helper()
	cfg := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: clock(at.Add(-year))}
	if change != nil {
		change(cfg)
	}
	require.NoError(c.t, c.entity.AddSigningSubkey(cfg))
	return &c.entity.Subkeys[len(c.entity.Subkeys)-1]
}

// rebind adds a signing subkey and then binds it again for encryption only.
func (c *crafted) rebind(when time.Time) {
	c.t.Helper()
	sub := c.addSubkey(nil)
	sig := &packet.Signature{
		Version: c.entity.PrimaryKey.Version, SigType: packet.SigTypeSubkeyBinding,
		PubKeyAlgo: c.entity.PrimaryKey.PubKeyAlgo, Hash: crypto.SHA256, CreationTime: when,
		IssuerKeyId: &c.entity.PrimaryKey.KeyId, FlagsValid: true, FlagEncryptStorage: true,
	}
	require.NoError(c.t, sig.SignKey(sub.PublicKey, c.entity.PrivateKey, nil))
	sub.Bindings = append(sub.Bindings, packet.NewVerifiableSig(sig))
}

// sign makes a detached signature of data at the given time with the primary
// key, or the newest subkey.
func (c *crafted) sign(data []byte, when time.Time, change func(*packet.Signature)) []byte {
	c.t.Helper()
	priv := c.entity.PrivateKey
	if n := len(c.entity.Subkeys); n > 0 {
		priv = c.entity.Subkeys[n-1].PrivateKey
	}
	sig := &packet.Signature{
		Version: priv.Version, SigType: packet.SigTypeBinary, PubKeyAlgo: priv.PubKeyAlgo,
		Hash: crypto.SHA256, CreationTime: when, IssuerKeyId: &priv.KeyId,
	}
	if change != nil {
		change(sig)
	}
	h, err := sig.PrepareSign(nil)
	require.NoError(c.t, err)
	h.Write(data)
	withoutSalt := false // it is not made for weak hashes
	cfg := &packet.Config{NonDeterministicSignaturesViaNotation: &withoutSalt}
	require.NoError(c.t, sig.Sign(h, priv, cfg))
	var b bytes.Buffer
	require.NoError(c.t, sig.Serialize(&b))
	return b.Bytes()
}
