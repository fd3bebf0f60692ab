package web_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/publish/web"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// origin publishes a release of Image, whose qcow2 is followed by so many bytes,
// and returns the download directory.
func origin(t testing.TB, more int) (dir string, r *publish.Release, keyring *signing.Keyring) {
	work, build := t.TempDir(), publish.NewBuildID(time.Date(2018, 4, 1, 0, 0, 0, 0, time.UTC))
	if more > 0 {
		release := filepath.Join(work, "Image", build.String())
		require.NoError(t, os.MkdirAll(release, 0o755))
		data := bytes.Repeat([]byte("0123456789abcdef"), more/16)
		require.NoError(t, os.WriteFile(filepath.Join(release, "Image-"+build.String()+".qcow2"), data, 0o644))
	}
	r, err := publishtest.Release(t.Context(), work, "Image", build)
	require.NoError(t, err)
	dir = filepath.Join(t.TempDir(), "origin")
	_, err = publish.Publish(t.Context(), &directory.Target{Dir: dir}, r)
	require.NoError(t, err)
	keyring, err = signing.LoadKeyring(r.Dir + ".pub")
	require.NoError(t, err)
	return dir, r, keyring
}

// source is quick to lose patience.
func source(url string) *web.Source {
	return &web.Source{URL: url, Pause: time.Millisecond, Stall: 10 * time.Second}
}

func serve(t testing.TB, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// same fails the test unless the release's files are those of the other.
func same(t testing.TB, want, got *publish.Release) {
	t.Helper()
	assert.Equal(t, want.Files, got.Files)
	for _, f := range want.Files {
		a, err := os.ReadFile(filepath.Join(want.Dir, f.Name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(got.Dir, f.Name))
		require.NoError(t, err)
		assert.Equal(t, a, b, f.Name)
	}
}

func TestFetch(t *testing.T) {
	dir, r, keyring := origin(t, 0)
	files := http.FileServer(http.Dir(dir))
	for name, url := range map[string]string{
		"at the root":      serve(t, files),
		"below a path":     serve(t, http.StripPrefix("/some%20where/x", files)) + "/some%2520where/x/",
		"a slash too many": serve(t, files) + "/",
	} {
		t.Run(name, func(t *testing.T) {
			for _, which := range []string{"Image", "Image/latest", "Image/20180401-000000"} {
				got, err := publish.Fetch(t.Context(), source(url), which, keyring, t.TempDir())
				require.NoError(t, err, which)
				same(t, r, got)
			}
			_, err := publish.Fetch(t.Context(), source(url), "Image/prev", keyring, t.TempDir())
			require.ErrorIs(t, err, publish.ErrUnknownBuild)
		})
	}
}

func TestSource(t *testing.T) {
	dir, r, _ := origin(t, 0)
	files := http.FileServer(http.Dir(dir))
	noRanges := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		files.ServeHTTP(w, r)
	})
	for _, h := range []http.Handler{files, noRanges} {
		require.NoError(t, publishtest.TestSource(t.Context(), source(serve(t, h)), r))
	}
}

// A withdrawn release stays where it is, and is refused.
func TestFetchWithdrawn(t *testing.T) {
	dir, _, keyring := origin(t, 0)
	lifecycle := `{"20180401-000000":{"withdrawn":"why"}}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Image", "lifecycle.json"), []byte(lifecycle), 0o644))
	_, err := publish.Fetch(t.Context(), source(serve(t, http.FileServer(http.Dir(dir)))), "Image", keyring, t.TempDir())
	require.ErrorIs(t, err, publish.ErrWithdrawn)
}

// read reads a file through the source.
func read(ctx context.Context, s *web.Source, name string, offset int64) (string, error) {
	r, err := s.Open(ctx, name, offset)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(r, 1<<20))
	return string(data), errors.Join(err, r.Close())
}

// text is served by most of the following.
const text = "0123456789"

func serveText(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
}

// The answers of servers that are not all that they should be.
func TestAnswers(t *testing.T) {
	header := func(code int, more ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(more); i += 2 {
				w.Header().Set(more[i], more[i+1])
			}
			w.WriteHeader(code)
			if code != http.StatusNoContent {
				_, _ = io.WriteString(w, text)
			}
		}
	}
	for name, test := range map[string]struct {
		serve  http.HandlerFunc
		offset int64
		want   string // the content
		err    string // or this
	}{
		"whole":                   {serveText, 0, text, ""},
		"a range":                 {serveText, 4, text[4:], ""},
		"at the end":              {serveText, 10, "", ""},
		"behind the end":          {serveText, 11, "", ""},
		"200 to a range":          {header(200), 4, text[4:], ""},
		"200 and shorter":         {header(200), 40, "", ""},
		"another range":           {header(206, "Content-Range", "bytes 3-9/10"), 4, "", "another range"},
		"a range without a name":  {header(206), 4, "", "another range"},
		"a range of other things": {header(206, "Content-Range", "pages 4-9/10"), 4, "", "another range"},
		"a negative range":        {header(206, "Content-Range", "bytes -4-9/10"), 4, "", "another range"},
		"many ranges":             {header(206, "Content-Type", "multipart/byteranges; boundary=x"), 4, "", "another range"},
		"a range unasked":         {header(206, "Content-Range", "bytes 0-9/10"), 0, "", "another range"},
		"416 unasked":             {header(416), 0, "", "cannot satisfy a range"},
		"no content":              {header(204), 0, "", "status 204 No Content"},
		"unauthorized":            {header(401), 0, "", "status 401 Unauthorized"},
		"forbidden":               {header(403), 0, "", "status 403 Forbidden"},
		"unknown":                 {header(799), 0, "", "status 799"},
		"not there":               {header(404), 0, "", "file does not exist"},
		"gone":                    {header(410), 0, "", "file does not exist"},
		"not modified":            {header(304), 0, "", "status 304"},
		"redirect to nowhere":     {header(302), 0, "", "status 302 Found"},
		"redirect to a file":      {header(302, "Location", "file:///etc/passwd"), 0, "", "cannot read http://"},
		"redirect in a circle":    {header(302, "Location", "x"), 0, "", "redirects more than 10 times"},
		"encoded":                 {header(200, "Content-Encoding", "gzip"), 0, "", "encodes the file"},
		"encoded as itself":       {header(200, "Content-Encoding", "identity"), 0, text, ""},
		"always busy":             {header(503), 0, "", "status 503 Service Unavailable"},
		"always busy for a time":  {header(429, "Retry-After", "-5"), 0, "", "status 429 Too Many Requests"},
		"always broken":           {header(500, "Retry-After", "x"), 0, "", "status 500"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(t.Context(), source(serve(t, test.serve)), "Image/x/y", test.offset)
			assert.Equal(t, test.want, got)
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.err)
		})
	}
}

// A server may name the compression of a file that is compressed; Apache does.
func TestCompressedFile(t *testing.T) {
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "x-gzip")
		serveText(w, r)
	}))
	got, err := read(t.Context(), source(url), "Image/x/y.config.tar.gz", 0)
	require.NoError(t, err)
	assert.Equal(t, text, got)
}

// A server that encodes whatever it is asked for is refused, however large what it
// sends would become.
func TestGzip(t *testing.T) {
	dir, _, keyring := origin(t, 0)
	files := http.FileServer(http.Dir(dir))
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		rec := httptest.NewRecorder()
		files.ServeHTTP(rec, r)
		_, _ = rec.Body.WriteTo(z)
	}))
	_, err := publish.Fetch(t.Context(), source(url), "Image", keyring, t.TempDir())
	require.ErrorContains(t, err, "encodes the file")
}

func TestRedirects(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(serveText))
	t.Cleanup(plain.Close)
	secure := httptest.NewTLSServer(http.HandlerFunc(serveText))
	t.Cleanup(secure.Close)
	host := func(url string) string { _, h, _ := strings.Cut(url, "://"); return h }
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/moved" {
				serveText(w, r)
				return
			}
			http.Redirect(w, r, to, http.StatusFound)
		}
	}
	secureTo := func(to string) *web.Source {
		s := httptest.NewTLSServer(redirect(to))
		t.Cleanup(s.Close)
		return &web.Source{URL: s.URL, Client: s.Client(), Pause: time.Millisecond}
	}
	allow := func(s *web.Source, url string) *web.Source {
		s.RedirectHosts = []string{host(url)}
		return s
	}
	own := source(serve(t, redirect("/moved")))
	own.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the caller's own rule") }}
	for name, test := range map[string]struct {
		s   *web.Source
		err string
	}{
		"on the host":                 {source(serve(t, redirect("/moved"))), ""},
		"on the host, secure":         {secureTo("/moved"), ""},
		"to another host":             {source(serve(t, redirect(plain.URL))), "redirects to another host"},
		"to another host, allowed":    {allow(source(serve(t, redirect(plain.URL))), plain.URL), ""},
		"to link-local":               {source(serve(t, redirect("http://169.254.169.254/x"))), "redirects to another host"},
		"from https":                  {secureTo(plain.URL), "redirects from https to something else"},
		"from https, allowed host":    {allow(secureTo(plain.URL), plain.URL), "redirects from https to something else"},
		"from https to another https": {secureTo(secure.URL), "redirects to another host"},
		"https to https, allowed":     {allow(secureTo(secure.URL), secure.URL), ""},
		"to ftp":                      {source(serve(t, redirect("ftp://127.0.0.1/x"))), "redirects from https to something else"},
		"against the caller's rule":   {own, "the caller's own rule"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, offset := range []int64{0, 4} {
				got, err := read(t.Context(), test.s, "Image/x/y", offset)
				if test.err == "" {
					require.NoError(t, err)
					assert.Equal(t, text[offset:], got, "the range goes along")
					continue
				}
				require.ErrorContains(t, err, test.err)
			}
		})
	}
}

// raw serves each connection by hand and closes it.
func raw(t testing.TB, answer func(c net.Conn, r *http.Request)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					answer(c, r)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// Servers that lie, stall and never end.
func TestHostileServers(t *testing.T) {
	send := func(s string) func(net.Conn, *http.Request) {
		return func(c net.Conn, _ *http.Request) { _, _ = io.WriteString(c, s) }
	}
	hang := func(c net.Conn, s string) {
		_, _ = io.WriteString(c, s)
		_, _ = io.Copy(io.Discard, c) // until the client goes
	}
	endless := func(c net.Conn, head, line string) {
		_, err := io.WriteString(c, head)
		for err == nil {
			_, err = io.WriteString(c, line)
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, test := range map[string]struct {
		answer func(net.Conn, *http.Request)
		want   string
		err    string
	}{
		"no HTTP":             {send("SSH-2.0-x\r\n"), "", "malformed HTTP"},
		"nothing":             {send(""), "", "the connection was cut"},
		"half a header":       {send("HTTP/1.1 200 OK\r\nContent-Len"), "", "malformed MIME header"},
		"a longer length":     {send(ok + "Content-Length: 11\r\n\r\n" + text), text, "the connection was cut"},
		"a shorter length":    {send(ok + "Content-Length: 9\r\n\r\n" + text), text[:9], ""},
		"a negative length":   {send(ok + "Content-Length: -1\r\n\r\n" + text), "", "bad Content-Length"},
		"two lengths":         {send(ok + "Content-Length: 9\r\nContent-Length: 10\r\n\r\n" + text), "", "Content-Length"},
		"a huge length":       {send(ok + "Content-Length: 9223372036854775807\r\n\r\n" + text), text, "the connection was cut"},
		"a length too large":  {send(ok + "Content-Length: 9223372036854775808\r\n\r\n" + text), "", "bad Content-Length"},
		"a chunk cut":         {send(ok + "Transfer-Encoding: chunked\r\n\r\n14\r\n" + text), text, "the connection was cut"},
		"a chunk of nonsense": {send(ok + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + text), "", "invalid byte in chunk length"},
		"endless header": {func(c net.Conn, _ *http.Request) {
			endless(c, ok, "X: "+strings.Repeat("x", 1<<12)+"\r\n")
		}, "", "response headers exceeded"},
		"an endless line": {func(c net.Conn, _ *http.Request) {
			endless(c, ok+"X: ", strings.Repeat("x", 1<<12))
		}, "", "response headers exceeded"},
		"endless 100": {func(c net.Conn, _ *http.Request) {
			endless(c, "", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000))
		}, "", "response headers exceeded"},
		"no answer":   {func(c net.Conn, _ *http.Request) { hang(c, "") }, "", "the server stalls"},
		"half a file": {func(c net.Conn, _ *http.Request) { hang(c, ok+"Content-Length: 10\r\n\r\n"+text[:5]) }, text[:5], "the server stalls"},
		"a trickle": {func(c net.Conn, _ *http.Request) {
			var err error
			for _, err = io.WriteString(c, ok+"Content-Length: 100000\r\n\r\n"); err == nil; _, err = io.WriteString(c, "x") {
				time.Sleep(20 * time.Millisecond)
			}
		}, "", "the server stalls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := source(raw(t, test.answer))
			if test.err == "the server stalls" {
				s.Stall = 200 * time.Millisecond
			}
			got, err := read(t.Context(), s, "Image/x/y", 0)
			if test.want != "" && err == nil {
				assert.Equal(t, test.want, got)
			}
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.err)
			assert.Less(t, len(err.Error()), 1000)
			assert.NotErrorIs(t, err, io.EOF, "which is the end of a file")
		})
	}
}

// Endless files, to which nothing can be compared yet, end at their bounds.
func TestEndlessFiles(t *testing.T) {
	dir, _, keyring := origin(t, 0)
	files := http.FileServer(http.Dir(dir))
	for _, name := range []string{
		"latest/release.json", "lifecycle.json", "20180401-000000/SHA256SUMS", "20180401-000000/SHA256SUMS.asc",
		"20180401-000000/release.json", "20180401-000000/Image-20180401-000000.qcow2.asc",
	} {
		var sent atomic.Int64
		url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/Image/"+name {
				files.ServeHTTP(w, r)
				return
			}
			block := make([]byte, 1<<16)
			for {
				n, err := w.Write(block)
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		}))
		dir := t.TempDir()
		_, err := publish.Fetch(t.Context(), source(url), "Image", keyring, dir)
		require.ErrorIs(t, err, publish.ErrNotAsSigned, name)
		assert.Less(t, sent.Load(), int64(32<<20), name)
		assert.NoDirExists(t, filepath.Join(dir, "Image", "20180401-000000"))
	}
}

// A server that cuts each connection after so many bytes is asked for the rest; one
// that cuts all of them at once is given up, and the next run goes on.
func TestCutConnections(t *testing.T) {
	dir, want, keyring := origin(t, 8192)
	files := http.FileServer(http.Dir(dir))
	cutter := func(after int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			files.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Next(after))
			_ = http.NewResponseController(w).Flush()
			if rec.Body.Len() > 0 {
				panic(http.ErrAbortHandler)
			}
		}
	}
	for _, after := range []int{0, 1, 700, 1999, 2048, 4096, 8191} {
		t.Run(strconv.Itoa(after), func(t *testing.T) {
			download := t.TempDir()
			url := serve(t, cutter(after))
			got, err := publish.Fetch(t.Context(), source(url), "Image", keyring, download)
			if after >= 1999 { // 5 tries are enough
				require.NoError(t, err)
				same(t, want, got)
				return
			}
			require.ErrorContains(t, err, "the connection was cut")
			got, err = publish.Fetch(t.Context(), source(serve(t, files)), "Image", keyring, download)
			require.NoError(t, err)
			same(t, want, got)
		})
	}
}

// Each request in its turn fails in each way, once; the release comes all the same.
func TestEveryRequestFailsOnce(t *testing.T) {
	dir, want, keyring := origin(t, 0)
	files := http.FileServer(http.Dir(dir))
	faults := map[string]http.HandlerFunc{
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			}
		},
		"busy":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"limited": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "0"); w.WriteHeader(429) },
		"half": func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			files.ServeHTTP(rec, r)
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Next(rec.Body.Len() / 2))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	}
	for name, fault := range faults {
		for n := int64(1); ; n++ {
			var requests atomic.Int64
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == n {
					fault(w, r)
					return
				}
				files.ServeHTTP(w, r)
			}))
			got, err := publish.Fetch(t.Context(), source(url), "Image", keyring, t.TempDir())
			require.NoError(t, err, "%s at request %d", name, n)
			same(t, want, got)
			if requests.Load() < n {
				require.Greater(t, n, int64(5))
				break
			}
		}
	}
}

// A server that changes the release between two requests is found out at each of
// them.
func TestChangesBetweenRequests(t *testing.T) {
	dir, want, keyring := origin(t, 0)
	other, _, _ := origin(t, 0) // the same build, signed by somebody else
	files, others := http.FileServer(http.Dir(dir)), http.FileServer(http.Dir(other))
	for n := int64(1); ; n++ {
		var requests atomic.Int64
		url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) <= n {
				files.ServeHTTP(w, r)
				return
			}
			others.ServeHTTP(w, r)
		}))
		download := t.TempDir()
		_, err := publish.Fetch(t.Context(), source(url), "Image", keyring, download)
		if err == nil { // what is left is the same in both
			require.Greater(t, n, int64(4))
			break
		}
		require.NoDirExists(t, filepath.Join(download, "Image", "20180401-000000"))
		got, err := publish.Fetch(t.Context(), source(serve(t, files)), "Image", keyring, download)
		require.NoError(t, err)
		same(t, want, got)
	}
}

// The time that the caller takes between reads is not the server's.
func TestSlowReader(t *testing.T) {
	s := source(serve(t, http.HandlerFunc(serveText)))
	s.Stall = time.Second
	r, err := s.Open(t.Context(), "Image/x/y", 0)
	require.NoError(t, err)
	defer r.Close()
	for i := range text {
		time.Sleep(150 * time.Millisecond)
		b := make([]byte, 1)
		_, err := io.ReadFull(r, b)
		require.NoError(t, err)
		assert.Equal(t, text[i], b[0])
	}
}

// A client's timeout ends a request, not the file.
func TestClientTimeout(t *testing.T) {
	var requests atomic.Int64
	s := source(serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) > 1 {
			serveText(w, r)
			return
		}
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, text[:4])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})))
	s.Client = &http.Client{Timeout: 300 * time.Millisecond}
	got, err := read(t.Context(), s, "Image/x/y", 0)
	require.NoError(t, err)
	assert.Equal(t, text, got)
}

func TestCancel(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"waiting for an answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"in the file": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"before the next try": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := read(ctx, source(serve(t, answer)), "Image/x/y", 0)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
	}
}

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"":                           "must begin with http",
		"dir":                        "must begin with http",
		"ftp://host":                 "must begin with http",
		"http://":                    "must begin with http",
		"file:///etc":                "must begin with http",
		"http://host/?token=secret":  "neither ? nor #",
		"http://host/#secret":        "neither ? nor #",
		"http://me:secret@host/":     "needs https",
		"http://me:secret@host:x/":   "cannot be parsed",
		"https://me:secret@\x7fhost": "cannot be parsed",
		// Nobody listens there.
		"https://me:secret@127.0.0.1:1/": "connection refused",
	} {
		_, err := read(t.Context(), source(url), "Image/x/y", 0)
		require.ErrorContains(t, err, want, url)
		assert.NotContains(t, err.Error(), "secret")
	}
	s := source("http://127.0.0.1:1")
	for _, name := range []string{"", "/", "Image//y", "Image/../y", "../y", "./y"} {
		_, err := read(t.Context(), s, name, 0)
		require.ErrorContains(t, err, "no file of a release", name)
	}
}

// A certificate that is not trusted is asked for once.
func TestUntrustedCertificate(t *testing.T) {
	var seen atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(serveText))
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { seen.Add(1); return nil, nil }}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	_, err := read(t.Context(), source(s.URL), "Image/x/y", 0)
	require.ErrorContains(t, err, "certificate")
	assert.Equal(t, int64(1), seen.Load())
}

// A process that is killed while it fetches leaves what the next one goes on from.
func TestFetchKilled(t *testing.T) {
	if url := os.Getenv("FETCH_FROM"); url != "" {
		keyring, err := signing.LoadKeyring(os.Getenv("FETCH_KEYRING"))
		require.NoError(t, err)
		_, err = publish.Fetch(t.Context(), source(url), "Image", keyring, os.Getenv("FETCH_TO"))
		require.NoError(t, err)
		return
	}
	const size = 4 << 20
	dir, want, keyring := origin(t, size)
	files := http.FileServer(http.Dir(dir))
	download := t.TempDir()
	part := filepath.Join(download, "Image", ".fetch-20180401-000000", "Image-20180401-000000.qcow2")
	for _, half := range []int64{size / 8, size / 2, size - 1<<19} {
		var mu sync.Mutex
		var ranges []string
		url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, ".qcow2") {
				files.ServeHTTP(w, r)
				return
			}
			mu.Lock()
			ranges = append(ranges, r.Header.Get("Range"))
			mu.Unlock()
			from := int64(0)
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			rec := httptest.NewRecorder()
			files.ServeHTTP(rec, r)
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
			w.Header().Set("Content-Range", rec.Header().Get("Content-Range"))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Next(int(half - from)))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}))
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFetchKilled$")
		child.Env = append(os.Environ(), "FETCH_FROM="+url, "FETCH_KEYRING="+want.Dir+".pub", "FETCH_TO="+download)
		require.NoError(t, child.Start())
		require.Eventually(t, func() bool {
			info, err := os.Stat(part)
			return err == nil && info.Size() >= half
		}, time.Minute, 10*time.Millisecond)
		require.NoError(t, child.Process.Kill())
		require.Error(t, child.Wait())
		if half > size/8 {
			require.Len(t, ranges, 1)
			assert.NotEmpty(t, ranges[0], "it goes on")
		}
		require.NoDirExists(t, filepath.Join(download, "Image", "20180401-000000"))
	}
	info, err := os.Stat(part)
	require.NoError(t, err)
	var asked atomic.Value
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".qcow2") {
			asked.Store(r.Header.Get("Range"))
		}
		files.ServeHTTP(w, r)
	}))
	got, err := publish.Fetch(t.Context(), source(url), "Image", keyring, download)
	require.NoError(t, err)
	same(t, want, got)
	assert.Equal(t, fmt.Sprintf("bytes=%d-", info.Size()), asked.Load())
	_, err = os.Stat(part)
	require.ErrorIs(t, err, fs.ErrNotExist)
}
