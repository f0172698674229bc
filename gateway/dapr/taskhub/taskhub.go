// Package taskhub runs workflows whose workers speak the durable task protocol (TaskHubSidecarService), which is what Dapr's SDKs
// speak for workflows, over the log.
//
// A Hub is that of one namespace. Workers hold streams of work items; an instance that has something to do is in memory, and its
// turns are serial. One turn takes all that has arrived (messages, results of activities), sends the history to a worker, and commits
// what the worker answers as one record: events, timers, messages to other instances, the end. Results of activities go ahead of
// the answer, with all else that their turn takes in: activities that the turn begins have to wait for that only, and the answer goes with the next
// record (intake.go), so that a step costs one append. A result whose turn cannot begin soon is committed by itself. The first turn of
// an instance runs while its start is on the way to the log, and is committed after it.
//
// After a crash each instance goes on from its last record: activities that had begun begin again (at least once), and what they
// answered is in the history once. A work item of a stream that ends is given to another stream at once.
//
// Instances that wait for time, events or children leave memory after a while, or earlier if there is no room: what sleeps costs disk. What it does not do: history is not
// propagated to other instances, and instances of other namespaces cannot be called; both are refused in words.
package taskhub

import (
	"container/list"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/internal/flow"
)

// Limits of a hub.
const (
	turnsMax       = 1000  // work items of workflows that one stream has at a time
	activitiesMax  = 10000 // of activities
	activeMax      = 20_000
	idleBytesMax   = 64 << 20
	idleMax        = 5 * time.Second // that an instance without work stays in memory, at least; at most twice that, and then a node at rest gives memory back
	wantedMax      = 10_000
	appsMax        = 1000 // that are remembered although they have nothing to do
	loadersMax     = 8
	itemBytesMax   = 60 << 20 // of a work item; a stream's messages may have 64 MiB
	sendMax        = 10 * time.Second
	lookEvery      = time.Second            // at what each stream does
	leaveMax       = 30 * time.Second       // that a worker that has to go may take for what it has begun
	resultAloneMin = 100 * time.Millisecond // before a result is committed without its turn
	lostMax        = 3                      // times that the stream of a turn ends before it waits longer each time
	lostWaitMax    = 30 * time.Second
)

// Options are checked by New.
type Options struct {
	Store flow.Store // required
	// API is the same store as everybody else has it. Required.
	API       quipu.Workflows
	Namespace string // of the hub
	// Wake starts an instance of an application that has work and no worker, and sees to it that a worker comes: it is asked again only
	// when something new is to be done. It must return at once, and call no method of the hub before. nil means that workers come by
	// themselves.
	Wake func(app string)
	// Observe, if set, is told how long each turn took, from when it was to be made until it was durable.
	Observe func(app string, took time.Duration)
	Clock   quipu.Clock  // nil means the machine's
	Logger  *slog.Logger // nil means slog.Default
}

// Hub is made by New.
type Hub struct {
	o     Options
	tasks sync.WaitGroup
	ctx   context.Context // ends with Close
	stop  context.CancelFunc

	mu        sync.Mutex // guards all below, and all that they lead to
	apps      map[string]*app
	live      map[quipu.WorkflowKey]*live
	acts      map[actKey]*item
	loading   map[quipu.WorkflowKey]*loading
	loaders   int
	active    int // instances in memory that are not idle
	idle      list.List
	bytes     int // of those that are
	sweeps    bool
	rev       uint64
	decisions []decision    // in the order in which they are due
	came      chan struct{} // closed, and another, when a worker comes
	closed    bool
}

// New panics without Store or API. The hub watches the store from now on.
func New(o Options) *Hub {
	if o.Store == nil || o.API == nil {
		panic("taskhub: Store and API are required")
	}
	if o.Wake == nil {
		o.Wake = func(string) {}
	}
	if o.Observe == nil {
		o.Observe = func(string, time.Duration) {}
	}
	if o.Clock == nil {
		o.Clock = &clock.Wall{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	h := &Hub{o: o, apps: map[string]*app{}, live: map[quipu.WorkflowKey]*live{}, acts: map[actKey]*item{}, loading: map[quipu.WorkflowKey]*loading{},
		came: make(chan struct{})}
	h.ctx, h.stop = context.WithCancel(context.Background())
	o.Store.Watch(flow.KindDapr, h.arrived)
	return h
}

// spawn runs a part of the hub by itself, unless the hub is closed: what is not durable then is done again by the next one.
func (h *Hub) spawn(do func()) {
	if !h.closed {
		h.tasks.Go(do)
	}
}

// enter keeps Close waiting until tasks.Done is called. False says that the hub is closed. The lock is held.
func (h *Hub) enter() bool {
	if !h.closed {
		h.tasks.Add(1)
	}
	return !h.closed
}

// Start wakes the applications that have something to do.
func (h *Hub) Start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spawn(func() {
		last := ""
		err := h.o.Store.Busy(h.ctx, flow.KindDapr, "", func(k quipu.WorkflowKey) bool {
			if k.App != last {
				last = k.App
				h.o.Wake(last)
			}
			return true
		})
		if err != nil && h.ctx.Err() == nil {
			h.o.Logger.Error("workflows that wait for workers were not found", "err", err)
		}
	})
}

// Stop ends the streams of work items; workers are told to come again. Answers still count.
func (h *Hub) Stop() {
	h.stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.apps {
		a.news.Broadcast()
	}
}

// Close stops the hub, and returns when it does nothing any more.
func (h *Hub) Close() {
	h.Stop()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.tasks.Wait()
}

// Stats is what a hub does now.
type Stats struct {
	Workers    int // streams of work items
	Instances  int // in memory
	Turns      int // that workers make
	Activities int // that workers do
	Waiting    int // work items that no worker has
}

// Stats counts by application.
func (h *Hub) Stats() map[string]Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make(map[string]Stats, len(h.apps))
	for name, a := range h.apps {
		s := Stats{Workers: len(a.streams), Waiting: a.turns.Len() + a.activities.Len()}
		for one := range a.streams {
			s.Turns += one.turns
			s.Activities += one.activities
		}
		all[name] = s
	}
	for k := range h.live {
		s := all[k.App]
		s.Instances++
		all[k.App] = s
	}
	return all
}

// Live adds to a description who has the work of an instance.
func (h *Hub) Live(info *quipu.WorkflowInfo) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.live[info.WorkflowKey]
	if l == nil {
		return
	}
	if l.turn != nil && l.turn.item.stream != nil {
		info.Owner = l.turn.item.stream.id
	}
	n := 0
	for _, id := range sortedKeys(l.tasks) {
		t := l.tasks[id]
		for n < len(info.Waits) && (info.Waits[n].What != "activity" || info.Waits[n].Name != t.event.GetTaskScheduled().GetName()) {
			n++
		}
		if n == len(info.Waits) {
			return
		}
		if t.item != nil && t.item.stream != nil {
			info.Waits[n].Owner = t.item.stream.id
		}
		n++
	}
}
