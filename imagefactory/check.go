package imagefactory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// Check is [Factory.Validate], and reports as well what is wrong with what the
// definitions refer to: trusted key files that are no keys or lack one that is
// pinned, mirrors that may not be used, what a builder misses ([builder.Checker]),
// and a signing key that is not the one Dir's releases are signed with. Dir may
// be empty, and Key nil for one that is yet to be made. Check only reads.
func (f *Factory) Check(definitions []Definition) error {
	errs := []error{f.Validate(definitions), f.checkKey()}
	products, _ := f.products(definitions) // what that reports, Validate did
	for _, p := range products {
		for _, err := range unjoin(errors.Join(p.def.checkTrustedKeys(), p.checkSpec())) {
			config := p.def.source.locate(err)
			config.Err = fmt.Errorf("image %s: %w", p.name, config.Err)
			errs = append(errs, config)
		}
	}
	return errors.Join(errs...)
}

// checkKey reports whether Dir belongs to another key than the factory's.
func (f *Factory) checkKey() error {
	if f.Dir == "" {
		return nil
	}
	name := filepath.Join(f.Dir, publicKeyName)
	switch _, err := os.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case f.Key == nil:
		return fmt.Errorf("the releases in %s are signed with the key in %s, whose secret part is missing: a new key could not go on from them", f.Dir, name)
	}
	return f.publishKey() // which only compares, where there is one
}

// checkSpec holds what the builder would be told to what it can use.
func (p *product) checkSpec() error {
	if p.builder == nil {
		return nil // the driver's fault, which Validate reports
	}
	spec := p.def.spec(p.mirrors)
	spec.WorkDir, spec.OutputDir = "/work", "." // some
	errs := unjoin(spec.Validate())
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	checker, ok := p.builder.(builder.Checker)
	if !ok {
		return nil
	}
	err := contain(p.log, "builder "+p.def.Builder.Driver, "Check", func() error { return checker.Check(spec) })
	for _, err := range unjoin(err) {
		errs = append(errs, p.def.Builder.about(err))
	}
	return errors.Join(errs...)
}

// checkTrustedKeys reports files that are no keys, and pinned keys that are not
// in them.
func (d *Definition) checkTrustedKeys() error {
	var errs []error
	for i, k := range d.spec(nil).TrustedKeys {
		wrong := func(err error) {
			err = fmt.Errorf("trusted_keys: %s: %w", k.File, err)
			if d.source.node != nil {
				if list := d.source.node.Get("trusted_keys"); list != nil {
					err = list.Items()[i].At(err)
				}
			}
			errs = append(errs, err)
		}
		found, err := fingerprints(k.File)
		if err != nil {
			wrong(err)
			continue
		}
		for _, want := range k.Fingerprints {
			if !found[want] {
				wrong(fmt.Errorf("has no key %s", want))
			}
		}
	}
	return errors.Join(errs...)
}

// fingerprints are those of the primary keys in a file.
func fingerprints(name string) (map[string]bool, error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys, err := signing.ReadKeys(f)
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool)
	for _, key := range keys {
		found[string(key.Fingerprint())] = true
	}
	return found, nil
}
