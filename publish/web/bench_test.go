package web_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// BenchmarkFetch compares Fetch in turns with what does the same by hand: curl, gpg
// --verify and sha256sum --check of what it brought, and sync.
func BenchmarkFetch(b *testing.B) {
	tools := needs.Tools(b, "curl", "gpg", "sha256sum", "sync")
	const size = 256 << 20
	dir, r, keyring := origin(b, size)
	url := serve(b, http.FileServer(http.Dir(dir)))
	home := b.TempDir()
	run := func(dir, tool string, args ...string) {
		cmd := exec.CommandContext(b.Context(), tool, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GNUPGHOME="+home)
		out, err := cmd.CombinedOutput()
		require.NoError(b, err, "%s", out)
	}
	run(home, tools[1], "--batch", "--import", r.Dir+".pub")
	curl := []string{"--fail", "--silent", "--show-error", "--remote-name-all"}
	var files []string
	for _, f := range r.Files {
		files = append(files, f.Name)
		curl = append(curl, url+"/Image/"+r.Index.Build.String()+"/"+f.Name)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	var ours, peers []time.Duration
	for b.Loop() {
		to := b.TempDir()
		start := time.Now()
		_, err := publish.Fetch(b.Context(), source(url), "Image", keyring, to)
		require.NoError(b, err)
		ours = append(ours, time.Since(start))

		b.StopTimer()
		by := filepath.Join(b.TempDir(), "by-hand")
		require.NoError(b, os.Mkdir(by, 0o755))
		start = time.Now()
		run(by, tools[0], curl...)
		run(by, tools[1], "--batch", "--verify", "SHA256SUMS.asc", "SHA256SUMS")
		run(by, tools[2], "--check", "--quiet", "SHA256SUMS")
		run(by, tools[3], files...)
		peers = append(peers, time.Since(start))
		require.NoError(b, os.RemoveAll(to))
		require.NoError(b, os.RemoveAll(by))
		b.StartTimer()
	}
	slices.Sort(ours)
	slices.Sort(peers)
	b.ReportMetric(ours[len(ours)/2].Seconds()/peers[len(peers)/2].Seconds(), "time/curl")
}
