package sandbox

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox/network"
)

func testSeed() seed {
	return seed{instanceID: "1-2", hostname: "ecs-1f0a", key: newSigner().PublicKey(), mac: network.NewMAC()}
}

// volumeFiles reads a seed's volume.
func volumeFiles(t *testing.T, name string) (label string, files map[string]string) {
	t.Helper()
	st, err := os.Stat(name)
	require.NoError(t, err)
	b, err := file.OpenFromPath(name, true)
	require.NoError(t, err)
	defer func() { _ = b.Close() }()
	fs, err := iso9660.Read(b, st.Size(), 0, 2048)
	require.NoError(t, err)
	files = map[string]string{}
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := fs.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			if e.IsDir() {
				walk(name)
				continue
			}
			f, err := fs.OpenFile(name, 0)
			require.NoError(t, err)
			text, err := io.ReadAll(f)
			require.NoError(t, err)
			files[name] = string(text)
		}
	}
	walk(".")
	return strings.Trim(fs.Label(), " \x00"), files
}

// What the image promises must come from the image: the seed says who the
// machine is and whose key it takes, and nothing else.
func TestSeedHoldsThreeThings(t *testing.T) {
	name := filepath.Join(t.TempDir(), "seed.iso")
	s := testSeed()
	label, files, err := s.volume(NoCloud)
	require.NoError(t, err)
	require.NoError(t, writeVolume(name, label, files))

	label, content := volumeFiles(t, name)
	assert.Equal(t, "cidata", label)
	require.Len(t, content, 2)
	assert.Empty(t, content["user-data"])
	var meta map[string]any
	require.NoError(t, json.Unmarshal([]byte(content["meta-data"]), &meta))
	assert.Equal(t, map[string]any{
		"instance-id":    "1-2",
		"local-hostname": "ecs-1f0a",
		"public-keys":    []any{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.key)))},
	}, meta)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(name), "*"))
	require.NoError(t, err)
	assert.Equal(t, []string{name}, left)
}

// A config drive and the metadata service say the same, at the paths that OpenStack
// documents.
func TestOpenStackMetadata(t *testing.T) {
	s := testSeed()
	s.userData, s.vendorData = []byte("#!/bin/sh\n"), []byte("#cloud-config\n{}\n"+strings.Repeat("# long\n", 200_000))
	name := filepath.Join(t.TempDir(), "seed.iso")
	label, files, err := s.volume(ConfigDrive)
	require.NoError(t, err)
	require.NoError(t, writeVolume(name, label, files))
	label, drive := volumeFiles(t, name)
	assert.Equal(t, "config-2", label)
	require.Len(t, drive, 4)

	served, err := s.openStack()
	require.NoError(t, err)
	server := httptest.NewServer(metadataHandler(served))
	defer server.Close()
	get := func(name string) (int, string) {
		res, err := http.Get(server.URL + name)
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(text)
	}
	for name, content := range drive {
		status, text := get("/" + name)
		assert.Equal(t, http.StatusOK, status, name)
		assert.Equal(t, content, text, name)
	}
	for _, name := range []string{"/openstack", "/openstack/"} {
		_, text := get(name)
		assert.Equal(t, "2018-08-27\nlatest", text)
	}
	for _, name := range []string{"/", "/latest/meta-data/", "/openstack/1999-01-01/meta_data.json", "/openstack/latest/password", "/openstack/latest/"} {
		status, _ := get(name)
		assert.Equal(t, http.StatusNotFound, status, name)
	}
	var meta struct {
		UUID, Hostname string
		Keys           map[string]string `json:"public_keys"`
	}
	require.NoError(t, json.Unmarshal([]byte(drive["openstack/latest/meta_data.json"]), &meta))
	assert.Equal(t, "1-2", meta.UUID)
	assert.Equal(t, "ecs-1f0a", meta.Hostname)
	assert.Equal(t, map[string]string{"key": s.authorizedKey()}, meta.Keys)
	var vendor map[string]string
	require.NoError(t, json.Unmarshal([]byte(drive["openstack/latest/vendor_data.json"]), &vendor))
	assert.Equal(t, map[string]string{"cloud-init": string(s.vendorData)}, vendor)
	assert.Equal(t, "#!/bin/sh\n", drive["openstack/latest/user_data"])
	assert.Contains(t, drive["openstack/latest/network_data.json"], s.mac.String())
}
