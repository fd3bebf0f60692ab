package imagefactory

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/qcow2reader"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// canned is a builder that hands out an image that is there already. What it
// cannot show is the building; builder/dib and examples/nightly do that.
type canned struct{}

type cannedConfig struct {
	Image    string   `yaml:"image"`
	Packages []string `yaml:"packages"`
	Fail     string   `yaml:"fail"`
}

func (canned) Name() string { return "canned" }

func (canned) New(decode func(any) error) (builder.Builder, error) {
	var c cannedConfig
	return &c, decode(&c)
}

func (c *cannedConfig) Build(ctx context.Context, _ builder.Host, s builder.Spec) (*builder.Result, error) {
	if c.Fail != "" {
		return nil, errors.New(c.Fail)
	}
	image := filepath.Join(s.OutputDir, s.Name+".qcow2")
	config := filepath.Join(s.OutputDir, "config")
	data, err := os.ReadFile(c.Image)
	err = errors.Join(err, os.WriteFile(image, data, 0o644), os.MkdirAll(filepath.Join(config, "elements"), 0o755),
		os.WriteFile(filepath.Join(config, "elements", "hook"), []byte("#!/bin/sh\n"), 0o755),
		os.WriteFile(filepath.Join(config, "keyring.gpg"), []byte("keys"), 0o644))
	if err != nil {
		return nil, err
	}
	r := &builder.Result{Tool: "canned", ToolVersion: "1", ImagePath: image, ConfigDir: config, Config: cannedConfig{Image: "image.qcow2"}}
	for _, p := range c.Packages {
		f := strings.Fields(p)
		r.Packages = append(r.Packages, builder.Package{Name: f[0], Version: f[1], Arch: f[2]})
	}
	return r, ctx.Err()
}

var testKey = func() *signing.Key {
	if dir := os.Getenv(workerDir); dir != "" { // a process of TestKilledWorkers, which is to begin at once
		return nil
	}
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "test", Time: func() time.Time { return time.Unix(1.7e9, 0) }})
	if err != nil {
		panic(err)
	}
	return key
}()

// newFactory returns a factory whose clock stands still, and an image file.
func newFactory(t *testing.T) (*Factory, Definition) {
	needs.Tools(t, "qemu-img")
	image := filepath.Join(t.TempDir(), "blank.qcow2")
	require.NoError(t, exec.Command("qemu-img", "create", "-q", "-f", "qcow2", image, "16M").Run())
	dir := t.TempDir()
	f := &Factory{
		Dir: dir, Key: testKey,
		Builders: []BuilderDriver{canned{}}, Targets: []TargetDriver{directory.Driver{Dir: dir}},
		Now: func() time.Time { return time.Date(2026, 11, 22, 3, 15, 7, 0, time.UTC) },
	}
	d := Definition{
		Name: "Standard_Test_1", OS: OS{Distribution: "test", Version: "1"}, DiskBytes: 16 * MiB,
		Builder: Component{Driver: "canned", Config: cannedConfig{Image: image, Packages: []string{"a 1 all", "b 2 amd64"}}},
	}
	return f, d
}

// sealed runs everything but the test in a virtual machine, which is replaced
// by a report, up to the sealed release.
func sealed(t *testing.T, f *Factory, d Definition) (*job, string) {
	t.Helper()
	j := beginRun(t, f, d)
	return j, seal(t, j)
}

func seal(t *testing.T, j *job) string {
	t.Helper()
	stageDone(t, j, StageBuild)
	stageDone(t, j, StageInspect)
	require.False(t, j.journal.unchanged())
	fakeTest(t, j)
	stageDone(t, j, StageSeal)
	return filepath.Join(j.sealedDir(), j.build.String())
}

// stageDone does a stage as Do does.
func stageDone(t *testing.T, j *job, s Stage) {
	t.Helper()
	require.NoError(t, j.do(t.Context(), Task{Stage: s}))
}

// fakeTest is a test that an image has passed.
func fakeTest(t *testing.T, j *job) {
	t.Helper()
	require.NoError(t, j.perform(t.Context(), StageTest, func(ctx context.Context, r *record) error {
		tests := &testsuite.Report{Profile: "otc"}
		for _, c := range j.suite.Profile.Checks {
			tests.Checks = append(tests.Checks, testsuite.Result{ID: c.ID, Status: testsuite.Pass})
			tests.Summary.Pass++
		}
		facts := testsuite.Facts{Facts: map[string]testsuite.Fact{"script": {Output: "complete\n"}}, Given: testsuite.Given{Hostname: "h"}}
		return errors.Join(j.writeTests(tests, facts), j.wroteTests(ctx, r))
	}))
}

// beginRun is a run of which nothing is done yet.
func beginRun(t *testing.T, f *Factory, d Definition) *job {
	t.Helper()
	products, err := f.begin([]Definition{d})
	require.NoError(t, err)
	p := products[0]
	unlock, err := p.enter(t.Context())
	require.NoError(t, err)
	unlock() // the test is alone
	runs, err := p.journals()
	require.NoError(t, err)
	j, err := p.open(p.newBuild(runs), p.newReport())
	require.NoError(t, err)
	return j
}

func withPackages(d Definition, packages ...string) Definition {
	c := d.Builder.Config.(cannedConfig)
	c.Packages = packages
	d.Builder.Config = c
	return d
}

func TestReleaseIsCompleteAndRotates(t *testing.T) {
	f, d := newFactory(t)
	keyring, err := signing.PinKeys(testKey)
	require.NoError(t, err)
	latest := filepath.Join(f.Dir, d.Name, "latest")

	j, _ := sealed(t, f, d)
	require.NoFileExists(t, latest)
	stageDone(t, j, StagePublish)
	first, err := publish.Open(t.Context(), latest, keyring)
	require.NoError(t, err)
	require.Equal(t, "20261122-031507", first.Index.Build.String())
	require.Equal(t, len(j.suite.Profile.Checks), first.Index.Tests.Pass)
	var names []string
	for _, file := range first.Files {
		names = append(names, strings.TrimPrefix(file.Name, "Standard_Test_1-20261122-031507"))
	}
	for _, want := range []string{
		".qcow2", ".qcow2.asc", ".config.tar.gz", ".config.tar.gz.asc", ".packages", ".changes", ".build.log", ".provenance.json", ".test.provenance.json",
		".test.json", ".test.xml", ".test.log", ".facts.json.gz", ".cdx.json", "SHA256SUMS", "SHA256SUMS.asc", "release.json",
	} {
		require.Contains(t, names, want)
	}
	seen, err := readRelease(first, "Standard_Test_1-20261122-031507.facts.json.gz")
	require.NoError(t, err)
	facts, err := testsuite.LoadFacts(bytes.NewReader(seen))
	require.NoError(t, err)
	require.Equal(t, "complete\n", facts.Facts["script"].Output)
	require.Equal(t, "h", facts.Given.Hostname)
	changes, err := readRelease(first, "Standard_Test_1-20261122-031507.changes")
	require.NoError(t, err)
	require.Equal(t, "+a 1 all\n+b 2 amd64\n", string(changes))

	// The same second, other packages: the next build ID.
	j, _ = sealed(t, f, withPackages(d, "a 1.1 all", "c 1 all"))
	stageDone(t, j, StagePublish)
	second, err := publish.Open(t.Context(), latest, keyring)
	require.NoError(t, err)
	require.Equal(t, "20261122-031508", second.Index.Build.String())
	changes, err = readRelease(second, "Standard_Test_1-20261122-031508.changes")
	require.NoError(t, err)
	require.Equal(t, "-a 1 all\n+a 1.1 all\n-b 2 amd64\n+c 1 all\n", string(changes))
	prev, err := os.Readlink(filepath.Join(f.Dir, d.Name, "prev"))
	require.NoError(t, err)
	require.Equal(t, "20261122-031507", prev)
}

func TestUnchanged(t *testing.T) {
	f, d := newFactory(t)
	j, _ := sealed(t, f, d)
	stageDone(t, j, StagePublish)

	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	got := report.Images[0]
	require.Equal(t, Unchanged, got.Result, got.Error)
	require.Equal(t, "Standard_Test_1/20261122-031507", got.Release)
	require.Empty(t, got.Stage)
	require.Equal(t, len(j.suite.Profile.Checks), got.Checks.Pass)
	left, err := filepath.Glob(filepath.Join(f.Dir, ".work", d.Name, "*"))
	require.NoError(t, err)
	require.Empty(t, left)

	for name, change := range map[string]func(*Definition){
		"packages":   func(d *Definition) { *d = withPackages(*d, "a 1 all") },
		"definition": func(d *Definition) { d.MinDiskBytes = 32 * MiB },
	} {
		t.Run(name, func(t *testing.T) {
			d := d
			change(&d)
			j := beginRun(t, f, d)
			stageDone(t, j, StageBuild)
			stageDone(t, j, StageInspect)
			require.False(t, j.journal.unchanged())
			require.Equal(t, "20261122-031507", j.journal.stage(StageInspect).Previous)
		})
	}
	t.Run("a latest release that was tampered with is not compared with", func(t *testing.T) {
		name := filepath.Join(f.Dir, d.Name, "latest", "Standard_Test_1-20261122-031507.packages")
		require.NoError(t, os.WriteFile(name, []byte("evil 1 all\n"), 0o644))
		j := beginRun(t, f, d)
		stageDone(t, j, StageBuild)
		stageDone(t, j, StageInspect)
		require.False(t, j.journal.unchanged())
		require.Empty(t, j.journal.stage(StageInspect).Previous)
	})
}

func TestSealedReleaseIsPublishedByTheNextRun(t *testing.T) {
	f, d := newFactory(t)
	_, dir := sealed(t, f, d) // and killed here
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	got := report.Images[0]
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, "20261122-031507", got.Build)
	require.Equal(t, "Standard_Test_1/20261122-031507", got.Release)
	require.NotEmpty(t, got.Artifacts)
	require.NotContains(t, got.DurationMS, StageBuild)
	require.NoDirExists(t, dir)
	require.NoDirExists(t, filepath.Join(f.Dir, ".work", d.Name, got.Build))
}

func TestCutRunIsTakenUp(t *testing.T) {
	for name, test := range map[string]struct {
		tested bool
		spoil  func(t *testing.T, f *Factory, j *job)
		first  Stage // that is done again; "" for a run of its own
	}{
		"after the build": {first: StageInspect},
		"after the test":  {tested: true, first: StageSeal},
		"image changed": {tested: true, first: StageBuild, spoil: func(t *testing.T, _ *Factory, j *job) {
			require.NoError(t, os.Truncate(j.file(".qcow2"), 1<<20))
		}},
		"report gone": {tested: true, first: StageTest, spoil: func(t *testing.T, _ *Factory, j *job) {
			require.NoError(t, os.Remove(j.file(".test.xml")))
		}},
		"journal damaged": {spoil: func(t *testing.T, _ *Factory, j *job) {
			require.NoError(t, os.Truncate(j.journalFile(j.build), 20))
		}},
		"definition changed": {spoil: func(_ *testing.T, _ *Factory, j *job) { j.def.NTPServers = []string{"other"} }},
		"too old": {spoil: func(_ *testing.T, f *Factory, _ *job) {
			then := f.Now()
			f.Now = func() time.Time { return then.Add(takeUpWithin + time.Hour) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := newFactory(t)
			var begun []Stage
			f.Progress = func(e Event) {
				if !e.Done {
					begun = append(begun, e.Stage)
				}
			}
			f.Sandbox = boxFunc(func(context.Context, sandbox.Image) (*sandbox.Machine, error) { return nil, io.ErrNoProgress })
			j := beginRun(t, f, d)
			stageDone(t, j, StageBuild)
			if test.tested {
				stageDone(t, j, StageInspect)
				fakeTest(t, j)
			}
			if test.spoil != nil {
				test.spoil(t, f, j)
				d = *j.def
			}
			begun = nil
			report, err := f.Run(t.Context(), []Definition{d})
			require.NoError(t, err)
			got := report.Images[0]
			if test.first == "" {
				require.NotEqual(t, "20261122-031507", got.Build)
				require.Equal(t, StageBuild, begun[0])
				return
			}
			require.Equal(t, "20261122-031507", got.Build)
			require.Equal(t, test.first, begun[0])
			if test.first != StageSeal {
				require.ErrorIs(t, got.Err, io.ErrNoProgress, "it comes to the test")
				return
			}
			require.Equal(t, Published, got.Result, got.Error)
			require.Equal(t, "Standard_Test_1/20261122-031507", got.Release)
			left, err := filepath.Glob(filepath.Join(f.Dir, ".work", d.Name, "*"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestFailedRunIsNotTakenUp(t *testing.T) {
	f, d := newFactory(t)
	d.DiskBytes = 32 * MiB // the image has 16 MiB: it fails in inspect
	for _, build := range []string{"20261122-031507", "20261122-031508"} {
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.Equal(t, StageInspect, report.Images[0].Stage)
		require.Equal(t, build, report.Images[0].Build)
	}
}

func TestSealedReleaseOfAnotherDefinitionIsDiscarded(t *testing.T) {
	f, d := newFactory(t)
	_, dir := sealed(t, f, d)
	d = withPackages(d) // also another definition
	c := d.Builder.Config.(cannedConfig)
	c.Fail = "no build today"
	d.Builder.Config = c
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, Failed, report.Images[0].Result)
	require.Equal(t, StageBuild, report.Images[0].Stage)
	require.NoDirExists(t, dir)
	require.NoDirExists(t, filepath.Join(f.Dir, d.Name))
}

func TestImageThatChangesAfterTheTestIsNotSealed(t *testing.T) {
	f, d := newFactory(t)
	j := beginRun(t, f, d)
	stageDone(t, j, StageBuild)
	stageDone(t, j, StageInspect)
	fakeTest(t, j)
	require.NoError(t, os.Truncate(j.file(".qcow2"), 1<<20))
	require.ErrorIs(t, j.do(t.Context(), Task{Stage: StageSeal}), ErrWaits, "it is built again")
	require.False(t, j.journal.done(StageBuild))

	f, d = newFactory(t)
	j = beginRun(t, f, d)
	stageDone(t, j, StageBuild)
	stageDone(t, j, StageInspect)
	fakeTest(t, j)
	err := j.perform(t.Context(), StageSeal, func(ctx context.Context, r *record) error { // and changes now
		require.NoError(t, os.Truncate(j.file(".qcow2"), 1<<20))
		return j.runSeal(ctx, r)
	})
	require.ErrorContains(t, err, "changed after it was inspected")
}

func TestInspectRefuses(t *testing.T) {
	f, d := newFactory(t)
	dir := t.TempDir()
	backed := filepath.Join(dir, "backed.qcow2")
	base := d.Builder.Config.(cannedConfig).Image
	require.NoError(t, exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, backed).Run())
	raw := filepath.Join(dir, "raw.qcow2")
	require.NoError(t, os.WriteFile(raw, make([]byte, 1<<20), 0o644))
	for name, test := range map[string]struct {
		image string
		disk  Size
		want  string
	}{
		"backing file": {backed, 16 * MiB, "backing_file"},
		"not qcow2":    {raw, 16 * MiB, "not a qcow2 image"},
		"another size": {base, 32 * MiB, "the disk has 16MiB, the definition says 32MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			d := d
			d.DiskBytes = test.disk
			d.Builder.Config = cannedConfig{Image: test.image, Packages: []string{"a 1 all"}}
			report, err := f.Run(t.Context(), []Definition{d})
			require.NoError(t, err)
			require.Equal(t, StageInspect, report.Images[0].Stage)
			require.Contains(t, report.Images[0].Error, test.want)
			require.NoDirExists(t, filepath.Join(f.Dir, d.Name))
		})
	}
}

func TestGuestThatCannotBoot(t *testing.T) {
	needs.Tools(t, "qemu-system-x86_64")
	f, d := newFactory(t)
	f.Sandbox = sandbox.QEMU{Accel: "tcg"}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	got := report.Images[0]
	require.Equal(t, StageTest, got.Stage)
	var guest *sandbox.GuestError
	require.ErrorAs(t, got.Err, &guest)
	require.Equal(t, sandbox.NotBootable, guest.Reason)
	require.NoDirExists(t, filepath.Join(f.Dir, d.Name))
	require.Contains(t, got.Artifacts, ".work/Standard_Test_1/20261122-031507/console.log")
}

func TestInterruptionLeavesNothingPublished(t *testing.T) {
	needs.Tools(t, "qemu-system-x86_64")
	for _, stage := range []Stage{StageBuild, StageInspect, StageTest} {
		t.Run(string(stage), func(t *testing.T) {
			f, d := newFactory(t)
			f.Sandbox = sandbox.QEMU{Accel: "tcg"}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f.Progress = func(e Event) {
				if e.Stage == stage && !e.Done {
					time.AfterFunc(50*time.Millisecond, cancel)
				}
			}
			other := d
			other.Name = "Standard_Test_2"
			report, err := f.Run(ctx, []Definition{d, other})
			require.NoError(t, err)
			for _, image := range report.Images {
				require.Equal(t, Failed, image.Result)
				require.ErrorIs(t, image.Err, context.Canceled)
				require.Contains(t, image.Error, "interrupted")
				require.NotEmpty(t, image.Stage)
				require.NoDirExists(t, filepath.Join(f.Dir, image.Name))
			}
		})
	}
}

func TestOneFailureStopsNoOther(t *testing.T) {
	f, d := newFactory(t)
	j, _ := sealed(t, f, d)
	stageDone(t, j, StagePublish)
	bad := d
	bad.Name = "Standard_Test_2"
	bad.Builder.Config = cannedConfig{Fail: "no space left on device"}
	f.Jobs = 2
	report, err := f.Run(t.Context(), []Definition{bad, d})
	require.NoError(t, err)
	require.Equal(t, Failed, report.Images[0].Result)
	require.Equal(t, Unchanged, report.Images[1].Result)
	require.False(t, report.OK())
	var text bytes.Buffer
	require.NoError(t, report.WriteText(&text))
	require.Contains(t, text.String(), "Standard_Test_2: failed in build: no space left on device")
}

func TestFullDisk(t *testing.T) {
	needs.Root(t)
	f, d := newFactory(t)
	f.Dir = t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", f.Dir, "tmpfs", 0, "size=256k"))
	defer func() { require.NoError(t, syscall.Unmount(f.Dir, 0)) }()
	big := filepath.Join(t.TempDir(), "big.qcow2")
	require.NoError(t, os.WriteFile(big, make([]byte, 1<<20), 0o644))
	d.Builder.Config = cannedConfig{Image: big, Packages: []string{"a 1 all"}}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, StageBuild, report.Images[0].Stage)
	require.ErrorIs(t, report.Images[0].Err, syscall.ENOSPC)
	require.NoDirExists(t, filepath.Join(f.Dir, d.Name))
}

func TestTwoRunsDoNotWorkOnOneImage(t *testing.T) {
	f, d := newFactory(t)
	j := beginRun(t, f, d)
	unlock, err := j.lock()
	require.NoError(t, err)
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Contains(t, report.Images[0].Error, "another run works on this image")
	unlock()
	unlock, err = j.lock()
	require.NoError(t, err)
	unlock()
}

func TestConfigArchiveIsReproducible(t *testing.T) {
	var archives [2][]byte
	f, d := newFactory(t)
	for i := range archives {
		f.Dir = t.TempDir()
		j := beginRun(t, f, d)
		stageDone(t, j, StageBuild)
		var err error
		archives[i], err = os.ReadFile(j.file(".config.tar.gz"))
		require.NoError(t, err)
	}
	require.Equal(t, archives[0], archives[1])

	z, err := gzip.NewReader(bytes.NewReader(archives[0]))
	require.NoError(t, err)
	r := tar.NewReader(z)
	var list []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		require.True(t, h.ModTime.Unix() == 0, h.ModTime)
		list = append(list, fmt.Sprintf("%o %s", h.Mode, h.Name))
		if h.Name == "nightly.yaml" {
			data, err := io.ReadAll(r)
			require.NoError(t, err)
			got, err := parse(h.Name, "/x", data)
			require.NoError(t, err, string(data))
			require.Equal(t, d.Name, got[0].Name)
		}
	}
	require.Equal(t, []string{"644 README", "644 nightly.yaml", "755 elements/hook", "644 keyring.gpg"}, list)
}

func TestOpenKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "signing.key")
	key, made, err := OpenKey(file)
	require.NoError(t, err)
	require.True(t, made)
	st, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	again, made, err := OpenKey(file)
	require.NoError(t, err)
	require.False(t, made)
	require.Equal(t, key.Fingerprint(), again.Fingerprint())
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	_, _, err = OpenKey(file)
	require.Error(t, err)
}

func inspectNow(t *testing.T, j *job) error {
	_, err := j.inspect(t.Context())
	return err
}

// TestInspectCrossChecks reads the image with another reader too.
func TestInspectCrossChecks(t *testing.T) {
	f, d := newFactory(t)
	f.CrossCheck = qcow2reader.CrossCheck
	j := beginRun(t, f, d)
	stageDone(t, j, StageBuild)
	require.NoError(t, inspectNow(t, j))
	f.CrossCheck = func(_ context.Context, _ io.ReaderAt, size int64) error { return fmt.Errorf("other bytes in %d", size) }
	require.ErrorContains(t, inspectNow(t, j), "other bytes in")
	f.CrossCheck = func(context.Context, io.ReaderAt, int64) error { panic("no reader") }
	require.EqualError(t, inspectNow(t, j), "CrossCheck panicked: no reader")
}

// TestInspectRefusesAnImageInTheDisk builds a disk that begins as an image.
func TestInspectRefusesAnImageInTheDisk(t *testing.T) {
	f, d := newFactory(t)
	c := d.Builder.Config.(cannedConfig)
	inner, err := os.ReadFile(c.Image)
	require.NoError(t, err)
	header := filepath.Join(t.TempDir(), "header")
	require.NoError(t, os.WriteFile(header, inner[:512], 0o600))
	require.NoError(t, exec.Command("qemu-io", "-f", "qcow2", "-c", "write -s "+header+" 0 512", c.Image).Run())
	j := beginRun(t, f, d)
	stageDone(t, j, StageBuild)
	require.ErrorContains(t, inspectNow(t, j), "content_format")
}
