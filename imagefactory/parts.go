package imagefactory

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/opentelekomcloud/go-imagefactory/internal/nearest"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

// parts are what definitions may name, by name.
type parts struct {
	builders map[string]BuilderDriver
	targets  map[string]TargetDriver
	profiles map[string]testsuite.Profile
	probes   []testsuite.Probe
}

// parts reports every part that definitions could not name, or not for certain.
func (f *Factory) parts() (*parts, error) {
	profiles := f.Profiles
	if profiles == nil {
		profiles = []testsuite.Profile{testsuite.OTC(), testsuite.Strict()}
		for i := range profiles {
			profiles[i].Checks = slices.Concat(profiles[i].Checks, ledger.Checks(), ledger.BootChecks(), ledger.LiveChecks(), boots.Checks())
		}
	}
	builders, berr := byName(f.logger(), "builder", f.Builders, BuilderDriver.Name)
	targets, terr := byName(f.logger(), "target", f.Targets, TargetDriver.Name)
	named, perr := byName(f.logger(), "profile", profiles, func(p testsuite.Profile) string { return p.Name })
	if err := errors.Join(berr, terr, perr); err != nil {
		return nil, fmt.Errorf("cannot use the factory's drivers: %w", err)
	}
	suite := testsuite.Suite{Profile: testsuite.OTC(), Probes: f.Probes}
	if err := suite.Validate(); err != nil {
		return nil, fmt.Errorf("cannot use the factory's probes: %w", err)
	}
	return &parts{builders, targets, named, f.Probes}, nil
}

func byName[T any](log *slog.Logger, kind string, list []T, nameOf func(T) string) (map[string]T, error) {
	out := map[string]T{}
	var errs []error
	for i, v := range list {
		which := fmt.Sprintf("%s number %d", kind, i+1)
		var name string
		err := contain(log, which, "Name", func() error {
			if any(v) == nil {
				return fmt.Errorf("%s is nil", which)
			}
			name = nameOf(v)
			return nil
		})
		_, twice := out[name]
		switch {
		case err != nil:
		case name == "":
			err = fmt.Errorf("%s has no name", which)
		case twice:
			err = fmt.Errorf("there are two of the name %q: %s is one", name, which)
		default:
			out[name] = v
		}
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// newDriver makes a builder or a target from what a definition says under key.
// A mistake in that is the error; a driver that is itself at fault fails its
// image alone.
func newDriver[D, T any](p *product, key string, drivers map[string]D, c Component, construct func(D, func(any) error) (T, error)) (T, error) {
	var made T
	mistake := func(err error) error {
		var errs []error
		for _, err := range unjoin(err) {
			config := locate(p.def.source.file, c.at(err))
			config.Err = fmt.Errorf("image %s: %s: %w", p.name, key, config.Err)
			errs = append(errs, config)
		}
		return errors.Join(errs...)
	}
	driver, ok := drivers[c.Driver]
	if !ok {
		return made, mistake(nearest.Unknown("driver", c.Driver, slices.Sorted(maps.Keys(drivers))))
	}
	who := key + " " + c.Driver
	err := contain(p.log, who, "New", func() (err error) {
		if made, err = construct(driver, c.decode); err == nil && any(made) == nil {
			err = fmt.Errorf("%s: New %w", who, errNothing)
		}
		return err
	})
	if err != nil && isFault(err) {
		p.fault = errors.Join(p.fault, err)
		return made, nil
	}
	if err != nil {
		return made, mistake(err)
	}
	return made, nil
}

// suite is what the image is held to.
func (p *parts) suite(d *Definition, mirrors map[string]string) (*testsuite.Suite, error) {
	profile, ok := p.profiles[d.Test.Profile]
	if !ok {
		err := fmt.Errorf("image %s: test: %w", d.Name, nearest.Unknown("profile", d.Test.Profile, slices.Sorted(maps.Keys(p.profiles))))
		return nil, d.source.locateAt(err, "test", "profile")
	}
	if err := d.Gate.checkTests(profile); err != nil {
		return nil, d.source.locateAt(fmt.Errorf("image %s: %w", d.Name, err), "gate", "tests")
	}
	failFrom := cmp.Or(d.Test.FailFrom, testsuite.Severity(d.Gate.Tests.From))
	s := &testsuite.Suite{Profile: profile, Probes: p.probes, FailFrom: failFrom, Params: testsuite.Params{
		User: d.User, NTPServers: d.NTPServers, DiskBytes: int64(d.DiskBytes), RequiredPackages: relationNames(d.Test.RequiredPackages),
		UVPMonitor: testsuite.UVPMonitor(d.UVPMonitor), LVM: d.LVM, NoRepositories: d.BYOL,
	}}
	for _, r := range d.Repositories {
		s.Params.Repositories = append(s.Params.Repositories, testsuite.Repository{URL: r.URL, Suites: r.Suites, Components: r.Components})
	}
	for _, k := range d.TrustedKeys {
		s.Params.PackageKeys = append(s.Params.PackageKeys, k.Fingerprints...)
	}
	for _, name := range slices.Sorted(maps.Keys(mirrors)) {
		if host := urlHost(mirrors[name]); host != "" {
			s.Params.MirrorHosts = append(s.Params.MirrorHosts, host)
		}
	}
	for _, w := range d.Test.Waivers {
		s.Waivers = append(s.Waivers, w.waiver())
	}
	if err := s.Validate(); err != nil {
		return nil, d.source.locateAt(fmt.Errorf("image %s: test: %w", d.Name, err), "test", "waivers")
	}
	return s, nil
}

// locateAt makes an error a *ConfigError with the position of what the keys
// lead to, as far as they do.
func (s source) locateAt(err error, keys ...string) *ConfigError {
	if s.node == nil {
		return locate(s.file, err)
	}
	node := s.node
	for _, key := range keys {
		node = value(node, key)
	}
	return locateIn(s.file, node, err)
}
