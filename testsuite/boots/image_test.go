package boots_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
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
)

// imageEnv names a good image; without it, these tests have nothing to boot.
const imageEnv = "IMAGEFACTORY_TEST_IMAGE"

// spoils break an image so that each names the checks that fail, and no other does: what
// is wrong shows only beside a second machine, or after a restart.
func spoils(t *testing.T) []spoil.Spoil {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	key, public := string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return []spoil.Spoil{
		{Name: "one machine-id for all", Do: "echo 0123456789abcdef0123456789abcdef >/etc/machine-id", Fails: map[string]string{"boots.machine-id": "first and second have 0123456789abcdef"}},
		{Name: "one host key for all", Do: "cat >/etc/ssh/ssh_host_ed25519_key <<X\n" + key + "X\nchmod 600 /etc/ssh/ssh_host_ed25519_key\necho '" + public + `' >/etc/ssh/ssh_host_ed25519_key.pub
echo 'ssh_deletekeys: false' >/etc/cloud/cloud.cfg.d/99-keys.cfg`, Fails: map[string]string{"boots.host-keys": "first and second have SHA256:"}},
		{Name: "one random seed for all", Do: `printf '%0512d' 7 >/var/lib/systemd/random-seed
ln -sf /dev/null /etc/systemd/system/systemd-random-seed.service`, Fails: map[string]string{"boots.random-seed": "first and second have"}},
		{Name: "the root file system does not grow", Do: `printf 'growpart: {mode: "off"}\nresize_rootfs: false\n' >/etc/cloud/cloud.cfg.d/99-grow.cfg`, Fails: map[string]string{"boots.root-grows": "MiB, after"}},
		{Name: "vendor-data is not heeded", Do: `echo 'vendor_data: {enabled: false}' >/etc/cloud/cloud.cfg.d/99-vendor.cfg`, Fails: map[string]string{"boots.vendor-data": "second: nothing came of it"}},
	}
}

func TestMachinesOfImage(t *testing.T) {
	image := os.Getenv(imageEnv)
	if image == "" {
		t.Skip(imageEnv + " names no image")
	}
	needs.Tools(t, "qemu-system-x86_64", "qemu-img")
	t.Run("good", func(t *testing.T) {
		for _, r := range judged(t, image).Checks {
			assert.Equal(t, testsuite.Pass, r.Status, "%s: %s%s", r.ID, r.Reason, r.Found)
		}
	})
	t.Run("spoiled", func(t *testing.T) {
		fails, rows := map[string]string{}, spoils(t)
		for _, s := range rows {
			for check, text := range s.Fails {
				fails[check] = text
			}
		}
		for _, r := range judged(t, spoil.Disk(t, image, rows)).Checks {
			text, bad := fails[r.ID]
			if !bad {
				assert.Equal(t, testsuite.Pass, r.Status, "%s: %s%s", r.ID, r.Reason, r.Found)
				continue
			}
			assert.Equal(t, testsuite.Fail, r.Status, r.ID)
			assert.Contains(t, r.Found, text, r.ID)
		}
	})
}

// judged makes the machines of the default set and judges them.
func judged(t *testing.T, path string) *testsuite.Report {
	t.Helper()
	image := sandbox.Image{Path: path, WorkDir: t.TempDir(), ConsoleLog: filepath.Join(t.TempDir(), "console.log"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	others := boots.Start(t.Context(), boots.Config{Sandbox: sandbox.QEMU{}, Image: image})
	defer func() { assert.NoError(t, others.Close()) }()
	image.Variant = others.First
	machine, err := sandbox.QEMU{}.Boot(t.Context(), image)
	require.NoError(t, err)
	defer func() { assert.NoError(t, machine.Close()) }()
	suite := testsuite.Suite{Profile: testsuite.Profile{Name: "boots", Checks: boots.Checks()}, Facts: []string{"identity"}}
	facts, err := suite.Gather(t.Context(), machine.Target)
	require.NoError(t, err)
	facts.Facts[boots.FactName], err = others.Fact(t.Context(), machine, facts)
	require.NoError(t, err)
	t.Log(facts.Facts[boots.FactName].Output)
	report, err := suite.Judge(facts)
	require.NoError(t, err)
	require.NoError(t, report.WriteText(t.Output()))
	left, err := os.ReadDir(image.WorkDir)
	require.NoError(t, err)
	assert.Len(t, left, 1, "only the first machine still runs")
	return report
}
