package directory_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// damages are what becomes of a published release. Sizes tell of all but the
// last two, which a publication finds only where it gives a label.
var damages = map[string]func(t *testing.T, release, image string){
	"image truncated": func(t *testing.T, _, image string) { require.NoError(t, os.Truncate(image, 100)) },
	"image emptied":   func(t *testing.T, _, image string) { require.NoError(t, os.Truncate(image, 0)) },
	"image longer":    func(t *testing.T, _, image string) { require.NoError(t, os.Truncate(image, 1<<20)) },
	"image removed":   func(t *testing.T, _, image string) { require.NoError(t, os.Remove(image)) },
	"image is a link": func(t *testing.T, _, image string) {
		require.NoError(t, os.Rename(image, image+".moved"))
		require.NoError(t, os.Symlink(image+".moved", image))
	},
	"signature removed": func(t *testing.T, _, image string) { require.NoError(t, os.Remove(image+".asc")) },
	"signature emptied": func(t *testing.T, _, image string) { require.NoError(t, os.Truncate(image+".asc", 0)) },
	"checksums removed": func(t *testing.T, release, _ string) {
		require.NoError(t, os.Remove(filepath.Join(release, "SHA256SUMS")))
	},
	"checksums truncated": func(t *testing.T, release, _ string) {
		require.NoError(t, os.Truncate(filepath.Join(release, "SHA256SUMS"), 130))
	},
	"checksums cut at a line": func(t *testing.T, release, _ string) {
		sums := filepath.Join(release, "SHA256SUMS")
		data, err := os.ReadFile(sums)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(sums, data[:bytes.IndexByte(data, '\n')+1], 0o644))
	},
	"checksums' signature removed": func(t *testing.T, release, _ string) {
		require.NoError(t, os.Remove(filepath.Join(release, "SHA256SUMS.asc")))
	},
	"index removed": func(t *testing.T, release, _ string) {
		require.NoError(t, os.Remove(filepath.Join(release, "release.json")))
	},
	"index changed": func(t *testing.T, release, _ string) {
		index := filepath.Join(release, "release.json")
		data, err := os.ReadFile(index)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(index, bytes.Replace(data, []byte("2048"), []byte("2049"), 1), 0o644))
	},
	"everything removed": func(t *testing.T, release, _ string) {
		require.NoError(t, os.RemoveAll(release))
		require.NoError(t, os.Mkdir(release, 0o755))
	},
	"a byte of the image changed": func(t *testing.T, _, image string) { flip(t, image) },
	"a byte of the list changed": func(t *testing.T, release, _ string) {
		flip(t, filepath.Join(release, "Image-"+filepath.Base(release)+".packages"))
	},
}

func flip(t *testing.T, name string) {
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	data[len(data)-2] ^= 1
	require.NoError(t, os.WriteFile(name, data, 0o644))
}

// unseen reports whether only the content tells of a damage.
func unseen(damage string) bool {
	return damage == "a byte of the image changed" || damage == "a byte of the list changed"
}

// A published release that was damaged is noticed, repaired when it is published
// again, and passed over where that does not happen.
func TestDamagedRelease(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			target := &directory.Target{Dir: t.TempDir()}
			publishOne(t, target, "20180401")
			r := publishOne(t, target, "20180501")
			build := filepath.Join(target.Dir, "Image", "20180501-000000")
			image := filepath.Join(build, "Image-20180501-000000.qcow2")
			problem := func() string {
				have, err := target.List(t.Context(), "Image")
				require.NoError(t, err)
				assert.Equal(t, "20180401-000000:prev 20180501-000000:latest", describe(have), "the labels stay")
				return have[1].Problem
			}
			damage(t, build, image)
			if unseen(name) {
				require.NoError(t, os.Remove(filepath.Join(target.Dir, "Image", "latest"))) // so that it is looked at
			} else {
				assert.NotEmpty(t, problem())
			}
			p, err := publish.Publish(t.Context(), target, r)
			require.NoError(t, err)
			assert.NotEmpty(t, p.Steps)
			assert.Equal(t, []publish.Label{publish.Latest}, p.Entry.Labels)
			assert.Empty(t, problem())
			verify(t, target)
			p, err = publish.Publish(t.Context(), target, r)
			require.NoError(t, err)
			assert.Empty(t, p.Steps)

			// And if it is not published again, the next release passes it over.
			damage(t, build, image)
			p, err = publish.Publish(t.Context(), target, release(t, "20180601"))
			require.NoError(t, err)
			require.Len(t, p.Problems, 1)
			assert.Equal(t, "20180501-000000", p.Problems[0].Build.String())
			have, err := target.List(t.Context(), "Image")
			require.NoError(t, err)
			assert.Equal(t, "20180401-000000:prev 20180501-000000 20180601-000000:latest", describe(have))

			// The older one is repaired too, and becomes nothing else by it.
			if !unseen(name) {
				_, err = publish.Publish(t.Context(), target, r)
				require.NoError(t, err)
				have, err = target.List(t.Context(), "Image")
				require.NoError(t, err)
				assert.Equal(t, "20180401-000000:prev 20180501-000000 20180601-000000:latest", describe(have))
				verify(t, target)
			}
		})
	}
}

// A damaged release in the way is repaired only by itself.
func TestDamagedReleaseOfAnother(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	publishOne(t, target, "20180401")
	image := filepath.Join(target.Dir, "Image", "20180401-000000", "Image-20180401-000000.qcow2")
	require.NoError(t, os.Remove(image))
	before := tree(t, target.Dir)
	_, err := publish.Publish(t.Context(), target, release(t, "20180401"))
	require.ErrorIs(t, err, publish.ErrConflict)
	require.ErrorContains(t, err, "damaged too: Image-20180401-000000.qcow2 is missing; remove it to publish this one")
	assert.Equal(t, before, tree(t, target.Dir))
}

// Where labels were removed by hand, an old release does not become latest.
func TestLabelsRemovedByHand(t *testing.T) {
	for _, labels := range [][]string{{"latest"}, {"prev"}, {"latest", "prev"}} {
		target := &directory.Target{Dir: t.TempDir()}
		old := publishOne(t, target, "20180401")
		publishOne(t, target, "20180501")
		publishOne(t, target, "20180601")
		for _, l := range labels {
			require.NoError(t, os.Remove(filepath.Join(target.Dir, "Image", l)))
		}
		_, err := publish.Publish(t.Context(), target, old)
		require.NoError(t, err)
		assert.Equal(t, "20180401-000000 20180501-000000:prev 20180601-000000:latest", verify(t, target), "%v", labels)
		_, err = publish.Publish(t.Context(), target, release(t, "20180402"))
		require.ErrorIs(t, err, publish.ErrOlder)
	}
}

func TestFutureBuild(t *testing.T) {
	target := &directory.Target{Dir: filepath.Join(t.TempDir(), "dist")}
	at := func(d time.Duration) *publish.Release {
		r, err := publishtest.Release(t.Context(), t.TempDir(), "Image", publish.NewBuildID(time.Now().Add(d)))
		require.NoError(t, err)
		return r
	}
	far := at(2 * time.Hour)
	_, err := publish.Publish(t.Context(), target, far)
	require.ErrorIs(t, err, publish.ErrFuture)
	assert.NoDirExists(t, target.Dir)

	// One that is there hinders no other.
	require.NoError(t, os.MkdirAll(filepath.Join(target.Dir, "Image"), 0o755))
	future := filepath.Base(far.Dir)
	require.NoError(t, os.CopyFS(filepath.Join(target.Dir, "Image", future), os.DirFS(far.Dir)))
	require.NoError(t, os.Symlink(future, filepath.Join(target.Dir, "Image", "latest")))
	now := at(time.Minute)
	p, err := publish.Publish(t.Context(), target, now)
	require.NoError(t, err)
	assert.Len(t, p.Problems, 1)
	to, err := os.Readlink(filepath.Join(target.Dir, "Image", "latest"))
	require.NoError(t, err)
	assert.Equal(t, now.Index.Build.String(), to)
}

// What was withdrawn or rolled back does not come back by itself, also when it
// was removed, and it is kept from when it lost its label.
func TestTakenBack(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 500, time.UTC)
	target := &directory.Target{Dir: t.TempDir(), Now: func() time.Time { return now }}
	var releases []*publish.Release
	for _, d := range []string{"20180401", "20180501", "20180601", "20180701"} {
		releases = append(releases, publishOne(t, target, d))
	}
	now = now.AddDate(1, 0, 0)
	_, err := publish.Rollback(t.Context(), target, "Image", day(t, "20180501"), "June does not boot")
	require.NoError(t, err)
	assert.Equal(t, "20180401-000000:prev 20180501-000000:latest 20180601-000000 20180701-000000", verify(t, target))
	for _, r := range releases[2:] {
		p, err := publish.Publish(t.Context(), target, r)
		require.ErrorIs(t, err, publish.ErrWithdrawn)
		require.ErrorContains(t, err, "June does not boot")
		assert.Empty(t, p.Steps)
	}
	have, err := target.List(t.Context(), "Image")
	require.NoError(t, err)
	assert.Equal(t, now.Truncate(time.Second), have[3].LabelLost)
	assert.Equal(t, "June does not boot", have[3].Withdrawn)

	publishOne(t, target, "20180801")
	publishOne(t, target, "20180901")
	steps, err := publish.Retire(t.Context(), target, "Image", now.AddDate(2, 0, -1))
	require.NoError(t, err)
	assert.Empty(t, steps)
	_, err = publish.Retire(t.Context(), target, "Image", now.AddDate(2, 0, 0))
	require.NoError(t, err)
	assert.Equal(t, "20180801-000000:prev 20180901-000000:latest", verify(t, target))

	// September goes too, and then comes back on purpose.
	_, err = publish.Withdraw(t.Context(), target, "Image", day(t, "20180901"), "a key of ours is in it")
	require.NoError(t, err)
	assert.Equal(t, "20180801-000000:latest:prev 20180901-000000", verify(t, target))
	_, err = publish.Withdraw(t.Context(), target, "Image", day(t, "20180801"), "this one too")
	require.ErrorContains(t, err, "no other release that could be latest")
	_, err = publish.Rollback(t.Context(), target, "Image", day(t, "20180901"), "it was another image's")
	require.NoError(t, err)
	assert.Equal(t, "20180801-000000:prev 20180901-000000:latest", verify(t, target))
}

// A release that turns out to be damaged when it is gone back to leaves users the
// one that they had.
func TestTakenBackToDamaged(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	for _, d := range []string{"20180401", "20180501", "20180601", "20180701"} {
		publishOne(t, target, d)
	}
	damage := func(build string) {
		flip(t, filepath.Join(target.Dir, "Image", build, "Image-"+build+".qcow2"))
	}
	state := func() string {
		have, err := target.List(t.Context(), "Image")
		require.NoError(t, err)
		var out []string
		for _, e := range have {
			out = append(out, e.State())
		}
		return strings.Join(out, " ")
	}
	damage("20180401-000000")
	p, err := publish.Rollback(t.Context(), target, "Image", day(t, "20180401"), "the others do not boot")
	require.ErrorIs(t, err, publish.ErrIncomplete)
	assert.Empty(t, p.Steps)
	assert.Equal(t, "dated dated prev latest", state())

	damage("20180601-000000")
	_, err = publish.Withdraw(t.Context(), target, "Image", day(t, "20180701"), "it does not boot")
	require.NoError(t, err)
	assert.Equal(t, "dated latest dated withdrawn", state())
	_, err = publish.Withdraw(t.Context(), target, "Image", day(t, "20180501"), "nor does it")
	require.ErrorContains(t, err, "no other release that could be latest")
	assert.Equal(t, "dated latest dated withdrawn", state())
}

// A directory in the place of a file is not removed: somebody may need what is in it.
func TestDirectoryInPlaceOfFile(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	r := publishOne(t, target, "20180401")
	image := filepath.Join(target.Dir, "Image", "20180401-000000", "Image-20180401-000000.qcow2")
	require.NoError(t, os.Remove(image))
	require.NoError(t, os.Mkdir(image, 0o755))
	_, err := publish.Publish(t.Context(), target, r)
	require.ErrorContains(t, err, image+" is a directory; move it away and publish again")
	require.NoError(t, os.Remove(image))
	_, err = publish.Publish(t.Context(), target, r)
	require.NoError(t, err)
	assert.Equal(t, "20180401-000000:latest", verify(t, target))
}

// Under a strict umask what is published can be read by everybody.
func TestUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(old) })
	top := t.TempDir()
	target := &directory.Target{Dir: filepath.Join(top, "srv", "dist")}
	for _, d := range []string{"20180401", "20180501"} {
		publishOne(t, target, d)
	}
	for name := range tree(t, filepath.Join(top, "srv")) {
		info, err := os.Lstat(name)
		require.NoError(t, err)
		switch {
		case info.IsDir():
			assert.Equal(t, os.FileMode(0o755), info.Mode().Perm(), name)
		case info.Mode().IsRegular():
			assert.Equal(t, os.FileMode(0o644), info.Mode().Perm(), name)
		}
	}
}

// Leftovers that cannot be removed hinder nobody.
func TestStuckLeftovers(t *testing.T) {
	target := &directory.Target{}
	target.Dir, _ = mount(t)
	publishOne(t, target, "20180401")
	for _, name := range []string{".publish-20180501-000000", ".publish-latest", ".publish-prev", ".publish-lifecycle.json"} {
		stuck := filepath.Join(target.Dir, "Image", name)
		require.NoError(t, os.Mkdir(stuck, 0o755))
		require.NoError(t, syscall.Mount("publish", stuck, "tmpfs", 0, "size=64k"))
		t.Cleanup(func() { require.NoError(t, syscall.Unmount(stuck, 0)) })
	}
	var log bytes.Buffer
	target.Logger = slog.New(slog.NewTextHandler(&log, nil))
	publishOne(t, target, "20180501")
	publishOne(t, target, "20180601")
	assert.Contains(t, log.String(), "cannot remove what a killed run left")
	assert.Equal(t, "20180401-000000 20180501-000000:prev 20180601-000000:latest", verify(t, target))
}

// A run that waits says so, once.
func TestWaitingIsSaid(t *testing.T) {
	log := make(chan string, 10)
	target := &directory.Target{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(chanWriter(log), nil))}
	r := release(t, "20180401")
	unlock, err := target.Lock(t.Context(), "Image")
	require.NoError(t, err)
	done := make(chan error)
	go func() {
		_, err := publish.Publish(t.Context(), target, r)
		done <- err
	}()
	assert.Contains(t, <-log, "waiting for another run")
	unlock()
	require.NoError(t, <-done)
	assert.Empty(t, log)
}

type chanWriter chan string

func (c chanWriter) Write(p []byte) (int, error) {
	c <- string(p)
	return len(p), nil
}

func TestVerify(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	r := publishOne(t, target, "20180401")
	keyring, err := signing.LoadKeyring(r.Dir + ".pub")
	require.NoError(t, err)
	require.NoError(t, target.Verify(t.Context(), "Image", keyring))

	image := filepath.Join(target.Dir, "Image")
	flip(t, filepath.Join(image, "20180401-000000", "Image-20180401-000000.qcow2"))
	require.NoError(t, os.Mkdir(filepath.Join(image, "20180501-000000"), 0o755))
	require.NoError(t, os.Symlink("20180601-000000", filepath.Join(image, "prev")))
	require.NoError(t, os.Mkdir(filepath.Join(image, ".publish-latest"), 0o755))
	err = target.Verify(t.Context(), "Image", keyring)
	for _, want := range []string{
		`"Image-20180401-000000.qcow2": the content differs from SHA256SUMS`,
		"20180501-000000: SHA256SUMS is missing",
		"prev points to 20180601-000000, which is not there",
		".publish-latest is left by a killed run",
	} {
		assert.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, target.Verify(t.Context(), "Other", keyring), "there are no releases of Other")
}
