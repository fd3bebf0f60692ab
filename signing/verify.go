package signing

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	maxSignatureFile = 128 << 10 // an armored RSA signature has about 700 bytes
	maxSignatures    = 64        // in one file
)

// Signature is what was found out about one signature.
type Signature struct {
	Fingerprint Fingerprint // of the primary key, if it is in the keyring; else as the signature names it
	KeyID       string      // 16 digits, of the part of the key that signed
	SignedAt    time.Time
	Hash        crypto.Hash
	Reason      Reason // why it does not count; empty if it does
	Detail      string
	Notes       []string // what is worth knowing of a good one: its key has expired since
}

// Verifier judges signatures. The zero value of each field but Keyring is
// usable. It is not changed by its methods and may be used concurrently.
type Verifier struct {
	// Keyring with the keys that count.
	Keyring *Keyring

	// Time is now: nothing made later counts. If nil, time.Now.
	Time func() time.Time

	// Required is how many different keys (primary keys, not their subkeys)
	// must have signed; if zero, one.
	Required int

	// IgnoreMissing passes over files that are listed but not there, as
	// sha256sum does. One must be there.
	IgnoreMissing bool

	// Digests to compute besides SHA-256 (crypto.SHA512, crypto.MD5), for
	// whoever would otherwise read the files again.
	Digests []crypto.Hash

	// Parallel is how many files are read at once; if zero, as many as there
	// are processors, but at most 8. Each takes 2 MiB of memory.
	Parallel int
}

func (v *Verifier) now() time.Time {
	if v.Time == nil {
		return time.Now()
	}
	return v.Time()
}

// judge says what the signature is worth, after the pass.
func (v *Verifier) judge(c *candidate, d *digester, purposes []Purpose) Signature {
	sig := c.sig
	s := Signature{SignedAt: sig.CreationTime.UTC(), Hash: sig.Hash, Reason: c.reason, Detail: c.detail}
	if sig.IssuerKeyId == nil {
		return s
	}
	s.KeyID = fmt.Sprintf("%016X", *sig.IssuerKeyId)
	if sig.IssuerFingerprint == nil {
		s.Detail = strings.TrimSpace(s.Detail + " key ID " + s.KeyID)
	}
	if sig.IssuerFingerprint != nil {
		s.Fingerprint = fingerprintOf(sig.IssuerFingerprint)
	}
	refs := v.candidates(sig)
	if len(refs) > 0 {
		s.Fingerprint = refs[0].key.Fingerprint()
		s.Detail = c.detail
	}
	if s.Reason != "" {
		return s
	}
	if len(refs) == 0 {
		s.Reason = UnknownKey
		if pin := v.pinLike(sig); pin != nil {
			s.Reason, s.Fingerprint, s.Detail = NoKeyMaterial, pin.Fingerprint, pin.Comment
			if why := v.Keyring.whyUnusable(pin.Fingerprint); why != "" {
				s.Reason, s.Detail = KeyInvalid, why
			}
		}
		return s
	}
	for _, ref := range refs { // key IDs can collide: the one that verifies made it
		s.Fingerprint = ref.key.Fingerprint()
		s.Reason, s.Detail = BadSignature, ""
		pub := ref.key.publicKey(ref.part)
		if (pub.Version >= 6) != (sig.Version >= 6) {
			continue
		}
		h, err := c.hash(d)
		if err != nil {
			s.Detail = err.Error()
			continue
		}
		if weak := weakness(pub); weak != "" {
			s.Reason, s.Detail = WeakKey, weak
			break
		}
		if verifies(pub, sig, h) {
			v.judgeKey(&s, sig, ref, purposes)
			break
		}
	}
	return s
}

func (v *Verifier) candidates(sig *packet.Signature) []keyRef {
	var refs []keyRef
	for _, ref := range v.Keyring.parts[*sig.IssuerKeyId] {
		if sig.CheckKeyIdOrFingerprint(ref.key.publicKey(ref.part)) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// pinLike finds the pin without material that the signature seems to be from.
func (v *Verifier) pinLike(sig *packet.Signature) *Pin {
	for i := range v.Keyring.pins {
		p := &v.Keyring.pins[i]
		if v.Keyring.keys[p.Fingerprint] != nil {
			continue
		}
		if sig.IssuerFingerprint != nil {
			if p.Fingerprint == fingerprintOf(sig.IssuerFingerprint) {
				return p
			}
			continue
		}
		if len(p.Fingerprint) == 40 && strings.HasSuffix(string(p.Fingerprint), fmt.Sprintf("%016X", *sig.IssuerKeyId)) {
			return p
		}
	}
	return nil
}

// judgeKey applies the policy to a signature that is cryptographically right.
func (v *Verifier) judgeKey(s *Signature, sig *packet.Signature, ref keyRef, purposes []Purpose) {
	now, at := v.now(), sig.CreationTime
	s.Reason, s.Detail = "", ""
	key := ref.key.state().judge(ref.part, at, now)
	pin := v.Keyring.pinOf[s.Fingerprint]
	switch {
	case key.reason == WeakKey:
		s.Reason, s.Detail = key.reason, key.detail
	case at.After(now):
		s.Reason, s.Detail = FromFuture, "made "+day(at)+", now is "+day(now)
	case criticalNotation(sig) != "":
		s.Reason, s.Detail = CriticalNotation, ""
	case key.reason != "":
		s.Reason, s.Detail = key.reason, key.detail
	case signatureExpired(sig, now):
		s.Reason, s.Detail = SignatureExpired, fmt.Sprintf("made %s for %d seconds", day(at), *sig.SigLifetimeSecs)
	case !pin.From.IsZero() && at.Before(pin.From):
		s.Reason, s.Detail = OutsideSpan, "it counts from "+day(pin.From)+", signed "+day(at)
	case !pin.Until.IsZero() && !at.Before(pin.Until):
		s.Reason, s.Detail = OutsideSpan, "it counts until "+day(pin.Until)+", signed "+day(at)
	case !pin.allows(purposes):
		s.Reason, s.Detail = WrongPurpose, fmt.Sprintf("it is for %v", pin.Purposes)
	default:
		s.Notes = key.notes
	}
}

func (p *Pin) allows(purposes []Purpose) bool {
	if len(p.Purposes) == 0 {
		return true
	}
	for _, have := range p.Purposes {
		for _, want := range purposes {
			if have == want {
				return true
			}
		}
	}
	return false
}

// purposesOf says which keys may sign the file.
func purposesOf(name string) []Purpose {
	switch {
	case strings.HasSuffix(name, ".config.tar.gz"):
		return []Purpose{ForConfig}
	case strings.HasSuffix(name, ".qcow2"):
		return []Purpose{ForImage}
	}
	return []Purpose{ForImage, ForConfig}
}

// outcome is the policy over all signatures of a file: the one that decides (a
// good one, or else one by a known key, which says more than an unknown one) and
// whether there are enough. Of a file that is not good its detail tells of all.
func (v *Verifier) outcome(all []Signature) (decides Signature, good bool) {
	if len(all) == 0 {
		return Signature{Reason: NoSignature}, false
	}
	keys := map[Fingerprint]bool{}
	for _, s := range all {
		if s.Reason == "" {
			if len(keys) == 0 {
				decides = s
			}
			keys[s.Fingerprint] = true
		}
	}
	required := max(1, v.Required)
	if len(keys) >= required {
		return decides, true
	}
	i := 0
	if len(keys) == 0 {
		i = max(0, slices.IndexFunc(all, func(s Signature) bool { return s.Reason != UnknownKey }))
		decides = all[i]
	}
	var why []string
	if required > 1 {
		decides.Reason, decides.Detail = TooFewSignatures, ""
		why, i = []string{fmt.Sprintf("%d of %d", len(keys), required)}, -1
	} else if decides.Detail != "" {
		why = []string{decides.Detail}
	}
	for j, s := range all {
		if s.Reason == "" || j == i {
			continue
		}
		key := "key " + cmp.Or(string(s.Fingerprint), s.KeyID, "unknown")
		if s.Reason == decides.Reason {
			why = append(why, "also "+key)
		} else {
			why = append(why, key+": "+string(s.Reason))
		}
	}
	decides.Detail = strings.Join(why, "; ")
	return decides, false
}

// check reads data once and judges the signatures over it. sigFile is a detached
// signature or a cleartext one of the same text.
func (v *Verifier) check(ctx context.Context, name string, data io.Reader, sigFile []byte) File {
	if isCleartext(sigFile) {
		return v.checkCleartext(ctx, name, data, sigFile)
	}
	f := File{FileDigest: FileDigest{Name: name}}
	d := v.digester()
	all, malformed := readSignatures(sigFile)
	for _, c := range all {
		c.prepare(d)
	}
	digest, err := digestOf(ctx, d, name, data)
	if err != nil {
		f.fail(Bad, Unreadable, err.Error())
		return f
	}
	f.FileDigest = digest
	if malformed != nil {
		f.fail(Bad, Malformed, "signature: "+malformed.Error())
		return f
	}
	v.conclude(&f, all, d)
	return f
}

// conclude judges the signatures over what d has read.
func (v *Verifier) conclude(f *File, all []*candidate, d *digester) {
	for _, c := range all {
		f.Signatures = append(f.Signatures, v.judge(c, d, purposesOf(f.Name)))
	}
	decides, good := v.outcome(f.Signatures)
	f.Fingerprint, f.SignedAt = decides.Fingerprint, decides.SignedAt
	if !good {
		f.fail(statusOf(decides.Reason), decides.Reason, decides.Detail)
		return
	}
	f.Status, f.Notes = Good, decides.Notes
}

func (v *Verifier) digester() *digester {
	d := newDigester(crypto.SHA256)
	for _, a := range v.Digests {
		d.use(a)
	}
	return d
}

// Detached judges the signatures over data, which is read once: armored or
// binary ones, or a cleartext signature of the same text. name, the file's name
// without a directory, decides which purpose a key must have. The error is not
// nil if the file is not good: it is then an [Error]. Where ctx is cancelled the
// result is nil.
func (v *Verifier) Detached(ctx context.Context, name string, data, signatures io.Reader) (*Verification, error) {
	if v.Keyring == nil {
		return nil, errors.New("cannot verify: there is no keyring")
	}
	f := File{FileDigest: FileDigest{Name: name}}
	sig, err := readBounded(signatures, maxCleartext)
	if err != nil {
		f.Status, f.Reason, f.Detail = statusAndReason(err)
		f.Detail = "signature: " + f.Detail
		return one(f)
	}
	f = v.check(ctx, name, data, sig)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return one(f)
}

func one(f File) (*Verification, error) {
	result := &Verification{Files: []File{f}}
	return result, result.Err()
}

// File judges the named file by the signature beside it, with .asc, .sig, .gpg or
// .sign after its name, or else by a cleartext signature in the file itself. One
// that is beside it may also be a cleartext signature of the same text.
//
// The error is not nil if the file is not good: it is then an [Error]. Where
// something cannot be read or ctx is cancelled the result is nil.
func (v *Verifier) File(ctx context.Context, path string) (*Verification, error) {
	f, err := v.file(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("cannot verify %s: %w", path, err)
	}
	return one(f)
}

func (v *Verifier) file(ctx context.Context, path string) (File, error) {
	f := File{FileDigest: FileDigest{Name: filepath.Base(path)}}
	if v.Keyring == nil {
		return f, errors.New("there is no keyring")
	}
	data, err := openFile(path)
	if err != nil {
		return f, err
	}
	defer data.Close()
	head := make([]byte, 4096)
	n, _ := data.ReadAt(head, 0) // what is wrong shows in the whole read
	sig, err := signatureFor(path, "", isCleartext(head[:n]))
	switch {
	case errors.Is(err, NoSignature):
		f.fail(Bad, NoSignature, noSignatureBeside)
		return f, nil
	case errors.As(err, new(sizeError)):
		f.fail(Bad, Malformed, "signature: "+err.Error())
		return f, nil
	case err != nil:
		return f, err
	case sig != nil:
		f = v.check(ctx, f.Name, data, sig)
	default:
		whole, err := readBounded(data, maxCleartext)
		if err != nil {
			return f, err
		}
		_, f = v.checkWhole(ctx, f.Name, whole)
	}
	return f, ctx.Err()
}
