package signing

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the fingerprint of version 4 keys
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const (
	maxKeys     = 100_000 // in one file
	maxUnusable = 1000
)

// The packets that keys are made of (RFC 9580, section 5).
const (
	tagSignature    = 2
	tagSecretKey    = 5
	tagPublicKey    = 6
	tagSecretSubkey = 7
	tagUserID       = 13
	tagPublicSubkey = 14
)

// material is what a file holds of keys. Copies of a key are merged: what any of
// them says counts.
type material struct {
	keys     []*keyParts
	byFpr    map[Fingerprint]*keyParts
	unusable []*Error

	revocations []revocation
	current     *keyParts  // the key that is being read, or nil
	again       bool       // it was there before
	part        *component // and its part, or nil
}

// revocation of a whole key, wherever it was found.
type revocation struct {
	issuer uint64
	packet []byte
}

// keyParts are the packets of one key.
type keyParts struct {
	fpr   Fingerprint
	id    uint64
	parts []*component // the primary key first
	index map[string]*component
	bad   *Error
}

// component is a key, subkey or user ID and the signatures on it.
type component struct {
	public, secret []byte // one of them, or both where the file holds both forms of the key
	sigs           [][]byte
	seen           map[string]bool
}

// head is the form that is wanted, or the only one.
func (c *component) head(public bool) []byte {
	if c.secret == nil || public && c.public != nil {
		return c.public
	}
	return c.secret
}

func (c *component) add(sig []byte) {
	if !c.seen[string(sig)] {
		c.seen[string(sig)] = true
		c.sigs = append(c.sigs, sig)
	}
}

// part finds or adds a component.
func (k *keyParts) part(name string, head []byte, secret bool) *component {
	c := k.index[name]
	if c == nil {
		c = &component{seen: map[string]bool{}}
		k.index[name] = c
		k.parts = append(k.parts, c)
	}
	if secret {
		c.secret = head
	} else {
		c.public = head
	}
	return c
}

// readMaterial reads armor blocks, with text between them that is for people, and
// binary keys at the beginning or just after a block.
func readMaterial(data []byte) (*material, error) {
	m := &material{byFpr: map[Fingerprint]*keyParts{}}
	binaryMayBegin := true
	for rest := trimBOM(data); len(rest) > 0; {
		line, after := cutLine(rest)
		kind := armorKind(line)
		switch {
		case kind != "":
			block, next, err := decodeBlock(after, kind, false)
			switch {
			case err != nil:
				m.refuse(&Error{Reason: Malformed, Detail: err.Error()})
				next = after
			case kind != openpgp.PublicKeyType && kind != openpgp.PrivateKeyType:
				m.refuse(&Error{Reason: Malformed, Detail: "it is " + describe([]byte(line)) + ", not an OpenPGP key"})
			default:
				m.read(block)
			}
			rest, binaryMayBegin = next, err == nil
		case binaryMayBegin && rest[0]&0x80 != 0 && !textBeforeArmor(rest):
			rest, binaryMayBegin = m.read(rest), false
		default:
			rest, binaryMayBegin = after, false
		}
		m.endKey()
		if len(m.keys) > maxKeys || len(m.unusable) > maxUnusable {
			return nil, fmt.Errorf("it holds more than %d keys, or more than %d that cannot be used", maxKeys, maxUnusable)
		}
	}
	return m, nil
}

// textBeforeArmor says whether what stands before the next block is text, which
// may begin with a byte that a packet could begin with, too.
func textBeforeArmor(data []byte) bool {
	if i := bytes.Index(data, []byte("-----BEGIN PGP ")); i >= 0 {
		data = data[:i]
	}
	return utf8.Valid(data) && bytes.IndexByte(data, 0) < 0
}

func armorKind(line string) string {
	for _, kind := range []string{openpgp.PublicKeyType, openpgp.PrivateKeyType, openpgp.SignatureType, "PGP MESSAGE", "PGP SIGNED MESSAGE"} {
		if line == armorBegin(kind) {
			return kind
		}
	}
	return ""
}

func (m *material) refuse(e *Error) { m.unusable = append(m.unusable, e) }

func (m *material) endKey() { m.current, m.part = nil, nil }

// read reads packets and returns what is left where something else begins, which
// may be armor: anything else says that a packet before it is damaged.
func (m *material) read(data []byte) []byte {
	r := bytes.NewReader(data)
	opaque := packet.NewOpaqueReader(r)
	for r.Len() > 0 && len(m.keys) <= maxKeys && len(m.unusable) <= maxUnusable {
		rest := data[len(data)-r.Len():]
		if rest[0]&0x80 == 0 {
			if text := trimBlank(rest); len(text) > 0 && !bytes.HasPrefix(text, []byte("-----BEGIN PGP ")) {
				m.cut(true)
			}
			return rest
		}
		p, err := opaque.Next()
		if err != nil {
			m.cut(partOfKey(rest[0]))
			return nil
		}
		m.packet(p)
	}
	return nil
}

// partOfKey says whether the packet with the given first byte belongs to the
// primary key before it.
func partOfKey(first byte) bool {
	tag := first >> 2 & 0xf
	if first&0x40 != 0 { // RFC 9580, section 4.2
		tag = first & 0x3f
	}
	return tag == tagSignature || tag == tagUserID || tag == tagPublicSubkey || tag == tagSecretSubkey
}

// cut says that nothing more can be read. If what cannot be is part of the key
// that is being read, that is incomplete: what is missing may be its revocation.
func (m *material) cut(mine bool) {
	e := &Error{Reason: Malformed, Detail: "it is damaged or cut short"}
	if m.current != nil && mine {
		e.Fingerprint = m.current.fpr
		if !m.again { // else the other copy is complete
			m.current.bad = e
		}
	}
	m.refuse(e)
}

func (m *material) packet(p *packet.OpaquePacket) {
	var whole bytes.Buffer
	if err := p.Serialize(&whole); err != nil {
		return // which a buffer does not
	}
	raw := whole.Bytes()
	switch p.Tag {
	case tagPublicKey, tagSecretKey:
		m.startKey(p, raw)
	case tagPublicSubkey, tagSecretSubkey:
		m.part = nil
		if fpr, _, err := identify(raw); err == nil && m.current != nil {
			m.part = m.current.part("subkey "+string(fpr), raw, p.Tag == tagSecretSubkey)
		}
	case tagUserID:
		m.part = nil
		if m.current != nil {
			m.part = m.current.part("user "+string(p.Contents), raw, false)
		}
	case tagSignature:
		m.signature(p, raw)
	default: // user attributes (photographs), trust, markers, padding
		m.part = nil
	}
}

func (m *material) startKey(p *packet.OpaquePacket, raw []byte) {
	m.endKey()
	fpr, id, err := identify(raw)
	if err != nil {
		m.refuse(&Error{Fingerprint: rawFingerprint(p), Reason: Unsupported, Detail: err.Error()})
		return
	}
	k := m.byFpr[fpr]
	m.again = k != nil
	if k == nil {
		k = &keyParts{fpr: fpr, id: id, index: map[string]*component{}}
		m.byFpr[fpr] = k
		m.keys = append(m.keys, k)
	}
	m.current, m.part = k, k.part("", raw, p.Tag == tagSecretKey)
}

// signature puts a signature where it belongs. Those of other people's keys say
// nothing that counts here.
func (m *material) signature(p *packet.OpaquePacket, raw []byte) {
	sig, err := parseSignature(raw)
	if err != nil {
		if m.current != nil && mayRevoke(p.Contents, m.current.id) {
			m.current.bad = &Error{Fingerprint: m.current.fpr, Reason: KeyInvalid, Detail: "a revocation of it cannot be read"}
		}
		return
	}
	if sig.SigType == packet.SigTypeKeyRevocation {
		switch {
		case sig.IssuerKeyId != nil:
			m.revocations = append(m.revocations, revocation{issuer: *sig.IssuerKeyId, packet: raw})
		case m.current != nil:
			m.current.parts[0].add(raw)
		}
		return
	}
	if m.part != nil && (sig.IssuerKeyId == nil || *sig.IssuerKeyId == m.current.id) {
		m.part.add(raw)
	}
}

func parseSignature(raw []byte) (*packet.Signature, error) {
	p, err := packet.NewReader(bytes.NewReader(raw)).Next()
	if err != nil {
		return nil, err
	}
	sig, ok := p.(*packet.Signature)
	if !ok {
		return nil, errors.New("it is no signature")
	}
	return sig, nil
}

// mayRevoke says whether a signature that cannot be read could be the owner's
// revocation of the key or a subkey.
func mayRevoke(body []byte, id uint64) bool {
	const keyRevocation, subkeyRevocation = 0x20, 0x28
	revokes := func(typ byte) bool { return typ == keyRevocation || typ == subkeyRevocation }
	if len(body) >= 15 && body[0] <= 3 { // RFC 9580, section 5.2.2
		return revokes(body[2]) && binary.BigEndian.Uint64(body[7:]) == id
	}
	return len(body) >= 2 && body[0] > 3 && revokes(body[1])
}

// identify parses a key packet.
func identify(raw []byte) (Fingerprint, uint64, error) {
	p, err := packet.NewReader(bytes.NewReader(raw)).NextWithUnsupported()
	if err != nil {
		return "", 0, errors.New("its version is not 4 or 6, or it is damaged")
	}
	var pub *packet.PublicKey
	switch key := p.(type) {
	case *packet.PublicKey:
		pub = key
	case *packet.PrivateKey:
		pub = &key.PublicKey
	default:
		return "", 0, errors.New("its algorithm, curve or version is not known")
	}
	if len(pub.Fingerprint) == 0 {
		return "", 0, errors.New("its version is not 4 or 6")
	}
	return fingerprintOf(pub.Fingerprint), pub.KeyId, nil
}

// rawFingerprint is that of a key packet that cannot be parsed, or empty.
func rawFingerprint(p *packet.OpaquePacket) Fingerprint {
	n := len(p.Contents)
	if p.Tag != tagPublicKey || n == 0 || n > 0xffff {
		return ""
	}
	switch p.Contents[0] { // RFC 9580, section 5.5.4
	case 4:
		sum := sha1.Sum(append([]byte{0x99, byte(n >> 8), byte(n)}, p.Contents...)) //nolint:gosec // as above
		return fingerprintOf(sum[:])
	case 6:
		sum := sha256.Sum256(append([]byte{0x9b, 0, 0, byte(n >> 8), byte(n)}, p.Contents...))
		return fingerprintOf(sum[:])
	}
	return ""
}

// results returns the keys, with their revocations, and gives every key that
// cannot be used its reason. With public, a key of which there are both forms is
// the public one.
func (m *material) results(public bool) []*Key {
	byID := map[uint64][][]byte{}
	for _, r := range m.revocations {
		byID[r.issuer] = append(byID[r.issuer], r.packet)
	}
	var keys []*Key
	for _, k := range m.keys {
		for _, r := range byID[k.id] {
			k.parts[0].add(r)
		}
		keys = append(keys, k.key(public))
	}
	for _, e := range m.unusable {
		if k := m.byFpr[e.Fingerprint]; k == nil || k.bad != e {
			keys = append(keys, &Key{fpr: e.Fingerprint, bad: e})
		}
	}
	return keys
}

func (k *keyParts) key(public bool) *Key {
	if k.bad != nil {
		return &Key{fpr: k.fpr, bad: k.bad}
	}
	var packets bytes.Buffer
	for _, c := range k.parts {
		packets.Write(c.head(public))
		for _, sig := range c.sigs {
			packets.Write(sig)
		}
	}
	entity, err := openpgp.ReadEntity(packet.NewReader(&packets))
	if err != nil {
		return &Key{fpr: k.fpr, bad: &Error{Fingerprint: k.fpr, Reason: KeyInvalid, Detail: err.Error()}}
	}
	return newKey(entity)
}

// merge returns a key with what both copies say.
func merge(a, b *Key) (*Key, error) {
	var packets bytes.Buffer
	for _, key := range []*Key{a, b} {
		if err := key.entity.Serialize(&packets); err != nil {
			return nil, err
		}
	}
	keys, err := ReadKeys(&packets)
	if err != nil {
		return nil, err
	}
	return keys[0], nil
}
