package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

// Worker is a process, or a part of one, that does what is in a queue.
type Worker struct {
	// Factory does the stages, of its Definitions. Its Stop, once closed, has no stage
	// begun any more. Until, From and Fresh are for who plans, and have to be empty.
	// Required.
	Factory *imagefactory.Factory
	// Queues are how many jobs are done at once, of [Build], [Test] and [Publish]; of
	// those that are missing, none. If nil, one of each.
	Queues map[string]int
	// Schedule is when a night is planned, of all definitions; all workers that have
	// one should have the same. If nil, this worker begins none. One that was due
	// within the last twelve hours, when no worker ran, is planned at once.
	Schedule Schedule
	// Lease is after how long without a sign of life a worker's stage is given to
	// another; all workers should have the same. If 0, 20 seconds.
	Lease time.Duration
	// Pause is how long a job is put off that has to wait. If 0, 5 seconds.
	Pause time.Duration
}

// check reports what is wrong with a worker.
func (w *Worker) check() error {
	f := w.Factory
	if f == nil || len(f.Definitions) == 0 || f.Until != "" || f.From != "" || f.Fresh {
		return errors.New("want a factory with definitions, and without Until, From and Fresh")
	}
	for name, n := range w.Queues {
		if !slices.Contains([]string{Build, Test, Publish}, name) || n < 0 {
			return fmt.Errorf("queue %q: want %s, %s or %s, and a number from 0", name, Build, Test, Publish)
		}
	}
	return f.Validate(f.Definitions)
}

// Work does jobs until the factory's Stop is closed and those in hand have ended, or
// until ctx ends: it then cuts them, and gives them back. The error is nil then, and
// else says what is wrong with the worker or that the database could not be reached.
// Work may be called several times at once, also in other processes.
func (q *Queue) Work(ctx context.Context, w Worker) error {
	if err := w.check(); err != nil {
		return fmt.Errorf("cannot work: %w", err)
	}
	w.Lease, w.Pause = cmp.Or(w.Lease, 20*time.Second), cmp.Or(w.Pause, 5*time.Second)
	queues := map[string]river.QueueConfig{planQueue: {MaxWorkers: 1, FetchPollInterval: poll}}
	if w.Queues == nil {
		w.Queues = map[string]int{Build: 1, Test: 1, Publish: 1}
	}
	for name, n := range w.Queues {
		if n > 0 {
			queues[name] = river.QueueConfig{MaxWorkers: n, FetchPollInterval: poll}
		}
	}
	const week = 7 * 24 * time.Hour // until when the same is not added again
	config := &river.Config{
		Queues: queues, Workers: river.NewWorkers(), JobTimeout: -1, Logger: q.quiet(), MaxAttempts: maxAttempts,
		CompletedJobRetentionPeriod: week, CancelledJobRetentionPeriod: week, DiscardedJobRetentionPeriod: week,
	}
	if w.Schedule != nil {
		config.PeriodicJobs = []*river.PeriodicJob{periodic(w.Schedule)}
	}
	stages, nights := &stageWorker{w: &w, q: q}, &nightWorker{w: &w, q: q}
	river.AddWorker(config.Workers, stages)
	river.AddWorker(config.Workers, nights)
	c, err := q.work(config)
	if err != nil {
		return fmt.Errorf("cannot work: %w", err)
	}
	stages.client, nights.client = c, c
	rescuing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	// The client outlives ctx, to tell the database what was cut.
	if err := c.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("cannot work: %w", err)
	}
	go q.rescue(rescuing, w.Lease)
	select {
	case <-ctx.Done():
	case <-w.Factory.Stop:
		if c.Stop(ctx) == nil {
			return nil
		}
	}
	return c.StopAndCancel(context.WithoutCancel(ctx))
}

// stageWorker does the jobs of stages.
type stageWorker struct {
	river.WorkerDefaults[stageJob]
	w      *Worker
	q      *Queue
	client client
}

// Timeout says that there is none.
func (s *stageWorker) Timeout(*river.Job[stageJob]) time.Duration { return -1 }

// NextRetry is when a stage is tried again whose error was transient.
func (s *stageWorker) NextRetry(job *river.Job[stageJob]) time.Time {
	return time.Now().Add(cmp.Or(s.w.Factory.Limits.Pause, time.Minute) << min(tries(job.JobRow), 10))
}

// tries is how often a stage failed that was not just cut.
func tries(row *rivertype.JobRow) int {
	n := 0
	for _, e := range row.Errors {
		if e.Error != lostText {
			n++
		}
	}
	return n
}

// Work does a stage, and adds the next.
func (s *stageWorker) Work(ctx context.Context, job *river.Job[stageJob]) error {
	defer s.q.keep(ctx, s.client.ID(), job.ID, s.w.Lease)()
	log := s.q.logger.With("task", job.Args.Task.String(), "attempt", job.Attempt)
	log.DebugContext(ctx, "job taken")
	report, err := s.w.Factory.Do(ctx, job.Args.Task)
	switch {
	case errors.Is(context.Cause(ctx), rivertype.ErrJobCancelledRemotely):
		log.WarnContext(ctx, "job cancelled")
		return river.JobCancel(errors.New("the job was cancelled"))
	case err != nil && ctx.Err() != nil: // the worker is stopped
		log.WarnContext(ctx, "job given back", "reason", context.Cause(ctx))
		return river.JobSnooze(0)
	case errors.Is(err, imagefactory.ErrBusy):
		return river.JobSnooze(s.w.Pause)
	case errors.Is(err, imagefactory.ErrWaits):
		return s.waits(ctx, job)
	case err == nil, errors.Is(err, imagefactory.ErrNothingToDo):
		return s.next(ctx, job, report)
	}
	limit := cmp.Or(s.w.Factory.Limits.Tries, 3)
	if imagefactory.IsTransient(err) && tries(job.JobRow)+1 < limit {
		return err
	}
	if report == nil { // it did not come so far
		report = &imagefactory.ImageReport{Name: job.Args.Task.Image, Build: job.Args.Task.Build.String(), Stage: job.Args.Task.Stage, Result: imagefactory.Failed, Error: err.Error()}
	}
	return errors.Join(river.JobCancel(err), river.RecordOutput(ctx, outcome{Report: *report}))
}

// next adds what follows. If this process is killed before the job is recorded as done,
// the job comes again, with nothing to do, and what follows is not added again.
func (s *stageWorker) next(ctx context.Context, job *river.Job[stageJob], report *imagefactory.ImageReport) error {
	if report.Result == imagefactory.Waiting && len(job.Args.Then) > 0 {
		if err := bring(ctx, s.client, job.Args.next(), job.Priority); err != nil {
			return err
		}
	}
	return river.RecordOutput(ctx, outcome{Report: *report})
}

// waits is for a stage whose turn it is not: what an earlier one has left is gone, or the
// run did not come about.
func (s *stageWorker) waits(ctx context.Context, job *river.Job[stageJob]) error {
	task, f := job.Args.Task, s.w.Factory
	at := slices.IndexFunc(f.Definitions, func(d imagefactory.Definition) bool { return d.Name == task.Image })
	left, err := f.Tasks(f.Definitions[at : at+1]) // Do has found it too
	switch {
	case err != nil:
		return river.JobCancel(err)
	case len(left) == 0 || left[0].Build != task.Build:
		elsewhere := fmt.Sprintf("build %s did not come about, or is too old to be gone on with", task.Build)
		return river.RecordOutput(ctx, outcome{Elsewhere: elsewhere})
	case left[0].Stage != task.Stage:
		again := stageJob{Task: left[0], Once: job.Args.Once}
		for _, t := range left[1:] {
			if t.Stage == task.Stage {
				break
			}
			again.Then = append(again.Then, t)
		}
		if err := bring(ctx, s.client, again, job.Priority); err != nil {
			return err
		}
	}
	return river.JobSnooze(s.w.Pause)
}
