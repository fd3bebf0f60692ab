package glance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// BenchmarkUpload brings an image to Glance in turns with "openstack image create
// --file" and reports the ratio of the throughputs: above 1, ours is faster. The
// size is IMAGEFACTORY_BENCH_MIB, 256 if that is not set.
func BenchmarkUpload(b *testing.B) {
	needs.Tools(b, "openstack")
	tg := target(b, Config{})
	mib, err := strconv.Atoi(os.Getenv("IMAGEFACTORY_BENCH_MIB"))
	if err != nil {
		mib = 256
	}
	dir, build := b.TempDir(), nth(1)
	const image = "Standard_Bench"
	at := filepath.Join(dir, image, build.String())
	require.NoError(b, os.MkdirAll(at, 0o755))
	qcow := filepath.Join(at, image+"-"+build.String()+".qcow2")
	needs.Tools(b, "qemu-img")
	require.NoError(b, exec.CommandContext(b.Context(), "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=full", qcow, fmt.Sprintf("%dM", mib)).Run())
	r, err := publishtest.Release(b.Context(), dir, image, build)
	require.NoError(b, err)
	c, err := tg.connect(b.Context())
	require.NoError(b, err)

	var ours, theirs time.Duration
	var grown uint64
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		e, err := tg.Push(b.Context(), r)
		require.NoError(b, err)
		ours += time.Since(start)
		runtime.ReadMemStats(&after)
		grown = max(grown, after.Sys-before.Sys)
		i, err := c.Get(b.Context(), e.ID)
		require.NoError(b, err)
		require.NoError(b, c.remove(b.Context(), i))

		start = time.Now()
		cmd := exec.CommandContext(b.Context(), "/usr/bin/python3", "/usr/bin/openstack", "image", "create", "--disk-format", "qcow2", "--file", qcow, "-f", "value", "-c", "id", "Standard_Bench_peer")
		cmd.Env = append(os.Environ(), "OS_CLOUD=publisher")
		out, err := cmd.Output()
		require.NoError(b, err)
		theirs += time.Since(start)
		i, err = c.Get(b.Context(), string(out[:len(out)-1]))
		require.NoError(b, err)
		require.NoError(b, c.remove(b.Context(), i))
	}
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "x-openstack-image-create")
	b.ReportMetric(float64(mib*b.N)/ours.Seconds(), "MiB/s")
	b.ReportMetric(float64(grown)/(1<<20), "MiB-grown")
	b.ReportMetric(0, "ns/op")
}
