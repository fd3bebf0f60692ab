// Package web reads releases from a web server that serves a download directory of
// package publish/directory, for [publish.Fetch].
//
// # What a server may do
//
// A connection that breaks, an answer that says to come back later (408, 429, 500,
// 502, 503, 504) and one that stalls are tried again from the byte that was reached,
// with a pause that grows or that the server asks for. A server that answers a range
// with the whole file is read up to the offset. A redirect stays on the server's host
// and port, unless RedirectHosts has the other, and never leaves https. Content that
// the server encodes on its way, as with gzip, is refused; it is not asked for. An
// answer with a range other than was asked for, or cut short of its length, is an error.
//
// One that is slow but no slower than Stall allows is the caller's to bound, with ctx.
//
// The server must follow the links latest and prev, and say of a file that is not there, such
// as lifecycle.json where nothing was ever withdrawn, that it is not: 404 or 410.
//
// # Security
//
// The server is not trusted with what a release holds: that is signed. Who controls
// it, or without https the way to it, can hide releases, name an older one the
// latest, and hide that one was withdrawn; [publish.Fetcher] says what it does about
// that.
package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/webfile"
)

// Source is a download directory on a web server. It implements [publish.Source]
// and may be used concurrently.
type Source struct {
	// URL of the directory: http or https, without a query. A password in it is
	// sent with https only.
	URL string
	// Client sends the requests. Its Timeout counts for each of them, so it bounds
	// how long one file may take before it is continued by the next. If nil, a client
	// without one.
	Client *http.Client
	// RedirectHosts are other hosts, with their ports where they are not the
	// scheme's, to which the server may redirect.
	RedirectHosts []string
	// Stall is how long the server may take for its answer, and then for each
	// 16 KiB. If zero, a minute.
	Stall time.Duration
	// Pause is how long to wait before a request is repeated; each further time it
	// is twice as long. If zero, 200 ms.
	Pause time.Duration
}

// Open implements [publish.Source].
func (s *Source) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	u, err := s.parse()
	if err != nil {
		return nil, err
	}
	elements := strings.Split(name, "/")
	if slices.ContainsFunc(elements, func(e string) bool { return e == "" || e == "." || e == ".." }) {
		return nil, fmt.Errorf("cannot read from the web server: %.300q is no file of a release", name)
	}
	for _, e := range elements {
		u = u.JoinPath(url.PathEscape(e))
	}
	return webfile.Open(ctx, webfile.Options{Client: s.Client, RedirectHosts: s.RedirectHosts, Stall: s.Stall, Pause: s.Pause}, u, offset)
}

func (s *Source) parse() (*url.URL, error) {
	u, err := url.Parse(s.URL)
	switch {
	case err != nil:
		return nil, errors.New("cannot read from the web server: its URL cannot be parsed") // it may hold a password
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("cannot read from the web server: its URL must begin with http://HOST or https://HOST")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("cannot read from the web server: its URL must have neither ? nor #")
	case u.User != nil && u.Scheme != "https":
		return nil, errors.New("cannot read from the web server: its URL has a user, who needs https")
	}
	return u, nil
}
