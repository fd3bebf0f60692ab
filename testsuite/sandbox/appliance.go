package sandbox

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/debs"
)

//go:embed reader-init
var readerInit []byte

// readerPackages are what the reader's machine is made of, beside the kernel:
// programs, and the libraries that tar is linked with.
var readerPackages = []string{"busybox-static:amd64", "tar:amd64", "libacl1:amd64", "libselinux1:amd64", "libpcre2-8-0:amd64", "libc6:amd64"}

const readerKernel = "linux-image-cloud-amd64"

// readerModules are the drivers of the machine's disks and its port, and of the
// file systems, as far as the kernel has them as modules.
var readerModules = map[string][]string{
	"disk": {"crc32c_generic", "virtio_pci", "virtio_blk", "virtio_console"},
	"ext2": {"ext4"}, "ext3": {"ext4"}, "ext4": {"ext4"}, "xfs": {"xfs"}, "btrfs": {"btrfs"},
	"vfat": {"vfat", "nls_cp437", "nls_ascii", "nls_utf8"},
}

// MakeReader makes what a [Reader] runs from Debian's packages, which apt-get
// fetches and verifies and nothing installs. Without apt's options they are those
// of this machine, which must be a Debian then; ledger.DebianArchive has options
// for any machine with apt. The result is kept in dir until one of the packages has
// another version; several programs may use a directory at once. Elsewhere make
// a Reader with a kernel and an initial RAM disk of your own.
func MakeReader(ctx context.Context, dir string, aptOptions ...string) (Reader, error) {
	r, err := makeReader(ctx, dir, aptOptions)
	if err != nil {
		return Reader{}, fmt.Errorf("cannot make the machine that reads disks: %w", err)
	}
	return r, nil
}

func makeReader(ctx context.Context, dir string, apt debs.Apt) (Reader, error) {
	kernel, err := apt.Depends(ctx, readerKernel)
	if err != nil {
		return Reader{}, fmt.Errorf("apt does not know %s (an apt-get update may help): %w", readerKernel, err)
	}
	packages := append(kernel, readerPackages...)
	uris, err := apt.URIs(ctx, packages...)
	if err != nil {
		return Reader{}, err
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%v", uris, readerInit, readerModules))
	place := filepath.Join(dir, "reader-"+hex.EncodeToString(key[:8]))
	r := Reader{Kernel: filepath.Join(place, "vmlinuz"), Initrd: filepath.Join(place, "initrd")}
	if _, err := os.Stat(place); err == nil {
		return r, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Reader{}, err
	}
	temporary, err := os.MkdirTemp(dir, ".reader-")
	if err != nil {
		return Reader{}, err
	}
	defer os.RemoveAll(temporary)
	root, made := filepath.Join(temporary, "root"), filepath.Join(temporary, "made")
	if err := errors.Join(os.Mkdir(made, 0o755), fetch(ctx, apt, temporary, root, packages), writeReader(made, root)); err != nil {
		return Reader{}, err
	}
	if err := os.Rename(made, place); err != nil && !errors.Is(err, fs.ErrExist) {
		return Reader{}, err
	}
	return r, nil
}

// fetch downloads packages to a directory and unpacks them to another.
func fetch(ctx context.Context, apt debs.Apt, dir, root string, packages []string) error {
	if err := apt.Download(ctx, dir, packages...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := debs.Extract(ctx, f, root); err != nil {
			return err
		}
	}
	return nil
}

// writeReader writes kernel and initial RAM disk from unpacked packages.
func writeReader(made, root string) error {
	kernels, _ := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(root, "lib/modules/*"))
	if len(kernels) != 1 || len(modules) != 1 {
		return fmt.Errorf("%s has %d kernels and modules of %d", readerKernel, len(kernels), len(modules))
	}
	vmlinuz, err := os.ReadFile(kernels[0])
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(made, "vmlinuz"), vmlinuz, 0o644); err != nil { //nolint:gosec // in a directory of our own
		return err
	}
	var c cpio
	c.add("init", 0o755, readerInit)
	for _, name := range []string{"/bin/busybox", "/bin/tar"} {
		if err := c.addProgram(root, name); err != nil {
			return err
		}
	}
	if err := c.addModules(modules[0]); err != nil {
		return err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(c.end())
	if err := errors.Join(err, z.Close()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(made, "initrd"), packed.Bytes(), 0o644)
}

// cpio is an archive of the kernel's format "newc".
type cpio struct {
	out  bytes.Buffer
	have map[string]bool
}

// add adds a file and the directories on the way to it.
func (c *cpio) add(name string, mode fs.FileMode, data []byte) {
	if c.have == nil {
		c.have = map[string]bool{}
	}
	if dir := path.Dir(name); dir != "." {
		c.add(dir, 0o755|fs.ModeDir, nil)
	}
	if c.have[name] {
		return
	}
	c.have[name] = true
	kind := uint32(0o100000)
	if mode.IsDir() {
		kind = 0o040000
	}
	c.entry(name, kind|uint32(mode.Perm()), data)
}

func (c *cpio) entry(name string, mode uint32, data []byte) {
	fmt.Fprintf(&c.out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		len(c.have), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	c.pad()
	c.out.Write(data)
	c.pad()
}

func (c *cpio) pad() { c.out.Write(make([]byte, -c.out.Len()&3)) }

func (c *cpio) end() []byte {
	c.entry("TRAILER!!!", 0, nil)
	return c.out.Bytes()
}

// addProgram adds a program and the libraries that it is linked with, each at
// the place where it is loaded from.
func (c *cpio) addProgram(root, name string) error {
	if c.have[name[1:]] {
		return nil
	}
	data, err := inRoot(root, name)
	if err != nil {
		return err
	}
	c.add(name[1:], 0o755, data)
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", name, err)
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", name, err)
	}
	if s := f.Section(".interp"); s != nil {
		interpreter, err := s.Data()
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", name, err)
		}
		if err := c.addProgram(root, strings.TrimRight(string(interpreter), "\x00")); err != nil {
			return err
		}
	}
	for _, l := range libraries {
		if err := c.addProgram(root, "/lib/x86_64-linux-gnu/"+path.Base(l)); err != nil {
			return err
		}
	}
	return nil
}

// inRoot reads a file of an unpacked system, whether that has its libraries in
// /lib or in /usr/lib, and follows links to files beside.
func inRoot(root, name string) ([]byte, error) {
	for range 4 {
		found := name
		if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
			found = "/usr" + name
		}
		target, err := os.Readlink(filepath.Join(root, found))
		if err != nil {
			return os.ReadFile(filepath.Join(root, found))
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(found), target)
		}
		name = strings.TrimPrefix(target, "/usr")
	}
	return nil, fmt.Errorf("cannot read %s: too many links", name)
}

// addModules adds readerModules and what they depend on, and lists each kind's in
// an order in which they can be loaded.
func (c *cpio) addModules(dir string) error {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if base, ok := strings.CutSuffix(filepath.Base(name), ".ko"); ok {
			files[strings.ReplaceAll(base, "-", "_")] = name
		}
		return err
	})
	if err != nil {
		return err
	}
	var order []string
	var add func(name string, depth int) error
	add = func(name string, depth int) error {
		name = strings.ReplaceAll(name, "-", "_")
		file, ok := files[name]
		if !ok || depth > 16 || slices.Contains(order, name+".ko") {
			return nil // built in, or there already
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		needs, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("cannot read the module %s: %w", name, err)
		}
		for _, n := range needs {
			if err := add(n, depth+1); err != nil {
				return err
			}
		}
		c.add("modules/"+name+".ko", 0o644, data)
		order = append(order, name+".ko")
		return nil
	}
	for _, kind := range slices.Sorted(maps.Keys(readerModules)) {
		order = nil
		for _, m := range readerModules[kind] {
			if err := add(m, 0); err != nil {
				return err
			}
		}
		list := strings.Join(order, "\n")
		if list != "" {
			list += "\n"
		}
		c.add("modules/order."+kind, 0o644, []byte(list))
	}
	return nil
}

// moduleDepends reads "depends=a,b" of a kernel module.
func moduleDepends(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("it has no description")
	}
	info, err := io.ReadAll(s.Open())
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}
