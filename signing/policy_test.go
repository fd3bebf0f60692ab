package signing_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// policyCase is a key and a signature with it over data.
type policyCase struct {
	name  string
	craft func(t *testing.T) (*crafted, []byte)
	pin   func(*signing.Pin)
	want  signing.Reason
	note  string
}

var data = []byte("an image")

// simple is a case of a signature made at the usual time with a key of which
// something was changed.
func simple(change func(*crafted)) func(*testing.T) (*crafted, []byte) {
	return func(t *testing.T) (*crafted, []byte) {
		c := craft(t, nil)
		change(c)
		return c, c.sign(data, at, nil)
	}
}

func odd(change func(*packet.Signature)) func(*testing.T) (*crafted, []byte) {
	return func(t *testing.T) (*crafted, []byte) {
		c := craft(t, nil)
		return c, c.sign(data, at, change)
	}
}

func expiring(after time.Duration) func(*testing.T) (*crafted, []byte) {
	return func(t *testing.T) (*crafted, []byte) {
		c := craft(t, func(p *packet.Config) { p.KeyLifetimeSecs = *lifetime(after) })
		return c, c.sign(data, at, nil)
	}
}

// The verifier's now is a month after the signature.
var policyCases = []policyCase{
	{name: "good", craft: simple(func(*crafted) {})},
	{name: "key expires later", craft: expiring(3 * year)},
	{name: "key expired since", craft: expiring(2*year + 24*time.Hour), note: "expired on 2024-03-02"},
	{name: "key had expired", craft: expiring(year), want: signing.KeyExpired},
	{name: "key had expired but was prolonged before", craft: func(t *testing.T) (*crafted, []byte) {
		c, sig := expiring(year)(t)
		c.restate(at.Add(-2*month), func(s *packet.Signature) { s.KeyLifetimeSecs = lifetime(4 * year) })
		return c, sig
	}},
	{name: "key had expired but was prolonged afterwards", craft: func(t *testing.T) (*crafted, []byte) {
		c, sig := expiring(year)(t)
		c.restate(at.Add(24*time.Hour), func(s *packet.Signature) { s.KeyLifetimeSecs = lifetime(4 * year) })
		return c, sig
	}},
	{name: "prolonged by a self-signature from the future", craft: func(t *testing.T) (*crafted, []byte) {
		c, sig := expiring(year)(t)
		c.restate(at.Add(year), func(s *packet.Signature) { s.KeyLifetimeSecs = lifetime(4 * year) })
		return c, sig
	}, want: signing.KeyExpired},
	{name: "shortened afterwards to before the signature", craft: simple(func(c *crafted) {
		c.restate(at.Add(24*time.Hour), func(s *packet.Signature) { s.KeyLifetimeSecs = lifetime(year) })
	}), want: signing.KeyExpired},

	{name: "compromised since", craft: simple(func(c *crafted) { c.revoke(packet.KeyCompromised, at.Add(24*time.Hour)) }), want: signing.KeyRevoked},
	{name: "revoked since without a reason", craft: simple(func(c *crafted) { c.revoke(packet.NoReason, at.Add(24*time.Hour)) }), want: signing.KeyRevoked},
	{name: "superseded since", craft: simple(func(c *crafted) { c.revoke(packet.KeySuperseded, at.Add(24*time.Hour)) }), note: "superseded"},
	{name: "superseded before", craft: simple(func(c *crafted) { c.revoke(packet.KeySuperseded, at.Add(-24*time.Hour)) }), want: signing.KeyRevoked},
	{name: "superseded in that second", craft: simple(func(c *crafted) { c.revoke(packet.KeySuperseded, at) }), want: signing.KeyRevoked},
	{name: "retired since", craft: simple(func(c *crafted) { c.revoke(packet.KeyRetired, at.Add(24*time.Hour)) }), note: "retired"},
	{name: "retired before", craft: simple(func(c *crafted) { c.revoke(packet.KeyRetired, at.Add(-24*time.Hour)) }), want: signing.KeyRevoked},
	{name: "retired, then compromised", craft: simple(func(c *crafted) {
		c.revoke(packet.KeyRetired, at.Add(24*time.Hour))
		c.revoke(packet.KeyCompromised, at.Add(25*time.Hour))
	}), want: signing.KeyRevoked},
	{name: "somebody else's revocation", craft: simple(func(c *crafted) {
		other := craft(c.t, nil)
		other.revoke(packet.KeyCompromised, at)
		c.entity.Revocations = other.entity.Revocations
	})},

	{name: "key is younger than the signature", craft: func(t *testing.T) (*crafted, []byte) {
		c := craft(t, nil)
		return c, c.sign(data, at.Add(-3*year), nil)
	}, want: signing.KeyInvalid},
	{name: "key not for signing", craft: simple(func(c *crafted) {
		c.restate(at.Add(-month), func(s *packet.Signature) { s.FlagSign = false })
	}), want: signing.KeyNotForSigning},
	{name: "key no longer for signing", craft: simple(func(c *crafted) {
		c.restate(at.Add(24*time.Hour), func(s *packet.Signature) { s.FlagSign = false })
	})},
	{name: "RSA 1024", craft: func(t *testing.T) (*crafted, []byte) {
		c := craft(t, func(p *packet.Config) {
			p.Algorithm, p.RSABits, p.MinRSABits = packet.PubKeyAlgoRSA, 1024, 1024
		})
		return c, c.sign(data, at, nil)
	}, want: signing.WeakKey},
	{name: "secp256k1", craft: func(t *testing.T) (*crafted, []byte) {
		c := craft(t, func(p *packet.Config) { p.Algorithm, p.Curve = packet.PubKeyAlgoECDSA, packet.CurveSecP256k1 })
		return c, c.sign(data, at, nil)
	}, want: signing.WeakKey},

	{name: "SHA-1", craft: odd(func(s *packet.Signature) { s.Hash = crypto.SHA1 }), want: signing.WeakHash},
	{name: "from the future", craft: odd(func(s *packet.Signature) { s.CreationTime = at.Add(year) }), want: signing.FromFuture},
	{name: "expired signature", craft: odd(func(s *packet.Signature) { s.SigLifetimeSecs = lifetime(24 * time.Hour) }), want: signing.SignatureExpired},
	{name: "signature that expires later", craft: odd(func(s *packet.Signature) { s.SigLifetimeSecs = lifetime(year) })},
	{name: "critical notation", craft: odd(func(s *packet.Signature) {
		s.Notations = []*packet.Notation{{Name: "must@example.com", Value: []byte("know"), IsCritical: true, IsHumanReadable: true}}
	}), want: signing.CriticalNotation},
	{name: "other notation", craft: odd(func(s *packet.Signature) {
		s.Notations = []*packet.Notation{{Name: "may@example.com", Value: []byte("know"), IsHumanReadable: true}}
	})},
	{name: "signature of a key", craft: odd(func(s *packet.Signature) { s.SigType = packet.SigTypeDirectSignature }), want: signing.Unsupported},
	{name: "other data", craft: func(t *testing.T) (*crafted, []byte) {
		c := craft(t, nil)
		return c, c.sign([]byte("another image"), at, nil)
	}, want: signing.BadSignature},

	{name: "before the span", craft: simple(func(*crafted) {}), pin: func(p *signing.Pin) { p.From = at.Add(time.Second) }, want: signing.OutsideSpan},
	{name: "first moment of the span", craft: simple(func(*crafted) {}), pin: func(p *signing.Pin) { p.From = at }},
	{name: "last moment of the span", craft: simple(func(*crafted) {}), pin: func(p *signing.Pin) { p.Until = at.Add(time.Second) }},
	{name: "after the span", craft: simple(func(*crafted) {}), pin: func(p *signing.Pin) { p.Until = at }, want: signing.OutsideSpan},
	{name: "wrong purpose", craft: simple(func(*crafted) {}), pin: func(p *signing.Pin) {
		p.Purposes = []signing.Purpose{signing.ForConfig, signing.ForRepository}
	}, want: signing.WrongPurpose},
	{name: "right purpose", craft: simple(func(*crafted) {}), pin: func(p *signing.Pin) {
		p.Purposes = []signing.Purpose{signing.ForConfig, signing.ForImage}
	}},

	{name: "subkey", craft: simple(func(c *crafted) { c.addSubkey(nil) })},
	{name: "subkey expired since", craft: simple(func(c *crafted) {
		c.addSubkey(func(p *packet.Config) { p.KeyLifetimeSecs = *lifetime(year + 24*time.Hour) })
	}), note: "expired on"},
	{name: "subkey had expired", craft: simple(func(c *crafted) {
		c.addSubkey(func(p *packet.Config) { p.KeyLifetimeSecs = *lifetime(month) })
	}), want: signing.KeyExpired},
	{name: "subkey of an expired key", craft: func(t *testing.T) (*crafted, []byte) {
		c, _ := expiring(year + month)(t)
		c.addSubkey(nil)
		return c, c.sign(data, at, nil)
	}, want: signing.KeyExpired},
	{name: "subkey of a compromised key", craft: simple(func(c *crafted) {
		c.addSubkey(nil)
		c.revoke(packet.KeyCompromised, at.Add(24*time.Hour))
	}), want: signing.KeyRevoked},
	{name: "subkey retired since", craft: simple(func(c *crafted) {
		require.NoError(c.t, c.addSubkey(nil).Revoke(packet.KeyRetired, "", &packet.Config{Time: clock(at.Add(24 * time.Hour))}))
	}), note: "retired"},
	{name: "subkey retired before", craft: simple(func(c *crafted) {
		require.NoError(c.t, c.addSubkey(nil).Revoke(packet.KeyRetired, "", &packet.Config{Time: clock(at.Add(-24 * time.Hour))}))
	}), want: signing.KeyRevoked},
	{name: "subkey compromised", craft: simple(func(c *crafted) {
		require.NoError(c.t, c.addSubkey(nil).Revoke(packet.KeyCompromised, "", &packet.Config{Time: clock(at.Add(24 * time.Hour))}))
	}), want: signing.KeyRevoked},
	{name: "subkey without cross-signature", craft: simple(func(c *crafted) {
		sub := c.addSubkey(nil)
		b := sub.Bindings[0].Packet
		b.EmbeddedSignature = nil
		require.NoError(c.t, b.SignKey(sub.PublicKey, c.entity.PrivateKey, nil))
	}), want: signing.KeyInvalid},
	{name: "subkey bound by another key", craft: simple(func(c *crafted) {
		c.addSubkey(nil).Bindings = craft(c.t, nil).addSubkey(nil).Bindings
	}), want: signing.KeyInvalid},
	{name: "subkey no longer for signing", craft: simple(func(c *crafted) { c.rebind(at.Add(24 * time.Hour)) })},
	{name: "subkey was no longer for signing", craft: simple(func(c *crafted) { c.rebind(at.Add(-24 * time.Hour)) }), want: signing.KeyNotForSigning},
	{name: "version 6", craft: func(t *testing.T) (*crafted, []byte) {
		c := craft(t, func(p *packet.Config) { p.V6Keys, p.Algorithm = true, packet.PubKeyAlgoEd25519 })
		return c, c.sign(data, at, nil)
	}},
	{name: "version 6 had expired", craft: func(t *testing.T) (*crafted, []byte) {
		c := craft(t, func(p *packet.Config) {
			p.V6Keys, p.Algorithm, p.KeyLifetimeSecs = true, packet.PubKeyAlgoEd25519, *lifetime(year)
		})
		return c, c.sign(data, at, nil)
	}, want: signing.KeyExpired},
	{name: "version 6 Ed448", craft: func(t *testing.T) (*crafted, []byte) {
		c := craft(t, func(p *packet.Config) { p.V6Keys, p.Algorithm = true, packet.PubKeyAlgoEd448 })
		return c, c.sign(data, at, func(s *packet.Signature) { s.Hash = crypto.SHA512 })
	}},
}

func TestPolicy(t *testing.T) {
	for _, c := range policyCases {
		t.Run(c.name, func(t *testing.T) {
			made, sig := c.craft(t)
			key := made.key()
			pin := signing.Pin{Fingerprint: key.Fingerprint()}
			if c.pin != nil {
				c.pin(&pin)
			}
			ring, err := signing.NewKeyring([]signing.Pin{pin}, key)
			require.NoError(t, err)
			v := &signing.Verifier{Keyring: ring, Time: clock(at.Add(month))}
			result, err := v.Detached(t.Context(), "a.qcow2", bytes.NewReader(data), bytes.NewReader(sig))
			f := result.File("a.qcow2")
			if c.want == "" {
				require.NoError(t, err)
				require.Equal(t, signing.Good, f.Status)
				require.Equal(t, key.Fingerprint(), f.Fingerprint)
				if c.note == "" {
					require.Empty(t, f.Notes)
				} else {
					require.Contains(t, f.Notes[0], c.note)
				}
				return
			}
			require.ErrorIs(t, err, c.want)
			var problem *signing.Error
			require.ErrorAs(t, err, &problem)
			require.Equal(t, "a.qcow2", problem.File)
			require.Equal(t, c.want, problem.Reason)
			require.Equal(t, key.Fingerprint(), problem.Fingerprint)
			require.NotEqual(t, signing.Good, f.Status)
			require.False(t, result.OK())
		})
	}
}

// TestPolicyInVerifyDir: the same of an image in a release directory whose
// SHA256SUMS is good, and of a SHA256SUMS. Nothing else is blamed.
func TestPolicyInVerifyDir(t *testing.T) {
	owner := newKey(t, signing.KeyConfig{})
	for _, c := range policyCases {
		t.Run(c.name, func(t *testing.T) {
			made, sig := c.craft(t)
			pin := signing.Pin{Fingerprint: made.key().Fingerprint()}
			if c.pin != nil {
				c.pin(&pin)
			}
			ring, err := signing.NewKeyring([]signing.Pin{pin, {Fingerprint: owner.Fingerprint()}}, made.key(), owner)
			require.NoError(t, err)
			v := &signing.Verifier{Keyring: ring, Time: clock(at.Add(month))}

			armored, err := signing.Armor(sig)
			require.NoError(t, err)
			dir := listing(t, owner, sum("one")+"  one\n"+sum("two")+"  two\n"+
				sum(string(data))+"  a.qcow2\n"+sum(string(armored))+"  a.qcow2.asc\n")
			require.NoError(t, os.WriteFile(filepath.Join(dir, "a.qcow2"), data, 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "a.qcow2.asc"), armored, 0o644))
			result, err := v.VerifyDir(t.Context(), dir)
			require.ErrorIs(t, err, errorOf(c.want))
			require.Len(t, result.Files, 5)
			for _, f := range result.Files {
				if f.Name == "a.qcow2" {
					require.Equal(t, c.want, f.Reason)
				} else {
					require.Equal(t, signing.Good, f.Status, f.Name)
				}
			}

			// Here the same signature is of a SHA256SUMS, which lists nothing.
			dir = t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, signing.SumsFile), data, 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, signing.SumsSig), armored, 0o644))
			_, err = v.VerifyDir(t.Context(), dir)
			switch c.want {
			case "", signing.WrongPurpose: // a config key may sign it
				require.ErrorIs(t, err, signing.Malformed)
			default:
				require.ErrorIs(t, err, c.want)
			}
		})
	}
}

func TestDigests(t *testing.T) {
	sealer := &signing.Sealer{
		Signers: []*signing.Signer{newSigner(t, newKey(t, signing.KeyConfig{}))},
		Digests: []crypto.Hash{crypto.MD5, crypto.SHA512},
	}
	for _, size := range []int{0, 1, 16<<10 - 1, 16 << 10, 16<<10 + 1, 1<<20 + 16<<10, 3<<20 + 7} {
		content := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
		_, got, err := sealer.Detached(t.Context(), "a", iotest.OneByteReader(bytes.NewReader(content[:min(size, 100)])))
		require.NoError(t, err)
		require.Equal(t, int64(min(size, 100)), got.SizeBytes)
		_, got, err = sealer.Detached(t.Context(), "a", iotest.HalfReader(bytes.NewReader(content)))
		require.NoError(t, err)
		require.Equal(t, signing.FileDigest{
			Name: "a", SizeBytes: int64(size), SHA256: fmt.Sprintf("%x", sha256.Sum256(content)),
			SHA512: fmt.Sprintf("%x", sha512.Sum512(content)), MD5: fmt.Sprintf("%x", md5.Sum(content)),
		}, got)
	}
	_, _, err := sealer.Detached(t.Context(), "a", iotest.TimeoutReader(bytes.NewReader(make([]byte, 5<<20))))
	require.ErrorIs(t, err, iotest.ErrTimeout)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = sealer.Detached(ctx, "a", bytes.NewReader(nil))
	require.ErrorIs(t, err, context.Canceled)
}
