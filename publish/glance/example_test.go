package glance_test

import (
	"context"
	"fmt"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/glance"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// A signed release becomes NAME_latest in the cloud "otc" of clouds.yaml, for everybody.
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
	target, err := glance.New(glance.Config{Cloud: "otc", Visibility: "public"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	publication, err := publish.Publish(ctx, target, release)
	for _, step := range publication.Steps {
		fmt.Println(step)
	}
	if err != nil {
		fmt.Println(err) // to publish again does the rest
	}
}
