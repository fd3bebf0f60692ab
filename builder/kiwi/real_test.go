package kiwi

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// nightly is where the example's descriptions and the hardening lie.
const nightly = "../../examples/nightly"

var debian12 = Config{
	Description: "kiwi/debian-12",
	Overlays:    []string{"elements/otc-base/static"},
	Scripts:     []string{"elements/otc-base/install.d/60-otc-base", "elements/otc-base/post-install.d/60-otc-base"},
}

func debianSpec(t *testing.T) builder.Spec {
	dir, err := filepath.Abs(nightly)
	require.NoError(t, err)
	return builder.Spec{
		Name: "Standard_Debian_12", Build: "20261122-031507", Distribution: "debian", Release: "bookworm", Arch: "amd64", DiskBytes: 4 << 30,
		User: "linux", NTPServers: []string{"ntp01.example.org", "ntp02.example.org"},
		Mirrors: map[string]string{"debian": "http://mirror.example.org/debian"},
		Repositories: []builder.Repository{
			{Name: "debian", URL: "http://debmirror.example.org/debian", Suites: []string{"bookworm", "bookworm-updates"}},
		},
		TrustedKeys: []builder.TrustedKey{{File: "/usr/share/keyrings/debian-archive-keyring.gpg"}},
		Dir:         dir, WorkDir: "/var/tmp/kiwi-test", OutputDir: t.TempDir(),
	}
}

// realSpec is a spec that this machine can build.
func realSpec(t *testing.T) builder.Spec {
	needs.Tools(t, "kiwi-ng", "debootstrap", "qemu-img", "parted")
	needs.Root(t)
	mirrors, err := builder.AptMirrors(os.DirFS("/"))
	if err != nil {
		needs.Missing(t, err.Error())
	}
	spec := debianSpec(t)
	spec.Mirrors = mirrors
	work, err := os.MkdirTemp("/var/tmp", "kiwi-test-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.Remove(work) })
	spec.WorkDir = filepath.Join(work, "build")
	return spec
}

// TestBuild builds a real image, which takes five minutes on a quiet machine.
// IMAGEFACTORY_TEST_KIWI names a directory that keeps it.
func TestBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a real image")
	}
	spec := realSpec(t)
	if dir := os.Getenv("IMAGEFACTORY_TEST_KIWI"); dir != "" {
		spec.OutputDir = dir
	}
	log, err := os.Create(filepath.Join(spec.OutputDir, "build.log"))
	require.NoError(t, err)
	defer log.Close()
	spec.Log = log
	b, err := New(debian12)
	require.NoError(t, err)
	result, err := b.Build(t.Context(), builder.Local{}, spec)
	require.NoError(t, err)
	require.NoError(t, result.Validate(spec))
	require.True(t, len(result.Packages) > 150, "%d packages", len(result.Packages))
	out, err := exec.Command("qemu-img", "info", result.ImagePath).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "virtual size: 4 GiB")
	nothingLeft(t, spec)
}

// nothingLeft checks that a build has left nothing on this machine.
func nothingLeft(t *testing.T, spec builder.Spec) {
	t.Helper()
	require.NoDirExists(t, spec.WorkDir)
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), spec.WorkDir)
	loops, err := exec.Command("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").Output()
	require.NoError(t, err)
	require.False(t, bytes.Contains(loops, []byte(spec.WorkDir)), string(loops))
}
