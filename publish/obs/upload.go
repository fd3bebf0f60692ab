package obs

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3's own check of what it received
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

const (
	partSize = 16 << 20
	atOnce   = 3 // parts in memory
	maxParts = 10_000
)

// push brings the release to the bucket, complete but without a label.
func (t *Target) push(ctx context.Context, d *image, r *publish.Release) (publish.Entry, error) {
	build := r.Index.Build
	e := publish.Entry{ID: d.name + "/" + build.String(), Image: d.name, Build: build, Digest: r.Digest}
	found, err := d.releasesUnder(ctx, build.String()+"/")
	if err != nil {
		return e, err
	}
	have := found[build]
	if have == nil {
		have = &release{build: build, files: make(map[string]object)}
	}
	if err := d.conflict(ctx, have, r); err != nil {
		return e, err
	}
	if s, ok := have.sealed(); ok && s.digest == r.Digest {
		return e, nil
	}
	if err := t.holds(ctx, d); err != nil {
		return e, err
	}
	if !slices.Contains(have.begun, r.Digest) {
		if _, err := d.b.put(ctx, d.key(build.String()+"/"+begunPrefix+r.Digest), nil); err != nil {
			return e, err
		}
		have.begun = append(have.begun, r.Digest)
	}
	if err := t.send(ctx, d, r, have); err != nil {
		return e, err
	}
	return e, t.finish(ctx, d, r, have)
}

// conflict reports another release of the build.
func (d *image) conflict(ctx context.Context, have *release, r *publish.Release) error {
	for _, s := range have.seals {
		if s.digest != r.Digest {
			return publish.ErrConflict
		}
	}
	if _, ok := have.files[signing.SumsFile]; !ok || have.unfinished() || len(have.seals) > 0 {
		return nil
	}
	var p *problemError
	copied := &release{build: have.build}
	if _, err := d.content(ctx, copied); err != nil && !errors.As(err, &p) {
		return err
	} else if err == nil && copied.digest != r.Digest {
		return publish.ErrConflict
	}
	return nil
}

// send uploads the files that are not there as they should be: the checksums last.
func (t *Target) send(ctx context.Context, d *image, r *publish.Release, have *release) error {
	files := slices.Clone(r.Files)
	rank := func(name string) int {
		return slices.Index([]string{publish.IndexName, signing.SumsSig, signing.SumsFile}, name)
	}
	slices.SortStableFunc(files, func(a, b publish.File) int { return rank(a.Name) - rank(b.Name) })
	var total, done int64
	for _, f := range files {
		total += f.SizeBytes
	}
	progress := func(n int64) {
		done += n
		if t.Progress != nil {
			t.Progress(r, done, total)
		}
	}
	for _, f := range files {
		if err := t.holds(ctx, d); err != nil {
			return err
		}
		s := &sending{d: d, r: r, file: f, key: d.key(have.build.String() + "/" + f.Name), progress: progress}
		etag, err := s.send(ctx, have.files[f.Name])
		if err != nil {
			return err
		}
		have.files[f.Name] = object{size: f.SizeBytes, etag: etag}
	}
	for name := range have.files { // what another run left of another release of this build
		if !slices.ContainsFunc(files, func(f publish.File) bool { return f.Name == name }) && have.unfinished() {
			if err := d.b.remove(ctx, d.key(have.build.String()+"/"+name)); err != nil {
				return err
			}
			delete(have.files, name)
		}
	}
	return nil
}

// finish seals the release, and removes what else runs left.
func (t *Target) finish(ctx context.Context, d *image, r *publish.Release, have *release) error {
	if t.Public {
		if err := t.readable(ctx, d, r); err != nil {
			return err
		}
	}
	base := d.key(have.build.String() + "/")
	s := seal{r.Digest, have.listing()}
	if _, err := d.b.put(ctx, base+s.name(), nil); err != nil {
		return err
	}
	for _, old := range have.seals {
		if old != s {
			if err := d.b.remove(ctx, base+old.name()); err != nil {
				return err
			}
		}
	}
	for _, digest := range have.begun {
		if err := d.b.remove(ctx, base+begunPrefix+digest); err != nil {
			return err
		}
	}
	return d.sweep(ctx, have.build)
}

// readable reads what was published as somebody without credentials.
func (t *Target) readable(ctx context.Context, d *image, r *publish.Release) error {
	b, err := t.bucket(ctx, true)
	if err != nil {
		return err
	}
	for _, f := range r.Files {
		o, err := b.head(ctx, d.key(r.Index.Build.String()+"/"+f.Name))
		if err == nil && o.size != f.SizeBytes {
			err = fmt.Errorf("it has %d bytes instead of %d", o.size, f.SizeBytes)
		}
		if err != nil {
			return fmt.Errorf("what should be public cannot be read without credentials; check the bucket's policy or the ACL: %w", err)
		}
	}
	return nil
}

// sweep removes what killed runs left of builds up to this one.
func (d *image) sweep(ctx context.Context, build publish.BuildID) error {
	found, err := d.releasesUnder(ctx, "")
	if err != nil {
		return err
	}
	for old, r := range found {
		if !r.unfinished() || old.Compare(build) >= 0 {
			continue
		}
		for _, label := range labels {
			if b, err := d.labelled(ctx, label); err != nil || b == old {
				return err
			}
		}
		base := d.key(old.String() + "/")
		for name := range r.files {
			if err := d.b.remove(ctx, base+name); err != nil {
				return err
			}
		}
		for _, digest := range r.begun {
			if err := d.b.remove(ctx, base+begunPrefix+digest); err != nil {
				return err
			}
		}
	}
	uploads, err := d.b.uploads(ctx, d.base)
	if err != nil {
		return err
	}
	for _, u := range uploads {
		which, _, _ := strings.Cut(strings.TrimPrefix(u.key, d.base), "/")
		if of, err := publish.ParseBuildID(which); err != nil || of.Compare(build) > 0 || !strings.HasPrefix(u.key, d.base) {
			continue
		}
		if err := d.b.abort(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// sending is a file on its way.
type sending struct {
	d        *image
	r        *publish.Release
	file     publish.File
	key      string
	progress func(int64)
}

// send returns the ETag of the object, which has the file's content when it returns.
func (s *sending) send(ctx context.Context, have object) (string, error) {
	if have.etag != "" && have.size == s.file.SizeBytes {
		same, err := s.d.same(ctx, strings.TrimPrefix(s.key, s.d.base), s.file.SHA256)
		if err != nil {
			return "", err
		}
		if same {
			s.progress(s.file.SizeBytes)
			return have.etag, nil
		}
	}
	if s.file.SizeBytes > maxParts*partSize {
		return "", fmt.Errorf("%s has more than %d bytes", s.file.Name, int64(maxParts)*partSize)
	}
	f, err := s.r.Open(s.file.Name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var etag, want string
	if s.file.SizeBytes <= partSize {
		etag, want, err = s.whole(ctx, f)
	} else {
		etag, want, err = s.inParts(ctx, f)
	}
	if err != nil || etag == want {
		return etag, err
	}
	// The service has ETags of its own kind.
	same, err := s.d.same(ctx, strings.TrimPrefix(s.key, s.d.base), s.file.SHA256)
	if err == nil && !same {
		err = fmt.Errorf("%w: %s has other content than was sent", publish.ErrIncomplete, s.key)
	}
	return etag, err
}

func (s *sending) whole(ctx context.Context, f io.Reader) (etag, want string, err error) {
	data, err := io.ReadAll(f)
	if err != nil {
		return "", "", err
	}
	sum := md5.Sum(data) //nolint:gosec // see the import
	etag, err = s.d.b.put(ctx, s.key, data)
	s.progress(int64(len(data)))
	return etag, hex.EncodeToString(sum[:]), err
}

// inParts uploads a large file, or the rest of it.
func (s *sending) inParts(ctx context.Context, f io.Reader) (etag, want string, err error) {
	u, have, err := s.resume(ctx)
	if err != nil {
		return "", "", err
	}
	parts, err := s.parts(ctx, f, u, have)
	if err != nil {
		if ctx.Err() != nil {
			return "", "", ctx.Err()
		}
		return "", "", err // the upload stays for the next run, or its sweep
	}
	var sums []byte
	for _, p := range parts {
		sum, _ := hex.DecodeString(p.etag)
		sums = append(sums, sum...)
	}
	sum := md5.Sum(sums) //nolint:gosec // see the import
	want = fmt.Sprintf("%x-%d", sum, len(parts))
	etag, err = s.complete(ctx, u, parts)
	return etag, want, err
}

// resume finds the newest upload of the file that was begun, or begins one.
func (s *sending) resume(ctx context.Context) (upload, map[int]part, error) {
	all, err := s.d.b.uploads(ctx, s.key)
	if err != nil {
		return upload{}, nil, err
	}
	all = slices.DeleteFunc(all, func(u upload) bool { return u.key != s.key })
	slices.SortFunc(all, func(a, b upload) int { return b.begun.Compare(a.begun) })
	for i, u := range all {
		if i > 0 {
			if err := s.d.b.abort(ctx, u); err != nil {
				return upload{}, nil, err
			}
		}
	}
	if len(all) > 0 {
		parts, err := s.d.b.parts(ctx, all[0])
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return all[0], parts, err
		}
	}
	u, err := s.d.b.begin(ctx, s.key)
	return u, nil, err
}

// parts uploads the parts that are not there. It reads the file to its end, where it is
// known whether it is what was verified.
func (s *sending) parts(ctx context.Context, f io.Reader, u upload, have map[int]part) ([]part, error) {
	count := int((s.file.SizeBytes + partSize - 1) / partSize)
	parts := make([]part, count)
	buffers := make(chan []byte, atOnce)
	for range atOnce {
		buffers <- nil
	}
	sent := make(chan int64, count)
	group, ctx := errgroup.WithContext(ctx)
	var readErr error
	for i := range parts {
		var buf []byte
		select {
		case buf = <-buffers:
		case <-ctx.Done():
			return nil, errors.Join(group.Wait(), context.Cause(ctx))
		}
		if buf == nil {
			buf = make([]byte, partSize)
		}
		buf = buf[:min(partSize, s.file.SizeBytes-int64(i)*partSize)]
		if _, readErr = io.ReadFull(f, buf); readErr != nil {
			break
		}
		sum := md5.Sum(buf) //nolint:gosec // see the import
		parts[i] = part{i + 1, int64(len(buf)), hex.EncodeToString(sum[:])}
		if have[i+1] == parts[i] {
			sent <- parts[i].size
			buffers <- buf[:cap(buf)]
			continue
		}
		group.Go(func() error {
			got, err := s.d.b.putPart(ctx, u, i+1, buf)
			if err == nil && got.etag != "" && !bytes.Equal([]byte(got.etag), []byte(parts[i].etag)) {
				parts[i].etag = got.etag // its own kind; the whole is read back
			}
			sent <- int64(len(buf))
			buffers <- buf[:cap(buf)]
			return err
		})
		for len(sent) > 0 {
			s.progress(<-sent)
		}
	}
	if readErr == nil {
		// At the end the reader says whether all of it is what was verified.
		var n int64
		if n, readErr = io.Copy(io.Discard, f); readErr == nil && n > 0 {
			readErr = fmt.Errorf("%s grew while it was read", s.file.Name)
		}
	}
	err := group.Wait()
	for len(sent) > 0 {
		s.progress(<-sent)
	}
	return parts, errors.Join(readErr, err)
}

// complete ends the upload. After an answer that says nothing, the object does.
func (s *sending) complete(ctx context.Context, u upload, parts []part) (string, error) {
	for n := 1; ; n++ {
		err := s.d.b.complete(ctx, u, parts)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		o, herr := s.d.b.head(ctx, s.key)
		if herr == nil && o.size == s.file.SizeBytes {
			return o.etag, nil
		}
		var again *againError
		switch {
		case err == nil && herr == nil:
			return "", fmt.Errorf("%w: %s has %d bytes instead of %d", publish.ErrIncomplete, s.key, o.size, s.file.SizeBytes)
		case err == nil:
			return "", herr
		case !errors.As(err, &again) || n == tries:
			return "", err
		}
		if err := wait(ctx, max(min(s.d.b.pause<<(n-1), longestPause), min(again.after, longestAfter))); err != nil {
			return "", err
		}
	}
}
