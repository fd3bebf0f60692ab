package signing

import (
	"crypto"
	"fmt"
	"sort"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// minRSABits of a key that may sign: some 2048-bit keys have a modulus whose
// first bit is zero. maxRSABits bounds the work that a key can cause.
const minRSABits, maxRSABits = 2047, 16384

// maxSelfSignatures bounds the work that one key can cause.
const maxSelfSignatures = 1000

// keyState is what a key's self-signatures say, checked once. The library
// caches the result of checking a self-signature together with the time of the
// first question, so it cannot be asked about several times or concurrently.
type keyState struct {
	parts []keyPart // the primary key first
	err   error     // the key cannot be judged at all
}

// keyPart is the primary key or a subkey.
type keyPart struct {
	pub         *packet.PublicKey
	primary     bool
	weak        string    // why the key is too weak to be believed, or empty
	bindings    []binding // cryptographically valid, oldest first
	revocations []*packet.Signature
}

// binding is one statement of the owner on a key part.
type binding struct {
	sig     *packet.Signature
	sign    bool
	expires time.Time // of the key; zero: never
}

func examine(e *openpgp.Entity) *keyState {
	s := &keyState{}
	if n := countSelfSignatures(e); n > maxSelfSignatures {
		s.err = fmt.Errorf("it has %d self-signatures, more than %d", n, maxSelfSignatures)
		return s
	}
	s.parts = append(s.parts, examinePrimary(e))
	for i := range e.Subkeys {
		s.parts = append(s.parts, examineSubkey(e, &e.Subkeys[i]))
	}
	return s
}

func countSelfSignatures(e *openpgp.Entity) int {
	n := len(e.DirectSignatures) + len(e.Revocations)
	for _, id := range e.Identities {
		n += len(id.SelfCertifications) + len(id.Revocations)
	}
	for _, sub := range e.Subkeys {
		n += len(sub.Bindings) + len(sub.Revocations)
	}
	return n
}

func examinePrimary(e *openpgp.Entity) keyPart {
	p := keyPart{pub: e.PrimaryKey, primary: true, weak: weakness(e.PrimaryKey)}
	if p.weak != "" {
		return p
	}
	for _, r := range e.Revocations {
		if e.PrimaryKey.VerifyRevocationSignature(r.Packet) == nil {
			p.revocations = append(p.revocations, r.Packet)
		}
	}
	for _, d := range e.DirectSignatures {
		// Version 4 direct-key signatures may only name a designated revoker and
		// say nothing on the key itself.
		says := e.PrimaryKey.Version >= 6 || d.Packet.FlagsValid || d.Packet.KeyLifetimeSecs != nil
		if says && acceptable(d.Packet) && e.PrimaryKey.VerifyDirectKeySignature(d.Packet) == nil {
			p.add(d.Packet)
		}
	}
	if e.PrimaryKey.Version < 6 {
		for name, id := range e.Identities {
			p.addIdentity(e.PrimaryKey, name, id)
		}
	}
	p.sort()
	return p
}

func (p *keyPart) addIdentity(pub *packet.PublicKey, name string, id *openpgp.Identity) {
	var revoked time.Time
	for _, r := range id.Revocations {
		if r.Packet.CreationTime.After(revoked) && pub.VerifyUserIdSignature(name, pub, r.Packet) == nil {
			revoked = r.Packet.CreationTime
		}
	}
	for _, c := range id.SelfCertifications {
		if c.Packet.CreationTime.Before(revoked) || c.Packet.CreationTime.Equal(revoked) {
			continue
		}
		if acceptable(c.Packet) && pub.VerifyUserIdSignature(name, pub, c.Packet) == nil {
			p.add(c.Packet)
		}
	}
}

func examineSubkey(e *openpgp.Entity, sub *openpgp.Subkey) keyPart {
	p := keyPart{pub: sub.PublicKey, weak: weakness(sub.PublicKey)}
	if p.weak != "" || weakness(e.PrimaryKey) != "" {
		return p
	}
	for _, r := range sub.Revocations {
		if e.PrimaryKey.VerifySubkeyRevocationSignature(r.Packet, sub.PublicKey) == nil {
			p.revocations = append(p.revocations, r.Packet)
		}
	}
	for _, b := range sub.Bindings {
		// For a signing subkey this includes the subkey's own signature back on
		// the primary key (RFC 9580, section 10.1.5).
		if acceptable(b.Packet) && e.PrimaryKey.VerifyKeySignature(sub.PublicKey, b.Packet) == nil {
			p.add(b.Packet)
		}
	}
	p.sort()
	return p
}

func (p *keyPart) add(sig *packet.Signature) {
	b := binding{sig: sig, sign: sig.FlagSign}
	if p.primary && !sig.FlagsValid {
		b.sign = true // as gpg does: primary keys older than key flags
	}
	if secs := sig.KeyLifetimeSecs; secs != nil && *secs != 0 {
		b.expires = p.pub.CreationTime.Add(time.Duration(*secs) * time.Second)
	}
	p.bindings = append(p.bindings, b)
}

func (p *keyPart) sort() {
	sort.SliceStable(p.bindings, func(i, j int) bool {
		a, b := p.bindings[i], p.bindings[j]
		if !a.sig.CreationTime.Equal(b.sig.CreationTime) {
			return a.sig.CreationTime.Before(b.sig.CreationTime)
		}
		// Of two statements made in the same second the narrower one counts:
		// put it last. Identities come in no order, so there must be one.
		return a.expires.IsZero() && !b.expires.IsZero() || !b.expires.IsZero() && a.expires.After(b.expires)
	})
}

// acceptable says whether a self-signature's form can be believed. SHA-1 is
// accepted here and nowhere else: the owner alone chooses what is signed, and
// keys of the years the policy speaks of have it.
func acceptable(sig *packet.Signature) bool {
	if sig.Hash == crypto.MD5 || sig.Hash == crypto.RIPEMD160 {
		return false
	}
	return criticalNotation(sig) == ""
}

func criticalNotation(sig *packet.Signature) string {
	for _, n := range sig.Notations {
		if n.IsCritical {
			return n.Name
		}
	}
	return ""
}

func weakness(pub *packet.PublicKey) string {
	switch pub.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if bits, err := pub.BitLength(); err != nil || bits < minRSABits || bits > maxRSABits {
			return fmt.Sprintf("RSA of %d bits, not 2048 to %d", bits, maxRSABits)
		}
	case packet.PubKeyAlgoDSA, packet.PubKeyAlgoElGamal:
		return "DSA is not accepted"
	case packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA:
		curve, err := pub.Curve()
		if err != nil || curve == packet.CurveSecP256k1 {
			return fmt.Sprintf("curve %s is not accepted", curve)
		}
	}
	return ""
}

// verdict of a key part at a time: good where reason is empty.
type verdict struct {
	reason Reason
	detail string
	notes  []string
}

// judge says whether part i could sign at the given time, as known at now.
func (s *keyState) judge(i int, at, now time.Time) verdict {
	if s.err != nil {
		return verdict{reason: KeyInvalid, detail: s.err.Error()}
	}
	if i == 0 {
		return s.parts[0].judge(at, now, true)
	}
	primary := s.parts[0].judge(at, now, false)
	if primary.reason != "" {
		primary.detail = "primary key: " + primary.detail
		return primary
	}
	v := s.parts[i].judge(at, now, true)
	v.notes = append(primary.notes, v.notes...)
	return v
}

func (p *keyPart) judge(at, now time.Time, mustSign bool) verdict {
	if p.weak != "" {
		return verdict{reason: WeakKey, detail: p.weak}
	}
	var v verdict
	for _, r := range p.revocations {
		if hard(r) {
			return verdict{reason: KeyRevoked, detail: "revoked " + day(r.CreationTime) + ": " + revocationText(r) + "; nothing it signed counts"}
		}
		if !r.CreationTime.After(at) {
			return verdict{reason: KeyRevoked, detail: "revoked " + day(r.CreationTime) + ": " + revocationText(r) + ", before it signed"}
		}
		v.notes = append(v.notes, "key "+shortID(p.pub)+" was revoked on "+day(r.CreationTime)+" ("+revocationText(r)+"), after it signed")
	}
	if at.Before(p.pub.CreationTime) {
		return verdict{reason: KeyInvalid, detail: "signed before the key was made on " + day(p.pub.CreationTime)}
	}
	latest, then := p.statements(at, now)
	if latest == nil {
		return verdict{reason: KeyInvalid, detail: "the key has no valid self-signature"}
	}
	if !latest.expires.IsZero() && !at.Before(latest.expires) {
		return verdict{reason: KeyExpired, detail: "the key expired on " + day(latest.expires) + ", before it signed"}
	}
	if mustSign && !then.sign {
		return verdict{reason: KeyNotForSigning, detail: "the key is not meant for signing"}
	}
	if !latest.expires.IsZero() && !now.Before(latest.expires) {
		v.notes = append(v.notes, "key "+shortID(p.pub)+" expired on "+day(latest.expires)+", after it signed")
	}
	return v
}

// statements returns the self-signature that says how long the key counts, which
// is the last one made, and the one that says what it may do, which is the last
// one before it signed (or else the first, since copies of keys often
// carry none but the newest). A certification that says nothing on how long
// leaves that to a direct-key signature.
func (p *keyPart) statements(at, now time.Time) (latest, then *binding) {
	var direct *binding
	for i := range p.bindings {
		b := &p.bindings[i]
		if b.sig.CreationTime.After(now) || signatureExpired(b.sig, at) {
			continue
		}
		latest = b
		if b.sig.SigType == packet.SigTypeDirectSignature {
			direct = b
		}
		if then == nil || !b.sig.CreationTime.After(at) {
			then = b
		}
	}
	if direct != nil && latest.sig.KeyLifetimeSecs == nil {
		latest = direct
	}
	return latest, then
}

func signatureExpired(sig *packet.Signature, at time.Time) bool {
	if sig.SigLifetimeSecs == nil || *sig.SigLifetimeSecs == 0 {
		return false
	}
	return !at.Before(sig.CreationTime.Add(time.Duration(*sig.SigLifetimeSecs) * time.Second))
}

// hard revocations (RFC 9580, section 5.2.3.31) say that somebody else may have
// the key, who can put any date on a signature.
func hard(r *packet.Signature) bool {
	if r.RevocationReason == nil {
		return true
	}
	switch *r.RevocationReason {
	case packet.KeySuperseded, packet.KeyRetired, packet.UserIDNotValid:
		return false
	}
	return true
}

func revocationText(r *packet.Signature) string {
	if r.RevocationReason == nil {
		return "no reason given"
	}
	switch *r.RevocationReason {
	case packet.KeySuperseded:
		return "superseded"
	case packet.KeyRetired:
		return "retired"
	case packet.KeyCompromised:
		return "compromised"
	case packet.UserIDNotValid:
		return "user ID no longer valid"
	}
	return "no reason given"
}

func shortID(pub *packet.PublicKey) string { return fmt.Sprintf("%016X", pub.KeyId) }

func day(t time.Time) string { return t.UTC().Format(time.RFC3339) }
