package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// maxImageBytes is the largest disk that is booted: what a sane image has, so
// that a hostile size is not handed on.
const maxImageBytes = 1 << 40

// imageSize reads the virtual size of a qcow2 file from its header, and
// refuses one that would make QEMU open another file or ask for a key. QEMU's
// own tools would have opened these by then.
func imageSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read from
	if st, err := f.Stat(); err != nil {
		return 0, err
	} else if !st.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: it is not a regular file", ErrUnsafeImage)
	}
	var header [80]byte
	if _, err := io.ReadFull(f, header[:]); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, fmt.Errorf("%w: cannot read its header: %w", ErrUnsafeImage, err)
	}
	be := binary.BigEndian
	version, size := be.Uint32(header[4:]), be.Uint64(header[24:])
	switch {
	case !bytes.Equal(header[:4], []byte("QFI\xfb")) || version != 2 && version != 3:
		return 0, fmt.Errorf("%w: it is no qcow2 of version 2 or 3", ErrUnsafeImage)
	case be.Uint64(header[8:]) != 0 || be.Uint32(header[16:]) != 0:
		return 0, fmt.Errorf("%w: it names a backing file", ErrUnsafeImage)
	case be.Uint32(header[32:]) != 0:
		return 0, fmt.Errorf("%w: it is encrypted", ErrUnsafeImage)
	case version == 3 && be.Uint64(header[72:])&(1<<2) != 0:
		return 0, fmt.Errorf("%w: it names an external data file", ErrUnsafeImage)
	case size == 0 || size > maxImageBytes:
		return 0, fmt.Errorf("%w: its virtual size is %d bytes", ErrUnsafeImage, size)
	}
	return int64(size), nil
}

// createOverlay makes the guest's disk: what the guest writes goes there.
func (q *QEMU) createOverlay(ctx context.Context, m *Machine) error {
	cmd := exec.CommandContext(ctx, q.Img, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-u", "-b", m.image,
		m.overlayPath(), strconv.FormatInt(m.DiskBytes, 10))
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("cannot make an overlay: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
