package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// A Task is one stage of one image's run. It is plain data that a queue or
// another scheduler can carry as JSON, and hand to a process that has the
// definition too: who may write tasks chooses what is done, and not how.
type Task struct {
	Image string          `json:"image"`
	Build publish.BuildID `json:"build"` // the run
	Stage Stage           `json:"stage"`
	// After is the stage of the same run that has to be done before; "" where
	// nothing has.
	After Stage `json:"after,omitempty"`
	// Again has the stage done again, and those after it, though it is recorded as
	// done or failed, of a run that has not come to its end; of the first stage, though
	// another run goes on.
	Again bool `json:"again,omitempty"`

	def *Definition // of Tasks; nil if it comes from elsewhere
}

// String is IMAGE/BUILD/STAGE, which no other task is called.
func (t Task) String() string { return path.Join(t.Image, t.Build.String(), string(t.Stage)) }

var (
	// ErrNothingToDo says that a task has been done already, by whomever, or needs
	// not be done: an unchanged image is neither tested nor sealed.
	ErrNothingToDo = errors.New("nothing to do")
	// ErrWaits says that an earlier stage has to be done first.
	ErrWaits = errors.New("the task waits for another")

	errStale        = errors.New("the run cannot go on")
	errFailedBefore = errors.New("the run has failed")
	errDiscarded    = errors.New("the release was discarded")
)

// Tasks plans the runs of definitions and returns their tasks, each image's in the
// order in which they wait for each other: those that are left of a run that was
// cut, or those of a new one. Until, From and Fresh choose among them. It only
// reads. Two plans of one night may name different runs of an image, of which
// only one comes about; the other's tasks then have nothing to do. The error is
// that of [Factory.Run], or says that there is no run to go on with From; Key is
// not needed.
func (f *Factory) Tasks(definitions []Definition) ([]Task, error) {
	if f.Dir == "" {
		return nil, errors.New("cannot plan without Dir")
	}
	products, err := f.products(definitions)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(f.Dir)
	if err != nil {
		return nil, err
	}
	var tasks []Task
	var errs []error
	for _, p := range products {
		p.dir = dir
		if err := errors.Join(p.fault, p.readInputs()); err != nil {
			p.log.Warn("planning a run that will fail", "error", err)
		}
		planned, err := p.plan()
		tasks, errs = append(tasks, planned...), append(errs, err)
	}
	return tasks, errors.Join(errs...)
}

// plan plans the run of one image.
func (p *product) plan() ([]Task, error) {
	runs, err := p.journals()
	if err != nil {
		return nil, err
	}
	f := p.factory
	if f.From != "" && f.From != StageBuild {
		return p.planFrom(runs)
	}
	fresh := f.Fresh || f.From == StageBuild
	for _, run := range runs {
		if !fresh && p.goesOn(run) {
			return p.left(run)
		}
	}
	return p.tasks(p.newBuild(runs), stageOrder, fresh), nil
}

// left are the tasks that are left of a run.
func (p *product) left(run *journal) ([]Task, error) {
	j, err := p.open(run.Build, p.newReport())
	if err != nil {
		return nil, err
	}
	for i, s := range stages() {
		if !j.current(s) {
			return p.tasks(run.Build, stageOrder[i:], false), nil
		}
	}
	return nil, nil
}

// planFrom goes on from a stage of the newest run that came so far.
func (p *product) planFrom(runs []*journal) ([]Task, error) {
	at := slices.Index(stageOrder, p.factory.From)
	if at < 0 {
		return nil, fmt.Errorf("there is no stage %q", p.factory.From)
	}
	for _, run := range runs {
		if run.DefinitionSHA256 == p.digest && run.done(stageOrder[at-1]) && (run.Result == "" || run.Result == Failed) {
			return p.tasks(run.Build, stageOrder[at:], true), nil
		}
	}
	return nil, fmt.Errorf("image %s: no run of this definition has come so far as %s", p.name, p.factory.From)
}

// tasks are those of stages that follow each other, until the last that is wanted.
func (p *product) tasks(build publish.BuildID, order []Stage, again bool) []Task {
	var tasks []Task
	last := slices.Index(stageOrder, p.factory.Until)
	for _, s := range order {
		at := slices.Index(stageOrder, s)
		if last >= 0 && at > last {
			break
		}
		t := Task{Image: p.name, Build: build, Stage: s, Again: again && s == order[0], def: p.def}
		if at > 0 {
			t.After = stageOrder[at-1]
		}
		tasks = append(tasks, t)
	}
	return tasks
}

// takeUpWithin is how old a build may be that another run takes up: nobody
// wants last night's packages tonight.
const takeUpWithin = 12 * time.Hour

// goesOn reports whether a run is to be gone on with, rather than begun anew. A
// sealed release is published however old it is.
func (p *product) goesOn(run *journal) bool {
	return run.Result == "" && run.DefinitionSHA256 == p.digest && (run.done(StageSeal) || p.fresh(run.Build))
}

func (p *product) fresh(build publish.BuildID) bool {
	return p.factory.now().Sub(build.Time()) <= takeUpWithin
}

// newBuild is the ID of a new run: no other has it, and none has ended after it.
// An ID has the precision of a second.
func (p *product) newBuild(runs []*journal) publish.BuildID {
	t := p.factory.now().Truncate(time.Second)
	for _, run := range runs {
		for _, before := range []time.Time{run.Build.Time(), run.Ended} {
			if !before.IsZero() && !t.After(before) {
				t = before.Add(time.Second).Truncate(time.Second)
			}
		}
	}
	for ; ; t = t.Add(time.Second) {
		build := publish.NewBuildID(t)
		_, released := os.Lstat(filepath.Join(p.dir, p.name, build.String()))
		_, begun := os.Lstat(filepath.Join(p.workDir(), build.String()))
		if released != nil && begun != nil {
			return build
		}
	}
}

// Do does one task here, whoever planned it. Its definition is that of Tasks, or the
// one of Factory.Definitions that has the image's name; it has to be the one that
// the run was begun with. The report tells what came of the image so far: it is
// Waiting while stages are left, and Failed with the error.
//
// The error is [ErrNothingToDo] where the task is done already or is not needed,
// [ErrWaits] where an earlier stage is to be done first, and [ErrBusy] where
// somebody else works on the image: none of these changes anything. All else
// failed. A run in which a stage failed has ended, but for one that could not be
// published, which can be tried again. When ctx ends the stage is cut, and can
// be done again.
func (f *Factory) Do(ctx context.Context, t Task) (*ImageReport, error) {
	definition := t.def
	if i := slices.IndexFunc(f.Definitions, func(d Definition) bool { return d.Name == t.Image }); definition == nil && i >= 0 {
		definition = &f.Definitions[i]
	}
	if definition == nil {
		return nil, fmt.Errorf("cannot do %s: no definition has that name", t)
	}
	if t.Build.IsZero() || !slices.Contains(stageOrder, t.Stage) {
		return nil, fmt.Errorf("cannot do %s: want a build and a stage", t)
	}
	products, err := f.begin([]Definition{*definition})
	if err != nil {
		return nil, err
	}
	p := products[0]
	report := p.newReport()
	report.Stage = t.Stage
	unlock := func() {}
	defer func() { unlock() }() // when the night's end is noted
	err = contain(p.log, "the run of "+p.name, "", func() (err error) {
		if unlock, err = p.enter(ctx); err != nil {
			return err
		}
		j, err := p.open(t.Build, report)
		if err != nil {
			return err
		}
		return j.do(ctx, t)
	})
	if errors.Is(err, ErrWaits) || errors.Is(err, ErrBusy) {
		return report, err
	}
	ended := p.finish(ctx, report, err)
	if ended && !errors.Is(err, ErrNothingToDo) && ctx.Err() == nil {
		p.endNight(ctx, report)
	}
	return report, report.Err
}

// run does what is to be done of one image. It never fails: what went wrong is in
// the report.
func (p *product) run(ctx context.Context, room *room) ImageReport {
	report := p.newReport()
	unlock := func() {}
	defer func() { unlock() }() // when the night's end is noted
	err := contain(p.log, "the run of "+p.name, "", func() (err error) {
		if unlock, err = p.enter(ctx); err != nil {
			return err
		}
		const most = 4 // each time something was found spoilt and put aside
		for range most {
			if err = p.doAll(ctx, room, report); !errors.Is(err, ErrWaits) && !errors.Is(err, errDiscarded) || ctx.Err() != nil {
				break
			}
			p.log.WarnContext(ctx, "planning anew", "reason", err)
			*report = *p.newReport()
		}
		return err
	})
	p.finish(ctx, report, err)
	if report.Result != Waiting && ctx.Err() == nil && !errors.Is(err, ErrBusy) {
		p.endNight(ctx, report)
	}
	return *report
}

// doAll plans an image's tasks and does them.
func (p *product) doAll(ctx context.Context, room *room, report *ImageReport) error {
	tasks, err := p.plan()
	if err != nil || len(tasks) == 0 {
		return err
	}
	j, err := p.open(tasks[0].Build, report)
	if err != nil {
		return err
	}
	if len(j.journal.Stages) > 0 {
		p.log.InfoContext(ctx, "taking up a run that was cut", "build", j.build, "stage", tasks[0].Stage)
	}
	for _, t := range tasks {
		if err := j.try(ctx, room, t); err != nil && !errors.Is(err, ErrNothingToDo) {
			return err
		}
	}
	return nil
}

// enter is for who works on the image: nobody else does until unlock, which is never
// nil.
func (p *product) enter(ctx context.Context) (unlock func(), err error) {
	if err := errors.Join(p.fault, ctx.Err()); err != nil {
		return func() {}, err
	}
	if unlock, err = p.lock(); err != nil {
		return func() {}, err
	}
	return unlock, p.readInputs()
}

func (p *product) newReport() *ImageReport {
	// What fails before the first stage counts to it.
	return &ImageReport{Name: p.name, Result: Waiting, Stage: StageBuild, DurationMS: map[Stage]int64{}, Artifacts: []string{}, Notes: p.def.Notes}
}

// finish completes a report, and tells whether the run has ended.
func (p *product) finish(ctx context.Context, report *ImageReport, err error) (ended bool) {
	switch {
	case err == nil, err == errStopped: //nolint:errorlint // it is no cause of another
		report.Stage = ""
	case errors.Is(err, ErrNothingToDo):
		report.Stage, report.Err = "", err
	default:
		if ctx.Err() != nil {
			err = interrupted(ctx, err)
		}
		report.Result, report.Err, report.Error = Failed, err, bounded(err.Error())
		report.Artifacts = p.leftovers(report.Build)
		p.log.Error("image failed", "build", report.Build, "stage", report.Stage, "error", err)
	}
	if build, berr := publish.ParseBuildID(report.Build); berr == nil {
		if run, err := p.readJournalOf(build); err == nil && run.Result != "" {
			ended = true
			if report.Result != Failed {
				report.Result = run.Result
			}
		}
	}
	report.Release = p.released()
	return ended
}

// released is the image's latest release here, below Factory.Dir, or "".
func (p *product) released() string {
	target, err := os.Readlink(filepath.Join(p.dir, p.name, string(publish.Latest)))
	if err != nil || !filepath.IsLocal(target) {
		return ""
	}
	return path.Join(p.name, target)
}
