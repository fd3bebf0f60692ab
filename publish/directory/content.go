package directory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// content is what a directory that should be a release says that it holds.
type content struct {
	digest string         // of SHA256SUMS; "" if that cannot be read
	files  []publish.File // SizeBytes is -1 where release.json does not say
	// rightly says that SHA256SUMS and release.json belong together: somebody
	// made a release of them, whatever became of the other files.
	rightly bool
}

// readContent reads the checksums and the index of a build. The error says what
// is wrong with them.
func (d *imageDir) readContent(build publish.BuildID) (content, error) {
	var c content
	sums, err := d.readSmall(filepath.Join(build.String(), signing.SumsFile), maxSums)
	if err != nil {
		return c, inDir(signing.SumsFile, err)
	}
	c.digest = hexSum(sums)
	data, err := d.readSmall(filepath.Join(build.String(), publish.IndexName), maxIndex)
	if err != nil {
		return c, inDir(publish.IndexName, err)
	}
	index, err := publish.ReadIndex(bytes.NewReader(data))
	if err != nil {
		return c, err
	}
	if index.Image != d.name || index.Build != build {
		return c, fmt.Errorf("it holds %s %s", index.Image, index.Build)
	}
	if c.files, err = parseSums(sums); err != nil {
		return c, fmt.Errorf("%s: %w", signing.SumsFile, err)
	}
	sizes := make(map[string]int64)
	for _, f := range index.Files {
		sizes[f.Name] = f.SizeBytes
	}
	for i, f := range c.files {
		if size, ok := sizes[f.Name]; ok {
			c.files[i].SizeBytes = size
			delete(sizes, f.Name)
		}
		if f.Name == publish.IndexName {
			c.files[i].SizeBytes, c.rightly = int64(len(data)), f.SHA256 == hexSum(data)
		}
	}
	if !c.rightly || len(sizes) > 0 {
		c.rightly = false
		return c, fmt.Errorf("%s and %s do not belong together", signing.SumsFile, publish.IndexName)
	}
	return c, nil
}

// parseSums reads the lines that a release's SHA256SUMS has.
func parseSums(data []byte) ([]publish.File, error) {
	var files []publish.File
	for line := range strings.Lines(string(data)) {
		digest, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if _, err := hex.DecodeString(digest); !ok || err != nil || len(digest) != 2*sha256.Size || !strings.HasSuffix(line, "\n") {
			return nil, fmt.Errorf("line %d is not one of a release", len(files)+1)
		}
		if !filepath.IsLocal(name) || filepath.Base(name) != name {
			return nil, fmt.Errorf("line %d names a file elsewhere", len(files)+1)
		}
		files = append(files, publish.File{Name: name, SizeBytes: -1, SHA256: strings.ToLower(digest)})
	}
	return files, nil
}

// look returns what is wrong with the build's files, as far as their names and
// sizes tell.
func (d *imageDir) look(build publish.BuildID) (content, error) {
	c, err := d.readContent(build)
	if err != nil {
		return c, err
	}
	for _, f := range append(c.files, publish.File{Name: signing.SumsSig, SizeBytes: -1}) {
		info, err := d.Lstat(filepath.Join(build.String(), f.Name))
		switch {
		case err != nil:
			return c, inDir(f.Name, err)
		case !info.Mode().IsRegular():
			return c, fmt.Errorf("%s is not a regular file", f.Name)
		case f.SizeBytes >= 0 && info.Size() != f.SizeBytes:
			return c, fmt.Errorf("%s has %d bytes instead of %d", f.Name, info.Size(), f.SizeBytes)
		case info.Size() == 0 && f.SizeBytes < 0:
			return c, fmt.Errorf("%s is empty", f.Name)
		}
	}
	return c, nil
}

// inDir names a file and drops the path, which the caller knows.
func inDir(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing", name)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// compare compares the content of the build's files with SHA256SUMS.
func (d *imageDir) compare(ctx context.Context, build publish.BuildID) error {
	c, err := d.look(build)
	for _, f := range c.files {
		if err != nil {
			break
		}
		var same bool
		if same, err = d.same(ctx, filepath.Join(build.String(), f.Name), f.SHA256); err == nil && !same {
			err = fmt.Errorf("the content of %s differs from %s", f.Name, signing.SumsFile)
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%s: %w: %w", filepath.Join(d.path, build.String()), publish.ErrIncomplete, err)
	}
	return nil
}

// same reports whether a file is a regular one with the SHA-256.
func (d *imageDir) same(ctx context.Context, name, want string) (bool, error) {
	f, err := d.openRegular(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(sum.Sum(nil)) == want, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// openRegular opens a regular file for reading.
func (d *imageDir) openRegular(name string) (fs.File, error) {
	// Without O_NONBLOCK, a named pipe would wait for its writer.
	f, err := d.OpenFile(name, syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readSmall reads a regular file of at most so many bytes.
func (d *imageDir) readSmall(name string, most int64) ([]byte, error) {
	f, err := d.openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("larger than %d bytes", most)
	}
	return data, err
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
