package signing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// maxCleartext bounds a text with a cleartext signature, which is held in
// memory: a SHA256SUMS of the largest size fits.
const maxCleartext = maxSumsFile + maxSignatureFile

// Cleartext returns text with the cleartext signatures of all signers (RFC 9580,
// section 7). White space at the ends of lines and the kind of line ends are not
// signed. The text may have 32 MiB, and lines as long as gpg verifies (19,990
// bytes); a carriage return must be followed by a line feed, and there is no NUL.
func (s *Sealer) Cleartext(ctx context.Context, text io.Reader) ([]byte, error) {
	signed, err := s.cleartext(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("cannot sign text: %w", err)
	}
	return signed, nil
}

func (s *Sealer) cleartext(ctx context.Context, r io.Reader) ([]byte, error) {
	text, err := readBounded(r, maxSumsFile)
	if err != nil {
		return nil, err
	}
	if err := signableText(text); err != nil {
		return nil, err
	}
	d := newDigester()
	all, err := begin(d, s.Signers, packet.SigTypeText)
	if err != nil {
		return nil, err
	}
	if _, err := d.read(ctx, bytes.NewReader(canonicalText(text))); err != nil {
		return nil, err
	}
	var sig bytes.Buffer
	if err := complete(ctx, &sig, d, all); err != nil {
		return nil, err
	}
	armored, err := Armor(sig.Bytes())
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(cleartextBegin + "\n")
	for _, name := range hashNames(s.Signers) {
		out.WriteString("Hash: " + name + "\n")
	}
	out.WriteString("\n")
	for line := range strings.Lines(strings.TrimSuffix(string(text), "\n") + "\n") {
		if strings.HasPrefix(line, "-") {
			out.WriteString("- ") // RFC 9580, section 7.2
		}
		out.WriteString(line)
	}
	out.Write(armored)
	return out.Bytes(), s.cleartextReadable(out.Bytes(), text)
}

// cleartextReadable reads back what was made of a text.
func (s *Sealer) cleartextReadable(signed, text []byte) error {
	if len(signed) > maxCleartext {
		return fmt.Errorf("with its lines escaped it would be larger than %d bytes: sign it with a detached signature", maxCleartext)
	}
	back, all, err := decodeCleartext(signed)
	switch {
	case err != nil:
		return fmt.Errorf("the signed text would not be read: %w", err)
	case len(all) != len(s.Signers) || !bytes.Equal(back, canonicalText(text)):
		return errors.New("the signed text would be read as another")
	}
	return nil
}

// maxTextLine bounds the lines of a text that is signed: gpg 2.2 takes the rest
// of one of 20,000 bytes for another line, and then the signature for bad.
const maxTextLine = 19_990

// signableText says why a text cannot have a cleartext signature that all
// implementations verify.
func signableText(text []byte) error {
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if len(line) > maxTextLine {
			return fmt.Errorf("line %d is longer than %d bytes, which gpg does not verify: sign it with a detached signature", n, maxTextLine)
		}
		if bytes.IndexByte(bytes.TrimSuffix(line, []byte("\r\n")), '\r') >= 0 {
			return fmt.Errorf("line %d has a carriage return that does not end it, which verifies differently everywhere: sign it with a detached signature", n)
		}
		if bytes.IndexByte(line, 0) >= 0 {
			return fmt.Errorf("line %d has a NUL, which gpg does not verify: sign it with a detached signature", n)
		}
	}
	return nil
}

const cleartextBegin = "-----BEGIN PGP SIGNED MESSAGE-----"

// canonicalText is what a cleartext signature signs: lines without white space
// at their ends, joined by CR LF.
func canonicalText(text []byte) []byte {
	canonical := make([]byte, 0, len(text)+bytes.Count(text, []byte("\n")))
	rest := bytes.TrimSuffix(text, []byte("\n"))
	for more := true; more; {
		var line []byte
		line, rest, more = bytes.Cut(rest, []byte("\n"))
		canonical = append(canonical, bytes.TrimRight(line, " \t\r")...)
		if more {
			canonical = append(canonical, "\r\n"...)
		}
	}
	return canonical
}

// hashNames are the values of the Hash headers (RFC 9580, section 9.5).
func hashNames(signers []*Signer) []string {
	var names []string
	seen := map[string]bool{}
	for _, s := range signers {
		name := strings.ReplaceAll(s.hash.String(), "-", "")
		if !seen[name] {
			names = append(names, name)
		}
		seen[name] = true
	}
	return names
}

func isCleartext(data []byte) bool {
	return bytes.HasPrefix(trimBlank(data), []byte(cleartextBegin))
}

// trimBlank removes what may stand before armor: blank lines.
func trimBlank(data []byte) []byte { return bytes.TrimLeft(trimBOM(data), " \t\r\n") }

// decodeCleartext returns the canonical text and its signatures. Anything but
// blank lines before or after them is refused, because it would look signed to a
// reader.
func decodeCleartext(data []byte) (text []byte, all []*candidate, err error) {
	damaged := errors.New("the cleartext signature is damaged")
	data = trimBlank(data)
	// In the text such a line would begin with "- ".
	i := bytes.Index(data, []byte("\n"+armorBegin(openpgp.SignatureType)))
	if i < 0 {
		return nil, nil, damaged
	}
	packets, err := decodeSignatures(data[i+1:])
	if err != nil {
		return nil, nil, err
	}
	if all, err = readSignatures(packets); err != nil {
		return nil, nil, err
	}
	// The library reads the text, and there is one block for it.
	armored, err := Armor(packets)
	if err != nil {
		return nil, nil, err
	}
	block, rest := clearsign.Decode(slices.Concat(data[:i+1], armored))
	if block == nil || len(rest) > 0 {
		return nil, nil, damaged
	}
	for _, c := range all {
		if c.reason == "" && c.sig.SigType != packet.SigTypeText {
			return nil, nil, errors.New("the cleartext signature is not of the type for text")
		}
	}
	return block.Bytes, all, nil
}

// checkCleartext judges the signatures and whether data is the text they are of.
func (v *Verifier) checkCleartext(ctx context.Context, name string, data io.Reader, sigFile []byte) File {
	f := File{FileDigest: FileDigest{Name: name}}
	content, err := readBounded(data, maxCleartext)
	if err == nil {
		f.FileDigest, err = digestOf(ctx, v.digester(), name, bytes.NewReader(content))
	}
	if err != nil {
		f.fail(statusAndReason(err))
		return f
	}
	text, all, err := decodeCleartext(sigFile)
	if err != nil {
		f.fail(Bad, Malformed, "signature: "+err.Error())
		return f
	}
	if !bytes.Equal(canonicalText(content), text) {
		f.fail(Bad, BadSignature, "the file is not the text that was signed")
		return f
	}
	d := v.digester()
	for _, c := range all {
		c.prepare(d)
	}
	if _, err := d.read(ctx, bytes.NewReader(text)); err != nil {
		f.fail(Bad, Unreadable, err.Error())
		return f
	}
	v.conclude(&f, all, d)
	return f
}

// Cleartext judges a text with cleartext signatures and returns the text, with
// LF line ends and without white space at the ends of lines; only a text whose
// error is nil may be believed. name is as in [Verifier.Detached].
func (v *Verifier) Cleartext(ctx context.Context, name string, signed io.Reader) ([]byte, *Verification, error) {
	if v.Keyring == nil {
		return nil, nil, errors.New("cannot verify: there is no keyring")
	}
	f := File{FileDigest: FileDigest{Name: name}}
	var text []byte
	data, err := readBounded(signed, maxCleartext)
	if err != nil {
		f.fail(statusAndReason(err))
	} else {
		text, f = v.checkWhole(ctx, name, data)
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	result, err := one(f)
	return text, result, err
}

// checkWhole judges a text with cleartext signatures and returns the text. The
// digests are those of the text.
func (v *Verifier) checkWhole(ctx context.Context, name string, data []byte) ([]byte, File) {
	var text []byte
	err := errors.New("it has no cleartext signature: it is " + describe(data))
	if isCleartext(data) {
		text, _, err = decodeCleartext(data)
	}
	if err != nil {
		f := File{FileDigest: FileDigest{Name: name}}
		f.fail(Bad, Malformed, err.Error())
		return nil, f
	}
	plain := append(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), '\n')
	return plain, v.checkCleartext(ctx, name, bytes.NewReader(plain), data)
}
