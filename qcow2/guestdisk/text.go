package guestdisk

import (
	"fmt"
	"strings"
)

// String describes the disk in lines for people.
func (d *Disk) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "partition table: %s\n", orNone(d.Table))
	if d.Content != nil {
		fmt.Fprintf(&b, "whole disk: %v\n", d.Content)
	}
	for _, p := range d.Partitions {
		fmt.Fprintf(&b, "partition %d: %d bytes at %d, type %s", p.Number, p.SizeBytes, p.OffsetBytes, p.Type)
		if p.Name != "" {
			fmt.Fprintf(&b, ", name %q", p.Name)
		}
		if p.Content != nil {
			fmt.Fprintf(&b, ": %v", p.Content)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "boots with: %s\nhw_firmware_type: %s\nmin disk: %d GiB\n", d.boots(), orNone(string(d.Firmware())), d.MinDiskGiB)
	for _, p := range d.Problems {
		fmt.Fprintf(&b, "problem: %s\n", p)
	}
	return b.String()
}

func (d *Disk) boots() string {
	var out []string
	if d.BootBIOS {
		out = append(out, "BIOS")
	}
	if d.BootUEFI {
		uefi := "UEFI"
		if len(d.EFIArchs) > 0 {
			uefi += " (" + strings.Join(d.EFIArchs, " ") + ")"
		}
		out = append(out, uefi)
	}
	return orNone(strings.Join(out, ", "))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// String gives type, label and sizes, and the volumes of LVM.
func (c *Content) String() string {
	s := c.Type
	if c.Label != "" {
		s += fmt.Sprintf(" %q", c.Label)
	}
	if c.SizeBytes > 0 {
		s += fmt.Sprintf(", %d bytes", c.SizeBytes)
	}
	if c.FreeBytes > 0 {
		s += fmt.Sprintf(", %d free", c.FreeBytes)
	}
	if c.VolumeGroup != "" {
		s += fmt.Sprintf(", volume group %q", c.VolumeGroup)
	}
	for _, v := range c.Volumes {
		s += fmt.Sprintf("; volume %q: %d bytes", v.Name, v.SizeBytes)
		if v.Content != nil {
			s += fmt.Sprintf(" (%v)", v.Content)
		}
	}
	return s
}
