package publishtest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// TestMain lets the tests, which make thousands of files and sync each, do so in
// memory where that is a directory.
func TestMain(m *testing.M) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() && os.Getenv("TMPDIR") == "" {
		_ = os.Setenv("TMPDIR", "/dev/shm") // else they take longer
	}
	os.Exit(m.Run())
}

// broken is a good target of which some methods are replaced.
type broken struct {
	*directory.Target
	list  func(ctx context.Context, image string) ([]publish.Entry, error)
	push  func(ctx context.Context, r *publish.Release) (publish.Entry, error)
	apply func(ctx context.Context, s publish.Step) error
	lock  func(ctx context.Context, image string) (func(), error)
}

func (b *broken) List(ctx context.Context, image string) ([]publish.Entry, error) {
	if b.list != nil {
		return b.list(ctx, image)
	}
	return b.Target.List(ctx, image)
}

func (b *broken) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	if b.push != nil {
		return b.push(ctx, r)
	}
	return b.Target.Push(ctx, r)
}

func (b *broken) Apply(ctx context.Context, s publish.Step) error {
	if b.apply != nil {
		return b.apply(ctx, s)
	}
	return b.Target.Apply(ctx, s)
}

func (b *broken) Lock(ctx context.Context, image string) (func(), error) {
	if b.lock != nil {
		return b.lock(ctx, image)
	}
	return b.Target.Lock(ctx, image)
}

// The kit finds what is wrong with each of these targets.
func TestKitFinds(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(b *broken)
		want  string
	}{
		"an unknown image is an error": {func(b *broken) {
			b.list = func(ctx context.Context, image string) ([]publish.Entry, error) {
				have, err := b.Target.List(ctx, image)
				if len(have) == 0 && err == nil {
					err = os.ErrNotExist
				}
				return have, err
			}
		}, "Push: file does not exist"},
		"no digests": {func(b *broken) {
			b.list = func(ctx context.Context, image string) ([]publish.Entry, error) {
				have, err := b.Target.List(ctx, image)
				for i := range have {
					have[i].Digest = ""
				}
				return have, err
			}
		}, "and a digest"},
		"one ID for all": {func(b *broken) {
			b.list = func(ctx context.Context, image string) ([]publish.Entry, error) {
				have, err := b.Target.List(ctx, image)
				for i := range have {
					have[i].ID = "1"
				}
				return have, err
			}
		}, "an ID of its own"},
		"entries of another image": {func(b *broken) {
			b.list = func(ctx context.Context, image string) ([]publish.Entry, error) {
				have, err := b.Target.List(ctx, image)
				for i := range have {
					have[i].Image = "Other"
				}
				return have, err
			}
		}, "that image"},
		"forgets what was pushed": {func(b *broken) {
			b.push = func(_ context.Context, r *publish.Release) (publish.Entry, error) {
				return publish.Entry{ID: "1", Image: r.Index.Image, Build: r.Index.Build, Digest: r.Digest}, nil
			}
		}, `Apply: the target has the releases "" of Publishtest_Apply, want "1 2 3"`},
		"copies without a look": {func(b *broken) {
			b.push = func(_ context.Context, r *publish.Release) (publish.Entry, error) {
				e := publish.Entry{ID: r.Index.Image + "/" + r.Index.Build.String(), Image: r.Index.Image, Build: r.Index.Build, Digest: r.Digest}
				err := os.CopyFS(filepath.Join(b.Dir, e.ID), os.DirFS(r.Dir))
				return e, err
			}
		}, "PushChanged: a Push took an image that is"},
		"leaves what it could not complete": {func(b *broken) {
			b.push = func(ctx context.Context, r *publish.Release) (publish.Entry, error) {
				e, err := b.Target.Push(ctx, r)
				if err != nil {
					err = errors.Join(err, os.CopyFS(filepath.Join(b.Dir, r.Index.Image, r.Index.Build.String()), os.DirFS(r.Dir)))
				}
				return e, err
			}
		}, `PushChanged: the target has the releases "1"`},
		"pushes once only": {func(b *broken) {
			b.push = func(ctx context.Context, r *publish.Release) (publish.Entry, error) {
				have, err := b.Target.List(ctx, r.Index.Image)
				if err == nil && slices.ContainsFunc(have, func(e publish.Entry) bool { return e.Build == r.Index.Build }) {
					err = os.ErrExist
				}
				if err != nil {
					return publish.Entry{}, err
				}
				return b.Target.Push(ctx, r)
			}
		}, "Push: file already exists"},
		"takes the first of two releases": {func(b *broken) {
			b.push = func(ctx context.Context, r *publish.Release) (publish.Entry, error) {
				e, err := b.Target.Push(ctx, r)
				if errors.Is(err, publish.ErrConflict) {
					return e, nil
				}
				return e, err
			}
		}, "want ErrConflict"},
		"cannot be cancelled": {func(b *broken) {
			b.push = func(ctx context.Context, r *publish.Release) (publish.Entry, error) {
				return b.Target.Push(context.WithoutCancel(ctx), r)
			}
		}, "PushCancelled: a Push with a cancelled context returned"},
		"labels what it pushes": {func(b *broken) {
			b.push = func(ctx context.Context, r *publish.Release) (publish.Entry, error) {
				e, err := b.Target.Push(ctx, r)
				if err == nil {
					err = b.Target.Apply(ctx, publish.Step{Op: publish.Assign, Label: publish.Latest, Entry: e})
				}
				return e, err
			}
		}, "Push: the target has the releases \"1:latest\""},
		"does nothing": {func(b *broken) {
			b.apply = func(context.Context, publish.Step) error { return nil }
		}, "Rotate: the target has the releases"},
		"is without latest for a while": {func(b *broken) {
			b.apply = func(ctx context.Context, s publish.Step) error {
				if s.Label == publish.Prev {
					if err := os.Remove(filepath.Join(b.Dir, s.Entry.Image, "latest")); err != nil {
						return err
					}
				}
				return b.Target.Apply(ctx, s)
			}
		}, "Crash: "},
		"prunes as it publishes": {func(b *broken) {
			b.apply = func(ctx context.Context, s publish.Step) error {
				if err := b.Target.Apply(ctx, s); err != nil || s.Op != publish.Assign || s.Label != publish.Prev {
					return err
				}
				for _, e := range s.From {
					if err := b.Target.Apply(ctx, publish.Step{Op: publish.Remove, Entry: e}); err != nil {
						return err
					}
				}
				return nil
			}
		}, "is gone"},
		"removes what has a label": {func(b *broken) {
			b.apply = func(ctx context.Context, s publish.Step) error {
				if s.Op == publish.Remove {
					return os.RemoveAll(filepath.Join(b.Dir, s.Entry.ID))
				}
				return b.Target.Apply(ctx, s)
			}
		}, "Apply: remove Publishtest_Apply 20180201-031507, which has a label, was not refused"},
		"removes once only": {func(b *broken) {
			b.apply = func(ctx context.Context, s publish.Step) error {
				if s.Op == publish.Remove {
					if _, err := os.Stat(filepath.Join(b.Dir, s.Entry.ID)); err != nil {
						return err
					}
				}
				return b.Target.Apply(ctx, s)
			}
		}, "Apply: remove Publishtest_Apply 20180201-031507: stat"},
		"locks nothing": {func(b *broken) {
			b.lock = func(context.Context, string) (func(), error) { return func() {}, nil }
		}, "Lock: two runs have the lock"},
		"one lock for all": {func(b *broken) {
			b.lock = func(ctx context.Context, image string) (func(), error) {
				if image == "Publishtest_Lock_other" {
					image = "Publishtest_Lock"
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 10*time.Millisecond)
					defer cancel()
				}
				return b.Target.Lock(ctx, image)
			}
		}, "Lock: while another image is locked"},
		"keeps the lock": {func(b *broken) {
			b.lock = func(ctx context.Context, image string) (func(), error) {
				if image != "Publishtest_Lock" {
					return b.Target.Lock(ctx, image)
				}
				ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
				defer cancel()
				_, err := b.Target.Lock(ctx, image)
				return func() {}, err
			}
		}, "Lock: after the lock was freed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &broken{Target: &directory.Target{Dir: t.TempDir()}}
			test.spoil(b)
			assert.ErrorContains(t, publishtest.TestTarget(t.Context(), b, "Publishtest"), test.want)
		})
	}
}

// The kit makes what real servers take for an image.
func TestReleaseHasAnImage(t *testing.T) {
	qemuImg := needs.Tools(t, "qemu-img")[0]
	build := publish.NewBuildID(time.Date(2018, 4, 1, 0, 0, 0, 0, time.UTC))
	r, err := publishtest.Release(t.Context(), t.TempDir(), "Image", build)
	require.NoError(t, err)
	out, err := exec.Command(qemuImg, "check", "-f", "qcow2", filepath.Join(r.Dir, "Image-20180401-000000.qcow2")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "No errors were found")
}
