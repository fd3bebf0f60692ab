package website

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// schema is the version of index.json.
const schema = 1

// maxNews bounds the Atom feeds.
const maxNews = 50

// indexImage is what index.json says of an image.
type indexImage struct {
	Name     string          `json:"name"`
	Latest   string          `json:"latest"`  // build; "" if there is none
	Details  string          `json:"details"` // the file that is an imageJSON
	Releases []lifecycleJSON `json:"releases"`
}

type imageJSON struct {
	Schema   int           `json:"schema"`
	Name     string        `json:"name"`
	Releases []releaseJSON `json:"releases"`
}

type lifecycleJSON struct {
	Build      string     `json:"build"`
	Built      time.Time  `json:"built"`
	State      string     `json:"state"`
	Labels     []string   `json:"labels"`
	ReplacedBy string     `json:"replaced_by"`
	Withdrawn  string     `json:"withdrawn"`
	LabelLost  *time.Time `json:"label_lost"`
	Page       string     `json:"page"`
}

type releaseJSON struct {
	lifecycleJSON

	MinDiskGiB int        `json:"min_disk_gib"`
	Files      []fileJSON `json:"files"`
}

type fileJSON struct {
	Path      string `json:"path"`
	SizeBytes int64  `json:"size_bytes"`
	SHA256    string `json:"sha256"`
}

func (img *image) feed() imageJSON {
	feed := imageJSON{Schema: schema, Name: img.Name, Releases: []releaseJSON{}}
	for _, r := range img.releases {
		x := releaseJSON{lifecycleJSON: img.lifecycle(r), Files: []fileJSON{}}
		if r.shown() {
			x.MinDiskGiB = r.MinDiskGiB
			for _, f := range r.Files {
				x.Files = append(x.Files, fileJSON{path.Join("download", img.Name, r.Build.String(), f.Name), f.SizeBytes, f.SHA256})
			}
		}
		feed.Releases = append(feed.Releases, x)
	}
	return feed
}

func (img *image) lifecycle(r *release) lifecycleJSON {
	x := lifecycleJSON{Build: r.Build.String(), Built: r.Build.Time(), State: r.state, Labels: []string{}, Withdrawn: visible(r.entry.Withdrawn)}
	for _, l := range r.entry.Labels {
		x.Labels = append(x.Labels, oneLine(string(l)))
	}
	if !r.entry.LabelLost.IsZero() {
		lost := r.entry.LabelLost.UTC()
		x.LabelLost = &lost
	}
	if img.latest != nil && img.latest != r {
		x.ReplacedBy = img.latest.Build.String()
	}
	if r.shown() {
		x.Page = path.Join("images", img.Name, r.Build.String()+".html")
	}
	return x
}

// inIndex is what index.json says of the image.
func (img *image) inIndex() indexImage {
	x := indexImage{Name: img.Name, Details: path.Join("images", img.Name, "index.json"), Releases: []lifecycleJSON{}}
	if img.latest != nil {
		x.Latest = img.latest.Build.String()
	}
	for _, r := range img.releases {
		x.Releases = append(x.Releases, img.lifecycle(r))
	}
	return x
}

// indexJSON writes index.json image by image, so that it is never in memory whole.
type indexJSON struct {
	f     *os.File
	w     *bufio.Writer
	count int
}

func (p *part) newIndexJSON() (*indexJSON, error) {
	_, err := p.root.Lstat("index.json")
	temp, err := p.stage("index.json", err == nil)
	if err != nil {
		return nil, err
	}
	f, err := p.root.Create(temp)
	if err != nil {
		return nil, err
	}
	x := &indexJSON{f: f, w: bufio.NewWriter(f)}
	fmt.Fprintf(x.w, "{\n  \"schema\": %d,\n  \"images\": [", schema) // whose error close has
	return x, nil
}

func (x *indexJSON) add(i indexImage) error {
	data, err := json.MarshalIndent(i, "    ", "  ")
	separator := ""
	if x.count++; x.count > 1 {
		separator = ","
	}
	fmt.Fprintf(x.w, "%s\n    %s", separator, data)
	return err
}

func (x *indexJSON) close() error {
	fmt.Fprint(x.w, "\n  ]\n}\n")
	return errors.Join(x.w.Flush(), x.f.Close())
}

func marshal(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	return append(data, '\n'), err
}

func (p *part) putJSON(name string, v any) error {
	data, err := marshal(v)
	if err != nil {
		return err
	}
	return p.put(name, data)
}

// addImageFeeds puts the feeds of one image.
func (w *writer) addImageFeeds(ctx context.Context, p *part, img *image) error {
	dir := path.Join("images", img.Name)
	if err := p.putJSON(path.Join(dir, "index.json"), img.feed()); err != nil {
		return err
	}
	var list []news
	for _, r := range img.releases {
		list = append(list, img.news(r))
	}
	if err := w.putAtom(p, path.Join(dir, "atom.xml"), img.Name, list); err != nil {
		return err
	}
	if releases := img.streamed(); len(releases) > 0 {
		return w.putStream(ctx, p, streamName(img.Name), img.products(releases))
	}
	return nil
}

// addFeeds puts the feeds of all images but index.json.
func (w *writer) addFeeds(ctx context.Context, p *part) error {
	if err := w.addStreams(ctx, p); err != nil {
		return err
	}
	if err := w.putAtom(p, "atom.xml", w.title(), w.news); err != nil {
		return err
	}
	return w.addSitemap(p)
}

// A sitemap has whole addresses only, so there is none where they are not known.
func (w *writer) addSitemap(p *part) error {
	robots := "User-agent: *\nDisallow: /download/\nDisallow: /latest/\n"
	if w.URL != "" {
		robots += "Sitemap: " + w.address("sitemap.xml") + "\n"
		var b bytes.Buffer
		b.WriteString(xml.Header + `<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">` + "\n")
		for i := range len(w.rows) + 1 {
			page := "index.html"
			if i > 0 {
				page = path.Join("images", w.rows[i-1].Name, "index.html")
			}
			b.WriteString("<url><loc>")
			if err := xml.EscapeText(&b, []byte(w.address(page))); err != nil {
				return err
			}
			b.WriteString("</loc></url>\n")
		}
		b.WriteString("</urlset>\n")
		if err := p.put("sitemap.xml", b.Bytes()); err != nil {
			return err
		}
	}
	return p.put("robots.txt", []byte(robots))
}

// address is that of a page: whole where the site's is known, else from the root.
func (w *writer) address(page string) string {
	if w.URL == "" {
		return page
	}
	return strings.TrimSuffix(w.URL, "/") + "/" + page
}

func newest(list []news) []news {
	slices.SortStableFunc(list, func(a, b news) int {
		return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Image, b.Image), strings.Compare(b.Build, a.Build))
	})
	return list[:min(len(list), maxNews)]
}

func (img *image) news(r *release) news {
	n := news{Image: img.Name, Build: r.Build.String(), State: r.state, At: r.Build.Time()}
	switch r.state {
	case withdrawn:
		n.Text = "Withdrawn: " + visible(r.entry.Withdrawn)
	case unverified:
		n.Text = "The release does not verify; do not use it."
	case deleted:
		n.Text = "The release was removed."
	default:
		t := r.Tests
		n.Text = fmt.Sprintf("%d packages; %d checks passed, %d waived, %d skipped.", r.Packages, t.Pass, t.Waived, t.Skipped)
	}
	return n
}

type atomLink struct {
	Rel  string `xml:"rel,attr"`
	Href string `xml:"href,attr"`
}

type atomEntry struct {
	ID      string    `xml:"id"`
	Title   string    `xml:"title"`
	Updated time.Time `xml:"updated"`
	Link    *atomLink `xml:"link"`
	Summary string    `xml:"summary"`
}

type atomFeed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID      string      `xml:"id"`
	Title   string      `xml:"title"`
	Updated time.Time   `xml:"updated"`
	Author  string      `xml:"author>name"`
	Link    atomLink    `xml:"link"`
	Entries []atomEntry `xml:"entry"`
}

// tag begins the IDs of Atom feeds and entries (RFC 4151), which stay the same
// wherever the site is served.
const tag = "tag:open-telekom-cloud.com,2018-04-01:imagefactory/"

// putAtom puts a feed (RFC 4287).
func (w *writer) putAtom(p *part, name, title string, list []news) error {
	// A relative address counts from where the feed is.
	up := strings.Repeat("../", strings.Count(name, "/"))
	if w.URL != "" {
		up = ""
	}
	feed := atomFeed{ID: tag + name, Title: oneLine(title), Author: oneLine(w.title()), Link: atomLink{"self", up + w.address(name)}, Updated: time.Unix(0, 0).UTC()}
	for i, n := range newest(slices.Clone(list)) {
		if i == 0 {
			feed.Updated = n.At
		}
		e := atomEntry{ID: tag + n.Image + "/" + n.Build, Title: n.Image + " " + n.Build, Updated: n.At, Summary: n.Text}
		if n.State != unverified && n.State != deleted {
			e.Link = &atomLink{"alternate", up + w.address(path.Join("images", n.Image, n.Build+".html"))}
		}
		feed.Entries = append(feed.Entries, e)
	}
	data, err := xml.MarshalIndent(feed, "", "  ")
	if err != nil {
		return err
	}
	return p.put(name, append([]byte(xml.Header), append(data, '\n')...))
}

// contentID begins the names of simplestreams' products.
const contentID = "com.open-telekom-cloud.imagefactory"

func streamName(image string) string { return path.Join("streams", "v1", contentID+":"+image+".json") }

func signedName(name string) string { return strings.TrimSuffix(name, ".json") + ".sjson" }

type streamItem struct {
	FType  string `json:"ftype"`
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

type streamVersion struct {
	Label string                `json:"label"`
	Items map[string]streamItem `json:"items"`
}

type streamProduct struct {
	Arch         string                   `json:"arch"`
	OS           string                   `json:"os"`
	Release      string                   `json:"release"`
	ReleaseTitle string                   `json:"release_title"`
	Version      string                   `json:"version"`
	Aliases      string                   `json:"aliases"`
	Versions     map[string]streamVersion `json:"versions"`
}

type streamProducts struct {
	Format    string                   `json:"format"`
	ContentID string                   `json:"content_id"`
	Datatype  string                   `json:"datatype"`
	Updated   string                   `json:"updated"`
	Products  map[string]streamProduct `json:"products"`
}

type streamIndex struct {
	Format  string                      `json:"format"`
	Updated string                      `json:"updated"`
	Index   map[string]streamIndexEntry `json:"index"`
}

type streamIndexEntry struct {
	Format   string   `json:"format"`
	Datatype string   `json:"datatype"`
	Path     string   `json:"path"`
	Updated  string   `json:"updated"`
	Products []string `json:"products"`
}

// streamTime is how simplestreams writes a time.
func streamTime(t time.Time) string { return t.UTC().Format(time.RFC1123Z) }

func (img *image) products(releases []*release) streamProducts {
	version := oneLine(img.Version)
	product := streamProduct{
		Arch: oneLine(img.arch()), OS: oneLine(img.Distribution), Release: version, ReleaseTitle: version, Version: version,
		Aliases: img.Name, Versions: map[string]streamVersion{},
	}
	for _, r := range releases {
		dir := path.Join("download", img.Name, r.Build.String())
		items := map[string]streamItem{}
		for suffix, ftype := range map[string]string{".qcow2": "disk1.img", ".packages": "manifest"} {
			if f := r.file(suffix); f != nil {
				items[ftype] = streamItem{ftype, path.Join(dir, f.Name), f.SizeBytes, f.SHA256}
			}
		}
		product.Versions[r.Build.String()] = streamVersion{Label: "release", Items: items}
	}
	id := contentID + ":" + img.Name
	return streamProducts{"products:1.0", id, "image-downloads", streamTime(releases[0].Build.Time()), map[string]streamProduct{id: product}}
}

// addStreams puts the index of the products.
func (w *writer) addStreams(ctx context.Context, p *part) error {
	index := streamIndex{Format: "index:1.0", Index: map[string]streamIndexEntry{}}
	newest := time.Unix(0, 0)
	for _, r := range w.rows {
		if !r.Streamed {
			continue
		}
		build, err := publish.ParseBuildID(r.Latest)
		if err != nil {
			return err
		}
		if build.Time().After(newest) {
			newest = build.Time()
		}
		id := contentID + ":" + r.Name
		index.Index[id] = streamIndexEntry{"products:1.0", "image-downloads", streamName(r.Name), streamTime(build.Time()), []string{id}}
	}
	index.Updated = streamTime(newest)
	return w.putStream(ctx, p, "streams/v1/index.json", index)
}

// putStream puts a file of simplestreams, and its signed copy. That has the paths
// of the signed copies where it names other files. It is made anew only where its
// text is new, for a signature has a time.
func (w *writer) putStream(ctx context.Context, p *part, name string, v any) error {
	if err := p.putJSON(name, v); err != nil || w.Signer == nil {
		return err
	}
	if index, ok := v.(streamIndex); ok {
		signed := map[string]streamIndexEntry{}
		for id, e := range index.Index {
			e.Path = signedName(e.Path)
			signed[id] = e
		}
		index.Index = signed
		v = index
	}
	data, err := marshal(v)
	if err != nil {
		return err
	}
	have, err := p.root.ReadFile(signedName(name))
	if err == nil && w.signs(ctx, have, data) && p.keep(signedName(name)) {
		return nil
	}
	sealer := signing.Sealer{Signers: []*signing.Signer{w.Signer}}
	signed, err := sealer.Cleartext(ctx, bytes.NewReader(data))
	if err != nil {
		return err
	}
	return p.put(signedName(name), signed)
}

// signs reports whether a signed text is one of data that a trusted key has signed.
func (w *writer) signs(ctx context.Context, signed, data []byte) bool {
	text, v, err := (&signing.Verifier{Keyring: w.Keyring}).Cleartext(ctx, "", bytes.NewReader(signed))
	return err == nil && v.OK() && bytes.Equal(text, data)
}
