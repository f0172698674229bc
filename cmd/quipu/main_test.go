package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/internal/trace"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"quipu": main})
}

// Every script has a node of its own, in this process, with something of everything in it.
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: func(env *testscript.Env) error {
		node, err := fakeNode()
		if err != nil {
			return err
		}
		env.Defer(node.Close)
		env.Setenv("QUIPU_NODE", node.URL)
		env.Setenv("ADDRESS", strings.TrimPrefix(node.URL, "http://"))
		return nil
	}})
}

func fakeNode() (*httptest.Server, error) {
	ns := fake.New()
	ns.Add(fake.HTTP("hello", "/hello/{name}", "GET", "POST"), http.HandlerFunc(fake.Echo))
	ns.Add(fake.HTTP("sad", "/sad"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusConflict)
	}))
	ns.Lines = []sdk.LogLine{{Time: fake.Epoch, Function: "hello", Instance: "i1", Stream: "stdout", Text: "started"}, {Time: fake.Epoch, Function: "hello", Instance: "i1", Stream: "stderr", Text: "red \x1b[31m"}}
	ns.Running = []sdk.Instance{{ID: "i1", Function: "hello", Revision: "r1", PID: 7, State: "ready", Started: fake.Epoch}}
	for i := range 3 {
		ns.Book.Put("quipu/default", fmt.Sprintf("record %d", i), "t")
	}
	ns.Book.Put("quipu/bad", "x")
	ns.PutDead("mailer-dead", `{"id":"1","data":"<x>"}`, quipu.DeadLetter{Topic: "orders", Subscription: "mailer", Offset: 1, Cause: "status 500", Attempts: 11})
	ns.PutSubscription("orders", "mailer")
	tracer, err := trace.New(context.Background(), trace.Config{}, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	gw := gateway.New(gateway.Options{
		Trace: tracer,
		Sync:  "always",
		Node:  func() sdk.Node { return sdk.Node{PID: 1, HTTP: "127.0.0.1:8080", Version: "test"} },
		Namespaces: func(name string) (gateway.Namespace, error) {
			if name != sdk.NamespaceDefault {
				return nil, &quipu.Error{Code: quipu.CodeNotFound, Text: fmt.Sprintf("no namespace %q", name)}
			}
			return ns, nil
		},
	})
	ns.OnRoutes = func(fns []quipu.Function) {
		if err := gw.SetRoutes(sdk.NamespaceDefault, fns); err != nil {
			panic(err)
		}
	}
	return httptest.NewServer(gw), nil
}

func TestTheExitCodeTellsWhy(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	for line, want := range map[string]int{
		"ls --node " + node.URL:             0,
		"call sad --node " + node.URL:       1,
		"call nobody --node " + node.URL:    1,
		"ls --limit 3":                      2,
		"nothing":                           2,
		"ls --node ::":                      2,
		"log read x --node " + node.URL:     1,
		"ls --node 127.0.0.1:1":             3,
		"ls --node " + stranger.URL:         3,
		"call hello --node " + stranger.URL: 3,
	} {
		if got := run(t.Context(), strings.Fields(line), strings.NewReader(""), io.Discard, io.Discard); got != want {
			t.Errorf("quipu %s: exit %d, want %d", line, got, want)
		}
	}
}

func TestTheNearestNodeFileNamesTheNode(t *testing.T) {
	top := t.TempDir()
	deep := filepath.Join(top, "a", "b")
	if err := os.MkdirAll(filepath.Join(top, ".quipu"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := nodeAbove(deep); got != "" {
		t.Errorf("no file, but %q", got)
	}
	if err := os.WriteFile(filepath.Join(top, ".quipu", "node.json"), []byte(`{"http":"127.0.0.1:99"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := nodeAbove(deep); got != "127.0.0.1:99" {
		t.Errorf("got %q", got)
	}
}

func TestTakenPortsNameTheFlagThatHelps(t *testing.T) {
	taken := httptest.NewServer(nil)
	defer taken.Close()
	var port int
	if _, err := fmt.Sscanf(taken.URL, "http://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	for flag, n := range map[string]NodeConfig{"--port": {Port: port}, "--dapr-http-port": {DaprHTTPPort: port}} {
		n.Data = t.TempDir()
		err := runNode(t.Context(), n)
		if quipu.CodeOf(err) != quipu.CodePortTaken || !strings.Contains(quipu.AsError(err).Hint, flag+" N") {
			t.Errorf("%s: %v", flag, err)
		}
	}
	if err := runNode(t.Context(), NodeConfig{Data: t.TempDir(), Listen: "0.0.0.0"}); quipu.CodeOf(err) != quipu.CodeOpenListen {
		t.Errorf("an open listener without a token: %v", err)
	}
}

func TestASaveIsSeenAndWhatIsIgnoredIsNot(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "node_modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan struct{}), make(chan error)
	go func() { done <- watch(ctx, dir, func(time.Time) { seen <- struct{}{} }) }()
	<-seen // at the start
	save := func(name string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Error(err)
		}
	}
	save("node_modules/dep.js")
	save(".quipu/log")
	save("main.py")
	<-seen
	save("new/sub/file")
	<-seen
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("watch ended with %v", err)
	}
}

func TestASubEndsCleanlyWhenItIsInterrupted(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	out, done := make(told, 1), make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"sub", "mailer-dead", "--from", "earliest", "--node", node.URL}, nil, out, io.Discard)
	}()
	out.wait(t, `"cause":"status 500"`)
	interrupt()
	if code := <-done; code != 0 {
		t.Errorf("exit %d", code)
	}
}

// A pipe that stays open must not hold back what came through it.
func TestPublishedLinesAreAcknowledgedWhileTheInputIsOpen(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	in, writer := io.Pipe()
	out, done := make(told, 1), make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"pub", "t", "--lines", "--content-type", quipu.MediaCloudEvent, "--node", node.URL}, in, out, io.Discard)
	}()
	for _, id := range []string{"first", "second"} {
		fmt.Fprintf(writer, `{"specversion":"1.0","id":%q,"source":"s","type":"t"}`+"\n", id)
		out.wait(t, id)
	}
	interrupt()
	if code := <-done; code != 0 {
		t.Errorf("interrupted: exit %d", code)
	}
	writer.Close()
}

func TestAFileOfLinesIsPublishedWholeAndInOrder(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	var in, ids, events bytes.Buffer
	for i := range 3*batchLines + 7 {
		fmt.Fprintf(&in, "line %d\n", i)
	}
	if code := run(t.Context(), []string{"pub", "t", "--lines", "--node", node.URL}, &in, &ids, os.Stderr); code != 0 {
		t.Fatalf("exit %d", code)
	}
	if code := run(t.Context(), []string{"sub", "t", "--no-follow", "--node", node.URL}, nil, &events, os.Stderr); code != 0 {
		t.Fatalf("exit %d", code)
	}
	want := strings.Fields(ids.String())
	got := strings.Split(strings.TrimSpace(events.String()), "\n")
	if len(want) != 3*batchLines+7 || len(got) != len(want) {
		t.Fatalf("%d ids, %d events", len(want), len(got))
	}
	for i, line := range got {
		if !strings.Contains(line, want[i]) || !strings.Contains(line, fmt.Sprintf(`"line %d"`, i)) {
			t.Fatalf("event %d is %s, its id %s", i, line, want[i])
		}
	}
}

// told is a standard error of which a test waits for lines.
type told chan string

func (c told) Write(b []byte) (int, error) {
	c <- string(b)
	return len(b), nil
}

func (c told) wait(t *testing.T, part string) {
	t.Helper()
	for text := range c {
		if strings.Contains(text, part) {
			return
		}
	}
	t.Fatalf("never said %q", part)
}

func TestDevDeploysAtEverySaveAndLivesThroughMistakes(t *testing.T) {
	node, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	dir := filepath.Join(t.TempDir(), "shop")
	if code := run(t.Context(), []string{"new", "python", dir}, nil, io.Discard, io.Discard); code != 0 {
		t.Fatal("no template")
	}
	ctx, cancel := context.WithCancel(t.Context())
	said, done := make(told, 100), make(chan error, 1)
	c := &cli{err: said, out: io.Discard}
	go func() { done <- c.deployOnSave(ctx, sdk.Node{HTTP: node.URL}, dir, "", newSaved()) }()
	save := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said.wait(t, "deployed shop")
	save("hello/main.py", "print('changed')")
	said.wait(t, "deployed shop")
	save(".quipuignore", "[")
	said.wait(t, "Q0402")
	save(".quipuignore", "*.csv")
	said.wait(t, "deployed shop")
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("ended with %v", err)
	}
}

// The templates count in state over the Dapr API they would have as instances.
func TestTemplatesGreetAndCount(t *testing.T) {
	for name, command := range map[string][]string{"go": {"go", "run", "."}, "python": {"python3", "main.py"}, "node": {"node", "index.js"},
		"typescript": {"node", "index.mjs"}} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(command[0]); err != nil {
				t.Skipf("%s is not installed", command[0])
			}
			dir := filepath.Join(t.TempDir(), "app")
			if code := run(t.Context(), []string{"new", name, dir}, nil, io.Discard, os.Stderr); code != 0 {
				t.Fatalf("new: exit %d", code)
			}
			if name == "typescript" {
				source := filepath.Join(dir, "hello")
				if code := run(t.Context(), []string{"build", filepath.Join(source, "index.ts"), "--out", source}, nil, io.Discard, os.Stderr); code != 0 {
					t.Fatalf("build: exit %d", code)
				}
			}
			greet := startTemplate(t, filepath.Join(dir, "hello"), command)
			for _, c := range [][2]string{{"/hello", "hello, world! You were greeted 1 times.\n"}, {"/hello/Ana%20B", "hello, Ana B! You were greeted 1 times.\n"}, {"/hello", "hello, world! You were greeted 2 times.\n"}} {
				if got := greet(c[0]); got != c[1] {
					t.Errorf("%s: %q, want %q", c[0], got, c[1])
				}
			}
		})
	}
}
