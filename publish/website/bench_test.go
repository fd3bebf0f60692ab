package website_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish/website"
)

var (
	benchImages   = flag.Int("images", 60, "images of BenchmarkWrite")
	benchReleases = flag.Int("releases", 30, "releases of each")
)

// BenchmarkWrite writes a site of 60 images with 30 releases each, of 64 KiB, 250
// packages and 120 checks, against 60 flavors: whole, and then again after one image
// got a new release. The first is measured, the ratio of the second to it reported;
// peak-MiB is the heap of the first.
func BenchmarkWrite(b *testing.B) {
	images, releases := *benchImages, *benchReleases
	p := newPlace(b)
	p.site.Flavors = nil
	answers := []website.Answer{}
	for i := range 60 {
		p.site.Flavors = append(p.site.Flavors, website.Flavor{Name: fmt.Sprintf("f%d", i), Group: fmt.Sprint(i / 10)})
		answers = append(answers, website.Answer{Answer: []string{"yes", "no"}[i%2], Missing: []string{"infiniband"}})
	}
	random := rand.New(rand.NewPCG(1, 2))
	name := func(i int) string { return fmt.Sprintf("Standard_System_%d", i) }
	for i := range images {
		p.site.Images = append(p.site.Images, website.Image{Name: name(i), Distribution: "system", Answers: answers})
		for r := range releases {
			p.add(b, name(i), build(r), sample(random))
		}
	}
	var first, second []time.Duration
	peak := uint64(0)
	next := releases
	for b.Loop() {
		require.NoError(b, os.RemoveAll(p.site.Out))
		stop := make(chan struct{})
		highest := make(chan uint64)
		go func() { highest <- watch(stop) }()
		start := time.Now()
		p.write(b)
		first = append(first, time.Since(start))
		close(stop)
		peak = max(peak, <-highest)

		b.StopTimer()
		p.add(b, name(next%images), build(next), sample(random))
		next++
		start = time.Now()
		p.write(b)
		second = append(second, time.Since(start))
		b.StartTimer()
	}
	b.ReportMetric(median(second).Seconds()/median(first).Seconds(), "second/first")
	b.ReportMetric(median(first).Seconds(), "s/first")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
	matches, err := filepath.Glob(filepath.Join(p.site.Out, "images/*/*.html"))
	require.NoError(b, err)
	require.GreaterOrEqual(b, len(matches), images*releases)
}

// watch returns the largest heap until stop is closed.
func watch(stop chan struct{}) (most uint64) {
	var m runtime.MemStats
	for {
		select {
		case <-stop:
			return most
		case <-time.After(20 * time.Millisecond):
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
		}
	}
}

func sample(random *rand.Rand) content {
	c := plain
	c.size = 64 << 10
	var packages strings.Builder
	for i := range 250 {
		fmt.Fprintf(&packages, "package-%03d %d.%d amd64\n", i, random.IntN(9), random.IntN(99))
	}
	c.packages = packages.String()
	var checks []map[string]any
	for i := range 120 {
		checks = append(checks, map[string]any{"id": fmt.Sprintf("group%d.check-%d", i/10, i), "group": fmt.Sprintf("group%d", i/10), "title": "what is checked", "severity": "high", "status": "pass", "expected": "no", "found": "no"})
	}
	c.tests = map[string]any{"duration_ms": random.IntN(100000), "checks": checks}
	return c
}

func median(list []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
