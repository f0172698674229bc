package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/quipu-run/quipu/sdk"
)

// programDir is TestMain's.
var programDir string

// build compiles the real binary, once for all tests that need it.
var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programDir, "quipu")
	out, err := exec.Command("go", "build", "-o", path, "github.com/quipu-run/quipu/cmd/quipu").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

func program(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// result is what a run of the command line left.
type result struct {
	t        *testing.T
	out, err string
	exit     int
}

// command runs the command line to its end.
func command(t *testing.T, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{t, out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

func (r result) wantExit(code int) {
	r.t.Helper()
	if r.exit != code {
		r.t.Fatalf("exit %d, want %d; stdout %q, stderr %q", r.exit, code, r.out, r.err)
	}
}

func (r result) wantErr(part string) {
	r.t.Helper()
	if !strings.Contains(r.err, part) {
		r.t.Errorf("stderr has no %q: %q", part, r.err)
	}
}

// on runs the command line against a node.
func (n *node) on(args ...string) result {
	n.t.Helper()
	return command(n.t, append([]string{"--node", n.info.HTTP}, args...)...)
}

// killable is the real binary in a process of its own. Its ports stay the same from the first start on.
type killable struct {
	node
	verb   []string // and its arguments
	cmd    *exec.Cmd
	output bytes.Buffer // read only when it has ended
}

// spawn starts a node that can be killed. At the end of the test it is.
func spawn(t *testing.T, data string, verb ...string) *killable {
	t.Helper()
	k := &killable{node: node{t: t, data: data}, verb: verb}
	k.info = sdk.Node{HTTP: quietPort(t), DaprHTTP: quietPort(t), DaprGRPC: quietPort(t)}
	k.up()
	t.Cleanup(func() {
		k.kill()
		k.noneLeft()
	})
	return k
}

func (k *killable) up() {
	k.t.Helper()
	if err := k.launch(); err != nil {
		k.t.Fatal(err)
	}
	k.client = clientOf(k.t, k.info.HTTP, "", "")
}

// launch is up for goroutines that are not the test's.
func (k *killable) launch() error {
	args := append(append([]string{}, k.verb...), "--data", k.data, "--port", port(k.info.HTTP),
		"--dapr-http-port", port(k.info.DaprHTTP), "--dapr-grpc-port", port(k.info.DaprGRPC))
	path, err := build()
	if err != nil {
		return err
	}
	k.cmd = exec.Command(path, args...)
	k.cmd.Stdout, k.cmd.Stderr = &k.output, &k.output
	if err := k.cmd.Start(); err != nil {
		return err
	}
	return k.ready()
}

// ready polls for the file that the node renames into place.
func (k *killable) ready() error {
	ended, gone := make(chan error, 1), make(chan struct{})
	go func(cmd *exec.Cmd) { ended <- cmd.Wait(); close(gone) }(k.cmd)
	k.stop = sync.OnceValue(func() error { return <-ended })
	var info sdk.Node
	found := poll(func() bool {
		select {
		case <-gone:
			return true
		default:
		}
		text, err := os.ReadFile(filepath.Join(k.data, nodeFile))
		return err == nil && json.Unmarshal(text, &info) == nil && info.PID == k.cmd.Process.Pid
	})
	switch {
	case !found:
		return fmt.Errorf("the node was not ready after %s", patience)
	case info.PID != k.cmd.Process.Pid:
		return errors.Join(fmt.Errorf("the node ended before it was ready: %s", k.output.String()), k.stop())
	}
	k.info = info
	return nil
}

// quietPort is an address whose port the system gives to nobody who asks for any, so that it is still free when a node that was killed
// comes back to it. No other node of these tests gets it.
func quietPort(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 30000+rand.IntN(2700))
		if _, taken := quietPorts.LoadOrStore(address, true); taken {
			continue
		}
		l, err := net.Listen("tcp4", address)
		if err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

var quietPorts sync.Map // that were given

func port(address string) string {
	if i := strings.LastIndexByte(address, ':'); i >= 0 {
		return address[i+1:]
	}
	return "0"
}

// kill is kill -9, and returns when the process is gone.
func (k *killable) kill() {
	_ = k.cmd.Process.Kill() // it may have ended
	_ = k.stop()             // "signal: killed"
}

// term is SIGTERM; it answers how the node ended.
func (k *killable) term() error {
	if err := k.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return k.stop()
}
