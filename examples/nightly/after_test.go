package main

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/notify"
)

// A night is told to everybody who asked, and one who cannot be told keeps it from no
// other.
func TestAfter(t *testing.T) {
	const secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(file("secret"), []byte(secret+"\n"), 0o600))
	require.NoError(t, os.WriteFile(file("hook"), []byte("#!/bin/sh\ncat >"+file("told")+"\n"), 0o755))
	verified := false
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		verified = err == nil && notify.Verify(secret, r.Header, body, time.Now()) == nil
	}))
	defer server.Close()
	parse := func(args ...string) afterFlags {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		a := newAfterFlags(fs)
		require.NoError(t, fs.Parse(args))
		return a
	}
	report := &imagefactory.Report{Images: []imagefactory.ImageReport{{Name: image, Result: imagefactory.Published}}}
	a := parse("-junit", file("report.xml"), "-metrics", file("m.prom"), "-webhook", server.URL, "-webhook-secret", file("secret"), "-hook", file("hook"))
	require.NoError(t, a.check())
	require.NoError(t, a.tell(t.Context(), report))
	require.True(t, verified)
	for name, want := range map[string]string{"report.xml": "<testcase", "m.prom": "imagefactory_night_good 1", "told": `"night.finished"`} {
		have, err := os.ReadFile(file(name))
		require.NoError(t, err)
		require.True(t, bytes.Contains(have, []byte(want)), name)
	}
	require.NoError(t, os.Remove(file("told")))
	a = parse("-metrics", file("no/m.prom"), "-hook", file("hook"))
	require.ErrorContains(t, a.tell(t.Context(), report), "cannot write the metrics")
	require.FileExists(t, file("told"))
	require.ErrorContains(t, parse("-webhook", "http://example.org/", "-webhook-secret", file("secret")).check(), "neither https nor http on loopback")
	require.ErrorContains(t, parse("-webhook", server.URL).check(), "cannot read -webhook-secret")
}
