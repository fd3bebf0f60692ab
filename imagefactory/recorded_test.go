package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// Which driver an image has, in which package and from which version on, is demanded
// of a build.
func TestVersionOfIxgbevfIsDemanded(t *testing.T) {
	for _, test := range []struct{ image, name, good, old string }{
		{"Standard_openSUSE_15", "ixgbevf216-kmp-default", "2.16.4_k4.12.14_lp150.11-1.1", "2.16.1_k4.12.14_lp150.11-1.1"},
		{"Enterprise_SLES12_SP3", "ixgbevf216-kmp-default", "2.16.4_k4.4.73_5-3.1", "2.16.1_k4.4.73_5-3.1"},
		{"Enterprise_SLES11_SP4", "ixgbevf216-kmp-default", "2.16.1_3.0.101_63-1.1", "2.12.1_3.0.101_63-1.1"},
		{"Standard_CentOS_6", "kmod-ixgbevf216", "2.16.4-4.1", "2.12.1k-4.1"},
		{"Standard_CentOS_7", "kmod-ixgbevf216", "2.16.4-4.1", "2.16.3-9.1"},
		{"Standard_EulerOS_2", "kmod-ixgbevf216", "2.16.4-4.1", "2.16.3-9.1"},
		{"Enterprise_OracleLinux_6", "kmod-ixgbevf216", "2.16.4-4.1", "2.12.1k-4.1"},
		{"Enterprise_OracleLinux_7", "kmod-ixgbevf216", "2.16.4-4.1", "2.16.3-9.1"},
	} {
		e, err := LookupImage(test.image)
		require.NoError(t, err)
		d := e.Definition()
		with := func(name, version string) []builder.Package {
			packages := []builder.Package{{Name: name, Version: version, Arch: "x86_64"}}
			for _, other := range relationNames(e.RequiredPackages) {
				if other != test.name {
					packages = append(packages, builder.Package{Name: other, Version: "1-1", Arch: "x86_64"})
				}
			}
			return packages
		}
		assert.Empty(t, d.packageFindings(with(test.name, test.good)), test.image)
		for text, packages := range map[string][]builder.Package{
			" is required, " + test.old + " is installed": with(test.name, test.old),
			" is required and not installed":              with("ixgbevf", "4.5.3-1"), // packaged otherwise
		} {
			found := d.packageFindings(packages)
			if assert.Len(t, found, 1, test.image) {
				assert.Contains(t, found[0].Text, test.name+" >= 2.16.", test.image)
				assert.Contains(t, found[0].Text, text, test.image)
			}
		}
	}
}

func TestVolumesAreDemandedOfTheDisk(t *testing.T) {
	volume := func(types ...string) *guestdisk.Content {
		c := &guestdisk.Content{Type: "LVM2_member", VolumeGroup: "vg"}
		for _, typ := range types {
			v := guestdisk.Volume{Name: "lv"}
			if typ != "" {
				v.Content = &guestdisk.Content{Type: typ}
			}
			c.Volumes = append(c.Volumes, v)
		}
		return c
	}
	partition := func(c *guestdisk.Content) *guestdisk.Disk {
		return &guestdisk.Disk{Partitions: []guestdisk.Partition{{Number: 1}, {Number: 2, Content: c}}}
	}
	for name, test := range map[string]struct {
		disk *guestdisk.Disk
		want bool
	}{
		"an empty disk":              {&guestdisk.Disk{}, false},
		"a file system":              {partition(&guestdisk.Content{Type: "ext4"}), false},
		"a group without volumes":    {partition(volume()), false},
		"swap alone":                 {partition(volume("swap")), false},
		"root and swap":              {partition(volume("swap", "xfs")), true},
		"ext3":                       {partition(volume("ext3")), true},
		"a volume of several pieces": {partition(volume("")), true},
		"a group on the whole disk":  {&guestdisk.Disk{Content: volume("ext4")}, true},
		"a disk without a table":     {&guestdisk.Disk{Content: &guestdisk.Content{Type: "xfs"}}, false},
	} {
		assert.Equal(t, test.want, hasVolumes(test.disk), name)
	}

	f, d := embedded(t)
	f.Sandbox = noBoot{t}
	d.LVM = true
	got := night(t, f, d)
	require.Equal(t, StageInspect, got.Stage)
	require.Contains(t, got.Error, "inspection.lvm (high): no volume group on the disk has a volume for a file system, the definition says lvm")
}

// growing is a sandbox whose machine has grown its root file system only when it was
// started again.
type growing struct {
	boots      *int
	stays      error // why it does not start again
	onlyOnce   bool  // it cannot be asked to
	grownBytes int64
}

func (g growing) Boot(ctx context.Context, image sandbox.Image) (*sandbox.Machine, error) {
	if image.Variant.DataSource != "" { // one of the others
		return sandboxtest.Sandbox{}.Boot(ctx, image)
	}
	*g.boots++
	box := sandboxtest.Sandbox{}
	if *g.boots == 1 {
		facts := sandboxtest.Good()
		facts["disk"] = testsuite.Fact{Output: fmt.Sprintf("source /dev/vda1\nfstype ext4\nfilesystem-bytes %d\ndisk-bytes %d\n", 3<<30, g.grownBytes)}
		box.Facts = facts
	}
	m, err := box.Boot(ctx, image)
	if err != nil || g.onlyOnce {
		return m, err
	}
	stop := m.Stop
	m.Reboot = func(ctx context.Context) error {
		if g.stays != nil {
			return g.stays
		}
		again, err := g.Boot(ctx, image)
		if err != nil {
			return err
		}
		m.Target = again.Target
		m.Stop = func() error { return errors.Join(stop(), again.Close()) }
		return nil
	}
	return m, nil
}

func TestExtraReboot(t *testing.T) {
	for name, test := range map[string]struct {
		extra bool
		box   growing
		boots int
		want  string // of the error; "" for none
	}{
		"judged too early": {false, growing{}, 1, "disk.root-grown (fail): expected"},
		"once more":        {true, growing{}, 2, ""},
		"it stays down":    {true, growing{stays: errors.New("no link")}, 1, "cannot start the machine again, as extra_reboot needs: no link"},
		"it cannot":        {true, growing{onlyOnce: true}, 1, "the sandbox cannot start the machine again, as extra_reboot needs"},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := embedded(t)
			boots := 0
			test.box.boots, test.box.grownBytes = &boots, 8<<30
			f.Sandbox, d.ExtraReboot = test.box, test.extra
			got := night(t, f, d)
			require.Equal(t, test.boots, boots)
			if test.want != "" {
				require.Equal(t, StageTest, got.Stage, got.Error)
				require.Contains(t, got.Error, test.want)
				return
			}
			require.Equal(t, Published, got.Result, got.Error)
			require.Contains(t, got.Notes, rebootNote)
		})
	}
}

// The catalog's images that need it are rebooted, and say so, also where a definition has
// its own notes.
func TestExtraRebootIsInherited(t *testing.T) {
	for _, image := range []string{"Standard_CentOS_6", "Enterprise_OracleLinux_6", "Enterprise_SLES11_SP4", "Enterprise_SLES11_SP4_SAPHANA"} {
		got, err := parse("f.yaml", "/", []byte("images:\n  - from: "+image+"\n    notes: [own]\n    trusted_keys: [{file: k}]\n"))
		require.NoError(t, err, image)
		assert.True(t, got[0].ExtraReboot, image)
		assert.Equal(t, []string{"own", rebootNote}, got[0].Notes, image)
		require.NoError(t, got[0].Complete())
		assert.Len(t, got[0].Notes, 2, "once")
	}
	e, err := LookupImage("Standard_CentOS_7")
	require.NoError(t, err)
	assert.False(t, e.Definition().ExtraReboot)
	_, err = parse("f.yaml", "/", []byte("images:\n  - from: Standard_CentOS_6\n    name: Standard_CentOS_7\n    os: {version: \"7.6\"}\n"))
	require.ErrorContains(t, err, "extra_reboot, notes")
}

func TestBYOLRegistersNoRepositories(t *testing.T) {
	const from = "images:\n  - from: Enterprise_SLES12_SP3\n    name: Enterprise_SLES12_SP3_BYOL\n    trusted_keys: [{file: k}]\n"
	for text, want := range map[string]string{
		minimal + "    byol: true\n": "",
		from + "    byol: true\n":    "",
		minimal + "    byol: true\n    repositories: [{name: a, url: \"http://a.example/\"}]\n":                     "f.yaml:7:19: repositories: with byol an image registers none",
		from + "    byol: true\n    repositories+: [{name: a, url: \"http://a.example/\"}]\n":                       "f.yaml:6:20: repositories: with byol an image registers none",
		"images:\n  - from: Standard_Debian_9\n    byol: true\n    repositories: [{name: a, url: \"http://a/\"}]\n": "f.yaml:4:19: repositories: with byol an image registers none",
		minimal + "    byol: maybe\n": "f.yaml:6:11: ",
	} {
		got, err := parse("f.yaml", "/", []byte(text))
		if want != "" {
			assert.ErrorContains(t, err, want, text)
			continue
		}
		require.NoError(t, err, text)
		assert.Empty(t, got[0].Repositories, text)
		assert.Empty(t, got[0].spec(nil).Repositories, text)
	}

	f, d := embedded(t)
	d.BYOL, d.Repositories = true, nil
	got := night(t, f, d)
	require.Equal(t, StageTest, got.Stage)
	require.Contains(t, got.Error, "updates.repositories (fail): expected none, found also http://debmirror.otc-service.com/debian")

	facts := sandboxtest.Good()
	facts["apt-targets"], facts["package-sources"] = testsuite.Fact{Output: "\n"}, testsuite.Fact{Output: "\n"}
	f.Sandbox = sandboxtest.Sandbox{Facts: facts}
	got = night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
}
