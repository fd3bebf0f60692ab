package publishtest_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// A driver's test holds its target to what publish.Target promises.
func ExampleTestTarget() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	fmt.Println(publishtest.TestTarget(ctx, &directory.Target{Dir: dir}, "Publishtest"))
	// Output:
	// <nil>
}

// Release makes what a test of publishing needs.
func ExampleRelease() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	build := publish.NewBuildID(time.Date(2025, time.November, 22, 3, 15, 7, 0, time.UTC))
	release, err := publishtest.Release(context.Background(), dir, "Standard_Debian_12", build)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range release.Files {
		fmt.Println(f.Name)
	}
	// Output:
	// SHA256SUMS
	// SHA256SUMS.asc
	// Standard_Debian_12-20251122-031507.packages
	// Standard_Debian_12-20251122-031507.qcow2
	// Standard_Debian_12-20251122-031507.qcow2.asc
	// release.json
}
