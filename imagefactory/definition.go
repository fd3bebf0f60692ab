package imagefactory

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/internal/strictyaml"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Definition is one image of a factory: what to build, how to test it, and
// where to publish it. [LoadFile] fills in the defaults; who makes Definitions
// in Go calls [Definition.Complete].
type Definition struct {
	// From names an image of the [Catalog] whose facts stand for what is not
	// said here: see [CatalogEntry.Definition]. Properties are taken over one by
	// one, everything else whole, unless it is added to (see [LoadFile]). Another
	// release than the inherited one's says itself what follows from it.
	// LoadFile resolves and empties it.
	From string `yaml:"from,omitempty"`
	// Name is the image's name without suffix, such as Standard_Debian_12: at
	// most 116 characters, so that there is room for the suffixes.
	Name string `yaml:"name"`
	OS   OS     `yaml:"os"`

	// DiskBytes is the virtual size of the image. Required.
	DiskBytes Size `yaml:"disk"`
	// MinDiskBytes is the smallest disk that the image may be put on; at
	// least DiskBytes, which is the default.
	MinDiskBytes Size `yaml:"min_disk,omitempty"`
	// LVM says that the root file system is on a logical volume. A larger disk
	// leaves room that its owner has to give to the volumes. An image without a volume
	// for it is not booted: see [Gate.Inspection].
	LVM bool `yaml:"lvm,omitempty"`
	// ExtraReboot says that the kernel sees the grown partition only after another
	// boot: the image is judged after one more, and a note says so.
	ExtraReboot bool `yaml:"extra_reboot,omitempty"`
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
	// BYOL says that the image is for servers with a licence of one's own: it registers
	// no repositories, also none that it would inherit or have by default.
	BYOL bool `yaml:"byol,omitempty"`
	// NTPServers default to those of the Open Telekom Cloud.
	NTPServers []string `yaml:"ntp,omitempty"`

	// UVPMonitor says whether the image has Huawei's monitoring agent. The
	// default is that it must.
	UVPMonitor UVPMonitor `yaml:"uvp_monitor,omitempty"`
	Test       Test       `yaml:"test,omitempty"`

	// Properties are the image's properties in a cloud, such as __os_version.
	// Those that say which flavors it runs on follow from Capabilities: here
	// they may not be misspelt, contradict these, or exclude each other.
	Properties map[string]string `yaml:"properties,omitempty"`
	// Capabilities is what the image is offered for. What it claims and the
	// built image does not have fails the run. If 0, nothing is claimed, and
	// Properties stand as they are.
	Capabilities capabilities.Set `yaml:"capabilities,omitempty"`
	// FirstBoot are those of Capabilities whose drivers are not looked for in
	// the image, because they come with the first boot: see
	// [capabilities.FirstBoot].
	FirstBoot capabilities.Set `yaml:"first_boot,omitempty"`

	// Notes are known issues, for the report.
	Notes []string `yaml:"notes,omitempty"`

	// Publish are the targets to publish on. Default: the download directory.
	Publish []Component `yaml:"publish,omitempty"`
	// Staging are targets for every release before it is public, if it ever will be:
	// for tests of one's own. Only the newest and the one before stay there.
	Staging []Component `yaml:"staging,omitempty"`
	// Gate is what keeps an image from being released. Default: what is unsafe or
	// broken, and every check that fails.
	Gate Gate `yaml:"gate,omitempty"`
	// Renewal is when latest is renewed. Default: whenever the image has changed.
	Renewal Renewal `yaml:"renewal,omitempty"`

	// Dir is the directory that relative paths refer to: the YAML file's.
	Dir string `yaml:"-"`

	source source
}

// source is where a definition comes from, for the positions of mistakes.
type source struct {
	file string
	node *strictyaml.Node // nil if it comes from Go
}

// locate makes an error that begins with a definition's key a *ConfigError,
// with the key's position.
func (s source) locate(err error) *ConfigError {
	if s.node == nil {
		return locate(s.file, err)
	}
	return locateIn(s.file, field(s.node, err), err)
}

// MarshalYAML writes the definition as [MarshalDefinitions] does.
func (d Definition) MarshalYAML() ([]byte, error) {
	type plain Definition
	return strictyaml.Marshal(plain(d))
}

// OS names an operating system.
type OS struct {
	Distribution string `yaml:"distribution"` // "debian"
	Version      string `yaml:"version"`      // "12"
	// Codename is what the builder asks mirrors for: "bookworm". Default: that of
	// the version of Debian or Ubuntu, else the version, such as 11-sp4.
	Codename string `yaml:"codename,omitempty"`
	Arch     string `yaml:"arch,omitempty"` // "amd64", "arm64". Default: amd64
}

// codenames are what mirrors call the versions of a distribution; Debian's are
// by their first number.
var codenames = map[string]map[string]string{
	"debian": {"8": "jessie", "9": "stretch", "10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie"},
	"ubuntu": {"14.04": "trusty", "16.04": "xenial", "18.04": "bionic", "20.04": "focal", "22.04": "jammy", "24.04": "noble"},
}

func (o OS) codename() string {
	version := o.Version
	if o.Distribution == "debian" {
		version, _, _ = strings.Cut(version, ".")
	}
	if name, ok := codenames[o.Distribution][version]; ok {
		return name
	}
	return strings.ToLower(strings.ReplaceAll(o.Version, " ", "-"))
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
	Key        string   `yaml:"key,omitempty"`
}

// UVPMonitor is an expectation: see [testsuite.UVPMonitor].
type UVPMonitor struct {
	State  testsuite.UVPState `yaml:"state"` // required, optional or forbidden
	Reason string             `yaml:"reason,omitempty"`
}

// Test says how the image is tested.
type Test struct {
	// Profile is the name of a list of checks: otc, strict, or one of the factory's own.
	// Default: otc.
	Profile string `yaml:"profile,omitempty"`
	// FailFrom is the severity from which a failed check keeps the image from being
	// released: low, medium, high or critical. Default: low, every one.
	FailFrom testsuite.Severity `yaml:"fail_from,omitempty"`
	Waivers  []Waiver           `yaml:"waivers,omitempty"`
	// RequiredPackages must be installed, such as openssh-server >= 1:9.2p1-2+deb12u3.
	// An image that lacks one is not booted: see [Gate.Inspection].
	RequiredPackages []PackageRelation `yaml:"required_packages,omitempty"`
	// ForbiddenPackages must not be installed. Their names are patterns of [path.Match],
	// such as *uvp*. An image that has one is not booted either.
	ForbiddenPackages []PackageRelation `yaml:"forbidden_packages,omitempty"`
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

// UnmarshalText reads the text form.
func (d *Date) UnmarshalText(text []byte) error {
	t, err := time.Parse(time.DateOnly, string(text))
	if err != nil {
		return fmt.Errorf("bad date %.20q: want YYYY-MM-DD", text)
	}
	d.Time = t
	return nil
}

// MarshalText writes the text form.
func (d Date) MarshalText() ([]byte, error) { return []byte(d.Format(time.DateOnly)), nil }

// Component is a driver's name and its own configuration: in YAML a map of one
// key, such as `dib: {elements: […]}`, and for a builder perhaps the key host.
//
// A driver's configuration is read as strictly as a definition: see [LoadFile].
// Its type may have fields of text, bool, numbers, [time.Duration], lists, maps,
// structs and pointers, named by the tag `yaml:"name,omitempty"`, and types with
// [encoding.TextUnmarshaler] or UnmarshalYAML(decode func(any) error) error.
type Component struct {
	Driver string
	// Host is the name in [Factory.Hosts] of the machine that a builder runs on. If
	// empty, Factory.Host.
	Host string
	// Name is what a report calls a publish target: up to 64 letters, digits, dots,
	// hyphens and underscores. If empty, the driver's name and, from the second
	// target of a kind on, its number: obs, obs-2.
	Name string
	// Config is a value of the driver's own type, maps and lists that say the
	// same, or what YAML held. If nil, the driver's defaults.
	Config any
}

// UnmarshalYAML keeps the configuration for the driver to decode.
func (c *Component) UnmarshalYAML(decode func(any) error) error {
	var node *strictyaml.Node
	if err := decode(&node); err != nil {
		return err
	}
	*c = Component{} // an inherited driver is replaced
	if !node.IsMap() {
		return node.At(errors.New("want a driver's name and its configuration"))
	}
	for _, pair := range node.Pairs {
		switch {
		case pair.Key.Text() == "host":
			if c.Host = pair.Value.Text(); c.Host == "" {
				return pair.Value.At(errors.New("want the name of a host"))
			}
		case pair.Key.Text() == "name":
			if c.Name = pair.Value.Text(); c.Name == "" {
				return pair.Value.At(errors.New("want a name"))
			}
		case c.Driver != "":
			return pair.Key.At(errors.New("only one driver may be named here"))
		default:
			c.Driver, c.Config = pair.Key.Text(), pair.Value
		}
	}
	if c.Driver == "" {
		return node.At(errors.New("no driver is named"))
	}
	return nil
}

// MarshalYAML is the reverse of UnmarshalYAML.
func (c Component) MarshalYAML() (any, error) {
	config := c.Config
	if node, ok := config.(*strictyaml.Node); ok {
		config = node.Value()
	}
	if c.Driver == "" {
		return nil, errors.New("no driver is named")
	}
	out := map[string]any{c.Driver: config}
	if c.Host != "" {
		out["host"] = c.Host
	}
	if c.Name != "" {
		out["name"] = c.Name
	}
	return out, nil
}

// at gives an error a position in the configuration, if that has one.
func (c Component) at(err error) error {
	if node, ok := c.Config.(*strictyaml.Node); ok {
		return named(node, err).At(err)
	}
	return err
}

// about is at, for an error that may be about something else than the
// configuration.
func (c Component) about(err error) error {
	if node, ok := c.Config.(*strictyaml.Node); ok && named(node, err) != node {
		return c.at(err)
	}
	return err
}

// decode fills a driver's configuration strictly.
func (c Component) decode(v any) error {
	if node, ok := c.Config.(*strictyaml.Node); ok {
		if node.IsNull() {
			return nil // `directory:` without a value
		}
		return node.Decode(v)
	}
	if c.Config == nil {
		return nil
	}
	data, err := strictyaml.Marshal(c.Config)
	if err != nil {
		return err
	}
	node, err := strictyaml.Parse(data)
	if err != nil {
		return err
	}
	var errs []error
	for _, err := range unjoin(node.Decode(v)) {
		errs = append(errs, errors.Unwrap(err)) // its position is in no file
	}
	return errors.Join(errs...)
}

// Complete fills in the defaults and reports everything that is wrong with the
// definition itself; each message begins with the key that the file has for it.
// Drivers' configurations are checked by [Factory.Run].
func (d *Definition) Complete() error {
	d.setDefaults()
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if err := d.checkName(); err != nil {
		errs = append(errs, fmt.Errorf("name: %w", err))
	}
	check(d.OS.Distribution != "", "os: distribution is missing")
	check(d.OS.Version != "", "os: version is missing")
	check(d.DiskBytes != 0, "disk: missing")
	check(d.DiskBytes.whole(), "disk: %v is no whole number of MiB or MB", d.DiskBytes)
	check(d.MinDiskBytes.whole(), "min_disk: %v is no whole number of MiB or MB", d.MinDiskBytes)
	check(d.MinDiskBytes >= d.DiskBytes, "min_disk: %v is less than the disk's %v", d.MinDiskBytes, d.DiskBytes)
	check(!d.BYOL || len(d.Repositories) == 0, "repositories: with byol an image registers none")
	check(d.Builder.Driver != "", "builder: missing")
	check(d.Builder.Name == "", "builder: a name is for publish targets only")
	if err := d.checkTargets(); err != nil {
		errs = append(errs, unjoin(err)...)
	}
	for _, c := range d.Staging {
		check(c.Driver != "", "staging: a driver's name is missing")
		check(c.Host == "", "staging: a host is for builders only")
	}
	for _, err := range unjoin(d.Gate.check(d.Test.FailFrom)) {
		errs = append(errs, fmt.Errorf("gate: %w", err))
	}
	for _, err := range unjoin(d.Renewal.check()) {
		errs = append(errs, fmt.Errorf("renewal: %w", err))
	}
	switch d.UVPMonitor.State {
	case testsuite.UVPRequired:
	case testsuite.UVPOptional, testsuite.UVPForbidden:
		check(d.UVPMonitor.Reason != "", "uvp_monitor: %s needs a reason", d.UVPMonitor.State)
	default:
		check(false, "uvp_monitor: bad state %q: want required, optional or forbidden", d.UVPMonitor.State)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Properties)) {
		notPrinted := func(r rune) bool { return !unicode.IsPrint(r) }
		check(name != "" && len(name) <= maxPropertyName && !strings.ContainsFunc(name, notPrinted), "properties: bad name %.40q: want 1 to %d printed characters", name, maxPropertyName)
	}
	if _, err := d.properties(); err != nil {
		errs = append(errs, unjoin(err)...)
	}
	for _, k := range d.TrustedKeys {
		check(k.File != "", "trusted_keys: a file is missing")
	}
	for _, w := range d.Test.Waivers {
		if err := w.check(); err != nil {
			errs = append(errs, fmt.Errorf("test: %w", err))
		}
	}
	if late := d.FirstBoot &^ capabilities.FirstBoot; late != 0 {
		check(false, "first_boot: the drivers of %s do not come with the first boot", late)
	}
	for _, err := range unjoin(checkPackages(d.OS.Distribution, d.Test.RequiredPackages, d.Test.ForbiddenPackages)) {
		errs = append(errs, fmt.Errorf("test: %w", err))
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

// maxPropertyName is what Glance allows.
const maxPropertyName = 255

func (d *Definition) setDefaults() {
	setDefault(&d.User, "linux")
	setDefault(&d.OS.Arch, "amd64")
	setDefault(&d.OS.Codename, d.OS.codename())
	setDefault(&d.Test.Profile, "otc")
	setDefault(&d.UVPMonitor.State, testsuite.UVPRequired)
	d.Notes = withRebootNote(d.Notes, d.ExtraReboot)
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
}

// checkName holds the name to what its registrations will be called.
func (d *Definition) checkName() error {
	name, err := ParseName(d.Name)
	if err != nil {
		return err
	}
	if err := publish.CheckImage(d.Name); err != nil {
		return err
	}
	if name != name.Base() {
		return fmt.Errorf("bad image name %q: want it without _latest, _prev or date", d.Name)
	}
	// The longest name of a registration is the 99th of a day.
	room := maxNameLength - len("_20060102_99")
	if len(d.Name) > room {
		return fmt.Errorf("bad image name %q: %d characters leave no room for _latest, _prev and a date with a number such as _20060102_99; at most %d do", d.Name, len(d.Name), room)
	}
	return nil
}

func (d *Definition) completeDebian() {
	if len(d.Mirrors) == 0 {
		d.Mirrors = map[string]string{"debian": "host"}
	}
	if len(d.TrustedKeys) == 0 {
		d.TrustedKeys = []TrustedKey{{File: "/usr/share/keyrings/debian-archive-keyring.gpg"}}
	}
	if len(d.Repositories) == 0 && !d.BYOL {
		const mirror = "http://debmirror.otc-service.com/"
		security := d.OS.Codename + "-security"
		if slices.Contains([]string{"jessie", "stretch", "buster"}, d.OS.Codename) {
			security = d.OS.Codename + "/updates" // until Debian 10
		}
		d.Repositories = []Repository{
			{Name: "debian", URL: mirror + "debian", Suites: []string{d.OS.Codename, d.OS.Codename + "-updates"}},
			{Name: "debian-security", URL: mirror + "debian-security", Suites: []string{security}},
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
