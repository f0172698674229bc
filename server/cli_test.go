package server

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func TestTheCommandLineShowsWhatACallDid(t *testing.T) {
	n := start(t)
	n.python(`
import lib
def handle(r):
    print("handling", r.path, flush=True)
    lib.state("POST", "shared/", '[{"key":"k","value":1}]')
    r.answer(200, "done")
lib.serve(handle)`, "atomic: true")
	reply := n.get("/f/x")
	reply.want(t, 200, "done")
	id := reply.header.Get(quipu.HeaderCallID)
	t.Run("logs", func(t *testing.T) { n.showsTheLine(t, id) })
	t.Run("calls", func(t *testing.T) {
		list := n.on("calls", "f")
		list.wantExit(0)
		if !strings.Contains(list.out, id) {
			t.Errorf("no call %s in %q", id, list.out)
		}
		one := n.on("calls", "get", id, "-o", "json")
		one.wantExit(0)
		var call quipu.CallInfo
		if err := json.Unmarshal([]byte(one.out), &call); err != nil || call.ID != id || call.Writes != 1 || call.Runs != 1 || call.Status != 200 || call.Seq == 0 {
			t.Errorf("%s: %v", one.out, err)
		}
	})
	t.Run("verify", func(t *testing.T) {
		n.on("log", "verify", "quipu/default").wantExit(0)
		none := n.on("log", "verify", "quipu/none")
		none.wantExit(1)
		none.wantErr(string(quipu.CodeNoBook))
	})
}

// showsTheLine: a line is kept by another goroutine than the one that answers, so it may come a little later.
func (n *node) showsTheLine(t *testing.T, id string) {
	eventually(t, "the line is kept with its call", func() bool {
		r := n.on("logs", "f", "-o", "json")
		r.wantExit(0)
		for text := range strings.Lines(r.out) {
			var line sdk.LogLine
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if line.Text == "handling /f/x" && line.Call == id {
				return true
			}
		}
		return false
	})
}

// The first minutes of a new user: quipu new, quipu dev, curl, edit, curl.
func TestDevServesEachTemplateAndItsEdits(t *testing.T) {
	for template, source := range map[string]string{"python": "greet.py", "node": "greet.js", "typescript": "greet.ts", "go": "main.go"} {
		t.Run(template, func(t *testing.T) {
			if _, err := exec.LookPath("node"); err != nil && (template == "node" || template == "typescript") && os.Getenv("CI") == "" {
				t.Skip("node is not on this machine")
			}
			dir := filepath.Join(t.TempDir(), "hello")
			command(t, "new", template, dir).wantExit(0)
			k := spawn(t, filepath.Join(dir, ".quipu"), "dev", dir)
			var got answer
			eventually(t, "the template answers", func() bool { got = k.get("/hello/bob"); return got.status == 200 })
			got.want(t, 200, "hello, bob! You were greeted 1 times.\n")
			edit(t, filepath.Join(dir, "hello", source), "You were greeted", "I greeted you")
			saved := time.Now()
			eventually(t, "the edit answers", func() bool {
				got = k.get("/hello/eve")
				return got.status == 200 && strings.Contains(got.body, "I greeted you")
			})
			t.Logf("first new answer %s after the save", time.Since(saved).Round(time.Millisecond))
			k.get("/hello/bob").want(t, 200, "hello, bob! I greeted you 2 times.\n")
			if err := k.term(); err != nil {
				t.Errorf("exit: %v", err)
			}
		})
	}
}

func edit(t *testing.T, file, before, after string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		if !strings.Contains(string(text), before) {
			t.Fatalf("%s has no %q", file, before)
		}
		err = os.WriteFile(file, []byte(strings.ReplaceAll(string(text), before, after)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The log as a product of its own: what the command line appended is there after kill -9, and a tail says where to go on.
func TestABookOfTheCommandLineLivesThroughAKill(t *testing.T) {
	k := spawn(t, t.TempDir(), "serve", "--sync", "os")
	k.on("log", "create", "orders").wantExit(0)
	first := k.on("log", "append", "orders", "first", "--tag", "eu", "--if-last", "eu=0")
	first.wantExit(0)
	file := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(file, []byte("second\nthird\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.on("log", "append", "orders", "--lines", "-f", file).wantExit(0)
	tailing := make(chan result)
	go func() { tailing <- k.on("log", "tail", "orders", "-f", "--last", "1") }()
	k.kill()
	tail := <-tailing // it met the node before the kill, or after it
	tail.wantExit(3)
	k.up()
	read := k.on("log", "read", "orders", "--data")
	read.wantExit(0)
	if read.out != "first\nsecond\nthird\n" {
		t.Errorf("after the kill it has %q", read.out)
	}
	late := k.on("log", "append", "orders", "late", "--if-last", "eu=0")
	late.wantExit(1)
	late.wantErr(strings.TrimSpace(first.out)) // the winner
	list := k.on("log", "ls")
	list.wantExit(0)
	if !strings.Contains(list.out, "orders") || !strings.Contains(list.out, " os\n") {
		t.Errorf("listed %q", list.out)
	}
	k.on("log", "append", "quipu/default", "x").wantErr(string(quipu.CodeBookLocked))
	k.on("log", "stats").wantExit(0)
	k.on("log", "verify", "orders").wantExit(0)
}

func TestASyncModeThatIsNoneIsRefused(t *testing.T) {
	r := command(t, "serve", "--data", t.TempDir(), "--port", "0", "--dapr-http-port", "0", "--dapr-grpc-port", "0", "--sync", "never")
	r.wantExit(2)
	r.wantErr("always, os")
}
