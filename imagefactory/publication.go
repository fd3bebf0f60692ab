package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// unchanged reports whether the image is what the latest release is, and records
// which one it was compared with.
func (j *job) unchanged(ctx context.Context, r *record) (bool, error) {
	previous, err := j.predecessor(ctx)
	if previous == nil || err != nil {
		return false, err // the first release
	}
	r.Previous = previous.Index.Build.String()
	if j.factory.Force || j.judgedAnew(ctx, previous) {
		return false, nil
	}
	if st, err := os.Stat(j.file(".packages")); err != nil || st.Size() == 0 {
		return false, err // nobody knows what is in it
	}
	same, err := sameFile(previous, previous.Index.Build, j.name, ".packages", j.file(".packages"))
	if err == nil && same {
		same, err = j.sameConfig(previous)
	}
	if err != nil || !same {
		return false, err
	}
	j.log.InfoContext(ctx, "unchanged", "release", previous.Index.Build)
	return true, nil
}

// previous is the release that the image was compared with, nil where there is none
// that can be trusted.
func (j *job) previous(ctx context.Context) (*publish.Release, error) {
	compared := j.journal.same()
	if compared == nil {
		compared = j.journal.stage(StageInspect)
	}
	build := compared.Previous
	if build == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	r, err := j.predecessor(ctx)
	if err != nil || r == nil || r.Index.Build.String() == build {
		return r, err
	}
	j.log.WarnContext(ctx, "the latest release is not the one any more that was compared with", "build", build, "latest", r.Index.Build)
	return nil, nil //nolint:nilnil // as documented
}

// runPublish publishes what the run has sealed, or brings the previous release to
// targets that lack it, where the image is that one's.
func (j *job) runPublish(ctx context.Context, _ *record) error {
	same := j.journal.same()
	if same == nil {
		return j.publishSealed(ctx)
	}
	previous, err := j.previous(ctx)
	if err != nil {
		return err
	}
	if previous == nil {
		j.journal.forget(same.Stage)
		return fmt.Errorf("%w: the release of which the image is a copy is not there any more", ErrWaits)
	}
	j.report.Checks = testsuite.Summary(previous.Index.Tests)
	return j.publishPrevious(ctx, previous)
}

// publishSealed publishes the sealed release on all targets, unless it has to wait.
func (j *job) publishSealed(ctx context.Context) error {
	r, err := j.openSealed(ctx)
	if err != nil {
		return err
	}
	j.report.Checks = testsuite.Summary(r.Index.Tests)
	j.report.Findings = nil // of an earlier try
	for _, name := range []Stage{StageInspect, StageTest} {
		if s := j.journal.stage(name); s != nil {
			j.report.Findings = append(j.report.Findings, s.Findings...)
		}
	}
	held, err := j.admit(ctx, r)
	if held {
		return err
	}
	if err == nil {
		err = j.publishOpened(ctx, r)
	}
	if ctx.Err() == nil && (errors.Is(err, publish.ErrOlder) || err != nil && !j.fresh(j.build)) {
		// A newer one is out, or a target fails for so long that a newer build is
		// worth more.
		j.log.WarnContext(ctx, "discarding a release that cannot be published", "build", j.build, "error", err)
		j.clean()
		return fmt.Errorf("%w: %w", errDiscarded, err)
	}
	if err != nil {
		return err
	}
	return j.dropCandidates(r.Index.Build)
}

// openSealed verifies what was sealed, which has to be sealed again where that fails. A
// run that was cut may have made it a candidate already.
func (j *job) openSealed(ctx context.Context) (*publish.Release, error) {
	r, err := publish.Open(ctx, filepath.Join(j.sealedDir(), j.build.String()), j.keyring)
	if errors.Is(err, fs.ErrNotExist) {
		r, err = publish.Open(ctx, filepath.Join(j.candidateDir(), j.build.String()), j.keyring)
	}
	if err == nil && r.Digest != j.journal.output(StageSeal, sumsName) {
		err = errors.New("it is another release than the run has sealed")
	}
	if err != nil && ctx.Err() == nil {
		j.journal.forget(StageSeal)
		j.remove(filepath.Join(j.sealedDir(), j.build.String()))
		return nil, fmt.Errorf("%w: what was sealed does not verify any more: %w", ErrWaits, err)
	}
	return r, err
}

// publishOpened publishes a verified release and tells of it. Its directory stays until
// that is recorded.
func (j *job) publishOpened(ctx context.Context, r *publish.Release) error {
	if err := j.publishAll(ctx, r); err != nil {
		return err
	}
	j.noteLatest(r)
	for _, f := range r.Files {
		name := path.Join(j.name, r.Index.Build.String(), f.Name)
		if _, err := os.Stat(filepath.Join(j.dir, name)); err == nil {
			j.report.Artifacts = append(j.report.Artifacts, name)
		}
	}
	return nil
}
