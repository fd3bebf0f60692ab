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

// A DiskSpoil spoils a disk in one way.
type DiskSpoil struct {
	Finding string // what a ledger has to say of it: kind and path
	Shell   string // what does it, in the root of the disk
	Xattr   string // or an extended attribute, NAME=VALUE, of the finding's path
}

// DiskSpoils are ways to spoil a Debian that stands on ext4.
var DiskSpoils = []DiskSpoil{
	{"unexplained /root/.ssh/authorized_keys", "echo key >root/.ssh/authorized_keys; chmod 600 root/.ssh/authorized_keys", ""},
	{"unexplained /etc/skel/.ssh", "mkdir etc/skel/.ssh", ""},
	{"unexplained /etc/sudoers.d/90-service", "echo 'www-data ALL=(ALL) NOPASSWD:ALL' >etc/sudoers.d/90-service; chmod 440 etc/sudoers.d/90-service", ""},
	{"unexplained /usr/bin/.sh", "cp usr/bin/dash usr/bin/.sh; chmod 4755 usr/bin/.sh", ""},
	{"unexplained /etc/ld.so.preload", "echo /usr/lib/libevil.so >etc/ld.so.preload", ""},
	{"unexplained /usr/lib/libevil.so", "cp usr/lib/x86_64-linux-gnu/libcap.so.2.* usr/lib/libevil.so", ""},
	{"unexplained /etc/cron.d/job", "mkdir -p etc/cron.d; echo '* * * * * root id' >etc/cron.d/job", ""},
	{"unexplained /etc/systemd/system/bomb.timer", "printf '[Timer]\nOnBootSec=30d\n' >etc/systemd/system/bomb.timer", ""},
	{"unexplained /etc/systemd/system/ssh.service.d/o.conf", "mkdir etc/systemd/system/ssh.service.d; printf '[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -o PermitRootLogin=yes\n' >etc/systemd/system/ssh.service.d/o.conf", ""},
	{"unexplained /etc/systemd/system/ssh.service.d", "true", ""}, // the directory of the one before
	{"unexplained /usr/lib/systemd/system-generators/g", "echo '#!/bin/sh' >usr/lib/systemd/system-generators/g; chmod 755 usr/lib/systemd/system-generators/g", ""},
	{"unexplained /etc/udev/rules.d/99.rules", "echo 'ACTION==\"add\", RUN+=\"/bin/sh\"' >etc/udev/rules.d/99.rules", ""},
	{"unexplained /etc/profile.d/x.sh", "echo id >etc/profile.d/x.sh", ""},
	{"unexplained /etc/rc.local", "echo '#!/bin/sh' >etc/rc.local; chmod 755 etc/rc.local", ""},
	{"unexplained /etc/apt/apt.conf.d/99hook", "echo 'APT::Update::Pre-Invoke {\"id\";};' >etc/apt/apt.conf.d/99hook", ""},
	{"unexplained /etc/apt/preferences.d/away", "echo 'Package: *' >etc/apt/preferences.d/away", ""},
	{"unexplained /etc/apt/trusted.gpg.d/evil.gpg", "echo key >etc/apt/trusted.gpg.d/evil.gpg", ""},
	{"unexplained /etc/ssh/sshd_config.d/0.conf", "echo 'Match Address 192.0.2.1' >etc/ssh/sshd_config.d/0.conf", ""},
	{"unexplained /etc/ssh/ssh_host_ed25519_key", "echo key >etc/ssh/ssh_host_ed25519_key; chmod 600 etc/ssh/ssh_host_ed25519_key", ""},
	{"unexplained /usr/local/bin/ss", "echo '#!/bin/sh' >usr/local/bin/ss; chmod 755 usr/local/bin/ss", ""},
	{"unexplained /usr/local/lib/python3.11/dist-packages/sitecustomize.py", "echo 'import os' >usr/local/lib/python3.11/dist-packages/sitecustomize.py", ""},
	{"unexplained /usr/lib/python3/dist-packages/evil.pth", "echo 'import os' >usr/lib/python3/dist-packages/evil.pth", ""},
	{"changed /usr/lib/python3/dist-packages/__pycache__/evil.cpython-311.pyc", "echo x >usr/lib/python3/dist-packages/__pycache__/evil.cpython-311.pyc", ""},
	{"unexplained /boot/.hidden", "echo x >boot/.hidden", ""},
	{"unexplained /boot/grub/custom.cfg", "echo 'menuentry x {}' >boot/grub/custom.cfg", ""},
	{"changed /boot/grub/i386-pc/normal.mod", "echo x >>boot/grub/i386-pc/normal.mod", ""},
	{"unexplained \"/etc/a\\nb\"", "echo x >'etc/a\nb'", ""},
	{"unexplained \"/etc/\\xff\"", "echo x >\"etc/$(printf '\\377')\"", ""},
	{"unexplained /opt/mem", "mknod opt/mem c 1 1", ""},
	{"changed /dev/null", "rm dev/null; mknod dev/null c 1 1; chmod 666 dev/null", ""},
	{"unexplained /var/lib/pipe", "mkfifo var/lib/pipe", ""},
	{"unexplained /var/lib/large", "truncate -s 2G var/lib/large", ""},
	{"unexplained /var/cache/.empty", "mkdir var/cache/.empty", ""},
	{"unexplained /root/.aws/credentials", "mkdir root/.aws; echo secret >root/.aws/credentials", ""},
	{"unexplained /root/.aws", "true", ""}, // likewise
	{"unexplained /etc/cloud/cloud.cfg.d/99.cfg", "echo 'password: cloud.1234' >etc/cloud/cloud.cfg.d/99.cfg", ""},
	{"unexplained /var/lib/cloud", "mkdir var/lib/cloud", ""},
	{"changed /usr/bin/passwd", "echo x >>usr/bin/passwd", ""},
	{"changed /usr/sbin/sshd", "cp usr/bin/dash usr/sbin/sshd", ""},
	{"changed /etc/pam.d/common-auth", "echo 'auth sufficient pam_permit.so' >>etc/pam.d/common-auth", ""},
	{"changed /etc/pam.d/sshd", "echo 'auth sufficient pam_permit.so' >>etc/pam.d/sshd", ""},
	{"changed /etc/login.defs", "echo 'UMASK 000' >>etc/login.defs", ""},
	{"changed /etc/nsswitch.conf", "echo 'passwd: files evil' >>etc/nsswitch.conf", ""},
	{"changed /usr/lib/os-release", "echo x >>usr/lib/os-release", ""},
	{"changed /etc/ssl/certs/ca-certificates.crt", "printf -- '-----BEGIN CERTIFICATE-----\nEVIL\n-----END CERTIFICATE-----\n' >>etc/ssl/certs/ca-certificates.crt", ""},
	{"changed /var/lib/dpkg/info/openssh-server.postinst", "echo id >>var/lib/dpkg/info/openssh-server.postinst", ""},
	{"changed /usr/bin/less", "ln -sf /tmp/less usr/bin/less", ""},
	{"changed /etc/alternatives/pager", "ln -sfn /usr/local/bin/ss etc/alternatives/pager", ""},
	{"changed /usr/bin/pager", "true", ""}, // which leads over the one before
	{"changed /etc/systemd/system/rngd.service", "ln -s /dev/null etc/systemd/system/rngd.service", ""},
	{"changed /etc/systemd/system/sysinit.target.wants/debug-shell.service", "ln -s /lib/systemd/system/debug-shell.service etc/systemd/system/sysinit.target.wants/", ""},
	{"changed /etc/machine-id", "echo 0123456789abcdef0123456789abcdef >etc/machine-id", ""},
	{"changed /etc/shadow", "sed -i 's/^root:[^:]*/root:$6$x$y/' etc/shadow", ""},
	{"changed /etc/passwd", "echo 'toor:x:0:0::/root:/bin/sh' >>etc/passwd", ""},
	{"missing /usr/share/base-files/motd", "rm usr/share/base-files/motd", ""},
	{"missing /usr/lib/systemd/system/systemd-journald.service", "rm usr/lib/systemd/system/systemd-journald.service", ""},
	{"permissions /etc/gshadow", "chmod 644 etc/gshadow", ""},
	{"permissions /usr/bin/find", "chmod 4755 usr/bin/find", ""},
	{"permissions /usr/bin/sudo", "chmod 4777 usr/bin/sudo", ""},
	{"permissions /usr/bin/curl", "chown 1000 usr/bin/curl", ""},
	{"permissions /etc/cron.daily", "chmod 777 etc/cron.daily", ""},
	{"permissions /usr/bin/gzip", "", "security.capability=\x01\x00\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"},
	{"permissions /usr/bin/tar", "", "user.note=x"},
	{"permissions /etc/default/grub", "", "system.posix_acl_access=\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x06\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"},
	{"unexplained /usr/bin/chage", "printf '/usr/bin/chage\n/usr/bin/chage.real\nlogin\n' >>var/lib/dpkg/diversions", ""},
	{"unsigned \"evil\\x201.0\\x20amd64\"", "printf '\nPackage: evil\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n' >>var/lib/dpkg/status", ""},
}

// Disk returns the path of a copy of a qcow2 image that has all of DiskSpoils.
// It needs root, a loop device and ext4.
func Disk(t testing.TB, image string) string {
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
	for _, s := range DiskSpoils {
		if s.Shell != "" {
			// With the disk as its root, so that no link of the image leads to the
			// host's files.
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-euc", "umask 022; "+s.Shell)
			cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: root}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("cannot spoil the disk: %s: %v: %s", s.Shell, err, out)
			}
			continue
		}
		_, name, _ := strings.Cut(s.Finding, " ")
		key, value, _ := strings.Cut(s.Xattr, "=")
		if err := syscall.Setxattr(filepath.Join(root, name), key, []byte(value), 0); err != nil {
			t.Fatalf("cannot spoil the disk: %s of %s: %v", key, name, err)
		}
	}
	free()
	run(t, tools[0], "convert", "-f", "raw", "-O", "qcow2", raw, bad)
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
	return bad
}
