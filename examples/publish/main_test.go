package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// TestMain lets the test binary stand in for the program.
func TestMain(m *testing.M) {
	if os.Getenv("PUBLISH_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

func program(t *testing.T, args ...string) (code int, stdout, stderr string) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "PUBLISH_MAIN=1")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		stderr = string(exit.Stderr)
	} else {
		require.NoError(t, err)
	}
	return cmd.ProcessState.ExitCode(), string(out), stderr
}

func TestProgram(t *testing.T) {
	release := func(month time.Month) (dir, keyring string) {
		build := publish.NewBuildID(time.Date(2018, month, 1, 0, 0, 0, 0, time.UTC))
		r, err := publishtest.Release(t.Context(), t.TempDir(), "Image", build)
		require.NoError(t, err)
		return r.Dir, r.Dir + ".pub"
	}
	old, oldKey := release(time.March)
	dir, key := release(time.April)
	bad, badKey := release(time.May)
	require.NoError(t, os.WriteFile(filepath.Join(bad, "Image-20180501-000000.packages"), nil, 0o644))
	dist := filepath.Join(t.TempDir(), "dist")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	const steps = "push Image 20180401-000000\nmove latest of Image from no release to 20180401-000000\n"

	for _, test := range []struct {
		args           []string
		code           int
		stdout, stderr string // part of it
	}{
		{nil, 2, "", "usage: publish"},
		{[]string{"-x"}, 2, "", "usage: publish"},
		{[]string{"-keyring", key, dir}, 2, "", "usage: publish"},
		{[]string{"-keyring", key, "-retire", "Image", dir, dist}, 2, "", "usage: publish"},
		{[]string{"-n", "-keyring", key, dir, dist}, 0, steps, ""},
		{[]string{"-keyring", key, dir, dist}, 0, steps, ""},
		{[]string{"-keyring", key, dir, dist}, 0, "", ""},
		{[]string{"-keyring", key, filepath.Join(dist, "Image", "latest"), dist}, 0, "", ""},
		{[]string{"-keyring", oldKey, dir, dist}, 1, "", "not in the keyring"},
		{[]string{"-keyring", badKey, bad, dist}, 1, "", "differs from SHA256SUMS"},
		{[]string{"-keyring", oldKey, old, dist}, 1, "", "a newer release is latest"},
		{[]string{"-keyring", key + "x", dir, dist}, 2, "", "no such file"},
		{[]string{"-keyring", key, filepath.Join(filepath.Dir(dir), "20180402-000000"), dist}, 2, "", "no such file"},
		{[]string{"-keyring", key, dir, file}, 2, "", "not a directory"},
		{[]string{"-retire", "Image", dist}, 0, "", ""},
		{[]string{"-retire", "../Image", dist}, 2, "", "image name"},
	} {
		code, stdout, stderr := program(t, test.args...)
		assert.Equal(t, test.code, code, "%q: %s", test.args, stderr)
		assert.Equal(t, test.stdout, stdout, "%q", test.args)
		assert.Contains(t, stderr, test.stderr, "%q", test.args)
	}
}
