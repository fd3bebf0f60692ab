package obs_test

import (
	"context"
	"fmt"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/obs"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// A consumer without credentials takes the latest release out of a public bucket.
func ExampleTarget_Open() {
	keyring, err := signing.LoadKeyring("imagefactory.pub")
	if err != nil {
		fmt.Println(err)
		return
	}
	bucket := &obs.Target{Bucket: "images", Prefix: "linux"}
	release, err := publish.Fetch(context.Background(), bucket, "Standard_Debian_12/latest", keyring, "/srv/images")
	if err != nil {
		fmt.Println(err) // to fetch again goes on where it was cut
		return
	}
	fmt.Println(release.Dir)
}
