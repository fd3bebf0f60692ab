package existing

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/internal/webfile"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// partFile is where a cut download of this image is kept, beside the work directory.
func partFile(workDir string, c Config) string {
	id := sha256.Sum256(fmt.Appendf(nil, "%q %s %s", c.Image, c.SHA256, c.SHA512))
	return workDir + "." + hex.EncodeToString(id[:8]) + ".part"
}

// getImage puts the image in its place. It reports whether a part of it is from an
// earlier build.
func (r *run) getImage(ctx context.Context) (resumed bool, err error) {
	most := int64(r.MaxMiB) << 20
	if _, remote := parseURL(r.Image); !remote || r.part == "" {
		return false, r.get(ctx, r.Image, r.image, most)
	}
	if err := r.dropOtherParts(); err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(r.part), 0o755); err != nil {
		return false, err
	}
	f, err := os.OpenFile(r.part, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return false, err
	}
	defer f.Close()
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	if at > 0 {
		r.log.InfoContext(ctx, "going on with a download that was cut", "image", r.Image, "bytes", at)
	}
	if err := r.download(ctx, r.Image, &progress{w: f, n: at, most: most}, at); err != nil {
		if errors.Is(err, errTooLarge) {
			err = errors.Join(err, os.Remove(r.part)) // there is nothing to go on with
		}
		return false, err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return false, err
	}
	err = os.Rename(r.part, r.image)
	if errors.Is(err, syscall.EXDEV) {
		err = errors.Join(r.copyFile(ctx, r.part, r.image, most), os.Remove(r.part))
	}
	return at > 0, err
}

// dropOtherParts removes what is left of the downloads of other images.
func (r *run) dropOtherParts() error {
	parts, err := filepath.Glob(r.spec.WorkDir + ".*.part") // a path of plain characters
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p != r.part {
			if err := os.Remove(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// get writes what is at a path or URL to a file that is not there yet.
func (r *run) get(ctx context.Context, place, name string, most int64) error {
	if _, remote := parseURL(place); !remote {
		return r.copyFile(ctx, r.path(place), name, most)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(r.download(ctx, place, &progress{w: f, most: most}, 0), f.Close())
}

// download writes what a web server has from the offset on.
func (r *run) download(ctx context.Context, place string, w *progress, at int64) error {
	u, _ := parseURL(place)
	fail := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("cannot fetch %s: after %d bytes: %w", place, w.n, err)
	}
	r.log.InfoContext(ctx, "fetching", "url", place)
	body, err := webfile.Open(ctx, webfile.Options{Client: r.client, RedirectHosts: r.RedirectHosts}, u, at)
	if err != nil {
		return fail(err)
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fail(err)
	}
	return nil
}

func (r *run) copyFile(ctx context.Context, from, to string, most int64) error {
	src, size, err := openFile(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if size > most {
		return fmt.Errorf("%s has %d bytes, and at most %d are allowed", from, size, most)
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer dst.Close()
	_, err = io.Copy(&progress{w: dst, most: most}, until(ctx, src))
	return errors.Join(err, dst.Close())
}

// openFile opens a regular file; a named pipe would wait for its writer.
func openFile(name string) (*os.File, int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// until reads from r and ends when ctx does.
func until(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// verify holds the image to all that the configuration knows it by.
func (r *run) verify(ctx context.Context, config string, keyring *signing.Keyring) error {
	f, err := os.Open(r.image)
	if err != nil {
		return err
	}
	defer f.Close()
	short, long := sha256.New(), sha512.New()
	if _, err := io.Copy(io.MultiWriter(short, long), until(ctx, f)); err != nil {
		return err
	}
	have256, have512 := hex.EncodeToString(short.Sum(nil)), hex.EncodeToString(long.Sum(nil))
	if r.SHA256 != "" && r.SHA256 != have256 {
		return fmt.Errorf("%s is not the image that is named: its SHA-256 is %s, and should be %s", r.Image, have256, r.SHA256)
	}
	if r.SHA512 != "" && r.SHA512 != have512 {
		return fmt.Errorf("%s is not the image that is named: its SHA-512 is %s, and should be %s", r.Image, have512, r.SHA512)
	}
	if keyring != nil {
		if err := r.verifySignature(ctx, config, keyring, f); err != nil {
			return fmt.Errorf("%s is not the image that is named: %w", r.Image, err)
		}
	}
	r.sha256 = have256
	return nil
}

// verifySignature judges the signature over the image or over its list of checksums.
func (r *run) verifySignature(ctx context.Context, config string, keyring *signing.Keyring, image *os.File) error {
	verifier := signing.Verifier{Keyring: keyring}
	signature := ""
	if r.Signature != "" {
		signature = filepath.Join(config, base(r.Signature))
	}
	if r.Checksums == "" {
		s, err := os.Open(signature)
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := image.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, err = verifier.Detached(ctx, base(r.Image), image, s)
		return err
	}
	// A list names files beside it.
	dir, err := os.MkdirTemp(r.spec.OutputDir, "checksums-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sums := filepath.Join(dir, base(r.Checksums))
	if err := errors.Join(os.Link(filepath.Join(config, base(r.Checksums)), sums), os.Link(r.image, filepath.Join(dir, base(r.Image)))); err != nil {
		return err
	}
	_, err = verifier.Checksums(ctx, sums, signature, base(r.Image))
	return err
}
