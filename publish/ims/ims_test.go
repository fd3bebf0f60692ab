package ims

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/imstest"
	"github.com/opentelekomcloud/go-imagefactory/internal/s3test"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/obs"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

const bucket = "ims-images"

// service is the server and the bucket that it reads.
type service struct {
	*imstest.Server
	URL     string
	gateway *s3test.Gateway
	project string

	transport http.RoundTripper // to the gateway
}

func start(t *testing.T) *service {
	t.Helper()
	g := s3test.Start(t, bucket)
	s := &service{gateway: g, project: imstest.ProjectOf("publisher"), transport: publishtest.OpenTelekomCloud(g.Transport()), Server: &imstest.Server{
		Users: map[string]string{"publisher": "publisher-pw"}, Objects: os.DirFS(g.Dir), Polls: 1, Quota: 1000,
	}}
	web := httptest.NewServer(s.Server)
	t.Cleanup(web.Close)
	s.URL = web.URL
	clouds := filepath.Join(t.TempDir(), "clouds.yaml")
	require.NoError(t, os.WriteFile(clouds, fmt.Appendf(nil, `clouds:
  otc:
    region_name: eu-de
    auth: {auth_url: %q, username: publisher, password: publisher-pw, project_name: publisher, user_domain_name: Default, project_domain_name: Default}
`, web.URL+imstest.Identity+"/v3"), 0o600))
	t.Setenv("OS_CLIENT_CONFIG_FILE", clouds)
	return s
}

// target returns one with little patience.
func (s *service) target(t testing.TB, c Config) *Target {
	c.Cloud, c.AllowHTTP = "otc", true
	c.Bucket = obs.Config{Bucket: bucket, Endpoint: s.gateway.URL, PathStyle: true}
	to, err := New(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	b := to.bucket.(*obs.Target)
	b.Transport, b.Pause = s.transport, time.Millisecond
	b.Credentials = func(context.Context) (obs.Credentials, error) {
		return obs.Credentials{AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey}, nil
	}
	to.pause = time.Millisecond
	return to
}

func nth(n int) publish.BuildID {
	return publish.NewBuildID(time.Date(2018, time.Month(n), 1, 3, 15, 7, 0, time.UTC))
}

func release(t testing.TB, image string, n int) *publish.Release {
	t.Helper()
	r, err := publishtest.Release(context.Background(), t.TempDir(), image, nth(n))
	require.NoError(t, err)
	return r
}

func TestTarget(t *testing.T) {
	require.NoError(t, publishtest.TestTarget(t.Context(), start(t).target(t, Config{}), "Publishtest"))
}

// cloud is the service behind a proxy that cuts. The objects of an import are brought
// to where the gateway has them as files, without the gateway: publish/obs cuts that.
func (s *service) cloud(t *testing.T) *publishtest.Cloud {
	return &publishtest.Cloud{
		URL: s.URL, AtOnce: 16, Overlap: true, Elsewhere: true,
		Open: func(url string, client *http.Client) (publish.Target, error) {
			to := s.target(t, Config{})
			to.timeout = 10 * time.Second
			to.bucket = &directory.Target{Dir: filepath.Join(s.gateway.Dir, bucket, DefaultPrefix)}
			c, err := to.connect(context.Background())
			if err != nil {
				return nil, err
			}
			c.Endpoint = url
			if client.Transport != nil {
				c.Provider.HTTPClient.Transport = client.Transport
			}
			return to, nil
		},
		Holds: func(_ context.Context, _ publish.Target, e publish.Entry, r *publish.Release) error {
			shown := s.Image(e.ID)
			disk := filepath.Join(r.Dir, r.Index.Image+"-"+r.Index.Build.String()+".qcow2")
			st, err := os.Stat(disk)
			if err == nil && shown["__image_size"] != fmt.Sprint(st.Size()) {
				err = fmt.Errorf("it has %v bytes instead of %d", shown["__image_size"], st.Size())
			}
			return err
		},
		Orphans: func(_ context.Context, image string) ([]string, error) { return s.staged(image) },
	}
}

// staged is what lies in the bucket of an image.
func (s *service) staged(image string) ([]string, error) {
	var left []string
	root := filepath.Join(s.gateway.Dir, bucket, DefaultPrefix, image)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && !d.IsDir() && d.Name() != ".lock" {
			left = append(left, name)
		}
		return err
	})
	return left, err
}

func TestCuts(t *testing.T) {
	s := start(t)
	require.NoError(t, publishtest.TestCuts(t.Context(), s.cloud(t), "Cut"))
}

func TestFaults(t *testing.T) {
	s := start(t)
	require.NoError(t, publishtest.TestFaults(t.Context(), s.cloud(t), "Fault"))
}

func TestTroubles(t *testing.T) {
	s := start(t)
	require.NoError(t, publishtest.TestTroubles(t.Context(), s.cloud(t), "Trouble"))
}

// TestImage looks at what an image is called and has.
func TestImage(t *testing.T) {
	s := start(t)
	s.Operator = true
	shared := s.target(t, Config{Members: []string{"edc89b490d7d4392898e19b2deb34797"}, Properties: map[string]string{"__support_amd": "true"}, Description: "of the factory"})
	p, err := publish.Publish(t.Context(), shared, release(t, "Standard_Image", 1))
	require.NoError(t, err)
	i := s.Image(p.Entry.ID)
	for name, want := range map[string]any{
		"name": "Standard_Image_latest", "visibility": "private", "status": "active", "__support_kvm": "true", "__support_amd": "true",
		"__description": "of the factory", "imagefactory_name": "Standard_Image_20180101_0", "min_disk": int64(1), "virtual_env_type": "FusionCompute",
	} {
		assert.Equal(t, want, i[name], name)
	}
	assert.Equal(t, []string{"edc89b490d7d4392898e19b2deb34797"}, s.Members(p.Entry.ID))
	public := s.target(t, Config{Public: true})
	p, err = publish.Publish(t.Context(), public, release(t, "Standard_Public", 1))
	require.NoError(t, err)
	assert.Equal(t, "public", s.Image(p.Entry.ID)["visibility"])
}

// TestRefused has what the service documents to refuse, and what it gets wrong. No image
// and no object stay, and once it is right the release is published.
func TestRefused(t *testing.T) {
	broken := func(o imstest.Outcome) func(*imstest.Server) {
		return func(s *imstest.Server) { s.Outcome = func(string) imstest.Outcome { return o } }
	}
	for name, test := range map[string]struct {
		broke func(*imstest.Server)
		want  error
		text  string
	}{
		"quota":                {func(s *imstest.Server) { s.Quota = -1 }, ErrQuota, "quota"},
		"os version":           {broken(imstest.Outcome{Code: "IMG.0056"}), ErrOSVersion, "IMG.0056"},
		"file":                 {broken(imstest.Outcome{Code: "IMG.0057"}), ErrFile, "IMG.0057"},
		"unknown system error": {broken(imstest.Outcome{Code: "IMG.0061"}), errImport, "IMG.0061"},
		"success, but empty":   {broken(imstest.Outcome{Empty: true}), errImport, "with 0 bytes"},
		"success, but queued":  {broken(imstest.Outcome{Status: "queued"}), errImport, "is queued"},
		"success, but killed":  {broken(imstest.Outcome{Status: "killed"}), errImport, "is killed"},
		"bucket":               {func(s *imstest.Server) { s.Objects = os.DirFS(os.DevNull) }, ErrFile, "IMG.0069"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			good := s.Objects
			test.broke(s.Server)
			to := s.target(t, Config{})
			r := release(t, "Standard_Refused", 1)
			_, err := publish.Publish(t.Context(), to, r)
			require.ErrorIs(t, err, test.want)
			require.ErrorContains(t, err, test.text)
			have, err := to.List(t.Context(), "Standard_Refused")
			require.NoError(t, err)
			require.Empty(t, have)

			s.Quota, s.Outcome, s.Objects = 1000, nil, good
			p, err := publish.Publish(t.Context(), to, r)
			require.NoError(t, err)
			require.Equal(t, "latest", p.Entry.State())
			left, err := s.staged("Standard_Refused")
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// TestFlowControl has a service with too many tasks for a while.
func TestFlowControl(t *testing.T) {
	s := start(t)
	var refused atomic.Int32
	proxy, err := publishtest.NewProxy(s.URL, nil)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	proxy.Fault(func(c publishtest.Call) publishtest.Fault {
		if strings.HasSuffix(c.Path, "/action") && refused.Add(1) <= 8 {
			return publishtest.Fault{When: publishtest.Before, Status: 400, Body: `{"error":{"message":"The number of tasks exceeds the flow control limit.","code":"IMG.0060"}}`}
		}
		return publishtest.Fault{}
	})
	to := s.target(t, Config{})
	c, err := to.connect(t.Context())
	require.NoError(t, err)
	c.Endpoint = proxy.URL
	_, err = publish.Publish(t.Context(), to, release(t, "Standard_Busy", 1))
	require.NoError(t, err)
	require.EqualValues(t, 9, refused.Load())

	to.patience = 0
	refused.Store(0)
	_, err = publish.Publish(t.Context(), to, release(t, "Standard_Busy", 2))
	require.ErrorIs(t, err, ErrBusy)
}

// TestCheckedBefore has what is refused before anything is called.
func TestCheckedBefore(t *testing.T) {
	s := start(t)
	for _, c := range []Config{
		{Description: "two\nlines"}, {Description: "a <b>"}, {Description: strings.Repeat("x", 1025)},
		{Properties: map[string]string{"Upper": "x"}}, {Properties: map[string]string{"imagefactory_build": "x"}}, {Public: true, Members: []string{"x"}},
	} {
		c.Cloud = "otc"
		c.Bucket.Bucket = bucket
		_, err := New(c, nil)
		require.Error(t, err)
	}
	_, err := New(Config{Cloud: "otc"}, nil)
	require.ErrorContains(t, err, "no bucket")
	to := s.target(t, Config{})
	_, err = to.Push(t.Context(), release(t, strings.Repeat("x", 120), 1))
	require.ErrorIs(t, err, ErrName)
}

// TestFewRequests has a project of 500 images: a run that changes nothing asks little.
func TestFewRequests(t *testing.T) {
	s := start(t)
	for n := range 500 {
		s.Put(fmt.Sprintf("other-%d", n), s.project, map[string]any{"name": fmt.Sprintf("Standard_Other_%d_latest", n), "status": "active", "visibility": "private"})
	}
	r := release(t, "Standard_Few", 1)
	_, err := publish.Publish(t.Context(), s.target(t, Config{}), r)
	require.NoError(t, err)
	to := s.target(t, Config{}) // which logs in anew
	var journal []publish.Call
	to.Journal = func(c publish.Call) { journal = append(journal, c) } // one at a time, but for an upload's parts
	p, err := publish.Publish(t.Context(), to, r)
	require.NoError(t, err)
	require.Empty(t, p.Steps)
	require.LessOrEqual(t, len(journal), 10, "%+v", journal)
}

// TestForeign has an image of somebody else, and another of ours, with a label's name.
func TestForeign(t *testing.T) {
	s := start(t)
	to := s.target(t, Config{})
	s.Put("theirs", "other-project", map[string]any{"name": "Standard_Foreign_latest", "status": "active", "visibility": "public", "size": 5})
	s.Put("ours", s.project, map[string]any{"name": "Standard_Foreign_latest", "status": "active", "visibility": "private", "size": 5})
	p, err := publish.Publish(t.Context(), to, release(t, "Standard_Foreign", 1))
	require.NoError(t, err)
	require.Len(t, p.Problems, 2)
	for _, e := range p.Problems {
		require.True(t, e.Foreign)
	}
	require.Equal(t, "Standard_Foreign_latest", s.Image("theirs")["name"])
	require.Equal(t, "Standard_Foreign_latest", s.Image("ours")["name"])

	// An image that was emptied by hand is repaired; it keeps its label.
	s.Put(p.Entry.ID, "", map[string]any{"__image_size": "0"})
	q, err := publish.Publish(t.Context(), to, release(t, "Standard_Foreign", 1))
	require.NoError(t, err)
	require.NotEqual(t, p.Entry.ID, q.Entry.ID)
	require.Equal(t, "latest", q.Entry.State())
	require.Nil(t, s.Image(p.Entry.ID))
}

// TestToken lets the token end in the middle.
func TestToken(t *testing.T) {
	s := start(t)
	to := s.target(t, Config{})
	_, err := publish.Publish(t.Context(), to, release(t, "Standard_Token", 1))
	require.NoError(t, err)
	s.ExpireTokens()
	_, err = publish.Publish(t.Context(), to, release(t, "Standard_Token", 2))
	require.NoError(t, err)
}

// TestSecrets looks for passwords and tokens in what is logged and in errors.
func TestSecrets(t *testing.T) {
	s := start(t)
	proxy, err := publishtest.NewProxy(s.URL, nil)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	to := s.target(t, Config{})
	var log bytes.Buffer
	to.logger = slog.New(slog.NewTextHandler(&log, nil))
	c, err := to.connect(t.Context())
	require.NoError(t, err)
	c.Endpoint = proxy.URL
	secrets := []string{"publisher-pw", s3test.SecretKey, c.Provider.Token()}
	proxy.Fault(func(c publishtest.Call) publishtest.Fault {
		if c.Method != http.MethodPost {
			return publishtest.Fault{}
		}
		return publishtest.Fault{When: publishtest.Before, Status: 500, Body: c.Header.Get("X-Auth-Token")}
	})
	to.patience = 10 * time.Millisecond
	_, err = publish.Publish(t.Context(), to, release(t, "Standard_Secrets", 1))
	require.Error(t, err)
	require.NotEmpty(t, log.String())
	for _, secret := range secrets {
		require.NotEmpty(t, secret)
		require.NotContains(t, log.String()+err.Error(), secret)
	}
}
