package openstackapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Bounds of a list.
const (
	maxPages = 200
	pageSize = 500
)

// Paths are where a service has its images, below Client.Endpoint.
type Paths struct {
	Image     string // followed by an ID
	Patch     string // followed by an ID
	PatchType string // of a patch's body
	List      string
}

// attributes are what an image has beside its properties.
var attributes = []string{
	"name", "id", "visibility", "protected", "os_hidden", "owner", "tags", "disk_format", "container_format", "min_disk", "min_ram",
	"status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at", "updated_at",
	"file", "self", "schema", "locations", "direct_url", "stores",
}

// IsAttribute reports whether an image has something of the name that is no property.
func IsAttribute(name string) bool { return slices.Contains(attributes, name) }

// The properties by which an image is known as one of a factory's.
const (
	Own           = "imagefactory_" // begins them all
	PropImage     = Own + "image"
	PropBuild     = Own + "build"
	PropRelease   = Own + "release"
	PropName      = Own + "name"
	PropNext      = Own + "next"
	PropLost      = Own + "label_lost"
	PropWithdrawn = Own + "withdrawn"
)

// Image is an image as the services show it, as far as they agree.
type Image struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Status     string   `json:"status"`
	Owner      string   `json:"owner"`
	Visibility string   `json:"visibility"`
	Protected  bool     `json:"protected"`
	Hidden     bool     `json:"os_hidden"`
	Created    string   `json:"created_at"` // RFC 3339
	Size       *int64   `json:"size"`
	HashAlgo   string   `json:"os_hash_algo"`
	Hash       string   `json:"os_hash_value"`
	Tags       []string `json:"tags"`

	properties map[string]string
}

// UnmarshalJSON keeps what is a string and no attribute as a property.
func (i *Image) UnmarshalJSON(data []byte) error {
	type plain Image
	if err := json.Unmarshal(data, (*plain)(i)); err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	i.properties = make(map[string]string)
	for name, value := range all {
		if s, ok := value.(string); ok && !IsAttribute(name) {
			i.properties[name] = s
		}
	}
	return nil
}

// Prop returns a property, "" if the image has none of the name.
func (i *Image) Prop(name string) string { return i.properties[name] }

// IsLabelled reports whether the image is called as what has the label.
func (i *Image) IsLabelled(l publish.Label) bool {
	p := i.Prop(PropImage)
	return p != "" && i.Name == p+"_"+string(l)
}

// A Patch is a change of an image, a JSON patch of RFC 6902. Each of its operations may
// be done again.
type Patch []operation

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

var pointer = strings.NewReplacer("~", "~0", "/", "~1")

// Set returns the patch with one more change, in place of one of the same name.
func (p Patch) Set(name string, value any) Patch {
	op := "add" // also where there is one
	if IsAttribute(name) {
		op = "replace"
	}
	return p.And(Patch{{op, "/" + pointer.Replace(name), value}})
}

// And returns the patch with those of q.
func (p Patch) And(q Patch) Patch {
	for _, o := range q {
		p = append(slices.DeleteFunc(p, func(have operation) bool { return have.Path == o.Path }), o)
	}
	return p
}

// of returns what of the patch changes the image.
func (p Patch) of(i *Image) Patch {
	now := map[string]any{"/name": i.Name, "/os_hidden": i.Hidden, "/visibility": i.Visibility, "/protected": i.Protected}
	for name, value := range i.properties {
		now["/"+pointer.Replace(name)] = value
	}
	var out Patch
	for _, o := range p {
		have, there := now[o.Path]
		if have != o.Value && (there || o.Value != "") {
			out = append(out, o)
		}
	}
	return out
}

// Get returns the image of the ID.
func (c *Client) Get(ctx context.Context, id string) (*Image, error) {
	i := new(Image)
	if err := c.Call(ctx, http.MethodGet, c.Paths.Image+url.PathEscape(id), nil, i); err != nil {
		return nil, err
	}
	if i.ID != id {
		return nil, fmt.Errorf("the service answers with another image than %s", id)
	}
	return i, nil
}

// Patch changes the image, and i with it. It calls nobody if nothing changes.
func (c *Client) Patch(ctx context.Context, i *Image, p Patch) error {
	if p = p.of(i); len(p) == 0 {
		return nil
	}
	changed := new(Image)
	if err := c.CallAs(ctx, http.MethodPatch, c.Paths.Patch+url.PathEscape(i.ID), c.Paths.PatchType, p, changed); err != nil {
		return err
	}
	if changed.ID != i.ID {
		return fmt.Errorf("the service answers with another image than %s", i.ID)
	}
	*i = *changed
	return nil
}

// Delete deletes the image.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.Call(ctx, http.MethodDelete, c.Paths.Image+url.PathEscape(id), nil, nil)
}

// Share offers the image to the project, if it is not offered to it.
func (c *Client) Share(ctx context.Context, id, project string) error {
	err := c.Call(ctx, http.MethodPost, c.Paths.Image+url.PathEscape(id)+"/members", map[string]string{"member": project}, nil)
	if err != nil && !IsStatus(err, http.StatusConflict) { // it is a member
		return fmt.Errorf("cannot share the image with project %.64s: %w", project, err)
	}
	return nil
}

// List returns the images that are found so, each once.
func (c *Client) List(ctx context.Context, query map[string]string) ([]*Image, error) {
	q := url.Values{"limit": {fmt.Sprint(pageSize)}}
	for name, value := range query {
		q.Set(name, value)
	}
	var images []*Image
	known := make(map[string]bool)
	for range maxPages {
		var page struct {
			Images []*Image `json:"images"`
			Next   string   `json:"next"` // where the service says so
		}
		if err := c.Call(ctx, http.MethodGet, c.Paths.List+"?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		for _, i := range page.Images {
			if i == nil || i.ID == "" {
				return nil, errors.New("the service lists an image without an ID")
			}
			if !known[i.ID] { // an image may come again when others come or go meanwhile
				known[i.ID] = true
				images = append(images, i)
			}
		}
		if len(page.Images) == 0 || page.Next == "" && len(page.Images) < pageSize {
			return images, nil
		}
		q.Set("marker", page.Images[len(page.Images)-1].ID)
	}
	return nil, fmt.Errorf("the service lists more than %d pages of images", maxPages)
}

// WithListed returns the images with those of the entries that a list which lags lacks.
func (c *Client) WithListed(ctx context.Context, images []*Image, entries []publish.Entry) ([]*Image, error) {
	for _, e := range entries {
		if slices.ContainsFunc(images, func(i *Image) bool { return i.ID == e.ID }) {
			continue
		}
		i, err := c.Get(ctx, e.ID)
		switch {
		case IsGone(err):
		case err != nil:
			return nil, err
		case i.Owner == c.Project && i.Prop(PropImage) == e.Image:
			images = append(images, i)
		}
	}
	return images, nil
}

// DatedName is NAME_YYYYMMDD_n with the first n of the day that no image has.
func DatedName(r *publish.Release, images []*Image) string {
	taken := make(map[string]bool)
	for _, i := range images {
		taken[i.Prop(PropName)], taken[i.Name] = true, true
	}
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s_%s_%d", r.Index.Image, r.Index.Build.Time().Format("20060102"), n)
		if !taken[name] {
			return name
		}
	}
}

// DiskOf is the release's qcow2.
func DiskOf(r *publish.Release) (publish.File, error) {
	var disks []publish.File
	for _, f := range r.Files {
		if strings.HasSuffix(f.Name, ".qcow2") {
			disks = append(disks, f)
		}
	}
	if len(disks) != 1 || disks[0].SizeBytes == 0 {
		return publish.File{}, fmt.Errorf("release %s has %d qcow2 files; want one, and not an empty one", r.Dir, len(disks))
	}
	return disks[0], nil
}

// ForeignNamed is the entry of somebody else's image that has a name of ours.
func ForeignNamed(i *Image, image string) publish.Entry {
	return publish.Entry{
		ID: i.ID, Image: image, Foreign: true,
		Problem: fmt.Sprintf("an image of somebody else is called %.140s; users who ask by name may get it", i.Name),
	}
}
