package quickstarts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu/test/daprnode"
)

// Limits of waiting. Programs in Go may have to be compiled.
const (
	lineMax = 2 * time.Minute
	endMax  = 30 * time.Second
)

// tool is what an example needs of the machine: a program, and what is there once install was run.
type tool struct{ program, installed, install string }

// need skips the test where something is missing, and fails it where everything must be there.
func (n tool) need(t *testing.T, dir string) {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("QUIPU_QUICKSTARTS") != "" {
		missing = t.Fatalf
	}
	if _, err := exec.LookPath(n.program); err != nil {
		missing("%s is not on this machine", n.program)
	}
	if _, err := os.Stat(filepath.Join(dir, n.installed)); err != nil {
		missing("run %s in %s first", n.install, dir)
	}
	if n.program != "go" {
		return
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./...")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		missing("run %s in %s first: %v\n%.300s", n.install, dir, err, out)
	}
}

// programDir is where program is; "" if nobody wanted it.
var programDir string

// program is built once.
var program = sync.OnceValues(func() (string, error) {
	var err error
	if programDir, err = os.MkdirTemp("", "quickstarts"); err != nil {
		return "", err
	}
	bin := filepath.Join(programDir, "quipu")
	build := exec.Command("go", "build", "-o", bin, "./cmd/quipu")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return bin, fmt.Errorf("%w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if err := os.RemoveAll(programDir); err != nil { // "" is nothing
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// run is an example that runs: quipu run -f on a copy of its folder, whose ports are free ones, beside a node of its own.
type run struct {
	t     *testing.T
	dir   string
	ports []string
	node  *daprnode.Program
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended, with err
	err   error

	mu   sync.Mutex
	out  bytes.Buffer  // guarded by mu
	more chan struct{} // guarded by mu; closed when there is more of out
}

func start(t *testing.T, name string, needs tool) *run {
	t.Helper()
	example, err := filepath.Abs(filepath.Join("..", "..", "examples", "dapr", name))
	if err != nil {
		t.Fatal(err)
	}
	needs.need(t, example)
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, dir: filepath.Join(t.TempDir(), name), ended: make(chan struct{}), more: make(chan struct{})}
	if err := r.copy(example); err != nil {
		t.Fatal(err)
	}
	r.node = daprnode.ServeProgram(t, bin)
	r.cmd = r.node.Command("run", "-f", r.dir)
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.err = r.cmd.Wait(); close(r.ended) }()
	t.Cleanup(func() {
		r.end()
		if text, _ := r.said(); t.Failed() {
			t.Logf("it said:\n%s", text)
		}
	})
	return r
}

// copy has everything but what was installed, which is linked, and what earlier runs left.
func (r *run) copy(example string) error {
	free := map[string]string{}
	return filepath.WalkDir(example, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(example, path)
		to := filepath.Join(r.dir, name)
		switch {
		case err != nil:
			return err
		case entry.Name() == "node_modules":
			if err := os.Symlink(path, to); err != nil {
				return err
			}
			return fs.SkipDir
		case strings.HasPrefix(entry.Name(), ".") || name == "receipts":
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return os.MkdirAll(to, 0o700)
		}
		text, err := os.ReadFile(path)
		if err == nil && filepath.Ext(path) == ".yaml" {
			text, err = r.freePorts(text, free)
		}
		return errors.Join(err, os.WriteFile(to, text, 0o600))
	})
}

// examplePort is one of those that examples use, which others on this machine may use, too.
var examplePort = regexp.MustCompile(`\b60\d\d\b`)

func (r *run) freePorts(text []byte, free map[string]string) ([]byte, error) {
	var failed error
	text = examplePort.ReplaceAllFunc(text, func(port []byte) []byte {
		if free[string(port)] == "" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				failed = err
				return port
			}
			_, free[string(port)], _ = net.SplitHostPort(l.Addr().String())
			failed = errors.Join(failed, l.Close())
			r.ports = append(r.ports, free[string(port)])
		}
		return []byte(free[string(port)])
	})
	return text, failed
}

// Write takes what the program says.
func (r *run) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.more)
	r.more = make(chan struct{})
	return r.out.Write(p)
}

func (r *run) said() (text string, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String(), r.more
}

// line waits for a line.
func (r *run) line(format string, args ...any) {
	r.t.Helper()
	want := fmt.Sprintf(format, args...) + "\n"
	late := time.NewTimer(lineMax)
	defer late.Stop()
	for {
		text, more := r.said()
		if strings.Contains("\n"+text, "\n"+want) {
			return
		}
		select {
		case <-more:
		case <-r.ended:
			r.t.Fatalf("it ended, %v, and did not say %q", r.err, want)
		case <-late.C:
			r.t.Fatalf("it did not say %q in %s", want, lineMax)
		}
	}
}

func (r *run) count(part string) int {
	text, _ := r.said()
	return strings.Count(text, part)
}

// quipu runs a command for the node, and answers what it prints.
func (r *run) quipu(args ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), endMax)
	defer cancel()
	cmd := r.node.Command(args...)
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("quipu %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// invoke calls a method of an application, from outside, and answers its reply.
func (r *run) invoke(app, method, body string) string {
	r.t.Helper()
	client := http.Client{Timeout: endMax}
	reply, err := client.Post(r.node.Dapr()+"/v1.0/invoke/"+app+"/method/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil || reply.StatusCode != http.StatusOK {
		r.t.Fatalf("%s of %s answers %s, %q, %v", method, app, reply.Status, text, err)
	}
	return string(text)
}

// end interrupts it as ^C does, and finds that nobody is left: neither it nor an application, nor what that started.
func (r *run) end() {
	r.t.Helper()
	_ = r.cmd.Process.Signal(os.Interrupt) // it may have ended
	select {
	case <-r.ended:
	case <-time.After(endMax):
		_ = r.cmd.Process.Kill()
		<-r.ended
		r.t.Errorf("it did not end in %s", endMax)
	}
	if r.err != nil {
		r.t.Errorf("it ended with %v", r.err)
	}
	for _, port := range r.ports {
		if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			r.t.Errorf("somebody listens on port %s, although all should have ended", port)
			_ = conn.Close()
		}
	}
}
