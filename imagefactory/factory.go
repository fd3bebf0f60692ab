package imagefactory

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/internal/nearest"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// A BuilderDriver makes builders from a definition's configuration.
//
// Drivers, and what they make, are third parties to the factory: what a builder
// returns is held to [builder.Result.Validate], and a panic is a [PanicError]
// of the image that it came up for.
type BuilderDriver interface {
	// Name is the driver's key in a definition. It is not empty, and no other
	// builder of the factory has it.
	Name() string
	// New makes a builder. decode fills a pointer to the driver's own
	// configuration type strictly; its error has a position, and New returns it
	// as it is. New begins nothing: it is also called to validate definitions.
	New(decode func(any) error) (builder.Builder, error)
}

// A TargetDriver makes publish targets from a definition's configuration, as a
// [BuilderDriver] makes builders.
type TargetDriver interface {
	Name() string
	New(decode func(any) error) (publish.Target, error)
}

// Factory runs definitions. Its methods may be called concurrently, also with
// other factories on the same Dir, while its fields are not changed: of two runs
// of one image the second fails with [ErrBusy].
type Factory struct {
	// Dir is where the factory works and keeps releases; see the package's
	// documentation. It is made where missing. Required.
	Dir string
	// Builders and Targets are the drivers that definitions may name, each
	// with a name of its own.
	Builders []BuilderDriver
	Targets  []TargetDriver
	// Profiles are what definitions may have their images held to, by name. If
	// nil, there are otc and strict: testsuite.OTC() and testsuite.Strict(), each with
	// ledger.Checks(), ledger.BootChecks(), ledger.LiveChecks() and boots.Checks(). An image's disk is
	// read only where its profile has one of the first two, and its machine is
	// rebooted, powered off and read only where it has one of BootChecks.
	Profiles []testsuite.Profile
	// Probes read what the checks of Profiles need and the test suite does not
	// gather itself.
	Probes []testsuite.Probe
	// AnyClass allows images whose names begin with none of the public images'
	// classes, such as Debian_12 for one's own.
	AnyClass bool
	// Host is where builders run. If nil, this machine.
	Host builder.Host
	// Hosts are other machines that definitions may name, as in `builder: {dib: {…},
	// host: big}`. Work directories there lie in /var/tmp/imagefactory, for each
	// factory's Dir in a directory of its own.
	Hosts map[string]builder.Host
	// Sandbox boots the images for their tests. If nil, sandbox.QEMU{}.
	Sandbox sandbox.Sandbox
	// Boots is which other machines are made beside the one that is tested, where a
	// check of the image's profile asks for them: see package boots. If empty,
	// boots.Default.
	Boots boots.Set
	// Reader reads images' disks, so that their files can be accounted for: see
	// package ledger. Without a Kernel it is made of the image's own archive. Only
	// images of Debian are read, whose builder is a builder.Declarer; the checks of
	// other images' files are skipped.
	Reader sandbox.Reader
	// Key signs the releases; it has its secret part, or Signer holds it.
	// Required. Releases are verified against it and the keys that it follows; Dir belongs
	// to the key that it was used with first, until [RotateKey] changes that.
	Key *signing.Key
	// Signer signs with the key, and no other. If nil, one is made from Key.
	Signer *signing.Signer

	// CrossCheck, if not nil, reads each built qcow2 image, which is safe and
	// consistent by then, with another reader; an error fails the image. For
	// one see qcow2reader.CrossCheck.
	CrossCheck func(ctx context.Context, image io.ReaderAt, sizeBytes int64) error

	// Website, if not nil, is written after each run that is not cut. It needs Out
	// and List; where it has no Dir, Keyring, Signer or Flavors, they are those of
	// the factory and [FillSite]'s of the definitions. Its Report is that of the run.
	Website *website.Site

	// BuilderID is the URI that names this factory in the provenance of what
	// it builds. If empty, DefaultBuilderID.
	BuilderID string

	// HostMirrors is what "host" stands for in a definition's mirrors. If nil,
	// what this machine's own package manager uses.
	HostMirrors map[string]string

	// RebuildAfter is the age from which the latest release of an image is built again
	// although nothing that is known of has changed (builder.Stater). If zero, 7 days.
	RebuildAfter time.Duration

	// Updates tells the security updates in an image's registered repositories for what
	// is installed in one of its releases: see [UpdatesFrom]. If nil, none is known: only
	// the calendar renews latest, and the gate has no versions to judge.
	Updates func(ctx context.Context, d *Definition, installed *advisory.Installed) ([]Update, error)
	// Approve is asked before a release becomes public whose definition demands it
	// (gate: approval), when everything else lets it pass; several goroutines may call
	// it at once. It may take its time, and ends with ctx. With nil the release
	// is published; with ErrNotYet it stays a candidate, for [Factory.Promote] or the
	// next night's question; with another error it is refused, and the image fails. If
	// nil, ErrNotYet. The report is complete up to there; its Build is the release's.
	Approve func(ctx context.Context, image ImageReport) error

	Jobs  int  // images at once; if less than 1, one
	Force bool // release also what is unchanged

	// Until is the last stage to be done; if empty, all are. From is the stage from
	// which on the newest run of each image that came so far is done again; if empty,
	// a run that was cut goes on where it was. Fresh begins new runs, whatever was
	// cut.
	Until, From Stage
	Fresh       bool
	// Definitions are those that tasks from elsewhere may name: see [Factory.Do].
	Definitions []Definition

	// Limits are what images share and how long stages may take.
	Limits Limits
	// Stop, once closed, ends Run gracefully: no stage is begun any more, and those in
	// hand end, or are cut when ctx ends, for which the caller sets a limit. An image
	// that is not finished is Waiting, and the next run goes on with it. If nil, only
	// ctx ends Run.
	Stop <-chan struct{}

	// MaxAge is how old what is latest on a target may be before the report says that
	// it is stale, whatever the run itself made; see [publish.CheckFresh]. If 0, it may
	// have any age.
	MaxAge time.Duration

	// Progress is called at the beginning and the end of each stage, by one
	// goroutine at a time. The image goes on when it returns, and others wait
	// for it where they would call it, so it should be quick and must not wait
	// for the run. If nil, nothing is called.
	Progress func(Event)
	// Logger is called by several goroutines at once. If nil, nothing is logged.
	Logger *slog.Logger
	// Now is the clock; several goroutines may call it at once. If nil, time.Now.
	Now func() time.Time
}

// Run plans the [Factory.Tasks] of all definitions, does them, and returns what
// came of each image. The error is a
// mistake in the factory or a definition, found before anything is begun: a
// *ConfigError where it is the configuration's. What goes wrong later is in the
// report, which is complete also when ctx ends: Run then waits for the drivers
// to clean up and return. It waits as long as they take, for a directory that
// somebody still writes into cannot be used.
func (f *Factory) Run(ctx context.Context, definitions []Definition) (*Report, error) {
	products, err := f.begin(definitions)
	if err != nil {
		return nil, err
	}
	report := &Report{Started: f.now(), Images: make([]ImageReport, len(products))}
	var group errgroup.Group
	group.SetLimit(max(f.Jobs, 1))
	room := f.Limits.room()
	for _, i := range longestFirst(products) {
		p := products[i]
		group.Go(func() error {
			report.Images[i] = p.run(ctx, room)
			report.Images[i].Stale = p.stale(ctx)
			return nil
		})
	}
	_ = group.Wait()
	report.Finished = f.now()
	if len(products) > 0 {
		f.writeSite(ctx, report, products)
	}
	return report, nil
}

// begin prepares definitions and the factory's directory.
func (f *Factory) begin(definitions []Definition) ([]*product, error) {
	products, err := f.prepare(definitions)
	if err != nil {
		return nil, err
	}
	if err := makeWork(f.Dir); err != nil {
		return nil, fmt.Errorf("cannot make the factory's directory: %w", err)
	}
	return products, f.publishKey()
}

// Validate reports what is wrong with the factory and the definitions before
// anything is begun, but for Dir and the key: mistakes in the definitions, each
// a *ConfigError where its place is known, and drivers that are at fault.
func (f *Factory) Validate(definitions []Definition) error {
	products, err := f.products(definitions)
	errs := []error{err}
	for _, p := range products {
		if p.fault != nil {
			errs = append(errs, fmt.Errorf("image %s: %w", p.name, p.fault))
		}
	}
	return errors.Join(errs...)
}

// prepare checks everything that can be checked before an image is begun.
func (f *Factory) prepare(definitions []Definition) ([]*product, error) {
	if f.Dir == "" || f.Key == nil {
		return nil, errors.New("cannot run a factory without Dir and Key")
	}
	dir, err := filepath.Abs(f.Dir)
	if err != nil {
		return nil, err
	}
	var keyring *signing.Keyring
	signer := f.Signer
	err = contain(f.logger(), "the signing key", "", func() (err error) {
		if keyring, err = f.keyring(); err == nil && signer == nil {
			signer, err = signing.NewSigner(f.Key, signing.SignerConfig{Time: f.Now})
		}
		if err == nil && signer.Fingerprint() != f.Key.Fingerprint() {
			err = fmt.Errorf("the signer's is %s, and Key is %s", signer.Fingerprint(), f.Key.Fingerprint())
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot use the signing key: %w", err)
	}
	products, err := f.products(definitions)
	progress := newProgress(f.logger(), f.Progress)
	for _, p := range products {
		p.dir, p.keyring, p.signer, p.progress = dir, keyring, signer, progress
	}
	return products, err
}

// products instantiates the drivers of all definitions.
func (f *Factory) products(definitions []Definition) ([]*product, error) {
	parts, err := f.parts()
	if err != nil {
		return nil, err
	}
	var products []*product
	var errs []error
	seen := map[string]bool{}
	for i := range definitions {
		d := definitions[i]
		p, err := f.newProduct(parts, &d)
		if err == nil {
			err = f.addTargets(parts, p)
		}
		if err == nil && seen[d.Name] {
			err = fmt.Errorf("image %s is defined twice", d.Name)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seen[d.Name] = true
		products = append(products, p)
	}
	return products, errors.Join(errs...)
}

// addTargets instantiates where a product goes.
func (f *Factory) addTargets(parts *parts, p *product) (err error) {
	if p.targets, err = f.newTargets(parts, p); err == nil {
		p.staging, err = f.newStaging(parts, p)
	}
	return err
}

// newProduct instantiates the drivers of one definition, but for its targets.
func (f *Factory) newProduct(parts *parts, d *Definition) (*product, error) {
	if err := d.Complete(); err != nil {
		return nil, fmt.Errorf("image %s: %w", d.Name, err)
	}
	if name, err := ParseName(d.Name); !f.AnyClass && (err != nil || name.Class == "") {
		return nil, d.source.locate(fmt.Errorf("name: image name %q has no class: want one of %v before it", d.Name, classes))
	}
	if slices.Contains([]string{publicKeyName, keysName, keysName + ".asc"}, d.Name) {
		return nil, d.source.locate(fmt.Errorf("name: %s is a file of keys in the factory's directory", d.Name))
	}
	p := &product{factory: f, def: d, name: d.Name, log: f.logger().With("image", d.Name)}
	var err error
	if p.builder, err = newDriver(p, "builder", parts.builders, d.Builder, BuilderDriver.New); err != nil {
		return nil, err
	}
	if p.host, err = f.host(d); err != nil {
		return nil, err
	}
	if p.mirrors, err = f.mirrors(d.Mirrors); err != nil {
		return nil, d.source.locate(fmt.Errorf("mirrors: %w", err))
	}
	if p.suite, err = parts.suite(d, p.mirrors); err != nil {
		return nil, err
	}
	for _, k := range d.spec(nil).TrustedKeys {
		if _, err := os.Stat(k.File); err != nil {
			return nil, d.source.locate(fmt.Errorf("trusted_keys: %w", err))
		}
	}
	return p, nil
}

// mirrors replaces "host" by what this machine uses.
func (f *Factory) mirrors(mirrors map[string]string) (map[string]string, error) {
	mirrors = maps.Clone(mirrors)
	host := f.HostMirrors
	for name, url := range mirrors {
		if url != "host" {
			continue
		}
		if host == nil {
			var err error
			if host, err = builder.AptMirrors(os.DirFS("/")); err != nil {
				return nil, err
			}
		}
		if host[name] == "" {
			return nil, fmt.Errorf("this machine has no mirror named %s; name its URL", name)
		}
		mirrors[name] = host[name]
	}
	// Debian's security updates come from where the machine takes them too.
	if s := host["debian-security"]; s != "" && mirrors["debian"] == host["debian"] && mirrors["debian-security"] == "" {
		mirrors["debian-security"] = s
	}
	return mirrors, nil
}

func (f *Factory) now() time.Time {
	if f.Now == nil {
		return time.Now().UTC()
	}
	return f.Now().UTC()
}

func (f *Factory) logger() *slog.Logger {
	if f.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(quietLog{f.Logger.Handler()})
}

// host is where an image is built.
func (f *Factory) host(d *Definition) (builder.Host, error) {
	name := d.Builder.Host
	switch host := f.Hosts[name]; {
	case name != "" && host == nil:
		return nil, d.source.locateAt(fmt.Errorf("image %s: builder: %w", d.Name, nearest.Unknown("host", name, slices.Sorted(maps.Keys(f.Hosts)))), "builder", "host")
	case name != "":
		return host, nil
	case f.Host != nil:
		return f.Host, nil
	}
	return builder.Local{}, nil
}

// OpenKey returns the signing key in file, and makes a new one there, readable
// by its owner only, where there is none; made tells. The key has no
// passphrase, as nightly runs want it: keep the file where only the factory
// reads it, or sign with an agent.
func OpenKey(file string) (key *signing.Key, made bool, err error) {
	if st, err := os.Stat(file); err == nil && !st.Mode().IsRegular() { // it would wait for a pipe's writer
		return nil, false, fmt.Errorf("cannot load the secret key %s: not a regular file", file)
	}
	key, err = signing.LoadKey(file, nil)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return key, false, err
	}
	key, err = signing.GenerateKey(signing.KeyConfig{Name: "Image Factory", Comment: "image signing key", Algorithm: signing.RSA3072, Rand: rand.Reader})
	if err != nil {
		return nil, false, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, false, fmt.Errorf("cannot make a signing key: %w", err)
	}
	if err := key.WriteSecretFile(file); err != nil {
		return nil, false, fmt.Errorf("cannot make a signing key: %w", err)
	}
	return key, true, nil
}
