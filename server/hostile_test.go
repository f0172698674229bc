package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/bundle"
)

// hostile does as its path says, and when it starts as the key start says.
const hostile = `
import lib, json, os, signal, socket, sys, threading, time

how = lib.state("GET", "shared/start")[1].decode().strip('"')
if how == "silent":
    time.sleep(1000)
if how == "elsewhere":
    s = socket.create_server(("127.0.0.1", 0))
    time.sleep(1000)
if how.startswith("exit"):
    print("I give up", file=sys.stderr, flush=True)
    os._exit(int(how[4:]))
if how.startswith("signal"):
    os.kill(os.getpid(), int(how[6:]))
    time.sleep(1000)

def raw(r, *parts):
    for p in parts:
        r.wfile.write(p)
    r.wfile.flush()
    r.close_connection = True

def endless(r, part):
    r.send_response(200)
    r.send_header("Transfer-Encoding", "chunked")
    r.end_headers()
    try:
        while True:
            r.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
    except OSError:
        os._exit(1)

def handle(r):
    what = r.path.rpartition("/")[2]
    if what == "half":
        raw(r, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"half")
    elif what == "headhalf":
        raw(r, b"HTTP/1.1 200 OK\r\nContent-Le")
    elif what == "endless":
        endless(r, b"x" * 65536)
    elif what == "headers":
        raw(r, b"HTTP/1.1 200 OK\r\n", *[b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(20000)])
    elif what == "lengths":
        raw(r, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
    elif what == "status":
        raw(r, b"HTTP/1.1 99999 Odd\r\nContent-Length: 0\r\n\r\n")
    elif what == "twice":
        raw(r, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
    elif what == "late":
        time.sleep(2)
        r.answer(200, "late")
    elif what == "zombies":
        for n in range(100):
            if os.fork() == 0:
                os._exit(0)
        r.answer(200, "braaains")
    elif what.startswith("exit"):
        os._exit(int(what[4:]))
    elif what.startswith("signal"):
        os.kill(os.getpid(), int(what[6:]))
        time.sleep(1000)
    else:
        r.answer(200, "good")

lib.serve(handle)`

// hostileNode has the function twice, plain and atomic, each with a timeout of a second, and a good one beside them.
func hostileNode(t *testing.T) *node {
	n := start(t)
	rules := []string{"timeout: 1s", "startTimeout: 2s", "scale: {max: 1}", "concurrency: 1"}
	n.deploy(files{"quipu.yaml": function("plain", "f.py", "python", rules...) +
		function("atomic", "f.py", "python", append(rules, "atomic: true")...) + function("good", "good.py", "python"),
		"f.py": hostile, "good.py": "import lib\nlib.serve(lambda r: r.answer(200, 'good'))"})
	return n
}

// Whatever a function answers, its caller gets a code, and the next call is answered.
func TestWhatAFunctionAnswersWrongHasACodeAndHurtsNobody(t *testing.T) {
	n := hostileNode(t)
	for _, c := range []struct {
		path          string
		plain, atomic quipu.Code // "" for an answer that breaks off
	}{
		{"headhalf", quipu.CodeReply, quipu.CodeReply},
		{"half", "", quipu.CodeCrashed},
		{"endless", "", quipu.CodeReplySize},
		{"headers", quipu.CodeReply, quipu.CodeReply},
		{"lengths", quipu.CodeReply, quipu.CodeReply},
		{"status", quipu.CodeReply, quipu.CodeReply},
		{"late", quipu.CodeTimeout, quipu.CodeTimeout},
		{"exit0", quipu.CodeCrashed, quipu.CodeCrashed},
		{"exit3", quipu.CodeCrashed, quipu.CodeCrashed},
		{"signal9", quipu.CodeCrashed, quipu.CodeCrashed},
		{"signal11", quipu.CodeCrashed, quipu.CodeCrashed},
		{"signal15", quipu.CodeCrashed, quipu.CodeCrashed},
	} {
		for function, want := range map[string]quipu.Code{"plain": c.plain, "atomic": c.atomic} {
			t.Run(c.path+" "+function, func(t *testing.T) {
				if a := n.post("/"+function+"/"+c.path, ""); want == "" { // a GET whose connection breaks is sent again by Go's client
					if a.status != 0 {
						t.Errorf("got %d, %d bytes, want an answer that breaks off", a.status, len(a.body))
					}
				} else if a.code() != want || a.status != quipu.Codes[want].Status {
					t.Errorf("got %d %.200q, want %s", a.status, a.body, want)
				}
				n.get("/"+function+"/").want(t, 200, "good")
				n.get("/good/").want(t, 200, "good")
			})
		}
	}
}

// What comes after a whole answer on a connection is nobody's.
func TestASecondAnswerIsNotGivenToTheNextCall(t *testing.T) {
	n := hostileNode(t)
	for _, function := range []string{"plain", "atomic"} {
		n.get("/"+function+"/twice").want(t, 200, "1")
		n.get("/"+function+"/").want(t, 200, "good")
	}
}

// A function that does not come up fails the calls that wait for it. What it said is for who may read its output, not for
// its callers. When it can, it comes up.
func TestAFunctionThatDoesNotComeUpFailsItsCallsUntilItDoes(t *testing.T) {
	n := hostileNode(t)
	for _, how := range []string{"silent", "elsewhere", "exit0", "exit3", "signal9", "signal11"} {
		t.Run(how, func(t *testing.T) {
			n.get("/plain/exit1").wantCode(t, quipu.CodeCrashed)
			n.putState("start", how)
			a := n.get("/plain/")
			a.wantCode(t, quipu.CodeStart)
			if strings.Contains(a.body, "I give up") {
				t.Errorf("the caller reads its output: %s", a.body)
			}
			if how == "exit3" && !strings.Contains(n.logged("plain", 100), "I give up") {
				t.Error("its last words are not in its output")
			}
			n.get("/good/").want(t, 200, "good")
			n.putState("start", "well")
			eventually(t, "it comes up", func() bool { return n.get("/plain/").status == 200 })
		})
	}
}

func (n *node) putState(key, value string) {
	n.t.Helper()
	if err := n.client.State(quipu.StoreShared, "").Apply(n.t.Context(), quipu.Change{Key: key, Value: fmt.Appendf(nil, "%q", value)}); err != nil {
		n.t.Fatal(err)
	}
}

// Children that nobody waits for are gone with their instance, and while it lives they take nothing from others.
func TestZombiesEndWithTheirInstance(t *testing.T) {
	n := hostileNode(t)
	n.get("/plain/zombies").want(t, 200, "braaains")
	n.get("/plain/").want(t, 200, "good")
	n.get("/plain/exit0").wantCode(t, quipu.CodeCrashed)
	eventually(t, "no zombie is left", func() bool { return zombies() == 0 })
}

// zombies counts children of this process that have ended and were not waited for.
func zombies() (count int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is sound
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err == nil && bytes.Contains(text, fmt.Appendf(nil, ") Z %d ", os.Getpid())) {
			count++
		}
	}
	return count
}

const chatter = `
import lib, os
def handle(r):
    size, line = int(r.body), {"lines": b"y" * 99 + b"\n", "endless": b"z" * 100, "bytes": b"\xff\xfe\x00\x80" * 25}[r.path.rpartition("/")[2]]
    block = line * 650
    for n in range(size // len(block)):
        os.write(1 + n % 2, block)
    os.write(1, b"\nlast words\n")
    r.answer(200, "said")
lib.serve(handle)`

// A function may print as much as it likes: what is kept is bounded, its newest lines are there, and others are served.
// With QUIPU_SOAK it prints a gigabyte.
func TestAFunctionThatPrintsWithoutEndFillsNothing(t *testing.T) {
	size := 48 << 20
	if os.Getenv("QUIPU_SOAK") != "" {
		size = 1 << 30
	}
	n := start(t)
	n.deploy(files{"quipu.yaml": function("f", "f.py", "python", "timeout: 10m") + function("good", "good.py", "python"),
		"f.py": chatter, "good.py": "import lib\nlib.serve(lambda r: r.answer(200, 'good'))"})
	for _, what := range []string{"lines", "endless", "bytes"} {
		said := make(chan answer)
		go func() { said <- n.post("/f/"+what, fmt.Sprint(size)) }()
		n.get("/good/").want(t, 200, "good")
		(<-said).want(t, 200, "said")
		eventually(t, "its last line is kept", func() bool { return strings.Contains(n.logged("f", 5000), "last words") })
		if kept := folderSize(t, filepath.Join(n.data, "logs")); kept > 40<<20 {
			t.Errorf("%s: %d bytes are kept", what, kept)
		}
	}
}

// logged is what a function printed last.
func (n *node) logged(function string, lines int) string {
	n.t.Helper()
	var all strings.Builder
	for line, err := range n.client.Logs(n.t.Context(), function, lines, false) {
		if err != nil {
			n.t.Fatal(err)
		}
		all.WriteString(line.Text + "\n")
	}
	return all.String()
}

func folderSize(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// A bundle of 500 MB is refused before it is read, and an application that would unpack to one before it is on disk.
func TestABundleThatIsTooLargeIsRefusedEarly(t *testing.T) {
	n := start(t)
	before := n.records()
	sent := &zeros{most: 500 << 20}
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+n.info.HTTP+"/-/v1/deploys?app=big", sent)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/gzip")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d %s, %v", resp.StatusCode, body, err)
	}
	if got := sent.read.Load(); got > bundle.BytesMax+16<<20 {
		t.Errorf("%d bytes were taken before it was refused", got)
	}
	if n.records() != before {
		t.Error("it left records")
	}
}

// zeros is a body of so many, which may be read on while its answer is there.
type zeros struct {
	most int64
	read atomic.Int64
}

func (z *zeros) Read(p []byte) (int, error) {
	left := z.most - z.read.Load()
	if left <= 0 {
		return 0, io.EOF
	}
	k := min(int64(len(p)), left)
	clear(p[:k])
	z.read.Add(k)
	return int(k), nil
}

// Who deploys and goes away ends the build, and nothing is deployed.
func TestABuildEndsWhenNobodyWaitsForItsDeploy(t *testing.T) {
	n := start(t)
	mark := filepath.Join(t.TempDir(), "mark")
	packed := files{"quipu.yaml": function("f", "f.py", "python", "build: [sh, -c, 'touch "+mark+"; exec sleep 1000']"), "f.py": ""}.pack(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := n.client.Deploy(ctx, "app", packed)
		ended <- err
	}()
	eventually(t, "it builds", func() bool { _, err := os.Stat(mark); return err == nil })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	n.noneLeft()
	if list, err := n.client.Functions(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}
