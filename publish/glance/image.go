package glance

import (
	"fmt"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

type (
	image = openstackapi.Image
	patch = openstackapi.Patch
)

// The factory's own properties that Glance's images alone have.
const (
	propVerified  = openstackapi.Own + "verified"
	propProtected = openstackapi.Own + "protected"
)

// nextDated is the PropNext of an image that is called prev and no longer is.
const nextDated = "dated"

// build is the build, or none if the property was changed by hand.
func build(i *image) publish.BuildID {
	b, _ := publish.ParseBuildID(i.Prop(openstackapi.PropBuild)) // then it is no build
	return b
}

// problem says why an image of the factory is not complete, or "".
func problem(i *image) string {
	switch {
	case build(i).IsZero():
		return fmt.Sprintf("its property %s is no build ID", openstackapi.PropBuild)
	case i.Status != "active":
		return fmt.Sprintf("it is %.20s", i.Status)
	case i.Prop(propVerified) == "":
		return "its content was not compared with the release yet"
	case i.Size == nil || *i.Size == 0 || i.Hash == "" || !strings.EqualFold(i.Prop(propVerified), i.Hash):
		return "its content is not that which was compared with the release"
	}
	return ""
}
