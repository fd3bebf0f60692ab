package signing

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

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

// SignDir writes FILE.asc for each *.qcow2 and *.config.tar.gz in dir, then
// SHA256SUMS over every file but SHA256SUMS and SHA256SUMS.asc, then the
// detached signature SHA256SUMS.asc. What is there of these is replaced, each
// by a rename; between them the directory does not verify, so sign before
// the directory gets its public name. Every entry must be a regular file with a
// printable name; anything else is an error before anything is written.
//
// It returns the digests of all files in SHA256SUMS, in its order.
func (s *Sealer) SignDir(ctx context.Context, dir string) ([]FileDigest, error) {
	files, err := s.signDir(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("cannot sign directory %s: %w", dir, err)
	}
	return files, nil
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
	names, err := filesToSeal(root)
	if err != nil {
		return nil, err
	}

	files, err := s.sealAll(ctx, root, names)
	if err != nil {
		return nil, err
	}
	sums := formatSums(files)
	packets, _, err := s.detached(ctx, SumsFile, bytes.NewReader(sums))
	if err != nil {
		return nil, err
	}
	sig, err := Armor(packets)
	if err != nil {
		return nil, err
	}
	if err := replaceFile(root, SumsFile, sums); err != nil {
		return nil, err
	}
	if err := replaceFile(root, SumsSig, sig); err != nil {
		return nil, err
	}
	return files, syncDir(root)
}

func (s *Sealer) sealAll(ctx context.Context, root *os.Root, names []string) ([]FileDigest, error) {
	results := make([][]FileDigest, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel(s.Parallel))
	for i, name := range names {
		group.Go(func() (err error) {
			results[i], err = s.seal(ctx, root, name)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var files []FileDigest
	for _, r := range results {
		files = append(files, r...)
	}
	sortByName(files)
	return files, nil
}

func parallel(n int) int {
	if n > 0 {
		return n
	}
	return min(runtime.GOMAXPROCS(0), 8)
}

// filesToSeal lists the files to read: all but those that sealing writes.
func filesToSeal(root *os.Root) ([]string, error) {
	entries, err := listDir(root)
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = true
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if name == SumsFile || name == SumsSig {
			continue
		}
		if strings.HasSuffix(name, unfinished) { // of a run that was killed
			if err := root.Remove(name); err != nil {
				return nil, err
			}
			continue
		}
		if !goodName(name) {
			return nil, &Error{File: name, Reason: BadName}
		}
		if !e.Type().IsRegular() {
			return nil, &Error{File: name, Reason: NotRegular}
		}
		if of, ok := strings.CutSuffix(name, ".asc"); ok && ownSignature(of) && there[of] {
			continue
		}
		names = append(names, name)
	}
	return names, nil
}

// seal reads the file once and returns its digests, and those of the signature
// file that it may have written.
func (s *Sealer) seal(ctx context.Context, root *os.Root, name string) ([]FileDigest, error) {
	f, err := openRegular(root, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var digest FileDigest
	var sig []byte
	if ownSignature(name) {
		sig, digest, err = s.detached(ctx, name, f)
	} else {
		digest, err = digestOf(ctx, s.digester(), name, f)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if digest.SizeBytes != before.Size() || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return nil, fmt.Errorf("%s: it changed while it was read", name)
	}
	if sig == nil {
		return []FileDigest{digest}, nil
	}
	armored, err := Armor(sig)
	if err != nil {
		return nil, err
	}
	if err := replaceFile(root, name+".asc", armored); err != nil {
		return nil, err
	}
	own, err := digestOf(ctx, s.digester(), name+".asc", bytes.NewReader(armored))
	return []FileDigest{digest, own}, err
}

func (s *Sealer) digester() *digester {
	d := newDigester(crypto.SHA256)
	if s.Digests == nil {
		d.use(crypto.SHA512)
	}
	for _, a := range s.Digests {
		d.use(a)
	}
	return d
}
