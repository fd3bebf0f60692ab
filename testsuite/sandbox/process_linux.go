package sandbox

import "syscall"

// diesWithParent has the kernel kill the child when this program ends.
func diesWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
