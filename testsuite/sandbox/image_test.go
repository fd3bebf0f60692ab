package sandbox_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/spoil"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// imageEnv names a good image to boot. The end-to-end test of the module
// builds one; without it, these tests have nothing to boot.
const imageEnv = "IMAGEFACTORY_TEST_IMAGE"

func testImage(t *testing.T) string {
	t.Helper()
	image := os.Getenv(imageEnv)
	if image == "" {
		t.Skip(imageEnv + " names no image; the end-to-end test boots the one that it builds")
	}
	needs.Tools(t, "qemu-system-x86_64", "qemu-img")
	return image
}

func digest(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	h := sha256.New()
	_, err = io.Copy(h, f)
	require.NoError(t, err)
	return h.Sum(nil)
}

// bad boots an image and returns what the profile otc finds wrong with it. The
// image's own parameters are those of examples/nightly.
func bad(t *testing.T, image string) []string {
	t.Helper()
	content := digest(t, image)
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	work := t.TempDir()
	q := sandbox.Image{Path: image, WorkDir: work, Logger: logger, ConsoleLog: filepath.Join(t.TempDir(), "console.log"),
		TimeServers: []string{"ntp01.otc-service.com", "ntp02.otc-service.com"}}
	m, err := sandbox.QEMU{}.Boot(t.Context(), q)
	require.NoError(t, err)
	defer func() { _ = m.Close() }()
	const look = "ls -lanR --time-style=+ /root; ls -1A /run; cat /root/.ssh/*"
	before := asRoot(t, m.Target, look)
	suite := testsuite.Suite{Profile: testsuite.OTC(), Logger: logger, Params: testsuite.Params{
		Hostname:     m.Hostname,
		NTPServers:   []string{"ntp01.otc-service.com", "ntp02.otc-service.com"},
		DiskBytes:    m.ImageBytes,
		OverlayBytes: m.DiskBytes,
		UVPMonitor:   testsuite.UVPMonitor{State: testsuite.UVPOptional, Reason: "not in Debian's archive"},
		Repositories: []testsuite.Repository{
			{URL: "http://debmirror.otc-service.com/debian", Suites: []string{"bookworm", "bookworm-updates"}},
			{URL: "http://debmirror.otc-service.com/debian-security", Suites: []string{"bookworm-security"}},
		},
	}}
	report, err := suite.Run(t.Context(), m.Target)
	require.NoError(t, err)
	assert.Equal(t, before, asRoot(t, m.Target, look), "gathering left something behind")
	assertNoWayOut(t, m.Target) // only now: the witness sees it too
	require.NoError(t, m.Close())
	require.NoError(t, report.WriteText(t.Output()))

	left, err := os.ReadDir(work)
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.Equal(t, content, digest(t, image), "the image was changed")
	log, err := os.ReadFile(q.ConsoleLog)
	require.NoError(t, err)
	require.NotEmpty(t, m.Target.Password)
	assert.NotContains(t, string(log), m.Target.Password)
	var ids []string
	for _, r := range report.Bad() {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

// asRoot runs a command in the guest.
func asRoot(t *testing.T, target testsuite.Target, command string) string {
	t.Helper()
	client, err := sshconn.Dial(t.Context(), sshconn.Config{
		Address: target.Address, User: target.User, HostKey: target.HostKey, Auth: []ssh.AuthMethod{ssh.PublicKeys(target.Signer)},
	})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	res, err := sshconn.Run(t.Context(), client, "sudo -n bash -s", strings.NewReader(command), 1<<20)
	require.NoError(t, err)
	return string(res.Stdout)
}

// assertNoWayOut has the guest try to reach a port of the host's loopback,
// at the addresses where a network of QEMU's own or of ours could show it. That
// the guest can try at all is seen by its own sshd.
func assertNoWayOut(t *testing.T, target testsuite.Target) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	const try = "timeout 5 bash -c 'exec 3<>/dev/tcp/%s/%s' 2>/dev/null && echo %[1]s reached\n"
	script := fmt.Sprintf(try, "127.0.0.1", "22")
	for _, host := range []string{"10.0.2.2", "192.168.0.1", "127.0.0.2", "203.0.113.7"} {
		script += fmt.Sprintf(try, host, port)
	}
	accepted := make(chan struct{})
	go func() {
		if conn, err := l.Accept(); err == nil {
			_ = conn.Close()
			close(accepted)
		}
	}()
	// The network takes every connection, to hear what the guest says; the host gets none.
	assert.Contains(t, asRoot(t, target, script), "127.0.0.1 reached\n")
	select {
	case <-accepted:
		t.Error("the guest reached the host's loopback")
	default:
	}
}

func TestBootImage(t *testing.T) {
	assert.Empty(t, bad(t, testImage(t)))
}

func TestBootSpoiledImage(t *testing.T) {
	assert.Equal(t, spoil.Checks(), bad(t, spoil.Image(t, testImage(t))))
}

// cloudConfig has cloud-init leave a file.
func cloudConfig(name string) []byte {
	return []byte("#cloud-config\nwrite_files: [{path: /run/data-" + name + ", content: applied}]\n")
}

// What the machines of flavors have, and what clouds tell them by: each is seen from
// inside the guest.
func TestBootVariants(t *testing.T) {
	image := testImage(t)
	for name, row := range map[string]struct {
		variant sandbox.Variant
		want    string
	}{
		"SCSI, e1000e, a config drive": {
			sandbox.Variant{Disk: sandbox.VirtioSCSI, NIC: sandbox.E1000E, DataSource: sandbox.ConfigDrive, CPUs: 1, UserData: cloudConfig("user")},
			"sda e1000e DataSourceConfigDrive OpenStack Nova OpenTelekomCloud user 1",
		},
		"NVMe, the metadata service": {
			sandbox.Variant{Disk: sandbox.NVMe, DataSource: sandbox.OpenStack, CPUs: 2, VendorData: cloudConfig("vendor")},
			"nvme0n1 virtio_net DataSourceOpenStackLocal OpenStack Nova OpenTelekomCloud vendor 2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "console.log")
			m, err := sandbox.QEMU{}.Boot(t.Context(), sandbox.Image{
				Path: image, WorkDir: t.TempDir(), ConsoleLog: log, Variant: row.variant, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
			})
			if boot := (*sandbox.BootError)(nil); errors.As(err, &boot) {
				t.Log(boot.Console)
			}
			require.NoError(t, err)
			defer func() { assert.NoError(t, m.Close()) }()
			const look = `exec 2>/dev/null; cloud-init status --wait >/dev/null
root=$(findmnt -n -o SOURCE /); echo $(lsblk -n -o PKNAME $root) \
$(basename $(readlink /sys/class/net/e*/device/driver)) \
$(sed -n 's/.*"datasource": "\([A-Za-z]*\).*/\1/p' /run/cloud-init/result.json) $(cat /sys/class/dmi/id/product_name /sys/class/dmi/id/chassis_asset_tag) \
$(ls /run | sed -n 's/^data-//p') $(nproc)`
			assert.Equal(t, row.want, strings.TrimSpace(asRoot(t, m.Target, look)))
			if row.variant.Disk != sandbox.VirtioSCSI {
				return
			}
			const identity = "cat /etc/machine-id /etc/ssh/ssh_host_*.pub"
			before := asRoot(t, m.Target, identity)
			require.NoError(t, m.Restart(t.Context(), sandbox.Restart{MoreBytes: 1 << 30}))
			assert.Equal(t, before, asRoot(t, m.Target, identity))
			assert.Equal(t, fmt.Sprint(m.DiskBytes), strings.TrimSpace(asRoot(t, m.Target, "lsblk -b -d -n -o SIZE /dev/sda")))
		})
	}
}
