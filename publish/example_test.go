package publish_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// A consumer takes what is latest, into a directory of its own.
func ExampleFetch() {
	ctx := context.Background()
	work, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(work)
	source := &directory.Target{Dir: filepath.Join(work, "dist")} // or a web.Source
	build := publish.NewBuildID(time.Date(2018, time.November, 15, 3, 15, 7, 0, time.UTC))
	dir, keyring := sealed(ctx, work, "Standard_Debian_12", build)
	release, err := publish.Open(ctx, dir, keyring)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := publish.Publish(ctx, source, release); err != nil {
		fmt.Println(err)
		return
	}

	fetched, err := publish.Fetch(ctx, source, "Standard_Debian_12/latest", keyring, filepath.Join(work, "images"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.TrimPrefix(fetched.Dir, work))
	fmt.Println(fetched.Digest == release.Digest)
	// Output:
	// /images/Standard_Debian_12/20181115-031507
	// true
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
