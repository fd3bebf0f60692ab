package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func TestDueAndPromote(t *testing.T) {
	out, key := t.TempDir(), filepath.Join(t.TempDir(), "k")
	do := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"-config", "nightly.yaml", "-out", out, "-key", key, "-mirror", "http://mirror.example"}, args...), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	code, stdout, stderr := do("-due")
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stdout, image+": due (first): there is no release yet\n")

	code, stdout, _ = do("-promote", image)
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "cannot promote a candidate of "+image+": there is no such build among the candidates")
	for which, want := range map[string]string{
		"Standard_No_1":                 `no image is called "Standard_No_1"`,
		image + "/latest":               "cannot parse build ID",
		image + ",Standard_No_1":        `no image is called "Standard_No_1"`,
		image + "/20260101-030000/more": "cannot parse build ID",
	} {
		code, _, stderr = do("-promote", which)
		require.Equal(t, 2, code, which)
		require.Contains(t, stderr, want)
	}
	code, _, stderr = do("-due", "-advisories", filepath.Join(out, "no"))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "no")
	entries, err := os.ReadDir(out)
	require.NoError(t, err)
	for _, e := range entries {
		require.Equal(t, ".work", e.Name(), "nothing is made public")
	}
}

func TestRotateKey(t *testing.T) {
	out, keys := t.TempDir(), t.TempDir()
	do := func(key string, args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"-config", "nightly.yaml", "-out", out, "-mirror", "http://mirror.example", "-key", filepath.Join(keys, key)}, args...), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	code, _, stderr := do("one", "-rotate-key", filepath.Join(keys, "two"))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "imagefactory.pub: no such file")
	key, _, err := imagefactory.OpenKey(filepath.Join(keys, "one"))
	require.NoError(t, err)
	require.NoError(t, key.WritePublicFile(filepath.Join(out, "imagefactory.pub")))
	code, _, stderr = do("one", "-rotate-key", filepath.Join(out, "two"))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "must not lie in the download directory")
	code, stdout, stderr := do("one", "-rotate-key", filepath.Join(keys, "two"))
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stdout, "signs from now on")
	keyring, err := signing.LoadKeyring(filepath.Join(out, "imagefactory.keys.yaml"))
	require.NoError(t, err)
	require.Len(t, keyring.Pins(), 2)
	for _, key := range []string{"one", "two"} { // for two days
		code, _, stderr = do(key, "-due")
		require.Equal(t, 0, code, stderr)
	}
	code, _, stderr = do("three", "-due")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "are signed with another")
}

// One thing is asked for at a time.
func TestOneRequest(t *testing.T) {
	for _, args := range [][]string{
		{"-due", "-promote", image}, {"-due", "-rotate-key", "k"}, {"-promote", image, "-check"}, {"-task", image + "/build", "-due"},
	} {
		var stdout, stderr bytes.Buffer
		dir := t.TempDir()
		code := run(t.Context(), append([]string{"-config", "nightly.yaml", "-out", filepath.Join(dir, "out"), "-key", filepath.Join(dir, "k")}, args...), &stdout, &stderr)
		require.Equal(t, 2, code, args)
		require.Contains(t, stderr.String(), "go with no other", args)
		require.NoFileExists(t, filepath.Join(dir, "k"))
	}
}
