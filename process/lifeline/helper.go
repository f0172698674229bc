package lifeline

import "syscall"

// socket is the helper's end of the line to the node.
const socket = 3

func init() {
	if v, _ := syscall.Getenv(Env); v == EnvFD {
		serve()
		syscall.Exit(0)
	}
}

// serve is the whole life of the helper. It runs on the main thread, to which init is bound: the
// function's death signal, and what it may do, hang on the thread that started it.
func serve() {
	closeOnExec()
	becomeReaper()
	req, laid, ok := firstRequest()
	if !ok {
		return // the node died or has no use for this helper, or this is no helper after all
	}
	wishes := make(chan int)
	go obey(&req, wishes)
	<-wishes // its thread is there before this one gives things up: a thread inherits from the one that makes it
	pid, step, errno := start(&req, laid)
	if errno != 0 {
		say('E', int(errno), step)
		return
	}
	wishes <- pid
	say('P', pid, 0)
	status := await(pid)
	killDescendants(pid)
	say('X', int(status), 0)
}

// firstRequest reads what to run. Before that there may be a request without a path: walls to lay the ground for, until somebody knows
// what is to run behind them. laid says how many mounts that made.
func firstRequest() (req Request, laid int, ok bool) {
	if req, ok = readRequest(); !ok || req.Path != "" {
		return req, 0, ok
	}
	if step, errno := lay(&req.Walls); errno != 0 {
		say('E', int(errno), step)
		return req, 0, false
	}
	laid = len(req.Mounts)
	req, ok = readRequest()
	return req, laid, ok
}

// start makes the walls and runs the function behind them. A step that fails is told by its number.
func start(req *Request, laid int) (pid, step int, errno syscall.Errno) {
	if step, errno := raise(&req.Walls, laid); errno != 0 {
		return 0, step, errno
	}
	pid, err := syscall.ForkExec(req.Path, req.Args, &syscall.ProcAttr{
		Dir: req.Dir, Env: req.Env, Files: []uintptr{0, 1, 2}, Sys: childAttr(),
	})
	if err != nil {
		errno, _ := err.(syscall.Errno)
		return 0, StepExec, errno
	}
	return pid, 0, 0
}

// readRequest reads exactly one request; packets behind it are for obey.
func readRequest() (Request, bool) {
	buf := make([]byte, PacketMax)
	n := readSome(buf)
	if n < 4 {
		return Request{}, false
	}
	size := int(buf[0]) | int(buf[1])<<8 | int(buf[2])<<16 | int(buf[3])<<24
	if size <= 0 || size > requestBytesMax {
		return Request{}, false
	}
	all := append(make([]byte, 0, size), buf[4:n]...)
	for len(all) < size {
		n := readSome(buf[:min(len(buf), size-len(all))])
		if n <= 0 {
			return Request{}, false
		}
		all = append(all, buf[:n]...)
	}
	return decode(all)
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

// obey carries out the node's wishes once the function runs. The end of the line is the wish to kill.
// After the function was reaped its number cannot belong to someone else within the microseconds
// that the helper still lives, because the kernel hands out numbers in a circle.
func obey(req *Request, started chan int) {
	started <- 0
	pid := <-started
	var buf [2]byte
	for n := readSome(buf[:]); n > 0; n = readSome(buf[:]) {
		switch buf[0] {
		case SignalTerm:
			syscall.Kill(-pid, syscall.SIGTERM) //nolint:errcheck // gone already
		case Dial:
			connect(&req.Walls, buf[1])
		}
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
func say(kind byte, n, step int) {
	syscall.Write(socket, line(kind, n, step)) //nolint:errcheck // the node may be dead
}

func line(kind byte, n, step int) []byte {
	buf := append(make([]byte, 0, 32), kind)
	buf = appendInt(buf, n)
	if step != 0 {
		buf = appendInt(append(buf, ' '), step)
	}
	return append(buf, '\n')
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
