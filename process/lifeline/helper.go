package lifeline

import "syscall"

// socket is the helper's end of the line to the node.
const socket = 3

func init() {
	if v, ok := syscall.Getenv(Env); ok && v == EnvFD {
		serve()
		syscall.Exit(0)
	}
}

// serve is the whole life of the helper. It runs on the main thread, to which init is bound: the
// function's death signal hangs on the thread that started it.
func serve() {
	syscall.CloseOnExec(socket)
	becomeReaper()
	req, ok := readRequest()
	if !ok {
		return // the node died, or this is no helper after all
	}
	pid, err := syscall.ForkExec(req.Path, req.Args, &syscall.ProcAttr{
		Dir: req.Dir, Env: req.Env, Files: []uintptr{0, 1, 2}, Sys: childAttr(),
	})
	if err != nil {
		errno, _ := err.(syscall.Errno)
		say('E', int(errno))
		return
	}
	say('P', pid)
	go obey(pid)
	status := await(pid)
	killDescendants(pid)
	say('X', int(status))
}

// readRequest reads exactly one request; bytes behind it are for obey.
func readRequest() (Request, bool) {
	var head [4]byte
	if !readFull(head[:]) {
		return Request{}, false
	}
	n := length(head[:])
	if n <= 0 || n > requestBytesMax {
		return Request{}, false
	}
	buf := make([]byte, n)
	if !readFull(buf) {
		return Request{}, false
	}
	return decode(buf)
}

func readFull(buf []byte) bool {
	for len(buf) > 0 {
		n := readSome(buf)
		if n <= 0 {
			return false
		}
		buf = buf[n:]
	}
	return true
}

// readSome is read without interruptions; 0 or less is the end.
func readSome(buf []byte) int {
	for {
		n, err := syscall.Read(socket, buf)
		if err != syscall.EINTR {
			return n
		}
	}
}

// obey carries out the node's wishes. The end of the line is the wish to kill.
// After the function was reaped its number cannot belong to someone else within the microseconds
// that the helper still lives, because the kernel hands out numbers in a circle.
func obey(pid int) {
	var buf [16]byte
	for readSome(buf[:]) > 0 {
		syscall.Kill(-pid, syscall.SIGTERM) //nolint:errcheck // gone already
	}
	syscall.Kill(-pid, syscall.SIGKILL) //nolint:errcheck // gone already
	syscall.Kill(pid, syscall.SIGKILL)  //nolint:errcheck // it may have left its group
}

// await reaps until the function itself ends, and answers how.
func await(pid int) syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil: // no children: cannot be before pid is reaped
			return status
		case got == pid:
			return status
		}
	}
}

// say writes one line; if nobody listens any more that is no reason to stop early.
func say(kind byte, n int) {
	buf := append(make([]byte, 0, 24), kind)
	buf = appendInt(buf, n)
	buf = append(buf, '\n')
	syscall.Write(socket, buf) //nolint:errcheck // the node may be dead
}

// appendInt is strconv.AppendInt, which would be an import more.
func appendInt(buf []byte, n int) []byte {
	if n < 0 {
		return appendInt(append(buf, '-'), -n)
	}
	if n >= 10 {
		buf = appendInt(buf, n/10)
	}
	return append(buf, byte('0'+n%10))
}
