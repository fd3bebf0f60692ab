package publishtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// TestSource checks that a source keeps what [publish.Source] promises. The source
// has the release as the latest of its image, and no other of that image.
func TestSource(ctx context.Context, source publish.Source, r *publish.Release) error {
	image, build := r.Index.Image, r.Index.Build.String()
	group, groupCtx := errgroup.WithContext(ctx)
	for _, f := range r.Files {
		want, err := os.ReadFile(filepath.Join(r.Dir, f.Name))
		if err != nil {
			return err
		}
		for _, which := range []string{build, string(publish.Latest)} {
			group.Go(func() error { return readAt(groupCtx, source, path.Join(image, which, f.Name), want) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, name := range []string{
		path.Join(image, build, "none"),
		path.Join(image, string(publish.Prev), publish.IndexName),
		path.Join(image, "20000101-000000", publish.IndexName),
		path.Join(image+"-none", string(publish.Latest), publish.IndexName),
	} {
		if err := refusal(source.Open(ctx, name, 0)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is not there, but to open it gives: %w", name, err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := refusal(source.Open(cancelled, path.Join(image, build, publish.IndexName), 0)); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("to open a file with a cancelled context gives: %w", err)
	}
	return nil
}

// refusal returns the error of an Open, which must not be nil.
func refusal(r io.ReadCloser, err error) error {
	if err == nil {
		return errors.Join(errors.New("no error"), r.Close())
	}
	return err
}

// readAt reads a file from several offsets on.
func readAt(ctx context.Context, source publish.Source, name string, want []byte) error {
	size := int64(len(want))
	for _, offset := range []int64{0, 1, size / 2, size - 1, size, size + 1, 1 << 40} {
		r, err := source.Open(ctx, name, offset)
		if err != nil {
			return fmt.Errorf("cannot open %s at %d: %w", name, offset, err)
		}
		got, err := io.ReadAll(io.LimitReader(r, size+1))
		if err = errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("cannot read %s at %d: %w", name, offset, err)
		}
		if !bytes.Equal(got, want[min(offset, size):]) {
			return fmt.Errorf("%s from %d on has other content than the release", name, offset)
		}
	}
	return nil
}
