// Package builder defines what an image builder is: something that turns a
// [Spec] into a qcow2 image and the list of packages in it, by running a real
// tool on a [Host]. The tools' drivers are in the packages below it, such as
// builder/dib.
//
// # Trust
//
// A driver lets its tool accept only packages whose signatures verify against
// the spec's trusted keys, and fails the build otherwise. Mirrors are where
// packages come from during the build; they do not remain in the image.
// Repositories are what the finished image has registered.
//
// # Cleaning up
//
// A build that fails or is cancelled leaves no mount, loop device, device
// mapper link or temporary directory. Builds run in mount and PID namespaces of
// their own ([Command.WorkDir]), so that of one that was killed (SIGKILL) no process
// and no mount is left either; its loop devices and its directory are freed by the
// next build in the same work directory, or by [Cleanup].
package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"regexp"
	"slices"
)

// A Builder builds images. Build may be called concurrently with specs that
// differ in WorkDir and OutputDir. The spec is the builder's to keep and change.
type Builder interface {
	// Build runs the tool on host and returns when the image is in
	// spec.OutputDir: without an error, a Result that [Result.Validate] finds
	// nothing wrong with. A failed tool is a *ToolError. When ctx ends, Build
	// cleans up and returns soon; the error wraps ctx's.
	Build(ctx context.Context, host Host, spec Spec) (*Result, error)
}

// A Digester is a Builder that can tell whether it would build from the same:
// InputsDigest stands for everything that Build reads beside the spec and the
// network, such as a description's files, trusted keys and the driver itself. It
// is any text, the same as long as they are; the spec has no Build, WorkDir,
// OutputDir or Log then.
type Digester interface {
	InputsDigest(spec Spec) (string, error)
}

// A Declarer is a Builder that can tell which files, beside its packages', it
// brings into the image of a spec: lines in the format of ledger.ParseRules. An
// image of another Builder has no account of its files.
type Declarer interface {
	DeclaredFiles(spec Spec) (string, error)
}

// Spec says what to build. It has what every driver needs; what one tool needs
// beyond it is in that driver's Config.
type Spec struct {
	Name         string // file name of the image without ".qcow2"
	Build        string // the build's ID, such as "20261122-031507"; may be empty
	Distribution string // "debian", …
	Release      string // the tool's name for the release, such as a code name: "bookworm"
	Arch         string // Debian's names: "amd64", "arm64"
	DiskBytes    int64  // virtual size of the image

	User       string   // the image's login user
	NTPServers []string // names or addresses

	// Mirrors are the base URLs of the repositories to build from, by the name
	// that the driver documents ("debian", "debian-security").
	Mirrors map[string]string
	// TrustedKeys are the OpenPGP keys that may sign packages. At least one.
	TrustedKeys []TrustedKey
	// Repositories are registered in the finished image.
	Repositories []Repository

	// Dir is the directory that relative paths in the driver's Config refer to.
	Dir string
	// WorkDir is a directory on the host that this build has for itself, as well
	// as the name with ".owner" appended. It is made where missing and removed at
	// the end: see [Claim].
	WorkDir string
	// OutputDir is a local directory that must exist; the results are written
	// into it.
	OutputDir string

	// Log receives all output of the tool, from one goroutine at a time, until
	// Build returns. If nil, it is discarded.
	Log io.Writer
	// Logger receives the build's milestones and, at level Debug, each line of
	// the tool's output. If nil, nothing is logged.
	Logger *slog.Logger
}

// TrustedKey is a local file of OpenPGP public keys, binary or armored.
type TrustedKey struct {
	File string
	// Fingerprints says which of the file's primary keys are trusted, as 40
	// hexadecimal digits each. If empty, all of them are.
	Fingerprints []string
}

// Repository is a package repository as a distribution's package manager has
// it registered.
type Repository struct {
	Name       string   // file name of the registration
	URL        string   // base URL
	Suites     []string // Debian: "bookworm", "bookworm-updates", or "Debian_9.0/" of a flat repository
	Components []string // Debian: "main"; default main
	// Key is the fingerprint of the key that signs the repository, one of the
	// spec's trusted keys. Empty for the distribution's own key.
	Key string
}

// Package is one installed package.
type Package struct {
	Name, Version, Arch string
}

// Compare orders packages by name, version and architecture, as text.
func (p Package) Compare(q Package) int {
	return cmp.Or(cmp.Compare(p.Name, q.Name), cmp.Compare(p.Version, q.Version), cmp.Compare(p.Arch, q.Arch))
}

// Result is what a build made and how. Who takes one from a Builder calls
// Validate before using it.
type Result struct {
	// ImagePath is the qcow2, a regular file below OutputDir. It is the
	// caller's to move.
	ImagePath string
	// Packages are what is installed, sorted by [Package.Compare], each once.
	// Empty means that it is not known.
	Packages []Package
	// ConfigDir is a directory below OutputDir with what the tool was given
	// (elements or description, keys); with it and Config the image can be
	// rebuilt anywhere. It is the caller's to remove.
	ConfigDir string
	// Config is the driver's own configuration with every path relative to
	// ConfigDir.
	Config any

	Tool        string   // "disk-image-create"
	ToolVersion string   // "3.13.0"; may be empty
	Args        []string // the tool's argv; published, so no secrets
	Env         []string // the tool's whole environment, NAME=VALUE, sorted; published too
}

var (
	fileName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	word        = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	userName    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	hostName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.:-]{0,252}$`)
	urlText     = regexp.MustCompile(`^[A-Za-z0-9._~:/@%+,=\[\]-]+$`)
	suite       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$`)
	hostPath    = regexp.MustCompile(`^/[A-Za-z0-9._/+@-]*$`)
	fingerprint = regexp.MustCompile(`^[0-9A-F]{40}$`)
	sha256Text  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Validate reports all that is wrong with s. Build tools hand such values to
// shells, so each is held to the characters that its kind needs. URLs may not
// carry a user or password: they end up in logs and in what is published, so
// those belong into the package manager's own configuration. Each message
// begins with the key that a definition file has for the field, and none shows a
// value that may hold a password.
func (s *Spec) Validate() error {
	var errs []error
	check := func(ok bool, field string, value any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: bad value %s", field, shown(fmt.Sprint(value))))
		}
	}
	check(fileName.MatchString(s.Name), "name", s.Name)
	check(word.MatchString(s.Distribution), "os: distribution", s.Distribution)
	check(word.MatchString(s.Release), "os: release", s.Release)
	check(word.MatchString(s.Arch), "os: arch", s.Arch)
	check(s.DiskBytes > 0, "disk", s.DiskBytes)
	check(userName.MatchString(s.User) && s.User != "root", "user", s.User)
	for _, n := range s.NTPServers {
		check(hostName.MatchString(n), "ntp", n)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Mirrors)) {
		errs = append(errs, checkURL("mirrors: "+name, s.Mirrors[name]))
	}
	if len(s.TrustedKeys) == 0 {
		errs = append(errs, errors.New("trusted_keys: none, so packages could not be verified"))
	}
	for _, k := range s.TrustedKeys {
		for _, f := range k.Fingerprints {
			check(fingerprint.MatchString(f), "trusted_keys: fingerprint in "+k.File, f)
		}
	}
	for _, r := range s.Repositories {
		check(fileName.MatchString(r.Name), "repositories: name", r.Name)
		errs = append(errs, checkURL("repositories: URL of "+r.Name, r.URL))
		check(r.Key == "" || fingerprint.MatchString(r.Key), "repositories: key of "+r.Name, r.Key)
		for _, w := range slices.Concat(r.Suites, r.Components) {
			check(suite.MatchString(w), "repositories: "+r.Name, w)
		}
	}
	check(hostPath.MatchString(s.WorkDir) && s.WorkDir != "/", "work directory (use plain characters)", s.WorkDir)
	check(s.OutputDir != "", "output directory", s.OutputDir)
	return errors.Join(errs...)
}

// harmless matches what certainly holds no password: the beginnings of URLs
// with no user, and other text without @ and ?.
var harmless = regexp.MustCompile(`^([a-z]*://[A-Za-z0-9.-]*(:[0-9]*)?(/[^@?]*)?|[^@?:]*|[^@?/]*)$`)

// shown quotes a value for an error, unless it may hold a password.
func shown(value string) string {
	if !harmless.MatchString(value) {
		return "(not shown, for it may hold a password)"
	}
	return fmt.Sprintf("%.200q", value)
}

// checkURL holds a URL to what package managers and shells take for one. The
// error of url.Parse would quote it.
func checkURL(field, s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || !urlText.MatchString(s):
	case u.User != nil:
		return fmt.Errorf("%s: the URL has a user or password: these belong into the package manager's own configuration", field)
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "", u.Scheme == "file" && u.Host == "" && u.Path != "":
		return nil
	}
	return fmt.Errorf("%s: bad value %s: want a URL with http, https or file", field, shown(s))
}
