package imagefactory

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// TestRebuild builds an image again from what its release holds, with other mirrors,
// and knows nothing of the factory that released it.
func TestRebuild(t *testing.T) {
	f, d := embedded(t)
	var specs []builder.Spec
	fail := error(nil)
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		specs = append(specs, s)
		r, err := goodBuild(ctx, s)
		return r, errors.Join(err, fail)
	})}
	d.Mirrors = map[string]string{"debian": "http://ours.example.org/debian"}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	got := report.Images[0]
	require.Equal(t, Published, got.Result, got.Error)
	archive := filepath.Join(f.Dir, got.Release, d.Name+"-"+got.Build+".config.tar.gz")

	other := &Factory{Builders: f.Builders}
	dir := t.TempDir()
	out, again := filepath.Join(dir, "out"), filepath.Join(dir, "again")
	theirs := map[string]string{"debian": "http://theirs.example.org/debian"}
	require.NoError(t, other.Rebuild(t.Context(), archive, theirs, out))
	last := specs[len(specs)-1]
	require.Equal(t, theirs, last.Mirrors)
	require.Equal(t, got.Build, last.Build)
	require.NotContains(t, last.Dir, f.Dir)
	base := d.Name + "-" + got.Build
	names := func(dir string) []string {
		var list []string
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	require.Equal(t, []string{base + ".build.log", base + ".buildhost", base + ".config.tar.gz", base + ".packages", base + ".qcow2"}, names(out))
	require.ErrorIs(t, other.Rebuild(t.Context(), archive, theirs, out), os.ErrExist, "nothing is replaced")

	// From what it has made itself, with the mirrors of that.
	require.NoError(t, other.Rebuild(t.Context(), filepath.Join(out, base+".config.tar.gz"), nil, again))
	require.Equal(t, theirs, specs[len(specs)-1].Mirrors)
	for _, name := range names(out) {
		one, err := os.ReadFile(filepath.Join(out, name))
		require.NoError(t, err)
		two, err := os.ReadFile(filepath.Join(again, name))
		require.NoError(t, err)
		require.Equal(t, one, two, name)
	}

	require.NoError(t, other.Build(t.Context(), d, filepath.Join(dir, "built")))
	require.Equal(t, d.Mirrors, specs[len(specs)-1].Mirrors)

	fail = errors.New("no room")
	require.ErrorIs(t, other.Build(t.Context(), d, filepath.Join(dir, "failed")), fail)
	left := names(filepath.Join(dir, "failed"))
	require.Len(t, left, 1)
	require.Contains(t, left[0], ".build.log")

	for want, name := range map[string]string{
		"cannot build from": filepath.Join(dir, "none.config.tar.gz"),
		"not compressed":    filepath.Join(out, base+".packages"),
		"not a regular":     dir,
	} {
		require.ErrorContains(t, other.Rebuild(t.Context(), name, nil, filepath.Join(dir, "x")), want)
		require.NoDirExists(t, filepath.Join(dir, "x"))
	}
	require.ErrorContains(t, (&Factory{}).Rebuild(t.Context(), archive, nil, filepath.Join(dir, "x")), "unknown driver")
}
