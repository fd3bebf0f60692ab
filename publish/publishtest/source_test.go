package publishtest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// badSource changes what a good source gives.
type badSource struct {
	publish.Source
	open func(good publish.Source, name string, offset int64) (io.ReadCloser, error)
}

func (b badSource) Open(_ context.Context, name string, offset int64) (io.ReadCloser, error) {
	return b.open(b.Source, name, offset)
}

// The kit finds what is wrong with a source.
func TestSourceFinds(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	r, err := publishtest.Release(t.Context(), t.TempDir(), "Image", publish.NewBuildID(time.Unix(1e9, 0)))
	require.NoError(t, err)
	_, err = publish.Publish(t.Context(), target, r)
	require.NoError(t, err)
	require.NoError(t, publishtest.TestSource(t.Context(), target, r))
	for want, open := range map[string]func(good publish.Source, name string, offset int64) (io.ReadCloser, error){
		"cancelled context gives: no error": func(good publish.Source, name string, offset int64) (io.ReadCloser, error) {
			return good.Open(t.Context(), name, offset)
		},
		"other content": func(good publish.Source, name string, _ int64) (io.ReadCloser, error) {
			return good.Open(t.Context(), name, 0)
		},
		"cannot open": func(good publish.Source, name string, offset int64) (io.ReadCloser, error) {
			if offset == 1<<40 {
				return nil, errors.New("there is nothing")
			}
			return good.Open(t.Context(), name, offset)
		},
		"is not there, but": func(good publish.Source, name string, offset int64) (io.ReadCloser, error) {
			f, err := good.Open(t.Context(), name, offset)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fs.ErrPermission
			}
			return f, err
		},
		"cannot read": func(publish.Source, string, int64) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader([]byte("x")), failing{})), nil
		},
		"cannot open Image/latest": func(good publish.Source, name string, offset int64) (io.ReadCloser, error) {
			if strings.Contains(name, "latest") {
				return nil, fs.ErrNotExist
			}
			return good.Open(t.Context(), filepath.ToSlash(name), offset)
		},
	} {
		err := publishtest.TestSource(t.Context(), badSource{target, open}, r)
		require.ErrorContains(t, err, want)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken") }
