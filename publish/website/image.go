package website

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
	// contents are those of latest, where it was verified in this run.
	contents *contents
	// described is latest, or else the newest that may be shown; nil if there is none.
	described *release
}

// cache is what is kept of an image between runs.
type cache struct {
	Page     string     `json:"page"` // what its page and feeds were made of
	Releases []*release `json:"releases"`
}

// told is what the site's own pages and feeds say of an image.
type told struct {
	row     row
	inIndex indexImage
	news    []news
	bad     []error
}

// addImage verifies the releases of an image and puts what is said of it.
func (w *writer) addImage(ctx context.Context, name string) (*told, error) {
	p := w.out.part(name)
	old, cacheName := p.loadCache()
	img := &image{Image: Image{Name: name}}
	if err := w.addReleases(ctx, p, img, old.Releases); err != nil {
		return nil, err
	}
	known, err := w.describe(img)
	if err != nil {
		return nil, err
	}
	c := cache{Releases: img.releases}
	if c.Page, err = w.addImagePages(ctx, p, img, old.Page, known); err != nil {
		return nil, err
	}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if err := p.put(cacheName, data); err != nil {
		return nil, err
	}
	t := &told{row: img.row(), inIndex: img.inIndex()}
	for _, r := range img.releases {
		if len(t.news) < maxNews {
			t.news = append(t.news, img.news(r))
		}
		if r.err != nil {
			t.bad = append(t.bad, &BadReleaseError{Image: name, Build: r.Build.String(), Err: r.err})
		}
	}
	return t, p.finish()
}

// loadCache reads what an earlier run kept of an image; nothing if that cannot be
// read.
func (p *part) loadCache() (c cache, file string) {
	file = cacheDir + p.Name + ".json"
	f, err := p.root.Open(file)
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

// addReleases puts the files and pages of the releases, the oldest first, for each
// page names the release before.
func (w *writer) addReleases(ctx context.Context, p *part, img *image, old []*release) error {
	entries, err := w.List(ctx, img.Name)
	if err != nil {
		return err
	}
	before := ""
	for _, e := range slices.SortedFunc(slices.Values(entries), func(a, b publish.Entry) int { return a.Build.Compare(b.Build) }) {
		if e.Build.IsZero() || e.Foreign {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r, c, err := w.addRelease(ctx, p, e, old, before)
		if errors.Is(err, fs.ErrNotExist) && !isDir(filepath.Join(w.Dir, img.Name, e.Build.String())) {
			continue // it was removed since
		}
		if err != nil {
			return err
		}
		img.releases = append(img.releases, r)
		if r.shown() {
			before = r.Build.String()
		}
		if e.Has(publish.Latest) && r.state == active {
			img.latest, img.contents = r, c
		}
		img.describedBy(r)
	}
	for _, o := range old {
		if !slices.ContainsFunc(img.releases, func(r *release) bool { return r.Build == o.Build }) {
			img.releases = append(img.releases, &release{Build: o.Build, Gone: true, state: deleted})
		}
	}
	slices.SortFunc(img.releases, func(a, b *release) int { return b.Build.Compare(a.Build) })
	return w.readIndex(ctx, img)
}

// describedBy sets described if r, which is newer than those before, is the one. Only
// its index is kept.
func (img *image) describedBy(r *release) {
	switch {
	case !r.shown():
		return
	case img.latest != nil && img.latest != r:
		r.Index = nil
		return
	case img.described != nil:
		img.described.Index = nil
	}
	img.described = r
}

// readIndex reads the index of what is described where it was not kept.
func (w *writer) readIndex(ctx context.Context, img *image) error {
	r := img.described
	if r == nil || r.Index != nil {
		return nil
	}
	c, err := w.openAgain(ctx, r)
	if r == img.latest {
		img.contents = c
	}
	return err
}

// openAgain verifies a release of which an earlier run kept the facts.
func (w *writer) openAgain(ctx context.Context, r *release) (*contents, error) {
	again := &release{Build: r.Build}
	c, err := w.open(ctx, r.Image, again)
	if err == nil && again.Digest != r.Digest {
		err = fmt.Errorf("release %s changed while the site was written", r.Build)
	}
	r.Index = again.Index
	return c, err
}

func isDir(name string) bool {
	st, err := os.Lstat(name)
	return err == nil && st.IsDir()
}

// addRelease puts a release's files and its page. One that an earlier run verified,
// whose files did not change since, stays as it is if its page would be the same;
// else it is verified before anything is made of it, and its contents are returned.
func (w *writer) addRelease(ctx context.Context, p *part, e publish.Entry, old []*release, before string) (*release, *contents, error) {
	build := e.Build.String()
	from, page := filepath.Join(w.Dir, p.Name, build), path.Join("images", p.Name, build+".html")
	files := path.Join("download", p.Name, build)
	seen, err := look(from)
	if err != nil {
		return nil, nil, err
	}
	if r := keptOf(old, e, stamper(seen, w.keyring)); r != nil && r.Page == w.pageKey(r, before) && p.keepIn(files, r.downloads()) && p.keep(page) {
		return r, nil, nil
	}
	r := &release{Build: e.Build, entry: e}
	c, err := w.verify(ctx, p, r, files, from, seen)
	r.setState()
	if err != nil || r.Problem != "" {
		return r, nil, err
	}
	r.Page = w.pageKey(r, before)
	data, err := w.pages.release(w, p.Name, r, c, before)
	if err != nil {
		return nil, nil, err
	}
	r.open = nil
	return r, c, p.put(page, data)
}

// keptOf is the release of an earlier run that e still is; nil if there is none.
func keptOf(old []*release, e publish.Entry, stamp func([]publish.File) string) *release {
	i := slices.IndexFunc(old, func(o *release) bool {
		return o.Build == e.Build && o.Problem == "" && o.Stamp != "" && o.Stamp == stamp(o.Files)
	})
	if i < 0 {
		return nil
	}
	r := *old[i]
	r.entry = e
	r.setState()
	return &r
}

func stamper(seen map[string]fs.FileInfo, keyring string) func([]publish.File) string {
	return func(files []publish.File) string { return stampOf(seen, files, keyring) }
}

// pageKey stands for what a release's page is made of.
func (w *writer) pageKey(r *release, before string) string {
	return w.key(w.look, r.Digest, r.Files, r.Signers, r.state, r.entry, before)
}

// verify links a release's files to where they wait and verifies them then. They are
// put if they are still those that were verified.
func (w *writer) verify(ctx context.Context, p *part, r *release, files, from string, seen map[string]fs.FileInfo) (*contents, error) {
	if err := p.linkDir(files, from, seen, map[string]string{signing.SumsSig: sumsGPG}); err != nil {
		return nil, err
	}
	linked, err := look(from)
	if err != nil {
		return nil, err
	}
	c, err := w.open(ctx, p.Name, r)
	if err != nil || r.Problem != "" {
		return nil, errors.Join(err, p.drop(files))
	}
	after, err := look(from)
	if err != nil {
		return nil, err
	}
	r.Stamp = stampOf(linked, r.Files, w.keyring)
	if r.Stamp == "" || r.Stamp != stampOf(after, r.Files, w.keyring) {
		r.refuse(errors.New("its files changed while they were verified"))
		return nil, p.drop(files)
	}
	sources := map[string]source{}
	for _, f := range r.Files {
		sources[f.Name] = source{after[f.Name], func() (io.ReadCloser, error) { return r.open.Open(f.Name) }}
	}
	if _, ok := sources[sumsGPG]; !ok {
		sources[sumsGPG] = sources[signing.SumsSig]
	}
	return c, p.takeDir(files, sources)
}

// sumsGPG is the name by which systemd looks for the signature of SHA256SUMS.
const sumsGPG = signing.SumsFile + ".gpg"

// downloads are the names of the files that are offered, sumsGPG among them.
func (r *release) downloads() []string {
	names := []string{sumsGPG}
	for _, f := range r.Files {
		if f.Name != sumsGPG {
			names = append(names, f.Name)
		}
	}
	return names
}

// describe sets the row of the image. known says whether there is one.
func (w *writer) describe(img *image) (known bool, err error) {
	if i := slices.IndexFunc(w.Images, func(i Image) bool { return i.Name == img.Name }); i >= 0 {
		img.Image = w.Images[i]
		return true, nil
	}
	if w.Row == nil || img.described == nil {
		return false, nil
	}
	row, err := w.Row(img.described.Index)
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

// addImagePages puts the pages and feeds of an image, and returns what stands for
// what they are made of.
func (w *writer) addImagePages(ctx context.Context, p *part, img *image, old string, known bool) (string, error) {
	key := w.key(w.look, img.Image)
	for _, r := range img.releases {
		key = w.key(key, r.Build, r.Page, r.state, r.entry)
	}
	dir := path.Join("images", img.Name)
	if img.latest != nil {
		p.link(path.Join("latest", img.Name), path.Join("..", "download", img.Name, img.latest.Build.String()))
	}
	names := []string{path.Join(dir, "index.json"), path.Join(dir, "atom.xml"), path.Join(dir, "index.html")}
	if streams := img.streamed(); len(streams) > 0 {
		names = append(names, streamName(img.Name))
		if w.Signer != nil {
			names = append(names, signedName(streamName(img.Name)))
		}
	}
	if key == old && !slices.ContainsFunc(names, func(n string) bool { return !p.keep(n) }) {
		return key, nil
	}
	if l := img.latest; l != nil && img.contents == nil {
		var err error
		if img.contents, err = w.openAgain(ctx, l); err != nil {
			return "", err
		}
	}
	if err := w.addImageFeeds(ctx, p, img); err != nil {
		return "", err
	}
	data, err := w.pages.image(w, img, known)
	if err != nil {
		return "", err
	}
	return key, p.put(path.Join(dir, "index.html"), data)
}

// row is what the table says of the image.
func (img *image) row() row {
	// The table needs none of these.
	r := row{Image: img.Image, HasAny: len(img.releases) > 0, Streamed: len(img.streamed()) > 0}
	r.Properties, r.Notes, r.Waivers = nil, nil, nil
	for _, x := range img.releases {
		r.Bad = r.Bad || x.state == unverified
	}
	if l := img.latest; l != nil {
		r.Latest, r.Tests = l.Build.String(), l.Tests
		if f := l.file(".qcow2"); f != nil {
			r.Size = f.SizeBytes
		}
	}
	return r
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
