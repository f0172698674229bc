package egress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// destination is the address that a connect names, our copy of it.
type destination struct {
	family uint16         // as the caller wrote it, whatever it is
	to     netip.AddrPort // valid if family is INET or INET6 and the address is whole
	scope  uint32         // of IPv6
}

// readDestination copies the address from the caller's memory; it is the only time it is read.
func readDestination(tid int, at, size uint64) (destination, error) {
	var raw [128]byte        // struct sockaddr_storage
	want := int(int32(size)) // an int for the kernel too
	if want < 2 || want > len(raw) {
		return destination{}, unix.EINVAL
	}
	local := []unix.Iovec{{Base: &raw[0]}}
	local[0].SetLen(want)
	got, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: want}}, 0)
	if err != nil {
		return destination{}, err
	}
	return parseDestination(raw[:got]), nil
}

// parseDestination reads a struct sockaddr. A short one has no address and is left to the kernel.
func parseDestination(raw []byte) destination {
	if len(raw) < 2 {
		return destination{}
	}
	d := destination{family: binary.NativeEndian.Uint16(raw)}
	switch {
	case d.family == unix.AF_INET && len(raw) >= unix.SizeofSockaddrInet4:
		d.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), binary.BigEndian.Uint16(raw[2:]))
	case d.family == unix.AF_INET6 && len(raw) >= unix.SizeofSockaddrInet6:
		d.to = netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), binary.BigEndian.Uint16(raw[2:]))
		d.scope = binary.NativeEndian.Uint32(raw[24:])
	}
	return d
}

func (d destination) sockaddr() unix.Sockaddr {
	if d.family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(d.to.Port()), Addr: d.to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(d.to.Port()), Addr: d.to.Addr().As16(), ZoneId: d.scope}
}

// copySocket gives our own descriptor of the caller's fd.
func copySocket(tid, fd int) (int, error) {
	pidfd, err := openThread(tid)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd) //nolint:errcheck // only looked through
	return unix.PidfdGetfd(pidfd, fd, 0)
}

// hasThreadPidfd says whether pidfd_open takes the number of a thread that leads no group (Linux 6.9).
var hasThreadPidfd = sync.OnceValue(func() bool {
	fd, err := unix.PidfdOpen(unix.Gettid(), unix.PIDFD_THREAD)
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
})

// openThread is of the thread where that can be had, else of its group's leader, whose descriptors
// are the same unless the thread did unshare(CLONE_FILES).
func openThread(tid int) (int, error) {
	if hasThreadPidfd() {
		return unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	}
	leader, err := leaderOf(tid)
	if err != nil {
		return -1, err
	}
	return unix.PidfdOpen(leader, 0)
}

func leaderOf(tid int) (int, error) {
	return procNumber("/proc/"+strconv.Itoa(tid)+"/status", "Tgid:", 10)
}

// closesOnExec reads the flag of the descriptor itself, which the copy does not share.
func closesOnExec(tid, fd int) (bool, error) {
	flags, err := procNumber("/proc/"+strconv.Itoa(tid)+"/fdinfo/"+strconv.Itoa(fd), "flags:", 8)
	return flags&unix.O_CLOEXEC != 0, err
}

// procNumber reads "key value" of a small file of /proc. Files of /proc block nobody, so no poller is asked.
func procNumber(path, key string, base int) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	var buf [4096]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return 0, os.NewSyscallError("read", err)
	}
	_, after, found := bytes.Cut(buf[:n], []byte(key))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	value, err := strconv.ParseInt(string(bytes.TrimSpace(line)), base, 64)
	if !found || err != nil {
		return 0, fmt.Errorf("%s has no %s", path, key)
	}
	return int(value), nil
}

// errnoOf is what the caller is told of an error of ours.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if err == nil {
		return 0
	}
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}

// seccompCall is seccomp(2), which x/sys does not wrap.
func seccompCall(op, flags uintptr, arg unsafe.Pointer) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, op, flags, uintptr(arg))
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
