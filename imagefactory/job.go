package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// job is one run of an image: the stages of one build. What a stage hands to the
// next is in the journal and in the files that it names, and nowhere else: each
// may be done by another process.
type job struct {
	*product
	build   publish.BuildID
	runDir  string // .work/NAME/BUILD
	journal *journal
	known   map[string]knownFile // by suffix
	report  *ImageReport
	state   *builder.State // of the mirrors, while it is built; nil if it is not known
}

// open takes up the run of a build, or begins it where nothing is recorded.
func (p *product) open(build publish.BuildID, report *ImageReport) (*job, error) {
	j := &job{product: p, build: build, runDir: filepath.Join(p.workDir(), build.String()), known: map[string]knownFile{}, report: report}
	var err error
	j.journal, err = p.readJournalOf(build)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoJournal) {
		j.journal, err = &journal{Version: journalVersion, Image: p.name, Build: build, DefinitionSHA256: p.digest}, nil
	}
	if err != nil {
		return nil, err
	}
	for _, s := range []Stage{StageInspect, StageTest} {
		if r := j.journal.stage(s); r != nil {
			report.Findings = append(report.Findings, r.Findings...)
		}
	}
	return j, nil
}

// do does a stage if it is its turn: see [Factory.Do] for the errors.
func (j *job) do(ctx context.Context, t Task) error {
	j.report.Build = j.build.String()
	if err := j.turn(ctx, t); err != nil {
		return err
	}
	s := stages()[slices.Index(stageOrder, t.Stage)]
	err := j.perform(ctx, t.Stage, func(ctx context.Context, r *record) error { return s.run(j, ctx, r) })
	if err == nil && j.journal.Result != "" {
		j.clean()
	}
	return err
}

// turn reports why it is not the stage's turn.
func (j *job) turn(ctx context.Context, t Task) error {
	switch {
	case j.journal.DefinitionSHA256 != j.digest:
		return fmt.Errorf("%w: it is of another definition now, or what that refers to", errStale)
	case t.Again && (j.journal.Result == "" || j.journal.Result == Failed):
		j.journal.forget(t.Stage)
		j.journal.end("", time.Time{})
	case j.journal.Result == Failed:
		return j.journal.failure()
	case j.journal.Result != "":
		j.clean() // which it was perhaps killed before
		return fmt.Errorf("%w: build %s of %s is %s", ErrNothingToDo, j.build, j.name, j.journal.Result)
	}
	for _, s := range stages() {
		switch {
		case s.name != t.Stage && j.current(s):
		case s.name != t.Stage:
			return fmt.Errorf("%w: %s of build %s of %s has to be done first", ErrWaits, s.name, j.build, j.name)
		case j.current(s):
			return fmt.Errorf("%w: %s of build %s of %s is done", ErrNothingToDo, s.name, j.build, j.name)
		case s.name == StageBuild:
			return j.first(t)
		case t.Again:
			runs, err := j.journals()
			return errors.Join(err, j.supersede(runs), j.verifyInputs(ctx, s))
		default:
			return j.verifyInputs(ctx, s)
		}
	}
	return fmt.Errorf("there is no stage %q", t.Stage)
}

// verifyInputs holds the files that a stage reads to what is recorded of them. A
// stage that left others has to be done again.
func (j *job) verifyInputs(ctx context.Context, s stage) error {
	for _, from := range s.reads {
		r := j.journal.stage(from)
		if r == nil { // an unchanged image was not sealed
			continue
		}
		for suffix, want := range r.Outputs {
			if from == StageSeal {
				continue // which publish.Open verifies
			}
			have, err := j.digestOf(ctx, suffix)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if have != want {
				j.log.WarnContext(ctx, "a file is not as it was recorded", "build", j.build, "stage", from, "file", filepath.Base(j.file(suffix)))
				j.journal.forget(from)
				return errors.Join(fmt.Errorf("%w: what %s of build %s of %s has left is not there any more", ErrWaits, from, j.build, j.name), j.save())
			}
		}
	}
	return nil
}

// current reports whether a stage is done and would be done with the same inputs
// now, or is not needed.
func (j *job) current(s stage) bool {
	if r := j.journal.same(); r != nil && s.name != r.Stage && s.name != StageBuild && s.name != StagePublish {
		return true
	}
	return j.journal.done(s.name) && maps.Equal(j.journal.stage(s.name).Inputs, j.inputsOf(s))
}

// perform runs a stage and accounts for it.
func (j *job) perform(ctx context.Context, s Stage, run func(context.Context, *record) error) error {
	j.report.Stage = s
	if err := ctx.Err(); err != nil {
		return err
	}
	begun := time.Now() // a duration, not a date: the injected clock may stand still
	event := Event{Time: j.factory.now(), Image: j.name, Build: j.report.Build, Stage: s}
	r := j.journal.begin(s, event.Time, j.inputsOf(stages()[slices.Index(stageOrder, s)]))
	if err := errors.Join(j.save(), j.progress(event)); err != nil {
		return j.ended(ctx, r, err)
	}
	j.log.InfoContext(ctx, "stage begins", "build", j.report.Build, "stage", s)
	err := j.limited(ctx, s, func(ctx context.Context) error { return run(ctx, r) })
	event.Time, event.Done, event.Err, event.Duration = j.factory.now(), true, err, time.Since(begun)
	j.report.DurationMS[s] = event.Duration.Milliseconds()
	r.DurationMS = j.report.DurationMS[s]
	err = errors.Join(err, j.progress(event))
	if err == nil {
		j.log.InfoContext(ctx, "stage done", "build", j.report.Build, "stage", s, "duration", event.Duration)
	}
	return j.ended(ctx, r, err)
}

// ended records how a stage ended, and the run with it where that is its end.
func (j *job) ended(ctx context.Context, r *record, err error) error {
	r.Ended = j.factory.now()
	switch {
	case err == nil && r.Result == resultCut:
		r.Result = resultDone
	case err == nil:
	case ctx.Err() != nil:
		r.Result, r.Error = resultCut, bounded(err.Error()) // it can be done again
	default:
		r.Result, r.Error = resultFailed, bounded(err.Error())
	}
	switch {
	case err == nil && r.Stage != StagePublish, err != nil && ctx.Err() != nil:
	case err == nil && j.journal.unchanged():
		j.journal.end(Unchanged, r.Ended)
	case err == nil && j.report.Held != "":
		j.journal.end(Candidate, r.Ended)
	case err == nil:
		j.journal.end(Published, r.Ended)
	case errors.Is(err, ErrWaits), IsTransient(err): // it can be tried again
	case r.Stage != StagePublish || !j.sealedStays():
		j.journal.end(Failed, r.Ended)
	default: // what is sealed is published by another run
	}
	return errors.Join(err, j.save())
}

// sealedStays reports whether there is a sealed release that is to be published.
func (j *job) sealedStays() bool {
	_, err := os.Lstat(filepath.Join(j.sealedDir(), j.build.String()))
	return err == nil || j.journal.unchanged()
}

// clean removes what an ended run needs no more; the image is as good if that
// fails.
func (j *job) clean() {
	j.remove(filepath.Join(j.sealedDir(), j.build.String()))
	j.remove(j.runDir)
}

// remove removes what is no longer needed; the image is as good without.
func (j *job) remove(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		j.log.Warn("cannot remove what a run has left", "error", err)
	}
}

// first is for the first stage of a run: it reports why another one takes its place,
// and removes what earlier runs left that nobody needs any more.
func (j *job) first(t Task) error {
	runs, err := j.journals()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(j.dir, j.name, j.build.String())); err == nil && len(j.journal.Stages) == 0 {
		return fmt.Errorf("%w: build %s of %s is released, and its journal is lost", ErrNothingToDo, j.build, j.name)
	}
	for _, run := range runs {
		switch {
		case run.Build == j.build || t.Again || len(j.journal.Stages) > 0:
		case j.goesOn(run):
			return fmt.Errorf("%w: build %s of %s goes on", ErrNothingToDo, run.Build, j.name)
		case run.Result != "" && !run.Ended.Before(j.build.Time()):
			return fmt.Errorf("%w: build %s of %s has ended since this was planned", ErrNothingToDo, run.Build, j.name)
		}
	}
	return errors.Join(j.supersede(runs), j.tidy(runs))
}

// supersede ends the runs that this one takes the place of.
func (j *job) supersede(runs []*journal) error {
	var errs []error
	for _, run := range runs {
		if run.Build == j.build || run.Result != "" {
			continue
		}
		j.log.Warn("giving up an earlier run", "build", run.Build)
		run.end(Failed, j.factory.now())
		other := &job{product: j.product, build: run.Build, journal: run}
		errs = append(errs, other.save())
	}
	return errors.Join(errs...)
}

// tidy removes what runs left: images, and all but the newest reports and journals.
func (j *job) tidy(runs []*journal) error {
	const keep, journals = 10, 30
	old, err := j.runs()
	if err != nil {
		return err
	}
	old = slices.DeleteFunc(old, func(dir string) bool { return dir == j.runDir })
	for i, dir := range old {
		if i < len(old)-keep {
			err = errors.Join(err, os.RemoveAll(dir))
		} else {
			err = errors.Join(err, removeLarge(dir))
		}
	}
	for _, run := range runs[min(len(runs), journals):] {
		err = errors.Join(err, os.Remove(j.journalFile(run.Build)))
	}
	written, rerr := entries(j.journalDir())
	for _, name := range written {
		if strings.HasPrefix(filepath.Base(name), ".") { // of a writer that was killed
			err = errors.Join(err, os.Remove(name))
		}
	}
	sealed, serr := entries(j.sealedDir())
	for _, dir := range sealed {
		if filepath.Base(dir) != j.build.String() {
			j.log.Warn("discarding a sealed release of a run that has ended", "build", filepath.Base(dir))
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return errors.Join(err, rerr, serr)
}

// entries are the entries of a directory that need not be there, in their order.
func entries(dir string) ([]string, error) {
	found, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	var names []string
	for _, e := range found {
		names = append(names, filepath.Join(dir, e.Name()))
	}
	return names, err
}

// removeLarge removes from a failed run's directory all but what says why.
func removeLarge(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() || strings.HasSuffix(name, ".qcow2") {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// runs are the directories of this image's runs, the oldest first.
func (j *job) runs() ([]string, error) {
	entries, err := os.ReadDir(j.workDir())
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if _, err := publish.ParseBuildID(e.Name()); err == nil && e.IsDir() {
			dirs = append(dirs, filepath.Join(j.workDir(), e.Name()))
		}
	}
	return dirs, nil
}

// file is the path in the run's directory of the release's file with a suffix.
func (j *job) file(suffix string) string {
	return filepath.Join(j.runDir, j.name+"-"+j.build.String()+suffix)
}

// bounded cuts a text that is longer than what anybody reads.
func bounded(s string) string {
	const most = 64 << 10
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// oneLine shortens a text from a guest for an error.
func oneLine(s string) string {
	const most = 120
	s = visible.Line(strings.Join(strings.Fields(s), " "))
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// leftovers are the files that a failed run left, below Factory.Dir.
func (p *product) leftovers(build string) []string {
	found := []string{}
	if build == "" {
		return found
	}
	entries, _ := os.ReadDir(filepath.Join(p.workDir(), build))
	for _, e := range entries {
		if e.Type().IsRegular() {
			found = append(found, path.Join(workName, p.name, build, e.Name()))
		}
	}
	return found
}
