package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// TestAgainstQEMU makes an image of every kind with QEMU and compares what we
// say of it, and read from it, with what QEMU does.
func TestAgainstQEMU(t *testing.T) {
	dir := t.TempDir()
	guest(t, dir)
	rnd := rand.New(rand.NewPCG(9, 9))
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			path := v.build(t, dir)
			peer := qemuCheck(t, path)
			require.True(t, peer.finished, peer.text)
			ours, err := checkFile(t, path)
			require.NoError(t, err)
			sameCheck(t, peer, ours)

			good, err := os.ReadFile(path)
			require.NoError(t, err)
			sameInspection(t, rnd, good)
			sameInspection(t, rnd, append(good, 1, 2, 3))
			if spots := metadataSpots(t, good); len(good) < 4<<20 {
				for range 5 {
					bad, _ := mutate(rnd, good, spots)
					sameInspection(t, rnd, bad)
				}
			}
			if v.name == "resized" {
				return // 40 GiB to read
			}
			want := rawOf(t, path)
			image, err := openFile(t, path, qcow2.OpenOptions{Resolve: inDir(dir)})
			require.NoError(t, err)
			sameContent(t, image, want)
			if v.name != "preallocated-metadata" { // QEMU asks the host's file system for holes
				sameMap(t, image, path)
			}
			sameConversion(t, image, want)
			require.NoError(t, image.Close())
			require.NoError(t, os.Remove(path))
		})
	}
}

// createLUKS makes an encrypted image. QEMU measures its own speed for that,
// and gives up on a busy machine: then it gets more time.
func createLUKS(t *testing.T, dir, secret string) {
	t.Helper()
	img := needs.Tools(t, "qemu-img")[0]
	var out []byte
	for ms := 100; ms <= 3200; ms *= 2 {
		cmd := exec.Command(img, "create", "-q", "--object", secret, "-f", "qcow2",
			"-o", fmt.Sprintf("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=%d", ms), "luks", "10M")
		cmd.Dir = dir
		var err error
		if out, err = cmd.CombinedOutput(); err == nil {
			return
		}
	}
	t.Skipf("qemu-img cannot make a LUKS image on this machine: %s", out)
}

func TestLUKS(t *testing.T) {
	dir := t.TempDir()
	secret := "secret,id=s,data=abc"
	createLUKS(t, dir, secret)
	path := filepath.Join(dir, "luks")
	info, err := inspectFile(t, path)
	require.NoError(t, err)
	assert.Equal(t, []string{qcow2.FindEncryption}, names(info, qcow2.Policy{}))
	assert.True(t, info.Safety(qcow2.PrivatePolicy()).Safe)
	assert.NotZero(t, info.LUKSHeader.Length)
	peer := runCheck(t, dir, "--object", secret, "--image-opts", "driver=qcow2,file.filename=luks,encrypt.key-secret=s")
	require.True(t, peer.finished, peer.text)
	ours, err := checkFile(t, path)
	require.NoError(t, err)
	sameCheck(t, peer, ours)
	_, err = openFile(t, path, qcow2.OpenOptions{})
	require.ErrorIs(t, err, qcow2.ErrEncrypted)
}

// TestLUKSHeaders damages the LUKS header of an image. We open what QEMU opens
// without the key, and nothing else, but for ciphers and the like that it does
// not have.
func TestLUKSHeaders(t *testing.T) {
	seed := clockSeed(t)
	dir := t.TempDir()
	createLUKS(t, dir, "secret,id=s,data=abc")
	good, err := os.ReadFile(filepath.Join(dir, "luks"))
	require.NoError(t, err)
	info, err := inspectFile(t, filepath.Join(dir, "luks"))
	require.NoError(t, err)
	at := int(info.LUKSHeader.Offset)
	path := filepath.Join(dir, "bad")
	for n := range max(40, *mutations/20) {
		m := mutator{rnd: rand.New(rand.NewPCG(seed, uint64(n))), image: bytes.Clone(good)}
		slot := at + 208 + 48*m.rnd.IntN(8)
		f := pick(m.rnd, [2]int{at, 4}, [2]int{at + 6, 2}, [2]int{at + 39, 1}, [2]int{at + 44, 1}, [2]int{at + 103, 1}, [2]int{at + 104, 4}, [2]int{slot, 4},
			[2]int{slot + 40, 4}, [2]int{slot + 40, 4}, [2]int{slot + 44, 4}, [2]int{120, 8}, [2]int{132, 4})
		m.field(f[0], f[1])
		if m.rnd.IntN(2) == 0 {
			m.put(slot+40, 4, uint64(8*m.rnd.IntN(600)))
		}
		require.NoError(t, os.WriteFile(path, m.image, 0o600))
		out, err := exec.Command(needs.Tools(t, "qemu-img")[0], "info", path).CombinedOutput()
		_, ours := inspectFile(t, path)
		text := string(out)
		if err != nil && ours == nil && (strings.Contains(text, "lgorithm") || strings.Contains(text, "cipher") || strings.Contains(text, "IV generator")) {
			continue
		}
		var fault *qcow2.FormatError
		if err == nil && errors.As(ours, &fault) && fault.Value > 1<<31 {
			continue // the end of the slot overflows QEMU's 32 bits
		}
		assert.Equal(t, err == nil, ours == nil, "%d of -seed %d: %s\nQEMU: %s\nwe: %v", n, seed, m.what, text, ours)
		sameInspection(t, m.rnd, m.image)
	}
}

// A variant is one way to make a qcow2 image of the guest disk in the file
// "raw", which is 3 MiB long.
type variant struct {
	name    string
	options string // for -o
	args    []string
	after   [][]string // qemu-img runs on the finished image, which is the last argument
	writes  []string   // qemu-io commands on it, before the above
}

func variants() []variant {
	var out []variant
	add := func(name, options string, args ...string) {
		out = append(out, variant{name: name, options: options, args: args})
	}
	for bits := 9; bits <= 21; bits++ {
		size := fmt.Sprintf("cluster_size=%d", 1<<bits)
		add(fmt.Sprintf("v3-%d", bits), size)
		add(fmt.Sprintf("v2-%d", bits), size+",compat=0.10")
		add(fmt.Sprintf("zlib-%d", bits), size, "-c")
		add(fmt.Sprintf("zstd-%d", bits), size+",compression_type=zstd", "-c")
		if bits >= 14 {
			add(fmt.Sprintf("extended-%d", bits), size+",extended_l2=on")
			add(fmt.Sprintf("extended-zlib-%d", bits), size+",extended_l2=on", "-c")
		}
	}
	for _, bits := range []int{1, 2, 4, 8, 16, 32, 64} {
		add(fmt.Sprintf("refcounts-%d", bits), fmt.Sprintf("refcount_bits=%d,cluster_size=4096", bits))
	}
	for _, mode := range []string{"metadata", "falloc", "full"} {
		add("preallocated-"+mode, "preallocation="+mode)
	}
	add("lazy", "lazy_refcounts=on")
	add("external", "data_file=external.data")
	add("external-raw", "data_file=external-raw.data,data_file_raw=on")
	rewrite := []string{"write -P 7 100k 300k", "write -z 700k 500k", "discard 1M 200k", "write -P 9 2M 3k"}
	out = append(out,
		variant{name: "zeros", writes: rewrite},
		variant{name: "zeros-extended", options: "extended_l2=on,cluster_size=128k", writes: rewrite},
		variant{name: "zeros-small", options: "cluster_size=512", writes: rewrite},
		variant{name: "bitmaps", after: [][]string{{"bitmap", "--add", "-g", "512"}, {"bitmap", "--add"}}, args: []string{}},
		variant{name: "snapshots", options: "cluster_size=4096", after: [][]string{{"snapshot", "-c", "one"}, {"snapshot", "-c", "two"}}},
		variant{name: "resized", after: [][]string{{"resize", "-q", "+40G"}}},
		variant{name: "resized-small", options: "cluster_size=512", after: [][]string{{"resize", "-q", "+200M"}}},
	)
	return out
}

// guest writes the guest disk that all variants hold: text, noise and holes.
func guest(t testing.TB, dir string) []byte {
	t.Helper()
	b := make([]byte, 3<<20)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(b[:300<<10])
	for n := 400 << 10; n < 1<<20; n++ {
		b[n] = "the quick brown fox jumps over the lazy dog. "[n%45] ^ byte(n>>13)
	}
	for n := 2 << 20; n < 2<<20+5000; n++ {
		b[n] = byte(n * n >> 7)
	}
	_, _ = rnd.Read(b[len(b)-700:])
	require.NoError(t, os.WriteFile(filepath.Join(dir, "raw"), b, 0o644))
	return b
}

// build makes the variant in dir and returns its file's name.
func (v variant) build(t testing.TB, dir string) string {
	t.Helper()
	args := append([]string{"convert", "-q", "-O", "qcow2"}, v.args...)
	if v.options != "" {
		args = append(args, "-o", v.options)
	}
	qemuImg(t, dir, append(args, "raw", v.name)...)
	for _, w := range v.writes {
		qemuIO(t, dir, v.name, w)
	}
	for n, a := range v.after {
		switch a[0] {
		case "bitmap":
			qemuImg(t, dir, append(a, v.name, fmt.Sprintf("b%d", n))...)
		case "resize":
			qemuImg(t, dir, append(a[:2:2], v.name, a[2])...)
		default:
			qemuImg(t, dir, append(a, v.name)...)
			qemuIO(t, dir, v.name, fmt.Sprintf("write -P %d %dk 100k", n+1, 50*n))
		}
	}
	return filepath.Join(dir, v.name)
}

func qemuIO(t testing.TB, dir, file, command string) {
	t.Helper()
	cmd := exec.Command(needs.Tools(t, "qemu-io")[0], "-f", "qcow2", "-c", command, file)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoErrorf(t, err, "%s", out)
}
