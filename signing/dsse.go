package signing

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	payloadType = "application/vnd.in-toto+json"
	maxEnvelope = 16 << 20

	// provenanceSuffix ends the names of files with an envelope.
	provenanceSuffix = ".provenance.json"
)

// envelope is a DSSE envelope, version 1.0.
type envelope struct {
	Payload     string              `json:"payload"`
	PayloadType string              `json:"payloadType"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// preAuthEncoding is what a DSSE signature signs.
func preAuthEncoding(typ string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(typ), typ, len(payload), payload)
}

// Envelope returns the statement in a DSSE envelope, signed by all signers. Each
// signature is a binary detached OpenPGP signature, with the fingerprint of the
// primary key as its key ID. In a release directory it belongs into a file named
// *.provenance.json, where [VerifyDir] checks it.
func (s *Sealer) Envelope(ctx context.Context, statement *Statement) ([]byte, error) {
	out, err := s.envelope(ctx, statement)
	if err != nil {
		return nil, fmt.Errorf("cannot sign a statement: %w", err)
	}
	return out, nil
}

func (s *Sealer) envelope(ctx context.Context, statement *Statement) ([]byte, error) {
	payload, err := json.Marshal(statement)
	if err != nil {
		return nil, err
	}
	d := newDigester()
	all, err := begin(d, s.Signers, packet.SigTypeBinary)
	if err != nil {
		return nil, err
	}
	if _, err := d.read(ctx, bytes.NewReader(preAuthEncoding(payloadType, payload))); err != nil {
		return nil, err
	}
	e := envelope{Payload: base64.StdEncoding.EncodeToString(payload), PayloadType: payloadType}
	for i, p := range all {
		var sig bytes.Buffer
		if err := complete(ctx, &sig, d, all[i:i+1]); err != nil {
			return nil, err
		}
		e.Signatures = append(e.Signatures, envelopeSignature{
			KeyID: string(p.signer.Fingerprint()),
			Sig:   base64.StdEncoding.EncodeToString(sig.Bytes()),
		})
	}
	out, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil, err
	}
	out = append(out, '\n')
	return out, s.envelopeReadable(ctx, out)
}

// envelopeReadable reads back an envelope that was made.
func (s *Sealer) envelopeReadable(ctx context.Context, out []byte) error {
	if len(out) > maxEnvelope {
		return fmt.Errorf("the envelope would be larger than %d bytes", maxEnvelope)
	}
	v, err := s.readBack()
	if err != nil {
		return err
	}
	var f File
	if _, err = v.openEnvelope(ctx, &f, out); err == nil {
		err = f.err()
	}
	if err != nil {
		return fmt.Errorf("the envelope would not be read: %w", err)
	}
	return nil
}

// Envelope judges a DSSE envelope and returns its statement, which may be
// believed only if the error is nil. name is as in [Verifier.Detached]. That the
// subjects are what the statement says is the caller's to compare; VerifyDir does.
func (v *Verifier) Envelope(ctx context.Context, name string, r io.Reader) (*Statement, *Verification, error) {
	if v.Keyring == nil {
		return nil, nil, errors.New("cannot verify: there is no keyring")
	}
	f := File{FileDigest: FileDigest{Name: name}}
	data, err := readBounded(r, maxEnvelope)
	var statement *Statement
	if err == nil {
		if f.FileDigest, err = digestOf(ctx, v.digester(), name, bytes.NewReader(data)); err == nil {
			statement, err = v.openEnvelope(ctx, &f, data)
		}
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	if err != nil {
		f.fail(Bad, Malformed, err.Error())
	}
	result, err := one(f)
	return statement, result, err
}

// openEnvelope sets what is found out about the signatures in f. The error
// says that the envelope is none.
func (v *Verifier) openEnvelope(ctx context.Context, f *File, data []byte) (*Statement, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, errors.New("it is not a DSSE envelope: it is " + describe(data))
	}
	if e.PayloadType != payloadType {
		return nil, errors.New("its payload is not of the type " + payloadType)
	}
	payload, err := decodeBase64(e.Payload)
	if err != nil {
		return nil, errors.New("its payload is damaged")
	}
	all, err := e.candidates()
	if err != nil {
		return nil, err
	}
	d := v.digester()
	for _, c := range all {
		c.prepare(d)
	}
	if _, err := d.read(ctx, bytes.NewReader(preAuthEncoding(e.PayloadType, payload))); err != nil {
		return nil, err
	}
	v.conclude(f, all, d)
	for i, s := range f.Signatures {
		if id := e.Signatures[i].KeyID; s.Reason == "" && id != "" && !strings.EqualFold(id, string(s.Fingerprint)) {
			return nil, fmt.Errorf("a signature of key %s says that it is of another", s.Fingerprint)
		}
	}
	var s Statement
	if err := json.Unmarshal(payload, &s); err != nil {
		return nil, errors.New("its payload is not an in-toto statement")
	}
	if s.Type != StatementType || s.PredicateType == "" || len(s.Subject) == 0 {
		return nil, errors.New("its payload is not an in-toto statement v1 with subjects and a predicate")
	}
	return &s, nil
}

func (e *envelope) candidates() ([]*candidate, error) {
	if len(e.Signatures) == 0 {
		return nil, errors.New("it has no signature")
	}
	if len(e.Signatures) > maxSignatures {
		return nil, fmt.Errorf("it has more than %d signatures", maxSignatures)
	}
	var all []*candidate
	for _, s := range e.Signatures {
		sig, err := decodeBase64(s.Sig)
		if err != nil {
			return nil, errors.New("a signature is damaged")
		}
		one, err := readSignatures(sig)
		if err != nil {
			return nil, fmt.Errorf("signature: %w", err)
		}
		if len(one) != 1 {
			return nil, errors.New("a signature is several")
		}
		all = append(all, one[0])
	}
	return all, nil
}

// decodeBase64 reads the standard or the URL-safe alphabet, as DSSE asks for.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "-_") {
		return base64.URLEncoding.Strict().DecodeString(s)
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// checkProvenance judges the envelopes in a release directory whose files are
// good so far: their signatures, and whether their subjects are files that are
// there with the digests they state. A subject that may be missing is compared with
// what is listed.
func (v *Verifier) checkProvenance(ctx context.Context, root *os.Root, files []File, listed map[string]sumEntry) {
	byName := map[string]*File{}
	for i := range files {
		byName[files[i].Name] = &files[i]
	}
	for i := range files {
		f := &files[i]
		if f.Status != Good || !strings.HasSuffix(f.Name, provenanceSuffix) {
			continue
		}
		data, err := readSmall(root, f.Name, maxEnvelope)
		if sum := sha256.Sum256(data); err == nil && hex.EncodeToString(sum[:]) != f.SHA256 {
			err = errors.New("it changed while the directory was verified")
		}
		if err != nil {
			f.fail(statusAndReason(err))
			continue
		}
		inner := File{FileDigest: f.FileDigest}
		statement, err := v.openEnvelope(ctx, &inner, data)
		switch {
		case err != nil:
			f.fail(Bad, BadProvenance, err.Error())
		case inner.Status != Good:
			f.fail(inner.Status, inner.Reason, inner.Detail)
		default:
			if wrong := compareSubjects(statement.Subject, byName, listed); wrong != "" {
				f.fail(Bad, BadProvenance, wrong)
			}
		}
		f.Fingerprint, f.SignedAt, f.Signatures = inner.Fingerprint, inner.SignedAt, inner.Signatures
	}
}

func compareSubjects(subjects []Resource, files map[string]*File, listed map[string]sumEntry) string {
	for i, s := range subjects {
		var have string
		if f := files[s.Name]; f != nil {
			have = f.SHA256
		}
		have = cmp.Or(have, listed[s.Name].sha256)
		switch {
		case have == "":
			return fmt.Sprintf("its subject %d is not in the directory", i+1)
		case !strings.EqualFold(s.Digest["sha256"], have):
			return fmt.Sprintf("it is about another %q", s.Name)
		}
	}
	return ""
}
