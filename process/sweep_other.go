//go:build !linux

package process

import (
	"os"
	"syscall"
)

func self() (string, error) { return os.Executable() }

// killRemains reaches the function's process group only: this system has no /proc.
func killRemains(_, pid int, _ string) {
	syscall.Kill(-pid, syscall.SIGKILL) //nolint:errcheck // perhaps nothing is left
}

// killRecorded does nothing here: without start times a process id proves nothing, and
// the lifeline has done its work.
func killRecorded([]record) error { return nil }

func startTime(int) uint64 { return 0 }

func bootID() string { return "" }
