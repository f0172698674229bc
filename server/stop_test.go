package server

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// slow tells by a file that it is in a call, and answers when another file is there.
const slow = `
import lib, os, time
def handle(r):
    if r.path == "/f/quick":
        return r.answer(200, "quick")
    folder = r.headers["X-Folder"]
    open(folder + "/started", "w").close()
    while not os.path.exists(folder + "/go"):
        time.sleep(0.01)
    r.answer(200, "slow")
lib.serve(handle)`

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// begin asks slow and returns when it is in the call.
func (n *node) begin(folder string) <-chan answer {
	n.t.Helper()
	reply := make(chan answer, 1)
	go func() { reply <- n.get("/f/", "X-Folder", folder) }()
	eventually(n.t, "the request is under way", func() bool { return exists(filepath.Join(folder, "started")) })
	return reply
}

func TestSIGTERMLetsARequestFinishAndExitsWithZero(t *testing.T) {
	k := spawn(t, t.TempDir(), "serve")
	k.python(slow)
	folder := t.TempDir()
	reply := k.begin(folder)
	ended := make(chan error, 1)
	go func() { ended <- k.term() }()
	eventually(t, "the node has begun to stop", func() bool { return !exists(filepath.Join(k.data, nodeFile)) })
	if err := os.WriteFile(filepath.Join(folder, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	(<-reply).want(t, 200, "slow")
	if err := <-ended; err != nil {
		t.Errorf("exit: %v", err)
	}
	k.noneLeft()
}

func TestARequestThatNeverEndsDoesNotKeepTheNodeFromStopping(t *testing.T) {
	t.Parallel() // it waits for the whole drain
	k := spawn(t, t.TempDir(), "serve")
	k.python(slow)
	reply := k.begin(t.TempDir())
	if err := k.term(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if a := <-reply; a.status == 200 {
		t.Errorf("it was answered: %+v", a)
	}
	k.noneLeft()
}

// What is deployed is in the log and the blobs; what was built from it is a cache.
func TestEverythingDeployedIsThereAfterARestart(t *testing.T) {
	n := start(t)
	n.deploy(files{
		"quipu.yaml": function("f", "f.py", "python") + function("g", "main.go", "go"),
		"f.py":       keeps, "main.go": goFunction,
	})
	n.post("/f/", "7").want(t, 200, "204")
	for _, lost := range []string{"", "apps", "views"} {
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		if exists(filepath.Join(n.data, nodeFile)) {
			t.Errorf("%s was left behind", nodeFile)
		}
		if lost != "" {
			if err := os.RemoveAll(filepath.Join(n.data, lost)); err != nil {
				t.Fatal(err)
			}
		}
		n.run()
		n.get("/f/").want(t, 200, "7")
		n.get("/g/").want(t, 200, "go\n")
	}
}

const goFunction = `package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

func main() {
	l, err := net.Listen("unix", os.Getenv("QUIPU_SOCKET"))
	if err != nil {
		panic(err)
	}
	panic(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "go") })))
}
`

// A client that follows is told that the end has come; it does not hold up the others.
func TestAFollowerEndsWithTheNode(t *testing.T) {
	n := start(t)
	n.python("import lib\nprint('up', flush=True)\nlib.serve(lambda r: r.answer(200, ''))")
	n.get("/f/").want(t, 200, "")
	stopping := make(chan error, 1)
	var last error
	for line, err := range n.client.Logs(t.Context(), "f", 10, true) {
		last = err
		if line.Text == "up" {
			go func() { stopping <- n.stop() }()
		}
	}
	if err := <-stopping; err != nil {
		t.Error(err)
	}
	if errors.Is(last, t.Context().Err()) && last != nil {
		t.Error(last)
	}
}
