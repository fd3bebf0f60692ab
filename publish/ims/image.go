package ims

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

type (
	image = openstackapi.Image
	patch = openstackapi.Patch
)

// The keys of the tags that an image has from the first moment on.
const (
	tagImage   = "imagefactory-image"
	tagBuild   = "imagefactory-build"
	tagRelease = "imagefactory-release"
)

// tagLength is what of a digest a tag's value has room for.
const tagLength = 40

// tag is the value of the tag with the key, which are KEY.VALUE or KEY=VALUE.
func tag(i *image, key string) string {
	for _, t := range i.Tags {
		if value, ok := strings.CutPrefix(t, key); ok && (strings.HasPrefix(value, ".") || strings.HasPrefix(value, "=")) {
			return value[1:]
		}
	}
	return ""
}

// build is the build, or none if what says it was changed by hand.
func build(i *image) publish.BuildID {
	text := i.Prop(openstackapi.PropBuild)
	if text == "" {
		text = tag(i, tagBuild)
	}
	b, _ := publish.ParseBuildID(text) // then it is no build
	return b
}

// isRelease reports whether the image was made of the release.
func isRelease(i *image, digest string) bool {
	if d := i.Prop(openstackapi.PropRelease); d != "" {
		return d == digest
	}
	return tag(i, tagRelease) == digest[:min(len(digest), tagLength)]
}

// nameTag is the value of the tag tagImage, which has no room for names as they are.
func nameTag(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])[:tagLength]
}

// isOf reports whether the image is one that the factory made of the name. One that was
// not completed has no properties yet.
func isOf(i *image, name string) bool {
	p := i.Prop(openstackapi.PropImage)
	return tag(i, tagImage) == nameTag(name) && (p == name || p == "")
}

// bytesOf is how much the service says that it has: it documents size as unavailable
// and 0 for some images, which have __image_size.
func bytesOf(i *image) int64 {
	if i.Size != nil && *i.Size > 0 {
		return *i.Size
	}
	n, _ := strconv.ParseInt(i.Prop("__image_size"), 10, 64) // else it has none
	return n
}

// problem says why an image of the factory is not complete, or "".
func problem(i *image) string {
	switch {
	case build(i).IsZero():
		return fmt.Sprintf("its property %s is no build ID", openstackapi.PropBuild)
	case i.Status != "active":
		return fmt.Sprintf("it is %.20s", i.Status)
	case bytesOf(i) <= 0:
		return "it is empty"
	case i.Prop(openstackapi.PropRelease) == "":
		return "its import was not completed"
	}
	return ""
}
