package qcow2_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// shared is an image whose L1 entries all have the same L2 table. It is not in
// memory, and counts how often each 4 KiB of it are read.
type shared struct {
	bits      int
	entries   int64
	virtual   int64
	extended  bool
	entry     func(n int64) uint64 // of the L2 table, 8 bytes
	refcounts uint64               // entry of the refcount table, each the same
	mu        sync.Mutex
	reads     map[int64]int
	total     int64
}

func (s *shared) cluster() int64 { return 1 << s.bits }
func (s *shared) l2At() int64    { return (3 + (s.entries*8+s.cluster()-1)/s.cluster()) * s.cluster() }
func (s *shared) Size() int64    { return s.l2At() + 2*s.cluster() }

func (s *shared) open(t *testing.T) *qcow2.Image {
	t.Helper()
	image, err := qcow2.Open(s, s.Size(), qcow2.OpenOptions{})
	require.NoError(t, err)
	return image
}

func (s *shared) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	if s.reads == nil {
		s.reads = make(map[int64]int)
	}
	for at := off &^ 4095; at < off+int64(len(p)); at += 4096 {
		s.reads[at]++
	}
	s.total += int64(len(p))
	s.mu.Unlock()
	n := int(min(int64(len(p)), max(0, s.Size()-off)))
	var word [8]byte
	for done := 0; done < n; {
		at := off + int64(done)
		binary.BigEndian.PutUint64(word[:], s.word(at&^7))
		done += copy(p[done:n], word[at&7:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *shared) word(at int64) uint64 {
	switch cluster := at >> s.bits; {
	case cluster == 0:
		return map[int64]uint64{
			0: 0x514649fb<<32 | 3, 16: uint64(s.bits), 24: uint64(s.virtual), 32: uint64(s.entries),
			40: 3 * uint64(s.cluster()), 48: uint64(s.cluster()), 56: 1 << 32,
			72: uint64(map[bool]int{true: 16}[s.extended]), 96: 4<<32 | 104,
		}[at]
	case cluster == 1 && s.refcounts != 0:
		return s.refcounts
	case cluster == 1 && at == s.cluster():
		return 2 * uint64(s.cluster())
	case cluster == 2:
		return 0x0001000100010001
	case cluster >= 3 && at < s.l2At():
		return 1<<63 | uint64(s.l2At())
	case at < s.l2At()+s.cluster():
		return s.entry((at - s.l2At()) / 8)
	}
	return 0
}

// most returns how often the piece that was read most was read.
func (s *shared) most() int {
	most := 0
	for _, n := range s.reads {
		most = max(most, n)
	}
	return most
}

func kinds(s *shared) map[string]func(int64) uint64 {
	data := uint64(s.l2At() + s.cluster())
	return map[string]func(int64) uint64{
		"unallocated": func(int64) uint64 { return 0 },
		"zero":        func(int64) uint64 { return 1 },
		"mixed zeros": func(n int64) uint64 { return uint64(n & 1) },
		"data":        func(int64) uint64 { return 1<<63 | data },
		"compressed":  func(int64) uint64 { return 1<<62 | data },
	}
}

// TestSharedTables goes through disks of petabytes that one table describes.
func TestSharedTables(t *testing.T) {
	for _, bitsOf := range []int{9, 16, 21} {
		base := shared{bits: bitsOf, entries: 1 << 18}
		base.virtual = base.entries << (bitsOf + bitsOf - 3)
		for name, entry := range kinds(&base) {
			t.Run(fmt.Sprint(name, bitsOf), func(t *testing.T) {
				s := &shared{bits: bitsOf, entries: base.entries, virtual: base.virtual, entry: entry}
				result, err := qcow2.Check(context.Background(), s, s.Size())
				require.NoError(t, err)
				assert.False(t, result.Clean())
				assert.LessOrEqual(t, s.most(), 12, "check") // once for each 128 Ki entries of the L1 table

				s.reads = nil
				image := s.open(t)
				extents := 0
				for e, err := range image.Map(context.Background()) {
					require.NoError(t, err)
					require.Positive(t, e.Length)
					if extents++; extents == 100_000 {
						break
					}
				}
				if name != "data" {
					assert.LessOrEqual(t, s.most(), 8, "map")
				}
				if name == "unallocated" || name == "zero" || name == "mixed zeros" {
					s.reads = nil
					at, err := qcow2.Compare(context.Background(), image, s.open(t), qcow2.Options{})
					require.NoError(t, err)
					assert.Equal(t, int64(-1), at)
					assert.LessOrEqual(t, s.most(), 8, "compare")
					return
				}
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
				defer cancel()
				_, err = qcow2.Compact(ctx, new(memory), image, qcow2.CompactOptions{})
				require.Error(t, err, "petabytes are not worked through")
			})
		}
	}
}

// TestWalksEnd cancels walks that find nothing to yield for long, or always
// something.
func TestWalksEnd(t *testing.T) {
	for name, entry := range map[string]func(int64) uint64{
		"nothing": func(int64) uint64 { return 0 },
		"always":  func(n int64) uint64 { return uint64(n & 1) },
		"data":    func(n int64) uint64 { return uint64(n&1) * (1 << 23) },
	} {
		t.Run(name, func(t *testing.T) {
			s := &shared{bits: 21, entries: 4 << 20, entry: entry}
			s.virtual = s.entries<<39 - 5
			image := s.open(t)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			var last error
			steps := 0
			for _, err := range image.Map(ctx) {
				last = err
				steps++
			}
			require.ErrorIs(t, last, context.Canceled)
			assert.LessOrEqual(t, steps, 2)
			_, err := qcow2.Digest(ctx, image, qcow2.Options{})
			require.ErrorIs(t, err, context.Canceled)
			_, err = qcow2.Compare(ctx, image, image, qcow2.Options{})
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, qcow2.Stream(ctx, io.Discard, image, qcow2.Options{}), context.Canceled)
			_, err = qcow2.Check(ctx, s, s.Size())
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

// sparseFile is a file of any length in memory, zero where nothing was put.
type sparseFile struct {
	size  int64
	parts map[int64][]byte
}

func (s *sparseFile) put(at int64, words ...uint64) {
	b := make([]byte, len(words)*8)
	for n, w := range words {
		binary.BigEndian.PutUint64(b[n*8:], w)
	}
	s.parts[at] = b
}

func (s *sparseFile) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), max(0, s.size-off)))
	clear(p[:n])
	for at, b := range s.parts {
		if from, to := max(at, off), min(at+int64(len(b)), off+int64(n)); from < to {
			copy(p[from-off:to-off], b[from-at:])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// TestCheckWindows checks an image whose references lie so far apart that
// their counts need several passes. Each cluster is reported once.
func TestCheckWindows(t *testing.T) {
	const cluster, tables, perTable = 65536, 12, 8192
	s := &sparseFile{size: 16 << 40, parts: map[int64][]byte{}}
	s.put(0, 0x514649fb<<32|3, 0, 16, tables*perTable*cluster, tables, 3*cluster, cluster, 1<<32, 0, 0, 0, 0, 4<<32|104)
	s.put(cluster, 2*cluster)
	s.put(2*cluster, 0x0001000100010001)
	var l1 []uint64
	for n := range int64(tables) {
		at := (4 + n) * cluster
		l1 = append(l1, 1<<63|uint64(at))
		var entries []uint64
		for k := range int64(perTable) {
			entries = append(entries, uint64((n*perTable+k+100)*2500*cluster)) // each in a chunk of its own
		}
		s.put(at, entries...)
	}
	s.put(3*cluster, l1...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	result, err := qcow2.Check(context.Background(), s, s.size)
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256<<20), "an array over all clusters has 2 GiB")
	// Of the references those to the first 16 TiB count; no cluster has a refcount but the first four.
	inside := int64(0)
	for n := range int64(tables * perTable) {
		if (n+100)*2500 < s.size/cluster {
			inside++
		}
	}
	assert.Equal(t, int64(tables*perTable), result.AllocatedClusters)
	assert.Equal(t, int64(tables)*2+inside*1+(tables*perTable-inside), result.Corruptions, "%v", result.Problems)
	assert.Zero(t, result.Leaks)
}

// TestSparseOverlay walks over a chain where the upper layer says nothing for
// long and the lower one changes often.
func TestSparseOverlay(t *testing.T) {
	dir := t.TempDir()
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "base", "8M")
	for at := range 16 {
		qemuIO(t, dir, "base", "write -P 1 "+string(rune('0'+at%8))+"M 512")
	}
	qemuImg(t, dir, "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "4T")
	image, err := openFile(t, filepath.Join(dir, "top"), qcow2.OpenOptions{Resolve: inDir(dir)})
	require.NoError(t, err)
	sameMap(t, image, filepath.Join(dir, "top"))
	stat, err := os.Stat(filepath.Join(dir, "top"))
	require.NoError(t, err)
	assert.True(t, image.Uses(stat))
	sum := 0
	for _, err := range image.Map(context.Background()) {
		require.NoError(t, err)
		sum++
	}
	assert.Equal(t, 17, sum)
}
