package dib

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/nearest"
)

// installed are where diskimage-builder's own elements lie, as Debian's package
// and pip install them.
var installed = []string{
	"/usr/lib/python3/dist-packages/diskimage_builder/elements",
	"/usr/lib/python3*/site-packages/diskimage_builder/elements",
	"/usr/local/lib/python3*/dist-packages/diskimage_builder/elements",
	"/usr/local/lib/python3*/site-packages/diskimage_builder/elements",
}

var _ builder.Checker = tool{}

// Check implements [builder.Checker]: the spec is one that the driver handles,
// and the elements are there. Where this machine has no diskimage-builder, it is
// not known which elements come with it.
func (t tool) Check(spec builder.Spec) error {
	r := &run{Config: t.config, spec: spec}
	return errors.Join(r.validate(), r.checkElements())
}

func (r *run) checkElements() error {
	var errs []error
	known := make(map[string]bool)
	add := func(dir string) error {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			known[e.Name()] = true
		}
		return err
	}
	for _, dir := range r.ElementPaths {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(r.spec.Dir, dir)
		}
		if err := add(dir); err != nil {
			errs = append(errs, fmt.Errorf("element_paths: cannot read the elements: %w", err))
		}
	}
	complete := false
	for _, pattern := range installed {
		dirs, _ := filepath.Glob(pattern) // the patterns are good
		for _, dir := range dirs {
			complete = add(dir) == nil || complete
		}
	}
	for _, name := range r.Elements {
		if complete && !known[name] {
			errs = append(errs, fmt.Errorf("elements: %w", nearest.Unknown("element", name, slices.Sorted(maps.Keys(known)))))
		}
	}
	return errors.Join(errs...)
}
