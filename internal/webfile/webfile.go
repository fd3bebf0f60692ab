// Package webfile reads a file from a web server that may fail on the way: from the
// byte that was reached.
//
// A connection that breaks, an answer that says to come back later (408, 429, 500,
// 502, 503, 504) and one that stalls are tried again, with a pause that grows or that
// the server asks for, until five tries in a row have brought less than a MiB. A server
// that answers a range with the whole file is read up to the offset. Content that
// the server encodes on its way is refused. That the file is the same before and
// after a break is the caller's to verify, by its digest or signature.
package webfile

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects = 10
	tries        = 5       // that bring nothing, before a file is given up
	progress     = 1 << 20 // bytes after which tries count anew
	enough       = 16 << 10
	longestPause = time.Minute
)

// Options say how to read. The zero value is usable.
type Options struct {
	// Client sends the requests. Its Timeout counts for each of them. If nil, a client
	// without one.
	Client *http.Client
	// RedirectHosts are other hosts, with their ports where they are not the
	// scheme's, to which the server may redirect. It may never leave https.
	RedirectHosts []string
	// AnyHost allows redirects to all hosts, for what is verified whoever it is from.
	AnyHost bool
	// Stall is how long the server may take for its answer, and then for each
	// 16 KiB. If zero, a minute.
	Stall time.Duration
	// Pause is how long to wait before a request is repeated; each further time it
	// is twice as long. If zero, 200 ms.
	Pause time.Duration
}

// Open reads what is at u, an http or https URL, from the offset on. A file that is
// not there is fs.ErrNotExist. No error shows a password in the URL. The caller
// closes the reader.
func Open(ctx context.Context, o Options, u *url.URL, offset int64) (io.ReadCloser, error) {
	f := &file{at: offset, pause: cmp.Or(o.Pause, 200*time.Millisecond)}
	f.open = func(at int64) (io.ReadCloser, error) { return o.request(ctx, u, at) }
	f.wait = func(d time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}
	if err := f.reopen(); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", u.Redacted(), err)
	}
	return f, nil
}

// request asks for the file from the offset on.
func (o *Options) request(ctx context.Context, u *url.URL, at int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stall := cmp.Or(o.Stall, time.Minute)
	r := &response{stall: stall, patience: stall, timer: time.AfterFunc(stall, func() { cancel(errStalled) })}
	r.stop = func() { r.timer.Stop(); cancel(nil) }
	r.why = func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return readable(err)
	}
	body, skip, err := o.send(ctx, u, at)
	r.timer.Stop()
	if err != nil {
		err = r.why(err)
		r.stop()
		return nil, err
	}
	r.body = body
	if _, err := io.CopyN(io.Discard, r, skip); err != nil && !errors.Is(err, io.EOF) { // at its end is what it then is
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// send asks for the content from the offset on. What is to be skipped of the answer
// comes before that.
func (o *Options) send(ctx context.Context, u *url.URL, at int64) (body io.ReadCloser, skip int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept-Encoding", "identity") // else the client would ask for gzip
	req.Header.Set("Cache-Control", "no-cache")   // labels move
	if at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
	}
	resp, err := o.client(u).Do(req)
	if err != nil {
		return nil, 0, err
	}
	if err := judge(resp, u, at); err != nil {
		return nil, 0, errors.Join(err, resp.Body.Close())
	}
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable: // there is nothing from there on
		return http.NoBody, 0, resp.Body.Close()
	case http.StatusOK:
		return resp.Body, at, nil
	}
	return resp.Body, 0, nil
}

// client returns the caller's client with our rule for redirects before its own.
func (o *Options) client(u *url.URL) *http.Client {
	c := new(http.Client)
	if o.Client != nil {
		*c = *o.Client
	}
	own := c.CheckRedirect
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		to := req.URL
		sameHost := strings.EqualFold(to.Host, u.Host) || slices.ContainsFunc(o.RedirectHosts, func(h string) bool { return strings.EqualFold(h, to.Host) })
		switch {
		case len(via) > maxRedirects:
			return permanent("the server redirects more than 10 times")
		case to.Scheme != "https" && (to.Scheme != "http" || via[len(via)-1].URL.Scheme == "https"):
			return permanent("the server redirects from https to something else")
		case !sameHost && !o.AnyHost:
			return permanent(fmt.Sprintf("the server redirects to another host, %.100q; allow it, or ask that one", to.Host))
		case own != nil:
			return own(req, via)
		}
		return nil
	}
	return c
}

// judge reports an answer that is not the file from the offset on.
func judge(resp *http.Response, u *url.URL, at int64) error {
	code := resp.StatusCode
	switch code {
	case http.StatusOK:
	case http.StatusPartialContent:
		if from, ok := rangeStart(resp.Header.Get("Content-Range")); !ok || from != at || at == 0 {
			return permanent("the server answered with another range than it was asked for")
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if at == 0 {
			return permanent("the server cannot satisfy a range that it was not asked for")
		}
		return nil
	case http.StatusNotFound, http.StatusGone:
		return fs.ErrNotExist
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || seconds < 0 {
			seconds = 0
		}
		return &laterError{code: code, after: time.Duration(min(seconds, int(longestPause/time.Second))) * time.Second}
	default:
		return permanent(fmt.Sprintf("the server answered with status %d %s", code, http.StatusText(code)))
	}
	// Servers give the name of a compressed file as an encoding, too.
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") && !strings.HasSuffix(u.Path, ".gz") {
		return permanent("the server encodes the file, which it was not asked for")
	}
	return nil
}

// rangeStart returns where the range of a Content-Range begins.
func rangeStart(header string) (int64, bool) {
	from, ok := strings.CutPrefix(header, "bytes ")
	from, _, dash := strings.Cut(from, "-")
	n, err := strconv.ParseInt(from, 10, 64)
	return n, ok && dash && err == nil && n >= 0
}

// A permanent error comes again when the request is repeated.
type permanent string

func (e permanent) Error() string { return string(e) }

// laterError is that the server says to come back later.
type laterError struct {
	code  int
	after time.Duration // zero if the server does not say
}

func (e *laterError) Error() string {
	return fmt.Sprintf("the server answered with status %d %s", e.code, http.StatusText(e.code))
}

var (
	errStalled = errors.New("the server stalls")
	errCut     = fmt.Errorf("the connection was cut: %w", io.ErrUnexpectedEOF)
)

// readable drops the URL, which the caller adds, and bounds what a server can put in
// the text of an error. No error of a request is the end of a file.
func readable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	const most = 300
	if text := err.Error(); len(text) > most {
		return fmt.Errorf("%.300s…", text)
	}
	return err
}

// response is the body of an answer. It ends when the server stalls.
type response struct {
	body     io.ReadCloser
	timer    *time.Timer   // ends the request; it runs while there is something to wait for
	stall    time.Duration // for enough bytes
	patience time.Duration // what is left of it
	got      int           // bytes since it was all left
	stop     func()
	why      func(error) error
}

func (r *response) Read(p []byte) (int, error) {
	start := time.Now()
	r.timer.Reset(r.patience)
	n, err := r.body.Read(p)
	r.timer.Stop()
	r.patience -= time.Since(start)
	if r.got += n; r.got >= enough {
		r.got, r.patience = 0, r.stall
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.why(err)
	}
	return n, err
}

func (r *response) Close() error {
	defer r.stop()
	return r.body.Close()
}

// file reads a file by one request after the other.
type file struct {
	open  func(at int64) (io.ReadCloser, error)
	wait  func(time.Duration) error
	body  io.ReadCloser
	at    int64 // what is read next
	since int64 // bytes since tries counted anew
	tried int
	pause time.Duration
}

func (f *file) Read(p []byte) (int, error) {
	for {
		n, err := f.body.Read(p)
		f.at += int64(n)
		if f.since += int64(n); f.since >= progress {
			f.since, f.tried = 0, 0
		}
		switch {
		case n > 0:
			return n, nil // an error comes again, or the next Read continues
		case err == nil || errors.Is(err, io.EOF) || !again(err):
			return 0, err
		}
		_ = f.body.Close() // which was no use
		f.body = http.NoBody
		if err := f.repeat(err); err != nil {
			return 0, err
		}
		if err := f.reopen(); err != nil {
			return 0, err
		}
	}
}

// reopen requests what is at f.at until there is an answer.
func (f *file) reopen() error {
	for {
		body, err := f.open(f.at)
		if err == nil {
			f.body = body
			return nil
		}
		if !again(err) {
			return err
		}
		if err := f.repeat(err); err != nil {
			return err
		}
	}
}

// repeat waits before the next try, or returns why there is none.
func (f *file) repeat(why error) error {
	if f.tried++; f.tried >= tries {
		return why
	}
	pause := f.pause << (f.tried - 1)
	var later *laterError
	if errors.As(why, &later) {
		pause = max(pause, later.after)
	}
	return f.wait(pause)
}

// again reports whether to repeat the request could help. It does not look for the
// end of the context, which ends the wait before.
func again(err error) bool {
	var never permanent
	var dns *net.DNSError
	var trust *tls.CertificateVerificationError
	switch {
	case errors.As(err, &never), errors.Is(err, fs.ErrNotExist), errors.As(err, &trust):
		return false
	case errors.As(err, &dns) && dns.IsNotFound:
		return false
	}
	return true
}

func (f *file) Close() error { return f.body.Close() }
