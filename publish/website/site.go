package website

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

//go:embed assets
var assets embed.FS

// Site is a download directory with what is to be told of it. It is not changed by
// Write.
type Site struct {
	// Title stands above the pages. If empty, "Images".
	Title string
	// URL is where Out will be served, for the feeds that need whole
	// addresses. If empty, they have relative ones.
	URL string

	// Dir is the download directory: releases are Dir/NAME/BUILD. Required.
	Dir string
	// List lists the releases of an image with their labels and fate, such as
	// the List of a directory.Target. It may be called for several images at
	// once, as may Row. Required.
	List func(ctx context.Context, image string) ([]publish.Entry, error)
	// Keyring verifies the releases. Required.
	Keyring *signing.Keyring

	// Flavors are the columns of the table and Images the rows that are there
	// whether they have releases or not.
	Flavors []Flavor
	Images  []Image
	// Row makes the row of an image of Dir that Images does not have, from its
	// latest release. If nil, nothing is known of its flavors.
	Row func(*publish.Index) (Image, error)

	// Signer signs the feeds. If nil, they are not signed.
	Signer *signing.Signer
	// Report is the last run's report (report.json), whose logs are looked for
	// below Dir. If empty, there is no page of it.
	Report []byte

	// Out is the directory to write. It is made where missing. Required.
	Out string
}

// A Flavor is a column of the table: a flavor or a family of flavors.
type Flavor struct {
	Name       string
	Group      string // the kind of flavor; neighbours with the same one share a head
	Hypervisor string
	Hardware   string // what is special; empty for none
	Withdrawn  bool   // new servers cannot be had
}

// An Image is a row of the table: what is known of an image besides its releases.
type Image struct {
	Name         string
	Class        string // Standard, …
	Distribution string
	Version      string
	Arch         string
	User         string // login user
	DiskBytes    int64
	MinDiskGiB   int
	Mask         string   // the capabilities as a number
	Capabilities []string // their names
	Properties   map[string]string
	// Answers are the flavors', in the order of [Site.Flavors].
	Answers []Answer
	Notes   []string // known issues
	Waivers []Waiver
}

// An Answer is what a flavor says to an image.
type Answer struct {
	Answer        string   // yes, no or unknown
	Missing       []string // what the image lacks where it is not yes
	LiveMigration bool
	// Instead says how the image is registered for the flavor where it is not
	// accepted as it is; empty where it cannot be.
	Instead string
}

// A Waiver says why a check that fails is accepted, and up to which day.
type Waiver struct {
	Check, Reason, Expires string
}

// BadReleaseError is that a release does not verify. The site says so and does not
// link it.
type BadReleaseError struct {
	Image, Build string
	Err          error
}

func (e *BadReleaseError) Error() string {
	return fmt.Sprintf("release %s/%s does not verify: %v", e.Image, e.Build, e.Err)
}

func (e *BadReleaseError) Unwrap() error { return e.Err }

// Write writes the site. If all is written but some releases do not verify, the
// error joins a *BadReleaseError for each; after another error the site is as it was
// before, or is completed by the next Write.
func (s *Site) Write(ctx context.Context) error {
	if s.Dir == "" || s.Out == "" || s.List == nil || s.Keyring == nil {
		return errors.New("cannot write website: want Dir, Out, List and Keyring")
	}
	w := &writer{Site: s}
	if err := w.write(ctx); err != nil {
		return fmt.Errorf("cannot write website %s: %w", s.Out, err)
	}
	return errors.Join(w.bad...)
}

// writer is one Write.
type writer struct {
	*Site
	out   *output
	pages *pages
	// keyring stands for what verifies releases, and look for everything but
	// data that pages depend on.
	keyring, look string

	bad  []error
	rows []row
	news []news
}

func (w *writer) write(ctx context.Context) (err error) {
	if w.pages, err = newPages(); err != nil {
		return err
	}
	if err := w.fingerprint(); err != nil {
		return err
	}
	names, err := w.names()
	if err != nil {
		return err
	}
	if w.out, err = openOutput(ctx, w.Out); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.out.close()) }()
	p := w.out.part(sitePart)
	index, err := p.newIndexJSON()
	if err != nil {
		return err
	}
	err = w.addImages(ctx, names, index)
	if err := errors.Join(err, index.close()); err != nil {
		return err
	}
	if err := w.addSitePages(ctx, p); err != nil {
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	return w.out.commit(append(names, sitePart))
}

// addImages adds some images at a time, and what is told of them in the order of
// their names. It panics where List or Row does.
func (w *writer) addImages(ctx context.Context, names []string, index *indexJSON) error {
	g, ctx := errgroup.WithContext(ctx)
	inTurn := make(chan chan *told, runtime.GOMAXPROCS(0))
	panics := make(chan any, len(names))
	g.Go(func() error {
		defer close(inTurn)
		for _, name := range names {
			done := make(chan *told, 1)
			select {
			case inTurn <- done:
			case <-ctx.Done():
				return ctx.Err()
			}
			g.Go(func() (err error) {
				defer func() {
					if v := recover(); v != nil { // of List or Row
						panics <- v
						err = errors.New("panic")
					}
				}()
				t, err := w.addImage(ctx, name)
				if err != nil {
					return fmt.Errorf("image %s: %w", name, err)
				}
				done <- t
				return nil
			})
		}
		return nil
	})
	g.Go(func() error {
		for done := range inTurn {
			select {
			case t := <-done:
				w.rows, w.bad = append(w.rows, t.row), append(w.bad, t.bad...)
				w.news = newest(append(w.news, t.news...))
				if err := index.add(t.inIndex); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	err := g.Wait()
	select {
	case v := <-panics: // where the caller can recover
		panic(v)
	default:
		return err
	}
}

// addSitePages adds what is of no single image.
func (w *writer) addSitePages(ctx context.Context, p *part) error {
	if err := w.addKeys(p); err != nil {
		return err
	}
	if err := w.addNight(p); err != nil {
		return err
	}
	if err := w.addFeeds(ctx, p); err != nil {
		return err
	}
	for _, name := range []string{"site.css", "site.js", "icon.svg"} {
		data, err := assets.ReadFile("assets/" + name)
		if err != nil {
			return err
		}
		if err := p.put(name, data); err != nil {
			return err
		}
	}
	data, err := w.pages.index(w)
	if err != nil {
		return err
	}
	return p.put(indexName, data)
}

// fingerprint sets what cached facts and pages depend on.
func (w *writer) fingerprint() error {
	h := sha256.New()
	for _, p := range w.Keyring.Pins() {
		fmt.Fprintln(h, p, p.From.Unix(), p.Until.Unix(), p.Purposes)
		if key := w.Keyring.Key(p.Fingerprint); key != nil {
			if err := key.WritePublic(h); err != nil {
				return err
			}
		}
	}
	w.keyring = hex.EncodeToString(h.Sum(nil))
	fmt.Fprintf(h, "%q %q %t\n", w.Title, w.URL, len(w.Report) > 0)
	err := fs.WalkDir(assets, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := assets.ReadFile(name)
		h.Write(data)
		return err
	})
	if err == nil {
		err = json.NewEncoder(h).Encode(w.Flavors)
	}
	w.look = hex.EncodeToString(h.Sum(nil))
	return err
}

// names are those of all images, sorted.
func (w *writer) names() ([]string, error) {
	dirents, err := os.ReadDir(w.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range w.Images {
		if err := publish.CheckImage(i.Name); err != nil {
			return nil, err
		}
		if len(i.Answers) != 0 && len(i.Answers) != len(w.Flavors) {
			return nil, fmt.Errorf("image %s has %d answers of %d flavors", i.Name, len(i.Answers), len(w.Flavors))
		}
		names = append(names, i.Name)
	}
	for _, d := range dirents {
		if d.IsDir() && publish.CheckImage(d.Name()) == nil && w.hasBuild(d.Name()) {
			names = append(names, d.Name())
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// hasBuild reports whether a directory holds what is named like a release.
func (w *writer) hasBuild(name string) bool {
	dirents, _ := os.ReadDir(path.Join(w.Dir, name))
	return slices.ContainsFunc(dirents, func(d os.DirEntry) bool {
		_, err := publish.ParseBuildID(d.Name())
		return err == nil
	})
}

func (w *writer) addKeys(p *part) error {
	var b strings.Builder
	for _, pin := range w.Keyring.Pins() {
		if key := w.Keyring.Key(pin.Fingerprint); key != nil {
			if err := key.WritePublic(&b); err != nil {
				return err
			}
		}
	}
	return p.put("imagefactory.pub", []byte(b.String()))
}

// title is the site's.
func (w *writer) title() string {
	if w.Title == "" {
		return "Images"
	}
	return w.Title
}

// row is what the table says of an image.
type row struct {
	Image
	Latest string // build
	Bad    bool   // some release does not verify
	Size   int64  // of the latest image, in bytes
	Tests  publish.Tests
	HasAny bool // there are releases, of whatever state
	// Streamed is that simplestreams has the image.
	Streamed bool
}

// news is an entry of the Atom feed of all.
type news struct {
	Image, Build, State, Text string
	At                        time.Time
}
