package signing

import (
	"bytes"
	"context"
	"crypto"
	stdecdsa "crypto/ecdsa"
	stded25519 "crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"

	"github.com/ProtonMail/go-crypto/openpgp/ecdsa"
	"github.com/ProtonMail/go-crypto/openpgp/ed25519"
	"github.com/ProtonMail/go-crypto/openpgp/eddsa"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// samePublicKey compares an OpenPGP key with a standard library one.
func samePublicKey(pub *packet.PublicKey, other crypto.PublicKey) bool {
	switch mine := pub.PublicKey.(type) {
	case *rsa.PublicKey:
		return mine.Equal(other)
	case *ecdsa.PublicKey:
		their, ok := other.(*stdecdsa.PublicKey)
		if !ok {
			return false
		}
		point, err := their.Bytes()
		return err == nil && bytes.Equal(mine.MarshalPoint(), point)
	case *eddsa.PublicKey:
		their, ok := other.(stded25519.PublicKey)
		return ok && bytes.Equal(mine.X, their)
	case *ed25519.PublicKey:
		their, ok := other.(stded25519.PublicKey)
		return ok && bytes.Equal(mine.Point, their)
	}
	return false
}

// external is a signer of somebody else's.
type external struct {
	signer crypto.Signer
	public crypto.PublicKey
	turn   chan struct{} // holds one while the signer is in use; nil if it need not be alone
}

func newExternal(signer crypto.Signer, concurrent bool) (*external, error) {
	e := &external{signer: signer}
	if !concurrent {
		e.turn = make(chan struct{}, 1)
	}
	err := e.contain(func() error {
		e.public = signer.Public()
		return nil
	})
	return e, err
}

// contain makes a panic of the signer's an error.
func (e *external) contain(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the external signer (%T) panicked: %v", e.signer, p)
		}
	}()
	return call()
}

// is says whether the signer has the secret of pub.
func (e *external) is(pub *packet.PublicKey) (same bool) {
	_ = e.contain(func() error { // a public key without content panics: it is none
		same = samePublicKey(pub, e.public)
		return nil
	})
	return same
}

// signFunc signs a digest.
type signFunc func(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error)

// with returns the signer's Sign, or SignContext with ctx. It waits for its turn,
// not longer than ctx.
func (e *external) with(ctx context.Context) signFunc {
	return func(rand io.Reader, digest []byte, opts crypto.SignerOpts) (raw []byte, err error) {
		if e.turn != nil {
			select {
			case e.turn <- struct{}{}:
				defer func() { <-e.turn }()
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err = e.contain(func() (err error) {
			if c, ok := e.signer.(ContextSigner); ok {
				raw, err = c.SignContext(ctx, rand, digest, opts)
			} else {
				raw, err = e.signer.Sign(rand, digest, opts)
			}
			return err
		})
		return raw, err
	}
}

// libraryKey is a crypto.Signer for the library.
type libraryKey struct {
	public crypto.PublicKey
	sign   func(digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

func (k libraryKey) Public() crypto.PublicKey { return k.public }

func (k libraryKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(digest, opts)
}

// signExternally completes sig over the data in h with a key that is elsewhere.
func signExternally(sig *packet.Signature, h hash.Hash, pub *packet.PublicKey, sign signFunc, cfg *packet.Config) error {
	priv := &packet.PrivateKey{PublicKey: *pub}
	switch key := pub.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		standard, err := standardKey(pub)
		if err != nil {
			return err
		}
		var failure error // which the library would lose
		priv.PrivateKey = libraryKey{standard, func(digest []byte, opts crypto.SignerOpts) (raw []byte, err error) {
			raw, failure = sign(cfg.Random(), digest, opts)
			return raw, failure
		}}
		if err := sig.Sign(h, priv, cfg); failure == nil {
			return err
		}
		return failure

	// The library takes crypto.Signer for RSA and ECDSA only. So a key of the
	// moment completes the packet, and its signature is then replaced.
	case *eddsa.PublicKey:
		moment, err := eddsa.GenerateKey(cfg.Random(), key.GetCurve())
		if err != nil {
			return err
		}
		priv.PrivateKey = moment
		raw, err := replaceable(sig, h, priv, sign, cfg)
		if err != nil {
			return err
		}
		if _, err := sig.EdDSASigR.ReadFrom(mpi(raw[:32])); err != nil {
			return err
		}
		_, err = sig.EdDSASigS.ReadFrom(mpi(raw[32:]))
		return err
	case *ed25519.PublicKey:
		moment, err := ed25519.GenerateKey(cfg.Random())
		if err != nil {
			return err
		}
		priv.PrivateKey = moment
		sig.EdSig, err = replaceable(sig, h, priv, sign, cfg)
		return err
	}
	return errors.New("keys of its algorithm cannot be used from elsewhere")
}

// replaceable completes the packet and returns the external key's signature of
// the same digest.
func replaceable(sig *packet.Signature, h hash.Hash, moment *packet.PrivateKey, sign signFunc, cfg *packet.Config) ([]byte, error) {
	if err := sig.Sign(h, moment, cfg); err != nil {
		return nil, err
	}
	// OpenPGP signs the digest as a message of its own (RFC 9580, section 5.2.3.3).
	raw, err := sign(cfg.Random(), h.Sum(nil), crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	if len(raw) != stded25519.SignatureSize {
		return nil, fmt.Errorf("the external key made an Ed25519 signature of %d bytes, not %d", len(raw), stded25519.SignatureSize)
	}
	return raw, nil
}

// mpi encodes a number as RFC 9580, section 3.2.
func mpi(raw []byte) *bytes.Reader {
	n := new(big.Int).SetBytes(raw)
	bits := n.BitLen()
	return bytes.NewReader(append([]byte{byte(bits >> 8), byte(bits)}, n.Bytes()...))
}

// certify makes the OpenPGP key of an external signer.
func certify(c KeyConfig, cfg *packet.Config) (*Key, error) {
	if c.V6 {
		return nil, errors.New("cannot make a key for the external signer: version 6 is for generated keys only")
	}
	ext, err := newExternal(c.Signer, true)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key for the external signer: %w", err)
	}
	var pub *packet.PublicKey
	if err := ext.contain(func() (err error) {
		pub, err = publicKeyFor(ext.public, cfg)
		return err
	}); err != nil {
		return nil, fmt.Errorf("cannot make a key for the external signer: %w", err)
	}
	if weak := weakness(pub); weak != "" {
		return nil, fmt.Errorf("cannot make a key for the external signer: %s", weak)
	}
	uid := packet.NewUserId(c.Name, c.Comment, c.Email)
	if uid == nil {
		return nil, errors.New("cannot make a key for the external signer: name, comment and email must not contain ()<> or NUL")
	}
	sig := &packet.Signature{
		Version: pub.Version, SigType: packet.SigTypePositiveCert, PubKeyAlgo: pub.PubKeyAlgo,
		CreationTime: cfg.Now(), IssuerKeyId: &pub.KeyId,
		FlagsValid: true, FlagSign: true, FlagCertify: true,
		KeyLifetimeSecs: &cfg.KeyLifetimeSecs,
	}
	if sig.Hash, err = chooseHash(0, pub); err != nil {
		return nil, err
	}
	h := sig.Hash.New()
	if err := hashUserID(h, pub, uid.Id); err != nil {
		return nil, err
	}
	if err := signExternally(sig, h, pub, ext.with(context.Background()), cfg); err != nil {
		return nil, fmt.Errorf("cannot make a key for the external signer: %w", err)
	}
	if err := pub.VerifyUserIdSignature(uid.Id, pub, sig); err != nil {
		return nil, fmt.Errorf("cannot make a key for the external signer: what it signed does not verify: %w", err)
	}
	entity := &openpgp.Entity{PrimaryKey: pub}
	entity.Identities = map[string]*openpgp.Identity{uid.Id: {
		Primary: entity, Name: uid.Id, UserId: uid,
		SelfCertifications: []*packet.VerifiableSignature{packet.NewVerifiableSig(sig)},
	}}
	return newKey(entity), nil
}

func publicKeyFor(public crypto.PublicKey, cfg *packet.Config) (*packet.PublicKey, error) {
	switch pub := public.(type) {
	case *rsa.PublicKey:
		return packet.NewRSAPublicKey(cfg.Now(), pub), nil
	case *stdecdsa.PublicKey:
		curve := nistCurve(pub)
		if curve == "" {
			return nil, fmt.Errorf("curve %s is not accepted", pub.Curve.Params().Name)
		}
		// The library's curves are internal: take one from a key that it makes.
		alike, err := openpgp.NewEntity("a", "", "", &packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: curve})
		if err != nil {
			return nil, err
		}
		point, err := pub.Bytes()
		if err != nil {
			return nil, err
		}
		key := alike.PrimaryKey.PublicKey.(*ecdsa.PublicKey)
		if err := key.UnmarshalPoint(point); err != nil {
			return nil, err
		}
		return packet.NewECDSAPublicKey(cfg.Now(), key), nil
	case stded25519.PublicKey:
		alike, err := openpgp.NewEntity("a", "", "", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
		if err != nil {
			return nil, err
		}
		key := alike.PrimaryKey.PublicKey.(*eddsa.PublicKey)
		key.X = bytes.Clone(pub)
		return packet.NewEdDSAPublicKey(cfg.Now(), key), nil
	}
	return nil, fmt.Errorf("its public key is a %T, not RSA, ECDSA or Ed25519", public)
}

func nistCurve(pub *stdecdsa.PublicKey) packet.Curve {
	switch pub.Curve {
	case elliptic.P256():
		return packet.CurveNistP256
	case elliptic.P384():
		return packet.CurveNistP384
	case elliptic.P521():
		return packet.CurveNistP521
	}
	return ""
}

// hashUserID hashes what a self-certification signs (RFC 9580, section 5.2.4).
func hashUserID(h hash.Hash, pub *packet.PublicKey, id string) error {
	if err := pub.SerializeForHash(h); err != nil {
		return err
	}
	n := len(id)
	_, _ = h.Write([]byte{0xb4, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	_, err := h.Write([]byte(id))
	return err
}
