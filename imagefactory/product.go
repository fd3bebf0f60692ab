package imagefactory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// The factory's own names below Factory.Dir.
const (
	publicKeyName = "imagefactory.pub"

	workName    = ".work"
	releaseName = ".release" // below workName; no image is called so
	cacheName   = ".cache"   // likewise
	journalName = ".journal" // likewise
)

// product is a definition with the drivers that it names, ready to be worked on.
type product struct {
	factory  *Factory
	def      *Definition
	name     string
	builder  builder.Builder
	host     builder.Host // where it builds
	targets  []target
	staging  []target
	suite    *testsuite.Suite
	mirrors  map[string]string
	fault    error  // of a driver when it was made
	dir      string // Factory.Dir, absolute
	keyring  *signing.Keyring
	signer   *signing.Signer
	log      *slog.Logger
	progress func(Event) error
	digest   string // of the definition and what it refers to, when work began
}

// ErrBusy says that another run works on the image, in this process or in
// another one.
var ErrBusy = errors.New("another run works on this image")

// lock keeps other runs off this image. It goes with the process.
func (p *product) lock() (unlock func(), err error) {
	work := p.workDir()
	if err := errors.Join(makeWork(p.dir), os.MkdirAll(work, 0o755)); err != nil {
		return nil, fmt.Errorf("cannot make the work directory: %w", err)
	}
	f, err := os.Open(work)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the work directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("cannot lock %s: %w", work, err)
	}
	return func() { f.Close() }, nil
}

// makeWork makes the factory's directory with what nobody else is to read: what was not
// tested is nobody's business, also where the directory is served.
func makeWork(dir string) error {
	return errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Join(dir, workName), 0o700))
}

func (p *product) workDir() string { return filepath.Join(p.dir, workName, p.name) }

// sealedDir holds the image's releases that are sealed but not yet published.
func (p *product) sealedDir() string { return filepath.Join(p.dir, workName, releaseName, p.name) }

// spec is what the builder is told, in copies that are the builder's to change.
func (p *product) spec() builder.Spec {
	s := p.def.spec(maps.Clone(p.mirrors))
	s.NTPServers = slices.Clone(s.NTPServers)
	for i := range s.TrustedKeys {
		s.TrustedKeys[i].Fingerprints = slices.Clone(s.TrustedKeys[i].Fingerprints)
	}
	for i := range s.Repositories {
		r := &s.Repositories[i]
		r.Suites, r.Components = slices.Clone(r.Suites), slices.Clone(r.Components)
	}
	return s
}

// buildDir is the build's work directory, on a named host one that no other
// factory has.
func (p *product) buildDir() string {
	if p.def.Builder.Host == "" {
		return filepath.Join(p.workDir(), "build")
	}
	machine, _ := os.Hostname() // where it is not known, Dir has to do
	id := sha256.Sum256([]byte(machine + "\x00" + p.dir))
	return path.Join("/var/tmp/imagefactory", hex.EncodeToString(id[:8]), p.name)
}

// judgedAnew reports whether the previous release would have to pass again although it
// is what the image is: a waiver that may have let it through has expired since, or there
// is a check that it was not held to.
func (j *job) judgedAnew(ctx context.Context, previous *publish.Release) bool {
	built, now := previous.Index.Build.Time(), j.factory.now()
	if slices.ContainsFunc(slices.Concat(j.def.Test.Waivers, j.def.Gate.Waivers), func(w Waiver) bool {
		return built.Before(w.until()) && !now.Before(w.until())
	}) {
		return true
	}
	tests, err := testsOf(previous)
	if err != nil {
		j.log.WarnContext(ctx, "it is not known what the latest release was held to", "error", err)
		return true
	}
	return slices.ContainsFunc(j.suite.Profile.Checks, func(c testsuite.Check) bool {
		return !slices.ContainsFunc(tests.Checks, func(r testsuite.Result) bool { return r.ID == c.ID })
	})
}

// waived reports whether a waiver of the definition's test holds for a check now.
func (p *product) waived(check string) bool {
	return slices.ContainsFunc(p.def.Test.Waivers, func(w Waiver) bool {
		return w.Check == check && p.factory.now().Before(w.until())
	})
}

func (p *product) sandbox() sandbox.Sandbox {
	if p.factory.Sandbox == nil {
		return sandbox.QEMU{}
	}
	return p.factory.Sandbox
}

func urlHost(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}
