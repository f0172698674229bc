package egress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// runProgram is what runs inside: os.Args[1] names it.
func runProgram(args []string) {
	programs := map[string]func([]string){
		"dial": dial, "serve-and-dial": serveAndDial, "many": many, "at-once": atOnce, "dns": askDNS, "flags": flags,
		"options": options, "blocking": blocking, "again": again, "time": timeConnects, "udp-again": udpAgain,
		"escape": escape, "fast-open": fastOpen, "hang": hang, "thread": fromThread, "full": fullBacklog, "bad": badCalls, "unix": overUnix, "signals": amongSignals,
	}
	programs[args[0]](args[1:])
}

// dial prints what the server at each address says, or the errno.
func dial(args []string) {
	for _, to := range args {
		fmt.Println(greeting("tcp", to))
	}
}

func greeting(network, to string) string {
	conn, err := net.DialTimeout(network, to, 10*time.Second)
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			return unix.ErrnoName(errno)
		}
		return err.Error()
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// serveAndDial listens at the address and says "inside", then dials it.
func serveAndDial(args []string) {
	l, err := net.Listen("tcp", args[0])
	must("listen", err)
	go func() {
		conn, err := l.Accept()
		must("accept", err)
		io.WriteString(conn, "inside")
		conn.Close()
	}()
	fmt.Println(greeting("tcp", args[0]))
}

// many dials n times in a row.
func many(args []string) {
	n, _ := strconv.Atoi(args[1])
	for range n {
		if got := greeting("tcp", args[0]); got != "outside" {
			must("dial", errors.New(got))
		}
	}
	fmt.Println("ok")
}

// amongSignals is many, while a signal with a handler comes every 200 µs.
func amongSignals(args []string) {
	signal.Notify(make(chan os.Signal, 1), unix.SIGALRM)
	every := unix.Timeval{Usec: 200}
	_, err := unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{Interval: every, Value: every})
	must("setitimer", err)
	many(args)
}

// atOnce connects n blocking sockets, each in a thread of its own.
func atOnce(args []string) {
	n, _ := strconv.Atoi(args[1])
	to := netip.MustParseAddrPort(args[0])
	var all sync.WaitGroup
	for range n {
		all.Add(1)
		go func() {
			defer all.Done()
			fd := newSocket(unix.SOCK_STREAM, 0)
			must("connect", unix.Connect(fd, sockaddr(to)))
			buf := make([]byte, 64)
			got, err := unix.Read(fd, buf)
			must("read", err)
			if string(buf[:got]) != "outside" {
				must("read", fmt.Errorf("got %q", buf[:got]))
			}
		}()
	}
	all.Wait()
	fmt.Println("ok")
}

func newSocket(sort, flags int) int {
	fd, err := unix.Socket(unix.AF_INET, sort|flags, 0)
	must("socket", err)
	return fd
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
}

func errno(err error) string {
	if err == nil {
		return "ok"
	}
	return unix.ErrnoName(err.(unix.Errno))
}

// askDNS sends a datagram on a connected socket and prints the answer.
func askDNS(args []string) {
	conn, err := net.Dial("udp", args[0])
	if err != nil {
		fmt.Println(errno(errors.Unwrap(errors.Unwrap(err))))
		return
	}
	must("deadline", conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = conn.Write([]byte("question"))
	must("write", err)
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	must("read", err)
	fmt.Println(string(buf[:n]), conn.RemoteAddr())
}

// flags connects a socket of each kind and prints what became of its flags.
func flags(args []string) {
	to := netip.MustParseAddrPort(args[0])
	for _, set := range []int{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
		fd := newSocket(unix.SOCK_STREAM, set)
		err := unix.Connect(fd, sockaddr(to))
		if err != nil && err != unix.EINPROGRESS {
			must("connect", err)
		}
		closing, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		must("F_GETFD", err)
		status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		must("F_GETFL", err)
		fmt.Println(closing&unix.FD_CLOEXEC != 0, status&unix.O_NONBLOCK != 0)
	}
}

// options sets options, connects, and prints those that changed.
func options(args []string) {
	fd := newSocket(unix.SOCK_STREAM, 0)
	ints := map[option]int{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE}: 1, {unix.IPPROTO_TCP, unix.TCP_NODELAY}: 1,
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}: 77, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}: 7,
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}: 3, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}: 4321,
		{unix.IPPROTO_IP, unix.IP_TOS}: 0x10, {unix.SOL_SOCKET, unix.SO_SNDBUF}: 50000, {unix.SOL_SOCKET, unix.SO_RCVBUF}: 60000,
	}
	before := map[option]int{}
	for o, value := range ints {
		must("set", unix.SetsockoptInt(fd, o.level, o.name, value))
		before[o], _ = unix.GetsockoptInt(fd, o.level, o.name)
	}
	must("linger", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 9}))
	must("timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 12}))
	must("connect", unix.Connect(fd, sockaddr(netip.MustParseAddrPort(args[0]))))
	for o, want := range before {
		if got, _ := unix.GetsockoptInt(fd, o.level, o.name); got != want {
			fmt.Println(o, "was", want, "is", got)
		}
	}
	linger, _ := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER)
	timeout, _ := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO)
	fmt.Println(linger.Linger, timeout.Sec)
}

// blocking connects with SO_SNDTIMEO of args[1] milliseconds and prints the errno and whether that time passed.
func blocking(args []string) {
	fd := newSocket(unix.SOCK_STREAM, 0)
	ms, _ := strconv.Atoi(args[1])
	tv := unix.NsecToTimeval(int64(ms) * 1e6)
	must("timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
	begin := time.Now()
	err := unix.Connect(fd, sockaddr(netip.MustParseAddrPort(args[0])))
	fmt.Println(errno(err), time.Since(begin) >= time.Duration(ms)*time.Millisecond)
}

// again connects one socket several times, as programs do that ask connect for the outcome.
func again(args []string) {
	up, refusing := sockaddr(netip.MustParseAddrPort(args[0])), sockaddr(netip.MustParseAddrPort(args[1]))
	fd := newSocket(unix.SOCK_STREAM, unix.SOCK_NONBLOCK)
	connect := func(to unix.Sockaddr) string {
		err := unix.Connect(fd, to)
		if err == unix.EINPROGRESS {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		}
		return errno(err)
	}
	fmt.Println("refusing", connect(refusing))
	fmt.Println("outcome or error", connect(refusing))
	fmt.Println("up", connect(up))
	fmt.Println("outcome", connect(up))
	fmt.Println("once more", connect(up))
	buf := make([]byte, 64)
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
	n, err := unix.Read(fd, buf)
	must("read", err)
	fmt.Println(string(buf[:n]))
}

// udpAgain does what getaddrinfo does to sort addresses, then uses the socket.
func udpAgain(args []string) {
	fd := newSocket(unix.SOCK_DGRAM, 0)
	for _, to := range args {
		ap := netip.MustParseAddrPort(to)
		must("connect", unix.Connect(fd, sockaddr(ap)))
		if peer, err := unix.Getpeername(fd); err != nil || peer.(*unix.SockaddrInet4).Port != int(ap.Port()) {
			must("peer", fmt.Errorf("%v, %v", peer, err))
		}
		raw := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		must("undo", connectRaw(fd, &raw))
	}
	_, err := unix.Write(fd, []byte("question"))
	must("write", err)
	buf := make([]byte, 64)
	n, err := unix.Read(fd, buf)
	must("read", err)
	fmt.Println(string(buf[:n]))
}

// escape takes a socket that was let out for args[0], where nobody listens, and tries to use it for
// args[1], which is denied, and to listen with it. Then it waits for the end of its input.
func escape(args []string) {
	allowed, denied := sockaddr(netip.MustParseAddrPort(args[0])), sockaddr(netip.MustParseAddrPort(args[1]))
	out := func() int {
		fd := newSocket(unix.SOCK_STREAM, unix.SOCK_NONBLOCK)
		unix.Connect(fd, allowed)
		raw := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		connectRaw(fd, &raw)
		return fd
	}
	fmt.Println("connect", errno(unix.Connect(out(), denied)))
	fd := out()
	fmt.Println("detach", errno(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)))
	for range 3 { // the kernel tells the last failure first
		fmt.Println("fast open", errno(unix.Sendto(fd, []byte("stolen"), msgFastOpen|unix.MSG_NOSIGNAL, denied)))
	}
	fd = out()
	fmt.Println("bind", errno(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})))
	fmt.Println("listen", errno(unix.Listen(fd, 8)))
	self, err := unix.Getsockname(fd)
	must("getsockname", err)
	fmt.Println("port", self.(*unix.SockaddrInet4).Port)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func fastOpen(args []string) {
	to := sockaddr(netip.MustParseAddrPort(args[0]))
	fmt.Println(errno(unix.Sendto(newSocket(unix.SOCK_STREAM, 0), []byte("x"), msgFastOpen, to)))
	_, err := unix.SendmsgN(newSocket(unix.SOCK_STREAM, 0), []byte("x"), nil, to, msgFastOpen)
	fmt.Println(errno(err))
	_, _, ring := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	fmt.Println(unix.ErrnoName(ring))
}

// hang connects n blocking sockets where nobody answers, and says when all are about to.
func hang(args []string) {
	n, _ := strconv.Atoi(args[1])
	for range n {
		fd := newSocket(unix.SOCK_STREAM, 0)
		go unix.Connect(fd, sockaddr(netip.MustParseAddrPort(args[0])))
	}
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// fromThread connects from a thread that leads no group.
func fromThread(args []string) {
	runtime.LockOSThread() // the others run on other threads now
	defer runtime.UnlockOSThread()
	said := make(chan string)
	for range 2 { // one of two locked goroutines has not the first thread
		go func() {
			runtime.LockOSThread()
			text := greeting("tcp", args[0])
			if unix.Gettid() != unix.Getpid() {
				said <- text
			}
		}()
	}
	fmt.Println(<-said)
}

// overUnix serves and asks over a Unix socket.
func overUnix(args []string) {
	l, err := net.Listen("unix", args[0])
	must("listen", err)
	go func() {
		conn, err := l.Accept()
		must("accept", err)
		io.WriteString(conn, "inside")
		conn.Close()
	}()
	fmt.Println(greeting("unix", args[0]))
}

// fullBacklog connects to a listener of its own whose backlog is full, with a time limit.
func fullBacklog(args []string) {
	l := newSocket(unix.SOCK_STREAM, 0)
	must("bind", unix.Bind(l, sockaddr(netip.MustParseAddrPort(args[0]))))
	must("listen", unix.Listen(l, 0))
	for {
		fd := newSocket(unix.SOCK_STREAM, 0)
		must("timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 300_000}))
		if err := unix.Connect(fd, sockaddr(netip.MustParseAddrPort(args[0]))); err != nil {
			status, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			fmt.Println(errno(err), "blocking", status&unix.O_NONBLOCK == 0)
			return
		}
	}
}

// badCalls prints what the kernel says of connects that make no sense.
func badCalls([]string) {
	fd := newSocket(unix.SOCK_STREAM, 0)
	say := func(fd, at, size uintptr) {
		_, _, e := unix.Syscall(unix.SYS_CONNECT, fd, at, size)
		fmt.Println(unix.ErrnoName(e))
	}
	raw := unix.RawSockaddrInet4{Family: unix.AF_INET}
	at := ptr(&raw)
	say(999, at, 16)
	say(0, at, 16)
	say(uintptr(fd), 8, 16)
	say(uintptr(fd), at, 1)
	say(uintptr(fd), at, ^uintptr(0))
	say(uintptr(fd), at, 4096)
	say(uintptr(fd), at, 8)
	raw.Family = 0x7777
	say(uintptr(fd), at, 16)
	var local [110]byte
	local[0] = unix.AF_UNIX
	copy(local[2:], "/no/such/socket")
	unixFD, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	say(uintptr(unixFD), ptr(&local), 110)
}

// timeConnects prints nanoseconds for each of n connects; args[2] is "blocking" or "poll".
func timeConnects(args []string) {
	to := sockaddr(netip.MustParseAddrPort(args[0]))
	n, _ := strconv.Atoi(args[1])
	var took []string
	flag := map[string]int{"blocking": 0, "poll": unix.SOCK_NONBLOCK}[args[2]]
	var total time.Duration
	for range n {
		fd := newSocket(unix.SOCK_STREAM, flag)
		begin := time.Now()
		err := unix.Connect(fd, to)
		if err == unix.EINPROGRESS {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		} else {
			must("connect", err)
		}
		d := time.Since(begin)
		total += d
		took = append(took, strconv.FormatInt(d.Nanoseconds(), 10))
		unix.Close(fd)
	}
	fmt.Println(strings.Join(took, " "))
}
