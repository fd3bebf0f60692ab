package ims

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
)

// client calls the service.
type client struct{ *openstackapi.Client }

var paths = openstackapi.Paths{
	Image: "/v2/images/", List: "/v2/cloudimages",
	Patch: "/v2/cloudimages/", PatchType: "application/json",
}

// connect logs in, the first time that it is called.
func (t *Target) connect(ctx context.Context) (*client, error) {
	c, err := t.session.Client(ctx, openstackapi.Config{
		Cloud: t.config.Cloud, Region: t.config.Region, Pause: t.pause, Timeout: t.timeout, Logger: t.logger, Journal: t.Journal, Paths: paths, Typed: typed,
		AllowHTTP: t.config.AllowHTTP, AllowUnverifiedTLS: t.config.AllowUnverifiedTLS,
	})
	return &client{c}, err
}

func (c *client) remove(ctx context.Context, i *image) error {
	if i.Protected {
		return fmt.Errorf("somebody else has protected image %s", i.ID)
	}
	if err := c.Delete(ctx, i.ID); !openstackapi.IsGone(err) {
		return err
	}
	return nil
}

// own returns the factory's images of the name, each once.
func (c *client) own(ctx context.Context, name string) ([]*image, error) {
	images, err := c.List(ctx, map[string]string{"owner": c.Project, "tag": tagImage + "=" + nameTag(name)})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(images, func(i *image) bool { return !c.isOwn(i, name) }), nil
}

func (c *client) isOwn(i *image, name string) bool { return i.Owner == c.Project && isOf(i, name) }

// room reports ErrQuota if the project may have no further image.
func (c *client) room(ctx context.Context) error {
	var answer struct {
		Quotas struct {
			Resources []struct {
				Type        string `json:"type"`
				Used, Quota int64
			} `json:"resources"`
		} `json:"quotas"`
	}
	if err := c.Call(ctx, http.MethodGet, "/v1/cloudimages/quota", nil, &answer); err != nil {
		return err
	}
	for _, r := range answer.Quotas.Resources {
		if r.Type == "image" && r.Used >= r.Quota {
			return fmt.Errorf("%w: %d of %d images", ErrQuota, r.Used, r.Quota)
		}
	}
	return nil
}
