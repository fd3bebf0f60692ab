package directory_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func TestTarget(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	if err := publishtest.TestTarget(t.Context(), target, "Publishtest"); err != nil {
		t.Fatal(err)
	}
}

func day(t testing.TB, s string) publish.BuildID {
	id, err := publish.ParseBuildID(s + "-000000")
	require.NoError(t, err)
	return id
}

// release makes a release of "Image" with a build of the day, YYYYMMDD.
func release(t testing.TB, s string) *publish.Release {
	r, err := publishtest.Release(context.Background(), t.TempDir(), "Image", day(t, s))
	require.NoError(t, err)
	return r
}

func publishOne(t testing.TB, target publish.Target, s string) *publish.Release {
	r := release(t, s)
	_, err := publish.Publish(context.Background(), target, r)
	require.NoError(t, err)
	return r
}

func names(t testing.TB, dir string) []string {
	dirents, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, d := range dirents {
		all = append(all, d.Name())
	}
	return all
}

func TestLayout(t *testing.T) {
	target := &directory.Target{Dir: filepath.Join(t.TempDir(), "new", "dist")}
	for _, d := range []string{"20180401", "20180501", "20180601"} {
		publishOne(t, target, d)
	}
	image := filepath.Join(target.Dir, "Image")
	assert.Equal(t, []string{"20180401-000000", "20180501-000000", "20180601-000000", "latest", "lifecycle.json", "prev"}, names(t, image))
	for label, want := range map[string]string{"latest": "20180601-000000", "prev": "20180501-000000"} {
		to, err := os.Readlink(filepath.Join(image, label))
		require.NoError(t, err)
		assert.Equal(t, want, to)
	}
}

// The published copy has the files of the release, byte for byte, and can be
// opened in its place.
func TestPublishedIsTheRelease(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	r := publishOne(t, target, "20180401")
	require.NoError(t, os.WriteFile(filepath.Join(r.Dir, "unlisted"), nil, 0o644))
	published := filepath.Join(target.Dir, "Image", "20180401-000000")
	var want []string
	for _, f := range r.Files {
		want = append(want, f.Name)
		a, err := os.ReadFile(filepath.Join(r.Dir, f.Name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(published, f.Name))
		require.NoError(t, err)
		assert.Equal(t, a, b, f.Name)
	}
	assert.Equal(t, want, names(t, published))

	keyring, err := signing.LoadKeyring(r.Dir + ".pub")
	require.NoError(t, err)
	again, err := publish.Open(t.Context(), filepath.Join(target.Dir, "Image", "latest"), keyring)
	require.NoError(t, err)
	assert.Equal(t, r.Digest, again.Digest)
	assert.Equal(t, r.Files, again.Files)
}

// To publish what is published already changes nothing, not even a time.
func TestPublishAgain(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	r := publishOne(t, target, "20180401")
	image := filepath.Join(target.Dir, "Image")
	before, err := os.Lstat(image)
	require.NoError(t, err)
	p, err := publish.Publish(t.Context(), target, r)
	require.NoError(t, err)
	assert.Empty(t, p.Steps)
	assert.Equal(t, publish.Entry{ID: "Image/20180401-000000", Image: "Image", Build: day(t, "20180401"), Digest: r.Digest, Labels: []publish.Label{publish.Latest}}, p.Entry)
	after, err := os.Lstat(image)
	require.NoError(t, err)
	assert.Equal(t, before.ModTime(), after.ModTime())
}

// Retiring and listing make nothing.
func TestUnknownImage(t *testing.T) {
	target := &directory.Target{Dir: filepath.Join(t.TempDir(), "dist")}
	steps, err := publish.Retire(t.Context(), target, "Image", time.Now())
	require.NoError(t, err)
	assert.Empty(t, steps)
	assert.NoDirExists(t, target.Dir)
}

// What is empty says so: the working directory is nobody's target.
func TestZeroValues(t *testing.T) {
	var target directory.Target
	_, err := target.List(t.Context(), "Standard_Debian_12")
	require.EqualError(t, err, "cannot list releases: the target has no Dir")
	_, err = target.Push(t.Context(), &publish.Release{})
	require.ErrorContains(t, err, "the target has no Dir")
	_, err = target.Lock(t.Context(), "Standard_Debian_12")
	require.ErrorContains(t, err, "the target has no Dir")
	require.Error(t, target.Apply(t.Context(), publish.Step{}))
	_, err = directory.Driver{}.New(func(any) error { return nil })
	require.EqualError(t, err, "no path, and the driver has no Dir")
}
