package obs

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3's own check of what it received
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	tries        = 6
	longestPause = 30 * time.Second
	longestAfter = 2 * time.Minute // that a service may ask for
	maxListed    = 1_000_000       // objects under one prefix
)

// object is what a listing says of an object.
type object struct {
	key      string
	size     int64
	etag     string
	modified time.Time // by the service's clock
}

// part is a part of an upload.
type part struct {
	number int
	size   int64
	etag   string
}

// bucket is the object store as this package uses it. It is the only user of the
// S3 client. Each call is repeated where that may help.
type bucket struct {
	core   minio.Core
	name   string
	http   bool // payloads are signed, for there is no TLS
	acl    string
	pause  time.Duration
	stall  time.Duration
	hidden []string // what no error may hold
}

// put writes a whole object, at most a few MiB, and returns its ETag.
func (b *bucket) put(ctx context.Context, key string, data []byte) (string, error) {
	sum, sha := b.sums(data)
	var etag string
	err := b.try(ctx, "write "+key, func(ctx context.Context, moved func()) error {
		info, err := b.core.PutObject(ctx, b.name, key, &reader{bytes.NewReader(data), moved}, int64(len(data)), sum, sha, b.options(key))
		etag = info.ETag
		return err
	})
	return etag, err
}

// sums returns the MD5 as Content-MD5 has it and, where there is no TLS, the SHA-256.
func (b *bucket) sums(data []byte) (md5Base64, sha256Hex string) {
	sum := md5.Sum(data) //nolint:gosec // see the import
	if b.http {
		s := sha256.Sum256(data)
		sha256Hex = hex.EncodeToString(s[:])
	}
	return base64.StdEncoding.EncodeToString(sum[:]), sha256Hex
}

func (b *bucket) options(key string) minio.PutObjectOptions {
	o := minio.PutObjectOptions{ContentType: contentType(key), StorageClass: "STANDARD", SendContentMd5: true}
	if strings.HasSuffix(key, "/"+pointerName) || strings.HasSuffix(key, "/"+lifecycleName) {
		o.CacheControl = "no-cache" // they change
	}
	if b.acl != "" {
		o.UserMetadata = map[string]string{"x-amz-acl": b.acl}
	}
	return o
}

func contentType(key string) string {
	for suffix, kind := range map[string]string{
		".json": "application/json", ".xml": "application/xml", ".gz": "application/gzip",
		".asc": "text/plain; charset=utf-8", ".packages": "text/plain; charset=utf-8", ".changes": "text/plain; charset=utf-8", ".sources": "text/plain; charset=utf-8",
		".log": "text/plain; charset=utf-8", "SHA256SUMS": "text/plain; charset=utf-8",
	} {
		if strings.HasSuffix(key, suffix) {
			return kind
		}
	}
	return "application/octet-stream"
}

// head returns what the service says of the object: fs.ErrNotExist if it is not there.
func (b *bucket) head(ctx context.Context, key string) (object, error) {
	o := object{key: key}
	err := b.try(ctx, "look at "+key, func(ctx context.Context, _ func()) error {
		info, err := b.core.StatObject(ctx, b.name, key, minio.StatObjectOptions{})
		o.size, o.etag, o.modified = info.Size, trim(info.ETag), info.LastModified
		return err
	})
	return o, err
}

// open reads the object from the offset on; a reader at its end if that is behind it.
func (b *bucket) open(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if offset > 0 {
		o.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	body, _, _, err := b.core.GetObject(ctx, b.name, key, o)
	var e minio.ErrorResponse
	switch {
	case errors.As(err, &e) && e.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0:
		return http.NoBody, nil
	case err != nil:
		return nil, err
	}
	return body, nil
}

// get reads an object of at most so many bytes.
func (b *bucket) get(ctx context.Context, key string, most int64) ([]byte, error) {
	var data []byte
	err := b.try(ctx, "read "+key, func(ctx context.Context, moved func()) error {
		body, err := b.open(ctx, key, 0)
		if err != nil {
			return err
		}
		defer body.Close()
		data, err = io.ReadAll(io.LimitReader(&reader{body, moved}, most+1))
		return err
	})
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", key, most)
	}
	return data, err
}

// list returns the objects whose keys begin with prefix, by key.
func (b *bucket) list(ctx context.Context, prefix string) ([]object, error) {
	var all []object
	err := b.try(ctx, "list "+prefix, func(ctx context.Context, moved func()) error {
		all = nil
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // which ends the client's goroutine
		for info := range b.core.Client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, UseV1: true}) {
			moved()
			if info.Err != nil {
				return info.Err
			}
			if len(all) == maxListed {
				return &permanentError{fmt.Sprintf("more than %d objects", maxListed)}
			}
			all = append(all, object{info.Key, info.Size, trim(info.ETag), info.LastModified})
		}
		return ctx.Err()
	})
	slices.SortFunc(all, func(a, b object) int { return strings.Compare(a.key, b.key) })
	return all, err
}

// remove deletes the object, if it is there.
func (b *bucket) remove(ctx context.Context, key string) error {
	err := b.try(ctx, "delete "+key, func(ctx context.Context, _ func()) error {
		return b.core.RemoveObject(ctx, b.name, key, minio.RemoveObjectOptions{})
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// upload is a multipart upload that has begun.
type upload struct {
	key, id string
	begun   time.Time
}

func (b *bucket) begin(ctx context.Context, key string) (upload, error) {
	u := upload{key: key}
	err := b.try(ctx, "begin to upload "+key, func(ctx context.Context, _ func()) (err error) {
		u.id, err = b.core.NewMultipartUpload(ctx, b.name, key, b.options(key))
		return err
	})
	return u, err
}

// uploads returns the uploads under the prefix that were begun and not ended.
func (b *bucket) uploads(ctx context.Context, prefix string) ([]upload, error) {
	var all []upload
	err := b.try(ctx, "list the uploads of "+prefix, func(ctx context.Context, moved func()) error {
		all = nil
		keyMarker, idMarker := "", ""
		for range 1000 {
			r, err := b.core.ListMultipartUploads(ctx, b.name, prefix, keyMarker, idMarker, "", 1000)
			if err != nil {
				return err
			}
			moved()
			for _, u := range r.Uploads {
				all = append(all, upload{u.Key, u.UploadID, u.Initiated})
			}
			if !r.IsTruncated || len(r.Uploads) == 0 {
				break
			}
			keyMarker, idMarker = r.NextKeyMarker, r.NextUploadIDMarker
		}
		return nil
	})
	return all, err
}

// parts returns the parts of the upload that the service has, by number.
func (b *bucket) parts(ctx context.Context, u upload) (map[int]part, error) {
	all := make(map[int]part)
	err := b.try(ctx, "list the parts of "+u.key, func(ctx context.Context, moved func()) error {
		marker := 0
		for range 1000 {
			r, err := b.core.ListObjectParts(ctx, b.name, u.key, u.id, marker, 1000)
			if err != nil {
				return err
			}
			moved()
			for _, p := range r.ObjectParts {
				all[p.PartNumber] = part{p.PartNumber, p.Size, trim(p.ETag)}
			}
			if !r.IsTruncated || r.NextPartNumberMarker <= marker {
				break
			}
			marker = r.NextPartNumberMarker
		}
		return nil
	})
	return all, err
}

func (b *bucket) putPart(ctx context.Context, u upload, number int, data []byte) (part, error) {
	sum, sha := b.sums(data)
	p := part{number: number, size: int64(len(data))}
	err := b.try(ctx, fmt.Sprintf("upload part %d of %s", number, u.key), func(ctx context.Context, moved func()) error {
		o := minio.PutObjectPartOptions{Md5Base64: sum, Sha256Hex: sha}
		got, err := b.core.PutObjectPart(ctx, b.name, u.key, u.id, number, &reader{bytes.NewReader(data), moved}, int64(len(data)), o)
		p.etag = trim(got.ETag)
		return err
	})
	return p, err
}

// complete makes the parts the object. It is asked once: whoever gets an unclear
// answer has to look.
func (b *bucket) complete(ctx context.Context, u upload, parts []part) error {
	var list []minio.CompletePart
	for _, p := range parts {
		list = append(list, minio.CompletePart{PartNumber: p.number, ETag: p.etag})
	}
	return b.once(ctx, "end the upload of "+u.key, func(ctx context.Context, _ func()) error {
		_, err := b.core.CompleteMultipartUpload(ctx, b.name, u.key, u.id, list, minio.PutObjectOptions{})
		return err
	})
}

func (b *bucket) abort(ctx context.Context, u upload) error {
	err := b.try(ctx, "abort the upload of "+u.key, func(ctx context.Context, _ func()) error {
		return b.core.AbortMultipartUpload(ctx, b.name, u.key, u.id)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func trim(etag string) string { return strings.ToLower(strings.Trim(etag, `"`)) }

// try calls f until it is done, cannot be done, or was tried often enough. f calls
// moved when something arrives or leaves.
func (b *bucket) try(ctx context.Context, what string, f func(ctx context.Context, moved func()) error) error {
	for n := 1; ; n++ {
		err := b.once(ctx, what, f)
		var again *againError
		if !errors.As(err, &again) || n == tries {
			return err
		}
		pause := max(min(b.pause<<(n-1), longestPause), min(again.after, longestAfter))
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

var errStalled = errors.New("the service stalls")

// once calls f once, and ends it when nothing moves.
func (b *bucket) once(ctx context.Context, what string, f func(ctx context.Context, moved func()) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a := new(answer)
	call, cancel := context.WithCancelCause(context.WithValue(ctx, answerKey{}, a))
	timer := time.AfterFunc(b.stall, func() { cancel(errStalled) })
	err := f(call, func() { timer.Reset(b.stall) })
	timer.Stop()
	stalled := context.Cause(call) != nil && ctx.Err() == nil
	cancel(nil)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case stalled:
		return &againError{fmt.Errorf("cannot %s: %w", what, errStalled), 0}
	}
	return b.judge(what, err, a)
}

// againError is one that may not come again.
type againError struct {
	err   error
	after time.Duration // that the service asks for
}

func (e *againError) Error() string { return e.err.Error() }
func (e *againError) Unwrap() error { return e.err }

// Transient tells who tries whole releases again that another try may do.
func (e *againError) Transient() bool { return true }

type permanentError struct{ text string }

func (e *permanentError) Error() string { return e.text }

// judge says what the error is and whether to try again.
func (b *bucket) judge(what string, err error, a *answer) error {
	fail := func(cause error) error { return fmt.Errorf("cannot %s: %w", what, cause) }
	var never *permanentError
	var trust *tls.CertificateVerificationError
	var s3 minio.ErrorResponse
	switch {
	case errors.As(err, &never):
		return fail(never)
	case errors.As(err, &trust):
		return fail(fmt.Errorf("the service's certificate is not trusted: %w", trust.Err))
	case !errors.As(err, &s3) || s3.StatusCode == 0 && a.status == 0:
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL
		}
		return &againError{fail(b.hide(err.Error())), 0}
	}
	code := s3.StatusCode
	if code == 0 || code == http.StatusOK {
		code = a.status
	}
	cause := b.hide(fmt.Sprintf("the service answered %d %s: %s", code, s3.Code, s3.Message))
	switch {
	case code == http.StatusNotFound && s3.Code != "NoSuchBucket":
		return fail(fmt.Errorf("%w: %w", fs.ErrNotExist, cause))
	case s3.Code == "RequestTimeTooSkewed":
		return fail(fmt.Errorf("%w; set this machine's clock", cause))
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500 && code != http.StatusNotImplemented,
		slices.Contains([]string{"SlowDown", "InternalError", "RequestTimeout", "OperationAborted", "IncompleteBody", "BadDigest", "ServiceUnavailable"}, s3.Code):
		return &againError{fail(cause), a.after}
	}
	return fail(cause)
}

// hide bounds a text that a server may have made, and takes secrets out of it.
func (b *bucket) hide(text string) error {
	for _, s := range b.hidden {
		text = strings.ReplaceAll(text, s, "[…]")
	}
	const most = 300
	if len(text) > most {
		text = text[:most] + "…"
	}
	return errors.New(strings.ToValidUTF8(text, "?"))
}

// reader tells when something was read.
type reader struct {
	io.Reader
	moved func()
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.moved()
	return n, err
}

// afterStall calls cancel if it is not stopped in time.
func afterStall(d time.Duration, cancel func()) (stop func()) {
	timer := time.AfterFunc(d, cancel)
	return func() { timer.Stop() }
}
