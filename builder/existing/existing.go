// Package existing takes in images that somebody else has built: a qcow2 file, or one
// that a web server has, such as a distribution's cloud image, a community's or a
// vendor's.
//
// # Trust
//
// An image is used only if it is the one that the configuration names: by its digest,
// or by a signature, over itself or over a list of checksums that has it, of a key in
// Keyring. It is verified as the copy that is used, after the last byte was written. A
// web server is asked by https, or by http on this machine's loopback; a redirect
// stays on its host unless RedirectHosts has the other. What it sends is bounded by
// MaxMiB, and the whole of it by Timeout.
//
// The image must be safe for everybody ([qcow2.PublicPolicy]) and its virtual size
// the spec's disk. Nothing more is known of it: who names it trusts who made it, and
// what it is is what its tests find.
//
// # Downloads that are cut
//
// A connection that breaks, stalls, or a server that says to come back later is asked
// again from the byte that was reached. Where host is [builder.Local], what a cut
// build has fetched is kept beside the spec's WorkDir for the next one; a copy that
// then does not verify is fetched anew, once.
//
// # Limits
//
// Nothing runs on the host, and what a Spec says of mirrors, packages' keys and
// repositories is not looked at. A result has no packages: package imagefactory lists
// those of the machine that it boots from the image. Its files have no account (builder.Declarer).
package existing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// Config names an image and how it is known to be the right one: by at least one of
// SHA256, SHA512, Signature and Checksums, and by all that are given. Image, Checksums and
// Signature are URLs, or paths of files; relative paths are relative to the spec's
// Dir.
type Config struct {
	// Image is the qcow2.
	Image string `yaml:"image"`
	// SHA256 and SHA512 are the image's digests, in hexadecimal.
	SHA256 string `yaml:"sha256,omitempty"`
	SHA512 string `yaml:"sha512,omitempty"`
	// Signature is a detached OpenPGP signature over the image or, if Checksums is
	// given, over that.
	Signature string `yaml:"signature,omitempty"`
	// Checksums is a list such as SHA256SUMS, which names the image's file. Without
	// Signature it has a cleartext signature.
	Checksums string `yaml:"checksums,omitempty"`
	// Keyring is a file of the keys that may sign, as [signing.LoadKeyring] reads it.
	Keyring string `yaml:"keyring,omitempty"`

	// RedirectHosts are other hosts, with their ports where they are not the
	// scheme's, to which the server may redirect.
	RedirectHosts []string `yaml:"redirect_hosts,omitempty"`
	// MaxMiB bounds the size of the file. Default: 20480.
	MaxMiB int `yaml:"max_mib,omitempty"`
	// Timeout bounds how long a download may take. Default: 2h.
	Timeout time.Duration `yaml:"timeout,omitempty"`
}

// Driver makes Builders of this package from configuration.
type Driver struct {
	// Client sends the requests. If nil, a client without cookies or a time limit of
	// its own.
	Client *http.Client
}

// Name is the driver's key in a definition: "existing".
func (Driver) Name() string { return "existing" }

// New decodes a [Config] and checks it.
func (d Driver) New(decode func(any) error) (builder.Builder, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	return d.fromConfig(c)
}

// New returns a Builder that takes in the image that c names.
func New(c Config) (builder.Builder, error) { return Driver{}.fromConfig(c) }

const (
	defaultMiB     = 20 << 10
	defaultTimeout = 2 * time.Hour
	maxSignature   = 1 << 20 // bytes of a signature or a list of checksums
)

var (
	sha256Text = regexp.MustCompile(`^[0-9a-f]{64}$`)
	sha512Text = regexp.MustCompile(`^[0-9a-f]{128}$`)
	fileText   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,254}$`)
)

func (d Driver) fromConfig(c Config) (builder.Builder, error) {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	c.SHA256, c.SHA512 = strings.ToLower(c.SHA256), strings.ToLower(c.SHA512)
	check(c.Image != "", "image: none named")
	for _, place := range []struct{ key, value string }{{"image", c.Image}, {"signature", c.Signature}, {"checksums", c.Checksums}} {
		if err := checkPlace(place.value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place.key, err))
		}
	}
	check(c.SHA256 == "" || sha256Text.MatchString(c.SHA256), "sha256: want 64 hexadecimal digits")
	check(c.SHA512 == "" || sha512Text.MatchString(c.SHA512), "sha512: want 128 hexadecimal digits")
	signed := c.Signature != "" || c.Checksums != ""
	check(c.SHA256 != "" || c.SHA512 != "" || signed, "sha256: the image has neither a digest nor a signature, so nobody could tell whether it is the right one")
	check(signed == (c.Keyring != ""), "keyring: a signature and the keys that may make it go together")
	check(c.MaxMiB >= 0 && c.MaxMiB <= 1<<30, "max_mib: bad value %d", c.MaxMiB)
	check(c.Timeout >= 0, "timeout: bad value %v", c.Timeout)
	for _, h := range c.RedirectHosts {
		u, err := url.Parse("https://" + h)
		check(err == nil && u.Host == h && u.Hostname() != "", "redirect_hosts: bad host %.100q", h)
	}
	if c.MaxMiB == 0 {
		c.MaxMiB = defaultMiB
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	return tool{config: c, client: d.Client}, errors.Join(errs...)
}

// checkPlace holds a path or URL to what may be published: no secrets.
func checkPlace(s string) error {
	u, remote := parseURL(s)
	switch {
	case !remote:
		return nil
	case u == nil:
		return errors.New("the URL cannot be parsed") // it may hold a password
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the URL may have no user, password, ? or #: it is published")
	case u.Scheme == "https" && u.Host != "", u.Scheme == "http" && loopback(u.Hostname()):
	default:
		return errors.New("want a path, or a URL with https, or with http on this machine")
	}
	if !fileText.MatchString(path.Base(u.Path)) {
		return errors.New("the URL names no file")
	}
	return nil
}

// parseURL tells a URL from a path. A URL that cannot be parsed is nil.
func parseURL(s string) (u *url.URL, remote bool) {
	if !strings.Contains(s, "://") {
		return nil, false
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, true
	}
	return u, true
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

type tool struct {
	config Config
	client *http.Client
}

// run is one build.
type run struct {
	Config
	client *http.Client
	spec   builder.Spec
	log    *slog.Logger
	part   string // where a cut download is kept, or ""
	image  string // the copy that is used
	sha256 string // of it, once it is verified
}

func (t tool) run(spec builder.Spec) *run {
	r := &run{Config: t.config, client: t.client, spec: spec, log: spec.Logger, image: filepath.Join(spec.OutputDir, spec.Name+".qcow2")}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r
}

// Build implements [builder.Builder]. A download that fails is an error of its own and
// no *builder.ToolError.
func (t tool) Build(ctx context.Context, host builder.Host, spec builder.Spec) (*builder.Result, error) {
	r := t.run(spec)
	if _, ok := host.(builder.Local); ok {
		r.part = partFile(spec.WorkDir, t.config)
	}
	result, err := r.build(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot take in %s: %w", spec.Name, err)
	}
	return result, nil
}

func (r *run) validate() error {
	spec := r.spec
	if len(spec.TrustedKeys) == 0 {
		spec.TrustedKeys = []builder.TrustedKey{{}} // they are for packages
	}
	return spec.Validate()
}

func (r *run) build(ctx context.Context) (*builder.Result, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	config := filepath.Join(r.spec.OutputDir, "config")
	if err := os.Mkdir(config, 0o755); err != nil {
		return nil, err
	}
	err := r.obtain(ctx, config)
	if err == nil {
		err = r.inspect()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(r.image))
	}
	r.log.InfoContext(ctx, "image is verified", "image", r.Image, "sha256", r.sha256)
	if r.spec.Log != nil {
		if _, err := fmt.Fprintf(r.spec.Log, "%s\nsha256 %s\n", r.Image, r.sha256); err != nil {
			return nil, fmt.Errorf("cannot write the log: %w", err)
		}
	}
	portable := r.portable()
	return &builder.Result{
		ImagePath: r.image, ConfigDir: config, Config: portable,
		Tool: "existing", Args: []string{"existing", portable.Image, "sha256:" + r.sha256},
	}, nil
}

// portable names the image by its digest, whatever has shown that it is the right
// one. A file of this machine is looked for beside the configuration.
func (r *run) portable() Config {
	c := Config{Image: r.Image, SHA256: r.sha256, RedirectHosts: slices.Clone(r.RedirectHosts), MaxMiB: r.MaxMiB, Timeout: r.Timeout}
	if _, remote := parseURL(c.Image); !remote {
		c.Image = filepath.Base(c.Image)
	}
	return c
}

// obtain gets the image and verifies it. What is left of a cut download may be of
// another one: then it is fetched anew.
func (r *run) obtain(ctx context.Context, config string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("it took longer than the %v of timeout", r.Timeout))
	defer cancel()
	keyring, err := r.loadKeyring()
	if err != nil {
		return err
	}
	for _, place := range []string{r.Signature, r.Checksums} {
		if place == "" {
			continue
		}
		if err := r.get(ctx, place, filepath.Join(config, base(place)), maxSignature); err != nil {
			return err
		}
	}
	resumed, err := r.getImage(ctx)
	if err != nil {
		return err
	}
	err = r.verify(ctx, config, keyring)
	if err != nil && resumed && ctx.Err() == nil {
		r.log.WarnContext(ctx, "what an earlier build has fetched does not verify: the image is fetched anew", "error", err)
		if err := os.Remove(r.image); err != nil {
			return err
		}
		if _, err := r.getImage(ctx); err != nil {
			return err
		}
		err = r.verify(ctx, config, keyring)
	}
	return err
}

func (r *run) loadKeyring() (*signing.Keyring, error) {
	if r.Keyring == "" {
		return nil, nil
	}
	keyring, err := signing.LoadKeyring(r.path(r.Keyring))
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return keyring, nil
}

// path is where a file of the configuration lies.
func (r *run) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.spec.Dir, name)
}

// base is the name of a place's file.
func base(place string) string {
	if u, remote := parseURL(place); remote {
		return path.Base(u.Path)
	}
	return filepath.Base(place)
}

// inspect holds the image to what everybody may be given, and to the spec.
func (r *run) inspect() error {
	f, err := os.Open(r.image)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	info, err := qcow2.Inspect(f, st.Size())
	if err != nil {
		return fmt.Errorf("cannot inspect the image: %w", err)
	}
	var errs []error
	for _, finding := range info.Safety(qcow2.PublicPolicy()).Findings {
		errs = append(errs, fmt.Errorf("unsafe image: %s: %s", finding.Name, finding.Text))
	}
	if info.VirtualSize != r.spec.DiskBytes {
		errs = append(errs, fmt.Errorf("the image's disk has %d bytes, and should have %d", info.VirtualSize, r.spec.DiskBytes))
	}
	return errors.Join(errs...)
}

// InputsDigest implements [builder.Digester]: the configuration and the keys, by which
// the image is known.
func (t tool) InputsDigest(spec builder.Spec) (string, error) {
	r := t.run(spec)
	keyring, err := r.loadKeyring()
	if err != nil {
		return "", err
	}
	var keys strings.Builder
	if keyring != nil {
		for _, pin := range keyring.Pins() {
			fmt.Fprintf(&keys, "%+v\n", pin)
		}
	}
	return fmt.Sprintf("%q %s %s %q %q %q %d\n%s", r.Image, r.SHA256, r.SHA512, r.Signature, r.Checksums, r.RedirectHosts, r.MaxMiB, keys.String()), nil
}

var (
	_ builder.Checker  = tool{}
	_ builder.Digester = tool{}
)

// Check implements [builder.Checker]: the files of this machine are there. No server is
// asked.
func (t tool) Check(spec builder.Spec) error {
	r := t.run(spec)
	errs := []error{r.validate()}
	_, err := r.loadKeyring()
	errs = append(errs, err)
	for _, place := range []struct{ key, value string }{{"image", r.Image}, {"signature", r.Signature}, {"checksums", r.Checksums}} {
		if _, remote := parseURL(place.value); remote || place.value == "" {
			continue
		}
		f, _, err := openFile(r.path(place.value))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place.key, err))
			continue
		}
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

var errTooLarge = errors.New("it is too large")

// progress writes and counts, and refuses more than most bytes.
type progress struct {
	w    io.Writer
	n    int64
	most int64
}

func (p *progress) Write(b []byte) (int, error) {
	if p.n+int64(len(b)) > p.most {
		return 0, fmt.Errorf("%w: more than the %d bytes that are allowed", errTooLarge, p.most)
	}
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}
