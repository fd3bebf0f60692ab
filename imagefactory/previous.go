package imagefactory

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// predecessor returns the image's latest release, to compare with: the download
// directory's or, where that has none, the first that a target gives which is a
// [publish.Source]. Of that only the small files are fetched. It returns nil if there is
// none that can be trusted.
func (j *job) predecessor(ctx context.Context) (*publish.Release, error) {
	latest := filepath.Join(j.dir, j.name, string(publish.Latest))
	if _, err := os.Lstat(latest); !errors.Is(err, fs.ErrNotExist) {
		r, err := publish.Open(ctx, latest, j.keyring)
		if ctx.Err() != nil {
			return nil, errors.Join(err, ctx.Err())
		}
		if err != nil {
			j.log.WarnContext(ctx, "the latest release is not compared with: it does not verify", "error", err)
			return nil, nil //nolint:nilnil // as documented
		}
		return r, nil
	}
	for _, t := range j.targets {
		r, err := j.fetchLatest(ctx, t, ".packages", ".config.tar.gz", testReport, filesSuffix, factsSuffix)
		switch {
		case ctx.Err() != nil:
			return nil, errors.Join(err, ctx.Err())
		case err == nil && r != nil:
			return r, nil
		case err != nil && !errors.Is(err, publish.ErrUnknownBuild):
			j.log.WarnContext(ctx, "the latest release of a target is not compared with", "target", t.name, "error", err)
		}
	}
	return nil, nil //nolint:nilnil // as documented
}

// previousDir is where a target's release is fetched to. It goes with the run's directory.
func (j *job) previousDir() string { return filepath.Join(j.runDir, ".previous") }

// fetchLatest fetches files of what is latest on a target. It returns nil if that is no
// source. What the source said in earlier nights does not count: who rolled back or
// renamed a target did so on purpose.
func (j *job) fetchLatest(ctx context.Context, t target, suffixes ...string) (r *publish.Release, err error) {
	source, ok := t.Target.(publish.Source)
	if !ok {
		return nil, nil //nolint:nilnil // as documented
	}
	if err := os.RemoveAll(j.previousDir()); err != nil {
		return nil, err
	}
	f := &publish.Fetcher{Source: source, Keyring: j.keyring, Dir: j.previousDir(), Suffixes: suffixes, Now: j.factory.now, Logger: j.log}
	err = contain(j.log, t.String(), "Open", func() (err error) {
		r, err = f.Fetch(ctx, j.name)
		return err
	})
	return r, err
}

// publishPrevious brings the predecessor to the targets that lack it. If it came from a
// target, the whole of it is fetched only where one does.
func (j *job) publishPrevious(ctx context.Context, previous *publish.Release) error {
	if filepath.Dir(filepath.Dir(previous.Dir)) != j.previousDir() {
		return j.publishAll(ctx, previous)
	}
	if j.everywhere(ctx, previous) {
		j.report.Targets = nil
		for _, t := range j.targets {
			j.report.Targets = append(j.report.Targets, TargetReport{Name: t.name, Build: previous.Index.Build.String()})
		}
		return nil
	}
	var errs []error
	for _, t := range j.targets {
		r, err := j.fetchLatest(ctx, t)
		if err == nil && r != nil && r.Digest == previous.Digest {
			return j.publishAll(ctx, r)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, errors.New("no target has the whole of the latest release any more"))...)
}

// everywhere reports whether the release is latest on all targets.
func (j *job) everywhere(ctx context.Context, r *publish.Release) bool {
	for _, t := range j.targets {
		var have []publish.Entry
		err := contain(j.log, t.String(), "List", func() (err error) {
			have, err = t.List(ctx, j.name)
			return err
		})
		same := func(e publish.Entry) bool {
			return e.State() == string(publish.Latest) && e.Build == r.Index.Build && e.Digest == r.Digest
		}
		if err != nil || !slices.ContainsFunc(have, same) {
			return false
		}
	}
	return true
}
