package signing

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Sealer signs release directories. The zero value of each field but Signers is
// usable. It may be used concurrently, for different directories.
type Sealer struct {
	// Signers make the signatures, each file's all in one pass.
	Signers []*Signer

	// Digests to compute besides SHA-256: crypto.SHA512, crypto.MD5. If nil,
	// SHA-512; if empty but not nil, none.
	Digests []crypto.Hash

	// Parallel is how many files are read at once; if zero, as many as there
	// are processors, but at most 8. Each takes 2 MiB of memory.
	Parallel int

	step func(what string) error // see stage
}

// SignDir seals a release directory with the given signers and the defaults of
// [Sealer].
func SignDir(ctx context.Context, dir string, signers ...*Signer) ([]FileDigest, error) {
	return (&Sealer{Signers: signers}).SignDir(ctx, dir)
}

// ownSignature says whether a file of a release has a signature of its own.
func ownSignature(name string) bool {
	return strings.HasSuffix(name, ".qcow2") || strings.HasSuffix(name, ".config.tar.gz")
}

// SignDir writes FILE.asc for each *.qcow2 and *.config.tar.gz in dir,
// SHA256SUMS over every file but SHA256SUMS and SHA256SUMS.asc, and the detached
// signature SHA256SUMS.asc. What is there of these is replaced. Every entry must
// be a regular file with a printable name.
//
// It is an error, and nothing has changed, if anything of it fails or if
// [VerifyDir] would not find all good: everything is signed, written under other
// names, and read back before the first file is renamed, and renames are undone
// where one fails. A process that is killed between the renames leaves a
// directory that does not verify; the next SignDir puts it right. Nobody else
// may write to the directory meanwhile.
//
// It returns the digests of all files in SHA256SUMS, in its order.
func (s *Sealer) SignDir(ctx context.Context, dir string) ([]FileDigest, error) {
	files, err := s.signDir(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("cannot sign directory %s: %w", dir, err)
	}
	return files, nil
}

// sealing is a directory that is being sealed.
type sealing struct {
	*Sealer
	root  *os.Root
	there map[string]bool
	back  *Verifier // with the signers' keys
}

// sealed is a file that was read, and its signature if it has one.
type sealed struct {
	FileDigest
	info fs.FileInfo
	asc  []byte
}

// changed says whether the file is another than the one that was read.
func (s *sealed) changed(now fs.FileInfo) bool {
	return !os.SameFile(s.info, now) || now.Size() != s.SizeBytes || !now.ModTime().Equal(s.info.ModTime())
}

func (s *Sealer) signDir(ctx context.Context, dir string) ([]FileDigest, error) {
	if len(s.Signers) == 0 {
		return nil, errors.New("there is no signer")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	d := &sealing{Sealer: s, root: root}
	if d.back, err = s.readBack(); err != nil {
		return nil, err
	}
	names, left, err := d.list()
	if err != nil {
		return nil, err
	}
	all, err := d.sealAll(ctx, names)
	if err != nil {
		return nil, err
	}
	files, outputs, err := d.summarize(ctx, all)
	if err != nil {
		return nil, err
	}
	if err := d.unchanged(names, all); err != nil {
		return nil, err
	}
	st := &stage{root: root, step: s.step}
	for _, name := range left {
		if err := st.remove(name); err != nil {
			return nil, err
		}
	}
	return files, st.replace(ctx, outputs...)
}

// unchanged says that the directory is as it was read, just before it counts.
func (d *sealing) unchanged(names []string, all []sealed) error {
	now, _, err := d.list()
	if err != nil {
		return err
	}
	if !slices.Equal(names, now) {
		return errors.New("files came or went while it was signed")
	}
	for i := range all {
		info, err := d.root.Lstat(all[i].Name)
		if err != nil {
			return err
		}
		if all[i].changed(info) {
			return fmt.Errorf("%s: it changed while the directory was signed", all[i].Name)
		}
	}
	return nil
}

// readBack returns a verifier with the keys and the time of the signers.
func (s *Sealer) readBack() (*Verifier, error) {
	var keys []*Key
	for _, signer := range s.Signers {
		if err := signer.ready(); err != nil {
			return nil, err
		}
		keys = append(keys, signer.key)
	}
	ring, err := PinKeys(keys...)
	if err != nil {
		return nil, err
	}
	latest := func() (t time.Time) {
		for _, signer := range s.Signers {
			if now := signer.cfg.Now(); now.After(t) {
				t = now
			}
		}
		return t
	}
	return &Verifier{Keyring: ring, Time: latest, Digests: s.digests()}, nil
}

// list returns the files to read, which are all but those that sealing writes,
// and what a killed run left.
func (d *sealing) list() (names, left []string, err error) {
	entries, err := listDir(d.root)
	if err != nil {
		return nil, nil, err
	}
	d.there = map[string]bool{}
	for _, e := range entries {
		d.there[e.Name()] = true
	}
	after := 2 // entries that there will be: SHA256SUMS and its signature
	for _, e := range entries {
		name := e.Name()
		if isUnfinished(name) {
			left = append(left, name)
			continue
		}
		if !e.Type().IsRegular() {
			return nil, nil, &Error{File: name, Reason: NotRegular}
		}
		if name == SumsFile || name == SumsSig {
			continue
		}
		if !goodName(name) {
			return nil, nil, &Error{File: name, Reason: BadName}
		}
		if of, ok := strings.CutSuffix(name, ".asc"); ok && ownSignature(of) && d.there[of] {
			continue
		}
		names = append(names, name)
		after++
		if ownSignature(name) {
			if after++; !goodName(name + ".asc") {
				return nil, nil, &Error{File: name, Reason: BadName, Detail: "it is too long for a signature beside it"}
			}
		}
	}
	if after > maxDirEntries {
		return nil, nil, fmt.Errorf("it would have %d entries, more than %d", after, maxDirEntries)
	}
	return names, left, nil
}

func (d *sealing) sealAll(ctx context.Context, names []string) ([]sealed, error) {
	results := make([]sealed, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel(d.Parallel))
	for i, name := range names {
		group.Go(func() (err error) {
			if results[i], err = d.seal(ctx, name); err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			return err
		})
	}
	return results, group.Wait()
}

func parallel(n int) int {
	if n > 0 {
		return n
	}
	return min(runtime.GOMAXPROCS(0), 8)
}

// seal reads the file once.
func (d *sealing) seal(ctx context.Context, name string) (s sealed, err error) {
	f, err := openRegular(d.root, name)
	if err != nil {
		return s, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return s, err
	}
	switch {
	case ownSignature(name):
		s.asc, s.FileDigest, err = d.armored(ctx, name, f)
	case d.there[name+".asc"]:
		s.FileDigest, err = d.bystander(ctx, name, f)
	default:
		s.FileDigest, err = digestOf(ctx, d.digester(), name, f)
	}
	if err != nil {
		return s, err
	}
	s.info = info
	after, err := f.Stat()
	if err == nil && s.changed(after) {
		err = errors.New("it changed while it was read")
	}
	return s, err
}

// bystander reads a file that has a signature which sealing does not write: it
// may be of another key, but it must be one of this file.
func (d *sealing) bystander(ctx context.Context, name string, f io.Reader) (FileDigest, error) {
	sig, err := readSmall(d.root, name+".asc", maxSignatureFile)
	if err != nil { // it is not taken for a signature then
		return digestOf(ctx, d.digester(), name, f)
	}
	result := d.back.check(ctx, name, f, sig)
	if ctx.Err() != nil {
		return FileDigest{}, ctx.Err()
	}
	if result.Status != Good && result.Reason != UnknownKey {
		return FileDigest{}, fmt.Errorf("the signature beside it is not good (remove it, or sign the file anew): %w", result.err())
	}
	return result.FileDigest, nil
}

// summarize returns the digests of all files there will be, and the files that
// sealing writes, which were read back.
func (d *sealing) summarize(ctx context.Context, all []sealed) ([]FileDigest, []output, error) {
	var files []FileDigest
	var outputs []output
	for _, s := range all {
		files = append(files, s.FileDigest)
		if s.asc == nil {
			continue
		}
		name := s.Name + ".asc"
		asc, err := digestOf(ctx, d.digester(), name, bytes.NewReader(s.asc))
		if err != nil {
			return nil, nil, err
		}
		files = append(files, asc)
		outputs = append(outputs, output{name: name, data: s.asc, mode: 0o644})
	}
	sortByName(files)
	sums := formatSums(files)
	sig, _, err := d.armored(ctx, SumsFile, bytes.NewReader(sums))
	if err != nil {
		return nil, nil, err
	}
	if err := d.verify(ctx, files, sums, sig); err != nil {
		return nil, nil, fmt.Errorf("it would not verify: %w", err)
	}
	outputs = append(outputs,
		output{name: SumsFile, data: sums, mode: 0o644},
		output{name: SumsSig, data: sig, mode: 0o644}) // the last: it makes the rest count
	return files, outputs, nil
}

// verify reads back what is to be written as VerifyDir does.
func (d *sealing) verify(ctx context.Context, files []FileDigest, sums, sig []byte) error {
	result := d.back.check(ctx, SumsFile, bytes.NewReader(sums), sig)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := result.err(); err != nil {
		return err
	}
	entries, err := parseSums(sums, false)
	if err != nil {
		return err
	}
	if len(entries) != len(files) {
		return fmt.Errorf("%s lists %d files, not %d", SumsFile, len(entries), len(files))
	}
	found := make([]File, len(files))
	for i, e := range entries {
		if e.bad != "" || e.name != files[i].Name || e.sha256 != files[i].SHA256 {
			return &Error{File: files[i].Name, Reason: cmp.Or(e.bad, DigestDiffers)}
		}
		found[i] = File{FileDigest: files[i], Status: Good}
	}
	d.back.checkProvenance(ctx, d.root, found, nil)
	for i := range found {
		if found[i].Status != Good && found[i].Reason != UnknownKey {
			return found[i].err()
		}
	}
	return ctx.Err()
}

func (s *Sealer) digests() []crypto.Hash {
	if s.Digests == nil {
		return []crypto.Hash{crypto.SHA512}
	}
	return s.Digests
}

func (s *Sealer) digester() *digester {
	return newDigester(append([]crypto.Hash{crypto.SHA256}, s.digests()...)...)
}
