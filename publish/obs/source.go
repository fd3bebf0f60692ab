package obs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// Open implements [publish.Source].
func (t *Target) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	r, err := t.open(ctx, name, offset)
	if err != nil {
		return nil, fmt.Errorf("cannot read bucket %.100s: %w", t.Bucket, err)
	}
	return r, nil
}

func (t *Target) open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	image, in, _ := strings.Cut(name, "/")
	d, err := t.image(ctx, image)
	if err != nil {
		return nil, err
	}
	if in != lifecycleName {
		which, file, _ := strings.Cut(in, "/")
		if file == "" || strings.HasPrefix(file, ".") || strings.Contains(file, "/") {
			return nil, fmt.Errorf("%.300q is no file of a release", name)
		}
		build, err := publish.ParseBuildID(which)
		if label := publish.Label(which); slices.Contains(labels, label) {
			build, err = d.labelled(ctx, label)
		}
		switch {
		case err != nil:
			return nil, err
		case build.IsZero():
			return nil, fmt.Errorf("nothing is %s: %w", which, fs.ErrNotExist)
		}
		in = build.String() + "/" + file
	}
	f := &file{ctx: ctx, b: d.b, key: d.key(in), at: offset}
	return f, f.reopen()
}

// file reads an object by one request after the other, as far as they come. A Read
// that brings something makes tries count anew.
type file struct {
	ctx  context.Context //nolint:containedctx // of whoever opened it
	b    *bucket
	key  string
	at   int64
	body *body
}

// body is an answer, with what ends it when nothing moves.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (f *file) reopen() error {
	return f.b.try(f.ctx, "read "+f.key, func(call context.Context, _ func()) error {
		f.drop()
		// The answer outlives the call.
		ctx, cancel := context.WithCancel(context.WithValue(f.ctx, answerKey{}, call.Value(answerKey{})))
		stop := afterStall(f.b.stall, cancel)
		r, err := f.b.open(ctx, f.key, f.at)
		stop()
		if err != nil {
			cancel()
			return err
		}
		f.body = &body{r, cancel}
		return nil
	})
}

func (f *file) Read(p []byte) (int, error) {
	for n := 0; ; n++ {
		if f.body == nil {
			if err := f.reopen(); err != nil {
				return 0, err
			}
		}
		stop := afterStall(f.b.stall, f.body.cancel)
		got, err := f.body.Read(p)
		stop()
		f.at += int64(got)
		switch {
		case got > 0 && !errors.Is(err, io.EOF):
			return got, nil // an error comes again
		case err == nil || errors.Is(err, io.EOF):
			return got, err
		case f.ctx.Err() != nil:
			return 0, f.ctx.Err()
		case n == tries:
			return 0, fmt.Errorf("cannot read %s: %w", f.key, f.b.hide(err.Error()))
		}
		f.drop()
		if err := wait(f.ctx, min(f.b.pause<<n, longestPause)); err != nil {
			return 0, err
		}
	}
}

func (f *file) drop() {
	if f.body != nil {
		_ = f.body.Close()
		f.body.cancel()
		f.body = nil
	}
}

// Close ends the reading.
func (f *file) Close() error {
	f.drop()
	return nil
}

// Verify reads all releases of an image and reports everything that is wrong with them
// and with the labels, joined. The next publication mends most of it.
func (t *Target) Verify(ctx context.Context, name string, keyring *signing.Keyring) error {
	d, err := t.image(ctx, name)
	if err != nil {
		return fmt.Errorf("cannot verify %.140s: %w", name, err)
	}
	s, err := d.look(ctx)
	if err != nil {
		return fmt.Errorf("cannot verify %s: %w", name, err)
	}
	var errs []error
	for _, e := range s.entries() {
		if e.Problem != "" {
			errs = append(errs, fmt.Errorf("%s: %s", d.base+e.Build.String(), e.Problem))
			continue
		}
		if err := d.verify(ctx, s.releases[e.Build], keyring); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			errs = append(errs, fmt.Errorf("%s: %w", d.base+e.Build.String(), err))
		}
	}
	for _, l := range labels {
		switch b := s.labelled[l]; {
		case b.IsZero() && l == publish.Latest:
			errs = append(errs, fmt.Errorf("%s: nothing is latest", d.base))
		case !b.IsZero() && s.releases[b] == nil:
			errs = append(errs, fmt.Errorf("%s is %s, which is not there", d.key(string(l)), b))
		}
	}
	return errors.Join(errs...)
}

// verify compares the release with the signature and all content with the checksums.
func (d *image) verify(ctx context.Context, r *release, keyring *signing.Keyring) error {
	base := r.build.String() + "/"
	sums, err := d.b.get(ctx, d.key(base+signing.SumsFile), maxSums)
	if err != nil {
		return err
	}
	sig, err := d.b.get(ctx, d.key(base+signing.SumsSig), maxIndex)
	if err != nil {
		return err
	}
	v := &signing.Verifier{Keyring: keyring}
	if _, err := v.Detached(ctx, signing.SumsFile, strings.NewReader(string(sums)), strings.NewReader(string(sig))); err != nil {
		return err
	}
	files, err := d.content(ctx, r)
	var errs []error
	for _, f := range files {
		same, err := d.same(ctx, base+f.Name, f.SHA256)
		if err == nil && !same {
			err = &signing.Error{File: f.Name, Reason: signing.DigestDiffers}
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, err)...)
}
