package imagefactory

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// filesSuffix is that of the release's ledger, a compressed text of
// ledger.Listing.
const filesSuffix = ".files.gz"

// unaccountable says why the image's files cannot be accounted for, or "".
func (p *product) unaccountable() string {
	if _, ok := p.builder.(builder.Declarer); !ok {
		return "the builder " + p.def.Builder.Driver + " does not declare what it brings beside packages"
	}
	if d := p.def.OS.Distribution; d != "debian" {
		return "the packages of " + d + " cannot be compared with"
	}
	return ""
}

// accounted is what is known of the image's disk before it is booted.
type accounted struct {
	listing  *ledger.Listing
	places   map[string]string // of its volumes
	declared []ledger.Rule
}

// asks reports whether a check of the suite needs a fact.
func (p *product) asks(fact string) bool {
	return slices.ContainsFunc(p.suite.Profile.Checks, func(c testsuite.Check) bool { return slices.Contains(c.Needs, fact) })
}

// files accounts for the image's files, if a check asks for it, or says why that is
// left out. The disk is read too where a check asks what a boot wrote to it.
func (j *job) files(ctx context.Context) (testsuite.Fact, *accounted, error) {
	if !j.asks(ledger.FactName) && !j.asks(ledger.BootFactName) {
		return testsuite.Fact{Omitted: "no check asks for it"}, nil, nil
	}
	if why := j.unaccountable(); why != "" {
		return testsuite.Fact{Omitted: why}, nil, nil
	}
	return j.accountFiles(ctx)
}

// accountFiles reads the image's disk, writes its ledger and returns what is
// to be said of it, for ledger.Checks.
func (j *job) accountFiles(ctx context.Context) (testsuite.Fact, *accounted, error) {
	fail := func(err error) (testsuite.Fact, *accounted, error) { return testsuite.Fact{}, nil, err }
	declared, err := j.declaredFiles()
	if err != nil {
		return fail(err)
	}
	listing, places, findings, err := j.list(ctx)
	if err != nil {
		return fail(err)
	}
	if err := j.writeFiles(listing); err != nil {
		return fail(fmt.Errorf("cannot write the list of files: %w", err))
	}
	packages, err := ledger.DebianPackages(listing)
	if err != nil {
		return fail(err)
	}
	archive, err := j.archive(j.def.OS.Arch)
	if err != nil {
		return fail(err)
	}
	unlock, err := j.lockCache(ctx)
	if err != nil {
		return fail(err)
	}
	manifests, err := archive.Manifests(ctx, packages)
	var indexes []signing.Resource
	if err == nil {
		indexes, err = signedIndexes(ctx, archive.Dir)
	}
	unlock()
	if err != nil {
		return fail(err)
	}
	if err := j.writeInventory(listing, indexes); err != nil {
		return fail(err)
	}
	more, err := ledger.Debian{Declared: declared, Manifests: manifests}.Account(listing)
	if err != nil {
		return fail(err)
	}
	findings = append(findings, more...)
	j.log.InfoContext(ctx, "accounted for the disk's files", "files", len(listing.Files), "packages", len(packages), "findings", len(findings))
	return ledger.Fact(len(listing.Files), findings), &accounted{listing, places, declared}, nil
}

// declaredFiles are the rules of what the definition brings beside packages.
func (p *product) declaredFiles() ([]ledger.Rule, error) {
	lines, err := declaredText(p.log, p.def.Builder.Driver, p.builder, p.def.spec(p.mirrors))
	if err != nil {
		return nil, err
	}
	declared, err := ledger.ParseRules(lines)
	if err != nil {
		return nil, fmt.Errorf("the files that the definition brings: %w", err)
	}
	return declared, nil
}

// bootFiles accounts for what the first boot and another one wrote to the machine's
// disk, if a check asks for it, or says why that is left out. It ends the machine.
func (j *job) bootFiles(ctx context.Context, m *sandbox.Machine, before *accounted) (testsuite.Fact, error) {
	switch {
	case !j.asks(ledger.BootFactName):
		return testsuite.Fact{Omitted: "no check asks for it"}, nil
	case before == nil:
		return testsuite.Fact{Omitted: "the disk was not read before the boot: " + j.unaccountable()}, nil
	case m.PowerOff == nil:
		return testsuite.Fact{Omitted: "the sandbox does not let a machine's disk be read"}, nil
	}
	fact, err := j.accountBoot(ctx, m, before)
	if err != nil && ctx.Err() == nil {
		// The guest's doing, or a disk that cannot be read any more: its checks cannot pass.
		return testsuite.Fact{Error: oneLine(err.Error())}, nil
	}
	return fact, err
}

// accountBoot returns what is to be said of what boots wrote, for ledger.BootChecks.
func (j *job) accountBoot(ctx context.Context, m *sandbox.Machine, before *accounted) (testsuite.Fact, error) {
	var overlay *sandbox.Overlay
	err := contain(j.log, "sandbox", "PowerOff", func() (err error) {
		if m.Reboot != nil {
			if err := m.Reboot(ctx); err != nil {
				return err
			}
		}
		overlay, err = m.PowerOff(ctx)
		return err
	})
	if err != nil {
		return testsuite.Fact{}, err
	}
	reader, err := j.reader(ctx)
	if err != nil {
		return testsuite.Fact{}, err
	}
	stream, volumes, err := reader.OpenOverlay(ctx, overlay)
	if err != nil {
		return testsuite.Fact{}, err
	}
	defer stream.Close()
	after, err := ledger.ReadArchive(ctx, stream, ledger.Limits{}, ledger.KeepBoot, m.Target.Password)
	if err != nil {
		return testsuite.Fact{}, err
	}
	after.Mount(before.places) // as the image's, whatever the guest wrote to its fstab
	findings := unknownVolumes(volumes)
	more, err := ledger.Boot{
		Declared: before.declared, User: m.Target.User, Key: m.Target.Signer.PublicKey(), HostKey: m.Target.HostKey, Hostname: m.Hostname,
	}.Account(before.listing, after)
	if err != nil {
		return testsuite.Fact{}, err
	}
	findings = append(findings, more...)
	j.log.InfoContext(ctx, "accounted for what the boots wrote", "files", len(after.Files), "findings", len(findings))
	fact := ledger.Fact(len(after.Files), findings)
	if secret := m.Target.Password; secret != "" { // a file may be called so
		fact.Output = strings.ReplaceAll(fact.Output, secret, "[redacted]")
	}
	return fact, nil
}

// list reads every file of the disk. What cannot hold files is passed over;
// what might and cannot be read is a finding.
func (j *job) list(ctx context.Context) (*ledger.Listing, map[string]string, []ledger.Finding, error) {
	reader, err := j.reader(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	stream, volumes, err := reader.Open(ctx, j.file(".qcow2"))
	if err != nil {
		return nil, nil, nil, err
	}
	defer stream.Close()
	listing, err := ledger.ReadArchive(ctx, stream, ledger.Limits{}, keepContents)
	if err != nil {
		return nil, nil, nil, err
	}
	places, err := mountPoints(listing, volumes)
	if err != nil {
		return nil, nil, nil, err
	}
	listing.Mount(places)
	return listing, places, unknownVolumes(volumes), nil
}

func unknownVolumes(volumes []sandbox.Volume) []ledger.Finding {
	var findings []ledger.Finding
	for _, v := range volumes {
		if !v.Read && !v.Harmless() {
			findings = append(findings, ledger.Finding{Kind: ledger.Unexplained, Path: v.Name, Detail: "a part of the disk that is not known"})
		}
	}
	return findings
}

// reader is the factory's, made if it must be.
func (j *job) reader(ctx context.Context) (sandbox.Reader, error) {
	reader := j.factory.Reader
	if reader.Kernel == "" {
		made, err := j.makeReader(ctx)
		if err != nil {
			return sandbox.Reader{}, err
		}
		reader.Kernel, reader.Initrd = made.Kernel, made.Initrd
	}
	reader.WorkDir, reader.Logger = j.runDir, j.log
	return reader, nil
}

// makeReader makes the reader of the archive that the image is built from.
func (j *job) makeReader(ctx context.Context) (sandbox.Reader, error) {
	archive, err := j.archive("amd64")
	if err != nil {
		return sandbox.Reader{}, err
	}
	unlock, err := j.lockCache(ctx)
	if err != nil {
		return sandbox.Reader{}, err
	}
	defer unlock()
	options, err := archive.AptOptions(ctx)
	if err != nil {
		return sandbox.Reader{}, err
	}
	return sandbox.MakeReader(ctx, j.cacheDir(), options...)
}

// mountPoints tells where the volumes belong: the root is the one that has
// /etc/fstab, which names the others by label or UUID.
func mountPoints(l *ledger.Listing, volumes []sandbox.Volume) (map[string]string, error) {
	root := ""
	var fstab []byte
	for _, v := range volumes {
		if data, ok := l.Contents["/"+v.Name+"/etc/fstab"]; ok {
			if root != "" {
				return nil, errors.New("cannot list the disk's files: two volumes look like the root")
			}
			root, fstab = v.Name, data
		}
	}
	if root == "" {
		return nil, errors.New("cannot list the disk's files: no volume has /etc/fstab")
	}
	places := map[string]string{root: "/"}
	for line := range strings.Lines(string(fstab)) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") || !filepath.IsAbs(f[1]) || f[1] != filepath.Clean(f[1]) {
			continue
		}
		key, value, _ := strings.Cut(f[0], "=")
		for _, v := range volumes {
			named := v.Read && (key == "LABEL" && value == v.Content.Label || key == "UUID" && strings.EqualFold(value, v.Content.UUID))
			if _, has := places[v.Name]; named && !has && value != "" {
				places[v.Name] = f[1]
			}
		}
	}
	return places, nil
}

func (j *job) writeFiles(l *ledger.Listing) error {
	f, err := os.Create(j.file(filesSuffix))
	if err != nil {
		return err
	}
	z := gzip.NewWriter(f)
	return errors.Join(l.WriteText(z), z.Close(), f.Close())
}

// cacheDir keeps what is made once for many images.
func (p *product) cacheDir() string { return filepath.Join(p.dir, workName, cacheName) }

// lockCache waits until no other run, of whatever image, writes to the cache.
func (p *product) lockCache(ctx context.Context) (unlock func(), err error) {
	const pause = 500 * time.Millisecond
	if err := os.MkdirAll(p.cacheDir(), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Open(p.cacheDir())
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", p.cacheDir(), err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// archive is where the image's packages come from: its mirrors, with the keys
// that its definition trusts and no others.
func (j *job) archive(arch string) (*ledger.DebianArchive, error) {
	spec := j.def.spec(j.mirrors)
	dir := filepath.Join(j.cacheDir(), "debian-"+spec.Release+"-"+arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	keyring := filepath.Join(j.runDir, "ledger.gpg")
	if err := writeKeyring(keyring, spec); err != nil {
		return nil, fmt.Errorf("cannot read the trusted keys: %w", err)
	}
	mirror := strings.TrimRight(spec.Mirrors["debian"], "/")
	security := strings.TrimRight(spec.Mirrors["debian-security"], "/")
	if security == "" {
		security = mirror + "-security"
	}
	main := []string{"main"}
	return &ledger.DebianArchive{
		Keyring: keyring, Arch: arch, Dir: dir,
		Sources: []ledger.DebianSource{
			{URL: mirror, Suite: spec.Release, Components: main},
			{URL: mirror, Suite: spec.Release + "-updates", Components: main},
			{URL: security, Suite: spec.Release + "-security", Components: main},
		},
	}, nil
}

// maxKeyFile bounds a file of trusted keys.
const maxKeyFile = 4 << 20

// writeKeyring writes the keys that the spec trusts, as apt reads them.
func writeKeyring(name string, spec builder.Spec) error {
	var out bytes.Buffer
	for _, k := range spec.TrustedKeys {
		f, err := os.Open(k.File)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(&whole{r: f, left: maxKeyFile})
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		read := openpgp.ReadKeyRing
		if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
			read = openpgp.ReadArmoredKeyRing
		}
		keys, err := read(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("%s: %w", k.File, err)
		}
		for _, key := range keys {
			if len(k.Fingerprints) > 0 && !slices.Contains(k.Fingerprints, fmt.Sprintf("%X", key.PrimaryKey.Fingerprint)) {
				continue
			}
			if err := key.Serialize(&out); err != nil {
				return fmt.Errorf("%s: %w", k.File, err)
			}
		}
	}
	return os.WriteFile(name, out.Bytes(), 0o644)
}

// fileChanges compares the ledger with that of the previous release.
func (j *job) fileChanges(previous *publish.Release) ([]byte, error) {
	now, err := os.ReadFile(j.file(filesSuffix))
	if errors.Is(err, fs.ErrNotExist) || previous == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	had, err := readRelease(previous, j.name+"-"+previous.Index.Build.String()+filesSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // an older release without
	}
	if err != nil {
		return nil, err
	}
	was, err := unzip(had)
	if err != nil {
		return nil, err
	}
	is, err := unzip(now)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = ledger.Compare(&out, was, is)
	return out.Bytes(), err
}

// maxFiles bounds the text of a ledger.
const maxFiles = 1 << 30

func unzip(data []byte) (io.Reader, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return &whole{r: z, left: maxFiles}, nil
}

var errTooLong = errors.New("it is longer than is read")

// whole reads what has at most so many bytes; the end of more is an error.
type whole struct {
	r    io.Reader
	left int64
}

func (w *whole) Read(p []byte) (int, error) {
	if int64(len(p)) > w.left+1 {
		p = p[:w.left+1]
	}
	n, err := w.r.Read(p)
	if int64(n) > w.left {
		return int(w.left), errTooLong
	}
	w.left -= int64(n)
	return n, err
}
