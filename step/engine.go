// Package step runs durable functions: ordinary functions with a journal.
//
// A call of one is an execution, an instance of kind "step" of the workflow view. Its start, with the request, is durable before the
// function is called. What the function does outside goes through its journal: the result of each step is durable before the function
// gets it, and when the function runs again, after a crash of its own or of the node, it gets what the journal has instead of doing it
// again. So a step whose result is in the journal is never done again; one that was under way in a crash may be, and can tell
// so by its place, which is the same in each run. A run that has to wait ends, and the function is called again when what it
// waits for has come; meanwhile the execution is a few keys on disk, and nothing in memory.
//
// Only the newest run of an execution may write: a run has a token, which ends with it, and each turn of the view names the
// revision that it was made on. Turns of many executions become one record if they are ready at the same time.
//
// What an execution is, is a fold of its history (journal), which knows neither time nor disk. This package does not start
// instances, keeps no timers and has no storage: they are functions in Options, and flow.Store.
package step

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/internal/flow"
)

// Headers of runs and their answers.
const (
	HeaderExecution = "Quipu-Execution" // id of the execution
	HeaderRun       = "Quipu-Run"       // token of the run, for its journal
	HeaderJournal   = "Quipu-Journal"   // number of entries that its journal has
	HeaderSuspended = "Quipu-Suspended" // of an answer: the places that the run ended to wait for
)

// suspendedPlace is what a run waits for that was told that its execution is suspended.
const suspendedPlace = "-"

// Attempt is one run of a function.
type Attempt struct {
	Function quipu.Function
	Call     string // id, the same for all runs of an execution
	Number   int    // from 1; runs that ended to wait do not count
	Method   string
	Path     string
	Query    string
	Header   http.Header
	Trigger  string
	Body     []byte
}

// Reply is what a function answered, or what its execution was recorded with.
type Reply struct {
	Execution string
	Revision  string
	Status    int
	Header    http.Header
	Body      []byte
}

// Options are all required but Observe and Logger.
type Options struct {
	Store flow.Store
	Clock quipu.Clock
	// Find is the revision of a function that a call with an id goes to, or the one that is named. CodeNoFunction, CodeNoRevision.
	Find func(function, revision, id string) (quipu.Function, error)
	// Call makes one run. An error that delivery.Missed knows did not get as far as the function.
	Call func(ctx context.Context, a Attempt) (Reply, error)
	// Invoke calls another function for an execution.
	Invoke func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error)
	// Functions are those that are deployed.
	Functions func() []quipu.Function
	// Observe is told what became of executions, when it is durable. It must not wait.
	Observe func(Observation)
	Logger  *slog.Logger
}

// Observation is of one execution of a function: that it was started, or a turn of it.
type Observation struct {
	Function string
	Started  bool
	Turn     bool                 // it has a place in a record
	Steps    int                  // whose results are in the log now
	Ended    quipu.WorkflowStatus // "" if it goes on
}

// Engine runs executions.
type Engine struct {
	o       Options
	commits committer
	runs    sync.Map // token -> *execution
	keys    sync.Map // key of an execution -> chan closed when its start is over
	ctx     context.Context
	stop    context.CancelFunc
	all     sync.WaitGroup
	wake    chan struct{}

	mu    sync.Mutex // guards below; it is taken before that of an execution
	live  map[quipu.WorkflowKey]*execution
	lanes map[string]*lane
}

// New makes an engine that hears of what arrives, and does nothing of its own before Start.
func New(o Options) *Engine {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(Observation) {}
	}
	e := &Engine{o: o, commits: committer{store: o.Store, observe: o.Observe}, wake: make(chan struct{}, 1),
		live: map[quipu.WorkflowKey]*execution{}, lanes: map[string]*lane{}}
	e.ctx, e.stop = context.WithCancel(context.Background())
	o.Store.Watch(flow.KindStep, e.arrived)
	return e
}

// Start goes on with what was under way.
func (e *Engine) Start() {
	e.Sync()
	e.all.Go(e.dispatch)
}

// Sync looks for work of all functions, as after a deploy. It does not wait.
func (e *Engine) Sync() {
	for _, f := range e.o.Functions() {
		if f.Spec.Durable {
			e.rescan(f.Name)
		}
	}
}

// Stop begins no further run but those that callers wait for. It does not wait.
func (e *Engine) Stop() { e.stop() }

// Wait waits until nothing of a stopped engine runs any more.
func (e *Engine) Wait() { e.all.Wait() }

// arrived follows the view. It is called while records are applied.
func (e *Engine) arrived(a flow.Arrival) {
	if a.Started {
		e.o.Observe(Observation{Function: a.App, Started: true})
	}
	e.mu.Lock()
	x := e.live[a.WorkflowKey]
	if x == nil {
		if !a.Purged {
			e.enqueue(a.WorkflowKey)
		}
		e.mu.Unlock()
		return
	}
	x.mu.Lock()
	e.mu.Unlock()
	x.arrive(a)
	lead := e.commits.submit(x)
	x.tell()
	x.mu.Unlock()
	if lead {
		go e.commits.lead()
	}
}

// lane is the executions of one function that wait to be driven.
type lane struct {
	keys    []string // ids, in order
	there   map[string]bool
	running int
	rescan  bool // there are more than it holds
	stalls  int
	pause   time.Time // nothing is begun before
}

// laneMax bounds what a lane holds; the view knows the rest.
const laneMax = 10_000

// enqueue has an execution looked at. mu is held.
func (e *Engine) enqueue(k quipu.WorkflowKey) {
	l := e.lane(k.App)
	switch {
	case l.there[k.ID]:
	case len(l.keys) >= laneMax:
		l.rescan = true
	default:
		l.there[k.ID] = true
		l.keys = append(l.keys, k.ID)
	}
	e.notify()
}

func (e *Engine) lane(app string) *lane {
	l := e.lanes[app]
	if l == nil {
		l = &lane{there: map[string]bool{}}
		e.lanes[app] = l
	}
	return l
}

func (e *Engine) rescan(app string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lane(app).rescan = true
	e.notify()
}

func (e *Engine) notify() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// dispatch drives what waits, until Stop.
func (e *Engine) dispatch() {
	for e.ctx.Err() == nil {
		next := e.begin()
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = e.o.Clock.After(max(time.Millisecond, next.Sub(e.o.Clock.Now())))
		}
		select {
		case <-e.wake:
		case <-timer:
		case <-e.ctx.Done():
		}
	}
}

// begin starts what there is room for, and answers when to look again.
func (e *Engine) begin() (next time.Time) {
	for app, room := range e.rooms() {
		if at := e.fill(app); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
		for {
			k, ok, at := e.pop(app, room)
			if !ok {
				if !at.IsZero() && (next.IsZero() || at.Before(next)) {
					next = at
				}
				break
			}
			e.all.Go(func() {
				e.work(k)
				e.finished(k.App)
			})
		}
	}
	return next
}

// rooms is how many executions of each function with work may be driven at once. Who answers may wait for a record to be
// applied, so it is asked without mu.
func (e *Engine) rooms() map[string]int {
	e.mu.Lock()
	rooms := make(map[string]int, len(e.lanes))
	for app := range e.lanes {
		rooms[app] = 1
	}
	e.mu.Unlock()
	for app := range rooms {
		if f, err := e.o.Find(app, "", ""); err == nil {
			rooms[app] = max(1, min(quipu.AsyncCallsMax, f.Spec.Concurrency*max(1, f.Spec.Scale.Max)))
		}
	}
	return rooms
}

// fill asks the view for more of what a lane could not hold.
func (e *Engine) fill(app string) (again time.Time) {
	e.mu.Lock()
	l := e.lane(app)
	wanted := l.rescan && len(l.keys) < laneMax/2
	l.rescan = l.rescan && !wanted
	e.mu.Unlock()
	if !wanted {
		return again
	}
	err := e.o.Store.Busy(e.ctx, flow.KindStep, app, func(k quipu.WorkflowKey) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		if x := e.live[k]; x == nil {
			e.enqueue(k)
		} else {
			x.lookAgain()
		}
		return !l.rescan
	})
	if err == nil || e.ctx.Err() != nil {
		return again
	}
	e.o.Logger.Error("executions that wait cannot be listed; it is tried again", "fn", app, "err", err)
	e.mu.Lock()
	defer e.mu.Unlock()
	l.rescan = true
	return e.o.Clock.Now().Add(time.Second)
}

// pop takes the next execution of a lane, if there is room for it; at is when to look again if that is known.
func (e *Engine) pop(app string, room int) (k quipu.WorkflowKey, ok bool, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lanes[app]
	switch {
	case l == nil || len(l.keys) == 0:
		if l != nil && l.running == 0 && !l.rescan {
			delete(e.lanes, app)
		}
		return k, false, at
	case l.running >= room:
		return k, false, at
	case e.o.Clock.Now().Before(l.pause):
		return k, false, l.pause
	}
	id := l.keys[0]
	l.keys = l.keys[1:]
	delete(l.there, id)
	l.running++
	return quipu.WorkflowKey{App: app, ID: id}, true, at
}

func (e *Engine) finished(app string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lane(app).running--
	e.notify()
}

// later has an execution looked at again whose run did not reach its function. All of its function wait, longer each time.
func (e *Engine) later(k quipu.WorkflowKey, why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lane(k.App)
	l.stalls++
	l.pause = e.o.Clock.Now().Add(delivery.Backoff(quipu.BackoffDefault, l.stalls))
	e.enqueue(k)
	e.o.Logger.Debug("a run did not reach its function", "fn", k.App, "execution", k.ID, "err", why)
}

func (e *Engine) reached(app string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.lanes[app]; l != nil {
		l.stalls, l.pause = 0, time.Time{}
	}
}

// work drives an execution of which something has arrived.
func (e *Engine) work(k quipu.WorkflowKey) {
	x, err := e.load(k)
	if x != nil && err == nil {
		err = e.drive(x)
	}
	if err == nil || e.ctx.Err() != nil || quipu.CodeOf(err) == quipu.CodeNoWorkflow {
		return
	}
	if !delivery.Missed(err) {
		e.o.Logger.Warn("an execution cannot go on now; it is tried again", "fn", k.App, "execution", k.ID, "err", err)
	}
	e.later(k, err)
}

// load takes an execution into memory, unless somebody has: nil.
func (e *Engine) load(k quipu.WorkflowKey) (*execution, error) {
	x := &execution{key: k, j: newJournal(), loading: true}
	e.mu.Lock()
	if e.live[k] != nil {
		e.mu.Unlock()
		return nil, nil
	}
	e.live[k] = x
	e.mu.Unlock()
	s, err := e.o.Store.Load(e.ctx, k)
	if err == nil {
		err = x.restore(s)
	}
	if err == nil && !s.Status.Ended() {
		err = e.assign(x, s.Version)
	}
	if err != nil || s.Status.Ended() {
		e.mu.Lock()
		delete(e.live, k)
		e.mu.Unlock()
		return nil, err
	}
	return x, nil
}

// restore makes of a snapshot, and of what arrived since, what the execution is.
func (x *execution) restore(s flow.Snapshot) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	events, err := decodeEvents(s.History)
	if err != nil {
		return err
	}
	for _, ev := range events {
		x.j.apply(ev)
	}
	x.durable, x.rev, x.input, x.next, x.parent = len(events), s.Rev, s.Input, s.Next, s.Parent
	if err := x.take(s.Inbox); err != nil {
		return err
	}
	x.loading = false
	early := x.early
	x.early = nil
	for _, a := range early {
		if a.Purged || !a.Started { // a start is what was loaded
			x.arrive(a)
		}
	}
	return nil
}

// lookAgain has an execution that is about to rest because its revision is gone looked at once more: there may be one since.
func (x *execution) lookAgain() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.again = x.again || x.f.Name == ""
}

// assign finds the revision that an execution belongs to. If that is gone the execution is stalled.
func (e *Engine) assign(x *execution, revision string) error {
	f, err := e.o.Find(x.key.App, revision, x.key.ID)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pinned = revision != ""
	if code := quipu.CodeOf(err); code == quipu.CodeNoRevision || code == quipu.CodeNoFunction {
		if x.j.stalled == "" && x.j.next() == goOn {
			x.add(&event{Event: evStalled, At: millis(e.o.Clock.Now()), Cause: fmt.Sprintf("revision %q of function %s is gone", revision, x.key.App)})
		}
		return nil
	}
	x.f = f
	if err == nil { // it may have been named by its number or an alias, which is no reason to keep it
		x.pinned = revision == f.Revision
	}
	if err == nil && x.j.stalled != "" {
		x.add(&event{Event: evResumed, At: millis(e.o.Clock.Now()), Cause: "its revision is there again"})
	}
	return err
}
