package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
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

	to := "directory:" + dist
	gone := filepath.Join(filepath.Dir(dir), "20180402-000000")
	future, futureKey := release(12 * 30) // some thirty years ahead
	for _, test := range []struct {
		args           []string
		code           int
		stdout, stderr string // part of it
	}{
		{nil, 2, "", "usage: publish"},
		{[]string{"-x"}, 2, "", "usage: publish"},
		{[]string{"push", "-x"}, 2, "", "usage: publish"},
		{[]string{"push", "-keyring", key, dir}, 2, "", "usage: publish"},
		{[]string{"push", "-to", dist, "-keyring", key, dir}, 2, "", "is not directory:DIR"},
		{[]string{"push", "-to", to, dir}, 2, "", "usage: publish"},
		{[]string{"retain", "-keyring", key, "-to", to, "Image"}, 2, "", "usage: publish"},
		{[]string{"rollback", "-to", to, "Image", "20180401-000000"}, 2, "", "usage: publish"},
		{[]string{"retain", "-to", to, "Image"}, 2, "", "no releases of Image"},
		{[]string{"list", "-to", to, "Image"}, 2, "", "no releases of Image"},
		{[]string{"plan", "-to", to, "-keyring", key, dir}, 0, steps, ""},
		{[]string{"push", "-n", "-to", to, "-keyring", key, dir}, 0, steps, ""},
		{[]string{"push", "-to", to, "-keyring", key, dir}, 0, steps, ""},
		{[]string{"push", "-to", to, "-keyring", key, dir}, 0, "", ""},
		{[]string{"push", "-to", to, "-keyring", key, filepath.Join(dist, "Image", "latest")}, 0, "", ""},
		{[]string{"push", "-to", to, "-keyring", oldKey, dir}, 1, "", "not in the keyring"},
		{[]string{"push", "-to", to, "-keyring", badKey, bad}, 1, "", "differs from SHA256SUMS"},
		{[]string{"push", "-to", to, "-keyring", oldKey, old}, 1, "", "a newer release is latest"},
		{[]string{"push", "-to", to, "-keyring", futureKey, future}, 1, "", "dated in the future"},
		{[]string{"push", "-to", to, "-keyring", key + "x", dir}, 2, "", "no such file"},
		{[]string{"push", "-to", to, "-keyring", key, gone}, 2, "", "no such file"},
		{[]string{"push", "-to", to, "-keyring", key, dir + "-nowhere"}, 2, "", "no such file"},
		{[]string{"push", "-to", "directory:" + file, "-keyring", key, dir}, 2, "", "not a directory"},
		{[]string{"push", "-to", "directory:" + file, "-to", to, "-keyring", key, dir}, 2, "", "not a directory"},
		{[]string{"list", "-to", to, "Image"}, 0, "Image/20180401-000000  latest  \n", ""},
		{[]string{"verify", "-to", to, "-keyring", key, "Image"}, 0, "", ""},
		{[]string{"verify", "-to", to, "-keyring", key, "Imag"}, 2, "", "no releases of Imag"},
		{[]string{"verify", "-to", to, "-keyring", oldKey, "Image"}, 1, "", "not in the keyring"},
		{[]string{"list", "-max-age", "7", "-to", to, "Image"}, 1, "Image/20180401-000000  latest  \n", "the build is too old"},
		{[]string{"list", "-max-age", "36500", "-to", to, "Image"}, 0, "Image/20180401-000000  latest  \n", ""},
		{[]string{"verify", "-max-age", "7", "-to", to, "-keyring", key, "Image"}, 1, "", to + ": Image: the build is too old: 20180401-000000 is latest"},
		{[]string{"retain", "-to", to, "Image"}, 0, "", ""},
		{[]string{"retain", "-to", to, "Imag"}, 2, "", "no releases of Imag"},
		{[]string{"retain", "-to", "directory:" + file + "x", "Image"}, 2, "", "no releases of Image"},
		{[]string{"retain", "-to", to, "../Image"}, 2, "", "image name"},
		{[]string{"withdraw", "-to", to, "-reason", "why", "Image", "20180401-000000"}, 2, "", "no other release that could be latest"},
		{[]string{"rollback", "-to", to, "-reason", "why", "Image", "20180501-000000"}, 2, "", "no such build"},
		{[]string{"rollback", "-to", to, "-reason", "why", "Image", "latest"}, 2, "", "build ID"},
		{[]string{"rollback", "-to", to, "-reason", "why", "Image", "20180401-000000"}, 0, "", ""},
	} {
		code, stdout, stderr := program(t, test.args...)
		assert.Equal(t, test.code, code, "%q: %s", test.args, stderr)
		assert.Equal(t, test.stdout, stdout, "%q", test.args)
		assert.Contains(t, stderr, test.stderr, "%q", test.args)
	}
}

// Who asks for help did nothing wrong.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"push", "-h"}, {"fetch", "--help"}} {
		code, stdout, stderr := program(t, args...)
		assert.Equal(t, 0, code, "%q", args)
		assert.Contains(t, stdout, "usage: publish", "%q", args)
		assert.Empty(t, stderr, "%q", args)
	}
}

func TestFetch(t *testing.T) {
	build := publish.NewBuildID(time.Date(2018, time.April, 1, 0, 0, 0, 0, time.UTC))
	r, err := publishtest.Release(t.Context(), t.TempDir(), "Image", build)
	require.NoError(t, err)
	key := r.Dir + ".pub"
	other, err := publishtest.Release(t.Context(), t.TempDir(), "Image", build)
	require.NoError(t, err)
	dist := filepath.Join(t.TempDir(), "dist")
	_, err = publish.Publish(t.Context(), &directory.Target{Dir: dist}, r)
	require.NoError(t, err)
	server := httptest.NewServer(http.FileServer(http.Dir(dist)))
	defer server.Close()
	to := filepath.Join(t.TempDir(), "images")
	fetched := filepath.Join(to, "Image", "20180401-000000") + "\n"
	damaged := filepath.Join(t.TempDir(), "damaged")
	require.NoError(t, os.CopyFS(damaged, os.DirFS(dist)))
	require.NoError(t, os.WriteFile(filepath.Join(damaged, "Image", "20180401-000000", "Image-20180401-000000.qcow2"), nil, 0o644))

	from := "directory:" + dist
	for _, test := range []struct {
		args           []string
		code           int
		stdout, stderr string // part of it
	}{
		{[]string{"-keyring", key, "Image", to}, 2, "", "usage: publish"},
		{[]string{"-from", from, "Image", to}, 2, "", "usage: publish"},
		{[]string{"-from", from, "-keyring", key, "Image"}, 2, "", "usage: publish"},
		{[]string{"-from", from, "-to", from, "-keyring", key, "Image", to}, 2, "", "usage: publish"},
		{[]string{"-from", "ftp://host", "-keyring", key, "Image", to}, 2, "", "neither directory:DIR, obs:BUCKET[/PREFIX] nor a URL"},
		{[]string{"-from", from, "-keyring", key, "-max-age", "-1", "Image", to}, 2, "", "usage: publish"},
		{[]string{"-from", from, "-keyring", key, "-max-age", "9000000", "Image", to}, 2, "", "usage: publish"},
		{[]string{"-from", from, "-keyring", key + "x", "Image", to}, 2, "", "no such file"},
		{[]string{"-from", from, "-keyring", key, "Imag", to}, 2, "", "no such build"},
		{[]string{"-from", from, "-keyring", key, "Image/prev", to}, 2, "", "no such build"},
		{[]string{"-from", from, "-keyring", key, "Image/x", to}, 2, "", "build ID"},
		{[]string{"-from", "http://127.0.0.1:1", "-keyring", key, "Image", to}, 2, "", "connection refused"},
		{[]string{"-from", from, "-keyring", other.Dir + ".pub", "Image", to}, 1, "", "not in the keyring"},
		{[]string{"-from", from, "-keyring", key, "-max-age", "7", "Image", to}, 1, "", "too old"},
		{[]string{"-from", "directory:" + damaged, "-keyring", key, "Image", filepath.Join(damaged, "to")}, 1, "", "not have the release as it was signed"},
		{[]string{"-from", from, "-keyring", key, "Image", key}, 2, "", "not a directory"},
		{[]string{"-from", server.URL, "-keyring", key, "-only", ".qcow2", "-only", ".qcow2.asc", "-max-age", "36500", "Image", to + "-some"}, 0,
			filepath.Join(to+"-some", "Image", "20180401-000000") + "\n", ""},
		{[]string{"-from", server.URL, "-keyring", key, "Image/latest", to}, 0, fetched, ""},
		{[]string{"-from", from, "-keyring", key, "Image/20180401-000000", to}, 0, fetched, ""},
	} {
		code, stdout, stderr := program(t, append([]string{"fetch"}, test.args...)...)
		assert.Equal(t, test.code, code, "%q: %s", test.args, stderr)
		assert.Equal(t, test.stdout, stdout, "%q", test.args)
		assert.Contains(t, stderr, test.stderr, "%q", test.args)
	}
	state := filepath.Join(to, "Image", "fetch.json")
	require.NoError(t, os.WriteFile(state, []byte(`{"newest":"20180402-000000"}`), 0o644))
	code, _, stderr := program(t, "fetch", "-from", from, "-keyring", key, "Image", to)
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "an older build than was seen before")
	require.NoError(t, os.WriteFile(state, nil, 0o644))
	code, _, stderr = program(t, "fetch", "-from", from, "-keyring", key, "Image", to)
	assert.Equal(t, 2, code)
	assert.Contains(t, stderr, "fetch.json, which says what was seen before, is damaged")
}
