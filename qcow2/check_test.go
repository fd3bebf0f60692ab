package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// peerCheck is what qemu-img check found. Finished is false where it could
// not open the image or gave up.
type peerCheck struct {
	finished bool
	exit     int
	text     string
	counts   map[string]int64
}

// qemuCheck runs qemu-img check where external data files are found.
func qemuCheck(t testing.TB, path string) peerCheck {
	t.Helper()
	return runCheck(t, filepath.Dir(path), "-f", "qcow2", path)
}

func runCheck(t testing.TB, dir string, args ...string) peerCheck {
	t.Helper()
	img := needs.Tools(t, "qemu-img")[0]
	cmd := exec.Command(img, append([]string{"check", "--output=json"}, args...)...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	p := peerCheck{exit: cmd.ProcessState.ExitCode(), text: stderr.String(), counts: map[string]int64{}}
	var fields map[string]any
	if stdout.Len() > 0 && json.Unmarshal(stdout.Bytes(), &fields) == nil {
		p.finished = true
		for name, v := range fields {
			if n, ok := v.(float64); ok {
				p.counts[name] = int64(n)
			}
		}
	}
	return p
}

// sameCheck compares our result with QEMU's, count by count.
func sameCheck(t testing.TB, peer peerCheck, ours *qcow2.CheckResult) {
	t.Helper()
	b, err := json.Marshal(ours)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(b, &fields))
	for _, name := range []string{"corruptions", "leaks", "check-errors", "image-end-offset",
		"total-clusters", "allocated-clusters", "fragmented-clusters", "compressed-clusters"} {
		assert.Equalf(t, float64(peer.counts[name]), fields[name], "%s; QEMU says:\n%s\nwe say: %q", name, peer.text, ours.Problems)
	}
	assert.Equal(t, peer.exit, ours.ExitCode())
}

// checkFile checks a file with our package.
func checkFile(t testing.TB, path string) (*qcow2.CheckResult, error) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return qcow2.Check(context.Background(), bytes.NewReader(b), int64(len(b)))
}

// TestCheckMutations damages the metadata of small images in many ways. We
// must not call clean what QEMU calls corrupt, and where both come to an end
// the counts are the same.
func TestCheckMutations(t *testing.T) {
	const perVariant = 60
	dir := t.TempDir()
	guest(t, dir)
	finished := 0
	for number, v := range []variant{
		{name: "v3", options: "cluster_size=4096"},
		{name: "v2", options: "cluster_size=4096,compat=0.10"},
		{name: "zlib", options: "cluster_size=4096", args: []string{"-c"}},
		{name: "zstd", options: "cluster_size=16k,compression_type=zstd", args: []string{"-c"}},
		{name: "extended", options: "cluster_size=16k,extended_l2=on"},
		{name: "narrow", options: "cluster_size=2048,refcount_bits=1"},
		{name: "wide", options: "cluster_size=2048,refcount_bits=64"},
		{name: "snapshots", options: "cluster_size=4096", after: [][]string{{"snapshot", "-c", "one"}, {"snapshot", "-c", "two"}}},
		{name: "bitmaps", options: "cluster_size=4096", after: [][]string{{"bitmap", "--add", "-g", "512"}, {"bitmap", "--add"}}},
		{name: "zeros", options: "cluster_size=4096", writes: []string{"write -z 700k 500k", "write -P 9 2M 3k"}},
	} {
		good, err := os.ReadFile(v.build(t, dir))
		require.NoError(t, err)
		rnd := rand.New(rand.NewPCG(20261122, uint64(number)))
		spots := metadataSpots(t, good)
		for n := range perVariant {
			bad, what := mutate(rnd, good, spots)
			path := filepath.Join(dir, "bad")
			require.NoError(t, os.WriteFile(path, bad, 0o644))
			peer := qemuCheck(t, path)
			ours, err := checkFile(t, path)
			switch {
			case !peer.finished || err != nil:
				assert.Falsef(t, err == nil && ours.Clean() && !peer.finished && !openFails(peer),
					"%s %d: %s: clean, but QEMU: %s", v.name, n, what, peer.text)
				assert.Falsef(t, err != nil && peer.finished && peer.exit == 0,
					"%s %d: %s: %v, but QEMU finds it clean", v.name, n, what, err)
			case slices.Contains(ours.Problems, "the check stopped at overlapping tables"):
				assert.NotZero(t, peer.exit) // QEMU takes its time and goes on
			default:
				finished++
				if !t.Run(fmt.Sprintf("%s/%d", v.name, n), func(t *testing.T) { sameCheck(t, peer, ours) }) {
					t.Logf("%s", what)
				}
			}
		}
	}
	assert.Greater(t, finished, 400, "most mutations should be comparable")
}

// openFails says that QEMU refused the image before it checked anything.
func openFails(p peerCheck) bool {
	return bytes.Contains([]byte(p.text), []byte("Could not open"))
}

// metadataSpots returns the offset of every 8 byte word of the header and of
// each table of the image which is not zero.
func metadataSpots(t testing.TB, b []byte) []int {
	t.Helper()
	info, err := qcow2.Inspect(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	h := info.Header
	var spots []int
	words := func(offset, length int) {
		for at := offset; at < min(offset+length, len(b)-8); at += 8 {
			if binary.BigEndian.Uint64(b[at:]) != 0 {
				spots = append(spots, at)
			}
		}
	}
	cluster := int(info.ClusterSize)
	for range 10 { // the header is small; give it weight
		words(8, 96)
	}
	words(int(h.RefcountTableOffset), int(h.RefcountTableClusters)*cluster)
	for range 10 {
		words(int(h.L1TableOffset), int(h.L1Size)*8)
	}
	for n := range int(h.L1Size) {
		if at := int(binary.BigEndian.Uint64(b[int(h.L1TableOffset)+n*8:]) & 0x00fffffffffffe00); at != 0 {
			words(at, cluster)
		}
	}
	for at := int(h.RefcountTableOffset); at < int(h.RefcountTableOffset)+cluster; at += 8 {
		if block := int(binary.BigEndian.Uint64(b[at:])); block != 0 {
			words(block, cluster)
		}
	}
	if h.SnapshotCount > 0 {
		for range 10 {
			words(int(h.SnapshotsOffset), 200)
		}
		for _, s := range info.Snapshots {
			words(int(s.L1Offset), int(s.L1Size)*8)
		}
	}
	for _, m := range info.Bitmaps {
		words(int(m.TableOffset), int(m.TableSize)*8)
	}
	return spots
}

// mutate changes one to three words of the metadata, or cuts the file.
func mutate(rnd *rand.Rand, good []byte, spots []int) ([]byte, string) {
	b := bytes.Clone(good)
	if rnd.IntN(20) == 0 {
		n := rnd.IntN(len(b))
		return b[:n], fmt.Sprintf("cut to %d bytes", n)
	}
	what := ""
	for range 1 + rnd.IntN(3) {
		at := spots[rnd.IntN(len(spots))]
		old := binary.BigEndian.Uint64(b[at:])
		v := old
		switch rnd.IntN(6) {
		case 0, 1:
			v ^= 1 << rnd.IntN(64)
		case 2:
			v = 0
		case 3:
			v = rnd.Uint64()
		case 4:
			v = binary.BigEndian.Uint64(b[spots[rnd.IntN(len(spots))]:])
		case 5:
			v += uint64(1) << (rnd.IntN(20))
		}
		binary.BigEndian.PutUint64(b[at:], v)
		what += fmt.Sprintf("[%#x: %#x → %#x] ", at, old, v)
	}
	return b, what
}

// TestCheckNotes checks an image that QEMU finds clean although a guest
// cluster is the L1 table: whoever starts the guest can rewrite its own image.
func TestCheckNotes(t *testing.T) {
	const l1, l2 = 3 << 16, 4 << 16
	b := append(emptyImage(), make([]byte, 1<<16)...)
	b = put64(l1, 1<<63|l2)(b)
	b = put64(l2, l1)(b)
	b = put64(2<<16, 0x0001_0001_0001_0002)(b)
	b = put64(2<<16+8, 0x0001_0000_0000_0000)(b)
	path := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	peer := qemuCheck(t, path)
	assert.Zero(t, peer.exit, peer.text)
	ours, err := checkFile(t, path)
	require.NoError(t, err)
	sameCheck(t, peer, ours)
	assert.Equal(t, []string{"cluster 3 is both metadata and data"}, ours.Notes)
}

// TestCheckOverlaps checks an image whose snapshots all have the same large
// L1 table, which would take forever to walk along for each of them.
func TestCheckOverlaps(t *testing.T) {
	const snapshots, at = 60000, 5 << 16
	b := append(emptyImage(), make([]byte, 8<<20)...)
	b = put32(60, snapshots)(put64(64, at)(b))
	for n := range snapshots {
		e := b[at+n*56:]
		binary.BigEndian.PutUint64(e, 1<<16)
		binary.BigEndian.PutUint32(e[8:], 4<<20) // 32 MiB
		binary.BigEndian.PutUint32(e[36:], 16)
	}
	result, err := qcow2.Check(context.Background(), bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	assert.NotZero(t, result.Corruptions)
	assert.Equal(t, 1, result.ExitCode())
	assert.Contains(t, result.Problems, "the check stopped at overlapping tables")
}
