package signing_test

import (
	"bytes"
	"crypto"
	"crypto/dsa" //nolint:staticcheck // a key that nobody should have any more
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// serialized returns the key in both forms.
func (c *crafted) serialized() (binary, armored string) {
	c.t.Helper()
	var b, a bytes.Buffer
	require.NoError(c.t, c.entity.Serialize(&b))
	require.NoError(c.t, c.key().WritePublic(&a))
	return b.String(), a.String()
}

func writeFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// opaque makes a packet of any content.
func opaque(t testing.TB, tag uint8, content []byte) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, (&packet.OpaquePacket{Tag: tag, Contents: content}).Serialize(&b))
	return b.String()
}

// unusable are keys that nobody can use, as binary packets.
func unusable(t testing.TB) map[string]string {
	t.Helper()
	v3 := append([]byte{3, 0x30, 0, 0, 0, 0, 0, 1, 4, 0}, make([]byte, 128)...)
	unknown := []byte{4, 0x50, 0, 0, 0, 99, 1, 2, 3, 4}
	user := opaque(t, 13, []byte("Old <old@example.com>"))
	whole, _ := craft(t, nil).serialized()
	return map[string]string{
		"version 3":         opaque(t, 6, v3) + user,
		"version 9":         opaque(t, 6, append([]byte{9}, unknown[1:]...)) + user,
		"unknown algorithm": opaque(t, 6, unknown) + user,
		"empty packet":      opaque(t, 6, nil) + user,
		"no user ID":        whole[:strings.Index(whole, "Crafted")-2],
		"encryption only":   opaque(t, 6, append([]byte{4, 0x50, 0, 0, 0, 16, 0, 1, 1, 0, 1, 1, 0, 1, 1}, 0)) + user,
	}
}

// TestUnusableKeysDoNoHarm: a keyring with a key that nobody can use, before or
// after the one that is needed, serves for the other one and tells of it.
func TestUnusableKeysDoNoHarm(t *testing.T) {
	c := craft(t, nil)
	good, armored := c.serialized()
	sig := c.sign(data, at, nil)
	for name, bad := range unusable(t) {
		armoredBad, err := signing.Armor([]byte(bad))
		require.NoError(t, err)
		badBlock := strings.ReplaceAll(string(armoredBad), "PGP SIGNATURE", "PGP PUBLIC KEY BLOCK")
		for form, ring := range map[string]string{
			"before": bad + good, "after": good + bad, "armored before": badBlock + armored, "armored after": armored + badBlock,
			"both forms": good + badBlock, "twice": bad + bad + good,
		} {
			t.Run(name+"/"+form, func(t *testing.T) {
				k, err := signing.LoadKeyring(writeFile(t, "ring", ring))
				require.NoError(t, err)
				_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
				require.NoError(t, err)
				require.Len(t, k.Pins(), 1)
				require.NotEmpty(t, k.Skipped())
				var e *signing.Error
				require.ErrorAs(t, k.Skipped()[0], &e)
				require.NotEmpty(t, e.Detail)
				if name == "unknown algorithm" {
					require.Len(t, e.Fingerprint, 40)
				}
			})
		}
		_, err = signing.LoadKeyring(writeFile(t, "ring", bad))
		require.ErrorContains(t, err, "can be used", name)
	}
}

// TestDamagedParts: damage in a keyring costs the key that it is in.
func TestDamagedParts(t *testing.T) {
	c, other := craft(t, nil), craft(t, nil)
	good, armored := c.serialized()
	cut, cutArmored := other.serialized()
	sig := c.sign(data, at, nil)
	for name, ring := range map[string]string{
		"cut at the end":       good + cut[:len(cut)-10],
		"junk at the end":      good + "\xff\xff\xff\xff\xff\xff\xff",
		"armor cut":            armored + cutArmored[:len(cutArmored)/2],
		"armor cut before":     cutArmored[:len(cutArmored)/2] + "\n" + armored,
		"armor damaged":        strings.Replace(cutArmored, "\n\n", "\n\n!!!!\n", 1) + armored,
		"a signature block":    string(must(signing.Armor(sig))) + armored,
		"a message block":      "-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n" + armored,
		"copy cut":             good + good[:len(good)-10],
		"user attribute":       good + opaque(t, 17, []byte{3, 1, 2}),
		"trust and marker":     good + opaque(t, 12, []byte{1, 2}) + opaque(t, 10, []byte("PGP")),
		"unreadable signature": good + opaque(t, 2, []byte{4, 0x13, 99, 99, 0, 0, 0, 0, 0, 0}),
		"version 3 signature":  good + opaque(t, 2, append([]byte{3, 5, 0x10}, make([]byte, 20)...)),
	} {
		t.Run(name, func(t *testing.T) {
			k, err := signing.LoadKeyring(writeFile(t, "ring", ring))
			require.NoError(t, err)
			_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
			require.NoError(t, err)
			require.Nil(t, k.Key(other.key().Fingerprint()))
		})
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestUnreadableRevocation: a key is not used where its revocation may have been
// lost.
func TestUnreadableRevocation(t *testing.T) {
	c := craft(t, nil)
	good, _ := c.serialized()
	for name, ring := range map[string]string{
		"out of step":  good + "\x00\x00\x00" + good[:40],
		"unknown hash": good + opaque(t, 2, []byte{4, 0x20, 22, 99, 0, 0, 0, 0, 0, 0}),
		"cut":          good[:len(good)-10],
	} {
		_, err := signing.LoadKeyring(writeFile(t, "ring", ring))
		require.ErrorContains(t, err, string(c.key().Fingerprint()), name)
	}
}

// TestCopiesAreMerged: of several copies of a key everything counts.
func TestCopiesAreMerged(t *testing.T) {
	c := craft(t, func(c *packet.Config) { c.KeyLifetimeSecs = *lifetime(year) }) // it expired a year before
	short, shortArmored := c.serialized()
	sig := c.sign(data, at, nil)
	c.restate(at.Add(-month), func(s *packet.Signature) { s.KeyLifetimeSecs = lifetime(10 * year) })
	long, longArmored := c.serialized()
	c.revoke(packet.KeySuperseded, at.Add(-month))
	revoked, revokedArmored := c.serialized()
	fpr := string(c.key().Fingerprint())

	for name, r := range map[string]struct {
		ring string
		want signing.Reason
	}{
		"short":             {short, signing.KeyExpired},
		"twice":             {short + short, signing.KeyExpired},
		"two forms":         {short + shortArmored, signing.KeyExpired},
		"older first":       {short + long, ""},
		"older last":        {long + short, ""},
		"mixed forms":       {shortArmored + "\n" + longArmored, ""},
		"armored, binary":   {longArmored + short, ""},
		"revoked first":     {revoked + short + long, signing.KeyRevoked},
		"revoked last":      {long + revokedArmored, signing.KeyRevoked},
		"revoked in middle": {longArmored + revokedArmored + shortArmored, signing.KeyRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := signing.LoadKeyring(writeFile(t, "ring", r.ring))
			require.NoError(t, err)
			require.Len(t, k.Pins(), 1)
			require.Empty(t, k.Skipped())
			_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
			require.ErrorIs(t, err, errorOf(r.want))
		})
	}

	// In several files of a YAML keyring, or several values, it is the same.
	readKey := func(s string) *signing.Key {
		keys, err := signing.ReadKeys(strings.NewReader(s))
		require.NoError(t, err)
		return keys[0]
	}
	for want, copies := range map[signing.Reason][]*signing.Key{
		"":                    {readKey(short), readKey(long)},
		signing.KeyRevoked:    {readKey(long), readKey(revoked), readKey(short)},
		signing.NoKeyMaterial: {craft(t, nil).key()},
	} {
		k, err := signing.NewKeyring([]signing.Pin{{Fingerprint: signing.Fingerprint(fpr)}}, copies...)
		require.NoError(t, err)
		_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
		require.ErrorIs(t, err, errorOf(want))
		require.Len(t, k.Skipped(), len(want)/len(signing.NoKeyMaterial))
	}
}

// TestCopiesWithSubkeys: the newer copy brings the subkey, the older one the
// user ID.
func TestCopiesWithSubkeys(t *testing.T) {
	c := craft(t, nil)
	older, _ := c.serialized()
	c.addSubkey(nil)
	newer, _ := c.serialized()
	sig := c.sign(data, at, nil)
	for _, ring := range []string{older + newer, newer + older, newer + newer} {
		k, err := signing.LoadKeyring(writeFile(t, "ring", ring))
		require.NoError(t, err)
		_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
		require.NoError(t, err)
	}
}

// TestYAMLTakesWhatItPins: the file may hold anything besides.
func TestYAMLTakesWhatItPins(t *testing.T) {
	c := craft(t, nil)
	good, _ := c.serialized()
	sig := c.sign(data, at, nil)
	for name, bad := range unusable(t) {
		ring := writeFile(t, "ring.gpg", bad+good+good)
		list := writeFile(t, "keyring.yaml", "# ours\nkeys:\n- fingerprint: "+string(c.key().Fingerprint())+"\n  file: "+ring+"\n")
		k, err := signing.LoadKeyring(list)
		require.NoError(t, err, name)
		require.Empty(t, k.Skipped())
		_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
		require.NoError(t, err, name)
	}

	// A pinned key that cannot be used is said to be so where it signed.
	lost := craft(t, nil)
	cut, _ := lost.serialized()
	ring := writeFile(t, "ring.gpg", good+cut[:len(cut)-10])
	pins := "keys:\n- {fingerprint: " + string(c.key().Fingerprint()) + ", file: " + ring + "}\n- {fingerprint: " +
		string(lost.key().Fingerprint()) + ", file: " + ring + "}\n"
	k, err := signing.LoadKeyring(writeFile(t, "keyring.yaml", pins))
	require.NoError(t, err)
	require.Len(t, k.Skipped(), 1)
	_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
	require.NoError(t, err)
	_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(lost.sign(data, at, nil)))
	require.ErrorIs(t, err, signing.KeyInvalid)
	require.ErrorContains(t, err, "cut short")
}

// TestWeakKeysInAKeyring: they are kept, so that what they signed is told.
func TestWeakKeysInAKeyring(t *testing.T) {
	weakRSA := craft(t, func(c *packet.Config) { c.Algorithm, c.RSABits = packet.PubKeyAlgoRSA, 1024 })
	c := craft(t, nil)
	good, _ := c.serialized()
	bad, _ := weakRSA.serialized()
	k, err := signing.LoadKeyring(writeFile(t, "ring", bad+good+dsaKey(t)))
	require.NoError(t, err)
	_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(c.sign(data, at, nil)))
	require.NoError(t, err)
	_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(weakRSA.sign(data, at, nil)))
	require.ErrorIs(t, err, signing.WeakKey)
}

func dsaKey(t *testing.T) string {
	t.Helper()
	var key dsa.PrivateKey
	require.NoError(t, dsa.GenerateParameters(&key.Parameters, rand.Reader, dsa.L1024N160))
	require.NoError(t, dsa.GenerateKey(&key, rand.Reader))
	pub := packet.NewDSAPublicKey(at.Add(-year), &key.PublicKey)
	priv := packet.NewDSAPrivateKey(at.Add(-year), &key)
	id := packet.NewUserId("Old", "", "old@example.com")
	sig := &packet.Signature{
		Version: 4, SigType: packet.SigTypePositiveCert, PubKeyAlgo: packet.PubKeyAlgoDSA, Hash: crypto.SHA256,
		CreationTime: at.Add(-year), IssuerKeyId: &pub.KeyId, FlagsValid: true, FlagSign: true,
	}
	require.NoError(t, sig.SignUserId(id.Id, pub, priv, nil))
	e := &openpgp.Entity{PrimaryKey: pub, Identities: map[string]*openpgp.Identity{id.Id: {
		Name: id.Id, UserId: id, SelfCertifications: []*packet.VerifiableSignature{packet.NewVerifiableSig(sig)},
	}}}
	var b bytes.Buffer
	require.NoError(t, e.Serialize(&b))
	return b.String()
}

// TestKeyringsAsTheyAreWritten: text, blank lines and line ends around the blocks
// say nothing.
func TestKeyringsAsTheyAreWritten(t *testing.T) {
	c := craft(t, nil)
	_, armored := c.serialized()
	_, second := craft(t, nil).serialized()
	sig := c.sign(data, at, nil)
	for name, ring := range map[string]string{
		"blank lines":        "\n\n" + armored + "\n\n\n" + second + "\n\n",
		"no last line end":   strings.TrimSuffix(second+armored, "\n"),
		"no line end":        strings.TrimSuffix(second, "\n") + armored,
		"CR LF":              strings.ReplaceAll(second+armored, "\n", "\r\n"),
		"text between":       "pub ed25519 2022-03-02\nuid Crafted: é\n" + second + "# and ours:\n" + armored + "that is all\n",
		"byte order mark":    "\xef\xbb\xbf" + second + armored,
		"white space at end": strings.ReplaceAll(second+armored, "\n", "  \n"),
		"headers":            strings.ReplaceAll(second+armored, "BLOCK-----\n\n", "BLOCK-----\nVersion: 1\nComment: x\n\n"),
		"blank line inside":  second + strings.Replace(armored, "=\n", "=\n\n", 1),
		"no checksum":        second + withoutChecksum(armored),
		"text like packets":  "Žádný klíč\nƆ © 2024\n" + second + "\nŽ\n" + armored,
		"the word keys":      "keys of the factory:\n" + second + armored,
	} {
		t.Run(name, func(t *testing.T) {
			k, err := signing.LoadKeyring(writeFile(t, "ring", ring))
			require.NoError(t, err)
			require.Len(t, k.Pins(), 2)
			require.Empty(t, k.Skipped())
			_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
			require.NoError(t, err)
		})
	}
}

func withoutChecksum(armored string) string {
	var kept []string
	for line := range strings.Lines(armored) {
		if !strings.HasPrefix(line, "=") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// TestBinaryThatBeginsLikeText: the first bytes of a key can be a line of UTF-8.
func TestBinaryThatBeginsLikeText(t *testing.T) {
	made := time.Unix(0x620a3030, 0).UTC() // a line end in the time
	c := craft(t, func(c *packet.Config) {
		c.Algorithm, c.RSABits, c.Time = packet.PubKeyAlgoRSA, 1100, clock(made) // a packet of 146 bytes
	})
	binary, _ := c.serialized()
	require.True(t, utf8.ValidString(binary[:strings.Index(binary, "\n")]))
	keys, err := signing.ReadKeys(strings.NewReader(binary))
	require.NoError(t, err)
	require.Len(t, keys, 1)
}

// TestRevocationFile: the revocation that gpg makes beside a key has a colon
// before its armor, so that it does not count by mistake.
func TestRevocationFile(t *testing.T) {
	c := craft(t, nil)
	_, armored := c.serialized()
	sig := c.sign(data, at, nil)
	c.revoke(packet.KeyCompromised, at)
	_, revoked := c.serialized()
	k, err := signing.LoadKeyring(writeFile(t, "ring", armored+":"+revoked))
	require.NoError(t, err)
	_, err = verifier(k).Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
	require.NoError(t, err)
}

// TestBothForms: where the public form of a key stands beside the secret one, in
// whatever order and armor, a keyring takes it.
func TestBothForms(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	var public, secret bytes.Buffer
	require.NoError(t, key.WritePublic(&public))
	require.NoError(t, key.WriteSecret(&secret))
	for _, text := range []string{public.String() + secret.String(), secret.String() + "\n" + public.String()} {
		path := writeFile(t, "ring", text)
		ring, err := signing.LoadKeyring(path)
		require.NoError(t, err)
		require.NotNil(t, ring.Key(key.Fingerprint()))
		require.NoError(t, ring.Key(key.Fingerprint()).Err())
		require.ErrorContains(t, ring.Key(key.Fingerprint()).WriteSecret(io.Discard), "secret")
		list := writeFile(t, "keyring.yaml", "keys:\n- fingerprint: "+string(key.Fingerprint())+"\n  file: "+path+"\n")
		ring, err = signing.LoadKeyring(list)
		require.NoError(t, err)
		require.NoError(t, ring.Key(key.Fingerprint()).Err())
		again, err := signing.LoadKey(path, nil) // and who wants the secret one gets it
		require.NoError(t, err)
		require.Equal(t, key.Fingerprint(), again.Fingerprint())
	}
}

// TestNotAKeyring: what is given by mistake is named, and never quoted.
func TestNotAKeyring(t *testing.T) {
	const secret = "S3cr3t"
	for name, c := range mistakes(t, secret) {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, "ring", c.content)
			_, err := signing.LoadKeyring(path)
			require.ErrorContains(t, err, c.want)
			quotesNothing(t, err, c.content)
			yaml := writeFile(t, "keyring.yaml", "keys:\n- fingerprint: "+strings.Repeat("B", 40)+"\n  file: "+path+"\n")
			_, err = signing.LoadKeyring(yaml)
			require.Error(t, err)
			quotesNothing(t, err, c.content)
			if name == "secret OpenPGP key" {
				return
			}
			_, err = signing.LoadKey(path, nil)
			require.ErrorContains(t, err, c.want)
			quotesNothing(t, err, c.content)
			key := newKey(t, signing.KeyConfig{})
			_, err = verifier(pinned(t, key)).Detached(t.Context(), "a", bytes.NewReader(data), strings.NewReader(c.content))
			require.ErrorIs(t, err, signing.Malformed)
			quotesNothing(t, err, c.content)
		})
	}
}

// quotesNothing says that no five characters of a line of the content, but those
// of its kind, are in the error.
func quotesNothing(t *testing.T, err error, content string) {
	t.Helper()
	for _, word := range []string{"S3cr3t", "MIIB", "AAAA", "fedcba"} {
		if strings.Contains(content, word) {
			require.NotContains(t, err.Error(), word)
		}
	}
	require.NotContains(t, err.Error(), "\n")
	require.Less(t, len(err.Error()), 1000)
}

type mistake struct{ content, want string }

func mistakes(t *testing.T, secret string) map[string]mistake {
	t.Helper()
	var secretKey bytes.Buffer
	require.NoError(t, newKey(t, signing.KeyConfig{}).WriteSecret(&secretKey))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ed)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: secret}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, ed.Public(), ed)
	require.NoError(t, err)
	sshPrivate, err := ssh.MarshalPrivateKey(ed, secret)
	require.NoError(t, err)
	sshPublic, err := ssh.NewPublicKey(ed.Public())
	require.NoError(t, err)
	armored := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	var wide bytes.Buffer
	wide.WriteString("\xff\xfe")
	for _, u := range utf16.Encode([]rune("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")) {
		wide.Write([]byte{byte(u), byte(u >> 8)})
	}
	return map[string]mistake{
		"secret OpenPGP key":     {secretKey.String(), "it is a secret key"},
		"PKCS #8":                {armored("PRIVATE KEY", pkcs8), "a private key in PEM form"},
		"PKCS #8, encrypted":     {armored("ENCRYPTED PRIVATE KEY", pkcs8), "a private key in PEM form"},
		"PKCS #1":                {armored("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), "a private key in PEM form"},
		"EC with parameters":     {armored("EC PARAMETERS", []byte{6, 0}) + armored("EC PRIVATE KEY", pkcs8), "a private key in PEM form"},
		"PEM of a bag":           {"Bag Attributes\n    friendlyName: " + secret + "\n" + armored("PRIVATE KEY", pkcs8), "a private key in PEM form"},
		"gpg-agent key":          {"Created: 20261125T040944\nKey: (private-key (ecc (curve Ed25519)(d #" + secret + "#)))\n", "a private key of gpg-agent"},
		"gpg-agent key, old":     {"(21:protected-private-key(3:ecc(1:d" + secret + ")))", "a private key of gpg-agent"},
		"PEM public key":         {armored("PUBLIC KEY", pkcs8), "a public key in PEM form"},
		"certificate":            {armored("CERTIFICATE", certificate), "an X.509 certificate"},
		"DER certificate":        {string(certificate), "DER"},
		"CMS":                    {armored("PKCS7", certificate), "CMS"},
		"SSH private key":        {string(pem.EncodeToMemory(sshPrivate)), "an SSH private key"},
		"SSH public key":         {string(ssh.MarshalAuthorizedKey(sshPublic)), "an SSH public key"},
		"SSH signature":          {armored("SSH SIGNATURE", pkcs8), "an SSH signature"},
		"HTML":                   {"\n<!DOCTYPE html>\n<html>" + secret + "</html>", "an HTML page"},
		"HTML without doctype":   {"<HTML><body>" + secret, "an HTML page"},
		"JSON":                   {`{"keys` + secret + `": 1}`, "JSON"},
		"XML":                    {"<?xml version='1.0'?><Error><Code>" + secret + "</Code></Error>", "XML"},
		"minisign":               {"untrusted comment: " + secret + "\nRWQ\n", "minisign"},
		"keybox":                 {"\x00\x00\x00\x20\x01\x01\x00\x02KBXf\x00\x00" + secret, "a keybox of GnuPG"},
		"keybox with packets":    {"\x00\x00\x00\x20\x01\x01\x00\x02KBXf\x00\x00\n\x99\x01\x02" + secret + "\n\xc6\xff\xff", "a keybox of GnuPG"},
		"xz":                     {"\xfd7zXZ\x00" + secret, "xz"},
		"PNG":                    {"\x89PNG\r\n\x1a\n" + secret, "PNG"},
		"gzip":                   {"\x1f\x8b\x08" + secret, "gzip"},
		"PowerShell's text":      {wide.String(), "UTF-16"},
		"text":                   {"the password is " + secret + "\n", "other text"},
		"binary":                 {"\x00\x01\x02" + secret, "other binary data"},
		"empty":                  {"", "empty"},
		"blank":                  {"\n \n", "empty"},
		"password in YAML style": {"password: " + secret + "\n", "other text"},
	}
}

// TestYAMLErrorsQuoteNothing: also those of a YAML keyring.
func TestYAMLErrorsQuoteNothing(t *testing.T) {
	for _, text := range []string{
		"keys:\n- S3cr3t: x\n", "keys:\n- fingerprint: S3cr3t\n", "keys: S3cr3t\n", "keys:\n  S3cr3t: [\n", "keys: *S3cr3t\n", "keys: !S3cr3t x\n",
		"keys:\n- fingerprint: [S3cr3t]\n", "keys:\n- from: S3cr3t\n", "keys:\n- fingerprint: " + strings.Repeat("B", 40) + "\n  purposes: [S3cr3t]\n",
		"keys:\n- fingerprint: 'S3cr3t\n", "keys:\n\t- S3cr3t\n", "keys:\n- &a {fingerprint: S3cr3t}\n- <<: *b\n", "keys: {S3cr3t: &S3cr3t }\n", "keys: |\n  S3cr3t\n",
		"S3cr3t: 1\nkeys: []\n", "keys: []\nS3cr3t\n", "keys:\n- fingerprint: \xff\xfeS3cr3t\n",
	} {
		_, err := signing.LoadKeyring(writeFile(t, "keyring.yaml", text))
		require.Error(t, err, text)
		quotesNothing(t, err, text)
	}
}

// TestKeybox: gpg's own store is named as what it is.
func TestKeybox(t *testing.T) {
	needs.Tools(t, "gpg")
	g := newGnuPG(t)
	g.generate("box@example.com", "ed25519", "sign", "never")
	_, err := signing.LoadKeyring(filepath.Join(g.home, "pubring.kbx"))
	require.ErrorContains(t, err, "a keybox of GnuPG (gpg --export writes its keys)")
}

// TestSignatureFilesAsTheyAreWritten: what editors and key rollover make of .asc
// files is verified; anything that is not white space or armor is not.
func TestSignatureFilesAsTheyAreWritten(t *testing.T) {
	c, other := craft(t, nil), craft(t, nil)
	one := string(must(signing.Armor(c.sign(data, at, nil))))
	two := string(must(signing.Armor(other.sign(data, at, nil))))
	v := verifier(pinned(t, c.key(), other.key()))
	v.Required = 2
	for name, sig := range map[string]string{
		"two blocks":         one + two,
		"blank line between": one + "\n\n" + two,
		"blank lines around": "\n\n" + one + two + "\n\n",
		"no last line end":   one + strings.TrimSuffix(two, "\n"),
		"no line end":        strings.TrimSuffix(one, "\n") + two,
		"CR LF":              strings.ReplaceAll(one+two, "\n", "\r\n"),
		"white space":        strings.ReplaceAll(one+two, "\n", " \t\n"),
		"blank line inside":  one + strings.Replace(two, "\n=", "\n\n=", 1),
		"headers":            one + strings.Replace(two, "\n\n", "\nVersion: GnuPG v2\nComment:\n\n", 1),
		"byte order mark":    "\xef\xbb\xbf" + one + two,
		"no checksum":        withoutChecksum(one) + two,
	} {
		_, err := v.Detached(t.Context(), "a", bytes.NewReader(data), strings.NewReader(sig))
		require.NoError(t, err, name)
	}
	for name, sig := range map[string]string{
		"text before":   "signed by us\n" + one + two,
		"text between":  one + "and by them\n" + two,
		"text after":    one + two + "that is all\n",
		"NUL after":     one + two + "\x00",
		"cut":           one + two[:len(two)/2],
		"end missing":   one + two[:strings.Index(two, "-----END")],
		"in each other": one[:strings.Index(one, "-----END")] + two,
		"other block":   one + two + "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
		"twice":         one + two + one,
		"quoted":        "> " + strings.ReplaceAll(one+two, "\n", "\n> "),
		"vertical tab":  one + "\v\n" + two,
		"glued text":    strings.TrimSuffix(one, "\n") + "text\n" + two,
		"glued other":   one + strings.TrimSuffix(two, "\n") + "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
	} {
		_, err := v.Detached(t.Context(), "a", bytes.NewReader(data), strings.NewReader(sig))
		require.ErrorIs(t, err, signing.Malformed, name)
	}
}

// TestDamagedBeginLine: a signature that has lost its lines, or has others, is not
// called something other than a signature.
func TestDamagedBeginLine(t *testing.T) {
	c := craft(t, nil)
	sig := string(must(signing.Armor(c.sign(data, at, nil))))
	v := verifier(pinned(t, c.key()))
	for _, damaged := range []string{strings.ReplaceAll(sig, "\n", "\r"), "  " + strings.ReplaceAll(sig, "\n", "\n  ")} {
		_, err := v.Detached(t.Context(), "a", bytes.NewReader(data), strings.NewReader(damaged))
		require.ErrorIs(t, err, signing.Malformed)
		require.NotContains(t, err.Error(), "not an OpenPGP signature")
	}
}

// TestUnknownKeyIsNamed: by its fingerprint or, of a signature without one, by
// its key ID.
func TestUnknownKeyIsNamed(t *testing.T) {
	c := craft(t, nil)
	v := verifier(pinned(t, craft(t, nil).key()))
	fpr := string(c.key().Fingerprint())
	withoutFingerprint := c.sign(data, at, func(s *packet.Signature) { s.IssuerFingerprint = nil })
	for _, sig := range [][]byte{c.sign(data, at, nil), withoutFingerprint} {
		result, err := v.Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(sig))
		require.ErrorIs(t, err, signing.UnknownKey)
		require.ErrorContains(t, err, fpr[24:])
		require.Contains(t, result.String(), fpr[24:])
	}
	other := craft(t, nil)
	both := append(c.sign(data, at, nil), other.sign(data, at, nil)...)
	_, err := v.Detached(t.Context(), "a", bytes.NewReader(data), bytes.NewReader(both))
	require.ErrorContains(t, err, fpr[24:])
	require.ErrorContains(t, err, string(other.key().Fingerprint())[24:])
}
