// Package oracle reads with other people's libraries what the factory has put into a
// release: the directory that RELEASE names, whose signer's keys are in KEYS.
package oracle_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/github/go-spdx/v2/spdxexp"
	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/openvex/go-vex/pkg/vex"
	"github.com/package-url/packageurl-go"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"google.golang.org/protobuf/encoding/protojson"
)

func file(t *testing.T, suffix string) string {
	t.Helper()
	dir := os.Getenv("RELEASE")
	if dir == "" {
		t.Skip("RELEASE names no release")
	}
	found, err := filepath.Glob(filepath.Join(dir, "*-[0-9]*-[0-9]*"+suffix))
	if err != nil || len(found) == 0 {
		t.Fatalf("the release has no *%s: %v", suffix, err)
	}
	for _, name := range found { // the shortest: not .test.provenance.json
		if len(name) < len(found[0]) {
			found[0] = name
		}
	}
	return found[0]
}

// gpgv verifies a signature with GnuPG.
type gpgv struct{ id string }

func (g gpgv) KeyID() (string, error)   { return g.id, nil }
func (g gpgv) Public() crypto.PublicKey { return nil }

func (g gpgv) Verify(ctx context.Context, data, sig []byte) error {
	dir, err := os.MkdirTemp("", "oracle")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "sig")
	if err := os.WriteFile(name, sig, 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "gpgv", "--homedir", dir, "--keyring", os.Getenv("KEYS"), name, "-")
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("gpgv: %w: %s", err, out)
	}
	return nil
}

func open(t *testing.T, data []byte) ([]byte, error) {
	t.Helper()
	var e dsse.Envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	if len(e.Signatures) != 1 {
		return nil, errors.New("not one signature")
	}
	verifier, err := dsse.NewEnvelopeVerifier(gpgv{e.Signatures[0].KeyID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.Verify(t.Context(), &e); err != nil {
		return nil, err
	}
	return e.DecodeB64Payload()
}

// The reference implementation of DSSE takes the envelopes, with GnuPG for the
// signature, and in-toto's own types take the statement.
func TestEnvelope(t *testing.T) {
	for _, suffix := range []string{".provenance.json", ".test.provenance.json"} {
		data, err := os.ReadFile(file(t, suffix))
		if err != nil {
			t.Fatal(err)
		}
		payload, err := open(t, data)
		if err != nil {
			t.Fatalf("%s: %v", suffix, err)
		}
		var s intoto.Statement
		if err := protojson.Unmarshal(payload, &s); err != nil {
			t.Fatalf("%s: %v", suffix, err)
		}
		if err := s.Validate(); err != nil {
			t.Fatalf("%s: %v", suffix, err)
		}
		if suffix == ".provenance.json" {
			predicate, err := protojson.Marshal(s.Predicate)
			if err != nil {
				t.Fatal(err)
			}
			var p provenance.Provenance
			if err := protojson.Unmarshal(predicate, &p); err != nil {
				t.Fatal(err)
			}
			if err := p.Validate(); err != nil {
				t.Fatal(err)
			}
			if len(p.BuildDefinition.ResolvedDependencies) < 5 {
				t.Error("hardly any material")
			}
		}
		// A payload of one other bit is refused.
		at := bytes.Index(data, []byte(`"payload": "`)) + 40
		data[at] ^= 1
		if _, err := open(t, data); err == nil {
			t.Errorf("%s: a flipped bit is taken", suffix)
		}
	}
}

func TestVEX(t *testing.T) {
	d, err := vex.Open(file(t, ".vex.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Statements) == 0 || d.Context != "https://openvex.dev/ns/v0.2.0" {
		t.Fatalf("%+v", d)
	}
	for i := range d.Statements {
		if err := d.Statements[i].Validate(); err != nil {
			t.Error(err)
		}
		image := "pkg:generic/" + filepath.Base(filepath.Dir(os.Getenv("RELEASE"))) + "@" + filepath.Base(os.Getenv("RELEASE"))
		if got := d.StatementsByVulnerability(string(d.Statements[i].Vulnerability.Name)); len(got) != 1 {
			t.Errorf("%d statements", len(got))
		}
		if d.Statements[i].Products[0].ID != image {
			t.Errorf("%q is not %q", d.Statements[i].Products[0].ID, image)
		}
	}
}

// Each package of the bill of materials has a URL that the reference implementation of
// package URLs reads as what it is, and each licence is an expression to go-spdx.
func TestBillOfMaterials(t *testing.T) {
	data, err := os.ReadFile(file(t, ".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	bom := new(cdx.BOM)
	if err := cdx.NewBOMDecoder(bytes.NewReader(data), cdx.BOMFileFormatJSON).Decode(bom); err != nil {
		t.Fatal(err)
	}
	packages, licences := 0, 0
	for _, c := range *bom.Components {
		if c.Type != cdx.ComponentTypeLibrary {
			continue
		}
		packages++
		u, err := packageurl.FromString(c.PackageURL)
		if err != nil {
			t.Errorf("%s: %v", c.PackageURL, err)
			continue
		}
		version := u.Version
		if epoch := u.Qualifiers.Map()["epoch"]; epoch != "" {
			version = epoch + ":" + version
		}
		if u.Name != c.Name || version != c.Version {
			t.Errorf("%s is not %s %s", c.PackageURL, c.Name, c.Version)
		}
		if c.Licenses == nil || (*c.Licenses)[0].Expression == "" {
			continue
		}
		licences++
		if _, err := spdxexp.ExtractLicenses((*c.Licenses)[0].Expression); err != nil {
			t.Errorf("%s: %q: %v", c.Name, (*c.Licenses)[0].Expression, err)
		}
	}
	if packages == 0 || licences == 0 {
		t.Errorf("%d packages, %d licences", packages, licences)
	}
}
