package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func put(t *testing.T, path, content string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// TestExitCodes: for every command 0 is good, 1 a finding, and 2 what cannot be
// read or was asked wrongly.
func TestExitCodes(t *testing.T) {
	p := build(t)
	home := t.TempDir()
	key, other := filepath.Join(home, "key"), filepath.Join(home, "other")
	p.run(0, "keygen", "-name", "Factory", "-email", "factory@example.com", "-out", key)
	p.run(0, "keygen", "-name", "Other", "-email", "other@example.com", "-out", other)
	both := put(t, filepath.Join(home, "both.pub"), read(t, key+".pub")+read(t, other+".pub"))

	dir := release(t)
	image, sums := filepath.Join(dir, "a.qcow2"), filepath.Join(dir, "SHA256SUMS")
	none, adir := filepath.Join(home, "none"), filepath.Join(home, "dir")
	require.NoError(t, os.Mkdir(adir, 0o755))
	junk := put(t, filepath.Join(home, "junk"), "junk\n")
	p.run(0, "sign-dir", "-key", key, "-key", other, dir)
	built := filepath.Join(home, "built")
	require.NoError(t, os.Mkdir(built, 0o755))
	file := put(t, filepath.Join(built, "image"), "image")
	attestation := filepath.Join(built, "image.provenance.json")
	attest := []string{"attest", "-key", key, "-build-type", "urn:a", "-builder", "urn:b", "-param", "release=12", "-out"}
	p.run(0, append(attest, attestation, file)...)

	// A file without a signature, and one whose signature cannot be read.
	lonely := put(t, filepath.Join(home, "lonely"), "text")
	unreadable := put(t, filepath.Join(home, "unreadable"), "text")
	require.NoError(t, os.Mkdir(unreadable+".asc", 0o755))

	for _, c := range []struct {
		code int
		args string
	}{
		{2, "keygen -name a -email b@example.com -out " + filepath.Join(none, "key")},
		{2, "keygen -name a -email b@example.com -out " + key},

		{0, "sign -key KEY LONELY"},
		{2, "sign -key NONE LONELY"}, {2, "sign -key DIR LONELY"}, {2, "sign -key JUNK LONELY"}, {2, "sign -key KEY.pub LONELY"},
		{2, "sign -key KEY NONE"}, {2, "sign -key KEY DIR"}, {2, "sign -key KEY -key KEY LONELY"}, {2, "sign -key KEY UNREADABLE"},
		{2, "sign-dir -key KEY NONE"}, {2, "sign-dir -key KEY JUNK"}, {2, "sign-dir -key NONE DIR"},
		{2, "attest -key KEY -build-type urn:a -builder urn:b -out ATT NONE"}, {2, "attest -key KEY -build-type urn:a -builder urn:b -out ATT DIR"},
		{2, "attest -key KEY -build-type urn:a -builder urn:b -out ATT"}, {2, "attest -key KEY -builder urn:b -out ATT FILE"},
		{2, "attest -key KEY -build-type urn:a -builder urn:b -param x -out ATT FILE"},

		{0, "verify -keyring KEY.pub IMAGE"}, {0, "verify -keyring BOTH -required 2 IMAGE"},
		{1, "verify -keyring KEY.pub -required 2 IMAGE"}, {1, "verify -keyring KEY.pub JUNK"}, {1, "verify -keyring KEY.pub -signature JUNK IMAGE"},
		{0, "verify -keyring KEY.pub -signature IMAGE.asc IMAGE"}, {1, "verify -keyring KEY.pub -signature IMAGE.asc JUNK"},
		{2, "verify -keyring KEY.pub -signature NONE IMAGE"}, {2, "verify -keyring KEY.pub -signature DIR IMAGE"},
		{2, "verify -keyring KEY.pub -signature IMAGE.asc NONE"}, {2, "verify -keyring KEY.pub -signature IMAGE.asc DIR"},
		{2, "verify -keyring KEY.pub -signature IMAGE.asc IMAGE IMAGE"},
		{2, "verify -keyring KEY.pub NONE"}, {2, "verify -keyring KEY.pub DIR"}, {2, "verify -keyring KEY.pub UNREADABLE"},
		{2, "verify -keyring KEY.pub IMAGE NONE"}, {2, "verify -keyring KEY.pub JUNK NONE"}, {2, "verify -keyring KEY.pub -required 0 IMAGE"},
		{2, "verify -keyring NONE IMAGE"}, {2, "verify -keyring DIR IMAGE"}, {2, "verify -keyring JUNK IMAGE"}, {2, "verify -keyring KEY IMAGE"},

		{0, "verify-dir -keyring KEY.pub RELEASE"}, {0, "verify-dir -keyring BOTH -required 2 RELEASE"}, {1, "verify-dir -keyring OTHER.pub -required 2 RELEASE"},
		{1, "verify-dir -keyring KEY.pub DIR"}, {2, "verify-dir -keyring KEY.pub NONE"}, {2, "verify-dir -keyring KEY.pub JUNK"}, {2, "verify-dir -keyring NONE RELEASE"},

		{0, "verify-sums -keyring KEY.pub SUMS"}, {0, "verify-sums -keyring KEY.pub SUMS a.qcow2"}, {1, "verify-sums -keyring KEY.pub SUMS b.qcow2"},
		{0, "verify-sums -keyring KEY.pub -signature SUMS.asc SUMS"}, {1, "verify-sums -keyring KEY.pub -signature JUNK SUMS"},
		{2, "verify-sums -keyring KEY.pub -signature NONE SUMS"}, {2, "verify-sums -keyring KEY.pub -signature DIR SUMS"},
		{1, "verify-sums -keyring KEY.pub JUNK"}, {2, "verify-sums -keyring KEY.pub NONE"}, {2, "verify-sums -keyring KEY.pub DIR"},
		{2, "verify-sums -keyring KEY.pub UNREADABLE"}, {2, "verify-sums -keyring NONE SUMS"}, {2, "verify-sums -keyring KEY.pub"},

		{0, "verify-attestation -keyring KEY.pub ATT"}, {0, "verify-attestation -keyring KEY.pub ATT FILE"},
		{1, "verify-attestation -keyring KEY.pub ATT IMAGE"}, {1, "verify-attestation -keyring OTHER.pub ATT"}, {1, "verify-attestation -keyring KEY.pub -required 2 ATT"},
		{1, "verify-attestation -keyring KEY.pub JUNK"}, {2, "verify-attestation -keyring KEY.pub NONE"}, {2, "verify-attestation -keyring KEY.pub DIR"},
		{2, "verify-attestation -keyring KEY.pub ATT NONE"}, {2, "verify-attestation -keyring KEY.pub ATT DIR"}, {2, "verify-attestation -keyring NONE ATT"},

		{0, "keys -keyring BOTH"}, {2, "keys -keyring NONE"}, {2, "keys -keyring DIR"}, {2, "keys -keyring JUNK"}, {2, "keys -keyring KEY"},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := strings.NewReplacer("KEY", key, "OTHER", other, "BOTH", both, "NONE", none, "DIR", adir, "JUNK", junk, "IMAGE", image,
				"RELEASE", dir, "SUMS", sums, "ATT", attestation, "FILE", file, "LONELY", lonely, "UNREADABLE", unreadable).Replace(c.args)
			out, diag := p.run(c.code, strings.Fields(args)...)
			if c.code == 2 {
				require.NotEmpty(t, diag)
			} else {
				require.NotEmpty(t, out)
			}
		})
	}

	// What is listed but not there is a finding, unless that is said.
	require.NoError(t, os.Remove(image))
	p.run(1, "verify-dir", "-keyring", key+".pub", dir)
	p.run(0, "verify-dir", "-keyring", key+".pub", "-ignore-missing", dir)
	p.run(0, "verify-sums", "-keyring", key+".pub", "-ignore-missing", sums)
	require.NoError(t, os.Remove(file))
	p.run(1, "verify-attestation", "-keyring", key+".pub", attestation)
	p.run(1, "verify-attestation", "-keyring", key+".pub", "-ignore-missing", attestation)
}

// TestUnreadable: a file that the user may not read is trouble, whatever else is
// found. Root may read all, so the program runs as nobody then.
func TestUnreadable(t *testing.T) {
	p := build(t)
	home := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(home), 0o755)) // nobody must get there
	key := filepath.Join(home, "key")
	p.run(0, "keygen", "-name", "Factory", "-email", "factory@example.com", "-out", key)
	ring := key + ".pub"
	for _, name := range []string{"a.qcow2", "a.qcow2.asc", "release.json", "SHA256SUMS", "SHA256SUMS.asc"} {
		dir := release(t)
		p.run(0, "sign-dir", "-key", key, dir)
		p.asNobody = os.Geteuid() == 0
		p.run(0, "verify-dir", "-keyring", ring, dir)
		path := filepath.Join(dir, name)
		require.NoError(t, os.Chmod(path, 0))
		p.run(2, "verify-dir", "-keyring", ring, dir)
		p.run(2, "verify-sums", "-keyring", ring, filepath.Join(dir, "SHA256SUMS"))
		p.run(2, "verify", "-keyring", ring, path)
		if file, ok := strings.CutSuffix(path, ".asc"); ok {
			p.run(2, "verify", "-keyring", ring, file)
			p.run(2, "verify", "-keyring", ring, "-signature", path, file)
		} else {
			put(t, path+".asc", "junk")
			p.run(2, "verify-dir", "-keyring", ring, dir)
		}
		p.run(2, "keys", "-keyring", path)
		p.run(2, "sign", "-key", path, key+".pub")
		p.run(2, "verify-attestation", "-keyring", ring, path)
		p.asNobody = false
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

// TestSkippedKeysAreTold: the rest of the keyring serves.
func TestSkippedKeysAreTold(t *testing.T) {
	p := build(t)
	key := filepath.Join(t.TempDir(), "key")
	p.run(0, "keygen", "-name", "Factory", "-email", "factory@example.com", "-out", key)
	dir := release(t)
	p.run(0, "sign-dir", "-key", key, dir)
	ring := put(t, filepath.Join(t.TempDir(), "ring"),
		"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQENA1sw\n-----END PGP PUBLIC KEY BLOCK-----\n\n"+read(t, key+".pub")+"\n"+read(t, key+".pub"))
	out, diag := p.run(0, "verify-dir", "-keyring", ring, dir)
	require.Contains(t, out, "good")
	require.Contains(t, diag, "skipped")
	out, _ = p.run(0, "keys", "-json", "-keyring", ring)
	require.Contains(t, out, `"skipped": [`)
	require.Contains(t, out, "cut short")
}

// TestSeveralKeys: all that are given sign.
func TestSeveralKeys(t *testing.T) {
	p := build(t)
	home := t.TempDir()
	a, b := filepath.Join(home, "a"), filepath.Join(home, "b")
	p.run(0, "keygen", "-name", "A", "-email", "a@example.com", "-out", a)
	p.run(0, "keygen", "-name", "B", "-email", "b@example.com", "-out", b)
	dir := release(t)
	out, _ := p.run(0, "sign-dir", "-json", "-key", a, "-key", b, dir)
	require.Contains(t, out, `"fingerprints": [`)
	ring := put(t, filepath.Join(home, "ring"), read(t, a+".pub")+read(t, b+".pub"))
	p.run(0, "verify-dir", "-keyring", ring, "-required", "2", dir)
	p.run(0, "sign", "-clear", "-key", a, "-key", b, filepath.Join(dir, "a.qcow2"))
	p.run(0, "verify", "-keyring", ring, "-required", "2", filepath.Join(dir, "a.qcow2"))
	p.run(1, "verify", "-keyring", a+".pub", "-required", "2", filepath.Join(dir, "a.qcow2"))
}
