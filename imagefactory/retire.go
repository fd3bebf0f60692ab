package imagefactory

import (
	"context"
	"errors"
	"fmt"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Retire removes from the targets of the definitions the releases whose time is
// over, as [publish.PlanRetire] has it, and returns the steps that were done.
// It needs no Dir, Key or Builders. One target's failure keeps it from no other;
// the error joins them all, each with its image and target. A mistake in the
// factory or a definition is found before anything is removed.
func (f *Factory) Retire(ctx context.Context, definitions []Definition) ([]publish.Step, error) {
	parts, err := f.parts()
	if err != nil {
		return nil, err
	}
	var jobs []*job
	var errs []error
	for i := range definitions {
		d := definitions[i]
		err := d.Complete()
		j := &job{factory: f, def: &d, name: d.Name, log: f.logger().With("image", d.Name)}
		if err == nil {
			j.targets, err = f.newTargets(parts, j)
		}
		if err = errors.Join(err, j.fault); err != nil {
			err = fmt.Errorf("image %s: %w", d.Name, err)
		}
		errs = append(errs, err)
		jobs = append(jobs, j)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	var done []publish.Step
	for _, j := range jobs {
		for _, t := range j.targets {
			if ctx.Err() != nil {
				return done, interrupted(ctx, errors.Join(errs...))
			}
			steps, err := j.retire(ctx, t)
			done = append(done, steps...)
			errs = append(errs, err)
		}
	}
	return done, errors.Join(errs...)
}

func (j *job) retire(ctx context.Context, t target) (steps []publish.Step, err error) {
	err = contain(j.log, t.String(), "", func() (err error) {
		steps, err = publish.Retire(ctx, t.Target, j.name, j.factory.now())
		return err
	})
	for _, s := range steps {
		j.log.InfoContext(ctx, "retired a release", "target", t.driver, "build", s.Entry.Build)
	}
	if err != nil {
		err = fmt.Errorf("image %s: %v: %w", j.name, t, err)
		if ctx.Err() != nil {
			err = interrupted(ctx, err)
		}
	}
	return steps, err
}
