// Package obs publishes releases in a bucket of an object storage service that speaks
// S3, such as Open Telekom Cloud's Object Storage Service:
//
//	PREFIX/Standard_Debian_12/20261122-031507/FILE           the files of a release
//	PREFIX/Standard_Debian_12/latest/release.json            which is latest
//	PREFIX/Standard_Debian_12/prev/release.json
//	PREFIX/Standard_Debian_12/lifecycle.json                 as package publish/directory has it
//
// A label is a copy of its release's release.json, written by one call when all else
// is there, so that at each moment it names one build or the other. Where the bucket
// may be read by all, package publish/web reads it, too.
//
// The keys of a release are never given other content. SHA256SUMS, which makes a
// release of them, is written after the files, and then the seal
// .publish-sealed-DIGEST-LISTING, whose name has the
// digest of the release and one of the names, sizes and ETags that the service gave
// them. So one listing tells what is there, complete, and unchanged since it was compared.
//
// # Uploads
//
// Files are read once: their SHA-256 is compared with the release's before they become
// an object, the service compares each part with its Content-MD5, and the ETag of the
// whole with what we computed; where a service has other ETags, the object is read
// back. Larger files go in parts of 16 MiB, three at a time, which is the memory that it
// takes. Who publishes the release again after a process died goes on with the parts
// that are there with the right MD5. When a release is complete, what runs left of older
// ones is removed; nothing else that lies in the bucket is touched.
//
// No checksums are sent in trailers and no bodies signed in pieces, which Open Telekom
// Cloud refuses. Calls are repeated after broken connections, and answers that say to
// come later, with a pause that grows or that the service asks for. After an unclear
// answer to the end of an upload, the object itself is asked for.
//
// # Locks
//
// Runs exclude each other by leases in PREFIX/IMAGE/.lease/, for which the service
// needs no conditional requests, which Open Telekom Cloud does not document. It needs
// to list what was written before; see Target.Lock.
//
// # Security
//
// Credentials go to the endpoint only: redirects are not followed, and http and
// certificates that nobody vouches for are refused unless the Target says otherwise. They
// are in no error, log or journal. Who can write to the bucket can set it back or hide
// releases; what they change is seen, for the files are signed.
//
// # Limits
//
// A file may have 156 GiB (10,000 parts). A label moves at once, but prev before latest.
// While a bucket is copied with other ETags its releases are compared by reading.
package obs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// What is used where a Target does not say otherwise.
const (
	DefaultEndpoint = "https://obs.eu-de.otc.t-systems.com"
	DefaultRegion   = "eu-de"
)

// Target is a bucket, or what lies under a prefix in it. It implements
// [publish.Target], [publish.Locker] and [publish.Source] and may be used concurrently;
// it is not changed or copied once it is used. Only Bucket is required.
type Target struct {
	Bucket string
	// Prefix begins all keys, with a slash after it; if empty, none does.
	Prefix string
	// Endpoint is the service, as https://HOST[:PORT]. If empty, DefaultEndpoint.
	Endpoint string
	// Region is what requests are signed for. If empty, DefaultRegion.
	Region string
	// PathStyle is for services whose buckets are not hosts of their own.
	PathStyle bool
	// Credentials returns the keys; see FromEnvironment, FromFile and FromCloud. If
	// nil, requests are anonymous, which is enough to read a public bucket.
	Credentials func(context.Context) (Credentials, error)

	// Public says that everybody may read what is published: after a release is
	// pushed, it is an error if its files cannot be read without credentials.
	Public bool
	// ACL is a canned ACL of what is written, such as public-read. If empty, none is
	// sent, and the bucket's policy decides.
	ACL string

	// AllowHTTP lets credentials go over connections that anybody can read.
	AllowHTTP bool
	// SkipTLSVerification lets anybody pose as the service.
	SkipTLSVerification bool
	// CAFile is a file of certificates to trust besides the system's.
	CAFile string
	// Transport sends the requests. If nil, one made of the three above.
	Transport http.RoundTripper

	// Lease is after how long without renewal a run counts as killed. If zero, a minute.
	Lease time.Duration
	// Pause is how long to wait before a call is repeated, and twice as long each
	// further time. If zero, half a second.
	Pause time.Duration
	// Stall is how long nothing may move before a call is repeated. If zero, a minute.
	Stall time.Duration
	// Now is the clock for when a release loses its last label. If nil, time.Now.
	Now func() time.Time
	// Logger is told when a run waits for another one. If nil, nobody is.
	Logger *slog.Logger
	// Journal is called for each request, also concurrently. If nil, nobody is.
	Journal func(publish.Call)
	// Progress is called with the bytes of the release's files that are there and their
	// sum, by one goroutine at a time. If nil, nobody is.
	Progress func(r *publish.Release, done, total int64)

	mu          sync.Mutex
	own, public *bucket
	leases      map[string]*lease
}

func (t *Target) now() time.Time {
	if t.Now == nil {
		return time.Now()
	}
	return t.Now()
}

func (t *Target) logger() *slog.Logger {
	if t.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Logger
}

// image is what lies in the bucket of an image.
type image struct {
	b    *bucket
	name string
	base string // of keys, ends with a slash
}

func (d *image) key(name string) string { return d.base + name }

func (t *Target) image(ctx context.Context, name string) (*image, error) {
	if err := publish.CheckImage(name); err != nil {
		return nil, err
	}
	b, err := t.bucket(ctx, false)
	if err != nil {
		return nil, err
	}
	return &image{b: b, name: name, base: t.prefix() + name + "/"}, nil
}

func (t *Target) prefix() string {
	if p := strings.Trim(t.Prefix, "/"); p != "" {
		return p + "/"
	}
	return ""
}

// List implements [publish.Target]. An entry's ID is NAME/BUILD.
func (t *Target) List(ctx context.Context, name string) ([]publish.Entry, error) {
	d, err := t.image(ctx, name)
	if err == nil {
		var s *state
		if s, err = d.look(ctx); err == nil {
			return s.entries(), nil
		}
	}
	return nil, fmt.Errorf("cannot list releases of %.140s: %w", name, err)
}

// Push implements [publish.Target].
func (t *Target) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	d, err := t.image(ctx, r.Index.Image)
	if err == nil {
		var e publish.Entry
		if e, err = t.push(ctx, d, r); err == nil {
			return e, nil
		}
	}
	return publish.Entry{}, fmt.Errorf("cannot copy release to bucket %.100s: %w", t.Bucket, err)
}

// Apply implements [publish.Target].
func (t *Target) Apply(ctx context.Context, s publish.Step) error {
	if s.Entry.Build.IsZero() {
		return errors.New("the step names no build")
	}
	d, err := t.image(ctx, s.Entry.Image)
	if err != nil {
		return err
	}
	if err := t.holds(ctx, d); err != nil {
		return err
	}
	switch s.Op {
	case publish.Assign:
		return d.assign(ctx, s.Label, s.Entry.Build, t.now())
	case publish.MarkWithdrawn:
		return d.record(ctx, s.Entry.Build, func(f *fate) { f.Withdrawn = s.Reason })
	case publish.ClearWithdrawn:
		return d.record(ctx, s.Entry.Build, func(f *fate) { f.Withdrawn = "" })
	case publish.Remove:
		return d.delete(ctx, s.Entry.Build)
	default:
		return fmt.Errorf("a bucket has no step %q", s.Op)
	}
}

// Driver makes Targets of this package from configuration.
type Driver struct {
	// Logger and Journal are those of the Targets.
	Logger  *slog.Logger
	Journal func(publish.Call)
}

// Config is what a definition may say of a bucket.
type Config struct {
	Bucket    string `yaml:"bucket"`
	Prefix    string `yaml:"prefix,omitempty"`
	Endpoint  string `yaml:"endpoint,omitempty"`
	Region    string `yaml:"region,omitempty"`
	PathStyle bool   `yaml:"path_style,omitempty"`
	// Cloud is a cloud of clouds.yaml, or File with Profile a file of credentials. If
	// both are empty, they come from the environment.
	Cloud   string `yaml:"cloud,omitempty"`
	File    string `yaml:"credentials_file,omitempty"`
	Profile string `yaml:"profile,omitempty"`

	Public              bool   `yaml:"public,omitempty"`
	ACL                 string `yaml:"acl,omitempty"`
	CAFile              string `yaml:"ca_file,omitempty"`
	AllowHTTP           bool   `yaml:"allow_http,omitempty"`
	SkipTLSVerification bool   `yaml:"skip_tls_verification,omitempty"`
}

// Name is the driver's key in a definition: "obs".
func (Driver) Name() string { return "obs" }

// New decodes a [Config].
func (d Driver) New(decode func(any) error) (publish.Target, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	return c.target(d)
}

func (c Config) target(d Driver) (*Target, error) {
	t := &Target{
		Bucket: c.Bucket, Prefix: c.Prefix, Endpoint: c.Endpoint, Region: c.Region, PathStyle: c.PathStyle,
		Credentials: FromEnvironment, Public: c.Public, ACL: c.ACL, CAFile: c.CAFile,
		AllowHTTP: c.AllowHTTP, SkipTLSVerification: c.SkipTLSVerification,
		Logger: d.Logger, Journal: d.Journal,
	}
	switch {
	case c.Bucket == "":
		return nil, errors.New("no bucket")
	case c.Cloud != "" && cmp.Or(c.File, c.Profile) != "":
		return nil, errors.New("cloud and credentials_file are two places of credentials: want one")
	case c.Profile != "" && c.File == "":
		return nil, errors.New("profile needs credentials_file")
	case c.Cloud != "":
		t.Credentials = FromCloud(c.Cloud)
	case c.File != "":
		t.Credentials = FromFile(c.File, c.Profile)
	}
	u, err := t.endpoint()
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" && !c.AllowHTTP {
		return nil, errors.New("the endpoint is http, over which anybody reads along: use https, or say allow_http: true")
	}
	return t, nil
}
