//go:build !linux

package openstacktest

import "syscall"

func endWithParent() *syscall.SysProcAttr { return nil }
