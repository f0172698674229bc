package egress

import (
	"time"

	"golang.org/x/sys/unix"
)

// option is a socket option whose value is an int.
type option struct{ level, name int }

// Options that programs set before they connect. Those that bind, listen or need a privilege are left
// out: SO_REUSEADDR, SO_REUSEPORT, SO_MARK, SO_BINDTODEVICE, TCP_DEFER_ACCEPT, TCP_FASTOPEN_CONNECT.
var (
	socketOptions = []option{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.SOL_SOCKET, unix.SO_OOBINLINE},
		{unix.SOL_SOCKET, unix.SO_PRIORITY}, {unix.SOL_SOCKET, unix.SO_RCVLOWAT},
		{unix.SOL_SOCKET, unix.SO_ZEROCOPY}, {unix.SOL_SOCKET, unix.SO_BROADCAST},
	}
	streamOptions = []option{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.IPPROTO_TCP, unix.TCP_CORK},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}, {unix.IPPROTO_TCP, unix.TCP_SYNCNT},
		{unix.IPPROTO_TCP, unix.TCP_LINGER2}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
		{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
	}
	ip4Options = []option{
		{unix.IPPROTO_IP, unix.IP_TOS}, {unix.IPPROTO_IP, unix.IP_TTL},
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER}, {unix.IPPROTO_IP, unix.IP_RECVERR},
		{unix.IPPROTO_IP, unix.IP_PKTINFO}, {unix.IPPROTO_IP, unix.IP_RECVTOS},
	}
	ip6Options = []option{
		{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
		{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS}, {unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVERR}, {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS},
	}
)

// carry gives to the options of from that differ. An option that the kernel does not know or
// refuses stays at its default: a connection with it is better than none.
func carry(from socket, to int) {
	carryInts(from.fd, to, socketOptions)
	if from.kind == stream {
		carryInts(from.fd, to, streamOptions)
		carryCongestion(from.fd, to)
	}
	carryInts(from.fd, to, ip4Options) // an IPv6 socket may speak IPv4
	if from.domain == unix.AF_INET6 {
		carryInts(from.fd, to, ip6Options)
	}
	carryBuffers(from.fd, to)
	carryTimes(from.fd, to)
}

func carryInts(from, to int, options []option) {
	for _, o := range options {
		want, err := unix.GetsockoptInt(from, o.level, o.name)
		if err != nil {
			continue
		}
		if have, err := unix.GetsockoptInt(to, o.level, o.name); err == nil && have != want {
			unix.SetsockoptInt(to, o.level, o.name, want) //nolint:errcheck // see carry
		}
	}
}

// carryBuffers sets sizes that the program chose, and only those: a size that is set is no longer tuned
// by the kernel. The kernel doubles what it is given, to account for its own use.
func carryBuffers(from, to int) {
	locked, err := unix.GetsockoptInt(from, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err != nil {
		return
	}
	for bit, name := range map[int]int{1: unix.SO_SNDBUF, 2: unix.SO_RCVBUF} {
		if size, err := unix.GetsockoptInt(from, unix.SOL_SOCKET, name); err == nil && locked&bit != 0 {
			unix.SetsockoptInt(to, unix.SOL_SOCKET, name, size/2) //nolint:errcheck // see carry
		}
	}
}

func carryTimes(from, to int) {
	for _, name := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if tv, err := unix.GetsockoptTimeval(from, unix.SOL_SOCKET, name); err == nil && tv.Nano() != 0 {
			unix.SetsockoptTimeval(to, unix.SOL_SOCKET, name, tv) //nolint:errcheck // see carry
		}
	}
	if linger, err := unix.GetsockoptLinger(from, unix.SOL_SOCKET, unix.SO_LINGER); err == nil && linger.Onoff != 0 {
		unix.SetsockoptLinger(to, unix.SOL_SOCKET, unix.SO_LINGER, linger) //nolint:errcheck // see carry
	}
}

func carryCongestion(from, to int) {
	want, err := unix.GetsockoptString(from, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil {
		return
	}
	if have, err := unix.GetsockoptString(to, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err == nil && have != want {
		unix.SetsockoptString(to, unix.IPPROTO_TCP, unix.TCP_CONGESTION, want) //nolint:errcheck // see carry
	}
}

// sendTimeout is how long a blocking connect may take, 0 for as long as the kernel tries.
func sendTimeout(fd int) time.Duration {
	tv, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO)
	if err != nil {
		return 0
	}
	return time.Duration(tv.Nano())
}
