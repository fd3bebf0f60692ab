package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
)

var (
	screenshot  = flag.String("screenshot", "", "`file` for a picture of the table, for the README")
	screenshots = flag.String("screenshots", "", "`directory` for pictures of the pages at each width, dark and light")
)

// night is a download directory after some nights, and its keyring.
func night(t *testing.T) (dir, keyring string) {
	t.Helper()
	dir = t.TempDir()
	var keys []byte
	add := func(image, build string, n int) {
		id, err := publish.ParseBuildID(build)
		require.NoError(t, err)
		base := filepath.Join(dir, image, build, image+"-"+build)
		require.NoError(t, os.MkdirAll(filepath.Dir(base), 0o755))
		var packages strings.Builder
		for i := range 40 + n {
			fmt.Fprintf(&packages, "lib-example-%02d 1.%d-%d amd64\n", i, i, n/2)
		}
		var checks []map[string]any
		for i, group := range []string{"sshd", "sshd", "users", "users", "network", "kernel", "packages"} {
			check := map[string]any{"id": fmt.Sprintf("%s.%d", group, i), "group": group, "title": "what " + group + " may not do", "severity": "high", "status": "pass", "expected": "no", "found": "no"}
			if i == 5 {
				check["status"], check["found"], check["reason"] = "waived", "kernel.unprivileged_bpf_disabled = 0", "the monitor needs it (until 2027-06-01)"
			}
			checks = append(checks, check)
		}
		tests, err := json.Marshal(map[string]any{"duration_ms": 40000 + 700*n, "boot_ms": 21000 + 900*(n%3), "checks": checks})
		require.NoError(t, err)
		for suffix, data := range map[string]string{
			".packages": packages.String(), ".changes": fmt.Sprintf("-lib-example-01 1.1-%d amd64\n+lib-example-01 1.1-%d amd64\n", n/2, n/2+1), ".test.json": string(tests), ".config.tar.gz": "x",
		} {
			require.NoError(t, os.WriteFile(base+suffix, []byte(data), 0o644))
		}
		_, err = publishtest.Release(t.Context(), dir, image, id)
		require.NoError(t, err)
		key, err := os.ReadFile(filepath.Join(dir, image, build+".pub"))
		require.NoError(t, err)
		keys = append(keys, key...)
		link := filepath.Join(dir, image, "latest")
		_ = os.Remove(link)
		require.NoError(t, os.Symlink(build, link))
	}
	for n := range 6 {
		add("Standard_Debian_9", fmt.Sprintf("202611%02d-031507", 17+n), n)
		add("Standard_CentOS_7", fmt.Sprintf("202611%02d-033112", 17+n), n)
	}
	add("Standard_openSUSE_42_Docker", "20261122-034501", 3)
	report := `{"started":"2026-11-22T03:00:00Z","finished":"2026-11-22T04:10:00Z","images":[
		{"name":"Standard_Debian_9","build":"20261122-031507","result":"published","duration_ms":{"build":610000,"test":90000},"checks":{"pass":6,"waived":1}},
		{"name":"Standard_CentOS_7","result":"unchanged","duration_ms":{"build":590000,"test":80000},"checks":{"pass":6,"waived":1}},
		{"name":"Standard_Fedora_28","result":"failed","stage":"build","error":"cannot build: disk-image-create exited with 1","artifacts":[".work/Standard_Fedora_28/build.log"]}]}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "report.json"), []byte(report), 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, ".work/Standard_Fedora_28"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".work/Standard_Fedora_28/build.log"), []byte("Reading package lists...\nE: Unable to locate package fedora-release\n"), 0o644))
	keyring = filepath.Join(dir, "keys.pub")
	require.NoError(t, os.WriteFile(keyring, keys, 0o644))
	return dir, keyring
}

// The pages of the cloud's public images in Chromium: nothing is wrong, and nothing is
// wider than the window but what scrolls by itself. The file is opened without a
// server as well, as after a nightly run.
func TestPagesInBrowser(t *testing.T) {
	program := needs.Tools(t, "chromium")[0]
	dir, keyring := night(t)
	out := filepath.Join(t.TempDir(), "out")
	code, _, stderr := execute(t, "-dir", dir, "-keyring", keyring, "-catalog", "-title", "Open Telekom Cloud images", "-out", out)
	require.Equal(t, 0, code, stderr)
	root, err := os.OpenRoot(out)
	require.NoError(t, err)
	defer root.Close()
	server := httptest.NewServer(website.Handler(root.FS()))
	defer server.Close()

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(2*time.Minute))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	defer stop()
	browser, cancel := chromedp.NewContext(allocator)
	defer cancel()
	require.NoError(t, chromedp.Do(browser))
	wrong := make(chan string, 100)
	require.NoError(t, chromedp.Listen(browser, func(e any) {
		if e, ok := e.(*log.EventEntryAdded); ok {
			select {
			case wrong <- e.Entry.Text + " " + e.Entry.URL:
			default:
			}
		}
	}))
	command := func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, log.Enable, cdp.Empty{})
		return err
	}
	require.NoError(t, chromedp.Do(browser, chromedp.Func(command)))
	run := func(steps ...chromedp.Action[chromedp.Void]) {
		ctx, cancel := context.WithTimeout(browser, 3*time.Minute)
		defer cancel()
		require.NoError(t, chromedp.Do(ctx, steps...))
	}
	scheme := func(name string) chromedp.Action[chromedp.Void] {
		return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
			return err
		})
	}
	picture := func(file string, full bool) {
		action := chromedp.CaptureScreenshot()
		if full {
			action = chromedp.FullScreenshot(100)
		}
		data, err := chromedp.Run(browser, action)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, data, 0o644))
	}
	if *screenshot != "" {
		run(chromedp.EmulateViewport(1280, 800), scheme("light"), chromedp.Navigate(server.URL+"/index.html"), chromedp.WaitVisible("form.filters"), chromedp.Click("#matrix thead tr:nth-child(2) th button"), chromedp.Click("#matrix tbody tr:nth-child(5) td.no summary"))
		picture(*screenshot, false)
		return
	}
	pages, widths, schemes := []string{"index.html", "images/Standard_CentOS_6/index.html"}, []int64{360, 1280}, []string{"light"}
	if *screenshots != "" {
		pages = append(pages, "night.html", "images/Standard_Debian_9/index.html", "images/Standard_Debian_9/20261120-031507.html")
		widths, schemes = append(widths, 1920), append(schemes, "dark")
	}
	for _, width := range widths {
		for _, name := range schemes {
			for i, page := range pages {
				run(chromedp.EmulateViewport(width, 860), scheme(name), chromedp.Navigate(server.URL+"/"+page), chromedp.WaitReady("footer"))
				got, err := chromedp.Run(browser, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`))
				require.NoError(t, err)
				assert.LessOrEqual(t, got, width, page)
				if *screenshots != "" {
					picture(filepath.Join(*screenshots, fmt.Sprintf("%d-%d-%s.png", i, width, name)), i > 0)
				}
			}
		}
	}
	run(chromedp.Navigate("file://"+filepath.ToSlash(out)+"/index.html"), chromedp.WaitVisible("form.filters"))
	stop()
	for len(wrong) > 0 {
		assert.Fail(t, <-wrong)
	}
}
