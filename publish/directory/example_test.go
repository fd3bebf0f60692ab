package directory_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// Two releases in a download directory: the newer one is latest, the older prev.
func ExampleTarget() {
	ctx := context.Background()
	work, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(work)
	target := &directory.Target{Dir: filepath.Join(work, "download")}

	for _, day := range []int{21, 22} {
		build := publish.NewBuildID(time.Date(2025, time.November, day, 3, 15, 7, 0, time.UTC))
		// Any signed release: here a small one that publishtest makes.
		release, err := publishtest.Release(ctx, work, "Standard_Debian_12", build)
		if err != nil {
			fmt.Println(err)
			return
		}
		if _, err := publish.Publish(ctx, target, release); err != nil {
			fmt.Println(err)
			return
		}
	}

	for _, label := range []publish.Label{publish.Latest, publish.Prev} {
		to, err := os.Readlink(filepath.Join(target.Dir, "Standard_Debian_12", string(label)))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(label, "->", to)
	}
	// Output:
	// latest -> 20251122-031507
	// prev -> 20251121-031507
}
