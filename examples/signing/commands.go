package main

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func keygen(_ context.Context, o *options) error {
	if o.name == "" || o.email == "" || o.file == "" || len(o.args) > 0 {
		return errors.New("keygen needs -name, -email and -out, and nothing else")
	}
	public := o.file + ".pub"
	for _, path := range []string{o.file, public} {
		if _, err := os.Lstat(path); err == nil { //nolint:gosec // the path is the caller's
			return fmt.Errorf("%s exists: keys are never overwritten", path)
		}
	}
	key, err := signing.GenerateKey(signing.KeyConfig{
		Name: o.name, Email: o.email, Algorithm: signing.Algorithm(o.algorithm), Lifetime: o.lifetime, V6: o.v6,
	})
	if err != nil {
		return err
	}
	if err := key.WriteSecretFile(o.file); err != nil {
		return err
	}
	if err := key.WritePublicFile(public); err != nil {
		return errors.Join(err, os.Remove(o.file)) //nolint:gosec // the path is the caller's
	}
	if o.json {
		return o.writeJSON(map[string]any{"fingerprint": key.Fingerprint(), "user_id": key.UserID(), "secret": o.file, "public": public})
	}
	_, err = fmt.Fprintf(o.out, "%s %s\nsecret key: %s\npublic key: %s\n", key.Fingerprint(), key.UserID(), o.file, public)
	return err
}

func sign(ctx context.Context, o *options) error {
	if len(o.args) == 0 {
		return errors.New("sign needs files")
	}
	signers, err := o.signers(ctx)
	if err != nil {
		return err
	}
	sealer := &signing.Sealer{Signers: signers, Digests: []crypto.Hash{}} // SHA-256 alone
	sign := sealer.SignFile
	if o.clear {
		sign = sealer.ClearSignFile
	}
	var files []signing.FileDigest
	for _, path := range o.args {
		file, err := sign(ctx, path)
		if err != nil {
			return err
		}
		file.Name = path
		files = append(files, file)
	}
	return o.writeSigned(signers, files)
}

func signDir(ctx context.Context, o *options) error {
	if len(o.args) != 1 {
		return errors.New("sign-dir needs one directory")
	}
	signers, err := o.signers(ctx)
	if err != nil {
		return err
	}
	files, err := signing.SignDir(ctx, o.args[0], signers...)
	if err != nil {
		return err
	}
	return o.writeSigned(signers, files)
}

func attest(ctx context.Context, o *options) error {
	if len(o.args) == 0 || o.file == "" || o.buildType == "" || o.builder == "" {
		return errors.New("attest needs -out, -build-type, -builder and files")
	}
	params := map[string]any{}
	for _, p := range o.params {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return errors.New("-param must be NAME=VALUE")
		}
		params[name] = value
	}
	signers, err := o.signers(ctx)
	if err != nil {
		return err
	}
	provenance := signing.Provenance{BuildType: o.buildType, BuilderID: o.builder, External: params}
	files, err := (&signing.Sealer{Signers: signers}).Attest(ctx, o.file, provenance, o.args...)
	if err != nil {
		return err
	}
	return o.writeSigned(signers, files)
}

func (o *options) writeSigned(signers []*signing.Signer, files []signing.FileDigest) error {
	if o.json {
		var all []signing.Fingerprint
		for _, s := range signers {
			all = append(all, s.Fingerprint())
		}
		return o.writeJSON(map[string]any{"ok": true, "fingerprint": all[0], "fingerprints": all, "files": files})
	}
	for _, f := range files {
		if _, err := fmt.Fprintf(o.out, "%s  %s\n", f.SHA256, f.Name); err != nil {
			return err
		}
	}
	return nil
}

func verify(ctx context.Context, o *options) error {
	if len(o.args) == 0 || o.signature != "" && len(o.args) != 1 {
		return errors.New("verify needs files, and one with -signature")
	}
	v, err := o.verifier()
	if err != nil {
		return err
	}
	all := &signing.Verification{}
	var trouble []error
	for _, path := range o.args {
		result, err := verifyFile(ctx, v, path, o.signature)
		if result == nil {
			trouble = append(trouble, err)
			continue
		}
		result.Files[0].Name = path
		all.Files = append(all.Files, result.Files...)
	}
	err = o.writeVerification(all)
	if len(trouble) > 0 {
		return errors.Join(trouble...)
	}
	return err
}

func verifyFile(ctx context.Context, v *signing.Verifier, path, signature string) (*signing.Verification, error) {
	if signature == "" {
		return v.File(ctx, path)
	}
	sig, err := os.Open(signature) //nolint:gosec // the path is the caller's
	if err != nil {
		return nil, err
	}
	defer sig.Close()
	data, err := os.Open(path) //nolint:gosec // the path is the caller's
	if err != nil {
		return nil, err
	}
	defer data.Close()
	return v.Detached(ctx, filepath.Base(path), data, sig)
}

func verifyDir(ctx context.Context, o *options) error {
	if len(o.args) != 1 {
		return errors.New("verify-dir needs one directory")
	}
	v, err := o.verifier()
	if err != nil {
		return err
	}
	result, err := v.VerifyDir(ctx, o.args[0])
	return o.report(result, err)
}

func verifySums(ctx context.Context, o *options) error {
	if len(o.args) == 0 {
		return errors.New("verify-sums needs a checksum file, and perhaps names that it lists")
	}
	v, err := o.verifier()
	if err != nil {
		return err
	}
	result, err := v.Checksums(ctx, o.args[0], o.signature, o.args[1:]...)
	return o.report(result, err)
}

func verifyAttestation(ctx context.Context, o *options) error {
	if len(o.args) == 0 {
		return errors.New("verify-attestation needs an attestation, and perhaps the files that it is about")
	}
	v, err := o.verifier()
	if err != nil {
		return err
	}
	_, result, err := v.Attestation(ctx, o.args[0], o.args[1:]...)
	return o.report(result, err)
}

// report writes a result; without one the error says why.
func (o *options) report(result *signing.Verification, err error) error {
	if result == nil {
		return err
	}
	return o.writeVerification(result)
}

func (o *options) writeVerification(v *signing.Verification) error {
	var err error
	if o.json {
		err = o.writeJSON(v)
	} else {
		_, err = fmt.Fprint(o.out, v)
	}
	if err != nil || v.OK() {
		return err
	}
	if err := v.Err(); errors.Is(err, signing.Unreadable) {
		return err
	}
	return errNotGood
}

func keys(_ context.Context, o *options) error {
	ring, err := o.loadKeyring()
	if err != nil {
		return err
	}
	type row struct {
		Fingerprint signing.Fingerprint `json:"fingerprint"`
		UserID      string              `json:"user_id"`
		From        *time.Time          `json:"from"`
		Until       *time.Time          `json:"until"`
		Purposes    []signing.Purpose   `json:"purposes"`
		Comment     string              `json:"comment"`
		Material    bool                `json:"material"`
	}
	rows := []row{}
	for _, pin := range ring.Pins() {
		r := row{Fingerprint: pin.Fingerprint, Purposes: pin.Purposes, Comment: pin.Comment, From: orNull(pin.From), Until: orNull(pin.Until)}
		if key := ring.Key(pin.Fingerprint); key != nil {
			r.UserID, r.Material = key.UserID(), true
		}
		rows = append(rows, r)
		if !o.json {
			if pin.Comment == "" {
				pin.Comment = r.UserID
			}
			if _, err := fmt.Fprintln(o.out, pin); err != nil {
				return err
			}
		}
	}
	if o.json {
		skipped := []string{}
		for _, err := range ring.Skipped() {
			skipped = append(skipped, err.Error())
		}
		return o.writeJSON(map[string]any{"keys": rows, "skipped": skipped})
	}
	return nil
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (o *options) writeJSON(v any) error {
	enc := json.NewEncoder(o.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
