package process

import (
	"os"
	"syscall"
)

// socketPair is a lifeline: our end, which has deadlines, and the helper's, which blocks.
func socketPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		syscall.Close(fds[0]) //nolint:errcheck // never used
		syscall.Close(fds[1]) //nolint:errcheck // never used
		return nil, nil, os.NewSyscallError("setnonblock", err)
	}
	return os.NewFile(uintptr(fds[0]), "lifeline"), os.NewFile(uintptr(fds[1]), "lifeline of helper"), nil
}

// shutdownWrite ends what the helper reads; its answers still come.
func shutdownWrite(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return // closed: the helper has read the end already
	}
	raw.Control(func(fd uintptr) { syscall.Shutdown(int(fd), syscall.SHUT_WR) }) //nolint:errcheck // same
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
