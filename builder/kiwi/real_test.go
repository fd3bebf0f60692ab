package kiwi

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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

// TestDescriptions holds each of the example's descriptions to the driver's checks
// and to kiwi-ng's own schema. None needs its repositories.
func TestDescriptions(t *testing.T) {
	needs.Tools(t, "kiwi-ng")
	files, err := filepath.Glob(nightly + "/kiwi/*/config.xml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	file, _ := keyFile(t)
	for _, name := range files {
		name := filepath.Base(filepath.Dir(name))
		for _, profile := range profilesOf[name] {
			t.Run(name+" "+profile, func(t *testing.T) {
				c := Config{Description: "kiwi/" + name, Overlays: debian12.Overlays,
					Scripts: []string{"kiwi/rpm-prepare", "elements/otc-base/install.d/60-otc-base", "kiwi/rpm-finish"}}
				if name == "debian-12" {
					c = debian12
				}
				if profile != "" {
					c.Profiles = []string{profile}
				}
				spec := debianSpec(t)
				spec.TrustedKeys = []builder.TrustedKey{{File: file}}
				spec.Mirrors = map[string]string{}
				for _, m := range []string{"debian", "opensuse", "suse", "obs", "centos", "rhel", "oracle", "euleros"} {
					spec.Mirrors[m] = "http://mirror.example.org/" + m
				}
				b, err := New(c)
				require.NoError(t, err)
				require.NoError(t, b.(builder.Checker).Check(spec))
			})
		}
	}
}

// profilesOf are the profiles of each description; "" stands for none.
var profilesOf = map[string][]string{
	"debian-12": {""}, "opensuse-15": {""}, "sles-12-sp3": {"Standard", "Extended", "SAPHANA"}, "sles-15": {""},
	"centos-7": {""}, "redhat-7": {""}, "oracle-7": {""}, "euleros-2": {""},
}

func TestCheckRefuses(t *testing.T) {
	needs.Tools(t, "kiwi-ng")
	spec := debianSpec(t)
	spec.TrustedKeys[0].File, _ = keyFile(t)
	bad := filepath.Join(t.TempDir(), "bad")
	require.NoError(t, os.CopyFS(bad, os.DirFS(nightly+"/kiwi/debian-12")))
	config, err := os.ReadFile(filepath.Join(bad, "config.xml"))
	require.NoError(t, err)
	for name, test := range map[string]struct{ old, new, want string }{
		"a word that the schema does not know": {`<timezone>`, `<time-zone>x</time-zone><timezone>`, "KiwiDescriptionInvalid"},
		"a value that it does not know":        {`firmware="bios"`, `firmware="none"`, "KiwiDescriptionInvalid"},
		"a foreign repository":                 {`"{debian}"`, `"http://other.example.org/"`, "config.xml: line "},
	} {
		t.Run(name, func(t *testing.T) {
			changed := bytes.Replace(config, []byte(test.old), []byte(test.new), 1)
			require.NotEqual(t, string(config), string(changed))
			require.NoError(t, os.WriteFile(filepath.Join(bad, "config.xml"), changed, 0o644))
			b, err := New(Config{Description: bad})
			require.NoError(t, err)
			require.ErrorContains(t, b.(builder.Checker).Check(spec), test.want)
		})
	}
	b, err := New(Config{Description: filepath.Join(bad, "missing")})
	require.NoError(t, err)
	require.ErrorContains(t, b.(builder.Checker).Check(spec), "description: cannot read it")
}

// TestBuildFails has the tool fail for what it trusts and where it builds from.
func TestBuildFails(t *testing.T) {
	if testing.Short() {
		t.Skip("runs kiwi-ng")
	}
	foreign, _ := keyFile(t)
	for name, test := range map[string]struct {
		change func(*builder.Spec)
		want   string
	}{
		"foreign keyring": {
			func(s *builder.Spec) { s.TrustedKeys = []builder.TrustedKey{{File: foreign}} },
			"Release signed by unknown key",
		},
		"unreachable mirror": {
			func(s *builder.Spec) { s.Mirrors = map[string]string{"debian": "http://127.0.0.1:9/debian"} },
			"Failed getting release file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := realSpec(t)
			test.change(&spec)
			var log bytes.Buffer
			spec.Log = &log
			b, err := New(debian12)
			require.NoError(t, err)
			_, err = b.Build(t.Context(), builder.Local{}, spec)
			var failed *builder.ToolError
			require.ErrorAs(t, err, &failed)
			require.Contains(t, log.String(), test.want)
			require.Contains(t, err.Error(), test.want, log.String())
			nothingLeft(t, spec)
		})
	}
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("runs kiwi-ng")
	}
	spec := realSpec(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spec.Log = &trigger{text: "bootstrap: I: Retrieving", do: cancel}
	b, err := New(debian12)
	require.NoError(t, err)
	_, err = b.Build(ctx, builder.Local{}, spec)
	require.ErrorIs(t, err, context.Canceled)
	nothingLeft(t, spec)
}

// trigger calls do when text has been written.
type trigger struct {
	text string
	do   func()
	once sync.Once
}

func (w *trigger) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.once.Do(w.do)
	}
	return len(p), nil
}
