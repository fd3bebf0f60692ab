package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/publish/web"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// A consumer fetches the latest image, and only that with its signature.
func Example() {
	ctx := context.Background()
	work, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(work)
	url, pinned, stop := published(ctx, work)
	defer stop()

	keyring, err := signing.LoadKeyring(pinned)
	if err != nil {
		fmt.Println(err)
		return
	}
	f := &publish.Fetcher{
		Source:   &web.Source{URL: url},
		Keyring:  keyring,
		Dir:      filepath.Join(work, "images"),
		Suffixes: []string{".qcow2", ".qcow2.asc"},
		MaxAge:   100 * 365 * 24 * time.Hour,
	}
	release, err := f.Fetch(ctx, "Standard_Debian_12/latest")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(release.Index.Build)
	for _, file := range release.Files {
		fmt.Println(file.Name)
	}
	// Output:
	// 20180401-031507
	// SHA256SUMS
	// SHA256SUMS.asc
	// Standard_Debian_12-20180401-031507.qcow2
	// Standard_Debian_12-20180401-031507.qcow2.asc
	// release.json
}

// published stands for a publisher with a web server.
func published(ctx context.Context, work string) (url, keyring string, stop func()) {
	build := publish.NewBuildID(time.Date(2018, time.April, 1, 3, 15, 7, 0, time.UTC))
	release, err := publishtest.Release(ctx, work, "Standard_Debian_12", build)
	if err != nil {
		panic(err)
	}
	target := &directory.Target{Dir: filepath.Join(work, "dist")}
	if _, err := publish.Publish(ctx, target, release); err != nil {
		panic(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(target.Dir)))
	return server.URL, release.Dir + ".pub", server.Close
}
