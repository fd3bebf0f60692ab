package publishtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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

// struck is a fault and the call of a publication that meets it, from 1.
type struck struct {
	name  string
	fault Fault
	call  int
}

// passing are the faults of a server or a network that pass by.
func passing() map[string]Fault {
	faults := map[string]Fault{
		"reset":        {When: Before},
		"lost":         {When: After},
		"upload cut":   {When: Before, Upload: 100},
		"short answer": {Download: 1},
		"late":         {Delay: 50 * time.Millisecond},
	}
	for _, status := range []int{401, 409, 413, 429, 500, 502, 503, 507} {
		faults[fmt.Sprint(status)] = Fault{When: Before, Status: status, Header: http.Header{"Retry-After": {"1"}}}
		faults[fmt.Sprint(status, " in upload")] = Fault{When: Before, Status: status, Upload: 100}
		faults[fmt.Sprint(status, " after success")] = Fault{When: After, Status: status}
	}
	return faults
}

// chain is how many releases of an image are published one after the other, each with a
// fault, after the first.
const chain = 11

// TestFaults lets the calls of publications meet the faults of a server or a network
// that pass by: each publication one of them, at one call. It must succeed by itself, or
// end with an error and succeed when it is done again. Afterwards all is there. Which fault
// meets which call is a sample, always the same one.
func TestFaults(ctx context.Context, c *Cloud, prefix string) error {
	dir, err := os.MkdirTemp("", "publishtest-")
	if err != nil {
		return err
	}
	k := &kit{dir: dir}
	rotate := operation{"", 2, publishNth(3), "1 2:prev 3:latest"}
	calls, err := c.cutOnce(ctx, k, prefix+"_count", rotate, 0, Never)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	var all []struck
	for name, fault := range passing() {
		for n := range calls {
			all = append(all, struck{name, fault, n + 1})
		}
	}
	slices.SortFunc(all, func(a, b struck) int { return cmp.Or(cmp.Compare(a.name, b.name), a.call-b.call) })
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) //nolint:gosec // a sample
	all = all[:min(len(all), cmp.Or(c.Faults, 12*chain))]
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(max(c.AtOnce, 1))
	n := 0
	for some := range slices.Chunk(all, chain) {
		image := fmt.Sprintf("%s_%d", prefix, n)
		n++
		group.Go(func() error { return c.strike(groupCtx, k, image, some) })
	}
	return errors.Join(group.Wait(), os.RemoveAll(dir))
}

// strike publishes one release more than there are faults.
func (c *Cloud) strike(ctx context.Context, k *kit, image string, faults []struck) error {
	b, err := c.between(ctx, k, image)
	if err != nil {
		return err
	}
	defer b.proxy.Close()
	if err := publishNth(1)(ctx, k, b.direct, image); err != nil {
		return err
	}
	for n, s := range faults {
		b.proxy.Heal()
		b.proxy.Fault(func(call Call) Fault {
			if call.N != s.call {
				return Fault{}
			}
			return s.fault
		})
		err := b.publish(ctx, n+2)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.proxy.Heal()
			if again := b.publish(ctx, n+2); again != nil {
				return fmt.Errorf("%s at call %d: %w; and again: %w", s.name, s.call, err, again)
			}
		}
	}
	return errors.Join(b.watch.err(), c.settled(ctx, k, b.direct, image, upTo(len(faults)+1)))
}

// upTo is what kit.expect says of n releases.
func upTo(n int) string {
	var all []string
	for i := 1; i <= n; i++ {
		switch i {
		case n:
			all = append(all, fmt.Sprintf("%d:latest", i))
		case n - 1:
			all = append(all, fmt.Sprintf("%d:prev", i))
		default:
			all = append(all, fmt.Sprint(i))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// between is a target behind a proxy, and one that reaches the server without.
type between struct {
	cloud  *Cloud
	kit    *kit
	image  string
	proxy  *Proxy
	direct publish.Target
	watch  *watch
}

func (c *Cloud) between(ctx context.Context, k *kit, image string) (*between, error) {
	proxy, err := NewProxy(c.URL, c.Transport)
	if err != nil {
		return nil, err
	}
	direct, err := c.Open(c.URL, &http.Client{Transport: c.Transport})
	if err != nil {
		proxy.Close()
		return nil, err
	}
	w := &watch{cloud: c, kit: k, image: image, direct: direct}
	proxy.After(func(call Call) {
		if call.Changes() {
			w.look(ctx)
		}
	})
	return &between{c, k, image, proxy, direct, w}, nil
}

// publish publishes the nth release through the proxy, as a new process would.
func (b *between) publish(ctx context.Context, n int) error {
	t, err := b.cloud.Open(b.proxy.URL, b.proxy.Client())
	if err != nil {
		return err
	}
	return publishNth(n)(ctx, b.kit, t, b.image)
}

// TestTroubles publishes where a server or a network is bad for long: at 1 KiB/s, stalled,
// without room, with a reader that fails on the way, with lists that lag behind, and with
// several runs at once. Each publication ends with all there or with an error, and when it
// is done again without trouble all is there. The targets that Cloud.Open returns should have
// the patience of seconds, which is more than a call takes at that rate.
func TestTroubles(ctx context.Context, c *Cloud, prefix string) error {
	dir, err := os.MkdirTemp("", "publishtest-")
	if err != nil {
		return err
	}
	k := &kit{dir: dir}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(max(c.AtOnce, 1))
	for _, trouble := range []struct {
		name string
		do   func(ctx context.Context, b *between) error
		want string // at the end; "" if do looks itself
	}{
		{"Slow", slowly, "1:prev 2:latest"},
		{"Stalled", stalled, "1:prev 2:latest"},
		{"Full", full, "1:prev 2:latest"},
		{"Reader", failingReader, ""},
		{"Lagging", lagging, ""},
		{"AtOnce", atOnce, ""},
		{"Parallel", parallel, "1:latest"},
	} {
		if trouble.name == "Reader" && c.Elsewhere {
			continue
		}
		group.Go(func() error {
			image := prefix + "_" + trouble.name
			b, err := c.between(groupCtx, k, image)
			if err != nil {
				return err
			}
			defer b.proxy.Close()
			err = trouble.do(groupCtx, b)
			if err == nil && trouble.want != "" {
				err = c.settled(groupCtx, k, b.direct, image, trouble.want)
			}
			if err = errors.Join(err, b.watch.err()); err != nil {
				return fmt.Errorf("%s: %w", trouble.name, err)
			}
			return nil
		})
	}
	return errors.Join(group.Wait(), os.RemoveAll(dir))
}

// slowly lets 1 KiB a second pass of what changes something.
func slowly(ctx context.Context, b *between) error {
	if err := b.publish(ctx, 1); err != nil {
		return err
	}
	b.proxy.Fault(func(call Call) Fault {
		if call.Changes() {
			return Fault{Rate: 1 << 10}
		}
		return Fault{}
	})
	return b.publish(ctx, 2)
}

// stalled lets one call after the other wait for ever, each once.
func stalled(ctx context.Context, b *between) error {
	if err := b.publish(ctx, 1); err != nil {
		return err
	}
	b.proxy.Heal()
	waited := 0
	b.proxy.Fault(func(call Call) Fault {
		if call.N%4 == 0 && waited < 3 {
			waited++
			return Fault{Stall: true}
		}
		return Fault{}
	})
	if err := b.publish(ctx, 2); err == nil {
		return nil
	}
	b.proxy.Heal()
	return b.publish(ctx, 2)
}

// full has no room for content for long, and then has.
func full(ctx context.Context, b *between) error {
	if err := b.publish(ctx, 1); err != nil {
		return err
	}
	refused := 0
	b.proxy.Fault(func(call Call) Fault {
		if call.Method != http.MethodPut && call.Method != http.MethodPost {
			return Fault{}
		}
		refused++
		return Fault{When: Before, Upload: 1000, Status: http.StatusInsufficientStorage}
	})
	if err := b.publish(ctx, 2); err == nil || refused == 0 {
		return errors.New("a server without room took a release")
	}
	b.proxy.Heal()
	return b.publish(ctx, 2)
}

// failingReader ends the image's file when part of it has been sent: nothing of it may be
// taken for the release.
func failingReader(ctx context.Context, b *between) error {
	const size = 64 << 20 // more than anybody holds in memory
	if err := b.publish(ctx, 1); err != nil {
		return err
	}
	dir := filepath.Join(b.kit.dir, "large")
	r, err := largeRelease(ctx, dir, b.image, nth(2), size)
	if err != nil {
		return err
	}
	disk := filepath.Join(r.Dir, b.image+"-"+nth(2).String()+".qcow2")
	var once sync.Once
	var cut error
	b.proxy.Fault(func(call Call) Fault {
		if call.Method == http.MethodPut && (strings.Contains(call.Path, ".qcow2") || strings.HasSuffix(call.Path, "/file")) {
			once.Do(func() { cut = os.Truncate(disk, size*6/10) })
		}
		return Fault{Rate: 64 << 20}
	})
	t, err := b.cloud.Open(b.proxy.URL, b.proxy.Client())
	if err != nil {
		return err
	}
	_, err = publish.Publish(ctx, t, r)
	if cut != nil {
		return cut
	}
	if err == nil {
		return errors.New("a release was published of which the image's file was cut short meanwhile")
	}
	have, err := b.direct.List(ctx, b.image)
	if err != nil {
		return err
	}
	for _, e := range have {
		if e.Build == nth(2) && e.Problem == "" {
			return fmt.Errorf("%s, whose file was cut short, is listed as complete", e.ID)
		}
	}
	b.proxy.Heal()
	if r, err = largeRelease(ctx, filepath.Join(b.kit.dir, "again"), b.image, nth(3), size); err != nil {
		return err
	}
	p, err := publish.Publish(ctx, b.direct, r)
	if err != nil {
		return err
	}
	return b.cloud.Holds(ctx, b.direct, p.Entry, r)
}

// largeRelease is a release of which the image has so many bytes.
func largeRelease(ctx context.Context, dir, image string, build publish.BuildID, size int64) (*publish.Release, error) {
	name := filepath.Join(dir, image, build.String(), image+"-"+build.String()+".qcow2")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	data := make([]byte, size)
	copy(data, emptyQcow2("publishtest"))
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return nil, err
	}
	return Release(ctx, dir, image, build)
}

// lagging answers each second time that the same is listed what it answered before.
func lagging(ctx context.Context, b *between) error {
	proxy, err := NewProxy(b.cloud.URL, &stale{next: b.cloud.Transport, answers: make(map[string]*answer)})
	if err != nil {
		return err
	}
	defer proxy.Close()
	for n := range 3 {
		t, err := b.cloud.Open(proxy.URL, proxy.Client())
		if err != nil {
			return err
		}
		// It may say that it could not tell; then nothing is lost.
		err = publishNth(n+1)(ctx, b.kit, t, b.image)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.watch.look(ctx)
		if err == nil {
			continue
		}
		if again := publishNth(n+1)(ctx, b.kit, b.direct, b.image); again != nil {
			return fmt.Errorf("%w; and again: %w", err, again)
		}
	}
	if err := publishNth(3)(ctx, b.kit, b.direct, b.image); err != nil {
		return err
	}
	// What was latest and not listed as that may not have become prev.
	return b.settledAs(ctx, "1 2:prev 3:latest", "1:prev 2 3:latest")
}

// stale is a server whose lists lag behind.
type stale struct {
	next http.RoundTripper

	mu      sync.Mutex
	answers map[string]*answer
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (s *stale) RoundTrip(r *http.Request) (*http.Response, error) {
	next := s.next
	if next == nil {
		next = http.DefaultTransport
	}
	if r.Method != http.MethodGet || r.URL.RawQuery == "" {
		return next.RoundTrip(r)
	}
	key := r.URL.String()
	s.mu.Lock()
	old := s.answers[key]
	delete(s.answers, key)
	s.mu.Unlock()
	resp, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	now := &answer{resp.StatusCode, resp.Header, body}
	if old == nil {
		s.mu.Lock()
		s.answers[key] = now
		s.mu.Unlock()
		old = now
	}
	resp.StatusCode, resp.Header, resp.Body, resp.ContentLength = old.status, old.header, io.NopCloser(bytes.NewReader(old.body)), int64(len(old.body))
	return resp, nil
}

// unevenly lets runs overtake each other.
func unevenly(call Call) Fault { return Fault{Delay: time.Duration(call.N%5) * 3 * time.Millisecond} }

// atOnce publishes two releases at the same time.
func atOnce(ctx context.Context, b *between) error {
	if err := b.publish(ctx, 1); err != nil {
		return err
	}
	for n := range 2 {
		if _, err := b.kit.release(ctx, b.image, n+2); err != nil {
			return err
		}
	}
	b.proxy.Fault(unevenly)
	var group sync.WaitGroup
	for n := range 2 {
		group.Go(func() { _ = b.publish(ctx, n+2) }) // one may give way to the other
	}
	group.Wait()
	b.proxy.Heal()
	if err := b.publish(ctx, 3); err != nil {
		return err
	}
	return b.settledAs(ctx, "1 2:prev 3:latest", "1:prev 3:latest", "1:prev 2 3:latest")
}

// settledAs reports what is not as it should be, in one of the ways that it may be.
func (b *between) settledAs(ctx context.Context, ways ...string) error {
	var errs []error
	for _, want := range ways {
		err := b.cloud.settled(ctx, b.kit, b.direct, b.image, want)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// parallel publishes the same release several times at once.
func parallel(ctx context.Context, b *between) error {
	if _, err := b.kit.release(ctx, b.image, 1); err != nil {
		return err
	}
	b.proxy.Fault(unevenly)
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() { _ = b.publish(ctx, 1) })
	}
	group.Wait()
	b.proxy.Heal()
	return b.publish(ctx, 1)
}
