package kiwi

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/pkgkeys"
	"github.com/opentelekomcloud/go-imagefactory/internal/signedindex"
)

var _ builder.Stater = tool{}

// State implements [builder.Stater]: the indexes of the description's repositories of
// type apt-deb and rpm-md, as this machine reads them. Where there is one of another
// type, nobody can tell.
func (t tool) State(ctx context.Context, host builder.Host, spec builder.Spec) (*builder.State, error) {
	spec.WorkDir, spec.OutputDir = "/nonexistent", "." // State uses neither
	r := &run{Config: t.config, spec: spec, host: host}
	s, err := r.state(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot tell what %s is built from: %w", spec.Name, err)
	}
	return s, nil
}

func (r *run) state(ctx context.Context) (*builder.State, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	_, sum, err := r.renderFrom(r.local(r.Description), version(r.spec.Build), r.mirror)
	if err != nil {
		return nil, err
	}
	tool, err := r.findTool(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := pkgkeys.Trusted(r.spec)
	if err != nil {
		return nil, err
	}
	s := &builder.State{Tool: program + " " + tool}
	reader := signedindex.Reader{Keys: keys, Host: r.host}
	for _, repo := range sum.repositories {
		if repo.profiles != "" && !slices.ContainsFunc(r.Profiles, func(p string) bool { return slices.Contains(strings.Split(repo.profiles, ","), p) }) {
			continue
		}
		url, err := r.mirror(repo.mirror)
		if err != nil {
			return nil, err
		}
		var index builder.Index
		switch repo.kind {
		case "apt-deb":
			components := strings.Fields(repo.components)
			if len(components) == 0 {
				components = []string{"main"}
			}
			index, err = reader.Apt(ctx, signedindex.Apt{Mirror: repo.mirror, URL: url, Path: repo.path, Suite: repo.distribution, Components: components, Arch: r.spec.Arch})
		case "rpm-md":
			index, err = reader.RPM(ctx, signedindex.RPM{Mirror: repo.mirror, URL: url, Path: repo.path})
		default:
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		s.Indexes = append(s.Indexes, index)
	}
	slices.SortFunc(s.Indexes, builder.Index.Compare)
	s.Indexes = slices.CompactFunc(s.Indexes, func(x, y builder.Index) bool { return x.Compare(y) == 0 })
	return s, nil
}
