package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/blob"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/kv"
	"github.com/quipu-run/quipu/topic"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

// handler is a function's code: it gets the session that its Dapr listener would give it.
type handler func(w http.ResponseWriter, r *http.Request, s quipu.Session)

// world runs handlers as functions, each instance a fake with room for spec.Concurrency calls.
type world struct {
	*Caller
	t     testing.TB
	ctx   context.Context
	clock quipu.Clock
	log   *xtest.Model
	id    quipu.Book
	kv    *kv.Store

	fs     *vfs.MemFS
	blobs  *blob.Store
	store  *view.Store
	topics *topic.View

	mu        sync.Mutex
	functions map[string]quipu.Function
	code      map[string]handler
	idle      map[string][]*instance
	places    chan struct{} // one for each call that may run at once
	killed    atomic.Int32
	started   atomic.Int32
	fails     atomic.Bool // no instance starts
}

type instance struct {
	w    *world
	f    quipu.Function
	name string
}

func (i *instance) ID() string { return i.name }

func (i *instance) Do(r *http.Request) (*http.Response, error) {
	session := func() quipu.Session {
		s, err := i.w.Session(i.f, i.name, "")
		if err != nil {
			i.w.t.Errorf("session inside a call: %v", err)
		}
		return s
	}()
	type answer struct {
		r   *http.Response
		err error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- answer{nil, fmt.Errorf("connection reset: %v", p)}
			}
		}()
		rec := httptest.NewRecorder()
		i.w.mu.Lock()
		code := i.w.code[i.f.Name]
		i.w.mu.Unlock()
		code(rec, r, session)
		done <- answer{rec.Result(), nil}
	}()
	select {
	case a := <-done:
		return a.r, a.err
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func (i *instance) Release() {
	i.w.mu.Lock()
	defer i.w.mu.Unlock()
	i.w.idle[i.f.Name] = append(i.w.idle[i.f.Name], i)
	<-i.w.places
}

func (i *instance) Kill() {
	i.w.killed.Add(1)
	<-i.w.places
}

func newWorld(t testing.TB) *world { return newWorldAt(t, &clock.Wall{}) }

func newWorldAt(t testing.TB, clock quipu.Clock) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), clock: clock, fs: vfs.NewCrashableMem(),
		functions: map[string]quipu.Function{}, code: map[string]handler{}, idle: map[string][]*instance{}, places: make(chan struct{}, 16)}
	w.log = xtest.NewModel(w.clock)
	var err error
	if w.id, err = w.log.CreateBook(w.ctx, "quipu/default", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(func() { w.close() })
	return w
}

// open starts the views and the caller on what the file system and the log have.
func (w *world) open() {
	w.t.Helper()
	var err error
	if w.blobs, err = blob.Open(w.fs, "/blobs"); err != nil {
		w.t.Fatal(err)
	}
	if w.store, err = view.OpenStore(view.Options{Dir: "/views", FS: w.fs}); err != nil {
		w.t.Fatal(err)
	}
	w.kv, w.topics = kv.New(w.blobs), topic.New()
	results := NewResults(w.blobs)
	book, err := view.OpenBook(w.ctx, w.store, w.log, w.id, w.clock, w.kv, w.topics, results)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Caller = New(Options{Book: book, Results: results, States: w.kv, Topics: w.topics, Clock: w.clock, Acquire: w.acquire, AcquireJoined: w.acquire, Find: w.find,
		Plain: func(f string) quipu.State { return w.kv.State(book, f) }, Publish: topic.Outside{View: w.topics, Book: book},
		Log: w.log, LogBook: w.id})
	w.topics.Start(book, func(delivery.Subscription) {})
	if err := w.Start(); err != nil {
		w.t.Fatal(err)
	}
}

// close stops in the order of a node, once.
func (w *world) close() {
	w.t.Helper()
	if err := errors.Join(w.Close(w.ctx), w.o.Book.Close(), w.store.Close()); err != nil {
		w.t.Error(err)
	}
}

// crash ends everything where it is, loses what was not written to disk, and starts again. Attempts under way find that
// nothing can be committed any more.
func (w *world) crash(rng *rand.Rand) {
	w.t.Helper()
	w.Stop()
	crashed := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng})
	w.o.Book.Close()
	w.Wait()
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
	w.fs = crashed
	w.open()
}

func (w *world) find(r quipu.CallRequest, _ string) (quipu.Function, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, ok := w.functions[r.Function]
	if !ok {
		return f, &quipu.Error{Code: quipu.CodeNoFunction}
	}
	return f, nil
}

func (w *world) acquire(ctx context.Context, f quipu.Function) (Lease, error) {
	if w.fails.Load() {
		return nil, &quipu.Error{Code: quipu.CodeStart}
	}
	select {
	case w.places <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if list := w.idle[f.Name]; len(list) > 0 {
		w.idle[f.Name] = list[:len(list)-1]
		return list[len(list)-1], nil
	}
	return &instance{w: w, f: f, name: fmt.Sprintf("%s-%d", f.Name, w.started.Add(1))}, nil
}

// function deploys code, atomic or plain.
func (w *world) function(name string, isAtomic bool, code handler) {
	f := quipu.Function{Name: name, Spec: quipu.Spec{Atomic: isAtomic, Concurrency: 1, Timeout: quipu.Duration(20 * time.Second)}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.functions[name], w.code[name] = f, code
}

type answer struct {
	status  int
	body    string
	call    string
	session quipu.Seq
}

func (w *world) try(r quipu.CallRequest) (answer, error) {
	if r.Method == "" {
		r.Method, r.Path = "POST", "/"
	}
	reply, err := w.Invoke(w.ctx, r)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(reply.Body)
	return answer{reply.Status, string(body), reply.Call, reply.Session}, errors.Join(err, reply.Body.Close())
}

func (w *world) call(name string) answer {
	w.t.Helper()
	a, err := w.try(quipu.CallRequest{Function: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) records() (n int) {
	w.t.Helper()
	for _, err := range w.log.Range(w.ctx, w.id, quipu.TagAll, 0, quipu.SeqMax) {
		if err != nil {
			w.t.Fatal(err)
		}
		n++
	}
	return n
}

func (w *world) shared(key string) string {
	w.t.Helper()
	items, err := w.Outside("").Get(w.ctx, quipu.StoreShared, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(items[0].Value)
}

// get and put work on the shared store and panic on errors, as a crashing function would.
func get(s quipu.Session, key string) string {
	items, err := s.Get(context.Background(), quipu.StoreShared, key)
	if err != nil {
		panic(err)
	}
	return string(items[0].Value)
}

func put(s quipu.Session, key, value string) {
	if err := s.Apply(context.Background(), quipu.StoreShared, []quipu.Change{{Key: key, Value: []byte(value)}}); err != nil {
		panic(err)
	}
}

func increment(w http.ResponseWriter, _ *http.Request, s quipu.Session) {
	var n int
	fmt.Sscan(get(s, "n"), &n)
	put(s, "n", fmt.Sprint(n+1))
	fmt.Fprint(w, n+1)
}

func TestAtomicCallIsOneRecord(t *testing.T) {
	w := newWorld(t)
	w.function("f", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
		put(s, "a", "1")
		put(s, "b", get(s, "a")+"2")
		put(s, "a", "3")
		fmt.Fprint(rw, get(s, "b"))
	})
	a := w.call("f")
	if a.body != "12" || w.records() != 1 || w.shared("a") != "3" || w.shared("b") != "12" {
		t.Errorf("%+v with %d records, a=%s b=%s", a, w.records(), w.shared("a"), w.shared("b"))
	}
	if a.session == 0 || w.o.Book.Applied() < a.session {
		t.Errorf("session token %s, applied %s", a.session, w.o.Book.Applied())
	}
	info, err := w.Call(w.ctx, a.call)
	if err != nil || info.Status != 200 || info.Seq != a.session || info.Function != "f" {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestCallWithoutEffectsAppendsNothing(t *testing.T) {
	w := newWorld(t)
	w.function("f", true, func(rw http.ResponseWriter, _ *http.Request, s quipu.Session) { get(s, "a") })
	a := w.call("f")
	if w.records() != 0 || a.session != w.o.Book.Applied() {
		t.Errorf("%d records, %+v", w.records(), a)
	}
	if info, err := w.Call(w.ctx, a.call); err != nil || info.Reads != 1 {
		t.Errorf("the node forgot the call at once: %+v, %v", info, err)
	}
}

func TestRefusalCommitsNothing(t *testing.T) {
	for _, status := range []int{400, 404, 409, 500, 503} {
		w := newWorld(t)
		w.function("f", true, func(rw http.ResponseWriter, _ *http.Request, s quipu.Session) {
			put(s, "a", "1")
			rw.WriteHeader(status)
			fmt.Fprint(rw, "no")
		})
		if a := w.call("f"); a.status != status || a.body != "no" || w.records() != 0 || w.shared("a") != "" {
			t.Errorf("%d: %+v, %d records", status, a, w.records())
		}
	}
}

func TestPlainCallCommitsEachOperation(t *testing.T) {
	w := newWorld(t)
	w.function("f", false, func(rw http.ResponseWriter, _ *http.Request, s quipu.Session) {
		put(s, "a", "1")
		put(s, "b", "2")
		rw.WriteHeader(500)
	})
	if a := w.call("f"); a.status != 500 || w.records() != 2 || w.shared("b") != "2" {
		t.Errorf("%+v, %d records", a, w.records())
	}
}

// Contention is serial, never an error: all succeed and the sum is exact, also when calls that wait for their
// turn hold all instances there are.
func TestContendedAtomicCounterIsExact(t *testing.T) {
	w := newWorld(t)
	w.function("count", true, increment)
	const callers, times = 64, 10
	var runs atomic.Int32
	w.o.Observe = func(i quipu.CallInfo) { runs.Add(int32(i.Runs)) }
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range times {
				if a, err := w.try(quipu.CallRequest{Function: "count"}); err != nil || a.status != 200 {
					t.Errorf("%+v, %v", a, err)
				}
			}
		})
	}
	wg.Wait()
	if w.shared("n") != fmt.Sprint(callers*times) || w.records() != callers*times {
		t.Errorf("n=%s with %d records, want %d", w.shared("n"), w.records(), callers*times)
	}
	t.Logf("%.2f runs per commit at %d callers", float64(runs.Load())/(callers*times), callers)
}

func TestOperationsOutsideACallAreRefused(t *testing.T) {
	w := newWorld(t)
	var late quipu.Session
	w.function("f", true, func(_ http.ResponseWriter, _ *http.Request, s quipu.Session) { late = s })
	w.call("f")
	f := w.functions["f"]
	if _, err := w.Session(f, "f-1", ""); quipu.CodeOf(err) != quipu.CodeNoCall {
		t.Errorf("no call is open, but: %v", err)
	}
	if _, err := w.Session(f, "f-1", "01ARZ3NDEKTSV4RRFFQ69G5FAV"); quipu.CodeOf(err) != quipu.CodeNoCall {
		t.Errorf("an unknown call: %v", err)
	}
	err := late.Apply(w.ctx, quipu.StoreShared, []quipu.Change{{Key: "a"}})
	if _, getErr := late.Get(w.ctx, quipu.StoreShared, "a"); quipu.CodeOf(err) != quipu.CodeNoCall || quipu.CodeOf(getErr) != quipu.CodeNoCall {
		t.Errorf("a closed call: %v, %v", err, getErr)
	}
	if w.records() != 0 {
		t.Error("a late operation left a record")
	}
}

func TestIdempotencyKey(t *testing.T) {
	for _, isAtomic := range []bool{true, false} {
		t.Run(fmt.Sprint("atomic=", isAtomic), func(t *testing.T) {
			w := newWorld(t)
			w.function("count", isAtomic, increment)
			request := func(key, body string) quipu.CallRequest {
				return quipu.CallRequest{Function: "count", IdempotencyKey: key, Body: strings.NewReader(body)}
			}
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					a, err := w.try(request("order-1", "x"))
					if err != nil || a.body != "1" {
						t.Errorf("%+v, %v", a, err)
					}
				})
			}
			wg.Wait()
			if w.shared("n") != "1" {
				t.Errorf("counted %s times", w.shared("n"))
			}
			if _, err := w.try(request("order-1", "y")); quipu.CodeOf(err) != quipu.CodeIdempotency {
				t.Errorf("the key with another body: %v", err)
			}
			if a, err := w.try(request("order-2", "y")); err != nil || a.body != "2" {
				t.Errorf("another key: %+v, %v", a, err)
			}
		})
	}
}

func TestRecordedRefusalIsRepeatedAndFailureIsNot(t *testing.T) {
	w := newWorld(t)
	runs := 0
	status := 422
	w.function("f", true, func(rw http.ResponseWriter, _ *http.Request, _ quipu.Session) {
		runs++
		rw.WriteHeader(status)
	})
	again := func(key string) int {
		a, err := w.try(quipu.CallRequest{Function: "f", IdempotencyKey: key})
		if err != nil {
			t.Fatal(err)
		}
		return a.status
	}
	if again("k"); again("k") != 422 || runs != 1 {
		t.Errorf("a refusal ran %d times", runs)
	}
	status, runs = 500, 0
	if again("l"); again("l") != 500 || runs != 2 {
		t.Errorf("a failure ran %d times", runs)
	}
}

func TestLargeReplyIsRecordedAndRepeated(t *testing.T) {
	w := newWorld(t)
	big := strings.Repeat("knot", 100_000)
	w.function("f", true, func(rw http.ResponseWriter, _ *http.Request, _ quipu.Session) { io.WriteString(rw, big) })
	for range 2 {
		if a, err := w.try(quipu.CallRequest{Function: "f", IdempotencyKey: "k"}); err != nil || a.body != big {
			t.Errorf("%d bytes, %v", len(a.body), err)
		}
	}
}

func TestBrokenCallsHaveCodesAndCommitNothing(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	for _, c := range []struct {
		name string
		code handler
		want quipu.Code
		kill bool
	}{
		{"crash", func(http.ResponseWriter, *http.Request, quipu.Session) { panic("segfault") }, quipu.CodeCrashed, true},
		{"hang", func(http.ResponseWriter, *http.Request, quipu.Session) { <-hang }, quipu.CodeTimeout, true},
		{"stream", func(rw http.ResponseWriter, _ *http.Request, _ quipu.Session) {
			rw.Header().Set("Content-Type", "text/event-stream")
		}, quipu.CodeStreaming, true},
		{"huge reply", func(rw http.ResponseWriter, _ *http.Request, _ quipu.Session) {
			rw.Write(make([]byte, quipu.AtomicBodyMax+1))
		}, quipu.CodeReplySize, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.function("f", true, func(rw http.ResponseWriter, r *http.Request, s quipu.Session) {
				put(s, "a", "1")
				c.code(rw, r, s)
			})
			f := w.functions["f"]
			if c.want == quipu.CodeTimeout {
				f.Spec.Timeout = quipu.Duration(100 * time.Millisecond)
			}
			w.functions["f"] = f
			_, err := w.try(quipu.CallRequest{Function: "f"})
			if quipu.CodeOf(err) != c.want || w.records() != 0 || (w.killed.Load() == 1) != c.kill {
				t.Errorf("%v, %d records, %d killed", err, w.records(), w.killed.Load())
			}
		})
	}
	w := newWorld(t)
	w.function("f", true, increment)
	_, err := w.try(quipu.CallRequest{Function: "f", Body: strings.NewReader(strings.Repeat("x", quipu.AtomicBodyMax+1))})
	if quipu.CodeOf(err) != quipu.CodeBodySize {
		t.Error(err)
	}
	if _, err := w.try(quipu.CallRequest{Function: "nobody"}); quipu.CodeOf(err) != quipu.CodeNoFunction {
		t.Error(err)
	}
}

// Somebody who writes what the call reads, each time it runs, can hold it up only until its timeout.
func TestEndlessContentionEndsAtTheTimeout(t *testing.T) {
	w := newWorld(t)
	var running sync.WaitGroup // a run goes on when its call has given up
	defer running.Wait()
	w.function("f", true, func(_ http.ResponseWriter, _ *http.Request, s quipu.Session) {
		running.Add(1)
		defer running.Done()
		get(s, "a")
		w.book(func(tx *view.Tx) error { // not through a turn: as another node would
			return w.kv.Change(tx, "", quipu.StoreShared, []quipu.Change{{Key: "a", Value: []byte("x")}})
		})
		put(s, "b", "1")
	})
	f := w.functions["f"]
	f.Spec.Timeout = quipu.Duration(300 * time.Millisecond)
	w.functions["f"] = f
	if _, err := w.try(quipu.CallRequest{Function: "f"}); quipu.CodeOf(err) != quipu.CodeContention {
		t.Error(err)
	}
	if w.shared("b") != "" {
		t.Error("it committed all the same")
	}
}

// book commits past all turns.
func (w *world) book(change func(*view.Tx) error) {
	turn, err := w.o.Book.Turn(w.ctx, view.Key("nobody's"))
	if err != nil {
		w.t.Error(err)
		return
	}
	defer turn.Done()
	tx := w.o.Book.Begin(w.ctx, turn)
	defer tx.Close()
	if err := change(tx); err == nil {
		_, err = w.o.Book.Commit(w.ctx, tx)
		if err != nil {
			w.t.Error(err)
		}
	}
}

func invoke(s quipu.Session, name string) (int, error) {
	reply, err := s.Invoke(context.Background(), quipu.CallRequest{Function: name, Method: "POST", Path: "/"})
	if err != nil {
		return 0, err
	}
	return reply.Status, reply.Body.Close()
}

func TestAtomicCalleeJoinsItsCaller(t *testing.T) {
	w := newWorld(t)
	w.function("inner", true, func(_ http.ResponseWriter, _ *http.Request, s quipu.Session) {
		put(s, "inner", get(s, "outer")+" seen")
	})
	w.function("refuses", true, func(rw http.ResponseWriter, _ *http.Request, s quipu.Session) {
		put(s, "outer", "overwritten")
		rw.WriteHeader(409)
	})
	w.function("outer", true, func(rw http.ResponseWriter, _ *http.Request, s quipu.Session) {
		put(s, "outer", "1")
		for name, want := range map[string]int{"inner": 200, "refuses": 409} {
			if status, err := invoke(s, name); err != nil || status != want {
				t.Errorf("%s: %d, %v", name, status, err)
			}
		}
		fmt.Fprint(rw, get(s, "outer"), ",", get(s, "inner"))
	})
	if a := w.call("outer"); a.body != "1,1 seen" || w.records() != 1 {
		t.Errorf("%+v, %d records", a, w.records())
	}
}

func TestCallsInCirclesEnd(t *testing.T) {
	for _, isAtomic := range []bool{true, false} {
		w := newWorld(t)
		var deepest error
		w.function("f", isAtomic, func(rw http.ResponseWriter, _ *http.Request, s quipu.Session) {
			if _, err := invoke(s, "f"); err != nil {
				deepest = err
			}
		})
		w.call("f")
		if quipu.CodeOf(deepest) != quipu.CodeDepth || w.started.Load() != quipu.CallDepthMax {
			t.Errorf("atomic=%v: %v after %d instances", isAtomic, deepest, w.started.Load())
		}
	}
}

// In an instance that takes many calls, an operation that names no call is taken for that of the only one that is open. It may come from
// anywhere, so calls that are made one after the other are not refused as a circle, unless they name the call that they are part of.
func TestCallsOneAfterAnotherAreNoCircle(t *testing.T) {
	w := newWorld(t)
	w.function("next", false, func(http.ResponseWriter, *http.Request, quipu.Session) {})
	f := quipu.Function{Name: "many", Spec: quipu.Spec{Concurrency: 80}}
	open := &openCall{id: "deep", cause: "deep", f: f, depth: quipu.CallDepthMax, ctx: w.ctx}
	w.Caller.open.enter("many-1", open)
	defer w.Caller.open.leave("many-1", open)
	for id, want := range map[string]quipu.Code{"": "", "deep": quipu.CodeDepth} {
		s, err := w.Door(http.Header{quipu.HeaderCallID: {id}}, f, "many-1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := invoke(s, "next"); quipu.CodeOf(err) != want {
			t.Errorf("by %q: %v", id, err)
		}
	}
}

func TestListAndSweep(t *testing.T) {
	clock := xtest.NewClock(time.Now())
	w := newWorldAt(t, clock)
	w.function("count", true, increment)
	w.function("look", true, func(_ http.ResponseWriter, _ *http.Request, s quipu.Session) { get(s, "n") })
	first := w.call("count").call
	w.call("look")
	last := w.call("count").call
	if calls, err := w.Calls(w.ctx, "", 0); err != nil || len(calls) != 3 || calls[0].ID != last || calls[2].ID != first {
		t.Errorf("%+v, %v", calls, err)
	}
	if calls, err := w.Calls(w.ctx, "count", 1); err != nil || len(calls) != 1 || calls[0].ID != last {
		t.Errorf("%+v, %v", calls, err)
	}
	clock.Move(quipu.ResultKept + time.Minute)
	if n, err := w.Sweep(w.ctx); err != nil || n != 2 {
		t.Errorf("swept %d, %v", n, err)
	}
	if _, err := w.Call(w.ctx, first); quipu.CodeOf(err) != quipu.CodeNotFound {
		t.Errorf("a forgotten call answers %v", err)
	}
	if n, err := w.Sweep(w.ctx); err != nil || n != 0 {
		t.Errorf("swept %d again, %v", n, err)
	}
}

func TestFunctionGetsTheRequestAsItWas(t *testing.T) {
	w := newWorld(t)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	w.function("f", true, func(rw http.ResponseWriter, r *http.Request, _ quipu.Session) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %s %s %s %s", r.Method, r.URL.RequestURI(), body, r.Header.Get("X-Own"), r.Header.Get(quipu.HeaderTrigger))
		if id := r.Header.Get(quipu.HeaderCallID); len(id) != 26 {
			t.Errorf("call id %q", id)
		}
		if got := r.Header.Get("Traceparent"); got != trace { // nobody here records it: who called stays the parent
			t.Errorf("trace %q", got)
		}
	})
	a, err := w.try(quipu.CallRequest{Function: "f", Method: "PUT", Path: "/a%2Fb//c", RawQuery: "x=1&x=%20", Trigger: "http",
		Body: strings.NewReader("hi"), Header: http.Header{"X-Own": {"mine"}, "Traceparent": {trace}}})
	if err != nil || a.body != "PUT /a%2Fb//c?x=1&x=%20 hi mine http" {
		t.Errorf("%q, %v", a.body, err)
	}
}

func TestSessionToken(t *testing.T) {
	w := newWorld(t)
	w.function("count", true, increment)
	token := w.call("count").session.String()
	for header, want := range map[string]quipu.Code{token: "", "": "", "xyz": quipu.CodeUsage, quipu.SeqMax.String(): quipu.CodeUsage} {
		_, err := w.try(quipu.CallRequest{Function: "count", Header: http.Header{quipu.HeaderSession: {header}}})
		if quipu.CodeOf(err) != want {
			t.Errorf("token %q: %v", header, err)
		}
	}
}
