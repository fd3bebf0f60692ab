package diskfile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/diskfile"
)

const content = "what was written"

// put writes content to a destination of any kind.
func put(name string, o diskfile.Options) error {
	o.Stream = func(w io.Writer) error { _, err := io.WriteString(w, content); return err }
	return diskfile.Write(context.Background(), name, o, func(dst io.WriterAt) error {
		_, err := dst.WriteAt([]byte(content), 0)
		return err
	})
}

// as runs the test's binary as the user nobody, who puts content to a file.
func as(t *testing.T, bin, name string) error {
	t.Helper()
	cmd := exec.Command(bin)
	cmd.Env = []string{"DISKFILE_PUT=" + name}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.New(string(out))
	}
	return nil
}

func TestMain(m *testing.M) {
	if name := os.Getenv("DISKFILE_PUT"); name != "" {
		if err := put(name, diskfile.Options{}); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// shape is what a user sees of a file.
type shape struct {
	mode  fs.FileMode
	uid   uint32
	nlink uint64
	text  string
}

func look(t *testing.T, name string) shape {
	t.Helper()
	stat, err := os.Lstat(name)
	require.NoError(t, err)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	s := stat.Sys().(*syscall.Stat_t)
	return shape{stat.Mode(), s.Uid, uint64(s.Nlink), string(b)} //nolint:unconvert // 32 bits on some machines
}

func write(t *testing.T, name string, mode fs.FileMode) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte("what was there before, which is longer"), 0o600))
	require.NoError(t, os.Chmod(name, mode))
}

func TestRegularFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	uid := uint32(os.Geteuid())
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)

	require.NoError(t, put("new", diskfile.Options{}))
	assert.Equal(t, shape{0o640, uid, 1, content}, look(t, "new"), "the umask holds")
	for _, mode := range []fs.FileMode{0o600, 0o644, 0o640, 0o666} {
		write(t, "old", mode)
		require.NoError(t, put("old", diskfile.Options{NoSync: true}))
		assert.Equal(t, shape{mode, uid, 1, content}, look(t, "old"))
	}
	write(t, "setuid", 0o755|fs.ModeSetuid)
	require.NoError(t, put("setuid", diskfile.Options{}))
	assert.Equal(t, shape{0o755, uid, 1, content}, look(t, "setuid"))

	write(t, "one", 0o600)
	require.NoError(t, os.Link("one", "two"))
	require.NoError(t, put("one", diskfile.Options{}))
	assert.Equal(t, shape{0o600, uid, 2, content}, look(t, "two"), "both names have the new content")

	long := strings.Repeat("n", 255)
	require.NoError(t, put(long, diskfile.Options{}))
	require.ErrorIs(t, put("missing/new", diskfile.Options{}), fs.ErrNotExist)
	require.ErrorContains(t, put(".", diskfile.Options{}), "a directory is not")
	require.Error(t, put("", diskfile.Options{}))
	nothingLeft(t, ".")
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, ".*.partial"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestLinks(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("a/b", 0o755))
	require.NoError(t, os.MkdirAll("c", 0o755))
	require.NoError(t, os.Symlink("a/b", "dir"))
	for link, target := range map[string]string{
		"to-file": "a/file", "dangling": "c/new", "absolute": filepath.Join(mustGetwd(t), "c", "absolute"),
		"c/up": "../a/up", "dir/beside": "../beside", "second": "to-file",
	} {
		require.NoError(t, os.Symlink(target, link))
	}
	write(t, "a/file", 0o600)
	for link, file := range map[string]string{
		"to-file": "a/file", "dangling": "c/new", "absolute": "c/absolute", "c/up": "a/up", "dir/beside": "a/beside", "second": "a/file",
	} {
		require.NoError(t, put(link, diskfile.Options{}), link)
		stat, err := os.Lstat(link)
		require.NoError(t, err)
		assert.Equal(t, fs.ModeSymlink, stat.Mode().Type(), link)
		assert.Equal(t, content, look(t, file).text, link)
	}
	assert.Equal(t, fs.FileMode(0o600), look(t, "a/file").mode)
	require.NoError(t, os.Symlink("loop", "loop"))
	require.Error(t, put("loop", diskfile.Options{}))
	for _, dir := range []string{".", "a", "a/b", "c"} {
		nothingLeft(t, dir)
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	return dir
}

// TestDescriptor writes through a link as /dev/stdout is one. The file that a
// shell has opened must stay the one that has the content.
func TestDescriptor(t *testing.T) {
	t.Chdir(t.TempDir())
	f, err := os.Create("redirected")
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Symlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), "stdout"))
	require.NoError(t, put("stdout", diskfile.Options{}))
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	assert.Equal(t, content, string(b))
	stat, err := os.Lstat("stdout")
	require.NoError(t, err)
	assert.Equal(t, fs.ModeSymlink, stat.Mode().Type())
}

// TestFailure leaves no part of an image under the output's name.
func TestFailure(t *testing.T) {
	t.Chdir(t.TempDir())
	failed := errors.New("failed")
	attempt := func(ctx context.Context, name string, err error) error {
		return diskfile.Write(ctx, name, diskfile.Options{}, func(dst io.WriterAt) error {
			_, _ = dst.WriteAt([]byte("half"), 0)
			return err
		})
	}
	ctx := context.Background()
	require.ErrorIs(t, attempt(ctx, "new", failed), failed)
	assert.NoFileExists(t, "new")
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, attempt(canceled, "new", nil), context.Canceled)
	assert.NoFileExists(t, "new")
	write(t, "old", 0o600)
	before := look(t, "old")
	require.ErrorIs(t, attempt(ctx, "old", failed), failed)
	assert.Equal(t, before, look(t, "old"), "the old file is as it was")
	require.NoError(t, os.Link("old", "second"))
	require.ErrorIs(t, attempt(ctx, "old", failed), failed)
	assert.Empty(t, look(t, "second").text, "written in place: empty, not half")
	nothingLeft(t, ".")
}

func TestInputIsNotWritten(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "in", 0o600)
	require.NoError(t, os.Symlink("in", "link"))
	require.NoError(t, os.Link("in", "hard"))
	stat, err := os.Stat("in")
	require.NoError(t, err)
	before := look(t, "in")
	for _, name := range []string{"in", "link", "hard", "./in"} {
		err := put(name, diskfile.Options{IsInput: func(f os.FileInfo) bool { return diskfile.Same(stat, f) }})
		require.ErrorContains(t, err, "it is what is read")
	}
	assert.Equal(t, before, look(t, "in"))
}

func TestPipes(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, syscall.Mkfifo("pipe", 0o600))
	_, _, err := diskfile.Open("pipe")
	require.ErrorContains(t, err, "a pipe is not a regular file or block device")

	got := make(chan string, 1)
	go func() {
		b, _ := os.ReadFile("pipe")
		got <- string(b)
	}()
	require.NoError(t, put("pipe", diskfile.Options{}))
	assert.Equal(t, content, <-got)

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	endless := diskfile.Options{Stream: func(w io.Writer) error {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
	}}
	require.ErrorIs(t, diskfile.Write(ctx, "pipe", endless, nil), context.DeadlineExceeded, "nobody reads")
	reader, err := os.OpenFile("pipe", os.O_RDWR, 0) // reads nothing
	require.NoError(t, err)
	defer reader.Close()
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, diskfile.Write(ctx, "pipe", endless, nil), context.DeadlineExceeded)
	require.ErrorContains(t, diskfile.Write(ctx, "pipe", diskfile.Options{}, nil), "a pipe is not")
}

func TestCharacterDevices(t *testing.T) {
	needs.Root(t)
	t.Chdir(t.TempDir())
	for name, minor := range map[string]int{"null": 3, "full": 7} {
		if err := syscall.Mknod(name, syscall.S_IFCHR|0o666, 1<<8|minor); err != nil {
			needs.Missing(t, "cannot make device nodes: "+err.Error())
		}
	}
	if f, err := os.Open("null"); err != nil {
		needs.Missing(t, "cannot open device nodes: "+err.Error())
	} else {
		_ = f.Close()
	}
	require.NoError(t, put("null", diskfile.Options{}))
	require.ErrorIs(t, put("full", diskfile.Options{}), syscall.ENOSPC)
	for _, name := range []string{"null", "full"} {
		stat, err := os.Lstat(name)
		require.NoError(t, err)
		assert.NotZero(t, stat.Mode()&fs.ModeCharDevice)
		_, _, err = diskfile.Open(name)
		require.ErrorContains(t, err, "a character device is not")
	}
}

func TestBlockDevice(t *testing.T) {
	needs.Root(t)
	losetup := needs.Tools(t, "losetup")[0]
	t.Chdir(t.TempDir())
	const size = 8 << 20
	require.NoError(t, os.WriteFile("backing", bytes.Repeat([]byte("old "), size/4), 0o600))
	out, err := exec.Command(losetup, "--find", "--show", "backing").Output()
	if err != nil {
		needs.Missing(t, "no loop device: "+err.Error())
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { assert.NoError(t, exec.Command(losetup, "--detach", loop).Run()) })
	require.NoError(t, os.Symlink(loop, "disk"))

	require.ErrorContains(t, put("disk", diskfile.Options{SizeBytes: size + 1}), "the device has 8388608 bytes")
	err = diskfile.Write(context.Background(), "disk", diskfile.Options{SizeBytes: size}, func(dst io.WriterAt) error {
		_, truncates := dst.(interface{ Truncate(int64) error })
		assert.False(t, truncates)
		_, err := dst.WriteAt([]byte(content), 0)
		zeros := dst.(interface{ WriteZeros(off, length int64) error })
		return errors.Join(err, zeros.WriteZeros(1<<20, 1<<20), zeros.WriteZeros(3<<20+5, 100), zeros.WriteZeros(1<<20, 0))
	})
	require.NoError(t, err)
	f, n, err := diskfile.Open("disk")
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, int64(size), n)
	got, err := io.ReadAll(f)
	require.NoError(t, err)
	want := bytes.Repeat([]byte("old "), size/4)
	copy(want, content)
	clear(want[1<<20 : 2<<20])
	clear(want[3<<20+5 : 3<<20+105])
	assert.True(t, bytes.Equal(want, got))
	stat, err := os.Lstat("disk")
	require.NoError(t, err)
	assert.Equal(t, fs.ModeSymlink, stat.Mode().Type())
	device, err := os.Stat("disk")
	require.NoError(t, err)
	assert.True(t, diskfile.Same(device, device))
}

// TestAsUser writes as a user who owns nothing but what the test gives to it.
func TestAsUser(t *testing.T) {
	needs.Root(t)
	dir := t.TempDir()
	t.Chdir(dir)
	self, err := os.Executable()
	require.NoError(t, err)
	b, err := os.ReadFile(self)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("bin", b, 0o755))
	require.NoError(t, errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755))) // both are the test's own
	bin := filepath.Join(dir, "bin")
	if stat, err := os.Stat(os.TempDir()); err != nil || stat.Mode()&0o001 == 0 {
		needs.Missing(t, "the directory for temporary files is not for every user")
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.Mkdir("shut", 0o755))
	require.NoError(t, os.Mkdir("open", 0o777))
	require.NoError(t, os.Chmod("open", 0o777))

	write(t, "shut/writable", 0o666)
	require.NoError(t, as(t, bin, at("shut/writable")))
	assert.Equal(t, shape{0o666, 0, 1, content}, look(t, "shut/writable"))

	write(t, "open/writable", 0o666)
	require.NoError(t, as(t, bin, at("open/writable")))
	assert.Equal(t, shape{0o666, 0, 1, content}, look(t, "open/writable"), "the owner stays")

	for _, name := range []string{"open/read-only", "open/private"} {
		write(t, name, map[string]fs.FileMode{"open/read-only": 0o444, "open/private": 0o600}[name])
		before := look(t, name)
		require.ErrorContains(t, as(t, bin, at(name)), "permission denied")
		assert.Equal(t, before, look(t, name))
	}
	write(t, "open/own", 0o600)
	require.NoError(t, os.Chown("open/own", 65534, 65534))
	require.NoError(t, as(t, bin, at("open/own")))
	assert.Equal(t, shape{0o600, 65534, 1, content}, look(t, "open/own"))
	require.NoError(t, put("open/own", diskfile.Options{}))
	assert.Equal(t, shape{0o600, 65534, 1, content}, look(t, "open/own"), "root leaves the owner")

	require.ErrorContains(t, as(t, bin, at("shut/new")), "permission denied")
	nothingLeft(t, "shut")
	nothingLeft(t, "open")
}

func TestFullDisk(t *testing.T) {
	needs.Root(t)
	mount := needs.Tools(t, "mount", "umount")
	dir := t.TempDir()
	if out, err := exec.Command(mount[0], "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir).CombinedOutput(); err != nil {
		needs.Missing(t, "cannot mount a tmpfs: "+string(out))
	}
	t.Cleanup(func() { assert.NoError(t, exec.Command(mount[1], dir).Run()) })
	write(t, filepath.Join(dir, "old"), 0o600)
	for _, name := range []string{"new", "old"} {
		err := diskfile.Write(context.Background(), filepath.Join(dir, name), diskfile.Options{}, func(dst io.WriterAt) error {
			_, err := dst.WriteAt(make([]byte, 1<<20), 0)
			return err
		})
		require.ErrorIs(t, err, syscall.ENOSPC)
	}
	assert.NoFileExists(t, filepath.Join(dir, "new"))
	assert.NotEmpty(t, look(t, filepath.Join(dir, "old")).text)
	nothingLeft(t, dir)
	require.NoError(t, exec.Command(mount[0], "-o", "remount,ro", dir).Run())
	require.ErrorIs(t, put(filepath.Join(dir, "old"), diskfile.Options{}), syscall.EROFS)
	require.ErrorIs(t, put(filepath.Join(dir, "new"), diskfile.Options{}), syscall.EROFS)
}

func TestAttributesStay(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "old", 0o600)
	if err := syscall.Setxattr("old", "user.note", []byte("kept"), 0); err != nil {
		t.Skip("no extended attributes here: ", err)
	}
	require.NoError(t, put("old", diskfile.Options{}))
	b := make([]byte, 10)
	n, err := syscall.Getxattr("old", "user.note", b)
	require.NoError(t, err)
	assert.Equal(t, "kept", string(b[:n]))
	assert.Equal(t, content, look(t, "old").text)
}
