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
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// unchanged reports whether the image is what the latest release is, and records
// which one it was compared with.
func (j *job) unchanged(ctx context.Context, r *record) (bool, error) {
	latest := filepath.Join(j.dir, j.name, string(publish.Latest))
	if _, err := os.Lstat(latest); errors.Is(err, fs.ErrNotExist) {
		return false, nil // the first release
	}
	previous, err := publish.Open(ctx, latest, j.keyring)
	if ctx.Err() != nil {
		return false, errors.Join(err, ctx.Err())
	}
	if err != nil {
		j.log.WarnContext(ctx, "the latest release is not compared with: it does not verify", "error", err)
		return false, nil
	}
	r.Previous = previous.Index.Build.String()
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
	return true, nil
}

// previous is the release that the image was compared with, nil where there is none
// that can be trusted.
func (j *job) previous(ctx context.Context) (*publish.Release, error) {
	build := j.journal.stage(StageInspect).Previous
	if build == "" {
		return nil, nil
	}
	r, err := publish.Open(ctx, filepath.Join(j.dir, j.name, build), j.keyring)
	if err != nil && ctx.Err() == nil {
		j.log.WarnContext(ctx, "the previous release does not verify any more", "error", err)
		return nil, nil
	}
	return r, err
}

// runPublish publishes what the run has sealed, or brings the previous release to
// targets that lack it, where the image is that one's.
func (j *job) runPublish(ctx context.Context, _ *record) error {
	if !j.journal.unchanged() {
		return j.publishSealed(ctx)
	}
	previous, err := j.previous(ctx)
	if err != nil {
		return err
	}
	if previous == nil {
		j.journal.forget(StageInspect)
		return fmt.Errorf("%w: the release of which the image is a copy is not there any more", ErrWaits)
	}
	j.report.Checks = testsuite.Summary(previous.Index.Tests)
	return j.publishAll(ctx, previous)
}

// publishSealed publishes the sealed release on all targets.
func (j *job) publishSealed(ctx context.Context) error {
	dir := filepath.Join(j.sealedDir(), j.build.String())
	r, err := publish.Open(ctx, dir, j.keyring)
	var bad *signing.Error
	if ctx.Err() == nil && (errors.As(err, &bad) || errors.Is(err, fs.ErrNotExist)) {
		j.journal.forget(StageSeal)
		j.remove(dir)
		return fmt.Errorf("%w: what was sealed does not verify any more: %w", ErrWaits, err)
	}
	if err != nil {
		return err
	}
	j.report.Checks = testsuite.Summary(r.Index.Tests)
	err = j.publishAll(ctx, r)
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
	for _, f := range r.Files {
		name := path.Join(j.name, r.Index.Build.String(), f.Name)
		if _, err := os.Stat(filepath.Join(j.dir, name)); err == nil {
			j.report.Artifacts = append(j.report.Artifacts, name)
		}
	}
	return nil
}

// publishAll publishes a release on all targets. One that fails keeps it from no
// other.
func (j *job) publishAll(ctx context.Context, r *publish.Release) error {
	var errs []error
	j.report.Targets = nil
	for _, t := range j.targets {
		var p *publish.Publication
		err := contain(j.log, t.String(), "", func() (err error) {
			p, err = publish.Publish(ctx, t.Target, r)
			return err
		})
		if err == nil && (p.Entry.Image != j.name || p.Entry.Build != r.Index.Build || p.Entry.Digest != "" && p.Entry.Digest != r.Digest) {
			err = fmt.Errorf("its entry %.100q is of another release, %.100q %s, or of none", p.Entry.ID, p.Entry.Image, p.Entry.Build)
		}
		outcome := TargetReport{Name: t.name, Build: r.Index.Build.String()}
		if err != nil {
			outcome.Error = bounded(err.Error())
			errs = append(errs, fmt.Errorf("%v: %w", t, err))
		}
		j.report.Targets = append(j.report.Targets, outcome)
		if p != nil {
			for _, e := range p.Problems {
				j.log.WarnContext(ctx, "a release on the target was passed over", "target", t.String(), "release", e.ID, "problem", e.Problem)
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}
