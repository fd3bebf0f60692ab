package obs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/s3test"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/obs"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// large makes a release whose image has so many bytes.
func large(t testing.TB, size int) *publish.Release {
	dir := t.TempDir()
	name := filepath.Join(dir, "Image", build(4).String(), "Image-"+build(4).String()+".qcow2")
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	f, err := os.Create(name)
	require.NoError(t, err)
	// Not all of it in memory, for a benchmark looks how much of that an upload takes.
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{}), int64(size))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	r, err := publishtest.Release(context.Background(), dir, "Image", build(4))
	require.NoError(t, err)
	return r
}

// An upload goes on where a killed process left it, with each part that is there as it
// should be; and one whose last answer is lost is complete.
func TestResume(t *testing.T) {
	g := s3test.Start(t, bucket)
	proxy, err := publishtest.NewProxy(g.URL, publishtest.OpenTelekomCloud(g.Transport()))
	require.NoError(t, err)
	defer proxy.Close()
	r := large(t, 90<<20)
	parts := func() (sent []string) {
		for _, c := range proxy.Calls() {
			if c.Query.Has("partNumber") && c.Status == 200 {
				sent = append(sent, c.Query.Get("partNumber"))
			}
		}
		slices.Sort(sent)
		return slices.Compact(sent)
	}
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	proxy.Fault(func(c publishtest.Call) publishtest.Fault {
		if c.Query.Get("partNumber") == "5" {
			kill()
			return publishtest.Fault{When: publishtest.Before, Upload: 1 << 20, Dead: true}
		}
		return publishtest.Fault{}
	})
	_, err = target(proxy.URL, proxy.Client().Transport).Push(ctx, r)
	require.ErrorIs(t, err, context.Canceled)
	first := parts()
	require.NotEmpty(t, first)

	proxy.Heal()
	proxy.Fault(func(c publishtest.Call) publishtest.Fault {
		if c.Method == http.MethodPost && c.Query.Has("uploadId") {
			return publishtest.Fault{When: publishtest.After} // complete, and nobody is told
		}
		return publishtest.Fault{}
	})
	to := target(proxy.URL, proxy.Client().Transport)
	_, err = to.Push(t.Context(), r)
	require.NoError(t, err)
	second := parts()
	assert.Less(t, len(second), 6, "the parts %q were there", first)
	for _, p := range second {
		assert.NotContains(t, first, p)
	}
	proxy.Heal()
	have, err := to.List(t.Context(), "Image")
	require.NoError(t, err)
	require.Len(t, have, 1)
	assert.Empty(t, have[0].Problem)
	require.NoError(t, publishtest.HoldsFrom()(t.Context(), to, have[0], r))
}

// A release that was damaged on the service is found, and repaired.
func TestHeals(t *testing.T) {
	g := s3test.Start(t, bucket)
	to := target(g.URL, g.Transport())
	r := release(t, "Image", 4)
	_, err := publish.Publish(t.Context(), to, r)
	require.NoError(t, err)
	dir := filepath.Join(g.Dir, bucket, "public", "linux", "Image", build(4).String())
	image := filepath.Join(dir, "Image-"+build(4).String()+".qcow2")
	for want, damage := range map[string]func() error{
		"is missing":     func() error { return os.Remove(image) },
		"bytes instead":  func() error { return os.Truncate(image, 100) },
		"SHA256SUMS is ": func() error { return os.Remove(filepath.Join(dir, "SHA256SUMS")) },
	} {
		require.NoError(t, damage())
		have, err := to.List(t.Context(), "Image")
		require.NoError(t, err)
		require.Len(t, have, 1)
		assert.Contains(t, have[0].Problem, want)
		p, err := publish.Publish(t.Context(), to, r)
		require.NoError(t, err, want)
		assert.NotEmpty(t, p.Steps)
		require.NoError(t, publishtest.HoldsFrom()(t.Context(), to, p.Entry, r))
	}
}

// What should be refused at the border is, with the words that allow it.
func TestBorder(t *testing.T) {
	g := s3test.Start(t, bucket)
	redirecting, err := publishtest.NewProxy(g.URL, g.Transport())
	require.NoError(t, err)
	defer redirecting.Close()
	redirecting.Fault(func(publishtest.Call) publishtest.Fault {
		return publishtest.Fault{When: publishtest.Before, Status: 307, Header: http.Header{"Location": {"https://elsewhere.example.org/x"}}}
	})
	for want, to := range map[string]*obs.Target{
		"over which anybody reads along":        {Bucket: bucket, Endpoint: "http://127.0.0.1:1", Credentials: keys},
		"certificate is not trusted":            {Bucket: bucket, Endpoint: g.URL, PathStyle: true, Credentials: keys},
		`redirects to "elsewhere.example.org"`:  target(redirecting.URL, redirecting.Client().Transport),
		"without user, path or query":           {Bucket: bucket, Endpoint: "https://u:p@127.0.0.1:1", Credentials: keys},
		"the target has no Bucket":              {},
		"has no access key with its secret key": {Bucket: bucket, Credentials: obs.FromFile(os.DevNull+"x/../null", "none")},
		"image name":                            nil,
	} {
		name := "Image"
		if to == nil {
			to, name = target(g.URL, g.Transport()), "../Image"
		}
		_, err := to.List(t.Context(), name)
		if strings.HasPrefix(want, "has no access") {
			require.Error(t, err) // a device is no file of credentials
			continue
		}
		require.ErrorContains(t, err, want)
	}
	allowed := &obs.Target{Bucket: bucket, Endpoint: g.URL, PathStyle: true, Credentials: keys, SkipTLSVerification: true}
	_, err = allowed.List(t.Context(), "Image")
	require.NoError(t, err)
	trusted := &obs.Target{Bucket: bucket, Endpoint: g.URL, PathStyle: true, Credentials: keys, CAFile: g.CA}
	_, err = trusted.List(t.Context(), "Image")
	require.NoError(t, err)
}

// What is to be public and is not is an error; credentials are nowhere.
func TestPublicAndSecrets(t *testing.T) {
	g := s3test.Start(t, bucket)
	var log bytes.Buffer
	var calls []publish.Call
	to := target(g.URL, g.Transport())
	to.Public = true
	to.Logger = slog.New(slog.NewTextHandler(&log, nil))
	to.Journal = func(c publish.Call) { calls = append(calls, c) }
	_, err := publish.Publish(t.Context(), to, release(t, "Image", 4))
	require.ErrorContains(t, err, "cannot be read without credentials")
	journal, jerr := json.Marshal(calls)
	require.NoError(t, jerr)
	require.NotEmpty(t, calls)
	c, _ := keys(t.Context())
	for _, secret := range []string{s3test.SecretKey, s3test.AccessKey, "Signature", "X-Amz"} {
		assert.NotContains(t, fmt.Sprintf("%v %s %s %+v %#v", err, journal, log.String(), c, c), secret)
	}
}
