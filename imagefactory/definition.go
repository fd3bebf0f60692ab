package imagefactory

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Definition is one image of a factory: what to build, how to test it, and
// where to publish it. [LoadFile] fills in the defaults; who makes Definitions
// in Go calls [Definition.Complete].
type Definition struct {
	// From names an image of the [Catalog] whose facts stand for what is not
	// said here: see [CatalogEntry.Definition]. Properties are taken over one by
	// one, everything else whole. LoadFile resolves and empties it.
	From string `yaml:"from,omitempty"`
	// Name is the image's name without suffix, such as Standard_Debian_12.
	Name string `yaml:"name"`
	OS   OS     `yaml:"os"`

	// DiskBytes is the virtual size of the image. Required.
	DiskBytes Size `yaml:"disk"`
	// MinDiskBytes is the smallest disk that the image may be put on; at
	// least DiskBytes, which is the default.
	MinDiskBytes Size `yaml:"min_disk,omitempty"`
	// User is the login user. Default: linux.
	User string `yaml:"user,omitempty"`

	// Builder is the driver that builds the image, with its configuration.
	Builder Component `yaml:"builder"`
	// Mirrors are where packages come from during the build, by the names that
	// the driver documents. The value "host" stands for what this machine's
	// own package manager uses. Default for Debian: {debian: host}.
	Mirrors map[string]string `yaml:"mirrors,omitempty"`
	// TrustedKeys may sign packages. Default for Debian: the machine's copy of
	// Debian's archive keyring.
	TrustedKeys []TrustedKey `yaml:"trusted_keys,omitempty"`
	// Repositories are registered in the finished image. Default for Debian:
	// the Open Telekom Cloud's own mirror.
	Repositories []Repository `yaml:"repositories,omitempty"`
	// NTPServers default to those of the Open Telekom Cloud.
	NTPServers []string `yaml:"ntp,omitempty"`

	// UVPMonitor says whether the image has Huawei's monitoring agent. The
	// default is that it must.
	UVPMonitor UVPMonitor `yaml:"uvp_monitor,omitempty"`
	Test       Test       `yaml:"test,omitempty"`

	// Properties are the image's properties in a cloud, such as __os_version.
	// Those that say which flavors it runs on follow from Capabilities.
	Properties map[string]string `yaml:"properties,omitempty"`
	// Capabilities is what the image is offered for. What it claims and the
	// built image does not have fails the run. If 0, nothing is claimed, and
	// Properties stand as they are.
	Capabilities capabilities.Set `yaml:"capabilities,omitempty"`

	// Notes are known issues, for the report.
	Notes []string `yaml:"notes,omitempty"`

	// Publish are the targets to publish on. Default: the download directory.
	Publish []Component `yaml:"publish,omitempty"`

	// Dir is the directory that relative paths refer to: the YAML file's.
	Dir string `yaml:"-"`

	source source
}

// source is where a definition comes from, for the positions of mistakes.
type source struct {
	file string
	node ast.Node // nil if it comes from Go
}

// locate makes an error that begins with a definition's key a *ConfigError,
// with the key's position.
func (s source) locate(err error) *ConfigError {
	if s.node == nil {
		return locate(s.file, err)
	}
	return locateIn(s.file, field(s.node, err), err)
}

// OS names an operating system.
type OS struct {
	Distribution string `yaml:"distribution"`       // "debian"
	Version      string `yaml:"version"`            // "12"
	Codename     string `yaml:"codename,omitempty"` // "bookworm"; what the builder asks mirrors for. Default: Version, such as 11-sp4
	Arch         string `yaml:"arch,omitempty"`     // "amd64", "arm64". Default: amd64
}

// TrustedKey is a file of OpenPGP public keys and which of them are trusted:
// see [builder.TrustedKey].
type TrustedKey struct {
	File         string   `yaml:"file"`
	Fingerprints []string `yaml:"fingerprints,omitempty"`
}

// Repository is a package repository: see [builder.Repository].
type Repository struct {
	Name       string   `yaml:"name"`
	URL        string   `yaml:"url"`
	Suites     []string `yaml:"suites,omitempty"`
	Components []string `yaml:"components,omitempty"`
}

// UVPMonitor is an expectation: see [testsuite.UVPMonitor].
type UVPMonitor struct {
	State  testsuite.UVPState `yaml:"state"` // required, optional or forbidden
	Reason string             `yaml:"reason,omitempty"`
}

// Test says how the image is tested.
type Test struct {
	// Profile is the name of a list of checks. Default: otc.
	Profile          string   `yaml:"profile,omitempty"`
	Waivers          []Waiver `yaml:"waivers,omitempty"`
	RequiredPackages []string `yaml:"required_packages,omitempty"`
	// ForbiddenPackages must not be installed.
	ForbiddenPackages []string `yaml:"forbidden_packages,omitempty"`
}

// Waiver accepts a failing check up to and including the day Expires (UTC).
type Waiver struct {
	Check   string `yaml:"check"`
	Reason  string `yaml:"reason"`
	Expires Date   `yaml:"expires"`
}

// until is when the waiver ends.
func (w Waiver) until() time.Time { return w.Expires.AddDate(0, 0, 1) }

// Date is a day. Its text form is 2027-06-30.
type Date struct{ time.Time }

// UnmarshalYAML reads the text form; the error has its position.
func (d *Date) UnmarshalYAML(node ast.Node) error {
	text := node.String()
	if n, ok := node.(*ast.StringNode); ok {
		text = n.Value
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return at(node, fmt.Errorf("bad date %q: want YYYY-MM-DD", text))
	}
	d.Time = t
	return nil
}

// MarshalYAML writes the text form.
func (d Date) MarshalYAML() ([]byte, error) { return []byte(d.Format(time.DateOnly)), nil }

// Component is a driver's name and its own configuration: in YAML a map of one
// key, such as `dib: {elements: […]}`.
type Component struct {
	Driver string
	// Config is a value of the driver's own type, or what YAML held. If nil, the
	// driver's defaults.
	Config any
}

// UnmarshalYAML keeps the configuration for the driver to decode.
func (c *Component) UnmarshalYAML(node ast.Node) error {
	m, ok := node.(ast.MapNode)
	if !ok {
		return at(node, errors.New("want a driver's name and its configuration"))
	}
	*c = Component{} // an inherited driver is replaced
	entries := m.MapRange()
	for entries.Next() {
		if c.Driver != "" {
			return at(entries.Key(), errors.New("only one driver may be named here"))
		}
		c.Driver, c.Config = entries.Key().String(), entries.Value()
	}
	if c.Driver == "" {
		return at(node, errors.New("no driver is named"))
	}
	return nil
}

// MarshalYAML is the reverse of UnmarshalYAML.
func (c Component) MarshalYAML() (any, error) {
	config := c.Config
	if node, ok := config.(ast.Node); ok {
		var plain any
		if err := yaml.NodeToValue(node, &plain); err != nil {
			return nil, err
		}
		config = plain
	}
	return map[string]any{c.Driver: config}, nil
}

// at gives an error the configuration's position, if it has one.
func (c Component) at(err error) error {
	if node, ok := c.Config.(ast.Node); ok {
		return at(node, err)
	}
	return err
}

// decode fills a driver's configuration strictly.
func (c Component) decode(v any) error {
	node, ok := c.Config.(ast.Node)
	if ok {
		if node.Type() == ast.NullType {
			return nil // `directory:` without a value
		}
		return yaml.NodeToValue(node, v, yaml.Strict())
	}
	if c.Config == nil {
		return nil
	}
	data, err := yaml.Marshal(c.Config)
	if err != nil {
		return err
	}
	err = yaml.UnmarshalWithOptions(data, v, yaml.Strict())
	var y yaml.Error
	if errors.As(err, &y) {
		err = errors.New(y.GetMessage()) // its position is in no file
	}
	return err
}

// Complete fills in the defaults and reports everything that is wrong with the
// definition itself. Drivers' configurations are checked by [Factory.Run].
func (d *Definition) Complete() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	setDefault(&d.User, "linux")
	setDefault(&d.OS.Arch, "amd64")
	setDefault(&d.OS.Codename, strings.ToLower(strings.ReplaceAll(d.OS.Version, " ", "-")))
	setDefault(&d.Test.Profile, "otc")
	setDefault(&d.UVPMonitor.State, testsuite.UVPRequired)
	if d.MinDiskBytes == 0 {
		d.MinDiskBytes = d.DiskBytes
	}
	if len(d.NTPServers) == 0 {
		d.NTPServers = []string{"ntp01.otc-service.com", "ntp02.otc-service.com"}
	}
	if len(d.Publish) == 0 {
		d.Publish = []Component{{Driver: "directory", Config: map[string]any{}}}
	}
	if d.OS.Distribution == "debian" {
		d.completeDebian()
	}

	name, err := ParseName(d.Name)
	if err == nil {
		err = publish.CheckImage(d.Name)
	}
	check(err == nil, "name: %w", err)
	check(err != nil || name == name.Base(), "name: bad image name %q: want a name without _latest, _prev or date", d.Name)
	check(d.OS.Distribution != "", "os: distribution is missing")
	check(d.OS.Version != "", "os: version is missing")
	check(d.DiskBytes > 0, "disk: missing")
	check(d.MinDiskBytes >= d.DiskBytes, "min_disk: %v is less than the disk's %v", d.MinDiskBytes, d.DiskBytes)
	check(d.Builder.Driver != "", "builder: missing")
	switch d.UVPMonitor.State {
	case testsuite.UVPRequired:
	case testsuite.UVPOptional, testsuite.UVPForbidden:
		check(d.UVPMonitor.Reason != "", "uvp_monitor: %s needs a reason", d.UVPMonitor.State)
	default:
		check(false, "uvp_monitor: bad state %q: want required, optional or forbidden", d.UVPMonitor.State)
	}
	if _, err := d.properties(); err != nil {
		errs = append(errs, err)
	}
	for _, w := range d.Test.Waivers {
		check(w.Check != "" && w.Reason != "" && !w.Expires.IsZero(), "test: a waiver needs check, reason and expires")
	}
	spec := d.spec(maps.Clone(d.Mirrors))
	maps.DeleteFunc(spec.Mirrors, func(_, url string) bool { return url == "host" })
	// What is not the definition's to say, or not every driver's to want.
	spec.WorkDir, spec.OutputDir = "/work", "."
	if len(spec.TrustedKeys) == 0 {
		spec.TrustedKeys = []builder.TrustedKey{{}}
	}
	errs = append(errs, unjoin(spec.Validate())...)
	return errors.Join(errs...)
}

func (d *Definition) completeDebian() {
	if len(d.Mirrors) == 0 {
		d.Mirrors = map[string]string{"debian": "host"}
	}
	if len(d.TrustedKeys) == 0 {
		d.TrustedKeys = []TrustedKey{{File: "/usr/share/keyrings/debian-archive-keyring.gpg"}}
	}
	if len(d.Repositories) == 0 {
		const mirror = "http://debmirror.otc-service.com/"
		d.Repositories = []Repository{
			{Name: "debian", URL: mirror + "debian", Suites: []string{d.OS.Codename, d.OS.Codename + "-updates"}},
			{Name: "debian-security", URL: mirror + "debian-security", Suites: []string{d.OS.Codename + "-security"}},
		}
	}
}

func setDefault[T ~string](field *T, value T) {
	if *field == "" {
		*field = value
	}
}

// spec is what the builder is told; the caller adds directories and logs.
func (d *Definition) spec(mirrors map[string]string) builder.Spec {
	s := builder.Spec{
		Name: d.Name, Distribution: d.OS.Distribution, Release: d.OS.Codename, Arch: d.OS.Arch,
		DiskBytes: int64(d.DiskBytes), User: d.User, NTPServers: d.NTPServers, Mirrors: mirrors, Dir: d.Dir,
	}
	for _, k := range d.TrustedKeys {
		file := k.File
		if !filepath.IsAbs(file) {
			file = filepath.Join(d.Dir, file)
		}
		s.TrustedKeys = append(s.TrustedKeys, builder.TrustedKey{File: file, Fingerprints: k.Fingerprints})
	}
	for _, r := range d.Repositories {
		s.Repositories = append(s.Repositories, builder.Repository(r))
	}
	return s
}
