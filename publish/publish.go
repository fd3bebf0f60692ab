package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Errors that Publish and targets return, wrapped in what was being done.
var (
	// ErrConflict is that a target has another release of the same image
	// and build.
	ErrConflict = errors.New("the target has a different release of this build")
	// ErrOlder is that what is latest was built after the release that
	// should become latest.
	ErrOlder = errors.New("a newer release is latest")
)

// A Target is a place where releases are published. Its methods may be called
// concurrently for different images; for one image they are called in turn,
// by runs that exclude each other if the target is a [Locker].
//
// Package publishtest checks that a target keeps what is promised here.
type Target interface {
	// List returns the releases of the image that are complete, in any
	// order: none and no error if there is no such image.
	List(ctx context.Context, image string) ([]Entry, error)

	// Push brings the release to the target and returns its entry, which
	// has no label. When it returns the copy is complete, compared with the
	// release's digests, and as durable as the target can make it. A Push
	// that fails or is killed leaves nothing that List returns, and the
	// next one succeeds. If the release is there already Push returns its
	// entry; it is ErrConflict if that is not the same release.
	Push(ctx context.Context, r *Release) (Entry, error)

	// Apply does a step other than Push. Users of the target see the state
	// before it or the state after it, as far as the target can do that.
	// Applying a step again changes nothing. Apply refuses to remove an
	// entry that has a label.
	Apply(ctx context.Context, s Step) error
}

// A Locker is a Target that can exclude other runs, also those of other
// processes.
type Locker interface {
	// Lock waits until no other run holds the image's lock, takes it, and
	// returns what releases it. It ends early with ctx. The lock of a
	// killed process is free.
	Lock(ctx context.Context, image string) (unlock func(), err error)
}

// A Publication is what Publish did.
type Publication struct {
	// Entry is the release on the target with the labels that it has now.
	Entry Entry
	// Steps are the steps that were done, in order; none if the release
	// was published before.
	Steps []Step
}

// Publish brings the release to the target, makes it latest, and makes what
// was latest prev. It does what is missing: if it is called again, after
// success, after an error or by a new process after it was killed, it does the
// rest, which may be nothing.
//
// A release that is older than what is latest does not become latest again: if
// the target has it already Publish does nothing, otherwise it is ErrOlder. To
// go back to an older release on purpose, apply a [Plan] with it.
//
// The Publication is never nil. After an error it holds the steps that were
// done before.
func Publish(ctx context.Context, t Target, r *Release) (*Publication, error) {
	p := new(Publication)
	if r == nil || !r.verified {
		return p, errors.New("cannot publish a release that Open did not return")
	}
	if t == nil {
		return p, fmt.Errorf("cannot publish %s %s: %w", r.Index.Image, r.Index.Build, errNoTarget)
	}
	err := locked(ctx, t, r.Index.Image, func() error { return p.run(ctx, t, r) })
	if err != nil {
		return p, fmt.Errorf("cannot publish %s %s: %w", r.Index.Image, r.Index.Build, err)
	}
	return p, nil
}

func (p *Publication) run(ctx context.Context, t Target, r *Release) error {
	image, build := r.Index.Image, r.Index.Build
	have, err := t.List(ctx, image)
	if err != nil {
		return err
	}
	superseded := false
	for _, e := range byPreference(have) {
		switch {
		case e.Build == build:
			if e.Digest != "" && e.Digest != r.Digest {
				return fmt.Errorf("%s: %w", e.ID, ErrConflict)
			}
			if p.Entry.Build.IsZero() {
				p.Entry = e
			}
		case e.Has(Latest) && e.Build.Compare(build) > 0:
			superseded = true
		}
	}
	if superseded {
		if p.Entry.Build.IsZero() {
			return ErrOlder
		}
		return nil
	}

	for _, s := range Plan(have, Desired{Image: image, Build: build, Digest: r.Digest}) {
		if s.Op == Push {
			if p.Entry, err = t.Push(ctx, r); err != nil {
				return err
			}
			p.Steps = append(p.Steps, s)
			continue
		}
		ours := s.Entry.Build == build
		if ours {
			s.Entry = p.Entry // with the ID that Push gave it
		}
		if err := t.Apply(ctx, s); err != nil {
			return fmt.Errorf("cannot %s: %w", s, err)
		}
		p.Steps = append(p.Steps, s)
		if ours {
			p.Entry.Labels = append(slices.Clone(p.Entry.Labels), s.Label)
		}
	}
	return nil
}

// Retire removes from the target the image's releases that [PlanRetire] names
// and returns the steps done. Nothing else ever removes a release.
func Retire(ctx context.Context, t Target, image string, now time.Time) ([]Step, error) {
	if t == nil {
		return nil, fmt.Errorf("cannot retire releases of %s: %w", image, errNoTarget)
	}
	// A target may have to make a place for the image to lock it.
	if have, err := t.List(ctx, image); err == nil && len(have) == 0 {
		return nil, nil
	}
	var done []Step
	err := locked(ctx, t, image, func() error {
		have, err := t.List(ctx, image)
		if err != nil {
			return err
		}
		for _, s := range PlanRetire(have, now) {
			if err := t.Apply(ctx, s); err != nil {
				return fmt.Errorf("cannot %s: %w", s, err)
			}
			done = append(done, s)
		}
		return nil
	})
	if err != nil {
		return done, fmt.Errorf("cannot retire releases of %s: %w", image, err)
	}
	return done, nil
}

// locked calls f while it holds the target's lock, if there is one.
func locked(ctx context.Context, t Target, image string, f func() error) error {
	if l, ok := t.(Locker); ok {
		unlock, err := l.Lock(ctx, image)
		if err != nil {
			return err
		}
		if unlock == nil {
			return errors.New("the target returned neither a lock nor an error")
		}
		defer unlock()
	}
	return f()
}

var errNoTarget = errors.New("there is no target")

// DryRun returns a Target that lists what t lists and changes nothing. The
// steps of what Publish or Retire returns for it are those that t would see
// now. It takes no lock.
func DryRun(t Target) Target { return dryRun{t} }

type dryRun struct{ t Target }

func (d dryRun) List(ctx context.Context, image string) ([]Entry, error) {
	return d.t.List(ctx, image)
}

func (d dryRun) Push(_ context.Context, r *Release) (Entry, error) {
	return Entry{Image: r.Index.Image, Build: r.Index.Build, Digest: r.Digest}, nil
}

func (d dryRun) Apply(context.Context, Step) error { return nil }
