package signing

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// SignerConfig says how a [Signer] signs.
type SignerConfig struct {
	// External, if not nil, holds the private key (HSM, KMS, gpg-agent); the
	// Key then needs no secret part. Its public key selects the primary key
	// or subkey that signs. A [ContextSigner] gets the context of the call
	// that signs.
	External crypto.Signer

	// Concurrent says that External may be called from several goroutines at
	// once. If false, this Signer calls it once at a time: make one Signer for
	// it, and share that.
	Concurrent bool

	// Hash of the signatures: SHA-256, SHA-384 or SHA-512. If zero, SHA-256,
	// or SHA-512 where the curve of the key wants a longer hash.
	Hash crypto.Hash

	// Time returns the time to sign at; if nil, time.Now.
	Time func() time.Time

	// Rand is the source of randomness; if nil, crypto/rand.
	Rand io.Reader
}

// ContextSigner is a crypto.Signer that can be told to give up, such as one that
// asks a service or a person. SignContext is Sign, but returns when ctx ends.
type ContextSigner interface {
	crypto.Signer
	SignContext(ctx context.Context, rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

// Signer makes OpenPGP signatures with one key. It may be used concurrently.
type Signer struct {
	key  *Key
	part int // of the key's parts
	priv *packet.PrivateKey
	ext  *external
	hash crypto.Hash
	cfg  *packet.Config
}

// External reports whether something else than the process's memory holds the private
// key, as far as the signer was told: SignerConfig.External, or an agent.
func (s *Signer) External() bool { return s.ext != nil }

// NewSigner returns a signer for the newest part of key (a signing subkey, or
// else the primary key) that may sign now and whose secret it has. Version 4
// keys make version 4 signatures, version 6 keys version 6.
func NewSigner(key *Key, c SignerConfig) (*Signer, error) {
	if err := key.Err(); err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	s := &Signer{key: key, part: -1, cfg: packetConfig(c.Time, c.Rand)}
	why := errors.New("it has no secret part")
	if c.External != nil {
		var err error
		if s.ext, err = newExternal(c.External, c.Concurrent); err != nil {
			return nil, fmt.Errorf("cannot sign with key %s: %w", key.Fingerprint(), err)
		}
		why = errors.New("the external signer has another key")
	}
	state := key.state()
	for i := key.countParts() - 1; i >= 0 && s.part < 0; i-- {
		pub := key.publicKey(i)
		if !pub.PubKeyAlgo.CanSign() || !s.holds(pub) {
			continue
		}
		if v := state.judge(i, s.cfg.Now(), s.cfg.Now()); v.reason != "" {
			why = &Error{Fingerprint: key.Fingerprint(), Reason: v.reason, Detail: v.detail}
			continue
		}
		s.part = i
	}
	if s.part < 0 {
		return nil, fmt.Errorf("cannot sign with key %s: %w", key.Fingerprint(), why)
	}
	var err error
	if s.hash, err = chooseHash(c.Hash, s.public()); err != nil {
		return nil, fmt.Errorf("cannot sign with key %s: %w", key.Fingerprint(), err)
	}
	return s, nil
}

// holds finds the secret of pub and remembers it.
func (s *Signer) holds(pub *packet.PublicKey) bool {
	if s.ext != nil {
		return s.ext.is(pub)
	}
	e := s.key.entity
	candidates := []*packet.PrivateKey{e.PrivateKey}
	for i := range e.Subkeys {
		candidates = append(candidates, e.Subkeys[i].PrivateKey)
	}
	for _, priv := range candidates {
		if priv != nil && bytes.Equal(priv.Fingerprint, pub.Fingerprint) && !priv.Dummy() && !priv.Encrypted {
			s.priv = priv
			return true
		}
	}
	return false
}

func (s *Signer) public() *packet.PublicKey { return s.key.publicKey(s.part) }

// Fingerprint of the primary key, which is what others pin.
func (s *Signer) Fingerprint() Fingerprint {
	if s == nil {
		return ""
	}
	return s.key.Fingerprint()
}

// ready says why the signer cannot sign now, if it cannot.
func (s *Signer) ready() error {
	if s == nil || s.key == nil {
		return errors.New("a signer is not made by NewSigner or NewAgentSigner")
	}
	now := s.cfg.Now()
	if v := s.key.state().judge(s.part, now, now); v.reason != "" {
		return &Error{Fingerprint: s.Fingerprint(), Reason: v.reason, Detail: v.detail}
	}
	return nil
}

func chooseHash(wanted crypto.Hash, pub *packet.PublicKey) (crypto.Hash, error) {
	least := 0 // bytes: RFC 9580, sections 5.2.3.2 to 5.2.3.5
	if pub.PubKeyAlgo == packet.PubKeyAlgoECDSA {
		if bits, err := pub.BitLength(); err == nil {
			least = min(int(bits)/8, 64)
		}
	}
	if pub.PubKeyAlgo == packet.PubKeyAlgoEd448 || pub.PubKeyAlgo == packet.PubKeyAlgoEdDSA && curveOf(pub) == packet.Curve448 {
		least = 64
	}
	switch wanted {
	case 0:
		if least > crypto.SHA256.Size() {
			return crypto.SHA512, nil // which a seal computes anyway
		}
		return crypto.SHA256, nil
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
		if wanted.Size() < least {
			return 0, fmt.Errorf("its curve needs a longer hash than %s", wanted)
		}
		return wanted, nil
	}
	return 0, fmt.Errorf("hash %s is not accepted for signatures", wanted)
}

func curveOf(pub *packet.PublicKey) packet.Curve {
	curve, err := pub.Curve()
	if err != nil {
		return ""
	}
	return curve
}

// start returns a signature to be and, for version 6 keys, the hash that its
// salt begins. Version 4 signatures can use any hash of the data.
func (s *Signer) start(typ packet.SignatureType) (*packet.Signature, hash.Hash, error) {
	pub := s.public()
	sig := &packet.Signature{
		Version:           pub.Version,
		SigType:           typ,
		PubKeyAlgo:        pub.PubKeyAlgo,
		Hash:              s.hash,
		CreationTime:      s.cfg.Now(),
		IssuerKeyId:       &pub.KeyId,
		IssuerKeyVersion:  uint8(pub.Version),
		IssuerFingerprint: pub.Fingerprint,
	}
	if pub.Version < 6 {
		return sig, nil, nil
	}
	h, err := sig.PrepareSign(s.cfg)
	return sig, h, err
}

// finish signs the data in h and writes the packet. It checks what it made:
// an external key may be another one, and a signature that a fault spoiled
// could give the secret away.
func (s *Signer) finish(ctx context.Context, w io.Writer, sig *packet.Signature, h hash.Hash) error {
	cloner, ok := h.(hash.Cloner)
	if !ok {
		return fmt.Errorf("hash %s cannot be shared", s.hash)
	}
	check, err := cloner.Clone()
	if err != nil {
		return err
	}
	if s.ext != nil {
		err = signExternally(sig, h, s.public(), s.ext.with(ctx), s.cfg)
	} else {
		err = sig.Sign(h, s.priv, s.cfg)
	}
	if err != nil {
		return err
	}
	// The library loses errors of the private key's; it then has no signature
	// to serialize.
	var packets bytes.Buffer
	if err := sig.Serialize(&packets); err != nil {
		return err
	}
	if !verifies(s.public(), sig, check) {
		return errors.New("the signature that was made does not verify")
	}
	_, err = packets.WriteTo(w)
	return err
}

// pending is a signature whose data is being read.
type pending struct {
	signer *Signer
	sig    *packet.Signature
	own    hash.Hash // version 6
}

// begin makes the signatures of all signers part of the pass.
func begin(d *digester, signers []*Signer, typ packet.SignatureType) ([]pending, error) {
	if len(signers) == 0 {
		return nil, errors.New("there is no signer")
	}
	if len(signers) > maxSignatures {
		return nil, fmt.Errorf("there are %d signers, more than the %d whose signatures are read", len(signers), maxSignatures)
	}
	var all []pending
	seen := map[string]bool{}
	for _, s := range signers {
		if err := s.ready(); err != nil {
			return nil, err
		}
		if value := publicValue(s.public()); seen[value] {
			return nil, fmt.Errorf("key %s is there twice", s.Fingerprint())
		} else if value != "" {
			seen[value] = true
		}
		sig, own, err := s.start(typ)
		if err != nil {
			return nil, err
		}
		if own != nil {
			d.add(own)
		} else {
			d.use(s.hash)
		}
		all = append(all, pending{signer: s, sig: sig, own: own})
	}
	return all, nil
}

// complete writes the signature packets after the pass.
func complete(ctx context.Context, w io.Writer, d *digester, all []pending) error {
	for _, p := range all {
		h := p.own
		if h == nil {
			var err error
			if h, err = d.clone(p.signer.hash); err != nil {
				return err
			}
		}
		if err := p.signer.finish(ctx, w, p.sig, h); err != nil {
			return fmt.Errorf("key %s: %w", p.signer.Fingerprint(), err)
		}
	}
	return nil
}
