// Command affected tells which releases of images a security advisory is about.
//
//	affected ID -dir DIR -advisories PATH [-keyring FILE] [-seen FILE] [-since] [-json]
//	affected -image NAME -dir DIR -advisories PATH [-keyring FILE] [-seen FILE] [-json]
//
// The first form judges every release of every image below DIR by the advisory ID,
// such as CVE-2026-1234: affected, fixed, not affected, not present, or unknown; with
// -since only what the latest release is, and since which build it is free. The
// second one lists all that is open in the latest release of an image, with its
// severity and the version that has the fix, if there is one, and in which of the
// distribution's repositories it is, where the advisories say so.
//
// DIR is a download directory, DIR/IMAGE/BUILD. Only releases count that verify with
// the keys in -keyring, by default DIR/imagefactory.pub, which is as trustworthy as
// DIR is. PATH is a file or a directory of advisories as they are published: the
// package advisory says which. Nothing is fetched. With -seen the age of the files is
// noted in FILE, and files that are older than were seen before are refused.
//
// Exit codes: 0 nothing is affected; 1 something is: with ID a latest release, with
// -image an open advisory; 2 bad usage, or something is unknown: no advisory has the
// ID, a release does not verify, or no advisory is about its distribution.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

var (
	errAffected = errors.New("affected")
	errUsage    = errors.New("usage: affected ID | -image NAME, -dir DIR -advisories PATH [-keyring FILE] [-seen FILE] [-since] [-json]")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errAffected):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "affected:", err)
		os.Exit(2)
	}
}

// options are the command line.
type options struct {
	id, image, dir, advisories, keyring, seen string
	since, json                               bool
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("affected", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&o.image, "image", "", "the `name` of the image whose latest release is judged by all advisories")
	f.StringVar(&o.dir, "dir", "", "download `directory` of the releases")
	f.StringVar(&o.advisories, "advisories", "", "file or directory of advisories")
	f.StringVar(&o.keyring, "keyring", "", "`file` of the keys that sign releases (default DIR/imagefactory.pub)")
	f.StringVar(&o.seen, "seen", "", "`file` that remembers how old the advisories were")
	f.BoolVar(&o.since, "since", false, "a line for each image")
	f.BoolVar(&o.json, "json", false, "write JSON")
	for len(args) > 0 { // ID may stand before or behind the flags
		if err := f.Parse(args); err != nil {
			return o, err
		}
		if args = f.Args(); len(args) > 0 {
			if o.id != "" {
				return o, errUsage
			}
			o.id, args = args[0], args[1:]
		}
	}
	if (o.id == "") == (o.image == "") || o.dir == "" || o.advisories == "" || o.since && o.image != "" {
		return o, errUsage
	}
	if o.keyring == "" {
		o.keyring = filepath.Join(o.dir, "imagefactory.pub")
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parse(args, os.Stderr)
	if err != nil {
		return err
	}
	keyring, err := signing.LoadKeyring(o.keyring)
	if err != nil {
		return err
	}
	var images, ids []string
	if o.image != "" {
		images = []string{o.image}
	} else {
		ids = []string{o.id}
	}
	var db *advisory.Database
	var releases []advisory.Release
	g, groupContext := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		db, err = advisory.Load(groupContext, o.advisories, ids...)
		return err
	})
	g.Go(func() (err error) {
		releases, err = advisory.ReadReleases(groupContext, o.dir, keyring, images...)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if o.seen != "" {
		if err := db.Remember(o.seen); err != nil {
			return err
		}
	}
	if len(releases) == 0 {
		return fmt.Errorf("%s has no release to judge", o.dir)
	}
	if o.image != "" {
		return open(stdout, o, db, releases)
	}
	if !slices.Contains(db.IDs(), o.id) {
		return fmt.Errorf("no advisory is called %.100q: what is affected is not known", o.id)
	}
	return report(stdout, o, db.Report(o.id, releases))
}

func report(w io.Writer, o options, images []advisory.ImageVerdict) error {
	if o.json {
		if err := writeJSON(w, images); err != nil {
			return err
		}
	}
	unknown, affected := 0, false
	for _, v := range images {
		affected = affected || v.Status == advisory.Affected
		if !o.json {
			fmt.Fprintln(w, v)
		}
		for _, r := range v.Releases {
			if r.Status == advisory.Unknown {
				unknown++
			}
			if !o.json && !o.since {
				fmt.Fprintln(w, " ", r)
			}
		}
	}
	switch {
	case affected:
		return errAffected
	case unknown > 0:
		return fmt.Errorf("what %d releases are is not known", unknown)
	}
	return nil
}

func open(w io.Writer, o options, db *advisory.Database, releases []advisory.Release) error {
	latest := slices.IndexFunc(releases, func(r advisory.Release) bool { return r.Latest })
	if latest < 0 {
		latest = len(releases) - 1
	}
	r := releases[latest]
	if r.Err != nil {
		return r.Err
	}
	if !db.Covers(r.Installed.Distribution, r.Installed.Release) {
		return fmt.Errorf("no advisory is about %s %s", r.Installed.Distribution, r.Installed.Release)
	}
	found := db.Open(r.Installed)
	if o.json {
		if err := writeJSON(w, found); err != nil {
			return err
		}
	} else {
		for _, v := range found {
			fmt.Fprintln(w, v)
		}
	}
	if len(found) > 0 {
		return errAffected
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
