package website_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// TestMain lets the test binary stand in for a program that writes the site of
// WEBSITE_DIR.
func TestMain(m *testing.M) {
	dir := os.Getenv("WEBSITE_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	// What commits is on one thread, for strace counts the calls of each.
	runtime.LockOSThread()
	site, err := siteOf(dir)
	if err == nil {
		err = site.Write(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// siteOf is a site of the directory, its key dir.pub and its report dir.json.
func siteOf(dir string) (*website.Site, error) {
	keyring, err := signing.LoadKeyring(dir + ".pub")
	if err != nil {
		return nil, err
	}
	report, err := os.ReadFile(dir + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return &website.Site{Dir: dir, List: (&directory.Target{Dir: dir}).List, Keyring: keyring, Out: dir + ".out", Report: report}, err
}

var leads = regexp.MustCompile(`(?:href|src)="([^"#]+)|"(?:path|page|details)": "([^"]+)"`)

// halves are what is wrong with the pages and feeds that can be reached, while
// somebody may be writing them: files that end in the midst, and links to nothing on
// pages that are still there.
func halves(out string) (wrong []string) {
	queue, seen := []string{"index.html", "index.json", "streams/v1/index.json"}, map[string]bool{}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		data, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			continue // which led here is looked at again below
		}
		if strings.HasPrefix(name, "download/") {
			continue
		}
		end := map[string]string{".html": "</html>", ".json": "}", ".xml": ">", ".css": "}"}[path.Ext(name)]
		if !strings.HasSuffix(strings.TrimSpace(string(data)), end) {
			wrong = append(wrong, name+" ends in the midst")
		}
		for _, m := range leads.FindAllStringSubmatch(string(data), -1) {
			to := path.Join(path.Dir(name), html.UnescapeString(m[1]))
			if m[2] != "" {
				to = m[2]
			}
			to, err := url.PathUnescape(to)
			if err != nil {
				wrong = append(wrong, err.Error())
				continue
			}
			if _, err := os.Stat(filepath.Join(out, to)); err != nil {
				if stays(filepath.Join(out, name), data) {
					wrong = append(wrong, name+" leads to "+to+", which is not there")
				}
			}
			queue = append(queue, to)
		}
	}
	return wrong
}

// stays reports whether a page is still there, and not one that no page led to any
// more, which goes just after what it leads to.
func stays(name string, data []byte) bool {
	for range 20 {
		if again, _ := os.ReadFile(name); !bytes.Equal(again, data) {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
	return true
}

// nights is a download directory with a site, and changes to it.
func nights(t *testing.T) (p *place, changes []func()) {
	p = newPlace(t)
	public, err := os.Create(p.dir + ".pub")
	require.NoError(t, err)
	require.NoError(t, errors.Join(p.key.WritePublic(public), public.Close()))
	for i := range 3 {
		p.add(t, "Standard_Debian_12", build(i), plain)
	}
	p.add(t, "Standard_Debian_11", build(0), plain)
	p.add(t, "Standard_Gone_1", build(0), plain)
	target := &directory.Target{Dir: p.dir}
	return p, []func(){
		func() { p.add(t, "Standard_Debian_12", build(3), plain); p.add(t, "Standard_New_1", build(3), plain) },
		func() {
			id, err := publish.ParseBuildID(build(3))
			require.NoError(t, err)
			_, err = publish.Withdraw(t.Context(), target, "Standard_Debian_12", id, "no good")
			require.NoError(t, err)
		},
		func() {
			require.NoError(t, os.WriteFile(p.dir+".json", []byte(`{"images":[{"name":"Standard_New_1","result":"published"}]}`), 0o644))
		},
		func() {
			require.NoError(t, os.RemoveAll(filepath.Join(p.dir, "Standard_Debian_12", build(0))))
			require.NoError(t, os.RemoveAll(filepath.Join(p.dir, "Standard_Gone_1")))
		},
		func() { require.NoError(t, os.Remove(p.dir+".json")) },
	}
}

// Who reads while runs write finds no file half-written and no dead link.
func TestReaderSeesNoHalf(t *testing.T) {
	p, changes := nights(t)
	write := func() {
		site, err := siteOf(p.dir)
		require.NoError(t, err)
		require.NoError(t, site.Write(t.Context()))
	}
	write()
	stop, found := make(chan struct{}), make(chan []string)
	reads := 0
	go func() {
		var wrong []string
		for {
			wrong = append(wrong, halves(p.dir+".out")...)
			reads++
			select {
			case <-stop:
				found <- wrong
				return
			default:
			}
		}
	}()
	for _, change := range changes {
		change()
		write()
	}
	close(stop)
	require.Empty(t, <-found)
	require.Greater(t, reads, len(changes))
}

// A run that is killed at a rename, a link or a removal leaves no half either, and
// the next one completes it.
func TestKilledRun(t *testing.T) {
	strace := needs.Tools(t, "strace")[0]
	if out, err := exec.Command(strace, "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		needs.Missing(t, "strace cannot trace: "+string(out))
	}
	p, changes := nights(t)
	run := func(program ...string) *exec.Cmd {
		args := append(program, os.Args[0])
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "WEBSITE_DIR="+p.dir)
		return cmd
	}
	out, err := run().CombinedOutput()
	require.NoError(t, err, string(out))
	kills := 0
	for i, change := range changes {
		change()
		call := []string{"renameat,renameat2", "unlinkat"}[i%2]
		for n := 1; ; n += 2 {
			out, err := run(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n)).CombinedOutput()
			require.Empty(t, halves(p.dir+".out"), "killed at %s %d", call, n)
			if err == nil {
				break
			}
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			status, _ := exit.Sys().(syscall.WaitStatus)
			require.Equal(t, syscall.SIGKILL, status.Signal(), string(out))
			kills++
		}
	}
	require.Greater(t, kills, 10)
	site, err := siteOf(p.dir)
	require.NoError(t, err)
	completed := snapshot(t, site.Out)
	site.Out += ".other"
	require.NoError(t, site.Write(t.Context()))
	// What was removed is known to the former alone.
	for name, text := range snapshot(t, site.Out) {
		if strings.HasPrefix(name, "download/") || strings.HasPrefix(name, "images/Standard_New_1/") {
			require.Equal(t, text, completed[name], name)
		}
	}
	for name := range completed {
		require.False(t, strings.Contains(name, "Standard_Gone_1/"+build(0)) || name == "night.html", name)
	}
}

// A release that changes between its verification and its end is not shown, not then
// and not from what the run has kept.
func TestChangeWhileVerified(t *testing.T) {
	p := newPlace(t)
	p.add(t, "Standard_Debian_12", build(0), plain)
	file := filepath.Join(p.dir, "Standard_Debian_12", build(0), "Standard_Debian_12-"+build(0)+".qcow2")
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	st, err := os.Stat(file)
	require.NoError(t, err)
	tampered := bytes.Clone(data)
	tampered[9] ^= 1
	spoil := func(data []byte) {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.Write(data)
		require.NoError(t, errors.Join(err, f.Close(), os.Chtimes(file, st.ModTime(), st.ModTime())))
	}
	// The row is made of a release after it was verified.
	row := p.site.Row
	p.site.Row = func(x *publish.Index) (website.Image, error) {
		spoil(tampered)
		return row(x)
	}
	require.NoError(t, p.site.Write(t.Context()))
	p.site.Row = row
	require.Error(t, p.site.Write(t.Context()), "it counts as verified")
	require.NoDirExists(t, filepath.Join(p.site.Out, "download/Standard_Debian_12", build(0)))
}
