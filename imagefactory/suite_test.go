package imagefactory

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

func TestSuite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.yaml")
	require.NoError(t, os.WriteFile(name, []byte(minimal+`    user: debian
    mirrors: {debian: "http://mirror.example/debian"}
    test: {waivers: [{check: ntp.servers, reason: why, expires: 2027-06-30}], required_packages: [sudo]}
`), 0o644))
	definitions, err := LoadFile(name)
	require.NoError(t, err)
	probe := testsuite.Probe{Name: "own.fact", Script: "echo"}
	s, err := (&Factory{Probes: []testsuite.Probe{probe}}).Suite(definitions[0])
	require.NoError(t, err)
	require.Equal(t, "otc", s.Profile.Name)
	require.Equal(t, testsuite.Params{
		User: "debian", NTPServers: []string{"ntp01.otc-service.com", "ntp02.otc-service.com"}, DiskBytes: 4 << 30,
		RequiredPackages: []string{"sudo"}, UVPMonitor: testsuite.UVPMonitor{State: testsuite.UVPRequired},
		Repositories: []testsuite.Repository{
			{URL: "http://debmirror.otc-service.com/debian", Suites: []string{"bookworm", "bookworm-updates"}},
			{URL: "http://debmirror.otc-service.com/debian-security", Suites: []string{"bookworm-security"}},
		},
		MirrorHosts: []string{"mirror.example"},
	}, s.Params)
	require.Equal(t, []testsuite.Waiver{{Check: "ntp.servers", Reason: "why", Expires: time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC)}}, s.Waivers)
	require.Equal(t, []testsuite.Probe{probe}, s.Probes)

	// A definition that nobody builds, here or with a mirror that is unknown here.
	s, err = (&Factory{HostMirrors: map[string]string{}}).Suite(Definition{Name: "Own", OS: OS{Distribution: "debian", Version: "12"}})
	require.NoError(t, err)
	require.Empty(t, s.Params.MirrorHosts)
	require.Equal(t, "linux", s.Params.User)
	for _, e := range Catalog() {
		_, err := new(Factory).Suite(e.Definition())
		require.NoError(t, err, e.Name)
	}

	_, err = new(Factory).Suite(Definition{Name: "Own", Test: Test{Profile: "ots"}})
	require.ErrorContains(t, err, `image Own: test: unknown profile "ots"; the nearest known is otc`)
	_, err = (&Factory{Probes: []testsuite.Probe{{Name: "packages", Script: "echo"}}}).Suite(definitions[0])
	require.ErrorContains(t, err, `cannot use the factory's probes: cannot use probe "packages": its name is a built-in fact's`)
}

func TestLoadWaivers(t *testing.T) {
	name := filepath.Join(t.TempDir(), "w.yaml")
	require.NoError(t, os.WriteFile(name, []byte("waivers:\n  - {check: ntp.servers, reason: why, expires: 2027-06-30}\n"), 0o644))
	got, err := LoadWaivers(name)
	require.NoError(t, err)
	require.Equal(t, []testsuite.Waiver{{Check: "ntp.servers", Reason: "why", Expires: time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC)}}, got)

	require.NoError(t, os.WriteFile(name, []byte("waivers:\n  - {check: a.b, reason: why}\n  - {check: a.b, reason: why, until: 2027-06-30}\n"), 0o644))
	_, err = LoadWaivers(name)
	require.ErrorContains(t, err, "w.yaml:2:5: a waiver needs check, reason and expires")
	require.ErrorContains(t, err, `w.yaml:3:31: unknown field "until"`)
	var config *ConfigError
	require.ErrorAs(t, err, &config)
	_, err = LoadWaivers(filepath.Dir(name))
	require.ErrorContains(t, err, "not a regular file")
}
