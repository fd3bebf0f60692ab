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
// Import by web-download is not used; the cloud gets the bytes from here.
package glance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
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
	// AllowHTTP allows endpoints without TLS, which see the credentials and tokens.
	AllowHTTP bool `yaml:"allow_http,omitempty"`
	// AllowUnverifiedTLS allows "verify: false" in clouds.yaml.
	AllowUnverifiedTLS bool `yaml:"allow_unverified_tls,omitempty"`
}

// Target is a cloud. It implements [publish.Target] and may be used concurrently.
// It logs in when it is used for the first time.
type Target struct {
	config Config
	logger *slog.Logger
	now    func() time.Time
	// How long to wait; the tests have less patience.
	pause    time.Duration // before the first repetition of a call
	stalled  time.Duration // before an upload that moves no byte is given up
	settle   time.Duration // for the cloud to end an upload that was cut
	patience time.Duration // for an image to become active

	mu     sync.Mutex
	client *client // nil before the first use
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
	for name := range c.Properties {
		if name == "" || len(name) > 255 || strings.HasPrefix(name, ownPrefix) || slices.Contains(attributes, name) {
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
	named, err := c.list(ctx, map[string]string{"name": "in:" + image + "_latest," + image + "_prev"})
	if err != nil {
		return nil, err
	}
	for _, i := range named {
		if !c.isOwn(i, image) {
			entries = append(entries, publish.Entry{
				ID: i.ID, Image: image, Foreign: true,
				Problem: fmt.Sprintf("an image of somebody else is called %s; users who ask by name may get it", i.Name),
			})
		}
	}
	return entries, nil
}

func isAwaited(i *image) bool {
	return i.isLabelled(publish.Latest) && i.prop(propNext) == string(publish.Prev)
}

// entry says what an image of the factory is. awaited is that another image is to
// become prev when latest moves.
func (t *Target) entry(i *image, awaited bool) publish.Entry {
	e := publish.Entry{
		ID: i.ID, Image: i.prop(propImage), Build: i.build(), Digest: i.prop(propRelease),
		Withdrawn: i.prop(propWithdrawn), Problem: i.problem(), Hidden: i.Hidden,
	}
	e.Created, _ = time.Parse(time.RFC3339, i.Created) // the zero time if the cloud does not say
	if i.Protected && i.prop(propProtected) == "" {
		e.Held = "somebody else has protected it"
	}
	if i.isLabelled(publish.Latest) && !i.Hidden && i.Visibility == t.config.Visibility {
		e.Labels = append(e.Labels, publish.Latest)
		if isAwaited(i) {
			e.Labels = append(e.Labels, publish.Prev)
		}
	}
	if i.isLabelled(publish.Prev) && !i.Hidden && i.Visibility == t.config.Visibility && (i.prop(propNext) != nextDated || !awaited) {
		e.Labels = append(e.Labels, publish.Prev)
	}
	if len(e.Labels) == 0 {
		e.LabelLost, _ = time.Parse(time.RFC3339, i.prop(propLost)) // the zero time if it was not noted
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
	i, err := c.get(ctx, s.Entry.ID)
	if s.Op == publish.Remove && openstackapi.IsStatus(err, http.StatusNotFound) {
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
		p := patch{}.set(propWithdrawn, s.Reason)
		if i.isLabelled(publish.Prev) && i.prop(propNext) == nextDated {
			p = p.and(t.dated(i)) // nobody waits for what is to replace it
		}
		return c.patch(ctx, i, p)
	case publish.ClearWithdrawn:
		return c.patch(ctx, i, patch{}.set(propWithdrawn, ""))
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
	if p := i.problem(); p != "" {
		return fmt.Errorf("%w: image %s: %s", publish.ErrIncomplete, i.ID, p)
	}
	images, err := c.own(ctx, s.Entry.Image)
	if err != nil {
		return err
	}
	for _, e := range s.From { // which a list that lags may lack
		if slices.ContainsFunc(images, func(i *image) bool { return i.ID == e.ID }) {
			continue
		}
		other, err := c.get(ctx, e.ID)
		if openstackapi.IsStatus(err, http.StatusNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if c.isOwn(other, s.Entry.Image) {
			images = append(images, other)
		}
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
	waits := i.isLabelled(publish.Latest)
	p := patch{}.set(propNext, string(publish.Prev))
	if !waits {
		p = t.named(i, publish.Prev)
	}
	if err := c.patch(ctx, i, p); err != nil {
		return err
	}
	for _, o := range others {
		p := patch{}
		switch {
		case o.isLabelled(publish.Latest) && o.prop(propNext) != "":
			p = p.set(propNext, "")
		case o.isLabelled(publish.Prev) && waits && o.problem() == "" && o.prop(propWithdrawn) == "":
			p = p.set(propNext, nextDated)
			if o.prop(propNext) != nextDated {
				p = p.set(propLost, t.now().UTC().Format(time.RFC3339))
			}
		case o.isLabelled(publish.Prev):
			p = t.dated(o)
		}
		if err := c.patch(ctx, o, p); err != nil {
			return err
		}
	}
	return nil
}

// assignLatest names the image latest, and then the one that was latest prev.
func (t *Target) assignLatest(ctx context.Context, c *client, s publish.Step, i *image, others []*image) error {
	p := t.named(i, publish.Latest)
	if i.isLabelled(publish.Prev) && i.prop(propNext) != nextDated || i.isLabelled(publish.Latest) && i.prop(propNext) == string(publish.Prev) {
		p = p.set(propNext, string(publish.Prev)) // it has both
	}
	if err := c.patch(ctx, i, p); err != nil {
		return err
	}
	// What is latest now and was not when the step was planned is another run's.
	now, err := c.own(ctx, s.Entry.Image)
	if err != nil {
		return err
	}
	for _, o := range now {
		if o.ID == i.ID || !o.isLabelled(publish.Latest) || o.Hidden || o.problem() != "" || slices.ContainsFunc(s.From, func(e publish.Entry) bool { return e.ID == o.ID }) {
			continue
		}
		if slices.ContainsFunc(others, func(old *image) bool { return old.ID == o.ID && old.Name == o.Name }) {
			continue // it had the name, but not the rest that makes it latest
		}
		if order := cmp.Or(o.build().Compare(i.build()), cmp.Compare(i.ID, o.ID)); order > 0 {
			return errors.Join(fmt.Errorf("another run has made image %s, of build %s, latest at the same time", o.ID, o.build()), c.patch(ctx, i, t.dated(i)))
		}
		others = append(slices.DeleteFunc(others, func(old *image) bool { return old.ID == o.ID }), o)
	}
	for _, o := range others {
		if !o.isLabelled(publish.Latest) {
			continue
		}
		p := t.dated(o)
		if o.prop(propNext) == string(publish.Prev) && o.problem() == "" {
			p = t.named(o, publish.Prev)
		}
		if err := c.patch(ctx, o, p); err != nil {
			return err
		}
	}
	for _, o := range others {
		if o.isLabelled(publish.Prev) && o.prop(propNext) == nextDated {
			if err := c.patch(ctx, o, t.dated(o)); err != nil {
				return err
			}
		}
	}
	return nil
}

// named is the change that gives an image the name of a label, for users to see.
func (t *Target) named(i *image, l publish.Label) patch {
	return patch{}.set("name", i.prop(propImage)+"_"+string(l)).set("os_hidden", false).
		set("visibility", t.config.Visibility).set(propNext, "").set(propLost, "")
}

// dated is the change that hides an image under its date.
func (t *Target) dated(i *image) patch {
	p := patch{}.set("name", cmp.Or(i.prop(propName), i.prop(propImage)+"_"+i.build().String())).set("os_hidden", true).set(propNext, "")
	if i.prop(propLost) == "" {
		p = p.set(propLost, t.now().UTC().Format(time.RFC3339))
	}
	return p
}
