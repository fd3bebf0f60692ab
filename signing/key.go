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
	"strings"
	"sync"
	"time"

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
	fpr    Fingerprint
	entity *openpgp.Entity  // nil if it cannot be used
	state  func() *keyState // worked out at first use
	bad    *Error           // why it cannot be used
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
	return &Key{
		fpr: fingerprintOf(entity.PrimaryKey.Fingerprint), entity: entity,
		state: sync.OnceValue(func() *keyState { return examine(entity) }),
	}
}

// ReadKeys reads the public and secret keys in r: binary, or in armor blocks
// with blank lines and text between them, which says nothing. Copies of a key are
// merged: it has the self-signatures and revocations of all of them, and is
// secret if one is. Revocations of a key count wherever they are in r, so they
// may be appended to it. The secret parts stay locked where they have a
// passphrase; [LoadKey] unlocks.
//
// A key that cannot be read (of version 3, of an unknown algorithm, damaged) is
// among those returned, but serves for nothing: [Key.Err] says why. It is an
// error if there is no other.
func ReadKeys(r io.Reader) ([]*Key, error) {
	data, err := readBounded(r, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read keys: %w", err)
	}
	keys, err := readKeys(data, false)
	if err != nil {
		return nil, fmt.Errorf("cannot read keys: %w", err)
	}
	return keys, nil
}

func readKeys(data []byte, public bool) ([]*Key, error) {
	keys, err := parseKeys(data, public)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(keys, func(k *Key) bool { return k.bad == nil }) {
		return nil, fmt.Errorf("none of the keys in it (%d) can be used: %w", len(keys), keys[0].bad)
	}
	return keys, nil
}

// parseKeys returns at least one key, but perhaps none that can be used: with
// public the public form of each where there is one, else the secret one.
func parseKeys(data []byte, public bool) ([]*Key, error) {
	if isUTF16(data) {
		return nil, errors.New("it is " + describe(data))
	}
	m, err := readMaterial(data)
	if err != nil {
		return nil, err
	}
	keys := m.results(public)
	read := slices.ContainsFunc(keys, func(k *Key) bool { return k.fpr != "" })
	if what := describe(data); len(keys) == 0 || !read && !strings.Contains(what, "OpenPGP") && !strings.HasPrefix(what, "other ") {
		return nil, errors.New("it is " + what + " and holds no OpenPGP key")
	}
	return keys, nil
}

// LoadKey reads the one secret key in the named file, armored or binary, and
// unlocks it. passphrase is called once if the key is locked, with a text that
// names the key; if it is nil, a locked key is an error.
func LoadKey(path string, passphrase func(hint string) ([]byte, error)) (*Key, error) {
	f, err := os.Open(path) //nolint:gosec // the path is the caller's
	if err != nil {
		return nil, fmt.Errorf("cannot load the secret key: %w", err)
	}
	defer f.Close()
	keys, err := ReadKeys(f)
	if err != nil {
		return nil, fmt.Errorf("cannot load the secret key %s: %w", path, err)
	}
	keys = slices.DeleteFunc(keys, func(k *Key) bool { return !k.secret() })
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
	secret, err := passphrase(fmt.Sprintf("%s %s", k.Fingerprint(), printable(k.UserID())))
	if err != nil {
		return fmt.Errorf("cannot get its passphrase: %w", err)
	}
	defer clear(secret)
	if err := k.entity.DecryptPrivateKeys(secret); err != nil {
		return errors.New("the passphrase does not unlock it")
	}
	return nil
}

// Fingerprint of the primary key; empty if the key could not be read so far.
func (k *Key) Fingerprint() Fingerprint {
	if k == nil {
		return ""
	}
	return k.fpr
}

// Err returns nil, or why the key could not be read and serves for nothing: an
// [Error].
func (k *Key) Err() error {
	switch {
	case k == nil || k.entity == nil && k.bad == nil:
		return &Error{Reason: KeyInvalid, Detail: "there is no key"}
	case k.bad != nil:
		return k.bad
	}
	return nil
}

// SignsAt returns nil if some part of the key may sign at the given time, else an
// [Error] that says why the primary key may not: it has expired, was revoked, …
func (k *Key) SignsAt(at time.Time) error {
	if err := k.Err(); err != nil {
		return err
	}
	state := k.state()
	var first verdict
	for i := range k.countParts() {
		v := state.judge(i, at, at)
		if v.reason == "" {
			return nil
		}
		if i == 0 {
			first = v
		}
	}
	return &Error{Fingerprint: k.fpr, Reason: first.reason, Detail: first.detail}
}

func (k *Key) secret() bool { return k.Err() == nil && k.entity.PrivateKey != nil }

// publicKey returns a part: 0 is the primary key, then come the subkeys.
func (k *Key) publicKey(part int) *packet.PublicKey {
	if part == 0 {
		return k.entity.PrimaryKey
	}
	return k.entity.Subkeys[part-1].PublicKey
}

func (k *Key) countParts() int {
	if k.Err() != nil {
		return 0
	}
	return 1 + len(k.entity.Subkeys)
}

// UserID is the first user ID in alphabetical order, or empty.
func (k *Key) UserID() string {
	if k.Err() != nil {
		return ""
	}
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
	if err := k.Err(); err != nil {
		return fmt.Errorf("cannot write the public key: %w", err)
	}
	return writeArmored(w, openpgp.PublicKeyType, k.entity.Serialize)
}

// WriteSecret writes the armored secret key without a passphrase. It is the
// caller's to keep it from others: [Key.WriteSecretFile] does.
func (k *Key) WriteSecret(w io.Writer) error {
	if !k.secret() {
		return errors.New("cannot write the secret key: this key has no secret part")
	}
	return writeArmored(w, openpgp.PrivateKeyType, func(w io.Writer) error {
		return k.entity.SerializePrivateWithoutSigning(w, nil)
	})
}

// WriteSecretFile writes the armored secret key to a new file with mode 0600,
// which is complete when it gets its name. A file that exists is never
// overwritten: the error is then os.ErrExist.
func (k *Key) WriteSecretFile(path string) error {
	if err := k.writeFile(path, 0o600, k.WriteSecret); err != nil {
		return fmt.Errorf("cannot write the secret key: %w", err)
	}
	return nil
}

// WritePublicFile writes the armored public key to a new file with mode 0644,
// which is complete when it gets its name. A file that exists is never
// overwritten: the error is then os.ErrExist.
func (k *Key) WritePublicFile(path string) error {
	if err := k.writeFile(path, 0o644, k.WritePublic); err != nil {
		return fmt.Errorf("cannot write the public key: %w", err)
	}
	return nil
}

// writeFile writes what is read back as the same key.
func (k *Key) writeFile(path string, mode os.FileMode, write func(io.Writer) error) error {
	var armored bytes.Buffer
	if err := write(&armored); err != nil {
		return err
	}
	keys, err := readKeys(armored.Bytes(), false)
	if err != nil {
		return err
	}
	if len(keys) != 1 || keys[0].fpr != k.fpr {
		return errors.New("what would be written does not read back as the key")
	}
	return writeNewFile(path, mode, armored.Bytes())
}

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, sizeError(limit)
	}
	return data, nil
}

// sizeError is what readBounded returns for more than so many bytes.
type sizeError int64

func (e sizeError) Error() string { return fmt.Sprintf("it is larger than %d bytes", int64(e)) }

func packetConfig(now func() time.Time, rand io.Reader) *packet.Config {
	return &packet.Config{Time: now, Rand: rand}
}
