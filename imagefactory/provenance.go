package imagefactory

import (
	"cmp"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

const (
	// DefaultBuilderID names this SDK as what built an image, in its provenance.
	DefaultBuilderID = "https://github.com/opentelekomcloud/go-imagefactory"
	// buildType says how to read the provenance's parameters: external ones are
	// the definition's, internal ones what the builder's tool was run with.
	buildType = DefaultBuilderID + "/imagefactory/v1"
)

// writeProvenance writes two signed statements about the image into the
// release: how it was built (SLSA provenance) and how its tests ended.
func (j *job) writeProvenance(ctx context.Context, dir string, digests map[string]signing.FileDigest, tests *testsuite.Report) error {
	built := j.journal.stage(StageBuild).Built
	sealer := signing.Sealer{Signers: []*signing.Signer{j.signer}}
	resource := func(suffix string) signing.Resource {
		d := digests[suffix]
		return signing.Resource{Name: d.Name, Digest: map[string]string{"sha256": d.SHA256}}
	}
	subjects := []signing.FileDigest{digests[".qcow2"]}
	materials := []signing.Resource{resource(".config.tar.gz"), resource(".packages")}
	for _, name := range slices.Sorted(maps.Keys(j.mirrors)) {
		materials = append(materials, signing.Resource{Name: name, URI: j.mirrors[name]})
	}
	indexes, err := j.indexMaterials()
	if err != nil {
		return err
	}
	materials = append(materials, indexes...)
	statement, err := signing.Provenance{
		Subjects: subjects, BuildType: buildType, BuilderID: j.builderID(),
		BuilderVersions: map[string]string{built.Tool: built.ToolVersion},
		External:        map[string]any{"image": j.name, "builder": j.def.Builder.Driver, "definition_sha256": j.digest},
		Internal:        map[string]any{"args": j.anywhere(built.Args), "env": j.anywhere(built.Env)},
		Materials:       materials,
		InvocationID:    j.name + "/" + j.build.String(), Started: j.journal.stage(StageBuild).Begun, Finished: built.At,
		Byproducts: []signing.Resource{resource(".build.log")},
	}.Statement()
	if err != nil {
		return err
	}
	result := signing.TestResult{Subjects: subjects, Configuration: []signing.Resource{resource(".test.json")}}
	for _, c := range tests.Checks {
		switch c.Status {
		case testsuite.Pass:
			result.Passed = append(result.Passed, c.ID)
		case testsuite.Waived, testsuite.Flaky: // what is flaky and bad is not released
			result.Warned = append(result.Warned, c.ID)
		case testsuite.Skipped: // says nothing
		default:
			result.Failed = append(result.Failed, c.ID)
		}
	}
	tested, err := result.Statement()
	if err != nil {
		return err
	}
	for suffix, s := range map[string]*signing.Statement{".provenance.json": statement, ".test.provenance.json": tested} {
		envelope, err := sealer.Envelope(ctx, s)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(j.file(suffix))), envelope, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (p *product) builderID() string { return cmp.Or(p.factory.BuilderID, DefaultBuilderID) }

// anywhere replaces the paths of this factory, which say nothing to others.
func (p *product) anywhere(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.ReplaceAll(v, filepath.Join(p.workDir(), "build"), "$WORK")
	}
	return out
}
