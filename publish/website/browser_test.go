package website_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
)

var screenshots = flag.String("screenshots", "", "`directory` for pictures of the pages at each width, dark and light")

// browser is a headless Chromium that writes down what goes wrong in it.
type browser struct {
	context.Context //nolint:containedctx // chromedp keeps the browser in it
	mu              sync.Mutex
	wrong           []string
}

func newBrowser(t *testing.T, server string) *browser {
	t.Helper()
	program := needs.Tools(t, "chromium")[0]
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(2*time.Minute))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	b := new(browser)
	var cancel context.CancelFunc
	b.Context, cancel = chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	host := strings.TrimPrefix(server, "http://")
	say := func(format string, args ...any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
	}
	require.NoError(t, chromedp.Do(b)) // which opens it
	require.NoError(t, chromedp.Listen(b, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			say("exception: %v", e.ExceptionDetails)
		case *runtime.EventConsoleAPICalled:
			say("console: %s", e.Type)
		case *log.EventEntryAdded:
			say("log: %s %s", e.Entry.Text, e.Entry.URL)
		case *network.EventLoadingFailed:
			say("failed: %s", e.ErrorText)
		case *network.EventResponseReceived:
			if e.Response.Status >= 400 {
				say("%d of %s", e.Response.Status, e.Response.URL)
			}
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(e.Request.URL); err != nil || u.Host != host {
				say("request outside: %s", e.Request.URL)
			}
		case *page.EventJavascriptDialogOpening:
			say("dialog")
		}
	}))
	require.NoError(t, chromedp.Do(b, command(network.Enable, network.EnableParams{}), command(log.Enable, cdp.Empty{}), command(runtime.Enable, cdp.Empty{})))
	return b
}

func (b *browser) run(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b, 3*time.Minute) // for one that hangs
	defer cancel()
	require.NoError(t, chromedp.Do(ctx, steps...))
}

// value is what an action returns.
func value[T any](t *testing.T, b *browser, a chromedp.Action[T]) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b, 3*time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	require.NoError(t, err)
	return v
}

// command sends a command of the protocol.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

func scheme(name string) chromedp.Action[chromedp.Void] {
	return command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
}

func scripts(on bool) chromedp.Action[chromedp.Void] {
	return command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
}

func (b *browser) clean(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	assert.Empty(t, b.wrong)
	b.wrong = nil
}

// eval is what an expression is in the page.
func eval[T any](t *testing.T, b *browser, expression string) T {
	t.Helper()
	return value(t, b, chromedp.Evaluate[T](expression))
}

// samples is a site with something on every page.
func samples(t *testing.T) *place {
	p := newPlace(t)
	p.site.Title = "Open Telekom Cloud images"
	p.site.Report = []byte(`{"started":"2026-11-01T00:00:00Z","finished":"2026-11-01T01:00:00Z","images":[
		{"name":"Standard_Debian_12","build":"20261101-031507","result":"published","duration_ms":{"build":60000,"test":9000},"checks":{"pass":3}},
		{"name":"Gone","result":"failed","stage":"build","error":"cannot build","artifacts":["x.log"]}]}`)
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "x.log"), []byte("first\nlast line\n"), 0o644))
	p.site.Images = []website.Image{{Name: "Standard_Nothing_1", Class: "Standard", Distribution: "nothing"}}
	for i := range 4 {
		c := plain
		c.packages = fmt.Sprintf("adduser 3.13%d all\nopenssh-server 1:9.2p1-%d amd64\n", i/2, i)
		c.size = 100000 + 3000*(i%3)
		p.add(t, "Standard_Debian_12", build(i), c)
	}
	p.add(t, "Standard_Debian_11", build(9), plain)
	p.write(t)
	return p
}

var sampled = []string{"/index.html", "/night.html", "/images/Standard_Debian_12/", "/images/Standard_Debian_12/" + build(2) + ".html", "/images/Standard_Nothing_1/"}

func TestBrowser(t *testing.T) {
	p := samples(t)
	server := p.serve(t)
	b := newBrowser(t, server.URL)
	for _, at := range sampled {
		b.run(t, chromedp.Navigate(server.URL+at), chromedp.WaitReady("footer"))
	}
	b.clean(t)

	b.run(t, chromedp.Navigate(server.URL+"/index.html"), chromedp.WaitVisible("form.filters"))
	visible := `[...document.querySelectorAll("#matrix tbody tr:not([hidden]) th")].map(e => e.textContent.trim()).join(" ")`
	all := "Standard_Debian_11 Standard_Debian_12 Standard_Nothing_1"
	assert.Equal(t, all, eval[string](t, b, visible))
	for _, tt := range []struct{ field, value, want string }{
		{"q", "debian_12", "Standard_Debian_12"}, {"distribution", "nothing", "Standard_Nothing_1"}, {"class", "Standard", all},
		{"flavor", "s2", "Standard_Debian_11 Standard_Debian_12"}, {"flavor", "h2", ""}, {"capability", "kvm-virtio", "Standard_Debian_11 Standard_Debian_12"},
	} {
		b.run(t, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`(() => { const f = document.querySelector("form.filters"); f.reset(); f.elements[%q].value = %q; f.dispatchEvent(new Event("input")); })()`, tt.field, tt.value)))
		assert.Equal(t, tt.want, eval[string](t, b, visible), "%s %s", tt.field, tt.value)
	}
	b.run(t, chromedp.Click("form.filters button[type=reset]"), chromedp.WaitNotPresent("#matrix tbody tr[hidden]"))

	b.run(t, chromedp.Click("#matrix thead tr:nth-child(2) th:nth-child(1) button"))
	assert.Equal(t, "descending", eval[string](t, b, `document.querySelector("#matrix thead tr:nth-child(2) th:nth-child(1)").ariaSort`))
	assert.Equal(t, "Standard_Debian_11 Standard_Debian_12 Standard_Nothing_1", eval[string](t, b, visible))
	b.run(t, chromedp.Click("#matrix thead tr:nth-child(2) th:nth-child(1) button"))
	assert.Equal(t, "Standard_Nothing_1 Standard_Debian_12 Standard_Debian_11", eval[string](t, b, visible))

	// By keyboard alone: from the row's name to the third flavor and its reason.
	b.run(t, chromedp.Focus("#matrix tbody tr:nth-child(2) th a"))
	for range 5 {
		b.run(t, chromedp.KeyEvent(kb.ArrowRight))
	}
	assert.Equal(t, "Standard_Debian_12 on h2: no, needs infiniband", eval[string](t, b, `document.getElementById("reason").textContent`))
	b.run(t, chromedp.KeyEvent(kb.Enter))
	assert.True(t, eval[bool](t, b, `document.activeElement.parentElement.open`))

	b.run(t, chromedp.Navigate(server.URL+"/images/Standard_Debian_12/"), chromedp.WaitVisible("[data-search] input"))
	b.run(t, chromedp.SendKeys("[data-search] input", "SSH"))
	assert.Equal(t, "1 of 2", eval[string](t, b, `document.querySelector("[data-search] [role=status]").textContent`))
	b.run(t, chromedp.SetValue("[data-compare] select[name=from]", build(0)), chromedp.Click("[data-compare] button"), chromedp.WaitVisible("[data-compare] tbody tr"))
	assert.Equal(t, "adduser (all)|3.130|3.131 openssh-server (amd64)|1:9.2p1-0|1:9.2p1-3", eval[string](t, b, `[...document.querySelectorAll("[data-compare] tbody tr")].map(r => [...r.cells].map(c => c.textContent).join("|")).join(" ")`))
	b.clean(t)

	// Without scripts there is a plain table, whose reasons open all the same.
	b.run(t, scripts(false), chromedp.Navigate(server.URL+"/index.html"), chromedp.WaitVisible("#matrix"), chromedp.WaitNotVisible("form.filters"),
		chromedp.Click("#matrix td.no summary"), chromedp.WaitVisible("#matrix td.no p"), scripts(true))
	b.clean(t)
}

// Nothing is wider than the window but what scrolls by itself.
func TestWidths(t *testing.T) {
	p := samples(t)
	server := p.serve(t)
	b := newBrowser(t, server.URL)
	for _, width := range []int64{360, 1280, 1920} {
		for _, name := range []string{"light", "dark"} {
			for i, at := range sampled {
				b.run(t, chromedp.EmulateViewport(width, 900), scheme(name),
					chromedp.Navigate(server.URL+at), chromedp.WaitReady("footer"))
				assert.LessOrEqual(t, eval[int64](t, b, `document.documentElement.scrollWidth`), width, at)
				if *screenshots == "" {
					continue
				}
				picture := value(t, b, chromedp.FullScreenshot(100))
				require.NoError(t, os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("%d-%d-%s.png", i, width, name)), picture, 0o644))
			}
		}
	}
	b.clean(t)
}

// npm unpacks a package of the npm registry, without which the test is skipped
// everywhere: a registry out of reach is no fault of the machine.
func npm(t *testing.T, name string) string {
	t.Helper()
	tools := needs.Tools(t, "npm", "tar")
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	pack := exec.CommandContext(ctx, tools[0], "pack", "--silent", name)
	pack.Dir = dir
	if out, err := pack.CombinedOutput(); err != nil {
		t.Skipf("cannot get %s from the npm registry: %s", name, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	out, err := exec.CommandContext(ctx, tools[1], "-C", dir, "-xzf", files[0]).CombinedOutput()
	require.NoError(t, err, string(out))
	return filepath.Join(dir, "package")
}

// axe-core finds nothing serious, in either scheme.
func TestAxe(t *testing.T) {
	p := samples(t)
	server := p.serve(t)
	b := newBrowser(t, server.URL)
	axe, err := os.ReadFile(filepath.Join(npm(t, "axe-core@4"), "axe.min.js"))
	require.NoError(t, err)
	for _, name := range []string{"light", "dark"} {
		for _, at := range sampled {
			b.run(t, scheme(name),
				chromedp.Navigate(server.URL+at), chromedp.WaitReady("footer"), chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("details").forEach(d => d.open = true)`), chromedp.Evaluate[chromedp.Void](string(axe)+";void 0"))
			text := value(t, b, chromedp.Evaluate[string](`axe.run().then(r => JSON.stringify({passes: r.passes.length, violations: r.violations.map(v => ({id: v.id, impact: v.impact, nodes: v.nodes.slice(0, 3).map(n => n.html + " " + n.failureSummary)}))}))`, chromedp.EvalAwaitPromise))
			var found struct {
				Passes     int
				Violations []struct {
					ID, Impact string
					Nodes      []string
				}
			}
			require.NoError(t, json.Unmarshal([]byte(text), &found))
			require.Greater(t, found.Passes, 10)
			assert.Empty(t, found.Violations, "%s, %s", at, name)
		}
	}
}

// The Nu HTML checker finds nothing wrong.
func TestValidHTML(t *testing.T) {
	java := needs.Tools(t, "java")[0]
	p := samples(t)
	jar := filepath.Join(npm(t, "vnu-jar"), "build", "dist", "vnu.jar")
	args := []string{"-Xss8m", "-jar", jar, "--format", "json", "--stdout", "--exit-zero-always"}
	for _, at := range sampled {
		if strings.HasSuffix(at, "/") {
			at += "index.html"
		}
		args = append(args, filepath.Join(p.site.Out, at))
	}
	out, err := exec.CommandContext(t.Context(), java, args...).Output()
	require.NoError(t, err)
	var result struct {
		Messages []struct {
			Type, URL, Message string
			Line               int `json:"lastLine"`
			Extract            string
		}
	}
	require.NoError(t, json.Unmarshal(bytes.TrimSpace(out), &result))
	for _, m := range result.Messages {
		if m.Type != "info" {
			assert.Fail(t, m.Message, "%s:%d %s", m.URL, m.Line, m.Extract)
		}
	}
}
