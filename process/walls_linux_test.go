package process_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process"
)

// walled is a story whose instances run behind walls. Where namespaces are not permitted there is nothing to test.
func walled(t *testing.T, o process.Options) *story {
	t.Helper()
	o.Sandbox = true
	s := newStoryWith(t, o)
	for _, l := range s.rt.Layers() {
		if l.Name == quipu.LayerNamespaces && !l.Active {
			t.Skipf("no namespaces here: %s", l.Text)
		}
	}
	return s
}

// attempts are ways out. Each must fail; args are what the test tells of the world outside.
var attempts = map[string]func(arg string) error{
	"read a file of another function":   read,
	"read the data directory":           func(arg string) error { _, err := os.ReadDir(arg); return err },
	"read the machine's passwords":      func(string) error { return read("/etc/shadow") },
	"write to the system":               func(string) error { return os.WriteFile("/usr/bin/evil", nil, 0o755) },
	"write to its source":               func(string) error { return os.WriteFile("evil", nil, 0o755) },
	"write to the root":                 func(string) error { return os.Mkdir("/evil", 0o755) },
	"change the kernel's settings":      func(string) error { return os.WriteFile("/proc/sys/kernel/core_pattern", []byte("|/tmp/x"), 0) },
	"use magic keys":                    func(string) error { return os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0) },
	"read the kernel's memory":          func(string) error { return read("/proc/kcore") },
	"open a disk":                       func(string) error { return unix.Mknod("/tmp/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))) },
	"signal a process outside":          func(arg string) error { return syscall.Kill(number(arg), 0) },
	"read its helper's memory":          func(string) error { return read("/proc/1/mem") },
	"read its helper's environment":     func(string) error { return read("/proc/1/environ") },
	"look into its helper's root":       func(string) error { _, err := os.ReadDir("/proc/1/root"); return err },
	"trace its helper":                  func(string) error { return syscall.PtraceAttach(1) },
	"mount":                             func(string) error { return syscall.Mount("x", "/tmp", "tmpfs", 0, "") },
	"unmount":                           func(string) error { return syscall.Unmount("/tmp", 0) },
	"change its root":                   func(string) error { return syscall.Chroot("/tmp") },
	"make a user namespace":             func(string) error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"make a user namespace by clone":    cloneUser,
	"enter a namespace":                 func(string) error { return setns("/proc/self/ns/net") },
	"load a module":                     func(string) error { return unix.InitModule(nil, "") },
	"reboot":                            func(string) error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) },
	"set the clock":                     func(string) error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) },
	"load a BPF program":                func(string) error { return raw(unix.SYS_BPF) },
	"read keys":                         func(string) error { _, err := unix.KeyctlGetKeyringID(-3, false); return err },
	"watch the processor":               func(string) error { return raw(unix.SYS_PERF_EVENT_OPEN) },
	"set up a ring":                     func(string) error { return raw(unix.SYS_IO_URING_SETUP) },
	"open a file by handle":             func(string) error { return raw(unix.SYS_OPEN_BY_HANDLE_AT) },
	"become root":                       func(string) error { return unix.Setresuid(0, 0, 0) },
	"send raw packets":                  func(string) error { return socket(unix.AF_INET, unix.SOCK_RAW) },
	"open a packet socket":              func(string) error { return socket(unix.AF_PACKET, unix.SOCK_DGRAM) },
	"open a socket of the hypervisor":   func(string) error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM) },
	"call a listener of the node":       dial("tcp"),
	"call an abstract socket":           dial("unix"),
	"call a Unix socket of the machine": dial("unix"),
}

func read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 64))
	return err
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func cloneUser(string) error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	return cmd.Run()
}

func setns(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), 0)
}

func raw(call uintptr) error {
	if _, _, errno := unix.Syscall(call, 0, 0, 0); errno == unix.EPERM || errno == unix.ENOSYS {
		return errno
	}
	return nil // the kernel looked at the arguments: it was let through
}

func socket(family, kind int) error {
	_, err := unix.Socket(family, kind, 0)
	return err
}

func dial(network string) func(string) error {
	return func(address string) error {
		conn, err := net.DialTimeout(network, address, 5*time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	}
}

// beAttacker tries what it is told, and prints what came of it.
func beAttacker() {
	for _, line := range strings.Split(os.Getenv("ATTEMPTS"), ";") {
		name, arg, _ := strings.Cut(line, "=")
		if err := attempts[name](arg); err != nil {
			fmt.Printf("%s: refused: %v\n", name, err)
		} else {
			fmt.Printf("%s: ALLOWED\n", name)
		}
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && number(e.Name()) > 2 && !strings.Contains(to, "anon_inode") && !strings.HasPrefix(to, "/proc/") {
			fmt.Printf("inherited %s: ALLOWED\n", to)
		}
	}
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range environs {
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "THE_SECRET_OF=another") {
			fmt.Printf("environment of another in %s: ALLOWED\n", name)
		}
	}
}

// Whatever a function tries, it is refused.
func TestAFunctionCannotLeaveItsWalls(t *testing.T) {
	data, tcp := t.TempDir(), listenAt(t, "tcp", "127.0.0.1:0")
	s := walled(t, process.Options{Private: []string{data}, Own: func(to netip.AddrPort) bool { return to.String() == tcp }})
	other := filepath.Join(data, "apps", "other")
	if err := os.MkdirAll(other, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(other, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	victim := s.start("never", "THE_SECRET_OF=another")
	defer victim.Stop(0)
	here := filepath.Join(data, "sock")
	listenAt(t, "unix", here)
	abstract := "@quipu-test-" + s.tag
	listenAt(t, "unix", abstract)
	args := map[string]string{
		"read a file of another function": secret, "read the data directory": data, "signal a process outside": strconv.Itoa(victim.PID()),
		"call a listener of the node": tcp, "call a Unix socket of the machine": here, "call an abstract socket": abstract,
	}
	var all []string
	for name := range attempts {
		all = append(all, name+"="+args[name])
	}
	inst := s.start("attacker", "ATTEMPTS="+strings.Join(all, ";"))
	s.done(inst)
	refused := 0
	for _, line := range s.printed() {
		switch {
		case strings.HasSuffix(line, "ALLOWED"):
			t.Error(line)
		case strings.Contains(line, ": refused: "):
			refused++
		}
	}
	if refused != len(attempts) {
		t.Errorf("%d of %d attempts were refused; it ended with %q and printed\n%s", refused, len(attempts), inst.Exit(), strings.Join(s.printed(), "\n"))
	}
}

func listenAt(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// beBomb starts processes until it may not, and lets them live.
func beBomb() {
	for n := 0; ; n++ {
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			fmt.Printf("%d processes: %v\n", n, err)
			serve("unix", os.Getenv("QUIPU_SOCKET"))
		}
	}
}

func TestAForkBombStopsAtItsLimitAndEndsWithItsInstance(t *testing.T) {
	s := walled(t, process.Options{})
	spec := s.spec("bomb")
	spec.Sandbox.Processes = 64
	inst, err := s.rt.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	s.until("the bomb has hit its limit", func() bool { return len(s.printed()) > 0 })
	var n int
	if _, err := fmt.Sscanf(s.printed()[0], "stdout: %d processes", &n); err != nil || n < 10 || n > 64 {
		t.Errorf("it printed %q", s.printed()[0])
	}
	inst.Stop(0)
	s.nothingRuns()
}

// beHog takes memory and uses it.
func beHog() {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for n := 0; n < len(b); n += 4096 {
			b[n] = 1
		}
		all = append(all, b)
		if len(all)%64 == 0 {
			time.Sleep(time.Millisecond)
		}
		if len(all) > 4096 {
			fmt.Println("ALLOWED")
			os.Exit(0)
		}
	}
}

func TestAFunctionThatFillsMemoryIsEndedAndSaysWhy(t *testing.T) {
	s := walled(t, process.Options{})
	spec := s.spec("hog")
	spec.Memory = 96 << 20
	inst, err := s.rt.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	s.done(inst)
	if want := "out of memory: it took more than its 96Mi"; inst.Exit() != want {
		t.Errorf("it ended with %q, want %q; it printed %q", inst.Exit(), want, s.printed())
	}
}

// beFiller writes to /tmp until it may not.
func beFiller() {
	f, err := os.Create(filepath.Join(os.TempDir(), "big"))
	if err != nil {
		panic(err)
	}
	written := 0
	for b := make([]byte, 1<<20); err == nil && written < 1<<30; written += len(b) {
		_, err = f.Write(b)
	}
	fmt.Printf("%d MiB: %v\n", written>>20, errors.Is(err, syscall.ENOSPC))
}

func TestAFunctionThatFillsItsDiskFillsNothingElse(t *testing.T) {
	s := walled(t, process.Options{})
	spec := s.spec("filler")
	spec.Sandbox.Tmp = 8 << 20
	inst, err := s.rt.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	s.done(inst)
	if got := s.printed(); len(got) != 1 || got[0] != "stdout: 9 MiB: true" {
		t.Errorf("it printed %q", got)
	}
}

// beBusy burns a processor and prints how many milliseconds of it were had in half a second.
func beBusy() {
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
	}
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	fmt.Println(time.Duration(used.Utime.Nano() + used.Stime.Nano()).Milliseconds())
}

func TestAShareOfAProcessorIsNotExceeded(t *testing.T) {
	s := walled(t, process.Options{})
	if !slices.ContainsFunc(s.rt.Layers(), func(l quipu.Layer) bool { return l.Name == quipu.LayerCPU && l.Active }) {
		t.Skip("no control group for processors here")
	}
	spec := s.spec("busy")
	spec.CPU = 200
	inst, err := s.rt.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	s.done(inst)
	var ms int
	if _, err := fmt.Sscanf(s.printed()[0], "stdout: %d", &ms); err != nil || ms > 250 {
		t.Errorf("with a fifth of a processor it had %q ms of 500", s.printed())
	}
}

// A function finds the node's doors on its own loopback, at the ports that it is told, and so does the node find the function.
func TestDoorsAreWithinTheWalls(t *testing.T) {
	s := walled(t, process.Options{})
	for range 2 { // at the same time: each has its own
		spec := s.spec("caller")
		spec.Doors = []quipu.Door{{Port: 3500, Env: func(port int) []string { return []string{"DOOR=" + strconv.Itoa(port)} },
			Serve: func(l net.Listener) {
				server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "door") })}
				t.Cleanup(func() { server.Close() })
				go server.Serve(l)
			}}}
		inst, err := s.rt.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		s.ready(inst)
		conn, err := inst.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if got, want := s.printed(), []string{"stdout: 3500 door", "stdout: 3500 door"}; !slices.Equal(got, want) {
		t.Errorf("printed %q, want %q", got, want)
	}
}

func beCaller() {
	reply, err := http.Get("http://127.0.0.1:" + os.Getenv("DOOR") + "/")
	if err != nil {
		panic(err)
	}
	text := make([]byte, 64)
	n, _ := reply.Body.Read(text)
	fmt.Println(os.Getenv("DOOR"), string(text[:n]))
	serve("tcp", "127.0.0.1:"+os.Getenv("PORT"))
}

// beClient calls an address and prints what came of it.
func beClient() {
	reply, err := http.Get("http://" + os.Getenv("ADDRESS"))
	if err != nil {
		fmt.Println("refused")
		return
	}
	fmt.Println(reply.Status)
}

func TestTheWayOutFollowsThePolicy(t *testing.T) {
	s := walled(t, process.Options{})
	if !slices.ContainsFunc(s.rt.Layers(), func(l quipu.Layer) bool { return l.Name == quipu.LayerNetwork && l.Active }) {
		t.Skip("there is no way out on this machine")
	}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	address := server.Listener.Addr().String()
	for _, c := range []struct {
		policy quipu.Sandbox
		want   []string
	}{
		{quipu.Sandbox{}, []string{"stdout: 404 Not Found"}},
		{quipu.Sandbox{Network: quipu.NetworkPublic}, []string{told(address), "stdout: refused"}},
		{quipu.Sandbox{Network: quipu.NetworkNone}, []string{told(address), "stdout: refused"}},
		{quipu.Sandbox{Network: quipu.NetworkNone, Allow: []string{address}}, []string{"stdout: 404 Not Found"}},
	} {
		s.lines = nil
		spec := s.spec("client", "ADDRESS="+address)
		spec.Sandbox = c.policy
		inst, err := s.rt.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		s.done(inst)
		got := s.printed()
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: printed %q, want %q", c.policy, got, c.want)
		}
	}
}

func told(address string) string {
	return "stderr: quipu: a connection to " + address + " was refused by the sandbox; sandbox.network and sandbox.allow of quipu.yaml say what may be reached"
}

// The tests of this file once more, by a user without any rights.
func TestWallsAsAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another; everything ran as an ordinary user already")
	}
	dir, err := os.MkdirTemp("", "quipu-ordinary-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary, err := os.ReadFile(testBinary())
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, "test"), binary, 0o755), os.Mkdir(filepath.Join(dir, "tmp"), 0o777),
			os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "tmp"), fs.ModePerm))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.v", "-test.run", "Walls$|ForkBomb|WayOut|FillsMemory|FillsItsDisk|DoorsAre|Socket|Family")
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(dir, "tmp"), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("ordinary users may not do this here:\n%s", out)
	}
}
