package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
)

// A Reader reads the files of an image without running it and without trusting
// its file systems: the kernel of a small machine of its own mounts them, which
// has no network and ends with the reading. Journals are replayed, as a boot
// would do, on an overlay that is thrown away; the image is only read.
//
// File systems of type ext2, ext3, ext4, xfs, btrfs (all subvolumes) and vfat
// are read, in partitions, in logical volumes of one segment, or on a whole disk.
type Reader struct {
	// Kernel and Initrd are what the machine runs; see [MakeReader].
	Kernel, Initrd string

	Binary  string        // if empty, qemu-system-x86_64 in PATH
	Img     string        // if empty, qemu-img in PATH
	Accel   string        // as in QEMU
	Timeout time.Duration // of a whole reading; if 0, 15 minutes
	WorkDir string        // as in QEMU
	Logger  *slog.Logger  // if nil, nothing is logged
}

// A Volume is a file system of a disk, or what else is in one of its places.
type Volume struct {
	// Name is the directory that the archive has the files in: "p1" is the
	// first partition, "p1v0" the first logical volume in it, "disk" the whole
	// disk.
	Name    string
	Content *guestdisk.Content // nil if it is not known
	Type    string             // of the partition, as guestdisk.Partition has it; empty elsewhere
	// Read says that the archive has its files.
	Read bool

	offset, size int64
}

// Harmless reports whether nothing in the volume can be a file: it is swap, holds
// other volumes, or a boot loader that the firmware of an old machine needs.
func (v Volume) Harmless() bool {
	const biosBoot = "21686148-6449-6e6f-744e-656564454649"
	if v.Content == nil {
		return strings.EqualFold(v.Type, biosBoot)
	}
	return v.Content.Type == "swap" || v.Content.Type == "LVM2_member" && len(v.Content.Volumes) > 0
}

// ErrNotRead says that a disk could not be read to the end.
var ErrNotRead = errors.New("the disk was not read")

// maxVolumes is how many disks the machine names with one letter.
const maxVolumes = 26

// mountable are the types that reader-init mounts.
var mountable = []string{"ext2", "ext3", "ext4", "xfs", "btrfs", "vfat"}

// Open begins to read the qcow2 file image. The archive is of tar's pax format:
// below the name of its volume every file with its owner's numbers, mode, times,
// content and extended attributes, sorted by name; at the end one regular file
// "sockets" with the names of the sockets, each ended by a zero byte. It is as
// hostile as the disk is, also in its size. Reading it ends with io.EOF only
// when everything was read, else with an error that wraps ErrNotRead or ctx's.
// The caller must Close it.
func (r Reader) Open(ctx context.Context, image string) (archive io.ReadCloser, volumes []Volume, err error) {
	fail := func(err error) (io.ReadCloser, []Volume, error) {
		return nil, nil, fmt.Errorf("cannot read the disk of %s: %w", image, err)
	}
	path, err := filepath.Abs(image)
	if err != nil {
		return fail(err)
	}
	size, err := imageSize(path)
	if err != nil {
		return fail(err)
	}
	disk, err := qcow2.OpenFile(path, qcow2.OpenOptions{})
	if err != nil {
		return fail(err)
	}
	if archive, volumes, err = r.open(ctx, disk, size, path); err != nil {
		return fail(err)
	}
	return archive, volumes, nil
}

// OpenOverlay is Open for the disk of a machine that was powered off. Below the
// overlay it reads the image that the machine was made from and no other file.
func (r Reader) OpenOverlay(ctx context.Context, o *Overlay) (archive io.ReadCloser, volumes []Volume, err error) {
	if o == nil || o.path == "" {
		return nil, nil, errors.New("cannot read the disk of a machine: there is none")
	}
	fail := func(err error) (io.ReadCloser, []Volume, error) {
		return nil, nil, fmt.Errorf("cannot read the disk of a machine of %s: %w", o.image, err)
	}
	size, err := o.inspect()
	if err != nil {
		return fail(err)
	}
	disk, err := o.open()
	if err != nil {
		return fail(err)
	}
	if archive, volumes, err = r.open(ctx, disk, size, o.image, o.path); err != nil {
		return fail(err)
	}
	return archive, volumes, nil
}

// open begins to read a disk of qcow2 files, the lowest first, and closes it.
func (r Reader) open(ctx context.Context, disk *qcow2.Image, size int64, files ...string) (io.ReadCloser, []Volume, error) {
	r.setDefaults()
	volumes, err := findVolumes(disk)
	if err := errors.Join(err, disk.Close()); err != nil {
		return nil, nil, err
	}
	if r.Accel == "" {
		r.Accel = ProbeAccel(ctx, r.Binary)
	}
	dir, remove, err := newWorkDir(r.WorkDir, "reader", r.Logger)
	if err != nil {
		return nil, nil, err
	}
	a := &diskArchive{dir: dir, remove: remove, files: files}
	// ctx ends the reading, and so does Close.
	a.ctx, a.cancel = context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("%w within %v", ErrNotRead, r.Timeout))
	if err := a.start(r, size, volumes); err != nil {
		return nil, nil, errors.Join(err, a.Close())
	}
	r.Logger.InfoContext(ctx, "reading the disk", "files", files, "accel", r.Accel, "pid", a.process.pid)
	return a, volumes, nil
}

func (r *Reader) setDefaults() {
	if r.Binary == "" {
		r.Binary = "qemu-system-x86_64"
	}
	if r.Img == "" {
		r.Img = "qemu-img"
	}
	if r.Timeout == 0 {
		r.Timeout = 15 * time.Minute
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
}

// findVolumes lists what is on the disk and what of it can be read.
func findVolumes(image *qcow2.Image) ([]Volume, error) {
	disk, err := guestdisk.Inspect(image, image.Size())
	if err != nil {
		return nil, err
	}
	var volumes []Volume
	add := func(v Volume) {
		v.Read = v.Content != nil && slices.Contains(mountable, v.Content.Type) && v.size > 0
		volumes = append(volumes, v)
	}
	if disk.Table == "" {
		add(Volume{Name: "disk", Content: disk.Content, size: disk.SizeBytes})
	}
	for _, p := range disk.Partitions {
		name := "p" + strconv.Itoa(p.Number)
		add(Volume{Name: name, Content: p.Content, Type: p.Type, offset: p.OffsetBytes, size: p.SizeBytes})
		if p.Content == nil {
			continue
		}
		for i, v := range p.Content.Volumes {
			size := v.SizeBytes
			if v.OffsetBytes == 0 {
				size = 0 // its place is not simple
			}
			add(Volume{Name: name + "v" + strconv.Itoa(i), Content: v.Content, offset: p.OffsetBytes + v.OffsetBytes, size: size})
		}
	}
	if len(volumes) > maxVolumes {
		return nil, fmt.Errorf("%w: it has more than %d volumes", ErrNotRead, maxVolumes)
	}
	return volumes, nil
}

// diskArchive is the standard output of a machine that reads a disk.
type diskArchive struct {
	ctx     context.Context //nolint:containedctx // lives for one reading
	cancel  context.CancelFunc
	dir     string
	remove  func() error // removes dir
	files   []string
	process *process
	output  *io.PipeReader
}

func (a *diskArchive) start(r Reader, size int64, volumes []Volume) error {
	if err := enoughSpace(a.dir); err != nil {
		return err
	}
	overlay := filepath.Join(a.dir, "overlay.qcow2")
	if err := createOverlay(a.ctx, r.Img, a.files[len(a.files)-1], overlay, size); err != nil {
		return err
	}
	secret := rand.Text()
	args, err := r.args(append(slices.Clone(a.files), overlay), secret, volumes)
	if err != nil {
		return err
	}
	var pipe *io.PipeWriter
	a.output, pipe = io.Pipe()
	input := &untilSecret{out: pipe, secret: []byte(secret), seen: make(chan struct{})}
	if a.process, err = startProcess(r.Binary, args, input); err != nil {
		return err
	}
	go func() {
		select {
		case <-a.process.done:
		case <-input.seen:
			a.process.stop()
		case <-a.ctx.Done():
			_ = pipe.CloseWithError(context.Cause(a.ctx)) // neither who reads nor who writes is held up
			a.process.stop()
		}
		_ = pipe.CloseWithError(a.verdict(input))
	}()
	return nil
}

// verdict is how the reading ended.
func (a *diskArchive) verdict(input *untilSecret) error {
	select {
	case <-input.seen:
		return io.EOF
	default:
	}
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	said := a.process.stderr.String()
	if _, why, ok := strings.Cut(said, "imagefactory-reader: "); ok {
		return fmt.Errorf("%w: %s", ErrNotRead, why)
	}
	return fmt.Errorf("%w: its machine ended too early: %w", ErrNotRead, a.process.ended())
}

// untilSecret passes on what comes before a secret. The disk, which does not
// know it, cannot end its own archive.
type untilSecret struct {
	out    io.Writer
	secret []byte
	held   []byte // may be the secret's beginning
	seen   chan struct{}
}

func (u *untilSecret) Write(p []byte) (int, error) {
	u.held = append(u.held, p...)
	if bytes.HasSuffix(u.held, u.secret) {
		u.held = u.held[:len(u.held)-len(u.secret)]
		_, err := u.out.Write(u.held)
		u.held = nil
		close(u.seen)
		return len(p), err
	}
	if n := len(u.held) - len(u.secret); n > 0 {
		if _, err := u.out.Write(u.held[:n]); err != nil {
			return 0, err
		}
		u.held = append(u.held[:0], u.held[n:]...)
	}
	return len(p), nil
}

func (a *diskArchive) Read(p []byte) (int, error) { return a.output.Read(p) }

// Close ends the machine and removes its files. It may be called more than once.
func (a *diskArchive) Close() error {
	a.cancel()
	if a.process != nil {
		<-a.process.done // the one who watches it stops it
	}
	return a.remove()
}

func (r *Reader) args(files []string, secret string, volumes []Volume) ([]string, error) {
	accel := accelArgs(r.Accel)
	if r.Accel == "tcg" {
		accel[len(accel)-1] = "max" // the kernel's checksums use what it has
	}
	args := append(accel, sandboxArgs...)
	args = append(args, "-name", "imagefactory-reader", "-nodefaults", "-no-user-config", "-no-reboot",
		"-display", "none", "-vga", "none", "-monitor", "none", "-smp", "2", "-m", "768",
		// By name: with "stdio" the guest's port is closed when standard input ends.
		"-device", "virtio-serial-pci", "-chardev", "file,id=archive,path=/dev/fd/1", "-device", "virtserialport,chardev=archive",
		"-chardev", "file,id=console,path=/dev/fd/2", "-serial", "chardev:console")
	disk, err := blockdev(layers(files...))
	if err != nil {
		return nil, err
	}
	args = append(args, disk...)
	mounts := []string{secret}
	for _, v := range volumes {
		if !v.Read {
			continue
		}
		part, err := blockdev(map[string]any{"driver": "raw", "node-name": v.Name, "file": "disk0", "offset": v.offset, "size": v.size &^ 511})
		if err != nil {
			return nil, err
		}
		args = append(append(args, part...), "-device", "virtio-blk-pci,share-rw=on,drive="+v.Name)
		mounts = append(mounts, v.Name+":"+v.Content.Type)
	}
	return append(args, "-kernel", r.Kernel, "-initrd", r.Initrd,
		"-append", "console=ttyS0 quiet loglevel=1 panic=-1 oops=panic mitigations=off random.trust_cpu=on rdinit=/init -- "+strings.Join(mounts, " ")), nil
}
