package directory_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// mount mounts a tmpfs of 16 MiB and returns a function that changes its
// options.
func mount(t *testing.T) (dir string, remount func(flags uintptr, options string)) {
	needs.Root(t)
	dir = t.TempDir()
	if err := syscall.Mount("publish", dir, "tmpfs", 0, "size=16m"); err != nil {
		needs.Missing(t, "cannot mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return dir, func(flags uintptr, options string) {
		require.NoError(t, syscall.Mount("publish", dir, "tmpfs", syscall.MS_REMOUNT|flags, options))
	}
}

// Little by little there is more room, until the release fits. Before that
// nothing changes but what was completed, and no part of a file stays.
func TestFullDisk(t *testing.T) {
	work := t.TempDir()
	source := filepath.Join(work, "Image", "20180501-000000")
	require.NoError(t, os.MkdirAll(source, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(source, "large"), make([]byte, 256<<10), 0o644))
	r, err := publishtest.Release(t.Context(), work, "Image", day(t, "20180501"))
	require.NoError(t, err)
	for name, options := range map[string]func(n int) string{
		"blocks": func(n int) string { return fmt.Sprintf("size=%dk", 16*(n+1)) },
		"inodes": func(n int) string { return fmt.Sprintf("nr_inodes=%d", 10+n) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, remount := mount(t)
			target := &directory.Target{Dir: filepath.Join(dir, "dist")}
			publishOne(t, target, "20180401")
			image := filepath.Join(target.Dir, "Image")
			full := 0
			for n := 0; ; n++ {
				err := syscall.Mount("publish", dir, "tmpfs", syscall.MS_REMOUNT, options(n))
				if errors.Is(err, syscall.EINVAL) {
					continue // less than what is used
				}
				require.NoError(t, err)
				_, err = publish.Publish(t.Context(), target, r)
				if err == nil {
					break
				}
				full++
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.ErrorContains(t, err, "cannot publish Image 20180501-000000: ")
				require.NotContains(t, err.Error(), "\n")
				for _, name := range names(t, image) {
					require.False(t, strings.HasPrefix(name, "."), "%s is left", name)
				}
				to, err := os.Readlink(filepath.Join(image, "latest"))
				require.NoError(t, err)
				require.Equal(t, "20180401-000000", to)
			}
			assert.Greater(t, full, 3)
			remount(0, "size=16m,nr_inodes=0")
			require.Equal(t, "20180401-000000:prev 20180501-000000:latest", verify(t, target))
		})
	}
}

func TestReadOnly(t *testing.T) {
	dir, remount := mount(t)
	target := &directory.Target{Dir: filepath.Join(dir, "dist")}
	there := publishOne(t, target, "20180401")
	remount(syscall.MS_RDONLY, "")

	_, err := publish.Publish(t.Context(), target, release(t, "20180501"))
	require.ErrorIs(t, err, syscall.EROFS)
	require.Equal(t, "20180401-000000:latest", verify(t, target))
	p, err := publish.Publish(t.Context(), target, there)
	require.NoError(t, err, "there is nothing to write")
	assert.Empty(t, p.Steps)
}

// verify returns the releases with their labels, such as
// "20180401-000000:prev 20180501-000000:latest", after it compared the content
// of each with its checksums.
func verify(t *testing.T, target *directory.Target) string {
	t.Helper()
	have, err := target.List(t.Context(), "Image")
	require.NoError(t, err)
	for _, e := range have {
		sums := exec.Command(needs.Tools(t, "sha256sum")[0], "--check", "--strict", "--quiet", "SHA256SUMS")
		sums.Dir = filepath.Join(target.Dir, e.ID)
		out, err := sums.CombinedOutput()
		require.NoError(t, err, "%s: %s", e.ID, out)
	}
	return describe(have)
}

func describe(have []publish.Entry) string {
	var all []string
	for _, e := range have {
		s := e.Build.String()
		for _, l := range e.Labels {
			s += ":" + string(l)
		}
		all = append(all, s)
	}
	return strings.Join(all, " ")
}

// TestMain lets the test binary stand in for a program that publishes the
// release in PUBLISH_RELEASE or, without one, retires what it can.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PUBLISH_DIR"); dir != "" {
		// All on one thread, for strace counts the calls of each.
		runtime.LockOSThread()
		if err := program(&directory.Target{Dir: dir, Now: func() time.Time { return labelTime }}, os.Getenv("PUBLISH_RELEASE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// labelTime is when labels move, and retireTime when what lost them then is over.
var (
	labelTime  = time.Date(2018, 6, 1, 0, 0, 0, 0, time.UTC)
	retireTime = time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
)

func program(target *directory.Target, releaseDir string) error {
	ctx := context.Background()
	if releaseDir == "" {
		_, err := publish.Retire(ctx, target, "Image", retireTime)
		return err
	}
	keyring, err := signing.LoadKeyring(releaseDir + ".pub")
	if err != nil {
		return err
	}
	r, err := publish.Open(ctx, releaseDir, keyring)
	if err != nil {
		return err
	}
	_, err = publish.Publish(ctx, target, r)
	return err
}

// command returns the command that publishes r or, if r is nil, retires; it is
// run by the given one.
func command(target *directory.Target, r *publish.Release, by ...string) *exec.Cmd {
	argv := append(by, os.Args[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "PUBLISH_DIR="+target.Dir)
	if r != nil {
		cmd.Env = append(cmd.Env, "PUBLISH_RELEASE="+r.Dir)
	}
	return cmd
}

// run is one run of the program.
type run struct {
	before  []*publish.Release // there already
	publish *publish.Release   // nil to retire
	after   string             // what is there in the end
}

var short = strings.NewReplacer("2018", "", "01-000000", "")

// killed kills the program before the nth time that it makes the call and
// returns what is there then, or "" if it makes it less often. What is there
// must be whole, with one latest, and the next run must complete it, without
// waiting for a lock.
func (r run) killed(t *testing.T, strace, call string, n int) (state string) {
	target := &directory.Target{Dir: t.TempDir(), Now: func() time.Time { return labelTime }}
	for _, b := range r.before {
		_, err := publish.Publish(t.Context(), target, b)
		require.NoError(t, err)
	}
	out, err := command(target, r.publish, strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call,
		"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n)).CombinedOutput()
	if err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.True(t, exit.Sys().(syscall.WaitStatus).Signaled(), "%s", out)
		state = verify(t, target)
		require.Equal(t, 1, strings.Count(state, "latest"), state)

		out, err := command(target, r.publish).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	require.Equal(t, r.after, short.Replace(verify(t, target)))
	for _, name := range names(t, filepath.Join(target.Dir, "Image")) {
		require.False(t, strings.HasPrefix(name, "."), "%s is left", name)
	}
	return short.Replace(state)
}

// A process is killed before each of the calls with which it changes the
// directory.
func TestKilledAtEachCall(t *testing.T) {
	strace := needs.Tools(t, "strace")[0]
	if out, err := exec.Command(strace, "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		needs.Missing(t, "strace cannot trace: "+string(out))
	}
	releases := make([]*publish.Release, 4)
	for i := range releases {
		releases[i] = release(t, fmt.Sprintf("2018%02d01", i+1))
	}
	for name, test := range map[string]struct {
		run
		calls  []string
		states []string // that the kills must leave, among others
	}{
		"Publish": {run{releases[:2], releases[2], "01 02:prev 03:latest"},
			[]string{"flock", "mkdirat", "write", "fsync", "renameat", "symlinkat"},
			[]string{"01:prev 02:latest", "01:prev 02:latest 03", "01 02:latest:prev 03", "01 02:prev 03:latest"}},
		"Retire": {run{releases, nil, "03:prev 04:latest"},
			[]string{"flock", "fsync", "renameat", "unlinkat"},
			[]string{"01 02 03:prev 04:latest", "02 03:prev 04:latest", "03:prev 04:latest"}},
	} {
		t.Run(name, func(t *testing.T) {
			found := make(map[string]int)
			for _, call := range test.calls {
				n := 1
				for state := test.killed(t, strace, call, n); state != ""; state = test.killed(t, strace, call, n) {
					found[state]++
					n++
				}
				assert.Greater(t, n, 1, "%s is not called", call)
			}
			t.Log("found after a kill:", found)
			for _, state := range test.states {
				assert.NotZero(t, found[state], "no kill left %s", state)
			}
		})
	}
}

// Processes that publish builds of one image at the same time do so one after
// the other. A build whose turn comes after that of a newer one is refused.
func TestProcessesAtTheSameTime(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	days := []string{"20180401", "20180501", "20180601", "20180701", "20180801"}
	group := new(errgroup.Group)
	for _, d := range days {
		cmd := command(target, release(t, d))
		group.Go(func() error {
			out, err := cmd.CombinedOutput()
			if err != nil && !strings.Contains(string(out), publish.ErrOlder.Error()) {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	running := make(chan error)
	go func() { running <- group.Wait() }()
	named := false
	for done := false; !done; {
		select {
		case err := <-running:
			require.NoError(t, err)
			done = true
		default:
		}
		have, err := target.List(t.Context(), "Image")
		require.NoError(t, err)
		latest := strings.Count(describe(have), "latest")
		require.LessOrEqual(t, latest, 1)
		require.False(t, named && latest == 0, describe(have))
		named = latest == 1
	}
	state := verify(t, target)
	assert.True(t, strings.HasSuffix(state, "20180801-000000:latest"), state)
}

// A run waits for the lock as long as its context lets it.
func TestLockOfAnotherProcess(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	r := release(t, "20180401")
	unlock, err := target.Lock(t.Context(), "Image")
	require.NoError(t, err)
	cmd := command(target, r)
	require.NoError(t, cmd.Start())
	time.Sleep(3 * 100 * time.Millisecond) // a few attempts; too short only proves less
	require.Equal(t, []string{}, append([]string{}, names(t, filepath.Join(target.Dir, "Image"))...))
	unlock()
	require.NoError(t, cmd.Wait())
	require.Equal(t, "20180401-000000:latest", verify(t, target))
}
