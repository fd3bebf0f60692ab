package builder

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// tool does in little what an image builder does: a disk on a loop device with
// partitions, file systems and the host's /dev below the work directory, and
// processes that get away and go on writing.
const tool = `cd "$1" || exit
mkdir -p mnt dev && truncate -s 16M disk.raw || exit
printf 'start=2048\n' | sfdisk -q disk.raw
device=$(losetup --find --show disk.raw) || exit
partx -u "$device"
mkfs.ext4 -q "${device}p1" && mount "${device}p1" mnt || exit
mount --bind /dev dev
mkdir -p mnt/etc mnt/proc && mount -t proc proc mnt/proc
setsid sleep 1000 &
setsid sh -c 'i=0; while :; do i=$((i+1)); mkdir -p "$1/mnt/etc/$i" "$1/files/$i"; done' sh "$1" &
echo built
sleep 0.2
`

// TestMain lets the test binary stand in for a factory that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BUILDER_TEST_FACTORY"); dir != "" {
		if err := buildOnce(context.Background(), dir, io.Discard); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func buildOnce(ctx context.Context, dir string, log io.Writer) error {
	if err := Claim(ctx, Local{}, dir); err != nil {
		return err
	}
	env := []string{"PATH=" + DefaultPath, "BUILD=" + dir}
	err := Local{}.Run(ctx, Command{Args: []string{"sh", "-c", tool, "sh", dir}, Env: env, WorkDir: dir, Stdout: log, Stderr: log})
	return errors.Join(err, Cleanup(context.WithoutCancel(ctx), Local{}, dir))
}

// processes are those whose environment, or whose mounts, name a work directory.
func processes(t *testing.T, dir string) (found []string) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, proc := range dirs {
		for _, file := range []string{"environ", "mountinfo"} {
			data, _ := os.ReadFile(filepath.Join(proc, file)) // it may be gone
			if strings.Contains(string(data), dir) {
				found = append(found, proc+"/"+file)
			}
		}
	}
	return found
}

func loops(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").Output()
	require.NoError(t, err)
	return string(out)
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	require.NoFileExists(t, dir)
	require.NoFileExists(t, dir+".owner")
	require.Empty(t, processes(t, dir))
	require.NotContains(t, loops(t), dir)
}

func TestBuildLeavesNothing(t *testing.T) {
	needs.Root(t)
	needs.Tools(t, "losetup", "sfdisk", "partx", "mkfs.ext4")
	dir := filepath.Join(t.TempDir(), "build")
	var log strings.Builder
	require.NoError(t, buildOnce(t.Context(), dir, &log), log.String())
	require.Equal(t, "built\n", log.String())
	nothingLeft(t, dir)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	require.ErrorIs(t, buildOnce(ctx, dir, &firstWrite{do: cancel}), context.Canceled)
	nothingLeft(t, dir)
}

// TestKilledFactory kills a factory at random moments, the first ones while it
// cleans up. Nothing but loop devices outlives it, and the next goes on by itself.
// IMAGEFACTORY_TEST_KILLS says how often.
func TestKilledFactory(t *testing.T) {
	needs.Root(t)
	needs.Tools(t, "losetup", "sfdisk", "partx", "mkfs.ext4")
	dir := filepath.Join(t.TempDir(), "build")
	t.Cleanup(func() { require.NoError(t, Cleanup(context.Background(), Local{}, dir)) })
	factory := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "BUILDER_TEST_FACTORY="+dir)
		cmd.Stderr = os.Stderr
		return cmd
	}
	began := time.Now()
	require.NoError(t, factory().Run())
	usual := time.Since(began)
	kills := 4
	if n, err := strconv.Atoi(os.Getenv("IMAGEFACTORY_TEST_KILLS")); err == nil {
		kills = n
	}
	killed := 0
	for i := range kills {
		cmd := factory()
		require.NoError(t, cmd.Start())
		time.Sleep(time.Duration(rand.Int64N(int64(usual))))
		if i%3 == 0 { // once the build is over, in Cleanup
			for j := 0; j < 1000 && !cleaning(dir); j++ {
				time.Sleep(time.Millisecond)
			}
		}
		_ = cmd.Process.Kill()
		if cmd.Wait() != nil {
			killed++
		}
		// The kernel takes some time to tear a namespace down.
		require.Eventually(t, func() bool { return len(processes(t, "BUILD="+dir)) == 0 && len(mounted(dir)) == 0 }, 10*time.Second, 10*time.Millisecond)
	}
	require.Positive(t, killed)
	require.NoError(t, factory().Run())
	nothingLeft(t, dir)
}

// cleaning reports whether a cleanup of dir runs.
func cleaning(dir string) bool {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range procs {
		data, _ := os.ReadFile(name)
		if strings.HasSuffix(string(data), "\x00cleanup\x00"+dir+"\x00") {
			return true
		}
	}
	return false
}

func mounted(dir string) (found []string) {
	infos, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, name := range infos {
		if data, _ := os.ReadFile(name); strings.Contains(string(data), dir+"/") {
			found = append(found, name)
		}
	}
	return found
}

// TestCleanupOnAnotherFileSystem has a work directory on a file system of its own:
// when the build's namespace is gone the kernel calls a loop device's file by a
// path that the host does not have.
func TestCleanupOnAnotherFileSystem(t *testing.T) {
	needs.Root(t)
	needs.Tools(t, "losetup", "mount")
	top := t.TempDir()
	require.NoError(t, exec.Command("mount", "-t", "tmpfs", "tmpfs", top).Run())
	t.Cleanup(func() { require.NoError(t, exec.Command("umount", top).Run()) })
	dir := filepath.Join(top, "build")
	before := loops(t)
	require.NoError(t, Claim(t.Context(), Local{}, dir))
	require.NoError(t, Local{}.Run(t.Context(), Command{
		Args: []string{"sh", "-c", `truncate -s 4M "$1/disk" && losetup --find "$1/disk"`, "sh", dir}, WorkDir: dir,
	}))
	require.NotEqual(t, before, loops(t))
	require.NoError(t, Cleanup(t.Context(), Local{}, dir))
	require.Equal(t, before, loops(t))
	require.NoDirExists(t, dir)
}

func TestCleanupRefuses(t *testing.T) {
	needs.Root(t)
	top := t.TempDir()
	dir := filepath.Join(top, "precious")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data"), 0o755))
	for _, name := range []string{dir, "/", "//", "/..", "relative", "/tmp/*", "/a\nb", ""} {
		require.Error(t, Cleanup(t.Context(), Local{}, name), "%q", name)
		require.Error(t, Claim(t.Context(), Local{}, name), "%q", name)
	}
	require.DirExists(t, filepath.Join(dir, "data"))
	empty := filepath.Join(top, "empty")
	require.NoError(t, os.Mkdir(empty, 0o755))
	require.NoError(t, Cleanup(t.Context(), Local{}, empty))
	require.NoDirExists(t, empty)
	require.NoError(t, Cleanup(t.Context(), Local{}, empty), "where nothing is there is nothing to do")

	// What is mounted on the host is not the build's: nothing is removed through it.
	require.NoError(t, Claim(t.Context(), Local{}, empty))
	require.NoError(t, os.Mkdir(filepath.Join(empty, "mnt"), 0o755))
	require.NoError(t, exec.Command("mount", "--bind", dir, filepath.Join(empty, "mnt")).Run())
	require.ErrorContains(t, Cleanup(t.Context(), Local{}, empty), "something is mounted below")
	require.NoError(t, exec.Command("umount", filepath.Join(empty, "mnt")).Run())
	require.DirExists(t, filepath.Join(dir, "data"))
	require.NoError(t, Cleanup(t.Context(), Local{}, empty))
	nothingLeft(t, empty)
}

// A cleanup that was cut after it has removed some, or all, is completed.
func TestCleanupIsCompleted(t *testing.T) {
	needs.Root(t)
	dir := filepath.Join(t.TempDir(), "build")
	for _, also := range []string{"driver", ""} {
		require.NoError(t, Claim(t.Context(), Local{}, dir))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, also)))
		require.NoError(t, Claim(t.Context(), Local{}, dir))
		require.NoError(t, Cleanup(t.Context(), Local{}, dir))
		nothingLeft(t, dir)
	}
	err := Local{}.Run(t.Context(), Command{Args: []string{"true"}, WorkDir: dir})
	require.Error(t, err, "no build without a claim")
}

// Where namespaces are refused no build is begun.
func TestNamespacesRefused(t *testing.T) {
	needs.Root(t)
	dir := filepath.Join(t.TempDir(), "build")
	cmd := exec.Command(needs.Tools(t, "setpriv")[0], "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", os.Args[0])
	cmd.Env = append(os.Environ(), "BUILDER_TEST_FACTORY="+dir)
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "cannot run builds in mount and PID namespaces of their own")
	require.Contains(t, string(out), "Operation not permitted")
	nothingLeft(t, dir)
}
