//go:build linux

package sandbox

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// bootSector is an image whose first sector is code, with the mark of a boot sector.
func bootSector(t *testing.T, code []byte) string {
	t.Helper()
	disk := make([]byte, 1<<20)
	if code != nil {
		copy(disk[:510], code)
		disk[510], disk[511] = 0x55, 0xaa
	}
	raw, image := filepath.Join(t.TempDir(), "raw"), filepath.Join(t.TempDir(), "image.qcow2")
	require.NoError(t, os.WriteFile(raw, disk, 0o600))
	out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return image
}

// say prints text on the serial port and halts.
func say(text string) []byte {
	return append([]byte{
		0x31, 0xc0, 0x8e, 0xd8, // xor ax,ax; mov ds,ax
		0xbe, 0x15, 0x7c, // mov si,text
		0xba, 0xf8, 0x03, // mov dx,0x3f8
		0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, // next: lodsb; test al,al; jz halt; out dx,al; jmp next
		0xf4, 0xeb, 0xfd, // halt: hlt; jmp halt
	}, text+"\x00"...)
}

// A guest that cannot be used ends its boot at once, with an error that says what
// happened and quotes the console safely.
func TestHostileGuests(t *testing.T) {
	needs.Tools(t, "qemu-system-x86_64", "qemu-img")
	for _, tt := range []struct {
		name string
		code []byte // nil for an empty disk
		want GuestError
	}{
		{"nothing on the disk", nil, GuestError{NotBootable, "boot loader", "No bootable device."}},
		{"reboot loop", []byte{0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfd}, GuestError{RebootLoop, "boot loader", ""}},
		{"power-off", []byte{0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd}, GuestError{PoweredOff, "boot loader", ""}},
		{"endless", []byte{0xba, 0xf8, 0x03, 0xb0, 'x', 0xee, 0xeb, 0xfd}, GuestError{Endless, "boot loader", ""}},
		{"panic", say("[    0.0] Linux version 6.1\n[    1.2] Kernel panic - not syncing: \x1b[31mVFS\u202e\x07\r\n"),
			GuestError{Panicked, "kernel", `[    1.2] Kernel panic - not syncing: VFS\u202e\a`}},
		{"initramfs", say("Linux version 6.1\nBegin: Running /scripts/local-premount ...\n(initramfs) "), GuestError{Emergency, "init", "(initramfs)"}},
		{"emergency", say("Linux version 6.1\nsystemd[1]: x\nYou are in emergency mode. After logging in\n"),
			GuestError{Emergency, "init", "You are in emergency mode. After logging in"}},
		{"no data source", say("Linux version 6.1\n[   30.1] cloud-init[500]: Cloud-init v. 22.4.2 finished at Wed, 25 Nov 2026 15:00:00 +0000. Datasource DataSourceNone.  Up 30.1 seconds\n"),
			GuestError{NoData, "cloud-init", "[   30.1] cloud-init[500]: Cloud-init v. 22.4.2 finished at Wed, 25 Nov 2026 15:00:00 +0000. Datasource DataSourceNone.  Up 30.1 seconds"}},
		{"grub", say("GRUB loading.\nerror: no such partition.\ngrub rescue> "), GuestError{NotBootable, "boot loader", "grub rescue>"}},
		{"grub without a menu", say("Welcome to GRUB!\n\nerror: file not found.\ngrub> "), GuestError{NotBootable, "boot loader", "grub>"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := box{QEMU{Accel: "tcg", BootTimeout: 5 * time.Minute}, Image{WorkDir: t.TempDir()}}
			_, err := q.boot(t.Context(), bootSector(t, tt.code))
			var guest *GuestError
			require.ErrorAs(t, err, &guest)
			assert.Equal(t, tt.want, *guest)
			require.NotErrorIs(t, err, ErrNoAnswer)
			assertNothingLeft(t, q.WorkDir)
		})
	}
}

// A guest whose kernel runs and that yet lets nobody in is waited for no longer than its
// deadline, and the error says how far it came and what it said.
func TestGuestsThatLetNobodyIn(t *testing.T) {
	short := patience{network: 500 * time.Millisecond, login: time.Hour, attempt: time.Second, hint: time.Second}
	frozen := patience{network: time.Hour, login: 500 * time.Millisecond, attempt: time.Second, hint: time.Second}
	for _, tt := range []struct {
		mode     string
		patience patience
		timeout  time.Duration
		reason   Reason // if empty, ErrNoAnswer
		text     string
	}{
		{"no-network", short, time.Hour, NoNetwork, "it sent nothing to the network (in phase init)"},
		{"frozen", frozen, 10 * time.Minute, Frozen, "its sshd lets nobody in (in phase firmware)"},
		{"no-prompt", short, time.Second, "", `(in phase init): it last said "FAILED \u202eto write: No space left on device"`},
		{"silent", short, time.Second, "", `(in phase firmware): it last said "Debian GNU/Linux 12"`},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			q := helperQEMU(t, tt.mode)
			q.patience, q.BootTimeout = tt.patience, tt.timeout
			_, err := q.boot(t.Context(), qcow2File(t, nil))
			require.ErrorContains(t, err, tt.text)
			var guest *GuestError
			if tt.reason == "" {
				require.ErrorIs(t, err, ErrNoAnswer)
			} else {
				require.ErrorAs(t, err, &guest)
				assert.Equal(t, tt.reason, guest.Reason)
			}
			assert.NotContains(t, err.Error(), "\u202e")
			assertNothingLeft(t, q.WorkDir)
		})
	}
}

// Whom sudo refuses is told at once; who stalls is left when the caller's time ends.
func TestGuestsThatDoNotObey(t *testing.T) {
	for mode, want := range map[string]string{
		"no-sudo": `ended with status 1: it said "sudo: a password\x1b[2J\u202e is required`,
		"stalls":  context.DeadlineExceeded.Error(),
	} {
		t.Run(mode, func(t *testing.T) {
			q := helperQEMU(t, mode)
			m, err := q.boot(t.Context(), qcow2File(t, nil))
			require.NoError(t, err)
			defer func() { assert.NoError(t, m.Close()) }()
			for name, ask := range map[string]func(context.Context) error{
				"reboot":    m.Reboot,
				"power-off": func(ctx context.Context) error { _, err := m.PowerOff(ctx); return err },
				"restart":   func(ctx context.Context) error { return m.Restart(ctx, Restart{MoreBytes: 1}) },
				"later":     func(ctx context.Context) error { return m.Restart(ctx, Restart{Later: time.Hour}) },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				err := ask(ctx)
				cancel()
				require.ErrorContains(t, err, want, name)
				assert.Less(t, len(err.Error()), 1000)
			}
		})
	}
}
