// Package spoil makes a bad copy of a good image, for tests that have to see
// it refused.
package spoil

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// files are what a spoiled image has more than a good one. The first value
// that sshd reads counts, and the last one that sysctl does: hence the names.
var files = map[string]string{
	"/etc/ssh/sshd_config.d/0-spoiled.conf": "PasswordAuthentication yes\nPermitRootLogin yes\n" +
		"MACs hmac-sha1,hmac-sha2-512-etm@openssh.com\n",
	"/etc/sysctl.d/zz-spoiled.conf":        "net.ipv4.conf.all.accept_redirects = 1\n",
	"/etc/systemd/system/spoiled.socket":   "[Socket]\nListenStream=8080\nAccept=yes\n",
	"/etc/systemd/system/spoiled@.service": "[Service]\nExecStart=/bin/true\nStandardInput=socket\n",
}

// links are its symbolic links: the second listener starts, rngd does not,
// whatever the distribution calls its unit.
var links = map[string]string{
	"/etc/systemd/system/sockets.target.wants/spoiled.socket": "/etc/systemd/system/spoiled.socket",
	"/etc/systemd/system/rngd.service":                        "/dev/null",
	"/etc/systemd/system/rng-tools.service":                   "/dev/null",
	"/etc/systemd/system/rng-tools5.service":                  "/dev/null",
	"/etc/systemd/system/rng-tools-debian.service":            "/dev/null",
}

// Checks are the IDs of the checks of profile otc that a spoiled image fails,
// sorted, given that the good one fails none.
func Checks() []string {
	return []string{
		"entropy.rngd",
		"entropy.source",
		"net.listeners-tcp",
		"net.ports-outside",
		"sshd.macs",
		"sshd.offered-macs",
		"sshd.password-authentication",
		"sshd.password-login",
		"sshd.permit-root-login",
		"sshd.root-login",
		"sysctl.accept-redirects",
		"sysctl.next-boot",
	}
}

// Image returns the path of a spoiled copy of a qcow2 image whose largest
// partition is an ext4 root file system. It needs qemu-img, partx and debugfs,
// but neither root nor a loop device. The copy goes with the test.
func Image(t testing.TB, image string) string {
	t.Helper()
	tools := needs.Tools(t, "qemu-img", "partx", "debugfs")
	dir := t.TempDir()
	raw, bad := filepath.Join(dir, "spoiled.raw"), filepath.Join(dir, "spoiled.qcow2")
	run(t, tools[0], "convert", "-f", "qcow2", "-O", "raw", image, raw)
	offset := largestPartition(t, run(t, tools[1], "-g", "-b", "-o", "START,SIZE", raw))
	commands := filepath.Join(dir, "commands")
	if err := os.WriteFile(commands, []byte(script(t, dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	fs := fmt.Sprintf("%s?offset=%d", raw, offset)
	run(t, tools[2], "-w", "-f", commands, fs)
	for path, content := range files { // debugfs succeeds whatever its commands do
		if got := run(t, tools[2], "-R", "cat "+path, fs); got != content {
			t.Fatalf("cannot spoil %s: %s holds %q", image, path, got)
		}
	}
	run(t, tools[0], "convert", "-f", "raw", "-O", "qcow2", raw, bad)
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
	return bad
}

func script(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	source := filepath.Join(dir, "source")
	for path, content := range files {
		name := source + strconv.Itoa(len(b.String()))
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "write %s %s\nsif %s mode 0100644\n", name, path, path)
	}
	b.WriteString("mkdir /etc/systemd/system/sockets.target.wants\n")
	for path, target := range links {
		fmt.Fprintf(&b, "rm %s\nsymlink %s %s\n", path, path, target)
	}
	return b.String()
}

// largestPartition reads partx's lines of start sector and size in bytes.
func largestPartition(t testing.TB, lines string) (offset int64) {
	t.Helper()
	var largest int64
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		start, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if size > largest {
			largest, offset = size, start*512
		}
	}
	if largest == 0 {
		t.Fatalf("cannot find a partition in %q", lines)
	}
	return offset
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot run %s %s: %v: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}
