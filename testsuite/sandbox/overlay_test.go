package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// TestOverlayRefused has overlays that the sandbox did not make, or that somebody
// changed since: none of them is given to QEMU.
func TestOverlayRefused(t *testing.T) {
	needs.Tools(t, "qemu-img")
	const size = 1 << 20
	dir := t.TempDir()
	image, overlay, secret := filepath.Join(dir, "image.qcow2"), filepath.Join(dir, "overlay.qcow2"), filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, make([]byte, size), 0o600))
	good := &Overlay{path: overlay, image: image, size: size}
	create := func() {
		command(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "1M")
		require.NoError(t, createOverlay(t.Context(), "qemu-img", image, overlay, size))
	}
	create()
	got, err := good.inspect()
	require.NoError(t, err)
	require.Equal(t, int64(size), got)
	disk, err := good.open()
	require.NoError(t, err)
	require.NoError(t, disk.Close())

	for name, make := range map[string][]string{
		"another file below":        {"create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, overlay},
		"another qcow2 below":       {"create", "-q", "-f", "qcow2", "-F", "qcow2", "-u", "-b", secret, overlay, "1M"},
		"the image as a raw file":   {"create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b", image, overlay, "1M"},
		"nothing below":             {"create", "-q", "-f", "qcow2", overlay, "1M"},
		"another size":              {"create", "-q", "-f", "qcow2", "-F", "qcow2", "-u", "-b", image, overlay, "2M"},
		"a file for its data":       {"create", "-q", "-f", "qcow2", "-o", "data_file=" + secret, overlay, "1M"},
		"a raw file":                {"create", "-q", "-f", "raw", overlay, "1M"},
		"an image that names files": {"create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, image},
	} {
		t.Run(name, func(t *testing.T) {
			create()
			command(t, "qemu-img", make...)
			_, _, err := Reader{WorkDir: dir}.OpenOverlay(t.Context(), good)
			require.ErrorIs(t, err, ErrUnsafeImage)
		})
	}
}
