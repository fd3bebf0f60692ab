package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

// A Schedule tells when the next night begins after t; the zero time is never. The
// schedules of github.com/robfig/cron are of this kind.
type Schedule interface {
	Next(t time.Time) time.Time
}

// Daily is a Schedule of one night a day, at so long after midnight in Location, or UTC if
// that is nil.
type Daily struct {
	At       time.Duration
	Location *time.Location
}

// Next is the time of the night after t.
func (d Daily) Next(t time.Time) time.Time {
	where := d.Location
	if where == nil {
		where = time.UTC
	}
	local := t.In(where)
	for days := -1; ; days++ {
		// Of the clock, as who writes 03:15 means it also when it is changed.
		at := time.Date(local.Year(), local.Month(), local.Day()+days, 0, 0, int(d.At/time.Second), 0, where)
		if at.After(t) {
			return at
		}
	}
}

// planQueue is the queue of nights, which every worker takes from.
const planQueue = "plan"

// dueWithin is how old a night may be that is planned late.
const dueWithin = 12 * time.Hour

// nightJob plans a night.
type nightJob struct {
	Due time.Time `json:"due" river:"unique"`
}

// Kind is the job's name in the database.
func (nightJob) Kind() string { return "imagefactory_night" }

// due is when the last night was, of those not too long ago.
func due(s Schedule, now time.Time) (time.Time, bool) {
	const most = 1 << 16 // a schedule is foreign code
	at, found := s.Next(now.Add(-dueWithin)), false
	var last time.Time
	for range most {
		if at.IsZero() || at.After(now) {
			break
		}
		last, found, at = at, true, s.Next(at)
	}
	return last, found
}

// periodic has the leader among the workers add each night, and whoever becomes the leader
// what was missed: the same night is not added twice.
func periodic(s Schedule) *river.PeriodicJob {
	return river.NewPeriodicJob(s, func() (river.JobArgs, *river.InsertOpts) {
		at, found := due(s, time.Now())
		if !found {
			return nil, nil
		}
		states := append(rivertype.UniqueOptsByStateDefault(), rivertype.JobStateCancelled, rivertype.JobStateDiscarded)
		return nightJob{Due: at.UTC()}, &river.InsertOpts{Queue: planQueue, UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: states}}
	}, &river.PeriodicJobOpts{RunOnStart: true})
}

// nightWorker plans nights.
type nightWorker struct {
	river.WorkerDefaults[nightJob]
	w      *Worker
	q      *Queue
	client client
}

// Timeout says that there is none.
func (n *nightWorker) Timeout(*river.Job[nightJob]) time.Duration { return -1 }

// Work plans the night of all definitions, and adds it at once: a worker that is killed
// before has planned nothing. If it is killed right after, the next plan finds the runs
// going on, or names others that then have nothing to do.
func (n *nightWorker) Work(ctx context.Context, job *river.Job[nightJob]) error {
	defer n.q.keep(ctx, n.client.ID(), job.ID, n.w.Lease)()
	tasks, err := n.w.Factory.Tasks(n.w.Factory.Definitions)
	if aerr := n.q.Add(ctx, tasks, AddOptions{}); aerr != nil {
		return aerr
	}
	n.q.logger.InfoContext(ctx, "night planned", "due", job.Args.Due, "tasks", len(tasks), "error", err)
	if err != nil { // of some images, of which nobody else would tell
		return river.JobCancel(fmt.Errorf("cannot plan all images: %w", err))
	}
	return river.RecordOutput(ctx, struct {
		Tasks []imagefactory.Task `json:"tasks"`
	}{tasks})
}
