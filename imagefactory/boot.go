package imagefactory

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// testReport is what a test hands on.
const testReport = ".test.json"

func (j *job) runTest(ctx context.Context, r *record) error {
	for _, suffix := range []string{filesSuffix, inventorySuffix} {
		if err := os.RemoveAll(j.file(suffix)); err != nil { // of an earlier try
			return err
		}
	}
	disk, err := j.disk()
	if err != nil {
		return err
	}
	j.report.Findings = slices.Clone(j.journal.stage(StageInspect).Findings)
	before := len(j.report.Findings)
	err = j.test(ctx, disk)
	r.Findings = j.report.Findings[before:]
	if err != nil {
		return err
	}
	return j.wroteTests(ctx, r)
}

// wroteTests records the files of a test.
func (j *job) wroteTests(ctx context.Context, r *record) error {
	files := []string{testReport, ".test.xml", ".test.log", factsSuffix}
	for _, suffix := range []string{filesSuffix, inventorySuffix} { // where the disk was read
		if _, err := os.Stat(j.file(suffix)); err == nil {
			files = append(files, suffix)
		}
	}
	return j.wrote(ctx, r, files...)
}

// tests is the report of the test that the image has passed.
func (j *job) tests() (*testsuite.Report, error) {
	data, err := os.ReadFile(j.file(testReport))
	if err != nil {
		return nil, err
	}
	var r testsuite.Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("cannot read the test report: %w", err)
	}
	if !r.OK() {
		return nil, errors.New("a test was recorded as done that the image had failed")
	}
	return &r, nil
}

// test boots the image and holds it to its suite.
func (j *job) test(ctx context.Context, disk *guestdisk.Disk) (err error) {
	suite := *j.suite
	suite.Now, suite.Logger, suite.Facts = j.factory.Now, j.log, append(slices.Clone(evidenceFacts), "identity")
	// Before a boot changes anything.
	files, before, err := j.files(ctx)
	if err != nil {
		return err
	}
	others, variant := j.otherMachines(ctx, &suite, disk)
	if others != nil {
		defer func() { err = errors.Join(err, others.Close()) }()
	}
	begun := j.factory.now()
	machine, err := j.boot(ctx, variant)
	if err != nil {
		return err
	}
	bootTime := j.factory.now().Sub(begun)
	defer func() { err = errors.Join(err, contain(j.log, "sandbox", "Close", machine.Close)) }()
	if err := j.rebootExtra(ctx, machine); err != nil {
		return err
	}
	suite.Params.Hostname, suite.Params.OverlayBytes = machine.Hostname, machine.DiskBytes
	if suite.Params.Declared, err = declaredText(j.log, j.def.Builder.Driver, j.builder, j.def.spec(j.mirrors)); err != nil {
		return err
	}
	var facts testsuite.Facts
	var tests *testsuite.Report
	err = contain(j.log, "profile "+suite.Profile.Name, "", func() (err error) {
		if facts, err = suite.Gather(ctx, machine.Target); err != nil {
			return err
		}
		if why := j.unaccountable(); why != "" {
			// They compare with what the builder brought beside packages.
			for _, c := range ledger.LiveChecks() {
				facts.Facts[c.Needs[0]] = testsuite.Fact{Omitted: why}
			}
		}
		if facts.Facts[ledger.BootFactName], err = j.bootFiles(ctx, machine, before); err != nil {
			return err
		}
		facts.Facts[ledger.FactName] = files
		facts.Facts[boots.FactName] = testsuite.Fact{Omitted: "no check asks for it"}
		if others != nil {
			if facts.Facts[boots.FactName], err = others.Fact(ctx, machine, facts); err != nil {
				return err
			}
		}
		facts.Given = testsuite.Given{Hostname: suite.Params.Hostname, DiskBytes: suite.Params.DiskBytes, OverlayBytes: suite.Params.OverlayBytes}
		if tests, err = suite.Judge(facts); err != nil {
			return err
		}
		if tests, err = suite.Again(ctx, machine.Target, facts, tests); err != nil {
			return err
		}
		j.def.Gate.judgeTests(tests)
		return nil
	})
	if err != nil {
		return err
	}
	j.report.Checks, tests.BootMS = tests.Summary, bootTime.Milliseconds()
	if err := j.writeTests(tests, facts); err != nil {
		return fmt.Errorf("cannot write the test report: %w", err)
	}
	var failed error
	if !tests.OK() {
		failed = &TestError{Report: tests}
	}
	return errors.Join(ctx.Err(), failed, j.verifyClaims(facts, disk), j.judgeGuest(facts))
}

// rebootExtra gives the machine the second boot that its first one is not over without.
func (j *job) rebootExtra(ctx context.Context, m *sandbox.Machine) error {
	switch {
	case !j.def.ExtraReboot:
		return nil
	case m.Reboot == nil:
		return fmt.Errorf("the sandbox cannot start the machine again, as extra_reboot needs: %w", errors.ErrUnsupported)
	}
	err := contain(j.log, "sandbox", "Reboot", func() error { return m.Reboot(ctx) })
	if err != nil {
		return fmt.Errorf("cannot start the machine again, as extra_reboot needs: %w", err)
	}
	return nil
}

func (j *job) bootable() sandbox.Image {
	return sandbox.Image{
		Path: j.file(".qcow2"), User: j.def.User, TimeServers: j.def.NTPServers,
		WorkDir: j.runDir, ConsoleLog: filepath.Join(j.runDir, "console.log"), Logger: j.log,
	}
}

// otherMachines starts those that checks ask for, or none, and says how the first one
// is to be made.
func (j *job) otherMachines(ctx context.Context, suite *testsuite.Suite, disk *guestdisk.Disk) (*boots.Machines, sandbox.Variant) {
	if !j.asks(boots.FactName) {
		return nil, sandbox.Variant{}
	}
	m := boots.Start(ctx, boots.Config{
		Sandbox: j.sandbox(), Image: j.bootable(), Set: j.factory.Boots, UEFI: disk.BootUEFI,
		Suite: suite, Before: j.bootsBefore(ctx), ExtraReboot: j.def.ExtraReboot,
	})
	return m, m.First
}

// bootsBefore is what was seen of the previous release's machines, or nothing.
func (j *job) bootsBefore(ctx context.Context) string {
	text, err := func() (string, error) {
		previous, err := j.previous(ctx)
		if previous == nil || err != nil {
			return "", err
		}
		zipped, err := readRelease(previous, j.name+"-"+previous.Index.Build.String()+factsSuffix)
		if err != nil {
			return "", err
		}
		saved, err := unzip(zipped)
		if err != nil {
			return "", err
		}
		facts, err := testsuite.LoadFacts(saved)
		if err != nil {
			return "", err
		}
		return facts.Text(boots.FactName)
	}()
	if err != nil {
		j.log.DebugContext(ctx, "how long the previous release took to start is not known", "error", err)
	}
	return text
}

func (j *job) boot(ctx context.Context, variant sandbox.Variant) (*sandbox.Machine, error) {
	image := j.bootable()
	image.Variant = variant
	var machine *sandbox.Machine
	err := contain(j.log, "sandbox", "Boot", func() (err error) {
		machine, err = j.sandbox().Boot(ctx, image)
		if errors.Is(err, errors.ErrUnsupported) { // it has one kind of machine, and boots.Machines.Fact says so
			image.Variant = sandbox.Variant{}
			machine, err = j.sandbox().Boot(ctx, image)
		}
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

// factsSuffix is that of what was seen of the machine, compressed, for
// testsuite.LoadFacts: other checks can judge the image by it later.
const factsSuffix = ".facts.json.gz"

func writeFacts(f *os.File, facts testsuite.Facts) error {
	z := gzip.NewWriter(f)
	return errors.Join(facts.Save(z), z.Close())
}

func (j *job) writeTests(tests *testsuite.Report, facts testsuite.Facts) error {
	for suffix, write := range map[string]func(*os.File) error{
		testReport:  func(f *os.File) error { return tests.WriteJSON(f) },
		".test.xml": func(f *os.File) error { return tests.WriteJUnit(f) },
		".test.log": func(f *os.File) error { return tests.WriteText(f) },
		factsSuffix: func(f *os.File) error { return writeFacts(f, facts) },
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
