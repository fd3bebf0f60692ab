package imagefactory

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/configtar"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// inputs stands for the definition as it was given, with its defaults, and what
// it refers to, as far as the builder can tell.
func (p *product) inputs() (string, error) {
	h := sha256.New()
	data, err := MarshalDefinitions([]Definition{*p.def})
	if err != nil {
		return "", fmt.Errorf("cannot write the definition of %s: %w", p.name, err)
	}
	h.Write(data)
	if b, ok := p.builder.(builder.Digester); ok {
		var digest string
		err := contain(p.log, "builder "+p.def.Builder.Driver, "InputsDigest", func() (err error) {
			digest, err = b.InputsDigest(p.spec())
			return err
		})
		if err != nil {
			return "", fmt.Errorf("cannot read what %s is built from: %w", p.name, err)
		}
		fmt.Fprintf(h, "\n%s\n", digest)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// readInputs sets the digest, as what the definition refers to is now.
func (p *product) readInputs() (err error) {
	if p.builder != nil { // or the driver is at fault
		p.digest, err = p.inputs()
	}
	return err
}

// rebuildReadme is the first file of a configuration's archive.
const rebuildReadme = `This is everything that %[1]s was built from. The image factory's example
program builds it again from this archive, with your mirrors in place of ours:

    build rebuild -archive ARCHIVE -mirror NAME=URL OUT

The mirrors' names are those in nightly.yaml; without -mirror its URLs are used
("host" is what your machine's own package manager uses). Signatures are verified
with keyring.gpg. Where there is a create_appliance.sh, it builds the image with
nothing of the image factory: unpack the archive and see what it says at its top.
mirrors.json, where it is, says which signed indexes the mirrors had when this
image was built.
`

// writeConfig writes NAME-BUILD.config.tar.gz: a definition file with the
// builder's inputs beside it. The same inputs give the same bytes: entries are
// sorted, carry no times or owners, and are stored without compression, since
// a compressor's output changes with its version.
func (j *job) writeConfig(dir *os.Root, config any) (err error) {
	d := *j.def
	d.Builder = Component{Driver: d.Builder.Driver, Config: config}
	d.TrustedKeys = nil
	if _, err := dir.Lstat(keyringName); err == nil {
		d.TrustedKeys = []TrustedKey{{File: keyringName}}
	}
	// Where and when this factory publishes concerns nobody else.
	d.Publish, d.Staging, d.Gate, d.Renewal = nil, nil, d.Gate.ofImage(), Renewal{}
	var definition []byte
	err = contain(j.log, "builder "+d.Builder.Driver, "Result.Config", func() (err error) {
		definition, err = MarshalDefinitions([]Definition{d})
		return err
	})
	if err != nil {
		return err
	}
	f, err := createNew(j.file(".config.tar.gz"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewWriterLevel(f, gzip.NoCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	state, err := j.stateText()
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{"README", fmt.Appendf(nil, rebuildReadme, j.name)}, {configtar.Mirrors, state}, {"nightly.yaml", definition}} {
		if file.data == nil {
			continue
		}
		if _, err := dir.Lstat(file.name); err == nil {
			return fmt.Errorf("the builder's configuration has a %s, which is the archive's own", file.name)
		}
		if err := addFile(t, file.name, 0o644, int64(len(file.data)), bytes.NewReader(file.data)); err != nil {
			return err
		}
	}
	if err := addTree(t, dir); err != nil {
		return err
	}
	return errors.Join(t.Close(), z.Close())
}

// keyringName is the file of a builder's configuration that holds the trusted
// keys.
const keyringName = "keyring.gpg"

func addTree(t *tar.Writer, root *os.Root) error {
	// WalkDir walks in lexical order.
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if d.Type() == fs.ModeSymlink {
			target, err := root.Readlink(name)
			if err != nil {
				return err
			}
			return t.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, Format: tar.FormatUSTAR})
		}
		// Without O_NONBLOCK, a named pipe would wait for its writer.
		f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", name)
		}
		mode := int64(0o644)
		if st.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return addFile(t, name, mode, st.Size(), f)
	})
}

func addFile(t *tar.Writer, name string, mode, size int64, r io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, Format: tar.FormatUSTAR}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.CopyN(t, r, size)
	return err
}

// sealedFiles are the files of the run that are released, beside those that are
// made for the release.
func (j *job) sealedFiles() []string {
	files := slices.Clone(builtFiles)
	for _, suffix := range slices.Sorted(maps.Keys(j.journal.stage(StageTest).Outputs)) {
		if suffix != inventorySuffix {
			files = append(files, suffix)
		}
	}
	return append(files, ".changes")
}

// runSeal makes the release directory beside its place, signs and syncs it,
// and renames it there.
func (j *job) runSeal(ctx context.Context, r *record) error {
	tests, err := j.tests()
	if err != nil {
		return err
	}
	j.report.Checks = tests.Summary
	previous, err := j.previous(ctx)
	if err != nil {
		return err
	}
	packages, err := j.packageList()
	if err != nil {
		return fmt.Errorf("cannot list the packages: %w", err)
	}
	if err := j.writeChanges(previous, packages); err != nil {
		return fmt.Errorf("cannot write the list of changes: %w", err)
	}
	parent := j.sealedDir()
	staging := filepath.Join(j.runDir, "release")
	sealed := filepath.Join(parent, j.build.String())
	if err := errors.Join(os.RemoveAll(staging), os.RemoveAll(sealed), os.MkdirAll(parent, 0o755), os.Mkdir(staging, 0o755)); err != nil {
		return err
	}
	if err := j.stageRelease(ctx, staging, packages, tests); err != nil {
		return err
	}
	if err := syncTree(staging); err != nil {
		return err
	}
	sums, err := digestFile(ctx, filepath.Join(staging, sumsName))
	if err != nil {
		return err
	}
	r.Outputs[sumsName] = sums.SHA256
	if err := os.Rename(staging, sealed); err != nil {
		return err
	}
	return syncDir(parent)
}

// sumsName is the file of a release that has the digests of all others.
const sumsName = "SHA256SUMS"

// stageRelease makes the release in a directory.
func (j *job) stageRelease(ctx context.Context, staging string, packages []byte, tests *testsuite.Report) error {
	digests := map[string]signing.FileDigest{}
	digest := func(suffix string) error {
		d, err := digestFile(ctx, filepath.Join(staging, filepath.Base(j.file(suffix))))
		if err != nil {
			return err
		}
		digests[suffix] = *d
		return nil
	}
	for _, suffix := range j.sealedFiles() {
		name := filepath.Join(staging, filepath.Base(j.file(suffix)))
		var err error
		if suffix == ".packages" {
			err = os.WriteFile(name, packages, 0o644)
		} else {
			err = os.Link(j.file(suffix), name) // so that a run that is cut here can be taken up
		}
		if err != nil {
			return err
		}
		if err := digest(suffix); err != nil {
			return err
		}
	}
	if digests[".qcow2"].SHA256 != j.journal.output(StageBuild, ".qcow2") {
		return errors.New("the image changed after it was inspected")
	}
	bill, err := j.writeSBOM(ctx, staging)
	if err != nil {
		return err
	}
	accepted, err := j.writeVEX(ctx, staging, digests[".qcow2"])
	if err != nil {
		return fmt.Errorf("cannot write what is accepted: %w", err)
	}
	for _, suffix := range append(bill, accepted...) {
		if err := digest(suffix); err != nil {
			return err
		}
	}
	if err := j.writeIndex(staging, digests, tests); err != nil {
		return err
	}
	return contain(j.log, "signer", "", func() error {
		if err := j.writeProvenance(ctx, staging, digests, tests); err != nil {
			return fmt.Errorf("cannot write the provenance: %w", err)
		}
		_, err := signing.SignDir(ctx, staging, j.signer)
		return err
	})
}

func (j *job) writeIndex(dir string, digests map[string]signing.FileDigest, tests *testsuite.Report) error {
	properties, err := j.def.properties()
	if err != nil {
		return err
	}
	index := &publish.Index{
		Image: j.name, Build: j.build, DefinitionSHA256: j.digest, Properties: properties,
		MinDiskGiB: j.def.MinDiskBytes.CeilGiB(), Tests: publish.Tests(tests.Summary),
	}
	for _, suffix := range slices.Sorted(maps.Keys(digests)) {
		d := digests[suffix]
		index.Files = append(index.Files, publish.File{Name: d.Name, SizeBytes: d.SizeBytes, SHA256: d.SHA256})
	}
	if j.def.Capabilities != 0 {
		index.Capabilities = j.def.Capabilities.Hex()
	}
	f, err := os.Create(filepath.Join(dir, publish.IndexName))
	if err != nil {
		return err
	}
	return errors.Join(publish.WriteIndex(f, index), f.Close())
}

// writeChanges compares the packages with those of the previous release: a
// line "-name version arch" for each that went and "+name version arch" for
// each that came, an update being both. Without a previous release all came.
func (j *job) writeChanges(previous *publish.Release, have []byte) error {
	var had []byte
	if previous != nil {
		var err error
		if had, err = readRelease(previous, j.name+"-"+previous.Index.Build.String()+".packages"); err != nil {
			return err
		}
	}
	files, err := j.fileChanges(previous)
	if err != nil {
		return err
	}
	// As a new file: the old one may be the same as that of a release (os.Link).
	return writeFile(j.file(".changes"), write(append(packageChanges(had, have), files...)))
}

func packageChanges(had, have []byte) []byte {
	type line struct{ text, sign string }
	set := func(data []byte) map[string]bool {
		m := map[string]bool{}
		for l := range strings.Lines(string(data)) {
			m[strings.TrimSuffix(l, "\n")] = true
		}
		return m
	}
	old, now := set(had), set(have)
	var lines []line
	for l := range old {
		if !now[l] {
			lines = append(lines, line{l, "-"})
		}
	}
	for l := range now {
		if !old[l] {
			lines = append(lines, line{l, "+"})
		}
	}
	// By name, what went before what came.
	slices.SortFunc(lines, func(a, b line) int {
		an, _, _ := strings.Cut(a.text, " ")
		bn, _, _ := strings.Cut(b.text, " ")
		if c := strings.Compare(an, bn); c != 0 {
			return c
		}
		if c := strings.Compare(b.sign, a.sign); c != 0 {
			return c
		}
		return strings.Compare(a.text, b.text)
	})
	var out bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&out, "%s%s\n", l.sign, l.text)
	}
	return out.Bytes()
}

// readRelease reads a small file of a verified release.
func readRelease(r *publish.Release, name string) ([]byte, error) {
	const most = 64 << 20
	f, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(data) > most {
		err = fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return data, err
}

// sameFile compares a file of a release with a local one.
func sameFile(r *publish.Release, build publish.BuildID, image, suffix, local string) (bool, error) {
	have, err := os.ReadFile(local)
	if err != nil {
		return false, err
	}
	name := image + "-" + build.String() + suffix
	for _, f := range r.Files {
		if f.Name == name {
			sum := sha256.Sum256(have)
			return f.SHA256 == hex.EncodeToString(sum[:]), nil
		}
	}
	return false, nil
}

// digestFile reads a file, and writes it to more as it goes.
func digestFile(ctx context.Context, name string, more ...io.Writer) (*signing.FileDigest, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(append(more, h)...), readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return f.Read(p)
	}))
	if err != nil {
		return nil, err
	}
	return &signing.FileDigest{Name: filepath.Base(name), SizeBytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// syncTree makes a directory of files durable.
func syncTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := syncDir(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// syncDir makes a directory, or a file, durable.
func syncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
