package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The test binary is also the instance: as "enter" it is the first process of a new namespace, takes the
// filter and becomes the program proper, which may be the binary once more ("program").
// unlockedEnv makes it take the filter of a machine that cannot lock sockets.
// landlockEnv makes it forbid itself all TCP connects.
const (
	roleEnv     = "EGRESS_TEST_ROLE"
	bareEnv     = "EGRESS_TEST_BARE"
	unlockedEnv = "EGRESS_TEST_UNLOCKED"
	landlockEnv = "EGRESS_TEST_LANDLOCK"
)

func TestMain(m *testing.M) {
	if os.Getenv(unlockedEnv) != "" {
		canLock = func() bool { return false }
	}
	switch os.Getenv(roleEnv) {
	case "enter":
		enter()
	case "program":
		runProgram(os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(3)
	}
}

// enter never returns. Descriptor 3 is a socket to the test.
func enter() {
	runtime.LockOSThread()
	if os.Getenv(roleEnv+"_FREE") == "" {
		must("bring lo up", loopbackUp())
		must("no new privileges", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		if os.Getenv(landlockEnv) != "" {
			must("landlock", forbidTCP())
		}
		fd, err := install(filterOfTest())
		must("install the filter", err)
		must("send the listener", unix.Sendmsg(3, []byte{0}, unix.UnixRights(fd), nil, 0))
		must("close", unix.Close(fd))
	}
	must("close", unix.Close(3))
	os.Setenv(roleEnv, "program")
	path, err := exec.LookPath(os.Args[1])
	must("look for the program", err)
	must("exec", syscall.Exec(path, os.Args[1:], os.Environ()))
}

func filterOfTest() []bpf.Instruction {
	filter := Notify()
	if os.Getenv(bareEnv) != "" { // connect only, to see what the locks of sockets are worth alone
		filter = []bpf.Instruction{
			bpf.LoadAbsolute{Off: dataNumber, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CONNECT, SkipTrue: 1},
			bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF},
		}
	}
	return append(filter, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
}

func install(instructions []bpf.Instruction) (int, error) {
	program, err := bpf.Assemble(instructions)
	if err != nil {
		return -1, err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	fd, err := seccompCall(unix.SECCOMP_SET_MODE_FILTER, flags|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, unsafe.Pointer(&fprog))
	if err == unix.EINVAL {
		return seccompCall(unix.SECCOMP_SET_MODE_FILTER, flags, unsafe.Pointer(&fprog))
	}
	return fd, err
}

// forbidTCP forbids this thread, and what it becomes, to connect TCP.
func forbidTCP() error {
	attr := struct{ fs, net uint64 }{net: unix.LANDLOCK_ACCESS_NET_CONNECT_TCP}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, ptr(&attr), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return errno
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// instance is a program in a namespace of its own, with its supervisor.
type instance struct {
	t      testing.TB
	cmd    *exec.Cmd
	super  *Supervisor
	in     io.WriteCloser
	out    output
	errs   output
	denied chan netip.AddrPort
}

// output may be read while the program writes it.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs argv[0]; "self" is a program of this binary.
func start(t testing.TB, p Policy, env []string, argv ...string) *instance {
	t.Helper()
	needs(t)
	i := newInstance(t, argv, env)
	i.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	ours := i.launch()
	listener := receiveFile(t, ours, &i.errs)
	i.denied = make(chan netip.AddrPort, noticesMax)
	super, err := Supervise(listener, p, func(to netip.AddrPort) { i.denied <- to })
	if err != nil {
		t.Fatal(err)
	}
	i.super = super
	t.Cleanup(i.end)
	return i
}

func newInstance(t testing.TB, argv, env []string) *instance {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if argv[0] == "self" {
		argv[0] = self
	}
	i := &instance{t: t, cmd: exec.Command(self, argv...)}
	i.cmd.Env = append(append(os.Environ(), roleEnv+"=enter", "GORACE=atexit_sleep_ms=0"), env...)
	i.cmd.Stdout, i.cmd.Stderr = &i.out, &i.errs
	if i.in, err = i.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	return i
}

// launch gives our end of the socket at descriptor 3.
func (i *instance) launch() *os.File {
	i.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		i.t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	i.cmd.ExtraFiles = []*os.File{theirs}
	err = i.cmd.Start()
	theirs.Close()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) {
		ours.Close()
		i.t.Skipf("no new user and network namespace here: %v", err)
	}
	if err != nil {
		i.t.Fatal(err)
	}
	return ours
}

func receiveFile(t testing.TB, from *os.File, errs *output) *os.File {
	t.Helper()
	defer from.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(from.Fd()), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("the instance sent no listener: %v: %s", err, errs)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "listener")
}

// needs skips where the machine cannot do it, and says so.
func needs(t testing.TB) {
	t.Helper()
	if err := Probe(); err != nil {
		t.Skip(err)
	}
}

// wait is the program's output; it fails the test if the program failed.
func (i *instance) wait() string {
	i.t.Helper()
	if err := i.cmd.Wait(); err != nil {
		i.t.Fatalf("the program: %v\nout: %s\nerr: %s", err, &i.out, &i.errs)
	}
	return strings.TrimSpace(i.out.String())
}

func (i *instance) end() {
	i.cmd.Process.Kill() //nolint:errcheck // it may have ended
	i.cmd.Wait()         //nolint:errcheck // same
	if err := i.super.Close(); err != nil {
		i.t.Errorf("the supervisor ended with %v", err)
	}
}

// run is start and wait.
func run(t testing.TB, p Policy, argv ...string) string {
	t.Helper()
	return start(t, p, nil, argv...).wait()
}

// greeter answers each TCP connection at address with its name and ends it.
func greeter(t testing.TB, network, address, name string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("listen at %s: %v", address, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, name)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// counts are what must not grow: our descriptors and goroutines.
func counts(t testing.TB) (files, goroutines int) {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names), runtime.NumGoroutine()
}

// settles fails unless the counts come back to what they were; goroutines end a moment after what
// they signal.
func settles(t testing.TB, files, goroutines int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		f, g := counts(t)
		if f <= files && g <= goroutines {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors and %d goroutines, before %d and %d", f, g, files, goroutines)
		}
		runtime.Gosched()
	}
}

func port(ap netip.AddrPort) string { return strconv.Itoa(int(ap.Port())) }
