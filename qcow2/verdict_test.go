package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

var (
	mutations = flag.Int("mutations", 250, "`number` of damaged images, and of streams, that are compared with QEMU")
	seedFlag  = flag.Uint64("seed", 0, "of what is random in these tests (default from the clock)")
)

// clockSeed returns the seed of this run and prints it.
func clockSeed(t testing.TB) uint64 {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("again with -seed %d", seed)
	return seed
}

// TestVerdicts damages images at what their structure says is worth damaging.
// What QEMU opens and finds clean we find clean, and nothing else.
func TestVerdicts(t *testing.T) {
	seed := clockSeed(t)
	dir := t.TempDir()
	guest(t, dir)
	images := verdictImages(t, dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b"), make([]byte, 1<<20), 0o600)) // a backing file
	var mu sync.Mutex
	var group sync.WaitGroup
	counts := map[string]int{}
	numbers := make(chan int)
	for worker := range 2 {
		group.Go(func() {
			path := filepath.Join(dir, fmt.Sprint("bad", worker))
			for n := range numbers {
				rnd := rand.New(rand.NewPCG(seed, uint64(n)))
				m := mutator{rnd: rnd, image: bytes.Clone(images[n%len(images)])}
				m.mutate()
				kind := verdict(t, path, m, seed, n)
				mu.Lock()
				counts[kind]++
				mu.Unlock()
			}
		})
	}
	for n := range *mutations {
		numbers <- n
	}
	close(numbers)
	group.Wait()
	t.Logf("%v", counts)
	assert.Zero(t, counts["wrong"])
	assert.Greater(t, counts["clean"], *mutations/50, "some mutations should be harmless")
	assert.Less(t, counts["not comparable"], *mutations/5)
}

// verdict compares what we say of one image with what QEMU says.
func verdict(t *testing.T, path string, m mutator, seed uint64, n int) string {
	if !assert.NoError(t, os.WriteFile(path, m.image, 0o600)) {
		return "wrong"
	}
	peer, text := qemuVerdict(t, path)
	start := time.Now()
	r := bytes.NewReader(m.image)
	_, inspectErr := qcow2.Inspect(r, r.Size())
	result, err := qcow2.Check(context.Background(), r, r.Size())
	took := time.Since(start)
	ours := "not clean"
	if inspectErr == nil && err == nil && result.Clean() {
		ours = "clean"
	}
	assert.Lessf(t, took, 2*time.Second, "-seed %d, image %d: %s", seed, n, m.what)
	if peer == "not comparable" || peer == ours {
		return peer
	}
	var problems []string
	if result != nil {
		problems = result.Problems
	}
	t.Errorf("image %d of -seed %d is %s for QEMU and %s for us\nQEMU: %s\nwe: %v %v\n%s", n, seed, peer, ours, text, err, problems, m.what)
	return "wrong"
}

// qemuVerdict says whether qemu-img check and qemu-img info find an image
// clean.
func qemuVerdict(t *testing.T, path string) (string, string) {
	img := needs.Tools(t, "qemu-img")[0]
	for _, args := range [][]string{{"check", "-f", "qcow2", path}, {"info", "-f", "qcow2", path}} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		cmd := exec.CommandContext(ctx, img, args...)
		cmd.Dir = filepath.Dir(path)
		out, err := cmd.CombinedOutput()
		late := ctx.Err() != nil
		cancel()
		var exit *exec.ExitError
		switch text := string(out); {
		case late:
			return "not comparable", "took too long"
		case err != nil && !errors.As(err, &exit):
			return "not comparable", err.Error()
		case strings.Contains(text, "key-secret"): // has no key
			return "not comparable", text
		case err != nil && (strings.Contains(text, "Could not open backing file") || strings.Contains(text, "No such file")):
			return "not comparable", text
		case err != nil:
			return "not clean", text
		}
	}
	return "clean", ""
}

// verdictImages makes the images that are damaged.
func verdictImages(t *testing.T, dir string) [][]byte {
	var out [][]byte
	snapshots := [][]string{{"snapshot", "-c", "one"}, {"snapshot", "-c", "two"}}
	bitmaps := [][]string{{"bitmap", "--add", "-g", "512"}, {"bitmap", "--add"}}
	for _, v := range []variant{
		{name: "v3", options: "cluster_size=4096"},
		{name: "v2", options: "cluster_size=4096,compat=0.10"},
		{name: "smallest", options: "cluster_size=512"},
		{name: "v2-smallest", options: "cluster_size=512,compat=0.10"},
		{name: "64k"},
		{name: "zlib", options: "cluster_size=4096", args: []string{"-c"}},
		{name: "zstd", options: "cluster_size=16k,compression_type=zstd", args: []string{"-c"}},
		{name: "extended", options: "cluster_size=16k,extended_l2=on"},
		{name: "narrow", options: "cluster_size=2048,refcount_bits=1"},
		{name: "wide", options: "cluster_size=2048,refcount_bits=64"},
		{name: "snapshots", options: "cluster_size=4096", after: snapshots},
		{name: "v2-snapshots", options: "cluster_size=4096,compat=0.10", after: snapshots},
		{name: "bitmaps", options: "cluster_size=4096", after: bitmaps},
		{name: "external", options: "data_file=external.data"},
		{name: "external-raw", options: "data_file=external-raw.data,data_file_raw=on"},
	} {
		b, err := os.ReadFile(v.build(t, dir))
		require.NoError(t, err)
		out = append(out, b)
	}
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-b", "raw", "-F", "raw", "backing")
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "empty", "0")
	for _, name := range []string{"backing", "empty"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		out = append(out, b)
	}
	return out
}

// A mutator damages an image and tells what it did.
type mutator struct {
	rnd   *rand.Rand
	image []byte
	what  string
}

func (m *mutator) cluster() int { return 1 << min(21, max(9, m.u32(20))) }
func (m *mutator) u32(at int) int {
	if at < 0 || at+4 > len(m.image) {
		return 0
	}
	return int(binary.BigEndian.Uint32(m.image[at:]))
}

func (m *mutator) u64(at int) int {
	if at < 0 || at+8 > len(m.image) {
		return 0
	}
	return int(binary.BigEndian.Uint64(m.image[at:]) & 0x00ffffffffffffff)
}

// put writes the low width bytes of v, if they are in the file.
func (m *mutator) put(at, width int, v uint64) {
	if at < 0 || at+width > len(m.image) {
		return
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	old := bytes.Clone(m.image[at : at+width])
	copy(m.image[at:], b[8-width:])
	m.what += fmt.Sprintf("[%#x: %x → %x] ", at, old, b[8-width:])
}

func pick[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

func (m *mutator) mutate() {
	for range 1 + m.rnd.IntN(2) {
		pick(m.rnd, m.headerField, m.headerField, m.extensions, m.extensions, m.backingName, m.tableEntry,
			m.tableEntry, m.snapshot, m.bitmap, m.length)()
	}
}

// value returns a value that is on the edge of something.
func (m *mutator) value(old uint64) uint64 {
	c, size := uint64(m.cluster()), uint64(len(m.image))
	edges := []uint64{0, 1, 2, 3, 4, 6, 7, 8, 9, 14, 16, 21, 22, 40, 72, 80, 104, 105, 112, 120, 1023, 1024, 65535, 65536, 65537,
		c - 8, c - 1, c, c + 1, 2 * c, size, size - 1, size &^ (c - 1), (size + c - 1) &^ (c - 1), (size+c-1)&^(c-1) + c, (size + 8*c) &^ (c - 1),
		1 << 20, 4 << 20, 8 << 20, 1 << 31, 1<<31 - 1, 1<<32 - 1, 1 << 32, 1 << 55, 1 << 56, 1<<56 - c, 1<<62 - c, 1 << 62, 1<<63 - c, 1 << 63, -c, 1<<64 - 1}
	switch m.rnd.IntN(8) {
	case 0, 1, 2:
		return edges[m.rnd.IntN(len(edges))]
	case 3:
		return old ^ 1<<m.rnd.IntN(64)
	case 4:
		return old + pick(m.rnd, 1, 2, 8, 512, c, 8*c)
	case 5:
		return old - pick(m.rnd, 1, 2, 8, 512, c)
	case 6:
		return old ^ 1<<m.rnd.IntN(12)
	}
	return m.rnd.Uint64()
}

func (m *mutator) field(at, width int) {
	old := uint64(0)
	for n := range width {
		if at+n < len(m.image) && at >= 0 {
			old = old<<8 | uint64(m.image[at+n])
		}
	}
	m.put(at, width, m.value(old))
}

func (m *mutator) headerField() {
	f := pick(m.rnd, [2]int{4, 4}, [2]int{8, 8}, [2]int{16, 4}, [2]int{20, 4}, [2]int{24, 8}, [2]int{32, 4}, [2]int{36, 4}, [2]int{40, 8},
		[2]int{48, 8}, [2]int{56, 4}, [2]int{60, 4}, [2]int{64, 8}, [2]int{72, 8}, [2]int{80, 8}, [2]int{88, 8}, [2]int{96, 4}, [2]int{100, 4},
		[2]int{104, 1}, [2]int{105, 1}, [2]int{64, 8}, [2]int{88, 8}, [2]int{79, 1}, [2]int{95, 1})
	m.field(f[0], f[1])
}

// extensions replaces the extensions.
func (m *mutator) extensions() {
	at := 72
	if m.u32(4) == 3 {
		at = max(104, m.u32(100))
	}
	end := m.cluster()
	if n := m.u64(8); n != 0 && n < end {
		end = n
	}
	for range m.rnd.IntN(4) {
		typ := pick(m.rnd, uint64(0xe2792aca), 0x6803f857, 0x23852875, 0x0537be77, 0x44415441, 0x12345678, 0)
		length := pick(m.rnd, 0, 1, 3, 8, 12, 14, 15, 16, 17, 24, 25, 48, 96, end-at-8, end-at-7, end-at, end-at-16, 1<<31)
		m.put(at, 4, typ)
		m.put(at+4, 4, uint64(length))
		content := pick(m.rnd, "raw", "qcow2", "external.data", "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x18\x00\x00\x00\x00\x00\x00\x10\x00", "")
		if at+8+len(content) <= len(m.image) {
			copy(m.image[at+8:], content)
		}
		at += 8 + (length+7)&^7
		if at > end || at+16 > len(m.image) {
			return
		}
	}
	if m.rnd.IntN(4) > 0 {
		m.put(at, 8, 0)
	}
}

// backingName lets the header name a backing file.
func (m *mutator) backingName() {
	c := m.cluster()
	at := pick(m.rnd, 0, 1, 8, 72, 76, 80, 100, 104, 112, 200, c-1, c, c-3, c+1)
	length := pick(m.rnd, 0, 0, 1, 1, 3, 1023, 1024, c-at, c-at+1)
	m.put(8, 8, uint64(at))
	m.put(16, 4, uint64(length))
	if m.rnd.IntN(2) == 0 && at >= 112 && length > 0 {
		m.put(at, 1, 'b')
		if length > 1 {
			m.put(at+1, 1, 0) // a name ends at a zero byte
		}
	}
}

// tableEntry damages an entry of an L1, L2 or refcount table or of a refcount
// block.
func (m *mutator) tableEntry() {
	c := m.cluster()
	l1, l1Size, refcounts := m.u64(40), max(1, min(m.u32(36), 1<<16)), m.u64(48)
	entry := l1 + 8*m.rnd.IntN(l1Size)
	switch m.rnd.IntN(5) {
	case 0:
		m.field(entry, 8)
	case 1, 2:
		table := m.u64(entry) &^ 511
		if table > 0 {
			m.field(table+8*m.rnd.IntN(c/8), 8)
		}
	case 3:
		m.field(refcounts+8*m.rnd.IntN(2), 8)
	case 4:
		if block := m.u64(refcounts); block > 0 {
			m.field(block+m.rnd.IntN(min(c, 1024)), pick(m.rnd, 1, 2, 8))
		}
	}
}

// snapshot damages the snapshot table, or makes one.
func (m *mutator) snapshot() {
	at := m.u64(64)
	if m.u32(60) == 0 {
		m.put(60, 4, pick(m.rnd, uint64(0), 0, 1, 2, 65536, 65537))
		m.put(64, 8, pick(m.rnd, uint64(0), 1, 8, 512, uint64(m.cluster()), uint64(len(m.image)), 1<<40, 1<<63, 1<<63-uint64(m.cluster()), -uint64(m.cluster())))
		return
	}
	f := pick(m.rnd, [2]int{0, 8}, [2]int{8, 4}, [2]int{12, 2}, [2]int{14, 2}, [2]int{32, 4}, [2]int{36, 4}, [2]int{40, 8}, [2]int{48, 8}, [2]int{56, 8}, [2]int{56, 1}, [2]int{64, 1})
	m.field(at+f[0], f[1])
}

// bitmap damages the bitmaps extension, its directory or a table.
func (m *mutator) bitmap() {
	at := bytes.Index(m.image[:min(len(m.image), m.cluster())], []byte{0x23, 0x85, 0x28, 0x75})
	if at < 0 {
		m.headerField()
		return
	}
	directory := m.u64(at + 24)
	switch m.rnd.IntN(4) {
	case 0:
		f := pick(m.rnd, [2]int{4, 4}, [2]int{8, 4}, [2]int{12, 4}, [2]int{16, 8}, [2]int{24, 8})
		m.field(at+f[0], f[1])
	case 1, 2:
		f := pick(m.rnd, [2]int{0, 8}, [2]int{8, 4}, [2]int{12, 4}, [2]int{16, 1}, [2]int{17, 1}, [2]int{18, 2}, [2]int{20, 4}, [2]int{24, 1}, [2]int{25, 1})
		m.field(directory+f[0], f[1])
	case 3:
		m.field(m.u64(directory)+8*m.rnd.IntN(4), 8)
	}
}

// length cuts the file or appends to it.
func (m *mutator) length() {
	c := m.cluster()
	switch m.rnd.IntN(8) {
	case 0:
		m.image = append(m.image, make([]byte, pick(m.rnd, 1, 511, 512, c, 3*c+5))...)
	case 1:
		m.image = m.image[:m.rnd.IntN(len(m.image)+1)]
	case 2:
		m.image = m.image[:max(0, len(m.image)-pick(m.rnd, 1, 512, c-1, c, c+1, 2*c))]
	default:
		m.headerField()
		return
	}
	m.image = slices.Clip(m.image)
	m.what += fmt.Sprintf("[%d bytes] ", len(m.image))
}
