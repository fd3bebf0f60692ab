package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// maxImageBytes is the largest disk that is booted: what a sane image has, so
// that a hostile size is not handed on.
const maxImageBytes = 1 << 40

// imageSize returns the virtual size of a qcow2 file, and refuses one that can
// harm the host or that QEMU could not start: QEMU's own tools open every file
// that an image names before they say so.
func imageSize(path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // the caller names it; a pipe would wait
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: it is not a regular file", ErrUnsafeImage)
	}
	info, err := qcow2.Inspect(f, st.Size())
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnsafeImage, err)
	}
	policy := qcow2.Policy{Name: "sandbox", Allow: []string{qcow2.FindSnapshots, qcow2.FindDirty, qcow2.FindTrailingData}}
	if safety := info.Safety(policy); !safety.Safe {
		var texts []string
		for _, finding := range safety.Findings {
			texts = append(texts, finding.Text)
		}
		return 0, fmt.Errorf("%w: %s", ErrUnsafeImage, strings.Join(texts, "; "))
	}
	if info.VirtualSize == 0 || info.VirtualSize > maxImageBytes {
		return 0, fmt.Errorf("%w: its virtual size is %d bytes", ErrUnsafeImage, info.VirtualSize)
	}
	return info.VirtualSize, nil
}

// An Overlay is the disk of a guest after it ran: the image, and over it what the
// guest wrote. Machines of QEMU have one.
type Overlay struct {
	path, image string
	size        int64
}

// inspect returns the disk's size, and refuses an overlay that is not as
// createOverlay made it. The guest cannot write to its header; who broke out of QEMU
// could name a file of the host there.
func (o *Overlay) inspect() (int64, error) {
	if _, err := imageSize(o.image); err != nil {
		return 0, err
	}
	f, err := os.Open(o.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	info, err := qcow2.Inspect(f, st.Size())
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnsafeImage, err)
	}
	safety := info.Safety(qcow2.Policy{Name: "overlay", Allow: []string{qcow2.FindBackingFile}})
	if !safety.Safe || info.BackingFile != o.image || info.BackingFormat != "qcow2" || info.VirtualSize != o.size {
		return 0, fmt.Errorf("%w: the overlay is not as it was made", ErrUnsafeImage)
	}
	return o.size, nil
}

// open opens the disk. Whatever the overlay's header says, only the image lies
// below it.
func (o *Overlay) open() (*qcow2.Image, error) {
	return qcow2.OpenFile(o.path, qcow2.OpenOptions{MaxDepth: 1, Resolve: func(ref qcow2.Reference) (qcow2.Source, error) {
		if ref.Data || ref.Name != o.image {
			return nil, errors.New("only the image lies below an overlay")
		}
		f, err := os.Open(o.image)
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return struct {
			*io.SectionReader
			io.Closer
		}{io.NewSectionReader(f, 0, st.Size()), f}, nil
	}})
}

// layers describes to QEMU the qcow2 files of a disk, the lowest first. All but
// the last are only read. Each is opened as said here, whatever its header names.
func layers(files ...string) map[string]any {
	var disk map[string]any
	for i, name := range files {
		top := i == len(files)-1
		file := map[string]any{"driver": "file", "filename": name}
		layer := map[string]any{"driver": "qcow2", "file": file, "backing": nil}
		if disk != nil {
			layer["backing"] = disk
		}
		if !top {
			layer["read-only"], file["read-only"] = true, true
		}
		disk = layer
	}
	disk["node-name"] = "disk0"
	disk["cache"] = map[string]any{"no-flush": true} // the uppermost is thrown away
	return disk
}

// createOverlay makes a guest's disk: what the guest writes goes there.
func createOverlay(ctx context.Context, qemuImg, below, overlay string, size int64) error {
	err := run(ctx, qemuImg, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-u", "-b", below, overlay, strconv.FormatInt(size, 10))
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("cannot make an overlay: %w", err)
	}
	return err
}

// resizeOverlay makes a guest's disk larger, while the guest is off.
func resizeOverlay(ctx context.Context, qemuImg, overlay string, size int64) error {
	err := run(ctx, qemuImg, "resize", "-q", "-f", "qcow2", overlay, strconv.FormatInt(size, 10))
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("cannot make the disk larger: %w", err)
	}
	return err
}

// run runs a tool. Its error has what the tool said.
func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // no shell, and the names are the caller's
	cmd.WaitDelay = stopPatience
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
