// Package kiwi builds images with kiwi, from a description in a directory.
//
// # What it needs on the host
//
// kiwi-ng 9 or 10 (seen to work: 9.24), or kiwi 7 where there is no kiwi-ng, with qemu-img, parted, util-linux and what
// installs packages: debootstrap, zypper or dnf. Device-mapper is not needed.
//
// # The description
//
// A directory with config.xml as kiwi's schema has it, for a disk (image="oem",
// format="qcow2"), and what kiwi reads beside it. The driver checks it, and
// replaces the image's name, its version (by the build's ID), its disk size and
// the URLs of its repositories: each <source> has path="{NAME}/more", where NAME is
// one of the spec's mirrors ("debian-security" is by default found beside
// "debian"). Repositories of other places, keys, passwords, containers and what
// else would come unsigned are refused. post_bootstrap.sh and images.sh are the
// driver's own.
//
// config.sh, after the scripts of the configuration, runs in the image's root; for
// both /image/imagefactory/env sets IMAGEFACTORY_USER and
// IMAGEFACTORY_NTP_SERVERS. Scripts are programs that run as root: who may write
// them is trusted.
//
// # Trust
//
// The signatures of all repositories' indexes and of all packages are checked,
// whatever the description says, with the spec's trusted keys only: a keyring for
// debootstrap and apt, the image's own database for rpm. A repository that cannot
// be read or verified fails the build. What the finished image has registered are
// the spec's repositories.
//
// # Rebuilding
//
// A result's ConfigDir has a create_appliance.sh, which builds the image with
// kiwi alone from mirrors that its user names.
//
// # kiwi 7
//
// It takes descriptions of its own schema, with image="vmx" for a disk, and is run as
// its manual page kiwi(1) says: --prepare and --create. It verifies packages by the
// rpm database of the host, so a host whose database has another key than the spec's
// is refused. No build by it has been seen: what the driver gives it and reads is held
// to documents only.
//
// # Limits
//
// The image's architecture must be the host's; the disk's size must be a multiple
// of 1 MiB. Images have no account of their files (builder.Declarer) yet.
package kiwi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/buildlog"
	"github.com/opentelekomcloud/go-imagefactory/internal/filetree"
)

// Config is what kiwi-ng needs beyond a [builder.Spec]. Relative paths are
// relative to the spec's Dir.
type Config struct {
	// Description is the directory of the description.
	Description string `yaml:"description"`
	// Profiles of the description to build.
	Profiles []string `yaml:"profiles,omitempty"`
	// Overlays are directories that are copied into the image's root, after its
	// packages are installed and after the description's own root.
	Overlays []string `yaml:"overlays,omitempty"`
	// Scripts are programs that run in the image's root, in order, after the
	// overlays are in place and before the description's config.sh.
	Scripts []string `yaml:"scripts,omitempty"`
}

// Driver makes Builders of this package from configuration.
type Driver struct{}

// Name is the driver's key in a definition: "kiwi".
func (Driver) Name() string { return "kiwi" }

// New decodes a [Config] and checks it.
func (Driver) New(decode func(any) error) (builder.Builder, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	return New(c)
}

// New returns a Builder that runs kiwi-ng.
func New(c Config) (builder.Builder, error) {
	var errs []error
	if c.Description == "" {
		errs = append(errs, errors.New("description: none named"))
	}
	for _, p := range c.Profiles {
		if !profileName.MatchString(p) {
			errs = append(errs, fmt.Errorf("profiles: bad name %q", p))
		}
	}
	for _, s := range c.Scripts {
		if !plainName.MatchString(filepath.Base(s)) {
			errs = append(errs, fmt.Errorf("scripts: bad name %q", s))
		}
	}
	return tool{c}, errors.Join(errs...)
}

type tool struct{ config Config }

// run is one build.
type run struct {
	Config
	spec   builder.Spec
	host   builder.Host
	log    *slog.Logger
	config string // local directory of what the tool was given
	legacy bool   // the host's tool is kiwi 7
}

// program is the tool's name.
const program = "kiwi-ng"

// Build implements [builder.Builder].
func (t tool) Build(ctx context.Context, host builder.Host, spec builder.Spec) (*builder.Result, error) {
	r := &run{Config: t.config, spec: spec, host: host, log: spec.Logger, config: filepath.Join(spec.OutputDir, "config")}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
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

func (r *run) validate() error {
	errs := []error{r.spec.Validate()}
	if r.spec.DiskBytes%(1<<20) != 0 {
		errs = append(errs, fmt.Errorf("disk of %d bytes: not a multiple of 1 MiB", r.spec.DiskBytes))
	}
	if machines[r.spec.Arch] == "" {
		errs = append(errs, fmt.Errorf("arch %q: only amd64 and arm64 are handled", r.spec.Arch))
	}
	if r.spec.Build != "" && version(r.spec.Build) == "" {
		errs = append(errs, fmt.Errorf("build %q: want the form 20261122-031507", r.spec.Build))
	}
	return errors.Join(errs...)
}

// machines are the names that `uname -m` has for Debian's architectures.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

var buildID = regexp.MustCompile(`^(\d{8})-(\d{6})$`)

// version is a build's ID in the form of kiwi's version, major.minor.release.
func version(build string) string {
	if build == "" {
		return "0.0.0"
	}
	return buildID.ReplaceAllString(buildID.FindString(build), "$1.$2.0")
}

// InputsDigest implements [builder.Digester].
func (t tool) InputsDigest(spec builder.Spec) (string, error) {
	dir, err := os.MkdirTemp("", "kiwi-inputs-")
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
	machine, err := r.output(ctx, "uname", "-m")
	if err != nil {
		return nil, err
	}
	if machine != machines[r.spec.Arch] {
		return nil, fmt.Errorf("an image for %s is built on such a machine: this one is %s", r.spec.Arch, machine)
	}
	version, err := r.findTool(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.stage(ctx); err != nil {
		return nil, err
	}
	env := r.env()
	if !r.legacy {
		if err := r.run(ctx, env, r.infoArgs()); err != nil {
			return nil, err
		}
	} else if err := r.checkHostKeys(ctx); err != nil {
		return nil, err
	}
	steps, err := r.steps()
	if err != nil {
		return nil, err
	}
	args := steps[0]
	r.log.InfoContext(ctx, "building", "tool", args[0], "version", version, "args", args)
	for _, step := range steps {
		if err := r.run(ctx, env, step); err != nil {
			return nil, err
		}
	}
	result, err := r.collect(ctx)
	if err != nil {
		return nil, err
	}
	result.Tool, result.ToolVersion, result.Args, result.Env = args[0], version, args, env
	return result, nil
}

// run runs the tool and reports why it failed.
func (r *run) run(ctx context.Context, env, args []string) error {
	log := buildlog.New(ctx, r.spec.Log, r.log, parseLine)
	err := r.host.Run(ctx, builder.Command{Args: args, Env: env, Stdout: log, Stderr: log, WorkDir: r.spec.WorkDir})
	if err := errors.Join(log.Close(), ctx.Err()); err != nil {
		return err
	}
	if err != nil {
		failed := &builder.ToolError{Tool: args[0], Phase: log.Phase, Err: err, Tail: log.Tail}
		if file, ok := r.spec.Log.(*os.File); ok {
			failed.LogFile = file.Name()
		}
		return failed
	}
	return nil
}

// infoArgs is the argv that holds the description to kiwi's schema.
func (r *run) infoArgs() []string {
	return append(r.globalArgs(), "image", "info", "--description", r.at(applianceDir))
}

// buildArgs is the argv of the build.
func (r *run) buildArgs() ([]string, error) {
	keys, err := os.ReadDir(r.given(keysDir))
	if err != nil {
		return nil, err
	}
	args := append(r.globalArgs(), "--shared-cache-dir", r.at("cache"), "system", "build", "--description", r.at(applianceDir), "--target-dir", r.at("result"))
	for _, key := range keys {
		args = append(args, "--signing-key", r.at(path.Join(keysDir, key.Name())))
	}
	return args, nil
}

func (r *run) globalArgs() []string {
	args := []string{program, "--config", r.at("kiwi.yml"), "--temp-dir", r.at("tmp"), "--debug"}
	for _, p := range r.Profiles {
		args = append(args, "--profile", p)
	}
	return args
}

// env is the tool's environment, sorted.
func (r *run) env() []string {
	return []string{
		"HOME=" + r.at("home"),
		"LANG=C.UTF-8",
		"PATH=" + r.at(shimsDir) + ":" + builder.DefaultPath,
	}
}

// at is a path in the host's work directory.
func (r *run) at(name string) string { return path.Join(r.spec.WorkDir, name) }

// output runs a command on the host and returns what it printed.
func (r *run) output(ctx context.Context, args ...string) (string, error) {
	var out buildlog.Limited
	err := r.host.Run(ctx, builder.Command{Args: args, Stdout: &out})
	return strings.TrimSpace(string(out.Data)), err
}

// findTool tells the version of the host's kiwi, and whether it is the legacy one.
func (r *run) findTool(ctx context.Context) (string, error) {
	text, err := r.output(ctx, program, "--version")
	if err == nil {
		return parseVersion(text)
	}
	if text, legacyErr := r.output(ctx, legacyProgram, "--version"); legacyErr == nil {
		r.legacy = true
		return parseLegacyVersion(text)
	}
	return "", errors.Join(ctx.Err(), fmt.Errorf("cannot use kiwi-ng (Debian's packages are kiwi and kiwi-systemdeps-…): %w", err))
}

// steps are the commands that make the image.
func (r *run) steps() ([][]string, error) {
	if r.legacy {
		return r.legacySteps(), nil
	}
	args, err := r.buildArgs()
	return [][]string{args}, err
}

var versionText = regexp.MustCompile(`^KIWI \(next generation\) version ((9|10)\.[0-9.]{1,32})$`)

func parseVersion(text string) (string, error) {
	m := versionText.FindStringSubmatch(text)
	if m == nil {
		return "", errors.New("cannot use kiwi-ng: it is neither version 9 nor 10")
	}
	return m[1], nil
}

// collect fetches what the tool has made.
func (r *run) collect(ctx context.Context) (*builder.Result, error) {
	f, err := r.results(ctx)
	if err != nil {
		return nil, err
	}
	data, err := r.fetch(ctx, f.packages)
	if err != nil {
		return nil, err
	}
	packages, err := parsePackages(data)
	if err != nil {
		return nil, err
	}
	if f.verified != "" {
		if data, err = r.fetch(ctx, f.verified); err != nil {
			return nil, err
		}
		for _, file := range parseVerified(data) {
			r.log.WarnContext(ctx, "a file is not as its package has it", "file", file)
		}
	}
	image := filepath.Join(r.spec.OutputDir, r.spec.Name+".qcow2")
	out, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	err = r.host.Download(ctx, r.at(path.Join("result", f.image)), out)
	if err := errors.Join(err, out.Close()); err != nil {
		return nil, fmt.Errorf("cannot fetch the image: %w", err)
	}
	return &builder.Result{ImagePath: image, Packages: packages, ConfigDir: r.config, Config: r.portable()}, nil
}

// results tells which files the tool has written.
func (r *run) results(ctx context.Context) (files, error) {
	if r.legacy {
		return r.legacyFiles(), nil
	}
	data, err := r.fetch(ctx, "kiwi.result.json")
	if err != nil {
		return files{}, err
	}
	return parseResult(data, r.at("result"))
}

func (r *run) fetch(ctx context.Context, name string) ([]byte, error) {
	var b buildlog.Limited
	if err := r.host.Download(ctx, r.at(path.Join("result", name)), &b); err != nil {
		return nil, fmt.Errorf("cannot fetch %s: %w", name, err)
	}
	return b.Data, nil
}

// portable is the configuration with the paths that it has in r.config.
func (r *run) portable() Config {
	c := Config{Description: descriptionDir, Profiles: r.Profiles}
	for i := range r.Overlays {
		c.Overlays = append(c.Overlays, path.Join(overlaysDir, fmt.Sprint(i)))
	}
	for i, file := range r.Scripts {
		c.Scripts = append(c.Scripts, path.Join(scriptsDir, scriptName(i, file)))
	}
	return c
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return data, err
}
