package dib

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "elements", "mine"), 0o755))
	good := builder.Spec{
		Name: "Standard_Debian_12", Distribution: "debian", Release: "bookworm", Arch: "amd64", DiskBytes: 4 << 30, User: "linux", Dir: dir, WorkDir: "/work", OutputDir: ".",
		Mirrors: map[string]string{"debian": "http://mirror.example.org/debian"}, TrustedKeys: []builder.TrustedKey{{File: "keys.gpg"}},
	}
	check := func(c Config, change func(*builder.Spec)) error {
		b, err := New(c)
		require.NoError(t, err)
		spec := good
		change(&spec)
		return b.(builder.Checker).Check(spec)
	}
	same := func(*builder.Spec) {}
	mine := Config{Elements: []string{"mine"}, ElementPaths: []string{"elements"}}
	require.NoError(t, check(mine, same))
	require.ErrorContains(t, check(mine, func(s *builder.Spec) { s.Distribution = "ubuntu" }), "only debian is handled")
	require.ErrorContains(t, check(mine, func(s *builder.Spec) { s.Mirrors = map[string]string{"debain": "http://a/"} }), `mirrors: "debian" is missing`)
	require.ErrorContains(t, check(Config{Elements: []string{"mine"}, ElementPaths: []string{"missing"}}, same), "element_paths: cannot read the elements: open "+filepath.Join(dir, "missing"))

	needs.Tools(t, "disk-image-create") // or nobody knows what comes with it
	require.NoError(t, check(Config{Elements: []string{"vm", "debian-minimal"}}, same))
	err := check(Config{Elements: []string{"vm", "debian-minimla"}}, same)
	require.EqualError(t, err, `elements: unknown element "debian-minimla"; the nearest known is debian-minimal`)
}
