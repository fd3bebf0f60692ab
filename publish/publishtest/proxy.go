package publishtest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// A When says where in a call a [Fault] strikes.
type When int

// The times of a call.
const (
	Never  When = iota
	Before      // the server does not see the call
	After       // the server has done what it was asked, and nobody is told
)

// A Fault is what a [Proxy] does to a call. The zero Fault lets it pass.
type Fault struct {
	// When is where the connection is reset or, with Status, answered otherwise.
	When   When
	Status int         // of the answer; if 0, the connection is reset
	Header http.Header // of the answer, such as Retry-After
	Body   string      // of the answer
	// Dead keeps all later calls from the server, too, until Heal, as if the client
	// had been killed here.
	Dead bool
	// Upload is how many bytes of the request's body come before the fault. With
	// Before, the server sees a call that is cut there, unless there is a Status.
	Upload int64
	// Download, if not 0, is after how many bytes of the answer's body the connection
	// is reset.
	Download int64
	// Delay is how long the call waits before anything of it happens.
	Delay time.Duration
	// Rate, if not 0, is how many bytes a second pass of each body.
	Rate int
	// Stall lets the call wait until the client gives up.
	Stall bool
}

// A Call is a request that came to a [Proxy].
type Call struct {
	N      int // from 1, since the proxy was made or healed
	Method string
	Path   string
	Query  url.Values
	Header http.Header
	// Status is what the client was answered, 0 if nothing.
	Status int
}

// Changes reports whether the call may have changed something on the server.
func (c Call) Changes() bool {
	return !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, c.Method)
}

// A Proxy stands between a client and a server that speaks HTTP. It counts what
// passes, and plays the faults of a network and of a server. Host and all other
// headers pass as they are, so that signed requests stay good. It may be used
// concurrently.
type Proxy struct {
	// URL is where the client finds it, on loopback: https if the server's is.
	URL string

	server   *httptest.Server
	upstream *url.URL
	next     http.RoundTripper

	mu    sync.Mutex
	fault func(Call) Fault
	after func(Call)
	calls []Call
	n     int
	dead  bool

	killed func() // called where a call is the last one that the server sees
}

// NewProxy starts a proxy before the server at the URL. What passes goes through
// next, which may change requests and answers as another server would; if nil, the
// default transport. The caller closes it.
func NewProxy(upstream string, next http.RoundTripper) (*Proxy, error) {
	u, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	p := &Proxy{upstream: u, next: next}
	if next == nil {
		p.next = http.DefaultTransport
	}
	p.server = httptest.NewUnstartedServer(p)
	if u.Scheme == "https" {
		p.server.StartTLS()
	} else {
		p.server.Start()
	}
	p.URL = p.server.URL
	return p, nil
}

// Client returns a client that trusts the proxy's certificate. Each has connections
// of its own.
func (p *Proxy) Client() *http.Client {
	c := *p.server.Client()
	if t, ok := c.Transport.(*http.Transport); ok {
		c.Transport = t.Clone()
	}
	return &c
}

// Close ends all connections and the proxy.
func (p *Proxy) Close() {
	p.server.CloseClientConnections()
	p.server.Close()
}

// Fault sets what each call meets from now on; nil lets all pass. Calls are asked
// for one at a time.
func (p *Proxy) Fault(fault func(Call) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// After sets what is called after each call that the server has done, before the
// client is told.
func (p *Proxy) After(f func(Call)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = f
}

// Heal lets all calls pass again and counts from 1.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.dead, p.n, p.calls = nil, false, 0, nil
}

// Calls returns the calls since the proxy was made or healed.
func (p *Proxy) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// begin counts the call and returns its fault.
func (p *Proxy) begin(r *http.Request) (Call, Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	c := Call{N: p.n, Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone()}
	p.calls = append(p.calls, c)
	if p.dead {
		return c, Fault{When: Before}
	}
	var f Fault
	if p.fault != nil {
		f = p.fault(c)
	}
	p.dead = f.Dead
	return c, f
}

func (p *Proxy) answered(c Call, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.N <= len(p.calls) && p.calls[c.N-1].Path == c.Path {
		p.calls[c.N-1].Status = status
	}
}

// ServeHTTP is the proxy's own handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call, fault := p.begin(r)
	if fault.Delay > 0 {
		sleep(r.Context(), fault.Delay)
	}
	switch {
	case fault.Stall:
		// Only behind the body is it seen that the client goes.
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			<-r.Context().Done()
		}
		reset(w)
		return
	case fault.When == Before && (fault.Status != 0 || fault.Upload == 0):
		_, _ = io.CopyN(io.Discard, r.Body, fault.Upload)
		p.end(w, call, fault)
		return
	}
	resp, err := p.forward(r, fault)
	if err != nil {
		reset(w)
		return
	}
	defer resp.Body.Close()
	p.mu.Lock()
	after := p.after
	p.mu.Unlock()
	if fault.When == After {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	if after != nil {
		after(call)
	}
	if fault.When == After {
		p.mu.Lock()
		killed := p.killed
		p.mu.Unlock()
		if fault.Dead && killed != nil {
			killed()
		}
		p.end(w, call, fault)
		return
	}
	p.answered(call, resp.StatusCode)
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	body := io.Reader(&slow{r: resp.Body, rate: fault.Rate, ctx: r.Context()})
	if fault.Download > 0 {
		body = io.LimitReader(body, fault.Download)
	}
	if _, err := io.Copy(flushing{w}, body); err != nil || fault.Download > 0 {
		reset(w)
	}
}

// forward passes the request on and returns the server's answer.
func (p *Proxy) forward(r *http.Request, fault Fault) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", p.upstream.Scheme, p.upstream.Host
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	} else {
		body := io.Reader(&slow{r: r.Body, rate: fault.Rate, ctx: r.Context()})
		if fault.When == Before {
			body = io.MultiReader(io.LimitReader(body, fault.Upload), cut{})
		}
		out.Body = io.NopCloser(body)
	}
	return p.next.RoundTrip(out)
}

// end answers as the fault says.
func (p *Proxy) end(w http.ResponseWriter, call Call, fault Fault) {
	if fault.Status == 0 {
		reset(w)
		return
	}
	p.answered(call, fault.Status)
	for k, v := range fault.Header {
		w.Header()[k] = v
	}
	w.Header().Set("Connection", "close")
	w.WriteHeader(fault.Status)
	_, _ = io.WriteString(w, fault.Body)
}

// reset ends the connection without an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // which closes the connection
	}
	raw := conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		raw = t.NetConn() // below TLS
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = raw.Close()
}

type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, errors.New("the proxy cuts the request here") }

// slow reads at most rate bytes a second, if that is not 0.
type slow struct {
	ctx  context.Context //nolint:containedctx // of the call
	r    io.Reader
	rate int
}

func (s *slow) Read(p []byte) (int, error) {
	if s.rate == 0 {
		return s.r.Read(p)
	}
	const perSecond = 20
	p = p[:min(len(p), max(1, s.rate/perSecond))]
	n, err := s.r.Read(p)
	if !sleep(s.ctx, time.Second*time.Duration(n)/time.Duration(s.rate)) {
		return n, cmp.Or(err, s.ctx.Err())
	}
	return n, err
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// flushing lets the client see each piece at once.
type flushing struct{ w http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	return n, errors.Join(err, http.NewResponseController(f.w).Flush())
}

// Trailing reports whether the request has what Open Telekom Cloud's object storage
// answers with 400: trailing checksums, or a body signed in pieces.
func Trailing(r *http.Request) bool {
	return r.Header.Get("X-Amz-Trailer") != "" || strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-")
}
