package website

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// pages makes the pages.
type pages struct{ t *template.Template }

func newPages() (*pages, error) {
	t, err := template.ParseFS(assets, "assets/*.tmpl")
	return &pages{t}, err
}

func (p *pages) make(name string, data any) ([]byte, error) {
	var b bytes.Buffer
	err := p.t.ExecuteTemplate(&b, name+".tmpl", data)
	return bytes.TrimLeft(b.Bytes(), "\n"), err
}

// head is what each page begins with.
type head struct {
	Name, Site, Root, Atom string
	Night                  bool
}

func (w *writer) head(name, root, atom string) head {
	site := oneLine(w.title())
	if name != site {
		name += " – " + site
	}
	return head{Name: name, Site: site, Root: root, Atom: atom, Night: len(w.Report) > 0}
}

type indexPage struct {
	Head                                 head
	Rows                                 []indexRow
	Released                             int
	Flavors                              []indexFlavor
	Groups                               []span
	Distributions, Classes, Capabilities []string
}

type indexRow struct {
	row
	Caps, SizeText string
	Cells          []indexCell
}

type indexFlavor struct {
	Name, Title      string
	Withdrawn, First bool
}

type indexCell struct {
	Answer, Why, Edge string
	LiveMigration     bool
}

type span struct {
	Name string
	Span int
}

func (p *pages) index(w *writer) ([]byte, error) {
	page := indexPage{Head: w.head(oneLine(w.title()), "", "atom.xml")}
	first := map[int]bool{}
	for i, f := range w.Flavors {
		if last := len(page.Groups) - 1; last < 0 || w.Flavors[i-1].Group != f.Group {
			page.Groups, first[i] = append(page.Groups, span{oneLine(f.Group), 1}), true
		} else {
			page.Groups[last].Span++
		}
		title := oneLine(f.Hypervisor)
		if f.Hardware != "" {
			title += ", " + oneLine(f.Hardware)
		}
		if f.Withdrawn {
			title += "; no longer sold"
		}
		page.Flavors = append(page.Flavors, indexFlavor{oneLine(f.Name), title, f.Withdrawn, first[i]})
	}
	distributions, classes, capabilities := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range w.rows {
		x := indexRow{row: r, Caps: oneLine(strings.Join(r.Capabilities, " ")), SizeText: "—"}
		x.Distribution, x.Class = oneLine(r.Distribution), oneLine(r.Class)
		if r.Latest != "" {
			page.Released++
			x.SizeText = bytesText(r.Size)
		}
		for i := range w.Flavors {
			cell := indexCell{Answer: "unknown", Why: "nothing is known of the image"}
			if len(r.Answers) > 0 {
				a := r.Answers[i]
				cell = indexCell{Answer: a.kind(), Why: a.why(), LiveMigration: a.LiveMigration}
			}
			if first[i] {
				cell.Edge = " edge"
			}
			x.Cells = append(x.Cells, cell)
		}
		distributions[x.Distribution], classes[x.Class] = true, true
		for _, c := range r.Capabilities {
			capabilities[oneLine(c)] = true
		}
		page.Rows = append(page.Rows, x)
	}
	page.Distributions, page.Classes, page.Capabilities = choices(distributions), choices(classes), choices(capabilities)
	return p.make("index", page)
}

func choices(set map[string]bool) []string {
	delete(set, "")
	return slices.Sorted(maps.Keys(set))
}

// kind is the answer as it is written into the page's classes.
func (a Answer) kind() string {
	if a.Answer == "yes" || a.Answer == "no" {
		return a.Answer
	}
	return "unknown"
}

func (a Answer) why() string {
	if a.kind() == "yes" {
		return ""
	}
	why := "needs " + oneLine(strings.Join(a.Missing, " and "))
	if a.Instead != "" {
		why += "; runs there registered as " + oneLine(a.Instead)
	}
	return why
}

type pair struct{ Name, Value string }

type imagePage struct {
	Head                      head
	Image                     Image
	Latest, LatestPage, Built string
	Tests                     publish.Tests
	Differs                   string
	Facts, Properties         []pair
	Groups                    []flavorGroup
	Releases                  []releaseRow
	Comparable                []string
	Charts                    []chart
	Release                   *releaseSection
}

type flavorGroup struct {
	Name    string
	Yes, No []string
}

type releaseRow struct {
	Page, Build, State, Class, Why string
	Size, Packages, Checks         string
	BuildTime, TestTime, BootTime  string
}

func (p *pages) image(w *writer, img *image, known bool) ([]byte, error) {
	page := imagePage{Head: w.head(img.Name, "../../", path.Join("images", img.Name, "atom.xml")), Image: img.Image}
	page.Image.Notes, page.Image.Waivers = nil, nil
	for _, n := range img.Notes {
		page.Image.Notes = append(page.Image.Notes, oneLine(n))
	}
	for _, v := range img.Waivers {
		page.Image.Waivers = append(page.Image.Waivers, Waiver{oneLine(v.Check), oneLine(v.Reason), oneLine(v.Expires)})
	}
	properties := img.Properties
	if l := img.latest; l != nil {
		page.Latest, page.LatestPage, page.Built, page.Tests = l.Build.String(), l.Build.String()+".html", when(l.Build.Time()), l.Tests
		properties = l.Index.Properties
		if known && l.Index.Capabilities != "" && img.Mask != "" && l.Index.Capabilities != img.Mask {
			page.Differs = fmt.Sprintf("The latest release has the capabilities %s instead of %s, of which the flavors below are.", oneLine(l.Index.Capabilities), oneLine(img.Mask))
		}
		page.Release = newSection(img.Name, l, img.contents)
	}
	page.Facts = img.facts()
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		page.Properties = append(page.Properties, pair{oneLine(name), oneLine(properties[name])})
	}
	if len(img.Answers) > 0 {
		page.Groups = img.flavors(w.Flavors)
	}
	for _, r := range img.releases {
		page.Releases = append(page.Releases, r.row())
		if r.shown() && r.file(".packages") != nil {
			page.Comparable = append(page.Comparable, r.Build.String())
		}
	}
	if len(page.Comparable) < 2 {
		page.Comparable = nil
	}
	page.Charts = img.charts()
	return p.make("image", page)
}

// facts are those that are known.
func (img *image) facts() []pair {
	minDisk := img.MinDiskGiB
	if img.latest != nil {
		minDisk = img.latest.MinDiskGiB
	}
	facts := []pair{
		{"Distribution", strings.TrimSpace(img.Distribution + " " + img.Version)}, {"Class", img.Class}, {"Architecture", img.Arch}, {"Login user", img.User},
		{"Disk", ""}, {"Smallest disk", ""}, {"Capabilities", strings.Join(img.Capabilities, ", ")}, {"Capability mask", img.Mask},
	}
	if img.DiskBytes > 0 {
		facts[4].Value = bytesText(img.DiskBytes)
	}
	if minDisk > 0 {
		facts[5].Value = fmt.Sprintf("%d GiB", minDisk)
	}
	for i := range facts {
		facts[i].Value = oneLine(facts[i].Value)
	}
	return slices.DeleteFunc(facts, func(f pair) bool { return f.Value == "" })
}

// flavors groups the answers.
func (img *image) flavors(flavors []Flavor) []flavorGroup {
	var groups []flavorGroup
	for i, f := range flavors {
		if len(groups) == 0 || flavors[i-1].Group != f.Group {
			groups = append(groups, flavorGroup{Name: oneLine(f.Group)})
		}
		g, a, name := &groups[len(groups)-1], img.Answers[i], oneLine(f.Name)
		switch {
		case a.kind() == "yes" && a.LiveMigration:
			g.Yes = append(g.Yes, name+" (migrated live)")
		case a.kind() == "yes":
			g.Yes = append(g.Yes, name)
		default:
			g.No = append(g.No, name+": "+a.kind()+", "+a.why())
		}
	}
	return groups
}

// row is the release's in the table of releases.
func (r *release) row() releaseRow {
	x := releaseRow{Build: r.Build.String(), State: r.state, Class: "dim", Size: "—", Packages: "—", Checks: "—", BuildTime: "—", TestTime: "—", BootTime: "—"}
	switch r.state {
	case active:
		x.Class, x.State = "pass", labels(r.entry.Labels)
	case withdrawn:
		x.Class, x.Why = "fail", visible(r.entry.Withdrawn)
	case unverified:
		x.Class, x.State, x.Why = "fail", "not verified", r.Problem
	}
	if !r.shown() {
		return x
	}
	x.Page, x.Checks = x.Build+".html", fmt.Sprintf("%d of %d", r.Tests.Pass, total(r.Tests))
	if f := r.file(".qcow2"); f != nil {
		x.Size = bytesText(f.SizeBytes)
	}
	if r.Packages > 0 {
		x.Packages = fmt.Sprint(r.Packages)
	}
	if r.BuildMS > 0 {
		x.BuildTime = duration(r.BuildMS)
	}
	if r.TestMS > 0 {
		x.TestTime = duration(r.TestMS)
	}
	if r.BootMS > 0 {
		x.BootTime = duration(r.BootMS)
	}
	return x
}

func labels(list []publish.Label) string {
	var names []string
	for _, l := range list {
		names = append(names, string(l))
	}
	return oneLine(strings.Join(names, ", "))
}

func total(t publish.Tests) int { return t.Pass + t.Fail + t.Error + t.Waived + t.Skipped + t.Flaky }

type releasePage struct {
	Head                                          head
	Name, Build, Built, State, Class, Why, Before string
	Release                                       *releaseSection
}

func (p *pages) release(w *writer, image string, r *release, c *contents, before string) ([]byte, error) {
	row := r.row()
	return p.make("release", releasePage{
		Head: w.head(image+" "+row.Build, "../../", path.Join("images", image, "atom.xml")),
		Name: image, Build: row.Build, Built: when(r.Build.Time()), State: row.State, Class: row.Class, Why: row.Why, Before: before,
		Release: newSection(image, r, c),
	})
}

// releaseSection is what is told of the content of a release.
type releaseSection struct {
	Base        string
	Files       []fileRow
	Signers     []string
	Glance, IMS string
	Config      string
	Definition  string
	Tests       publish.Tests
	Unreadable  bool
	Groups      []testGroup
	MoreChecks  int
	Changes     []change
	MoreChanges int
	PackageRows template.HTML
	Packages    int
}

// FewChanges reports whether they are shown at once.
func (s *releaseSection) FewChanges() bool { return len(s.Changes) <= 30 }

type fileRow struct{ Name, Href, Size, SHA256 string }

type testGroup struct {
	Name, Count string
	Open        bool
	Rows        template.HTML
}

func newSection(image string, r *release, c *contents) *releaseSection {
	s := &releaseSection{
		Base: r.base(), Signers: r.Signers, Definition: r.Index.DefinitionSHA256, Tests: r.Tests,
		Changes: c.changes, MoreChanges: c.moreChanges, Packages: len(c.packages), PackageRows: packageRows(c.packages),
	}
	dir := path.Join("..", "..", "download", image, r.Build.String())
	for _, f := range r.Files {
		s.Files = append(s.Files, fileRow{oneLine(f.Name), path.Join(dir, f.Name), bytesText(f.SizeBytes), f.SHA256})
	}
	if f := r.file(".config.tar.gz"); f != nil {
		s.Config = f.Name
	}
	s.register(r)
	s.addTests(c.tests)
	return s
}

func (s *releaseSection) addTests(t testReport) {
	s.Unreadable = t.Unreadable
	if len(t.Checks) > maxChecks {
		t.Checks, s.MoreChecks = t.Checks[:maxChecks], len(t.Checks)-maxChecks
	}
	var names []string
	groups := map[string][]testResult{}
	for _, c := range t.Checks {
		name := oneLine(c.Group)
		if groups[name] == nil {
			names = append(names, name)
		}
		groups[name] = append(groups[name], c)
	}
	for _, name := range names {
		g, pass := testGroup{Name: name}, 0
		for _, c := range groups[name] {
			if c.Status == "pass" {
				pass++
			}
			g.Open = g.Open || c.class() == "fail" || c.class() == "waived"
		}
		g.Count = fmt.Sprintf("%d of %d passed", pass, len(groups[name]))
		g.Rows = checkRows(groups[name])
		s.Groups = append(s.Groups, g)
	}
}

// register writes the commands that register the image with its own properties.
func (s *releaseSection) register(r *release) {
	file := r.base() + ".qcow2"
	var b strings.Builder
	fmt.Fprintf(&b, "openstack image create --disk-format qcow2 --container-format bare \\\n  --min-disk %d \\\n", r.MinDiskGiB)
	for _, name := range slices.Sorted(maps.Keys(r.Index.Properties)) {
		fmt.Fprintf(&b, "  --property %s \\\n", shell(name+"="+r.Index.Properties[name]))
	}
	fmt.Fprintf(&b, "  --file %s %s", shell(file), shell(r.Index.Image))
	s.Glance = b.String()
	body, _ := json.MarshalIndent(map[string]any{ // of which each can be encoded
		"name": r.Index.Image, "image_url": "BUCKET:" + file, "min_disk": max(r.MinDiskGiB, 1), "os_version": oneLine(r.Index.Properties["__os_version"]),
	}, "", "  ")
	s.IMS = "curl --fail --header \"X-Auth-Token: $OS_TOKEN\" --json @- \\\n  https://ims.eu-de.otc.t-systems.com/v2/cloudimages/action <<'END'\n" + string(body) + "\nEND"
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func duration(ms int64) string {
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}

// bytesText is a size for people.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
