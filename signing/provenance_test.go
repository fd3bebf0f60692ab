package signing_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	testresult "github.com/in-toto/attestation/go/predicates/test_result/v0"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

func exampleProvenance(subjects ...signing.FileDigest) signing.Provenance {
	return signing.Provenance{
		Subjects:        subjects,
		BuildType:       "https://example.com/build/dib/v1",
		BuilderID:       "https://example.com/factory",
		BuilderVersions: map[string]string{"diskimage-builder": "3.13"},
		External:        map[string]any{"image": "Standard_Debian_12", "disk_gib": 4},
		Internal:        map[string]any{"host": "builder-1"},
		Materials: []signing.Resource{{
			Name: "debian-archive-keyring.gpg", Digest: map[string]string{"sha256": sum("keys")},
		}, {URI: "pkg:deb/debian/bash@5.2", Annotations: map[string]any{"arch": "amd64"}}},
		InvocationID: "20240301-120000",
		Started:      at.Add(-time.Hour), Finished: at,
		Byproducts: []signing.Resource{{Name: "build.log", Digest: map[string]string{"sha256": sum("log")}}},
	}
}

// TestStatementsAsInToto: the reference implementation of in-toto takes what we
// state.
func TestStatementsAsInToto(t *testing.T) {
	image := signing.FileDigest{Name: "a.qcow2", SHA256: sum("image"), SHA512: strings.Repeat("ab", 64)}
	parse := func(s *signing.Statement, predicate proto.Message) {
		data, err := json.Marshal(s)
		require.NoError(t, err)
		var statement intoto.Statement
		require.NoError(t, protojson.Unmarshal(data, &statement))
		require.NoError(t, statement.Validate())
		require.Equal(t, sum("image"), statement.Subject[0].Digest["sha256"])
		require.Equal(t, s.PredicateType, statement.PredicateType)
		require.NoError(t, protojson.Unmarshal(s.Predicate, predicate))
	}
	s, err := exampleProvenance(image).Statement()
	require.NoError(t, err)
	var p provenance.Provenance
	parse(s, &p)
	require.NoError(t, p.Validate())
	require.Equal(t, "https://example.com/factory", p.RunDetails.Builder.Id)
	require.Equal(t, at, p.RunDetails.Metadata.FinishedOn.AsTime())
	require.Equal(t, "Standard_Debian_12", p.BuildDefinition.ExternalParameters.Fields["image"].GetStringValue())
	require.Len(t, p.BuildDefinition.ResolvedDependencies, 2)

	result := signing.TestResult{
		Subjects: []signing.FileDigest{image}, Passed: []string{"ssh-ciphers"}, Failed: []string{"root-login"},
		Configuration: []signing.Resource{{Name: "otc", Digest: map[string]string{"sha256": sum("profile")}}},
	}
	s, err = result.Statement()
	require.NoError(t, err)
	var r testresult.TestResult
	parse(s, &r)
	require.Equal(t, "FAILED", r.Result)

	for _, bad := range []interface {
		Statement() (*signing.Statement, error)
	}{
		signing.Provenance{}, signing.Provenance{BuildType: "a", BuilderID: "b"}, signing.TestResult{},
		signing.TestResult{Subjects: []signing.FileDigest{image}},
		signing.TestResult{Subjects: []signing.FileDigest{{Name: "a"}}, Passed: []string{"x"}},
		signing.Provenance{BuildType: "a", BuilderID: "b", Subjects: []signing.FileDigest{image}, External: map[string]any{"f": func() {}}},
	} {
		_, err := bad.Statement()
		require.ErrorContains(t, err, "cannot state")
	}
}

// withProvenance makes a release with two statements about its image.
func withProvenance(t *testing.T, change func(*signing.Provenance), signers ...*signing.Signer) string {
	t.Helper()
	dir := newRelease(t)
	name := "Standard_Debian_12-20240301-120000.qcow2"
	f, err := os.Open(filepath.Join(dir, name))
	require.NoError(t, err)
	defer f.Close()
	sealer := &signing.Sealer{Signers: signers}
	_, image, err := sealer.Detached(t.Context(), name, f)
	require.NoError(t, err)
	p := exampleProvenance(image)
	if change != nil {
		change(&p)
	}
	built, err := p.Statement()
	require.NoError(t, err)
	tested, err := signing.TestResult{Subjects: []signing.FileDigest{image}, Passed: []string{"boots"}}.Statement()
	require.NoError(t, err)
	for suffix, s := range map[string]*signing.Statement{".provenance.json": built, ".test.provenance.json": tested} {
		data, err := sealer.Envelope(t.Context(), s)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, strings.TrimSuffix(name, ".qcow2")+suffix), data, 0o644))
	}
	return dir
}

// sealByHand signs what SignDir refuses.
func sealByHand(t *testing.T, dir string, signer *signing.Signer) {
	t.Helper()
	var sums strings.Builder
	for _, name := range list(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		sums.WriteString(sum(string(content)) + "  " + name + "\n")
	}
	path := filepath.Join(dir, signing.SumsFile)
	require.NoError(t, os.WriteFile(path, []byte(sums.String()), 0o644))
	_, err := (&signing.Sealer{Signers: []*signing.Signer{signer}}).SignFile(t.Context(), path)
	require.NoError(t, err)
}

func TestProvenanceInVerifyDir(t *testing.T) {
	first, second := newKey(t, signing.KeyConfig{}), newKey(t, signing.KeyConfig{Algorithm: signing.ECDSAP384})
	stranger := newKey(t, signing.KeyConfig{})
	file := "Standard_Debian_12-20240301-120000.provenance.json"
	for name, c := range map[string]struct {
		change  func(*signing.Provenance)
		signers []*signing.Signer
		want    signing.Reason
	}{
		"good":           {nil, []*signing.Signer{newSigner(t, first)}, ""},
		"two signers":    {nil, []*signing.Signer{newSigner(t, second), newSigner(t, first)}, ""},
		"one unknown":    {nil, []*signing.Signer{newSigner(t, stranger), newSigner(t, first)}, ""},
		"unknown signer": {nil, []*signing.Signer{newSigner(t, stranger)}, signing.UnknownKey},
		"other image": {func(p *signing.Provenance) { p.Subjects[0].SHA256 = sum("other") },
			[]*signing.Signer{newSigner(t, first)}, signing.BadProvenance},
		"other name": {func(p *signing.Provenance) { p.Subjects[0].Name = "other.qcow2" },
			[]*signing.Signer{newSigner(t, first)}, signing.BadProvenance},
		"path": {func(p *signing.Provenance) { p.Subjects[0].Name = "../" + p.Subjects[0].Name },
			[]*signing.Signer{newSigner(t, first)}, signing.BadProvenance},
	} {
		t.Run(name, func(t *testing.T) {
			dir := withProvenance(t, c.change, c.signers...)
			_, err := signing.SignDir(t.Context(), dir, newSigner(t, first))
			if c.want == signing.BadProvenance {
				require.ErrorIs(t, err, c.want, "it is not signed")
				sealByHand(t, dir, newSigner(t, first))
			} else {
				require.NoError(t, err)
			}
			result, err := verifier(pinned(t, first, second)).VerifyDir(t.Context(), dir)
			require.ErrorIs(t, err, errorOf(c.want))
			require.Equal(t, c.want, result.File(file).Reason)
			require.Len(t, result.File(file).Signatures, len(c.signers))
			require.Equal(t, signing.Good, result.File("release.json").Status)
		})
	}
}

func TestEnvelope(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	v := verifier(pinned(t, key))
	statement, err := exampleProvenance(signing.FileDigest{Name: "a.qcow2", SHA256: sum("image")}).Statement()
	require.NoError(t, err)
	good, err := (&signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}).Envelope(t.Context(), statement)
	require.NoError(t, err)
	got, result, err := v.Envelope(t.Context(), "a.provenance.json", bytes.NewReader(good))
	require.NoError(t, err)
	require.True(t, result.OK())
	require.Equal(t, statement.Subject, got.Subject)

	// The signature is one that gpg makes and verifies, over what DSSE says.
	var e struct {
		Payload, PayloadType string
		Signatures           []struct{ KeyID, Sig string }
	}
	require.NoError(t, json.Unmarshal(good, &e))
	require.Equal(t, "application/vnd.in-toto+json", e.PayloadType)
	require.Equal(t, string(key.Fingerprint()), e.Signatures[0].KeyID)
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	require.NoError(t, err)
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	require.NoError(t, err)
	pae := "DSSEv1 28 application/vnd.in-toto+json " + strconv.Itoa(len(payload)) + " " + string(payload)
	g := newGnuPG(t)
	dir := t.TempDir()
	require.NoError(t, key.WritePublicFile(filepath.Join(dir, "key.asc")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pae"), []byte(pae), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pae.sig"), sig, 0o644))
	g.gpg("--import", filepath.Join(dir, "key.asc"))
	g.gpg("--verify", filepath.Join(dir, "pae.sig"), filepath.Join(dir, "pae"))

	change := func(f func(m map[string]any)) string {
		var m map[string]any
		require.NoError(t, json.Unmarshal(good, &m))
		f(m)
		out, err := json.Marshal(m)
		require.NoError(t, err)
		return string(out)
	}
	first := func(m map[string]any) map[string]any { return m["signatures"].([]any)[0].(map[string]any) }
	urlSafe := change(func(m map[string]any) { m["payload"] = base64.URLEncoding.EncodeToString(payload) })
	_, _, err = v.Envelope(t.Context(), "a.provenance.json", strings.NewReader(urlSafe))
	require.NoError(t, err)
	noID := change(func(m map[string]any) { delete(first(m), "keyid") })
	_, _, err = v.Envelope(t.Context(), "a.provenance.json", strings.NewReader(noID))
	require.NoError(t, err, "a key ID is only a hint")

	for name, c := range map[string]struct {
		text string
		want signing.Reason
	}{
		"other payload": {change(func(m map[string]any) { m["payload"] = base64.StdEncoding.EncodeToString(append(payload, ' ')) }), signing.BadSignature},
		"other type":    {change(func(m map[string]any) { m["payloadType"] = "text/plain" }), signing.Malformed},
		"other key ID":  {change(func(m map[string]any) { first(m)["keyid"] = strings.Repeat("A", 40) }), signing.Malformed},
		"no signature":  {change(func(m map[string]any) { m["signatures"] = []any{} }), signing.Malformed},
		"armored": {change(func(m map[string]any) {
			first(m)["sig"] = base64.StdEncoding.EncodeToString([]byte("-----BEGIN PGP SIGNATURE-----"))
		}), signing.Malformed},
		"not base64":  {change(func(m map[string]any) { m["payload"] = "%" }), signing.Malformed},
		"not JSON":    {"provenance", signing.Malformed},
		"after it":    {string(good) + "{}", signing.Malformed},
		"a list":      {"[]", signing.Malformed},
		"deep":        {strings.Repeat("[", 1_000_000), signing.Malformed},
		"signed text": {change(func(m map[string]any) { m["signatures"] = "none" }), signing.Malformed},
	} {
		_, result, err := v.Envelope(t.Context(), "a.provenance.json", strings.NewReader(c.text))
		require.ErrorIs(t, err, c.want, name)
		require.False(t, result.OK(), name)
	}
}
