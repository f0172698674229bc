package egress

import (
	"fmt"
	"math"
	"net/netip"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// kind is what we do with a socket.
type kind int

const (
	other    kind = iota // stays inside whatever it is
	stream               // TCP, and MPTCP
	datagram             // UDP
)

// socket is our copy of the caller's, and what is known of it.
type socket struct {
	fd       int
	kind     kind
	domain   int  // AF_INET or AF_INET6, if kind is not other
	multi    bool // MPTCP
	outside  bool // in the node's namespace: we put it there
	blocking bool
}

// inspect asks the kernel about fd, which it keeps. home is the cookie of the node's network namespace.
func inspect(fd int, home uint64) (socket, error) {
	s := socket{fd: fd}
	var err error
	if s.domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return s, err
	}
	if s.domain != unix.AF_INET && s.domain != unix.AF_INET6 {
		return s, nil // the node places no others
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return s, err
	}
	s.outside = cookie == home
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return s, err
	}
	s.multi = protocol == unix.IPPROTO_MPTCP
	switch {
	case protocol == unix.IPPROTO_TCP || s.multi:
		s.kind = stream
	case protocol == unix.IPPROTO_UDP:
		s.kind = datagram
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	s.blocking = flags&unix.O_NONBLOCK == 0
	return s, err
}

// homeCookie is the cookie of the namespace that sockets of this process are in.
func homeCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // only asked
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// busy says what connect must answer on a stream that is not free for a new connection: 0 for one
// whose connection has just come up, EISCONN, EALREADY, or the error of the last attempt, which the kernel
// tells once. free means that the socket may connect.
func (s socket) busy() (answer unix.Errno, free bool) {
	if s.kind != stream || s.multi {
		return 0, true
	}
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return errnoOf(err), false
	}
	if info.State == unix.BPF_TCP_SYN_SENT || info.State == unix.BPF_TCP_SYN_RECV {
		return unix.EALREADY, false
	}
	// A family that is none makes connect(2) go through the socket's state and stop before it does anything.
	err = connectNowhere(s.fd)
	if err == unix.EAFNOSUPPORT {
		return unix.EISCONN, info.State == unix.BPF_TCP_CLOSE
	}
	return errnoOf(err), false
}

func connectNowhere(fd int) error {
	nowhere := unix.RawSockaddrInet6{Family: math.MaxUint16}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nowhere)), unix.SizeofSockaddrInet6)
	if errno != 0 {
		return errno
	}
	return nil
}

// openLike makes a non-blocking socket in the node's namespace, of the kind and with the options of s and, where the
// machine can, with a lock that lets in packets of peer only.
func openLike(s socket, peer netip.AddrPort) (int, error) {
	sort, protocol := unix.SOCK_STREAM, unix.IPPROTO_TCP
	if s.kind == datagram {
		sort, protocol = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	}
	fd, err := unix.Socket(s.domain, sort|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, err
	}
	if CanLock() {
		if err := lock(fd, peer); err != nil {
			unix.Close(fd) //nolint:errcheck // never used
			return -1, err
		}
	}
	carry(s, fd)
	return fd, nil
}

// lock makes the kernel drop, for good, whatever reaches fd from elsewhere than peer. Without it
// an instance could take a socket whose connect failed to another peer, or listen on it.
func lock(fd int, peer netip.AddrPort) error {
	program, err := bpf.Assemble(onlyFrom(normal(peer)))
	if err != nil {
		return fmt.Errorf("assemble the lock of a socket: %w", err)
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
}

// networkHeader is SKF_NET_OFF: loads from here on count from the network header. Others count from the
// header of TCP or UDP, which starts with the source port.
const networkHeader = 0xfff00000

// onlyFrom accepts packets whose source is peer, a normal address.
func onlyFrom(peer netip.AddrPort) []bpf.Instruction {
	version, at := uint32(0x40), uint32(12) // where the source address is
	if peer.Addr().Is6() {
		version, at = 0x60, 8
	}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: networkHeader, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: version, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.LoadAbsolute{Off: 0, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(peer.Port()), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
	for addr := peer.Addr().AsSlice(); len(addr) > 0; addr, at = addr[4:], at+4 {
		word := uint32(addr[0])<<24 | uint32(addr[1])<<16 | uint32(addr[2])<<8 | uint32(addr[3])
		program = append(program,
			bpf.LoadAbsolute{Off: networkHeader + at, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: word, SkipTrue: 1},
			bpf.RetConstant{Val: 0})
	}
	return append(program, bpf.RetConstant{Val: math.MaxUint32})
}
