package publishtest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// crash cuts publications after each number of steps, with none, one and two
// releases there before. Then it publishes the same release or a newer one,
// which must complete what was cut. It does so for several images at a time.
func (k *kit) crash(ctx context.Context, image string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for before := range 3 {
		for done := range 4 {
			for _, newer := range []bool{false, true} {
				group.Go(func() error {
					image := fmt.Sprintf("%s_%d_%d_%t", image, before, done, newer)
					if err := k.crashOnce(ctx, image, before, done, newer); err != nil {
						return fmt.Errorf("%d releases, cut after %d steps, a newer release next: %t: %w", before, done, newer, err)
					}
					return nil
				})
			}
		}
	}
	return group.Wait()
}

func (k *kit) crashOnce(ctx context.Context, image string, before, done int, newer bool) error {
	for n := range before {
		r, err := k.release(ctx, image, n+1)
		if err != nil {
			return err
		}
		if _, err := publish.Publish(ctx, k.target, r); err != nil {
			return err
		}
	}
	o := &observed{Target: k.target, image: image, left: done}
	if err := o.look(ctx); err != nil {
		return err
	}
	cut := before + 1
	r, err := k.release(ctx, image, cut)
	if err != nil {
		return err
	}
	p, err := publish.Publish(ctx, o, r)
	complete := err == nil
	if err != nil && !errors.Is(err, errCut) {
		return err
	}
	if !complete && len(p.Steps) != done {
		return fmt.Errorf("the steps of the cut publication are %v, want %d", p.Steps, done)
	}

	// What is latest becomes prev. A release that was cut before it became
	// latest never was, but where nothing was, it is the newest complete one.
	last, prev := cut, before
	if newer {
		last++
		if complete || before == 0 && done > 0 {
			prev = cut
		}
	}
	if r, err = k.release(ctx, image, last); err != nil {
		return err
	}
	o.left = -1
	if _, err := publish.Publish(ctx, o, r); err != nil {
		return err
	}
	var want []string
	for n := 1; n <= last; n++ {
		switch {
		case n == last:
			want = append(want, fmt.Sprintf("%d:latest", n))
		case n == prev:
			want = append(want, fmt.Sprintf("%d:prev", n))
		case n != cut || done > 0:
			want = append(want, fmt.Sprint(n))
		}
	}
	return k.expect(ctx, image, strings.Join(want, " "))
}

var errCut = errors.New("cut")

// observed is a target that fails after some steps, as if the process had
// ended there, and looks after each whether the labels are right.
type observed struct {
	publish.Target
	image string
	left  int             // steps to do, or -1 for all
	ids   map[string]bool // of the entries there
	named bool            // there was a latest
}

// Lock takes the target's lock, if it has one.
func (o *observed) Lock(ctx context.Context, image string) (func(), error) {
	if l, ok := o.Target.(publish.Locker); ok {
		return l.Lock(ctx, image)
	}
	return func() {}, nil
}

func (o *observed) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	var e publish.Entry
	err := o.step(ctx, func() (err error) {
		e, err = o.Target.Push(ctx, r)
		return err
	})
	return e, err
}

func (o *observed) Apply(ctx context.Context, s publish.Step) error {
	return o.step(ctx, func() error { return o.Target.Apply(ctx, s) })
}

func (o *observed) step(ctx context.Context, do func() error) error {
	if o.left == 0 {
		return errCut
	}
	o.left--
	if err := do(); err != nil {
		return err
	}
	return o.look(ctx)
}

// look reports what must not be at any time.
func (o *observed) look(ctx context.Context) error {
	have, err := o.List(ctx, o.image)
	if err != nil {
		return err
	}
	count := make(map[publish.Label]int)
	ids := make(map[string]bool)
	for _, e := range have {
		ids[e.ID] = true
		for _, l := range e.Labels {
			count[l]++
		}
	}
	for id := range o.ids {
		if !ids[id] {
			return fmt.Errorf("release %s is gone", id)
		}
	}
	if count[publish.Latest] > 1 || count[publish.Prev] > 1 || o.named && count[publish.Latest] == 0 {
		return fmt.Errorf("%d releases are latest and %d prev", count[publish.Latest], count[publish.Prev])
	}
	o.ids, o.named = ids, count[publish.Latest] > 0
	return nil
}
