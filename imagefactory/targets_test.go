package imagefactory

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
)

func TestTargetNamesInDefinition(t *testing.T) {
	const text = `images:
  - name: Standard_Good_1
    os: {distribution: own, version: "1"}
    disk: 4GiB
    uvp_monitor: {state: optional, reason: none}
    builder: {good: {}}
    trusted_keys: []
`
	load := func(publish string) ([]Definition, error) {
		name := filepath.Join(t.TempDir(), "f.yaml")
		require.NoError(t, os.WriteFile(name, []byte(text+"    publish: "+publish+"\n"), 0o644))
		return LoadFile(name)
	}
	definitions, err := load("[{obs: {}}, {name: eu-nl, obs: {}}, {obs: {}, name: archive}, {obs: {}}]")
	require.NoError(t, err)
	require.Equal(t, []string{"obs", "eu-nl", "archive", "obs-4"}, targetNames(definitions[0].Publish))
	written, err := definitions[0].Publish[1].MarshalYAML()
	require.NoError(t, err)
	require.Equal(t, "eu-nl", written.(map[string]any)["name"])

	for publish, want := range map[string]string{
		"[{obs: {}, name: x}, {glance: {}, name: x}]":       `two targets are called "x"`,
		"[{obs: {}}, {obs: {}}, {glance: {}, name: obs-2}]": `two targets are called "obs-2"`,
		"[{obs: {}, name: ../x}]":                           `bad name "../x"`,
		"[{obs: {}, name: \"two words\"}]":                  `bad name "two words"`,
		"[{obs: {}, name: {}}]":                             "want a name",
		"[{name: x}]":                                       "no driver is named",
		"[{obs: {}, name: x, glance: {}}]":                  "only one driver may be named here",
	} {
		_, err := load(publish)
		require.ErrorContains(t, err, want, publish)
		require.ErrorContains(t, err, "f.yaml:8:", publish)
	}
	d := own("Standard_Good_1", "good")
	d.Builder.Name = "x"
	require.ErrorContains(t, d.Complete(), "a name is for publish targets only")
}

// What one of several targets of a kind refuses waits for that target alone, and the
// next night brings it there.
func TestTargetsOfAKind(t *testing.T) {
	f, d := embedded(t)
	first, second := t.TempDir(), filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(second, nil, 0o644))
	f.Targets = append(f.Targets, targetDriver{"shelf", func(decode func(any) error) (publish.Target, error) {
		c := new(struct{ Dir string })
		err := decode(c)
		return &directory.Target{Dir: c.Dir}, err
	}})
	shelf := func(dir, name string) Component {
		return Component{Driver: "shelf", Config: map[string]any{"dir": dir}, Name: name}
	}
	d.Publish = []Component{{Driver: "directory"}, shelf(second, "eu-nl"), shelf(first, "eu-de")}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.False(t, report.OK())
	outcome := func(report *Report) map[string]bool {
		good := make(map[string]bool)
		for _, t := range report.Images[0].Targets {
			good[t.Name] = t.Error == ""
		}
		return good
	}
	require.Equal(t, map[string]bool{"directory": true, "eu-nl": false, "eu-de": true}, outcome(report))

	require.NoError(t, os.Remove(second))
	f.Now = func() time.Time { return time.Date(2026, time.November, 23, 3, 0, 0, 0, time.UTC) }
	report, err = f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.True(t, report.OK(), "%+v", report.Images[0])
	require.Equal(t, map[string]bool{"directory": true, "eu-nl": true, "eu-de": true}, outcome(report))
	for _, dir := range []string{f.Dir, first, second} {
		require.FileExists(t, filepath.Join(dir, d.Name, "latest", "SHA256SUMS"))
	}
}

// After nights that fail, a target whose latest is older than allowed is named.
func TestStale(t *testing.T) {
	f, d := embedded(t)
	f.MaxAge = 3 * 24 * time.Hour
	d.Publish = []Component{{Driver: "directory", Name: "public"}}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.True(t, report.OK(), "%+v", report.Images[0])
	require.Empty(t, report.Images[0].Stale)

	f.Builders = []BuilderDriver{builds("good", func(context.Context, builder.Spec) (*builder.Result, error) {
		return nil, errors.New("no mirror")
	})}
	for night, stale := range map[int]bool{24: false, 28: true} {
		f.Now = func() time.Time { return time.Date(2026, time.November, night, 3, 15, 7, 0, time.UTC) }
		report, err = f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.Equal(t, Failed, report.Images[0].Result)
		require.Equal(t, stale, report.Images[0].Stale != nil && report.Images[0].Stale["public"] != "", "%d", night)
	}
	var text, data bytes.Buffer
	image := ImageReport{Name: "Image", Result: Unchanged, Stale: map[string]string{"public": "the build is too old"}}
	r := &Report{Images: []ImageReport{image}}
	require.False(t, r.OK())
	require.NoError(t, r.WriteText(&text))
	require.Contains(t, text.String(), "target public is stale: the build is too old")
	require.NoError(t, r.WriteJSON(&data))
	require.Contains(t, data.String(), `"public": "the build is too old"`)
}

// The predecessor is read from a target where the download directory has none: then an
// image that is the same is not released again, and .changes tells what changed.
func TestPredecessorOfTarget(t *testing.T) {
	f, d := embedded(t)
	shelf, other := t.TempDir(), t.TempDir()
	f.Targets = append(f.Targets, targetDriver{"shelf", func(decode func(any) error) (publish.Target, error) {
		c := new(struct{ Dir string })
		err := decode(c)
		return &directory.Target{Dir: c.Dir}, err
	}})
	on := func(dir, name string) Component {
		return Component{Driver: "shelf", Config: map[string]any{"dir": dir}, Name: name}
	}
	run := func(hour int) ImageReport {
		f.Now = func() time.Time { return time.Date(2026, time.November, 22, hour, 15, 7, 0, time.UTC) }
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.True(t, report.OK(), "%+v", report.Images[0])
		require.NoDirExists(t, filepath.Join(f.Dir, d.Name))
		return report.Images[0]
	}
	d.Publish = []Component{on(shelf, "one")}
	require.Equal(t, Published, run(3).Result)
	require.Equal(t, Unchanged, run(4).Result)

	// A target that lacks it gets it, and nothing of it stays.
	d.Publish = []Component{on(other, "two"), on(shelf, "one")}
	got := run(5)
	require.Equal(t, Unchanged, got.Result)
	require.Len(t, got.Targets, 2)
	require.FileExists(t, filepath.Join(other, d.Name, "20261122-031507", d.Name+"-20261122-031507.qcow2"))
	require.NoDirExists(t, filepath.Join(f.Dir, ".work", d.Name, got.Build))

	// What is damaged there is not compared with.
	for _, dir := range []string{shelf, other} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, d.Name, "20261122-031507", d.Name+"-20261122-031507.packages"), []byte("x 1 all\n"), 0o644))
	}
	require.Equal(t, Published, run(6).Result)
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		r, err := goodBuild(ctx, s)
		if err == nil {
			r.Packages = append(r.Packages, builder.Package{Name: "zz-new", Version: "1", Arch: "all"})
		}
		return r, err
	})}
	require.Equal(t, Published, run(7).Result)
	changes, err := os.ReadFile(filepath.Join(shelf, d.Name, "20261122-071507", d.Name+"-20261122-071507.changes"))
	require.NoError(t, err)
	require.Equal(t, "+zz-new 1 all\n", string(changes))
}
