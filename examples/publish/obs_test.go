package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/imstest"
	"github.com/opentelekomcloud/go-imagefactory/internal/s3test"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// A bucket and a directory are published to at once, and the bucket is fetched from;
// what is said, and the journal, holds no secret.
func TestBucket(t *testing.T) {
	g := s3test.Start(t, "images")
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": g.URL, "AWS_REGION": s3test.Region, "AWS_CA_BUNDLE": g.CA, "OBS_PATH_STYLE": "yes",
		"AWS_ACCESS_KEY_ID": s3test.AccessKey, "AWS_SECRET_ACCESS_KEY": s3test.SecretKey, "AWS_SESSION_TOKEN": "",
	} {
		t.Setenv(name, value)
	}
	r, err := publishtest.Release(t.Context(), t.TempDir(), "Image", publish.NewBuildID(time.Unix(1e9, 0)))
	require.NoError(t, err)
	dir, journal := t.TempDir(), filepath.Join(t.TempDir(), "journal")
	key := r.Dir + ".pub"
	all := ""
	for _, args := range [][]string{
		{"push", "-journal", journal, "-to", "obs:images/linux", "-to", "directory:" + dir, "-keyring", key, r.Dir},
		{"list", "-json", "-to", "obs:images/linux", "Image"},
		{"verify", "-to", "obs:images/linux", "-keyring", key, "Image"},
		{"fetch", "-from", "obs:images/linux", "-keyring", key, "Image", filepath.Join(dir, "fetched")},
	} {
		code, stdout, stderr := program(t, args...)
		assert.Zero(t, code, "%q: %s", args, stderr)
		all += stdout + stderr
	}
	assert.FileExists(t, filepath.Join(dir, "fetched", "Image", r.Index.Build.String(), "SHA256SUMS"))
	data, err := os.ReadFile(journal)
	require.NoError(t, err)
	assert.Contains(t, string(data), `"method":"PUT"`)
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	code, _, stderr := program(t, "list", "-to", "obs:images", "Image")
	assert.Equal(t, 2, code)
	assert.Contains(t, stderr, "over which anybody reads along")
	for _, secret := range []string{s3test.AccessKey, s3test.SecretKey, "Signature"} {
		assert.NotContains(t, all+string(data)+stderr, secret)
	}
}

// A cloud's image service imports from a bucket.
func TestIMS(t *testing.T) {
	g := s3test.Start(t, "imports")
	server := httptest.NewServer(&imstest.Server{Users: map[string]string{"try": "try-password"}, Objects: os.DirFS(g.Dir)})
	t.Cleanup(server.Close)
	clouds := filepath.Join(t.TempDir(), "clouds.yaml")
	require.NoError(t, os.WriteFile(clouds, fmt.Appendf(nil, `clouds:
  try:
    region_name: eu-de
    auth: {auth_url: %q, username: try, password: try-password, project_name: try, user_domain_name: Default, project_domain_name: Default}
`, server.URL+imstest.Identity+"/v3"), 0o600))
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": g.URL, "AWS_REGION": s3test.Region, "AWS_CA_BUNDLE": g.CA, "OBS_PATH_STYLE": "yes", "OS_CLIENT_CONFIG_FILE": clouds,
		"AWS_ACCESS_KEY_ID": s3test.AccessKey, "AWS_SECRET_ACCESS_KEY": s3test.SecretKey, "AWS_SESSION_TOKEN": "", "IMS_ALLOW_HTTP": "",
	} {
		t.Setenv(name, value)
	}
	r, err := publishtest.Release(t.Context(), t.TempDir(), "Image", publish.NewBuildID(time.Unix(1e9, 0)))
	require.NoError(t, err)
	push := []string{"push", "-to", "ims:try/imports", "-keyring", r.Dir + ".pub", r.Dir}
	code, _, stderr := program(t, push...)
	assert.Equal(t, 2, code)
	assert.Contains(t, stderr, "is not https")
	t.Setenv("IMS_ALLOW_HTTP", "yes")
	code, stdout, stderr := program(t, push...)
	assert.Zero(t, code, stderr)
	assert.Contains(t, stdout, "move latest of Image")
	code, stdout, stderr = program(t, "list", "-json", "-to", "ims:try/imports", "Image")
	assert.Zero(t, code, stderr)
	assert.Contains(t, stdout, `"state": "latest"`)
	assert.Contains(t, stdout, `"hidden": false`)
	assert.Contains(t, stdout, `"created": "20`)
}
