package ims

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// The factory's own properties, and the keys of the tags that an image has from the
// first moment on.
const (
	ownPrefix     = "imagefactory_"
	propImage     = ownPrefix + "image"
	propBuild     = ownPrefix + "build"
	propRelease   = ownPrefix + "release"
	propName      = ownPrefix + "name"
	propNext      = ownPrefix + "next"
	propLost      = ownPrefix + "label_lost"
	propWithdrawn = ownPrefix + "withdrawn"

	tagImage   = "imagefactory-image"
	tagBuild   = "imagefactory-build"
	tagRelease = "imagefactory-release"
)

// tagLength is what of a digest a tag's value has room for.
const tagLength = 40

// image is an image as the service shows it.
type image struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Status     string   `json:"status"`
	Owner      string   `json:"owner"`
	Visibility string   `json:"visibility"`
	Protected  bool     `json:"protected"`
	Created    string   `json:"created_at"`
	Size       *int64   `json:"size"`
	ImageSize  string   `json:"__image_size"`
	Tags       []string `json:"tags"`

	properties map[string]string
}

// UnmarshalJSON keeps what is a string as a property.
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
		if s, ok := value.(string); ok {
			i.properties[name] = s
		}
	}
	return nil
}

func (i *image) prop(name string) string { return i.properties[name] }

// tag is the value of the tag with the key, which are KEY.VALUE or KEY=VALUE.
func (i *image) tag(key string) string {
	for _, t := range i.Tags {
		if value, ok := strings.CutPrefix(t, key); ok && (strings.HasPrefix(value, ".") || strings.HasPrefix(value, "=")) {
			return value[1:]
		}
	}
	return ""
}

// build is the build, or none if what says it was changed by hand.
func (i *image) build() publish.BuildID {
	text := i.prop(propBuild)
	if text == "" {
		text = i.tag(tagBuild)
	}
	b, _ := publish.ParseBuildID(text) // then it is no build
	return b
}

// isRelease reports whether the image was made of the release.
func (i *image) isRelease(digest string) bool {
	if d := i.prop(propRelease); d != "" {
		return d == digest
	}
	return i.tag(tagRelease) == digest[:min(len(digest), tagLength)]
}

// nameTag is the value of the tag tagImage, which has no room for names as they are.
func nameTag(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])[:tagLength]
}

// isOf reports whether the image is one that the factory made of the name. One that was
// not completed has no properties yet.
func (i *image) isOf(name string) bool {
	p := i.prop(propImage)
	return i.tag(tagImage) == nameTag(name) && (p == name || p == "")
}

// isLabelled reports whether the image is called as what has the label.
func (i *image) isLabelled(l publish.Label) bool {
	p := i.prop(propImage)
	return p != "" && i.Name == p+"_"+string(l)
}

// bytes is how much the service says that it has: it documents size as unavailable
// and 0 for some images, which have __image_size.
func (i *image) bytes() int64 {
	if i.Size != nil && *i.Size > 0 {
		return *i.Size
	}
	n, _ := strconv.ParseInt(i.ImageSize, 10, 64) // else it has none
	return n
}

// problem says why an image of the factory is not complete, or "".
func (i *image) problem() string {
	switch {
	case i.build().IsZero():
		return fmt.Sprintf("its property %s is no build ID", propBuild)
	case i.Status != "active":
		return fmt.Sprintf("it is %.20s", i.Status)
	case i.bytes() <= 0:
		return "it is empty"
	case i.prop(propRelease) == "":
		return "its import was not completed"
	}
	return ""
}

// patch is a change of an image. Each of its operations may be done again.
type patch []operation

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value string `json:"value"`
}

func (p patch) set(name, value string) patch {
	op := "add" // also where there is one
	if name == "name" {
		op = "replace"
	}
	path := "/" + name
	p = slices.DeleteFunc(p, func(o operation) bool { return o.Path == path })
	return append(p, operation{op, path, value})
}

// of returns what of the patch changes the image.
func (p patch) of(i *image) patch {
	return slices.DeleteFunc(slices.Clone(p), func(o operation) bool { return i.prop(o.Path[1:]) == o.Value })
}
