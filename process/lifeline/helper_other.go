//go:build !linux

package lifeline

import "syscall"

func closeOnExec() { syscall.CloseOnExec(socket) }

func becomeReaper() {}

// childAttr gives the function a group of its own; there is no death signal here.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killDescendants kills the function's group; what left the group is not found on this system.
func killDescendants(pid int) {
	syscall.Kill(-pid, syscall.SIGKILL) //nolint:errcheck // perhaps no group is left
}

// raise has nothing to do: there are no walls on this system.
func raise(*Walls, int) (step int, errno syscall.Errno) { return 0, 0 }

func lay(*Walls) (step int, errno syscall.Errno) { return 0, 0 }

// connect is for walls.
func connect(*Walls, byte) { say('C', int(syscall.ENOSYS), 0) }
