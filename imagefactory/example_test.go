package imagefactory_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// upstream is a builder of one's own: it takes an image that somebody else has
// made. Its fields are its configuration in a definition, `upstream: {image: …}`.
type upstream struct {
	Image string `yaml:"image"`
}

type upstreamDriver struct{}

func (upstreamDriver) Name() string { return "upstream" }

func (upstreamDriver) New(decode func(any) error) (builder.Builder, error) {
	u := new(upstream)
	return u, decode(u)
}

func (u *upstream) Build(_ context.Context, _ builder.Host, spec builder.Spec) (*builder.Result, error) {
	r := &builder.Result{
		ImagePath: filepath.Join(spec.OutputDir, "image.qcow2"), ConfigDir: filepath.Join(spec.OutputDir, "config"),
		Packages: []builder.Package{{Name: "base-files", Version: "12.4", Arch: "amd64"}},
		Tool:     "copy", Config: upstream{Image: "image.qcow2"},
	}
	fmt.Fprintln(spec.Log, "copying", filepath.Base(u.Image))
	return r, errors.Join(os.Mkdir(r.ConfigDir, 0o755), copyFile(r.ImagePath, u.Image))
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// shelf is a target of one's own, which keeps releases in memory.
type shelf struct {
	entries []publish.Entry
}

type shelfDriver struct{ shelf *shelf }

func (shelfDriver) Name() string { return "shelf" }

func (d shelfDriver) New(decode func(any) error) (publish.Target, error) {
	return d.shelf, decode(&struct{}{}) // there is nothing to configure
}

func (s *shelf) List(_ context.Context, image string) ([]publish.Entry, error) {
	var out []publish.Entry
	for _, e := range s.entries {
		if e.Image == image {
			out = append(out, e)
		}
	}
	return out, nil
}

func (s *shelf) Push(_ context.Context, r *publish.Release) (publish.Entry, error) {
	for _, file := range r.Files {
		f, err := r.Open(file.Name)
		if err != nil {
			return publish.Entry{}, err
		}
		_, err = io.Copy(io.Discard, f) // a real target keeps it
		if err = errors.Join(err, f.Close()); err != nil {
			return publish.Entry{}, err
		}
	}
	e := publish.Entry{ID: r.Digest, Image: r.Index.Image, Build: r.Index.Build, Digest: r.Digest}
	s.entries = append(s.entries, e)
	return e, nil
}

func (s *shelf) Apply(_ context.Context, step publish.Step) error {
	for i := range s.entries {
		e := &s.entries[i]
		e.Labels = slices.DeleteFunc(e.Labels, func(l publish.Label) bool { return l == step.Label })
		if step.Op == publish.Assign && e.ID == step.Entry.ID {
			e.Labels = append(e.Labels, step.Label)
		}
	}
	if step.Op == publish.Remove {
		s.entries = slices.DeleteFunc(s.entries, func(e publish.Entry) bool { return e.ID == step.Entry.ID })
	}
	return nil
}

// A program that embeds the factory has its own builder and its own target, and
// its test runs them all the way to the published release without a guest.
func ExampleFactory() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "upstream.qcow2")
	if err := sandboxtest.WriteImage(image, 4<<30); err != nil {
		fmt.Println(err)
		return
	}
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "example"})
	if err != nil {
		fmt.Println(err)
		return
	}

	shelf := new(shelf)
	factory := imagefactory.Factory{
		Dir: filepath.Join(dir, "factory"), Key: key,
		Builders: []imagefactory.BuilderDriver{upstreamDriver{}},
		Targets:  []imagefactory.TargetDriver{shelfDriver{shelf}},
		Sandbox:  sandboxtest.Sandbox{}, // without it, QEMU boots the image
		Progress: func(e imagefactory.Event) {
			if e.Done {
				fmt.Println(e.Image, e.Stage, e.Err)
			}
		},
	}
	report, err := factory.Run(context.Background(), []imagefactory.Definition{{
		Name: "Standard_Debian_12", DiskBytes: 4 * imagefactory.GiB,
		OS:         imagefactory.OS{Distribution: "debian", Version: "12", Codename: "bookworm"},
		Builder:    imagefactory.Component{Driver: "upstream", Config: upstream{Image: image}},
		Mirrors:    map[string]string{"debian": "http://mirror.example/debian"},
		UVPMonitor: imagefactory.UVPMonitor{State: testsuite.UVPOptional, Reason: "not in Debian's archive"},
		// Trusted keys and publish targets have defaults that are not wanted here.
		TrustedKeys: []imagefactory.TrustedKey{{File: image}},
		Publish:     []imagefactory.Component{{Driver: "shelf"}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.Images[0].Result, report.OK())
	for _, e := range shelf.entries {
		fmt.Println(e.Image, e.Labels)
	}
	// Output:
	// Standard_Debian_12 build <nil>
	// Standard_Debian_12 inspect <nil>
	// Standard_Debian_12 test <nil>
	// Standard_Debian_12 seal <nil>
	// Standard_Debian_12 publish <nil>
	// published true
	// Standard_Debian_12 [latest]
}

// A definition in Go has the same defaults and is held to the same rules as one
// in YAML.
func ExampleDefinition() {
	d := imagefactory.Definition{
		Name: "Standard_Debian_12", DiskBytes: 4 * imagefactory.GiB,
		OS:      imagefactory.OS{Distribution: "debian", Version: "12", Codename: "bookworm"},
		Builder: imagefactory.Component{Driver: "dib", Config: map[string]any{"elements": []string{"debian-minimal", "vm"}}},
	}
	if err := d.Complete(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.User, d.OS.Arch, d.MinDiskBytes, d.Test.Profile)
	for _, r := range d.Repositories {
		fmt.Println(r.URL, r.Suites)
	}

	d.MinDiskBytes = 2 * imagefactory.GiB
	fmt.Println(d.Complete())
	// Output:
	// linux amd64 4GiB otc
	// http://debmirror.otc-service.com/debian [bookworm bookworm-updates]
	// http://debmirror.otc-service.com/debian-security [bookworm-security]
	// min_disk: 2GiB is less than the disk's 4GiB
}

// What a booted image shows of itself, here as recorded from a Debian 12.
func ExampleEvidenceFrom() {
	facts := testsuite.Facts{Facts: sandboxtest.Good()}
	evidence, err := imagefactory.EvidenceFrom(facts, nil, "amd64")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(evidence.Arch, slices.Contains(evidence.InitrdModules, "virtio_blk.ko"), slices.Contains(evidence.Packages, "cloud-init"))

	_, err = imagefactory.EvidenceFrom(facts, nil, "arm64")
	fmt.Println(err)
	// Output:
	// amd64 true true
	// the image should be for arm64, but its kernel is for amd64
}
