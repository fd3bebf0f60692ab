package directory_test

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

func TestSource(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	r, err := publishtest.Release(t.Context(), t.TempDir(), "Image", day(t, "20180401"))
	require.NoError(t, err)
	_, err = publish.Publish(t.Context(), target, r)
	require.NoError(t, err)
	require.NoError(t, publishtest.TestSource(t.Context(), target, r))
}

func TestOpen(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	build := day(t, "20180401")
	r, err := publishtest.Release(t.Context(), t.TempDir(), "Image", build)
	require.NoError(t, err)
	_, err = publish.Publish(t.Context(), target, r)
	require.NoError(t, err)
	image := filepath.Join(target.Dir, "Image")
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(image, "lifecycle.json"), []byte("{}"), 0o644))
	dir := filepath.Join(image, build.String())
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink(filepath.Base(r.Dir), filepath.Join(image, "20180402-000000")))
	require.NoError(t, os.Symlink(filepath.Dir(outside), filepath.Join(image, "prev")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	sums, err := os.ReadFile(filepath.Join(r.Dir, "SHA256SUMS"))
	require.NoError(t, err)

	at := "Image/" + build.String()
	for _, test := range []struct {
		name   string
		offset int64
		want   string
	}{
		{at + "/SHA256SUMS", 0, string(sums)},
		{"Image/latest/SHA256SUMS", 5, string(sums[5:])},
		{at + "/SHA256SUMS", int64(len(sums)), ""},
		{at + "/SHA256SUMS", 1 << 40, ""},
		{"Image/lifecycle.json", 0, "{}"},
	} {
		f, err := target.Open(t.Context(), test.name, test.offset)
		require.NoError(t, err, test.name)
		got, err := io.ReadAll(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		assert.Equal(t, test.want, string(got))
	}
	for _, name := range []string{
		"Imag/latest/SHA256SUMS", at + "/none", "Image/20180403-000000/SHA256SUMS", "Image/20180402-000000/SHA256SUMS",
	} {
		_, err := target.Open(t.Context(), name, 0)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	for _, name := range []string{
		"", "/", "Image", "Image/", "Image/latest", "Image/latest/", "Image/latest/..", "Image/latest/../lifecycle.json",
		"../Image/latest/SHA256SUMS", "Image/../Image/lifecycle.json", "Image/prev/outside", at + "/link", at + "/pipe", at + "/.",
		"Image/" + outside,
	} {
		_, err := target.Open(t.Context(), name, 0)
		require.Error(t, err, name)
	}
	_, err = target.Open(t.Context(), at+"/SHA256SUMS", -1)
	require.Error(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = target.Open(ctx, at+"/SHA256SUMS", 0)
	require.ErrorIs(t, err, context.Canceled)
}
