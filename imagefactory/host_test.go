package imagefactory

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// namedHost is this machine by another name.
type namedHost struct {
	builder.Local
	name string
}

// whereBuilt builds well and keeps where.
type whereBuilt struct{ hosts, dirs []string }

func (w *whereBuilt) Name() string { return "good" }

func (w *whereBuilt) New(decode func(any) error) (builder.Builder, error) {
	return w, decode(&struct{}{})
}

func (w *whereBuilt) Build(ctx context.Context, host builder.Host, spec builder.Spec) (*builder.Result, error) {
	name := "this"
	if h, ok := host.(namedHost); ok {
		name = h.name
	}
	w.hosts, w.dirs = append(w.hosts, name), append(w.dirs, spec.WorkDir)
	return goodBuild(ctx, spec)
}

// An image is built on the host that its definition names, in a directory there
// that no other factory has.
func TestNamedHost(t *testing.T) {
	where := &whereBuilt{}
	for range 2 {
		f, d := embedded(t)
		f.Builders = []BuilderDriver{where}
		f.Hosts = map[string]builder.Host{"big": namedHost{name: "big"}, "small": namedHost{name: "small"}}
		d.Builder.Host = "big"
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.Equal(t, Published, report.Images[0].Result, report.Images[0].Error)
	}
	require.Equal(t, []string{"big", "big"}, where.hosts)
	require.NotEqual(t, where.dirs[0], where.dirs[1])
	for _, dir := range where.dirs {
		require.True(t, strings.HasPrefix(dir, "/var/tmp/imagefactory/"), dir)
	}
}

func TestHostInDefinition(t *testing.T) {
	const text = `images:
  - name: Standard_Good_1
    os: {distribution: own, version: "1"}
    disk: 4GiB
    uvp_monitor: {state: optional, reason: none}
    builder: {host: big, good: {}}
    trusted_keys: []
`
	load := func(old, by string) ([]Definition, error) {
		name := filepath.Join(t.TempDir(), "f.yaml")
		require.NoError(t, os.WriteFile(name, []byte(strings.Replace(text, old, by, 1)), 0o644))
		return LoadFile(name)
	}
	f, _ := embedded(t)
	f.Hosts = map[string]builder.Host{"big": namedHost{name: "big"}}
	definitions, err := load("", "")
	require.NoError(t, err)
	require.Equal(t, "big", definitions[0].Builder.Host)
	require.NoError(t, f.Validate(definitions))
	written, err := definitions[0].Builder.MarshalYAML()
	require.NoError(t, err)
	require.Equal(t, "big", written.(map[string]any)["host"])

	definitions, err = load("host: big", "host: bgi")
	require.NoError(t, err)
	require.ErrorContains(t, f.Validate(definitions), `f.yaml:6:`)
	require.ErrorContains(t, f.Validate(definitions), `image Standard_Good_1: builder: unknown host "bgi"; the nearest known is big`)
	for by, want := range map[string]string{
		"{host: big}":                    "no driver is named",
		"{host: big, good: {}, bad: {}}": "only one driver may be named here",
		"{host: {}, good: {}}":           "want the name of a host",
	} {
		_, err := load("{host: big, good: {}}", by)
		require.ErrorContains(t, err, want, by)
	}
	_, err = load("    trusted_keys: []", "    publish: [{host: big, directory: {}}]")
	require.ErrorContains(t, err, "publish: a host is for builders only")
}
