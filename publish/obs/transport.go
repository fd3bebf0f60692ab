package obs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// answer is what the client library does not pass on.
type answer struct {
	status int
	after  time.Duration
}

type answerKey struct{}

// transport keeps account of calls and lets none go elsewhere.
type transport struct {
	next    http.RoundTripper
	journal func(publish.Call)
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	begun := time.Now()
	resp, err := t.next.RoundTrip(r)
	if t.journal != nil {
		t.journal(publish.NewCall(r, resp, begun))
	}
	if err != nil {
		return nil, err
	}
	if a, ok := r.Context().Value(answerKey{}).(*answer); ok {
		a.status, a.after = resp.StatusCode, retryAfter(resp.Header.Get("Retry-After"), begun)
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified {
		to, _ := url.Parse(resp.Header.Get("Location"))
		host := "another place"
		if to != nil && to.Host != "" {
			host = strconv.Quote(fmt.Sprintf("%.100s", to.Host))
		}
		_ = resp.Body.Close()
		return nil, &permanentError{"the service redirects to " + host + ", which is not followed; name that endpoint and region, if they are right"}
	}
	return resp, nil
}

// retryAfter reads seconds or a date.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(longestAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// bucket returns the bucket, for anonymous users if so asked.
func (t *Target) bucket(ctx context.Context, anonymous bool) (*bucket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if anonymous && t.public != nil {
		return t.public, nil
	}
	if !anonymous && t.own != nil {
		return t.own, nil
	}
	b, err := t.connect(ctx, anonymous)
	if err != nil {
		return nil, fmt.Errorf("cannot use bucket %.100q: %w", t.Bucket, err)
	}
	if anonymous {
		t.public = b
	} else {
		t.own = b
	}
	return b, nil
}

func (t *Target) connect(ctx context.Context, anonymous bool) (*bucket, error) {
	if t.Bucket == "" {
		return nil, errors.New("the target has no Bucket")
	}
	u, err := t.endpoint()
	if err != nil {
		return nil, err
	}
	var keys Credentials
	if !anonymous && t.Credentials != nil {
		if keys, err = t.Credentials(ctx); err != nil {
			return nil, err
		}
	}
	if keys.SecretKey != "" && u.Scheme != "https" && !t.AllowHTTP {
		return nil, errors.New("its endpoint is http, over which anybody reads along; use https, or set AllowHTTP")
	}
	next := t.Transport
	if next == nil {
		if next, err = t.transport(); err != nil {
			return nil, err
		}
	}
	lookup := minio.BucketLookupDNS
	if t.PathStyle {
		lookup = minio.BucketLookupPath
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(keys.AccessKey, keys.SecretKey, keys.Token),
		Secure: u.Scheme == "https", Region: cmp.Or(t.Region, DefaultRegion), BucketLookup: lookup,
		Transport:  &transport{next: next, journal: t.Journal},
		MaxRetries: 1, // ours are in bucket.try
	})
	if err != nil {
		return nil, err
	}
	b := &bucket{core: *core, name: t.Bucket, http: u.Scheme == "http", acl: t.ACL, pause: cmp.Or(t.Pause, 500*time.Millisecond), stall: cmp.Or(t.Stall, time.Minute)}
	for _, s := range []string{keys.SecretKey, keys.Token, keys.AccessKey} {
		if s != "" {
			b.hidden = append(b.hidden, s)
		}
	}
	return b, nil
}

func (t *Target) endpoint() (*url.URL, error) {
	u, err := url.Parse(cmp.Or(t.Endpoint, DefaultEndpoint))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("its endpoint must be https://HOST[:PORT], without user, path or query")
	}
	return u, nil
}

func (t *Target) transport() (http.RoundTripper, error) {
	d, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		d = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	d = d.Clone()
	d.DisableCompression = true
	d.MaxIdleConnsPerHost = 16
	d.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.SkipTLSVerification} //nolint:gosec // as the caller says in so many words
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", t.CAFile)
		}
		d.TLSClientConfig.RootCAs = pool
	}
	return d, nil
}
