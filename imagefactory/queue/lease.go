package queue

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// lostText is the error in the database of an attempt whose worker is gone.
const lostText = "the worker was lost"

// keep renews a job until done is called.
func (q *Queue) keep(ctx context.Context, worker string, id int64, lease time.Duration) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(lease / 4)
		defer tick.Stop()
		for {
			// Where it fails the others cannot reach the database either, and wait.
			if err := q.renew(ctx, worker, id, lease); err != nil && ctx.Err() == nil {
				q.logger.WarnContext(ctx, "cannot renew a job", "job", id, "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// renew gives a job the database's time. One that somebody else has taken is not
// renewed, and gone on with: see the package's documentation.
func (q *Queue) renew(ctx context.Context, worker string, id int64, lease time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, lease)
	defer cancel()
	have, err := q.exec.JobGetByID(ctx, &riverdriver.JobGetByIDParams{ID: id})
	if errors.Is(err, rivertype.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if n := len(have.AttemptedBy); have.State != rivertype.JobStateRunning || n == 0 || have.AttemptedBy[n-1] != worker {
		return nil
	}
	now, err := q.now(ctx)
	if err != nil {
		return err
	}
	// Who takes the job in this moment has written a time of about now.
	_, err = q.exec.JobUpdateFull(ctx, &riverdriver.JobUpdateFullParams{ID: id, AttemptedAtDoUpdate: true, AttemptedAt: &now})
	return err
}

// rescue gives back what lost workers had, until ctx ends. It begins when the database
// has been there for a lease, so that everybody could be heard.
func (q *Queue) rescue(ctx context.Context, lease time.Duration) {
	tick := time.NewTicker(lease / 4)
	defer tick.Stop()
	since, last := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := q.rescueOnce(ctx, lease, time.Since(since) < lease)
		if err != nil && ctx.Err() == nil {
			q.logger.WarnContext(ctx, "cannot look for lost workers", "error", err)
		}
		if err != nil || time.Since(last) > lease { // or this process stood still
			since = time.Now()
		}
		last = time.Now()
	}
}

// rescueOnce makes available what was not renewed for a lease; if listen, it only sees
// whether the database answers.
func (q *Queue) rescueOnce(ctx context.Context, lease time.Duration, listen bool) error {
	ctx, cancel := context.WithTimeout(ctx, lease)
	defer cancel()
	now, err := q.now(ctx)
	if err != nil {
		return err
	}
	horizon := now.Add(-lease)
	stuck, err := q.exec.JobGetStuck(ctx, &riverdriver.JobGetStuckParams{Max: 1000, StuckHorizon: horizon})
	if err != nil || listen {
		return err
	}
	stuck = slices.DeleteFunc(stuck, func(row *rivertype.JobRow) bool {
		return row.Kind != stageJob{}.Kind() && row.Kind != nightJob{}.Kind()
	})
	if len(stuck) == 0 {
		return nil
	}
	params := &riverdriver.JobRescueManyParams{StuckHorizon: horizon}
	for _, row := range stuck {
		text, err := json.Marshal(rivertype.AttemptError{At: now.UTC(), Attempt: row.Attempt, Error: lostText})
		if err != nil {
			return err
		}
		state, finalized := rivertype.JobStateAvailable, (*time.Time)(nil)
		if row.Attempt >= row.MaxAttempts {
			state, finalized = rivertype.JobStateDiscarded, &now
		}
		params.ID = append(params.ID, row.ID)
		params.Error = append(params.Error, text)
		params.State = append(params.State, string(state))
		params.FinalizedAt = append(params.FinalizedAt, finalized)
		params.ScheduledAt = append(params.ScheduledAt, now)
		q.logger.WarnContext(ctx, "taking up what a lost worker had", "job", row.ID, "attempt", row.Attempt)
	}
	_, err = q.exec.JobRescueMany(ctx, params)
	return err
}
