package sandbox_test

import (
	"crypto/sha256"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/spoil"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// imageEnv names a good image to boot. The end-to-end test of the module
// builds one; without it, these tests have nothing to boot.
const imageEnv = "IMAGEFACTORY_TEST_IMAGE"

func testImage(t *testing.T) string {
	t.Helper()
	image := os.Getenv(imageEnv)
	if image == "" {
		t.Skip(imageEnv + " names no image; the end-to-end test boots the one that it builds")
	}
	needs.Tools(t, "qemu-system-x86_64", "qemu-img")
	return image
}

func digest(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	h := sha256.New()
	_, err = io.Copy(h, f)
	require.NoError(t, err)
	return h.Sum(nil)
}

// bad boots an image and returns what the profile otc finds wrong with it. The
// image's own parameters are those of examples/nightly.
func bad(t *testing.T, image string) []string {
	t.Helper()
	before := digest(t, image)
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	work := t.TempDir()
	q := sandbox.QEMU{WorkDir: work, Logger: logger, ConsoleLog: filepath.Join(t.TempDir(), "console.log")}
	m, err := q.Boot(t.Context(), image)
	require.NoError(t, err)
	defer func() { _ = m.Close() }()
	suite := testsuite.Suite{Profile: testsuite.OTC(), Logger: logger, Params: testsuite.Params{
		Hostname:     m.Hostname,
		NTPServers:   []string{"ntp01.otc-service.com", "ntp02.otc-service.com"},
		DiskBytes:    m.ImageBytes,
		OverlayBytes: m.DiskBytes,
		UVPMonitor:   testsuite.UVPMonitor{State: testsuite.UVPOptional, Reason: "not in Debian's archive"},
		Repositories: []string{"http://debmirror.otc-service.com/debian", "http://debmirror.otc-service.com/debian-security"},
	}}
	report, err := suite.Run(t.Context(), m.Target)
	require.NoError(t, err)
	require.NoError(t, m.Close())
	require.NoError(t, report.WriteText(t.Output()))

	left, err := os.ReadDir(work)
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.Equal(t, before, digest(t, image), "the image was changed")
	log, err := os.ReadFile(q.ConsoleLog)
	require.NoError(t, err)
	require.NotEmpty(t, m.Target.Password)
	assert.NotContains(t, string(log), m.Target.Password)
	var ids []string
	for _, r := range report.Bad() {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestBootImage(t *testing.T) {
	assert.Empty(t, bad(t, testImage(t)))
}

func TestBootSpoiledImage(t *testing.T) {
	assert.Equal(t, spoil.Checks(), bad(t, spoil.Image(t, testImage(t))))
}
