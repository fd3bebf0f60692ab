package imagefactory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// builderDriver, builderFunc and targetDriver are an importer's own.
type builderDriver struct {
	name string
	new  func(decode func(any) error) (builder.Builder, error)
}

func (d builderDriver) Name() string                                        { return d.name }
func (d builderDriver) New(decode func(any) error) (builder.Builder, error) { return d.new(decode) }

type builderFunc func(ctx context.Context, spec builder.Spec) (*builder.Result, error)

func (f builderFunc) Build(ctx context.Context, _ builder.Host, spec builder.Spec) (*builder.Result, error) {
	return f(ctx, spec)
}

type targetDriver struct {
	name string
	new  func(decode func(any) error) (publish.Target, error)
}

func (d targetDriver) Name() string                                       { return d.name }
func (d targetDriver) New(decode func(any) error) (publish.Target, error) { return d.new(decode) }

// builds is a driver whose builder is f.
func builds(name string, f builderFunc) BuilderDriver {
	return builderDriver{name, func(decode func(any) error) (builder.Builder, error) { return f, decode(&struct{}{}) }}
}

// goodBuild writes an image that the sandbox takes, and its configuration.
func goodBuild(_ context.Context, s builder.Spec) (*builder.Result, error) {
	r := &builder.Result{
		ImagePath: filepath.Join(s.OutputDir, "disk.qcow2"), ConfigDir: filepath.Join(s.OutputDir, "config"),
		Packages: []builder.Package{{Name: "a", Version: "1", Arch: "all"}}, Tool: "own", ToolVersion: "1",
	}
	_, err := io.WriteString(s.Log, "built\n")
	return r, errors.Join(err, sandboxtest.WriteImage(r.ImagePath, 4<<30), os.Mkdir(r.ConfigDir, 0o755),
		os.WriteFile(filepath.Join(r.ConfigDir, keyringName), []byte("keys"), 0o644))
}

// embedded is a factory as an importer's test has it, and a definition that it
// publishes.
func embedded(t *testing.T) (*Factory, Definition) {
	t.Helper()
	dir := t.TempDir()
	f := &Factory{
		Dir: dir, Key: testKey, Jobs: 2, Sandbox: sandboxtest.Sandbox{},
		Builders: []BuilderDriver{builds("good", goodBuild)},
		Targets:  []TargetDriver{directory.Driver{Dir: dir}},
		Now:      func() time.Time { return time.Date(2026, 11, 22, 3, 15, 7, 0, time.UTC) },
	}
	return f, own("Standard_Good_1", "good")
}

func own(name, driver string) Definition {
	const mirror = "http://debmirror.otc-service.com/"
	return Definition{
		Name: name, OS: OS{Distribution: "own", Version: "1"}, DiskBytes: 4 * GiB, Builder: Component{Driver: driver},
		Repositories: []Repository{{Name: "a", URL: mirror + "debian"}, {Name: "b", URL: mirror + "debian-security"}},
		UVPMonitor:   UVPMonitor{State: testsuite.UVPOptional, Reason: "none"},
	}
}

func TestWholeWayWithoutGuest(t *testing.T) {
	f, d := embedded(t)
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	got := report.Images[0]
	require.Equal(t, Published, got.Result, got.Error)
	require.True(t, report.OK())
	require.Equal(t, "Standard_Good_1/20261122-031507", got.Release)
	require.Len(t, got.Artifacts, 18)
	keyring, err := signing.PinKeys(testKey)
	require.NoError(t, err)
	r, err := publish.Open(t.Context(), filepath.Join(f.Dir, got.Release), keyring)
	require.NoError(t, err)
	require.Greater(t, r.Index.Tests.Pass, 50)
	left, err := filepath.Glob(filepath.Join(f.Dir, ".work", d.Name, "*"))
	require.NoError(t, err)
	require.Empty(t, left)

	report, err = f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, Unchanged, report.Images[0].Result, report.Images[0].Error)
}

// An image of which nobody knows the packages is never unchanged.
func TestUnknownPackagesAreReleasedAgain(t *testing.T) {
	f, d := embedded(t)
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		r, err := goodBuild(ctx, s)
		r.Packages = nil
		return r, err
	})}
	for range 2 {
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.Equal(t, Published, report.Images[0].Result, report.Images[0].Error)
	}
}

// An image may be a link to a large file elsewhere, which stays as it is.
func TestLinkedImage(t *testing.T) {
	f, d := embedded(t)
	store := filepath.Join(t.TempDir(), "store.qcow2")
	require.NoError(t, sandboxtest.WriteImage(store, 4<<30))
	before, err := os.ReadFile(store)
	require.NoError(t, err)
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		r, err := goodBuild(ctx, s)
		return r, errors.Join(err, os.Remove(r.ImagePath), os.Link(store, r.ImagePath))
	})}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, Published, report.Images[0].Result, report.Images[0].Error)
	after, err := os.ReadFile(store)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after))
}

func TestFailingCheckWithoutGuest(t *testing.T) {
	f, d := embedded(t)
	facts := sandboxtest.Good()
	facts["failed-units"] = testsuite.Fact{Output: "chrony.service loaded failed failed\n"}
	f.Sandbox = sandboxtest.Sandbox{Facts: facts}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	got := report.Images[0]
	require.Equal(t, StageTest, got.Stage)
	var failed *TestError
	require.ErrorAs(t, got.Err, &failed)
	require.Len(t, failed.Report.Bad(), 1)
	require.Contains(t, got.Error, "chrony.service")
	require.NoDirExists(t, filepath.Join(f.Dir, d.Name))
	require.False(t, report.OK())
}

// badError is an error that cannot be read.
type badError struct{ text *string }

func (e *badError) Error() string { return *e.text }

// faultyTarget panics or lies at each of its methods.
type faultyTarget struct{ at string }

func (f faultyTarget) fault(at string) {
	if f.at == at {
		panic("target on fire")
	}
}

func (f faultyTarget) List(context.Context, string) ([]publish.Entry, error) {
	f.fault("List")
	if f.at == "giant" {
		return make([]publish.Entry, 1<<16), nil
	}
	return nil, nil
}

func (f faultyTarget) Push(_ context.Context, r *publish.Release) (publish.Entry, error) {
	f.fault("Push")
	if f.at == "nothing" {
		return publish.Entry{}, nil
	}
	if f.at == "other" {
		return publish.Entry{ID: "x", Image: "Standard_Other_1", Build: r.Index.Build}, nil
	}
	return publish.Entry{ID: "x", Image: r.Index.Image, Build: r.Index.Build}, nil
}

func (f faultyTarget) Apply(context.Context, publish.Step) error {
	f.fault("Apply")
	if f.at == "Goexit" {
		runtime.Goexit()
	}
	return nil
}

func (f faultyTarget) Lock(context.Context, string) (func(), error) {
	f.fault("Lock")
	if f.at == "unlock" {
		return func() { panic("target on fire") }, nil
	}
	if f.at == "no unlock" {
		return nil, nil
	}
	return func() {}, nil
}

type boxFunc func(context.Context, sandbox.Image) (*sandbox.Machine, error)

func (f boxFunc) Boot(ctx context.Context, image sandbox.Image) (*sandbox.Machine, error) {
	return f(ctx, image)
}

type digester struct{ builderFunc }

func (digester) InputsDigest(builder.Spec) (string, error) { panic("no digest") }

// Whatever a part does that somebody else wrote fails the image that it was
// called for, says which part it was, and nothing else: the other image is
// published, and no file but the part's own is touched.
func TestFaultyPartsFailTheirImageAlone(t *testing.T) {
	precious := func(t *testing.T) (string, string) {
		dir := t.TempDir()
		file := filepath.Join(dir, "precious.qcow2")
		require.NoError(t, sandboxtest.WriteImage(file, 4<<30))
		return dir, file
	}
	result := func(change func(s builder.Spec, r *builder.Result) error) func(*testing.T) builderFunc {
		return func(*testing.T) builderFunc {
			return func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
				r, err := goodBuild(ctx, s)
				return r, errors.Join(err, change(s, r))
			}
		}
	}
	does := func(f func() (*builder.Result, error)) func(*testing.T) builderFunc {
		return func(*testing.T) builderFunc {
			return func(context.Context, builder.Spec) (*builder.Result, error) { return f() }
		}
	}
	for name, test := range map[string]struct {
		build  func(t *testing.T) builderFunc
		driver func(decode func(any) error) (builder.Builder, error)
		target func(decode func(any) error) (publish.Target, error)
		change func(f *Factory)
		stage  Stage
		want   string
		panics bool
	}{
		"New panics":                    {driver: func(func(any) error) (builder.Builder, error) { panic("at once") }, stage: StageBuild, want: "builder bad: New panicked: at once", panics: true},
		"New ends its goroutine":        {driver: func(func(any) error) (builder.Builder, error) { runtime.Goexit(); return nil, nil }, stage: StageBuild, want: "builder bad: New panicked: it ended its goroutine", panics: true},
		"New gives nothing":             {driver: func(func(any) error) (builder.Builder, error) { return nil, nil }, stage: StageBuild, want: "builder bad: New returned neither a result nor an error"},
		"New decodes into nothing":      {driver: func(decode func(any) error) (builder.Builder, error) { panic(decode(nil)) }, stage: StageBuild, want: "builder bad: New panicked", panics: true},
		"nil builder":                   {driver: func(func(any) error) (builder.Builder, error) { return (builderFunc)(nil), nil }, stage: StageBuild, want: "builder bad: Build panicked", panics: true},
		"InputsDigest panics":           {driver: func(func(any) error) (builder.Builder, error) { return digester{goodBuild}, nil }, stage: StageBuild, want: "builder bad: InputsDigest panicked: no digest", panics: true},
		"Build gives nothing":           {build: does(func() (*builder.Result, error) { return nil, nil }), stage: StageBuild, want: "builder bad gave a result that cannot be used: the builder returned neither a result nor an error"},
		"Build gives an empty result":   {build: does(func() (*builder.Result, error) { return &builder.Result{}, nil }), stage: StageBuild, want: "image: no path"},
		"Build panics":                  {build: does(func() (*builder.Result, error) { panic(io.ErrClosedPipe) }), stage: StageBuild, want: "builder bad: Build panicked: io: read/write on closed pipe", panics: true},
		"Build panics with nil":         {build: does(func() (*builder.Result, error) { panic(nil) }), stage: StageBuild, want: "builder bad: Build panicked", panics: true},
		"Build ends its goroutine":      {build: does(func() (*builder.Result, error) { runtime.Goexit(); return nil, nil }), stage: StageBuild, want: "builder bad: Build panicked: it ended its goroutine", panics: true},
		"Build's error is a nil":        {build: does(func() (*builder.Result, error) { return nil, (*badError)(nil) }), stage: StageBuild, want: "builder bad: Build panicked: runtime error: invalid memory address", panics: true},
		"Build panics with a bad error": {build: does(func() (*builder.Result, error) { panic((*badError)(nil)) }), stage: StageBuild, want: "builder bad: Build panicked: *imagefactory.badError", panics: true},
		"Build's error is endless":      {build: does(func() (*builder.Result, error) { return nil, errors.New(strings.Repeat("x", 1<<20)) }), stage: StageBuild, want: "xxx…"},
		"image elsewhere": {stage: StageBuild, want: "is not below the output directory", build: func(t *testing.T) builderFunc {
			_, file := precious(t)
			t.Cleanup(func() { require.FileExists(t, file) })
			return result(func(_ builder.Spec, r *builder.Result) error { r.ImagePath = file; return nil })(t)
		}},
		"configuration elsewhere": {stage: StageBuild, want: "is not below the output directory", build: func(t *testing.T) builderFunc {
			dir, file := precious(t)
			t.Cleanup(func() { require.FileExists(t, file) })
			return result(func(_ builder.Spec, r *builder.Result) error { r.ConfigDir = dir; return nil })(t)
		}},
		"configuration is a link": {stage: StageBuild, want: "is a symbolic link", build: func(t *testing.T) builderFunc {
			dir, file := precious(t)
			t.Cleanup(func() { require.FileExists(t, file) })
			return result(func(_ builder.Spec, r *builder.Result) error {
				return errors.Join(os.RemoveAll(r.ConfigDir), os.Symlink(dir, r.ConfigDir))
			})(t)
		}},
		"output directory is a link in the end": {stage: StageBuild, want: "path escapes from parent", build: func(t *testing.T) builderFunc {
			dir, file := precious(t)
			require.NoError(t, os.Mkdir(filepath.Join(dir, "config"), 0o755))
			t.Cleanup(func() { require.FileExists(t, file) })
			return result(func(s builder.Spec, r *builder.Result) error {
				r.ImagePath = filepath.Join(s.OutputDir, "precious.qcow2")
				return errors.Join(os.RemoveAll(s.OutputDir), os.Symlink(dir, s.OutputDir))
			})(t)
		}},
		"image is the build log": {stage: StageBuild, want: "is not below the output directory", build: result(func(s builder.Spec, r *builder.Result) error {
			r.ImagePath = s.Log.(*os.File).Name()
			return nil
		})},
		"links where the factory's files will be": {stage: StageBuild, want: "file exists", build: func(t *testing.T) builderFunc {
			_, file := precious(t)
			before, err := os.ReadFile(file)
			require.NoError(t, err)
			t.Cleanup(func() {
				after, err := os.ReadFile(file)
				require.NoError(t, err)
				require.True(t, bytes.Equal(before, after))
			})
			return result(func(s builder.Spec, _ *builder.Result) error {
				return os.Symlink(file, strings.TrimSuffix(s.Log.(*os.File).Name(), ".build.log")+".packages")
			})(t)
		}},
		"packages with lines of their own": {stage: StageBuild, want: "packages: number 1", build: result(func(_ builder.Spec, r *builder.Result) error {
			r.Packages[0].Name = "a 1 all\nb"
			return nil
		})},
		"Config that is no configuration": {stage: StageBuild, want: "cannot write the configuration's archive", build: result(func(_ builder.Spec, r *builder.Result) error {
			r.Config = map[string]any{"a": make(chan int)}
			return nil
		})},
		"configuration with the archive's own file": {stage: StageBuild, want: "has a nightly.yaml, which is the archive's own", build: result(func(_ builder.Spec, r *builder.Result) error {
			return os.WriteFile(filepath.Join(r.ConfigDir, "nightly.yaml"), []byte("images: []"), 0o644)
		})},
		"Boot panics": {change: func(f *Factory) { f.Sandbox = boxFunc(nil) }, stage: StageTest, want: "sandbox: Boot panicked", panics: true},
		"Boot gives nothing": {change: func(f *Factory) {
			f.Sandbox = boxFunc(func(context.Context, sandbox.Image) (*sandbox.Machine, error) { return nil, nil })
		}, stage: StageTest, want: "sandbox: Boot returned neither"},
		"machine without target": {change: func(f *Factory) {
			f.Sandbox = boxFunc(func(context.Context, sandbox.Image) (*sandbox.Machine, error) { return &sandbox.Machine{}, nil })
		}, stage: StageTest, want: "the target needs a signer, a host key"},
		"Close panics": {change: func(f *Factory) {
			f.Sandbox = boxFunc(func(ctx context.Context, i sandbox.Image) (*sandbox.Machine, error) {
				m, err := sandboxtest.Sandbox{}.Boot(ctx, i)
				stop := m.Stop
				m.Stop = func() error { panic(stop()) }
				return m, err
			})
		}, stage: StageTest, want: "sandbox: Close panicked", panics: true},
		"a check panics": {change: func(f *Factory) {
			f.Profiles = []testsuite.Profile{{Name: "otc", Checks: []testsuite.Check{{ID: "own.check", Judge: func(testsuite.Facts, testsuite.Params) testsuite.Verdict { panic("judge on fire") }}}}}
		}, stage: StageTest, want: "judge on fire"},
		"target's New panics":     {target: func(func(any) error) (publish.Target, error) { panic("no cloud") }, stage: StageBuild, want: "publish bad: New panicked: no cloud", panics: true},
		"target's New is nothing": {target: func(func(any) error) (publish.Target, error) { return nil, nil }, stage: StageBuild, want: "publish bad: New returned neither"},
		"List panics":             {target: faulty("List"), stage: StagePublish, want: "target bad panicked: target on fire", panics: true},
		"Push panics":             {target: faulty("Push"), stage: StagePublish, want: "target bad panicked: target on fire", panics: true},
		"Apply panics":            {target: faulty("Apply"), stage: StagePublish, want: "target bad panicked: target on fire", panics: true},
		"Apply ends":              {target: faulty("Goexit"), stage: StagePublish, want: "target bad panicked: it ended its goroutine", panics: true},
		"Lock panics":             {target: faulty("Lock"), stage: StagePublish, want: "target bad panicked: target on fire", panics: true},
		"unlock panics":           {target: faulty("unlock"), stage: StagePublish, want: "target bad panicked: target on fire", panics: true},
		"Lock gives nothing":      {target: faulty("no unlock"), stage: StagePublish, want: "target bad: cannot publish Standard_Bad_1 20261122-031507: the target returned neither a lock nor an error"},
		"Push gives nothing":      {target: faulty("nothing"), stage: StagePublish, want: "target bad: its entry"},
		"Push of another image":   {target: faulty("other"), stage: StagePublish, want: "target bad: its entry"},
		"Progress panics": {change: func(f *Factory) {
			f.Progress = func(e Event) {
				if e.Stage == StageInspect {
					panic("no terminal")
				}
			}
		}, stage: StageInspect, want: "Progress panicked: no terminal", panics: true},
		"Progress ends its goroutine": {change: func(f *Factory) {
			f.Progress = func(e Event) {
				if e.Stage == StageSeal && e.Done {
					runtime.Goexit()
				}
			}
		}, stage: StageSeal, want: "Progress panicked: it ended its goroutine", panics: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, good := embedded(t)
			var log bytes.Buffer
			f.Logger = slog.New(slog.NewTextHandler(&lockedWriter{w: &log}, nil))
			bad := own("Standard_Bad_1", "bad")
			driver := builds("bad", goodBuild)
			switch {
			case test.build != nil:
				driver = builds("bad", test.build(t))
			case test.driver != nil:
				driver = builderDriver{"bad", test.driver}
			}
			f.Builders = append(f.Builders, driver)
			if test.target != nil {
				f.Targets = append(f.Targets, targetDriver{"bad", test.target})
				bad.Publish = []Component{{Driver: "bad"}, {Driver: "directory"}}
			}
			if test.change != nil {
				test.change(f) // which is for all images
				report, err := f.Run(t.Context(), []Definition{bad})
				require.NoError(t, err)
				faultOf(t, report.Images[0], test.stage, test.want, test.panics, &log)
				return
			}
			report, err := f.Run(t.Context(), []Definition{bad, good})
			require.NoError(t, err)
			require.Len(t, report.Images, 2)
			faultOf(t, report.Images[0], test.stage, test.want, test.panics, &log)
			require.Equal(t, Published, report.Images[1].Result, report.Images[1].Error)
			require.False(t, report.OK())
			if test.stage == StagePublish {
				require.Equal(t, "Standard_Bad_1/20261122-031507", report.Images[0].Release, "the other target has it")
				targets := report.Images[0].Targets
				require.Len(t, targets, 2)
				for _, o := range targets {
					require.Equal(t, o.Name == "bad", o.Error != "", o.Name)
				}
				return
			}
			require.NoDirExists(t, filepath.Join(f.Dir, bad.Name))
		})
	}
}

func faulty(at string) func(func(any) error) (publish.Target, error) {
	return func(func(any) error) (publish.Target, error) { return faultyTarget{at}, nil }
}

func faultOf(t *testing.T, got ImageReport, stage Stage, want string, panics bool, log *bytes.Buffer) {
	t.Helper()
	require.Equal(t, Failed, got.Result)
	require.Equal(t, "Standard_Bad_1", got.Name)
	assert.Equal(t, stage, got.Stage, got.Error)
	assert.Contains(t, got.Error, want)
	assert.NotContains(t, got.Error, "goroutine ", "the stack is for the log")
	assert.Less(t, len(got.Error), 100<<10)
	var p *PanicError
	if assert.Equal(t, panics, errors.As(got.Err, &p), got.Error) && panics {
		assert.Contains(t, string(p.Stack), "goroutine ")
		assert.Contains(t, log.String(), "stack=\"goroutine ")
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// panicHandler is a log handler on fire.
type panicHandler struct{}

func (panicHandler) Enabled(context.Context, slog.Level) bool  { panic("Enabled") }
func (panicHandler) Handle(context.Context, slog.Record) error { panic("Handle") }
func (panicHandler) WithAttrs([]slog.Attr) slog.Handler        { panic("WithAttrs") }
func (panicHandler) WithGroup(string) slog.Handler             { panic("WithGroup") }

func TestLoggerThatPanicsStopsNoImage(t *testing.T) {
	f, d := embedded(t)
	f.Logger = slog.New(panicHandler{})
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, Published, report.Images[0].Result, report.Images[0].Error)
	require.NoError(t, quietLog{panicHandler{}}.WithGroup("x").Handle(t.Context(), slog.Record{}))
	require.ErrorContains(t, quietLog{panicHandler{}}.Handle(t.Context(), slog.Record{}), "the log handler panicked")
}

// A builder that changes what it is told changes its own copy.
func TestSpecIsTheBuildersOwn(t *testing.T) {
	f, d := embedded(t)
	d.Mirrors = map[string]string{"own": "http://mirror.example/"}
	d.NTPServers = []string{"ntp01.otc-service.com", "ntp02.otc-service.com"}
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		s.Mirrors["evil"] = "http://evil.example/"
		s.NTPServers[0], s.Repositories[0].URL = "evil.example", "http://evil.example/"
		return goodBuild(ctx, s)
	})}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	got := report.Images[0]
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, "ntp01.otc-service.com", d.NTPServers[0])
	require.Len(t, d.Mirrors, 1)
	envelope, err := os.ReadFile(filepath.Join(f.Dir, got.Release, "Standard_Good_1-20261122-031507.provenance.json"))
	require.NoError(t, err)
	require.NotContains(t, string(envelope), "evil")
}

// What a driver says when ctx has ended is told, and so is why ctx ended.
func TestInterruptionKeepsErrorAndCause(t *testing.T) {
	errOwn, errCause := errors.New("half an image is left"), errors.New("the machine goes down")
	for name, test := range map[string]struct {
		says func(ctx context.Context) error
		want string
	}{
		"an error of its own": {func(context.Context) error { return errOwn }, "interrupted: context canceled: the machine goes down: half an image is left"},
		"ctx's error":         {func(ctx context.Context) error { return fmt.Errorf("%w: %w", errOwn, ctx.Err()) }, "interrupted: the machine goes down: half an image is left: context canceled"},
		"ctx's cause":         {func(ctx context.Context) error { return fmt.Errorf("%w: %w", errOwn, context.Cause(ctx)) }, "interrupted: context canceled: half an image is left: the machine goes down"},
		"a panic":             {func(context.Context) error { panic(errOwn) }, "interrupted: context canceled: the machine goes down: builder good: Build panicked: half an image is left"},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := embedded(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, _ builder.Spec) (*builder.Result, error) {
				cancel(errCause)
				return nil, test.says(ctx)
			})}
			f.Jobs = 1
			later := d
			later.Name = "Standard_Good_2"
			report, err := f.Run(ctx, []Definition{d, later})
			require.NoError(t, err)
			got := report.Images[0]
			require.Equal(t, test.want, got.Error)
			for _, want := range []error{errOwn, errCause, context.Canceled} {
				require.ErrorIs(t, got.Err, want)
			}
			require.ErrorIs(t, report.Images[1].Err, errCause)
			require.ErrorIs(t, report.Images[1].Err, context.Canceled)
		})
	}
	f, d := embedded(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, _ builder.Spec) (*builder.Result, error) {
		cancel()
		return nil, ctx.Err()
	})}
	report, err := f.Run(ctx, []Definition{d})
	require.NoError(t, err)
	require.Equal(t, "interrupted: context canceled", report.Images[0].Error, "said once")
}

func TestDriversHaveNames(t *testing.T) {
	good := builds("good", goodBuild)
	for name, test := range map[string]struct {
		change func(f *Factory)
		want   string
	}{
		"builder twice":   {func(f *Factory) { f.Builders = append(f.Builders, good) }, `there are two of the name "good": builder number 2 is one`},
		"no name":         {func(f *Factory) { f.Builders = append(f.Builders, builds("", goodBuild)) }, "builder number 2 has no name"},
		"nil builder":     {func(f *Factory) { f.Builders = []BuilderDriver{nil, good} }, "builder number 1 is nil"},
		"Name panics":     {func(f *Factory) { f.Builders = []BuilderDriver{(*builderDriver)(nil)} }, "builder number 1: Name panicked"},
		"target twice":    {func(f *Factory) { f.Targets = append(f.Targets, directory.Driver{}) }, `there are two of the name "directory": target number 2 is one`},
		"nil target":      {func(f *Factory) { f.Targets = []TargetDriver{nil} }, "target number 1 is nil"},
		"profile twice":   {func(f *Factory) { f.Profiles = []testsuite.Profile{testsuite.OTC(), testsuite.OTC()} }, `there are two of the name "otc": profile number 2 is one`},
		"unnamed profile": {func(f *Factory) { f.Profiles = []testsuite.Profile{{}} }, "profile number 1 has no name"},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := embedded(t)
			test.change(f)
			require.ErrorContains(t, f.Validate([]Definition{d}), test.want)
			report, err := f.Run(t.Context(), []Definition{d})
			require.ErrorContains(t, err, test.want)
			require.Nil(t, report)
			require.NoDirExists(t, filepath.Join(f.Dir, workName))
		})
	}
}

// Validate tells of a driver that is at fault, which Run leaves to the image.
func TestValidateTellsFaults(t *testing.T) {
	f, d := embedded(t)
	f.Builders = []BuilderDriver{builderDriver{"good", func(func(any) error) (builder.Builder, error) { return nil, nil }}}
	require.EqualError(t, f.Validate([]Definition{d}), "image Standard_Good_1: builder good: New returned neither a result nor an error")
}

func TestProfilesAreValues(t *testing.T) {
	own := testsuite.Profile{Name: "own", Checks: []testsuite.Check{{
		ID: "own.kernel", Needs: []string{"architecture"},
		Judge: func(testsuite.Facts, testsuite.Params) testsuite.Verdict {
			return testsuite.Verdict{Status: testsuite.Pass}
		},
	}}}
	f, d := embedded(t)
	f.Profiles = []testsuite.Profile{testsuite.OTC(), own}
	d.Test.Profile = "own"
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, Published, report.Images[0].Result, report.Images[0].Error)
	require.Equal(t, testsuite.Summary{Pass: 1}, report.Images[0].Checks)

	for name, test := range map[string]struct{ yaml, want string }{
		"unknown":       {"{profile: strict}", `f.yaml:6:21: image Standard_Debian_12: test: unknown profile "strict"; known are otc, own`},
		"unknown check": {"{profile: own, waivers: [{check: sshd.kex, reason: r, expires: 2027-06-30}]}", `f.yaml:6:35: image Standard_Debian_12: test: cannot waive check "sshd.kex": profile "own" has no such check`},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := parse("f.yaml", "/", []byte(strings.Replace(minimal, "{dib: {elements: [vm]}}", "{good: {}}", 1)+"    test: "+test.yaml+"\n"))
			require.NoError(t, err)
			f.Builders = []BuilderDriver{builds("good", goodBuild)}
			f.HostMirrors = map[string]string{"debian": "http://mirror.example/debian"}
			err = f.Validate(d)
			require.EqualError(t, err, test.want)
			var config *ConfigError
			require.ErrorAs(t, err, &config)
		})
	}
	f.Profiles = []testsuite.Profile{own}
	d.Test.Profile = ""
	require.ErrorContains(t, f.Validate([]Definition{d}), `unknown profile "otc"; known are own`)
}

func TestNamesWithoutClass(t *testing.T) {
	f, d := embedded(t)
	d.Name = "Good_1"
	var config *ConfigError
	err := f.Validate([]Definition{d})
	require.ErrorAs(t, err, &config)
	require.ErrorContains(t, err, `name: image name "Good_1" has no class: want one of [Standard Enterprise`)
	f.AnyClass = true
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, "Good_1/20261122-031507", report.Images[0].Release, report.Images[0].Error)
	for _, bad := range []string{"Good_1_latest", "../x", "", ".work", "imagefactory.pub"} {
		d.Name = bad
		require.Error(t, f.Validate([]Definition{d}), bad)
	}
}

func TestRetire(t *testing.T) {
	f, d := embedded(t)
	f.Targets = []TargetDriver{directory.Driver{Dir: f.Dir, Now: func() time.Time { return f.Now() }}}
	for month := range 4 {
		f.Now = func() time.Time { return time.Date(2026, time.Month(1+month), 1, 0, 0, 0, 0, time.UTC) }
		f.Force = true
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.Equal(t, Published, report.Images[0].Result, report.Images[0].Error)
	}
	keep := &Factory{
		Targets: append(f.Targets, targetDriver{"bad", faulty("List")}),
		Now:     func() time.Time { return time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
	d.Publish = []Component{{Driver: "bad"}, {Driver: "directory"}}
	steps, err := keep.Retire(t.Context(), []Definition{d})
	require.ErrorContains(t, err, "image Standard_Good_1: target bad: target bad panicked: target on fire")
	require.Empty(t, steps, "they lost their labels last year")

	later := *keep
	later.Now = func() time.Time { return time.Date(2028, 5, 1, 0, 0, 0, 0, time.UTC) }
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	steps, err = later.Retire(ctx, []Definition{d})
	require.Empty(t, steps)
	require.EqualError(t, err, "interrupted: context canceled: io: read/write on closed pipe")
	steps, err = later.Retire(t.Context(), []Definition{d})
	require.ErrorContains(t, err, "image Standard_Good_1: target bad: target bad panicked: target on fire")
	require.Len(t, steps, 2, "the other target is not kept from it")
	require.Equal(t, "20260101-000000", steps[0].Entry.Build.String())
	require.NoDirExists(t, filepath.Join(f.Dir, d.Name, "20260101-000000"))
	require.DirExists(t, filepath.Join(f.Dir, d.Name, "20260301-000000"))

	d.Publish = []Component{{Driver: "no"}}
	_, err = later.Retire(t.Context(), []Definition{d})
	require.ErrorContains(t, err, `unknown driver "no"`)
	steps, err = (&Factory{}).Retire(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, steps)
}

func TestBusyImage(t *testing.T) {
	f, d := embedded(t)
	building, goOn := make(chan struct{}), make(chan struct{})
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		close(building)
		<-goOn
		return goodBuild(ctx, s)
	})}
	first := make(chan *Report)
	go func() {
		report, _ := f.Run(t.Context(), []Definition{d})
		first <- report
	}()
	<-building
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.ErrorIs(t, report.Images[0].Err, ErrBusy)
	require.Contains(t, report.Images[0].Error, "another run works on this image")
	close(goOn)
	require.True(t, (<-first).OK())
}

// The directory's name is no pattern.
func TestRunsInADirectoryWithBrackets(t *testing.T) {
	f, d := embedded(t)
	f.Dir = filepath.Join(t.TempDir(), "a[b*")
	f.Targets = []TargetDriver{directory.Driver{Dir: f.Dir}}
	f.Sandbox = boxFunc(func(context.Context, sandbox.Image) (*sandbox.Machine, error) { return nil, io.ErrNoProgress })
	for i := range 13 {
		f.Now = func() time.Time { return time.Date(2026, 11, 22, i, 0, 0, 0, time.UTC) }
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.ErrorIs(t, report.Images[0].Err, io.ErrNoProgress)
	}
	left, err := os.ReadDir(filepath.Join(f.Dir, ".work", d.Name))
	require.NoError(t, err)
	require.Len(t, left, 11, "ten failed runs, and the last")
	old, err := filepath.Glob(filepath.Join(f.Dir[:len(f.Dir)-4], "a*", ".work", d.Name, "*", "*.qcow2"))
	require.NoError(t, err)
	require.Len(t, old, 1, "only the last one's image is kept")
}

// A report does not take the place of what cannot be put back.
func TestReportFile(t *testing.T) {
	r := &Report{}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("private"), []byte("x"), 0o600))
	require.NoError(t, r.WriteFile(at("private")))
	st, err := os.Stat(at("private"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode())

	require.NoError(t, os.Symlink("private", at("link")))
	require.NoError(t, os.WriteFile(at("private"), []byte("x"), 0o600))
	require.NoError(t, r.WriteFile(at("link")))
	st, err = os.Lstat(at("link"))
	require.NoError(t, err)
	require.Equal(t, os.ModeSymlink, st.Mode().Type())
	data, err := os.ReadFile(at("private"))
	require.NoError(t, err)
	require.Contains(t, string(data), `"images": null`)

	require.NoError(t, syscall.Mkfifo(at("pipe"), 0o600))
	read := make(chan []byte)
	go func() {
		data, _ := os.ReadFile(at("pipe"))
		read <- data
	}()
	require.NoError(t, r.WriteFile(at("pipe")))
	require.Contains(t, string(<-read), "images")
	require.Error(t, r.WriteFile(dir))
	require.Error(t, r.WriteFile(at("none/report.json")))

	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 3)
}

// What is empty says so, and does not panic.
func TestZeroValues(t *testing.T) {
	for _, err := range []error{&ConfigError{}, &TestError{}, &PanicError{}, &TestError{Report: &testsuite.Report{}}} {
		require.NotEmpty(t, err.Error())
		_ = errors.Unwrap(err)
	}
	var f Factory
	_, err := f.Run(t.Context(), nil)
	require.EqualError(t, err, "cannot run a factory without Dir and Key")
	_, err = (&Factory{Dir: t.TempDir(), Key: new(signing.Key)}).Run(t.Context(), nil)
	require.Error(t, err)
	require.NoError(t, f.Validate(nil))
	require.Error(t, f.Validate([]Definition{{}}))
	require.Error(t, (&Definition{}).Complete())
	require.False(t, (*Report)(nil).OK())
	require.False(t, (&Report{}).OK())
	require.False(t, (&Report{Images: []ImageReport{{}}}).OK())
	require.True(t, (&Report{Images: []ImageReport{{Result: Published}, {Result: Unchanged}}}).OK())
	require.False(t, (&Report{Images: []ImageReport{{Result: Published}, {Result: Failed}}}).OK())
	var b bytes.Buffer
	r := Report{Images: []ImageReport{{}}}
	require.NoError(t, errors.Join(r.WriteText(&b), r.WriteJSON(&b)))
	_, err = EvidenceFrom(testsuite.Facts{}, nil, "")
	require.Error(t, err)
	_, _ = Component{}.MarshalYAML()
	_, _ = Date{}.MarshalText()
	_, _ = Name{}.String(), Size(0).String()
	_ = CatalogEntry{}.Definition()
	_, _, err = OpenKey("")
	require.Error(t, err)
}
