package glance

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// The factory's own properties.
const (
	ownPrefix     = "imagefactory_"
	propImage     = ownPrefix + "image"
	propBuild     = ownPrefix + "build"
	propRelease   = ownPrefix + "release"
	propName      = ownPrefix + "name"
	propVerified  = ownPrefix + "verified"
	propNext      = ownPrefix + "next"
	propLost      = ownPrefix + "label_lost"
	propWithdrawn = ownPrefix + "withdrawn"
	propProtected = ownPrefix + "protected"
)

// nextDated is the propNext of an image that is called prev and no longer is.
const nextDated = "dated"

// attributes are what an image has beside its properties.
var attributes = []string{
	"name", "id", "visibility", "protected", "os_hidden", "owner", "tags", "disk_format", "container_format", "min_disk", "min_ram",
	"status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at", "updated_at",
	"file", "self", "schema", "locations", "direct_url", "stores",
}

// image is an image as Glance shows it.
type image struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Status     string `json:"status"`
	Owner      string `json:"owner"`
	Visibility string `json:"visibility"`
	Protected  bool   `json:"protected"`
	Hidden     bool   `json:"os_hidden"`
	Created    string `json:"created_at"`
	Size       *int64 `json:"size"`
	HashAlgo   string `json:"os_hash_algo"`
	Hash       string `json:"os_hash_value"`

	properties map[string]string
}

// UnmarshalJSON keeps what is a string and no attribute as a property.
func (i *image) UnmarshalJSON(data []byte) error {
	type plain image
	if err := json.Unmarshal(data, (*plain)(i)); err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	i.properties = make(map[string]string)
	for name, value := range all {
		if s, ok := value.(string); ok && !slices.Contains(attributes, name) {
			i.properties[name] = s
		}
	}
	return nil
}

func (i *image) prop(name string) string { return i.properties[name] }

// build is the build, or none if the property was changed by hand.
func (i *image) build() publish.BuildID {
	b, _ := publish.ParseBuildID(i.prop(propBuild)) // then it is no build
	return b
}

// isLabelled reports whether the image is called as what has the label.
func (i *image) isLabelled(l publish.Label) bool {
	return i.Name == i.prop(propImage)+"_"+string(l)
}

// problem says why an image of the factory is not complete, or "".
func (i *image) problem() string {
	switch {
	case i.build().IsZero():
		return fmt.Sprintf("its property %s is no build ID", propBuild)
	case i.Status != "active":
		return fmt.Sprintf("it is %.20s", i.Status)
	case i.prop(propVerified) == "":
		return "its content was not compared with the release yet"
	case i.Size == nil || *i.Size == 0 || i.Hash == "" || !strings.EqualFold(i.prop(propVerified), i.Hash):
		return "its content is not that which was compared with the release"
	}
	return ""
}

// patch is a change of an image, a JSON patch of RFC 6902. Each of its operations
// may be done again.
type patch []operation

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func (p patch) set(name string, value any) patch {
	op := "add" // also where there is one
	if slices.Contains(attributes, name) {
		op = "replace"
	}
	path := "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	p = slices.DeleteFunc(p, func(o operation) bool { return o.Path == path })
	return append(p, operation{op, path, value})
}

func (p patch) and(q patch) patch {
	for _, o := range q {
		p = append(slices.DeleteFunc(p, func(have operation) bool { return have.Path == o.Path }), o)
	}
	return p
}

// of returns what of the patch changes the image.
func (p patch) of(i *image) patch {
	now := map[string]any{"/name": i.Name, "/os_hidden": i.Hidden, "/visibility": i.Visibility, "/protected": i.Protected}
	var out patch
	for _, o := range p {
		have, attribute := now[o.Path]
		if !attribute {
			have = i.prop(strings.NewReplacer("~1", "/", "~0", "~").Replace(o.Path[1:]))
		}
		if have != o.Value {
			out = append(out, o)
		}
	}
	return out
}
