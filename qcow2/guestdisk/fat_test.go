package guestdisk_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
)

// pe is the head of a boot loader.
func pe(machine uint16) []byte {
	b := make([]byte, 9000)
	copy(b, "MZ")
	b[60] = 0x80
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x84:], machine)
	return b
}

// espDisk makes a disk with an EFI system partition, a FAT of so many bits, by
// mkfs.vfat and mtools, and the files in it.
func espDisk(t testing.TB, bits int, files map[string][]byte) string {
	t.Helper()
	size := map[int]int64{12: 1 * mib, 16: 16 * mib, 32: 40 * mib}[bits]
	disk := newDisk(t, size+2*mib)
	tool(t, fmt.Sprintf("label: gpt\nstart=1MiB, size=%d, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n", size/512), "sfdisk", "-q", disk)
	tool(t, "", "mkfs.vfat", "--offset", "2048", "-s", "1", "-F", strconv.Itoa(bits), disk, strconv.FormatInt(size/1024, 10))
	tree := t.TempDir()
	for name, data := range files {
		local := filepath.Join(tree, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(local), 0o755))
		require.NoError(t, os.WriteFile(local, data, 0o600))
	}
	top, err := filepath.Glob(filepath.Join(tree, "*"))
	require.NoError(t, err)
	if len(top) > 0 {
		tool(t, "", "mcopy", append([]string{"-s", "-i", disk + "@@1M"}, append(top, "::/")...)...)
	}
	return disk
}

func TestEFIArchs(t *testing.T) {
	many := map[string][]byte{"/EFI/BOOT/BOOTAA64.EFI": pe(0xaa64)}
	for i := range 20 { // more than a cluster of entries
		many[fmt.Sprintf("/EFI/BOOT/other%02d.txt", i)] = []byte("x")
	}
	cut := pe(0x8664)[:0x84]
	for name, test := range map[string]struct {
		files map[string][]byte
		want  []string
	}{
		"none":               {nil, nil},
		"amd64":              {map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": pe(0x8664), "/EFI/debian/grub.cfg": []byte("x")}, []string{"amd64"}},
		"arm64 among many":   {many, []string{"arm64"}},
		"both":               {map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": pe(0x8664), "/EFI/BOOT/BOOTIA32.EFI": pe(0x14c)}, []string{"386", "amd64"}},
		"the header counts":  {map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": pe(0xaa64)}, []string{"arm64"}},
		"unknown machine":    {map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": pe(0x200)}, []string{"0x0200"}},
		"not a loader":       {map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": []byte("#!/bin/sh\n")}, nil},
		"cut":                {map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": cut}, nil},
		"empty":              {map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": nil}, nil},
		"in another place":   {map[string][]byte{"/EFI/debian/BOOTX64.EFI": pe(0x8664)}, nil},
		"a file in its way":  {map[string][]byte{"/EFI": []byte("x")}, nil},
		"of another program": {map[string][]byte{"/EFI/BOOT/grubx64.efi": pe(0x8664)}, nil},
	} {
		all := []int{16}
		if test.want != nil {
			all = []int{12, 16, 32}
		}
		for _, bits := range all {
			t.Run(fmt.Sprintf("%s, FAT%d", name, bits), func(t *testing.T) {
				d := inspect(t, espDisk(t, bits, test.files))
				assert.True(t, d.BootUEFI)
				assert.Equal(t, test.want, d.EFIArchs)
			})
		}
	}
	d := inspect(t, espDisk(t, 32, map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": pe(0x8664)}))
	assert.Contains(t, d.String(), "boots with: UEFI (amd64)\n")
}

// counting is a disk that tells how much of it was read.
type counting struct {
	r    io.ReaderAt
	read int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	c.read += int64(n)
	return n, err
}

// Whatever is on it, little is read, and a chain that goes in circles ends.
func FuzzEFI(f *testing.F) {
	disk := espDisk(f, 16, map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": pe(0x8664)})
	data, err := os.ReadFile(disk)
	require.NoError(f, err)
	f.Add(int64(mib+13), []byte{128})
	f.Add(int64(mib+512*4), []byte{0xf8, 0xff, 0xff, 0xff, 2, 0, 3, 0, 3, 0}) // cluster 2 follows itself
	f.Add(int64(mib), make([]byte, 62))
	f.Fuzz(func(t *testing.T, at int64, change []byte) {
		if at < 0 || at > 2*mib {
			return
		}
		r := &patched{data, at, change}
		c := &counting{r: r}
		if _, err := guestdisk.Inspect(c, int64(len(data))); err != nil {
			t.Fatal(err)
		}
		if c.read > 1<<20 {
			t.Fatalf("%d bytes were read", c.read)
		}
	})
}

// patched is data with a change in it.
type patched struct {
	data   []byte
	at     int64
	change []byte
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(p.data)) {
		return 0, io.EOF
	}
	n := copy(b, p.data[off:])
	for i, c := range p.change {
		if at := p.at + int64(i) - off; at >= 0 && at < int64(n) {
			b[at] = c
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
