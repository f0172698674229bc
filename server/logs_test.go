package server

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// printer prints the path of each call, or does what it says.
const printer = `
import lib, os, sys, time
def handle(r):
    print("got", r.path, flush=True)
    if r.path.endswith("/hang"):
        time.sleep(60)
    if r.path.endswith("/exit"):
        os._exit(3)
    r.answer(200, "ok")
lib.serve(handle)`

func twoPrinters() files {
	return files{"f.py": printer, "quipu.yaml": function("f", "f.py", "python", "atomic: true", "timeout: 1s") + function("g", "f.py", "python")}
}

// kept is what is kept of all functions.
func (n *node) kept() (lines []sdk.LogLine) {
	n.t.Helper()
	for line, err := range n.client.LogsOf(n.t.Context(), sdk.LogsRequest{Tail: 10000}, nil) {
		if err != nil {
			n.t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// has waits until a line is kept: that is done by others than those who answer.
func (n *node) has(function, stream, part string) {
	n.t.Helper()
	eventually(n.t, function+" has a line of "+stream+" with "+part, func() bool {
		return slices.ContainsFunc(n.kept(), func(l sdk.LogLine) bool {
			return l.Function == function && l.Stream == stream && strings.Contains(l.Text, part)
		})
	})
}

// Who looks into the log of a function that vanished finds why.
func TestTheLogOfAFunctionSaysHowItsCallsAndInstancesEnded(t *testing.T) {
	n := start(t)
	n.deploy(twoPrinters())
	hung := n.get("/f/hang")
	hung.wantCode(t, quipu.CodeTimeout)
	n.has("f", "stdout", "got /f/hang")
	n.has("f", "platform", "call GET /f/hang failed after")
	n.has("f", "platform", "[Q0503]")
	n.has("f", "platform", "the instance was killed")
	n.get("/g/exit").wantCode(t, quipu.CodeCrashed)
	n.has("g", "platform", "ended by itself: exit status 3")
	n.get("/g/").want(t, 200, "ok")
	list, err := n.client.Instances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.Function == "g" {
			if err := syscall.Kill(i.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	n.has("g", "platform", "signal: killed")
	all := n.on("logs", "--color", "always")
	all.wantExit(0)
	for _, part := range []string{"\x1b[", "got /f/hang", "got /g/exit"} {
		if !strings.Contains(all.out, part) {
			t.Errorf("quipu logs has no %q: %q", part, all.out)
		}
	}
	plain := n.on("logs", "g")
	plain.wantExit(0)
	if strings.Contains(plain.out, "\x1b[") || strings.Contains(plain.out, "/f/") {
		t.Errorf("quipu logs g to a pipe: %q", plain.out)
	}
}

// A terminal with quipu logs -f stays open for days: through redeploys, removals and deaths of the node.
func TestWhoFollowsLogsMissesNothingAndSeesNothingTwiceWhateverHappens(t *testing.T) {
	k := spawn(t, t.TempDir(), "serve", "--sync", "os")
	k.deploy(twoPrinters())
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan sdk.LogLine, 1000), make(chan struct{})
	follower := clientOf(t, k.info.HTTP, "", "")
	go func() {
		defer close(done)
		for line, err := range follower.LogsOf(ctx, sdk.LogsRequest{Tail: 5, Follow: true}, nil) {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("the stream ended: %v", err)
				}
				return
			}
			seen <- line
		}
	}()
	say := func(function string, n int) {
		t.Helper()
		path := fmt.Sprintf("/%s/%d", function, n)
		eventually(t, "the function answers", func() bool { return k.get(path).status == 200 })
		k.has(function, "stdout", "got "+path)
	}
	say("f", 1)
	say("g", 2)
	k.kill()
	k.up()
	say("g", 3)
	if err := k.client.Remove(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	k.deploy(twoPrinters())
	say("f", 4)
	if err := k.term(); err != nil && os.Getenv("CI") != "" {
		t.Errorf("exit: %v", err)
	}
	k.up()
	say("f", 5)
	say("g", 6)
	kept := k.kept()
	var got []sdk.LogLine
	for deadline := time.After(patience); len(got) < len(kept); {
		select {
		case line := <-seen:
			got = append(got, line)
		case <-deadline:
			t.Fatalf("it has seen %d lines of %d", len(got), len(kept))
		}
	}
	cancel()
	<-done
	for len(seen) > 0 {
		t.Errorf("one line more than are kept: %+v", <-seen)
	}
	for _, f := range []string{"f", "g"} {
		if a, b := textsOf(got, f), textsOf(kept, f); !slices.Equal(a, b) {
			t.Errorf("of %s it has seen %q, kept are %q", f, a, b)
		}
	}
}

func textsOf(lines []sdk.LogLine, function string) (texts []string) {
	for _, l := range lines {
		if l.Function == function {
			texts = append(texts, l.Instance+" "+l.Text)
		}
	}
	return texts
}
