package publish_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// Three monthly releases: the first is found by its date in the end.
func ExamplePublish() {
	ctx := context.Background()
	work, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(work)
	target := &directory.Target{Dir: filepath.Join(work, "dist")}

	for _, month := range []time.Month{time.September, time.October, time.November} {
		build := publish.NewBuildID(time.Date(2026, month, 15, 3, 15, 7, 0, time.UTC))
		dir, keyring := sealed(ctx, work, "Standard_Debian_12", build)

		release, err := publish.Open(ctx, dir, keyring)
		if err != nil {
			fmt.Println(err)
			return
		}
		publication, err := publish.Publish(ctx, target, release)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, step := range publication.Steps {
			fmt.Println(step)
		}
	}

	entries, err := target.List(ctx, "Standard_Debian_12")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range entries {
		fmt.Println(e.ID, e.Labels)
	}
	// Output:
	// push Standard_Debian_12 20260915-031507
	// move latest of Standard_Debian_12 from no release to 20260915-031507
	// push Standard_Debian_12 20261015-031507
	// move prev of Standard_Debian_12 from no release to 20260915-031507
	// move latest of Standard_Debian_12 from 20260915-031507 to 20261015-031507
	// push Standard_Debian_12 20261115-031507
	// move prev of Standard_Debian_12 from 20260915-031507 to 20261015-031507
	// move latest of Standard_Debian_12 from 20261015-031507 to 20261115-031507
	// Standard_Debian_12/20260915-031507 []
	// Standard_Debian_12/20261015-031507 [prev]
	// Standard_Debian_12/20261115-031507 [latest]
}

// sealed stands for what builds and signs a release.
func sealed(ctx context.Context, work, image string, build publish.BuildID) (dir string, keyring *signing.Keyring) {
	release, err := publishtest.Release(ctx, work, image, build)
	if err != nil {
		panic(err)
	}
	keyring, err = signing.LoadKeyring(release.Dir + ".pub")
	if err != nil {
		panic(err)
	}
	return release.Dir, keyring
}

// A dry run lists the steps and does none of them.
func ExampleDryRun() {
	ctx := context.Background()
	work, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(work)
	target := &directory.Target{Dir: filepath.Join(work, "dist")}
	build := publish.NewBuildID(time.Date(2026, time.November, 15, 3, 15, 7, 0, time.UTC))
	dir, keyring := sealed(ctx, work, "Standard_Debian_12", build)
	release, err := publish.Open(ctx, dir, keyring)
	if err != nil {
		fmt.Println(err)
		return
	}

	publication, err := publish.Publish(ctx, publish.DryRun(target), release)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(publication.Steps)
	_, err = os.Stat(target.Dir)
	fmt.Println("nothing was made:", os.IsNotExist(err))
	// Output:
	// [push Standard_Debian_12 20261115-031507 move latest of Standard_Debian_12 from no release to 20261115-031507]
	// nothing was made: true
}
