package sandboxtest_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

var update = flag.Bool("update", false, "take the facts that the test suite recorded")

var _ sandbox.Sandbox = sandboxtest.Sandbox{}

// The facts are those that the suite's own tests judge.
func TestRecordedFacts(t *testing.T) {
	want, err := os.ReadFile("../testdata/debian12.json")
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile("debian12.json", want, 0o644))
	}
	got, err := os.ReadFile("debian12.json")
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "go test ./testsuite/sandboxtest -update copies them")
	require.NotEmpty(t, sandboxtest.Good())
}

// run boots the image and holds the machine to the profile otc.
func run(t *testing.T, box sandboxtest.Sandbox, user string) *testsuite.Report {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image.qcow2")
	require.NoError(t, sandboxtest.WriteImage(image, 4<<30))
	m, err := box.Boot(t.Context(), sandbox.Image{Path: image, User: user})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	suite := testsuite.Suite{Profile: testsuite.OTC(), Params: testsuite.Params{
		User: user, Hostname: m.Hostname, DiskBytes: m.ImageBytes, OverlayBytes: m.DiskBytes,
		NTPServers: []string{"ntp01.otc-service.com", "ntp02.otc-service.com"},
		Repositories: []testsuite.Repository{
			{URL: "http://debmirror.otc-service.com/debian", Suites: []string{"bookworm", "bookworm-updates"}},
			{URL: "http://debmirror.otc-service.com/debian-security", Suites: []string{"bookworm-security"}},
		},
		RequiredPackages: []string{"openssh-server"}, MirrorHosts: []string{"mirror.example"},
		UVPMonitor: testsuite.UVPMonitor{State: testsuite.UVPOptional, Reason: "not in Debian's archive"},
	}}
	report, err := suite.Run(t.Context(), m.Target)
	require.NoError(t, err)
	return report
}

func TestGoodMachine(t *testing.T) {
	for _, user := range []string{"", "ubuntu"} {
		report := run(t, sandboxtest.Sandbox{}, user)
		assert.Empty(t, report.Bad())
		assert.Greater(t, report.Summary.Pass, 50)
		assert.Equal(t, 7, report.Summary.Skipped, "uvp.monitor, and what a witness sees")
	}
}

func TestBadMachine(t *testing.T) {
	facts := sandboxtest.Good()
	facts["failed-units"] = testsuite.Fact{Output: "chrony.service loaded failed failed\n"}
	facts["sysctl"] = testsuite.Fact{Error: "no /proc"}
	report := run(t, sandboxtest.Sandbox{Facts: facts}, "")
	failed := 0
	for _, c := range report.Bad() {
		if c.Status == testsuite.Fail {
			failed++
			assert.Contains(t, c.Found, "chrony.service")
			continue
		}
		assert.Contains(t, c.Reason, "cannot read fact sysctl")
	}
	assert.Equal(t, 1, failed)
	assert.Greater(t, report.Summary.Error, 5)
	assert.NotContains(t, sandboxtest.Good()["failed-units"].Output, "chrony", "Good is a copy")
}

func TestBootFails(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	require.NoError(t, os.WriteFile(raw, []byte("no qcow2"), 0o600))
	for _, path := range []string{"", dir, raw, filepath.Join(dir, "none")} {
		_, err := sandboxtest.Sandbox{}.Boot(t.Context(), sandbox.Image{Path: path})
		var boot *sandbox.BootError
		require.ErrorAs(t, err, &boot, path)
	}
	good := filepath.Join(dir, "good")
	require.NoError(t, sandboxtest.WriteImage(good, 4<<30))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := sandboxtest.Sandbox{}.Boot(ctx, sandbox.Image{Path: good})
	require.ErrorIs(t, err, context.Canceled)
}

// A machine that is closed answers no longer.
func TestClose(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image.qcow2")
	require.NoError(t, sandboxtest.WriteImage(image, 4<<30))
	m, err := sandboxtest.Sandbox{}.Boot(t.Context(), sandbox.Image{Path: image})
	require.NoError(t, err)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	facts, err := (&testsuite.Suite{GatherTimeout: time.Minute}).Gather(t.Context(), m.Target)
	require.NoError(t, err)
	assert.Contains(t, facts.Facts["script"].Error, "connection refused")
}

func TestWriteImage(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int64{2 << 20, 4 << 30, 4 << 40} {
		path := filepath.Join(dir, "image")
		require.NoError(t, sandboxtest.WriteImage(path, size))
		require.ErrorIs(t, sandboxtest.WriteImage(path, size), os.ErrExist)
		f, err := os.Open(path)
		require.NoError(t, err)
		st, err := f.Stat()
		require.NoError(t, err)
		check, err := qcow2.Check(t.Context(), f, st.Size())
		require.NoError(t, err)
		assert.Zero(t, check.Corruptions+check.Leaks)
		image, err := qcow2.Open(f, st.Size(), qcow2.OpenOptions{})
		require.NoError(t, err)
		disk, err := guestdisk.Inspect(image, image.Size())
		require.NoError(t, err)
		assert.Equal(t, size, disk.SizeBytes)
		assert.Empty(t, disk.Problems)
		assert.True(t, disk.BootBIOS)
		require.NoError(t, f.Close())
		out, err := exec.Command(needs.Tools(t, "qemu-img")[0], "check", "-q", path).CombinedOutput()
		require.NoError(t, err, string(out))
		require.NoError(t, os.Remove(path))
	}
	for _, size := range []int64{0, -1, 1 << 20, 2<<20 + 1, 1 << 60} {
		require.Error(t, sandboxtest.WriteImage(filepath.Join(dir, "image"), size))
	}
}
