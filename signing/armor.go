package signing

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
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
// by, so here every byte counts: there is one block, nothing before it and after
// it, and the last line has its end.
func decodeSignatures(data []byte) ([]byte, error) {
	if len(data) > 0 && data[0]&0x80 != 0 {
		return data, nil
	}
	if !bytes.HasSuffix(data, []byte("\n")) {
		return nil, errors.New("it is cut short: the last line has no end")
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	return decodeBlock(lines)
}

func decodeBlock(lines []string) ([]byte, error) {
	const begin, end = "-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----"
	if lines[0] != begin {
		return nil, fmt.Errorf("there is something other than an armored signature: %.60q", lines[0])
	}
	lines = lines[1:]
	for len(lines) > 0 && strings.Contains(lines[0], ": ") { // Version, Comment, …
		lines = lines[1:]
	}
	if len(lines) == 0 || lines[0] != "" {
		return nil, errors.New("the armor has no empty line before the signature")
	}
	lines = lines[1:]
	var text strings.Builder
	var crc string
	for {
		if len(lines) == 0 {
			return nil, errors.New("the armor has no end line")
		}
		line := lines[0]
		lines = lines[1:]
		if line == end {
			break
		}
		if crc != "" {
			return nil, errors.New("the armor has something after its checksum")
		}
		if sum, ok := strings.CutPrefix(line, "="); ok {
			crc = sum
			continue
		}
		text.WriteString(line)
	}
	if len(lines) > 0 {
		return nil, errors.New("something follows the armored signature")
	}
	block, err := base64.StdEncoding.Strict().DecodeString(text.String())
	if err != nil {
		return nil, fmt.Errorf("the armor is damaged: %w", err)
	}
	if crc != "" && crc != armorChecksum(block) {
		return nil, errors.New("the armor's checksum is wrong")
	}
	return block, nil
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
