package imagefactory

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// takeUpWithin is how old a build may be that another run takes up: nobody
// wants last night's packages tonight.
const takeUpWithin = 12 * time.Hour

// record is what the finished stages of a run have left in its directory, for a
// run that takes it up. It lies there as run.json while that makes sense: from
// the end of the build until the image is published or has failed.
type record struct {
	DefinitionSHA256 string            `json:"definition_sha256"`
	BuiltAt          time.Time         `json:"built_at"`
	Tool             string            `json:"tool"`
	ToolVersion      string            `json:"tool_version"`
	Args             []string          `json:"args"`
	Env              []string          `json:"env"`
	Files            map[string]string `json:"files"` // SHA-256 by suffix
}

var (
	builtFiles  = []string{".qcow2", ".packages", ".config.tar.gz", ".build.log", buildHostSuffix}
	testedFiles = []string{".test.json", ".test.xml", ".test.log", factsSuffix}
)

// testedFiles are the files of the test, with the ledger where there is one.
func (j *job) testedFiles() []string {
	if _, err := os.Stat(j.file(filesSuffix)); err != nil {
		return testedFiles
	}
	return append(slices.Clone(testedFiles), filesSuffix)
}

// recordedFiles are testedFiles and the inventory that belongs to the ledger.
func (j *job) recordedFiles() []string {
	files := j.testedFiles()
	if _, err := os.Stat(j.file(inventorySuffix)); err != nil {
		return files
	}
	return append(slices.Clone(files), inventorySuffix)
}

func (j *job) recordFile() string { return filepath.Join(j.runDir, "run.json") }

// save records a finished stage that wrote the given files.
func (j *job) save(ctx context.Context, suffixes []string) error {
	if j.record == nil {
		b := j.built
		j.record = &record{DefinitionSHA256: j.digest, BuiltAt: j.builtAt, Tool: b.Tool, ToolVersion: b.ToolVersion, Args: b.Args, Env: b.Env, Files: map[string]string{}}
	}
	for _, suffix := range suffixes {
		d, err := digestFile(ctx, j.file(suffix))
		if err != nil {
			return err
		}
		j.record.Files[suffix] = d.SHA256
	}
	return writeFile(j.recordFile(), func(w io.Writer) error { return json.NewEncoder(w).Encode(j.record) })
}

// takeUp looks for a run of the same definition that was cut after its build,
// and continues it. What it finds other than recorded is not used.
func (j *job) takeUp(ctx context.Context) (bool, error) {
	dirs, err := j.runs()
	if err != nil {
		return false, err
	}
	for _, dir := range slices.Backward(dirs) {
		j.runDir = dir
		if j.build, err = publish.ParseBuildID(filepath.Base(dir)); err != nil {
			continue
		}
		r, err := readRecord(j.recordFile())
		if err != nil || r.DefinitionSHA256 != j.digest || j.factory.now().Sub(j.build.Time()) > takeUpWithin {
			continue
		}
		if ok, err := j.asRecorded(ctx, r); err != nil || !ok {
			if err != nil {
				return false, err
			}
			continue
		}
		j.record, j.builtAt = r, r.BuiltAt
		j.built = &builder.Result{ImagePath: j.file(".qcow2"), Tool: r.Tool, ToolVersion: r.ToolVersion, Args: r.Args, Env: r.Env}
		j.report.Build = j.build.String()
		j.log.InfoContext(ctx, "taking up a run that was cut", "build", j.build)
		return true, nil
	}
	j.runDir, j.build = "", publish.BuildID{}
	return false, nil
}

// asRecorded compares a run's files with its record.
func (j *job) asRecorded(ctx context.Context, r *record) (bool, error) {
	for _, suffix := range builtFiles {
		if r.Files[suffix] == "" {
			return false, nil
		}
	}
	for _, suffix := range slices.Sorted(maps.Keys(r.Files)) {
		d, err := digestFile(ctx, j.file(suffix))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return false, nil
		case err != nil:
			return false, err
		case d.SHA256 != r.Files[suffix]:
			return false, nil
		}
	}
	return true, nil
}

func readRecord(name string) (*record, error) {
	const most = 16 << 20 // what a command of a megabyte takes as JSON, and more
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r record
	d := json.NewDecoder(io.LimitReader(f, most))
	d.DisallowUnknownFields()
	return &r, d.Decode(&r)
}

// tested takes over the test report of the run that is taken up, if it came so
// far.
func (j *job) tested() (bool, error) {
	if j.record.Files[testedFiles[0]] == "" {
		return false, nil
	}
	data, err := os.ReadFile(j.file(testedFiles[0]))
	if err != nil {
		return false, err
	}
	var r testsuite.Report
	if err := json.Unmarshal(data, &r); err != nil {
		return false, err
	}
	if !r.OK() {
		return false, errors.New("a run was recorded whose image had failed")
	}
	j.tests, j.report.Checks = &r, r.Summary
	return true, nil
}
