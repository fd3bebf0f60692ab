package spoil

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// Disk returns the path of a copy of a qcow2 image, a Debian that stands on ext4,
// on which rows are done. It needs root, a loop device and ext4.
func Disk(t testing.TB, image string, rows []Spoil) string {
	t.Helper()
	tools := needs.Tools(t, "qemu-img", "partx", "losetup", "mount", "umount")
	needs.Root(t)
	dir := t.TempDir()
	raw, bad, root := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "root")
	run(t, tools[0], "convert", "-f", "qcow2", "-O", "raw", image, raw)
	offset := largestPartition(t, run(t, tools[1], "-g", "-b", "-o", "START,SIZE", raw))
	loop := strings.TrimSpace(run(t, tools[2], "--find", "--show", "--offset", fmt.Sprint(offset), raw))
	mounted := false
	free := func() {
		if mounted {
			run(t, tools[4], root)
		}
		if loop != "" {
			run(t, tools[2], "--detach", loop)
		}
		mounted, loop = false, ""
	}
	defer free()
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, tools[3], "-t", "ext4", "-o", "nosuid,nodev", loop, root)
	mounted = true
	for _, s := range rows {
		// With the disk as its root, so that no link of the image leads to the
		// host's files.
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-euc", s.script())
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: root}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cannot spoil the disk: %s: %v: %s", s.Name, err, out)
		}
	}
	free()
	run(t, tools[0], "convert", "-f", "raw", "-O", "qcow2", raw, bad)
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
	return bad
}

// Boot returns the path of a copy of an image, as Disk, whose first boot does rows,
// after it has made the login user and shown the password.
func Boot(t testing.TB, image string, rows []Spoil) string {
	t.Helper()
	const unit = `[Unit]
After=cloud-config.service otc-console-password.service
Before=cloud-final.service
ConditionPathExists=!/var/lib/cloud/instance/sem/config_scripts_user
[Service]
Type=oneshot
ExecStart=/bin/sh /usr/lib/first-boot
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
`
	plant := Spoil{Name: "what the first boot does", Do: "cat >usr/lib/first-boot <<'END OF SCRIPT'\n" + Script(rows) + "\nEND OF SCRIPT\n" +
		"cat >etc/systemd/system/first-boot.service <<'END OF UNIT'\n" + unit + "END OF UNIT\n" +
		"ln -s ../first-boot.service etc/systemd/system/multi-user.target.wants/\n"}
	return Disk(t, image, []Spoil{plant})
}
