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
	// ErrWithdrawn is that the release was taken back. [Rollback] to it makes
	// it latest again.
	ErrWithdrawn = errors.New("the release was withdrawn")
	// ErrFuture is that the release says that it was built after now.
	ErrFuture = errors.New("the build is dated in the future")
	// ErrIncomplete is that a release on the target is not, or no longer,
	// what its checksums say. To publish the release again repairs it.
	ErrIncomplete = errors.New("the release on the target is not complete")
	// ErrUnknownBuild is that the target or source does not have the build.
	ErrUnknownBuild = errors.New("there is no such build")
)

// maxSkew is how far the clocks of a builder and a publisher may be apart.
const maxSkew = time.Hour

// A Target is a place where releases are published. Its methods may be called
// concurrently for different images; for one image they are called in turn,
// by runs that exclude each other if the target is a [Locker].
//
// What is on a target may have been written, cut, renamed or removed by
// somebody else. That is never an error of List, but a Problem of an entry or
// no entry at all.
//
// Package publishtest checks that a target keeps what is promised here.
type Target interface {
	// List returns the releases of the image, in any order: none and no error
	// if there is no such image. One whose files are not all there with their
	// sizes has a Problem.
	List(ctx context.Context, image string) ([]Entry, error)

	// Push brings the release to the target and returns its entry, without
	// labels. When it returns the copy is complete, compared with the
	// release's digests, and as durable as the target can make it. A Push
	// that fails or is killed leaves nothing that List returns without a
	// Problem, and the next one succeeds. If the release is there already,
	// Push compares it, completes it where it must, and lets it keep its labels;
	// it is ErrConflict if another release of that build is there.
	Push(ctx context.Context, r *Release) (Entry, error)

	// Apply does a step other than Push. Users of the target see the state
	// before it or the state after it, as far as the target can do that.
	// Applying a step again changes nothing. A label is given only to an entry
	// whose content has the digests of its checksums, else it is
	// ErrIncomplete. Apply refuses to remove an entry that has a label. It
	// records when an entry loses its last label, and what is withdrawn.
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
	// Problems are the image's other entries that have a Problem and were
	// therefore passed over. They hinder nothing, but somebody should look.
	Problems []Entry
}

// Publish brings the release to the target, makes it latest, and makes what
// was latest prev. It does what is missing: if it is called again, after
// success, after an error or by a new process after it was killed, it does the
// rest, which may be nothing. A release that is damaged on the target is
// repaired.
//
// A release that is older than what is latest, or where nothing is latest older
// than the newest complete one, does not become latest again: if the target has
// it already Publish does no more than to repair it and to give the newest its
// label back; otherwise it is ErrOlder. One that was withdrawn is ErrWithdrawn.
// To go back to either on purpose there is [Rollback]. A build that is dated more
// than an hour ahead of this machine's clock is ErrFuture.
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
	err := inFuture(r.Index.Build, time.Now())
	if err == nil {
		err = locked(ctx, t, r.Index.Image, func() error { return p.run(ctx, t, r) })
	}
	if err != nil {
		return p, fmt.Errorf("cannot publish %s %s: %w", r.Index.Image, r.Index.Build, err)
	}
	return p, nil
}

func inFuture(b BuildID, now time.Time) error {
	if b.Time().After(now.Add(maxSkew)) {
		return fmt.Errorf("%w: it is %s here; set the clock of the machine that built it", ErrFuture, now.UTC().Format(time.DateTime))
	}
	return nil
}

func (p *Publication) run(ctx context.Context, t Target, r *Release) error {
	have, err := list(ctx, t, r.Index.Image)
	if err != nil {
		return err
	}
	want := Desired{Image: r.Index.Image, Build: r.Index.Build, Digest: r.Digest}
	for _, e := range have {
		if e.Build != want.Build {
			continue
		}
		if e.Problem == "" && e.Digest != "" && e.Digest != r.Digest {
			return fmt.Errorf("%s: %w", e.ID, ErrConflict)
		}
		if e.Withdrawn != "" {
			return fmt.Errorf("%w: %s", ErrWithdrawn, e.Withdrawn)
		}
		if p.Entry.Build.IsZero() {
			p.Entry = e
		}
	}
	c := &change{t: t, have: have, release: r, publication: p}
	newest, ok := newest(have)
	if !ok || newest.Build.Compare(want.Build) <= 0 {
		return c.do(ctx, want)
	}
	switch {
	case p.Entry.Build.IsZero():
		err = ErrOlder
	case p.Entry.Problem != "":
		err = c.step(ctx, Step{Op: Push, Entry: p.Entry})
	}
	return errors.Join(err, c.do(ctx, Desired{Image: newest.Image, Build: newest.Build, Digest: newest.Digest}))
}

// list lists what the target has, with a Problem for what is dated in the
// future: it would be the newest until then.
func list(ctx context.Context, t Target, image string) ([]Entry, error) {
	have, err := t.List(ctx, image)
	if err != nil {
		return nil, err
	}
	for i, e := range have {
		if err := inFuture(e.Build, time.Now()); e.Problem == "" && err != nil {
			have[i].Problem = ErrFuture.Error()
		}
	}
	return byPreference(have), nil
}

// newest returns what is latest or, where nothing that can be used is, the
// newest release that can.
func newest(have []Entry) (Entry, bool) {
	if len(have) == 0 || !have[0].usable() { // by preference
		return Entry{}, false
	}
	return have[0], true
}

// change brings a target to a desired state.
type change struct {
	t           Target
	have        []Entry // by preference
	release     *Release
	publication *Publication
}

// do plans and does the steps. A release that turns out to be damaged when it
// should get a label is one with a Problem from then on, and there is another
// plan.
func (c *change) do(ctx context.Context, want Desired) error {
	for range len(c.have) + 1 {
		damaged, err := c.try(ctx, want)
		if !damaged {
			for _, e := range c.have {
				if e.Problem != "" && e.ID != c.publication.Entry.ID {
					c.publication.Problems = append(c.publication.Problems, e)
				}
			}
			return err
		}
	}
	return ErrIncomplete
}

func (c *change) try(ctx context.Context, want Desired) (damaged bool, err error) {
	for _, s := range Plan(c.have, want) {
		err := c.step(ctx, s)
		i := slices.IndexFunc(c.have, func(e Entry) bool { return e.ID == s.Entry.ID })
		if s.Op == Assign && errors.Is(err, ErrIncomplete) && i >= 0 && c.have[i].Problem == "" {
			c.have[i].Problem = err.Error()
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("cannot %s: %w", s, err)
		}
	}
	return false, nil
}

// doNewest makes the newest release latest that can be used and is not damaged.
func (c *change) doNewest(ctx context.Context, image string) error {
	for {
		c.have = byPreference(c.have)
		next, ok := newest(c.have)
		if !ok {
			return errors.New("there is no other release that could be latest; publish one first")
		}
		c.publication.Problems = nil
		err := c.do(ctx, Desired{Image: image, Build: next.Build, Digest: next.Digest})
		if again, _ := newest(byPreference(c.have)); !errors.Is(err, ErrIncomplete) || again.ID == next.ID {
			return err
		}
	}
}

// step does a step and keeps account of it.
func (c *change) step(ctx context.Context, s Step) error {
	p := c.publication
	if s.Op == Push {
		if c.release == nil || c.release.Index.Build != s.Entry.Build {
			return fmt.Errorf("%w: %s; publish it again", ErrIncomplete, s.Entry.Problem)
		}
		e, err := c.t.Push(ctx, c.release)
		if err != nil {
			return err
		}
		e.Labels = s.Entry.Labels
		p.Entry, p.Steps = e, append(p.Steps, s)
		c.have = append(slices.DeleteFunc(c.have, func(h Entry) bool { return h.ID == e.ID || h.ID == s.Entry.ID }), e)
		return nil
	}
	if s.Op != Remove && s.Entry.Build == p.Entry.Build { // what is removed is a double of it
		s.Entry = p.Entry // with the ID that Push gave it
	}
	if err := c.t.Apply(ctx, s); err != nil {
		return err
	}
	p.Steps = append(p.Steps, s)
	c.account(s)
	if i := slices.IndexFunc(c.have, func(e Entry) bool { return e.ID == p.Entry.ID }); i >= 0 {
		p.Entry = c.have[i]
	}
	return nil
}

// account changes what the target is known to have by a step that was done.
func (c *change) account(s Step) {
	if s.Op == Remove {
		c.have = slices.DeleteFunc(c.have, func(e Entry) bool { return e.ID == s.Entry.ID })
		return
	}
	for i := range c.have {
		e := &c.have[i]
		switch own := e.ID == s.Entry.ID; {
		case s.Op == Assign:
			e.Labels = slices.DeleteFunc(slices.Clone(e.Labels), func(l Label) bool { return l == s.Label })
			if own {
				e.Labels = append(e.Labels, s.Label)
			}
		case s.Op == MarkWithdrawn && own:
			e.Withdrawn = s.Reason
		case s.Op == ClearWithdrawn && own:
			e.Withdrawn = ""
		}
	}
}

// Rollback makes a build that the target has latest again, and withdraws all
// newer ones for the reason, so that no repeated Publish brings them back. After
// an error the Publication holds the steps that were done; a further call does the
// rest.
func Rollback(ctx context.Context, t Target, image string, to BuildID, reason string) (*Publication, error) {
	p := new(Publication)
	err := takeBack(ctx, t, image, to, reason, func(have []Entry, e Entry) error {
		p.Entry = e
		c := &change{t: t, have: have, publication: p}
		return c.do(ctx, Desired{Image: image, Build: to, Digest: e.Digest, Rollback: reason})
	})
	if err != nil {
		return p, fmt.Errorf("cannot roll %s back to %s: %w", image, to, err)
	}
	return p, nil
}

// Withdraw takes a release back for the reason: it stays where it is but
// loses its labels to the newest others, and no repeated Publish gives them back.
// The only release that can be used and is not damaged is refused, for users would
// have none: publish another first. After an error the Publication holds the steps that were done; a
// further call does the rest.
func Withdraw(ctx context.Context, t Target, image string, build BuildID, reason string) (*Publication, error) {
	p := new(Publication)
	err := takeBack(ctx, t, image, build, reason, func(have []Entry, e Entry) error {
		p.Entry = e
		c := &change{t: t, have: have, publication: p}
		for _, double := range surplus(have, nil) { // or it would become latest in e's place
			if err := c.step(ctx, double); err != nil {
				return err
			}
		}
		mark := Step{Op: MarkWithdrawn, Entry: e, Reason: reason}
		c.account(mark) // for the plan: it loses its labels, and is marked when another has them
		if err := c.doNewest(ctx, image); err != nil || e.Withdrawn != "" {
			return err
		}
		return c.step(ctx, mark)
	})
	if err != nil {
		return p, fmt.Errorf("cannot withdraw %s %s: %w", image, build, err)
	}
	return p, nil
}

// takeBack calls f under the image's lock with what the target has, by
// preference, and the entry of the build.
func takeBack(ctx context.Context, t Target, image string, build BuildID, reason string, f func(have []Entry, e Entry) error) error {
	if reason == "" {
		return errors.New("a reason is missing")
	}
	find := func() ([]Entry, Entry, error) {
		have, err := list(ctx, t, image)
		if err != nil {
			return nil, Entry{}, err
		}
		have = byPreference(have)
		i := slices.IndexFunc(have, func(e Entry) bool { return e.Build == build })
		if i < 0 {
			return nil, Entry{}, ErrUnknownBuild
		}
		return have, have[i], nil
	}
	if _, _, err := find(); err != nil { // before a lock makes a place for the image
		return err
	}
	return locked(ctx, t, image, func() error {
		have, e, err := find()
		if err != nil {
			return err
		}
		return f(have, e)
	})
}

// Retire removes from the target the image's releases that [PlanRetire] names
// and returns the steps done. Nothing else ever removes a release, but doubles of one: see
// [Plan]. One that the target
// refuses to remove, because a server uses it or somebody has protected it meanwhile,
// keeps none of the others; the error joins them all.
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
		var errs []error
		for _, s := range PlanRetire(have, now) {
			if err := t.Apply(ctx, s); err != nil {
				errs = append(errs, fmt.Errorf("cannot %s: %w", s, err))
			} else {
				done = append(done, s)
			}
			if ctx.Err() != nil {
				break
			}
		}
		return errors.Join(errs...)
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
