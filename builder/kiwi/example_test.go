package kiwi_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/kiwi"
)

func ExampleNew() {
	b, err := kiwi.New(kiwi.Config{Description: "descriptions/debian-12"})
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

func ExampleDriver() {
	_, err := kiwi.Driver{}.New(func(config any) error {
		config.(*kiwi.Config).Profiles = []string{"Disk"}
		return nil
	})
	fmt.Println(err)
	// Output: description: none named
}
