package qcow2_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// readAll opens a file and reads its disk.
func readAll(t *testing.T, path string, o qcow2.OpenOptions) ([]byte, error) {
	t.Helper()
	image, err := qcow2.OpenFile(path, o)
	if err != nil {
		return nil, err
	}
	defer func() { assert.NoError(t, image.Close()) }()
	return io.ReadAll(io.NewSectionReader(image, 0, image.Size()))
}

// TestBackingNames opens overlays whose backing files are named in all ways,
// from another directory, as QEMU does.
func TestBackingNames(t *testing.T) {
	dir := t.TempDir()
	allowed, outside := filepath.Join(dir, "allowed"), filepath.Join(dir, "outside")
	for _, d := range []string{"allowed/a/deep", "allowed/b", "outside"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	guest(t, outside)
	guest(t, filepath.Join(allowed, "b"))
	raw, err := os.ReadFile(filepath.Join(outside, "raw"))
	require.NoError(t, err)
	qemuImg(t, allowed, "convert", "-O", "qcow2", "b/raw", "b/base")
	require.NoError(t, os.Symlink("../b", filepath.Join(allowed, "a/tob")))
	require.NoError(t, os.Symlink("../b/raw", filepath.Join(allowed, "a/link")))
	require.NoError(t, os.Symlink("../../outside", filepath.Join(allowed, "a/out")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "raw"), filepath.Join(allowed, "a/outfile")))
	require.NoError(t, exec.Command("mkfifo", filepath.Join(allowed, "a/fifo")).Run())
	n := 0
	overlay := func(name, format string) string {
		n++
		path := filepath.Join(allowed, "a", fmt.Sprint("overlay", n))
		qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", format, path, "3M")
		return path
	}
	o := qcow2.OpenOptions{Dir: allowed}
	for _, name := range []string{"../b/raw", "./../b/raw", "tob/raw", "tob/../b/raw", "deep/../../b/raw", "link", "../../allowed/b/raw",
		filepath.Join(allowed, "b/raw"), "file:" + filepath.Join(allowed, "b/raw")} {
		path := overlay(name, "raw")
		require.True(t, bytes.Equal(raw, rawOf(t, path)), name) // so does QEMU
		got, err := readAll(t, path, o)
		if assert.NoError(t, err, name) {
			assert.True(t, bytes.Equal(raw, got), name)
		}
	}
	// Each name is relative to the file that gives it, not to the first.
	middle := filepath.Join(allowed, "b/middle")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", middle)
	top := overlay("../b/middle", "qcow2")
	got, err := readAll(t, top, o)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(raw, got))
	_, err = readAll(t, top, qcow2.OpenOptions{Dir: allowed, MaxDepth: 1})
	assert.ErrorContains(t, err, "more than 1 backing files")

	for name, why := range map[string]string{
		"../../outside/raw":                     "lies outside",
		filepath.Join(outside, "raw"):           "lies outside",
		"file:" + filepath.Join(outside, "raw"): "lies outside",
		"out/raw":                               "lies outside",
		"outfile":                               "lies outside",
		"/etc/passwd":                           "lies outside",
		"fifo":                                  "not a regular file",
		"deep":                                  "not a regular file",
		"missing":                               "no such file",
		"nbd://localhost/x":                     `the protocol "nbd"`,
		`json:{"driver":"raw","file":{"filename":"raw"}}`: "JSON",
	} {
		_, err := readAll(t, overlay(name, "raw"), o)
		assert.ErrorContains(t, err, why, name)
	}
	_, err = readAll(t, top, qcow2.OpenOptions{})
	assert.ErrorIs(t, err, qcow2.ErrUnsupported)
}

func TestBackingLoopOfFiles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "a", "1M")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-b", "../a", "-F", "qcow2", "sub/b")
	qemuImg(t, dir, "rebase", "-u", "-b", "sub/b", "-F", "qcow2", "a")
	_, err := readAll(t, filepath.Join(dir, "a"), qcow2.OpenOptions{Dir: dir, MaxDepth: 1000})
	require.ErrorIs(t, err, qcow2.ErrMalformed)
	assert.ErrorContains(t, err, "loop")
}

// TestInUse opens files that QEMU has open.
func TestInUse(t *testing.T) {
	dir := t.TempDir()
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "image", "1M")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-b", "image", "-F", "qcow2", "top")
	path := filepath.Join(dir, "image")
	hold := func(args ...string) (release func()) {
		cmd := exec.Command(needs.Tools(t, "qemu-io")[0], append(args, path)...)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = io.WriteString(in, "length\n")
		require.NoError(t, err)
		r := bufio.NewReader(out)
		for line := ""; !strings.Contains(line, "1 MiB"); { // it is open
			line, err = r.ReadString('\n')
			require.NoError(t, err)
		}
		return func() {
			require.NoError(t, in.Close())
			_, _ = io.Copy(io.Discard, r)
			require.NoError(t, cmd.Wait())
		}
	}
	release := hold("-f", "qcow2")
	_, err := readAll(t, path, qcow2.OpenOptions{})
	assert.ErrorIs(t, err, qcow2.ErrInUse)
	_, err = readAll(t, filepath.Join(dir, "top"), qcow2.OpenOptions{Dir: dir})
	assert.ErrorIs(t, err, qcow2.ErrInUse, "a backing file")
	_, err = readAll(t, path, qcow2.OpenOptions{Force: true})
	assert.NoError(t, err)
	release()
	_, err = readAll(t, path, qcow2.OpenOptions{})
	assert.NoError(t, err)
	release = hold("-r", "-f", "qcow2") // readers do not hurt each other
	_, err = readAll(t, path, qcow2.OpenOptions{})
	assert.NoError(t, err)
	release()
}

// TestSnapshots reads internal snapshots, of which the disk had another size.
func TestSnapshots(t *testing.T) {
	for _, compat := range []string{"0.10", "1.1"} {
		dir := t.TempDir()
		guest(t, dir)
		path := filepath.Join(dir, "image")
		qemuImg(t, dir, "convert", "-O", "qcow2", "-o", "cluster_size=4096,compat="+compat, "raw", "image")
		first := rawOf(t, path)
		qemuImg(t, dir, "snapshot", "-c", "first", "image")
		qemuIO(t, dir, "image", "write -P 5 100k 900k")
		second := rawOf(t, path)
		qemuImg(t, dir, "snapshot", "-c", "1", "image") // a name like another's ID
		if compat == "1.1" {
			qemuImg(t, dir, "resize", "-q", "image", "70M")
		}
		qemuIO(t, dir, "image", "write -P 6 0 2M")
		now := rawOf(t, path)
		for name, want := range map[string][]byte{"": now, "first": first, "1": first, "2": second} {
			got, err := readAll(t, path, qcow2.OpenOptions{Snapshot: name})
			require.NoError(t, err, name)
			assert.True(t, bytes.Equal(want, got), "%s %q", compat, name)
		}
		_, err := readAll(t, path, qcow2.OpenOptions{Snapshot: "none"})
		assert.ErrorContains(t, err, `no snapshot "none" among the 2`)
	}
}

// TestHostileSnapshots opens snapshots whose table lies.
func TestHostileSnapshots(t *testing.T) {
	const at, l1 = 4 << 16, 3 << 16
	entry := func(change func(b []byte)) *bytes.Reader {
		b := append(emptyImage(), make([]byte, 1<<16)...)
		b = put32(60, 1)(put64(64, at)(b))
		b = put64(at, l1)(put32(at+8, 1)(put32(at+12, 1<<16|1)(put32(at+36, 16)(put64(at+48, 64<<20)(b)))))
		copy(b[at+56:], "1n")
		change(b[at:])
		return bytes.NewReader(b)
	}
	for name, test := range map[string]struct {
		change func(b []byte)
		bad    bool
	}{
		"good":         {func([]byte) {}, false},
		"unaligned L1": {func(b []byte) { binary.BigEndian.PutUint64(b, l1+8) }, true},
		"L1 outside":   {func(b []byte) { binary.BigEndian.PutUint64(b, 1<<40) }, true},
		"L1 far out":   {func(b []byte) { binary.BigEndian.PutUint64(b, 1<<63) }, true},
		"huge L1":      {func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1<<31) }, true},
		"no L1":        {func(b []byte) { binary.BigEndian.PutUint32(b[8:], 0) }, true},
		"huge size":    {func(b []byte) { binary.BigEndian.PutUint64(b[48:], 1<<63) }, true},
		"large size":   {func(b []byte) { binary.BigEndian.PutUint64(b[48:], 1<<40) }, true},
		"no size":      {func(b []byte) { binary.BigEndian.PutUint64(b[48:], 0) }, false},
	} {
		r := entry(test.change)
		image, err := qcow2.Open(r, r.Size(), qcow2.OpenOptions{Snapshot: "n"})
		if test.bad {
			assert.ErrorIs(t, err, qcow2.ErrMalformed, name)
			continue
		}
		require.NoError(t, err, name)
		_, err = io.Copy(io.Discard, io.NewSectionReader(image, 0, image.Size()))
		assert.NoError(t, err, name)
	}
}

// TestOtherFormats gives files of other formats as qcow2 images.
func TestOtherFormats(t *testing.T) {
	dir := t.TempDir()
	guest(t, dir)
	want := map[string]string{}
	for format, name := range map[string]string{"vmdk": "VMDK", "vpc": "VHD", "vhdx": "VHDX", "vdi": "VDI", "qed": "QED", "parallels": "Parallels"} {
		qemuImg(t, dir, "convert", "-O", format, "raw", format)
		want[format] = name
	}
	qemuImg(t, dir, "convert", "-O", "vpc", "-o", "subformat=fixed", "raw", "fixed")
	want["fixed"] = "VHD"
	qemuImg(t, dir, "convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", "raw", "flat")
	want["flat"] = "VMDK"
	for _, run := range [][]string{{"gzip", "-k", "raw"}, {"xz", "-0", "-k", "raw"}, {"bzip2", "-1", "-k", "raw"}, {"zstd", "-q", "-k", "raw"},
		{"tar", "cf", "raw.tar", "raw"}, {"zip", "-q", "raw.zip", "raw"}, {"mksquashfs", "raw", "raw.squashfs", "-quiet"},
		{"genisoimage", "-quiet", "-o", "raw.iso", "raw"}, {"mkfs.ext4", "-q", "raw.ext4", "1M"}, {"mkfs.xfs", "-q", "-d", "file,name=raw.xfs,size=300m"}} {
		if _, err := exec.LookPath(run[0]); err != nil {
			t.Logf("without %s", run[0])
			continue
		}
		cmd := exec.Command(run[0], run[1:]...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoErrorf(t, err, "%v: %s", run, out)
	}
	files := func(name string, b []byte) { require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600)) }
	boot := make([]byte, 1024)
	boot[510], boot[511] = 0x55, 0xaa
	files("mbr", boot)
	files("gpt", append(boot[:512:512], "EFI PART"...))
	files("page", []byte("\n<!DOCTYPE HTML PUBLIC>404"))
	files("iso", append(make([]byte, 32769), "CD001"...))
	files("luks", append([]byte("LUKS\xba\xbe\x00\x01"), make([]byte, 4096)...))
	files("descriptor", []byte("# comment\n\nversion=1\n"))
	files("v1", append([]byte("QFI\xfb\x00\x00\x00\x01"), make([]byte, 512)...))
	for name, text := range map[string]string{"raw.gz": "gzip", "raw.xz": "xz file", "raw.bz2": "bzip2", "raw.zst": "zstd file", "raw.tar": "tar", "raw.zip": "zip",
		"raw.squashfs": "squashfs", "raw.iso": "ISO 9660", "raw.ext4": "file system (ext)", "raw.xfs": "XFS", "mbr": "boot sector", "gpt": "GUID", "page": "HTML",
		"iso": "ISO 9660", "luks": "LUKS", "v1": "version 1", "descriptor": ""} {
		want[name] = text
	}
	for name, text := range want {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			continue // its tool is missing
		}
		require.NoError(t, err)
		_, err = qcow2.Inspect(bytes.NewReader(b), int64(len(b)))
		assert.ErrorContains(t, err, text, name)
		if name != "v1" {
			assert.ErrorIs(t, err, qcow2.ErrNotQCOW2, name)
		}
		s := new(qcow2.Inspector)
		_, _ = s.Write(b[:len(b)/2])
		_, _ = s.Write(b[len(b)/2:])
		_, streamed := s.Info()
		assert.Equal(t, err, streamed, name)
	}
}

// TestContentFormat judges disks whose content QEMU takes for an image when it
// probes the raw file, and those whose content it does not.
func TestContentFormat(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "content")
	begin := func(n int, s string) []byte { return append(make([]byte, n), s...) }
	var hostile [][]byte
	for _, format := range []string{"qcow2", "qcow", "vmdk", "vpc", "vhdx", "vdi", "qed", "parallels"} {
		qemuImg(t, dir, "create", "-q", "-f", format, format, "10M")
		b, err := os.ReadFile(filepath.Join(dir, format))
		require.NoError(t, err)
		hostile = append(hostile, b[:min(len(b), 2<<20)])
	}
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-o", "data_file=data", "external", "1M")
	b, err := os.ReadFile(filepath.Join(dir, "external"))
	require.NoError(t, err)
	hostile = append(hostile, b, []byte("# x\n  \nversion=1\n"), []byte("#\r\n \r\nversion=3\r\n"), begin(0, "LUKS\xba\xbe\x00\x01"))
	innocent := [][]byte{{}, begin(510, "\x55\xaa"), []byte("# x\nversion=4\n"), []byte("x\nversion=1\n"), begin(4096, "QFI\xfb\x00\x00\x00\x03"), begin(0, "\x1f\x8b\x08")}
	for n, content := range append(hostile, innocent...) {
		content = append(content, make([]byte, 1<<20)...)
		content = content[:len(content)&^511]
		require.NoError(t, os.WriteFile(path, content, 0o600))
		var probed struct{ Format string }
		out, err := exec.Command(needs.Tools(t, "qemu-img")[0], "info", "--output=json", path).Output()
		if err == nil {
			require.NoError(t, json.Unmarshal(out, &probed))
			assert.Equal(t, n >= len(hostile), probed.Format == "raw", "%d: %s", n, probed.Format)
		}
		var packed memory
		_, err = qcow2.Compact(context.Background(), &packed, qcow2.Raw(bytes.NewReader(content), int64(len(content))), qcow2.CompactOptions{})
		require.NoError(t, err)
		for _, compressed := range []bool{true, false} {
			image := qcow2.Raw(bytes.NewReader(content), int64(len(content)))
			if compressed {
				image, err = qcow2.Open(bytes.NewReader(packed.b), int64(len(packed.b)), qcow2.OpenOptions{})
				require.NoError(t, err)
			}
			safety, err := image.Safety(qcow2.PublicPolicy())
			require.NoError(t, err)
			assert.Equal(t, n >= len(hostile), safety.Safe, "%d %v", n, safety.Findings)
			if !safety.Safe {
				assert.Equal(t, qcow2.FindContentFormat, safety.Findings[0].Name)
			}
		}
	}
}

// failing cannot be read beyond the header's cluster.
type failing struct {
	io.ReaderAt
	broken io.Reader
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off >= 1<<16 {
		return f.broken.Read(p)
	}
	return f.ReaderAt.ReadAt(p, off)
}

// TestZeroValues uses what nobody has filled in.
func TestZeroValues(t *testing.T) {
	var none *qcow2.Info
	assert.False(t, none.Safety(qcow2.Policy{Allow: []string{qcow2.FindNotInspected}}).Safe)
	info := new(qcow2.Info)
	assert.False(t, info.Safety(qcow2.PrivatePolicy()).Safe)
	assert.Equal(t, []string{qcow2.FindNotInspected}, names(info, qcow2.Policy{}))
	info.Header.Version = 3
	assert.False(t, info.Safety(qcow2.Policy{}).Safe)
	broken := iotest.ErrReader(errors.New("no cable"))
	info, err := qcow2.Inspect(&failing{bytes.NewReader(emptyImage()), broken}, 4<<16)
	require.ErrorContains(t, err, "no cable")
	assert.False(t, info.Safety(qcow2.PrivatePolicy()).Safe)
	info = new(qcow2.Info)
	assert.NotEmpty(t, info.String())
	_, err = json.Marshal(info)
	assert.NoError(t, err)
	assert.False(t, qcow2.Safety{}.Safe)
	assert.False(t, new(qcow2.CheckResult).Clean())
	assert.NotZero(t, new(qcow2.CheckResult).ExitCode())
	assert.NotContains(t, new(qcow2.CheckResult).String(), "No errors")
	assert.Equal(t, "qcow2 format error: no reason given (value 0x0 at offset 0)", new(qcow2.FormatError).Error())
	assert.NoError(t, new(qcow2.FormatError).Unwrap())
	assert.NotEmpty(t, qcow2.Finding{}.String())
	assert.NotEmpty(t, qcow2.Extent{}.String())
	assert.NotEmpty(t, qcow2.ExtensionType(0).String())
	_, err = new(qcow2.Inspector).Info()
	assert.ErrorIs(t, err, qcow2.ErrNotQCOW2)
	image := new(qcow2.Image)
	_, err = image.ReadAt(make([]byte, 1), 0)
	assert.ErrorIs(t, err, io.EOF)
	assert.Nil(t, image.Info())
	assert.Nil(t, image.Backing())
	for e, err := range image.Map(context.Background()) {
		t.Error("an extent of nothing", e, err)
	}
	_, err = image.Safety(qcow2.Policy{})
	assert.NoError(t, err)
	sum, err := qcow2.Digest(context.Background(), image, qcow2.Options{})
	assert.NoError(t, err)
	assert.NotEmpty(t, sum)
	_, err = qcow2.Compact(context.Background(), new(memory), image, qcow2.CompactOptions{})
	assert.NoError(t, err)
	assert.NoError(t, image.Close())
	_, err = qcow2.OpenFile("", qcow2.OpenOptions{})
	assert.Error(t, err)
}
