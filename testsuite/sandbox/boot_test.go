//go:build linux

// These tests look for processes in /proc.

package sandbox

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox/network"
)

// box is a sandbox with what the tests say of the image beside its path.
type box struct {
	QEMU
	Image
}

func (b box) boot(ctx context.Context, path string) (*Machine, error) {
	b.Path = path
	return b.Boot(ctx, b.Image)
}

// helperQEMU is a QEMU whose program is this test's, in the given mode.
func helperQEMU(t *testing.T, mode string) box {
	t.Helper()
	t.Setenv(helperEnv, mode)
	t.Setenv("HELPER_DIR", t.TempDir())
	return box{QEMU{Binary: os.Args[0], Img: os.Args[0], Accel: "tcg"},
		Image{WorkDir: t.TempDir(), ConsoleLog: filepath.Join(t.TempDir(), "console.log")}}
}

// assertNothingLeft checks that no file of the sandbox remains and no process
// has its directory in its arguments.
func assertNothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.Empty(t, processesWith(dir))
}

func processesWith(word string) []int { return processesOf("cmdline", word) }

// processesOf are the processes that have a word in a file of theirs in /proc.
func processesOf(file, word string) []int {
	var pids []int
	lines, _ := filepath.Glob("/proc/[0-9]*/" + file)
	for _, path := range lines {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), word) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestBoot(t *testing.T) {
	q := helperQEMU(t, "good")
	m, err := q.boot(t.Context(), qcow2File(t, nil))
	require.NoError(t, err)
	assert.Equal(t, "linux", m.Target.User)
	assert.Equal(t, helperPassword, m.Target.Password)
	assert.Regexp(t, `^ecs-[0-9a-f]{4}$`, m.Hostname)
	assert.EqualValues(t, 4<<30, m.ImageBytes)
	assert.EqualValues(t, 8<<30, m.DiskBytes)
	assert.NotEmpty(t, processesWith(q.WorkDir))
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	assertNothingLeft(t, q.WorkDir)
	log, err := os.ReadFile(q.ConsoleLog)
	require.NoError(t, err)
	assert.Contains(t, string(log), "password [redacted]")
	assert.NotContains(t, string(log), helperPassword)
}

func TestBootQEMUDies(t *testing.T) {
	q := helperQEMU(t, "die")
	image := qcow2File(t, nil)
	_, err := q.boot(t.Context(), image)
	require.ErrorIs(t, err, ErrDied)
	assert.EqualError(t, err, "cannot boot "+image+": QEMU ended: exit status 3: qemu-system-x86_64: disk on fire")
	var boot *BootError
	require.ErrorAs(t, err, &boot)
	assert.Equal(t, "SeaBIOS\nDebian GNU/Linux 12\n"+
		"Login hint: user linux, password [redacted] (emergency console access only)", boot.Console)
	assertNothingLeft(t, q.WorkDir)
}

func TestBootGuestNeverAnswers(t *testing.T) {
	q := helperQEMU(t, "silent")
	q.BootTimeout = 300 * time.Millisecond
	_, err := q.boot(t.Context(), qcow2File(t, nil))
	require.ErrorIs(t, err, ErrNoAnswer)
	assertNothingLeft(t, q.WorkDir)
}

func TestBootWrongHostKey(t *testing.T) {
	q := helperQEMU(t, "wrong-key")
	_, err := q.boot(t.Context(), qcow2File(t, nil))
	var keyErr *HostKeyError
	require.ErrorAs(t, err, &keyErr)
	assertNothingLeft(t, q.WorkDir)
}

func TestBootCancelled(t *testing.T) {
	q := helperQEMU(t, "silent")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	_, err := q.boot(ctx, qcow2File(t, nil))
	require.ErrorIs(t, err, context.Canceled)
	assertNothingLeft(t, q.WorkDir)
}

func TestBootPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	q := helperQEMU(t, "good")
	q.Port = l.Addr().(*net.TCPAddr).Port
	_, err = q.boot(t.Context(), qcow2File(t, nil))
	require.ErrorIs(t, err, ErrPortInUse)
	assert.Contains(t, err.Error(), "127.0.0.1:"+strconv.Itoa(q.Port))
	assertNothingLeft(t, q.WorkDir)
}

func TestBootWithoutQEMU(t *testing.T) {
	q := helperQEMU(t, "good")
	q.Binary = "/nonexistent/qemu"
	_, err := q.boot(t.Context(), qcow2File(t, nil))
	require.ErrorIs(t, err, os.ErrNotExist)
	assertNothingLeft(t, q.WorkDir)
}

func TestBootUnknownAccelerator(t *testing.T) {
	q := helperQEMU(t, "good")
	q.Accel = "xen"
	image := qcow2File(t, nil)
	_, err := q.boot(t.Context(), image)
	assert.EqualError(t, err, "cannot boot "+image+`: cannot use accelerator "xen": want kvm or tcg`)
}

// A parent that is killed cannot clean up; its QEMU ends all the same.
func TestQEMUEndsWithKilledParent(t *testing.T) {
	q := helperQEMU(t, "parent")
	t.Setenv("HELPER_DIR", q.WorkDir)
	t.Setenv("HELPER_IMAGE", qcow2File(t, nil))
	parent := exec.Command(os.Args[0])
	require.NoError(t, parent.Start())
	require.Eventually(t, func() bool { return len(processesWith(q.WorkDir)) == 1 }, time.Minute, 10*time.Millisecond)
	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()
	require.Eventually(t, func() bool { return len(processesWith(q.WorkDir)) == 0 }, time.Minute, 10*time.Millisecond)
}

// On a full disk QEMU halts the guest without a word: Boot has to say it.
func TestBootFullDisk(t *testing.T) {
	needs.Root(t)
	small := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", small, "tmpfs", 0, "size=96m"))
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	q := helperQEMU(t, "silent")
	q.WorkDir = small
	time.AfterFunc(500*time.Millisecond, func() { // what a guest would write
		_ = os.WriteFile(filepath.Join(small, "overlay-grown"), make([]byte, 64<<20), 0o600)
	})
	_, err := q.boot(t.Context(), qcow2File(t, nil))
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.Contains(t, err.Error(), "MiB are free")
	_, err = q.boot(t.Context(), qcow2File(t, nil))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, os.Remove(filepath.Join(small, "overlay-grown")))
	assertNothingLeft(t, small)
}

func TestUnsafeImages(t *testing.T) {
	be := binary.BigEndian
	for name, change := range map[string]func(h []byte){
		"no qcow2":           func(h []byte) { copy(h, "QED\x00") },
		"version":            func(h []byte) { be.PutUint32(h[4:], 4) },
		"backing file":       func(h []byte) { be.PutUint64(h[8:], 104); be.PutUint32(h[16:], 11) },
		"encrypted":          func(h []byte) { be.PutUint32(h[32:], 2) },
		"external data file": func(h []byte) { be.PutUint64(h[72:], 4) },
		"no size":            func(h []byte) { be.PutUint64(h[24:], 0) },
		"huge":               func(h []byte) { be.PutUint64(h[24:], 1<<62) },
	} {
		t.Run(name, func(t *testing.T) {
			q := helperQEMU(t, "good")
			_, err := q.boot(t.Context(), qcow2File(t, change))
			require.ErrorIs(t, err, ErrUnsafeImage)
			assertNothingLeft(t, q.WorkDir)
		})
	}
	_, err := imageSize(t.TempDir())
	require.ErrorIs(t, err, ErrUnsafeImage)
}

func TestArguments(t *testing.T) {
	q := QEMU{}
	q.setDefaults()
	var v Variant
	require.NoError(t, v.setDefaults(&q))
	mac := net.HardwareAddr{0xfa, 0x16, 0x3e, 1, 2, 3}
	args, err := q.args(&guest{Machine: new(Machine), variant: v, image: "/images/a,b.qcow2", dir: "/tmp/x", network: network.Config{MAC: mac}})
	require.NoError(t, err)
	line := strings.Join(args, " ")
	assert.Contains(t, line, "-netdev stream,id=net0,server=off,addr.type=fd,addr.str=3")
	assert.Contains(t, line, "-device virtio-net-pci,netdev=net0,romfile=,addr=0x10,mac=fa:16:3e:01:02:03")
	assert.Contains(t, line, `"filename":"/images/a,b.qcow2","read-only":true`)
	assert.Contains(t, line, "-nodefaults -no-user-config")
	assert.Contains(t, line, "-sandbox on")
	assert.Equal(t, 1, strings.Count(line, "-netdev"))
}

func TestProbeAccel(t *testing.T) {
	qemu := needs.Tools(t, "qemu-system-x86_64")[0]
	require.NoError(t, probe(t.Context(), qemu, "tcg"), "the probe guest must run where every guest does")
	t.Logf("this machine: %s", ProbeAccel(t.Context(), qemu))
	t.Setenv(helperEnv, "silent")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, probe(ctx, os.Args[0], "kvm"))
	t.Setenv(helperEnv, "die")
	require.ErrorIs(t, probe(t.Context(), os.Args[0], "kvm"), errProbe)
}
