package process_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/process"
)

const (
	floodLines = 20_000
	patience   = 20 * time.Second // for things that take milliseconds on an idle machine
)

// story is one runtime and a tag by which all processes it causes are known.
type story struct {
	*testing.T
	rt      *process.Runtime
	options process.Options
	dir     string
	tag     string

	mu    sync.Mutex
	lines []string
}

func newStory(t *testing.T) *story {
	t.Helper()
	return newStoryWith(t, process.Options{})
}

func newStoryWith(t *testing.T, o process.Options) *story {
	t.Helper()
	s := &story{T: t, options: o, dir: t.TempDir(), tag: strconv.FormatUint(rand.Uint64(), 36)}
	s.open()
	t.Cleanup(func() {
		if err := s.rt.Close(); err != nil {
			t.Error(err)
		}
		s.nothingRuns()
	})
	return s
}

func (s *story) open() {
	s.Helper()
	s.options.Dir = filepath.Join(s.dir, "run")
	rt, err := process.New(s.options)
	if err != nil {
		s.Fatal(err)
	}
	s.rt = rt
}

func (s *story) start(mode string, env ...string) quipu.Instance {
	s.Helper()
	inst, err := s.rt.Start(s.Context(), s.spec(mode, env...))
	if err != nil {
		s.Fatal(err)
	}
	return inst
}

func (s *story) spec(mode string, env ...string) quipu.InstanceSpec {
	return quipu.InstanceSpec{
		ID: "i1", Function: mode, Dir: s.dir, Command: []string{testBinary()},
		Env: append([]string{"FUNCTION=" + mode, "TAG=" + s.tag}, env...),
		Output: func(stream string, line []byte) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lines = append(s.lines, stream+": "+string(line))
		},
	}
}

func testBinary() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

func (s *story) ready(inst quipu.Instance) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	if err := inst.Ready(ctx); err != nil {
		s.Fatal(err)
	}
}

func (s *story) printed() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

func (s *story) until(what string, ok func() bool) {
	s.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("still not: %s", what)
		}
	}
}

func (s *story) done(inst quipu.Instance) {
	s.Helper()
	select {
	case <-inst.Done():
	case <-time.After(patience):
		s.Fatal("the instance is not done")
	}
}

// running lists the living processes with the story's tag in their environment.
func (s *story) running() (pids []int) {
	envs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || len(envs) == 0 {
		s.Fatal("no /proc: ", err)
	}
	for _, name := range envs {
		env, err := os.ReadFile(name)
		if err == nil && bytes.Contains(env, []byte("TAG="+s.tag)) {
			pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func (s *story) nothingRuns() {
	s.Helper()
	if left := s.running(); len(left) > 0 {
		s.Errorf("processes %v are left", left)
	}
}

func TestAnInstanceListensOnSocketOrPort(t *testing.T) {
	for _, mode := range []string{"socket", "port"} {
		t.Run(mode, func(t *testing.T) {
			s := newStory(t)
			inst := s.start(mode)
			s.ready(inst)
			if body := get(t, inst); body != "ok" {
				t.Errorf("body is %q", body)
			}
			if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", inst.PID())); err != nil || !bytes.Contains(env, []byte("FUNCTION="+mode)) {
				t.Errorf("process %d is not the function: %v", inst.PID(), err)
			}
			inst.Stop(patience)
			if inst.Exit() != "signal: terminated" {
				t.Errorf("it ended by %q", inst.Exit())
			}
		})
	}
}

func get(t *testing.T, inst quipu.Instance) string {
	t.Helper()
	conn, err := inst.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: f\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestTheEnvironmentIsMinimal(t *testing.T) {
	t.Setenv("SECRET_OF_THE_NODE", "hunter2")
	s := newStory(t)
	inst := s.start("env", "PATH=/mine")
	s.done(inst)
	text := strings.Join(s.printed(), "\n")
	for _, want := range []string{"PORT=", "QUIPU_SOCKET=/", "HOME=" + s.dir, "QUIPU_INSTANCE=i1", "PATH=/mine", "TMPDIR="} {
		if !strings.Contains(text, "stdout: "+want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "hunter2") || strings.Contains(text, "QUIPU_LIFELINE") {
		t.Errorf("the node's own environment is in\n%s", text)
	}
}

func TestReadyWaitsForALateListenerAndGivesUpOnOneThatNeverListens(t *testing.T) {
	s := newStory(t)
	gate := filepath.Join(s.dir, "gate")
	late := s.start("late", "GATE="+gate)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := late.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("ready before it listens: %v", err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.ready(late)
	late.Stop(patience)
}

func TestAnInstanceThatEndsFailsReadyAtOnceWithItsLastWords(t *testing.T) {
	for mode, want := range map[string]string{"fail": "exit status 3; its last words: first\nlast words", "exit": "exit status 0"} {
		s := newStory(t)
		inst := s.start(mode)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		err := inst.Ready(ctx)
		if quipu.CodeOf(err) != quipu.CodeStart || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

func TestACommandThatCannotRunIsRefused(t *testing.T) {
	s := newStory(t)
	script := filepath.Join(s.dir, "script")
	if err := os.WriteFile(script, []byte("#!/nowhere/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for command, code := range map[string]quipu.Code{"no-such-program": quipu.CodeNoTool, "./missing": quipu.CodeNoTool, "./script": quipu.CodeStart, "": quipu.CodeStart} {
		spec := s.spec("socket")
		spec.Command = []string{command}
		if _, err := s.rt.Start(t.Context(), spec); quipu.CodeOf(err) != code {
			t.Errorf("%q: %v", command, err)
		}
	}
	spec := s.spec("socket", "A=zero\x00byte")
	if _, err := s.rt.Start(t.Context(), spec); quipu.CodeOf(err) != quipu.CodeStart {
		t.Errorf("zero byte: %v", err)
	}
}

func TestOutputComesLineByLineWholeAndInOrder(t *testing.T) {
	s := newStory(t)
	s.done(s.start("flood"))
	lines := s.printed()
	if len(lines) != floodLines+2 {
		t.Fatalf("%d lines", len(lines))
	}
	for n := range floodLines {
		if lines[n] != fmt.Sprintf("stdout: line %d", n) {
			t.Fatalf("line %d is %q", n, lines[n])
		}
	}
	if long := lines[floodLines]; !strings.HasSuffix(long, "x [cut: line over 64 KiB]") || len(long) > 65<<10 {
		t.Errorf("the long line has %d bytes", len(long))
	}
	if lines[floodLines+1] != "stdout: no end" {
		t.Errorf("the last line is %q", lines[floodLines+1])
	}
}

func TestSIGTERMIsAWishAndSIGKILLIsNot(t *testing.T) {
	s := newStory(t)
	polite := s.start("polite")
	s.ready(polite)
	polite.Stop(patience)
	if polite.Exit() != "exit status 7" || !slices.Contains(s.printed(), "stdout: goodbye") {
		t.Errorf("polite ended by %q and printed %q", polite.Exit(), s.printed())
	}
	stubborn := s.start("stubborn")
	s.ready(stubborn)
	stubborn.Stop(20 * time.Millisecond)
	if stubborn.Exit() != "signal: killed" {
		t.Errorf("stubborn ended by %q", stubborn.Exit())
	}
	stubborn.Stop(patience) // a second time is no error
}

// families says how long each way takes to end an instance whose children left its session,
// ignore signals and hold its output open.
func TestNothingOfAFamilySurvives(t *testing.T) {
	ends := map[string]func(*story, quipu.Instance){
		"stopped":                 func(_ *story, i quipu.Instance) { i.Stop(patience) },
		"killed":                  func(_ *story, i quipu.Instance) { i.Stop(0) },
		"function killed by user": func(s *story, i quipu.Instance) { s.kill(i.PID()) },
		"helper killed by user":   func(s *story, i quipu.Instance) { s.kill(parentOf(s.T, i.PID())) },
		"runtime closed":          func(s *story, _ quipu.Instance) { s.rt.Close() },
	}
	for name, end := range ends {
		for _, daemon := range []string{"", "yes"} {
			t.Run(name+daemon, func(t *testing.T) {
				s := newStory(t)
				inst := s.start("family", "DAEMON="+daemon)
				s.ready(inst)
				s.until("family complete", func() bool { return slices.Contains(s.printed(), "stdout: family complete") })
				end(s, inst)
				s.done(inst)
				s.nothingRuns()
				if !strings.Contains(inst.Exit(), "signal: ") {
					t.Errorf("it ended by %q", inst.Exit())
				}
			})
		}
	}
}

func (s *story) kill(pid int) {
	s.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.Fatal(err)
	}
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	parent, err := strconv.Atoi(strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))[1])
	if err != nil || parent == os.Getpid() {
		t.Fatalf("parent of %d: %d, %v", pid, parent, err)
	}
	return parent
}

// node starts a node as a process of its own and returns when its families are complete.
func (s *story) node() (*exec.Cmd, []int) {
	s.Helper()
	cmd := exec.Command(testBinary())
	cmd.Env = append(os.Environ(), "FUNCTION=node", "TAG="+s.tag, "DIR="+filepath.Join(s.dir, "node"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "node"), 0o700); err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	var pids []int
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "up"; {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			s.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) != 3 {
		s.Fatalf("functions of the node: %v", pids)
	}
	return cmd, pids
}

func TestNothingSurvivesTheNode(t *testing.T) {
	s := newStory(t)
	node, _ := s.node()
	if n := len(s.running()); n != 1+3*4 {
		t.Errorf("%d processes before", n)
	}
	s.kill(node.Process.Pid)
	node.Wait() //nolint:errcheck // killed
	s.until("everything gone", func() bool { return len(s.running()) == 0 })
}

// TestTheNextNodeKillsStrays kills node and helpers in one go, as pkill does with their common name.
func TestTheNextNodeKillsStrays(t *testing.T) {
	s := newStory(t)
	node, pids := s.node()
	victims := []int{node.Process.Pid}
	for _, pid := range pids {
		victims = append(victims, parentOf(t, pid))
	}
	for _, pid := range victims { // frozen first, so that none sees another die
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range victims {
		s.kill(pid)
	}
	node.Wait() //nolint:errcheck // killed
	s.until("only orphans left", func() bool { return len(s.running()) == 3*3 })
	next, err := process.New(process.Options{Dir: filepath.Join(s.dir, "node")})
	if err != nil {
		t.Fatal(err)
	}
	s.nothingRuns()
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "node", "*.instance")); len(left) > 0 {
		t.Errorf("records %v are left", left)
	}
}

func TestStartAndStopLeakNothing(t *testing.T) {
	life := func(cycles int) {
		s := newStory(t)
		for n := range cycles {
			inst := s.start("socket")
			if n%2 == 0 {
				s.ready(inst)
			}
			inst.Stop(time.Duration(n%3) * patience)
		}
		if err := s.rt.Close(); err != nil { // with the helper that is kept spare
			t.Error(err)
		}
		s.nothingRuns()
		if left, _ := filepath.Glob(filepath.Join(s.dir, "run", "*.instance")); len(left) > 0 {
			t.Errorf("records %v are left", left)
		}
	}
	life(1) // opens what stays open for all
	before := openFiles(t)
	life(200)
	if after := openFiles(t); after > before {
		t.Errorf("%d files open before, %d after", before, after)
	}
}

// A helper that is kept spare may die before it is of use; nobody who starts an instance notices.
func TestASpareHelperThatDiedIsNotUsed(t *testing.T) {
	s := newStory(t)
	s.start("socket").Stop(0)
	var spare []int
	s.until("there is a spare helper", func() bool {
		spare = helpers(t)
		return len(spare) == 1
	})
	if err := syscall.Kill(spare[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("it is dead", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", spare[0]))
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", spare[0])) // the last of which closes its line
		return err != nil || bytes.Contains(text, []byte(") Z ")) && len(threads) <= 1
	})
	inst := s.start("socket")
	s.ready(inst)
	inst.Stop(0)
}

// helpers are the children of this process that are some.
func helpers(t *testing.T) (pids []int) {
	t.Helper()
	names, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(names) == 0 {
		t.Skip("this kernel does not list children")
	}
	for _, name := range names {
		text, _ := os.ReadFile(name)
		for _, field := range strings.Fields(string(text)) {
			command, _ := os.ReadFile("/proc/" + field + "/cmdline")
			if pid, err := strconv.Atoi(field); err == nil && strings.HasPrefix(string(command), "quipu-lifeline") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestACancelledStartLeavesNothing(t *testing.T) {
	s := newStory(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.rt.Start(ctx, s.spec("socket")); !errors.Is(err, context.Canceled) {
		t.Errorf("start: %v", err)
	}
	s.nothingRuns()
}

func TestAClosedRuntimeStartsNothing(t *testing.T) {
	s := newStory(t)
	if err := s.rt.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.rt.Start(t.Context(), s.spec("socket")); quipu.CodeOf(err) != quipu.CodeStopping {
		t.Errorf("start: %v", err)
	}
}

func TestSocketsWorkHoweverDeepTheDirectory(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	rt, err := process.New(process.Options{Dir: deep})
	if err != nil {
		t.Fatal(err)
	}
	s := &story{T: t, rt: rt, dir: t.TempDir(), tag: "deep"}
	inst := s.start("socket")
	s.ready(inst)
	inst.Stop(patience)
	at, err := os.ReadFile(filepath.Join(deep, "sockets-at"))
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(at)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", at, err)
	}
}
