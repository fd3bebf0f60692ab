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
	var products []*product
	var errs []error
	for i := range definitions {
		d := definitions[i]
		err := d.Complete()
		p := &product{factory: f, def: &d, name: d.Name, log: f.logger().With("image", d.Name)}
		if err == nil {
			p.targets, err = f.newTargets(parts, p)
		}
		if err = errors.Join(err, p.fault); err != nil {
			err = fmt.Errorf("image %s: %w", d.Name, err)
		}
		errs = append(errs, err)
		products = append(products, p)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	var done []publish.Step
	for _, p := range products {
		for _, t := range p.targets {
			if ctx.Err() != nil {
				return done, interrupted(ctx, errors.Join(errs...))
			}
			steps, err := p.retire(ctx, t)
			done = append(done, steps...)
			errs = append(errs, err)
		}
	}
	return done, errors.Join(errs...)
}

func (p *product) retire(ctx context.Context, t target) (steps []publish.Step, err error) {
	err = contain(p.log, t.String(), "", func() (err error) {
		steps, err = publish.Retire(ctx, t.Target, p.name, p.factory.now())
		return err
	})
	for _, s := range steps {
		p.log.InfoContext(ctx, "retired a release", "target", t.driver, "build", s.Entry.Build)
	}
	if err != nil {
		err = fmt.Errorf("image %s: %v: %w", p.name, t, err)
		if ctx.Err() != nil {
			err = interrupted(ctx, err)
		}
	}
	return steps, err
}
