package signing

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// maxKeyFile bounds a key file or keyring: 10,000 keys with a few
// certifications each fit.
const maxKeyFile = 64 << 20

// Algorithm is the public key algorithm of a new key.
type Algorithm string

// The algorithms of new keys. Keys that are read may have others: Ed448 and,
// where the key is version 6, whatever go-crypto knows.
const (
	Ed25519   Algorithm = "ed25519" // EdDSA-legacy in version 4, which every gpg since 2.1 reads
	RSA3072   Algorithm = "rsa3072"
	RSA4096   Algorithm = "rsa4096"
	ECDSAP256 Algorithm = "ecdsa-p256"
	ECDSAP384 Algorithm = "ecdsa-p384"
)

// KeyConfig says what key [GenerateKey] makes.
type KeyConfig struct {
	// Name, Comment and Email form the user ID. None may contain one of
	// ()<> or NUL; Name or Email is required.
	Name, Comment, Email string

	// Algorithm of the key; if empty, Ed25519.
	Algorithm Algorithm

	// Lifetime after which the key expires, in whole seconds; if zero, never.
	Lifetime time.Duration

	// V6 makes a version 6 key (RFC 9580), which gpg does not read.
	V6 bool

	// Signer, if not nil, holds the private key (HSM, KMS, agent): the new
	// key is a certificate for it, without secret material. Its public key
	// must be RSA of 2048 bits or more, ECDSA on a NIST curve, or Ed25519.
	// Algorithm is ignored and V6 must be false.
	Signer crypto.Signer

	// Time returns the creation time; if nil, time.Now.
	Time func() time.Time

	// Rand is the source of randomness; if nil, crypto/rand. Since Go 1.26
	// the standard library generates RSA and ECDSA keys from its own
	// source, whatever Rand is.
	Rand io.Reader
}

// Key is an OpenPGP key: a primary key, its user IDs and subkeys and, if it was
// generated or read as a secret key, the secret parts. It is not changed after
// it was made and may be used concurrently.
type Key struct {
	entity *openpgp.Entity
	state  func() *keyState // worked out at first use
}

// GenerateKey makes a new key that signs and certifies with its primary key.
func GenerateKey(c KeyConfig) (*Key, error) {
	if c.Name == "" && c.Email == "" {
		return nil, errors.New("cannot generate a key: it needs a name or an email address")
	}
	cfg := packetConfig(c.Time, c.Rand)
	if c.Lifetime < 0 || c.Lifetime > 0 && c.Lifetime < time.Second || c.Lifetime/time.Second > math.MaxUint32 {
		return nil, fmt.Errorf("cannot generate a key: its lifetime cannot be %s", c.Lifetime)
	}
	cfg.KeyLifetimeSecs = uint32(c.Lifetime / time.Second)
	cfg.V6Keys = c.V6
	if c.Signer != nil {
		return certify(c, cfg)
	}
	switch c.Algorithm {
	case Ed25519, "":
		cfg.Algorithm = packet.PubKeyAlgoEdDSA
		if c.V6 {
			cfg.Algorithm = packet.PubKeyAlgoEd25519
		}
	case RSA3072:
		cfg.Algorithm, cfg.RSABits = packet.PubKeyAlgoRSA, 3072
	case RSA4096:
		cfg.Algorithm, cfg.RSABits = packet.PubKeyAlgoRSA, 4096
	case ECDSAP256:
		cfg.Algorithm, cfg.Curve = packet.PubKeyAlgoECDSA, packet.CurveNistP256
	case ECDSAP384:
		cfg.Algorithm, cfg.Curve = packet.PubKeyAlgoECDSA, packet.CurveNistP384
	default:
		return nil, fmt.Errorf("cannot generate a key: algorithm %q is unknown", c.Algorithm)
	}
	entity, err := openpgp.NewEntity(c.Name, c.Comment, c.Email, cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot generate a key: %w", err)
	}
	entity.Subkeys = nil // the library adds one for encryption, which a signing key does not need
	return newKey(entity), nil
}

func newKey(entity *openpgp.Entity) *Key {
	return &Key{entity: entity, state: sync.OnceValue(func() *keyState { return examine(entity) })}
}

// ReadKeys reads every public or secret key in r, armored or binary. The
// secret parts stay locked where they have a passphrase; [LoadKey] unlocks.
// A key that this package cannot read is an error, not left out. Revocations of
// a key count wherever they are in r, so they may be appended to it.
func ReadKeys(r io.Reader) ([]*Key, error) {
	data, err := readBounded(r, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read keys: %w", err)
	}
	packets, err := dearmorAll(data, openpgp.PublicKeyType, openpgp.PrivateKeyType)
	if err != nil {
		return nil, fmt.Errorf("cannot read keys: %w", err)
	}
	revocations, err := findRevocations(bytes.NewReader(packets))
	if err != nil {
		return nil, fmt.Errorf("cannot read keys: %w", err)
	}
	reader := packet.NewReader(bytes.NewReader(packets))
	var keys []*Key
	for {
		entity, err := openpgp.ReadEntity(reader)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read keys: key %d: %w", len(keys)+1, err)
		}
		entity.Revocations = slices.DeleteFunc(entity.Revocations, func(r *packet.VerifiableSignature) bool {
			return r.Packet.IssuerKeyId != nil // it is among those found
		})
		entity.Revocations = append(entity.Revocations, revocations[entity.PrimaryKey.KeyId]...)
		keys = append(keys, newKey(entity))
	}
	if len(keys) == 0 {
		return nil, errors.New("cannot read keys: there is no OpenPGP key in it")
	}
	return keys, nil
}

// findRevocations returns all key revocations by the key ID that they name. The
// library sees only those that directly follow the key; whether they are
// genuine is found out later.
func findRevocations(packets io.Reader) (map[uint64][]*packet.VerifiableSignature, error) {
	found := map[uint64][]*packet.VerifiableSignature{}
	reader := packet.NewReader(packets)
	for {
		p, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if sig, ok := p.(*packet.Signature); ok && sig.SigType == packet.SigTypeKeyRevocation && sig.IssuerKeyId != nil {
			found[*sig.IssuerKeyId] = append(found[*sig.IssuerKeyId], packet.NewVerifiableSig(sig))
		}
	}
}

// LoadKey reads the one secret key in the named file, armored or binary, and
// unlocks it. passphrase is called once if the key is locked, with a text that
// names the key; if it is nil, a locked key is an error.
func LoadKey(path string, passphrase func(hint string) ([]byte, error)) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot load the secret key: %w", err)
	}
	defer f.Close()
	keys, err := ReadKeys(f)
	if err != nil {
		return nil, fmt.Errorf("cannot load the secret key %s: %w", path, err)
	}
	keys = slices.DeleteFunc(keys, func(k *Key) bool { return k.entity.PrivateKey == nil })
	if len(keys) != 1 {
		return nil, fmt.Errorf("cannot load the secret key %s: the file holds %d secret keys, it must hold one", path, len(keys))
	}
	if err := keys[0].unlock(passphrase); err != nil {
		return nil, fmt.Errorf("cannot load the secret key %s: %w", path, err)
	}
	return keys[0], nil
}

func (k *Key) unlock(passphrase func(hint string) ([]byte, error)) error {
	locked := k.entity.PrivateKey.Encrypted
	for _, sub := range k.entity.Subkeys {
		locked = locked || sub.PrivateKey != nil && sub.PrivateKey.Encrypted
	}
	if !locked {
		return nil
	}
	if passphrase == nil {
		return errors.New("it is locked with a passphrase and none is at hand")
	}
	secret, err := passphrase(fmt.Sprintf("%s %s", k.Fingerprint(), k.UserID()))
	if err != nil {
		return fmt.Errorf("cannot get its passphrase: %w", err)
	}
	defer clear(secret)
	if err := k.entity.DecryptPrivateKeys(secret); err != nil {
		return errors.New("the passphrase does not unlock it")
	}
	return nil
}

// Fingerprint of the primary key.
func (k *Key) Fingerprint() Fingerprint { return fingerprintOf(k.entity.PrimaryKey.Fingerprint) }

// publicKey returns a part: 0 is the primary key, then come the subkeys.
func (k *Key) publicKey(part int) *packet.PublicKey {
	if part == 0 {
		return k.entity.PrimaryKey
	}
	return k.entity.Subkeys[part-1].PublicKey
}

func (k *Key) countParts() int { return 1 + len(k.entity.Subkeys) }

// UserID is the first user ID in alphabetical order, or empty.
func (k *Key) UserID() string {
	var ids []string
	for id := range k.entity.Identities {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return ""
	}
	return slices.Min(ids)
}

// WritePublic writes the armored public key.
func (k *Key) WritePublic(w io.Writer) error {
	return writeArmored(w, openpgp.PublicKeyType, k.entity.Serialize)
}

// WriteSecret writes the armored secret key without a passphrase. It is the
// caller's to keep it from others: [Key.WriteSecretFile] does.
func (k *Key) WriteSecret(w io.Writer) error {
	if k.entity.PrivateKey == nil {
		return errors.New("cannot write the secret key: this key has no secret part")
	}
	return writeArmored(w, openpgp.PrivateKeyType, func(w io.Writer) error {
		return k.entity.SerializePrivateWithoutSigning(w, nil)
	})
}

// WriteSecretFile writes the armored secret key to a new file with mode 0600.
// A file that exists is never overwritten: the error is then os.ErrExist.
func (k *Key) WriteSecretFile(path string) error {
	if err := writeNewFile(path, 0o600, k.WriteSecret); err != nil {
		return fmt.Errorf("cannot write the secret key: %w", err)
	}
	return nil
}

// WritePublicFile writes the armored public key to a new file with mode 0644.
// A file that exists is never overwritten: the error is then os.ErrExist.
func (k *Key) WritePublicFile(path string) error {
	if err := writeNewFile(path, 0o644, k.WritePublic); err != nil {
		return fmt.Errorf("cannot write the public key: %w", err)
	}
	return nil
}

// dearmorAll returns the packets of data: data itself where it is binary, and
// else the contents of all its armor blocks, which must be of the given types.
func dearmorAll(data []byte, types ...string) ([]byte, error) {
	if len(data) > 0 && data[0]&0x80 != 0 {
		return data, nil
	}
	var packets bytes.Buffer
	for rest := data; ; {
		start := bytes.Index(rest, []byte("-----BEGIN PGP "))
		if start < 0 {
			break
		}
		rest = rest[start:]
		end := bytes.Index(rest, []byte("\n-----END PGP "))
		if end < 0 {
			return nil, errors.New("the armor has no end line")
		}
		stop := len(rest)
		if nl := bytes.IndexByte(rest[end+1:], '\n'); nl >= 0 {
			stop = end + 1 + nl + 1
		}
		block, err := armor.Decode(bytes.NewReader(rest[:stop]))
		if err != nil {
			return nil, fmt.Errorf("cannot decode the armor: %w", err)
		}
		if !slices.Contains(types, block.Type) {
			return nil, fmt.Errorf("the armor holds a %q, not a %q", block.Type, types[0])
		}
		if _, err := packets.ReadFrom(block.Body); err != nil {
			return nil, fmt.Errorf("cannot decode the armor: %w", err)
		}
		rest = rest[stop:]
	}
	if packets.Len() == 0 {
		return nil, errors.New("it is neither binary nor armored OpenPGP data")
	}
	return packets.Bytes(), nil
}

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("it is larger than %d bytes", limit)
	}
	return data, nil
}

func packetConfig(now func() time.Time, rand io.Reader) *packet.Config {
	return &packet.Config{Time: now, Rand: rand}
}
