package imagefactory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// ErrNotYet is what Factory.Approve returns while nobody has decided: the release
// stays a candidate.
var ErrNotYet = errors.New("nobody has approved it yet")

// candidateName is below workName; no image is called so.
const candidateName = ".candidate"

// candidateDir holds the image's newest candidate.
func (p *product) candidateDir() string {
	return filepath.Join(p.dir, workName, candidateName, p.name)
}

// admit decides whether a sealed release becomes public now. It brings it to the
// staging targets in any case, and holds it as a candidate where it has to wait or the
// gate does not let it pass. What is public on a target already is not held.
func (j *job) admit(ctx context.Context, r *publish.Release) (held bool, err error) {
	if err := j.stageCandidate(ctx, r); err != nil {
		return false, err
	}
	n := j.readNights()
	due, err := j.due(ctx, n)
	if err != nil {
		return false, err
	}
	j.report.Due = due
	if due.Latest == r.Index.Build.String() { // it was admitted, and some target waits for it
		return false, j.writeNights(n)
	}
	blocked := j.judge(ctx, r, n)
	if err := j.writeNights(n); err != nil { // it has when updates were first seen
		return false, err
	}
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case blocked != nil:
		return true, errors.Join(blocked, j.hold(r, blocked.Error()))
	case !due.Due:
		return true, j.hold(r, "not due: "+due.Text)
	case !j.def.Gate.Approval:
		return false, nil
	}
	err = j.approve(ctx)
	switch {
	case err == nil:
		return false, nil
	case ctx.Err() != nil:
		return false, errors.Join(err, ctx.Err())
	case errors.Is(err, ErrNotYet):
		return true, j.hold(r, "it waits for approval")
	}
	j.remove(r.Dir)
	return true, fmt.Errorf("the release was refused: %w", err)
}

// judge holds a sealed release to the gate.
func (j *job) judge(ctx context.Context, r *publish.Release, n *nights) error {
	findings := j.signingFindings()
	var missing []Update
	var err error
	switch versions := j.def.Gate.Versions; {
	case j.factory.Updates != nil:
		var list *advisory.Installed
		if list, err = installed(r); err == nil {
			missing, err = j.updates(ctx, list, n)
		}
	case versions.From != "" && versions.From != Never || len(versions.Block) > 0:
		err = errors.New("the gate asks for versions, and the factory has no advisories (Factory.Updates)")
	}
	if err != nil { // that is no all-clear
		findings = append(findings, Finding{ID: areaVersions + ".unknown", Severity: testsuite.High, Text: bounded(err.Error())})
	}
	return errors.Join(j.pass(append(findings, j.versionFindings(missing, n)...)), j.judgeTested(r))
}

// judgeTested holds what is recorded of a release's tests to what the definition says
// now: since then a waiver may have expired, and checks may count that did not.
func (j *job) judgeTested(r *publish.Release) error {
	tests, err := testsOf(r)
	if err != nil {
		return err
	}
	for i := range tests.Checks {
		c := &tests.Checks[i]
		if c.Status == testsuite.Waived && !j.waived(c.ID) {
			c.Status, c.Reason = testsuite.Fail, "its waiver does not hold any more"
		}
		c.Advisory = !Threshold(j.suite.FailFrom).reached(c.Severity, Threshold(testsuite.Low))
	}
	j.def.Gate.judgeTests(tests)
	if len(tests.Bad()) > 0 {
		return &TestError{Report: tests}
	}
	return nil
}

// testsOf is the test report of a verified release.
func testsOf(r *publish.Release) (*testsuite.Report, error) {
	data, err := readRelease(r, r.Index.Image+"-"+r.Index.Build.String()+testReport)
	if err != nil {
		return nil, fmt.Errorf("the release has no test report: %w", err)
	}
	return testsuite.LoadReport(bytes.NewReader(data))
}

func (j *job) approve(ctx context.Context) error {
	if j.factory.Approve == nil {
		return ErrNotYet
	}
	return contain(j.log, "Approve", "", func() error { return j.factory.Approve(ctx, *j.report) })
}

// hold keeps a sealed release as the image's only candidate.
func (j *job) hold(r *publish.Release, why string) error {
	parent := j.candidateDir()
	dir := filepath.Join(parent, r.Index.Build.String())
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	if dir != r.Dir {
		if err := errors.Join(os.RemoveAll(dir), os.Rename(r.Dir, dir)); err != nil {
			return fmt.Errorf("cannot keep the candidate: %w", err)
		}
	}
	j.report.Held = bounded(why)
	j.log.Info("the release is a candidate", "build", r.Index.Build, "why", why)
	return errors.Join(j.dropCandidates(r.Index.Build), syncDir(parent))
}

// dropCandidates removes the candidates that are older than a build.
func (j *job) dropCandidates(than publish.BuildID) error {
	builds, err := j.candidates()
	for _, b := range builds {
		if b.Compare(than) < 0 {
			err = errors.Join(err, os.RemoveAll(filepath.Join(j.candidateDir(), b.String())))
		}
	}
	return err
}

// candidates are the builds that are held here, the oldest first.
func (j *job) candidates() ([]publish.BuildID, error) {
	entries, err := os.ReadDir(j.candidateDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var builds []publish.BuildID
	for _, e := range entries {
		if b, err := publish.ParseBuildID(e.Name()); err == nil && e.IsDir() {
			builds = append(builds, b)
		}
	}
	return builds, err
}

// newStaging makes the targets that candidates go to.
func (f *Factory) newStaging(parts *parts, p *product) ([]target, error) {
	var targets []target
	for n, c := range p.def.Staging {
		t, err := newDriver(p, "staging", parts.targets, c, TargetDriver.New)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target{fmt.Sprintf("staging-%d", n+1), c.Driver, t})
	}
	return targets, nil
}

// stageCandidate brings a release to the staging targets, where only the newest and
// the one before stay.
func (j *job) stageCandidate(ctx context.Context, r *publish.Release) error {
	var errs []error
	for _, t := range j.staging {
		err := contain(j.log, t.String(), "", func() error {
			if _, err := publish.Publish(ctx, t.Target, r); err != nil {
				return err
			}
			return pruneStaging(ctx, t.Target, j.name)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", t, err))
		}
	}
	return errors.Join(errs...)
}

func pruneStaging(ctx context.Context, t publish.Target, image string) error {
	have, err := t.List(ctx, image)
	if err != nil {
		return err
	}
	for _, e := range have {
		if len(e.Labels) > 0 || e.Held != "" || e.Foreign || e.Problem != "" && e.Digest == "" {
			continue
		}
		if err := t.Apply(ctx, publish.Step{Op: publish.Remove, Entry: e}); err != nil {
			return fmt.Errorf("cannot remove the old candidate %s: %w", e.Build, err)
		}
	}
	return nil
}

// Promote makes a candidate public without a new build: the newest where the build is
// zero. It is taken from the factory's directory or, where that does not have it, from
// the first of the definition's staging targets that can be read (publish.Source) and
// has it; its signatures and its content are verified again, and it is held to the gate
// and the waivers as they are now, for which it may be too old. Whoever calls Promote approves:
// neither the calendar nor Factory.Approve is asked. To promote again what is public
// changes nothing. The report is complete also after an error.
func (f *Factory) Promote(ctx context.Context, definition Definition, build publish.BuildID) (*ImageReport, error) {
	products, err := f.prepare([]Definition{definition})
	if err != nil {
		return nil, err
	}
	j := &job{product: products[0], report: products[0].newReport()}
	j.report.Result, j.report.Stage = Failed, StagePublish
	err = contain(j.log, "the promotion of "+j.name, "", func() error { return j.promote(ctx, build) })
	if err != nil {
		if ctx.Err() != nil {
			err = interrupted(ctx, err)
		}
		err = fmt.Errorf("cannot promote a candidate of %s: %w", j.name, err)
		j.report.Err, j.report.Error, j.report.Release = err, bounded(err.Error()), j.released()
		return j.report, err
	}
	j.report.Result, j.report.Stage, j.report.Release = Published, "", j.released()
	return j.report, nil
}

func (j *job) promote(ctx context.Context, build publish.BuildID) error {
	if j.fault != nil {
		return j.fault
	}
	unlock, err := j.lock()
	if err != nil {
		return err
	}
	defer unlock()
	r, err := j.candidate(ctx, build)
	if err != nil {
		return err
	}
	j.report.Build = r.Index.Build.String()
	j.report.Checks = testsuite.Summary(r.Index.Tests)
	n := j.readNights()
	if err := errors.Join(j.judge(ctx, r, n), j.writeNights(n)); err != nil {
		return err
	}
	if err := j.publishOpened(ctx, r); err != nil {
		return err
	}
	j.remove(r.Dir)
	n = j.readNights()
	n.end(Published, "", j.factory.now())
	return errors.Join(j.writeNights(n), j.dropCandidates(r.Index.Build))
}

// candidate opens the candidate of a build, or the newest.
func (j *job) candidate(ctx context.Context, build publish.BuildID) (*publish.Release, error) {
	builds, err := j.candidates()
	if err != nil {
		return nil, err
	}
	if len(builds) > 0 && (build.IsZero() || slices.Contains(builds, build)) {
		if build.IsZero() {
			build = builds[len(builds)-1]
		}
		return publish.Open(ctx, filepath.Join(j.candidateDir(), build.String()), j.keyring)
	}
	name := j.name
	if !build.IsZero() {
		name += "/" + build.String()
	}
	errs := []error{fmt.Errorf("%w among the candidates", publish.ErrUnknownBuild)}
	for _, t := range j.staging {
		source, ok := t.Target.(publish.Source)
		if !ok {
			continue
		}
		r, err := publish.Fetch(ctx, source, name, j.keyring, filepath.Dir(j.candidateDir()))
		if err == nil {
			return r, nil
		}
		errs = append(errs, fmt.Errorf("%v: %w", t, err))
	}
	return nil, errors.Join(errs...)
}

// noteLatest remembers what is installed in the release that became public.
func (j *job) noteLatest(r *publish.Release) {
	n := j.readNights()
	list, err := installed(r)
	if err != nil {
		j.log.Warn("what is installed in the release is not known", "build", r.Index.Build, "error", err)
	}
	n.Latest, n.Installed = r.Index.Build.String(), list
	if err := j.writeNights(n); err != nil {
		j.log.Warn("cannot note what is installed in the release", "error", err)
	}
}
