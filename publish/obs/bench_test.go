package obs_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/s3test"
)

var benchMiB = flag.Int("benchmib", 2048, "size of the image that BenchmarkPush uploads, in MiB")

// Ours and rclone's upload of one image to the same gateway, in turns. It reports the
// ratio of the throughputs, above 1 if ours is the faster, and how much our memory grew.
func BenchmarkPush(b *testing.B) {
	rclone := needs.Tools(b, "rclone")[0]
	g := s3test.Start(b, bucket)
	r := large(b, *benchMiB<<20)
	file := filepath.Join(r.Dir, "Image-"+build(4).String()+".qcow2")
	var ours, theirs []time.Duration
	var grown int64
	n := 0
	for b.Loop() {
		n++
		before := peakKiB(b)
		to := target(g.URL, g.Transport())
		to.Prefix, to.Lease = fmt.Sprint("ours", n), 0
		begun := time.Now()
		_, err := to.Push(b.Context(), r)
		require.NoError(b, err)
		ours = append(ours, time.Since(begun))
		grown = max(grown, peakKiB(b)-before)

		begun = time.Now()
		cmd := exec.CommandContext(b.Context(), rclone, "copyto", "--ca-cert", g.CA, "--s3-no-check-bucket", file, fmt.Sprintf(":s3:%s/rclone%d", bucket, n))
		cmd.Env = rcloneEnv(g)
		out, err := cmd.CombinedOutput()
		require.NoError(b, err, "%s", out)
		theirs = append(theirs, time.Since(begun))
		for _, left := range []string{to.Prefix, fmt.Sprint("rclone", n)} {
			require.NoError(b, os.RemoveAll(filepath.Join(g.Dir, bucket, left)))
		}
	}
	median := func(d []time.Duration) time.Duration { return slices.Sorted(slices.Values(d))[len(d)/2] }
	b.SetBytes(int64(*benchMiB) << 20)
	b.ReportMetric(median(theirs).Seconds()/median(ours).Seconds(), "x-rclone")
	b.ReportMetric(float64(grown)/1024, "MiB-grown")
}

// peakKiB returns the most memory that this process had so far.
func peakKiB(b *testing.B) int64 {
	data, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	var kib int64
	for line := range strings.Lines(string(data)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib
		}
	}
	return kib
}

// rclone, an independent reader, sees what was published.
func TestRcloneReads(t *testing.T) {
	rclone := needs.Tools(t, "rclone")[0]
	g := s3test.Start(t, bucket)
	to := target(g.URL, g.Transport())
	r := release(t, "Image", 4)
	_, err := to.Push(t.Context(), r)
	require.NoError(t, err)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), rclone, "copy", "--ca-cert", g.CA, fmt.Sprintf(":s3:%s/public/linux/Image/%s", bucket, build(4)), dir)
	cmd.Env = rcloneEnv(g)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, f := range r.Files {
		want, err := os.ReadFile(filepath.Join(r.Dir, f.Name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(dir, f.Name))
		require.NoError(t, err)
		require.Equal(t, want, got, f.Name)
	}
}

// rcloneEnv is the environment, without what this machine says of other services.
func rcloneEnv(g *s3test.Gateway) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "AWS_") })
	return append(env, "RCLONE_CONFIG="+os.DevNull, "RCLONE_S3_PROVIDER=Other", "RCLONE_S3_ENDPOINT="+g.URL, "RCLONE_S3_REGION="+s3test.Region,
		"RCLONE_S3_ACCESS_KEY_ID="+s3test.AccessKey, "RCLONE_S3_SECRET_ACCESS_KEY="+s3test.SecretKey)
}
