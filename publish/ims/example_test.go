package ims_test

import (
	"context"
	"fmt"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/ims"
	"github.com/opentelekomcloud/go-imagefactory/publish/obs"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// A signed release becomes NAME_latest in the project of the cloud "otc" of clouds.yaml,
// and is shared with another.
func ExampleNew() {
	ctx := context.Background()
	keyring, err := signing.LoadKeyring("imagefactory.pub")
	if err != nil {
		fmt.Println(err)
		return
	}
	release, err := publish.Open(ctx, "dist/Standard_Debian_12/latest", keyring)
	if err != nil {
		fmt.Println(err)
		return
	}
	target, err := ims.New(ims.Config{
		Cloud:   "otc",
		Bucket:  obs.Config{Bucket: "imports", Cloud: "otc"},
		Members: []string{"edc89b490d7d4392898e19b2deb34797"},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	publication, err := publish.Publish(ctx, target, release)
	for _, step := range publication.Steps {
		fmt.Println(step)
	}
	if err != nil {
		fmt.Println(err) // to publish again goes on where it was cut
	}
}
