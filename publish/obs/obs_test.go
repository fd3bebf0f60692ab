package obs_test

import (
	"context"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/s3test"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/obs"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

const bucket = "images"

func keys(context.Context) (obs.Credentials, error) {
	return obs.Credentials{AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey}, nil
}

// target is a bucket of the service at the URL, with little patience.
func target(url string, transport http.RoundTripper) *obs.Target {
	return &obs.Target{
		Bucket: bucket, Prefix: "public/linux", Endpoint: url, PathStyle: true, Credentials: keys, Transport: transport,
		Pause: time.Millisecond,
	}
}

func build(month int) publish.BuildID {
	return publish.NewBuildID(time.Date(2018, time.Month(month), 1, 3, 15, 7, 0, time.UTC))
}

func release(t testing.TB, image string, month int) *publish.Release {
	r, err := publishtest.Release(context.Background(), t.TempDir(), image, build(month))
	require.NoError(t, err)
	return r
}

func TestTarget(t *testing.T) {
	g := s3test.Start(t, bucket)
	require.NoError(t, publishtest.TestTarget(t.Context(), target(g.URL, g.Transport()), "Publishtest"))
}

func TestSource(t *testing.T) {
	g := s3test.Start(t, bucket)
	to := target(g.URL, g.Transport())
	r := release(t, "Image", 4)
	_, err := publish.Publish(t.Context(), to, r)
	require.NoError(t, err)
	require.NoError(t, publishtest.TestSource(t.Context(), to, r))
}

// A run that changes nothing asks little, however much is there.
func TestFewRequests(t *testing.T) {
	g := s3test.Start(t, bucket)
	to := target(g.URL, g.Transport())
	calls := 0
	to.Journal = func(publish.Call) { calls++ }
	r := release(t, "Image", 4)
	_, err := publish.Publish(t.Context(), to, r)
	require.NoError(t, err)
	calls = 0
	p, err := publish.Publish(t.Context(), to, r)
	require.NoError(t, err)
	assert.Empty(t, p.Steps)
	assert.LessOrEqual(t, calls, 10)
}

func cloud(g *s3test.Gateway, stall time.Duration) *publishtest.Cloud {
	own := g.Transport()
	all := &publishtest.Cloud{
		// Most of the time they wait for the lease of a run that was killed.
		URL: g.URL, Transport: publishtest.OpenTelekomCloud(own), AtOnce: 48,
		Open: func(url string, client *http.Client) (publish.Target, error) {
			to := target(url, client.Transport)
			to.Lease, to.Stall = 3*time.Second, stall
			return to, nil
		},
		Holds: publishtest.HoldsFrom(),
	}
	all.Orphans = func(_ context.Context, image string) ([]string, error) { return orphans(g, image) }
	return all
}

// orphans returns the package's own objects below the image's prefix that a run
// should have removed. Nobody else writes there, while other images' runs make and
// remove directories beside it.
func orphans(g *s3test.Gateway, image string) ([]string, error) {
	var left []string
	root := filepath.Join(g.Dir, bucket)
	err := filepath.WalkDir(filepath.Join(root, "public/linux", image), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		if strings.Contains(rel, ".publish-begun-") || strings.Contains(rel, ".lease/") {
			left = append(left, rel)
		}
		return nil
	})
	return left, err
}

func TestCuts(t *testing.T) {
	g := s3test.Start(t, bucket)
	require.NoError(t, publishtest.TestCuts(t.Context(), cloud(g, time.Minute), "Cut"))
}

// forgiving is a cloud in which a lease whose removal failed may stay until it expires.
func forgiving(g *s3test.Gateway, stall time.Duration) *publishtest.Cloud {
	c := cloud(g, stall)
	c.Orphans = func(_ context.Context, image string) ([]string, error) {
		left, err := orphans(g, image)
		return slices.DeleteFunc(left, func(s string) bool { return strings.Contains(s, ".lease/") }), err
	}
	return c
}

func TestFaults(t *testing.T) {
	g := s3test.Start(t, bucket)
	require.NoError(t, publishtest.TestFaults(t.Context(), forgiving(g, time.Minute), "Fault"))
}

func TestTroubles(t *testing.T) {
	g := s3test.Start(t, bucket)
	require.NoError(t, publishtest.TestTroubles(t.Context(), forgiving(g, 10*time.Second), "Trouble"))
}

// What the service says of a clock that is off is told as that.
func TestClock(t *testing.T) {
	g := s3test.Start(t, bucket)
	proxy, err := publishtest.NewProxy(g.URL, g.Transport())
	require.NoError(t, err)
	defer proxy.Close()
	proxy.Fault(func(publishtest.Call) publishtest.Fault {
		return publishtest.Fault{When: publishtest.Before, Status: 403, Body: `<?xml version="1.0"?><Error><Code>RequestTimeTooSkewed</Code><Message>by an hour</Message></Error>`}
	})
	_, err = target(proxy.URL, proxy.Client().Transport).List(t.Context(), "Image")
	require.ErrorContains(t, err, "set this machine's clock")
}
