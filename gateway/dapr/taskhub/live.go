package taskhub

import (
	"cmp"
	"container/list"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"google.golang.org/grpc/mem"
)

// live is an instance in memory. What is in it beyond the store's: results that no turn has committed, and the turn that a
// worker makes.
type live struct {
	key    quipu.WorkflowKey
	rev    uint64
	status quipu.WorkflowStatus
	custom string
	memory
	past     []byte // the history, as a work item has it
	lastKind string // description of the stall that the history ends with

	inbox    []message
	next     uint64 // number of the message that is to arrive next
	results  []*result
	turn     *turn
	turns    int       // made so far: makes tokens
	start    *starting // nil if its start was durable before it came into memory
	starting bool      // it is not known yet whether its start is durable
	doubtful bool      // a stream ended with a turn of it, or a node may have: late answers may come
	confirm  bool      // the next turn is to be made without anything new
	unsaved  [][]byte  // events that the log does not have, as they follow from those it has
	dead     bool
	place    *list.Element // among the idle ones
	rests    time.Time     // since when it is one
}

// starting is how a start went.
type starting struct {
	done chan struct{} // closed when that is known
	err  error
}

// memory is what a history says about what an instance waits for.
type memory struct {
	started   *protos.ExecutionStartedEvent // nil before the first turn
	tasks     map[int32]*task               // activities that have no result
	timers    map[int32]*protos.TimerCreatedEvent
	children  map[int32]child
	done      []uint64 // a bit for each number that an action of the history has
	highest   int32    // of them; -1 none
	suspended bool
	version   string // of its code
	patches   []string
	time      time.Time // of the last turn
}

type task struct {
	id    int32
	event *protos.HistoryEvent
	item  *item
}

type child struct {
	key   quipu.WorkflowKey
	since time.Time
	name  string
}

// message is in the inbox.
type message struct{ bytes []byte }

// result is what an activity answered. It is not durable before done has nil.
type result struct {
	event *protos.HistoryEvent
	bytes []byte
	done  chan error // has room for one
}

func (r *result) finish(err error) {
	select {
	case r.done <- err:
	default: // it was told before
	}
}

func newMemory() memory {
	return memory{tasks: map[int32]*task{}, timers: map[int32]*protos.TimerCreatedEvent{}, children: map[int32]child{}, highest: -1}
}

// add follows the history. It tells whether the event counts: what ends something that is not there, or has ended, does not.
func (m *memory) add(app string, e *protos.HistoryEvent) bool {
	m.number(e.EventId)
	switch x := e.EventType.(type) {
	case *protos.HistoryEvent_ExecutionStarted:
		if m.started != nil {
			return false
		}
		m.started = x.ExecutionStarted
	case *protos.HistoryEvent_WorkflowStarted:
		m.time = e.Timestamp.AsTime()
		if v := x.WorkflowStarted.GetVersion(); v != nil {
			m.version = cmp.Or(v.GetName(), m.version)
			m.patches = append(m.patches, v.GetPatches()...)
		}
	case *protos.HistoryEvent_TaskScheduled:
		m.tasks[e.EventId] = &task{id: e.EventId, event: e}
	case *protos.HistoryEvent_TaskCompleted:
		return take(m.tasks, x.TaskCompleted.TaskScheduledId)
	case *protos.HistoryEvent_TaskFailed:
		return take(m.tasks, x.TaskFailed.TaskScheduledId)
	case *protos.HistoryEvent_TimerCreated:
		m.timers[e.EventId] = x.TimerCreated
	case *protos.HistoryEvent_TimerFired:
		return take(m.timers, x.TimerFired.TimerId)
	case *protos.HistoryEvent_ChildWorkflowInstanceCreated:
		c := x.ChildWorkflowInstanceCreated
		m.children[e.EventId] = child{quipu.WorkflowKey{App: target(e.Router, app), ID: c.InstanceId}, e.Timestamp.AsTime(), c.Name}
	case *protos.HistoryEvent_ChildWorkflowInstanceCompleted:
		return take(m.children, x.ChildWorkflowInstanceCompleted.TaskScheduledId)
	case *protos.HistoryEvent_ChildWorkflowInstanceFailed:
		return take(m.children, x.ChildWorkflowInstanceFailed.TaskScheduledId)
	case *protos.HistoryEvent_ExecutionSuspended:
		m.suspended = true
	case *protos.HistoryEvent_ExecutionResumed:
		m.suspended = false
	}
	return true
}

// number notes the number of an action.
func (m *memory) number(id int32) {
	if id < 0 || id >= quipu.WorkflowHistoryMax {
		return
	}
	m.highest = max(m.highest, id)
	for len(m.done) <= int(id/64) {
		m.done = append(m.done, 0)
	}
	m.done[id/64] |= 1 << (id % 64)
}

// repeats tells whether the history has an action of this number.
func (m *memory) repeats(id int32) bool {
	return id >= 0 && int(id/64) < len(m.done) && m.done[id/64]&(1<<(id%64)) != 0
}

func take[V any](m map[int32]V, id int32) bool {
	_, there := m[id]
	delete(m, id)
	return there
}

// target is the application that a router names.
func target(r *protos.TaskRouter, own string) string { return cmp.Or(r.GetTargetAppID(), own) }

// remember reads a history from its beginning.
func remember(app string, history [][]byte) (m memory, past []byte, last *protos.HistoryEvent, err error) {
	m = newMemory()
	size := 0
	for _, b := range history {
		size += len(b) + 4
	}
	past = make([]byte, 0, size)
	for n, b := range history {
		if last, err = decode(b); err != nil {
			return m, nil, nil, fmt.Errorf("event %d: %w", n, err)
		}
		m.add(app, last)
		past = appendEvent(past, requestPast, b)
	}
	return m, past, last, nil
}

func newLive(s flow.Snapshot) (*live, error) {
	l := &live{key: s.WorkflowKey, rev: s.Rev, status: s.Status, custom: s.Custom, next: s.Next, doubtful: true}
	var last *protos.HistoryEvent
	var err error
	if l.memory, l.past, last, err = remember(s.App, s.History); err != nil {
		return nil, fmt.Errorf("history of workflow %s of %s: %w", s.ID, s.App, err)
	}
	l.lastKind = last.GetExecutionStalled().GetDescription()
	l.confirm = undecided(last)
	for _, b := range s.Inbox {
		l.inbox = append(l.inbox, message{b})
	}
	return l, nil
}

// token tells the work items of an instance apart.
func (l *live) token(what string) string {
	return what + strconv.FormatUint(l.rev, 36) + "-" + strconv.Itoa(l.turns)
}

// bytes is about how much memory the instance takes.
func (l *live) bytes() int { return 2*cap(l.past) + 1536 }

// loading is an instance that is being read. again: something came in the meantime.
type loading struct{ again bool }

// arrived is told of what others did to instances.
func (h *Hub) arrived(a flow.Arrival) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.live[a.WorkflowKey]
	switch {
	case a.Purged:
		if l != nil && !l.starting {
			h.drop(l, errGone)
		}
	case l == nil && len(h.app(a.App).streams) == 0 && !slices.ContainsFunc(a.Messages, isTermination):
		h.wake(h.app(a.App)) // the worker that comes finds it
	case l == nil:
		h.want(a.WorkflowKey)
	case a.Started && !l.starting:
		h.drop(l, errGone)
		h.want(a.WorkflowKey)
	default:
		h.receive(l, a)
	}
}

// receive gives messages to an instance that is in memory.
func (h *Hub) receive(l *live, a flow.Arrival) {
	ends := false
	for i, b := range a.Messages {
		if a.First+uint64(i) < l.next {
			continue
		}
		l.inbox = append(l.inbox, message{b})
		l.next++
		ends = ends || isTermination(b)
	}
	if ends && l.turn != nil && !l.turn.answered {
		h.abort(l)
	}
	h.kick(l)
}

// want has an instance loaded, if there is a worker for it.
func (h *Hub) want(k quipu.WorkflowKey) {
	a := h.app(k.App)
	if one := h.loading[k]; one != nil {
		one.again = true
		return
	}
	if h.live[k] != nil {
		return
	}
	if len(a.wanted) >= wantedMax {
		a.more = true
		return
	}
	h.loading[k] = &loading{}
	a.wanted = append(a.wanted, k)
	h.load(a)
}

// load starts a loader, unless there are enough or there is no room.
func (h *Hub) load(a *app) {
	if h.loaders >= loadersMax || len(a.wanted) == 0 || h.active >= activeMax || h.ctx.Err() != nil {
		return
	}
	h.loaders++
	h.spawn(func() {
		for h.loadNext(a) {
		}
	})
}

// loadNext brings one instance into memory.
func (h *Hub) loadNext(a *app) bool {
	h.mu.Lock()
	if len(a.wanted) == 0 || h.active >= activeMax || h.ctx.Err() != nil {
		h.loaders--
		rescan := a.more && len(a.wanted) == 0
		a.more = a.more && !rescan
		if rescan {
			h.scan(a)
		}
		h.mu.Unlock()
		return false
	}
	k := a.wanted[0]
	a.wanted = a.wanted[1:]
	one := h.loading[k]
	one.again = false
	h.mu.Unlock()
	s, err := h.o.Store.Load(h.ctx, k)
	var l *live
	if err == nil {
		l, err = newLive(s)
	}
	if err != nil && quipu.CodeOf(err) != quipu.CodeNoWorkflow && h.ctx.Err() == nil {
		h.o.Logger.Error("a workflow cannot go on", "app", k.App, "workflow", k.ID, "err", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded(a, k, one, l)
	return true
}

func (h *Hub) loaded(a *app, k quipu.WorkflowKey, one *loading, l *live) {
	if one.again && h.live[k] == nil {
		a.wanted = append(a.wanted, k)
		return
	}
	delete(h.loading, k)
	if l == nil || l.status.Ended() || h.live[k] != nil {
		return
	}
	h.live[k] = l
	h.active++
	for _, t := range l.tasks {
		h.begin(l, t)
	}
	h.kick(l)
}

// scan has all instances of an application loaded that have something to do.
func (h *Hub) scan(a *app) {
	h.spawn(func() {
		err := h.o.Store.Busy(h.ctx, flow.KindDapr, a.name, func(k quipu.WorkflowKey) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.want(k)
			return !a.more
		})
		if err != nil && h.ctx.Err() == nil {
			h.o.Logger.Error("workflows that have something to do were not found", "app", a.name, "err", err)
		}
	})
}

// rest has an instance that nothing is to be done for make room when others need it.
func (h *Hub) rest(l *live) {
	if l.place != nil || l.dead {
		return
	}
	h.active--
	l.place, l.rests = h.idle.PushBack(l), h.o.Clock.Now()
	h.bytes += l.bytes()
	for h.bytes > idleBytesMax {
		h.drop(h.idle.Front().Value.(*live), nil)
	}
	if !h.sweeps {
		h.sweeps = true
		h.spawn(h.sweep)
	}
	for _, a := range h.apps {
		if len(a.wanted) > 0 {
			h.load(a)
		}
	}
}

// sweep drops instances that have rested for a while, as long as any rest.
func (h *Hub) sweep() {
	for {
		select {
		case <-h.o.Clock.After(idleMax):
		case <-h.ctx.Done():
			return
		}
		h.mu.Lock()
		now := h.o.Clock.Now()
		for first := h.idle.Front(); first != nil && now.Sub(first.Value.(*live).rests) >= idleMax; first = h.idle.Front() {
			h.drop(first.Value.(*live), nil)
		}
		h.sweeps = h.idle.Len() > 0
		more := h.sweeps
		h.mu.Unlock()
		if !more {
			return
		}
	}
}

// rouse takes an instance from those that rest.
func (h *Hub) rouse(l *live) {
	if l.place == nil {
		return
	}
	h.idle.Remove(l.place)
	l.place = nil
	h.bytes -= l.bytes()
	h.active++
}

// drop forgets an instance; err tells those whose results are not durable.
func (h *Hub) drop(l *live, err error) {
	if l.dead {
		return
	}
	h.rouse(l)
	h.active--
	l.dead = true
	if h.live[l.key] == l {
		delete(h.live, l.key)
	}
	if l.turn != nil {
		l.turn.item.kill()
		for _, r := range l.turn.results {
			r.finish(err)
		}
	}
	for _, r := range l.results {
		r.finish(err)
	}
	for _, t := range l.tasks {
		h.forget(t)
	}
}

// actKey names an activity as its worker does.
type actKey struct {
	app, id string
	task    int32
}

func (i *item) actKey() actKey { return actKey{i.app.name, i.live.key.ID, i.task.id} }

// begin gives an activity to the workers of its application.
func (h *Hub) begin(l *live, t *task) {
	if h.refusal(t.event.Router, t.event.GetTaskScheduled().GetHistoryPropagationScope()) != "" {
		return // its failure is in the inbox
	}
	name := target(t.event.Router, l.key.App)
	i := &item{app: h.app(name), live: l, task: t, token: l.token("a"), since: h.o.Clock.Now()}
	event, id := t.event.GetTaskScheduled(), l.key.ID
	i.wire = func() mem.BufferSlice { return activityItem(id, i.token, t.id, event) }
	t.item = i
	if h.acts[i.actKey()] != nil {
		return // of another application's instance with this id: it is begun when that one is done
	}
	h.acts[i.actKey()] = i
	h.enqueue(i)
}

// forget takes back an activity that nobody waits for.
func (h *Hub) forget(t *task) {
	if t.item == nil {
		return
	}
	i := t.item
	t.item = nil
	i.kill()
	if h.acts[i.actKey()] == i {
		delete(h.acts, i.actKey())
		h.succeed(i)
	}
}

// succeed begins an activity that waited for another one of its name.
func (h *Hub) succeed(done *item) {
	k := done.actKey()
	for _, a := range h.apps {
		l := h.live[quipu.WorkflowKey{App: a.name, ID: k.id}]
		if l == nil || l == done.live {
			continue
		}
		if t := l.tasks[k.task]; t != nil && t.item != nil && !t.item.dead && t.item.actKey() == k {
			h.acts[k] = t.item
			h.enqueue(t.item)
			return
		}
	}
}
