package glance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/internal/openstacktest"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// behind returns a target whose calls of the image service pass a proxy.
func behind(t *testing.T) (*Target, *publishtest.Proxy) {
	t.Helper()
	tg := target(t, Config{})
	c := connect(t, tg)
	p, err := publishtest.NewProxy(openstacktest.Start(t).Glance, nil)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	c.Endpoint, c.Pause = p.URL, 2*time.Millisecond
	return tg, p
}

// A cut is where a client is killed.
type cut struct {
	name  string
	fault publishtest.Fault
	at    func(publishtest.Call) bool // calls that it is made at
}

// cuts are those that leave different things on a cloud: after a call that only
// reads, all is as before the next one.
var cuts = []cut{
	{"before", publishtest.Fault{When: publishtest.Before, Dead: true}, func(publishtest.Call) bool { return true }},
	{"in", publishtest.Fault{When: publishtest.Before, Upload: 1000, Dead: true}, func(c publishtest.Call) bool { return c.Method == http.MethodPut }},
	{"after", publishtest.Fault{When: publishtest.After, Dead: true}, publishtest.Call.Changes},
}

// TestCut kills the client before each call of a publication, which also rotates, and
// of a rollback, in the upload, and after each change. It looks at the cloud, and does
// the same again.
func TestCut(t *testing.T) {
	for _, what := range []string{"push", "rollback"} {
		t.Run(what, func(t *testing.T) {
			direct := target(t, Config{})
			killed, proxy := behind(t)
			image, build := "Cut_"+what, 0
			push := func(tg *Target) error {
				_, err := publish.Publish(t.Context(), tg, release(t, image, build))
				return err
			}
			next := func() { build++ }
			for range 2 {
				next()
				require.NoError(t, push(direct))
			}
			do := push
			if what == "rollback" {
				next = func() {
					build++
					require.NoError(t, push(direct))
				}
				do = func(tg *Target) error {
					_, err := publish.Rollback(t.Context(), tg, image, nth(build-1), "it does not boot")
					return err
				}
			}
			for _, cut := range cuts {
				for n, struck := 1, true; struck; n++ {
					next()
					struck = false
					seen := 0
					proxy.Heal()
					proxy.Fault(func(c publishtest.Call) publishtest.Fault {
						if !cut.at(c) {
							return publishtest.Fault{}
						}
						if seen++; seen != n {
							return publishtest.Fault{}
						}
						struck = true
						return cut.fault
					})
					err := do(killed)
					require.Equal(t, struck, err != nil, "%s %d: %v", cut.name, n, err)
					atLeastOne(t, direct, image)
					require.NoError(t, do(direct), "%s %d", cut.name, n)
					tidy(t, direct, image)
					shorten(t, direct, image, nth(build))
				}
			}
		})
	}
}

// shorten removes what has no label and is not the newest, so that lists stay short.
func shorten(t *testing.T, tg *Target, image string, newest publish.BuildID) {
	t.Helper()
	c := connect(t, tg)
	own, err := c.own(t.Context(), image)
	require.NoError(t, err)
	for _, i := range own {
		if len(tg.entry(i, true).Labels) == 0 && build(i) != newest {
			require.NoError(t, c.remove(t.Context(), i))
		}
	}
}

// tidy is what must be so after a run that was not cut.
func tidy(t *testing.T, tg *Target, image string) {
	t.Helper()
	c := connect(t, tg)
	require.Len(t, named(t, c, image+"_latest"), 1)
	require.Len(t, named(t, c, image+"_prev"), 1)
	own, err := c.own(t.Context(), image)
	require.NoError(t, err)
	builds := make(map[publish.BuildID]bool)
	for _, i := range own {
		require.Empty(t, problem(i))
		require.False(t, builds[build(i)], "build %s twice", build(i))
		builds[build(i)] = true
	}
}

func named(t *testing.T, c *client, name string) []*image {
	t.Helper()
	images, err := c.List(t.Context(), map[string]string{"name": name})
	require.NoError(t, err)
	return images
}

// atLeastOne is what must be so at any time: a list by name has a complete image.
func atLeastOne(t *testing.T, tg *Target, image string) {
	t.Helper()
	c := connect(t, tg)
	latest := named(t, c, image+"_latest")
	require.NotEmpty(t, latest)
	require.LessOrEqual(t, len(latest), 2)
	for _, i := range latest {
		require.Empty(t, problem(i))
		require.Equal(t, "active", i.Status)
	}
}

// TestUploadFaults plays what goes wrong with an upload: in the end the same bytes
// are there, or there is an error and no image.
func TestUploadFaults(t *testing.T) {
	for name, test := range map[string]struct {
		fault publishtest.Fault
		times int
		want  string // "" is that the bytes arrive
	}{
		"reset":            {publishtest.Fault{When: publishtest.Before, Upload: 1000}, 1, ""},
		"answer lost":      {publishtest.Fault{When: publishtest.After}, 1, ""},
		"token expired":    {publishtest.Fault{When: publishtest.Before, Upload: 1000, Status: 401}, 1, ""},
		"token bad":        {publishtest.Fault{When: publishtest.Before, Status: 401}, 100, "503"},
		"too many":         {publishtest.Fault{When: publishtest.Before, Status: 429, Header: http.Header{"Retry-After": {"1"}}}, 2, ""},
		"unavailable":      {publishtest.Fault{When: publishtest.Before, Upload: 1000, Status: 503}, 2, ""},
		"bad gateway":      {publishtest.Fault{When: publishtest.After, Status: 502}, 1, ""},
		"conflict":         {publishtest.Fault{When: publishtest.Before, Status: 409}, 1, ""},
		"over quota":       {publishtest.Fault{When: publishtest.Before, Status: 413}, 100, "413"},
		"forbidden":        {publishtest.Fault{When: publishtest.Before, Status: 403}, 100, "403"},
		"success, no byte": {publishtest.Fault{When: publishtest.Before, Status: 204}, 1, "content is not that of the file"},
		"stalled":          {publishtest.Fault{Stall: true}, 100, "no byte was sent"},
	} {
		t.Run(name, func(t *testing.T) {
			tg, proxy := behind(t)
			patience := tg.stalled
			if test.fault.Stall {
				tg.stalled = 500 * time.Millisecond
			}
			left := test.times
			proxy.Fault(func(c publishtest.Call) publishtest.Fault {
				if c.Method != http.MethodPut || left == 0 {
					return publishtest.Fault{}
				}
				left--
				return test.fault
			})
			image := "Fault_" + strings.NewReplacer(" ", "_", ",", "").Replace(name)
			p, err := publish.Publish(t.Context(), tg, release(t, image, 1))
			proxy.Heal()
			tg.stalled = patience
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				own, err := connect(t, tg).own(t.Context(), image)
				require.NoError(t, err)
				require.Empty(t, own)
				_, err = publish.Publish(t.Context(), tg, release(t, image, 1))
				require.NoError(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, hashOf(t, release(t, image, 1)), download(t, tg, p.Entry.ID))
		})
	}
}

// cloud is the real one behind a proxy.
func cloud(t *testing.T) *publishtest.Cloud {
	reads := target(t, Config{})
	connect(t, reads)
	return &publishtest.Cloud{
		URL: openstacktest.Start(t).Glance, AtOnce: 4, Overlap: true, Faults: 22,
		Open: func(url string, client *http.Client) (publish.Target, error) {
			tg, err := New(reads.config, reads.logger)
			if err != nil {
				return nil, err
			}
			tg.pause, tg.timeout, tg.stalled = 2*time.Millisecond, 10*time.Second, 5*time.Second
			c, err := tg.connect(context.Background())
			if err != nil {
				return nil, err
			}
			c.Endpoint = url
			if client.Transport != nil {
				c.Provider.HTTPClient.Transport = client.Transport
			}
			return tg, nil
		},
		Holds: func(_ context.Context, _ publish.Target, e publish.Entry, r *publish.Release) error {
			want, err := openstackapi.DiskOf(r)
			if err != nil {
				return err
			}
			if got := download(t, reads, e.ID); got != want.SHA256 {
				return fmt.Errorf("the cloud has %s instead of %s", got, want.SHA256)
			}
			return nil
		},
	}
}

// TestFaults lets calls of publications meet faults that pass by.
func TestFaults(t *testing.T) {
	require.NoError(t, publishtest.TestFaults(t.Context(), cloud(t), "Passing"))
}

func TestTroubles(t *testing.T) {
	require.NoError(t, publishtest.TestTroubles(t.Context(), cloud(t), "Trouble"))
}

// TestWrongHash has a cloud that says another hash or size of what it has: nothing becomes
// an image.
func TestWrongHash(t *testing.T) {
	for name, lie := range map[string]func(body string) string{
		"hash": func(body string) string {
			return strings.Replace(body, `"os_hash_value": "`, `"os_hash_value": "00`, 1)
		},
		"size": func(body string) string { return strings.Replace(body, `"size": `, `"size": 1`, 1) },
		"algorithm": func(body string) string {
			return strings.Replace(body, `"os_hash_algo": "sha512"`, `"os_hash_algo": "md5"`, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tg := target(t, Config{})
			c := connect(t, tg)
			image := "Wrong_" + name
			p, err := publishtest.NewProxy(openstacktest.Start(t).Glance, lying(lie))
			require.NoError(t, err)
			t.Cleanup(p.Close)
			honest := c.Endpoint
			c.Endpoint = p.URL
			_, err = publish.Publish(t.Context(), tg, release(t, image, 1))
			require.Error(t, err)
			c.Endpoint = honest
			own, err := c.own(t.Context(), image)
			require.NoError(t, err)
			require.Empty(t, own)
		})
	}
}

// lying is a server that changes what it says of an image that has content.
type lying func(body string) string

func (l lying) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || !strings.Contains(resp.Header.Get("Content-Type"), "json") {
		return resp, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	body := string(data)
	if !strings.Contains(body, `"os_hash_value": null`) {
		body = l(body)
	}
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	return resp, nil
}

// hashOf is the digest of the release's qcow2.
func hashOf(t *testing.T, r *publish.Release) string {
	t.Helper()
	f, err := openstackapi.DiskOf(r)
	require.NoError(t, err)
	return f.SHA256
}

// download reads the image back and returns its SHA-256.
func download(t *testing.T, tg *Target, id string) string {
	t.Helper()
	c := connect(t, tg)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Endpoint+paths.Image+id+"/file", nil)
	require.NoError(t, err)
	req.Header.Set("X-Auth-Token", c.Provider.Token())
	resp, err := c.Provider.HTTPClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	sum := sha256.New()
	_, err = io.Copy(sum, resp.Body)
	require.NoError(t, err)
	return hex.EncodeToString(sum.Sum(nil))
}

// TestSecrets looks for passwords and tokens in what is logged and in errors.
func TestSecrets(t *testing.T) {
	tg, proxy := behind(t)
	c := connect(t, tg)
	var log bytes.Buffer
	c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	tokens := []string{c.Provider.Token()}
	proxy.Fault(func(call publishtest.Call) publishtest.Fault {
		tokens = append(tokens, call.Header.Get("X-Auth-Token"))
		switch {
		case call.Method == http.MethodPut && call.N%3 == 0:
			return publishtest.Fault{When: publishtest.Before, Status: 401}
		case call.Method == http.MethodPut:
			return publishtest.Fault{When: publishtest.Before, Upload: 100}
		}
		return publishtest.Fault{}
	})
	_, err := publish.Publish(t.Context(), tg, release(t, "Standard_Secrets", 1))
	require.Error(t, err)
	require.NotEmpty(t, log.String())
	for _, secret := range append(tokens, "publisher-pw") {
		require.NotEmpty(t, secret)
		require.NotContains(t, log.String()+err.Error(), secret)
	}
}
