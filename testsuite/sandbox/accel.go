package sandbox

import (
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// probeSector is a boot sector that changes to 64-bit mode, uses its own page
// tables, asks for CPUID and leaves through QEMU's debug exit device with
// probeValue. Its source is probe.asm.
//
//go:embed probe.bin
var probeSector []byte

const (
	probeValue    = 0x2a
	probeExit     = probeValue<<1 | 1 // how QEMU's isa-debug-exit ends
	probeBytes    = 1 << 20           // the BIOS boots no smaller disk
	probePatience = 15 * time.Second
)

// accelArgs are the machine, accelerator and processor.
func accelArgs(accel string) []string {
	if accel == "kvm" {
		return []string{"-machine", "q35,usb=off", "-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-machine", "q35,usb=off", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64"}
}

// ProbeAccel returns "kvm" where a small guest is seen to run to its end under
// KVM within 15 seconds with this binary of QEMU, else "tcg". That /dev/kvm is
// there says too little: in a nested machine QEMU may abort on it, or the
// guest hang.
func ProbeAccel(ctx context.Context, binary string) string {
	if _, err := os.Stat("/dev/kvm"); err == nil && probe(ctx, binary, "kvm") == nil {
		return "kvm"
	}
	return "tcg"
}

var errProbe = errors.New("the probe guest did not run to its end")

func probe(ctx context.Context, binary, accel string) error {
	dir, remove, err := newWorkDir("", "probe", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { _ = remove() }()
	disk := filepath.Join(dir, "probe.raw")
	if err := os.WriteFile(disk, probeSector, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(disk, probeBytes); err != nil {
		return err
	}
	drive, err := blockdev(map[string]any{"driver": "raw", "node-name": "probe0",
		"file": map[string]any{"driver": "file", "filename": disk}})
	if err != nil {
		return err
	}
	args := append(accelArgs(accel), "-m", "64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none",
		"-monitor", "none", "-serial", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", "-device", "virtio-blk-pci,drive=probe0,bootindex=1")
	args = append(append(args, sandboxArgs...), drive...)
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	p, err := startProcess(binary, args, newConsole())
	if err != nil {
		return err
	}
	defer p.stop()
	select {
	case <-p.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.ExitCode() == probeExit {
		return nil
	}
	return errProbe
}
