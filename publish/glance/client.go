package glance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
)

// renewBefore is how long a token should be good for when an upload begins.
const renewBefore = 30 * time.Minute

// client calls the Image service.
type client struct{ *openstackapi.Client }

var paths = openstackapi.Paths{
	Image: "/v2/images/", List: "/v2/images",
	Patch: "/v2/images/", PatchType: "application/openstack-images-v2.1-json-patch",
}

// connect logs in, the first time that it is called.
func (t *Target) connect(ctx context.Context) (*client, error) {
	c, err := t.session.Client(ctx, openstackapi.Config{
		Cloud: t.config.Cloud, Region: t.config.Region, Pause: t.pause, Timeout: t.timeout, Logger: t.logger, Journal: t.Journal, Paths: paths,
		AllowHTTP: t.config.AllowHTTP, AllowUnverifiedTLS: t.config.AllowUnverifiedTLS,
	})
	return &client{c}, err
}

// remove deletes the image. One that the factory has protected is released before.
func (c *client) remove(ctx context.Context, i *image) error {
	if i.Protected {
		if i.Prop(propProtected) == "" {
			return fmt.Errorf("somebody else has protected image %s", i.ID)
		}
		if err := c.Patch(ctx, i, patch{}.Set("protected", false)); err != nil {
			return err
		}
	}
	if err := c.Delete(ctx, i.ID); !openstackapi.IsGone(err) {
		return err
	}
	return nil
}

// own returns the factory's images of the name, each once.
func (c *client) own(ctx context.Context, name string) ([]*image, error) {
	var out []*image
	for _, hidden := range []string{"false", "true"} {
		images, err := c.List(ctx, map[string]string{openstackapi.PropImage: name, "owner": c.Project, "os_hidden": hidden})
		if err != nil {
			return nil, err
		}
		for _, i := range images {
			known := slices.ContainsFunc(out, func(o *image) bool { return o.ID == i.ID })
			if !known && c.isOwn(i, name) {
				out = append(out, i)
			}
		}
	}
	return out, nil
}

// isOwn reports whether the image is one that this factory made of the name.
func (c *client) isOwn(i *image, name string) bool {
	return i.Owner == c.Project && i.Prop(openstackapi.PropImage) == name && i.Prop(openstackapi.PropRelease) != ""
}
