package diskfile_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/diskfile"
)

// A file that is there keeps its mode, and is replaced only by a complete one.
func ExampleWrite() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	err = diskfile.Write(context.Background(), name, diskfile.Options{}, func(w io.WriterAt) error {
		_, err := w.WriteAt([]byte("new"), 0)
		return err
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	data, _ := os.ReadFile(name)
	info, _ := os.Stat(name)
	fmt.Printf("%s %v\n", data, info.Mode())
	// Output: new -rw-------
}
