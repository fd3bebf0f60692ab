package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

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

// createOverlay makes the guest's disk: what the guest writes goes there.
func (q *QEMU) createOverlay(ctx context.Context, g *guest) error {
	cmd := exec.CommandContext(ctx, q.Img, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-u", "-b", g.image,
		g.overlayPath(), strconv.FormatInt(g.DiskBytes, 10))
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
