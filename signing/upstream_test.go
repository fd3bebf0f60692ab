package signing_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha512"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

func sum512(content string) string { return fmt.Sprintf("%x", sha512.Sum512([]byte(content))) }
func sum1(content string) string   { return fmt.Sprintf("%x", sha1.Sum([]byte(content))) }
func sum5(content string) string   { return fmt.Sprintf("%x", md5.Sum([]byte(content))) }

// download is a directory with the files one, two and sub/three, a checksum file
// of the given name and text, and others that nobody lists.
func download(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	for file, content := range map[string]string{"one": "one", "two": "two", "sub/three": "three", "unlisted": "x", name: text} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644))
	}
	return dir
}

// upstreams are the checksum files of distributions, as they write them.
var upstreams = map[string]string{
	"Ubuntu":    sum("one") + " *one\n" + sum("two") + " *two\n",
	"Debian":    sum512("one") + "  one\n" + sum512("two") + "  two\n",
	"Fedora":    "# one: 3 bytes\nSHA256 (one) = " + sum("one") + "\n# two: 3 bytes\nSHA256 (two) = " + sum("two") + "\n",
	"netboot":   sum("one") + "  ./one\n" + sum("three") + "  ./sub/three\n",
	"FreeBSD":   "SHA512 (one) = " + sum512("one") + "\nSHA512 (two) = " + sum512("two") + "\n",
	"Gentoo":    "# BLAKE2B HASH\n" + sum512("other") + "  one\n# SHA512 HASH\n" + sum512("one") + "  one\n",
	"Flatcar":   "# MD5 HASH\n" + sum5("one") + "  one\n# SHA1 HASH\n" + sum1("one") + "  one\n# SHA512 HASH\n" + sum512("one") + "  one\n",
	"mixed":     sum5("one") + "  one\nSHA1 (one) = " + sum1("one") + "\n" + sum("one") + "  one\nSHA512 (one) = " + sum512("one") + "\n",
	"wrong MD5": "MD5 (one) = " + sum5("other") + "\nSHA256 (one) = " + sum("one") + "\n",
	"CR LF":     sum("one") + "  one\r\n\r\n" + sum("two") + "  two\r\n",
	"openssl":   "SHA256(one)= " + sum("one") + "\nSHA2-512(two)= " + sum512("two") + "\n",
	"no end":    sum("one") + "  one",
	"a title":   "# IMAGE HASH\n" + sum("one") + "  one\n",
	"indented":  "  " + sum("one") + "  one\n",
}

// TestUpstreams: each form is verified with each way to sign it.
func TestUpstreams(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
	v := verifier(pinned(t, key))
	for name, text := range upstreams {
		detached, _, err := sealer.Detached(t.Context(), "x", strings.NewReader(text))
		require.NoError(t, err)
		armored, err := signing.Armor(detached)
		require.NoError(t, err)
		signed, err := sealer.Cleartext(t.Context(), strings.NewReader(text))
		require.NoError(t, err)
		for form, files := range map[string]map[string][]byte{
			".asc": {"SUMS.asc": armored}, ".sig": {"SUMS.sig": detached}, ".gpg": {"SUMS.gpg": detached}, ".sign": {"SUMS.sign": armored},
			"cleartext": {"SUMS": signed}, "cleartext beside": {"SUMS.asc": signed}, "elsewhere": {"sub/signature": armored},
		} {
			t.Run(name+"/"+form, func(t *testing.T) {
				dir := download(t, "SUMS", text)
				for file, content := range files {
					require.NoError(t, os.WriteFile(filepath.Join(dir, file), content, 0o644))
				}
				signature := ""
				if form == "elsewhere" {
					signature = filepath.Join(dir, "sub/signature")
				}
				sums := filepath.Join(dir, "SUMS")
				result, err := v.Checksums(t.Context(), sums, signature)
				require.NoError(t, err)
				require.Greater(t, len(result.Files), 1)
				require.Equal(t, key.Fingerprint(), result.Files[1].Fingerprint)
				_, err = v.Checksums(t.Context(), sums, signature, "./one")
				require.NoError(t, err)
				_, err = v.Checksums(t.Context(), sums, signature, "unlisted")
				require.ErrorIs(t, err, signing.FileExtra)

				require.NoError(t, os.WriteFile(filepath.Join(dir, "one"), []byte("eno"), 0o644))
				_, err = v.Checksums(t.Context(), sums, signature)
				require.ErrorIs(t, err, signing.DigestDiffers)
				require.NoError(t, os.Remove(filepath.Join(dir, "one")))
				_, err = v.Checksums(t.Context(), sums, signature)
				require.ErrorIs(t, err, signing.FileMissing)
				lenient := *v
				lenient.IgnoreMissing = true
				_, err = lenient.Checksums(t.Context(), sums, signature)
				if strings.Contains(text, "two") || strings.Contains(text, "three") {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, signing.FileMissing, "one file there must be")
				}
				_, err = verifier(pinned(t, newKey(t, signing.KeyConfig{}))).Checksums(t.Context(), sums, signature)
				require.ErrorIs(t, err, signing.UnknownKey)
			})
		}
	}
}

// TestUpstreamSignature: a file is verified by whatever signature is beside it.
func TestUpstreamSignature(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
	v := verifier(pinned(t, key))
	path := writeData(t)
	sig, _, err := sealer.Detached(t.Context(), "x", bytes.NewReader(must(os.ReadFile(path))))
	require.NoError(t, err)
	_, err = v.File(t.Context(), path)
	require.ErrorIs(t, err, signing.NoSignature)
	for _, suffix := range []string{".sign", ".gpg", ".sig", ".asc"} { // the later ones go before
		require.NoError(t, os.WriteFile(path+suffix, sig, 0o644))
		_, err = v.File(t.Context(), path)
		require.NoError(t, err, suffix)
		require.NoError(t, os.WriteFile(path+suffix, []byte("junk"), 0o644))
		_, err = v.File(t.Context(), path)
		require.ErrorIs(t, err, signing.Malformed)
	}
	signed, err := sealer.Cleartext(t.Context(), strings.NewReader("Origin: Debian\nSHA256:\n "+sum("one")+" 3 main/one\n"))
	require.NoError(t, err)
	inRelease := writeFile(t, "InRelease", string(signed))
	_, err = v.File(t.Context(), inRelease)
	require.NoError(t, err)
	_, err = v.Checksums(t.Context(), inRelease, "")
	require.ErrorContains(t, err, "a Debian Release file, whose lists are not read")
	require.NoError(t, os.WriteFile(inRelease, bytes.Replace(signed, []byte("Debian"), []byte("Debiam"), 1), 0o644))
	_, err = v.File(t.Context(), inRelease)
	require.ErrorIs(t, err, signing.BadSignature)
}

// TestUpstreamEscapes: no name of a checksum file leads outside its directory.
func TestUpstreamEscapes(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
	v := verifier(pinned(t, key))
	outside := writeFile(t, "secret", "one")
	for name, c := range map[string]struct {
		line  string
		place func(dir string) error
		want  signing.Reason
	}{
		"parent":           {"../secret", nil, signing.BadName},
		"parent below":     {"sub/../../secret", nil, signing.BadName},
		"hidden parent":    {"./../secret", nil, signing.BadName},
		"absolute":         {outside, nil, signing.BadName},
		"NUL":              {"one\x00", nil, signing.BadName},
		"not UTF-8":        {"one\xff", nil, signing.BadName},
		"backslash":        {`sub\three`, nil, signing.BadName},
		"double slash":     {"sub//three", nil, signing.BadName},
		"trailing slash":   {"sub/", nil, signing.BadName},
		"trailing CR":      {"one\r\r", nil, signing.BadName},
		"long":             {strings.Repeat("x/", 3000) + "x", nil, signing.BadName},
		"link":             {"link", func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "link")) }, signing.NotRegular},
		"link to neighbor": {"link", func(dir string) error { return os.Symlink("one", filepath.Join(dir, "link")) }, signing.NotRegular},
		"linked directory": {"link/secret", func(dir string) error { return os.Symlink(filepath.Dir(outside), filepath.Join(dir, "link")) }, signing.NotRegular},
		"parent link":      {"link/secret", func(dir string) error { return os.Symlink("..", filepath.Join(dir, "link")) }, signing.NotRegular},
		"pipe":             {"pipe", func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644) }, signing.NotRegular},
		"directory":        {"sub", nil, signing.NotRegular},
	} {
		t.Run(name, func(t *testing.T) {
			dir := download(t, "SUMS", sum("one")+"  one\nSHA256 ("+c.line+") = "+sum("one")+"\n")
			if c.place != nil {
				require.NoError(t, c.place(dir))
			}
			_, err := sealer.SignFile(t.Context(), filepath.Join(dir, "SUMS"))
			require.NoError(t, err)
			result, err := v.Checksums(t.Context(), filepath.Join(dir, "SUMS"), "")
			require.ErrorIs(t, err, c.want)
			require.Equal(t, signing.Good, result.File("one").Status)
			for _, f := range result.Files[1:] {
				require.True(t, f.Status != signing.Good || f.Name == "one", f.Name)
				require.True(t, f.SHA256 == "" || f.Name == "one", "%s was read", f.Name)
			}
			require.Less(t, len(err.Error()), 3000)
		})
	}
}

// TestVerifyDirOfUpstreams: a directory of an upstream is a release too, where
// nothing is in it that is not listed.
func TestVerifyDirOfUpstreams(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
	for _, suffix := range []string{".asc", ".sig", ".gpg", ".sign", ""} {
		dir := listing(t, key, "# the files\n\n"+sum("one")+" *./one\nSHA512 (two) = "+sum512("two")+"\n"+sum("three")+"  three\n")
		sums := filepath.Join(dir, signing.SumsFile)
		if suffix == "" {
			signed, err := sealer.Cleartext(t.Context(), bytes.NewReader(must(os.ReadFile(sums))))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(sums, signed, 0o644))
			require.NoError(t, os.Remove(sums+".asc"))
		} else {
			require.NoError(t, os.Rename(sums+".asc", sums+suffix))
		}
		v := verifier(pinned(t, key))
		_, err := v.VerifyDir(t.Context(), dir)
		require.ErrorIs(t, err, signing.FileMissing, suffix)
		v.IgnoreMissing = true
		result, err := v.VerifyDir(t.Context(), dir)
		require.NoError(t, err, suffix)
		require.Len(t, result.Files, 3)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "two"), []byte("twa"), 0o644))
		_, err = v.VerifyDir(t.Context(), dir)
		require.ErrorIs(t, err, signing.DigestDiffers, suffix)
		require.NoError(t, os.Remove(filepath.Join(dir, "one")))
		require.NoError(t, os.Remove(filepath.Join(dir, "two")))
		_, err = v.VerifyDir(t.Context(), dir)
		require.ErrorIs(t, err, signing.FileMissing, "one file there must be")
	}
}

// TestAttestation: provenance of files is made and verified without a release.
func TestAttestation(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
	v := verifier(pinned(t, key))
	p := signing.Provenance{BuildType: "https://example.com/build", BuilderID: "https://example.com/builder"}
	dir := download(t, "SUMS", "")
	one, two, path := filepath.Join(dir, "one"), filepath.Join(dir, "two"), filepath.Join(dir, "a.provenance.json")
	files, err := sealer.Attest(t.Context(), path, p, one, two)
	require.NoError(t, err)
	require.Equal(t, sum("one"), files[0].SHA256)
	for _, args := range [][]string{nil, {one}, {two, one}} {
		statement, result, err := v.Attestation(t.Context(), path, args...)
		require.NoError(t, err)
		require.Equal(t, signing.ProvenanceType, statement.PredicateType)
		require.True(t, result.OK())
	}
	_, _, err = v.Attestation(t.Context(), path, filepath.Join(dir, "unlisted"))
	require.ErrorIs(t, err, signing.BadProvenance)
	_, result, err := v.Attestation(t.Context(), path, filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Nil(t, result)
	_, _, err = verifier(pinned(t, newKey(t, signing.KeyConfig{}))).Attestation(t.Context(), path)
	require.ErrorIs(t, err, signing.UnknownKey)

	require.NoError(t, os.WriteFile(two, []byte("owt"), 0o644))
	statement, _, err := v.Attestation(t.Context(), path)
	require.ErrorIs(t, err, signing.BadProvenance)
	require.Nil(t, statement)
	require.NoError(t, os.Remove(two))
	_, _, err = v.Attestation(t.Context(), path)
	require.ErrorIs(t, err, signing.FileMissing)
	lenient := *v
	lenient.IgnoreMissing = true
	_, _, err = lenient.Attestation(t.Context(), path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(one))
	_, _, err = lenient.Attestation(t.Context(), path)
	require.ErrorIs(t, err, signing.FileMissing, "one file there must be")

	// What cannot be attested leaves the old attestation.
	old := must(os.ReadFile(path))
	for _, args := range [][]string{{}, {filepath.Join(dir, "none")}, {dir}, {path}, {filepath.Join(dir, "SUMS"), filepath.Join(dir, "SUMS")}} {
		_, err = sealer.Attest(t.Context(), path, p, args...)
		require.ErrorContains(t, err, "cannot attest", args)
	}
	_, err = sealer.Attest(t.Context(), path, signing.Provenance{}, filepath.Join(dir, "SUMS"))
	require.ErrorContains(t, err, "a build type and a builder ID")
	require.Equal(t, old, must(os.ReadFile(path)))
}

// TestAttestationEscapes: subjects do not lead outside either.
func TestAttestationEscapes(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
	dir := t.TempDir()
	for _, name := range []string{"../one", "/etc/passwd", "a/../../one"} {
		statement, err := exampleProvenance(signing.FileDigest{Name: name, SHA256: sum("one")}).Statement()
		require.NoError(t, err)
		envelope, err := sealer.Envelope(t.Context(), statement)
		require.NoError(t, err)
		path := filepath.Join(dir, "a.provenance.json")
		require.NoError(t, os.WriteFile(path, envelope, 0o644))
		_, _, err = verifier(pinned(t, key)).Attestation(t.Context(), path)
		require.ErrorIs(t, err, signing.BadName)
	}
}

// TestUpstreamsOfGnuPG: what the tools themselves write and sign.
func TestUpstreamsOfGnuPG(t *testing.T) {
	tools := needs.Tools(t, "sha256sum", "sha512sum")
	g := newGnuPG(t)
	first := g.exported(g.generate("first@example.com", "ed25519", "sign", "never"))
	second := g.exported(g.generate("second@example.com", "rsa2048", "sign", "never"))
	v := now(pinned(t, first, second))
	for _, form := range []string{"--text", "--binary", "--tag"} {
		dir := download(t, "SUMS", "")
		sums := filepath.Join(dir, "SUMS")
		var text strings.Builder
		for _, tool := range tools {
			cmd := exec.Command(tool, form, "one", "./two", "sub/three")
			cmd.Dir = dir
			out, err := cmd.Output()
			require.NoError(t, err)
			text.Write(out)
		}
		require.NoError(t, os.WriteFile(sums, []byte(text.String()), 0o644))
		g.gpg("--local-user", "first@example.com", "--output", sums+".gpg", "--detach-sign", sums)
		result, err := v.Checksums(t.Context(), sums, "")
		require.NoError(t, err, form)
		require.Len(t, result.Files, 4)

		// Both sign, each on its own, and one file has both.
		g.gpg("--local-user", "first@example.com", "--armor", "--output", sums+".1", "--detach-sign", sums)
		g.gpg("--local-user", "second@example.com", "--armor", "--output", sums+".2", "--detach-sign", sums)
		both := append(must(os.ReadFile(sums+".1")), must(os.ReadFile(sums+".2"))...)
		require.NoError(t, os.WriteFile(sums+".sign", both, 0o644))
		strict := *v
		strict.Required = 2
		_, err = strict.Checksums(t.Context(), sums, "")
		require.ErrorIs(t, err, signing.TooFewSignatures, form)
		_, err = strict.Checksums(t.Context(), sums, sums+".sign")
		require.NoError(t, err, form)

		signed := filepath.Join(dir, "CHECKSUM")
		g.gpg("--local-user", "first@example.com", "--local-user", "second@example.com", "--output", signed, "--clearsign", sums)
		_, err = strict.Checksums(t.Context(), signed, "")
		require.NoError(t, err, form)
		_, err = strict.File(t.Context(), signed)
		require.NoError(t, err, form)
		g.gpg("--local-user", "first@example.com", "--output", filepath.Join(dir, "message"), "--sign", sums)
		_, err = v.Checksums(t.Context(), sums, filepath.Join(dir, "message"))
		require.ErrorIs(t, err, signing.Malformed)
	}
}
