package imagefactory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// A journal is what is recorded of one run of an image, the build of that ID. It
// is all, with the files that it names, that a stage needs to know of the earlier
// ones, so that any process can go on. It outlives the run's directory: what has
// ended is not begun again, and the durations tell how long the next run takes.
type journal struct {
	Version          int             `json:"version"`
	Image            string          `json:"image"`
	Build            publish.BuildID `json:"build"`
	DefinitionSHA256 string          `json:"definition_sha256"` // and what it refers to
	Stages           []*record       `json:"stages"`            // that were begun, in their order
	Result           Outcome         `json:"result"`            // "" while the run can go on
	Ended            time.Time       `json:"ended"`             // when Result was set
}

// A record is one stage's part of the journal.
type record struct {
	Stage      Stage             `json:"stage"`
	Tries      int               `json:"tries"` // how often it was begun
	Begun      time.Time         `json:"begun"` // the last time
	Ended      time.Time         `json:"ended"`
	DurationMS int64             `json:"duration_ms"` // elapsed; the clock of the two times may be set
	Inputs     map[string]string `json:"inputs"`      // SHA-256 of files, and other values, by name
	Outputs    map[string]string `json:"outputs"`     // SHA-256 of files by suffix
	Result     string            `json:"result"`      // one of the constants below
	Error      string            `json:"error,omitempty"`

	Built    *built    `json:"built,omitempty"`    // of StageBuild
	Previous string    `json:"previous,omitempty"` // of StageInspect and StageTest, or an unchanged StageBuild: the release that it compared with
	Findings []Finding `json:"findings,omitempty"` // of StageInspect and StageTest
}

// What a record's Result may be.
const (
	resultCut       = "" // it runs, or was cut
	resultDone      = "done"
	resultUnchanged = "unchanged" // done, and only the previous release is to be published
	resultFailed    = "failed"
)

// built is what the build hands on beside files.
type built struct {
	At          time.Time `json:"at"`
	Tool        string    `json:"tool"`
	ToolVersion string    `json:"tool_version"`
	Args        []string  `json:"args"`
	Env         []string  `json:"env"`
	Elsewhere   bool      `json:"elsewhere,omitempty"` // on another machine than the stage ran on
}

const (
	journalVersion = 1
	// maxJournal is what a command of a megabyte takes as JSON, and more.
	maxJournal = 16 << 20
)

// errNoJournal says that a file is none that this program could go on with.
var errNoJournal = errors.New("not a journal that can be used")

// readJournal reads what write wrote. Whatever else is there is errNoJournal, or
// what the reader says.
func readJournal(r io.Reader) (*journal, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxJournal+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxJournal {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", errNoJournal, maxJournal)
	}
	var version struct{ Version int }
	if err := json.Unmarshal(data, &version); err == nil && version.Version != journalVersion {
		return nil, fmt.Errorf("%w: its version is %d, this program's %d", errNoJournal, version.Version, journalVersion)
	}
	var j journal
	if err := strictJSON(data, &j); err != nil {
		return nil, fmt.Errorf("%w: it is no JSON of this version", errNoJournal)
	}
	if err := j.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoJournal, err)
	}
	return &j, nil
}

var (
	digestText = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// suffixText is what an output is called: nothing that leads out of a directory.
	suffixText = regexp.MustCompile(`^[.A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$`)
)

// leaves has a file that a stage has left when it is done.
var leaves = map[Stage]string{StageBuild: ".qcow2", StageInspect: diskSuffix, StageTest: testReport, StageSeal: sumsName}

func (j *journal) validate() error {
	at := -1
	for _, r := range j.Stages {
		if r == nil {
			return errors.New("a stage is null")
		}
		i := slices.Index(stageOrder, r.Stage)
		if i <= at {
			return errors.New("a stage is unknown, or there twice, or in another order")
		}
		at = i
		if !slices.Contains([]string{resultCut, resultDone, resultUnchanged, resultFailed}, r.Result) || r.Tries < 1 || r.DurationMS < 0 {
			return fmt.Errorf("stage %s has no result of a stage", r.Stage)
		}
		if (r.Stage == StageBuild && r.Result == resultDone) != (r.Built != nil) {
			return fmt.Errorf("stage %s does not have what a build hands on", r.Stage)
		}
		if r.Result == resultUnchanged && r.Stage != StageBuild && r.Stage != StageInspect {
			return fmt.Errorf("stage %s cannot find an image unchanged", r.Stage)
		}
		if must := leaves[r.Stage]; r.Result == resultDone && must != "" && r.Outputs[must] == "" {
			return fmt.Errorf("stage %s is done and has left no %s", r.Stage, must)
		}
		if _, err := publish.ParseBuildID(r.Previous); r.Previous != "" && err != nil {
			return fmt.Errorf("stage %s compared with no build", r.Stage)
		}
		for name, digest := range r.Outputs {
			if !suffixText.MatchString(name) || !digestText.MatchString(digest) {
				return fmt.Errorf("stage %s has an output that is no file with its digest", r.Stage)
			}
		}
	}
	if j.Build.IsZero() || CheckName(j.Image) != nil {
		return errors.New("it is of no image or no build")
	}
	if !slices.Contains([]Outcome{"", Published, Unchanged, Candidate, Failed}, j.Result) {
		return errors.New("it has no result of a run")
	}
	return nil
}

// strictJSON decodes one value that has no unknown fields.
func strictJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more than one value")
	}
	return nil
}

// stage is the record of a stage, nil where it was not begun.
func (j *journal) stage(s Stage) *record {
	for _, r := range j.Stages {
		if r.Stage == s {
			return r
		}
	}
	return nil
}

// done reports whether a stage was done, of whatever inputs.
func (j *journal) done(s Stage) bool {
	r := j.stage(s)
	return r != nil && (r.Result == resultDone || r.Result == resultUnchanged)
}

// output is the digest of a file that a stage wrote, or "".
func (j *journal) output(s Stage, suffix string) string {
	if r := j.stage(s); r != nil {
		return r.Outputs[suffix]
	}
	return ""
}

// unchanged reports whether the image is that of the previous release, or would be.
func (j *journal) unchanged() bool { return j.same() != nil }

// same is the record of the stage that found that out, or nil: the inspection or, where
// nothing had to be built, the build.
func (j *journal) same() *record {
	for _, s := range []Stage{StageBuild, StageInspect} {
		if r := j.stage(s); r != nil && r.Result == resultUnchanged {
			return r
		}
	}
	return nil
}

// begin makes the record of a stage that begins; what later stages recorded goes.
func (j *journal) begin(s Stage, now time.Time, inputs map[string]string) *record {
	tries := 1
	if r := j.stage(s); r != nil {
		tries += r.Tries
	}
	j.forget(s)
	r := &record{Stage: s, Tries: tries, Begun: now, Inputs: inputs, Outputs: map[string]string{}}
	j.Stages = append(j.Stages, r)
	j.end("", time.Time{})
	return r
}

// end says what came of the run, or takes it back.
func (j *journal) end(result Outcome, at time.Time) { j.Result, j.Ended = result, at }

// last is the stage that the run came to.
func (j *journal) last() Stage {
	if len(j.Stages) == 0 {
		return StageBuild
	}
	return j.Stages[len(j.Stages)-1].Stage
}

// failure says in which stage a failed run failed, and why as far as that is recorded:
// who was killed before it could tell has the next one tell it.
func (j *journal) failure() error {
	if r := j.stage(j.last()); r != nil && r.Error != "" {
		return fmt.Errorf("%w in %s: %s", errFailedBefore, r.Stage, r.Error)
	}
	return fmt.Errorf("%w in %s", errFailedBefore, j.last())
}

// forget drops the records of a stage and those after it.
func (j *journal) forget(s Stage) {
	from := slices.Index(stageOrder, s)
	j.Stages = slices.DeleteFunc(j.Stages, func(r *record) bool { return slices.Index(stageOrder, r.Stage) >= from })
}

func (p *product) journalDir() string { return filepath.Join(p.dir, workName, journalName, p.name) }

func (p *product) journalFile(build publish.BuildID) string {
	return filepath.Join(p.journalDir(), build.String()+".json")
}

// save makes the journal durable. It is there whole or as it was.
func (j *job) save() error {
	dir := j.journalDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot write the run's journal: %w", err)
	}
	err := writeFile(j.journalFile(j.build), func(w io.Writer) error { return json.NewEncoder(w).Encode(j.journal) })
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("cannot write the run's journal: %w", err)
	}
	return nil
}

// journals are those of the image's runs, the newest first. One that cannot be
// used is passed over: that run is not gone on with.
func (p *product) journals() ([]*journal, error) {
	names, err := entries(p.journalDir())
	if err != nil {
		return nil, err
	}
	var found []*journal
	for _, name := range slices.Backward(names) {
		name, ok := strings.CutSuffix(filepath.Base(name), ".json")
		build, err := publish.ParseBuildID(name)
		if !ok || err != nil {
			continue // such as what a killed write has left
		}
		j, err := p.readJournalOf(build)
		if err != nil {
			p.log.Warn("passing over a run whose journal cannot be read", "build", build, "error", err)
			continue
		}
		found = append(found, j)
	}
	return found, nil
}

func (p *product) readJournalOf(build publish.BuildID) (*journal, error) {
	f, err := openRegular(p.journalFile(build))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	j, err := readJournal(f)
	if err == nil && (j.Image != p.name || j.Build != build) {
		err = fmt.Errorf("%w: it is another run's", errNoJournal)
	}
	return j, err
}

// wrote records files that a stage wrote into the run's directory.
func (j *job) wrote(ctx context.Context, r *record, suffixes ...string) error {
	for _, suffix := range suffixes {
		d, err := j.digestOf(ctx, suffix)
		if err != nil {
			return err
		}
		r.Outputs[suffix] = d
	}
	return nil
}

// digestOf is the SHA-256 of a file in the run's directory, which is known from
// then on as long as the file stays as it is.
func (j *job) digestOf(ctx context.Context, suffix string) (string, error) {
	st, err := os.Stat(j.file(suffix))
	if err != nil {
		return "", err
	}
	if k, ok := j.known[suffix]; ok && os.SameFile(k.info, st) && k.info.Size() == st.Size() && k.info.ModTime().Equal(st.ModTime()) {
		return k.digest, nil
	}
	d, err := digestFile(ctx, j.file(suffix))
	if err != nil {
		return "", err
	}
	j.known[suffix] = knownFile{st, d.SHA256}
	return d.SHA256, nil
}

// knownFile is a file whose digest this process has read.
type knownFile struct {
	info   os.FileInfo
	digest string
}
