// Package patterns runs the pattern examples as their users would: the real program, its command line, requests to routes.
// Meanwhile instances of functions and the node are killed with SIGKILL. What comes out must be exact.
package patterns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// patience is for machines that are busy with something else.
const patience = time.Minute

// bin is where the program is, once build has built it.
var bin string

var build = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", bin, "github.com/quipu-run/quipu/cmd/quipu").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
})

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "quipu-patterns-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = filepath.Join(dir, "quipu")
	return m.Run()
}

// needs skips a test where an interpreter is missing.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

// example copies one, as a user who is going to change it, and bounds its instances: starting many after each kill would be
// most of what a small machine does. Short tests are those with the race detector, which would look at
// this client only: the program is a process of its own.
func example(t *testing.T, name string) (dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("a test of another process")
	}
	dir = filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "examples", name))); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(dir, "quipu.yaml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte("scale:")) {
		text = bytes.ReplaceAll(text, []byte("spec:\n"), []byte("spec:\n  scale: {max: 2}\n"))
	}
	if err := os.WriteFile(manifest, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// edit replaces a part of a file that must be there once.
func edit(t *testing.T, path, old, new string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) != 1 {
		t.Fatalf("%s does not have %q once", path, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// node is a process that can be killed; its ports stay the same from the first start on.
type node struct {
	t      *testing.T
	data   string
	ports  [3]string // of callers, and of Dapr over HTTP and gRPC
	http   string    // its address
	client *sdk.Client
	output string // a file

	mu      sync.Mutex // guards what changes when it is killed
	cmd     *exec.Cmd
	ended   chan struct{}
	started int // times
}

// start starts a node with an application. It is killed with its test.
func start(t *testing.T, app string) *node {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := &node{t: t, ports: [3]string{freePort(t), freePort(t), freePort(t)}, data: filepath.Join(dir, "data"), output: filepath.Join(dir, "output")}
	n.http = "127.0.0.1:" + n.ports[0]
	t.Cleanup(n.end)
	if err := n.up(); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.client, err = sdk.New(sdk.Options{URL: n.http}); err != nil {
		t.Fatal(err)
	}
	n.cli("deploy", app)
	return n
}

func (n *node) end() {
	n.kill()
	if n.t.Failed() {
		text, err := os.ReadFile(n.output)
		n.t.Logf("the node printed (%v):\n%s", err, text[max(0, len(text)-8<<10):])
	}
}

func (n *node) up() error {
	out, err := os.OpenFile(n.output, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd = exec.Command(bin, "serve", "--data", n.data, "--port", n.ports[0],
		"--dapr-http-port", n.ports[1], "--dapr-grpc-port", n.ports[2])
	n.cmd.Stdout, n.cmd.Stderr = out, out
	if err := n.cmd.Start(); err != nil {
		return err
	}
	n.ended = make(chan struct{})
	n.started++
	go func(cmd *exec.Cmd, ended chan<- struct{}) { _ = cmd.Wait(); close(ended) }(n.cmd, n.ended)
	return n.ready()
}

// Ports of nodes are below those that systems give to who asks for any, and above those of functions, so that nobody has them while a
// node is down.
const portsFrom, portsTo = 30_000, 32_700

var portsTried atomic.Int64

func init() { portsTried.Store(rand.Int64N(portsTo - portsFrom)) }

// freePort is one that nobody listens at, and that is not answered twice.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		p := fmt.Sprint(portsFrom + portsTried.Add(1)%(portsTo-portsFrom))
		l, err := net.Listen("tcp", "127.0.0.1:"+p)
		if err != nil {
			continue // somebody does
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Fatal("there is no free port")
	return ""
}

// ready polls for the file that the node renames into place.
func (n *node) ready() error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		var info sdk.Node
		text, err := os.ReadFile(filepath.Join(n.data, "node.json"))
		if err == nil && json.Unmarshal(text, &info) == nil && info.PID == n.cmd.Process.Pid {
			return nil
		}
		select {
		case <-n.ended:
			return errors.New("the node has ended")
		case <-tick.C:
		}
	}
	return errors.New("the node is not ready")
}

func (n *node) starts() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.started
}

// kill is kill -9, and returns when the process is gone.
func (n *node) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended == nil {
		return // it did not start
	}
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.ended
}

// cli runs the command line against the node.
func (n *node) cli(args ...string) string {
	n.t.Helper()
	cmd := exec.CommandContext(n.t.Context(), bin, append([]string{"--node", n.http}, args...)...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		n.t.Fatalf("quipu %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return string(out)
}

// answer is a reply; a status of 0 means that there was none.
type answer struct {
	status int
	header http.Header
	body   string
}

var web = &http.Client{Timeout: patience}

// ask sends one request.
func (n *node) ask(method, path, body string, header ...string) answer {
	r, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+n.http+path, strings.NewReader(body))
	if err != nil {
		return answer{body: err.Error()}
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := web.Do(r)
	if err != nil {
		return answer{body: err.Error()}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{body: err.Error()}
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// get is ask until there is an answer.
func (n *node) get(path string, header ...string) answer {
	return n.send("", "GET", path, "", header...)
}

// send is ask until there is an answer: a client that got none sends its request again, under the same key.
func (n *node) send(key, method, path, body string, header ...string) (a answer) {
	if key != "" {
		header = append(header, "Idempotency-Key", key)
	}
	if !poll(func() bool { a = n.ask(method, path, body, header...); return a.status != 0 && a.status < 500 }) {
		n.t.Errorf("%s %s is not answered: %d %s", method, path, a.status, a.body)
	}
	return a
}

// want decodes a reply of 200. Any other fails the test, which goes on, since goroutines want replies too.
func want[T any](t *testing.T, a answer) (value T) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Errorf("got %d %.300q, want 200", a.status, a.body)
	} else if err := json.Unmarshal([]byte(a.body), &value); err != nil {
		t.Errorf("%v: %.300q", err, a.body)
	}
	return value
}

// wantState reads a key of the store shared; "" means that it has no value.
func (n *node) wantState(key, value string) {
	n.t.Helper()
	item, err := n.client.State(quipu.StoreShared, "").Get(n.t.Context(), key)
	if err != nil && quipu.CodeOf(err) != quipu.CodeNotFound {
		n.t.Errorf("state of %s: %v", key, err)
	} else if string(item.Value) != value {
		n.t.Errorf("%s is %s, want %s", key, item.Value, value)
	}
}

// events is the data of all events of a topic.
func events[T any](n *node, topic string) (list []T) {
	n.t.Helper()
	for line := range strings.Lines(n.cli("sub", topic, "--from", "earliest", "--no-follow", "-o", "json")) {
		var e struct {
			Event struct {
				Data T `json:"data"`
			} `json:"event"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			n.t.Fatalf("%v: %.300q", err, line)
		}
		list = append(list, e.Event.Data)
	}
	return list
}

// awaitEvents waits until a topic has had so many events. That there are no more, the test says at its end.
func (n *node) awaitEvents(topic string, count int) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("topic %s has %d events", topic, count), func() bool {
		info, err := n.client.Topic(n.t.Context(), topic)
		return err == nil && int(info.Last) >= count
	})
}

// eventually polls what no channel tells.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !poll(holds) {
		t.Fatalf("not after %s: %s", patience, what)
	}
}

func poll(holds func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// inParallel does n things, eight at a time, and returns when all are done.
func inParallel(n int, do func(i int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range 8 {
		all.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}

var seedFlag = flag.Uint64("seed", 0, "of random choices; 0 draws one")

// random prints its seed. What is killed when depends on the machine, too.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("to repeat the random choices: go test ./test/patterns -run %s -seed %d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// killsMax bounds the kills of a test: one that goes on for ever must not keep an event from its last attempt.
const killsMax = 12

// chaos kills instances, and at each fifth time, the second first, the node and all of them, with random pauses.
type chaos struct {
	node *node
	rng  *rand.Rand
	stop context.CancelFunc
	done chan struct{}

	instances, nodes int // killed; to be read when it is done
}

// chaos begins to kill.
func (n *node) chaos(rng *rand.Rand) *chaos {
	ctx, stop := context.WithCancel(n.t.Context())
	c := &chaos{node: n, rng: rng, stop: stop, done: make(chan struct{})}
	go c.run(ctx)
	n.t.Cleanup(func() { stop(); <-c.done })
	return c
}

func (c *chaos) run(ctx context.Context) {
	defer close(c.done)
	for c.instances+c.nodes < killsMax {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(50+c.rng.IntN(250)) * time.Millisecond):
		}
		if (c.instances+c.nodes)%5 == 1 {
			c.node.kill()
			if err := c.node.up(); err != nil {
				c.node.t.Errorf("the node does not come up again: %v", err)
				return
			}
			c.nodes++
		} else if c.killInstance(ctx) {
			c.instances++
		}
	}
}

// killInstance leaves those alone that start: a function that does not start is, on purpose, started again after a pause.
func (c *chaos) killInstance(ctx context.Context) bool {
	list, err := c.node.client.Instances(ctx)
	list = slices.DeleteFunc(list, func(i sdk.Instance) bool { return i.State != "ready" })
	if err != nil || len(list) == 0 {
		return false // it ends now, or nothing is ready
	}
	one := list[c.rng.IntN(len(list))]
	return one.PID > 0 && syscall.Kill(one.PID, syscall.SIGKILL) == nil
}

// end returns when nothing is killed any more, the node has been killed, and is up.
func (c *chaos) end() {
	c.node.t.Helper()
	eventually(c.node.t, "the node was killed", func() bool { return c.node.starts() > 1 })
	c.stop()
	<-c.done
	c.node.t.Logf("killed %d instances, and the node %d times", c.instances, c.nodes)
}
