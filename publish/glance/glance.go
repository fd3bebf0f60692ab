// Package glance publishes releases as images of an OpenStack cloud, through the
// Image service API v2 (https://docs.openstack.org/api-ref/image/v2/).
//
// Of each release the qcow2 file becomes an image. What an image is called says
// what it is to users:
//
//	Standard_Debian_12_latest       the release to use
//	Standard_Debian_12_prev         the one before it
//	Standard_Debian_12_20261021_0   an older one, hidden (os_hidden): by its name or ID
//
// Names are not unique in Glance and belong to whoever takes them. So an image is the
// factory's by the properties that it carries and by its owner, the project of the
// credentials; its key is the cloud's ID. An image of somebody else is never
// changed: if it has one of the names above it is listed as foreign.
//
//	imagefactory_image       Standard_Debian_12
//	imagefactory_build       20261122-031507
//	imagefactory_release     SHA-256 of the release's SHA256SUMS
//	imagefactory_name        the name without a label, NAME_YYYYMMDD_n
//	imagefactory_verified    os_hash_value of the image once it was compared with the file
//	imagefactory_next        the label that it gets when what is latest moves
//	imagefactory_label_lost  when it lost its last label, UTC
//	imagefactory_withdrawn   why it was taken back
//
// The other properties are those of the release, the Config's, and image_build_date.
//
// # Rotation
//
// A label moves by renaming, and a call renames one image. The new image gets the
// name NAME_latest first; only then the one before becomes NAME_prev. Between these
// two calls a list by name returns both, and both are complete releases; who needs
// one takes the newest. A run that is cut between them leaves both, and the next run
// completes it. There is always one, once there was one. Prev moves in the same way and
// at the same moment: until then, the image that is to become prev and the one that is
// to leave have it noted in imagefactory_next.
//
// # What counts as complete
//
// An image is complete if it is active, and the hash that Glance made of what it
// received is that of the file, which Push has read itself. Glance names the
// algorithm (os_hash_algo); sha512, its default, and sha256 are known. An image that
// is not complete never gets a label, and the next Push of the release removes it.
//
// # Limits
//
// Glance has nothing to exclude two runs with. Of two that name an image latest at the same
// time, the newer build wins, of one build the smaller ID; the other run says so and
// fails. An image of the factory whose protection somebody else has set is never
// removed, nor is one that Glance refuses to remove because it is in use.
// What a WebDownload's host is called may mean another machine to the cloud than here;
// what it fetched is compared all the same.
package glance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Config says where and how images are registered.
type Config struct {
	// Cloud is the name of a cloud in clouds.yaml, which is searched where
	// openstack clients do. Required.
	Cloud string `yaml:"cloud"`
	// Region is that of the cloud, if clouds.yaml names none or another.
	Region string `yaml:"region,omitempty"`
	// Visibility is what latest and prev have: private (the default), shared,
	// community or public. Others stay as they were.
	Visibility string `yaml:"visibility,omitempty"`
	// Members are the IDs of projects that a shared image is offered to.
	Members []string `yaml:"members,omitempty"`
	// Protected keeps images from being deleted by anything but a Remove step.
	Protected bool `yaml:"protected,omitempty"`
	// Tags are the images' tags.
	Tags []string `yaml:"tags,omitempty"`
	// Properties are added to those of the release. The latter win.
	Properties map[string]string `yaml:"properties,omitempty"`
	// MinRAMMiB is the memory that an image needs.
	MinRAMMiB int `yaml:"min_ram_mib,omitempty"`
	// SCS0102 refuses images whose metadata do not conform to SCS-0102 v1.
	SCS0102 bool `yaml:"scs_0102,omitempty"`
	// Import uploads by the interoperable image import (glance-direct) rather
	// than directly.
	Import bool `yaml:"import,omitempty"`
	// WebDownload is the URL of a directory or bucket where releases are published, as
	// package publish/web reads it: the cloud fetches images from there itself. It has to
	// be published there before.
	WebDownload string `yaml:"web_download,omitempty"`
	// AllowLocalAddresses allows a WebDownload from link-local and loopback addresses,
	// which are another place to the cloud than here.
	AllowLocalAddresses bool `yaml:"allow_local_addresses,omitempty"`
	// AllowHTTP allows endpoints without TLS, which see the credentials and tokens.
	AllowHTTP bool `yaml:"allow_http,omitempty"`
	// AllowUnverifiedTLS allows "verify: false" in clouds.yaml.
	AllowUnverifiedTLS bool `yaml:"allow_unverified_tls,omitempty"`
}

// Target is a cloud. It implements [publish.Target] and may be used concurrently.
// It logs in when it is used for the first time; its fields are set before that.
type Target struct {
	// Journal is called for each request, also concurrently. If nil, nobody is.
	Journal func(publish.Call)
	// Progress is called with the bytes of the image that were sent and their sum, by
	// one goroutine at a time; they begin anew with each attempt. If nil, nobody is.
	Progress func(r *publish.Release, done, total int64)

	config Config
	logger *slog.Logger
	now    func() time.Time
	// How long to wait; the tests have less patience.
	pause    time.Duration // before the first repetition of a call
	stalled  time.Duration // before an upload that moves no byte is given up
	settle   time.Duration // for the cloud to end an upload that was cut
	patience time.Duration // for an image to become active

	timeout time.Duration // of a call; if 0, openstackapi's

	session openstackapi.Session
}

// New returns the target. If logger is nil, nobody is told of calls that are repeated.
func New(c Config, logger *slog.Logger) (*Target, error) {
	if c.Cloud == "" {
		return nil, errors.New("glance: the cloud's name is missing")
	}
	c.Visibility = cmp.Or(c.Visibility, "private")
	if !slices.Contains([]string{"private", "shared", "community", "public"}, c.Visibility) {
		return nil, fmt.Errorf("glance: unknown visibility %.40q: want private, shared, community or public", c.Visibility)
	}
	if len(c.Members) > 0 && c.Visibility != "shared" {
		return nil, fmt.Errorf("glance: an image that is %s has no members; want visibility: shared", c.Visibility)
	}
	if c.WebDownload != "" {
		if err := c.checkWebDownload(); err != nil {
			return nil, fmt.Errorf("glance: %w", err)
		}
		if c.Import {
			return nil, errors.New("glance: import and web_download are two ways of an image: want one")
		}
	}
	for name := range c.Properties {
		if name == "" || len(name) > 255 || strings.HasPrefix(name, openstackapi.Own) || openstackapi.IsAttribute(name) {
			return nil, fmt.Errorf("glance: properties: %.60q is not for a definition to set", name)
		}
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Target{
		config: c, logger: logger, now: time.Now,
		pause: time.Second, stalled: 10 * time.Minute, settle: 2 * time.Minute, patience: 30 * time.Minute,
	}, nil
}

// List implements [publish.Target]. An entry's ID is the cloud's.
func (t *Target) List(ctx context.Context, image string) ([]publish.Entry, error) {
	entries, err := t.list(ctx, image)
	if err != nil {
		return nil, fmt.Errorf("cannot list images of %s: %w", t.config.Cloud, err)
	}
	return entries, nil
}

func (t *Target) list(ctx context.Context, image string) ([]publish.Entry, error) {
	if err := publish.CheckImage(image); err != nil {
		return nil, err
	}
	c, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	own, err := c.own(ctx, image)
	if err != nil {
		return nil, err
	}
	// Without an image that is to become prev, the one that was to leave is still prev:
	// a run was cut between the two.
	awaited := slices.ContainsFunc(own, isAwaited)
	var entries []publish.Entry
	for _, i := range own {
		entries = append(entries, t.entry(i, awaited))
	}
	named, err := c.List(ctx, map[string]string{"name": "in:" + image + "_latest," + image + "_prev"})
	if err != nil {
		return nil, err
	}
	for _, i := range named {
		if !c.isOwn(i, image) {
			entries = append(entries, openstackapi.ForeignNamed(i, image))
		}
	}
	return entries, nil
}

func isAwaited(i *image) bool {
	return i.IsLabelled(publish.Latest) && i.Prop(openstackapi.PropNext) == string(publish.Prev)
}

// entry says what an image of the factory is. awaited is that another image is to
// become prev when latest moves.
func (t *Target) entry(i *image, awaited bool) publish.Entry {
	e := publish.Entry{
		ID: i.ID, Image: i.Prop(openstackapi.PropImage), Build: build(i), Digest: i.Prop(openstackapi.PropRelease),
		Withdrawn: i.Prop(openstackapi.PropWithdrawn), Problem: problem(i), Hidden: i.Hidden,
	}
	e.Created, _ = time.Parse(time.RFC3339, i.Created) // the zero time if the cloud does not say
	if i.Protected && i.Prop(propProtected) == "" {
		e.Held = "somebody else has protected it"
	}
	if i.IsLabelled(publish.Latest) && !i.Hidden && i.Visibility == t.config.Visibility {
		e.Labels = append(e.Labels, publish.Latest)
		if isAwaited(i) {
			e.Labels = append(e.Labels, publish.Prev)
		}
	}
	if i.IsLabelled(publish.Prev) && !i.Hidden && i.Visibility == t.config.Visibility && (i.Prop(openstackapi.PropNext) != nextDated || !awaited) {
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
		p := patch{}.Set(openstackapi.PropWithdrawn, s.Reason)
		if i.IsLabelled(publish.Prev) && i.Prop(openstackapi.PropNext) == nextDated {
			p = p.And(t.dated(i)) // nobody waits for what is to replace it
		}
		return c.Patch(ctx, i, p)
	case publish.ClearWithdrawn:
		return c.Patch(ctx, i, patch{}.Set(openstackapi.PropWithdrawn, ""))
	case publish.Remove:
		if len(t.entry(i, true).Labels) > 0 {
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
	images, err := c.own(ctx, s.Entry.Image)
	if err != nil {
		return err
	}
	if images, err = c.WithListed(ctx, images, s.From); err != nil {
		return err
	}
	images = slices.DeleteFunc(images, func(o *image) bool { return o.ID == i.ID })
	if s.Label == publish.Prev {
		return t.assignPrev(ctx, c, i, images)
	}
	return t.assignLatest(ctx, c, s, i, images)
}

// assignPrev makes the image prev: by its name, or where it is latest yet, by a
// note. Then the one that was prev keeps its name until latest moves.
func (t *Target) assignPrev(ctx context.Context, c *client, i *image, others []*image) error {
	waits := i.IsLabelled(publish.Latest)
	p := patch{}.Set(openstackapi.PropNext, string(publish.Prev))
	if !waits {
		p = t.named(i, publish.Prev)
	}
	if err := c.Patch(ctx, i, p); err != nil {
		return err
	}
	for _, o := range others {
		p := patch{}
		switch {
		case o.IsLabelled(publish.Latest) && o.Prop(openstackapi.PropNext) != "":
			p = p.Set(openstackapi.PropNext, "")
		case o.IsLabelled(publish.Prev) && waits && problem(o) == "" && o.Prop(openstackapi.PropWithdrawn) == "":
			p = p.Set(openstackapi.PropNext, nextDated)
			if o.Prop(openstackapi.PropNext) != nextDated {
				p = p.Set(openstackapi.PropLost, t.now().UTC().Format(time.RFC3339))
			}
		case o.IsLabelled(publish.Prev):
			p = t.dated(o)
		}
		if err := c.Patch(ctx, o, p); err != nil {
			return err
		}
	}
	return nil
}

// assignLatest names the image latest, and then the one that was latest prev.
func (t *Target) assignLatest(ctx context.Context, c *client, s publish.Step, i *image, others []*image) error {
	p := t.named(i, publish.Latest)
	if i.IsLabelled(publish.Prev) && i.Prop(openstackapi.PropNext) != nextDated || i.IsLabelled(publish.Latest) && i.Prop(openstackapi.PropNext) == string(publish.Prev) {
		p = p.Set(openstackapi.PropNext, string(publish.Prev)) // it has both
	}
	if err := c.Patch(ctx, i, p); err != nil {
		return err
	}
	// What is latest now and was not when the step was planned is another run's.
	now, err := c.own(ctx, s.Entry.Image)
	if err != nil {
		return err
	}
	for _, o := range now {
		latest := o.IsLabelled(publish.Latest) && !o.Hidden && o.Visibility == t.config.Visibility && problem(o) == ""
		if o.ID == i.ID || !latest || slices.ContainsFunc(s.From, func(e publish.Entry) bool { return e.ID == o.ID }) {
			continue
		}
		if order := cmp.Or(build(o).Compare(build(i)), cmp.Compare(i.ID, o.ID)); order > 0 {
			return errors.Join(fmt.Errorf("another run has made image %s, of build %s, latest at the same time", o.ID, build(o)), c.Patch(ctx, i, t.dated(i)))
		}
		others = append(slices.DeleteFunc(others, func(old *image) bool { return old.ID == o.ID }), o)
	}
	for _, o := range others {
		if !o.IsLabelled(publish.Latest) {
			continue
		}
		p := t.dated(o)
		if o.Prop(openstackapi.PropNext) == string(publish.Prev) && problem(o) == "" {
			p = t.named(o, publish.Prev)
		}
		if err := c.Patch(ctx, o, p); err != nil {
			return err
		}
	}
	for _, o := range others {
		if o.IsLabelled(publish.Prev) && o.Prop(openstackapi.PropNext) == nextDated {
			if err := c.Patch(ctx, o, t.dated(o)); err != nil {
				return err
			}
		}
	}
	return nil
}

// named is the change that gives an image the name of a label, for users to see.
func (t *Target) named(i *image, l publish.Label) patch {
	return patch{}.Set("name", i.Prop(openstackapi.PropImage)+"_"+string(l)).Set("os_hidden", false).
		Set("visibility", t.config.Visibility).Set(openstackapi.PropNext, "").Set(openstackapi.PropLost, "")
}

// dated is the change that hides an image under its date.
func (t *Target) dated(i *image) patch {
	p := patch{}.Set("name", cmp.Or(i.Prop(openstackapi.PropName), i.Prop(openstackapi.PropImage)+"_"+build(i).String())).Set("os_hidden", true).Set(openstackapi.PropNext, "")
	if i.Prop(openstackapi.PropLost) == "" {
		p = p.Set(openstackapi.PropLost, t.now().UTC().Format(time.RFC3339))
	}
	return p
}
