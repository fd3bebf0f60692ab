package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// status is what a cloud's client returns.
type status int

func (s status) Error() string      { return fmt.Sprintf("the service answered %d", int(s)) }
func (s status) GetStatusCode() int { return int(s) }

func TestIsTransient(t *testing.T) {
	tool := func(lines ...string) error { return &builder.ToolError{Tool: "dib", Tail: lines} }
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"nil":                       {nil, false},
		"anything":                  {io.ErrNoProgress, false},
		"503":                       {fmt.Errorf("cannot push: %w", status(503)), true},
		"429":                       {status(429), true},
		"500":                       {status(500), true},
		"501":                       {status(501), false},
		"404":                       {status(404), false},
		"401":                       {status(401), false},
		"refused":                   {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, true},
		"disk full":                 {&os.PathError{Op: "write", Err: syscall.ENOSPC}, false},
		"no such host":              {&net.DNSError{Err: "no such host", IsNotFound: true}, false},
		"name server down":          {fmt.Errorf("x: %w", &net.DNSError{Err: "server misbehaving", IsTemporary: true}), true},
		"two that pass":             {errors.Join(status(503), status(502)), true},
		"one that does not":         {errors.Join(status(503), status(403)), false},
		"one wrapped in two":        {fmt.Errorf("%w: %w", publish.ErrOlder, status(503)), false},
		"mirror unreachable":        {fmt.Errorf("x: %w", tool("E: Failed to fetch http://m/x  Could not connect to m")), true},
		"mirror without the file":   {tool("E: Failed to fetch http://m/x  404  Not Found"), false},
		"mirror and a full disk":    {tool("E: Failed to fetch http://m/x", "No space left on device"), false},
		"package is missing":        {tool("E: Unable to locate package x"), false},
		"timed out":                 {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, true},
		"driver that panics":        {&PanicError{Value: status(503)}, false},
		"reset":                     {fmt.Errorf("x: %w", syscall.ECONNRESET), true},
		"time limit":                {fmt.Errorf("%w: %w", ErrTimeLimit, context.DeadlineExceeded), false},
		"stage cut by its own time": {context.Canceled, false},
	} {
		require.Equal(t, test.want, IsTransient(test.err), name)
	}
}

// What passes is tried again, in the same run, and nothing else is.
func TestTransientFailureIsTriedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		fails int
		tries int
		want  Outcome
	}{
		"passes":          {status(503), 2, 3, Published},
		"does not pass":   {status(503), 9, 3, Failed},
		"is none":         {status(403), 9, 1, Failed},
		"another, by now": {errors.Join(status(503), io.ErrNoProgress), 9, 1, Failed},
	} {
		for _, stage := range []Stage{StageBuild, StageTest, StagePublish} {
			t.Run(name+" in "+string(stage), func(t *testing.T) {
				f, d := embedded(t)
				f.Limits.Pause = time.Millisecond
				var calls atomic.Int32
				fail := func(s Stage) error {
					if s == stage && int(calls.Add(1)) <= test.fails {
						return test.err
					}
					return nil
				}
				f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
					if err := fail(StageBuild); err != nil {
						return nil, err
					}
					return goodBuild(ctx, s)
				})}
				f.Profiles = plainProfile()
				directory := f.Targets[0]
				f.Targets = []TargetDriver{targetDriver{"directory", func(decode func(any) error) (publish.Target, error) {
					target, err := directory.New(decode)
					return failingPush{target, func() error { return fail(StagePublish) }}, err
				}}}
				if stage == StageTest {
					f.Sandbox = boxFunc(func(ctx context.Context, i sandbox.Image) (*sandbox.Machine, error) {
						if err := fail(StageTest); err != nil {
							return nil, err
						}
						return sandboxtest.Sandbox{}.Boot(ctx, i)
					})
				}
				report, err := f.Run(t.Context(), []Definition{d})
				require.NoError(t, err)
				got := report.Images[0]
				require.Equal(t, test.want, got.Result, got.Error)
				run := journalOf(t, f, d.Name, "20261122-031507")
				require.Equal(t, test.tries, run.stage(stage).Tries)
				require.Equal(t, IsTransient(test.err) || stage == StagePublish, test.want == Published || run.Result == "", "another run goes on with it")
			})
		}
	}
}

type failingPush struct {
	publish.Target
	fail func() error
}

func (f failingPush) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	if err := f.fail(); err != nil {
		return publish.Entry{}, err
	}
	return f.Target.Push(ctx, r)
}

func TestTimeLimit(t *testing.T) {
	f, d := embedded(t)
	slow := own("Standard_Slow_1", "slow")
	f.Builders = append(f.Builders, builds("slow", func(ctx context.Context, _ builder.Spec) (*builder.Result, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("it was cut: %w", context.Cause(ctx))
	}))
	f.Limits.Time = map[Stage]time.Duration{StageBuild: 2 * time.Second}
	report, err := f.Run(t.Context(), []Definition{slow, d})
	require.NoError(t, err)
	require.ErrorIs(t, report.Images[0].Err, ErrTimeLimit)
	require.Equal(t, StageBuild, report.Images[0].Stage)
	require.Equal(t, Failed, journalOf(t, f, slow.Name, report.Images[0].Build).Result, "it would take as long again")
	require.Equal(t, Published, report.Images[1].Result, report.Images[1].Error)
}

// most counts how many are at work at once.
type most struct {
	mu        sync.Mutex
	now, most int
}

func (m *most) work() (done func()) {
	m.mu.Lock()
	m.now++
	m.most = max(m.most, m.now)
	m.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
	return func() {
		m.mu.Lock()
		m.now--
		m.mu.Unlock()
	}
}

// sizedBox is a sandbox that tells what a machine takes.
type sizedBox struct{ sandbox.Sandbox }

func (sizedBox) MemoryBytes() int64 { return 1 << 30 }

func TestLimits(t *testing.T) {
	f, _ := embedded(t)
	var building, testing most
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		defer building.work()()
		return goodBuild(ctx, s)
	})}
	f.Profiles = plainProfile()
	f.Sandbox = sizedBox{boxFunc(func(ctx context.Context, i sandbox.Image) (*sandbox.Machine, error) {
		done := testing.work()
		m, err := sandboxtest.Sandbox{}.Boot(ctx, i)
		if err != nil {
			return nil, err
		}
		stop := m.Stop
		m.Stop = func() error { done(); return stop() }
		return m, nil
	})}
	f.Jobs, f.Limits = 6, Limits{Builds: 1, MemoryBytes: 2<<30 + 1}
	var all []Definition
	for i := range 6 {
		all = append(all, own(fmt.Sprintf("Standard_Good_%d", i), "good"))
	}
	report, err := f.Run(t.Context(), all)
	require.NoError(t, err)
	require.True(t, report.OK())
	require.Equal(t, 1, building.most)
	require.LessOrEqual(t, testing.most, 2)

	f.Limits, f.Force = Limits{MemoryBytes: 1}, true // a test that needs more is alone
	testing.most = 0
	report, err = f.Run(t.Context(), all[:2])
	require.NoError(t, err)
	require.True(t, report.OK())
	require.Equal(t, 1, testing.most)
}

// The image that took longest is begun first, after those of which nothing is known.
func TestLongestFirst(t *testing.T) {
	f, _ := embedded(t)
	f.Jobs, f.Until = 1, StageBuild
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		if s.Name == "Standard_Good_2" {
			time.Sleep(500 * time.Millisecond)
		}
		return goodBuild(ctx, s)
	})}
	all := []Definition{own("Standard_Good_1", "good"), own("Standard_Good_2", "good")}
	var begun []string
	f.Progress = func(e Event) {
		if !e.Done {
			begun = append(begun, e.Image)
		}
	}
	_, err := f.Run(t.Context(), all)
	require.NoError(t, err)
	f.Fresh = true
	report, err := f.Run(t.Context(), append(all, own("Standard_Good_3", "good")))
	require.NoError(t, err)
	require.Equal(t, []string{"Standard_Good_1", "Standard_Good_2", "Standard_Good_3", "Standard_Good_2", "Standard_Good_1"}, begun)
	require.Equal(t, "Standard_Good_1", report.Images[0].Name, "the report has the definitions' order")
}

func TestStop(t *testing.T) {
	f, d := embedded(t)
	stop := make(chan struct{})
	f.Stop, f.Jobs = stop, 1
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		close(stop)
		return goodBuild(ctx, s)
	})}
	report, err := f.Run(t.Context(), []Definition{d, own("Standard_Good_2", "good")})
	require.NoError(t, err)
	got, later := report.Images[0], report.Images[1]
	require.Equal(t, Waiting, got.Result, got.Error)
	require.Contains(t, got.DurationMS, StageBuild)
	require.NotContains(t, got.DurationMS, StageInspect)
	require.Equal(t, Waiting, later.Result, later.Error)
	require.Empty(t, later.DurationMS)
	f.Stop = nil
	report, err = f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, Published, report.Images[0].Result, report.Images[0].Error)
	require.Equal(t, got.Build, report.Images[0].Build, "it goes on")
	require.NotContains(t, report.Images[0].DurationMS, StageBuild)
}

// BenchmarkPipeline is what the factory itself takes for an image, without tools: six
// stages with their journal, a small image and a machine that is there at once.
func BenchmarkPipeline(b *testing.B) {
	for b.Loop() {
		dir := b.TempDir()
		require.NoError(b, testKey.WriteSecretFile(filepath.Join(dir, "key")))
		f, definitions, err := workerFactory(dir)
		require.NoError(b, err)
		report, err := f.Run(b.Context(), definitions[:1])
		require.NoError(b, err)
		require.True(b, report.OK())
	}
}

// A dial that timed out passes, a stage whose own time is over does not.
func TestDialTimeoutIsTransient(t *testing.T) {
	dialer := net.Dialer{Timeout: time.Nanosecond}
	_, err := dialer.DialContext(t.Context(), "tcp", "127.0.0.1:1")
	require.Error(t, err)
	require.True(t, IsTransient(err), err)
	require.False(t, IsTransient(context.DeadlineExceeded))
}
