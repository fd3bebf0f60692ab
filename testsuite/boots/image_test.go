package boots_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"log/slog"
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
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// imageEnv names a good image; without it, these tests have nothing to boot.
const imageEnv = "IMAGEFACTORY_TEST_IMAGE"

// A batch are rows that share an image and a set of machines.
type batch struct {
	name string
	set  boots.Set
	rows []spoil.Spoil
	// stand has the first machine not made: the rows keep the second from starting.
	stand bool
}

// batches break an image so that each row's checks fail, and no other does: what is
// wrong shows only beside another machine, or after a restart.
func batches(t *testing.T) []batch {
	t.Helper()
	return []batch{
		{name: "spoiled", set: boots.Default, rows: append(spoiledIdentity(t), spoiledStarts()...)},
		{name: "for some machines only", set: boots.All, rows: []spoil.Spoil{
			{
				Name:  "a mark of the first start is left in the image",
				Do:    "mkdir -p /var/lib/otc\necho 'none none' >/var/lib/otc/console-password",
				Fails: map[string]string{"boots.password": "first: its console shows none"},
			},
			{
				Name: "the initial RAM disk lacks virtio-scsi",
				Do: `version=$(ls /lib/modules | tail -n 1)
dir=usr/lib/modules/$version/kernel/drivers/scsi
initrd=/boot/initrd.img-$version
mkdir -p /tmp/more/$dir
: >/tmp/more/$dir/virtio_scsi.ko
truncate -s %4 "$initrd"
(cd /tmp/more && find usr | cpio --quiet -o -H newc) >>"$initrd"
rm -r /tmp/more`,
				Fails: map[string]string{"boots.started": "second: "},
			},
			{
				Name:  "few data sources",
				Do:    "echo 'datasource_list: [NoCloud, ConfigDrive, None]' >/etc/cloud/cloud.cfg.d/99-sources.cfg",
				Fails: map[string]string{"boots.started": "flavor: "},
			},
		}},
		{name: "the network card has one name", set: boots.Default, stand: true, rows: []spoil.Spoil{{
			Name: "a network for one card",
			Do: `printf '[Match]\nName=enp0s16\n[Network]\nDHCP=yes\n' >/etc/systemd/network/00-one.network
printf '[Match]\nName=en* eth*\n[Link]\nUnmanaged=yes\n' >/etc/systemd/network/01-none.network`,
			Fails: map[string]string{"boots.started": "it sent nothing to the network"},
		}}},
		{name: "the disk has one name", set: boots.Default, stand: true, rows: []spoil.Spoil{{
			Name: "a root file system by its disk's name",
			Do: `sed -i 's|root=[A-Z]*=[^ ]*|root=/dev/vda1|' /boot/grub/grub.cfg
grep -q root=/dev/vda1 /boot/grub/grub.cfg`,
			Fails: map[string]string{"boots.started": "it stopped at a shell for emergencies"},
		}}},
	}
}

// spoiledIdentity are rows of what two machines have of their own.
func spoiledIdentity(t *testing.T) []spoil.Spoil {
	t.Helper()
	return []spoil.Spoil{
		{
			Name:  "one machine-id for all",
			Do:    "echo 0123456789abcdef0123456789abcdef >/etc/machine-id",
			Fails: map[string]string{"boots.machine-id": "first and second have 0123456789abcdef"},
		},
		{Name: "one host key for all", Do: hostKey(t), Fails: map[string]string{"boots.host-keys": "first and second have SHA256:"}},
		{
			Name: "one random seed for all",
			Do: `printf '%0512d' 7 >/var/lib/systemd/random-seed
ln -sf /dev/null /etc/systemd/system/systemd-random-seed.service`,
			Fails: map[string]string{"boots.random-seed": "first and second have"},
		},
		{
			Name: "a password that the instance ID tells",
			Do: `sed -i 's/^password=.*/password=$(echo "$instance" | sha256sum | cut -c 1-16)/' /usr/lib/otc/console-password
grep -q sha256sum /usr/lib/otc/console-password`,
			Fails: map[string]string{"boots.password": "first and second have the same"},
		},
		{
			Name:  "the root file system does not grow",
			Do:    `printf 'growpart: {mode: "off"}\nresize_rootfs: false\n' >/etc/cloud/cloud.cfg.d/99-grow.cfg`,
			Fails: map[string]string{"boots.root-grows": "MiB, after"},
		},
		{
			Name:  "vendor-data is not heeded",
			Do:    `echo 'vendor_data: {enabled: false}' >/etc/cloud/cloud.cfg.d/99-vendor.cfg`,
			Fails: map[string]string{"boots.vendor-data": "second: nothing came of it"},
		},
		{
			Name:  "user-data's commands are not run",
			Do:    `echo 'cloud_final_modules: [ssh-authkey-fingerprints, keys-to-console, final-message]' >/etc/cloud/cloud.cfg.d/99-final.cfg`,
			Fails: map[string]string{"boots.user-data": "second: nothing came of it"},
		},
	}
}

// spoiledStarts are rows of what a later start does, or a later day.
func spoiledStarts() []spoil.Spoil {
	return []spoil.Spoil{
		{
			Name: "a host key is made anew at each start",
			Do: unit("remake", "Before=ssh.service", `[ ! -e /var/lib/remake ] || { rm /etc/ssh/ssh_host_rsa_key*; ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/ssh_host_rsa_key; }
touch /var/lib/remake`),
			Fails: map[string]string{"boots.identity-stays": "hostkey was"},
		},
		{
			Name: "a port is open from the second start on",
			Do: unit("open", "After=network.target", `[ ! -e /var/lib/open ] || systemd-run python3 -m http.server 8099
touch /var/lib/open`),
			Fails: map[string]string{"boots.stays-good": "net.listeners-tcp: "},
		},
		{
			Name: "sshd is another from the second start on",
			Do: unit("change", "Before=ssh.service", `[ ! -e /var/lib/change ] || echo 'PermitRootLogin yes' >/etc/ssh/sshd_config.d/00-change.conf
touch /var/lib/change`),
			Fails: map[string]string{"boots.stays-good": "sshd.permit-root-login: "},
		},
		{
			Name: "a timer in three days",
			Do: `date=$(date -u -d '+3 days' '+%F %T')
printf '[Timer]\nOnCalendar=%s UTC\n' "$date" >/etc/systemd/system/bomb.timer
printf '[Service]\nType=oneshot\nExecStart=/bin/sh -c "echo net.ipv4.conf.all.accept_redirects=1 >/etc/sysctl.d/zz-bomb.conf"\n' >/etc/systemd/system/bomb.service
mkdir -p /etc/systemd/system/timers.target.wants
ln -s ../bomb.timer /etc/systemd/system/timers.target.wants/`,
			Fails: map[string]string{"boots.stays-good": "sysctl.accept-redirects: "},
		},
		{
			Name: "twice as slow",
			Do: unit("slow", "After=cloud-config.service\nBefore=cloud-final.service", `read -r up _ </proc/uptime
sleep "${up%.*}"`),
			Fails: map[string]string{"boots.time": "slow.service"},
		},
		{
			Name: "units wait for one another",
			Do: `cd /etc/systemd/system
printf '[Unit]\nAfter=egg.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n' >hen.service
printf '[Unit]\nAfter=hen.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n' >egg.service
ln -s ../hen.service ../egg.service multi-user.target.wants/`,
			Fails: map[string]string{"boots.console": "rdering cycle"},
		},
	}
}

// hostKey puts a host key into the image that every machine keeps.
func hostKey(t *testing.T) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	return "cat >/etc/ssh/ssh_host_ed25519_key <<X\n" + string(pem.EncodeToMemory(block)) + "X\nchmod 600 /etc/ssh/ssh_host_ed25519_key\necho '" +
		strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + "' >/etc/ssh/ssh_host_ed25519_key.pub\n" +
		"echo 'ssh_deletekeys: false' >/etc/cloud/cloud.cfg.d/99-keys.cfg"
}

// unit has each boot run a script.
func unit(name, order, script string) string {
	return strings.NewReplacer("NAME", name, "ORDER", order, "SCRIPT", script).Replace(`cat >/usr/lib/NAME <<'X'
SCRIPT
X
cat >/etc/systemd/system/NAME.service <<'X'
[Unit]
ORDER
[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=infinity
ExecStart=/bin/sh /usr/lib/NAME
X
ln -s ../NAME.service /etc/systemd/system/multi-user.target.wants/`)
}

func TestMachinesOfImage(t *testing.T) {
	image := os.Getenv(imageEnv)
	if image == "" {
		t.Skip(imageEnv + " names no image")
	}
	needs.Tools(t, "qemu-system-x86_64", "qemu-img")
	before := ""
	t.Run("good", func(t *testing.T) {
		report, fact := judged(t, image, batch{set: boots.All}, "")
		before = fact
		for _, r := range report.Checks {
			if r.ID == "boots.time" { // there is nothing to compare with
				assert.Contains(t, r.Found, "second: ")
				continue
			}
			assert.Equal(t, testsuite.Pass, r.Status, "%s: %s%s", r.ID, r.Reason, r.Found)
		}
	})
	for _, b := range batches(t) {
		t.Run(b.name, func(t *testing.T) {
			report, _ := judged(t, spoil.Disk(t, image, b.rows), b, before)
			var found []spoil.Finding
			for _, r := range report.Checks {
				// What a machine that is not there does not show is no finding.
				if r.Status == testsuite.Fail || r.Status == testsuite.Error && !strings.Contains(r.Reason, "boots.started") {
					found = append(found, spoil.Finding{Check: r.ID, Text: r.Found + r.Reason})
				}
			}
			assert.NoError(t, spoil.Compare(b.rows, found))
		})
	}
}

// judged makes the machines of a batch and judges them. The profile has what a restart is
// to leave as it is.
func judged(t *testing.T, path string, b batch, before string) (*testsuite.Report, string) {
	t.Helper()
	image := sandbox.Image{Path: path, WorkDir: t.TempDir(), ConsoleLog: filepath.Join(t.TempDir(), "console.log"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	suite := &testsuite.Suite{Profile: testsuite.Profile{Name: "boots", Checks: boots.Checks()}, Facts: []string{"identity"}, ReadOnly: true}
	for _, c := range testsuite.OTC().Checks {
		for _, prefix := range []string{"net.listeners-tcp", "sshd.p", "sysctl.", "users.", "system.failed"} {
			if strings.HasPrefix(c.ID, prefix) && !slices.Contains(c.Needs, "sysctl-next") {
				suite.Profile.Checks = append(suite.Profile.Checks, c)
			}
		}
	}
	others := boots.Start(t.Context(), boots.Config{Sandbox: sandbox.QEMU{}, Image: image, Set: b.set, Suite: suite, Before: before})
	defer func() { assert.NoError(t, others.Close()) }()
	var box sandbox.Sandbox = sandbox.QEMU{}
	facts := testsuite.Facts{Facts: sandboxtest.Good()}
	if b.stand {
		box = sandboxtest.Sandbox{}
	}
	first := image
	first.Variant = others.First
	machine, err := box.Boot(t.Context(), first)
	require.NoError(t, err)
	defer func() { assert.NoError(t, machine.Close()) }()
	if !b.stand {
		facts, err = suite.Gather(t.Context(), machine.Target)
		require.NoError(t, err)
	}
	facts.Facts[boots.FactName], err = others.Fact(t.Context(), machine, facts)
	require.NoError(t, err)
	t.Log(facts.Facts[boots.FactName].Output)
	suite.Profile.Checks = boots.Checks()
	report, err := suite.Judge(facts)
	require.NoError(t, err)
	require.NoError(t, report.WriteText(t.Output()))
	return report, facts.Facts[boots.FactName].Output
}
