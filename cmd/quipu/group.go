package main

import (
	"io"
	"os"
	"os/exec"
	"syscall"
)

// endTogether has what a command starts end with it, since go run, npm and shells do not pass on that they are asked to end. At a
// terminal that the command reads from it is left in our group, where ^C reaches all of them; elsewhere it gets a group of its own. The
// answer ends what is left of that after the command.
func endTogether(child *exec.Cmd, in io.Reader) (rest func()) {
	if file, ok := in.(*os.File); ok && isTerminal(file) {
		child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
		return func() {}
	}
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	signal := func(s syscall.Signal) error { return syscall.Kill(-child.Process.Pid, s) }
	child.Cancel = func() error { return signal(syscall.SIGTERM) }
	return func() {
		if child.Process != nil {
			_ = signal(syscall.SIGKILL) // most often nobody is left
		}
	}
}
