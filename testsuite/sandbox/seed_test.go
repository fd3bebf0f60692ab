package sandbox

import (
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// What the image promises must come from the image: the seed says who the
// machine is and whose key it takes, and nothing else.
func TestSeedHoldsThreeThings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.iso")
	key := newSigner().PublicKey()
	require.NoError(t, seed{instanceID: "i-1", hostname: "otc-sandbox", key: key}.write(path))

	b, err := file.OpenFromPath(path, true)
	require.NoError(t, err)
	defer func() { _ = b.Close() }()
	fs, err := iso9660.Read(b, seedSize, 0, 2048)
	require.NoError(t, err)
	assert.Equal(t, "cidata", strings.Trim(fs.Label(), " \x00"))
	entries, err := fs.ReadDir(".")
	require.NoError(t, err)
	content := map[string]string{}
	for _, e := range entries {
		f, err := fs.OpenFile(e.Name(), 0)
		require.NoError(t, err)
		text, err := io.ReadAll(f)
		require.NoError(t, err)
		content[e.Name()] = string(text)
	}
	require.Len(t, content, 2)
	assert.Empty(t, content["user-data"])
	var meta map[string]any
	require.NoError(t, json.Unmarshal([]byte(content["meta-data"]), &meta))
	assert.Equal(t, map[string]any{
		"instance-id":    "i-1",
		"local-hostname": "otc-sandbox",
		"public-keys":    []any{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))},
	}, meta)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	require.NoError(t, err)
	assert.Equal(t, []string{path}, left)
}
