package daprnode

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Program is a node as users run it: the program, on a disk, until the end of its test.
type Program struct {
	t    testing.TB
	bin  string
	http string
	env  []string // of a client from outside
	data string
	out  *output
	kill func()       // and wait
	end  func() error // asks it to end, and waits
}

// Serve builds the program, starts it on an empty directory, and waits until it is ready. root is the folder of our
// module.
func Serve(t testing.TB, root string) *Program {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "quipu")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/quipu")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return ServeProgram(t, bin)
}

// ServeProgram is Serve of a program that was built.
func ServeProgram(t testing.TB, bin string) *Program {
	t.Helper()
	p := &Program{t: t, bin: bin, data: t.TempDir(), out: &output{}}
	p.start()
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the node printed:\n%s", p.out)
		}
	})
	return p
}

// Crash is kill -9 of the node, which then starts again on its data.
func (p *Program) Crash() {
	p.t.Helper()
	p.kill()
	p.start()
}

// start runs the node on its data, and waits until it is ready.
func (p *Program) start() {
	p.t.Helper()
	cmd := exec.Command(p.bin, "serve", "--data", p.data, "--port", "0", "--dapr-http-port", "0", "--dapr-grpc-port", "0")
	cmd.Stdout, cmd.Stderr = p.out, p.out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	p.kill = func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	}
	p.end = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
			return nil
		case <-time.After(drainMax):
			p.kill()
			return errors.New("the node did not end when it was asked to")
		}
	}
	p.await(cmd.Process.Pid, filepath.Join(p.data, "node.json"), ended)
}

// drainMax is longer than a node takes to drain.
const drainMax = 20 * time.Second

// await reads where the node listens, which it writes when it is ready.
func (p *Program) await(pid int, path string, ended <-chan struct{}) {
	p.t.Helper()
	var says struct {
		PID      int    `json:"pid"`
		HTTP     string `json:"http"`
		DaprHTTP string `json:"dapr_http"`
		DaprGRPC string `json:"dapr_grpc"`
	}
	for start := time.Now(); ; {
		text, err := os.ReadFile(path)
		if err == nil {
			if err = json.Unmarshal(text, &says); err != nil {
				p.t.Fatal(err)
			}
			if says.PID == pid { // else it is that of a node that was killed
				break
			}
			err = fs.ErrNotExist
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Since(start) > startMax {
			p.t.Fatalf("the node is not ready: %v", err)
		}
		select {
		case <-ended:
			p.t.Fatal("the node has ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
	p.http, p.env = says.HTTP, nil
	for name, address := range map[string]string{"DAPR_HTTP_PORT": says.DaprHTTP, "DAPR_GRPC_PORT": says.DaprGRPC} {
		_, port, ok := strings.Cut(address, ":")
		if !ok {
			p.t.Fatalf("the node does not say where %s is", name)
		}
		p.env = append(p.env, name+"="+port)
	}
}

// URL is where the node's own API is.
func (p *Program) URL() string { return "http://" + p.http }

// Command is one of the program's own, for this node.
func (p *Program) Command(args ...string) *exec.Cmd {
	return exec.Command(p.bin, append([]string{"--node", p.URL()}, args...)...)
}

// Dapr is where the node's Dapr API is, for clients from outside.
func (p *Program) Dapr() string {
	for _, one := range p.env {
		if port, ok := strings.CutPrefix(one, "DAPR_HTTP_PORT="); ok {
			return "http://127.0.0.1:" + port
		}
	}
	panic("daprnode: a node whose ports are not known")
}

// Deploy deploys an application's folder.
func (p *Program) Deploy(dir string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.bin, "--node", p.URL(), "deploy", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("deploy %s: %v\n%s", dir, err, out)
	}
}

// Client runs a program as a client from outside, and fails unless it ends well and its last word is "ok".
func (p *Program) Client(dir string, command ...string) {
	p.t.Helper()
	runClient(p.t, p.env, dir, command...)
}
