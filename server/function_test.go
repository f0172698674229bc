package server

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

func TestARequestIsHeldUntilAFunctionListensLate(t *testing.T) {
	n := start(t)
	n.python("import lib, time\ntime.sleep(1)\nlib.serve(lambda r: r.answer(200, 'late'))")
	n.get("/f/").want(t, 200, "late")
}

func TestAFunctionMayPrintAnything(t *testing.T) {
	n := start(t)
	n.python(`
import lib, os, sys
os.write(1, os.urandom(300000))
os.write(2, b"\xff\xfe\x00 no end of line")
lib.serve(lambda r: r.answer(200, 'ok'))`)
	n.get("/f/").want(t, 200, "ok")
	lines := 0
	for _, err := range n.client.Logs(t.Context(), "f", 1000, false) {
		if err != nil {
			t.Fatalf("logs after %d lines: %v", lines, err)
		}
		lines++
	}
	if lines == 0 {
		t.Error("nothing of what it printed was kept")
	}
}

func TestAnAnswerThatIsNotHTTPIsNamed(t *testing.T) {
	n := start(t)
	n.python(`
import os, socket
s = socket.socket(socket.AF_UNIX)
s.bind(os.environ["QUIPU_SOCKET"])
s.listen()
while True:
    c, _ = s.accept()
    if c.recv(1 << 16):
        c.sendall(b"\x00\x01 this is no HTTP\r\n\r\n")
    c.close()`)
	n.get("/f/").wantCode(t, quipu.CodeReply)
}

const forks = `
import lib, os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    os._exit(0)
lib.serve(lambda r: r.answer(200, os.getpid()))`

func TestChildrenThatForkAwayEndWithTheirFunction(t *testing.T) {
	n := start(t)
	n.python(forks)
	if a := n.get("/f/"); a.status != 200 {
		t.Fatal(a)
	}
	eventually(t, "it has forked", func() bool { return len(n.processes()) >= 2 })
	if err := n.client.Remove(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	n.noneLeft()
}

const stubborn = `
import lib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lib.serve(lambda r: r.answer(200, "VERSION"))`

func TestAFunctionThatIgnoresSIGTERMIsReplacedAndEndsWithTheNode(t *testing.T) {
	t.Parallel() // most of it is waiting for the grace of five seconds, twice
	n := start(t)
	n.python(strings.ReplaceAll(stubborn, "VERSION", "old"))
	n.get("/f/").want(t, 200, "old")
	old := n.pid()
	n.python(strings.ReplaceAll(stubborn, "VERSION", "new"))
	eventually(t, "the new revision answers", func() bool { return n.get("/f/").body == "new" })
	eventually(t, "the old instance is gone", func() bool { return !alive(old) })
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.noneLeft()
}

const mayDie = `
import lib, os, time
def handle(r):
    if r.path == "/f/die":
        os.kill(os.getpid(), 9)
    if r.path == "/f/hang":
        time.sleep(1000)
    r.answer(200, os.getpid())
lib.serve(handle)`

func TestAnInstanceThatDiesDuringACallIsReplaced(t *testing.T) {
	for _, kind := range []string{"atomic: false", "atomic: true"} {
		t.Run(kind, func(t *testing.T) {
			n := start(t)
			n.python(mayDie, kind)
			n.get("/f/die").wantCode(t, quipu.CodeCrashed)
			if a := n.get("/f/"); a.status != 200 {
				t.Errorf("the next call got %d %s", a.status, a.body)
			}
		})
	}
}

func TestACallThatTakesTooLongEndsWithItsInstance(t *testing.T) {
	n := start(t)
	n.python(mayDie, "atomic: true", "timeout: 500ms")
	if a := n.get("/f/"); a.status != 200 {
		t.Fatal(a)
	}
	hung := n.pid()
	n.get("/f/hang").wantCode(t, quipu.CodeTimeout)
	eventually(t, "the instance that hangs is gone", func() bool { return !alive(hung) })
	if a := n.get("/f/"); a.status != 200 {
		t.Errorf("the next call got %d %s", a.status, a.body)
	}
}

const replies = `
import lib
def handle(r):
    if r.path == "/f/events":
        r.answer(200, "data: x\n\n", "text/event-stream")
    elif r.path == "/f/late":
        r.send_response(200)
        r.send_header("Content-Type", "text/event-stream")
        r.end_headers()
        r.wfile.flush()
        lib.state("POST", "shared/", '[{"key":"late","value":1}]')
    else:
        r.answer(200, b"x" * int(r.path.rpartition("/")[2]))
lib.serve(handle)`

func TestAnAtomicReplyIsWholeAndBounded(t *testing.T) {
	n := start(t)
	n.python(replies, "atomic: true")
	n.get("/f/6291457").wantCode(t, quipu.CodeReplySize)
	n.get("/f/events").wantCode(t, quipu.CodeStreaming)
	if a := n.get("/f/6291456"); a.status != 200 || len(a.body) != quipu.AtomicBodyMax {
		t.Errorf("a reply of just 6 MiB: %d, %d bytes", a.status, len(a.body))
	}
}

// A handler whose reply was refused is still running. What it writes then must not become part of the next call.
func TestAHandlerWhoseReplyWasRefusedCannotTouchTheNextCall(t *testing.T) {
	n := start(t)
	n.python(replies, "atomic: true")
	n.get("/f/1").want(t, 200, "x")
	first := n.pid()
	n.get("/f/late").wantCode(t, quipu.CodeStreaming)
	eventually(t, "the instance with the running handler is gone", func() bool { return !alive(first) })
	n.get("/f/1").want(t, 200, "x")
	if got := n.state("late"); got != "" {
		t.Errorf("a refused call wrote %s", got)
	}
}

const streams = `
import lib, threading
go = threading.Event()
def handle(r):
    if r.path == "/f/go":
        go.set()
        return r.answer(200, "")
    r.send_response(200)
    r.send_header("Transfer-Encoding", "chunked")
    r.end_headers()
    r.wfile.write(b"4\r\none\n\r\n"); r.wfile.flush()
    go.wait()
    r.wfile.write(b"4\r\ntwo\n\r\n0\r\n\r\n"); r.wfile.flush()
lib.serve(handle)`

// The second line comes only after the first was seen outside.
func TestAPlainReplyStreamsAsItComes(t *testing.T) {
	n := start(t)
	n.python(streams)
	client := &http.Client{Timeout: 20 * time.Second}
	resp, err := client.Get("http://" + n.info.HTTP + "/f/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "one" {
		t.Fatalf("first line %q, %v", lines.Text(), lines.Err())
	}
	n.get("/f/go").want(t, 200, "")
	if !lines.Scan() || lines.Text() != "two" || lines.Scan() {
		t.Errorf("then %q, %v", lines.Text(), lines.Err())
	}
}
