package metrics_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/metrics"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

func report(images int) *imagefactory.Report {
	r := &imagefactory.Report{Started: time.Unix(1_700_000_000, 0), Finished: time.Unix(1_700_003_600, 0)}
	for n := range images {
		r.Images = append(r.Images, imagefactory.ImageReport{
			Name: fmt.Sprintf("Standard_A_%d", n), Result: imagefactory.Published, Release: fmt.Sprintf("Standard_A_%d/20260101-030000", n),
			DurationMS: map[imagefactory.Stage]int64{imagefactory.StageBuild: 61500}, Checks: testsuite.Summary{Pass: 60, Skipped: 2},
		})
	}
	return r
}

func TestMetrics(t *testing.T) {
	m := metrics.New()
	r := report(1)
	r.Images = append(r.Images, imagefactory.ImageReport{
		Name: "Standard_B_1", Result: imagefactory.Failed, Alarms: []string{"a", "b"},
		Findings: []imagefactory.Finding{{ID: "x.y", Severity: "high", Blocks: true}, {ID: "x.z", Severity: "high", Blocks: true}, {ID: "x.w", Severity: "low"}},
	})
	m.Event(imagefactory.Event{Image: "Standard_A_0", Stage: imagefactory.StageBuild})
	m.Event(imagefactory.Event{Image: "Standard_B_1", Stage: imagefactory.StageBuild})
	m.Event(imagefactory.Event{Image: "Standard_B_1", Stage: imagefactory.StageBuild, Done: true})
	require.NoError(t, testutil.CollectAndCompare(m, strings.NewReader(`
# HELP imagefactory_image_stage_running Which stage of an image runs.
# TYPE imagefactory_image_stage_running gauge
imagefactory_image_stage_running{image="Standard_A_0",stage="build"} 1
# HELP imagefactory_nights_total Nights since the process began.
# TYPE imagefactory_nights_total counter
imagefactory_nights_total{good="false"} 0
imagefactory_nights_total{good="true"} 0
`)))
	m.Night(r)
	want := `# HELP imagefactory_image_alarms What somebody has to look at.
# TYPE imagefactory_image_alarms gauge
imagefactory_image_alarms{image="Standard_A_0"} 0
imagefactory_image_alarms{image="Standard_B_1"} 2
# HELP imagefactory_image_checks Checks of an image by how they ended.
# TYPE imagefactory_image_checks gauge
imagefactory_image_checks{image="Standard_A_0",status="error"} 0
imagefactory_image_checks{image="Standard_A_0",status="fail"} 0
imagefactory_image_checks{image="Standard_A_0",status="pass"} 60
imagefactory_image_checks{image="Standard_A_0",status="skipped"} 2
imagefactory_image_checks{image="Standard_A_0",status="waived"} 0
imagefactory_image_checks{image="Standard_B_1",status="error"} 0
imagefactory_image_checks{image="Standard_B_1",status="fail"} 0
imagefactory_image_checks{image="Standard_B_1",status="pass"} 0
imagefactory_image_checks{image="Standard_B_1",status="skipped"} 0
imagefactory_image_checks{image="Standard_B_1",status="waived"} 0
# HELP imagefactory_image_findings Findings that the gate judged.
# TYPE imagefactory_image_findings gauge
imagefactory_image_findings{blocks="false",image="Standard_B_1",severity="low"} 1
imagefactory_image_findings{blocks="true",image="Standard_B_1",severity="high"} 2
# HELP imagefactory_image_latest_timestamp_seconds When the build began that is latest.
# TYPE imagefactory_image_latest_timestamp_seconds gauge
imagefactory_image_latest_timestamp_seconds{image="Standard_A_0"} 1.7672364e+09
# HELP imagefactory_image_result What came of an image in the last night.
# TYPE imagefactory_image_result gauge
imagefactory_image_result{image="Standard_A_0",result="published"} 1
imagefactory_image_result{image="Standard_B_1",result="failed"} 1
# HELP imagefactory_image_stage_duration_seconds How long a stage of an image took.
# TYPE imagefactory_image_stage_duration_seconds gauge
imagefactory_image_stage_duration_seconds{image="Standard_A_0",stage="build"} 61.5
# HELP imagefactory_images Images of the last night by what came of them.
# TYPE imagefactory_images gauge
imagefactory_images{result="candidate"} 0
imagefactory_images{result="failed"} 1
imagefactory_images{result="published"} 1
imagefactory_images{result="unchanged"} 0
# HELP imagefactory_night_finished_timestamp_seconds When the last night ended.
# TYPE imagefactory_night_finished_timestamp_seconds gauge
imagefactory_night_finished_timestamp_seconds 1.7000036e+09
# HELP imagefactory_night_good Whether nobody has to look at the last night.
# TYPE imagefactory_night_good gauge
imagefactory_night_good 0
# HELP imagefactory_night_started_timestamp_seconds When the last night began.
# TYPE imagefactory_night_started_timestamp_seconds gauge
imagefactory_night_started_timestamp_seconds 1.7e+09
# HELP imagefactory_nights_total Nights since the process began.
# TYPE imagefactory_nights_total counter
imagefactory_nights_total{good="false"} 1
imagefactory_nights_total{good="true"} 0
`
	require.NoError(t, testutil.CollectAndCompare(m, strings.NewReader(want)))

	file := filepath.Join(t.TempDir(), "imagefactory.prom")
	require.NoError(t, m.WriteTextfile(file))
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want, string(have))
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, want, w.Body.String())
	require.Error(t, m.WriteTextfile(filepath.Join(file, "no")))
}

// A service that runs for years holds one night's images.
func TestMetricsAreBounded(t *testing.T) {
	m := metrics.New()
	m.Night(report(60))
	before := testutil.CollectAndCount(m)
	for range 365 {
		m.Night(report(60))
	}
	require.Equal(t, before, testutil.CollectAndCount(m))
	m.Night(report(1))
	require.Less(t, testutil.CollectAndCount(m), before/10)
}

func TestMetricsConcurrently(*testing.T) {
	m := metrics.New()
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for range 50 {
				m.Event(imagefactory.Event{Image: fmt.Sprint(n), Done: n%2 == 0})
				m.Night(report(2))
				testutil.CollectAndCount(m)
			}
		})
	}
	all.Wait()
}

func ExampleMetrics() {
	m := metrics.New()
	m.Night(&imagefactory.Report{})
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	fmt.Println(strings.Contains(w.Body.String(), "imagefactory_night_good 0"))
	// Output: true
}
