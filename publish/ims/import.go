package ims

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Limits of an import (API reference, "Creating an Image").
const (
	maxFileBytes  = 128 << 30
	maxMinDiskGiB = 1024
)

// Push implements [publish.Target]. The image has its dated name when it returns.
func (t *Target) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	i, err := t.push(ctx, r)
	if err != nil {
		return publish.Entry{}, fmt.Errorf("cannot bring the image to cloud %s: %w", t.config.Cloud, err)
	}
	return entry(r.Index.Image, i, nil), nil
}

func (t *Target) push(ctx context.Context, r *publish.Release) (*image, error) {
	disk, err := t.check(r)
	if err != nil {
		return nil, err
	}
	c, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	all, err := c.own(ctx, r.Index.Image)
	if err != nil {
		return nil, err
	}
	var made *image     // by a run that was killed
	var broken []*image // of this build
	for _, i := range all {
		switch same := isRelease(i, r.Digest); {
		case build(i) != r.Index.Build:
		case problem(i) == "" && !same:
			return nil, fmt.Errorf("image %s: %w", i.ID, publish.ErrConflict)
		case problem(i) == "":
			return i, nil
		case same && made == nil && i.Prop(openstackapi.PropRelease) == "" && slices.Contains([]string{"queued", "saving", "active"}, i.Status):
			made = i
		default:
			broken = append(broken, i)
		}
	}
	if made != nil {
		if err := t.waitActive(ctx, c, made); ctx.Err() != nil || err != nil && !errors.Is(err, errImport) {
			return nil, err
		} else if err != nil {
			broken, made = append(broken, made), nil
		}
	}
	if made == nil {
		if made, err = t.make(ctx, c, r, disk, all); err != nil {
			return nil, err
		}
	}
	if err := t.complete(ctx, c, r, made, all); err != nil {
		return nil, err
	}
	return made, t.replace(ctx, c, made, broken)
}

// check refuses before anything is called what the service would refuse after the
// upload.
func (t *Target) check(r *publish.Release) (publish.File, error) {
	disk, err := openstackapi.DiskOf(r)
	if err != nil {
		return publish.File{}, err
	}
	switch {
	case disk.SizeBytes > maxFileBytes:
		return publish.File{}, fmt.Errorf("%w: %s has more than 128 GB", ErrFile, disk.Name)
	case r.Index.MinDiskGiB < 1 || r.Index.MinDiskGiB > maxMinDiskGiB:
		return publish.File{}, fmt.Errorf("the release needs a disk of %d GiB; the service knows 1 to %d", r.Index.MinDiskGiB, maxMinDiskGiB)
	}
	if err := checkNames(r.Index.Image); err != nil {
		return publish.File{}, err
	}
	for name := range r.Index.Properties {
		if err := checkProperty(name); err != nil {
			return publish.File{}, fmt.Errorf("the release's properties: %w", err)
		}
	}
	return disk, nil
}

// creation is the body of a call that imports, as the API reference has it.
type creation struct {
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	OSType      string   `json:"os_type,omitempty"`
	OSVersion   string   `json:"os_version,omitempty"`
	ImageURL    string   `json:"image_url"`
	MinDisk     int      `json:"min_disk"`
	MinRAM      int      `json:"min_ram,omitempty"`
	Tags        []string `json:"tags"`
	Type        string   `json:"type,omitempty"`
	Firmware    string   `json:"hw_firmware_type,omitempty"`
	Arch        string   `json:"architecture,omitempty"` // quick import alone
}

// make imports an image of the release and waits for it. One that is no good is removed.
func (t *Target) make(ctx context.Context, c *client, r *publish.Release, disk publish.File, all []*image) (*image, error) {
	if err := c.room(ctx); err != nil { // before an upload for nothing
		return nil, err
	}
	staged, err := t.bucket.Push(ctx, r)
	if err != nil {
		return nil, err
	}
	p := r.Index.Properties
	in := creation{
		Name: openstackapi.DatedName(r, all), Description: t.config.Description, OSVersion: p["__os_version"],
		ImageURL: t.config.Bucket.Bucket + ":" + strings.Trim(t.config.Bucket.Prefix, "/") + "/" + staged.ID + "/" + disk.Name,
		MinDisk:  r.Index.MinDiskGiB, MinRAM: t.config.MinRAMMiB,
		Tags: []string{tagImage + "." + nameTag(r.Index.Image), tagBuild + "." + r.Index.Build.String(), tagRelease + "." + r.Digest[:min(len(r.Digest), tagLength)]},
		Type: "ECS", Firmware: p["hw_firmware_type"],
	}
	if p["virtual_env_type"] == "Ironic" {
		in.Type = "BMS"
	}
	path := "/v2/cloudimages/action"
	if t.config.Quick {
		path = "/v2/cloudimages/quickimport/action"
		if p["__support_arm"] == "true" {
			in.Arch = "arm"
		}
	} else {
		in.OSType = p["__os_type"]
	}
	i, err := t.begin(ctx, c, r, path, in)
	if err == nil {
		err = t.waitActive(ctx, c, i)
	}
	if err == nil {
		return i, nil
	}
	// Also where ctx has ended, what is no good is removed. What is under way stays:
	// the next run goes on with it.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if errors.Is(err, errImport) {
		err = errors.Join(err, t.sweep(clean, c, r))
	}
	return nil, err
}

// errImport is that an import has failed.
var errImport = errors.New("the import has failed")

// begin asks for the import, and waits for its job. After an answer that says nothing,
// it looks for the image before it asks again: there must not be two.
func (t *Target) begin(ctx context.Context, c *client, r *publish.Release, path string, in creation) (*image, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	until := t.now().Add(t.patience)
	for wait := t.pause; ; wait = min(wait*2, time.Minute) {
		var answer struct {
			JobID string `json:"job_id"`
		}
		call, cancel := context.WithTimeout(ctx, c.Timeout)
		after, err := c.Once(call, http.MethodPost, path, "application/json", bytes.NewReader(body), int64(len(body)), &answer)
		cancel()
		switch {
		case err == nil:
			return t.job(ctx, c, answer.JobID)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !openstackapi.Unclear(err) || t.now().After(until):
			return nil, typed(err)
		}
		t.logger.WarnContext(ctx, "an import is asked for again", "error", err)
		if err := sleep(ctx, max(wait, after)); err != nil {
			return nil, err
		}
		all, err := c.own(ctx, r.Index.Image)
		if err != nil {
			return nil, err
		}
		for _, i := range all {
			if i.Prop(openstackapi.PropRelease) == "" && build(i) == r.Index.Build && isRelease(i, r.Digest) {
				return i, nil
			}
		}
	}
}

// job waits for the job's end and returns its image.
func (t *Target) job(ctx context.Context, c *client, id string) (*image, error) {
	if id == "" {
		return nil, errors.New("the service answers an import without a job_id")
	}
	until := t.now().Add(t.patience)
	for wait := t.pause; ; wait = min(wait*2, 15*time.Second) {
		var job struct {
			Status   string `json:"status"`
			Code     string `json:"error_code"`
			Reason   string `json:"fail_reason"`
			Entities struct {
				ImageID string `json:"image_id"`
			} `json:"entities"`
		}
		if err := c.Call(ctx, http.MethodGet, "/v1/"+c.Project+"/jobs/"+url.PathEscape(id), nil, &job); err != nil {
			return nil, err
		}
		switch job.Status {
		case "SUCCESS":
			if job.Entities.ImageID == "" {
				return nil, fmt.Errorf("%w: job %.64s says SUCCESS and names no image", errImport, id)
			}
			i, err := c.Get(ctx, job.Entities.ImageID)
			if openstackapi.IsGone(err) {
				return nil, fmt.Errorf("%w: job %.64s says SUCCESS and its image is not there", errImport, id)
			}
			if err == nil && (i.Status != "active" || bytesOf(i) <= 0) {
				return nil, fmt.Errorf("%w: job %.64s says SUCCESS, but image %s is %.20s with %d bytes", errImport, id, i.ID, i.Status, bytesOf(i))
			}
			return i, err
		case "FAIL":
			return nil, fmt.Errorf("%w: %w", errImport, &Error{Code: job.Code, Reason: job.Reason[:min(len(job.Reason), 300)], What: "job " + id})
		case "INIT", "RUNNING":
		default:
			return nil, fmt.Errorf("job %.64s has the status %.20q, which is not documented", id, job.Status)
		}
		if t.now().After(until) {
			return nil, fmt.Errorf("job %.64s was not done after %s; publish again to wait for it", id, t.patience)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// waitActive reads the image until it is active. It fails with errImport if it never
// will be.
func (t *Target) waitActive(ctx context.Context, c *client, i *image) error {
	until := t.now().Add(t.patience)
	for wait := t.pause; ; wait = min(wait*2, 15*time.Second) {
		switch {
		case i.Status == "active" && bytesOf(i) > 0:
			return nil
		case i.Status == "active":
			return fmt.Errorf("%w: image %s is empty", errImport, i.ID)
		case i.Status != "queued" && i.Status != "saving":
			return fmt.Errorf("%w: image %s is %.20s", errImport, i.ID, i.Status)
		case t.now().After(until):
			return fmt.Errorf("%w: image %s was %.20s for %s", errImport, i.ID, i.Status, t.patience)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		now, err := c.Get(ctx, i.ID)
		if openstackapi.IsGone(err) {
			return fmt.Errorf("%w: image %s has gone", errImport, i.ID)
		}
		if err != nil {
			return err
		}
		*i = *now
	}
}

// sweep removes what failed imports of the release left.
func (t *Target) sweep(ctx context.Context, c *client, r *publish.Release) error {
	all, err := c.own(ctx, r.Index.Image)
	if err != nil {
		return err
	}
	for _, i := range all {
		if build(i) == r.Index.Build && isRelease(i, r.Digest) && i.Prop(openstackapi.PropRelease) == "" {
			err = errors.Join(err, c.remove(ctx, i))
		}
	}
	return err
}

// fixed are properties that an import sets and no PATCH can.
var fixed = []string{"__os_type", "__os_version", "__os_bit", "__platform", "virtual_env_type", "architecture"}

// complete shares the image, removes the objects that it was made of, and says with the
// properties what it is; last, for until then the next run does this again.
func (t *Target) complete(ctx context.Context, c *client, r *publish.Release, i *image, all []*image) error {
	for _, m := range t.config.Members {
		if err := c.Share(ctx, i.ID, m); err != nil {
			return err
		}
	}
	staged := publish.Entry{ID: r.Index.Image + "/" + r.Index.Build.String(), Image: r.Index.Image, Build: r.Index.Build}
	if err := t.bucket.Apply(ctx, publish.Step{Op: publish.Remove, Entry: staged}); err != nil {
		return fmt.Errorf("cannot remove the objects of the import: %w", err)
	}
	properties := make(map[string]string)
	maps.Copy(properties, t.config.Properties)
	maps.Copy(properties, r.Index.Properties)
	maps.DeleteFunc(properties, func(name, _ string) bool { return slices.Contains(fixed, name) })
	maps.Copy(properties, map[string]string{
		openstackapi.PropImage: r.Index.Image, openstackapi.PropBuild: r.Index.Build.String(), openstackapi.PropRelease: r.Digest, openstackapi.PropName: i.Name,
	})
	if i.Name == "" || slices.ContainsFunc(all, func(o *image) bool { return o.ID != i.ID && o.Prop(openstackapi.PropName) == i.Name }) {
		properties[openstackapi.PropName] = openstackapi.DatedName(r, all)
	}
	p := patch{}
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		p = p.Set(name, properties[name])
	}
	return c.Patch(ctx, i, p)
}

// replace gives the image the place of those of its build that were broken, and removes
// them.
func (t *Target) replace(ctx context.Context, c *client, i *image, broken []*image) error {
	for _, b := range broken {
		for _, l := range []publish.Label{publish.Latest, publish.Prev} {
			if !b.IsLabelled(l) || i.IsLabelled(publish.Latest) {
				continue
			}
			if err := c.Patch(ctx, i, t.named(i, l).Set(openstackapi.PropNext, b.Prop(openstackapi.PropNext))); err != nil {
				return err
			}
		}
		if err := c.remove(ctx, b); err != nil {
			return fmt.Errorf("cannot remove image %s, which is not complete: %w", b.ID, err)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
