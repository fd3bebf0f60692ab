package signing

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
	"unicode/utf8"
)

// The types of statements and predicates.
const (
	StatementType  = "https://in-toto.io/Statement/v1"
	ProvenanceType = "https://slsa.dev/provenance/v1"
	TestResultType = "https://in-toto.io/attestation/test-result/v0.1"
)

// Resource is an in-toto resource descriptor: something that went into a build
// or came out of it. At least one of Name, URI and Digest is needed.
type Resource struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"` // lower-case hexadecimal by algorithm: "sha256"
	Annotations map[string]any    `json:"annotations,omitempty"`
}

// Provenance says how files were built, as SLSA provenance v1.
type Provenance struct {
	// Subjects are the files that were built, with their SHA-256; at least one.
	Subjects []FileDigest

	// BuildType is a URI that says how to read the parameters, and BuilderID
	// one that names who built: both are required.
	BuildType, BuilderID string

	// BuilderVersions of the tools of the builder, by name.
	BuilderVersions map[string]string

	// External are the parameters that the caller of the build controls, and
	// Internal those that the builder adds. Values must be fit for JSON.
	External, Internal map[string]any

	// Materials are what the build used: sources, packages, base images.
	Materials []Resource

	// InvocationID names this build; Started and Finished are its times. Each
	// may be left out.
	InvocationID      string
	Started, Finished time.Time

	// Byproducts are what the build made besides: logs.
	Byproducts []Resource
}

// TestResult says how tests of files ended, as in-toto test-result v0.1.
type TestResult struct {
	// Subjects are the files that were tested, with their SHA-256; at least one.
	Subjects []FileDigest

	// Configuration is what the tests were told: profiles, parameters.
	Configuration []Resource

	// URL of the report, or empty.
	URL string

	// The tests by outcome. The result is FAILED if any failed, else WARNED if
	// any did, else PASSED; there must be one test at least.
	Passed, Warned, Failed []string
}

// Statement is an in-toto statement (attestation framework v1): a predicate
// about files.
type Statement struct {
	Type          string          `json:"_type"`
	Subject       []Resource      `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Statement returns the provenance as an in-toto statement, to be put in an
// envelope by [Sealer.Envelope].
func (p Provenance) Statement() (*Statement, error) {
	if p.BuildType == "" || p.BuilderID == "" {
		return nil, errors.New("cannot state provenance: it needs a build type and a builder ID")
	}
	external := maps.Clone(p.External)
	if external == nil {
		external = map[string]any{} // it must be there
	}
	type builder struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version,omitempty"`
	}
	type metadata struct {
		InvocationID string    `json:"invocationId,omitempty"`
		StartedOn    time.Time `json:"startedOn,omitzero"`
		FinishedOn   time.Time `json:"finishedOn,omitzero"`
	}
	type definition struct {
		BuildType            string         `json:"buildType"`
		ExternalParameters   map[string]any `json:"externalParameters"`
		InternalParameters   map[string]any `json:"internalParameters,omitempty"`
		ResolvedDependencies []Resource     `json:"resolvedDependencies,omitempty"`
	}
	type details struct {
		Builder    builder    `json:"builder"`
		Metadata   metadata   `json:"metadata,omitzero"`
		Byproducts []Resource `json:"byproducts,omitempty"`
	}
	return state(p.Subjects, ProvenanceType, struct {
		BuildDefinition definition `json:"buildDefinition"`
		RunDetails      details    `json:"runDetails"`
	}{
		definition{p.BuildType, external, p.Internal, p.Materials},
		details{builder{p.BuilderID, p.BuilderVersions}, metadata{p.InvocationID, p.Started.UTC(), p.Finished.UTC()}, p.Byproducts},
	})
}

// Statement returns the result as an in-toto statement, to be put in an envelope
// by [Sealer.Envelope].
func (r TestResult) Statement() (*Statement, error) {
	result := "PASSED"
	switch {
	case len(r.Failed) > 0:
		result = "FAILED"
	case len(r.Warned) > 0:
		result = "WARNED"
	case len(r.Passed) == 0:
		return nil, errors.New("cannot state a test result: there is no test")
	}
	configuration := r.Configuration
	if configuration == nil {
		configuration = []Resource{} // it must be there
	}
	return state(r.Subjects, TestResultType, struct {
		Result        string     `json:"result"`
		Configuration []Resource `json:"configuration"`
		URL           string     `json:"url,omitempty"`
		PassedTests   []string   `json:"passedTests,omitempty"`
		WarnedTests   []string   `json:"warnedTests,omitempty"`
		FailedTests   []string   `json:"failedTests,omitempty"`
	}{result, configuration, r.URL, r.Passed, r.Warned, r.Failed})
}

func state(subjects []FileDigest, predicateType string, predicate any) (*Statement, error) {
	if len(subjects) == 0 {
		return nil, errors.New("cannot state anything: there is no subject")
	}
	s := &Statement{Type: StatementType, PredicateType: predicateType}
	for _, f := range subjects {
		if raw, err := hex.DecodeString(f.SHA256); err != nil || len(raw) != 32 || f.Name == "" || !utf8.ValidString(f.Name) {
			return nil, fmt.Errorf("cannot state anything about %q: it needs a name in UTF-8 and a SHA-256 digest", f.Name)
		}
		digest := map[string]string{"sha256": f.SHA256}
		if f.SHA512 != "" {
			digest["sha512"] = f.SHA512
		}
		s.Subject = append(s.Subject, Resource{Name: f.Name, Digest: digest})
	}
	var err error
	if s.Predicate, err = json.Marshal(predicate); err != nil {
		return nil, fmt.Errorf("cannot state anything: %w", err)
	}
	return s, nil
}
