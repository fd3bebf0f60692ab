package existing_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/existing"
)

// A server has something else than the image that was named.
func ExampleNew() {
	server := httptest.NewServer(http.FileServerFS(os.DirFS(".")))
	defer server.Close()
	b, err := existing.New(existing.Config{
		Image:  server.URL + "/example_test.go",
		SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("the image that was meant"))),
	})
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	_, err = b.Build(context.Background(), builder.Local{}, builder.Spec{
		Name: "Community_Linux_1", Distribution: "linux", Release: "1", Arch: "amd64", DiskBytes: 4 << 30, User: "linux",
		WorkDir: filepath.Join(dir, "work"), OutputDir: dir,
	})
	fmt.Println(err != nil)
	_, err = os.Stat(filepath.Join(dir, "Community_Linux_1.qcow2"))
	fmt.Println(os.IsNotExist(err))
	// Output:
	// true
	// true
}
