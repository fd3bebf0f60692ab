package builder_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// Who calls a builder holds what it returns to its contract before using it.
func ExampleResult_Validate() {
	out, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(out)
	result := &builder.Result{
		ImagePath: filepath.Join(out, "image.qcow2"), ConfigDir: filepath.Join(out, "config"),
		Packages: []builder.Package{{Name: "bash", Version: "5.2", Arch: "amd64"}}, Tool: "tool",
	}
	if err := os.Mkdir(result.ConfigDir, 0o755); err != nil {
		fmt.Println(err)
		return
	}
	if err := os.WriteFile(result.ImagePath, []byte("QFI\xfb…"), 0o644); err != nil {
		fmt.Println(err)
		return
	}
	spec := builder.Spec{OutputDir: out}
	fmt.Println(result.Validate(spec))

	result.Packages = append(result.Packages, builder.Package{Name: "apt\nevil", Version: "2", Arch: "amd64"})
	fmt.Println(result.Validate(spec) != nil)
	// Output:
	// <nil>
	// true
}
