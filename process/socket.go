package process

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// socketPair is a lifeline: our end, and the helper's, which blocks.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, lineType, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "lifeline of helper")
	file := os.NewFile(uintptr(fds[0]), "lifeline")
	defer file.Close() //nolint:errcheck // FileConn has its own
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// blockingPipe gives a pipe whose writing end blocks, as programs expect of their output, while ours
// has deadlines.
func blockingPipe() (r, w *os.File, err error) {
	r, w, err = os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	raw, err := w.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) { set = syscall.SetNonblock(int(fd), false) })
		if err == nil {
			err = set
		}
	}
	if err != nil {
		r.Close() //nolint:errcheck // never used
		w.Close() //nolint:errcheck // never used
		return nil, nil, err
	}
	return r, w, nil
}
