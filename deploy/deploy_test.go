package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/internal/bundle"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

type world struct {
	*View
	t       *testing.T
	ctx     context.Context
	fs      *vfs.MemFS
	dir     string
	log     *xtest.Model
	id      quipu.Book
	store   *view.Store
	changes int
	routes  error // what CheckRoutes answers

	try     func(ctx context.Context, f quipu.Function) error // what Try does besides
	mu      sync.Mutex
	tried   []string // names that have passed Try, and are not settled yet
	settled int
	pinned  map[string]bool // revisions that executions have not left
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), fs: vfs.NewMem(), dir: t.TempDir()}
	w.log = xtest.NewModel(xtest.NewClock(time.Unix(1e9, 0)))
	var err error
	if w.id, err = w.log.CreateBook(w.ctx, "quipu/default", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.t.Helper()
	blobs, err := blob.Open(w.fs, "/blobs")
	if err != nil {
		w.t.Fatal(err)
	}
	now := xtest.NewClock(time.Unix(1e9, 0))
	w.tried, w.settled = nil, 0
	w.View = New(Options{Dir: w.dir, Blobs: blobs, Clock: now,
		CheckRoutes: func([]quipu.Function) error { return w.routes },
		CheckSchedule: func(cron, _ string) error {
			if cron == "never" {
				return errors.New("it never ticks")
			}
			return nil
		},
		Try: w.look, Settle: w.settle, Pinned: func(_ *view.Tx, _, revision string) (bool, error) { return w.pinned[revision], nil },
		Changed: func(_, _ []Deployed) { w.changes++ }})
	if w.store, err = view.OpenStore(view.Options{Dir: "/views", FS: w.fs}); err != nil {
		w.t.Fatal(err)
	}
	book, err := view.OpenBook(w.ctx, w.store, w.log, w.id, now, w.View)
	if err == nil {
		err = w.Start(book)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) look(ctx context.Context, f quipu.Function, _ string) (asked quipu.Asked, err error) {
	if w.try != nil {
		if err := w.try(ctx, f); err != nil {
			return asked, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tried = append(w.tried, f.Name)
	return asked, nil
}

func (w *world) settle(f quipu.Function) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.tried, f.Name)
	if i < 0 {
		w.t.Errorf("%s was settled, but not tried", f.Name)
		return
	}
	w.tried = slices.Delete(w.tried, i, i+1)
	w.settled++
}

func (w *world) close() {
	w.t.Helper()
	if err := errors.Join(w.book.Close(), w.store.Close()); err != nil {
		w.t.Error(err)
	}
}

// pack makes a bundle of files, each given as "name\ncontent".
func pack(t *testing.T, files ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	for _, file := range files {
		name, content, _ := strings.Cut(file, "\n")
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	packed, err := bundle.Pack(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// fn is the document of an exec function.
func fn(name, more string) string {
	return "---\napiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: " + name + "}\nspec:\n  runtime: exec\n  command: [./run]\n" + more
}

const run = "run\n#!/bin/sh\n"

func (w *world) names() string {
	var names []string
	for _, f := range w.Functions() {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}

func TestRulesForCallsThatNobodyWaitsForHaveDefaults(t *testing.T) {
	w := newWorld(t)
	for text, want := range map[string]quipu.AsyncSpec{
		"": quipu.AsyncDefault(),
		"  async: {retry: {max: 7}, onSuccess: {topic: done}}\n": {Retry: quipu.RetrySpec{Max: 7, Backoff: quipu.Duration(time.Second)},
			MaxAge: quipu.Duration(6 * time.Hour), OnSuccess: quipu.Destination{Topic: "done"}},
	} {
		if _, err := w.Deploy(w.ctx, "app", pack(t, "quipu.yaml\n"+fn("a", text), run), quipu.DeployOptions{}); err != nil {
			t.Fatal(err)
		}
		f, err := w.Function("a")
		if err != nil || f.Spec.Async != want {
			t.Errorf("%+v, %v, want %+v", f.Spec.Async, err, want)
		}
		if got := f.AsyncRules().OnFailure; got != (quipu.Destination{Topic: "a-dead"}) {
			t.Errorf("failures go to %+v", got)
		}
	}
}

func TestDeployReplacesAnApplicationAsAWhole(t *testing.T) {
	w := newWorld(t)
	deploy := func(app string, files ...string) []quipu.Function {
		t.Helper()
		f, err := w.Deploy(w.ctx, app, pack(t, files...), quipu.DeployOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := deploy("shop", "quipu.yaml\n"+fn("order", "")+fn("pay", ""), run)
	deploy("blog", "quipu.yaml\n"+fn("post", ""), run)
	if w.names() != "order pay post" {
		t.Fatal(w.names())
	}
	second := deploy("shop", "quipu.yaml\n"+fn("order", "  atomic: true\n")+fn("ship", ""), run)
	if w.names() != "order post ship" || first[0].Revision == second[0].Revision {
		t.Fatal(w.names(), first[0].Revision, second[0].Revision)
	}
	if err := w.Remove(w.ctx, "ship"); err != nil || w.names() != "order post" {
		t.Fatal(err, w.names())
	}
	if err := w.Remove(w.ctx, "ship"); quipu.CodeOf(err) != quipu.CodeNoFunction {
		t.Fatal(err)
	}
	order, err := w.Function("order")
	if err != nil || !order.Spec.Atomic || order.Spec.Concurrency != 1 || order.Spec.Scale.Max != 10 {
		t.Fatalf("%+v, %v", order, err)
	}
	if w.changes != 5 { // the start and four changes
		t.Errorf("told of %d changes", w.changes)
	}
}

func TestUnchangedDeployAppendsNothing(t *testing.T) {
	w := newWorld(t)
	packed := pack(t, "quipu.yaml\n"+fn("a", ""), run)
	if _, err := w.Deploy(w.ctx, "app", packed, quipu.DeployOptions{}); err != nil {
		t.Fatal(err)
	}
	before := w.book.Applied()
	if _, err := w.Deploy(w.ctx, "app", packed, quipu.DeployOptions{}); err != nil || w.book.Applied() != before {
		t.Fatalf("%v, and the book went from %s to %s", err, before, w.book.Applied())
	}
}

func TestDeployedSurvivesAndIsBuiltAgainWhenMissing(t *testing.T) {
	w := newWorld(t)
	functions, err := w.Deploy(w.ctx, "app", pack(t,
		"quipu.yaml\n"+fn("a", "  source: src\n  build: [sh, -c, 'echo built > out']\n"), "src/"+run), quipu.DeployOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.close()
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	w.open()
	f, err := w.Function("a")
	if err != nil || f.Revision != functions[0].Revision {
		t.Fatalf("%+v, %v", f, err)
	}
	dir, err := w.Prepare(w.ctx, f)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(out) != "built\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestGoIsBuiltWithAndWithoutAModule(t *testing.T) {
	const program = "package main\n\nfunc main() { println(greeting) }\n"
	const greeting = "package main\n\nconst greeting = \"hello\"\n"
	goFn := "apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: a}\nspec: {runtime: go, source: cmd}\n"
	for name, files := range map[string][]string{
		"module":    {"go.mod\nmodule example.com/app\n\ngo 1.24\n"},
		"no module": nil,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			files = append(files, "quipu.yaml\n"+goFn, "cmd/main.go\n"+program, "cmd/greeting.go\n"+greeting,
				"cmd/main_test.go\npackage main\n")
			functions, err := w.Deploy(w.ctx, "app", pack(t, files...), quipu.DeployOptions{})
			if err != nil {
				t.Fatal(err)
			}
			dir, err := w.Prepare(w.ctx, functions[0])
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(filepath.Join(dir, functions[0].Spec.Command[0])); err != nil || info.Mode()&0o100 == 0 {
				t.Error(err)
			}
		})
	}
}

const head = "apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: a}\n"

// refusals are manifests that are refused, with what is said.
var refusals = []struct {
	name, manifest string
	want           quipu.Code
	says           string
}{
	{"no yaml", "{", quipu.CodeManifest, "quipu.yaml:1"},
	{"empty", "", quipu.CodeManifest, "no function"},
	{"unknown field", fn("a", "  colour: red\n"), quipu.CodeManifest, "quipu.yaml:8: unknown field colour"},
	{"unknown trigger", fn("a", "  triggers: [{moon: full}]\n"), quipu.CodeManifest, "unknown field moon"},
	{"wrong type", fn("a", "  atomic: [1]\n"), quipu.CodeManifest, "quipu.yaml:8"},
	{"wrong duration", fn("a", "  timeout: soon\n"), quipu.CodeManifest, "soon"},
	{"no timeout at all", fn("a", "  timeout: 0s\n"), quipu.CodeManifest, "quipu.yaml:8: timeout"},
	{"atomic and durable", fn("a", "  atomic: true\n  durable: true\n"), quipu.CodeManifest, "quipu.yaml:9: a function is atomic or durable, not both"},
	{"durable over gRPC", fn("a", "  contract: dapr\n  protocol: grpc\n  durable: true\n"), quipu.CodeManifest, "called over HTTP"},
	{"concurrency 0", fn("a", "  concurrency: 0\n"), quipu.CodeManifest, "concurrency is 0"},
	{"no memory to speak of", fn("a", "  memory: 1Mi\n"), quipu.CodeManifest, "quipu.yaml:8: memory"},
	{"no processor to speak of", fn("a", "  cpu: 1m\n"), quipu.CodeManifest, "quipu.yaml:8: cpu"},
	{"half a processor of what", fn("a", "  cpu: half\n"), quipu.CodeManifest, "write 500m"},
	{"too many processes", fn("a", "  sandbox: {processes: 99999}\n"), quipu.CodeManifest, "quipu.yaml:8: processes"},
	{"queue over the most", fn("a", "  scale: {queue: 100001}\n"), quipu.CodeManifest, "scale.queue is 100001"},
	{"more reserved than it can use", fn("a", "  concurrency: 2\n  scale: {max: 3, reserved: 7}\n"), quipu.CodeManifest, "scale.reserved is 7"},
	{"window without a panic window", fn("a", "  scale: {window: 5s}\n"), quipu.CodeManifest, "window is 5s"},
	{"min over max", fn("a", "  scale: {min: 3, max: 2}\n"), quipu.CodeManifest, "scale.min is 3"},
	{"wrong version", "apiVersion: v2\nkind: Function\n", quipu.CodeManifest, "quipu.yaml:1: apiVersion"},
	{"wrong kind", "apiVersion: quipu.dev/v1\nkind: Pod\n", quipu.CodeManifest, "quipu.yaml:2: kind"},
	{"bad name", "apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: A_b}\n", quipu.CodeManifest, "quipu.yaml:3: name"},
	{"unknown runtime", head + "spec:\n  runtime: cobol\n", quipu.CodeManifest, "exec, go, node, python"},
	{"twice", fn("a", "") + fn("a", ""), quipu.CodeManifest, "quipu.yaml:11: there are two"},
	{"another app's", fn("taken", ""), quipu.CodeManifest, `"other" has a function "taken"`},
	{"missing source", fn("a", "  source: nowhere\n"), quipu.CodeSource, "quipu.yaml:8"},
	{"source leaves", fn("a", "  source: ../x\n"), quipu.CodeSource, "leaves"},
	{"absolute source", fn("a", "  source: /etc\n"), quipu.CodeSource, "leaves"},
	{"no command", head + "spec: {runtime: exec}\n", quipu.CodeManifest, "needs a command"},
	{"platform's path", fn("a", "  triggers: [{http: {path: /-/x}}]\n"), quipu.CodeManifest, "platform"},
	{"bad method", fn("a", "  triggers: [{http: {path: /x, methods: [get]}}]\n"), quipu.CodeManifest, "capitals"},
	{"health without a slash", fn("a", "  health: up\n"), quipu.CodeManifest, "quipu.yaml:8: health"},
	{"health with a line break", fn("a", "  health: \"/a\\nb\"\n"), quipu.CodeManifest, "quipu.yaml:8: health"},
	{"health of gRPC", fn("a", "  contract: dapr\n  protocol: grpc\n  health: /up\n"), quipu.CodeManifest, "grpc"},
	{"too many retries", fn("a", "  async: {retry: {max: 101}}\n"), quipu.CodeManifest, "quipu.yaml:8: async.retry.max is 101"},
	{"no back-off", fn("a", "  async: {retry: {backoff: 0s}}\n"), quipu.CodeManifest, "async.retry.backoff is 0s"},
	{"too old", fn("a", "  async: {maxAge: 15d}\n"), quipu.CodeManifest, "async.maxAge is 360h0m0s"},
	{"two destinations", fn("a", "  async: {onSuccess: {function: b, topic: t}}\n"), quipu.CodeManifest, "async.onSuccess names a function and a topic"},
	{"empty destination", fn("a", "  async: {onFailure: {}}\n"), quipu.CodeManifest, "async.onFailure must name"},
	{"circle", fn("a", "  async: {onFailure: {function: a}}\n"), quipu.CodeManifest, "itself"},
	{"platform's topic", fn("a", "  async: {onSuccess: {topic: $dead}}\n"), quipu.CodeManifest, "cannot be the name of a topic"},
	{"failing build", fn("a", "  build: [sh, -c, 'echo no flour; exit 3']\n"), quipu.CodeBuild, "no flour"},
	{"one of two fails", fn("a", "") + fn("b", "  build: ['false']\n"), quipu.CodeBuild, "function b"},
}

func TestRefusedDeployChangesNothing(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Deploy(w.ctx, "other", pack(t, "quipu.yaml\n"+fn("taken", ""), run), quipu.DeployOptions{}); err != nil {
		t.Fatal(err)
	}
	before := w.book.Applied()
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.Deploy(w.ctx, "app", pack(t, "quipu.yaml\n"+c.manifest, run), quipu.DeployOptions{})
			if quipu.CodeOf(err) != c.want || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %s with %q", err, c.want, c.says)
			}
		})
	}
	t.Run("routes collide", func(t *testing.T) {
		w.routes = &quipu.Error{Code: quipu.CodeRoute}
		if _, err := w.Deploy(w.ctx, "app", pack(t, "quipu.yaml\n"+fn("a", ""), run), quipu.DeployOptions{}); quipu.CodeOf(err) != quipu.CodeRoute {
			t.Error(err)
		}
	})
	t.Run("no manifest", func(t *testing.T) {
		if _, err := w.Deploy(w.ctx, "app", pack(t, run), quipu.DeployOptions{}); quipu.CodeOf(err) != quipu.CodeManifest {
			t.Error(err)
		}
	})
	t.Run("no bundle", func(t *testing.T) {
		if _, err := w.Deploy(w.ctx, "app", []byte("zip?"), quipu.DeployOptions{}); err == nil || quipu.CodeOf(err) == quipu.CodeInternal {
			t.Error(err)
		}
	})
	if w.book.Applied() != before || w.names() != "taken" {
		t.Errorf("something was deployed: %s", w.names())
	}
}
