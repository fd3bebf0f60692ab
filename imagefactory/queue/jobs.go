package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// The queues that stages are in.
const (
	Build   = "build"
	Test    = "test"    // and the inspection
	Publish = "publish" // and the sealing
)

// queueOf is where a stage's jobs are.
func queueOf(s imagefactory.Stage) string {
	switch s {
	case imagefactory.StageBuild:
		return Build
	case imagefactory.StageInspect, imagefactory.StageTest:
		return Test
	}
	return Publish
}

// stageJob is one stage of a run, and what follows it.
type stageJob struct {
	Task imagefactory.Task `json:"task" river:"unique"`
	// Once tells two plans apart that do the same stages again; "" in others.
	Once string              `json:"once,omitempty" river:"unique"`
	Then []imagefactory.Task `json:"then,omitempty"`
}

// Kind is the job's name in the database.
func (stageJob) Kind() string { return "imagefactory_stage" }

// next is the job that follows.
func (j stageJob) next() stageJob {
	return stageJob{Task: j.Then[0], Once: j.Once, Then: j.Then[1:]}
}

// maxAttempts is how often a job is begun that is cut each time.
const maxAttempts = 20

// options are how a stage's job is added.
func (j stageJob) options(priority int) *river.InsertOpts {
	return &river.InsertOpts{
		Queue: queueOf(j.Task.Stage), Priority: priority, MaxAttempts: maxAttempts,
		Tags: []string{j.Task.Build.String()}, UniqueOpts: river.UniqueOpts{ByArgs: true},
	}
}

// AddOptions are how tasks are added.
type AddOptions struct {
	Priority int // from 1, the first, to 4; if 0, 2
}

// Add adds the tasks of one plan, as [imagefactory.Factory.Tasks] returns it, all or
// none. Those that are there already are not added again.
func (q *Queue) Add(ctx context.Context, tasks []imagefactory.Task, o AddOptions) error {
	var jobs []river.InsertManyParams
	for _, j := range chains(tasks, time.Now().UTC().Format(time.RFC3339Nano)) {
		jobs = append(jobs, river.InsertManyParams{Args: j, InsertOpts: j.options(cmp.Or(o.Priority, 2))})
	}
	if len(jobs) == 0 {
		return nil
	}
	if _, err := q.client.InsertMany(ctx, jobs); err != nil {
		return fmt.Errorf("cannot add %d images to the queue: %w", len(jobs), err)
	}
	return nil
}

// chains are the first job of each run of a plan.
func chains(tasks []imagefactory.Task, now string) []stageJob {
	var jobs []stageJob
	for _, t := range tasks {
		if last := len(jobs) - 1; last >= 0 && runOf(jobs[last].Task) == runOf(t) {
			jobs[last].Then = append(jobs[last].Then, t)
			continue
		}
		j := stageJob{Task: t}
		if t.Again {
			j.Once = now
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// run is what the tasks of one image in one plan share.
type run struct {
	image string
	build publish.BuildID
}

func runOf(t imagefactory.Task) run { return run{t.Image, t.Build} }

// bring adds a job, or has it done again if it has ended.
func bring(ctx context.Context, c client, j stageJob, priority int) error {
	found, err := c.Insert(ctx, j, j.options(priority))
	if err == nil && found.UniqueSkippedAsDuplicate && found.Job.FinalizedAt != nil {
		_, err = c.JobRetry(ctx, found.Job.ID)
	}
	if err != nil {
		return fmt.Errorf("cannot add %s to the queue: %w", j.Task, err)
	}
	return nil
}

// outcome is a job's output.
type outcome struct {
	Report imagefactory.ImageReport `json:"report"`
	// Elsewhere says that the run did not come about, and another in its place.
	Elsewhere string `json:"elsewhere,omitempty"`
}

// Wait waits until all runs of a plan have ended, and returns what came of them. progress,
// if not nil, is called for each image whose stage or result changed, by this goroutine.
// A run whose place another one took stays Waiting, and its notes say so. Nothing is
// cancelled when ctx ends; the report then tells what came of the images so far, and
// the error is ctx's.
func (q *Queue) Wait(ctx context.Context, tasks []imagefactory.Task, progress func(imagefactory.ImageReport)) (*imagefactory.Report, error) {
	report := &imagefactory.Report{Started: time.Now().UTC()}
	for known := (map[run]imagefactory.ImageReport{}); ; {
		images, ended, err := q.look(ctx, tasks)
		if err == nil {
			report.Images, report.Finished = images, time.Now().UTC()
		}
		for i, t := range firsts(tasks)[:len(images)] {
			was, now := known[runOf(t)], images[i]
			if progress != nil && (was.Stage != now.Stage || was.Result != now.Result) {
				progress(now)
			}
			known[runOf(t)] = now
		}
		if ended || err != nil && ctx.Err() == nil {
			return report, err
		}
		select {
		case <-ctx.Done():
			return report, ctx.Err()
		case <-time.After(poll):
		}
	}
}

// poll is how often the database is asked.
const poll = 500 * time.Millisecond

// firsts are the first task of each run.
func firsts(tasks []imagefactory.Task) []imagefactory.Task {
	var first []imagefactory.Task
	for _, j := range chains(tasks, "") {
		first = append(first, j.Task)
	}
	return first
}

// look is what has come of a plan's runs so far.
func (q *Queue) look(ctx context.Context, tasks []imagefactory.Task) (images []imagefactory.ImageReport, ended bool, err error) {
	first := firsts(tasks)
	jobs := map[run][]*rivertype.JobRow{}
	var builds []string
	for _, t := range first {
		builds = append(builds, t.Build.String())
	}
	slices.Sort(builds)
	if err := q.list(ctx, river.NewJobListParams().TagsAny(slices.Compact(builds)...), func(row *rivertype.JobRow, j stageJob) error {
		jobs[runOf(j.Task)] = append(jobs[runOf(j.Task)], row)
		return nil
	}); err != nil {
		return nil, false, err
	}
	ended = true
	for _, t := range first {
		image, over := imageOf(t, jobs[runOf(t)])
		images, ended = append(images, image), ended && over
	}
	return images, ended, nil
}

// list calls f with the jobs of stages, the first added first.
func (q *Queue) list(ctx context.Context, params *river.JobListParams, f func(*rivertype.JobRow, stageJob) error) error {
	params = params.Kinds(stageJob{}.Kind()).OrderBy(river.JobListOrderByID, river.SortOrderAsc).First(1000)
	for {
		found, err := q.client.JobList(ctx, params)
		if err != nil {
			return fmt.Errorf("cannot list the jobs: %w", err)
		}
		for _, row := range found.Jobs {
			var j stageJob
			if err := json.Unmarshal(row.EncodedArgs, &j); err != nil {
				continue // nobody does it
			}
			if err := f(row, j); err != nil {
				return err
			}
		}
		if len(found.Jobs) == 0 || found.LastCursor == nil {
			return nil
		}
		params = params.After(found.LastCursor)
	}
}

// imageOf is what has come of a run, and whether it has ended.
func imageOf(t imagefactory.Task, rows []*rivertype.JobRow) (imagefactory.ImageReport, bool) {
	image := imagefactory.ImageReport{Name: t.Image, Build: t.Build.String(), Result: imagefactory.Waiting, Stage: t.Stage, Artifacts: []string{}}
	took := map[imagefactory.Stage]int64{}
	for _, row := range rows {
		var o outcome
		var j stageJob
		_ = json.Unmarshal(row.EncodedArgs, &j) // which list has done
		known := json.Unmarshal(row.Output(), &o) == nil
		maps.Copy(took, o.Report.DurationMS)
		switch {
		case row.FinalizedAt == nil:
			image.Stage = j.Task.Stage
			image.DurationMS = took
			return image, false
		case row.State == rivertype.JobStateCompleted && o.Elsewhere != "":
			image.Stage, image.Notes = "", []string{o.Elsewhere}
		case row.State == rivertype.JobStateCompleted && known:
			image = o.Report
		default:
			if known && o.Report.Result == imagefactory.Failed {
				image = o.Report
			}
			image.Result, image.Stage, image.Error = imagefactory.Failed, j.Task.Stage, cmp.Or(image.Error, lastError(row))
		}
	}
	image.DurationMS = took
	return image, len(rows) > 0
}

// lastError is why a job ended that has no report.
func lastError(row *rivertype.JobRow) string {
	if n := len(row.Errors); n > 0 {
		return row.Errors[n-1].Error
	}
	return "the job was cancelled"
}

// Cancel cancels all that waits or goes on of images: what is in hand is cut by its
// worker within some seconds, and what waits is never begun. What was cut can be gone on
// with by another plan, as after a kill.
func (q *Queue) Cancel(ctx context.Context, images ...string) error {
	open := []rivertype.JobState{
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled,
	}
	return q.list(ctx, river.NewJobListParams().States(open...), func(row *rivertype.JobRow, j stageJob) error {
		if !slices.Contains(images, j.Task.Image) {
			return nil
		}
		if _, err := q.client.JobCancel(ctx, row.ID); err != nil {
			return fmt.Errorf("cannot cancel %s: %w", j.Task, err)
		}
		return nil
	})
}
