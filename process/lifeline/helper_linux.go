package lifeline

import (
	"syscall"
	"unsafe"
)

const (
	prSetChildSubreaper = 36
	sysCloseRange       = 436
	closeRangeCloexec   = 4
)

// closeOnExec keeps the lifeline from the function, and what the node was given by whoever started it: close_range(2).
func closeOnExec() {
	if _, _, errno := syscall.RawSyscall(sysCloseRange, socket, uintptr(^uint32(0)), closeRangeCloexec); errno != 0 {
		syscall.CloseOnExec(socket)
	}
}

// becomeReaper makes orphans below the helper its children instead of init's.
func becomeReaper() {
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0) //nolint:errcheck // kernels since 3.4 have it
}

// childAttr gives the function a group of its own, and the helper's death as its own.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// killDescendants kills and reaps until the helper has no children left. It ends: a process that a
// walk did not see was started by one that the walk killed, whose death wakes Wait4 and starts
// another walk, and orphans come to us.
func killDescendants(pid int) {
	for {
		got, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR || got > 0:
			continue
		case err != nil: // ECHILD: all gone
			return
		}
		killAll(pid)
		syscall.Wait4(-1, nil, 0, nil) //nolint:errcheck // asked again at the top
	}
}

// killAll needs no walk where the helper is the first process of a namespace: everybody else in it descends from it.
func killAll(pid int) {
	if syscall.Getpid() == 1 {
		syscall.Kill(-1, syscall.SIGKILL) //nolint:errcheck // gone already
		return
	}
	syscall.Kill(-pid, syscall.SIGKILL) //nolint:errcheck // perhaps no group is left
	for _, victim := range descendants() {
		syscall.Kill(victim, syscall.SIGKILL) //nolint:errcheck // it may be gone already
	}
}

// descendants lists all processes below the helper, by one walk over /proc.
func descendants() []int {
	parents := processes()
	self := syscall.Getpid()
	var found []int
	for pid := range parents {
		// A chain is never longer than the number of processes; the bound guards against a
		// cycle from numbers reused during the walk.
		for p, hops := pid, 0; p > 1 && hops < len(parents); p, hops = parents[p], hops+1 {
			if parents[p] == self {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// processes maps each process of the machine to its parent.
func processes() map[int]int {
	parents := map[int]int{}
	dir, err := syscall.Open("/proc", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return parents // no /proc: only the group and direct children are reached
	}
	defer syscall.Close(dir)
	buf := make([]byte, 32<<10)
	for {
		n, err := syscall.ReadDirent(dir, buf)
		if err != nil || n <= 0 {
			return parents
		}
		_, _, names := syscall.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			if pid, ok := parseInt(name); ok {
				parents[pid] = parentOf(name)
			}
		}
	}
}

// parentOf reads the fourth field of /proc/PID/stat. The second, the name, is in parentheses
// and may hold anything, so the last parenthesis counts. 0 if the process is gone.
func parentOf(pid string) int {
	fd, err := syscall.Open("/proc/"+pid+"/stat", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer syscall.Close(fd)
	var buf [512]byte
	n, err := syscall.Read(fd, buf[:])
	if err != nil {
		return 0
	}
	text := unsafe.String(&buf[0], max(n, 0))
	end := len(text) - 1
	for end >= 0 && text[end] != ')' {
		end--
	}
	if end < 0 || end+4 >= len(text) {
		return 0
	}
	rest := text[end+4:] // ") S " before the parent
	for i := range len(rest) {
		if rest[i] == ' ' {
			ppid, _ := parseInt(rest[:i])
			return ppid
		}
	}
	return 0
}

func parseInt(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || n > 1<<30 {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, len(s) > 0
}
