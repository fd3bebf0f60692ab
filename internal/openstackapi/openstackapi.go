// Package openstackapi calls the image service of an OpenStack cloud with the
// credentials of clouds.yaml, a token that it renews, and patience.
package openstackapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 8 << 20

// attempts is how often a call is tried.
const attempts = 6

// callTimeout is the Timeout where a Config has none.
const callTimeout = 2 * time.Minute

// A Config says which cloud it is, and how much trust it gets.
type Config struct {
	Cloud, Region      string // of clouds.yaml; Region may be empty
	AllowHTTP          bool   // endpoints without TLS
	AllowUnverifiedTLS bool   // "verify: false" in clouds.yaml
	Pause              time.Duration
	Timeout            time.Duration      // of a call without an image's content; if 0, two minutes
	Logger             *slog.Logger       // not nil
	Journal            func(publish.Call) // of each request; nil if nobody wants it
	Paths              Paths
	Typed              func(error) error // makes of an answer the service's own kind of error; may be nil
}

// A Client calls the Image service with a token that it renews.
type Client struct {
	Provider *gophercloud.ProviderClient
	Endpoint string        // without the version
	Project  string        // ID
	Pause    time.Duration // before the first repetition of a call
	Logger   *slog.Logger
	Paths    Paths
	Timeout  time.Duration // of a call without an image's content
	typed    func(error) error
}

// A Session logs in when it is used for the first time.
type Session struct {
	mu     sync.Mutex
	client *Client
}

// Client returns the client that the first call has logged in.
func (s *Session) Client(ctx context.Context, config Config) (*Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	c, err := Login(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("cannot log in to cloud %s: %w", config.Cloud, err)
	}
	s.client = c
	return c, nil
}

// Login gets a token and finds the image service.
func Login(ctx context.Context, config Config) (*Client, error) {
	auth, endpoint, tlsConfig, err := parseClouds(config)
	if err != nil {
		return nil, err
	}
	if tlsConfig != nil && tlsConfig.InsecureSkipVerify && !config.AllowUnverifiedTLS {
		return nil, errors.New("clouds.yaml says not to verify the server's certificate; name its authority as cacert, or set allow_unverified_tls")
	}
	if err := config.checkURL(auth.IdentityEndpoint); err != nil {
		return nil, err
	}
	auth.AllowReauth = true
	provider, err := openstack.NewClient(auth.IdentityEndpoint)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig,
		TLSHandshakeTimeout: time.Minute, IdleConnTimeout: time.Minute,
	}
	provider.HTTPClient = http.Client{Transport: journaling{transport, config.Journal}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the server redirects to another place, which would see the token")
	}}
	c := &Client{Provider: provider, Pause: config.Pause, Logger: config.Logger, Paths: config.Paths, Timeout: cmp.Or(config.Timeout, callTimeout), typed: config.Typed}
	err = c.Repeat(ctx, "log in", func(ctx context.Context) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		err := openstack.Authenticate(ctx, provider, auth)
		return 0, authError(err)
	})
	if err != nil {
		return nil, err
	}
	service, err := openstack.NewImageV2(provider, endpoint)
	if err != nil {
		return nil, fmt.Errorf("cannot find its image service: %w", err)
	}
	c.Endpoint = strings.TrimSuffix(strings.TrimSuffix(service.ResourceBase, "/"), "/v2")
	if err := config.checkURL(c.Endpoint); err != nil {
		return nil, err
	}
	token, ok := provider.GetAuthResult().(tokens.CreateResult)
	if !ok {
		return nil, errors.New("the cloud does not speak version 3 of the Identity API")
	}
	project, err := token.ExtractProject()
	if err != nil || project == nil || project.ID == "" {
		return nil, errors.New("the credentials are for no project; images need an owner")
	}
	c.Project = project.ID
	return c, nil
}

// journaling tells of each request.
type journaling struct {
	next    http.RoundTripper
	journal func(publish.Call)
}

func (j journaling) RoundTrip(r *http.Request) (*http.Response, error) {
	begun := time.Now()
	resp, err := j.next.RoundTrip(r)
	if j.journal != nil {
		j.journal(publish.NewCall(r, resp, begun))
	}
	return resp, err
}

// parseClouds reads the credentials. No error has a byte of the file.
func parseClouds(c Config) (auth gophercloud.AuthOptions, endpoint gophercloud.EndpointOpts, tlsConfig *tls.Config, err error) {
	defer func() {
		if recover() != nil { // the parser takes for granted that there is an auth
			err = fmt.Errorf("clouds.yaml has no credentials (auth) for the cloud %q", c.Cloud)
		}
	}()
	options := []clouds.ParseOption{clouds.WithCloudName(c.Cloud)}
	if c.Region != "" {
		options = append(options, clouds.WithRegion(c.Region))
	}
	auth, endpoint, tlsConfig, err = clouds.Parse(options...)
	if err != nil {
		reason := "it is not YAML of the form that openstack clients read"
		if strings.Contains(err.Error(), "not found") { // what is missing is no secret
			reason = err.Error()
		}
		err = fmt.Errorf("cannot use clouds.yaml: %s", reason)
	}
	return auth, endpoint, tlsConfig, err
}

// checkURL refuses an endpoint that would see credentials in clear.
func (c Config) checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "":
		return errors.New("the endpoint is no URL")
	case u.User != nil:
		return errors.New("the endpoint's URL has a user or password")
	case u.Scheme == "https" || u.Scheme == "http" && c.AllowHTTP:
		return nil
	}
	return fmt.Errorf("%s is not https; credentials would pass in clear (allow_http allows it)", u.Redacted())
}

// authError leaves of an error what says no secret.
func authError(err error) error {
	var code gophercloud.ErrUnexpectedResponseCode
	if errors.As(err, &code) {
		return &StatusError{Method: code.Method, Path: "the identity service", Status: code.Actual}
	}
	return err
}

// StatusError is an answer that is no success.
type StatusError struct {
	Method, Path string
	Status       int
	Reason       string // the cloud's, in one line, or ""
	Code         string // of the error, such as IMG.0060, or ""
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.Method, e.Path, e.Status, http.StatusText(e.Status))
	if e.Reason != "" {
		s += ": " + strconv.QuoteToASCII(e.Reason)
	}
	return s
}

// IsStatus reports whether err is an answer with one of the statuses.
func IsStatus(err error, status ...int) bool {
	var e *StatusError
	return errors.As(err, &e) && slices.Contains(status, e.Status)
}

// IsGone reports an answer that says that there is no image of the ID.
func IsGone(err error) bool {
	var e *StatusError
	return errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Code == "IMG.0027" || e.Code == "IMG.0086")
}

// flowControl is the Image Management Service's code for too many tasks at a time.
const flowControl = "IMG.0060"

// Unclear reports an error after which the call may help another time.
func Unclear(err error) bool {
	var e *StatusError
	if errors.As(err, &e) {
		return e.Code == flowControl || slices.Contains([]int{http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}, e.Status)
	}
	var u *url.Error
	return errors.As(err, &u) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Repeat calls f until it succeeds, fails for good, or the patience ends. f returns
// how long the server wants to be left alone.
func (c *Client) Repeat(ctx context.Context, what string, f func(context.Context) (time.Duration, error)) error {
	for n := range attempts {
		wait, err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n == attempts-1 || !Unclear(err) {
			return err
		}
		wait = max(wait, c.Pause<<n)
		c.Logger.WarnContext(ctx, "a call to the cloud is repeated", "call", what, "error", err, "wait", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	return nil
}

// Call sends in as JSON and reads the answer into out; both may be nil. All calls
// that are made so may be made again.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	contentType := ""
	if in != nil {
		contentType = "application/json"
	}
	return c.CallAs(ctx, method, path, contentType, in, out)
}

// CallAs is Call with another type of in.
func (c *Client) CallAs(ctx context.Context, method, path, contentType string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	err := c.Repeat(ctx, method+" "+path, func(ctx context.Context) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		return c.Once(ctx, method, path, contentType, bytes.NewReader(body), int64(len(body)), out)
	})
	if err != nil && c.typed != nil {
		return c.typed(err)
	}
	return err
}

// Once makes a call. After a 401 it renews the token and, if the body can be read
// again, makes it once more.
func (c *Client) Once(ctx context.Context, method, path, contentType string, body io.Reader, size int64, out any) (time.Duration, error) {
	for renewed := false; ; renewed = true {
		token := c.Provider.Token()
		req, err := http.NewRequestWithContext(ctx, method, c.Endpoint+path, body)
		if err != nil {
			return 0, err
		}
		if req.ContentLength = size; size == 0 {
			req.Body = http.NoBody
		}
		req.Header.Set("X-Auth-Token", token)
		req.Header.Set("User-Agent", "go-imagefactory")
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		resp, err := c.Provider.HTTPClient.Do(req)
		if err != nil {
			return 0, err
		}
		wait, err := c.answer(req, resp, out)
		again, ok := body.(io.Seeker)
		if !IsStatus(err, http.StatusUnauthorized) || renewed || !ok {
			return wait, err
		}
		if err := c.Renew(ctx, token); err != nil {
			return 0, err
		}
		if _, err := again.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
	}
}

// ExpiresWithin reports whether the token does, or is not known not to.
func (c *Client) ExpiresWithin(d time.Duration) bool {
	result, ok := c.Provider.GetAuthResult().(tokens.CreateResult)
	if !ok {
		return true
	}
	token, err := result.ExtractToken()
	return err != nil || time.Until(token.ExpiresAt) < d
}

// Renew gets a new token in place of the old one.
func (c *Client) Renew(ctx context.Context, old string) error {
	if err := c.Provider.Reauthenticate(ctx, old); err != nil {
		return fmt.Errorf("cannot renew the token: %w", authError(err))
	}
	return nil
}

func (c *Client) answer(req *http.Request, resp *http.Response, out any) (time.Duration, error) {
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		e := &StatusError{Method: req.Method, Path: req.URL.Path, Status: resp.StatusCode}
		if resp.StatusCode < 500 && resp.StatusCode != http.StatusUnauthorized {
			e.Code, e.Reason = reason(data)
		}
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // a date is not worth a parser
		return min(time.Duration(max(0, seconds))*time.Second, 5*time.Minute), e
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, errors.Join(io.ErrUnexpectedEOF, err))
	case len(data) > maxAnswer:
		return 0, fmt.Errorf("%s %s: an answer of more than %d bytes", req.Method, req.URL.Path, maxAnswer)
	case out == nil:
		return 0, nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return 0, fmt.Errorf("%s %s: the answer is not the JSON that the Image API documents", req.Method, req.URL.Path)
	}
	return 0, nil
}

// code is what a service's error codes look like.
var code = regexp.MustCompile(`^[A-Z]{2,10}\.[0-9]{1,8}$`)

// reason is the text of an answer: of the Image Management Service's JSON, or of
// Glance's HTML. Only the former has a code.
func reason(data []byte) (errorCode, text string) {
	var answer struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal(data, &answer) == nil && code.MatchString(answer.Error.Code) {
		return answer.Error.Code, strings.Join(strings.Fields(answer.Error.Message[:min(len(answer.Error.Message), 200)]), " ")
	}
	return "", plain(data)
}

// plain is the text of a page without its head.
func plain(data []byte) string {
	text := string(data[:min(len(data), 4096)])
	if _, rest, ok := strings.Cut(text, "</h1>"); ok {
		text = rest
	}
	var b strings.Builder
	tag := false
	for _, r := range text {
		switch {
		case r == '<':
			tag = true
		case r == '>':
			tag = false
		case !tag:
			b.WriteRune(r)
		}
	}
	text = strings.Join(strings.Fields(b.String()), " ")
	return text[:min(len(text), 200)]
}
