package signing

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// candidate is a signature packet and the keys that may have made it.
type candidate struct {
	sig    *packet.Signature
	direct hash.Hash // not shared: salted or of text
	reason Reason    // why it is not even tried
	detail string
}

// readSignatures parses a signature file, armored or binary.
func readSignatures(data []byte) ([]*candidate, error) {
	if len(data) > maxSignatureFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxSignatureFile)
	}
	packets, err := decodeSignatures(data)
	if err != nil {
		return nil, err
	}
	reader := packet.NewOpaqueReader(bytes.NewReader(packets))
	var all []*candidate
	seen := map[string]bool{}
	for {
		opaque, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(all) == maxSignatures {
			return nil, fmt.Errorf("it holds more than %d signatures", maxSignatures)
		}
		if seen[string(opaque.Contents)] {
			return nil, errors.New("it holds a signature twice")
		}
		seen[string(opaque.Contents)] = true
		c, err := readSignature(opaque)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("it holds no signature")
	}
	return all, nil
}

func readSignature(opaque *packet.OpaquePacket) (*candidate, error) {
	const signatureTag = 2
	if opaque.Tag != signatureTag {
		return nil, fmt.Errorf("it holds a packet of type %d, not a signature", opaque.Tag)
	}
	var whole bytes.Buffer
	if err := opaque.Serialize(&whole); err != nil {
		return nil, err
	}
	p, err := packet.NewReader(&whole).NextWithUnsupported()
	if err != nil {
		return nil, err
	}
	if unsupported, ok := p.(*packet.UnsupportedPacket); ok {
		p = unsupported.IncompletePacket
		if sig, ok := p.(*packet.Signature); ok {
			return &candidate{sig: sig, reason: Unsupported, detail: unsupported.Error.Error()}, nil
		}
	}
	sig, ok := p.(*packet.Signature)
	if !ok {
		return nil, errors.New("it holds something other than a signature")
	}
	// The library does not mind what follows a signature in its packet.
	var again bytes.Buffer
	if err := sig.Serialize(&again); err != nil {
		return nil, err
	}
	parsed, err := packet.NewOpaqueReader(&again).Next()
	if err != nil || !bytes.Equal(parsed.Contents, opaque.Contents) {
		return nil, errors.New("the signature packet is not in its plain form")
	}
	return &candidate{sig: sig}, nil
}

// prepare makes the hash of the signature part of the pass.
func (c *candidate) prepare(d *digester) {
	if c.reason != "" {
		return
	}
	sig := c.sig
	refuse := func(r Reason, detail string) { c.reason, c.detail = r, detail }
	switch {
	case sig.SigType != packet.SigTypeBinary && sig.SigType != packet.SigTypeText:
		refuse(Unsupported, fmt.Sprintf("signature type 0x%02x is not one over a file", byte(sig.SigType)))
		return
	case !strongHash(sig.Hash):
		refuse(WeakHash, sig.Hash.String())
		return
	case sig.IssuerKeyId == nil:
		refuse(Malformed, "the signature does not name its key")
		return
	}
	if sig.Version < 6 && sig.SigType == packet.SigTypeBinary {
		d.use(sig.Hash)
		return
	}
	c.direct = newHash(sig.Hash)
	_, _ = c.direct.Write(sig.Salt()) // which version 4 has none of
	if sig.SigType == packet.SigTypeText {
		d.add(openpgp.NewCanonicalTextHash(c.direct))
	} else {
		d.add(c.direct)
	}
}

func strongHash(h crypto.Hash) bool {
	switch h {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
		return h.Available()
	}
	return false
}

// verifies leaves no bit of a signature open: the library does not compare the
// beginning of the digest for version 4, nor the stated length of numbers.
func verifies(pub *packet.PublicKey, sig *packet.Signature, h hash.Hash) bool {
	if pub.VerifySignature(h, sig) != nil {
		return false
	}
	if digest := h.Sum(nil); digest[0] != sig.HashTag[0] || digest[1] != sig.HashTag[1] {
		return false
	}
	switch sig.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		return canonical(sig.RSASignature)
	case packet.PubKeyAlgoECDSA:
		return canonical(sig.ECDSASigR) && canonical(sig.ECDSASigS)
	case packet.PubKeyAlgoEdDSA:
		return canonical(sig.EdDSASigR) && canonical(sig.EdDSASigS)
	}
	return true
}

// canonical says whether a number has the length that it states (RFC 9580,
// section 3.2).
func canonical(mpi interface {
	Bytes() []byte
	BitLength() uint16
}) bool {
	return new(big.Int).SetBytes(mpi.Bytes()).BitLen() == int(mpi.BitLength())
}

func (c *candidate) hash(d *digester) (hash.Hash, error) {
	if c.direct == nil {
		return d.clone(c.sig.Hash)
	}
	cloner, ok := c.direct.(hash.Cloner)
	if !ok {
		return nil, errors.New("the hash cannot be shared")
	}
	return cloner.Clone()
}
