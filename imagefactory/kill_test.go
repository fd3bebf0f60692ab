package imagefactory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

var killSeeds = flag.Int("kill-seeds", 4, "how many nights TestKilledWorkers has")

// workerDir is the directory of the worker that this process plays.
const workerDir = "IMAGEFACTORY_TEST_WORKER"

// A worker's log has a line "begin IMAGE/BUILD/STAGE" and "end …" for each stage, and
// "push IMAGE/BUILD" for each release that came to the target.
func workerLog(dir, format string, args ...any) {
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = fmt.Fprintf(f, format+"\n", args...)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		panic(err)
	}
}

// countingTarget tells of each release that is new on it.
type countingTarget struct {
	publish.Target
	dir string
}

func (c countingTarget) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	workerLog(c.dir, "push %s/%s", r.Index.Image, r.Index.Build)
	return c.Target.Push(ctx, r)
}

// plainProfile has one check, which passes.
func plainProfile() []testsuite.Profile {
	return []testsuite.Profile{{Name: "otc", Checks: []testsuite.Check{{
		ID: "own.check", Title: "own", Judge: func(testsuite.Facts, testsuite.Params) testsuite.Verdict {
			return testsuite.Verdict{Status: testsuite.Pass}
		},
	}}}}
}

// workerFactory has builders that take up to some milliseconds, and one that fails.
func workerFactory(dir string) (*Factory, []Definition, error) {
	key, err := signing.LoadKey(filepath.Join(dir, "key"), nil)
	if err != nil {
		return nil, nil, err
	}
	pause := func() { time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) }
	out := filepath.Join(dir, "out")
	f := &Factory{
		Dir: out, Key: key,
		Sandbox: boxFunc(func(ctx context.Context, i sandbox.Image) (*sandbox.Machine, error) {
			pause()
			return sandboxtest.Sandbox{}.Boot(ctx, i)
		}),
		Profiles: []testsuite.Profile{{Name: "otc", Checks: []testsuite.Check{{
			ID: "own.check", Title: "own", Judge: func(testsuite.Facts, testsuite.Params) testsuite.Verdict {
				return testsuite.Verdict{Status: testsuite.Pass}
			},
		}}}},
		Builders: []BuilderDriver{
			builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) { pause(); return goodBuild(ctx, s) }),
			builds("bad", func(context.Context, builder.Spec) (*builder.Result, error) { pause(); return nil, io.ErrNoProgress }),
		},
		Targets: []TargetDriver{targetDriver{"directory", func(decode func(any) error) (publish.Target, error) {
			t, err := directory.Driver{Dir: out}.New(decode)
			return countingTarget{t, dir}, err
		}}},
		Progress: func(e Event) {
			what := "begin"
			if e.Done {
				what = "end"
			}
			workerLog(dir, "%s %s/%s/%s", what, e.Image, e.Build, e.Stage)
		},
	}
	return f, []Definition{own("Standard_Good_1", "good"), own("Standard_Bad_1", "bad"), own("Standard_Good_2", "good")}, nil
}

// TestWorker is a worker process: it does the tasks that were planned for the night, as
// they are in the file tasks, until every image has come to its end.
func TestWorker(t *testing.T) {
	dir := os.Getenv(workerDir)
	if dir == "" {
		t.Skip("is a process of TestKilledWorkers")
	}
	f, definitions, err := workerFactory(dir)
	require.NoError(t, err)
	f.Definitions = definitions
	data, err := os.ReadFile(filepath.Join(dir, "tasks"))
	require.NoError(t, err)
	var tasks []Task
	require.NoError(t, json.Unmarshal(data, &tasks))
	for left := tasks; len(left) > 0; {
		var open []Task
		for _, task := range left {
			report, err := f.Do(t.Context(), task)
			switch {
			case err == nil, errors.Is(err, ErrNothingToDo):
			case errors.Is(err, ErrWaits):
				open = append(open, task)
			case errors.Is(err, ErrBusy):
				open = append(open, task)
				time.Sleep(2 * time.Millisecond)
			case task.Image == "Standard_Bad_1" && report.Result == Failed:
			default:
				require.NoError(t, err)
			}
		}
		left = open
	}
}

// TestKilledWorkers kills workers at random moments, in nights of one and of two of
// them: every image ends published once or failed with its reason, and no stage is begun
// more often than once and once for each kill.
func TestKilledWorkers(t *testing.T) {
	for seed := range *killSeeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { killNight(t, uint64(seed), 1+seed%2) })
	}
}

func killNight(t *testing.T, seed uint64, workers int) {
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	require.NoError(t, testKey.WriteSecretFile(filepath.Join(dir, "key")))
	f, definitions, err := workerFactory(dir)
	require.NoError(t, err)
	tasks, err := f.Tasks(definitions)
	require.NoError(t, err)
	data, err := json.Marshal(tasks)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tasks"), data, 0o644))
	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWorker$", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), workerDir+"="+dir)
		output := new(bytes.Buffer)
		cmd.Stdout, cmd.Stderr = output, output
		require.NoError(t, cmd.Start())
		return cmd
	}
	begun := func() int {
		data, _ := os.ReadFile(filepath.Join(dir, "log"))
		return bytes.Count(data, []byte("begin "))
	}
	var running []*exec.Cmd
	for range workers {
		running = append(running, start())
	}
	kills := 0
	for range 3 + random.IntN(3) {
		// From when it has begun something: else only the start of a process is killed.
		for was, waited := begun(), 0; begun() == was && waited < 200; waited++ {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
		i := random.IntN(len(running))
		require.NoError(t, running[i].Process.Kill())
		if running[i].Wait() != nil {
			kills++
		}
		running[i] = start()
	}
	for _, cmd := range running {
		require.NoError(t, cmd.Wait(), "%s", cmd.Stdout)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	require.NoError(t, err)
	again := 0
	for _, d := range definitions {
		again += judgeNight(t, f, d, string(log))
	}
	require.LessOrEqual(t, again, kills, "%s", log)
	t.Logf("%d kills, %d stages done again", kills, again)
}

// judgeNight holds an image's night to what it should be.
func judgeNight(t *testing.T, f *Factory, d Definition, log string) (again int) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(f.Dir, ".work", ".journal", d.Name, "*.json"))
	require.NoError(t, err)
	require.Len(t, names, 1, "one run: %s", log)
	run := journalOf(t, f, d.Name, strings.TrimSuffix(filepath.Base(names[0]), ".json"))
	releases, err := filepath.Glob(filepath.Join(f.Dir, d.Name, "2*"))
	require.NoError(t, err)
	if d.Builder.Driver == "bad" {
		require.Equal(t, Failed, run.Result)
		require.Equal(t, io.ErrNoProgress.Error(), run.stage(StageBuild).Error)
		require.Empty(t, releases)
	} else {
		require.Equal(t, Published, run.Result, log)
		require.Len(t, releases, 1)
		keyring, err := signing.PinKeys(f.Key)
		require.NoError(t, err)
		_, err = publish.Open(t.Context(), filepath.Join(f.Dir, d.Name, "latest"), keyring)
		require.NoError(t, err)
	}
	for _, s := range Stages() {
		n := strings.Count(log, fmt.Sprintf("begin %s/%s/%s\n", d.Name, run.Build, s))
		if r := run.stage(s); r != nil {
			require.GreaterOrEqual(t, n, 1)
			require.GreaterOrEqual(t, r.Tries, n, "each is in the journal before it begins")
			again += r.Tries - 1
		}
	}
	require.LessOrEqual(t, strings.Count(log, "push "+d.Name+"/"), 1+again, log)
	return again
}
