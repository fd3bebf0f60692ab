package sandbox

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// newReader makes the machine from packages, once for all tests of a process.
func newReader(t testing.TB) Reader {
	t.Helper()
	needs.Tools(t, "qemu-system-x86_64", "qemu-img", "apt-get", "apt-cache", "dpkg-deb")
	r, err := MakeReader(t.Context(), filepath.Join(os.TempDir(), "imagefactory-test-reader"))
	if err != nil && strings.Contains(err.Error(), "apt") {
		needs.Missing(t, err.Error())
	}
	require.NoError(t, err)
	r.Accel, r.WorkDir = "tcg", t.TempDir()
	return r
}

func TestUntilSecret(t *testing.T) {
	for _, size := range []int{1, 3, 7, 100} {
		var got bytes.Buffer
		u := &untilSecret{out: &got, secret: []byte("SECRET"), seen: make(chan struct{})}
		for part := range slices.Chunk([]byte("SECRE before SECRE, theSECSECRET"), size) {
			_, err := u.Write(part)
			require.NoError(t, err)
		}
		<-u.seen
		require.Equal(t, "SECRE before SECRE, theSEC", got.String())
	}
}

func command(t testing.TB, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
}

// disk makes a qcow2 image of three partitions: ext4 with a tree of all kinds of files,
// vfat, and swap. It needs root for the owners and devices.
func disk(t *testing.T) string {
	needs.Root(t)
	needs.Tools(t, "sfdisk", "mkfs.ext4", "mkfs.vfat", "debugfs", "mkswap")
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	for _, d := range []string{"etc", "dir with space"} {
		require.NoError(t, os.MkdirAll(filepath.Join(tree, d), 0o755))
	}
	write := func(name, text string, mode os.FileMode) {
		require.NoError(t, os.WriteFile(filepath.Join(tree, name), []byte(text), 0o600))
		require.NoError(t, os.Chmod(filepath.Join(tree, name), mode))
	}
	write("etc/shadow", "root:*:\n", 0o640)
	require.NoError(t, os.Chown(filepath.Join(tree, "etc/shadow"), 0, 42))
	write("setuid", "#!/bin/sh\n", 0o755|os.ModeSetuid)
	write("line\nbreak", "x", 0o644)
	write("not \xff utf-8", "y", 0o644)
	require.NoError(t, os.Link(filepath.Join(tree, "setuid"), filepath.Join(tree, "zhard")))
	require.NoError(t, os.Symlink("/etc/shadow", filepath.Join(tree, "link")))
	require.NoError(t, syscall.Mknod(filepath.Join(tree, "device"), syscall.S_IFBLK|0o660, 8<<8|1))
	require.NoError(t, syscall.Mkfifo(filepath.Join(tree, "pipe"), 0o600))
	require.NoError(t, syscall.Mknod(filepath.Join(tree, "dir with space", "socket"), syscall.S_IFSOCK|0o600, 0))

	part := func(name string, mkfs ...string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		require.NoError(t, os.Truncate(file, 64<<20))
		command(t, mkfs[0], append(mkfs[1:], file)...)
		return file
	}
	ext4 := part("ext4", "mkfs.ext4", "-q", "-L", "root", "-d", tree)
	capability := filepath.Join(dir, "capability")
	require.NoError(t, os.WriteFile(capability, []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0o600))
	command(t, "debugfs", "-w", "-R", "ea_set -f "+capability+" /setuid security.capability", ext4)
	vfat := part("vfat", "mkfs.vfat", "-n", "ESP")
	swap := part("swap", "mkswap", "-q")

	raw := filepath.Join(dir, "disk.raw")
	require.NoError(t, os.WriteFile(raw, nil, 0o600))
	require.NoError(t, os.Truncate(raw, 256<<20))
	table := exec.CommandContext(t.Context(), "sfdisk", "-q", raw)
	table.Stdin = strings.NewReader("label: gpt\nstart=2048, size=131072\nstart=133120, size=131072, type=U\nstart=264192, size=131072, type=S\n")
	out, err := table.CombinedOutput()
	require.NoError(t, err, string(out))
	for file, start := range map[string]string{ext4: "2048", vfat: "133120", swap: "264192"} {
		command(t, "dd", "if="+file, "of="+raw, "bs=512", "seek="+start, "conv=notrunc", "status=none")
	}
	image := filepath.Join(dir, "disk.qcow2")
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
	return image
}

func TestReader(t *testing.T) {
	r, image := newReader(t), disk(t)
	before, err := os.ReadFile(image)
	require.NoError(t, err)
	archive, volumes, err := r.Open(t.Context(), image)
	require.NoError(t, err)
	defer archive.Close()
	require.Len(t, volumes, 3)
	require.Equal(t, []bool{true, true, false}, []bool{volumes[0].Read, volumes[1].Read, volumes[2].Read})
	require.True(t, volumes[2].Harmless())

	var got bytes.Buffer
	files := map[string]*tar.Header{}
	content := map[string]string{}
	a := tar.NewReader(io.TeeReader(archive, &got))
	for {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		data, err := io.ReadAll(a)
		require.NoError(t, err)
		files[h.Name], content[h.Name] = h, string(data)
	}
	_, err = io.Copy(io.Discard, archive)
	require.NoError(t, err)

	require.Equal(t, int64(0o640), files["./p1/etc/shadow"].Mode)
	require.Equal(t, 42, files["./p1/etc/shadow"].Gid)
	require.Equal(t, int64(0o4755), files["./p1/setuid"].Mode)
	require.Contains(t, files["./p1/setuid"].PAXRecords, "SCHILY.xattr.security.capability")
	require.Equal(t, byte(tar.TypeLink), files["./p1/zhard"].Typeflag)
	require.Equal(t, "/etc/shadow", files["./p1/link"].Linkname)
	require.Equal(t, []int64{8, 1}, []int64{files["./p1/device"].Devmajor, files["./p1/device"].Devminor})
	require.Equal(t, byte(tar.TypeFifo), files["./p1/pipe"].Typeflag)
	require.Equal(t, "x", content["./p1/line\nbreak"])
	require.Equal(t, "y", content["./p1/not \xff utf-8"])
	require.Contains(t, files, "./p2/")
	require.Equal(t, "/files/p1/dir with space/socket\x00", content["sockets"])
	after, err := os.ReadFile(image)
	require.NoError(t, err)
	require.Equal(t, before, after, "the image is only read")
	require.NoError(t, archive.Close())
	left, err := os.ReadDir(r.WorkDir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestReaderRefuses has disks that cannot be read to their end: the archive
// must not look complete.
func TestReaderRefuses(t *testing.T) {
	needs.Tools(t, "mkfs.ext4")
	r := newReader(t)
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	require.NoError(t, os.WriteFile(raw, nil, 0o600))
	require.NoError(t, os.Truncate(raw, 64<<20))
	command(t, "mkfs.ext4", "-q", raw)
	f, err := os.OpenFile(raw, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{0xff, 0xff}, 1024+0x58) // the size of its inodes
	require.NoError(t, errors.Join(err, f.Close()))
	image := filepath.Join(dir, "damaged.qcow2")
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
	archive, _, err := r.Open(t.Context(), image)
	require.NoError(t, err)
	defer archive.Close()
	_, err = io.Copy(io.Discard, archive)
	require.ErrorIs(t, err, ErrNotRead)
	require.ErrorContains(t, err, "cannot mount disk as ext4")

	ctx, cancel := context.WithCancel(t.Context())
	archive, _, err = r.Open(ctx, image)
	require.NoError(t, err)
	defer archive.Close()
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = io.Copy(io.Discard, archive)
	require.ErrorIs(t, err, context.Canceled)
}

// BenchmarkReader reads the image that the environment names. The processor's
// time is QEMU's, all threads together, which other load changes less.
func BenchmarkReader(b *testing.B) {
	image := os.Getenv("IMAGEFACTORY_TEST_IMAGE")
	if image == "" {
		b.Skip("needs an image in IMAGEFACTORY_TEST_IMAGE")
	}
	r := newReader(b)
	cpu := func() float64 {
		var u syscall.Rusage
		require.NoError(b, syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u))
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	before := cpu()
	for b.Loop() {
		archive, _, err := r.Open(b.Context(), image)
		require.NoError(b, err)
		n, err := io.Copy(io.Discard, archive)
		require.NoError(b, err)
		require.NoError(b, archive.Close())
		b.SetBytes(n)
	}
	b.ReportMetric((cpu()-before)/float64(b.N), "cpu-s/op")
}
