package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// target is a place to publish on.
type target struct {
	name   string // of a definition's Component; see targetNames
	driver string
	publish.Target
}

func (t target) String() string { return "target " + t.name }

func (f *Factory) newTargets(parts *parts, p *product) ([]target, error) {
	var targets []target
	names := targetNames(p.def.Publish)
	for n, c := range p.def.Publish {
		t, err := newDriver(p, "publish", parts.targets, c, TargetDriver.New)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target{names[n], c.Driver, t})
	}
	return targets, nil
}

// targetNames returns what each target is called.
func targetNames(components []Component) []string {
	var names []string
	ofKind := make(map[string]int)
	for _, c := range components {
		name := c.Driver
		if ofKind[c.Driver]++; ofKind[c.Driver] > 1 {
			name = fmt.Sprintf("%s-%d", c.Driver, ofKind[c.Driver])
		}
		if c.Name != "" {
			name = c.Name
		}
		names = append(names, name)
	}
	return names
}

var targetName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// checkTargets reports what is wrong with the targets' drivers and names.
func (d *Definition) checkTargets() error {
	var errs []error
	taken := make(map[string]bool)
	for n, name := range targetNames(d.Publish) {
		switch c := d.Publish[n]; {
		case c.Driver == "":
			errs = append(errs, errors.New("publish: a driver's name is missing"))
		case c.Host != "":
			errs = append(errs, errors.New("publish: a host is for builders only"))
		case c.Name != "" && !targetName.MatchString(c.Name):
			errs = append(errs, fmt.Errorf("publish: bad name %.80q: want up to 64 letters, digits, dots, hyphens and underscores", c.Name))
		case taken[name]:
			errs = append(errs, fmt.Errorf("publish: two targets are called %q; give one another name", name))
		}
		taken[name] = true
	}
	return errors.Join(errs...)
}

// stale says for each target on which what is latest is too old, why, or why that
// cannot be told. It has a minute for each, also where nothing else has time.
func (p *product) stale(ctx context.Context) map[string]string {
	if p.factory.MaxAge <= 0 {
		return nil
	}
	const patience = time.Minute
	stale := make(map[string]string)
	for _, t := range p.targets {
		err := contain(p.log, t.String(), "List", func() error {
			if t.Target == nil {
				return errNothing
			}
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			have, err := t.List(ctx, p.name)
			if err != nil {
				return err
			}
			return publish.CheckFresh(have, p.factory.MaxAge, p.factory.now())
		})
		if ctx.Err() != nil {
			return nil // the run was interrupted
		}
		if err != nil {
			p.log.Warn("what is latest on a target is too old, or cannot be asked for", "target", t.name, "error", err)
			stale[t.name] = bounded(err.Error())
		}
	}
	return stale
}
