package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Webhook is an address that messages are posted to.
type Webhook struct {
	// URL is https, or http on loopback. Required.
	URL string
	// Secrets sign the messages, each for itself, in the form "whsec_BASE64". One is
	// required.
	Secrets []string
	// Timeout is for each attempt; if zero, 20 seconds.
	Timeout time.Duration
	// Transport carries https requests. If nil, http.DefaultTransport.
	Transport http.RoundTripper

	now  func() time.Time
	wait func(context.Context, time.Duration) error
}

// ErrGone is that the receiver wants no more messages, ever (status 410).
var ErrGone = errors.New("the receiver wants no more messages")

const (
	attempts      = 5
	maxRetryAfter = time.Minute
	secretPrefix  = "whsec_"
)

// Send posts the message until it is taken, as the package's documentation has it.
func (w *Webhook) Send(ctx context.Context, m Message) error {
	if err := w.send(ctx, m); err != nil {
		return fmt.Errorf("cannot send the message to %s: %w", redacted(w.URL), err)
	}
	return nil
}

// Validate reports what is wrong with the address or the secrets.
func (w *Webhook) Validate() error {
	_, _, err := w.prepare()
	return err
}

func (w *Webhook) prepare() (*url.URL, [][]byte, error) {
	u, err := url.Parse(w.URL)
	if err != nil || u.Host == "" {
		return nil, nil, errors.New("the webhook's address is no URL") // whose error would quote it
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return nil, nil, errors.New("the webhook's address is neither https nor http on loopback")
	}
	if len(w.Secrets) == 0 {
		return nil, nil, errors.New("the webhook has no secret")
	}
	var secrets [][]byte
	for _, text := range w.Secrets {
		secret, err := parseSecret(text)
		if err != nil {
			return nil, nil, err
		}
		secrets = append(secrets, secret)
	}
	return u, secrets, nil
}

func parseSecret(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), secretPrefix)
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(secret) < 24 || len(secret) > 64 {
		return nil, errors.New(`a webhook's secret is not "whsec_" and the base64 of 24 to 64 bytes; make one with: echo whsec_$(openssl rand -base64 32)`)
	}
	return secret, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (w *Webhook) send(ctx context.Context, m Message) error {
	u, secrets, err := w.prepare()
	if err != nil {
		return err
	}
	client := &http.Client{
		Timeout: w.Timeout, Transport: w.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if client.Timeout == 0 {
		client.Timeout = 20 * time.Second
	}
	if u.Scheme == "http" {
		client.Transport = onLoopback()
	}
	wait := w.wait
	if wait == nil {
		wait = sleep
	}
	pause := time.Second
	for n := 1; ; n++ {
		again, after, err := w.attempt(ctx, client, u, secrets, m)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case !again:
			return err
		case n == attempts:
			return fmt.Errorf("%d attempts: %w", n, err)
		}
		if after == 0 {
			after = pause + rand.N(pause/2) //nolint:gosec // spreads attempts, nothing secret
		}
		if err := wait(ctx, after); err != nil {
			return err
		}
		pause *= 2
	}
}

// attempt posts the message once, and tells whether and when it may be tried again.
func (w *Webhook) attempt(ctx context.Context, client *http.Client, u *url.URL, secrets [][]byte, m Message) (again bool, after time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(m.Body))
	if err != nil {
		return false, 0, errors.New("the address makes no request")
	}
	now := time.Now
	if w.now != nil {
		now = w.now
	}
	timestamp := strconv.FormatInt(now().Unix(), 10)
	var signatures []string
	for _, secret := range secrets {
		signatures = append(signatures, sign(secret, m.ID, timestamp, m.Body))
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "go-imagefactory")
	request.Header["webhook-id"] = []string{m.ID}
	request.Header["webhook-timestamp"] = []string{timestamp}
	request.Header["webhook-signature"] = []string{strings.Join(signatures, " ")}
	response, err := client.Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the address
		}
		return !errors.Is(err, errNotLoopback), 0, err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // for the connection's sake
	switch code := response.StatusCode; {
	case code/100 == 2:
		return false, 0, nil
	case code == http.StatusGone:
		return false, 0, ErrGone
	default:
		again = code/100 == 5 || code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests
		if seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 32); again && err == nil {
			after = min(time.Duration(seconds)*time.Second, maxRetryAfter)
		}
		return again, after, fmt.Errorf("the answer is status %d", code)
	}
}

var errNotLoopback = errors.New("the address is not on loopback, and http is for nothing else")

// onLoopback carries requests to this machine alone, whatever a name resolves to.
func onLoopback() http.RoundTripper {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().Unmap().IsLoopback() {
			return errNotLoopback
		}
		return nil
	}}
	return &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func sign(secret []byte, id, timestamp string, body []byte) string {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "%s.%s.", id, timestamp)
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// maxSkew is how old a message may be that Verify takes, and how far ahead.
const maxSkew = 5 * time.Minute

// Verify reports whether a message was signed with the secret, at most five minutes
// before or after now: for the receiver, who also remembers the IDs of that time.
func Verify(secret string, header http.Header, body []byte, now time.Time) error {
	key, err := parseSecret(secret)
	if err != nil {
		return err
	}
	timestamp := header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("cannot verify the message: it has no timestamp")
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > maxSkew || age < -maxSkew {
		return errors.New("cannot verify the message: it is too old, or from the future")
	}
	want := sign(key, header.Get("webhook-id"), timestamp, body)
	for _, have := range strings.Fields(header.Get("webhook-signature")) {
		if hmac.Equal([]byte(have), []byte(want)) {
			return nil
		}
	}
	return errors.New("cannot verify the message: it was not signed with this secret")
}

// redacted is an address without what may be secret in it: chat systems have a token
// in the path.
func redacted(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "the webhook"
	}
	return u.Scheme + "://" + u.Host
}
