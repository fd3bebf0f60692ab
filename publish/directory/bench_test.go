package directory_test

import (
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// BenchmarkPush compares Push in turns with what does the same by hand: cp,
// sha256sum --check of the copy, and sync.
func BenchmarkPush(b *testing.B) {
	cp, sha256sum, sync := needs.Tools(b, "cp")[0], needs.Tools(b, "sha256sum")[0], needs.Tools(b, "sync")[0]
	const size = 256 << 20
	id := day(b, "20180401")
	work := b.TempDir()
	dir := filepath.Join(work, "Image", id.String())
	require.NoError(b, os.MkdirAll(dir, 0o755))
	f, err := os.Create(filepath.Join(dir, "Image-"+id.String()+".qcow2"))
	require.NoError(b, err)
	_, err = io.CopyN(f, rand.Reader, size)
	require.NoError(b, err)
	require.NoError(b, f.Close())
	r, err := publishtest.Release(b.Context(), work, "Image", id)
	require.NoError(b, err)

	b.SetBytes(size)
	b.ReportAllocs()
	var ours, peers []time.Duration
	for b.Loop() {
		target := &directory.Target{Dir: b.TempDir()}
		start := time.Now()
		_, err := target.Push(b.Context(), r)
		require.NoError(b, err)
		ours = append(ours, time.Since(start))

		b.StopTimer()
		to := filepath.Join(b.TempDir(), "copy")
		start = time.Now()
		require.NoError(b, exec.Command(cp, "-r", r.Dir, to).Run())
		check := exec.Command(sha256sum, "--check", "--quiet", "SHA256SUMS")
		check.Dir = to
		require.NoError(b, check.Run())
		require.NoError(b, exec.Command(sync, "--file-system", to).Run())
		peers = append(peers, time.Since(start))
		require.NoError(b, os.RemoveAll(target.Dir))
		require.NoError(b, os.RemoveAll(to))
		b.StartTimer()
	}
	slices.Sort(ours)
	slices.Sort(peers)
	b.ReportMetric(ours[len(ours)/2].Seconds()/peers[len(peers)/2].Seconds(), "time/cp")
}
