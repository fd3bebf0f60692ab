package dib

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

// State implements [builder.Stater]: the indexes of the release, its updates and its
// security updates. They are read by this machine, through the configuration's
// http_proxy and https_proxy.
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
	version, err := r.toolVersion(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := pkgkeys.Trusted(r.spec)
	if err != nil {
		return nil, err
	}
	client, err := signedindex.Client(r.Environment["http_proxy"], r.Environment["https_proxy"])
	if err != nil {
		return nil, err
	}
	reader := signedindex.Reader{Keys: keys, Host: r.host, Client: client}
	s := &builder.State{Tool: program + " " + version}
	for _, a := range r.suites() {
		a.Components, a.Arch = []string{"main"}, r.spec.Arch
		index, err := reader.Apt(ctx, a)
		if err != nil {
			return nil, err
		}
		s.Indexes = append(s.Indexes, index)
	}
	slices.SortFunc(s.Indexes, builder.Index.Compare)
	return s, nil
}

// suites are what the image is built from.
func (r *run) suites() []signedindex.Apt {
	mirror, security := r.mirrors()
	release := r.spec.Release
	return []signedindex.Apt{
		{Mirror: "debian", URL: mirror, Suite: release},
		{Mirror: "debian", URL: mirror, Suite: release + "-updates"},
		{Mirror: "debian-security", URL: security, Suite: release + "-security"},
	}
}

func (r *run) toolVersion(ctx context.Context) (string, error) {
	var version strings.Builder
	err := r.host.Run(ctx, builder.Command{Args: []string{program, "--version"}, Stdout: &version})
	if err != nil {
		return "", fmt.Errorf("cannot use diskimage-builder (Debian's package is python3-diskimage-builder): %w", err)
	}
	return strings.TrimSpace(version.String()), nil
}
