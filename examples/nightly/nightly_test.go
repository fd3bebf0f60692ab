package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/spoil"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

const image = "Standard_Debian_12"

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	require.NoError(t, os.WriteFile(bad, []byte("images:\n  - name: Standard_X_1\n    disk: 4\n"), 0o644))
	mistaken := filepath.Join(dir, "mistaken.yaml")
	require.NoError(t, os.WriteFile(mistaken, []byte("images:\n  - name: Standard_X_1\n    os: {distribution: debian, version: \"12\", codename: bookworm}\n    disk: 4GiB\n    builder: {dib: {elementz: []}}\n"), 0o644))
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nothing":         {nil, "want -config FILE -out DIR"},
		"unknown flag":    {[]string{"-x"}, "flag provided but not defined"},
		"more arguments":  {[]string{"-config", "nightly.yaml", "-out", dir, "more"}, "no other arguments"},
		"no such file":    {[]string{"-config", filepath.Join(dir, "no.yaml"), "-out", dir}, "no.yaml: "},
		"mistake":         {[]string{"-config", bad, "-out", dir}, bad + `:3:11: bad size "4"`},
		"unknown name":    {[]string{"-config", "nightly.yaml", "-out", dir, "-only", image + ",No"}, `no image is called "No"`},
		"no driver's key": {[]string{"-config", mistaken, "-out", dir, "-key", filepath.Join(t.TempDir(), "k")}, mistaken + ":5:"},
		"bad pattern":     {[]string{"-config", "nightly.yaml", "-out", dir, "-only", "Standard_["}, `bad pattern "Standard_["`},
		"no such stage":   {[]string{"-config", "nightly.yaml", "-out", dir, "-until", "tests"}, `no stage "tests": want one of [build inspect test seal publish]`},
		"from and fresh":  {[]string{"-config", "nightly.yaml", "-out", dir, "-from", "test", "-fresh"}, "-from not with -fresh"},
		"task and until":  {[]string{"-config", "nightly.yaml", "-out", dir, "-until", "test", "-task", image + "/build"}, "-task goes with none of"},
		"no task":         {[]string{"-config", "nightly.yaml", "-out", dir, "-key", filepath.Join(t.TempDir(), "k"), "-mirror", "http://mirror.example.org/debian", "-task", image}, "want IMAGE/STAGE"},
		"key inside":      {[]string{"-config", "nightly.yaml", "-out", dir, "-key", filepath.Join(dir, "sub", "k")}, "must not lie in the download directory"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			require.Equal(t, 2, run(t.Context(), test.args, io.Discard, &stderr))
			require.Contains(t, stderr.String(), test.want)
		})
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2, "bad usage makes nothing")
}

func TestOnly(t *testing.T) {
	var all []imagefactory.Definition
	for _, name := range []string{"Standard_Debian_12", "Standard_Ubuntu_24.04", "Enterprise_RHEL_9"} {
		all = append(all, imagefactory.Definition{Name: name})
	}
	for patterns, want := range map[string]string{
		"": "Standard_Debian_12 Standard_Ubuntu_24.04 Enterprise_RHEL_9", "Standard_*": "Standard_Debian_12 Standard_Ubuntu_24.04",
		"*_9,Standard_Debian_12": "Standard_Debian_12 Enterprise_RHEL_9", "*_[0-9],*RHEL*": "Enterprise_RHEL_9",
	} {
		chosen, err := choose(all, patterns)
		require.NoError(t, err)
		var names []string
		for _, d := range chosen {
			names = append(names, d.Name)
		}
		require.Equal(t, want, strings.Join(names, " "), patterns)
	}
}

// failing is a builder driver that fails until it is told to work.
type failing struct{ works *bool }

func (failing) Name() string { return "failing" }

func (f failing) New(decode func(any) error) (builder.Builder, error) {
	return f, decode(&struct{}{})
}

func (f failing) Build(_ context.Context, _ builder.Host, s builder.Spec) (*builder.Result, error) {
	if !*f.works {
		return nil, io.ErrNoProgress
	}
	r := &builder.Result{ImagePath: filepath.Join(s.OutputDir, "disk.qcow2"), ConfigDir: filepath.Join(s.OutputDir, "config"), Tool: "failing", ToolVersion: "1"}
	return r, errors.Join(sandboxtest.WriteImage(r.ImagePath, 4<<30), os.Mkdir(r.ConfigDir, 0o755))
}

// TestTaskExitCodes does single stages, as another scheduler has them done.
func TestTaskExitCodes(t *testing.T) {
	dir := t.TempDir()
	key, _, err := imagefactory.OpenKey(filepath.Join(t.TempDir(), "key"))
	require.NoError(t, err)
	works := false
	factory := &imagefactory.Factory{
		Dir: dir, Key: key, AnyClass: true, Sandbox: sandboxtest.Sandbox{},
		Builders: []imagefactory.BuilderDriver{failing{&works}}, Targets: []imagefactory.TargetDriver{directory.Driver{Dir: dir}},
	}
	const mirror = "http://debmirror.otc-service.com/"
	definitions := []imagefactory.Definition{{
		Name: "mine", OS: imagefactory.OS{Distribution: "own", Version: "1"}, DiskBytes: 4 << 30, Builder: imagefactory.Component{Driver: "failing"},
		Repositories: []imagefactory.Repository{{Name: "a", URL: mirror + "debian"}, {Name: "b", URL: mirror + "debian-security"}},
		UVPMonitor:   imagefactory.UVPMonitor{State: testsuite.UVPOptional, Reason: "none"},
	}}
	for _, step := range []struct {
		task  string
		code  int
		works bool
	}{
		{"mine/inspect", exitWaits, true}, {"other/build", 2, true}, {"mine/paint", 2, true}, {"mine/build", 1, false}, {"mine/inspect", exitWaits, true},
		{"mine/build", 0, true}, {"mine/build", exitNothing, true}, {"mine/test", exitWaits, true}, {"mine/inspect", 0, true}, {"mine/test", 0, true},
		{"mine/publish", exitWaits, true}, {"mine/seal", 0, true}, {"mine/publish", 0, true}, {"mine/publish", exitWaits, true},
	} {
		works = step.works
		var stdout, stderr bytes.Buffer
		require.Equal(t, step.code, doTask(t.Context(), factory, definitions, step.task, &stdout, &stderr), "%s: %s%s", step.task, &stdout, &stderr)
	}
	require.FileExists(t, filepath.Join(dir, "mine", "latest"))
}

// TestMainJob is the whole chain on the real image: real disk-image-create,
// QEMU, sshd, gpg. It takes a quarter of an hour without KVM.
func TestMainJob(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and boots real images")
	}
	needs.Tools(t, "disk-image-create", "debootstrap", "qemu-img", "qemu-system-x86_64", "gpg", "sha256sum")
	needs.Root(t)
	if _, err := builder.AptMirrors(os.DirFS("/")); err != nil {
		needs.Missing(t, err.Error())
	}
	n := &nightly{signal: os.Interrupt, out: t.TempDir(), key: filepath.Join(t.TempDir(), "signing.key"), bin: filepath.Join(t.TempDir(), "nightly")}
	output, err := exec.Command("go", "build", "-o", n.bin, ".").CombinedOutput()
	require.NoError(t, err, string(output))

	t.Run("interrupted while it builds", func(t *testing.T) {
		require.Equal(t, 1, n.run(t, "msg=\"build phase\""))
		got := n.report(t)
		require.Equal(t, imagefactory.StageBuild, got.Stage)
		require.Contains(t, got.Error, "interrupted")
		require.NoDirExists(t, filepath.Join(n.out, image))
		n.nothingLeft(t)
	})
	t.Run("killed while it builds", func(t *testing.T) {
		n.signal = syscall.SIGKILL
		require.Equal(t, -1, n.run(t, "phase=root.d/75-debian-minimal-baseinstall"))
		n.signal = os.Interrupt // and the next run cleans up
	})
	if !t.Run("first release", func(t *testing.T) {
		require.Equal(t, 0, n.run(t, ""))
		got := n.report(t)
		require.Equal(t, imagefactory.Published, got.Result, got.Error)
		require.GreaterOrEqual(t, got.Checks.Pass, 25)
		require.Zero(t, got.Checks.Fail+got.Checks.Error)
		require.Equal(t, image+"/"+got.Build, got.Release)
		n.complete(t, got)
		n.nothingLeft(t)
	}) {
		return
	}
	first := n.report(t).Build

	var cut string
	// Each has its own copy and guests, so they run beside each other.
	t.Run("released image", func(t *testing.T) {
		for name, part := range map[string]func(*testing.T){
			"a spoiled copy is not published":     func(t *testing.T) { n.spoiled(t, first) },
			"every file is accounted for":         func(t *testing.T) { n.accounted(t, first, "TestFilesOfImage") },
			"what a boot writes is accounted for": func(t *testing.T) { n.accounted(t, first, "TestBootOfImage") },
			"it stays in the sandbox":             func(t *testing.T) { n.isolated(t, first) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				part(t)
			})
		}
	})
	t.Run("unchanged", func(t *testing.T) {
		require.Equal(t, 0, n.run(t, ""))
		got := n.report(t)
		require.Equal(t, imagefactory.Unchanged, got.Result, got.Error)
		require.Equal(t, image+"/"+first, got.Release)
		n.nothingLeft(t)
	})
	t.Run("interrupted while it tests", func(t *testing.T) {
		require.Equal(t, 1, n.run(t, "msg=\"guest showed its host key\"", "-force"))
		got := n.report(t)
		require.Equal(t, imagefactory.StageTest, got.Stage)
		require.Contains(t, got.Error, "interrupted")
		require.Equal(t, image+"/"+first, got.Release)
		n.nothingLeft(t)
		cut = got.Build
		console, err := os.ReadFile(filepath.Join(n.out, ".work", image, cut, "console.log"))
		require.NoError(t, err)
		if bytes.Contains(console, []byte("Login hint")) { // it may be cut before it
			require.Regexp(t, `Login hint: .*password \[redacted\]`, string(console))
		}
	})
	t.Run("second release, of the build that was cut", func(t *testing.T) {
		require.Equal(t, 0, n.run(t, "", "-force"))
		got := n.report(t)
		require.Equal(t, imagefactory.Published, got.Result, got.Error)
		require.NotEqual(t, first, got.Build)
		require.Equal(t, cut, got.Build)
		require.NotContains(t, got.DurationMS, imagefactory.StageBuild)
		n.complete(t, got)
		for label, want := range map[string]string{"latest": got.Build, "prev": first} {
			target, err := os.Readlink(filepath.Join(n.out, image, label))
			require.NoError(t, err)
			require.Equal(t, want, target)
		}
		changes, err := os.ReadFile(filepath.Join(n.out, image, got.Build, image+"-"+got.Build+".changes"))
		require.NoError(t, err)
		require.NotRegexp(t, `(?m)^[-+][a-z0-9]`, string(changes), "the same packages")
		for line := range strings.Lines(string(changes)) { // such as the initial RAM disk
			require.Regexp(t, `^[-+*]["/]`, line)
		}
		n.nothingLeft(t)
	})
}

// nightly is the built program with its directories.
type nightly struct {
	bin, out, key string
	signal        os.Signal // what interrupts it
}

// run runs the program and interrupts it when a line of its log has the text.
func (n *nightly) run(t *testing.T, interruptAt string, args ...string) int {
	t.Helper()
	cmd := exec.Command(n.bin, append([]string{"-config", "nightly.yaml", "-out", n.out, "-key", n.key}, args...)...)
	cmd.Stdout = os.Stdout
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if !strings.Contains(lines.Text(), "build phase") {
			t.Log(lines.Text())
		}
		if interruptAt != "" && strings.Contains(lines.Text(), interruptAt) {
			require.NoError(t, cmd.Process.Signal(n.signal))
			interruptAt = ""
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

func (n *nightly) report(t *testing.T) imagefactory.ImageReport {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(n.out, "report.json"))
	require.NoError(t, err)
	var r imagefactory.Report
	require.NoError(t, json.Unmarshal(data, &r))
	require.Len(t, r.Images, 1)
	return r.Images[0]
}

// complete holds a release to what users do with it: gpg and sha256sum.
func (n *nightly) complete(t *testing.T, r imagefactory.ImageReport) {
	t.Helper()
	dir := filepath.Join(n.out, r.Release)
	base := image + "-" + r.Build
	for _, name := range []string{
		base + ".qcow2", base + ".qcow2.asc", base + ".config.tar.gz", base + ".config.tar.gz.asc", base + ".packages",
		base + ".changes", base + ".build.log", base + ".test.json", base + ".test.xml", base + ".test.log", base + ".facts.json.gz", base + ".files.gz",
		base + ".cdx.json", base + ".sources",
		base + ".provenance.json", "SHA256SUMS", "SHA256SUMS.asc", "release.json",
	} {
		require.Contains(t, r.Artifacts, r.Release+"/"+name)
		require.FileExists(t, filepath.Join(n.out, r.Release, name))
	}
	home := t.TempDir()
	require.NoError(t, os.Chmod(home, 0o700))
	gpg := func(args ...string) {
		out, err := exec.Command("gpg", append([]string{"--homedir", home, "--batch"}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	gpg("--import", filepath.Join(n.out, "imagefactory.pub"))
	for _, name := range []string{base + ".qcow2", base + ".config.tar.gz", "SHA256SUMS"} {
		gpg("--verify", filepath.Join(dir, name+".asc"), filepath.Join(dir, name))
	}
	sums := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	sums.Dir = dir
	out, err := sums.CombinedOutput()
	require.NoError(t, err, string(out))

	// The archive of the configuration is one that the program takes.
	rebuild := t.TempDir()
	out, err = exec.Command("tar", "-C", rebuild, "-xzf", filepath.Join(dir, base+".config.tar.gz")).CombinedOutput()
	require.NoError(t, err, string(out))
	definitions, err := imagefactory.LoadFile(filepath.Join(rebuild, "nightly.yaml"))
	require.NoError(t, err)
	require.Equal(t, image, definitions[0].Name)
	require.FileExists(t, filepath.Join(rebuild, definitions[0].TrustedKeys[0].File))
	require.DirExists(t, filepath.Join(rebuild, "elements", "0", "otc-base"))

	packages, err := os.ReadFile(filepath.Join(dir, base+".packages"))
	require.NoError(t, err)
	require.Regexp(t, `(?m)^openssh-server \S+ amd64$`, string(packages))
	st, err := os.Stat(n.key)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), st.Mode().Perm())
}

// nothingLeft checks that no process, mount or loop device of a run is left.
func (n *nightly) nothingLeft(t *testing.T) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), n.out)
	loops, err := exec.Command("losetup", "--list", "--noheadings", "--output", "BACK-FILE").Output()
	require.NoError(t, err)
	require.NotContains(t, string(loops), n.out)
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, name := range commands {
		data, _ := os.ReadFile(name) // processes come and go
		require.NotContains(t, string(data), n.out, name)
	}
	work, err := filepath.Glob(filepath.Join(n.out, ".work", image, "build"))
	require.NoError(t, err)
	require.Empty(t, work)
}

// spoiled runs the factory on a bad copy of the released image.
func (n *nightly) spoiled(t *testing.T, release string) {
	// Compacted, so that what is booted here is what qcow2.Compact writes.
	bad := compact(t, spoil.Image(t, filepath.Join(n.out, image, release, image+"-"+release+".qcow2")))
	definitions, err := imagefactory.LoadFile("nightly.yaml")
	require.NoError(t, err)
	definitions[0].Builder = imagefactory.Component{Driver: "copy", Config: map[string]any{}}
	key, made, err := imagefactory.OpenKey(n.key)
	require.NoError(t, err)
	require.False(t, made)
	out := t.TempDir()
	factory := &imagefactory.Factory{
		Dir: out, Key: key,
		Builders: []imagefactory.BuilderDriver{copier{bad}}, Targets: []imagefactory.TargetDriver{directory.Driver{Dir: out}},
	}
	report, err := factory.Run(t.Context(), definitions)
	require.NoError(t, err)
	got := report.Images[0]
	require.Equal(t, imagefactory.StageTest, got.Stage, got.Error)
	var failed *imagefactory.TestError
	require.ErrorAs(t, got.Err, &failed)
	var ids []string
	for _, c := range failed.Report.Bad() {
		require.Equal(t, testsuite.Fail, c.Status, c.ID)
		require.Contains(t, got.Error, c.ID)
		ids = append(ids, c.ID)
	}
	require.ElementsMatch(t, spoil.Checks(), ids)
	require.NoDirExists(t, filepath.Join(out, image))
}

// isolated runs the sandbox's own test on the released image: that the guest
// reaches neither the host nor the network, and that the image is not changed.
// Without an image that test is skipped where it stands.
func (n *nightly) isolated(t *testing.T, release string) {
	cmd := exec.Command("go", "test", "-count=1", "-v", "-timeout", "30m", "-run", "^TestBootImage$", "../../testsuite/sandbox")
	cmd.Env = append(os.Environ(), "IMAGEFACTORY_TEST_IMAGE="+filepath.Join(n.out, image, release, image+"-"+release+".qcow2"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: TestBootImage")
}

// accounted runs one of the ledger's own tests on the released image: that it names
// every way in which the disk or the first boot is spoiled, and nothing else. Without
// an image that test is skipped where it stands.
func (n *nightly) accounted(t *testing.T, release, test string) {
	cmd := exec.Command("go", "test", "-count=1", "-v", "-timeout", "30m", "-run", "^"+test+"$", "../../imagefactory")
	cmd.Env = append(os.Environ(), "IMAGEFACTORY_TEST_DIR="+n.out,
		"IMAGEFACTORY_TEST_IMAGE="+filepath.Join(n.out, image, release, image+"-"+release+".qcow2"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: "+test)
}

func compact(t *testing.T, name string) string {
	t.Helper()
	src, err := os.Open(name)
	require.NoError(t, err)
	defer src.Close()
	st, err := src.Stat()
	require.NoError(t, err)
	disk, err := qcow2.Open(src, st.Size(), qcow2.OpenOptions{})
	require.NoError(t, err)
	defer disk.Close()
	dst, err := os.Create(filepath.Join(t.TempDir(), "compact.qcow2"))
	require.NoError(t, err)
	_, err = qcow2.Compact(t.Context(), dst, disk, qcow2.CompactOptions{Compression: qcow2.Zstd})
	require.NoError(t, err)
	require.NoError(t, dst.Close())
	for _, args := range [][]string{{"check", "-q", dst.Name()}, {"compare", "-q", name, dst.Name()}} {
		out, err := exec.Command("qemu-img", args...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return dst.Name()
}

// copier is a builder driver that hands out one image.
type copier struct{ image string }

func (copier) Name() string { return "copy" }

func (c copier) New(func(any) error) (builder.Builder, error) { return c, nil }

func (c copier) Build(_ context.Context, _ builder.Host, s builder.Spec) (*builder.Result, error) {
	r := &builder.Result{ImagePath: filepath.Join(s.OutputDir, "copy.qcow2"), ConfigDir: filepath.Join(s.OutputDir, "config"), Tool: "copy", ToolVersion: "1"}
	if err := os.Mkdir(r.ConfigDir, 0o755); err != nil {
		return nil, err
	}
	// Linked where it can be, the image is large.
	if err := os.Link(c.image, r.ImagePath); err == nil || !errors.Is(err, syscall.EXDEV) {
		return r, err
	}
	data, err := os.ReadFile(c.image)
	if err != nil {
		return nil, err
	}
	return r, os.WriteFile(r.ImagePath, data, 0o644)
}

// TestTerminate signals this process, which takes the first gracefully.
func TestTerminate(t *testing.T) {
	terminate := func() { require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM)) }
	ctx, stopping, done := onTerminate(t.Context(), time.Hour)
	defer done()
	terminate()
	<-stopping
	require.NoError(t, ctx.Err())
	terminate()
	<-ctx.Done()
	require.ErrorContains(t, context.Cause(ctx), "terminated")

	ctx, stopping, done = onTerminate(t.Context(), time.Millisecond)
	defer done()
	terminate()
	<-stopping
	<-ctx.Done()
	require.ErrorContains(t, context.Cause(ctx), "terminated, and 1ms are over")
}
