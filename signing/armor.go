package signing

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Armor returns binary signatures in the form that .asc files have (RFC 9580,
// section 6.2).
func Armor(signatures []byte) ([]byte, error) {
	var out bytes.Buffer
	err := writeArmored(&out, openpgp.SignatureType, func(w io.Writer) error {
		_, err := w.Write(signatures)
		return err
	})
	return out.Bytes(), err
}

func writeArmored(w io.Writer, blockType string, body func(io.Writer) error) error {
	// The CRC of RFC 4880 is obsolete (RFC 9580, section 6.1), but rpm and old
	// gpg versions complain where it is missing.
	enc, err := armor.EncodeWithChecksumOption(w, blockType, nil, true)
	if err != nil {
		return err
	}
	if err := body(enc); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return err
	}
	_, err = io.WriteString(w, "\n")
	return err
}

// decodeSignatures returns the packets of a signature file, binary or armored.
//
// The library's decoder skips what it does not understand and ignores the CRC
// and the bits that pad base64. A signature file is what a release is judged
// by, so here every byte counts: there are one or more blocks, nothing but
// blank lines around them, and each has its end.
func decodeSignatures(data []byte) ([]byte, error) {
	data = trimBOM(data)
	if len(data) > 0 && data[0]&0x80 != 0 && !isUTF16(data) {
		return data, nil
	}
	var packets []byte
	for rest := data; ; {
		line, after := cutLine(rest)
		if line == "" && len(after) == 0 {
			break
		}
		if line == "" {
			rest = after
			continue
		}
		if line != armorBegin(openpgp.SignatureType) {
			if len(packets) > 0 {
				return nil, errors.New("there is something besides the armored signature")
			}
			if what := describe(data); what != describe([]byte(armorBegin(openpgp.SignatureType))) {
				return nil, errors.New("it is " + what + ", not an OpenPGP signature")
			}
			return nil, errors.New("the armor is damaged: its first line is not as it must be")
		}
		block, after, err := decodeBlock(after, openpgp.SignatureType, true)
		if err != nil {
			return nil, err
		}
		packets = append(packets, block...)
		rest = after
	}
	if len(packets) == 0 {
		return nil, errors.New("it holds no signature")
	}
	return packets, nil
}

func armorBegin(kind string) string { return "-----BEGIN " + kind + "-----" }

// cutLine returns the first line without its end and the white space before
// that, which counts nowhere in armor.
func cutLine(data []byte) (line string, rest []byte) {
	first, rest, _ := bytes.Cut(data, []byte("\n"))
	return string(bytes.TrimRight(first, " \t\r")), rest
}

// decodeBlock decodes an armor block from the line after its beginning, and
// returns what follows it. Where it is strict the checksum and the bits that pad
// base64 must be right too.
func decodeBlock(data []byte, kind string, strict bool) (block, rest []byte, err error) {
	line, rest := cutLine(data)
	for strings.Contains(line, ": ") || strings.HasSuffix(line, ":") { // Version, Comment, …
		line, rest = cutLine(rest)
	}
	if line != "" {
		return nil, nil, errors.New("the armor has no empty line before its content")
	}
	var text strings.Builder
	var crc string
	end := "-----END " + kind + "-----"
	for {
		at := rest
		if line, rest = cutLine(rest); line == end {
			break
		}
		if strings.HasPrefix(line, end+"-----BEGIN PGP ") { // cat put it behind a file without a last newline
			rest = at[len(end):]
			break
		}
		if line == "" && len(rest) == 0 || strings.HasPrefix(line, "-----") {
			return nil, nil, errors.New("it is cut short: the armor has no end line")
		}
		if line == "" {
			continue
		}
		if crc != "" {
			return nil, nil, errors.New("the armor has something after its checksum")
		}
		if sum, ok := strings.CutPrefix(line, "="); ok {
			crc = sum
			continue
		}
		text.WriteString(line)
	}
	encoding := base64.StdEncoding
	if strict {
		encoding = encoding.Strict()
	}
	if block, err = encoding.DecodeString(text.String()); err != nil {
		return nil, nil, errors.New("the armor is damaged")
	}
	if strict && crc != "" && crc != armorChecksum(block) {
		return nil, nil, errors.New("the armor's checksum is wrong")
	}
	return block, rest, nil
}

// armorChecksum is the CRC-24 of RFC 9580, section 6.1.1.
func armorChecksum(data []byte) string {
	crc := uint32(0xb704ce)
	for _, b := range data {
		crc ^= uint32(b) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return base64.StdEncoding.EncodeToString([]byte{byte(crc >> 16), byte(crc >> 8), byte(crc)})
}
