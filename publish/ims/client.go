package ims

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
)

// Bounds of a list.
const (
	maxPages = 200
	pageSize = 500
)

// client calls the service.
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
	c.Endpoint = strings.TrimSuffix(c.Endpoint, "/v2") // the service has a v1, too
	t.client = &client{c}
	return t.client, nil
}

func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	contentType := ""
	if in != nil {
		contentType = "application/json"
	}
	return typed(c.Call(ctx, method, path, contentType, in, out))
}

func (c *client) get(ctx context.Context, id string) (*image, error) {
	i := new(image)
	if err := c.call(ctx, http.MethodGet, "/v2/images/"+url.PathEscape(id), nil, i); err != nil {
		return nil, err
	}
	if i.ID != id {
		return nil, fmt.Errorf("the service answers with another image than %s", id)
	}
	return i, nil
}

// patch changes the image, and i with it. It calls nobody if nothing changes.
func (c *client) patch(ctx context.Context, i *image, p patch) error {
	if p = p.of(i); len(p) == 0 {
		return nil
	}
	changed := new(image)
	if err := c.call(ctx, http.MethodPatch, "/v2/cloudimages/"+url.PathEscape(i.ID), p, changed); err != nil {
		return err
	}
	if changed.ID != i.ID {
		return fmt.Errorf("the service answers with another image than %s", i.ID)
	}
	*i = *changed
	return nil
}

func (c *client) remove(ctx context.Context, i *image) error {
	if i.Protected {
		return fmt.Errorf("somebody else has protected image %s", i.ID)
	}
	err := c.call(ctx, http.MethodDelete, "/v2/images/"+url.PathEscape(i.ID), nil, nil)
	if isGone(err) {
		return nil
	}
	return err
}

// list returns the images that are found so.
func (c *client) list(ctx context.Context, query map[string]string) ([]*image, error) {
	q := url.Values{"limit": {fmt.Sprint(pageSize)}}
	for name, value := range query {
		q.Set(name, value)
	}
	var images []*image
	for range maxPages {
		var page struct {
			Images []*image `json:"images"`
		}
		if err := c.call(ctx, http.MethodGet, "/v2/cloudimages?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		for _, i := range page.Images {
			if i == nil || i.ID == "" {
				return nil, errors.New("the service lists an image without an ID")
			}
			images = append(images, i)
		}
		if len(page.Images) < pageSize {
			return images, nil
		}
		q.Set("marker", page.Images[len(page.Images)-1].ID)
	}
	return nil, fmt.Errorf("the service lists more than %d pages of images", maxPages)
}

// own returns the factory's images of the name, each once.
func (c *client) own(ctx context.Context, name string) ([]*image, error) {
	images, err := c.list(ctx, map[string]string{"owner": c.Project, "tag": tagImage + "=" + nameTag(name)})
	if err != nil {
		return nil, err
	}
	var out []*image
	for _, i := range images {
		known := slices.ContainsFunc(out, func(o *image) bool { return o.ID == i.ID })
		if !known && c.isOwn(i, name) {
			out = append(out, i)
		}
	}
	return out, nil
}

func (c *client) isOwn(i *image, name string) bool { return i.Owner == c.Project && i.isOf(name) }

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
	if err := c.call(ctx, http.MethodGet, "/v1/cloudimages/quota", nil, &answer); err != nil {
		return err
	}
	for _, r := range answer.Quotas.Resources {
		if r.Type == "image" && r.Used >= r.Quota {
			return fmt.Errorf("%w: %d of %d images", ErrQuota, r.Used, r.Quota)
		}
	}
	return nil
}
