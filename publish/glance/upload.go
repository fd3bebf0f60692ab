package glance

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Push implements [publish.Target]. The image is hidden and has its dated name when it
// returns.
func (t *Target) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	e, err := t.push(ctx, r)
	if err != nil {
		return publish.Entry{}, fmt.Errorf("cannot bring the image to cloud %s: %w", t.config.Cloud, err)
	}
	return e, nil
}

func (t *Target) push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	disk, err := openstackapi.DiskOf(r)
	if err != nil {
		return publish.Entry{}, err
	}
	if err := ctx.Err(); err != nil {
		return publish.Entry{}, err
	}
	c, err := t.connect(ctx)
	if err != nil {
		return publish.Entry{}, err
	}
	all, err := c.own(ctx, r.Index.Image)
	if err != nil {
		return publish.Entry{}, err
	}
	var broken []*image
	for _, i := range all {
		switch same := i.Prop(openstackapi.PropRelease) == r.Digest; {
		case build(i) != r.Index.Build:
		case problem(i) == "" && !same:
			return publish.Entry{}, fmt.Errorf("image %s: %w", i.ID, publish.ErrConflict)
		case problem(i) == "":
			return t.unlabelled(i), nil
		case i.Status == "deactivated":
			return publish.Entry{}, fmt.Errorf("an administrator has deactivated image %s; publish a newer build, or have it reactivated", i.ID)
		case same && i.Status == "active" && i.Prop(propVerified) == "":
			// A run was killed before it could compare. The file tells.
			if err := t.verify(ctx, c, i, r, disk, nil); err == nil {
				return t.unlabelled(i), nil
			} else if ctx.Err() != nil || !errors.Is(err, errContent) {
				return publish.Entry{}, err
			}
			broken = append(broken, i)
		default:
			broken = append(broken, i)
		}
	}
	i, err := t.make(ctx, c, r, disk, all)
	if errors.Is(err, errStuck) { // with another image, then
		i, err = t.make(ctx, c, r, disk, all)
	}
	if err != nil {
		return publish.Entry{}, err
	}
	if i, err = t.replace(ctx, c, i, broken); err != nil {
		return publish.Entry{}, err
	}
	return t.unlabelled(i), nil
}

// make makes an image of the release. One that cannot be completed is removed.
func (t *Target) make(ctx context.Context, c *client, r *publish.Release, disk publish.File, all []*image) (*image, error) {
	i, err := t.create(ctx, c, r, all)
	if err != nil {
		return nil, err
	}
	err = t.fill(ctx, c, i, r, disk)
	if err == nil {
		return i, nil
	}
	// Also where ctx has ended: nobody else knows of it.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if removeErr := c.remove(clean, i); removeErr != nil && ctx.Err() == nil {
		err = errors.Join(err, fmt.Errorf("cannot remove the unfinished image: %w", removeErr))
	}
	return nil, err
}

// unlabelled is the entry of what Push returns.
func (t *Target) unlabelled(i *image) publish.Entry {
	e := t.entry(i, true)
	e.Labels = nil
	return e
}

// replace gives the image the place of those of its build that were broken, and
// removes them. It returns the image, or another of the same release that another
// run has completed meanwhile, in favour of which the image is removed.
func (t *Target) replace(ctx context.Context, c *client, i *image, broken []*image) (*image, error) {
	for _, b := range broken {
		b, err := c.Get(ctx, b.ID)
		if openstackapi.IsGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if problem(b) == "" && b.Prop(openstackapi.PropRelease) == i.Prop(openstackapi.PropRelease) {
			return b, c.remove(ctx, i)
		}
		for _, l := range t.entry(b, true).Labels {
			p := patch{}.Set(openstackapi.PropNext, b.Prop(openstackapi.PropNext))
			if !i.IsLabelled(publish.Latest) {
				p = t.named(i, l).And(p)
			}
			if err := c.Patch(ctx, i, p); err != nil {
				return nil, err
			}
		}
		if err := c.remove(ctx, b); err != nil {
			return nil, fmt.Errorf("cannot remove image %s, which is not complete: %w", b.ID, err)
		}
	}
	return i, nil
}

// create registers an image without content. The factory chooses the ID, so that a
// call whose answer was lost can be made again.
func (t *Target) create(ctx context.Context, c *client, r *publish.Release, all []*image) (*image, error) {
	visibility := "private" // until it gets a label
	if t.config.Visibility == "shared" {
		visibility = "shared" // or it could have no members
	}
	body := map[string]any{
		"id": newID(), "name": openstackapi.DatedName(r, all), "disk_format": "qcow2", "container_format": "bare",
		"visibility": visibility, "os_hidden": true, "min_disk": r.Index.MinDiskGiB, "min_ram": t.config.MinRAMMiB,
	}
	if len(t.config.Tags) > 0 {
		body["tags"] = t.config.Tags
	}
	properties := map[string]string{"image_build_date": r.Index.Build.Time().Format(time.DateOnly)}
	maps.Copy(properties, t.config.Properties)
	maps.Copy(properties, r.Index.Properties)
	if t.config.SCS0102 {
		if err := checkSCS0102(properties, r.Index.MinDiskGiB, t.config.MinRAMMiB); err != nil {
			return nil, fmt.Errorf("the metadata do not conform to SCS-0102: %w", err)
		}
	}
	maps.Copy(properties, map[string]string{
		openstackapi.PropImage: r.Index.Image, openstackapi.PropBuild: r.Index.Build.String(), openstackapi.PropRelease: r.Digest, openstackapi.PropName: body["name"].(string), propVerified: "",
	})
	for name, value := range properties {
		if _, taken := body[name]; taken {
			return nil, fmt.Errorf("the release has the property %q, which is the cloud's own", name)
		}
		body[name] = value
	}
	i := new(image)
	err := c.Call(ctx, http.MethodPost, paths.List, body, i)
	if openstackapi.IsStatus(err, http.StatusConflict) { // made by a call of which the answer was lost
		i, err = c.Get(ctx, body["id"].(string))
	}
	if err != nil {
		return nil, err
	}
	if !c.isOwn(i, r.Index.Image) || i.Status != "queued" {
		return nil, fmt.Errorf("the cloud has made another image than it was told: %s", i.ID)
	}
	return i, nil
}

// newID returns a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// errContent is that an image's content is not the file's.
var errContent = errors.New("the image's content is not that of the file")

// errStuck is that an image stays as it was when an upload failed.
var errStuck = errors.New("the cloud does not end an upload that was cut")

// fill gives the image its content, and compares.
func (t *Target) fill(ctx context.Context, c *client, i *image, r *publish.Release, disk publish.File) error {
	var sums *digests
	var err error
	if t.config.WebDownload != "" {
		err = t.webDownload(ctx, c, i, r, disk)
	} else {
		sums, err = t.upload(ctx, c, i, r, disk)
	}
	if err != nil {
		return err
	}
	if err := t.verify(ctx, c, i, r, disk, sums); err != nil {
		return err
	}
	for _, m := range t.config.Members {
		if err := c.Share(ctx, i.ID, m); err != nil {
			return err
		}
	}
	if !t.config.Protected {
		return nil
	}
	return c.Patch(ctx, i, patch{}.Set(propProtected, "true").Set("protected", true))
}

// verify compares the image's size and hash with the file's and notes that they are
// equal. Without sums it reads the file.
func (t *Target) verify(ctx context.Context, c *client, i *image, r *publish.Release, disk publish.File, sums *digests) error {
	if err := t.waitActive(ctx, c, i); err != nil {
		return err
	}
	if sums == nil {
		f, err := r.Open(disk.Name)
		if err != nil {
			return err
		}
		defer f.Close()
		sums = newDigests()
		if _, err := io.Copy(sums, &cancellable{ctx, f}); err != nil {
			return err
		}
	}
	want, err := sums.hex(i.HashAlgo)
	if err != nil {
		return err
	}
	if i.Size == nil || *i.Size != disk.SizeBytes || !strings.EqualFold(i.Hash, want) {
		return fmt.Errorf("image %s: %w: the cloud has %d bytes with the %s %.20s…, the file has %d with %.20s…", i.ID, errContent, size(i), i.HashAlgo, i.Hash, disk.SizeBytes, want)
	}
	return c.Patch(ctx, i, patch{}.Set(propVerified, i.Hash))
}

func size(i *image) int64 {
	if i.Size == nil {
		return 0
	}
	return *i.Size
}

// waitActive reads the image until it is active.
func (t *Target) waitActive(ctx context.Context, c *client, i *image) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.patience, fmt.Errorf("image %s did not become active in %s", i.ID, t.patience))
	defer cancel()
	for wait := t.pause / 4; ; wait = min(wait*2, 10*time.Second) {
		now, err := c.Get(ctx, i.ID)
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		switch *i = *now; i.Status {
		case "active":
			return nil
		case "saving", "uploading", "importing":
		default:
			return fmt.Errorf("%w: image %s is %.20s after the upload", errContent, i.ID, i.Status)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// upload sends the file until the cloud says that it has it all, and returns the
// digests of what was sent. Each attempt opens the file anew: what a connection took
// from a reader is lost with it.
func (t *Target) upload(ctx context.Context, c *client, i *image, r *publish.Release, disk publish.File) (*digests, error) {
	path := paths.Image + i.ID + "/file"
	if t.config.Import {
		path = paths.Image + i.ID + "/stage"
	}
	if c.ExpiresWithin(renewBefore) { // it should last as long as the upload
		if err := c.Renew(ctx, ""); err != nil {
			return nil, err
		}
	}
	var sums *digests
	err := c.Repeat(ctx, "PUT "+path, func(ctx context.Context) (time.Duration, error) {
		done, err := t.settled(ctx, c, i)
		if err != nil || done && sums != nil {
			return 0, err
		}
		token := c.Provider.Token()
		sums = newDigests()
		wait, err := t.send(ctx, c, path, r, disk, sums)
		switch {
		case openstackapi.IsStatus(err, http.StatusUnauthorized):
			if err := c.Renew(ctx, token); err != nil {
				return 0, err
			}
			return 0, &openstackapi.StatusError{Method: http.MethodPut, Path: path, Status: http.StatusServiceUnavailable, Reason: "the token was not accepted and is renewed"}
		case openstackapi.IsStatus(err, http.StatusConflict): // an upload that was cut is being given up
			return 0, &openstackapi.StatusError{Method: http.MethodPut, Path: path, Status: http.StatusServiceUnavailable, Reason: "the image is not ready for an upload yet"}
		}
		return wait, err
	})
	if err != nil {
		return nil, err
	}
	if t.config.Import {
		in := map[string]any{"method": map[string]string{"name": "glance-direct"}}
		err := c.Call(ctx, http.MethodPost, paths.Image+i.ID+"/import", in, nil)
		if err != nil && !openstackapi.IsStatus(err, http.StatusConflict) { // it has begun
			return nil, err
		}
	}
	return sums, nil
}

// settled waits until no earlier upload is under way, and reports whether the image
// has got its content from one of which the answer was lost.
func (t *Target) settled(ctx context.Context, c *client, i *image) (bool, error) {
	for until := time.Now().Add(t.settle); ; {
		now, err := c.Get(ctx, i.ID)
		if err != nil {
			return false, err
		}
		switch *i = *now; i.Status {
		case "active":
			return true, nil
		case "uploading":
			return t.config.Import, nil // staged
		case "queued":
			return false, nil
		case "saving":
			if time.Now().After(until) {
				return false, fmt.Errorf("image %s: %w", i.ID, errStuck)
			}
		default:
			return false, fmt.Errorf("image %s is %.20s after an upload", i.ID, i.Status)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(t.pause):
		}
	}
}

// send makes one attempt. An upload that moves no byte for long is given up.
func (t *Target) send(ctx context.Context, c *client, path string, r *publish.Release, disk publish.File, sums *digests) (time.Duration, error) {
	f, err := r.Open(disk.Name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(t.stalled, func() { cancel(fmt.Errorf("no byte was sent for %s", t.stalled)) })
	defer timer.Stop()
	body := &upload{file: f, sums: sums, moved: func() {
		timer.Reset(t.stalled)
		if t.Progress != nil {
			t.Progress(r, sums.n, disk.SizeBytes)
		}
	}, closed: make(chan struct{})}
	wait, err := c.Once(ctx, http.MethodPut, path, "application/octet-stream", body, disk.SizeBytes, nil)
	<-body.closed // the connection may read on after its answer
	switch readErr := body.err; {
	case err == nil && !sums.complete(disk):
		return 0, fmt.Errorf("%w: %d of %d bytes were sent", errContent, sums.n, disk.SizeBytes)
	case readErr != nil: // the cause of what else went wrong
		return 0, readErr
	case err != nil && ctx.Err() != nil:
		return 0, errors.Join(context.Cause(ctx), err)
	}
	return wait, err
}

// upload reads the file for a request.
type upload struct {
	file  io.Reader
	sums  *digests
	moved func()
	err   error // of the file, once closed

	once   sync.Once
	closed chan struct{}
}

func (u *upload) Close() error {
	u.once.Do(func() { close(u.closed) })
	return nil
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.file.Read(p)
	_, _ = u.sums.Write(p[:n])
	u.moved()
	if err != nil && !errors.Is(err, io.EOF) {
		u.err = err
	}
	return n, err
}

// digests are those of what is written to it.
type digests struct {
	sha256, sha512 hash.Hash
	n              int64
}

func newDigests() *digests { return &digests{sha256: sha256.New(), sha512: sha512.New()} }

func (d *digests) Write(p []byte) (int, error) {
	d.n += int64(len(p))
	d.sha256.Write(p)
	d.sha512.Write(p)
	return len(p), nil
}

// complete reports whether all of the file was written.
func (d *digests) complete(f publish.File) bool {
	return d.n == f.SizeBytes && hex.EncodeToString(d.sha256.Sum(nil)) == f.SHA256
}

func (d *digests) hex(algorithm string) (string, error) {
	switch strings.ToLower(algorithm) {
	case "sha256":
		return hex.EncodeToString(d.sha256.Sum(nil)), nil
	case "sha512":
		return hex.EncodeToString(d.sha512.Sum(nil)), nil
	}
	return "", fmt.Errorf("the cloud hashes images with %.20q; sha512 and sha256 are known", algorithm)
}

// cancellable reads until ctx ends.
type cancellable struct {
	ctx context.Context //nolint:containedctx // of one call
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
