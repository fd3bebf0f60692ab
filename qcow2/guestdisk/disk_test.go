package guestdisk_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
)

const mib = 1 << 20

// newDisk makes a sparse file.
func newDisk(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(size))
	require.NoError(t, f.Close())
	return path
}

// tool runs a program with the given standard input.
func tool(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(needs.Tools(t, name)[0], args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	require.NoErrorf(t, err, "%s %v: %s", name, args, out)
	return strings.TrimSpace(string(out))
}

func inspect(t testing.TB, path string) *guestdisk.Disk {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	stat, err := f.Stat()
	require.NoError(t, err)
	d, err := guestdisk.Inspect(f, stat.Size())
	require.NoError(t, err)
	return d
}

// write puts b at an offset of the disk.
func write(t testing.TB, path string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestGPT(t *testing.T) {
	path := newDisk(t, 200*mib)
	tool(t, "label: gpt\n"+
		"start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=grub\n"+
		"size=40MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=\"EFI System\"\n"+
		"size=100MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root\n", "sfdisk", "-q", path)
	tool(t, "", "mkfs.vfat", "--offset", "4096", "-F", "16", "-n", "ESP", path, "40960")
	tool(t, "", "mkfs.ext4", "-q", "-F", "-L", "root", "-U", "12345678-1234-1234-1234-123456789abc", "-E", "offset=44040192", path, "100m")

	d := inspect(t, path)
	assert.Equal(t, guestdisk.GPT, d.Table)
	assert.Empty(t, d.Problems)
	require.Len(t, d.Partitions, 3)
	assert.Equal(t, "grub", d.Partitions[0].Name)
	esp, root := d.Partitions[1], d.Partitions[2]
	assert.Equal(t, "EFI System", esp.Name)
	require.NotNil(t, esp.Content)
	assert.Equal(t, "vfat", esp.Content.Type)
	assert.Equal(t, "ESP", esp.Content.Label)
	assert.Equal(t, int64(40*mib), esp.Content.SizeBytes)
	assert.Equal(t, int64(42*mib), root.OffsetBytes)
	require.NotNil(t, root.Content)
	assert.Equal(t, "ext4", root.Content.Type)
	assert.Equal(t, "root", root.Content.Label)
	assert.Equal(t, "12345678-1234-1234-1234-123456789abc", root.Content.UUID)
	assert.Equal(t, int64(100*mib), root.Content.SizeBytes)
	assert.Greater(t, root.Content.FreeBytes, int64(50*mib))
	assert.True(t, d.BootUEFI)
	assert.False(t, d.BootBIOS, "there is no boot code")
	assert.Equal(t, guestdisk.UEFI, d.Firmware())
	assert.Equal(t, int64(1), d.MinDiskGiB)
	assert.Equal(t, int64(142*mib), d.UsedEndBytes)

	t.Run("boot code", func(t *testing.T) {
		write(t, path, []byte{0xeb, 0x63}, 0)
		d := inspect(t, path)
		assert.True(t, d.BootBIOS && d.BootUEFI)
		assert.Equal(t, guestdisk.BIOS, d.Firmware())
	})
	t.Run("second copy", func(t *testing.T) {
		write(t, path, make([]byte, 512), 512)
		d := inspect(t, path)
		assert.Len(t, d.Partitions, 3)
		assert.Len(t, d.Problems, 1)
	})
	t.Run("none valid", func(t *testing.T) {
		write(t, path, make([]byte, 512), 200*mib-512)
		d := inspect(t, path)
		assert.Empty(t, d.Partitions)
		assert.Len(t, d.Problems, 2)
	})
}

func TestMBR(t *testing.T) {
	path := newDisk(t, 120*mib)
	tool(t, "label: dos\nstart=1MiB, size=20MiB, type=83, bootable\nsize=60MiB, type=5\nsize=10MiB, type=82\nsize=10MiB, type=83\n"+
		"size=20MiB, type=83\nsize=20MiB, type=8e\n",
		"sfdisk", "-q", path)
	tool(t, "", "mkfs.ext3", "-q", "-F", "-E", "offset=1048576", path, "20m")
	var listed struct {
		PartitionTable struct {
			Partitions []struct {
				Start, Size int64
				Type        string
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(tool(t, "", "sfdisk", "-J", path)), &listed))

	d := inspect(t, path)
	assert.Equal(t, guestdisk.MBR, d.Table)
	assert.False(t, d.BootBIOS)
	var got []int64
	for _, p := range d.Partitions {
		got = append(got, p.OffsetBytes/512, p.SizeBytes/512)
	}
	var want []int64
	for _, p := range listed.PartitionTable.Partitions {
		if p.Type != "5" {
			want = append(want, p.Start, p.Size)
		}
	}
	assert.Equal(t, want, got)
	numbers := []int{}
	for _, p := range d.Partitions {
		numbers = append(numbers, p.Number)
	}
	assert.Equal(t, []int{1, 3, 4, 5, 6}, numbers)
	assert.Equal(t, "0x82", d.Partitions[1].Type)
	assert.Equal(t, "ext3", d.Partitions[0].Content.Type)
	write(t, path, []byte{0xeb}, 0)
	assert.True(t, inspect(t, path).BootBIOS)
}

func TestWholeDisk(t *testing.T) {
	for want, make := range map[string]func(path string){
		"ext2": func(path string) { tool(t, "", "mkfs.ext2", "-q", "-F", path) },
		"ext4": func(path string) { tool(t, "", "mkfs.ext4", "-q", "-F", path) },
		"vfat": func(path string) { tool(t, "", "mkfs.vfat", path) },
		"swap": func(path string) { tool(t, "", "mkswap", "-q", path) },
	} {
		path := newDisk(t, 64*mib)
		make(path)
		d := inspect(t, path)
		require.NotNil(t, d.Content, want)
		assert.Equal(t, want, d.Content.Type)
		assert.InDelta(t, 64*mib, d.Content.SizeBytes, 8192)
		assert.Empty(t, d.Table)
		assert.Empty(t, d.Firmware())
	}
	d := inspect(t, newDisk(t, 64*mib))
	assert.Nil(t, d.Content)
	assert.Empty(t, d.Table)
}

// TestLVM makes a volume group on a loop device, which needs root.
func TestLVM(t *testing.T) {
	needs.Root(t)
	needs.Tools(t, "losetup", "lvm")
	path := newDisk(t, 200*mib)
	tool(t, "label: dos\nstart=1MiB, type=8e\n", "sfdisk", "-q", path)
	cmd := exec.Command("losetup", "--find", "--show", "--offset", "1048576", path)
	out, err := cmd.Output()
	if err != nil {
		needs.Missing(t, "no loop device can be had here")
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", device).Run() })
	lvm := func(args ...string) {
		tool(t, "", "lvm", append(args, "--driverloaded", "n", "--config", `devices { use_devicesfile=0 filter=["a|`+device+`|","r|.*|"] } activation { udev_sync=0 udev_rules=0 } global { use_lvmpolld=0 }`)...)
	}
	lvm("pvcreate", "-q", "-ff", "-y", device)
	lvm("vgcreate", "-q", "vg-test", device)
	lvm("lvcreate", "-q", "-an", "-Zn", "-Wn", "-y", "-L", "40m", "-n", "swap", "vg-test")
	lvm("lvcreate", "-q", "-an", "-Zn", "-Wn", "-y", "-L", "100m", "-n", "root", "vg-test")
	// pe_start is 1 MiB; the second volume is behind the first.
	tool(t, "", "mkfs.ext4", "-q", "-F", "-L", "lvroot", "-E", "offset=44040192", path, "100m")

	d := inspect(t, path)
	require.Len(t, d.Partitions, 1)
	c := d.Partitions[0].Content
	require.NotNil(t, c)
	assert.Equal(t, "LVM2_member", c.Type)
	assert.Equal(t, "vg-test", c.VolumeGroup)
	require.Len(t, c.Volumes, 2)
	assert.Equal(t, "swap", c.Volumes[0].Name)
	assert.Equal(t, int64(100*mib), c.Volumes[1].SizeBytes)
	require.NotNil(t, c.Volumes[1].Content)
	assert.Equal(t, "lvroot", c.Volumes[1].Content.Label)
}

// TestLoops follows chains of logical partitions that do not end.
func TestLoops(t *testing.T) {
	b := make([]byte, 1*mib)
	entry := func(at int, kind byte, start, count uint32) {
		b[at+4] = kind
		binary.LittleEndian.PutUint32(b[at+8:], start)
		binary.LittleEndian.PutUint32(b[at+12:], count)
	}
	for _, at := range []int{0, 100 * 512} {
		b[at+510], b[at+511] = 0x55, 0xaa
	}
	entry(446, 5, 100, 1000)
	entry(100*512+446, 0x83, 1, 10)
	entry(100*512+462, 5, 0, 10)
	d, err := guestdisk.Inspect(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	assert.Len(t, d.Partitions, 1)
	assert.Len(t, d.Problems, 1)
}

func FuzzInspect(f *testing.F) {
	b := make([]byte, 70<<10)
	copy(b[1024+56:], "\x53\xef")
	f.Add(b)
	lvm := make([]byte, 8<<10)
	copy(lvm[512:], "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001")
	f.Add(lvm)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := guestdisk.Inspect(bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		_, err = json.Marshal(d)
		require.NoError(t, err)
	})
}
