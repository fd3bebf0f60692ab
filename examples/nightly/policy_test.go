package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
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
