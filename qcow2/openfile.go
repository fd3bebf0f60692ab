package qcow2

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/diskfile"
)

// OpenFile opens the image in a regular file or a block device. The file is
// closed with the image. If another process has it open for writing, as far as
// [InUse] can tell, the error is ErrInUse.
func OpenFile(name string, o OpenOptions) (*Image, error) {
	f, size, err := diskfile.Open(name)
	if err != nil {
		return nil, err
	}
	source, err := newFileSource(f, name, size, o.Force)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if o.Resolve == nil && o.Dir != "" {
		o.Resolve = func(ref Reference) (Source, error) { return resolveIn(o.Dir, ref, o.Force) }
	}
	image, err := Open(source, size, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	image.closers = append(image.closers, f)
	return image, nil
}

// Uses says whether the image lies in a file or device, or refers to it with
// its backing files. It knows files that were opened as *os.File, or have
// their method Stat. Such a file must not be written to.
func (i *Image) Uses(file os.FileInfo) bool {
	for layer := i; layer != nil; layer = layer.backing {
		for _, r := range []io.ReaderAt{layer.file, layer.dataFile} {
			if s, ok := r.(interface{ Stat() (os.FileInfo, error) }); ok {
				if stat, err := s.Stat(); err == nil && diskfile.Same(stat, file) {
					return true
				}
			}
		}
	}
	return false
}

// fileSource is a file of a chain, and where it lies.
type fileSource struct {
	file *os.File
	path string
	size int64
}

func newFileSource(f *os.File, path string, size int64, force bool) (*fileSource, error) {
	if !force {
		if err := InUse(f); err != nil {
			return nil, fmt.Errorf("cannot open %s: %w", path, err)
		}
	}
	return &fileSource{f, path, size}, nil
}

func (s *fileSource) ReadAt(p []byte, off int64) (int, error) { return s.file.ReadAt(p, off) }
func (s *fileSource) Size() int64                             { return s.size }
func (s *fileSource) Close() error                            { return s.file.Close() }
func (s *fileSource) Stat() (os.FileInfo, error)              { return s.file.Stat() }

// File lets the holes of the file be found.
func (s *fileSource) File() *os.File { return s.file }

// resolveIn opens a referenced file in dir.
func resolveIn(dir string, ref Reference, force bool) (Source, error) {
	path, err := referencedPath(ref)
	if err != nil {
		return nil, err
	}
	// Where the name leads is found by following its links; what is opened
	// then is opened beneath dir, whatever happens to the links meanwhile.
	inside, err := within(dir, path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(inside, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	stat, err := f.Stat()
	if err == nil && !stat.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	source, err := newFileSource(f, path, stat.Size(), force)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return source, nil
}

// referencedPath returns the path of a referenced file: as QEMU has it a name
// is relative to the directory of the file that gives it.
func referencedPath(ref Reference) (string, error) {
	name := ref.Name
	if protocol, rest, ok := strings.Cut(name, ":"); ok && !strings.Contains(protocol, "/") {
		switch protocol {
		case "file": // what follows is a path as it stands, not relative to the image
			return rest, nil
		case "json":
			return "", errors.New("it is a JSON description of a block device, of which only plain file names are read")
		}
		return "", fmt.Errorf("it is of the protocol %q, and only files are read", protocol)
	}
	from, ok := ref.From.(*fileSource)
	if filepath.IsAbs(name) || !ok {
		return name, nil
	}
	return filepath.Dir(from.path) + string(filepath.Separator) + name, nil
}

// within returns the path relative to dir, where it must lie.
func within(dir, path string) (string, error) {
	realDir, err := absolute(dir)
	if err != nil {
		return "", err
	}
	realPath, err := absolute(path)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(realDir, realPath)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("it lies outside %s, and only files in it are allowed", dir)
	}
	return rel, nil
}

// absolute follows all links of a path.
func absolute(path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(target)
}
