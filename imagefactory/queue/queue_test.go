package queue

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

// night adds and works a plan of the factory's definitions.
func night(t *testing.T, q *Queue, f *imagefactory.Factory) *imagefactory.Report {
	t.Helper()
	tasks, err := f.Tasks(f.Definitions)
	require.NoError(t, err)
	require.NoError(t, q.Add(t.Context(), tasks, AddOptions{}))
	require.NoError(t, q.Add(t.Context(), tasks, AddOptions{}), "which adds nothing")
	report, err := q.Wait(t.Context(), tasks, nil)
	require.NoError(t, err)
	return report
}

// each runs a test with each kind of database.
func each(t *testing.T, test func(*testing.T, site)) {
	t.Run("sqlite", func(t *testing.T) { test(t, newSite(t, "")) })
	t.Run("postgresql", func(t *testing.T) { test(t, newSite(t, postgres(t))) })
}

func TestNights(t *testing.T) {
	each(t, func(t *testing.T, s site) {
		f, err := s.factory(buildFunc{"good", good}, buildFunc{"bad", func(context.Context, builder.Spec) (*builder.Result, error) { return nil, io.ErrNoProgress }})
		require.NoError(t, err)
		f.Definitions = []imagefactory.Definition{define("Standard_Good_1", "good"), define("Standard_Bad_1", "bad"), define("Standard_Good_2", "good")}
		q := s.open(t)
		for range 2 {
			work(t, s.open(t), Worker{Factory: f, Pause: 50 * time.Millisecond})
		}
		report := night(t, q, f)
		require.Len(t, report.Images, 3)
		for i, want := range []imagefactory.Outcome{imagefactory.Published, imagefactory.Failed, imagefactory.Published} {
			got := report.Images[i]
			require.Equal(t, want, got.Result, got.Error)
			require.Equal(t, f.Definitions[i].Name, got.Name)
			if want == imagefactory.Failed {
				require.Equal(t, io.ErrNoProgress.Error(), got.Error)
				require.Equal(t, imagefactory.StageBuild, got.Stage)
				continue
			}
			for _, stage := range imagefactory.Stages() {
				require.Equal(t, 1, s.begun(got.Name, stage), stage)
				require.Contains(t, got.DurationMS, stage)
			}
			require.Equal(t, got.Name+"/"+got.Build, got.Release)
		}
		time.Sleep(time.Second) // a build ID's precision
		report = night(t, q, f)
		require.Equal(t, imagefactory.Unchanged, report.Images[0].Result, report.Images[0].Error)
		require.Equal(t, 1, s.begun("Standard_Good_1", imagefactory.StageTest))
		require.Equal(t, 2, s.begun("Standard_Bad_1", imagefactory.StageBuild))
	})
}

// Two plans of one night are of different runs: one comes about, and the other ends.
func TestTwoPlans(t *testing.T) {
	s := newSite(t, "")
	f, err := s.factory(buildFunc{"good", good})
	require.NoError(t, err)
	f.Definitions = []imagefactory.Definition{define("Standard_Good_1", "good")}
	q := s.open(t)
	first, err := f.Tasks(f.Definitions)
	require.NoError(t, err)
	later := *f
	later.Now = func() time.Time { return first[0].Build.Time().Add(time.Second) }
	second, err := later.Tasks(f.Definitions)
	require.NoError(t, err)
	require.NotEqual(t, first[0].Build, second[0].Build)
	require.NoError(t, q.Add(t.Context(), append(first, second...), AddOptions{}))
	work(t, q, Worker{Factory: f, Pause: 50 * time.Millisecond})
	report, err := q.Wait(t.Context(), append(first, second...), nil)
	require.NoError(t, err)
	require.Equal(t, imagefactory.Published, report.Images[0].Result, report.Images[0].Error)
	if report.Images[1].Result == imagefactory.Unchanged {
		return // it was not looked at before the first had ended: that is another night
	}
	require.Equal(t, imagefactory.Waiting, report.Images[1].Result, report.Images[1].Error)
	require.Contains(t, report.Images[1].Notes[0], "did not come about")
	require.Equal(t, 1, s.begun("Standard_Good_1", imagefactory.StageBuild))
}

// A stage that takes many times the lease is neither cut nor begun by another worker.
func TestLongStage(t *testing.T) {
	each(t, func(t *testing.T, s site) {
		const lease = 500 * time.Millisecond
		f, err := s.factory(buildFunc{"long", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(6 * lease):
			}
			return good(ctx, s)
		}})
		require.NoError(t, err)
		f.Definitions = []imagefactory.Definition{define("Standard_Long_1", "long")}
		q := s.open(t)
		for range 2 {
			work(t, s.open(t), Worker{Factory: f, Lease: lease, Pause: 50 * time.Millisecond})
		}
		report := night(t, q, f)
		require.Equal(t, imagefactory.Published, report.Images[0].Result, report.Images[0].Error)
		require.Equal(t, 1, s.begun("Standard_Long_1", imagefactory.StageBuild))
	})
}

// A worker that is stopped gives back what it has, and another goes on at once.
func TestGiveBack(t *testing.T) {
	s := newSite(t, "")
	begun, tries := make(chan struct{}), new(atomic.Int32)
	f, err := s.factory(buildFunc{"first", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		if tries.Add(1) == 1 {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return good(ctx, s)
	}})
	require.NoError(t, err)
	f.Definitions = []imagefactory.Definition{define("Standard_First_1", "first")}
	q := s.open(t)
	stop := work(t, q, Worker{Factory: f, Lease: time.Hour})
	tasks, err := f.Tasks(f.Definitions)
	require.NoError(t, err)
	require.NoError(t, q.Add(t.Context(), tasks, AddOptions{}))
	<-begun
	stop()
	stopping := make(chan struct{})
	other := *f
	other.Stop = stopping
	ended := make(chan error, 1)
	go func() { ended <- q.Work(t.Context(), Worker{Factory: &other, Lease: time.Hour}) }()
	report, err := q.Wait(t.Context(), tasks, nil)
	require.NoError(t, err)
	require.Equal(t, imagefactory.Published, report.Images[0].Result, report.Images[0].Error)
	require.Equal(t, int32(2), tries.Load())
	close(stopping)
	require.NoError(t, <-ended)
}

// What is cancelled is cut, or never begun.
func TestCancel(t *testing.T) {
	each(t, func(t *testing.T, s site) {
		begun := make(chan struct{})
		f, err := s.factory(buildFunc{"hangs", func(ctx context.Context, _ builder.Spec) (*builder.Result, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		require.NoError(t, err)
		f.Definitions = []imagefactory.Definition{define("Standard_A_1", "hangs"), define("Standard_B_1", "hangs")}
		q := s.open(t)
		work(t, s.open(t), Worker{Factory: f})
		tasks, err := f.Tasks(f.Definitions)
		require.NoError(t, err)
		require.NoError(t, q.Add(t.Context(), tasks, AddOptions{}))
		<-begun
		require.NoError(t, q.Cancel(t.Context(), "Standard_B_1", "Standard_A_1"))
		var seen []imagefactory.Outcome
		report, err := q.Wait(t.Context(), tasks, func(r imagefactory.ImageReport) { seen = append(seen, r.Result) })
		require.NoError(t, err)
		for _, image := range report.Images {
			require.Equal(t, imagefactory.Failed, image.Result)
			require.Contains(t, image.Error, "cancelled")
		}
		require.Contains(t, seen, imagefactory.Failed)
		require.Equal(t, 0, s.begun("Standard_B_1", imagefactory.StageBuild))
	})
}

// What is transient is tried again, up to the limit, and nothing else.
func TestTries(t *testing.T) {
	s := newSite(t, "")
	for name, test := range map[string]struct {
		err   error
		fails int32
		want  imagefactory.Outcome
		tries int32
	}{
		"Standard_Passes_1": {syscall.ECONNREFUSED, 2, imagefactory.Published, 3},
		"Standard_Stays_1":  {syscall.ECONNREFUSED, 9, imagefactory.Failed, 3},
		"Standard_Other_1":  {io.ErrNoProgress, 1, imagefactory.Failed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			tries := new(atomic.Int32)
			f, err := s.factory(buildFunc{"fails", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
				if tries.Add(1) <= test.fails {
					return nil, test.err
				}
				return good(ctx, s)
			}})
			require.NoError(t, err)
			f.Limits.Pause = time.Millisecond
			f.Definitions = []imagefactory.Definition{define(name, "fails")}
			q := s.open(t)
			work(t, q, Worker{Factory: f})
			got := night(t, q, f).Images[0]
			require.Equal(t, test.want, got.Result, got.Error)
			require.Equal(t, test.tries, tries.Load())
			if test.want == imagefactory.Failed {
				require.Equal(t, test.err.Error(), got.Error)
			}
		})
	}
}

// A run whose image is gone is built again, though the build's job has ended.
func TestLostImage(t *testing.T) {
	s := newSite(t, "")
	f, err := s.factory(buildFunc{"good", good})
	require.NoError(t, err)
	f.Definitions = []imagefactory.Definition{define("Standard_Good_1", "good")}
	q := s.open(t)
	tasks, err := f.Tasks(f.Definitions)
	require.NoError(t, err)
	require.NoError(t, q.Add(t.Context(), tasks, AddOptions{}))
	stop := work(t, q, Worker{Factory: f, Queues: map[string]int{Build: 1}})
	require.Eventually(t, func() bool { return s.begun("Standard_Good_1", imagefactory.StageBuild) == 1 }, time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		images, _, err := q.look(t.Context(), tasks)
		return err == nil && images[0].Stage == imagefactory.StageInspect
	}, time.Minute, 10*time.Millisecond)
	stop()
	lost, err := filepath.Glob(filepath.Join(f.Dir, ".work", "Standard_Good_1", "*", "*.qcow2"))
	require.NoError(t, err)
	require.Len(t, lost, 1)
	require.NoError(t, os.Remove(lost[0]))
	work(t, q, Worker{Factory: f, Pause: 50 * time.Millisecond})
	report, err := q.Wait(t.Context(), tasks, nil)
	require.NoError(t, err)
	require.Equal(t, imagefactory.Published, report.Images[0].Result, report.Images[0].Error)
	require.Equal(t, 2, s.begun("Standard_Good_1", imagefactory.StageBuild))
}

// What is done again from a stage on is added, though its jobs are there already.
func TestFrom(t *testing.T) {
	s := newSite(t, "")
	fail := true
	f, err := s.factory(buildFunc{"good", good})
	require.NoError(t, err)
	f.CrossCheck = func(context.Context, io.ReaderAt, int64) error {
		if fail {
			return io.ErrNoProgress
		}
		return nil
	}
	f.Definitions = []imagefactory.Definition{define("Standard_Good_1", "good")}
	q := s.open(t)
	stop := work(t, q, Worker{Factory: f})
	require.Equal(t, imagefactory.Failed, night(t, q, f).Images[0].Result)
	stop()
	fail = false
	work(t, q, Worker{Factory: f})
	from := *f
	from.From = imagefactory.StageInspect
	got := night(t, q, &from).Images[0]
	require.Equal(t, imagefactory.Published, got.Result, got.Error)
	require.Equal(t, 1, s.begun("Standard_Good_1", imagefactory.StageBuild))
}

func TestMistakes(t *testing.T) {
	for _, url := range []string{"", "queue.sqlite", "sqlite:", "sqlite::memory:", "mysql://u:hunter2@h/d", "postgres://u:hunter2@[/d"} {
		_, err := Open(t.Context(), Config{URL: url})
		require.ErrorContains(t, err, "cannot open the queue's database", url)
		require.NotContains(t, err.Error(), "hunter2")
	}
	s := newSite(t, "")
	f, err := s.factory(buildFunc{"good", good})
	require.NoError(t, err)
	q := s.open(t)
	require.ErrorContains(t, q.Work(t.Context(), Worker{Factory: f}), "want a factory with definitions")
	f.Definitions = []imagefactory.Definition{define("Standard_Good_1", "good")}
	require.ErrorContains(t, q.Work(t.Context(), Worker{Factory: f, Queues: map[string]int{"tests": 1}}), `queue "tests"`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, q.Add(t.Context(), nil, AddOptions{}))
	tasks, err := f.Tasks(f.Definitions)
	require.NoError(t, err)
	_, err = q.Wait(ctx, tasks, nil)
	require.True(t, errors.Is(err, context.Canceled), err)
}
