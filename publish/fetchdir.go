package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/flock"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// fetchPrefix begins the names of what is not all fetched. It differs from that of
// a publication, which may be at work in the same directory.
const fetchPrefix = ".fetch-"

// bring fetches the offered release into the download directory.
func (f *Fetcher) bring(ctx context.Context, label Label, o *offer) (*Release, error) {
	image := filepath.Join(f.Dir, o.index.Image)
	if err := os.MkdirAll(image, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(image)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	lock, err := flock.Dir(ctx, root, func() {
		if f.Logger != nil {
			f.Logger.InfoContext(ctx, "waiting for another run that works in the image's directory", "directory", image)
		}
	})
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := remember(root, label, o.index.Build); err != nil {
		return nil, err
	}
	build := o.index.Build.String()
	dir := filepath.Join(image, build)
	if _, err := root.Lstat(build); !errors.Is(err, fs.ErrNotExist) {
		return f.there(ctx, dir, o)
	}
	r, err := f.fill(ctx, root, o)
	if err != nil {
		return nil, err
	}
	if err := root.Rename(fetchPrefix+build, build); err != nil {
		return nil, err
	}
	if err := sweep(root, o.index.Build); err != nil && f.Logger != nil { // which hinders nobody
		f.Logger.WarnContext(ctx, "cannot remove what is left of older builds", "directory", image, "error", err)
	}
	r.Dir, err = filepath.Abs(dir)
	return r, errors.Join(err, syncDir(root))
}

// there returns the release that was fetched before.
func (f *Fetcher) there(ctx context.Context, dir string, o *offer) (*Release, error) {
	r, err := f.openFetched(ctx, dir, o)
	if err == nil && r.Digest != o.digest {
		err = ErrConflict
	}
	if err != nil {
		return nil, fmt.Errorf("%s is there already but is not what was asked for: %w; move it away to fetch it again", dir, err)
	}
	return r, nil
}

// openFetched verifies a directory that has the wanted files.
func (f *Fetcher) openFetched(ctx context.Context, dir string, o *offer) (*Release, error) {
	v, err := f.verifier().VerifyDir(ctx, dir)
	if v == nil {
		return nil, err
	}
	if wrong := f.wrong(v); len(wrong) > 0 {
		return nil, (&signing.Verification{Files: wrong}).Err()
	}
	return f.release(dir, v, o)
}

// wrong returns what is wrong with files that should be there.
func (f *Fetcher) wrong(v *signing.Verification) []signing.File {
	var wrong []signing.File
	for _, file := range v.Files {
		if file.Status != signing.Good && (file.Status != signing.Missing || f.wants(file.Name)) {
			wrong = append(wrong, file)
		}
	}
	return wrong
}

// release returns the release of the verified files that lie in dir.
func (f *Fetcher) release(dir string, v *signing.Verification, o *offer) (*Release, error) {
	good := new(signing.Verification)
	for _, file := range v.Files {
		if file.Status == signing.Good {
			good.Files = append(good.Files, file)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r, err := newRelease(dir, o.index.Image, o.index.Build, good, f.wants)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotAsSigned, err)
	}
	r.verified = len(f.Suffixes) == 0
	return r, nil
}

// fill completes the directory of the unfinished build. What lies in it is
// trusted when VerifyDir finds nothing wrong with all of it, wherever it is from.
func (f *Fetcher) fill(ctx context.Context, root *os.Root, o *offer) (*Release, error) {
	name := fetchPrefix + o.index.Build.String()
	if err := root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	path := filepath.Join(root.Name(), name)
	if info, err := root.Lstat(name); err != nil || !info.IsDir() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a directory; move it away", path))
	}
	temp, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	defer temp.Close()
	for name, data := range o.small {
		if err := replace(temp, name, data); err != nil {
			return nil, err
		}
	}
	v, err := f.complete(ctx, temp, path, o)
	if err != nil {
		return nil, err
	}
	r, err := f.release(path, v, o)
	if err != nil {
		return nil, err
	}
	return r, syncFiles(temp, r.Files)
}

// complete fetches what is missing or wrong until nothing is. A file is continued
// once, for what is there may be its beginning, and fetched from its start once.
func (f *Fetcher) complete(ctx context.Context, temp *os.Root, path string, o *offer) (*signing.Verification, error) {
	fetched := make(map[string]bool) // from its start
	for {
		v, err := f.verifier().VerifyDir(ctx, path)
		if v == nil {
			return nil, err
		}
		wrong := f.wrong(v)
		if len(wrong) == 0 {
			return v, nil
		}
		if slices.ContainsFunc(wrong, func(file signing.File) bool { return file.Reason != signing.BadProvenance }) {
			// The provenance is about a file that is yet to be completed.
			wrong = slices.DeleteFunc(wrong, func(file signing.File) bool { return file.Reason == signing.BadProvenance })
		}
		for _, file := range wrong {
			switch {
			case file.Status == signing.Extra:
				err = temp.RemoveAll(file.Name)
			case !fetchable(file, o):
				err = (&signing.Verification{Files: wrong}).Err()
			case !f.wants(file.Name):
				err = temp.RemoveAll(file.Name)
			case fetched[file.Name]:
				err = fmt.Errorf("%w: %w", ErrNotAsSigned, (&signing.Verification{Files: []signing.File{file}}).Err())
				err = errors.Join(err, temp.RemoveAll(file.Name))
			default:
				err = f.get(ctx, temp, file, o, fetched)
			}
			if err != nil {
				return nil, err
			}
		}
	}
}

// fetchable reports whether to fetch the file could mend what is wrong with it.
func fetchable(file signing.File, o *offer) bool {
	if _, small := o.small[file.Name]; small || !fileName.MatchString(file.Name) {
		return false
	}
	switch file.Reason {
	case signing.FileMissing, signing.DigestDiffers, signing.NotRegular, signing.Unreadable:
		return true
	}
	return false
}

// resumeAt returns how many bytes of the file are there and may be right. If there
// are none, it removes what is there.
func resumeAt(temp *os.Root, file signing.File, o *offer) (int64, error) {
	info, err := temp.Lstat(file.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if file.Reason == signing.DigestDiffers && info.Mode().IsRegular() && info.Size() > 0 && info.Size() < o.size(file.Name) {
		return info.Size(), nil
	}
	return 0, temp.RemoveAll(file.Name)
}

// get fetches the rest of a file, or all of it, which it notes.
func (f *Fetcher) get(ctx context.Context, temp *os.Root, file signing.File, o *offer, fetched map[string]bool) (err error) {
	name := file.Name
	offset, err := resumeAt(temp, file, o)
	if err != nil {
		return err
	}
	fetched[name] = offset == 0
	src, err := f.open(ctx, o.path(name), offset)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotAsSigned, err)
	}
	if err != nil {
		return err
	}
	defer src.Close()
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if offset > 0 {
		flags = os.O_WRONLY | os.O_APPEND
	}
	dst, err := temp.OpenFile(name, flags, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	size := o.size(name)
	most := size - offset // what comes after that is not read
	if size < 0 {
		most = maxUnlisted + 1
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{dst}, io.LimitReader(src, most), make([]byte, 1<<20))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case size < 0 && n > maxUnlisted:
		return fmt.Errorf("%w: %s has more than %d bytes, and %s does not list it", ErrNotAsSigned, name, maxUnlisted, IndexName)
	case size >= 0 && n < most:
		return fmt.Errorf("%w: %s ends after %d of %d bytes", ErrNotAsSigned, name, offset+n, size)
	}
	return nil
}

// replace writes the small file anew.
func replace(root *os.Root, name string, data []byte) error {
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncFiles makes the files and their names durable.
func syncFiles(root *os.Root, files []File) error {
	for _, file := range files {
		f, err := root.Open(file.Name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return syncDir(root)
}

func syncDir(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sweep removes what is left of builds that are older than the one that came.
func sweep(root *os.Root, than BuildID) error {
	dirents, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirents {
		name, ok := strings.CutPrefix(d.Name(), fetchPrefix)
		if build, err := ParseBuildID(name); ok && err == nil && build.Compare(than) < 0 {
			errs = append(errs, root.RemoveAll(d.Name()))
		}
	}
	return errors.Join(errs...)
}
