package imagefactory

import (
	"errors"

	"github.com/opentelekomcloud/go-imagefactory/internal/strictyaml"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Suite is what Run holds a definition's image to, for a machine that runs
// already: the profile, the parameters and the waivers. The definition needs no
// builder; where the factory has the one that it names, Params.Declared is what that
// brings. Params.Hostname and Params.OverlayBytes are for the caller to fill in,
// where the machine was given them.
func (f *Factory) Suite(d Definition) (*testsuite.Suite, error) {
	parts, err := f.parts()
	if err != nil {
		return nil, err
	}
	d.setDefaults()
	mirrors, err := f.mirrors(d.Mirrors)
	if err != nil {
		mirrors = d.Mirrors // it was built elsewhere: who knows what "host" was there
	}
	suite, err := parts.suite(&d, mirrors)
	if err != nil {
		return nil, err
	}
	if _, ok := parts.builders[d.Builder.Driver]; !ok {
		return suite, nil
	}
	p := &product{factory: f, def: &d, name: d.Name, log: f.logger().With("image", d.Name)}
	if p.builder, err = newDriver(p, "builder", parts.builders, d.Builder, BuilderDriver.New); err != nil {
		return nil, err
	}
	if p.fault != nil {
		return nil, p.fault
	}
	suite.Params.Declared, err = declaredText(p.log, d.Builder.Driver, p.builder, d.spec(mirrors))
	return suite, err
}

// LoadWaivers reads a YAML file as strictly as [LoadFile] does: a map with the
// key "waivers", a list as in a definition's test. The error joins one
// *ConfigError for each mistake.
func LoadWaivers(name string) ([]testsuite.Waiver, error) {
	data, err := readConfig(name)
	if err != nil {
		return nil, &ConfigError{File: name, Err: err}
	}
	body, err := strictyaml.Parse(data)
	if err != nil {
		return nil, locateAll(name, err)
	}
	var file struct {
		Waivers []*strictyaml.Node `yaml:"waivers"`
	}
	if err := withoutExtensions(body).Decode(&file); err != nil {
		return nil, locateAll(name, err)
	}
	if body.Get("waivers") == nil {
		return nil, locateIn(name, body, errors.New("no waivers are named: want the key waivers"))
	}
	var waivers []testsuite.Waiver
	var errs []error
	for _, node := range file.Waivers {
		var w Waiver
		err := node.Decode(&w)
		if err == nil {
			err = w.check()
		}
		for _, err := range unjoin(err) {
			errs = append(errs, locateIn(name, node, err))
		}
		waivers = append(waivers, w.waiver())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return waivers, nil
}

func (w Waiver) check() error {
	if w.Check == "" || w.Reason == "" || w.Expires.IsZero() {
		return errors.New("a waiver needs check, reason and expires")
	}
	return nil
}

func (w Waiver) waiver() testsuite.Waiver {
	return testsuite.Waiver{Check: w.Check, Reason: w.Reason, Expires: w.until()}
}
