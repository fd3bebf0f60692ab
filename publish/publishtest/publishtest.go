// Package publishtest tests targets and sources of package publish: that they do
// what [publish.Target] and [publish.Source] promise. A driver's test of it is:
//
//	func TestTarget(t *testing.T) {
//		target := &directory.Target{Dir: t.TempDir()}
//		if err := publishtest.TestTarget(t.Context(), target, "Publishtest"); err != nil {
//			t.Fatal(err)
//		}
//	}
//
// It also makes small, rightly signed releases for other tests.
package publishtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// TestTarget tests the target and reports everything that is wrong with it. It
// publishes releases of images whose names begin with prefix and which must
// not exist. Of each it leaves what is latest or prev.
//
// In particular it cuts publications after each of their steps, as a crash
// would, and looks at the target after every step: there must never be two
// latest, nor none once there was one.
func TestTarget(ctx context.Context, target publish.Target, prefix string) error {
	dir, err := os.MkdirTemp("", "publishtest-")
	if err != nil {
		return err
	}
	k := &kit{target: target, dir: dir}
	var errs []error
	for _, test := range []struct {
		name string
		run  func(ctx context.Context, image string) error
	}{
		{"Push", k.push},
		{"PushChanged", k.pushChanged},
		{"PushCancelled", k.pushCancelled},
		{"Apply", k.apply},
		{"Rotate", k.rotate},
		{"Crash", k.crash},
		{"TakeBack", k.takeBack},
		{"Retire", k.retire},
		{"Lock", k.lock},
	} {
		if err := test.run(ctx, prefix+"_"+test.name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", test.name, err))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

type kit struct {
	target publish.Target
	dir    string // of the releases

	releases sync.Map // *publish.Release, by image and number
}

// release makes the nth release of the image, n from 1 to 12.
func (k *kit) release(ctx context.Context, image string, n int) (*publish.Release, error) {
	key := fmt.Sprintf("%s/%d", image, n)
	if r, ok := k.releases.Load(key); ok {
		return r.(*publish.Release), nil
	}
	r, err := Release(ctx, filepath.Join(k.dir, "first"), image, nth(n))
	if err == nil {
		k.releases.Store(key, r)
	}
	return r, err
}

func nth(n int) publish.BuildID {
	return publish.NewBuildID(time.Date(2018, time.Month(n), 1, 3, 15, 7, 0, time.UTC))
}

// publish publishes the nth release of the image, and before that as a dry
// run. Both must have so many steps.
func (k *kit) publish(ctx context.Context, image string, n, steps int) error {
	r, err := k.release(ctx, image, n)
	if err != nil {
		return err
	}
	dry, err := publish.Publish(ctx, publish.DryRun(k.target), r)
	if err != nil {
		return fmt.Errorf("dry run: %w", err)
	}
	p, err := publish.Publish(ctx, k.target, r)
	if err != nil {
		return err
	}
	if fmt.Sprint(p.Steps) != fmt.Sprint(dry.Steps) || len(p.Steps) != steps {
		return fmt.Errorf("the steps were %v, want %d and those of the dry run, %v", p.Steps, steps, dry.Steps)
	}
	if p.Entry.Build != nth(n) || p.Entry.ID == "" {
		return fmt.Errorf("after %s was published its entry is %+v", nth(n), p.Entry)
	}
	return nil
}

// expect compares what the target has of the image with want: for each release
// its number and labels, such as "1 2:prev 3:latest".
func (k *kit) expect(ctx context.Context, image, want string) error {
	have, err := k.target.List(ctx, image)
	if err != nil {
		return err
	}
	var got []string
	ids := make(map[string]bool)
	for _, e := range have {
		s := fmt.Sprint(int(e.Build.Time().Month()))
		for _, l := range []publish.Label{publish.Latest, publish.Prev} {
			if e.Has(l) {
				s += ":" + string(l)
			}
		}
		got = append(got, s)
		if e.ID == "" || ids[e.ID] || e.Image != image || e.Digest == "" {
			return fmt.Errorf("List(%q) has the entry %+v: want that image, an ID of its own, and a digest", image, e)
		}
		ids[e.ID] = true
	}
	slices.Sort(got)
	if s := strings.Join(got, " "); s != want {
		return fmt.Errorf("the target has the releases %q of %s, want %q", s, image, want)
	}
	return nil
}

// locked calls f with the image's lock, if the target has locks.
func (k *kit) locked(ctx context.Context, image string, f func() error) error {
	if l, ok := k.target.(publish.Locker); ok {
		unlock, err := l.Lock(ctx, image)
		if err != nil {
			return err
		}
		defer unlock()
	}
	return f()
}

func (k *kit) push(ctx context.Context, image string) error {
	if err := k.expect(ctx, image, ""); err != nil {
		return err
	}
	r, err := k.release(ctx, image, 1)
	if err != nil {
		return err
	}
	other, err := Release(ctx, filepath.Join(k.dir, "second"), image, nth(1))
	if err != nil {
		return err
	}
	return k.locked(ctx, image, func() error {
		var id string
		for range 2 {
			e, err := k.target.Push(ctx, r)
			if err != nil {
				return err
			}
			if id == "" {
				id = e.ID
			}
			if e.ID != id || e.Image != image || e.Build != nth(1) || e.Digest != r.Digest || len(e.Labels) > 0 {
				return fmt.Errorf("after the ID %q, Push returned %+v", id, e)
			}
			if err := k.expect(ctx, image, "1"); err != nil {
				return err
			}
		}
		if _, err := k.target.Push(ctx, other); !errors.Is(err, publish.ErrConflict) {
			return fmt.Errorf("a Push of another release of the same build returned %q, want ErrConflict", fmt.Sprint(err))
		}
		return k.expect(ctx, image, "1")
	})
}

// pushChanged pushes a release whose image changes after it was verified.
func (k *kit) pushChanged(ctx context.Context, image string) error {
	r, err := k.release(ctx, image, 1)
	if err != nil {
		return err
	}
	name := filepath.Join(r.Dir, image+"-"+nth(1).String()+".qcow2")
	good, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return k.locked(ctx, image, func() error {
		for what, bad := range map[string][]byte{
			"changed": append(slices.Clone(good[:len(good)-1]), 1),
			"shorter": good[:len(good)-1],
			"longer":  append(slices.Clone(good), 0),
		} {
			if err := os.WriteFile(name, bad, 0o644); err != nil {
				return err
			}
			if _, err := k.target.Push(ctx, r); err == nil {
				return fmt.Errorf("a Push took an image that is %s since it was verified", what)
			}
			if err := k.expect(ctx, image, ""); err != nil {
				return err
			}
		}
		if err := os.WriteFile(name, good, 0o644); err != nil { //nolint:gosec // the kit made the name
			return err
		}
		if _, err := k.target.Push(ctx, r); err != nil {
			return fmt.Errorf("after pushes that failed: %w", err)
		}
		return k.expect(ctx, image, "1")
	})
}

func (k *kit) pushCancelled(ctx context.Context, image string) error {
	r, err := k.release(ctx, image, 1)
	if err != nil {
		return err
	}
	return k.locked(ctx, image, func() error {
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := k.target.Push(cancelled, r); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a Push with a cancelled context returned %q", fmt.Sprint(err))
		}
		if err := k.expect(ctx, image, ""); err != nil {
			return err
		}
		if _, err := k.target.Push(ctx, r); err != nil {
			return fmt.Errorf("after a push that was cancelled: %w", err)
		}
		return k.expect(ctx, image, "1")
	})
}

// apply does each step twice, which must change nothing the second time.
func (k *kit) apply(ctx context.Context, image string) error {
	return k.locked(ctx, image, func() error {
		for n := range 3 {
			r, err := k.release(ctx, image, n+1)
			if err != nil {
				return err
			}
			if _, err := k.target.Push(ctx, r); err != nil {
				return err
			}
		}
		if err := k.expect(ctx, image, "1 2 3"); err != nil {
			return err
		}
		have, err := k.target.List(ctx, image)
		if err != nil {
			return err
		}
		slices.SortFunc(have, func(a, b publish.Entry) int { return a.Build.Compare(b.Build) })
		for _, test := range []struct {
			op    publish.Op
			label publish.Label
			n     int
			want  string // "" is that it must be refused
		}{
			{publish.Assign, publish.Latest, 2, "1 2:latest 3"},
			{publish.Assign, publish.Prev, 2, "1 2:latest:prev 3"},
			{publish.Remove, "", 2, ""},
			{publish.Assign, publish.Latest, 3, "1 2:prev 3:latest"},
			{publish.Remove, "", 2, ""},
			{publish.Remove, "", 3, ""},
			{publish.Assign, publish.Prev, 1, "1:prev 2 3:latest"},
			{publish.Remove, "", 2, "1:prev 3:latest"},
		} {
			s := publish.Step{Op: test.op, Label: test.label, Entry: have[test.n-1]}
			now, err := k.target.List(ctx, image)
			if err != nil {
				return err
			}
			for _, e := range now {
				if e.Has(test.label) && e.ID != s.Entry.ID {
					s.From = append(s.From, e)
				}
			}
			if test.want == "" {
				if err := k.target.Apply(ctx, s); err == nil {
					return fmt.Errorf("%s, which has a label, was not refused", s)
				}
				continue
			}
			for range 2 {
				if err := k.target.Apply(ctx, s); err != nil {
					return fmt.Errorf("%s: %w", s, err)
				}
				if err := k.expect(ctx, image, test.want); err != nil {
					return fmt.Errorf("after %s: %w", s, err)
				}
			}
		}
		return nil
	})
}

func (k *kit) rotate(ctx context.Context, image string) error {
	for _, test := range []struct {
		n     int
		want  string
		steps int
	}{
		{2, "2:latest", 2},
		{2, "2:latest", 0},
		{3, "2:prev 3:latest", 3},
		{4, "2 3:prev 4:latest", 3},
		{4, "2 3:prev 4:latest", 0},
		{3, "2 3:prev 4:latest", 0}, // is not made latest again
		{2, "2 3:prev 4:latest", 0},
	} {
		if err := k.publish(ctx, image, test.n, test.steps); err != nil {
			return err
		}
		if err := k.expect(ctx, image, test.want); err != nil {
			return err
		}
	}
	r, err := k.release(ctx, image, 1)
	if err != nil {
		return err
	}
	if _, err := publish.Publish(ctx, k.target, r); !errors.Is(err, publish.ErrOlder) {
		return fmt.Errorf("a Publish of an older release returned %q, want ErrOlder", fmt.Sprint(err))
	}
	if r, err = Release(ctx, filepath.Join(k.dir, "second"), image, nth(4)); err != nil {
		return err
	}
	if _, err := publish.Publish(ctx, k.target, r); !errors.Is(err, publish.ErrConflict) {
		return fmt.Errorf("a Publish of another release of the same build returned %q, want ErrConflict", fmt.Sprint(err))
	}
	return k.expect(ctx, image, "2 3:prev 4:latest")
}

// takeBack rolls back and withdraws, each also twice.
func (k *kit) takeBack(ctx context.Context, image string) error {
	for n := range 4 {
		if err := k.publish(ctx, image, n+1, min(n+2, 3)); err != nil {
			return err
		}
	}
	const reason = "it does not boot"
	for _, test := range []struct {
		what string
		do   func() (*publish.Publication, error)
		want string
	}{
		{"roll back to 2", func() (*publish.Publication, error) {
			return publish.Rollback(ctx, k.target, image, nth(2), reason)
		}, "1:prev 2:latest 3 4"},
		{"withdraw 1", func() (*publish.Publication, error) {
			return publish.Withdraw(ctx, k.target, image, nth(1), reason)
		}, "1 2:latest:prev 3 4"},
		{"roll forward to 3", func() (*publish.Publication, error) {
			return publish.Rollback(ctx, k.target, image, nth(3), reason)
		}, "1 2:prev 3:latest 4"},
		{"withdraw 3", func() (*publish.Publication, error) {
			return publish.Withdraw(ctx, k.target, image, nth(3), reason)
		}, "1 2:latest:prev 3 4"},
	} {
		for again := range 2 {
			p, err := test.do()
			if err == nil && (len(p.Steps) == 0) != (again > 0) {
				err = fmt.Errorf("time %d had the steps %v", again+1, p.Steps)
			}
			if err == nil {
				err = k.expect(ctx, image, test.want)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", test.what, err)
			}
		}
	}
	for n := range 4 {
		r, err := k.release(ctx, image, n+1)
		if err != nil {
			return err
		}
		_, err = publish.Publish(ctx, k.target, r)
		if want := n != 1; errors.Is(err, publish.ErrWithdrawn) != want || !want && err != nil {
			return fmt.Errorf("a Publish of release %d returned %q", n+1, fmt.Sprint(err))
		}
	}
	if err := k.publish(ctx, image, 5, 2); err != nil {
		return err
	}
	if _, err := publish.Withdraw(ctx, k.target, image, nth(6), reason); !errors.Is(err, publish.ErrUnknownBuild) {
		return fmt.Errorf("to withdraw an unknown build returned %q", fmt.Sprint(err))
	}
	return k.expect(ctx, image, "1 2:prev 3 4 5:latest")
}

// retire publishes four releases, of which the first two are over after the
// years in which they are kept.
func (k *kit) retire(ctx context.Context, image string) error {
	if steps, err := publish.Retire(ctx, k.target, image, time.Now()); err != nil || len(steps) > 0 {
		return fmt.Errorf("to retire an unknown image had the steps %v and the error %q", steps, fmt.Sprint(err))
	}
	for n := range 4 {
		if err := k.publish(ctx, image, n+1, min(n+2, 3)); err != nil {
			return err
		}
	}
	// What the target records counts: the labels were lost today.
	over := time.Now().AddDate(publish.KeepYears, 0, 0)
	for _, test := range []struct {
		now   time.Time
		want  string
		steps int
	}{
		{nth(4).Time(), "1 2 3:prev 4:latest", 0},
		{nth(4).Time().AddDate(publish.KeepYears, 0, 0), "1 2 3:prev 4:latest", 0},
		{over.AddDate(0, 0, -1), "1 2 3:prev 4:latest", 0},
		{over.AddDate(0, 0, 1), "3:prev 4:latest", 2},
		{over.AddDate(100, 0, 0), "3:prev 4:latest", 0},
	} {
		steps, err := publish.Retire(ctx, k.target, image, test.now)
		if err != nil {
			return err
		}
		if len(steps) != test.steps {
			return fmt.Errorf("to retire at %s had the steps %v, want %d", test.now, steps, test.steps)
		}
		if err := k.expect(ctx, image, test.want); err != nil {
			return err
		}
	}
	return nil
}

// lock looks whether runs for one image exclude each other.
func (k *kit) lock(ctx context.Context, image string) error {
	l, ok := k.target.(publish.Locker)
	if !ok {
		return nil
	}
	unlock, err := l.Lock(ctx, image)
	if err != nil {
		return err
	}
	defer func() { unlock() }()
	other, err := l.Lock(ctx, image+"_other")
	if err != nil {
		return fmt.Errorf("while another image is locked: %w", err)
	}
	other()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if second, err := l.Lock(cancelled, image); err == nil {
		second()
		return errors.New("two runs have the lock of one image")
	}
	unlock()
	unlock, err = l.Lock(ctx, image)
	if err != nil {
		unlock = func() {}
		return fmt.Errorf("after the lock was freed: %w", err)
	}
	return nil
}
