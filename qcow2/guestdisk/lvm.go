package guestdisk

import (
	"bytes"
	"regexp"
	"strconv"
)

const (
	maxMetadata = 64 << 10
	maxVolumes  = 64
)

// physicalVolume recognises a physical volume of LVM2 and reads the text of
// its metadata, as far as that is simple.
func physicalVolume(v view, head []byte) (*Content, error) {
	for at := 0; at < 4*sector; at += sector {
		label := head[at:]
		if string(label[:8]) != "LABELONE" || string(label[24:32]) != "LVM2 001" {
			continue
		}
		offset := int(le.Uint32(label[20:]))
		if offset < 32 || offset > sector-40 {
			return nil, nil
		}
		pv := label[offset:sector]
		c := &Content{Type: "LVM2_member", UUID: text(pv[:32])}
		c.sized(le.Uint64(pv[32:]), 0, 1)
		metadata, err := metadata(v, pv[40:])
		if err != nil || metadata == nil {
			return c, err
		}
		return c, c.volumes(v, metadata)
	}
	return nil, nil
}

// metadata returns the text of the first metadata area. The lists of data
// and metadata areas are pairs of offset and size, each ended by a zero pair.
func metadata(v view, areas []byte) ([]byte, error) {
	lists := 0
	for ; len(areas) >= 16; areas = areas[16:] {
		offset := le.Uint64(areas)
		if offset == 0 && le.Uint64(areas[8:]) == 0 {
			if lists++; lists == 2 {
				return nil, nil
			}
			continue
		}
		if lists == 0 {
			continue // a data area
		}
		if offset > 1<<50 {
			return nil, nil
		}
		h, err := v.read(int64(offset), sector)
		if err != nil || len(h) < sector || string(h[4:20]) != " LVM2 x[5A%r0N*>" {
			return nil, err
		}
		// The first raw location: offset in the area, and size.
		start, size := le.Uint64(h[40:]), le.Uint64(h[48:])
		if start > 1<<40 || size > maxMetadata {
			return nil, nil
		}
		return v.read(int64(offset+start), int(size))
	}
	return nil, nil
}

var (
	lvmNumber = regexp.MustCompile(`(?m)^\s*(\w+)\s*=\s*(\d+)`)
	lvmStripe = regexp.MustCompile(`stripes\s*=\s*\[\s*"([^"]+)",\s*(\d+)\s*\]`)
	lvmKind   = regexp.MustCompile(`(?m)^\s*type\s*=\s*"(\w+)"`)
)

// volumes reads the volume group from LVM's text format.
func (c *Content) volumes(v view, metadata []byte) error {
	group := sections(metadata)
	if len(group) == 0 {
		return nil
	}
	c.VolumeGroup = group[0].name
	extent := number(group[0].body, "extent_size") * sector
	var start int64
	for _, s := range sections(group[0].body) {
		switch s.name {
		case "physical_volumes":
			if all := sections(s.body); len(all) == 1 {
				start = number(all[0].body, "pe_start") * sector
			} else {
				extent = 0 // other volumes hold parts of the group
			}
		case "logical_volumes":
			for _, lv := range sections(s.body) {
				if len(c.Volumes) == maxVolumes {
					return nil
				}
				if err := c.volume(v, lv, start, extent); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// volume adds one logical volume. Its content is known if it is one linear
// segment.
func (c *Content) volume(v view, lv section, start, extent int64) error {
	volume := Volume{Name: lv.name}
	segments := sections(lv.body)
	for _, s := range segments {
		volume.SizeBytes += product(number(s.body, "extent_count"), extent)
	}
	if len(segments) == 1 && extent > 0 {
		s := segments[0].body
		kind, stripe := lvmKind.FindSubmatch(s), lvmStripe.FindSubmatch(s)
		if kind != nil && string(kind[1]) == "striped" && stripe != nil {
			first, err := strconv.ParseInt(string(stripe[2]), 10, 31)
			if err == nil {
				volume.OffsetBytes = start + product(first, extent)
				if volume.Content, err = content(v.sub(volume.OffsetBytes, volume.SizeBytes), false); err != nil {
					return err
				}
			}
		}
	}
	c.Volumes = append(c.Volumes, volume)
	return nil
}

// number returns a number of a section itself; 0 if there is none that fits
// 31 bits.
func number(body []byte, name string) int64 {
	if open := bytes.IndexByte(body, '{'); open >= 0 {
		body = body[:open]
	}
	for _, m := range lvmNumber.FindAllSubmatch(body, -1) {
		if string(m[1]) == name {
			n, err := strconv.ParseInt(string(m[2]), 10, 31)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// product is 0 where it would be larger than any disk.
func product(a, b int64) int64 {
	if b > 0 && a > 1<<55/b {
		return 0
	}
	return a * b
}

// section is "NAME { BODY }".
type section struct {
	name string
	body []byte
}

// sections returns the sections directly in b. Braces in strings and comments
// do not count.
func sections(b []byte) []section {
	var out []section
	depth, begin, line := 0, 0, 0
	quoted, comment := false, false
	name := ""
	for n, ch := range b {
		switch {
		case ch == '\n':
			line, comment = n+1, false
		case comment:
		case ch == '"':
			quoted = !quoted
		case quoted:
		case ch == '#':
			comment = true
		case ch == '{':
			if depth++; depth == 1 {
				name, begin = text(bytes.TrimSpace(b[line:n])), n+1
			}
		case ch == '}' && depth > 0:
			if depth--; depth == 0 && name != "" {
				out = append(out, section{name, b[begin:n]})
			}
		}
	}
	return out
}
