package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// A Release is a release directory whose signatures and content Open has
// verified. It is not changed after that and may be used concurrently.
type Release struct {
	// Dir is the directory's absolute path, IMAGE/BUILD at its end.
	Dir string
	// Index is the content of release.json.
	Index Index
	// Files are all files of the release, sorted by name: those that
	// SHA256SUMS lists, SHA256SUMS and its signature. What else lies in the
	// directory is not part of the release.
	Files []File
	// Digest is the SHA-256 of SHA256SUMS in lower-case hexadecimal, which
	// stands for the content of the whole release.
	Digest string

	// Signatures says who signed the release and when.
	Signatures *signing.Verification

	verified bool // by Open
}

// Open verifies the release directory IMAGE/BUILD with [signing.VerifyDir] and
// reads its index. What is wrong is a [signing.Error] where VerifyDir finds it,
// a [WrongReleaseError] if release.json names another image or build than the
// directory does, and another error if release.json is missing, not valid, or
// lists a file otherwise than SHA256SUMS. Nothing of the directory is used
// before all that is known.
//
// dir may also be a label, such as IMAGE/latest: a symbolic link to a release
// beside it.
func Open(ctx context.Context, dir string, keyring *signing.Keyring) (*Release, error) {
	r, err := open(ctx, dir, keyring)
	if err != nil {
		return nil, fmt.Errorf("cannot open release %s: %w", dir, err)
	}
	return r, nil
}

func open(ctx context.Context, dir string, keyring *signing.Keyring) (*Release, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// The names that count are those in the path that the caller asked for:
	// no link may lead from them to another image's release.
	build, err := ParseBuildID(filepath.Base(dir))
	if to, linkErr := os.Readlink(dir); err != nil && linkErr == nil {
		if build, err = ParseBuildID(to); err != nil {
			return nil, fmt.Errorf("it is a link to %q, which is not a build beside it", to)
		}
		dir = filepath.Join(filepath.Dir(dir), to)
	}
	if err != nil {
		return nil, fmt.Errorf("the directory is not named after its build: %w", err)
	}
	v, err := signing.VerifyDir(ctx, dir, keyring)
	if err != nil {
		return nil, err
	}
	r, err := newRelease(dir, filepath.Base(filepath.Dir(dir)), build, v, func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	r.verified = true
	return r, nil
}

// newRelease returns the release of the image and build whose verified files lie
// in dir. What is not wanted may be missing.
func newRelease(dir, image string, build BuildID, v *signing.Verification, wanted func(name string) bool) (*Release, error) {
	r := &Release{Dir: dir, Signatures: v}
	for _, f := range v.Files {
		r.Files = append(r.Files, File{Name: f.Name, SizeBytes: f.SizeBytes, SHA256: f.SHA256})
	}
	if err := r.addSignature(); err != nil {
		return nil, err
	}
	sums, _ := r.file(signing.SumsFile) // without it there is no good signature
	r.Digest = sums.SHA256
	if err := r.readIndex(wanted); err != nil {
		return nil, err
	}
	return r, r.Index.checkIs(image, build)
}

// addSignature adds the signature of SHA256SUMS to the files, which nothing
// but itself vouches for.
func (r *Release) addSignature() error {
	f, err := r.openRegular(signing.SumsSig)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	r.Files = append(r.Files, File{signing.SumsSig, size, hex.EncodeToString(sum.Sum(nil))})
	slices.SortFunc(r.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// readIndex reads the verified release.json and compares it with what was
// verified.
func (r *Release) readIndex(wanted func(name string) bool) error {
	f, err := r.Open(IndexName)
	if err != nil {
		return err
	}
	defer f.Close()
	x, err := ReadIndex(f)
	if err != nil {
		return err
	}
	r.Index = *x
	for _, f := range x.Files {
		got, ok := r.file(f.Name)
		if !ok && !wanted(f.Name) {
			continue
		}
		if got != f {
			return fmt.Errorf("%s lists %s with %d bytes and SHA-256 %s, but it has %d bytes and %q", IndexName, f.Name, f.SizeBytes, f.SHA256, got.SizeBytes, got.SHA256)
		}
	}
	return nil
}

// WrongReleaseError is that a directory holds, rightly signed, the release of
// another image or build than the one it is named after.
type WrongReleaseError struct {
	Image, GotImage string // as the directory says, as release.json says
	Build, GotBuild BuildID
}

func (e *WrongReleaseError) Error() string {
	return fmt.Sprintf("the directory is named after %s %s but holds %s %s", e.Image, e.Build, e.GotImage, e.GotBuild)
}

// checkIs reports an index of another image or build.
func (x *Index) checkIs(image string, build BuildID) error {
	if x.Image != image || x.Build != build {
		return &WrongReleaseError{Image: image, Build: build, GotImage: x.Image, GotBuild: x.Build}
	}
	return nil
}

// file returns the named file.
func (r *Release) file(name string) (File, bool) {
	i := slices.IndexFunc(r.Files, func(f File) bool { return f.Name == name })
	if i < 0 {
		return File{}, false
	}
	return r.Files[i], true
}

// Open opens the named file of the release for reading. In place of io.EOF the
// reader returns an error if the file is not the one that was verified. The
// caller closes it.
func (r *Release) Open(name string) (io.ReadCloser, error) {
	want, ok := r.file(name)
	if !ok {
		return nil, fmt.Errorf("cannot read release %s: %s: %w", r.Dir, name, fs.ErrNotExist)
	}
	f, err := r.openRegular(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read release %s: %w", r.Dir, err)
	}
	return &verifyingFile{f: f, path: filepath.Join(r.Dir, name), want: want, hash: sha256.New()}, nil
}

// openRegular opens a file in the release directory.
func (r *Release) openRegular(name string) (*os.File, error) {
	root, err := os.OpenRoot(r.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// Without O_NONBLOCK, a named pipe would wait for its writer.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// verifyingFile reads a file and compares it with what is expected.
type verifyingFile struct {
	f    *os.File
	path string
	want File
	hash hash.Hash
	size int64
}

func (v *verifyingFile) Read(p []byte) (int, error) {
	n, err := v.f.Read(p)
	v.hash.Write(p[:n])
	v.size += int64(n)
	changed := v.size > v.want.SizeBytes
	if errors.Is(err, io.EOF) {
		changed = v.size != v.want.SizeBytes || hex.EncodeToString(v.hash.Sum(nil)) != v.want.SHA256
	}
	if changed {
		return n, fmt.Errorf("cannot read %s: it changed after it was verified", v.path)
	}
	return n, err
}

func (v *verifyingFile) Close() error { return v.f.Close() }
