package dib

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// TestAppliance runs the script of a configuration with a stand-in for the tool, which
// must get what the driver gives it. That an image comes of it is for the real tool.
func TestAppliance(t *testing.T) {
	dir := t.TempDir()
	element := filepath.Join(dir, "elements", "x", "install.d")
	require.NoError(t, os.MkdirAll(element, 0o755))
	spec := builder.Spec{
		Name: "Standard_Debian_12", Distribution: "debian", Release: "bookworm", Arch: "amd64", DiskBytes: 4 << 30, User: "linux",
		NTPServers: []string{"ntp01.example.org", "ntp02.example.org"}, Dir: dir, WorkDir: "/var/tmp/ours",
		Mirrors:     map[string]string{"debian": "http://ours.example.org/debian"},
		TrustedKeys: []builder.TrustedKey{{File: foreignKey(t)}},
	}
	r := &run{spec: spec, config: filepath.Join(dir, "config"), Config: Config{
		Elements: []string{"debian-minimal", "x"}, ElementPaths: []string{"elements"}, Environment: map[string]string{"DIB_X": "a b, c=~%"},
	}}
	require.NoError(t, r.write(t.Context()))
	for _, name := range []string{"create_appliance.sh", "parameters"} {
		data, err := os.ReadFile(filepath.Join(r.config, name))
		require.NoError(t, err)
		require.NotContains(t, string(data), "ours", name)
	}

	// In place of unshare, whose last arguments are the tool's.
	bin := filepath.Join(dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(bin, "unshare"), []byte("#!/bin/bash\nwhile [ \"$1\" != env ]; do shift; done\nfor a; do printf '%s\\0' \"$a\"; done >\""+dir+"/argv\"\ntouch \""+dir+"/again/image.qcow2\"\n"), 0o755))
	command := func(args ...string) ([]byte, error) {
		cmd := exec.Command(filepath.Join(r.config, "create_appliance.sh"), args...)
		cmd.Env = []string{"PATH=" + bin + ":" + builder.DefaultPath}
		return cmd.CombinedOutput()
	}
	out, err := command("-o", filepath.Join(dir, "again"), "debian=http://theirs.example.org/debian/")
	require.NoError(t, err, string(out))
	argv, err := os.ReadFile(filepath.Join(dir, "argv"))
	require.NoError(t, err)
	have := strings.Split(strings.TrimSuffix(string(argv), "\x00"), "\x00")

	theirs := *r
	theirs.mapper = !strings.Contains(have[2], "/shims")
	theirs.spec.WorkDir = filepath.Join(dir, "again")
	theirs.spec.Mirrors = map[string]string{"debian": "http://theirs.example.org/debian"}
	require.Equal(t, []string{"env", "-i"}, have[:2])
	n := len(theirs.env())
	require.ElementsMatch(t, theirs.env(), have[2:2+n])
	require.Equal(t, theirs.args(), have[2+n:])

	for _, args := range [][]string{{}, {"-o", dir, "debian=http://x"}, {"-o", filepath.Join(dir, "x")}, {"-o", filepath.Join(dir, "x"), "debian=http://x;id"}, {"-o", filepath.Join(dir, "x"), "ubuntu=http://x"}} {
		out, err := command(args...)
		require.Error(t, err, "%q: %s", args, out)
	}
}
