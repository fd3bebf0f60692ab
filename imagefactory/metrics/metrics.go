// Package metrics shows an image factory to Prometheus.
//
//	m := metrics.New()
//	factory.Progress = m.Event
//	report, err := factory.Run(ctx, definitions)
//	m.Night(report)
//	err = m.WriteTextfile("/var/lib/node_exporter/imagefactory.prom") // or
//	http.Handle("/metrics", m.Handler())
//
// Times are seconds since 1970, durations seconds. The metrics of images are those of
// the last night alone, so that a service that runs for years holds no more than one
// night's images:
//
//	imagefactory_night_started_timestamp_seconds
//	imagefactory_night_finished_timestamp_seconds
//	imagefactory_night_good                            1 if nobody has to look, else 0
//	imagefactory_nights_total{good}                    since the process began
//	imagefactory_images{result}                        published, unchanged, candidate, failed
//	imagefactory_image_result{image,result}            1
//	imagefactory_image_stage_duration_seconds{image,stage}
//	imagefactory_image_checks{image,status}
//	imagefactory_image_findings{image,severity,blocks}
//	imagefactory_image_alarms{image}
//	imagefactory_image_latest_timestamp_seconds{image} when the build began that is latest
//	                                                   below the download directory
//	imagefactory_image_stage_running{image,stage}      1 while a night goes on
//
// An alert for an image whose latest grows old: imagefactory_image_alarms > 0. Values
// may be used concurrently.
package metrics

import (
	"fmt"
	"net/http"
	"path"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Metrics are a prometheus.Collector of the last night and the one that goes on.
type Metrics struct {
	mu      sync.Mutex
	last    *imagefactory.Report
	running map[string]imagefactory.Stage // by image
	nights  map[bool]int                  // by whether they were good
}

// New returns metrics of no night.
func New() *Metrics {
	return &Metrics{running: map[string]imagefactory.Stage{}, nights: map[bool]int{}}
}

// Event takes what Factory.Progress is told.
func (m *Metrics) Event(e imagefactory.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Done {
		delete(m.running, e.Image)
	} else {
		m.running[e.Image] = e.Stage
	}
}

// Night takes the report of a night, in the place of the one before. The report is not
// changed after that.
func (m *Metrics) Night(report *imagefactory.Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = report
	clear(m.running)
	m.nights[report.OK()]++
}

// Handler serves the metrics, and no others.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry(), promhttp.HandlerOpts{})
}

// WriteTextfile writes the metrics as node_exporter's textfile collector reads them. The
// file is replaced in one step; its name has to end in .prom for that collector.
func (m *Metrics) WriteTextfile(name string) error {
	if err := prometheus.WriteToTextfile(name, m.registry()); err != nil {
		return fmt.Errorf("cannot write the metrics: %w", err)
	}
	return nil
}

func (m *Metrics) registry() *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(m) // in a registry of its own nothing can be in its way
	return r
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("imagefactory_"+name, help, labels, nil)
}

var (
	nightStarted  = describe("night_started_timestamp_seconds", "When the last night began.")
	nightFinished = describe("night_finished_timestamp_seconds", "When the last night ended.")
	nightGood     = describe("night_good", "Whether nobody has to look at the last night.")
	nightsTotal   = describe("nights_total", "Nights since the process began.", "good")
	images        = describe("images", "Images of the last night by what came of them.", "result")
	imageResult   = describe("image_result", "What came of an image in the last night.", "image", "result")
	stageDuration = describe("image_stage_duration_seconds", "How long a stage of an image took.", "image", "stage")
	imageChecks   = describe("image_checks", "Checks of an image by how they ended.", "image", "status")
	imageFindings = describe("image_findings", "Findings that the gate judged.", "image", "severity", "blocks")
	imageAlarms   = describe("image_alarms", "What somebody has to look at.", "image")
	imageLatest   = describe("image_latest_timestamp_seconds", "When the build began that is latest.", "image")
	stageRunning  = describe("image_stage_running", "Which stage of an image runs.", "image", "stage")
)

// Describe is for prometheus.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		nightStarted, nightFinished, nightGood, nightsTotal, images, imageResult, stageDuration, imageChecks, imageFindings, imageAlarms, imageLatest, stageRunning,
	} {
		to <- d
	}
}

// Collect is for prometheus.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, good := range []bool{true, false} {
		to <- prometheus.MustNewConstMetric(nightsTotal, prometheus.CounterValue, float64(m.nights[good]), strconv.FormatBool(good))
	}
	for image, stage := range m.running {
		gauge(stageRunning, 1, image, string(stage))
	}
	if m.last == nil {
		return
	}
	gauge(nightStarted, unix(m.last.Started))
	gauge(nightFinished, unix(m.last.Finished))
	gauge(nightGood, number(m.last.OK()))
	counts := map[imagefactory.Outcome]int{imagefactory.Published: 0, imagefactory.Unchanged: 0, imagefactory.Candidate: 0, imagefactory.Failed: 0}
	for n := range m.last.Images {
		i := &m.last.Images[n]
		counts[i.Result]++
		collectImage(i, gauge)
	}
	for result, n := range counts {
		gauge(images, float64(n), string(result))
	}
}

func collectImage(i *imagefactory.ImageReport, gauge func(*prometheus.Desc, float64, ...string)) {
	gauge(imageResult, 1, i.Name, string(i.Result))
	gauge(imageAlarms, float64(len(i.Alarms)), i.Name)
	for stage, ms := range i.DurationMS {
		gauge(stageDuration, (time.Duration(ms) * time.Millisecond).Seconds(), i.Name, string(stage))
	}
	for status, n := range map[string]int{"pass": i.Checks.Pass, "fail": i.Checks.Fail, "error": i.Checks.Error, "waived": i.Checks.Waived, "skipped": i.Checks.Skipped} {
		gauge(imageChecks, float64(n), i.Name, status)
	}
	type kind struct{ severity, blocks string }
	findings := map[kind]int{}
	for _, f := range i.Findings {
		findings[kind{string(f.Severity), strconv.FormatBool(f.Blocks)}]++
	}
	for k, n := range findings {
		gauge(imageFindings, float64(n), i.Name, k.severity, k.blocks)
	}
	if build, err := publish.ParseBuildID(path.Base(i.Release)); err == nil {
		gauge(imageLatest, unix(build.Time()), i.Name)
	}
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
