package dib_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/dib"
)

func ExampleNew() {
	b, err := dib.New(dib.Config{Elements: []string{"vm", "debian-minimal"}})
	if err != nil {
		log.Fatal(err)
	}
	mirrors, err := builder.AptMirrors(os.DirFS("/"))
	if err != nil {
		log.Fatal(err)
	}
	result, err := b.Build(context.Background(), builder.Local{}, builder.Spec{
		Name: "Standard_Debian_12", Build: "20261122-031507",
		Distribution: "debian", Release: "bookworm", Arch: "amd64", DiskBytes: 4 << 30, User: "linux",
		Mirrors:     mirrors,
		TrustedKeys: []builder.TrustedKey{{File: "/usr/share/keyrings/debian-archive-keyring.gpg"}},
		WorkDir:     "/var/tmp/build", OutputDir: "out",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.ImagePath, len(result.Packages))
}
