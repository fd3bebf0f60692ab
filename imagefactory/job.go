package imagefactory

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// The factory's own names below Factory.Dir.
const (
	publicKeyName = "imagefactory.pub"

	workName    = ".work"
	releaseName = ".release" // below workName; no image is called so
	cacheName   = ".cache"   // likewise
)

// job is one image's way through the factory.
type job struct {
	factory  *Factory
	def      *Definition
	name     string
	builder  builder.Builder
	host     builder.Host // where it builds
	targets  []target
	suite    *testsuite.Suite
	mirrors  map[string]string
	fault    error  // of a driver when it was made
	dir      string // Factory.Dir, absolute
	keyring  *signing.Keyring
	signer   *signing.Signer
	log      *slog.Logger
	progress func(Event) error

	report ImageReport
	build  publish.BuildID
	runDir string // .work/NAME/BUILD

	// What the stages hand on.
	built    *builder.Result
	builtAt  time.Time
	image    *signing.FileDigest // of the image that was inspected and tested
	disk     *guestdisk.Disk
	tests    *testsuite.Report
	facts    testsuite.Facts
	digest   string           // of the definition and what it refers to
	previous *publish.Release // nil if there is none that can be trusted
	record   *record          // nil before the build is done
}

// run never fails: what went wrong is in the report.
func (j *job) run(ctx context.Context) ImageReport {
	j.report = ImageReport{Name: j.name, DurationMS: map[Stage]int64{}, Artifacts: []string{}, Notes: j.def.Notes}
	outcome := Failed
	err := contain(j.log, "the run of "+j.name, "", func() (err error) {
		outcome, err = j.all(ctx)
		return err
	})
	if err != nil {
		outcome = Failed
		if ctx.Err() != nil {
			err = interrupted(ctx, err)
		} else if j.record != nil {
			_ = os.Remove(j.recordFile()) // it failed: nothing to take up
		}
		j.report.Err, j.report.Error = err, bounded(err.Error())
		j.report.Artifacts = j.leftovers()
		j.log.Error("image failed", "build", j.report.Build, "stage", j.report.Stage, "error", err)
	}
	j.report.Result = outcome
	if target, err := os.Readlink(filepath.Join(j.dir, j.name, string(publish.Latest))); err == nil && filepath.IsLocal(target) {
		j.report.Release = path.Join(j.name, target)
	}
	return j.report
}

func (j *job) all(ctx context.Context) (Outcome, error) {
	j.report.Stage = StageBuild // what fails before the first stage counts to it
	if err := errors.Join(j.fault, ctx.Err()); err != nil {
		return Failed, err
	}
	unlock, err := j.lock()
	if err != nil {
		return Failed, err
	}
	defer unlock()
	if j.digest, err = j.inputs(); err != nil {
		return Failed, err
	}
	if done, err := j.resume(ctx); done || err != nil {
		return Published, err
	}
	taken, err := j.takeUp(ctx)
	if err != nil {
		return Failed, err
	}
	if !taken {
		if err := j.begin(); err != nil {
			return Failed, err
		}
		if err := j.stage(ctx, StageBuild, j.runBuild); err != nil {
			return Failed, err
		}
	}
	if unchanged, err := j.unchanged(ctx); unchanged || err != nil {
		return Unchanged, err
	}
	var sealed string
	for _, s := range []struct {
		stage Stage
		run   func(context.Context) error
	}{
		{StageInspect, j.runInspect},
		{StageTest, j.runTest},
		{StageSeal, func(ctx context.Context) (err error) { sealed, err = j.runSeal(ctx); return err }},
		{StagePublish, func(ctx context.Context) error { return j.publishSealed(ctx, sealed) }},
	} {
		if err := j.stage(ctx, s.stage, s.run); err != nil {
			return Failed, err
		}
	}
	j.report.Stage = ""
	j.remove(j.runDir)
	return Published, nil
}

// remove removes what is no longer needed; the image is as good without.
func (j *job) remove(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		j.log.Warn("cannot remove what a run has left", "error", err)
	}
}

// stage runs a stage and accounts for it.
func (j *job) stage(ctx context.Context, s Stage, run func(context.Context) error) error {
	j.report.Stage = s
	if err := ctx.Err(); err != nil {
		return err
	}
	begun := time.Now() // a duration, not a date: the injected clock may stand still
	event := Event{Time: j.factory.now(), Image: j.name, Build: j.report.Build, Stage: s}
	if err := j.progress(event); err != nil {
		return err
	}
	j.log.InfoContext(ctx, "stage begins", "build", j.report.Build, "stage", s)
	err := run(ctx)
	event.Time, event.Done, event.Err, event.Duration = j.factory.now(), true, err, time.Since(begun)
	j.report.DurationMS[s] = event.Duration.Milliseconds()
	err = errors.Join(err, j.progress(event))
	if err == nil {
		j.log.InfoContext(ctx, "stage done", "build", j.report.Build, "stage", s, "duration", event.Duration)
	}
	return err
}

// ErrBusy says that another run works on the image, in this process or in
// another one.
var ErrBusy = errors.New("another run works on this image")

// lock keeps other runs off this image. It goes with the process.
func (j *job) lock() (unlock func(), err error) {
	work := j.workDir()
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the work directory: %w", err)
	}
	f, err := os.Open(work)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the work directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("cannot lock %s: %w", work, err)
	}
	return func() { f.Close() }, nil
}

func (j *job) workDir() string { return filepath.Join(j.dir, workName, j.name) }

// sealedDir holds the image's releases that are sealed but not yet published.
func (j *job) sealedDir() string { return filepath.Join(j.dir, workName, releaseName, j.name) }

// resume publishes a release of the same definition that an earlier run sealed
// and could not publish.
func (j *job) resume(ctx context.Context) (done bool, err error) {
	entries, err := os.ReadDir(j.sealedDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for _, e := range slices.Backward(entries) {
		dir := filepath.Join(j.sealedDir(), e.Name())
		r, err := publish.Open(ctx, dir, j.keyring)
		var bad *signing.Error
		switch {
		case ctx.Err() != nil:
			return false, errors.Join(err, ctx.Err())
		case errors.As(err, &bad):
			j.log.WarnContext(ctx, "discarding an unpublished release that does not verify", "build", e.Name(), "error", err)
		case err != nil:
			return false, err
		case done || r.Index.DefinitionSHA256 != j.digest:
			j.log.WarnContext(ctx, "discarding an unpublished release of another definition", "build", e.Name())
		}
		if err != nil || done || r.Index.DefinitionSHA256 != j.digest {
			if err := os.RemoveAll(dir); err != nil {
				return false, err
			}
			continue
		}
		j.report.Build = e.Name()
		j.report.Checks = testsuite.Summary(r.Index.Tests)
		j.log.InfoContext(ctx, "publishing a release that an earlier run sealed", "build", e.Name())
		err = j.stage(ctx, StagePublish, func(ctx context.Context) error { return j.publishSealed(ctx, dir) })
		old := j.factory.now().Sub(r.Index.Build.Time()) > takeUpWithin
		if ctx.Err() == nil && (errors.Is(err, publish.ErrOlder) || err != nil && old) {
			// A newer one is out, or a target fails for so long that a newer
			// build is worth more.
			j.log.WarnContext(ctx, "discarding a release that cannot be published", "build", e.Name(), "error", err)
			j.remove(dir)
			j.remove(filepath.Join(j.workDir(), e.Name()))
			j.report = ImageReport{Name: j.name, Stage: StageBuild, DurationMS: map[Stage]int64{}, Artifacts: []string{}, Notes: j.report.Notes}
			continue
		}
		if err != nil {
			return false, err
		}
		done = true
	}
	if done {
		j.report.Stage = ""
		j.remove(filepath.Join(j.workDir(), j.report.Build))
	}
	return done, nil
}

// begin makes the run's directory and removes what earlier runs left that
// nobody needs any more: images, and all but the newest reports.
func (j *job) begin() error {
	const keep = 10
	old, err := j.runs()
	if err != nil {
		return err
	}
	for i, dir := range old {
		if i < len(old)-keep {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		if err := removeLarge(dir); err != nil {
			return err
		}
	}
	// A build ID has the precision of a second; two runs may share one.
	for t := j.factory.now(); ; t = t.Add(time.Second) {
		j.build = publish.NewBuildID(t)
		j.runDir = filepath.Join(j.workDir(), j.build.String())
		if _, err := os.Lstat(filepath.Join(j.dir, j.name, j.build.String())); err == nil {
			continue
		}
		err := os.Mkdir(j.runDir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot make the run's directory: %w", err)
		}
		j.report.Build = j.build.String()
		return nil
	}
}

// removeLarge removes from a failed run's directory all but what says why.
func removeLarge(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() || strings.HasSuffix(name, ".qcow2") {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// runs are the directories of this image's runs, the oldest first.
func (j *job) runs() ([]string, error) {
	entries, err := os.ReadDir(j.workDir())
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if _, err := publish.ParseBuildID(e.Name()); err == nil && e.IsDir() {
			dirs = append(dirs, filepath.Join(j.workDir(), e.Name()))
		}
	}
	return dirs, nil
}

// file is the path in the run's directory of the release's file with a suffix.
func (j *job) file(suffix string) string {
	return filepath.Join(j.runDir, j.name+"-"+j.build.String()+suffix)
}

// outName is the directory in the run's that the builder writes into. Nothing
// of the factory's is there, and what a builder returns must be.
const outName = "out"

func (j *job) runBuild(ctx context.Context) (err error) {
	log, err := createNew(j.file(".build.log"))
	if err != nil {
		return fmt.Errorf("cannot write the build log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	out := filepath.Join(j.runDir, outName)
	if err := os.Mkdir(out, 0o755); err != nil {
		return fmt.Errorf("cannot make the builder's output directory: %w", err)
	}
	spec := j.spec()
	spec.Build = j.build.String()
	spec.WorkDir = j.buildDir()
	spec.OutputDir = out
	spec.Log, spec.Logger = log, j.log
	if err := j.callBuilder(ctx, spec); err != nil {
		return err
	}
	if err := j.takeBuilt(out); err != nil {
		return err
	}
	if err := log.Sync(); err != nil {
		return fmt.Errorf("cannot write the build log: %w", err)
	}
	return j.save(ctx, builtFiles)
}

// spec is what the builder is told, in copies that are the builder's to change.
func (j *job) spec() builder.Spec {
	s := j.def.spec(maps.Clone(j.mirrors))
	s.NTPServers = slices.Clone(s.NTPServers)
	for i := range s.TrustedKeys {
		s.TrustedKeys[i].Fingerprints = slices.Clone(s.TrustedKeys[i].Fingerprints)
	}
	for i := range s.Repositories {
		r := &s.Repositories[i]
		r.Suites, r.Components = slices.Clone(r.Suites), slices.Clone(r.Components)
	}
	return s
}

// buildDir is the build's work directory, on a named host one that no other
// factory has.
func (j *job) buildDir() string {
	if j.def.Builder.Host == "" {
		return filepath.Join(j.workDir(), "build")
	}
	machine, _ := os.Hostname() // where it is not known, Dir has to do
	id := sha256.Sum256([]byte(machine + "\x00" + j.dir))
	return path.Join("/var/tmp/imagefactory", hex.EncodeToString(id[:8]), j.name)
}

// callBuilder has the image built and sees that the result is one.
func (j *job) callBuilder(ctx context.Context, spec builder.Spec) error {
	who := "builder " + j.def.Builder.Driver
	var result *builder.Result
	err := contain(j.log, who, "Build", func() (err error) {
		result, err = j.builder.Build(ctx, j.host, spec)
		return err
	})
	if err != nil {
		return err
	}
	if result != nil { // what it keeps a hold of is not what is used
		r := *result
		r.Packages, r.Args, r.Env = slices.Clone(r.Packages), slices.Clone(r.Args), slices.Clone(r.Env)
		result = &r
	}
	if err := result.Validate(spec); err != nil {
		return fmt.Errorf("%s gave a result that cannot be used: %w", who, err)
	}
	j.built = result
	return nil
}

// takeBuilt takes over what the builder has left in its output directory, which
// goes. What it named is reached through the run's directory only, so that a link
// that leads out is not followed, also if it was put there meanwhile.
func (j *job) takeBuilt(out string) error {
	image, err := within(out, j.built.ImagePath)
	if err != nil {
		return err
	}
	config, err := within(out, j.built.ConfigDir)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(j.runDir)
	if err != nil {
		return err
	}
	defer root.Close()
	name := filepath.Base(j.file(".qcow2"))
	if err := root.Rename(filepath.Join(outName, image), name); err != nil {
		return fmt.Errorf("cannot take over the image: %w", err)
	}
	if st, err := root.Lstat(name); err != nil || !st.Mode().IsRegular() {
		return errors.Join(err, errors.New("cannot take over the image: it is not a regular file any more"))
	}
	j.built.ImagePath, j.builtAt = j.file(".qcow2"), j.factory.now()
	if err := j.writePackages(); err != nil {
		return fmt.Errorf("cannot write the package list: %w", err)
	}
	dir, err := root.OpenRoot(filepath.Join(outName, config))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := j.writeConfig(dir); err != nil {
		return fmt.Errorf("cannot write the configuration's archive: %w", err)
	}
	j.built.ConfigDir = ""
	return root.RemoveAll(outName)
}

// within is the path in dir of what builder.Result.Validate has found below it.
func within(dir, path string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	path = filepath.Clean(path)
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Rel(dir, filepath.Join(parent, filepath.Base(path)))
}

// createNew makes a file that is not there yet: what is in its place, such as a
// link, is not followed.
func createNew(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

func (j *job) writePackages() error {
	f, err := createNew(j.file(".packages"))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, p := range j.built.Packages {
		fmt.Fprintln(w, p.Name, p.Version, p.Arch)
	}
	return errors.Join(w.Flush(), f.Close())
}

// unchanged reports whether the image is what the latest release is. Then that
// one is brought to targets that lack it, and the new image goes.
func (j *job) unchanged(ctx context.Context) (bool, error) {
	previous, err := j.predecessor(ctx)
	if previous == nil || err != nil {
		return false, err // the first release
	}
	j.previous = previous
	if j.factory.Force || j.waiverExpired() {
		return false, nil
	}
	if st, err := os.Stat(j.file(".packages")); err != nil || st.Size() == 0 {
		return false, err // nobody knows what is in it
	}
	for _, suffix := range []string{".packages", ".config.tar.gz"} {
		same, err := sameFile(previous, previous.Index.Build, j.name, suffix, j.file(suffix))
		if err != nil || !same {
			return false, err
		}
	}
	j.log.InfoContext(ctx, "unchanged", "release", previous.Index.Build)
	if err := j.publishPrevious(ctx); err != nil {
		j.report.Stage = StagePublish
		return false, err
	}
	j.report.Stage = ""
	j.report.Checks = testsuite.Summary(previous.Index.Tests)
	j.remove(j.runDir)
	return true, nil
}

// waiverExpired reports whether a waiver that may have let the previous release
// through holds no longer: then the same image is tested again.
func (j *job) waiverExpired() bool {
	return slices.ContainsFunc(j.def.Test.Waivers, func(w Waiver) bool {
		return !j.factory.now().Before(w.until())
	})
}

func (j *job) runInspect(ctx context.Context) error {
	f, err := os.Open(j.built.ImagePath)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	info, err := qcow2.Inspect(f, st.Size())
	if err != nil {
		return fmt.Errorf("cannot inspect the image: %w", err)
	}
	policy := qcow2.PublicPolicy()
	policy.MinDiskBytes = int64(j.def.MinDiskBytes)
	var errs []error
	for _, finding := range info.Safety(policy).Findings {
		errs = append(errs, fmt.Errorf("unsafe image: %s: %s", finding.Name, finding.Text))
	}
	if info.VirtualSize != int64(j.def.DiskBytes) {
		errs = append(errs, fmt.Errorf("the disk has %v, the definition says %v", Size(info.VirtualSize), j.def.DiskBytes))
	}
	check, err := qcow2.Check(ctx, f, st.Size())
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("cannot check the image: %w", err))...)
	}
	if check.Corruptions > 0 {
		errs = append(errs, fmt.Errorf("the image has %d corruptions", check.Corruptions))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if cross := j.factory.CrossCheck; cross != nil {
		err := contain(j.log, "CrossCheck", "", func() error { return cross(ctx, f, st.Size()) })
		if err != nil {
			return err
		}
	}
	if j.disk, err = inspectDisk(f, st.Size(), policy); err != nil {
		return fmt.Errorf("cannot inspect the image's disk: %w", err)
	}
	for _, problem := range j.disk.Problems {
		errs = append(errs, fmt.Errorf("the image's disk: %s", problem))
	}
	j.image, err = digestFile(ctx, j.built.ImagePath)
	return errors.Join(append(errs, err)...)
}

// inspectDisk tells what the guest's disk holds. It must not begin as an image:
// written as a raw file it would be one.
func inspectDisk(r io.ReaderAt, size int64, policy qcow2.Policy) (*guestdisk.Disk, error) {
	image, err := qcow2.Open(r, size, qcow2.OpenOptions{})
	if err != nil {
		return nil, err
	}
	defer image.Close()
	safety, err := image.Safety(policy)
	if err != nil {
		return nil, err
	}
	for _, finding := range safety.Findings {
		return nil, fmt.Errorf("unsafe image: %s: %s", finding.Name, finding.Text)
	}
	return guestdisk.Inspect(image, image.Size())
}

func (j *job) runTest(ctx context.Context) error {
	if done, err := j.tested(); done || err != nil {
		return err
	}
	if err := j.test(ctx); err != nil {
		return err
	}
	return j.save(ctx, j.recordedFiles())
}

// test boots the image and holds it to its suite.
func (j *job) test(ctx context.Context) (err error) {
	suite := *j.suite
	suite.Now, suite.Logger, suite.Facts = j.factory.Now, j.log, append(slices.Clone(evidenceFacts), "identity")
	// Before a boot changes anything.
	files, before, err := j.files(ctx)
	if err != nil {
		return err
	}
	others, variant := j.otherMachines(ctx)
	if others != nil {
		defer func() { err = errors.Join(err, others.Close()) }()
	}
	machine, err := j.boot(ctx, variant)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, contain(j.log, "sandbox", "Close", machine.Close)) }()
	suite.Params.Hostname, suite.Params.OverlayBytes = machine.Hostname, machine.DiskBytes
	if suite.Params.Declared, err = declaredText(j.log, j.def.Builder.Driver, j.builder, j.def.spec(j.mirrors)); err != nil {
		return err
	}
	err = contain(j.log, "profile "+suite.Profile.Name, "", func() (err error) {
		if j.facts, err = suite.Gather(ctx, machine.Target); err != nil {
			return err
		}
		if why := j.unaccountable(); why != "" {
			// They compare with what the builder brought beside packages.
			for _, c := range ledger.LiveChecks() {
				j.facts.Facts[c.Needs[0]] = testsuite.Fact{Omitted: why}
			}
		}
		if j.facts.Facts[ledger.BootFactName], err = j.bootFiles(ctx, machine, before); err != nil {
			return err
		}
		j.facts.Facts[ledger.FactName] = files
		j.facts.Facts[boots.FactName] = testsuite.Fact{Omitted: "no check asks for it"}
		if others != nil {
			if j.facts.Facts[boots.FactName], err = others.Fact(ctx, machine, j.facts); err != nil {
				return err
			}
		}
		j.facts.Given = testsuite.Given{Hostname: suite.Params.Hostname, DiskBytes: suite.Params.DiskBytes, OverlayBytes: suite.Params.OverlayBytes}
		j.tests, err = suite.Judge(j.facts)
		return err
	})
	if err != nil {
		return err
	}
	j.report.Checks = j.tests.Summary
	if err := j.writeTests(); err != nil {
		return fmt.Errorf("cannot write the test report: %w", err)
	}
	var failed error
	if !j.tests.OK() {
		failed = &TestError{Report: j.tests}
	}
	return errors.Join(ctx.Err(), failed, j.verifyClaims())
}

func (j *job) sandbox() sandbox.Sandbox {
	if j.factory.Sandbox == nil {
		return sandbox.QEMU{}
	}
	return j.factory.Sandbox
}

func (j *job) bootable() sandbox.Image {
	return sandbox.Image{
		Path: j.built.ImagePath, User: j.def.User, TimeServers: j.def.NTPServers,
		WorkDir: j.runDir, ConsoleLog: filepath.Join(j.runDir, "console.log"), Logger: j.log,
	}
}

// otherMachines starts those that checks ask for, or none, and says how the first one
// is to be made.
func (j *job) otherMachines(ctx context.Context) (*boots.Machines, sandbox.Variant) {
	if !j.asks(boots.FactName) {
		return nil, sandbox.Variant{}
	}
	m := boots.Start(ctx, boots.Config{
		Sandbox: j.sandbox(), Image: j.bootable(), Set: j.factory.Boots, UEFI: j.disk != nil && j.disk.BootUEFI,
	})
	return m, m.First
}

func (j *job) boot(ctx context.Context, variant sandbox.Variant) (*sandbox.Machine, error) {
	image := j.bootable()
	image.Variant = variant
	var machine *sandbox.Machine
	err := contain(j.log, "sandbox", "Boot", func() (err error) {
		machine, err = j.sandbox().Boot(ctx, image)
		if err == nil && machine == nil {
			err = fmt.Errorf("sandbox: Boot %w", errNothing)
		}
		return err
	})
	return machine, err
}

// TestError says that an image failed its checks.
type TestError struct {
	Report *testsuite.Report
}

func (e *TestError) Error() string {
	if e.Report == nil {
		return "the checks did not pass"
	}
	bad := e.Report.Bad()
	if len(bad) == 0 {
		return "no check passed"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d checks did not pass", len(bad), len(e.Report.Checks))
	for _, c := range bad {
		fmt.Fprintf(&b, "; %s (%s): expected %s, found %s", c.ID, c.Status, oneLine(c.Expected), oneLine(c.Found))
		if c.Reason != "" {
			fmt.Fprintf(&b, " (%s)", oneLine(c.Reason))
		}
	}
	return b.String()
}

// bounded cuts a text that is longer than what anybody reads.
func bounded(s string) string {
	const most = 64 << 10
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// oneLine shortens a text from a guest for an error.
func oneLine(s string) string {
	const most = 120
	s = visible.Line(strings.Join(strings.Fields(s), " "))
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// factsSuffix is that of what was seen of the machine, compressed, for
// testsuite.LoadFacts: other checks can judge the image by it later.
const factsSuffix = ".facts.json.gz"

func (j *job) writeFacts(f *os.File) error {
	z := gzip.NewWriter(f)
	return errors.Join(j.facts.Save(z), z.Close())
}

func (j *job) writeTests() error {
	for suffix, write := range map[string]func(*os.File) error{
		".test.json": func(f *os.File) error { return j.tests.WriteJSON(f) },
		".test.xml":  func(f *os.File) error { return j.tests.WriteJUnit(f) },
		".test.log":  func(f *os.File) error { return j.tests.WriteText(f) },
		factsSuffix:  j.writeFacts,
	} {
		_ = os.Remove(j.file(suffix)) // of a run that was cut while it wrote
		f, err := createNew(j.file(suffix))
		if err != nil {
			return err
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// publishSealed publishes a sealed release on all targets and removes it then.
func (j *job) publishSealed(ctx context.Context, dir string) error {
	r, err := publish.Open(ctx, dir, j.keyring)
	if err != nil {
		return err
	}
	if err := j.publishAll(ctx, r); err != nil {
		return err
	}
	for _, f := range r.Files {
		name := path.Join(j.name, r.Index.Build.String(), f.Name)
		if _, err := os.Stat(filepath.Join(j.dir, name)); err == nil {
			j.report.Artifacts = append(j.report.Artifacts, name)
		}
	}
	return os.RemoveAll(dir)
}

// leftovers are the files that a failed run left, below Factory.Dir.
func (j *job) leftovers() []string {
	found := []string{}
	if j.runDir == "" {
		return found
	}
	entries, _ := os.ReadDir(j.runDir)
	for _, e := range entries {
		if e.Type().IsRegular() {
			found = append(found, path.Join(workName, j.name, j.build.String(), e.Name()))
		}
	}
	return found
}

func urlHost(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}
