package signing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// VerifyDir verifies a release directory with the defaults of [Verifier].
func VerifyDir(ctx context.Context, dir string, keyring *Keyring) (*Verification, error) {
	return (&Verifier{Keyring: keyring}).VerifyDir(ctx, dir)
}

// sigSuffixes are what upstreams put after a file's name for that of its
// signature, the preferred first.
var sigSuffixes = []string{".asc", ".sig", ".gpg", ".sign"}

// release is a directory that is being verified.
type release struct {
	v      *Verifier
	root   *os.Root
	there  map[string]fs.DirEntry
	sums   File
	sig    string              // the name of its signature file
	listed map[string]sumEntry // of all files there are, if the checksum file is not good
}

// VerifyDir verifies a release directory: the signature of SHA256SUMS, then
// each file in parallel, in one read each, against SHA256SUMS and against
// FILE.asc if that is listed too. Files that are missing or extra, links and
// names with a path are findings; nothing outside dir is opened. The signature
// is SHA256SUMS.asc, .sig, .gpg or .sign, the first that is there, or a cleartext
// one in SHA256SUMS itself.
//
// Where something in the directory is wrong both results are set, and the error
// joins an [Error] for each finding. Where the directory cannot be read, or ctx
// is cancelled, the result is nil.
func (v *Verifier) VerifyDir(ctx context.Context, dir string) (*Verification, error) {
	if v.Keyring == nil {
		return nil, fmt.Errorf("cannot verify directory %s: there is no keyring", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot verify directory %s: %w", dir, err)
	}
	defer root.Close()
	r := &release{v: v, root: root, there: map[string]fs.DirEntry{}, listed: map[string]sumEntry{}}
	files, err := r.verify(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot verify directory %s: %w", dir, err)
	}
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	result := &Verification{Files: files}
	return result, result.Err()
}

func (r *release) verify(ctx context.Context) ([]File, error) {
	entries, err := listDir(r.root)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		r.there[e.Name()] = e
	}
	listed := r.readSums(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	files, jobs := refused(listed)
	names := map[string]bool{SumsFile: true, r.sig: true}
	for _, e := range listed {
		if e.bad == "" {
			names[e.name] = true
		}
	}
	for _, e := range entries {
		if !names[e.Name()] {
			jobs = append(jobs, sumEntry{name: e.Name(), bad: FileExtra})
		}
	}
	for _, j := range jobs {
		r.listed[j.name] = j
	}
	results, err := r.files(ctx, jobs)
	r.v.checkProvenance(ctx, r.root, results, r.listed)
	return r.join(files, results), err
}

// refused returns what cannot be opened, and what is to be verified.
func refused(listed []sumEntry) (files []File, jobs []sumEntry) {
	for _, e := range listed {
		if e.bad == "" {
			jobs = append(jobs, e)
			continue
		}
		f := File{FileDigest: FileDigest{Name: e.name}}
		f.fail(Bad, e.bad, "in the checksum file")
		files = append(files, f)
	}
	return files, jobs
}

// join returns all findings, without files that may be missing. One must be
// there.
func (r *release) join(files, results []File) []File {
	verified := 0
	for _, f := range results {
		if f.Reason == FileMissing && r.v.IgnoreMissing {
			continue
		}
		verified++
		files = append(files, f)
	}
	if verified == 0 && len(files) == 0 && r.sums.Status == Good {
		r.sums.fail(Missing, FileMissing, "none of the files that it lists is there")
	}
	return append([]File{r.sums}, files...)
}

func (r *release) files(ctx context.Context, jobs []sumEntry) ([]File, error) {
	results := make([]File, len(jobs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel(r.v.Parallel))
	for i, j := range jobs {
		group.Go(func() error {
			results[i] = r.file(ctx, j)
			return ctx.Err()
		})
	}
	return results, group.Wait()
}

// readSums verifies SHA256SUMS into r.sums and returns what it lists, if it is
// good.
func (r *release) readSums(ctx context.Context) []sumEntry {
	r.sums.Name, r.sig = SumsFile, SumsSig
	data, err := readSmall(r.root, SumsFile, maxCleartext)
	if err != nil {
		r.sums.fail(statusAndReason(err))
		return nil
	}
	var sig []byte
	for _, suffix := range sigSuffixes {
		if r.there[SumsFile+suffix] != nil {
			r.sig = SumsFile + suffix
			break
		}
	}
	if r.there[r.sig] != nil || !isCleartext(data) {
		if sig, err = readSmall(r.root, r.sig, maxCleartext); err != nil {
			r.noSignature(err)
			return nil
		}
	}
	return r.checkSums(ctx, data, sig, false)
}

func (r *release) noSignature(err error) {
	status, reason, detail := statusAndReason(err)
	if reason == FileMissing {
		reason = NoSignature
	}
	r.sums.fail(status, reason, strings.TrimSpace(r.sig+" "+detail))
}

// checkSums judges a checksum file, which is its own signature if sig is nil.
func (r *release) checkSums(ctx context.Context, data, sig []byte, nested bool) []sumEntry {
	name := r.sums.Name
	if sig == nil {
		data, r.sums = r.v.checkWhole(ctx, name, data)
	} else {
		r.sums = r.v.check(ctx, name, bytes.NewReader(data), sig)
	}
	if r.sums.Status != Good {
		return nil
	}
	entries, err := parseSums(data, nested)
	if err != nil {
		r.sums.fail(Bad, Malformed, err.Error())
		return nil
	}
	return entries
}

// Checksums judges a checksum file as upstreams publish it and the files beside
// it that it lists: those with the given names, or else all. signature is the
// path of its detached signature; if empty, that is the file beside it with .asc,
// .sig, .gpg or .sign after its name, or a cleartext signature in the file
// itself. Other files beside it are not looked at.
//
// The checksum file may hold GNU and BSD lines, comments and blank lines, and
// names of files in directories below it. SHA-256 and SHA-512 count; a file that
// is listed with other algorithms alone is [WeakHash] or [Unsupported]. The
// results are those of [Verifier.VerifyDir].
func (v *Verifier) Checksums(ctx context.Context, path, signature string, names ...string) (*Verification, error) {
	if v.Keyring == nil {
		return nil, fmt.Errorf("cannot verify %s: there is no keyring", path)
	}
	dir, name := filepath.Split(path)
	root, err := os.OpenRoot(filepath.Clean(dir + "."))
	if err != nil {
		return nil, fmt.Errorf("cannot verify %s: %w", path, err)
	}
	defer root.Close()
	r := &release{v: v, root: root, listed: map[string]sumEntry{}}
	r.sums.Name = name
	files, err := r.checksums(ctx, path, signature, names)
	if err != nil {
		return nil, fmt.Errorf("cannot verify %s: %w", path, err)
	}
	result := &Verification{Files: files}
	return result, result.Err()
}

func (r *release) checksums(ctx context.Context, path, signature string, names []string) ([]File, error) {
	data, err := readFile(path, maxCleartext)
	if err != nil {
		return nil, err
	}
	sig, err := signatureFor(path, signature, isCleartext(data))
	if errors.Is(err, NoSignature) {
		r.sums.fail(Bad, NoSignature, noSignatureBeside)
		return []File{r.sums}, nil
	}
	if err != nil {
		return nil, err
	}
	listed := r.checkSums(ctx, data, sig, true)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if r.sums.Status == Good && len(names) > 0 {
		listed = choose(listed, names)
	}
	files, jobs := refused(listed)
	results, err := r.files(ctx, jobs)
	return r.join(files, results), err
}

// choose returns the entries with the given names.
func choose(listed []sumEntry, names []string) []sumEntry {
	byName := map[string]sumEntry{}
	for _, e := range listed {
		byName[e.name] = e
	}
	var chosen []sumEntry
	for _, name := range names {
		name = strings.TrimPrefix(name, "./")
		e, ok := byName[name]
		if !ok {
			e = sumEntry{name: name, bad: FileExtra}
		}
		chosen = append(chosen, e)
	}
	return chosen
}

const noSignatureBeside = "there is none beside it (.asc, .sig, .gpg, .sign) and none in it"

// signatureFor reads the signature at the path or, where that is empty, the one
// beside the file. It is nil if the file has its own.
func signatureFor(path, signature string, own bool) ([]byte, error) {
	if signature != "" {
		f, err := os.Open(signature) // which may be a pipe
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readBounded(f, maxCleartext)
	}
	for _, suffix := range sigSuffixes {
		sig, err := readFile(path+suffix, maxCleartext)
		if !errors.Is(err, fs.ErrNotExist) {
			return sig, err
		}
	}
	if !own {
		return nil, NoSignature
	}
	return nil, nil
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readBounded(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

func statusAndReason(err error) (Status, Reason, string) {
	var reason Reason
	var size sizeError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Missing, FileMissing, ""
	case errors.As(err, &reason):
		return Bad, reason, ""
	case errors.As(err, &size):
		return Bad, Malformed, err.Error()
	}
	return Bad, Unreadable, err.Error()
}

// ownSignatureOf returns the contents of FILE.asc if it counts: if SHA256SUMS
// lists it with the digest that it has or, where SHA256SUMS is not good, in any
// case. A damaged FILE.asc is a finding of its own and none about FILE.
func (r *release) ownSignatureOf(ctx context.Context, name string) []byte {
	want, listed := r.listed[name+".asc"]
	if !listed {
		return nil
	}
	data, err := readSmall(r.root, name+".asc", maxSignatureFile)
	if err != nil {
		return nil
	}
	digest, err := digestOf(ctx, want.digester(), name, bytes.NewReader(data))
	if err != nil || r.sums.Status == Good && !want.fits(digest) {
		return nil
	}
	return data
}

// file reads one file once and judges it.
func (r *release) file(ctx context.Context, e sumEntry) File {
	f := File{FileDigest: FileDigest{Name: e.name}}
	if e.bad == FileExtra && r.sums.Status == Good {
		f.fail(Extra, FileExtra, "")
		if there := r.there[e.name]; there != nil && !there.Type().IsRegular() {
			f.Detail = string(NotRegular)
		} else if isUnfinished(e.name) {
			f.Detail = "a signing that was cut off left it: sign again"
		}
		return f
	}
	file, err := openRegular(r.root, e.name)
	if err != nil {
		f.fail(statusAndReason(err))
		if f.Reason == FileMissing {
			f.Detail = r.list()
		}
		return f
	}
	defer file.Close()
	sig := r.ownSignatureOf(ctx, e.name)
	v := *r.v
	v.Digests = slices.Concat(v.Digests, e.algorithms())
	if sig != nil {
		f = v.check(ctx, e.name, file, sig)
	} else if e.bad == "" {
		digest, err := digestOf(ctx, v.digester(), e.name, file)
		if err != nil {
			f.fail(Bad, Unreadable, err.Error())
			return f
		}
		f.FileDigest, f.Status = digest, Good
	}
	r.compare(&f, e, sig != nil)
	return f
}

// list says which checksum file is meant where that is not SHA256SUMS.
func (r *release) list() string {
	if r.sums.Name == SumsFile {
		return ""
	}
	return "the checksum file is " + printable(r.sums.Name)
}

// compare judges a file that was read by what is listed.
func (r *release) compare(f *File, e sumEntry, hasSignature bool) {
	switch {
	case e.bad != "" && !hasSignature:
		f.fail(Untrusted, NotVouchedFor, "")
	case e.bad != "" || f.Reason == Unreadable:
	case !e.counted() && !hasSignature:
		reason := Unsupported
		if e.other == "MD5" || e.other == "SHA1" {
			reason = WeakHash
		}
		f.fail(Untrusted, reason, "it is listed without SHA-256 and SHA-512")
	case e.counted() && !e.fits(f.FileDigest):
		f.fail(Bad, DigestDiffers, r.list())
	}
	if e.bad == "" && f.Fingerprint == "" {
		f.Fingerprint, f.SignedAt = r.sums.Fingerprint, r.sums.SignedAt
	}
}
