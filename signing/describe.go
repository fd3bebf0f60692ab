package signing

import (
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"
)

// kinds are what people give instead of a key or a signature, by how it begins.
// The order matters: the first that fits is it.
var kinds = []struct {
	begins string
	what   string
}{
	{"-----BEGIN PGP PRIVATE KEY BLOCK", "an OpenPGP secret key"},
	{"-----BEGIN PGP PUBLIC KEY BLOCK", "an OpenPGP public key"},
	{"-----BEGIN PGP SIGNED MESSAGE", "a text with a cleartext signature"},
	{"-----BEGIN PGP SIGNATURE", "an OpenPGP signature"},
	{"-----BEGIN PGP MESSAGE", "an OpenPGP message"},
	{"-----BEGIN PGP ", "another kind of OpenPGP data"},
	{"-----BEGIN OPENSSH PRIVATE KEY", "an SSH private key"},
	{"-----BEGIN SSH SIGNATURE", "an SSH signature"},
	{"-----BEGIN SSH2 ", "an SSH key"},
	{"---- BEGIN SSH2 ", "an SSH key"},
	{"PuTTY-User-Key-File-", "an SSH private key of PuTTY"},
	{"ssh-", "an SSH public key"},
	{"ecdsa-sha2-", "an SSH public key"},
	{"sk-ssh-", "an SSH public key"},
	{"sk-ecdsa-", "an SSH public key"},
	{"-----BEGIN CERTIFICATE REQUEST", "an X.509 certificate request"},
	{"-----BEGIN CERTIFICATE", "an X.509 certificate"},
	{"-----BEGIN TRUSTED CERTIFICATE", "an X.509 certificate"},
	{"-----BEGIN X509 ", "X.509 data"},
	{"-----BEGIN PKCS7", "a CMS (PKCS #7) signature"},
	{"-----BEGIN CMS", "a CMS (PKCS #7) signature"},
	{"-----BEGIN PUBLIC KEY", "a public key in PEM form"},
	{"-----BEGIN RSA PUBLIC KEY", "a public key in PEM form"},
	{"untrusted comment:", "a key or signature of minisign or signify"},
	{"age1", "a public key of age"},
	{"AGE-SECRET-KEY-", "a secret key of age"},
	{"%PDF-", "a PDF file"},
	{"{", "JSON"},
	{"<?xml", "XML"},
	{"\x1f\x8b", "compressed (gzip)"},
	{"\xfd7zXZ", "compressed (xz)"},
	{"\x28\xb5\x2f\xfd", "compressed (zstd)"},
	{"BZh", "compressed (bzip2)"},
	{"PK\x03\x04", "a ZIP archive"},
	{"\x30\x82", "X.509, PKCS #12 or other DER data"},
	{"\x01gpg", "GnuPG's trust database"},
	{"SQLite format 3", "a database (SQLite)"},
	{"QFI\xfb", "a qcow2 image"},
	{"\x89PNG", "a picture (PNG)"},
	{"\xff\xd8\xff", "a picture (JPEG)"},
	{"\x7fELF", "a program"},
}

// privatePEM is any private key in PEM form but those that kinds has. Parameters
// or text of openssl may stand before it.
var privatePEM = regexp.MustCompile(`(?m)^-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY`)

// agentKeyFile is a file in GnuPG's private-keys-v1.d, of either format.
var agentKeyFile = regexp.MustCompile(`(?m)\A\([0-9]+:(protected-|shadowed-)?private-key|^Key: \((protected-|shadowed-)?private-key`)

// describe names what data is, for an error. It never quotes it.
func describe(data []byte) string {
	if len(data) >= 12 && string(data[8:12]) == "KBXf" {
		return "a keybox of GnuPG (gpg --export writes its keys)"
	}
	if isUTF16(data) {
		return "text in UTF-16 (UTF-8 is needed)"
	}
	text := bytes.TrimLeft(trimBOM(data), " \t\r\n")
	if len(text) == 0 {
		return "empty"
	}
	head := string(text[:min(len(text), 200)])
	for _, k := range kinds {
		if strings.HasPrefix(head, k.begins) {
			return k.what
		}
	}
	if privatePEM.Match(text[:min(len(text), 64<<10)]) {
		return "a private key in PEM form"
	}
	if agentKeyFile.MatchString(head) {
		return "a private key of gpg-agent"
	}
	lower := strings.ToLower(head)
	if strings.HasPrefix(lower, "<!doctype html") || strings.HasPrefix(lower, "<html") || strings.HasPrefix(lower, "<head") || strings.HasPrefix(lower, "<!--") {
		return "an HTML page"
	}
	if strings.HasPrefix(head, "-----BEGIN ") {
		return "PEM data"
	}
	sample := data[:min(len(data), 4096)]
	for len(sample) > 0 && len(sample) < len(data) && !utf8.RuneStart(data[len(sample)]) {
		sample = sample[:len(sample)-1] // not in the middle of a character
	}
	if bytes.IndexByte(sample, 0) < 0 && utf8.Valid(sample) {
		return "other text"
	}
	return "other binary data"
}

func trimBOM(data []byte) []byte { return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) }

// isUTF16 says whether data has the byte order mark of UTF-16, as what
// PowerShell redirects. No OpenPGP packet begins so.
func isUTF16(data []byte) bool {
	return bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff"))
}
