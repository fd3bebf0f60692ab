package qcow2

import (
	"bytes"
	"fmt"
	"io"
)

// What formatOf looks at: the beginning of a file, the descriptor of an ISO
// 9660 file system, and the end, where a VHD has its footer.
const (
	formatHead = 1088
	isoOffset  = 32769
	formatTail = 512
)

// A format is one that files given as qcow2 really have.
type format struct {
	name   string
	offset int
	magic  string
	// image says that QEMU takes a file that begins so for an image of the
	// format, if it is not told another.
	image bool
}

var formats = []format{
	{"a qcow image of version 1", 0, "QFI\xfb\x00\x00\x00\x01", true},
	{"a qcow2 image", 0, "QFI\xfb", true},
	{"a VMDK image", 0, "KDMV", true},
	{"a VMDK image", 0, "COWD", true},
	{"a VHDX image", 0, "vhdxfile", true},
	{"a VHD image", 0, "conectix", true},
	{"a VDI image", 64, "\x7f\x10\xda\xbe", true},
	{"a QED image", 0, "QED\x00", true},
	{"a LUKS volume", 0, "LUKS\xba\xbe", true},
	{"a Parallels image", 0, "WithoutFreeSpace", true},
	{"a Parallels image", 0, "WithouFreSpacExt", true},
	{"a Bochs image", 0, "Bochs Virtual HD Image", true},
	{"a cloop image", 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop", true},
	{"an ASIF image", 0, "shdw", false},
	{"a gzip file: decompress it", 0, "\x1f\x8b", false},
	{"an xz file: decompress it", 0, "\xfd7zXZ\x00", false},
	{"a zstd file: decompress it", 0, "\x28\xb5\x2f\xfd", false},
	{"a bzip2 file: decompress it", 0, "BZh", false},
	{"an lz4 file: decompress it", 0, "\x04\x22\x4d\x18", false},
	{"a zip archive: unpack it", 0, "PK\x03\x04", false},
	{"a 7z archive: unpack it", 0, "7z\xbc\xaf\x27\x1c", false},
	{"a tar archive, or an OVA: unpack it", 257, "ustar", false},
	{"a squashfs file system", 0, "hsqs", false},
	{"an ELF program", 0, "\x7fELF", false},
	{"a raw disk with a GUID partition table", 512, "EFI PART", false},
	{"a raw file system (ext)", 1080, "\x53\xef", false},
	{"a raw file system (XFS)", 0, "XFSB", false},
}

// formatOf names the format of a file from its beginning, or returns one
// without a name.
func formatOf(head []byte) format {
	for _, f := range formats {
		if len(head) >= f.offset && bytes.HasPrefix(head[f.offset:], []byte(f.magic)) {
			return f
		}
	}
	text := bytes.TrimLeft(head[:min(len(head), formatTail)], "\ufeff \t\r\n")
	for _, begin := range []string{"<!doctype html", "<html", "<?xml"} {
		if len(text) >= len(begin) && bytes.EqualFold(text[:len(begin)], []byte(begin)) {
			return format{name: "an HTML or XML page, perhaps a server's error message"}
		}
	}
	if vmdkDescriptor(head) {
		return format{name: "a VMDK descriptor", image: true}
	}
	if len(head) >= 512 && head[510] == 0x55 && head[511] == 0xaa {
		return format{name: "a raw disk with a boot sector or partition table"}
	}
	return format{}
}

// vmdkDescriptor says whether QEMU takes a text for a VMDK descriptor: behind
// comments and blank lines is the version. It looks at 512 bytes.
func vmdkDescriptor(head []byte) bool {
	for b := head[:min(len(head), 512)]; len(b) > 0; {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		switch text := bytes.TrimSuffix(line, []byte("\r")); {
		case b[0] == '#', b[0] == ' ' && len(bytes.Trim(text, " ")) == 0:
			b = rest
		default:
			return len(text) == len("version=1") && bytes.HasPrefix(text, []byte("version=")) && text[8] >= '1' && text[8] <= '3'
		}
	}
	return false
}

// notQCOW2 tells a file that is not a qcow2 image what it is instead.
func notQCOW2(r io.ReaderAt, size int64, fault *FormatError) error {
	b := make([]byte, formatHead)
	n, err := readFull(r, b, 0)
	if err != nil {
		return err
	}
	found := formatOf(b[:n])
	iso := make([]byte, 5)
	if n, err := readFull(r, iso, isoOffset); err == nil && n == 5 && string(iso) == "CD001" {
		found.name = "an ISO 9660 image"
	}
	tail := make([]byte, 8)
	if size >= formatTail {
		if n, err := readFull(r, tail, size-formatTail); err == nil && n == 8 && string(tail) == "conectix" {
			found.name = "a VHD image"
		}
	}
	if found.name != "" {
		fault.Text = "this is " + found.name
	}
	return fault
}

// Safety judges the image as Info.Safety does, and beside it how the guest's
// disk begins, of which it reads 512 bytes: a disk that begins as a qcow2 or
// VMDK image does becomes one when it is written as a raw file, and may then
// name any file of the host. That is the finding "content_format". A raw disk
// has no other.
func (i *Image) Safety(p Policy) (Safety, error) {
	var findings []Finding
	info := i.info
	if info == nil {
		info = &Info{VirtualSize: i.virtual}
	} else {
		findings = info.findings
	}
	head := make([]byte, min(512, i.virtual))
	if _, err := i.ReadAt(head, 0); err != nil && i.virtual > 0 {
		return Safety{Findings: []Finding{}}, fmt.Errorf("cannot judge how the guest's disk begins: %w", err)
	}
	if f := formatOf(head); f.image {
		findings = append(findings[:len(findings):len(findings)],
			Finding{FindContentFormat, "the guest's disk begins as " + f.name + ", and is taken for one when it is written as a raw file", 0})
	}
	return info.judge(p, findings), nil
}

// qcowVersion names the version of a qcow image that is not read here.
func qcowVersion(v uint32) string {
	if v == 1 {
		return "this is " + formats[0].name + "; only versions 2 and 3 are known"
	}
	return "only versions 2 and 3 are known"
}
