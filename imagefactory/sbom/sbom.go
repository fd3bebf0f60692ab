package sbom

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// UnknownProperty is the property of a component that names the required fields
// that nobody knows: "creator", "licence" and "sha512", separated by spaces.
const UnknownProperty = "imagefactory:unknown"

const (
	filenameProperty   = "bsi:component:filename"
	executableProperty = "bsi:component:executable"
	archiveProperty    = "bsi:component:archive"
	structuredProperty = "bsi:component:structured"

	sourceProperty        = "imagefactory:source"
	sourceVersionProperty = "imagefactory:source-version"
	fileSystemProperty    = "imagefactory:file-system"
	distributionProperty  = "imagefactory:distribution"
	buildProperty         = "imagefactory:build"
)

// An Image is what is to be said of one.
type Image struct {
	Name    string    // "Standard_Debian_12"
	Build   string    // "20261122-031507"
	Created time.Time // to the second
	Creator Creator   // who made the image and wrote this list

	Filename       string // "Standard_Debian_12-20261122-031507.qcow2"
	SHA256, SHA512 string // of that file, lower-case hexadecimal

	Distribution, Release string // "debian" and "12"
	Arch                  string // as GOARCH names it

	Packages []Package // sorted by name and architecture
	Files    []File    // sorted by path
	// FileSystems are what the disk is divided into, a line each: "p1 ext4".
	FileSystems []string
}

// A Creator is a person or an organization. An address or a URL must be known.
type Creator struct {
	Name, Email, URL string
}

// A Package is an installed package. What may be unknown is empty then.
type Package struct {
	Name, Version, Arch string
	// Source and SourceVersion name the source package that it was made of. May be
	// unknown.
	Source, SourceVersion string
	Creator               Creator // the maintainer; may be unknown
	// Licence is an SPDX expression or, failing that, a name; may be unknown.
	Licence string
	// Needs are the installed packages that it needs, by their [Package.ID], sorted.
	Needs []string
}

// ID is "NAME/VERSION/ARCH": some packages are installed in several versions.
func (p Package) ID() string { return p.Name + "/" + p.Version + "/" + p.Arch }

// A File is a single file that a list is to name.
type File struct {
	Path    string // absolute
	Version string // of what is in it
	SHA256  string // lower-case hexadecimal
	// Executable: machine code that runs. Archive: it holds other files, which can
	// be taken out again.
	Executable, Archive bool
}

// Write writes the bill of materials. What [Validate] would not accept is an error,
// and nothing is written.
func Write(w io.Writer, image *Image) error {
	bom, err := image.bom()
	if err != nil {
		return fmt.Errorf("cannot write the bill of materials of %s: %w", image.Name, err)
	}
	if err := validate(bom); err != nil {
		return fmt.Errorf("cannot write the bill of materials of %s: %w", image.Name, err)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	return e.Encode(bom)
}

const imageRef = "image"

func (i *Image) bom() (*cdx.BOM, error) {
	bom := &cdx.BOM{
		JSONSchema: "http://cyclonedx.org/schema/bom-1.6.schema.json", BOMFormat: cdx.BOMFormat, SpecVersion: cdx.SpecVersion1_6,
		SerialNumber: i.serial(), Version: 1,
	}
	image := i.component()
	bom.Metadata = &cdx.Metadata{
		Timestamp:  i.Created.UTC().Format(time.RFC3339),
		Lifecycles: &[]cdx.Lifecycle{{Phase: cdx.LifecyclePhasePostBuild}},
		Component:  &image, Manufacturer: i.Creator.entity(),
	}
	components := make([]cdx.Component, 0, len(i.Packages)+len(i.Files))
	refs := map[string]string{}
	for _, p := range i.Packages {
		c := i.packageComponent(p)
		if _, twice := refs[p.ID()]; twice {
			return nil, fmt.Errorf("package %s is listed twice", p.ID())
		}
		refs[p.ID()] = c.BOMRef
		components = append(components, c)
	}
	all := slices.Collect(maps.Values(refs))
	var dependencies []cdx.Dependency
	for _, p := range i.Packages {
		needs := []string{}
		for _, id := range p.Needs {
			ref, ok := refs[id]
			if !ok {
				return nil, fmt.Errorf("package %s needs %s, which is not listed", p.ID(), id)
			}
			needs = append(needs, ref)
		}
		slices.Sort(needs)
		dependencies = append(dependencies, cdx.Dependency{Ref: refs[p.ID()], Dependencies: &needs})
	}
	for _, f := range i.Files {
		c := i.fileComponent(f)
		all = append(all, c.BOMRef)
		components = append(components, c)
		dependencies = append(dependencies, cdx.Dependency{Ref: c.BOMRef, Dependencies: &[]string{}})
	}
	slices.Sort(all)
	dependencies = append([]cdx.Dependency{{Ref: imageRef, Dependencies: &all}}, dependencies...)
	bom.Components, bom.Dependencies = &components, &dependencies
	assembly := []cdx.BOMReference{imageRef}
	bom.Compositions = &[]cdx.Composition{{Aggregate: i.complete(), Assemblies: &assembly, Dependencies: &assembly}}
	return bom, nil
}

// complete says whether the list is: with the packages' needs and the files it is
// complete as far as packages go; without, nobody knows.
func (i *Image) complete() cdx.CompositionAggregate {
	known := slices.ContainsFunc(i.Packages, func(p Package) bool { return len(p.Needs) > 0 })
	if !known {
		return cdx.CompositionAggregateUnknown
	}
	return cdx.CompositionAggregateIncomplete
}

// serial is a UUID of version 8: made of the image's identity.
func (i *Image) serial() string {
	sum := sha256.Sum256([]byte(i.Name + "\x00" + i.Build + "\x00" + i.SHA512))
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	x := hex.EncodeToString(u)
	return "urn:uuid:" + x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

func (c Creator) entity() *cdx.OrganizationalEntity {
	if c.Email == "" && c.URL == "" {
		return nil
	}
	e := &cdx.OrganizationalEntity{Name: c.Name}
	if c.URL != "" {
		e.URL = &[]string{c.URL}
	}
	if c.Email != "" {
		e.Contact = &[]cdx.OrganizationalContact{{Name: c.Name, Email: c.Email}}
	}
	return e
}

// properties are the guideline's, then more, then what is unknown.
func properties(filename string, executable, archive bool, unknown []string, more ...cdx.Property) *[]cdx.Property {
	choose := func(b bool, yes, no string) string {
		if b {
			return yes
		}
		return no
	}
	out := []cdx.Property{
		{Name: filenameProperty, Value: filename},
		{Name: executableProperty, Value: choose(executable, "executable", "non-executable")},
		{Name: archiveProperty, Value: choose(archive, "archive", "no archive")},
		{Name: structuredProperty, Value: "structured"},
	}
	out = append(out, more...)
	if len(unknown) > 0 {
		out = append(out, cdx.Property{Name: UnknownProperty, Value: strings.Join(unknown, " ")})
	}
	return &out
}

func (i *Image) component() cdx.Component {
	more := []cdx.Property{{Name: buildProperty, Value: i.Build}, {Name: distributionProperty, Value: i.Distribution + " " + i.Release + " " + i.Arch}}
	for _, f := range i.FileSystems {
		more = append(more, cdx.Property{Name: fileSystemProperty, Value: f})
	}
	return cdx.Component{
		BOMRef: imageRef, Type: cdx.ComponentTypeOS, Name: i.Name, Version: i.Build, Manufacturer: i.Creator.entity(),
		// An image is many works under many licences: they are its packages'.
		Properties: properties(i.Filename, false, true, []string{"licence"}, more...),
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: i.SHA256}, {Algorithm: cdx.HashAlgoSHA512, Value: i.SHA512}},
		ExternalReferences: &[]cdx.ExternalReference{{
			Type: cdx.ERTypeDistribution, URL: i.Filename, Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA512, Value: i.SHA512}},
		}},
	}
}

func (i *Image) packageComponent(p Package) cdx.Component {
	c := cdx.Component{
		BOMRef: "package:" + p.ID(), Type: cdx.ComponentTypeLibrary, Name: p.Name, Version: p.Version,
		Manufacturer: p.Creator.entity(), PackageURL: i.purl(p),
	}
	unknown := []string{}
	if c.Manufacturer == nil {
		unknown = append(unknown, "creator")
	}
	if p.Licence == "" {
		unknown = append(unknown, "licence")
	} else {
		c.Licenses = licences(p.Licence)
	}
	unknown = append(unknown, "sha512")
	var more []cdx.Property
	if p.Source != "" {
		more = append(more, cdx.Property{Name: sourceProperty, Value: p.Source}, cdx.Property{Name: sourceVersionProperty, Value: p.SourceVersion})
	}
	c.Properties = properties(p.filename(i.rpm()), false, true, unknown, more...)
	return c
}

func (i *Image) fileComponent(f File) cdx.Component {
	return cdx.Component{
		BOMRef: "file:" + f.Path, Type: cdx.ComponentTypeFile, Name: f.Path, Version: f.Version,
		Manufacturer: i.Creator.entity(), Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: f.SHA256}},
		Properties: properties(f.Path[strings.LastIndexByte(f.Path, '/')+1:], f.Executable, f.Archive, []string{"licence", "sha512"}),
	}
}

func (i *Image) rpm() bool { return i.Distribution != "debian" && i.Distribution != "ubuntu" }

// filename is what the package is delivered as. An archive leaves out the epoch.
func (p Package) filename(rpm bool) string {
	version := p.Version
	if _, after, ok := strings.Cut(version, ":"); ok {
		version = after
	}
	if rpm {
		return p.Name + "-" + version + "." + p.Arch + ".rpm"
	}
	return p.Name + "_" + version + "_" + p.Arch + ".deb"
}

// purl is the package's URL (github.com/package-url/purl-spec, types deb and rpm).
func (i *Image) purl(p Package) string {
	kind, version, qualifiers := "deb", p.Version, "arch="+escape(p.Arch)+"&distro="+escape(i.Distribution+"-"+i.Release)
	if i.rpm() {
		kind = "rpm"
		if epoch, after, ok := strings.Cut(version, ":"); ok {
			version = after
			qualifiers += "&epoch=" + escape(epoch)
		}
	}
	if p.Source != "" {
		qualifiers += "&upstream=" + escape(p.Source+"@"+p.SourceVersion)
	}
	return "pkg:" + kind + "/" + escape(i.Distribution) + "/" + escape(p.Name) + "@" + escape(version) + "?" + qualifiers
}

func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~:", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Read limits.
const (
	maxBytes      = 64 << 20
	maxComponents = 100_000
)

var errTooLarge = errors.New("it is larger than is read")

func decode(r io.Reader) (*cdx.BOM, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBytes {
		return nil, errTooLarge
	}
	bom := new(cdx.BOM)
	if err := json.Unmarshal(data, bom); err != nil {
		return nil, errors.New("it is not CycloneDX in JSON")
	}
	if bom.Components != nil && len(*bom.Components) > maxComponents {
		return nil, errTooLarge
	}
	return bom, nil
}

// Read reads what [Write] wrote. It must be valid.
func Read(r io.Reader) (*Image, error) {
	bom, err := decode(r)
	if err == nil {
		err = validate(bom)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the bill of materials: %w", err)
	}
	c := bom.Metadata.Component
	i := &Image{
		Name: c.Name, Build: c.Version, Creator: creator(c.Manufacturer), Filename: property(c, filenameProperty),
		SHA256: digest(c, cdx.HashAlgoSHA256), SHA512: digest(c, cdx.HashAlgoSHA512),
	}
	if i.Created, err = time.Parse(time.RFC3339, bom.Metadata.Timestamp); err != nil {
		return nil, fmt.Errorf("cannot read the bill of materials: %w", err)
	}
	if f := strings.Fields(property(c, distributionProperty)); len(f) == 3 {
		i.Distribution, i.Release, i.Arch = f[0], f[1], f[2]
	}
	for _, p := range *c.Properties {
		if p.Name == fileSystemProperty {
			i.FileSystems = append(i.FileSystems, p.Value)
		}
	}
	needs := map[string][]string{}
	for _, d := range *bom.Dependencies {
		if d.Dependencies == nil {
			continue
		}
		for _, ref := range *d.Dependencies {
			needs[d.Ref] = append(needs[d.Ref], strings.TrimPrefix(ref, "package:"))
		}
	}
	for n := range *bom.Components {
		c := &(*bom.Components)[n]
		if c.Type == cdx.ComponentTypeFile {
			i.Files = append(i.Files, File{
				Path: c.Name, Version: c.Version, SHA256: digest(c, cdx.HashAlgoSHA256),
				Executable: property(c, executableProperty) == "executable", Archive: property(c, archiveProperty) == "archive",
			})
			continue
		}
		arch := c.BOMRef[strings.LastIndexByte(c.BOMRef, '/')+1:]
		i.Packages = append(i.Packages, Package{
			Name: c.Name, Version: c.Version, Arch: arch, Source: property(c, sourceProperty), SourceVersion: property(c, sourceVersionProperty),
			Creator: creator(c.Manufacturer), Licence: licence(c), Needs: needs[c.BOMRef],
		})
	}
	return i, nil
}

func creator(e *cdx.OrganizationalEntity) Creator {
	if e == nil {
		return Creator{}
	}
	c := Creator{Name: e.Name}
	if e.URL != nil && len(*e.URL) > 0 {
		c.URL = (*e.URL)[0]
	}
	if e.Contact != nil && len(*e.Contact) > 0 {
		c.Email = (*e.Contact)[0].Email
	}
	return c
}

func property(c *cdx.Component, name string) string {
	if c.Properties != nil {
		for _, p := range *c.Properties {
			if p.Name == name {
				return p.Value
			}
		}
	}
	return ""
}

func digest(c *cdx.Component, algorithm cdx.HashAlgorithm) string {
	if c.Hashes != nil {
		for _, h := range *c.Hashes {
			if h.Algorithm == algorithm {
				return h.Value
			}
		}
	}
	return ""
}

// licences says what the package declares; nobody has judged it.
func licences(text string) *cdx.Licenses {
	declared := cdx.LicenseAcknowledgementDeclared
	if isExpression(text) {
		return &cdx.Licenses{{Expression: text, Acknowledgement: &declared}}
	}
	return &cdx.Licenses{{License: &cdx.License{Name: text, Acknowledgement: declared}}}
}

func licence(c *cdx.Component) string {
	if c.Licenses == nil || len(*c.Licenses) == 0 {
		return ""
	}
	if l := (*c.Licenses)[0]; l.License == nil {
		return l.Expression
	}
	return (*c.Licenses)[0].License.Name
}
