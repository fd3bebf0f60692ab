//go:build linux

package sandbox

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// A program with several machines is killed at 20 moments. After the next boot nothing of
// it is left: no QEMU, and no file.
func TestKilledAtAnyMoment(t *testing.T) {
	needs.Tools(t, "qemu-system-x86_64", "qemu-img")
	silent := bootSector(t, []byte{0xf4, 0xeb, 0xfd}) // hlt; jmp
	next := helperQEMU(t, "die")
	image := qcow2File(t, nil)
	seen := 0
	for range 20 {
		parent := exec.Command(os.Args[0])
		parent.Env = append(os.Environ(), helperEnv+"=machines", "HELPER_IMAGE="+silent, "HELPER_DIR="+next.WorkDir)
		require.NoError(t, parent.Start())
		time.Sleep(rand.N(600 * time.Millisecond))
		require.NoError(t, parent.Process.Kill())
		_ = parent.Wait()
		// By its environment, which one that was just forked has too.
		require.Eventually(t, func() bool { return len(processesOf("environ", "HELPER_DIR="+next.WorkDir)) == 0 }, time.Minute, 10*time.Millisecond)
		left, err := filepath.Glob(filepath.Join(next.WorkDir, "*"))
		require.NoError(t, err)
		seen += len(left)
		_, err = next.boot(t.Context(), image)
		require.ErrorIs(t, err, ErrDied)
		assertNothingLeft(t, next.WorkDir)
	}
	assert.NotZero(t, seen, "no kill left anything: nothing was tested")
}

// Only what nobody holds is removed.
func TestSweepLeavesOthers(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	parent := t.TempDir()
	held, remove, err := newWorkDir(parent, "sandbox", logger)
	require.NoError(t, err)
	for _, name := range []string{"imagefactory-sandbox-old/lock", "imagefactory-sandbox-old/deep/overlay", "imagefactory-sandbox-unlocked/overlay",
		"imagefactory-reader-1/lock", "imagefactory-sandbox-file/x/lock", "else/lock", "target/overlay"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(parent, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(parent, name), nil, 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(parent, "imagefactory-sandbox-empty"), 0o700))
	require.NoError(t, os.Symlink("target", filepath.Join(parent, "imagefactory-sandbox-link")))
	require.NoError(t, os.Mkdir(filepath.Join(parent, "imagefactory-sandbox-pipe"), 0o700))
	require.NoError(t, os.Symlink("../target/overlay", filepath.Join(parent, "imagefactory-sandbox-pipe", "lock")))
	sweep(parent, "imagefactory-sandbox-", logger)
	left, err := filepath.Glob(filepath.Join(parent, "*"))
	require.NoError(t, err)
	var names []string
	for _, l := range left {
		names = append(names, filepath.Base(l))
	}
	assert.ElementsMatch(t, []string{filepath.Base(held), "imagefactory-sandbox-unlocked", "imagefactory-reader-1", "imagefactory-sandbox-file",
		"else", "target", "imagefactory-sandbox-link", "imagefactory-sandbox-pipe"}, names)
	assert.FileExists(t, filepath.Join(parent, "target", "overlay"))
	require.NoError(t, remove())
	require.NoError(t, remove())
	assert.NoDirExists(t, held)
}

// Many make and sweep at once: each has its own directory until it removes it.
func TestWorkDirsAtOnce(t *testing.T) {
	logger, parent := slog.New(slog.DiscardHandler), t.TempDir()
	errs := make(chan error)
	for range 8 {
		go func() {
			var failed error
			for range 50 {
				dir, remove, err := newWorkDir(parent, "sandbox", logger)
				if err == nil {
					_, serr := os.Stat(filepath.Join(dir, lockName))
					err = errors.Join(serr, remove())
				}
				failed = errors.Join(failed, err)
			}
			errs <- failed
		}()
	}
	for range 8 {
		assert.NoError(t, <-errs)
	}
	assertNothingLeft(t, parent)
}
