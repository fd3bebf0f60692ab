package sandbox

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox/network"
)

// QEMU is the [Sandbox] that boots images in QEMU on this machine. The zero
// value works; its methods may be called concurrently.
type QEMU struct {
	Binary string // if empty, qemu-system-x86_64 in PATH
	Img    string // if empty, qemu-img in PATH

	CPUs      int // virtual processors; if 0, 2
	MemoryMiB int // if 0, 1024
	// GrowBytes is how much larger than the image the guest's disk is. If 0, 4 GiB.
	GrowBytes int64
	// Accel is the accelerator, "kvm" or "tcg". If empty, KVM where a probe
	// guest is seen to run under it, else TCG.
	Accel string
	// Port is the port on 127.0.0.1 that leads to the guest's sshd. If 0, a
	// free one is taken.
	Port int

	Hostname string // what the guest is to be called; if empty, a name as the console of a cloud makes up: ecs-1f0a

	// BootTimeout bounds the time from QEMU's start until the guest lets the
	// user in. If 0, 15 minutes: TCG is slow, and slower on a loaded machine.
	BootTimeout time.Duration

	patience patience
}

// Reasons why a machine did not boot, for errors.Is.
var (
	// ErrDied says that QEMU ended before the guest could be used.
	ErrDied = errors.New("QEMU ended")
	// ErrNoAnswer says that the guest did not let its user in within the
	// boot timeout.
	ErrNoAnswer = errors.New("the guest never answered")
	// ErrPortInUse says that the port on 127.0.0.1 is taken.
	ErrPortInUse = errors.New("the port is in use")
	// ErrUnsafeImage says that the image names other files, is encrypted or
	// is no qcow2, and was not given to QEMU.
	ErrUnsafeImage = errors.New("the image is not safe to boot")
)

// HostKeyError says that the guest's sshd showed another host key than the
// console did.
type HostKeyError = sshconn.HostKeyError

// BootError says why an image did not become a machine. Below it are one of
// the reasons above, a *GuestError, a *HostKeyError, syscall.ENOSPC, or ctx.Err() where the
// caller's context ended.
type BootError struct {
	Image   string
	Err     error
	Console string // the last lines of the guest's console, at most 4 KiB, redacted; may be empty
}

func (e *BootError) Error() string {
	if e.Err == nil {
		return "cannot boot " + cmp.Or(e.Image, "an image")
	}
	return fmt.Sprintf("cannot boot %s: %v", cmp.Or(e.Image, "an image"), e.Err)
}

func (e *BootError) Unwrap() error { return e.Err }

const consoleTail = 4 << 10

// Boot starts an overlay of the qcow2 file, which it only reads, and returns
// when the guest has let its user in and cloud-init's final stage has shown the
// host keys. Where Boot fails it leaves nothing behind but the console log, and
// the error is a *BootError.
func (q QEMU) Boot(ctx context.Context, image Image) (*Machine, error) {
	q.setDefaults()
	g, err := q.prepare(ctx, image)
	if err != nil {
		return nil, &BootError{Image: image.Path, Err: err}
	}
	if err = q.launch(ctx, g); err == nil {
		if err = q.await(ctx, g); err == nil {
			g.console.watch.stop()
			return g.Machine, nil
		}
	}
	boot := &BootError{Image: image.Path, Err: err, Console: g.console.last(consoleTail)}
	if cerr := g.Close(); cerr != nil {
		boot.Err = errors.Join(boot.Err, cerr)
	}
	return nil, boot
}

func (q *QEMU) setDefaults() {
	for _, f := range []struct {
		field *string
		value string
	}{{&q.Binary, "qemu-system-x86_64"}, {&q.Img, "qemu-img"}, {&q.Hostname, "ecs-" + newUUID()[:4]}} {
		if *f.field == "" {
			*f.field = f.value
		}
	}
	if q.CPUs == 0 {
		q.CPUs = 2
	}
	if q.MemoryMiB == 0 {
		q.MemoryMiB = defaultMemoryMiB
	}
	if q.GrowBytes == 0 {
		q.GrowBytes = 4 << 30
	}
	if q.BootTimeout == 0 {
		q.BootTimeout = 15 * time.Minute
	}
	if q.patience == (patience{}) {
		q.patience = patience{network: time.Minute, login: 4 * time.Minute, attempt: loginTimeout, hint: 90 * time.Second}
	}
}

// prepare makes the guest's files. QEMU does not run yet.
func (q *QEMU) prepare(ctx context.Context, image Image) (*guest, error) {
	variant := image.Variant
	if err := variant.setDefaults(q); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(image.Path)
	if err != nil {
		return nil, err
	}
	imageBytes, err := imageSize(path)
	if err != nil {
		return nil, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, err
	}
	switch q.Accel {
	case "":
		q.Accel = ProbeAccel(ctx, q.Binary)
	case "kvm", "tcg":
	default:
		return nil, fmt.Errorf("cannot use accelerator %q: want kvm or tcg", q.Accel)
	}
	logger := cmp.Or(image.Logger, slog.New(slog.DiscardHandler))
	dir, remove, err := newWorkDir(image.WorkDir, "sandbox", logger)
	if err != nil {
		return nil, err
	}
	if err := enoughSpace(dir); err != nil {
		return nil, errors.Join(err, remove())
	}
	g := &guest{
		Machine: &Machine{
			Target: testsuite.Target{User: cmp.Or(image.User, "linux"), Signer: signer}, Hostname: q.Hostname,
			ImageBytes: imageBytes, DiskBytes: imageBytes + variant.GrowBytes,
		},
		variant: variant, uuid: newUUID(), disk: newUUID()[:20],
		accel: q.Accel, network: network.Config{TimeServers: image.TimeServers, MAC: network.NewMAC()}, console: newConsole(), consoleLog: image.ConsoleLog, image: path, dir: dir, remove: remove, patience: q.patience,
		logger: logger,
	}
	g.Stop, g.Reboot, g.PowerOff = g.stop, g.reboot, g.powerOff
	g.Restart = func(ctx context.Context, as Restart) error { return q.restart(ctx, g, as) }
	g.network.Clock = g.now
	g.console.judge(variant.DataSource)
	g.Console = func() string { return string(g.console.log()) }
	g.seed = seed{
		instanceID: variant.InstanceID, hostname: q.Hostname, key: signer.PublicKey(), mac: g.network.MAC,
		userData: variant.UserData, vendorData: variant.VendorData,
	}
	if err = g.writeSeed(); err == nil {
		err = createOverlay(ctx, q.Img, g.image, g.overlayPath(), g.DiskBytes)
	}
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	return g, nil
}

// launch starts QEMU, with a port of this machine that leads to the guest's sshd.
func (q *QEMU) launch(ctx context.Context, g *guest) (err error) {
	if g.wire, err = newWire(ctx, q.Port, g.network); err != nil {
		return err
	}
	if g.variant.DataSource == OpenStack {
		files, err := g.seed.openStack()
		if err == nil {
			err = g.wire.serveMetadata(files)
		}
		if err != nil {
			return fmt.Errorf("cannot serve metadata: %w", err)
		}
	}
	args, err := q.args(g)
	if err != nil {
		return err
	}
	watched, err := g.console.watch.listen()
	if err != nil {
		return err
	}
	if g.process, err = startProcess(q.Binary, append(args, strings.Fields(watchArgs)...), g.console, append([]*os.File{g.wire.file}, watched...)...); err != nil {
		return err
	}
	g.wire.file = nil
	g.Target.Address = g.wire.listener.Addr().String()
	g.Target.Witness = g.wire.network
	g.logger.InfoContext(ctx, "started QEMU", "pid", g.process.pid, "accel", g.accel, "address", g.Target.Address)
	return nil
}

// args is QEMU's command line. No device is there that is not named here.
func (q *QEMU) args(g *guest) ([]string, error) {
	overlay := layers(g.image, g.overlayPath())
	overlay["discard"] = "unmap"
	disk, err := blockdev(overlay)
	if err != nil {
		return nil, err
	}
	volume, err := g.seedArgs()
	if err != nil {
		return nil, err
	}
	firmware, err := g.firmwareArgs()
	if err != nil {
		return nil, err
	}
	args := []string{"-name", "imagefactory-sandbox", "-nodefaults", "-no-user-config",
		"-display", "none", "-vga", "none", "-monitor", "none",
		"-smp", strconv.Itoa(g.variant.CPUs), "-m", strconv.Itoa(q.MemoryMiB)}
	args = slices.Concat(args, accelArgs(g.accel), firmware, identityArgs(g.uuid), sandboxArgs, disk, diskArgs(g.variant.Disk, g.disk), volume,
		nicArgs(g.variant, g.network.MAC))
	if g.ahead.Load() != 0 {
		args = append(args, "-rtc", "base="+g.now().UTC().Format("2006-01-02T15:04:05"))
	}
	return append(args,
		"-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0",
		// The guest's network is in this process: descriptor 3 is the first that
		// QEMU inherits. No packet goes anywhere else.
		"-netdev", "stream,id=net0,server=off,addr.type=fd,addr.str=3",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"), nil
}

// writeSeed makes the volume of the data source, if that reads one.
func (g *guest) writeSeed() error {
	label, files, err := g.seed.volume(g.variant.DataSource)
	if err != nil || label == "" {
		return err
	}
	if err := os.Remove(g.seedPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return writeVolume(g.seedPath(), label, files)
}

// seedArgs show that volume to the guest.
func (g *guest) seedArgs() ([]string, error) {
	if g.variant.DataSource == OpenStack || g.variant.DataSource == NoSource {
		return nil, nil
	}
	volume, err := blockdev(map[string]any{
		"driver": "raw", "node-name": "seed0", "read-only": true,
		"file": map[string]any{"driver": "file", "filename": g.seedPath(), "read-only": true},
	})
	return append(volume, "-device", "virtio-blk-pci,drive=seed0"), err
}

// sandboxArgs make QEMU give up system calls that it does not need once it
// runs, should the guest break out of its devices.
var sandboxArgs = []string{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}

func blockdev(options map[string]any) ([]string, error) {
	text, err := json.Marshal(options)
	if err != nil {
		return nil, fmt.Errorf("cannot describe a disk to QEMU: %w", err)
	}
	return []string{"-blockdev", string(text)}, nil
}
