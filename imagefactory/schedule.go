package imagefactory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
)

// Limits are what the images of a run share, and how long a stage may take. They hold
// for [Factory.Run]; who does tasks one by one decides that himself, but for Time.
type Limits struct {
	// Builds, Tests and Uploads are how many images are built, tested and published at
	// once; of 0, as many as there are jobs.
	Builds, Tests, Uploads int
	// MemoryBytes is what the machines of all tests may take, as far as the sandbox
	// tells (MemoryBytes() int64 of one machine, as sandbox.QEMU has it). A test that
	// needs more has to wait until it is alone. If 0, there is no limit.
	MemoryBytes int64
	// Time is how long a stage may take; without one it has no limit. Who takes longer
	// fails with ErrTimeLimit.
	Time map[Stage]time.Duration
	// Tries is how often a stage is tried whose error [IsTransient]; if 0, 3. Between
	// them Pause passes, twice as long each time; if 0, a minute.
	Tries int
	Pause time.Duration
}

// ErrTimeLimit says that a stage took longer than its limit.
var ErrTimeLimit = errors.New("the stage took longer than its limit")

// errStopped says that Factory.Stop was closed before a stage began.
var errStopped = errors.New("the factory was stopped")

// room is what the images of a run wait for.
type room struct {
	stages map[Stage]*semaphore.Weighted
	memory *semaphore.Weighted // nil without a limit
	size   int64               // of memory
}

func (l *Limits) room() *room {
	r := &room{stages: map[Stage]*semaphore.Weighted{}}
	for s, n := range map[Stage]int{StageBuild: l.Builds, StageTest: l.Tests, StagePublish: l.Uploads} {
		if n > 0 {
			r.stages[s] = semaphore.NewWeighted(int64(n))
		}
	}
	if l.MemoryBytes > 0 {
		r.memory, r.size = semaphore.NewWeighted(l.MemoryBytes), l.MemoryBytes
	}
	return r
}

// enter waits until there is room for a stage of the image.
func (r *room) enter(ctx context.Context, p *product, s Stage) (leave func(), err error) {
	leave = func() {}
	if one := r.stages[s]; one != nil {
		if err := one.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		leave = func() { one.Release(1) }
	}
	if r.memory == nil || s != StageTest {
		return leave, nil
	}
	need := min(p.testMemory(), r.size)
	if err := r.memory.Acquire(ctx, need); err != nil {
		leave()
		return nil, err
	}
	release := leave
	return func() { r.memory.Release(need); release() }, nil
}

// testMemory is what the machines of the image's test take at once: the one that is
// tested and, where checks ask for others, one of those beside it. How many more of
// these there are at once depends on what memory is left (boots.Config).
func (p *product) testMemory() int64 {
	box, ok := p.sandbox().(interface{ MemoryBytes() int64 })
	if !ok {
		return 0
	}
	machines := int64(1)
	if p.asks(boots.FactName) {
		machines++
	}
	return machines * box.MemoryBytes()
}

// try does a task, again where what failed is known to pass.
func (j *job) try(ctx context.Context, r *room, t Task) error {
	l := &j.factory.Limits
	tries, pause := cmp.Or(l.Tries, 3), cmp.Or(l.Pause, time.Minute)
	for n := 1; ; n++ {
		if j.factory.stopped() {
			return errStopped
		}
		leave, err := r.enter(ctx, j.product, t.Stage)
		if err != nil {
			return err
		}
		err = j.do(ctx, t)
		leave()
		if err == nil || n >= tries || ctx.Err() != nil || !IsTransient(err) {
			return err
		}
		j.log.WarnContext(ctx, "trying again what failed for now", "stage", t.Stage, "pause", pause, "error", err)
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-j.factory.Stop:
			return err
		case <-time.After(pause):
		}
		pause *= 2
		t.Again = false // which it was the first time
	}
}

// limited runs f in the time that a stage may take.
func (j *job) limited(ctx context.Context, s Stage, f func(context.Context) error) error {
	limit := j.factory.Limits.Time[s]
	if limit <= 0 {
		return f(ctx)
	}
	inner, cancel := context.WithTimeoutCause(ctx, limit, ErrTimeLimit)
	defer cancel()
	err := f(inner)
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w, %v: %w", ErrTimeLimit, limit, err)
	}
	return err
}

// stopped reports whether nothing new is to be begun.
func (f *Factory) stopped() bool {
	select {
	case <-f.Stop:
		return true
	default:
		return false
	}
}

// expected is how long the stages of an image took when they were last done; what is
// not known is missing.
func expected(runs []*journal) map[Stage]time.Duration {
	took := map[Stage]time.Duration{}
	for _, run := range slices.Backward(runs) { // the newest counts
		for _, r := range run.Stages {
			if run.done(r.Stage) {
				took[r.Stage] = time.Duration(r.DurationMS) * time.Millisecond
			}
		}
	}
	return took
}

// longestFirst are the positions of products in the order in which to begin them: who
// takes longest would else be waited for in the end. One of which nothing is known may
// take any time.
func longestFirst(products []*product) []int {
	took := make([]time.Duration, len(products))
	order := make([]int, len(products))
	for i, p := range products {
		order[i] = i
		runs, err := p.journals()
		known := expected(runs)
		if err != nil || len(known) == 0 {
			took[i] = 1<<63 - 1
			continue
		}
		for d := range maps.Values(known) {
			took[i] += d
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(took[b], took[a]) })
	return order
}
