package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "f.yaml")
	require.NoError(t, os.WriteFile(config, []byte("images:\n  - {name: Standard_X_1}\n"), 0o644))
	for want, args := range map[string][]string{
		"want build, rebuild":       nil,
		"want build, rebuild, comp": {"bild"},
		"want the directory":        {"build", "-config", config, "-image", "x"},
		"want two directories":      {"compare", dir},
		"want work directories":     {"cleanup"},
		"the directory of the rebu": {"attest", dir},
		"want -release, -keyring":   {"attest", "-release", dir, "-keyring", config, "-key", config, dir, filepath.Join(dir, "out")},
		"not defined: -x":           {"rebuild", "-x"},
		"want NAME=URL":             {"rebuild", "-mirror", "debian", "-archive", "x", "out"},
		"no such file":              {"rebuild", "-archive", filepath.Join(dir, "none"), filepath.Join(dir, "out")},
		"f.yaml:2":                  {"build", "-config", config, "-image", "Standard_X_1", filepath.Join(dir, "out")},
		"has no image":              {"compare", dir, dir},
	} {
		code, stdout, stderr := call(t, args...)
		require.Equal(t, 2, code, "%q: %s", args, stderr)
		require.Contains(t, stderr, want)
		require.Empty(t, stdout)
	}
	code, _, _ := call(t, "build", "-h")
	require.Equal(t, 0, code)
}

// TestWay builds an image that is there already, builds it again from what that
// has left, and compares both.
func TestWay(t *testing.T) {
	qemu := needs.Tools(t, "qemu-img")[0]
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	out, err := exec.Command(qemu, "create", "-q", "-f", "qcow2", at("vendor.qcow2"), "16M").CombinedOutput()
	require.NoError(t, err, string(out))
	image, err := os.ReadFile(at("vendor.qcow2"))
	require.NoError(t, err)
	definition := fmt.Sprintf("images:\n  - name: Community_X_1\n    os: {distribution: x, version: \"1\"}\n    disk: 16MiB\n    builder: {existing: {image: %s, sha256: %x}}\n", at("vendor.qcow2"), sha256.Sum256(image))
	require.NoError(t, os.WriteFile(at("f.yaml"), []byte(definition), 0o644))

	code, stdout, stderr := call(t, "build", "-config", at("f.yaml"), "-image", "Community_X_1", at("one"))
	require.Equal(t, 0, code, stderr)
	require.Regexp(t, `^(Community_X_1-\d{8}-\d{6}\.(build\.log|buildhost|config\.tar\.gz|packages|qcow2)\n){5}$`, stdout)
	archives, err := filepath.Glob(at("one/*.config.tar.gz"))
	require.NoError(t, err)
	require.Len(t, archives, 1)

	code, _, stderr = call(t, "rebuild", "-archive", archives[0], at("two"))
	require.Equal(t, 2, code, "the image is not in its archive")
	require.Contains(t, stderr, "vendor.qcow2: no such file")
	require.NoError(t, os.RemoveAll(at("two")))

	code, stdout, stderr = call(t, "compare", at("one"), at("one"))
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "same: bytes\n", stdout)

	require.NoError(t, os.CopyFS(at("two"), os.DirFS(at("one"))))
	lists, err := filepath.Glob(at("two/*.packages"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(lists[0], []byte("a 1 all\n"), 0o644))
	images, err := filepath.Glob(at("two/*.qcow2"))
	require.NoError(t, err)
	out, err = exec.Command(needs.Tools(t, "qemu-io")[0], "-c", "write -P 1 0 512", images[0]).CombinedOutput()
	require.NoError(t, err, string(out))
	code, stdout, stderr = call(t, "compare", at("one"), at("two"))
	require.Equal(t, 1, code, stderr)
	require.Contains(t, stdout, "same: differs\n.packages\npackage +a 1 all\n.qcow2 at byte 0 of the disk\n")

	code, _, stderr = call(t, "build", "-config", at("f.yaml"), "-image", "Community_X_1", at("one"))
	require.Equal(t, 2, code, stderr)
	code, _, stderr = call(t, "build", "-config", at("f.yaml"), "-image", "none", at("three"))
	require.Equal(t, 2, code, stderr)

	code, _, stderr = call(t, "cleanup", at("none"))
	require.Equal(t, 0, code, stderr)
	code, _, stderr = call(t, "cleanup", at("one"))
	require.Equal(t, 1, code, "what no build has claimed is not touched")
	require.Contains(t, stderr, "cannot clean up")
}
