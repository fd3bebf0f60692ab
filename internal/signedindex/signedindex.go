// Package signedindex reads the signed indexes of package repositories and verifies
// them: a Debian archive's InRelease, or Release with Release.gpg
// (https://wiki.debian.org/DebianRepository/Format), and repomd.xml with
// repomd.xml.asc of repositories of rpm packages.
//
// What an index names is compared with what the mirror has, for one file: the list
// of packages that a package manager would fetch first. Where it differs, the mirror is
// in the middle of an update. That is asked again after a pause.
package signedindex

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/webfile"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

const (
	maxIndex     = 8 << 20   // bytes of an index
	maxSignature = 1 << 20   // of a signature
	maxList      = 512 << 20 // of a list of packages
	tries        = 3         // at a mirror that is in the middle of an update
)

// Reader reads indexes. It may be used concurrently.
type Reader struct {
	Keys   openpgp.EntityList // that may sign
	Client *http.Client       // if nil, one without a time limit
	Host   builder.Host       // that has what file: URLs name
	Now    func() time.Time   // if nil, time.Now
	// Pause before a mirror that is in the middle of an update is asked again. If 0,
	// 20 s.
	Pause time.Duration
}

// Client is one that asks through the proxies for http and https; where one is empty,
// the environment's.
func Client(httpProxy, httpsProxy string) (*http.Client, error) {
	proxies := map[string]*url.URL{}
	for scheme, s := range map[string]string{"http": httpProxy, "https": httpsProxy} {
		if s == "" {
			continue
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("the proxy for %s is no URL", scheme)
		}
		proxies[scheme] = u
	}
	t := &http.Transport{TLSHandshakeTimeout: time.Minute, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 1 << 20, IdleConnTimeout: time.Minute}
	t.Proxy = func(req *http.Request) (*url.URL, error) {
		if u := proxies[req.URL.Scheme]; u != nil {
			return u, nil
		}
		return http.ProxyFromEnvironment(req)
	}
	return &http.Client{Transport: t}, nil
}

// again calls read until the mirror is not in the middle of an update.
func (r *Reader) again(ctx context.Context, read func() (builder.Index, error)) (builder.Index, error) {
	for try := 1; ; try++ {
		index, err := read()
		var fault *builder.MirrorError
		if !errors.As(err, &fault) || fault.Fault != builder.MidSync || try == tries {
			return index, err
		}
		select {
		case <-ctx.Done():
			return index, ctx.Err()
		case <-time.After(cmp.Or(r.Pause, 20*time.Second)):
		}
	}
}

func (r *Reader) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

// join is the URL of a file below a repository.
func join(base, path string) string { return strings.TrimRight(base, "/") + "/" + path }

// open opens what a URL names. What a mirror redirects to is signed too, or refused.
func (r *Reader) open(ctx context.Context, place string) (io.ReadCloser, error) {
	u, err := url.Parse(place)
	if err != nil {
		return nil, errors.New("its URL cannot be parsed")
	}
	if u.Scheme != "file" {
		return webfile.Open(ctx, webfile.Options{Client: r.Client, AnyHost: true}, u, 0)
	}
	if r.Host == nil {
		return nil, errors.New("it is on a host that is not known")
	}
	in, out := io.Pipe()
	go func() { out.CloseWithError(r.Host.Download(ctx, u.Path, out)) }()
	return in, nil
}

// read reads a small file. One that is not there is fs.ErrNotExist.
func (r *Reader) read(ctx context.Context, place string, most int64) ([]byte, error) {
	body, err := r.open(ctx, place)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return data, err
}

func fault(ctx context.Context, place string, f builder.MirrorFault, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("cannot read %s: %w", place, ctx.Err())
	}
	return &builder.MirrorError{Index: place, Fault: f, Err: err}
}

// verifier believes the keys.
func (r *Reader) verifier() (*signing.Verifier, error) {
	var all bytes.Buffer
	for _, k := range r.Keys {
		if err := k.Serialize(&all); err != nil {
			return nil, err
		}
	}
	keys, err := signing.ReadKeys(&all)
	if err != nil {
		return nil, err
	}
	keyring, err := signing.PinKeys(keys...)
	if err != nil {
		return nil, err
	}
	return &signing.Verifier{Keyring: keyring, Time: r.now}, nil
}

// signer is the key that vouches for an index. One that has expired since does not: a
// package manager would not believe it.
func (r *Reader) signer(v *signing.Verifier, name string, seen *signing.Verification, err error) (string, error) {
	if err != nil {
		return "", err
	}
	var why error
	for _, s := range seen.File(name).Signatures {
		if s.Reason != "" {
			continue
		}
		if why = v.Keyring.Key(s.Fingerprint).SignsAt(r.now()); why == nil {
			return string(s.Fingerprint), nil
		}
	}
	return "", errors.Join(errors.New("the key that signed it serves no longer"), why)
}

// detached verifies an index that has its signature beside it.
func (r *Reader) detached(ctx context.Context, place, signature string, name string, data []byte) (string, error) {
	sig, err := r.read(ctx, place+signature, maxSignature)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fault(ctx, place, builder.Unsigned, errors.New("it has no signature"))
	}
	if err != nil {
		return "", fault(ctx, place+signature, builder.Unreachable, err)
	}
	v, err := r.verifier()
	if err != nil {
		return "", err
	}
	seen, err := v.Detached(ctx, name, bytes.NewReader(data), bytes.NewReader(sig))
	signer, err := r.signer(v, name, seen, err)
	if err != nil {
		return "", fault(ctx, place, builder.Unsigned, err)
	}
	return signer, nil
}

// compare holds a file of the mirror to what its index says of it.
func (r *Reader) compare(ctx context.Context, place, digest string, size int64) error {
	body, err := r.open(ctx, place)
	if errors.Is(err, fs.ErrNotExist) {
		return fault(ctx, place, builder.MidSync, errors.New("its index names it, and it is not there"))
	}
	if err != nil {
		return fault(ctx, place, builder.Unreachable, err)
	}
	defer body.Close()
	h := sha256.New()
	if len(digest) == 2*sha512.Size {
		h = sha512.New()
	}
	n, err := io.Copy(h, io.LimitReader(body, min(size, maxList)+1))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault(ctx, place, builder.MidSync, errors.New("its index names it, and it is not there"))
	case err != nil:
		return fault(ctx, place, builder.Unreachable, err)
	case n != size || hex.EncodeToString(h.Sum(nil)) != digest:
		return fault(ctx, place, builder.MidSync, errors.New("it is not the file that its index names"))
	}
	return nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
