package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// buildFunc is a builder, and its driver.
type buildFunc struct {
	name  string
	build func(context.Context, builder.Spec) (*builder.Result, error)
}

func (b buildFunc) Name() string { return b.name }

func (b buildFunc) New(decode func(any) error) (builder.Builder, error) {
	return b, decode(&struct{}{})
}

func (b buildFunc) Build(ctx context.Context, _ builder.Host, s builder.Spec) (*builder.Result, error) {
	return b.build(ctx, s)
}

// good makes a small image.
func good(ctx context.Context, s builder.Spec) (*builder.Result, error) {
	r := &builder.Result{
		ImagePath: filepath.Join(s.OutputDir, "disk.qcow2"), ConfigDir: filepath.Join(s.OutputDir, "config"),
		Packages: []builder.Package{{Name: "a", Version: "1", Arch: "all"}}, Tool: "own", ToolVersion: "1",
	}
	_, err := io.WriteString(s.Log, "built\n")
	return r, errors.Join(ctx.Err(), err, sandboxtest.WriteImage(r.ImagePath, 4<<30), os.Mkdir(r.ConfigDir, 0o755),
		os.WriteFile(filepath.Join(r.ConfigDir, "keyring.gpg"), []byte("keys"), 0o644))
}

// A targetDriver tells of each release that comes to the target.
type targetDriver struct {
	dir  string
	tell func(format string, args ...any)
}

func (d targetDriver) Name() string { return "directory" }

func (d targetDriver) New(decode func(any) error) (publish.Target, error) {
	t, err := directory.Driver{Dir: d.dir}.New(decode)
	return countingTarget{t, d.tell}, err
}

type countingTarget struct {
	publish.Target
	tell func(format string, args ...any)
}

func (c countingTarget) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	c.tell("push %s/%s", r.Index.Image, r.Index.Build)
	return c.Target.Push(ctx, r)
}

// site is what the workers of a test share: a directory with a key, a log that has a line
// "begin IMAGE/BUILD/STAGE PROCESS" and "end …" for each stage, and a database.
type site struct{ dir, url string }

func newSite(t *testing.T, url string) site {
	t.Helper()
	s := site{dir: t.TempDir(), url: url}
	if url == "" {
		s.url = "sqlite:" + filepath.Join(s.dir, "db", "queue.sqlite")
	}
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "test", Time: func() time.Time { return time.Unix(1.7e9, 0) }})
	require.NoError(t, err)
	require.NoError(t, key.WriteSecretFile(s.file("key")))
	return s
}

func (s site) file(name string) string { return filepath.Join(s.dir, name) }

func (s site) tell(format string, args ...any) {
	f, err := os.OpenFile(s.file("log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = fmt.Fprintf(f, format+"\n", args...)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		panic(err)
	}
}

func (s site) told() string {
	data, _ := os.ReadFile(s.file("log"))
	return string(data)
}

// begins are the processes that began a stage of an image, in their order.
func (s site) begins(image string, stage imagefactory.Stage) []string {
	var processes []string
	for line := range strings.Lines(s.told()) {
		f := strings.Fields(line)
		if f[0] == "begin" && strings.HasPrefix(f[1], image+"/") && strings.HasSuffix(f[1], "/"+string(stage)) {
			processes = append(processes, f[2])
		}
	}
	return processes
}

// begun is how often a stage of an image was begun.
func (s site) begun(image string, stage imagefactory.Stage) int { return len(s.begins(image, stage)) }

// factory is a factory of the site's images, as each of its processes has it.
func (s site) factory(builders ...buildFunc) (*imagefactory.Factory, error) {
	key, err := signing.LoadKey(s.file("key"), nil)
	if err != nil {
		return nil, err
	}
	out := s.file("out")
	f := &imagefactory.Factory{
		Dir: out, Key: key, Sandbox: sandboxtest.Sandbox{}, Profiles: []testsuite.Profile{{Name: "otc", Checks: []testsuite.Check{{
			ID: "own.check", Title: "own", Judge: func(testsuite.Facts, testsuite.Params) testsuite.Verdict {
				return testsuite.Verdict{Status: testsuite.Pass}
			},
		}}}},
		Targets: []imagefactory.TargetDriver{targetDriver{out, s.tell}},
		Progress: func(e imagefactory.Event) {
			what := "begin"
			if e.Done {
				what = "end"
			}
			s.tell("%s %s/%s/%s %d", what, e.Image, e.Build, e.Stage, os.Getpid())
		},
	}
	for _, b := range builders {
		f.Builders = append(f.Builders, b)
	}
	return f, nil
}

// define is an image that a driver builds.
func define(name, driver string) imagefactory.Definition {
	return imagefactory.Definition{
		Name: name, OS: imagefactory.OS{Distribution: "debian", Version: "12", Codename: "bookworm"}, DiskBytes: 4 * imagefactory.GiB,
		Builder:     imagefactory.Component{Driver: driver},
		Mirrors:     map[string]string{"debian": "http://mirror.example/debian"},
		UVPMonitor:  imagefactory.UVPMonitor{State: testsuite.UVPOptional, Reason: "not in Debian's archive"},
		TrustedKeys: []imagefactory.TrustedKey{{File: os.Args[0]}},
		Publish:     []imagefactory.Component{{Driver: "directory"}},
	}
}

// open opens the site's queue for a test.
func (s site) open(t *testing.T) *Queue {
	t.Helper()
	c := Config{URL: s.url}
	if testing.Verbose() {
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	q, err := Open(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	return q
}

// work works until the test ends, or stop is called.
func work(t *testing.T, q *Queue, w Worker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Work(ctx, w) }()
	stopped := false
	stop = func() {
		cancel()
		if !stopped {
			require.NoError(t, <-ended)
		}
		stopped = true
	}
	t.Cleanup(stop)
	return stop
}
