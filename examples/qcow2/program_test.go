package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// patience is how long a program may take to end that should end at once.
const patience = 60 * time.Second

// built is the program, in a directory that TestMain removes.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "qcow2-test-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "qcow2")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return bin, err
})

func TestMain(m *testing.M) {
	if os.Getenv(measurerEnv) != "" {
		measureAll()
		return
	}
	code := m.Run()
	if bin, err := built(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

func buildProgram(t *testing.T) string {
	t.Helper()
	bin, err := built()
	require.NoError(t, err)
	return bin
}

// endless is an image of 2 TiB of data, all in one cluster.
func endless() []byte {
	const bits, entries = 16, 4096
	b := make([]byte, 6<<bits)
	for at, v := range map[int]uint64{
		0: 0x514649fb<<32 | 3, 16: bits, 24: entries << (bits + bits - 3), 32: entries, 40: 3 << bits, 48: 1 << bits, 56: 1 << 32,
		96: 4<<32 | 104, 1 << bits: 2 << bits, 2 << bits: 0x0001000100010001,
	} {
		binary.BigEndian.PutUint64(b[at:], v)
	}
	for n := range entries {
		binary.BigEndian.PutUint64(b[3<<bits+8*n:], 1<<63|4<<bits)
	}
	for n := range 1 << (bits - 3) {
		binary.BigEndian.PutUint64(b[4<<bits+8*n:], 1<<63|5<<bits)
	}
	copy(b[5<<bits:], "data")
	return b
}

// runProgram runs a command line that must end, and returns its exit code.
func runProgram(t *testing.T, bin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	require.NoErrorf(t, ctx.Err(), "%v does not end", args)
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestInputsThatAreNoFiles must not wait for a pipe's writer.
func TestInputsThatAreNoFiles(t *testing.T) {
	bin := buildProgram(t)
	images(t)
	require.NoError(t, syscall.Mkfifo("pipe", 0o600))
	for _, line := range []string{"info pipe", "info -json -disk -policy public pipe", "check pipe", "map pipe", "map -f raw pipe", "convert pipe out",
		"convert -f raw pipe out", "compact pipe out", "compare pipe zlib.qcow2", "compare zlib.qcow2 pipe", "compare -F raw zlib.qcow2 pipe",
		"digest pipe", "digest -f raw pipe"} {
		code, _, stderr := runProgram(t, bin, strings.Fields(line)...)
		assert.Equal(t, 2, code, line)
		assert.Contains(t, stderr, "a pipe is not a regular file or block device", line)
	}
	assert.NoFileExists(t, "out")
	require.NoError(t, os.Remove("raw"))
	require.NoError(t, syscall.Mkfifo("raw", 0o600)) // what backing.qcow2 refers to
	code, _, stderr := runProgram(t, bin, "digest", "-files", ".", "backing.qcow2")
	assert.Equal(t, 2, code)
	assert.Contains(t, stderr, "not a regular file")
}

// TestSignals stops each command in the middle of work without an end.
func TestSignals(t *testing.T) {
	bin := buildProgram(t)
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("endless", endless(), 0o600))
	require.NoError(t, os.WriteFile("old", []byte("old"), 0o600))
	for _, test := range []struct {
		args   string
		signal syscall.Signal
	}{
		{"compact endless new", syscall.SIGINT}, {"compact endless new", syscall.SIGTERM}, {"compact endless new", syscall.SIGHUP},
		{"compact endless old", syscall.SIGHUP}, {"convert endless new", syscall.SIGHUP}, {"convert endless -", syscall.SIGINT},
		{"digest endless", syscall.SIGINT}, {"compare endless endless", syscall.SIGINT},
	} {
		cmd := exec.Command(bin, strings.Fields(test.args)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe() // which nobody reads
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		time.Sleep(200 * time.Millisecond)
		require.NoError(t, cmd.Process.Signal(test.signal))
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		assert.True(t, kill.Stop(), "%v does not end", test)
		_ = stdout.Close()
		assert.Equal(t, 2, cmd.ProcessState.ExitCode(), "%v: %v %s", test, cmd.ProcessState, &stderr)
		assert.Regexp(t, "canceled|signal received", stderr.String())
	}
	left, err := filepath.Glob("*")
	require.NoError(t, err)
	hidden, err := filepath.Glob(".*")
	require.NoError(t, err)
	assert.Equal(t, []string{"endless", "old"}, append(left, hidden...))
	b, err := os.ReadFile("old")
	require.NoError(t, err)
	assert.Equal(t, "old", string(b))
}

// TestNohup leaves a hang-up ignored that is ignored when the program starts.
func TestNohup(t *testing.T) {
	sh := needs.Tools(t, "sh")[0]
	bin := buildProgram(t)
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("endless", endless(), 0o600))
	cmd := exec.Command(sh, "-c", `trap "" HUP; exec "$0" digest endless`, bin)
	require.NoError(t, cmd.Start())
	time.Sleep(200 * time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	time.Sleep(200 * time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM), "it still runs")
	_ = cmd.Wait()
	assert.Equal(t, 2, cmd.ProcessState.ExitCode())
}

// TestStandardOutput writes the raw disk to what has no offsets.
func TestStandardOutput(t *testing.T) {
	bin := buildProgram(t)
	disk := images(t)
	require.NoError(t, os.Symlink("/proc/self/fd/1", "stdout"))
	for _, name := range []string{"-", "stdout"} {
		code, stdout, stderr := runProgram(t, bin, "convert", "zlib.qcow2", name)
		assert.Zero(t, code, stderr)
		assert.True(t, string(disk) == stdout, name)
		f, err := os.Create("redirected")
		require.NoError(t, err)
		cmd := exec.Command(bin, "convert", "zlib.qcow2", name)
		cmd.Stdout = f
		require.NoError(t, cmd.Run())
		_, err = f.Seek(0, io.SeekStart)
		require.NoError(t, err)
		got, err := io.ReadAll(f)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(disk, got), name)
		require.NoError(t, f.Close())
	}
	stat, err := os.Lstat("stdout")
	require.NoError(t, err)
	assert.Equal(t, os.ModeSymlink, stat.Mode().Type())
	code, _, stderr := runProgram(t, bin, "compact", "zlib.qcow2", "stdout")
	assert.Equal(t, 2, code)
	assert.Contains(t, stderr, "a pipe is not a regular file")
}

// TestOutputsOfTheProgram looks at what becomes of the user's files.
func TestOutputsOfTheProgram(t *testing.T) {
	bin := buildProgram(t)
	disk := images(t)
	require.NoError(t, os.WriteFile("private", nil, 0o600))
	require.NoError(t, os.Symlink("private", "link"))
	require.NoError(t, os.Symlink("zlib.qcow2", "input"))
	for _, name := range []string{"private", "link"} {
		code, _, stderr := runProgram(t, bin, "compact", "zlib.qcow2", name)
		require.Zero(t, code, stderr)
	}
	stat, err := os.Stat("private")
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), stat.Mode())
	stat, err = os.Lstat("link")
	require.NoError(t, err)
	assert.Equal(t, os.ModeSymlink, stat.Mode().Type())

	for _, line := range []string{"convert zlib.qcow2 input", "compact zlib.qcow2 zlib.qcow2", "compact -files . backing.qcow2 raw"} {
		code, _, stderr := runProgram(t, bin, strings.Fields(line)...)
		assert.Equal(t, 2, code, line)
		assert.Contains(t, stderr, "it is what is read", line)
	}
	got, err := os.ReadFile("raw")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(disk, got))
}

// TestOutputInUse has QEMU open what would be written over.
func TestOutputInUse(t *testing.T) {
	qemuIO := needs.Tools(t, "qemu-io")[0]
	bin := buildProgram(t)
	images(t)
	require.NoError(t, os.WriteFile("disk", make([]byte, 1<<20), 0o600))
	cmd := exec.Command(qemuIO, "-f", "raw", "disk")
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
	for _, line := range []string{"convert zlib.qcow2 disk", "compact zlib.qcow2 disk", "convert -force zlib.qcow2 disk"} {
		code, _, stderr := runProgram(t, bin, strings.Fields(line)...)
		assert.Equal(t, 2, code, line)
		assert.Contains(t, stderr, "cannot write disk: the file is in use", line)
	}
	require.NoError(t, in.Close())
	_, _ = io.Copy(io.Discard, r)
	require.NoError(t, cmd.Wait())
	code, _, stderr := runProgram(t, bin, "convert", "zlib.qcow2", "disk")
	assert.Zero(t, code, stderr)
}

// TestRawInputs gives raw disks to each command that reads a disk.
func TestRawInputs(t *testing.T) {
	disk := images(t)
	output := func(line string) string {
		var stdout bytes.Buffer
		require.NoError(t, run(context.Background(), strings.Fields(line), &stdout, new(bytes.Buffer)), line)
		return stdout.String()
	}
	output("compact -f raw raw out.qcow2")
	assert.Equal(t, "Images are identical.\n", output("compare -F raw out.qcow2 raw"))
	assert.Equal(t, "Images are identical.\n", output("compare -f raw raw out.qcow2"))
	assert.Equal(t, output("digest zlib.qcow2")[:64], output("digest -f raw raw")[:64])
	output("convert -f raw raw copy")
	b, err := os.ReadFile("copy")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(disk, b))
	assert.Contains(t, output("map -f raw raw"), "data at 0x0")
	for _, line := range []string{"compare zlib.qcow2 raw", "digest raw", "compact raw out2", "digest -f vmdk raw"} {
		assert.Error(t, run(context.Background(), strings.Fields(line), new(bytes.Buffer), new(bytes.Buffer)), "never guessed")
	}
}

// TestMapStreams has a map that is much longer than the image.
func TestMapStreams(t *testing.T) {
	bin := buildProgram(t)
	t.Chdir(t.TempDir())
	b := endless()
	for n := range 1 << 12 { // every second cluster, of 64 GiB
		binary.BigEndian.PutUint64(b[4<<16+16*n:], 0)
	}
	clear(b[3<<16+8*128 : 4<<16])
	require.NoError(t, os.WriteFile("image", b, 0o600))
	measure := newMeasurer(t)
	for _, json := range []string{"-json=false", "-json"} {
		cmd := exec.Command(bin, "map", json, "image")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := countLines(t, out, json == "-json")
		require.NoError(t, cmd.Wait())
		assert.Greater(t, lines, 1<<20)
		assert.LessOrEqual(t, measure.run(t, bin, "map", json, "image").Memory, int64(mostMemory))
	}
	var stdout bytes.Buffer
	require.NoError(t, os.WriteFile("empty", nil, 0o600))
	require.NoError(t, run(context.Background(), []string{"map", "-json", "-f", "raw", "empty"}, &stdout, io.Discard))
	assert.JSONEq(t, "[]", stdout.String())
}

func countLines(t *testing.T, r io.Reader, array bool) int {
	t.Helper()
	if !array {
		lines, buf := 0, make([]byte, 64<<10)
		for {
			n, err := r.Read(buf)
			lines += bytes.Count(buf[:n], []byte("\n"))
			if err != nil {
				return lines
			}
		}
	}
	d := json.NewDecoder(r)
	_, err := d.Token()
	require.NoError(t, err)
	lines := 0
	for d.More() {
		var e struct{ Length int64 }
		require.NoError(t, d.Decode(&e))
		require.Positive(t, e.Length)
		lines++
	}
	_, err = d.Token()
	require.NoError(t, err)
	return lines
}

func TestBar(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminal: ", err)
	}
	defer master.Close()
	show := bar(master)
	require.NotNil(t, show)
	for _, total := range []int64{0, 1, 1 << 57, 1 << 62, 1<<63 - 1} {
		for _, done := range []int64{0, total / 3, total / 2, total - total/7, total} {
			show(done, total)
		}
	}
}
