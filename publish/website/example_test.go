package website_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func Example() {
	dir, err := os.MkdirTemp("", "website")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	build, err := publish.ParseBuildID("20261122-031507")
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := publishtest.Release(ctx, dir, "Standard_Debian_12", build)
	if err != nil {
		fmt.Println(err)
		return
	}
	keyring, err := signing.LoadKeyring(r.Dir + ".pub")
	if err != nil {
		fmt.Println(err)
		return
	}
	site := website.Site{
		Dir: dir, List: (&directory.Target{Dir: dir}).List, Keyring: keyring, Out: filepath.Join(dir, "site"),
		Flavors: []website.Flavor{{Name: "s2", Group: "KVM"}},
		Images:  []website.Image{{Name: "Standard_Debian_12", Answers: []website.Answer{{Answer: "yes"}}}},
	}
	err = site.Write(ctx)
	var bad *website.BadReleaseError
	if errors.As(err, &bad) {
		fmt.Println("the site says that", bad.Build, "does not verify")
	}
	if err == nil {
		_, err = os.Stat(filepath.Join(site.Out, "images/Standard_Debian_12/20261122-031507.html"))
	}
	fmt.Println(err)
	// Output: <nil>
}
