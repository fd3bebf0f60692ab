//go:build unix

package website_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
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
// got a new release. Before that it writes a site of a third of the releases.
//
// It reports the time of the whole site by the clock and of the processors, the
// ratio of the second run to it in both, and the largest heap with its ratio to that
// of a third of the releases. The clock tells little on a machine that does other
// things too; on two free cores it shows a little more than half of the processors'
// time.
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
	add := func(r int) {
		for i := range images {
			p.add(b, name(i), build(r), sample(random))
		}
	}
	for i := range images {
		p.site.Images = append(p.site.Images, website.Image{Name: name(i), Distribution: "system", Answers: answers})
	}
	for r := range releases / 3 {
		add(r)
	}
	third := p.cost(b)
	for r := releases / 3; r < releases; r++ {
		add(r)
	}
	var first, second []cost
	next := releases
	for b.Loop() {
		require.NoError(b, os.RemoveAll(p.site.Out))
		first = append(first, p.cost(b))

		b.StopTimer()
		p.add(b, name(next%images), build(next), sample(random))
		next++
		second = append(second, p.cost(b))
		b.StartTimer()
	}
	one, two := median(first), median(second)
	b.ReportMetric(one.clock.Seconds(), "s/first")
	b.ReportMetric(two.clock.Seconds()/one.clock.Seconds(), "second/first")
	b.ReportMetric(one.cpu.Seconds(), "cpu-s/first")
	b.ReportMetric(two.cpu.Seconds()/one.cpu.Seconds(), "cpu-second/first")
	b.ReportMetric(float64(one.heap)/(1<<20), "heap-MiB")
	b.ReportMetric(float64(one.heap)/float64(third.heap), "heap/third")
	matches, err := filepath.Glob(filepath.Join(p.site.Out, "images/*/*.html"))
	require.NoError(b, err)
	require.GreaterOrEqual(b, len(matches), images*releases)
}

// cost is what a run takes.
type cost struct {
	clock, cpu time.Duration
	heap       uint64 // the largest, in bytes
}

func (p *place) cost(b *testing.B) (c cost) {
	runtime.GC()
	stop, highest := make(chan struct{}), make(chan uint64)
	go func() { highest <- watch(stop) }()
	start, used := time.Now(), cpuTime(b)
	p.write(b)
	c.clock, c.cpu = time.Since(start), cpuTime(b)-used
	close(stop)
	c.heap = <-highest
	return c
}

// cpuTime is what this process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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

// median is the cost in the middle by the processors' time.
func median(list []cost) cost {
	sorted := slices.SortedFunc(slices.Values(list), func(a, b cost) int { return cmp.Compare(a.cpu, b.cpu) })
	return sorted[len(sorted)/2]
}
