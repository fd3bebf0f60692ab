package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/queue"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// A night in a database is done by a worker, and ends with the same report and codes.
func TestDatabase(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, sandboxtest.WriteImage(file("vendor.qcow2"), 4<<30))
	data, err := os.ReadFile(file("vendor.qcow2"))
	require.NoError(t, err)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	key, _, err := imagefactory.OpenKey(file("key"))
	require.NoError(t, err)
	require.NoError(t, key.WritePublicFile(file("keys.asc")))
	text := "images:\n"
	for i, digest := range []string{fmt.Sprintf("%x", sha256.Sum256(data)), strings.Repeat("0", 64)} {
		text += strings.NewReplacer("Standard_Debian_12", fmt.Sprintf("Standard_Vendor_%d", i), "FINGERPRINT", string(key.Fingerprint()),
			"dib: {elements: [mine], element_paths: [elements]}", fmt.Sprintf("existing: {image: %q, sha256: %q}", server.URL+"/vendor.qcow2", digest),
		).Replace(strings.TrimPrefix(checked, "images:\n")) + "    uvp_monitor: {state: optional, reason: none}\n    publish: [{directory: {}}]\n"
	}
	require.NoError(t, os.WriteFile(file("f.yaml"), []byte(text), 0o644))
	args := []string{"-config", file("f.yaml"), "-out", file("dist"), "-key", file("key"), "-database", "sqlite:" + file("db/queue")}

	o, err := parse(args, io.Discard)
	require.NoError(t, err)
	f := o.factory(slog.New(slog.DiscardHandler))
	f.Key, f.Sandbox = key, sandboxtest.Sandbox{}
	f.Definitions, err = imagefactory.LoadFile(o.config)
	require.NoError(t, err)
	q, err := queue.Open(t.Context(), queue.Config{URL: *o.database.url})
	require.NoError(t, err)
	defer q.Close()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Work(ctx, queue.Worker{Factory: f}) }()

	var stdout, stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), args, &stdout, &stderr), stderr.String())
	require.Regexp(t, `Standard_Vendor_0 \d{8}-\d{6} published`, stdout.String())
	require.Contains(t, stdout.String(), "is not the image that is named")
	require.FileExists(t, file("dist/Standard_Vendor_0/latest/release.json"))
	require.FileExists(t, file("dist/report.json"))
	stdout.Reset()
	require.Equal(t, 0, run(t.Context(), append(args, "-only", "*_0", "-priority", "1"), &stdout, &stderr), stderr.String())
	require.Contains(t, stdout.String(), "unchanged")
	stop()
	require.NoError(t, <-ended)

	// Nobody works now: what waits is watched until the user has enough, and cancelled.
	ctx, stop = context.WithCancel(t.Context())
	stdout.Reset()
	require.Equal(t, 1, run(ctx, append(args, "-only", "*_0"), writeThen(stop, &stdout), &stderr))
	require.Contains(t, stdout.String(), "the workers go on")
	require.Equal(t, 0, run(t.Context(), append(args, "-cancel"), &stdout, &stderr), stderr.String())
	require.Equal(t, 2, run(t.Context(), []string{"-config", file("f.yaml"), "-out", file("dist"), "-key", file("key"), "-cancel"}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "-cancel needs -database")
}

// writeThen calls f after the first write.
func writeThen(f func(), w io.Writer) io.Writer {
	return writerFunc(func(p []byte) (int, error) { defer f(); return w.Write(p) })
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
