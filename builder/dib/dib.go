// Package dib builds images with diskimage-builder's disk-image-create.
//
// # What it needs on the host
//
// disk-image-create (seen to work: 3.13), debootstrap, qemu-img, kpartx, gdisk
// and util-linux. Where the kernel has no device-mapper the driver puts
// stand-ins for kpartx and dmsetup first in the tool's PATH, which use
// partitions that the kernel holds itself.
//
// # Mirrors
//
// For Debian: "debian", required, and "debian-security", by default the former
// with "-security" appended. The release, its updates and its security updates
// are all part of the image.
//
// # Trust
//
// debootstrap runs with --force-check-gpg and a keyring of the spec's trusted
// keys only, and apt inside the image with the same keyring (signed-by);
// a mirror that cannot be read or verified fails the build. The tool's knobs that
// could weaken this may not be set by a Config. In the finished image Debian's
// own keyring is for its repositories, and for one that names its key that key
// alone, which must be trusted by the spec.
//
// Elements are programs that run as root on the host and in the image: who may
// write a definition or its elements is trusted.
//
// # Rebuilding
//
// A result's ConfigDir has a create_appliance.sh, which builds the image with
// diskimage-builder alone from mirrors that its user names.
//
// # Files
//
// An image of this package is held to an account of its files (package ledger).
// What an element's scripts write is declared in its file "image-files", as
// ledger.ParseRules reads it; what it has below static/ needs no word. Elements
// that come with diskimage-builder are known to the driver as far as
// examples/nightly uses them.
//
// # Limits
//
// Only Debian and amd64 or arm64 images are handled; the disk's size must be a
// multiple of 1 MiB.
package dib

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/buildlog"
	"github.com/opentelekomcloud/go-imagefactory/internal/filetree"
)

// Config is what disk-image-create needs beyond a [builder.Spec].
type Config struct {
	// Elements are the names of the elements to build from, such as
	// "debian-minimal". dib's "base" is used only where it is named.
	Elements []string `yaml:"elements"`
	// ElementPaths are local directories of elements, searched in order before
	// the elements that come with diskimage-builder. Relative ones are
	// relative to the spec's Dir.
	ElementPaths []string `yaml:"element_paths,omitempty"`
	// Environment is set for the tool and its elements in addition to what the
	// driver sets: names DIB_… and http_proxy, https_proxy, ftp_proxy and
	// no_proxy, without those that the driver needs for itself or that could
	// weaken the verification of packages. It is part of what is published:
	// no secrets.
	Environment map[string]string `yaml:"environment,omitempty"`
}

// Driver makes Builders of this package from configuration.
type Driver struct{}

// Name is the driver's key in a definition: "dib".
func (Driver) Name() string { return "dib" }

// New decodes a [Config] and checks it.
func (Driver) New(decode func(any) error) (builder.Builder, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	return New(c)
}

// New returns a Builder that runs disk-image-create.
func New(c Config) (builder.Builder, error) {
	var errs []error
	if len(c.Elements) == 0 {
		errs = append(errs, errors.New("elements: none named"))
	}
	for _, e := range c.Elements {
		if !elementName.MatchString(e) || slices.Contains(refusedElements, e) {
			errs = append(errs, fmt.Errorf("elements: bad name %q", e))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Environment)) {
		switch {
		case !variableName.MatchString(name):
			errs = append(errs, fmt.Errorf("environment: bad name %q", name))
		case reserved(name):
			errs = append(errs, fmt.Errorf("environment: %s is the driver's own", name))
		case !variableValue.MatchString(c.Environment[name]):
			errs = append(errs, fmt.Errorf("environment: the value of %s has a character that the tool's shell would read", name))
		case (strings.HasSuffix(name, "_proxy") || strings.Contains(c.Environment[name], "://")) && strings.Contains(c.Environment[name], "@"):
			errs = append(errs, fmt.Errorf("environment: %s is a URL with a user or password, and would be published", name))
		}
	}
	return tool{c}, errors.Join(errs...)
}

var (
	elementName  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	variableName = regexp.MustCompile(`^(DIB_[A-Z0-9_]{1,60}|(http|https|ftp|no)_proxy)$`)
	// Parts of dib put values into a shell's command line.
	variableValue = regexp.MustCompile(`^[A-Za-z0-9._~:/@%+,= -]*$`)
)

// refusedElements come with diskimage-builder and let packages be installed
// that nobody has signed.
var refusedElements = []string{"apt-conf", "openstack-ci-mirrors"}

// reserved reports whether a variable is set by the driver, decides where
// packages come from and who may sign them, or names a program.
func reserved(name string) bool {
	if _, ok := (&run{}).environment()[name]; ok {
		return true
	}
	for _, part := range []string{"KEY", "MIRROR", "APT_SOURCES", "APT_CONF", "COMPONENTS", "DEBOOTSTRAP", "PYTHON", "GZIP"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

type tool struct{ config Config }

// run is one build.
type run struct {
	Config
	spec    builder.Spec
	host    builder.Host
	log     *slog.Logger
	mapper  bool   // the kernel has device-mapper
	config  string // local directory of what the tool was given
	version string
}

// program is the tool's name.
const program = "disk-image-create"

// Build implements [builder.Builder].
func (t tool) Build(ctx context.Context, host builder.Host, spec builder.Spec) (*builder.Result, error) {
	r := &run{Config: t.config, spec: spec, host: host, config: filepath.Join(spec.OutputDir, "config")}
	r.log = r.logger()
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("cannot build %s: %w", spec.Name, err)
	}
	if err := builder.Claim(ctx, host, spec.WorkDir); err != nil {
		return nil, fmt.Errorf("cannot build %s: %w", spec.Name, err)
	}
	result, err := r.build(ctx)
	// What is left of the work directory goes, also when ctx has ended.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err = errors.Join(err, builder.Cleanup(clean, host, spec.WorkDir)); err != nil {
		return nil, fmt.Errorf("cannot build %s: %w", spec.Name, err)
	}
	return result, nil
}

func (r *run) logger() *slog.Logger {
	if r.spec.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return r.spec.Logger
}

func (r *run) validate() error {
	errs := []error{r.spec.Validate()}
	if r.spec.Distribution != "debian" {
		errs = append(errs, fmt.Errorf("distribution %q: only debian is handled", r.spec.Distribution))
	}
	if !slices.Contains([]string{"amd64", "arm64"}, r.spec.Arch) {
		errs = append(errs, fmt.Errorf("arch %q: only amd64 and arm64 are handled", r.spec.Arch))
	}
	if r.spec.DiskBytes%(1<<20) != 0 {
		errs = append(errs, fmt.Errorf("disk of %d bytes: not a multiple of 1 MiB", r.spec.DiskBytes))
	}
	if r.spec.Mirrors["debian"] == "" {
		errs = append(errs, errors.New(`mirrors: "debian" is missing`))
	}
	for name := range r.spec.Mirrors {
		if name != "debian" && name != "debian-security" {
			errs = append(errs, fmt.Errorf("mirrors: unknown name %q", name))
		}
	}
	return errors.Join(errs...)
}

// InputsDigest implements [builder.Digester].
func (t tool) InputsDigest(spec builder.Spec) (string, error) {
	dir, err := os.MkdirTemp("", "dib-inputs-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	r := &run{Config: t.config, spec: spec, config: filepath.Join(dir, "config")}
	if err := r.write(context.Background()); err != nil {
		return "", err
	}
	return filetree.Digest(r.config)
}

// What a build has been seen to need, of a small image: what does not have this
// much fails for certain.
const (
	leastDisk   = 3 << 30
	leastMemory = 128 << 20
)

func (r *run) build(ctx context.Context) (*builder.Result, error) {
	if err := builder.CheckRoom(ctx, r.host, r.spec.WorkDir, leastDisk, leastMemory); err != nil {
		return nil, err
	}
	if err := r.stage(ctx); err != nil {
		return nil, err
	}
	var err error
	if r.version, err = r.toolVersion(ctx); err != nil {
		return nil, err
	}
	args, env := r.args(), r.env()
	r.log.InfoContext(ctx, "building", "tool", program, "version", r.version, "args", args)
	log := buildlog.New(ctx, r.spec.Log, r.log, parseLine)
	err = r.host.Run(ctx, builder.Command{Args: args, Env: env, Stdout: log, Stderr: log, WorkDir: r.spec.WorkDir})
	if err := errors.Join(log.Close(), ctx.Err()); err != nil {
		return nil, err
	}
	if err != nil {
		failed := &builder.ToolError{Tool: program, Phase: log.Phase, Err: err, Tail: log.Tail}
		if file, ok := r.spec.Log.(*os.File); ok {
			failed.LogFile = file.Name()
		}
		return nil, failed
	}
	return r.collect(ctx, args, env)
}

// args is the tool's argv.
func (r *run) args() []string {
	args := []string{program, "-n", "-t", "qcow2", "-o", r.at("image"), "--no-tmpfs"}
	return append(append(args, hookElement), r.Elements...)
}

// env is the tool's environment, sorted.
func (r *run) env() []string {
	env := r.environment()
	maps.Copy(env, r.Environment)
	var list []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}

// environment holds the variables that the driver sets.
func (r *run) environment() map[string]string {
	s := r.spec
	mirror, security := r.mirrors()
	const signed = "deb [signed-by=/usr/share/keyrings/imagefactory-build.gpg] "
	sources := []string{
		"release:" + signed + mirror + " " + s.Release + " main",
		"updates:" + signed + mirror + " " + s.Release + "-updates main",
		"security:" + signed + security + " " + s.Release + "-security main",
	}
	searchPath := builder.DefaultPath
	if !r.mapper {
		searchPath = r.at("shims") + ":" + searchPath
	}
	elements := []string{r.at("driver")}
	for i := range r.ElementPaths {
		elements = append(elements, path.Join(r.at("elements"), fmt.Sprint(i)))
	}
	return map[string]string{
		"PATH":          searchPath,
		"HOME":          r.at("home"),
		"LANG":          "C.UTF-8",
		"ARCH":          s.Arch,
		"ELEMENTS_PATH": strings.Join(elements, ":"),
		"TMP_DIR":       r.at("tmp"), // and not TMPDIR, which would reach into the chroot
		// In KiB steps, since dib takes GiB as a decimal fraction.
		"DIB_IMAGE_SIZE":          fmt.Sprintf("%.10f", float64(s.DiskBytes)/(1<<30)),
		"DIB_RELEASE":             s.Release,
		"DIB_DISTRIBUTION_MIRROR": mirror,
		"DIB_APT_SOURCES_CONF":    strings.Join(sources, "\n"),
		"DIB_DEBOOTSTRAP_EXTRA_ARGS": "--force-check-gpg --keyring=" + r.at("keyring.gpg") +
			" --include=ca-certificates", // for apt inside, where a mirror is https
		"DIB_IMAGE_CACHE":           r.at("cache"),
		"DIB_LOCKFILES":             r.at("locks"),
		"IMAGEFACTORY_USER":         s.User,
		"IMAGEFACTORY_NTP_SERVERS":  strings.Join(s.NTPServers, " "),
		"IMAGEFACTORY_KEYRING":      r.at("keyring.gpg"),
		"IMAGEFACTORY_REPOSITORIES": r.at("repositories"),
		"DIB_DEBUG_TRACE":           "0",
		"DEBIAN_FRONTEND":           "noninteractive",
	}
}

func (r *run) mirrors() (main, security string) {
	main = strings.TrimRight(r.spec.Mirrors["debian"], "/")
	security = r.spec.Mirrors["debian-security"]
	if security == "" {
		security = main + "-security"
	}
	return main, strings.TrimRight(security, "/")
}

// at is a path in the host's work directory.
func (r *run) at(name string) string { return path.Join(r.spec.WorkDir, name) }

// collect fetches what the tool has made.
func (r *run) collect(ctx context.Context, args, env []string) (*builder.Result, error) {
	image := filepath.Join(r.spec.OutputDir, r.spec.Name+".qcow2")
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	err = r.host.Download(ctx, r.at("image.qcow2"), f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("cannot fetch the image: %w", err)
	}
	var manifest buildlog.Limited
	if err := r.host.Download(ctx, r.at("image.d/dib-manifests/dib-manifest-dpkg-image"), &manifest); err != nil {
		return nil, fmt.Errorf("cannot fetch the package list: %w", err)
	}
	packages, err := parseManifest(manifest.Data)
	if err != nil {
		return nil, err
	}
	return &builder.Result{
		ImagePath: image, Packages: packages, ConfigDir: r.config, Config: r.portable(),
		Tool: program, ToolVersion: r.version, Args: args, Env: env,
	}, nil
}
