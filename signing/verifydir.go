package signing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// VerifyDir verifies a release directory with the defaults of [Verifier].
func VerifyDir(ctx context.Context, dir string, keyring *Keyring) (*Verification, error) {
	return (&Verifier{Keyring: keyring}).VerifyDir(ctx, dir)
}

// release is a directory that is being verified.
type release struct {
	v      *Verifier
	root   *os.Root
	there  map[string]fs.DirEntry
	sums   File
	listed map[string]string // SHA-256 by name; of all files there are, if SHA256SUMS is not good
}

// VerifyDir verifies a release directory: the signature of SHA256SUMS, then
// each file in parallel, in one read each, against SHA256SUMS and against
// FILE.asc if that is listed too. Files that are missing or extra, links and
// names with a path are findings; nothing outside dir is opened.
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
	r := &release{v: v, root: root, there: map[string]fs.DirEntry{}, listed: map[string]string{}}
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
	files := []File{r.sums}
	var jobs []job
	names := map[string]bool{SumsFile: true, SumsSig: true}
	for _, e := range listed {
		if e.bad != "" {
			f := File{FileDigest: FileDigest{Name: e.name}}
			f.fail(Bad, e.bad, "in "+SumsFile)
			files = append(files, f)
			continue
		}
		names[e.name] = true
		jobs = append(jobs, job{name: e.name, sha256: e.sha256})
	}
	for _, e := range entries {
		if !names[e.Name()] {
			jobs = append(jobs, job{name: e.Name()})
		}
	}
	for _, j := range jobs {
		r.listed[j.name] = j.sha256
	}
	results, err := r.files(ctx, jobs)
	r.v.checkProvenance(ctx, r.root, results)
	return append(files, results...), err
}

func (r *release) files(ctx context.Context, jobs []job) ([]File, error) {
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

// job is a file to verify. Without a digest it is not listed in SHA256SUMS.
type job struct {
	name, sha256 string
}

// readSums verifies SHA256SUMS into r.sums and returns what it lists, if it is
// good.
func (r *release) readSums(ctx context.Context) []sumEntry {
	r.sums.Name = SumsFile
	data, err := readSmall(r.root, SumsFile, maxSumsFile)
	if err != nil {
		r.sums.fail(statusAndReason(err))
		return nil
	}
	sig, err := readSmall(r.root, SumsSig, maxCleartext)
	if err != nil {
		status, reason, detail := statusAndReason(err)
		if reason == FileMissing {
			reason = NoSignature
		}
		r.sums.fail(status, reason, strings.TrimSpace(SumsSig+" "+detail))
		return nil
	}
	r.sums = r.v.check(ctx, SumsFile, bytes.NewReader(data), sig)
	entries, err := parseSums(data)
	if err != nil && r.sums.Status == Good {
		r.sums.fail(Bad, Malformed, err.Error())
	}
	if r.sums.Status != Good {
		return nil
	}
	return entries
}

func statusAndReason(err error) (Status, Reason, string) {
	var reason Reason
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Missing, FileMissing, ""
	case errors.As(err, &reason):
		return Bad, reason, ""
	}
	return Bad, Unreadable, err.Error()
}

// ownSignatureOf returns the contents of FILE.asc if it counts: if SHA256SUMS
// lists it with the digest that it has or, where SHA256SUMS is not good, in any
// case. A damaged FILE.asc is a finding of its own and none about FILE.
func (r *release) ownSignatureOf(name string) []byte {
	want, listed := r.listed[name+".asc"]
	if !listed {
		return nil
	}
	data, err := readSmall(r.root, name+".asc", maxSignatureFile)
	if err != nil {
		return nil
	}
	if sum := sha256.Sum256(data); r.sums.Status == Good && hex.EncodeToString(sum[:]) != want {
		return nil
	}
	return data
}

// file reads one file once and judges it.
func (r *release) file(ctx context.Context, j job) File {
	f := File{FileDigest: FileDigest{Name: j.name}}
	if j.sha256 == "" && r.sums.Status == Good {
		f.fail(Extra, FileExtra, "")
		if e := r.there[j.name]; e != nil && !e.Type().IsRegular() {
			f.Detail = string(NotRegular)
		}
		return f
	}
	file, err := openRegular(r.root, j.name)
	if err != nil {
		f.fail(statusAndReason(err))
		return f
	}
	defer file.Close()
	sig := r.ownSignatureOf(j.name)
	if sig != nil {
		f = r.v.check(ctx, j.name, file, sig)
	} else if j.sha256 != "" {
		digest, err := digestOf(ctx, r.v.digester(), j.name, file)
		if err != nil {
			f.fail(Bad, Unreadable, err.Error())
			return f
		}
		f.FileDigest, f.Status = digest, Good
	}
	switch {
	case j.sha256 == "" && sig == nil:
		f.fail(Untrusted, NotVouchedFor, "")
	case j.sha256 != "" && f.SHA256 != j.sha256:
		f.fail(Bad, DigestDiffers, "")
	}
	if j.sha256 != "" && f.Fingerprint == "" {
		f.Fingerprint, f.SignedAt = r.sums.Fingerprint, r.sums.SignedAt
	}
	return f
}
