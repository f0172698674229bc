package server

import (
	"errors"
	"io"
	"net/http"
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
	k := spawn(t, t.TempDir(), "serve", "--sandbox=off")
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
	k := spawn(t, t.TempDir(), "serve", "--sandbox=off")
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

// A client that follows does not hold up the drain: its reply ends, whole, while a call is still under way.
func TestFollowersEndWhenTheNodeBeginsToStop(t *testing.T) {
	n := start(t, unconfined)
	n.python(slow)
	folder := t.TempDir()
	reply := n.begin(folder)
	followers := make(chan error, 2)
	listening := make(chan struct{}, 2)
	for _, path := range []string{"/-/v1/functions/f/logs?follow", "/-/v1/books/quipu%2Fdefault/tail"} {
		go func() { followers <- follow("http://"+n.info.HTTP+path, listening) }()
	}
	for range cap(listening) {
		<-listening
	}
	ended := make(chan error, 1)
	go func() { ended <- n.stop() }()
	for range cap(followers) {
		if err := <-followers; err != nil {
			t.Errorf("a follower's reply broke off: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	(<-reply).want(t, 200, "slow")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// follow reads a reply to its end, after it has told that it began.
func follow(url string, listening chan<- struct{}) error {
	resp, err := http.Get(url)
	listening <- struct{}{}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
