//go:build !linux

package lifeline

import "syscall"

func becomeReaper() {}

// childAttr gives the function a group of its own; there is no death signal here.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killDescendants kills the function's group; what left the group is not found on this system.
func killDescendants(pid int) {
	syscall.Kill(-pid, syscall.SIGKILL) //nolint:errcheck // perhaps no group is left
}
