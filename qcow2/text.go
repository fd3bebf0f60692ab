package qcow2

import (
	"fmt"
	"strings"
)

// String describes the image in lines for people, much as qemu-img info does.
func (i *Info) String() string {
	var b strings.Builder
	h := &i.Header
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("file format: qcow2 (version %d)", h.Version)
	line("virtual size: %s (%d bytes)", inUnits(i.VirtualSize), i.VirtualSize)
	line("file size: %s (%d bytes)", inUnits(i.FileSize), i.FileSize)
	line("cluster size: %d", i.ClusterSize)
	line("compression type: %v", h.Compression)
	if i.BackingFile != "" {
		line("backing file: %q, format %q", i.BackingFile, i.BackingFormat)
	}
	if h.Incompatible.Has(ExternalData) {
		line("data file: %q, raw %t", i.DataFile, i.DataFileRaw)
	}
	if h.CryptMethod != 0 {
		line("encrypted: method %d", h.CryptMethod)
	}
	line("refcount bits: %d", i.jsonSpecific().Data.RefcountBits)
	for _, f := range []struct {
		name string
		bits fmt.Stringer
	}{{"incompatible", h.Incompatible}, {"compatible", h.Compatible}, {"autoclear", h.Autoclear}} {
		if bits := f.bits.String(); bits != "" {
			line("%s features: %s", f.name, bits)
		}
	}
	for _, s := range i.Snapshots {
		line("snapshot %q: %q of %s, VM state %d bytes, disk %d bytes", s.ID, s.Name, s.Time.Format("2006-01-02 15:04:05"), s.VMStateSize, s.VirtualSize)
	}
	for _, m := range i.Bitmaps {
		line("bitmap %q: granularity %d, flags %#x", m.Name, m.Granularity, m.Flags)
	}
	for _, e := range i.Extensions {
		line("header extension: %v, %d bytes at %d", e.Type, len(e.Data), e.Offset)
	}
	return b.String()
}

// inUnits gives bytes with a binary unit.
func inUnits(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.3g %ciB", v, units[unit])
}

// String gives the result in lines for people: each problem and note, then
// the counts.
func (c *CheckResult) String() string {
	var b strings.Builder
	for _, p := range c.Problems {
		fmt.Fprintf(&b, "%s\n", p)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	if c.Clean() {
		b.WriteString("No errors were found on the image.\n")
	} else {
		fmt.Fprintf(&b, "%d corruptions, %d leaked clusters, %d check errors\n", c.Corruptions, c.Leaks, c.CheckErrors)
	}
	fmt.Fprintf(&b, "%d/%d clusters allocated, %d fragmented, %d compressed\nImage end offset: %d\n",
		c.AllocatedClusters, c.TotalClusters, c.FragmentedClusters, c.CompressedClusters, c.ImageEndOffset)
	return b.String()
}

// String gives start, length and depth in columns, and what the extent is.
func (e Extent) String() string {
	kind := "unallocated"
	switch {
	case e.Compressed:
		kind = "compressed"
	case e.Data:
		kind = fmt.Sprintf("data at %#x", e.Offset)
	case e.Present:
		kind = "zero"
	}
	return fmt.Sprintf("%#-15x %#-15x %-6d %s", e.Start, e.Length, e.Depth, kind)
}
