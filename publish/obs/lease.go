package obs

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"sync"
	"time"
)

// leaseDir holds the leases of an image: an object for each run that has or wants it.
const leaseDir = ".lease/"

var errLeaseLost = errors.New("the lease of the image was lost, so that another run may have it; run again")

// lease is what a run holds of an image.
type lease struct {
	key  string
	body []byte

	mu      sync.Mutex
	renewed time.Time
	length  time.Duration
}

// lost reports a lease that others may take for a killed run's.
func (l *lease) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Round(0).Sub(l.renewed) > l.length*3/4 // Round: also a machine that slept
}

func (l *lease) renew(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewed = at.Round(0)
}

// Lock implements [publish.Locker]. A run writes a lease and lists: only one that
// sees no other's has the lock, all others take theirs away, wait, and come again.
// So two that come at once may both step back, but never both go on. A lease that
// was not renewed for Lease, by the service's clock, is that of a killed run.
func (t *Target) Lock(ctx context.Context, image string) (func(), error) {
	unlock, err := t.lock(ctx, image)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", image, err)
	}
	return unlock, nil
}

func (t *Target) lock(ctx context.Context, image string) (func(), error) {
	d, err := t.image(ctx, image)
	if err != nil {
		return nil, err
	}
	length := cmp.Or(t.Lease, time.Minute)
	name := leaseDir + rand.Text()
	host, _ := os.Hostname()
	body := fmt.Appendf(nil, "%s, process %d\n", host, os.Getpid())
	drop := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = d.b.remove(ctx, d.key(name)) // else it expires
	}
	for told := false; ; {
		asked := time.Now()
		if _, err := d.b.put(ctx, d.key(name), body); err != nil {
			drop() // the answer may have been lost
			return nil, err
		}
		free, err := d.alone(ctx, name, length)
		if err != nil {
			drop()
			return nil, err
		}
		if free {
			return t.hold(ctx, d, &lease{key: name, body: body, renewed: asked.Round(0), length: length}, drop), nil
		}
		if err := d.b.remove(ctx, d.key(name)); err != nil {
			return nil, err
		}
		if !told {
			told = true
			t.logger().InfoContext(ctx, "waiting for another run that publishes the image", "bucket", t.Bucket, "image", image)
		}
		pause := min(length/20, 2*time.Second)
		if err := wait(ctx, pause+mathrand.N(pause+1)); err != nil { //nolint:gosec // no secret
			return nil, err
		}
	}
}

// alone reports whether no other run has a lease. It removes those of killed runs.
func (d *image) alone(ctx context.Context, name string, length time.Duration) (bool, error) {
	for range 100 {
		all, err := d.b.list(ctx, d.key(leaseDir))
		if err != nil {
			return false, err
		}
		var now time.Time
		for _, o := range all {
			if o.key == d.key(name) {
				now = o.modified
			}
		}
		if now.IsZero() { // the list lags behind what was written; it may lack others, too
			if err := wait(ctx, d.b.pause); err != nil {
				return false, err
			}
			continue
		}
		free := true
		for _, o := range all {
			switch {
			case o.key == d.key(name):
			case now.Sub(o.modified) > length:
				if err := d.b.remove(ctx, o.key); err != nil {
					return false, err
				}
			default:
				free = false
			}
		}
		return free, nil
	}
	return false, errors.New("the service does not list what was written to it")
}

// hold renews the lease until it is released.
func (t *Target) hold(ctx context.Context, d *image, l *lease, drop func()) func() {
	t.mu.Lock()
	if t.leases == nil {
		t.leases = make(map[string]*lease)
	}
	t.leases[d.name] = l
	t.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for wait(ctx, l.length/4) == nil {
			asked := time.Now()
			// Not cut short: it could arrive after the lease was removed.
			call, stop := context.WithTimeout(context.WithoutCancel(ctx), l.length)
			if _, err := d.b.put(call, d.key(l.key), l.body); err == nil {
				l.renew(asked)
			}
			stop()
		}
	}()
	return func() {
		cancel()
		<-done // so that no lease is written after it was removed
		t.mu.Lock()
		delete(t.leases, d.name)
		t.mu.Unlock()
		drop()
	}
}

// holds reports a lease of ours that was lost. Who took none is not hindered. One that
// was not renewed in time, as on a machine that slept, is ours still if nobody took it
// away, as each other run does before it goes on.
func (t *Target) holds(ctx context.Context, d *image) error {
	t.mu.Lock()
	l := t.leases[d.name]
	t.mu.Unlock()
	if l == nil || !l.lost() {
		return nil
	}
	asked := time.Now()
	_, err := d.b.head(ctx, d.key(l.key))
	if errors.Is(err, fs.ErrNotExist) {
		return errLeaseLost
	}
	if err == nil {
		_, err = d.b.put(ctx, d.key(l.key), l.body)
	}
	if err != nil {
		return err
	}
	switch alone, err := d.alone(ctx, l.key, l.length); {
	case err != nil:
		return err
	case !alone:
		return errLeaseLost
	}
	l.renew(asked)
	return nil
}
