package website

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// image is an image with its releases.
type image struct {
	Image
	releases []*release // newest first
	latest   *release   // nil if there is none that may be shown
}

// cache is what is kept of an image between runs.
type cache struct {
	Page     string     `json:"page"` // what its page and feeds were made of
	Releases []*release `json:"releases"`
}

// addImage verifies the releases of an image and puts what is said of it.
func (w *writer) addImage(ctx context.Context, name string) error {
	old, cacheName := w.loadCache(name)
	img := &image{Image: Image{Name: name}}
	if err := w.addReleases(ctx, img, old); err != nil {
		return err
	}
	known, err := w.describe(img)
	if err != nil {
		return err
	}
	key := w.key(img.Image, w.look)
	for i, r := range img.releases {
		if err := w.addRelease(ctx, img, i, key); err != nil {
			return err
		}
		if r != img.latest {
			r.open = nil
		}
	}
	c := cache{Releases: img.releases}
	if c.Page, err = w.addImagePages(ctx, img, key, old.Page, known); err != nil {
		return err
	}
	w.addRow(img)
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return w.out.put(cacheName, data)
}

// loadCache reads what an earlier run kept of an image; nothing if that cannot be
// read.
func (w *writer) loadCache(name string) (c cache, file string) {
	file = path.Join(privateDir, "cache", name+".json")
	f, err := w.out.root.Open(file)
	if err != nil {
		return c, file
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCache))
	if err != nil || json.Unmarshal(data, &c) != nil || slices.Contains(c.Releases, nil) {
		return cache{}, file
	}
	return c, file
}

// addReleases lists the releases, and verifies what an earlier run did not.
func (w *writer) addReleases(ctx context.Context, img *image, old cache) error {
	entries, err := w.List(ctx, img.Name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Build.IsZero() || e.Foreign {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r := &release{Build: e.Build, entry: e}
		dir := filepath.Join(w.Dir, img.Name, e.Build.String())
		if r.Stamp, err = stampOf(dir, w.keyring); errors.Is(err, fs.ErrNotExist) {
			continue // it was removed since
		} else if err != nil {
			return err
		}
		i := slices.IndexFunc(old.Releases, func(o *release) bool {
			return o.Build == e.Build && o.Stamp == r.Stamp && o.Problem == "" && o.Index != nil
		})
		if i >= 0 {
			r = old.Releases[i]
			r.entry = e
		} else if err := w.verify(ctx, img.Name, r); err != nil {
			return err
		}
		img.releases = append(img.releases, r)
	}
	for _, o := range old.Releases {
		if !slices.ContainsFunc(img.releases, func(r *release) bool { return r.Build == o.Build }) {
			img.releases = append(img.releases, &release{Build: o.Build})
		}
	}
	slices.SortFunc(img.releases, func(a, b *release) int { return b.Build.Compare(a.Build) })
	for _, r := range img.releases {
		r.setState()
		if r.entry.Has(publish.Latest) && r.state == active {
			img.latest = r
		}
	}
	return nil
}

// describe sets the row of the image. known says whether there is one.
func (w *writer) describe(img *image) (known bool, err error) {
	if i := slices.IndexFunc(w.Images, func(i Image) bool { return i.Name == img.Name }); i >= 0 {
		img.Image = w.Images[i]
		return true, nil
	}
	of := img.latest
	for _, r := range img.releases {
		if of == nil && r.shown() {
			of = r
		}
	}
	if w.Row == nil || of == nil {
		return false, nil
	}
	row, err := w.Row(of.Index)
	if err != nil {
		return false, err
	}
	if len(row.Answers) != len(w.Flavors) {
		return false, errors.New("its row has not one answer for each flavor")
	}
	row.Name = img.Name
	img.Image = row
	return true, nil
}

// key stands for values that a page is made of.
func (w *writer) key(values ...any) string {
	h := sha256.New()
	// What cannot be encoded has no kind that is used here.
	_ = json.NewEncoder(h).Encode(values)
	return hex.EncodeToString(h.Sum(nil))
}

// addRelease puts a release's files and its page.
func (w *writer) addRelease(ctx context.Context, img *image, i int, key string) error {
	r := img.releases[i]
	if !r.shown() {
		return nil
	}
	dir := path.Join("download", img.Name, r.Build.String())
	if err := w.addFiles(ctx, img.Name, dir, r); err != nil {
		return err
	}
	name := path.Join("images", img.Name, r.Build.String()+".html")
	key = w.key(key, r.Stamp, r.state, r.entry, img.before(i))
	if r.Page == key && w.out.keep(name) {
		return nil
	}
	if err := w.again(ctx, img.Name, r); err != nil {
		return err
	}
	data, err := w.pages.release(w, img, i)
	if err != nil {
		return err
	}
	r.Page = key
	return w.out.put(name, data)
}

// before is the build of the release before, if it is shown.
func (img *image) before(i int) string {
	for _, r := range img.releases[i+1:] {
		if r.shown() {
			return r.Build.String()
		}
	}
	return ""
}

// addFiles links the release's files below the output directory. That changes
// the time of the inodes' last change, so the stamp is taken again; in between
// nothing else may have changed.
func (w *writer) addFiles(ctx context.Context, image, dir string, r *release) error {
	type file struct{ name, from string }
	files := []file{}
	for _, f := range r.Files {
		files = append(files, file{f.Name, f.Name})
	}
	if !slices.ContainsFunc(r.Files, func(f publish.File) bool { return f.Name == signing.SumsFile+".gpg" }) {
		files = append(files, file{signing.SumsFile + ".gpg", signing.SumsSig})
	}
	there := r.open == nil // then they are as they were
	for _, f := range files {
		there = there && w.out.keep(path.Join(dir, f.name))
	}
	if there {
		return nil
	}
	if err := w.again(ctx, image, r); err != nil {
		return err
	}
	for _, f := range files {
		from := filepath.Join(r.open.Dir, f.from)
		if err := w.out.take(path.Join(dir, f.name), from, func() (io.ReadCloser, error) { return r.open.Open(f.from) }); err != nil {
			return err
		}
	}
	var err error
	r.Stamp, err = stampOf(r.open.Dir, w.keyring)
	return err
}

// addImagePages puts the pages and feeds of an image, and returns what stands for
// what they are made of.
func (w *writer) addImagePages(ctx context.Context, img *image, key, old string, known bool) (string, error) {
	for _, r := range img.releases {
		key = w.key(key, r.Build, r.Stamp, r.state, r.entry)
	}
	dir := path.Join("images", img.Name)
	if img.latest != nil {
		w.out.link(path.Join("latest", img.Name), path.Join("..", "download", img.Name, img.latest.Build.String()))
	}
	w.addNews(img)
	names := []string{path.Join(dir, "index.json"), path.Join(dir, "atom.xml"), path.Join(dir, "index.html")}
	if streams := img.streamed(); len(streams) > 0 {
		names = append(names, streamName(img.Name))
		if w.Signer != nil {
			names = append(names, signedName(streamName(img.Name)))
		}
	}
	if key == old && !slices.ContainsFunc(names, func(n string) bool { return !w.out.keep(n) }) {
		return key, nil
	}
	if img.latest != nil {
		if err := w.again(ctx, img.Name, img.latest); err != nil {
			return "", err
		}
	}
	if err := w.addImageFeeds(ctx, img); err != nil {
		return "", err
	}
	data, err := w.pages.image(w, img, known)
	if err != nil {
		return "", err
	}
	return key, w.out.put(path.Join(dir, "index.html"), data)
}

// addRow keeps what the table says of the image.
func (w *writer) addRow(img *image) {
	// The table needs none of these.
	r := row{Image: img.Image, HasAny: len(img.releases) > 0}
	r.Properties, r.Notes, r.Waivers = nil, nil, nil
	for _, x := range img.releases {
		r.Bad = r.Bad || x.state == unverified
	}
	if l := img.latest; l != nil {
		r.Latest, r.Tests = l.Build.String(), l.Index.Tests
		if f := l.file(".qcow2"); f != nil {
			r.Size = f.SizeBytes
		}
	}
	w.rows = append(w.rows, r)
}

// streamed are the releases of the simplestreams feed, newest first.
func (img *image) streamed() []*release {
	if img.latest == nil {
		return nil
	}
	var list []*release
	for _, r := range img.releases {
		if (r.state == active || r.state == deprecated) && r.Build.Compare(img.latest.Build) <= 0 && r.file(".qcow2") != nil {
			list = append(list, r)
		}
	}
	return list
}

// arch is the image's architecture in the words of simplestreams.
func (img *image) arch() string {
	if img.Arch != "" {
		return img.Arch
	}
	if l := img.latest; l != nil && (strings.Contains(l.Index.Properties["architecture"], "aarch64") || l.Index.Properties["__support_arm"] == "true") {
		return "arm64"
	}
	return "amd64"
}
