package queue

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

var killSeeds = flag.Int("kill-seeds", 2, "how many nights TestKilledWorkers has with each database")

// The site of the worker that this process plays.
const (
	workerDir = "QUEUE_TEST_WORKER"
	workerURL = "QUEUE_TEST_DATABASE"
)

const killLease = 800 * time.Millisecond

// killFactory has builders that take up to some hundred milliseconds, and one that fails.
func killFactory(s site) (*imagefactory.Factory, error) {
	pause := func() { time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) }
	f, err := s.factory(
		buildFunc{"good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) { pause(); return good(ctx, s) }},
		buildFunc{"bad", func(context.Context, builder.Spec) (*builder.Result, error) { pause(); return nil, io.ErrNoProgress }})
	if err == nil {
		f.Definitions = []imagefactory.Definition{define("Standard_Good_1", "good"), define("Standard_Bad_1", "bad"), define("Standard_Good_2", "good"), define("Standard_Good_3", "good")}
	}
	return f, err
}

// TestWorker is a worker process, until it is killed.
func TestWorker(t *testing.T) {
	if os.Getenv(workerDir) == "" {
		t.Skip("is a process of TestKilledWorkers")
	}
	s := site{dir: os.Getenv(workerDir), url: os.Getenv(workerURL)}
	f, err := killFactory(s)
	require.NoError(t, err)
	require.NoError(t, s.open(t).Work(t.Context(), Worker{Factory: f, Lease: killLease, Pause: 100 * time.Millisecond}))
}

// TestKilledWorkers kills two workers at random moments: every image ends published once
// or failed with its reason, and a stage is begun again only when who began it was killed.
func TestKilledWorkers(t *testing.T) {
	each(t, func(t *testing.T, s site) {
		for seed := range *killSeeds {
			t.Run(fmt.Sprint(seed), func(t *testing.T) { killNight(t, uint64(seed), site{dir: newSite(t, "").dir, url: s.url}) })
			if strings.HasPrefix(s.url, "sqlite:") {
				s = newSite(t, "")
			}
		}
	})
}

func killNight(t *testing.T, seed uint64, s site) {
	random := rand.New(rand.NewPCG(seed, 0))
	f, err := killFactory(s)
	require.NoError(t, err)
	q := s.open(t)
	tasks, err := f.Tasks(f.Definitions)
	require.NoError(t, err)
	require.NoError(t, q.Add(t.Context(), tasks, AddOptions{}))
	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWorker$", "-test.timeout=5m", "-test.v")
		cmd.Env = append(os.Environ(), workerDir+"="+s.dir, workerURL+"="+s.url)
		log, err := os.OpenFile(s.file("output"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		require.NoError(t, err)
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
		require.NoError(t, cmd.Start())
		return cmd
	}
	kill := func(cmd *exec.Cmd) {
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
	}
	running := []*exec.Cmd{start(), start()}
	defer func() {
		for _, cmd := range running {
			kill(cmd)
		}
	}()
	ended := make(chan *imagefactory.Report, 1)
	go func() {
		report, err := q.Wait(t.Context(), tasks, nil)
		if err == nil {
			ended <- report
		}
		close(ended)
	}()
	killed := map[string]bool{}
	for range 3 + random.IntN(3) {
		// From when it has begun something: else only the start of a process is killed.
		for was, waited := s.told(), 0; s.told() == was && waited < 400; waited++ {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		i := random.IntN(len(running))
		kill(running[i])
		killed[strconv.Itoa(running[i].Process.Pid)] = true
		running[i] = start()
	}
	report := <-ended
	output, _ := os.ReadFile(s.file("output"))
	require.NotNil(t, report, "%s", output)
	again := 0
	for i, d := range f.Definitions {
		again += judge(t, s, f, d, report.Images[i], killed)
	}
	t.Logf("%d kills, %d stages done again", len(killed), again)
}

// judge holds an image's night to what it should be, and tells how many stages were begun
// again.
func judge(t *testing.T, s site, f *imagefactory.Factory, d imagefactory.Definition, got imagefactory.ImageReport, killed map[string]bool) (again int) {
	t.Helper()
	releases, err := filepath.Glob(filepath.Join(f.Dir, d.Name, "2*"))
	require.NoError(t, err)
	if d.Builder.Driver == "bad" {
		require.Equal(t, imagefactory.Failed, got.Result)
		require.Contains(t, got.Error, io.ErrNoProgress.Error())
		require.Empty(t, releases)
	} else {
		require.Equal(t, imagefactory.Published, got.Result, got.Error)
		require.Len(t, releases, 1)
		keyring, err := signing.PinKeys(f.Key)
		require.NoError(t, err)
		_, err = publish.Open(t.Context(), filepath.Join(f.Dir, d.Name, "latest"), keyring)
		require.NoError(t, err)
	}
	for _, stage := range imagefactory.Stages() {
		begins := s.begins(d.Name, stage)
		for i := range max(len(begins)-1, 0) {
			require.True(t, killed[begins[i]], "%s of %s was begun by %v, killed were %v: %s", stage, d.Name, begins, killed, s.told())
			require.NotContains(t, begins[:i], begins[i], "twice by one")
			again++
		}
	}
	require.LessOrEqual(t, strings.Count(s.told(), "push "+d.Name+"/"), s.begun(d.Name, imagefactory.StagePublish), s.told())
	return again
}
