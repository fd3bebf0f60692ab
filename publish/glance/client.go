package glance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
)

// Bounds of a list.
const (
	maxPages = 200
	pageSize = "500"
)

// renewBefore is how long a token should be good for when an upload begins.
const renewBefore = 30 * time.Minute

// client calls the Image service.
type client struct{ *openstackapi.Client }

// connect logs in, the first time that it is called.
func (t *Target) connect(ctx context.Context) (*client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.client != nil {
		return t.client, nil
	}
	c, err := openstackapi.Login(ctx, openstackapi.Config{
		Cloud: t.config.Cloud, Region: t.config.Region, Pause: t.pause, Logger: t.logger,
		AllowHTTP: t.config.AllowHTTP, AllowUnverifiedTLS: t.config.AllowUnverifiedTLS,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot log in to cloud %s: %w", t.config.Cloud, err)
	}
	t.client = &client{c}
	return t.client, nil
}

const jsonPatch = "application/openstack-images-v2.1-json-patch"

func (c *client) get(ctx context.Context, id string) (*image, error) {
	i := new(image)
	if err := c.Call(ctx, http.MethodGet, "/images/"+url.PathEscape(id), "", nil, i); err != nil {
		return nil, err
	}
	if i.ID != id {
		return nil, fmt.Errorf("the cloud answers with another image than %s", id)
	}
	return i, nil
}

// patch changes the image, and i with it. It calls nobody if nothing changes.
func (c *client) patch(ctx context.Context, i *image, p patch) error {
	if p = p.of(i); len(p) == 0 {
		return nil
	}
	changed := new(image)
	if err := c.Call(ctx, http.MethodPatch, "/images/"+url.PathEscape(i.ID), jsonPatch, p, changed); err != nil {
		return err
	}
	*i = *changed
	return nil
}

// remove deletes the image. One that the factory has protected is released before.
func (c *client) remove(ctx context.Context, i *image) error {
	if i.Protected {
		if i.prop(propProtected) == "" {
			return fmt.Errorf("somebody else has protected image %s", i.ID)
		}
		if err := c.patch(ctx, i, patch{}.set("protected", false)); err != nil {
			return err
		}
	}
	err := c.Call(ctx, http.MethodDelete, "/images/"+url.PathEscape(i.ID), "", nil, nil)
	if openstackapi.IsStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// list returns the images that are found so, hidden ones only with os_hidden=true.
func (c *client) list(ctx context.Context, query map[string]string) ([]*image, error) {
	q := url.Values{"limit": {pageSize}}
	for name, value := range query {
		q.Set(name, value)
	}
	var images []*image
	for range maxPages {
		var page struct {
			Images []*image `json:"images"`
			Next   string   `json:"next"`
		}
		if err := c.Call(ctx, http.MethodGet, "/images?"+q.Encode(), "", nil, &page); err != nil {
			return nil, err
		}
		for _, i := range page.Images {
			if i == nil || i.ID == "" {
				return nil, errors.New("the cloud lists an image without an ID")
			}
			images = append(images, i)
		}
		if page.Next == "" || len(page.Images) == 0 {
			return images, nil
		}
		q.Set("marker", page.Images[len(page.Images)-1].ID)
	}
	return nil, fmt.Errorf("the cloud lists more than %d pages of images", maxPages)
}

// own returns the factory's images of the name, each once.
func (c *client) own(ctx context.Context, name string) ([]*image, error) {
	var out []*image
	for _, hidden := range []string{"false", "true"} {
		images, err := c.list(ctx, map[string]string{propImage: name, "owner": c.Project, "os_hidden": hidden})
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
	return i.Owner == c.Project && i.prop(propImage) == name && i.prop(propRelease) != ""
}
