// Package ims publishes releases as images of Open Telekom Cloud's Image Management
// Service, after its API reference
// (https://docs.otc.t-systems.com/image-management-service/api-ref/).
//
// The service makes images of objects. So a release is brought to a bucket as package
// publish/obs does it, with all its care; the service imports the qcow2 file, which is
// waited for; and then the objects are removed. What an image is called says what it is:
//
//	Standard_Debian_12_latest       the release to use
//	Standard_Debian_12_prev         the one before it
//	Standard_Debian_12_20261021_0   an older one
//
// An image is the factory's by its owner, the project of the credentials, and the tag
// imagefactory-image, a hash of the name by which a list finds it; an image of somebody
// else is never changed. These properties say what it is:
//
//	imagefactory_image       Standard_Debian_12
//	imagefactory_build       20261122-031507
//	imagefactory_release     SHA-256 of the release's SHA256SUMS; set last
//	imagefactory_name        the name without a label, NAME_YYYYMMDD_n
//	imagefactory_next        prev: the label that it gets when what is latest moves
//	imagefactory_label_lost  when it lost its last label, UTC
//	imagefactory_withdrawn   why it was taken back
//
// While it is imported an image can have no properties. Then the tags
// imagefactory-build and imagefactory-release tell, so that who publishes
// again after a process died goes on with it.
//
// # Rotation
//
// A call renames one image. The new image gets the name NAME_latest first; only then
// the one before becomes NAME_prev, and the one that was prev gets its date. In between,
// a list by name returns two, both complete; the next run completes what was cut. Runs
// exclude each other by the lease that publish/obs has in the bucket.
//
// # What counts as complete
//
// The service tells no digest of what it has. An image is complete if the object was
// what was signed, the job says SUCCESS, and the image is active, not empty, and has
// imagefactory_release. A job that says SUCCESS with an image that is empty or not
// active has failed; the image is removed.
//
// # Limits
//
// The service reads qcow2 files of up to 128 GB. An object that is under import is read
// by the service with the rights of the project: bucket and project are of one account
// and region. The documents have no call that makes an image public or hides it: Public
// asks for it as the OpenStack API has it, which is the cloud operator's to allow; what
// has no label is visible by its date. Extension attributes have no upper-case letters.
package ims

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/obs"
)

// DefaultPrefix begins the keys of objects while they are imported.
const DefaultPrefix = "ims-import"

// Config says where and how images are registered.
type Config struct {
	// Cloud is the name of a cloud in clouds.yaml, which is searched where
	// openstack clients do. Required.
	Cloud string `yaml:"cloud"`
	// Region is that of the cloud, if clouds.yaml names none or another.
	Region string `yaml:"region,omitempty"`
	// Bucket is where the service finds what it imports; its storage class is
	// Standard. Its prefix, DefaultPrefix if empty, must be no obs target's: what
	// lies there is removed.
	Bucket obs.Config `yaml:"bucket"`
	// Quick imports by the call for large files, which the service documents for RAW
	// and ZVHD2 alone.
	Quick bool `yaml:"quick,omitempty"`
	// Members are the IDs of projects that images are shared with.
	Members []string `yaml:"members,omitempty"`
	// Public makes what gets a label public.
	Public bool `yaml:"public,omitempty"`
	// Description is the images', up to 1024 characters in one line without < and >.
	Description string `yaml:"description,omitempty"`
	// Properties are added to those of the release. The latter win.
	Properties map[string]string `yaml:"properties,omitempty"`
	// MinRAMMiB is the memory that an image needs.
	MinRAMMiB int `yaml:"min_ram_mib,omitempty"`
	// AllowHTTP allows endpoints without TLS, which see the credentials and tokens.
	AllowHTTP bool `yaml:"allow_http,omitempty"`
	// AllowUnverifiedTLS allows "verify: false" in clouds.yaml.
	AllowUnverifiedTLS bool `yaml:"allow_unverified_tls,omitempty"`
}

// Target is a project of the cloud. It implements [publish.Target] and
// [publish.Locker] and may be used concurrently. It logs in when it is used for the
// first time; its fields are set before that.
type Target struct {
	// Journal is called for each request, also to the bucket and concurrently. If nil,
	// nobody is.
	Journal func(publish.Call)
	// Progress is called with the bytes of the release that are in the bucket and their
	// sum, by one goroutine at a time. If nil, nobody is.
	Progress func(r *publish.Release, done, total int64)

	config Config
	bucket stage
	logger *slog.Logger
	now    func() time.Time
	// How long to wait; the tests have less patience.
	pause    time.Duration // before the first repetition of a call, and between looks at a job
	patience time.Duration // for an import, and for the service to have room for it

	timeout time.Duration // of a call; if 0, openstackapi's

	session openstackapi.Session
}

// stage is where releases lie while they are imported: an [obs.Target].
type stage interface {
	publish.Target
	publish.Locker
}

// New returns the target. If logger is nil, nobody is told of calls that are repeated.
func New(c Config, logger *slog.Logger) (*Target, error) {
	if c.Cloud == "" {
		return nil, errors.New("ims: the cloud's name is missing")
	}
	if len(c.Members) > 0 && c.Public {
		return nil, errors.New("ims: an image that is public has no members")
	}
	if err := checkDescription(c.Description); err != nil {
		return nil, fmt.Errorf("ims: description: %w", err)
	}
	for name := range c.Properties {
		if err := checkProperty(name); err != nil {
			return nil, fmt.Errorf("ims: properties: %w", err)
		}
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	c.Bucket.Prefix = cmp.Or(c.Bucket.Prefix, DefaultPrefix)
	t := &Target{config: c, logger: logger, now: time.Now, pause: time.Second, patience: 2 * time.Hour}
	driver := obs.Driver{Logger: logger, Journal: func(c publish.Call) {
		if t.Journal != nil {
			t.Journal(c)
		}
	}}
	made, err := driver.New(func(config any) error {
		*config.(*obs.Config) = c.Bucket
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ims: bucket: %w", err)
	}
	bucket := made.(*obs.Target)
	bucket.Progress = func(r *publish.Release, done, total int64) {
		if t.Progress != nil {
			t.Progress(r, done, total)
		}
	}
	t.bucket = bucket
	return t, nil
}

// nameForm is that of names (API reference, "Image Attributes").
var nameForm = regexp.MustCompile(`^[A-Za-z0-9._-]([A-Za-z0-9._ -]{0,126}[A-Za-z0-9._-])?$`)

// checkNames refuses an image of which a name would not be taken.
func checkNames(image string) error {
	for _, suffix := range []string{"_latest", "_20060102_00"} {
		if !nameForm.MatchString(image + suffix) {
			return fmt.Errorf("%w: %.140q: want up to 128 letters, digits, dots, underscores and hyphens", ErrName, image+suffix)
		}
	}
	return nil
}

func checkDescription(s string) error {
	if utf8.RuneCountInString(s) > 1024 || strings.ContainsAny(s, "\r\n<>") || !utf8.ValidString(s) {
		return fmt.Errorf("%w: want up to 1024 characters in one line without < and >", ErrDescription)
	}
	return nil
}

// propertyForm is that of attributes that a PATCH can set.
var propertyForm = regexp.MustCompile(`^[a-z0-9_.:-]{1,255}$`)

func checkProperty(name string) error {
	if !propertyForm.MatchString(name) || strings.HasPrefix(name, openstackapi.Own) {
		return fmt.Errorf("%.60q is no attribute that can be set; want lower-case letters, digits and _.:-", name)
	}
	return nil
}

// Lock implements [publish.Locker].
func (t *Target) Lock(ctx context.Context, image string) (func(), error) {
	return t.bucket.Lock(ctx, image)
}

// List implements [publish.Target]. An entry's ID is the cloud's.
func (t *Target) List(ctx context.Context, image string) ([]publish.Entry, error) {
	entries, err := t.list(ctx, image)
	if err != nil {
		return nil, fmt.Errorf("cannot list images of %s: %w", t.config.Cloud, err)
	}
	return entries, nil
}

func (t *Target) list(ctx context.Context, name string) ([]publish.Entry, error) {
	if err := publish.CheckImage(name); err != nil {
		return nil, err
	}
	c, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	own, err := c.own(ctx, name)
	if err != nil {
		return nil, err
	}
	var entries []publish.Entry
	for _, i := range own {
		entries = append(entries, entry(name, i, own))
	}
	for _, label := range []publish.Label{publish.Latest, publish.Prev} {
		named, err := c.List(ctx, map[string]string{"name": name + "_" + string(label)})
		if err != nil {
			return nil, err
		}
		for _, i := range named {
			if !c.isOwn(i, name) {
				entries = append(entries, openstackapi.ForeignNamed(i, name))
			}
		}
	}
	return entries, nil
}

// awaited reports that the image is latest and to become prev when that moves.
func awaited(i *image) bool {
	return i.IsLabelled(publish.Latest) && i.Prop(openstackapi.PropNext) == string(publish.Prev)
}

// entry says what an image of the factory is. What is called prev is not, while another
// image awaits to become it.
func entry(name string, i *image, own []*image) publish.Entry {
	e := publish.Entry{
		ID: i.ID, Image: name, Build: build(i), Digest: i.Prop(openstackapi.PropRelease),
		Withdrawn: i.Prop(openstackapi.PropWithdrawn), Problem: problem(i),
	}
	e.Created, _ = time.Parse(time.RFC3339, i.Created) // the zero time if the service does not say
	if i.Protected {
		e.Held = "somebody else has protected it"
	}
	if i.IsLabelled(publish.Latest) {
		e.Labels = append(e.Labels, publish.Latest)
	}
	if awaited(i) || i.IsLabelled(publish.Prev) && !slices.ContainsFunc(own, awaited) {
		e.Labels = append(e.Labels, publish.Prev)
	}
	if len(e.Labels) == 0 {
		e.LabelLost, _ = time.Parse(time.RFC3339, i.Prop(openstackapi.PropLost)) // the zero time if it was not noted
	}
	return e
}

// Apply implements [publish.Target].
func (t *Target) Apply(ctx context.Context, s publish.Step) error {
	if s.Entry.Build.IsZero() || s.Entry.ID == "" {
		return errors.New("the step names no image")
	}
	c, err := t.connect(ctx)
	if err != nil {
		return err
	}
	i, err := c.Get(ctx, s.Entry.ID)
	if s.Op == publish.Remove && openstackapi.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !c.isOwn(i, s.Entry.Image) {
		return fmt.Errorf("image %s is not the factory's", i.ID)
	}
	switch s.Op {
	case publish.Assign:
		return t.assign(ctx, c, s, i)
	case publish.MarkWithdrawn:
		return c.Patch(ctx, i, patch{}.Set(openstackapi.PropWithdrawn, s.Reason))
	case publish.ClearWithdrawn:
		return c.Patch(ctx, i, patch{}.Set(openstackapi.PropWithdrawn, ""))
	case publish.Remove:
		if i.IsLabelled(publish.Latest) || i.IsLabelled(publish.Prev) {
			return fmt.Errorf("image %s is %s", i.ID, i.Name)
		}
		return c.remove(ctx, i)
	default:
		return fmt.Errorf("a cloud has no step %q", s.Op)
	}
}

// assign gives the image the label and takes it from all others.
func (t *Target) assign(ctx context.Context, c *client, s publish.Step, i *image) error {
	if p := problem(i); p != "" {
		return fmt.Errorf("%w: image %s: %s", publish.ErrIncomplete, i.ID, p)
	}
	others, err := c.own(ctx, s.Entry.Image)
	if err != nil {
		return err
	}
	if others, err = c.WithListed(ctx, others, s.From); err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(o *image) bool { return o.ID == i.ID || o.Prop(openstackapi.PropImage) == "" })
	if s.Label == publish.Prev {
		return t.assignPrev(ctx, c, i, others)
	}
	return t.assignLatest(ctx, c, i, others)
}

// assignPrev makes the image prev: by its name, or where it is latest yet, by a note.
// Then what is called prev keeps that name until latest moves.
func (t *Target) assignPrev(ctx context.Context, c *client, i *image, others []*image) error {
	waits := i.IsLabelled(publish.Latest)
	p := patch{}.Set(openstackapi.PropNext, string(publish.Prev))
	if !waits {
		p = t.named(i, publish.Prev)
	}
	if err := t.relabel(ctx, c, i, p); err != nil {
		return err
	}
	for _, o := range others {
		p := patch{}
		switch {
		case awaited(o):
			p = p.Set(openstackapi.PropNext, "")
		case o.IsLabelled(publish.Prev) && !waits:
			p = t.dated(o)
		}
		if err := t.relabel(ctx, c, o, p); err != nil {
			return err
		}
	}
	return nil
}

// assignLatest names the image latest, then the one that awaits it prev, and last gives
// the one that was prev its date.
func (t *Target) assignLatest(ctx context.Context, c *client, i *image, others []*image) error {
	p := t.named(i, publish.Latest)
	both := awaited(i) || i.IsLabelled(publish.Prev) && !slices.ContainsFunc(others, awaited)
	if both {
		p = p.Set(openstackapi.PropNext, string(publish.Prev))
	}
	if err := t.relabel(ctx, c, i, p); err != nil {
		return err
	}
	moved := both
	var before []*image // called prev until now
	for _, o := range others {
		p := patch{}
		switch {
		case o.IsLabelled(publish.Prev):
			before = append(before, o)
		case awaited(o) && problem(o) == "":
			p, moved = t.named(o, publish.Prev), true
		case o.IsLabelled(publish.Latest):
			p = t.dated(o)
		}
		if err := t.relabel(ctx, c, o, p); err != nil {
			return err
		}
	}
	for n, o := range before {
		if n == 0 && !moved {
			continue // it stays
		}
		if err := t.relabel(ctx, c, o, t.dated(o)); err != nil {
			return err
		}
	}
	return nil
}

// relabel changes an image. One that is not active cannot be changed, and hinders nobody.
func (t *Target) relabel(ctx context.Context, c *client, i *image, p patch) error {
	if i.Status != "active" {
		return nil
	}
	return c.Patch(ctx, i, p)
}

// named is the change that gives an image the name of a label.
func (t *Target) named(i *image, l publish.Label) patch {
	p := patch{}.Set("name", i.Prop(openstackapi.PropImage)+"_"+string(l)).Set(openstackapi.PropNext, "").Set(openstackapi.PropLost, "")
	if t.config.Public {
		p = p.Set("visibility", "public")
	}
	return p
}

// dated is the change that gives an image the name of its date.
func (t *Target) dated(i *image) patch {
	p := patch{}.Set("name", cmp.Or(i.Prop(openstackapi.PropName), i.Prop(openstackapi.PropImage)+"_"+build(i).String())).Set(openstackapi.PropNext, "")
	if i.Prop(openstackapi.PropLost) == "" {
		p = p.Set(openstackapi.PropLost, t.now().UTC().Format(time.RFC3339))
	}
	return p
}
