package sandbox_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// withUEFI is a copy of an image whose disk starts with UEFI too: a partition is put
// behind the others whose GRUB reads the image's own menu.
func withUEFI(t *testing.T, image string) string {
	t.Helper()
	tools := needs.Tools(t, "qemu-img", "sfdisk", "mkfs.vfat", "mmd", "mcopy", "grub-mkstandalone")
	if _, err := os.Stat("/usr/lib/grub/x86_64-efi"); err != nil {
		needs.Missing(t, "grub-efi-amd64-bin")
	}
	dir := t.TempDir()
	raw, esp, menu, grub, out := filepath.Join(dir, "raw"), filepath.Join(dir, "esp"), filepath.Join(dir, "grub.cfg"), filepath.Join(dir, "grub.efi"), filepath.Join(dir, "uefi.qcow2")
	run := func(stdin, name string, args ...string) {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Stdin, cmd.Env = strings.NewReader(stdin), append(os.Environ(), "MTOOLS_SKIP_CHECK=1")
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", name, said)
	}
	require.NoError(t, os.WriteFile(menu, []byte("search --no-floppy --set=root --file /etc/os-release\nconfigfile /boot/grub/grub.cfg\n"), 0o600))
	run("", tools[5], "-O", "x86_64-efi", "-o", grub, "--modules=part_msdos ext2 search configfile normal linux", "--locales=", "--fonts=", "--themes=", "boot/grub/grub.cfg="+menu)
	const espBytes = 64 << 20
	require.NoError(t, os.WriteFile(esp, nil, 0o600))
	require.NoError(t, os.Truncate(esp, espBytes))
	run("", tools[2], "-F", "32", esp)
	run("", tools[3], "-i", esp, "::EFI", "::EFI/BOOT")
	run("", tools[4], "-i", esp, grub, "::EFI/BOOT/BOOTX64.EFI")
	run("", tools[0], "convert", "-f", "qcow2", "-O", "raw", image, raw)
	disk, err := os.OpenFile(raw, os.O_RDWR, 0)
	require.NoError(t, err)
	st, err := disk.Stat()
	require.NoError(t, err)
	start := (st.Size() + 1<<20 - 1) &^ (1<<20 - 1)
	require.NoError(t, disk.Truncate(start+espBytes+1<<20))
	content, err := os.ReadFile(esp)
	require.NoError(t, err)
	_, err = disk.WriteAt(content, start)
	require.NoError(t, err)
	require.NoError(t, disk.Close())
	run(fmt.Sprintf("start=%d, size=%d, type=ef\n", start/512, espBytes/512), tools[1], "--append", "--no-reread", "--no-tell-kernel", raw)
	run("", tools[0], "convert", "-f", "raw", "-O", "qcow2", raw, out)
	require.NoError(t, os.Remove(raw))
	return out
}

// UEFI's firmware starts an image that has a boot loader for it.
func TestBootUEFI(t *testing.T) {
	image := withUEFI(t, testImage(t))
	f, err := qcow2.OpenFile(image, qcow2.OpenOptions{})
	require.NoError(t, err)
	disk, err := guestdisk.Inspect(f, f.Size())
	require.NoError(t, errors.Join(err, f.Close()))
	require.True(t, disk.BootUEFI)
	m, err := sandbox.QEMU{}.Boot(t.Context(), sandbox.Image{
		Path: image, WorkDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Variant: sandbox.Variant{Firmware: sandbox.UEFI, CPUs: 4},
	})
	if boot := (*sandbox.BootError)(nil); errors.As(err, &boot) {
		t.Log(boot.Console)
	}
	require.NoError(t, err)
	defer func() { assert.NoError(t, m.Close()) }()
	assert.Equal(t, "EFI 4", strings.TrimSpace(asRoot(t, m.Target, "test ! -d /sys/firmware/efi || echo EFI $(nproc)")))
}
