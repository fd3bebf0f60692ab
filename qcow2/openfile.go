package qcow2

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/diskfile"
)

// OpenFile opens the image in a regular file or a block device. Closing the
// image closes the file.
func OpenFile(name string, o OpenOptions) (*Image, error) {
	f, size, err := diskfile.Open(name)
	if err != nil {
		return nil, err
	}
	image, err := Open(f, size, o)
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
