package step_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/step"
	"github.com/quipu-run/quipu/test/booktest"
	"github.com/quipu-run/quipu/timer"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/workflow"
)

const patience = 20 * time.Second

// world is an engine on the real views, with functions that are Go code of the test.
type world struct {
	*booktest.World
	flows  *workflow.Store
	runner *timer.Runner
	engine *step.Engine

	mu        sync.Mutex // guards the functions
	functions map[string]func(*run) step.Reply
	gone      bool // there is no revision of any
	invoked   atomic.Int64
}

// run is one run of a function of the test.
type run struct {
	step.Attempt
	w   *world
	ctx context.Context
}

func newWorld(t *testing.T) *world {
	w := &world{World: booktest.NewOnWall(t), functions: map[string]func(*run) step.Reply{}}
	w.Run(w.start, w.stop)
	return w
}

func (w *world) start() {
	wall, alarms := &clock.Wall{}, timer.New()
	flows := workflow.New(workflow.Options{Timers: alarms, Clock: wall, KindOf: func(string) string { return flow.KindStep },
		Languages: map[string]flow.Language{flow.KindStep: step.Language{}}})
	w.Open(flows, alarms)
	w.flows = flows.Follow(w.Book)
	book := w.Book
	w.runner = timer.NewRunner(timer.Options{Book: book, View: alarms, Clock: wall, Handlers: map[string]timer.Handler{
		workflow.TimerKind: func(ctx context.Context, one timers.Timer) {
			_, _ = book.Change(ctx, func(tx *view.Tx) error { return flows.Fire(tx, one) }) // it comes again
		}}})
	w.engine = step.New(step.Options{Store: w.flows, Clock: wall, Find: w.find, Call: w.call, Invoke: w.invoke,
		Functions: func() []quipu.Function { return []quipu.Function{w.function("f"), w.function("g")} }})
	w.engine.Start()
	w.runner.Start()
}

func (w *world) stop() {
	w.engine.Stop()
	w.runner.Stop()
	w.engine.Wait()
	w.runner.Wait()
	w.Close()
}

func (w *world) function(name string) quipu.Function {
	f := quipu.Function{Name: name, Revision: "r1", Spec: quipu.Spec{Durable: name != "atomic", Concurrency: 100, Timeout: quipu.Duration(patience), Async: quipu.AsyncDefault()}}
	f.Spec.Async.Retry = quipu.RetrySpec{Max: 2, Backoff: quipu.Duration(time.Millisecond)}
	return f
}

func (w *world) find(function, _, _ string) (quipu.Function, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		return quipu.Function{}, &quipu.Error{Code: quipu.CodeNoRevision}
	}
	return w.function(function), nil
}

func (w *world) is(name string, f func(*run) step.Reply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.functions[name] = f
}

func (w *world) call(ctx context.Context, a step.Attempt) (reply step.Reply, err error) {
	w.mu.Lock()
	f := w.functions[a.Function.Name]
	w.mu.Unlock()
	defer func() {
		if recover() != nil {
			err = &quipu.Error{Code: quipu.CodeCrashed, Text: "it crashed"}
		}
	}()
	return f(&run{Attempt: a, w: w, ctx: ctx}), nil
}

func (w *world) invoke(_ context.Context, r quipu.CallRequest) (*quipu.CallReply, error) {
	w.invoked.Add(1)
	body, err := io.ReadAll(r.Body)
	return &quipu.CallReply{Status: 200, Body: io.NopCloser(strings.NewReader(fmt.Sprintf(`{"key":%q,"body":%s}`, r.IdempotencyKey, body)))}, err
}

func ok(body string) step.Reply { return step.Reply{Status: 200, Body: []byte(body)} }

func suspended(places string) step.Reply {
	return step.Reply{Status: 202, Header: http.Header{step.HeaderSuspended: {places}}}
}

// ask is a request of the run to its journal.
func (r *run) ask(method, path, body string) (int, string) {
	q := httptest.NewRequestWithContext(r.ctx, method, step.JournalPath+path, strings.NewReader(body))
	q.Header.Set(step.HeaderRun, r.Header.Get(step.HeaderRun))
	w := httptest.NewRecorder()
	r.w.engine.Door(r.Function.Name).ServeHTTP(w, q)
	return w.Code, w.Body.String()
}

// step does something once.
func (r *run) step(place int, name string, do func()) {
	if status, text := r.ask("GET", "", ""); strings.Contains(text, fmt.Sprintf(`"id":"%d","kind":"step"`, place)) {
		_ = status
		return
	}
	do()
	if status, text := r.ask("POST", "", fmt.Sprintf(`{"id":"%d","kind":"step","name":%q,"result":1}`, place, name)); status != 204 {
		panic(text)
	}
}

func (w *world) request(id string) step.Request {
	return step.Request{Function: w.function("f"), ID: id, Named: true, Call: id, Method: "POST", Path: "/", Body: []byte(`"in"`)}
}

func (w *world) run(id string) (step.Reply, error) {
	return w.engine.Invoke(w.T.Context(), w.request(id))
}

func (w *world) want(id string, status int, body string) {
	w.T.Helper()
	reply, err := w.run(id)
	if err != nil || reply.Status != status || string(reply.Body) != body {
		w.T.Fatalf("%s: %d %q, %v; want %d %q", id, reply.Status, reply.Body, err, status, body)
	}
}

func (w *world) info(id string) quipu.WorkflowInfo {
	w.T.Helper()
	i, err := w.flows.Workflow(w.T.Context(), quipu.WorkflowKey{App: "f", ID: id})
	if err != nil {
		w.T.Fatal(err)
	}
	return i
}

// A step whose result is in the journal is not done again, whichever way the run ended that did it.
func TestAStepIsDoneOnce(t *testing.T) {
	w := newWorld(t)
	var did [3]atomic.Int64
	w.is("f", func(r *run) step.Reply {
		for i := range did {
			r.step(i, fmt.Sprint("s", i), func() { did[i].Add(1) })
			switch {
			case i == 0 && r.Number == 1 && did[1].Load() == 0:
				panic("crash")
			case i == 1 && did[1].Load() == 1:
				did[1].Add(10)
				return step.Reply{Status: 503, Body: []byte("not now")}
			}
		}
		return ok("done")
	})
	w.want("x", 200, "done")
	if a, b, c := did[0].Load(), did[1].Load(), did[2].Load(); a != 1 || b != 11 || c != 1 {
		t.Errorf("done %d, %d, %d times", a, b, c)
	}
	w.Lose()
	w.want("x", 200, "done") // from the log
	if n := did[2].Load(); n != 1 {
		t.Errorf("the recorded result was made again: %d", n)
	}
}

// Retries that are used up, and a refusal, end an execution with what the function answered.
func TestHowAnExecutionFails(t *testing.T) {
	w := newWorld(t)
	var runs atomic.Int64
	w.is("f", func(r *run) step.Reply {
		runs.Add(1)
		status := 500
		if r.Path == "/refuse" {
			status = 422
		}
		return step.Reply{Status: status, Body: []byte("no")}
	})
	w.want("x", 500, "no")
	if n := runs.Load(); n != 3 {
		t.Errorf("%d runs, want 3", n)
	}
	q := w.request("y")
	q.Path = "/refuse"
	reply, err := w.engine.Invoke(t.Context(), q)
	if err != nil || reply.Status != 422 || runs.Load() != 4 {
		t.Errorf("%d %v, %d runs", reply.Status, err, runs.Load())
	}
	if i := w.info("y"); i.Status != quipu.WorkflowFailed || i.Failure.Type != "status 422" {
		t.Errorf("%s %+v", i.Status, i.Failure)
	}
}

// The run that was replaced, or is over, changes nothing more.
func TestAnOldRunMayNotWrite(t *testing.T) {
	w := newWorld(t)
	old := make(chan *run, 1)
	w.is("f", func(r *run) step.Reply {
		old <- r
		return ok("")
	})
	w.want("x", 200, "")
	status, text := (<-old).ask("POST", "", `{"id":"0","kind":"step","name":"late"}`)
	if status != 409 || !strings.Contains(text, string(quipu.CodeLeaseLost)) {
		t.Errorf("%d %s", status, text)
	}
}

// Code that is not deterministic fails its execution, with a code, and is not tried again.
func TestCodeThatIsNotDeterministic(t *testing.T) {
	w := newWorld(t)
	var runs atomic.Int64
	w.is("f", func(r *run) step.Reply {
		n := runs.Add(1)
		r.ask("POST", "", fmt.Sprintf(`{"id":"0","kind":"step","name":"s%d","result":1}`, n))
		return step.Reply{Status: 500}
	})
	if _, err := w.run("x"); quipu.CodeOf(err) != quipu.CodeJournal || runs.Load() != 2 {
		t.Errorf("%v after %d runs", err, runs.Load())
	}
}

// A result that is too large, or a journal that is, fails the execution at once: another run would do the step again for nothing.
func TestWhatDoesNotFitFailsAtOnce(t *testing.T) {
	w := newWorld(t)
	var runs atomic.Int64
	w.is("f", func(r *run) step.Reply {
		runs.Add(1)
		status, _ := r.ask("POST", "", `{"id":"0","kind":"step","name":"s","result":"`+strings.Repeat("x", step.ResultMax)+`"}`)
		return step.Reply{Status: 500, Body: fmt.Append(nil, status)}
	})
	if _, err := w.run("x"); quipu.CodeOf(err) != quipu.CodeWorkflowSize || runs.Load() != 1 {
		t.Errorf("%v after %d runs", err, runs.Load())
	}
}

// An execution that sleeps, then waits for an event, runs once for each, also across a crash; events may come early.
func TestWaiting(t *testing.T) {
	w := newWorld(t)
	var runs atomic.Int64
	w.is("f", func(r *run) step.Reply {
		runs.Add(1)
		for i, e := range []string{`{"id":"0","kind":"sleep","ms":30}`, `{"id":"1","kind":"event","name":"go"}`, `{"id":"2","kind":"event","name":"never","ms":20}`} {
			_, text := r.ask("POST", "", e)
			var got struct {
				Done    bool
				Result  json.RawMessage
				Timeout bool
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				panic(text)
			}
			if !got.Done {
				return suspended(fmt.Sprint(i))
			}
			if i == 2 && !got.Timeout || i == 1 && string(got.Result) != `"yes"` {
				panic(text)
			}
		}
		return ok("done")
	})
	q := w.request("x")
	q.Async = true
	if reply, err := w.engine.Invoke(t.Context(), q); err != nil || reply.Status != 202 {
		t.Fatalf("%d %v", reply.Status, err)
	}
	w.Eventually("it waits for the event", func() bool {
		i := w.info("x")
		return len(i.Waits) == 1 && i.Waits[0].What == "event" && i.Waits[0].Name == "go"
	})
	w.Lose()
	if err := w.flows.RaiseWorkflow(t.Context(), quipu.WorkflowKey{App: "f", ID: "x"}, "go", []byte(`"yes"`)); err != nil {
		t.Fatal(err)
	}
	w.want("x", 200, "done")
	if n := runs.Load(); n != 4 {
		t.Errorf("%d runs, want 4", n)
	}
}

// A durable child is an execution of its own, and its end goes on with its parent; another function has the same key in each run.
func TestCalls(t *testing.T) {
	w := newWorld(t)
	w.is("g", func(r *run) step.Reply { return ok(string(r.Body) + " ") })
	w.is("f", func(r *run) step.Reply {
		if status, text := r.ask("POST", "", `{"id":"0","kind":"call","name":"atomic","input":7}`); status != 200 || !strings.Contains(text, `"key":"f/x/0"`) {
			panic(text)
		}
		if _, text := r.ask("POST", "", `{"id":"1","kind":"call","name":"g","input":8}`); !strings.Contains(text, `"done":true`) {
			return suspended("1")
		} else if !strings.Contains(text, `"result":8`) {
			panic(text)
		}
		return ok("done")
	})
	w.want("x", 200, "done")
	if n := w.invoked.Load(); n != 1 {
		t.Errorf("the atomic function was called %d times", n)
	}
	child, err := w.flows.Workflow(t.Context(), quipu.WorkflowKey{App: "g", ID: "x/1"})
	if err != nil || child.Status != quipu.WorkflowCompleted || child.Parent == nil || child.Parent.ID != "x" {
		t.Errorf("%+v, %v", child, err)
	}
}

// What is terminated ends at once, whatever its function does; what is suspended goes on when it is resumed, with the step that it was in.
func TestTerminateSuspendResume(t *testing.T) {
	w := newWorld(t)
	in, out := make(chan struct{}, 10), make(chan struct{}, 10)
	var did atomic.Int64
	w.is("f", func(r *run) step.Reply {
		r.step(0, "s", func() {
			did.Add(1)
			in <- struct{}{}
			select {
			case <-out:
			case <-r.ctx.Done():
				panic("cut")
			}
		})
		return suspendedOr(r)
	})
	k := func(id string) quipu.WorkflowKey { return quipu.WorkflowKey{App: "f", ID: id} }
	for _, id := range []string{"t", "s"} {
		q := w.request(id)
		q.Async = true
		if _, err := w.engine.Invoke(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		<-in
	}
	if err := errors.Join(w.flows.TerminateWorkflow(t.Context(), k("t"), nil, false), w.flows.SuspendWorkflow(t.Context(), k("s"), "wait")); err != nil {
		t.Fatal(err)
	}
	if i, err := w.flows.AwaitWorkflow(t.Context(), k("t")); err != nil || i.Status != quipu.WorkflowTerminated {
		t.Fatalf("%s %v", i.Status, err)
	}
	out <- struct{}{}
	w.Eventually("it is suspended", func() bool { return w.info("s").Status == quipu.WorkflowSuspended })
	if err := w.flows.ResumeWorkflow(t.Context(), k("s"), ""); err != nil {
		t.Fatal(err)
	}
	w.want("s", 200, "done")
	if n := did.Load(); n != 2 {
		t.Errorf("%d steps, want one of each", n)
	}
	if _, err := w.run("t"); quipu.CodeOf(err) != quipu.CodeWorkflowEnded {
		t.Error(err)
	}
}

// suspendedOr ends a run as a library does that was told to.
func suspendedOr(r *run) step.Reply {
	for {
		switch i, err := r.w.flows.Workflow(context.Background(), r.key()); {
		case err != nil:
			panic(err)
		case i.Inbox > 0: // it is about to be told, or that is over
			time.Sleep(time.Millisecond)
		case i.Status == quipu.WorkflowSuspended:
			return suspended("-")
		default:
			return ok("done")
		}
	}
}

func (r *run) key() quipu.WorkflowKey {
	return quipu.WorkflowKey{App: "f", ID: r.Header.Get(step.HeaderExecution)}
}

// A run that was told of a suspension, and ends when that is over, did nothing wrong: there is another.
func TestASuspensionThatIsOverBeforeTheRunEnds(t *testing.T) {
	w := newWorld(t)
	in, out := make(chan struct{}), make(chan struct{})
	var runs atomic.Int64
	w.is("f", func(r *run) step.Reply {
		if runs.Add(1) > 1 {
			return ok("done")
		}
		in <- struct{}{}
		<-out
		return suspended("-")
	})
	q := w.request("s")
	q.Async = true
	if _, err := w.engine.Invoke(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	<-in
	for _, do := range []struct {
		call func(context.Context, quipu.WorkflowKey, string) error
		want quipu.WorkflowStatus
	}{{w.flows.SuspendWorkflow, quipu.WorkflowSuspended}, {w.flows.ResumeWorkflow, quipu.WorkflowRunning}} {
		if err := do.call(t.Context(), quipu.WorkflowKey{App: "f", ID: "s"}, ""); err != nil {
			t.Fatal(err)
		}
		w.Eventually(string(do.want), func() bool { i := w.info("s"); return i.Status == do.want && i.Inbox == 0 })
	}
	close(out)
	w.want("s", 200, "done")
	if n := runs.Load(); n != 2 {
		t.Errorf("%d runs", n)
	}
}

// An execution whose revision is gone says so, and goes on when there is one again.
func TestARevisionThatIsGone(t *testing.T) {
	w := newWorld(t)
	w.is("f", func(*run) step.Reply { return ok("done") })
	q := w.request("x")
	q.Async = true
	w.mu.Lock()
	w.gone = true
	w.mu.Unlock()
	if _, err := w.engine.Invoke(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	w.Eventually("it is stalled", func() bool {
		i := w.info("x")
		return i.Status == quipu.WorkflowStalled && len(i.Waits) == 1 && i.Waits[0].What == "version"
	})
	w.mu.Lock()
	w.gone = false
	w.mu.Unlock()
	w.engine.Sync()
	w.want("x", 200, "done")
}

// Many executions at a time share records; and none is lost or mixed up.
func TestManyAtATime(t *testing.T) {
	w := newWorld(t)
	w.is("f", func(r *run) step.Reply {
		for i := range 10 {
			body := fmt.Sprintf(`{"id":"%d","kind":"step","name":"s","result":%q}`, i, r.Header.Get(step.HeaderExecution))
			if status, text := r.ask("POST", "", body); status != 204 {
				panic(text)
			}
		}
		_, text := r.ask("GET", "?from=9", "")
		return ok(text)
	})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			id := fmt.Sprint("x", i)
			reply, err := w.run(id)
			if err != nil || !bytes.Contains(reply.Body, fmt.Appendf(nil, `"result":%q`, id)) {
				t.Errorf("%s: %s, %v", id, reply.Body, err)
			}
		})
	}
	all.Wait()
}

// Ids and bodies that cannot be are refused before anything is begun.
func TestWhatCannotBeStarted(t *testing.T) {
	w := newWorld(t)
	for id, want := range map[string]quipu.Code{"": quipu.CodeWorkflowID, "a\nb": quipu.CodeWorkflowID, strings.Repeat("x", 257): quipu.CodeWorkflowID} {
		if _, err := w.run(id); quipu.CodeOf(err) != want {
			t.Errorf("%.20q: %v", id, err)
		}
	}
	q := w.request("x")
	q.Body = make([]byte, quipu.WorkflowPayloadMax+1)
	if _, err := w.engine.Invoke(t.Context(), q); quipu.CodeOf(err) != quipu.CodeWorkflowSize {
		t.Error(err)
	}
}

// Whatever name of a revision an execution was started with, it is pinned to the revision.
func TestAnExecutionIsPinnedToItsRevisionByName(t *testing.T) {
	w := newWorld(t)
	w.is("f", func(*run) step.Reply { return ok("done") })
	for _, version := range []string{"", "1", "stable", "r1"} {
		k := quipu.WorkflowKey{App: "f", ID: "by " + version}
		if _, err := w.flows.StartWorkflow(t.Context(), quipu.WorkflowStart{WorkflowKey: k, Version: version}); err != nil {
			t.Fatal(err)
		}
		if i, err := w.flows.AwaitWorkflow(t.Context(), k); err != nil || i.Version != "r1" {
			t.Errorf("started with %q it is at %q, %v", version, i.Version, err)
		}
	}
}
