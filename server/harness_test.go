package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/bundle"
	"github.com/quipu-run/quipu/meter"
	"github.com/quipu-run/quipu/sdk"
)

// TestMain needs no line for helpers: in a process that is to be one, package lifeline takes over in its init.
// But workers of workflows are this program, too.
func TestMain(m *testing.M) {
	if at := os.Getenv(flowWorkerEnv); at != "" {
		if err := runFlowWorker(at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if _, err := exec.LookPath("python3"); err != nil {
		fmt.Fprintln(os.Stderr, "not run: the functions of these tests are in Python; install python3")
		if os.Getenv("CI") != "" { // which has it
			os.Exit(1)
		}
		os.Exit(0) // go test works on a machine that has nothing but Go
	}
	os.Exit(inTemporary(m.Run))
}

// inTemporary makes and removes the folder of the real binary.
func inTemporary(run func() int) int {
	var err error
	if programDir, err = os.MkdirTemp("", "quipu-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programDir)
	return run()
}

// lib is what functions of the tests import: a server, and state through Dapr's API.
const lib = `
import http.client, http.server, os, socketserver

def state(method, path, body=None, token=None):
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    headers = {"Content-Type": "application/json"}
    token = os.environ["DAPR_API_TOKEN"] if token is None else token
    if token:
        headers["dapr-api-token"] = token
    door.request(method, "/v1.0/state/" + path, body, headers)
    reply = door.getresponse()
    return reply.status, reply.read()

class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads, request_queue_size = True, 128

def serve(handle):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            handle(self)

        do_POST = do_PUT = do_DELETE = do_GET

        def answer(self, status, body, kind="text/plain"):
            body = body if isinstance(body, bytes) else str(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def address_string(self):
            return "platform"

        def log_message(self, *args):
            pass

    Server(os.environ["QUIPU_SOCKET"], Handler).serve_forever()
`

// node is a node in this process, with what a user has to drive it.
type node struct {
	t      *testing.T
	data   string
	info   sdk.Node
	client *sdk.Client
	stop   func() error // asks it to end and waits; at the end of the test it is called anyway
}

// start runs a node on free ports. At the end of the test it is stopped, and no process may be left.
func start(t *testing.T, change ...func(*Config)) *node {
	t.Helper()
	n := &node{t: t, data: t.TempDir()}
	n.run(change...)
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("the node did not end well: %v", err)
		}
		n.noneLeft()
	})
	return n
}

// run starts the node on its data, again if it ran before.
func (n *node) run(change ...func(*Config)) {
	n.t.Helper()
	ready, ended := make(chan sdk.Node, 1), make(chan error, 1)
	cfg := Config{Data: n.data, Version: "test", InstanceToken: true, Ready: func(i sdk.Node) { ready <- i }}
	for _, c := range change {
		c(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- Run(ctx, cfg) }()
	select {
	case n.info = <-ready:
	case err := <-ended:
		cancel()
		n.t.Fatalf("the node did not start: %v", err)
	}
	n.stop = func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}
	n.client = clientOf(n.t, n.info.HTTP, cfg.Token, "")
}

func clientOf(t *testing.T, address, token, namespace string) *sdk.Client {
	t.Helper()
	c, err := sdk.New(sdk.Options{URL: address, Token: token, Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// unconfined leaves the walls out, for functions that leave marks in the test's own folder or are reached from outside.
func unconfined(c *Config) { c.Unconfined = true }

// function is one document of a manifest; more are further lines of its spec, indented by two. Its routes are
// /NAME/ and everything below.
func function(name, source, runtime string, more ...string) string {
	lines := append([]string{"source: ./" + source, "runtime: " + runtime, "triggers: [{http: {path: /" + name + "/}}]"}, more...)
	return "apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: " + name + "}\nspec:\n  " + strings.Join(lines, "\n  ") + "\n---\n"
}

// files of an application: name and text by turns. All are executable; lib.py is added.
type files map[string]string

func (f files) pack(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	f["lib.py"] = lib
	for name, text := range f {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	packed, err := packFolder(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func packFolder(t *testing.T, dir string) ([]byte, error) { return bundle.Pack(t.Context(), dir) }

func (n *node) deploy(f files) {
	n.t.Helper()
	if _, err := n.client.Deploy(n.t.Context(), "app", f.pack(n.t)); err != nil {
		n.t.Fatalf("deploy: %v", err)
	}
}

// python deploys one function in Python called f.
func (n *node) python(code string, more ...string) {
	n.t.Helper()
	n.deploy(files{"quipu.yaml": function("f", "f.py", "python", more...), "f.py": code})
}

// answer is a reply, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// code is that of a Problem, "" if the reply is none.
func (a answer) code() quipu.Code {
	var p sdk.Problem
	if json.Unmarshal([]byte(a.body), &p) != nil {
		return ""
	}
	return p.Code
}

// ask makes a request; header is names and values by turns. What is no answer has status 0, and the error as its
// body. It may be used by any goroutine.
func ask(method, url, body string, header ...string) answer {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return answer{body: err.Error()}
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
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

func (n *node) get(path string, header ...string) answer {
	return ask("GET", "http://"+n.info.HTTP+path, "", header...)
}

func (n *node) post(path, body string, header ...string) answer {
	return ask("POST", "http://"+n.info.HTTP+path, body, header...)
}

// want fails the test unless the reply has the status and body.
func (a answer) want(t *testing.T, status int, body string) {
	t.Helper()
	if a.status != status || a.body != body {
		t.Fatalf("got %d %.200q, want %d %.200q", a.status, a.body, status, body)
	}
}

func (a answer) wantCode(t *testing.T, code quipu.Code) {
	t.Helper()
	if a.status != quipu.Codes[code].Status || a.code() != code {
		t.Fatalf("got %d %.300q, want %d %s", a.status, a.body, quipu.Codes[code].Status, code)
	}
}

// state reads a key of the store shared as JSON; none is "".
func (n *node) state(key string) string {
	n.t.Helper()
	item, err := n.client.State(quipu.StoreShared, "").Get(n.t.Context(), key)
	if err != nil && quipu.CodeOf(err) != quipu.CodeNotFound {
		n.t.Fatalf("state of %s: %v", key, err)
	}
	return string(item.Value)
}

// records counts those of the default namespace, without those that usage was added up in.
func (n *node) records() int {
	n.t.Helper()
	total, from := 0, ""
	for {
		page, err := n.client.ReadBook(n.t.Context(), "quipu/default", sdk.ReadRequest{From: from})
		if err != nil {
			n.t.Fatal(err)
		}
		for _, r := range page.Items {
			if !slices.Contains(r.Tags, meter.Tag) {
				total++
			}
		}
		if from = page.Next; from == "" {
			return total
		}
	}
}

const patience = 30 * time.Second

// eventually polls what no channel tells: processes, and files of other programs.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !poll(holds) {
		t.Fatalf("not after %s: %s", patience, what)
	}
}

func poll(holds func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// processes are those that work in the folders of the node's functions.
func (n *node) processes() []string { return processesIn(filepath.Join(n.data, "apps")) }

func processesIn(data string) (pids []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is sound
	for _, link := range links {
		if dir, err := os.Readlink(link); err == nil && strings.HasPrefix(dir, data) && !isZombie(filepath.Dir(link)) {
			pids = append(pids, filepath.Base(filepath.Dir(link)))
		}
	}
	return pids
}

func isZombie(proc string) bool {
	text, err := os.ReadFile(filepath.Join(proc, "stat"))
	return err != nil || bytes.Contains(text, []byte(") Z "))
}

func (n *node) noneLeft() {
	n.t.Helper()
	eventually(n.t, "processes of functions are gone", func() bool { return len(n.processes()) == 0 })
}

// pid is that of the only instance.
func (n *node) pid() int {
	n.t.Helper()
	list, err := n.client.Instances(n.t.Context())
	if err != nil || len(list) != 1 {
		n.t.Fatalf("%d instances, want one: %+v, %v", len(list), list, err)
	}
	return list[0].PID
}

func alive(pid int) bool {
	return syscall.Kill(pid, 0) == nil && !isZombie(fmt.Sprintf("/proc/%d", pid))
}
