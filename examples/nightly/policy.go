package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// policyFlags are what may be asked of a factory beside a night.
type policyFlags struct {
	due                          *bool
	promote, rotated, advisories *string
}

func newPolicyFlags(fs *flag.FlagSet) policyFlags {
	return policyFlags{
		due:        fs.Bool("due", false, "say of each image whether its latest is due, and build nothing"),
		promote:    fs.String("promote", "", "`NAME[/BUILD]` of a candidate to make public, without a build"),
		rotated:    fs.String("rotate-key", "", "`file` of the secret key, made if there is none, that follows the one of -key from now on"),
		advisories: fs.String("advisories", "", "file or directory of the distributions' advisories, for the gate and the renewal"),
	}
}

// asked counts what was asked for.
func (p policyFlags) asked() int {
	n := 0
	for _, asked := range []bool{*p.due, *p.promote != "", *p.rotated != ""} {
		if asked {
			n++
		}
	}
	return n
}

// do does what was asked, and lets the factory know of security updates.
func (p policyFlags) do(ctx context.Context, f *imagefactory.Factory, definitions []imagefactory.Definition, stdout, stderr io.Writer) (code int, done bool) {
	if err := withAdvisories(ctx, f, *p.advisories); err != nil {
		fmt.Fprintln(stderr, "nightly:", err)
		return 2, true
	}
	switch {
	case *p.due:
		return tellDue(ctx, f, definitions, stdout, stderr), true
	case *p.rotated != "":
		return rotate(ctx, f.Dir, f.Key, *p.rotated, stdout, stderr), true
	case *p.promote != "":
		return promote(ctx, f, definitions, *p.promote, stdout, stderr), true
	}
	return 0, false
}

// withAdvisories lets the factory know of security updates.
func withAdvisories(ctx context.Context, f *imagefactory.Factory, file string) error {
	if file == "" {
		return nil
	}
	db, err := advisory.Load(ctx, file)
	if err != nil {
		return err
	}
	f.Updates = imagefactory.UpdatesFrom(db)
	return nil
}

// tellDue says for each image whether its latest is due. It exits with 0, or 2 where
// that could not be told of one.
func tellDue(ctx context.Context, f *imagefactory.Factory, definitions []imagefactory.Definition, stdout, stderr io.Writer) int {
	code := 0
	for _, d := range definitions {
		due, err := f.Due(ctx, d)
		if err != nil {
			fmt.Fprintln(stderr, "nightly:", err)
			code = 2
			continue
		}
		verdict := "not due"
		if due.Due {
			verdict = "due"
		}
		fmt.Fprintf(stdout, "%s: %s (%s): %s\n", d.Name, verdict, due.Why, due.Text)
	}
	return code
}

// promote makes a candidate public: NAME/BUILD, or the newest of NAME.
func promote(ctx context.Context, f *imagefactory.Factory, definitions []imagefactory.Definition, which string, stdout, stderr io.Writer) int {
	name, id, _ := strings.Cut(which, "/")
	chosen, err := choose(definitions, name)
	var build publish.BuildID
	if err == nil && id != "" {
		build, err = publish.ParseBuildID(id)
	}
	if err == nil && len(chosen) != 1 {
		err = errors.New("want one image's name")
	}
	if err != nil {
		fmt.Fprintln(stderr, "nightly: -promote:", err)
		return 2
	}
	image, err := f.Promote(ctx, chosen[0], build)
	if image == nil {
		fmt.Fprintln(stderr, "nightly:", err)
		return 2
	}
	return tellText(&imagefactory.Report{Images: []imagefactory.ImageReport{*image}}, stdout)
}

func tellText(r *imagefactory.Report, stdout io.Writer) int {
	if err := r.WriteText(stdout); err != nil {
		return 2
	}
	if !r.OK() {
		return 1
	}
	return 0
}

// rotate makes the key in a file, which is made where there is none, the one that
// follows the key that signs now.
func rotate(ctx context.Context, dir string, old *signing.Key, file string, stdout, stderr io.Writer) int {
	err := func() error {
		if inside(file, dir) {
			return fmt.Errorf("the secret key %s must not lie in the download directory %s", file, dir)
		}
		signer, err := signing.NewSigner(old, signing.SignerConfig{})
		if err != nil {
			return err
		}
		next, _, err := imagefactory.OpenKey(file)
		if err != nil {
			return err
		}
		if err := imagefactory.RotateKey(ctx, dir, signer, next, time.Time{}); err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "the key %s in %s signs from now on: use -key %s\nthe old one, %s, counts for %v more\n",
			next.Fingerprint(), file, file, old.Fingerprint(), imagefactory.KeyOverlap)
		return err
	}()
	if err != nil {
		fmt.Fprintln(stderr, "nightly: -rotate-key:", err)
		return 2
	}
	return 0
}
