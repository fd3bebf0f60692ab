package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
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
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

var (
	mutations    = flag.Int("mutations", 60, "damaged images that the program is run on")
	mutationSeed = flag.Uint64("mutation-seed", 0, "how they are damaged (default by the clock)")
)

// mostMemory is what the program may use on any image.
const mostMemory = 64 << 20

// TestMutations runs the built program on images that were damaged by somebody
// who knows the format. Whatever they say, it needs little memory, says so
// with an exit code of its own, and ends when it is asked to. How long it took
// is logged, not judged.
func TestMutations(t *testing.T) {
	bin := buildProgram(t)
	seed := *mutationSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-args -mutations %d -mutation-seed %d", *mutations, seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	good := seedImages(t)
	var most measured
	slow := map[string]int{}
	measure := newMeasurer(t)
	for n := range *mutations {
		image := &mutant{rnd: rnd, b: bytes.Clone(good[rnd.IntN(len(good))])}
		for range 1 + rnd.IntN(3) {
			image.damage()
		}
		require.NoError(t, image.write("damaged"))
		for _, line := range []string{"info -json damaged", "info -policy public damaged", "check damaged", image.pick(
			"map -json damaged", "map damaged", "compare damaged damaged", "digest damaged", "compact damaged out", "info -disk damaged")} {
			m := measure.run(t, append([]string{bin}, strings.Fields(line)...)...)
			if !assert.LessOrEqual(t, m.Memory, int64(mostMemory), "image %d: %s", n, line) ||
				!assert.Contains(t, []int{0, 1, 2}, m.Code, "image %d: %s: %s", n, line, m.Stderr) {
				keep := filepath.Join(os.TempDir(), "qcow2-damaged-image")
				require.NoError(t, image.write(keep))
				t.Fatalf("the image is kept as %s", keep)
			}
			most.Memory = max(most.Memory, m.Memory)
			if m.Stopped {
				slow[strings.Fields(line)[0]]++
				continue
			}
			if m.Wall > most.Wall {
				most.Wall, most.line = m.Wall, m.line
			}
		}
	}
	t.Logf("at most %.1f MiB; longest %v (%s); stopped: %v after %v", float64(most.Memory)/(1<<20), most.Wall, most.line, slow, stopAfter)
}

// stopAfter is when a command is asked to end: a small image can hold
// petabytes of data.
const stopAfter = 2 * time.Second

// measured is what a run took.
type measured struct {
	Code    int
	Stderr  string
	Wall    time.Duration
	Memory  int64 // bytes
	Stopped bool  // by a signal, as it took long
	Stuck   bool  // and was killed after all
	line    string
}

// measurer is a process that runs and measures others: what Linux tells of a
// process's memory is at least that of the process that started it, and this
// one is larger than what is measured.
type measurer struct {
	to   *json.Encoder
	from *json.Decoder
}

func newMeasurer(t *testing.T) *measurer {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), measurerEnv+"=1")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { assert.NoError(t, errors.Join(in.Close(), cmd.Wait())) })
	return &measurer{json.NewEncoder(in), json.NewDecoder(out)}
}

func (m *measurer) run(t *testing.T, args ...string) (out measured) {
	t.Helper()
	require.NoError(t, m.to.Encode(args))
	require.NoError(t, m.from.Decode(&out))
	out.line = strings.Join(args[1:], " ")
	require.False(t, out.Stuck, "%v does not end when it is interrupted", args)
	return out
}

const measurerEnv = "QCOW2_TEST_MEASURER"

// measureAll is what the measurer's process does.
func measureAll() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var args []string
		if in.Decode(&args) != nil || out.Encode(measure(args)) != nil {
			return
		}
	}
}

func measure(args []string) (m measured) {
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return measured{Code: -1, Stderr: err.Error()}
	}
	stop := time.AfterFunc(stopAfter, func() { _ = cmd.Process.Signal(os.Interrupt) })
	kill := time.AfterFunc(stopAfter+patience, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	m = measured{Code: cmd.ProcessState.ExitCode(), Stderr: stderr.String(), Wall: time.Since(start), Stopped: !stop.Stop(), Stuck: !kill.Stop()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		m.Memory = int64(usage.Maxrss) << 10 //nolint:unconvert // 32 bits on some machines
	}
	return m
}

// seedImages makes images of many kinds and enters their directory.
func seedImages(t *testing.T) [][]byte {
	t.Helper()
	tools := needs.Tools(t, "qemu-img", "qemu-io")
	t.Chdir(t.TempDir())
	command := func(args ...string) {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoErrorf(t, err, "%v: %s", args, out)
	}
	disk := bytes.Repeat([]byte("text of a disk. "), 20_000)
	clear(disk[100_000:200_000])
	require.NoError(t, os.WriteFile("disk", disk, 0o600))
	var out [][]byte
	for _, args := range []string{
		"cluster_size=512", "cluster_size=4096", "cluster_size=65536", "cluster_size=2M", "cluster_size=4096,compat=0.10",
		"cluster_size=16k,extended_l2=on", "cluster_size=2M,extended_l2=on", "cluster_size=4096,refcount_bits=1", "cluster_size=2M,refcount_bits=64",
		"-c cluster_size=4096", "-c cluster_size=65536,compression_type=zstd", "-c cluster_size=2M",
	} {
		options, compressed := strings.CutPrefix(args, "-c ")
		line := []string{tools[0], "convert", "-f", "raw", "-O", "qcow2", "-o", options}
		if compressed {
			line = append(line, "-c")
		}
		command(append(line, "disk", "image")...)
		if strings.Contains(options, "4096") {
			if !strings.Contains(options, "refcount_bits") {
				command(tools[0], "snapshot", "-c", "one", "image")
			}
			command(tools[1], "-f", "qcow2", "-c", "write -z 0 20k", "image")
		}
		b, err := os.ReadFile("image")
		require.NoError(t, err)
		out = append(out, b)
	}
	return out
}

// mutant is an image that is being damaged.
type mutant struct {
	rnd  *rand.Rand
	b    []byte
	size int64 // of the file, if it goes on with a hole
}

func (m *mutant) pick(list ...string) string { return list[m.rnd.IntN(len(list))] }

func (m *mutant) write(name string) error {
	err := os.WriteFile(name, m.b, 0o600)
	if m.size > int64(len(m.b)) {
		err = errors.Join(err, os.Truncate(name, m.size))
	}
	return err
}

// field writes a number of 4 or 8 bytes, where it fits.
func (m *mutant) field(at, width int, v uint64) {
	if at < 0 || at+width > len(m.b) {
		return
	}
	if width == 4 {
		binary.BigEndian.PutUint32(m.b[at:], uint32(v))
		return
	}
	binary.BigEndian.PutUint64(m.b[at:], v)
}

func (m *mutant) word(at int) uint64 {
	if at < 0 || at+8 > len(m.b) {
		return 0
	}
	return binary.BigEndian.Uint64(m.b[at:])
}

// number is one that a table or header could have.
func (m *mutant) number() uint64 {
	cluster := uint64(1) << (m.word(16) & 31)
	switch m.rnd.IntN(8) {
	case 0:
		return 0
	case 1:
		return ^uint64(0)
	case 2:
		return m.rnd.Uint64()
	case 3:
		return uint64(1) << m.rnd.IntN(64)
	case 4:
		return m.rnd.Uint64N(8)
	case 5:
		return 1<<62 | m.rnd.Uint64()>>m.rnd.IntN(40) // compressed
	}
	return m.rnd.Uint64N(uint64(len(m.b))/cluster+2)*cluster | m.rnd.Uint64N(2)<<63
}

// damage changes one thing.
func (m *mutant) damage() {
	l1, reftable := int(m.word(40)&(1<<40-1)), int(m.word(48)&(1<<40-1))
	cluster := 1 << (m.word(16) & 31)
	tables := []int{l1, reftable, int(m.word(l1) & (1<<40 - 1)), int(m.word(reftable) & (1<<40 - 1)), int(m.word(64) & (1<<40 - 1))}
	table := tables[m.rnd.IntN(len(tables))]
	switch m.rnd.IntN(10) {
	case 0, 1: // a field of the header
		fields := [][2]int{{4, 4}, {8, 8}, {16, 4}, {20, 4}, {24, 8}, {32, 4}, {36, 4}, {40, 8}, {48, 8}, {56, 4}, {60, 4}, {64, 8}, {72, 8}, {80, 8}, {88, 8}, {96, 4}, {100, 4}, {104, 8}}
		f := fields[m.rnd.IntN(len(fields))]
		m.field(f[0], f[1], m.number())
	case 2, 3: // an entry of a table
		m.field(table+8*m.rnd.IntN(max(1, cluster/8)), 8, m.number())
	case 4: // a table full of the same, or of two kinds
		v, w := m.number(), m.number()
		for n := 0; n < min(cluster, 1<<16)/8; n += 2 {
			m.field(table+8*n, 8, v)
			m.field(table+8*n+8, 8, w)
		}
	case 5: // a long L1 table whose entries share a table, for a disk as large as that allows
		entries := 1 << m.rnd.IntN(18)
		at := (len(m.b) + cluster - 1) / cluster * cluster
		m.b = append(m.b, make([]byte, at+8*entries-len(m.b))...)
		for n := range entries {
			m.field(at+8*n, 8, m.word(l1))
		}
		m.field(40, 8, uint64(at))
		m.field(36, 4, uint64(entries))
		bits := 2*(m.word(16)&31) - 3 - m.word(72)>>4&1
		m.field(24, 8, uint64(entries)<<bits)
	case 6: // a hole behind the image
		m.size = int64(len(m.b)) + m.rnd.Int64N(1<<m.rnd.IntN(42)+1)
	case 7: // cut
		m.b = m.b[:max(104, m.rnd.IntN(len(m.b)))]
	case 8: // many snapshots, or a long refcount table
		m.field(60, 4, m.rnd.Uint64N(1<<16))
		m.field(56, 4, m.rnd.Uint64N(1<<12))
	case 9: // a bit anywhere
		m.b[m.rnd.IntN(len(m.b))] ^= 1 << m.rnd.IntN(8)
	}
}

// TestEndless has the worst image that is known, of which every cluster is
// data, for the library's own promise.
func TestEndless(t *testing.T) {
	b := endless()
	image, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), qcow2.OpenOptions{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err = qcow2.Digest(ctx, image, qcow2.Options{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, image.Close())
}
