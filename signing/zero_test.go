package signing_test

import (
	"crypto"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// hollow is an external signer without anything in it.
type hollow struct{ crypto.Signer }

// TestZeroValues: what was not filled in fails by name, and prints.
func TestZeroValues(t *testing.T) {
	ctx := t.Context()
	path := writeData(t)
	dir := newRelease(t)
	key := newKey(t, signing.KeyConfig{})
	var noKey *signing.Key
	for name, c := range map[string]struct {
		do   func() error
		want string
	}{
		"KeyConfig": {func() error { _, err := signing.GenerateKey(signing.KeyConfig{}); return err }, "a name or an email"},
		"KeyConfig.Signer": {func() error {
			_, err := signing.GenerateKey(signing.KeyConfig{Name: "a", Signer: hollow{}})
			return err
		}, "external signer"},
		"Key":             {func() error { return (&signing.Key{}).Err() }, "there is no key"},
		"nil Key":         {func() error { return noKey.Err() }, "there is no key"},
		"Key public":      {func() error { return (&signing.Key{}).WritePublicFile(path + ".pub") }, "there is no key"},
		"Key secret":      {func() error { return noKey.WriteSecretFile(path + ".key") }, "no secret part"},
		"NewSigner nil":   {func() error { _, err := signing.NewSigner(nil, signing.SignerConfig{}); return err }, "there is no key"},
		"NewSigner empty": {func() error { _, err := signing.NewSigner(&signing.Key{}, signing.SignerConfig{}); return err }, "there is no key"},
		"External":        {func() error { _, err := signing.NewSigner(key, signing.SignerConfig{External: hollow{}}); return err }, "external signer"},
		"NewAgentSigner": {func() error {
			_, err := signing.NewAgentSigner(ctx, nil, signing.AgentConfig{}, signing.SignerConfig{})
			return err
		}, "there is no key"},
		"agent and External": {func() error {
			_, err := signing.NewAgentSigner(ctx, key, signing.AgentConfig{}, signing.SignerConfig{External: hollow{}})
			return err
		}, "External is set"},
		"PinKeys nil": {func() error { _, err := signing.PinKeys(nil); return err }, "there is no key"},
		"Pin":         {func() error { _, err := signing.NewKeyring([]signing.Pin{{}}); return err }, "0 digits"},
		"Sealer":      {func() error { _, err := (&signing.Sealer{}).SignDir(ctx, dir); return err }, "there is no signer"},
		"Sealer file": {func() error { _, err := (&signing.Sealer{}).SignFile(ctx, path); return err }, "there is no signer"},
		"Signer":      {func() error { _, err := signing.SignDir(ctx, dir, &signing.Signer{}); return err }, "NewSigner"},
		"nil Signer":  {func() error { _, err := signing.SignDir(ctx, dir, nil); return err }, "NewSigner"},
		"Sealer text": {func() error {
			_, err := (&signing.Sealer{Signers: []*signing.Signer{nil}}).Cleartext(ctx, strings.NewReader("a"))
			return err
		}, "NewSigner"},
		"Statement": {func() error {
			_, err := (&signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}).Envelope(ctx, nil)
			return err
		}, "would not be read"},
		"empty Statement": {func() error {
			_, err := (&signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}).Envelope(ctx, &signing.Statement{})
			return err
		}, "cannot sign a statement"},
		"Provenance": {func() error { _, err := signing.Provenance{}.Statement(); return err }, "a build type"},
		"TestResult": {func() error { _, err := signing.TestResult{}.Statement(); return err }, "there is no test"},
		"strange Digest": {func() error {
			_, err := (&signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}, Digests: []crypto.Hash{99}}).SignDir(ctx, dir)
			return err
		}, "not available"},
		"Verifier":      {func() error { _, err := (&signing.Verifier{}).VerifyDir(ctx, dir); return err }, "there is no keyring"},
		"Verifier file": {func() error { _, err := (&signing.Verifier{}).File(ctx, path); return err }, "there is no keyring"},
		"Verifier sums": {func() error { _, err := (&signing.Verifier{}).Checksums(ctx, path, ""); return err }, "there is no keyring"},
		"Verifier attestation": {func() error {
			_, _, err := (&signing.Verifier{}).Attestation(ctx, path)
			return err
		}, "there is no keyring"},
		"Verifier text": {func() error {
			_, _, err := (&signing.Verifier{}).Cleartext(ctx, "a", strings.NewReader(""))
			return err
		}, "there is no keyring"},
		"Keyring":        {func() error { _, err := signing.VerifyDir(ctx, dir, &signing.Keyring{}); return err }, "missing"},
		"Keyring, empty": {func() error { _, err := signing.VerifyDir(ctx, sealedRelease(t, key), &signing.Keyring{}); return err }, string(signing.UnknownKey)},
		"strange hash": {func() error {
			_, err := (&signing.Verifier{Keyring: pinned(t, key), Digests: []crypto.Hash{99}}).VerifyDir(ctx, sealedRelease(t, key))
			return err
		}, "not available"},
		"Verification": {func() error { return (&signing.Verification{}).Err() }, "there is no file"},
		"File":         {func() error { return (&signing.Verification{Files: []signing.File{{}}}).Err() }, "no reason given"},
		"Error":        {func() error { return &signing.Error{} }, "no reason given"},
		"Fingerprint":  {func() error { _, err := signing.ParseFingerprint(""); return err }, "0 digits"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.do()
			require.Error(t, err)
			require.ErrorContains(t, err, c.want)
		})
	}
	require.NoFileExists(t, filepath.Join(dir, signing.SumsFile))

	var noError *signing.Error
	for _, v := range []any{
		signing.Error{}, noError, signing.File{}, &signing.File{}, signing.Verification{}, &signing.Verification{Files: []signing.File{{}}}, signing.Signature{}, signing.Pin{},
		signing.Keyring{}, &signing.Signer{}, signing.SignerConfig{}, signing.KeyConfig{}, signing.AgentConfig{}, signing.Sealer{}, signing.Verifier{}, signing.Statement{},
		signing.Provenance{}, signing.TestResult{}, signing.Resource{}, signing.FileDigest{}, signing.Reason(""), signing.Status(""), signing.Purpose(""), signing.Fingerprint(""),
	} {
		require.NotContains(t, fmt.Sprintf("%v %+v %s", v, v, v), "PANIC", "%T", v)
	}
	for _, v := range []any{signing.File{}, &signing.Verification{}, signing.FileDigest{}, signing.Statement{}} {
		_, err := json.Marshal(v)
		require.NoError(t, err, "%T", v)
	}
	require.Empty(t, noKey.Fingerprint())
	require.Empty(t, noKey.UserID())
	require.Empty(t, (&signing.Signer{}).Fingerprint())
	require.Empty(t, (&signing.Keyring{}).Pins())
	require.Nil(t, (&signing.Keyring{}).Key(""))
	require.False(t, (&signing.Verification{Files: []signing.File{{}}}).OK())
}

func sealedRelease(t *testing.T, key *signing.Key) string {
	t.Helper()
	dir := newRelease(t)
	_, err := signing.SignDir(t.Context(), dir, newSigner(t, key))
	require.NoError(t, err)
	return dir
}
