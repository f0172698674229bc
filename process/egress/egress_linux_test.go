package egress

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ptr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

func connectRaw(fd int, raw *unix.RawSockaddr) error {
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), ptr(raw), unix.SizeofSockaddrInet4); errno != 0 {
		return errno
	}
	return nil
}

func TestAGoProgramReachesAServerOutside(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	if got := run(t, Policy{}, "self", "dial", to.String()); got != "outside" {
		t.Errorf("got %q", got)
	}
}

func TestAnyThreadMayConnect(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	t.Run("by its own pidfd", func(t *testing.T) {
		if got := run(t, Policy{}, "self", "thread", to.String()); got != "outside" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("by its leader's, before Linux 6.9", func(t *testing.T) {
		before := hasThreadPidfd
		hasThreadPidfd = func() bool { return false }
		t.Cleanup(func() { hasThreadPidfd = before })
		if got := run(t, Policy{}, "self", "thread", to.String()); got != "outside" {
			t.Errorf("got %q", got)
		}
	})
}

func TestIPv6GoesOutToo(t *testing.T) {
	to := greeter(t, "tcp6", "[::1]:0", "outside")
	mapped := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	got := run(t, Policy{}, "self", "dial", to.String(), "[::]:"+port(to), "[::ffff:127.0.0.1]:"+port(mapped))
	if got != "outside\noutside\noutside" {
		t.Errorf("got %q", got)
	}
}

func TestTheMachinesOtherAddressIsReached(t *testing.T) {
	own := ownAddress(t)
	to := greeter(t, "tcp", netip.AddrPortFrom(own, 0).String(), "outside")
	if got := run(t, Policy{}, "self", "dial", to.String()); got != "outside" {
		t.Errorf("got %q", got)
	}
}

// ownAddress is one of this machine that is not loopback.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	for _, addr := range thisMachine.addresses() {
		if addr.Is4() && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
			return addr
		}
	}
	t.Skip("this machine has no address but loopback")
	return netip.Addr{}
}

func hello(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello "+r.URL.Path[1:]) }))
	t.Cleanup(server.Close)
	return server.URL
}

func TestPythonReachesAServerOutside(t *testing.T) {
	tool(t, "python3")
	script := `import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1] + "/python", timeout=20).read().decode())`
	if got := run(t, Policy{}, "python3", "-c", script, hello(t)); got != "hello python" {
		t.Errorf("got %q", got)
	}
}

func TestPythonAsyncioReachesAServerOutside(t *testing.T) {
	tool(t, "python3")
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	script := `
import asyncio, sys
async def main():
    r, w = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    print((await r.read()).decode())
asyncio.run(main())`
	if got := run(t, Policy{}, "python3", "-c", script, port(to)); got != "outside" {
		t.Errorf("got %q", got)
	}
}

func TestNodeReachesAServerOutside(t *testing.T) {
	tool(t, "node")
	script := `require("http").get(process.argv[1] + "/node", r => { r.on("data", d => process.stdout.write(d)) })`
	if got := run(t, Policy{}, "node", "-e", script, hello(t)); got != "hello node" {
		t.Errorf("got %q", got)
	}
}

func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
}

func TestAServerInsideComesFirst(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	if got := run(t, Policy{}, "self", "serve-and-dial", to.String()); got != "inside" {
		t.Errorf("got %q", got)
	}
}

func TestWhereThePolicyKeepsLoopbackInNobodyAnswers(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	for _, mode := range []Mode{Public, None} {
		if got := run(t, Policy{Mode: mode}, "self", "dial", to.String()); got != "ECONNREFUSED" {
			t.Errorf("mode %d: got %q", mode, got)
		}
		if got := run(t, Policy{Mode: mode}, "self", "serve-and-dial", to.String()); got != "inside" {
			t.Errorf("mode %d: got %q", mode, got)
		}
	}
}

func TestWhatIsRefusedReadsPermissionDeniedAndIsTold(t *testing.T) {
	metadata := netip.MustParseAddrPort("169.254.169.254:80")
	i := start(t, Policy{}, nil, "self", "dial", metadata.String(), metadata.String(), "[::ffff:169.254.169.254]:80")
	if got := i.wait(); got != "EACCES\nEACCES\nEACCES" {
		t.Errorf("got %q", got)
	}
	if told := <-i.denied; told != metadata {
		t.Errorf("told of %v", told)
	}
	if i.super.Refused() != 3 || len(i.denied) != 0 {
		t.Errorf("%d refusals counted, %d more notices; want 3 and 0", i.super.Refused(), len(i.denied))
	}
}

func TestTheNodesOwnListenersAreRefusedAtEveryAddress(t *testing.T) {
	own := ownAddress(t)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	admin := l.Addr().(*net.TCPAddr).AddrPort()
	deny := Listeners(func() []netip.AddrPort { return []netip.AddrPort{admin} })
	all := []string{"127.0.0.1:", "127.1.2.3:", "0.0.0.0:", "[::1]:", "[::]:", "[::ffff:127.0.0.1]:", own.String() + ":", "[::ffff:" + own.String() + "]:"}
	args := []string{"self", "dial"}
	for _, addr := range all {
		args = append(args, addr+port(admin))
	}
	got := run(t, Policy{Deny: deny, Allow: rules(t, "*")}, args...)
	want := "ECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nEACCES\nEACCES"
	if got != want {
		t.Errorf("got %q", got)
	}
}

func TestARuleLetsOutWhatNoneKeepsIn(t *testing.T) {
	to, shut := greeter(t, "tcp4", "127.0.0.1:0", "outside"), greeter(t, "tcp4", "127.0.0.1:0", "outside")
	p := Policy{Mode: None, Allow: rules(t, to.String())}
	if got := run(t, p, "self", "dial", to.String(), shut.String()); got != "outside\nECONNREFUSED" {
		t.Errorf("got %q", got)
	}
}

// nameserver answers datagrams; port 53 needs root, another port does not.
func nameserver(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp4", address)
	if err != nil {
		t.Skipf("listen at %s: %v", address, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo([]byte("answer to "+string(buf[:n])), from)
		}
	}()
	t.Cleanup(func() { conn.Close(); <-ended })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestANameserverOfTheMachineIsAskedOverUDP(t *testing.T) {
	ns := nameserver(t, "127.0.0.77:53")
	p := Policy{Mode: Public, host: fakeHost{names: addrs("127.0.0.77")}}
	if got := run(t, p, "self", "dns", ns.String()); got != "answer to question 127.0.0.77:53" {
		t.Errorf("got %q", got)
	}
}

func TestUDPGoesOutAndMayChangeItsPeer(t *testing.T) {
	own := ownAddress(t)
	first, second := nameserver(t, own.String()+":0"), nameserver(t, own.String()+":0")
	if got := run(t, Policy{}, "self", "dns", first.String()); got != "answer to question "+first.String() {
		t.Errorf("got %q", got)
	}
	if got := run(t, Policy{}, "self", "udp-again", first.String(), second.String()); got != "answer to question" {
		t.Errorf("got %q", got)
	}
	if got := run(t, Policy{NoDatagrams: true}, "self", "dns", first.String()); got != "EACCES" {
		t.Errorf("no datagrams: got %q", got)
	}
}

func TestFlagsOfTheDescriptorStay(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	if got := run(t, Policy{}, "self", "flags", to.String()); got != "false false\ntrue false\nfalse true\ntrue true" {
		t.Errorf("close-on-exec and non-blocking: %q", got)
	}
}

func TestOptionsSetBeforeConnectStay(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	if got := run(t, Policy{}, "self", "options", to.String()); got != "9 12" {
		t.Errorf("got %q", got)
	}
}

func TestConnectingAgainAnswersAsTheKernelDoes(t *testing.T) {
	own := ownAddress(t)
	up := greeter(t, "tcp4", own.String()+":0", "outside")
	args := []string{"self", "again", up.String(), silent(t, own).String()}
	got := run(t, Policy{}, args...)
	if want := unsupervised(t, args...); got != want {
		t.Errorf("supervised:\n%s\nwithout:\n%s", got, want)
	}
}

// silent is an address where nobody listens: bound, so that nobody else takes it.
func silent(t *testing.T, addr netip.Addr) netip.AddrPort {
	t.Helper()
	fd := newSocket(unix.SOCK_STREAM, unix.SOCK_CLOEXEC)
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4()}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(addr, uint16(sa.(*unix.SockaddrInet4).Port))
}

// unsupervised runs the program in this namespace, without a filter.
func unsupervised(t testing.TB, argv ...string) string {
	t.Helper()
	i := newInstance(t, slices.Clone(argv), []string{roleEnv + "_FREE=1"})
	i.launch().Close()
	return i.wait()
}

func TestCallsThatMakeNoSenseFailAsTheKernelHasIt(t *testing.T) {
	got, want := run(t, Policy{}, "self", "bad"), unsupervised(t, "self", "bad")
	if got != want || !strings.HasPrefix(want, "EBADF") {
		t.Errorf("supervised:\n%s\nwithout:\n%s", got, want)
	}
}

func TestAThousandConnectsInARow(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	files, goroutines := counts(t)
	i := start(t, Policy{}, nil, "self", "many", to.String(), "1000")
	if got := i.wait(); got != "ok" {
		t.Errorf("got %q", got)
	}
	<-i.super.Done() // by itself: nobody has the filter
	if err := i.super.Close(); err != nil {
		t.Error(err)
	}
	settles(t, files, goroutines)
}

func TestSignalsDoNotDisturb(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	if got := run(t, Policy{}, "self", "signals", to.String(), "300"); got != "ok" {
		t.Errorf("got %q", got)
	}
}

func TestSixtyFourBlockingConnectsAtOnce(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	if got := run(t, Policy{}, "self", "at-once", to.String(), "64"); got != "ok" {
		t.Errorf("got %q", got)
	}
}

// blackhole is a listener that never accepts and has a full backlog: a SYN to it has no answer.
func blackhole(t *testing.T) netip.AddrPort {
	t.Helper()
	fd := newSocket(unix.SOCK_STREAM, unix.SOCK_CLOEXEC)
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*unix.SockaddrInet4).Port))
	for { // until one hangs
		client := newSocket(unix.SOCK_STREAM, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		t.Cleanup(func() { unix.Close(client) })
		unix.Connect(client, sockaddr(to)) //nolint:errcheck // in progress
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(client), Events: unix.POLLOUT}}, 200); err == nil && n == 0 {
			return to
		}
	}
}

func TestABlockingConnectEndsWithItsTimeout(t *testing.T) {
	args := []string{"self", "blocking", blackhole(t).String(), "400"}
	got, want := run(t, Policy{}, args...), unsupervised(t, args...)
	if got != want || want != "EINPROGRESS true" {
		t.Errorf("got %q, without a supervisor %q", got, want)
	}
}

func TestAFullBacklogInsideIsWaitedForAndStaysBlocking(t *testing.T) {
	to := silent(t, netip.MustParseAddr("127.0.0.1"))
	if got := run(t, Policy{}, "self", "full", to.String()); got != "EINPROGRESS blocking true" {
		t.Errorf("got %q", got)
	}
}

func TestNothingIsLeftOfAnInstanceThatIsKilledWhileItConnects(t *testing.T) {
	to := blackhole(t)
	files, goroutines := counts(t)
	i := start(t, Policy{}, nil, "self", "hang", to.String(), strconv.Itoa(connectsWaitingMax+10))
	until(t, func() bool { return len(i.super.slots) == connectsWaitingMax })
	if err := i.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	i.cmd.Wait() //nolint:errcheck // killed
	<-i.super.Done()
	if err := i.super.Close(); err != nil {
		t.Error(err)
	}
	settles(t, files, goroutines)
}

func TestCloseDoesNotWaitForThePeer(t *testing.T) {
	to := blackhole(t)
	files, goroutines := counts(t)
	i := start(t, Policy{}, nil, "self", "hang", to.String(), strconv.Itoa(connectsWaitingMax+10))
	until(t, func() bool { return len(i.super.slots) == connectsWaitingMax })
	begin := time.Now()
	if err := i.super.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
	i.end()
	settles(t, files, goroutines)
}

func until(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come about")
		}
	}
}

// A socket that was let out may be in the state of a new one when its connect fails. Without
// the lock the kernel would then connect it anywhere outside (MSG_FASTOPEN), and listen on it. The filter
// here is the weakest possible: only connect is looked at.
func TestASocketThatWasLetOutIsOfNoUseForAnythingElse(t *testing.T) {
	needsLock(t)
	said := escapes(t, bareEnv+"=1")
	for _, want := range []string{"connect EACCES\n", "detach EPERM\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q, but\n%s", want, said)
		}
	}
}

// Where the kernel locks no sockets for ordinary users, the filter has to do more.
func TestWithoutLocksTheFilterForbidsTheSame(t *testing.T) {
	withoutLocks(t)
	said := escapes(t, unlockedEnv+"=1")
	for _, want := range []string{"connect EACCES\n", "fast open ENOTSUP\n", "listen EACCES\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q, but\n%s", want, said)
		}
	}
}

func TestWithoutLocksProgramsWorkAsWell(t *testing.T) {
	withoutLocks(t)
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	local := filepath.Join(t.TempDir(), "socket")
	for _, argv := range [][]string{{"dial", to.String()}, {"many", to.String(), "50"}, {"serve-and-dial", to.String()}, {"unix", local}} {
		want := map[string]string{"dial": "outside", "many": "ok", "serve-and-dial": "inside", "unix": "inside"}[argv[0]]
		i := start(t, Policy{}, []string{unlockedEnv + "=1"}, append([]string{"self"}, argv...)...)
		if got := i.wait(); got != want {
			t.Errorf("%v: got %q, want %q", argv, got, want)
		}
	}
}

// The sandbox may forbid an instance all TCP connects of its own: those that succeed are the node's.
func TestNoTCPConnectIsTheInstancesOwn(t *testing.T) {
	if abi, _, _ := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1); int(abi) < 4 {
		t.Skipf("Landlock of ABI %d knows no TCP, or there is none", int(abi))
	}
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	for mode, dialed := range map[Mode]string{Machine: "outside", Public: "ECONNREFUSED"} {
		for name, want := range map[string]string{"dial": dialed, "serve-and-dial": "inside"} {
			i := start(t, Policy{Mode: mode}, []string{landlockEnv + "=1"}, "self", name, to.String())
			if got := i.wait(); got != want {
				t.Errorf("mode %d, %s: got %q, want %q", mode, name, got, want)
			}
		}
	}
}

func needsLock(t *testing.T) {
	t.Helper()
	if !CanLock() {
		t.Skip("this kernel locks no sockets for an ordinary user")
	}
}

func withoutLocks(t *testing.T) {
	t.Helper()
	before := canLock
	canLock = func() bool { return false }
	t.Cleanup(func() { canLock = before })
}

// escapes gives what the instance says of its attempts, after it has looked whether one went through.
func escapes(t *testing.T, env string) string {
	t.Helper()
	own := ownAddress(t)
	denied, err := net.Listen("tcp4", own.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer denied.Close()
	admin := denied.Addr().(*net.TCPAddr).AddrPort()
	p := Policy{Deny: func(to netip.AddrPort) bool { return to == admin }}
	i := start(t, p, []string{env}, "self", "escape", silent(t, own).String(), admin.String())
	until(t, func() bool { return strings.Contains(i.out.String(), "ready") })
	said := i.out.String()
	acceptsNobody(t, denied)
	var listening uint16
	if _, err := fmt.Sscanf(said[strings.Index(said, "port "):], "port %d", &listening); err != nil {
		t.Fatalf("%v in %s", err, said)
	}
	loopback := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listening)
	if conn, err := net.DialTimeout("tcp4", loopback.String(), 300*time.Millisecond); err == nil {
		conn.Close()
		t.Error("the instance listens outside its namespace")
	}
	return said
}

func acceptsNobody(t *testing.T, l net.Listener) {
	t.Helper()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(300 * time.Millisecond)) //nolint:errcheck // open
	if conn, err := l.Accept(); err == nil {
		conn.Close()
		t.Error("the denied listener was reached")
	}
}

// The peer that the lock names is the only one that can be reached: of two listeners that are the same otherwise.
func TestALockLetsInItsPeerOnly(t *testing.T) {
	needsLock(t)
	for _, c := range []struct{ network, address string }{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}} {
		friend, stranger := greeter(t, c.network, c.address, "friend"), greeter(t, c.network, c.address, "stranger")
		for to, want := range map[netip.AddrPort]error{friend: nil, stranger: unix.EINPROGRESS} {
			domain := map[bool]int{true: unix.AF_INET, false: unix.AF_INET6}[to.Addr().Is4()]
			fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			tv := unix.NsecToTimeval(300e6)
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
				t.Fatal(err)
			}
			if err := lock(fd, friend); err != nil {
				t.Fatal(err)
			}
			d := destination{family: uint16(domain), to: to}
			if err := unix.Connect(fd, d.sockaddr()); err != want {
				t.Errorf("%s: %v, want %v", to, err, want)
			}
			unix.Close(fd)
		}
	}
}

func TestTheFilterRefusesWaysAroundConnect(t *testing.T) {
	to := greeter(t, "tcp4", "127.0.0.1:0", "outside")
	if got := run(t, Policy{}, "self", "fast-open", to.String()); got != "ENOTSUP\nENOTSUP\nENOSYS" {
		t.Errorf("got %q", got)
	}
}
