package publishtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// A Cloud is a target that speaks HTTP to a server.
type Cloud struct {
	// URL is the server's, and Transport reaches it; if nil, the default transport.
	URL       string
	Transport http.RoundTripper
	// Open returns a target as a new process would have it, which reaches the server
	// at the URL with the client alone.
	Open func(url string, client *http.Client) (publish.Target, error)
	// Holds reports an entry of the target whose content is not all of the release.
	Holds func(ctx context.Context, t publish.Target, e publish.Entry, r *publish.Release) error
	// Orphans returns what is on the server for the image and belongs to no entry. If
	// nil, that is not looked for.
	Orphans func(ctx context.Context, image string) ([]string, error)
	// Overlap says that a label may be on two entries while a run is at work or was cut.
	Overlap bool
	// Elsewhere says that releases' content does not go to URL.
	Elsewhere bool
	// AtOnce is how many runs may go on at a time; if zero, 1.
	AtOnce int
	// Faults is of how many pairs of a fault and a call TestFaults takes a sample; if
	// zero, 132.
	Faults int
}

// TestCuts cuts the client before each call, and after each that may change something,
// of a first and a second publication, a rotation, a rollback, a withdrawal and a
// retention, as if it had been killed, and lets a new one do the same again. After a
// call that only reads all is as before the next one. At each moment there must be a complete
// latest, once there was one; at the end everything must be as if nothing had been
// cut. Images' names begin with prefix, and none of them may exist.
func TestCuts(ctx context.Context, c *Cloud, prefix string) error {
	dir, err := os.MkdirTemp("", "publishtest-")
	if err != nil {
		return err
	}
	k := &kit{dir: dir}
	var errs []error
	for _, op := range cutOperations {
		if err := c.cutAll(ctx, k, prefix, op); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", op.name, err))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// operation is what is cut: with so many releases published before.
type operation struct {
	name   string
	before int
	do     func(ctx context.Context, k *kit, t publish.Target, image string) error
	want   string
}

const cutReason = "it does not boot"

var cutOperations = []operation{
	{"First", 0, publishNth(1), "1:latest"},
	{"Second", 1, publishNth(2), "1:prev 2:latest"},
	{"Rotate", 2, publishNth(3), "1 2:prev 3:latest"},
	{"Rollback", 3, func(ctx context.Context, _ *kit, t publish.Target, image string) error {
		_, err := publish.Rollback(ctx, t, image, nth(1), cutReason)
		return err
	}, "1:latest:prev 2 3"},
	{"Withdraw", 3, func(ctx context.Context, _ *kit, t publish.Target, image string) error {
		_, err := publish.Withdraw(ctx, t, image, nth(3), cutReason)
		return err
	}, "1:prev 2:latest 3"},
	{"Retain", 3, func(ctx context.Context, _ *kit, t publish.Target, image string) error {
		_, err := publish.Retire(ctx, t, image, time.Now().AddDate(publish.KeepYears, 0, 1))
		return err
	}, "2:prev 3:latest"},
}

func publishNth(n int) func(context.Context, *kit, publish.Target, string) error {
	return func(ctx context.Context, k *kit, t publish.Target, image string) error {
		r, err := k.release(ctx, image, n)
		if err == nil {
			_, err = publish.Publish(ctx, t, r)
		}
		return err
	}
}

// cutAll cuts the operation at each of its calls.
func (c *Cloud) cutAll(ctx context.Context, k *kit, prefix string, op operation) error {
	calls, err := c.cutOnce(ctx, k, prefix+"_"+op.name, op, 0, Never)
	if err != nil {
		return fmt.Errorf("uncut: %w", err)
	}
	changes := 0
	for _, call := range calls {
		if call.Changes() {
			changes++
		}
	}
	if changes == 0 {
		return errors.New("it changes nothing on the server through the proxy")
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(max(c.AtOnce, 1))
	for _, cut := range []struct {
		when When
		name string
		of   int
	}{
		{Before, "before", len(calls)},
		{After, "after", changes},
	} {
		for n := 1; n <= cut.of; n++ {
			group.Go(func() error {
				if _, err := c.cutOnce(groupCtx, k, fmt.Sprintf("%s_%s_%s_%d", prefix, op.name, cut.name, n), op, n, cut.when); err != nil {
					return fmt.Errorf("cut %s call %d of %d: %w", cut.name, n, cut.of, err)
				}
				return nil
			})
		}
	}
	return group.Wait()
}

// cutOnce does the operation with a cut before the nth call or after the nth change,
// and then again without. It returns the calls up to the cut.
func (c *Cloud) cutOnce(ctx context.Context, k *kit, image string, op operation, n int, when When) ([]Call, error) {
	proxy, err := NewProxy(c.URL, c.Transport)
	if err != nil {
		return nil, err
	}
	defer proxy.Close()
	open := func() (publish.Target, error) { return c.Open(proxy.URL, proxy.Client()) }
	direct, err := c.Open(c.URL, &http.Client{Transport: c.Transport})
	if err != nil {
		return nil, err
	}
	for i := range op.before {
		if err := publishNth(i+1)(ctx, k, direct, image); err != nil {
			return nil, fmt.Errorf("before: %w", err)
		}
	}
	w := &watch{cloud: c, kit: k, image: image, direct: direct, named: op.before > 0}
	proxy.After(func(call Call) {
		if call.Changes() {
			w.look(ctx)
		}
	})
	run, kill := context.WithCancel(ctx)
	defer kill()
	seen := 0
	proxy.Fault(func(call Call) Fault {
		if when == After && !call.Changes() {
			return Fault{}
		}
		if seen++; seen != n {
			return Fault{}
		}
		if when == Before {
			kill()
		}
		return Fault{When: when, Dead: true}
	})
	proxy.mu.Lock()
	proxy.killed = kill
	proxy.mu.Unlock()
	t, err := open()
	if err != nil {
		return nil, err
	}
	err = op.do(run, k, t, image)
	calls := proxy.Calls()
	if n == 0 && err != nil {
		return calls, err
	}
	w.look(ctx)
	proxy.Heal()
	if t, err = open(); err != nil {
		return calls, err
	}
	if err := op.do(ctx, k, t, image); err != nil {
		return calls, fmt.Errorf("again: %w", err)
	}
	return calls, errors.Join(w.err(), c.settled(ctx, k, direct, image, op.want))
}

// settled reports what is not as it should be when a run is over.
func (c *Cloud) settled(ctx context.Context, k *kit, t publish.Target, image, want string) error {
	at := &kit{target: t, dir: k.dir}
	if err := at.expect(ctx, image, want); err != nil {
		return err
	}
	have, err := t.List(ctx, image)
	if err != nil {
		return err
	}
	for _, e := range have {
		r, err := k.release(ctx, image, int(e.Build.Time().Month()))
		if err != nil {
			return err
		}
		if e.Problem != "" || e.Digest != r.Digest {
			return fmt.Errorf("%s has the digest %q and the problem %q", e.ID, e.Digest, e.Problem)
		}
		if err := c.Holds(ctx, t, e, r); err != nil {
			return fmt.Errorf("%s is not the release: %w", e.ID, err)
		}
	}
	if c.Orphans == nil {
		return nil
	}
	left, err := c.Orphans(ctx, image)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left over are %q", left)
	}
	return err
}

// watch looks at the target while others change it.
type watch struct {
	cloud  *Cloud
	kit    *kit
	image  string
	direct publish.Target

	mu     sync.Mutex
	named  bool // there was a latest
	faults []error
}

func (w *watch) look(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	have, err := w.direct.List(ctx, w.image)
	latest := 0
	for _, e := range have {
		if !e.Has(publish.Latest) {
			continue
		}
		latest++
		if e.Problem != "" {
			err = errors.Join(err, fmt.Errorf("what is latest is not complete: %s", e.Problem))
		}
	}
	switch {
	case err != nil:
	case latest == 0 && w.named:
		err = errors.New("nothing is latest any more")
	case latest > 1 && !w.cloud.Overlap:
		err = fmt.Errorf("%d releases are latest", latest)
	}
	w.named = w.named || latest > 0
	if err != nil {
		w.faults = append(w.faults, err)
	}
}

func (w *watch) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.faults...)
}

// HoldsFrom returns a Holds for targets that are a [publish.Source]: it reads all files.
func HoldsFrom() func(context.Context, publish.Target, publish.Entry, *publish.Release) error {
	return func(ctx context.Context, t publish.Target, e publish.Entry, r *publish.Release) error {
		source, ok := t.(publish.Source)
		if !ok {
			return errors.New("the target is no source")
		}
		for _, f := range r.Files {
			want, err := os.ReadFile(filepath.Join(r.Dir, f.Name))
			if err != nil {
				return err
			}
			if err := readAt(ctx, source, e.Image+"/"+e.Build.String()+"/"+f.Name, want); err != nil {
				return err
			}
		}
		return nil
	}
}

// Conditions are the headers that make a request conditional.
var conditions = []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"}

// OpenTelekomCloud returns a transport that makes of an S3 service what Open Telekom
// Cloud's is: trailing checksums and bodies signed in pieces get a 400, and conditions
// are not looked at.
func OpenTelekomCloud(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if Trailing(r) {
			return &http.Response{
				StatusCode: http.StatusBadRequest, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
				Body: http.NoBody, Request: r,
			}, nil
		}
		r = r.Clone(r.Context())
		signed := r.Header.Get("Authorization")
		if !slices.ContainsFunc(conditions, func(h string) bool { return strings.Contains(signed, strings.ToLower(h)) }) {
			for _, h := range conditions {
				r.Header.Del(h)
			}
		}
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
