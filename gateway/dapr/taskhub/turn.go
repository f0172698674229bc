package taskhub

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// errGone is what answers get whose instance went on without them.
var errGone = errors.New("the instance went on without this answer")

// turn is one turn of an instance: what it takes, and its work item.
type turn struct {
	took      int // messages of the inbox
	results   []*result
	events    []*protos.HistoryEvent
	encoded   [][]byte
	item      *item
	intake    *intake // nil if all of it goes to the log with the worker's answer
	answered  bool    // what a worker said is on its way to the log
	confirms  bool    // it was made without anything new
	versioned bool    // its first event says which code made it
	doubts    int     // answers that seemed to be those of an earlier turn
	ends      *protos.ExecutionTerminatedEvent
}

// doubtsMax is how often a turn is made again because of an answer that seems late.
const doubtsMax = 3

// kick begins the next turn of an instance, if it is to have one.
func (h *Hub) kick(l *live) {
	if l.dead || l.turn != nil {
		return
	}
	if len(l.inbox)+len(l.results) == 0 && !l.confirm {
		if len(l.tasks) == 0 {
			h.rest(l)
		}
		return
	}
	h.rouse(l)
	t := h.newTurn(l)
	l.turn = t
	switch {
	case t.ends != nil:
		h.end(l)
	case len(t.events) == 1 && !l.confirm: // nothing of it counts
		t.events, t.encoded, t.answered = nil, nil, true
		h.commitLater(l, t, &outcome{change: flow.Turn{Status: l.status, Open: len(l.tasks) > 0}})
	default:
		t.confirms, l.confirm = l.confirm && len(t.events) == 1, false
		h.takeIn(l, t)
		h.enqueue(t.item)
	}
}

// newTurn takes all that has arrived.
func (h *Hub) newTurn(l *live) *turn {
	l.turns++
	now := h.o.Clock.Now()
	t := &turn{}
	l.time = later(now, l.time)
	t.add(&protos.HistoryEvent{EventId: -1, Timestamp: timestamppb.New(l.time),
		EventType: &protos.HistoryEvent_WorkflowStarted{WorkflowStarted: &protos.WorkflowStartedEvent{}}}, nil)
	t.item = &item{app: h.app(l.key.App), live: l, turn: t, token: l.token("t"), since: now}
	h.fill(l, t)
	id, token, past := l.key.ID, t.item.token, l.past
	t.item.wire = func() mem.BufferSlice { return workItem(id, token, past, t.encoded) }
	return t
}

// later keeps the time of an instance from going back when the clock does.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// fill adds to a turn what has arrived since it was made.
func (h *Hub) fill(l *live, t *turn) {
	for _, m := range l.inbox[t.took:] {
		t.took++
		e, err := decode(m.bytes)
		if err != nil {
			h.o.Logger.Error("a message to a workflow was left out", "app", l.key.App, "workflow", l.key.ID, "err", err)
			continue
		}
		h.accept(l, t, e, m.bytes)
	}
	for _, r := range l.results {
		h.accept(l, t, r.event, r.bytes)
		t.results = append(t.results, r)
	}
	l.results = nil
}

// accept adds an event to a turn unless it does not count.
func (h *Hub) accept(l *live, t *turn, e *protos.HistoryEvent, b []byte) {
	if one := l.answered(e); one != nil {
		h.forget(one)
	}
	if !l.add(l.key.App, e) {
		return
	}
	if x := e.GetExecutionTerminated(); x != nil && t.ends == nil {
		t.ends = x
	}
	t.add(e, b)
}

// answered is the activity that an event is the result of; nil if it is none's.
func (m *memory) answered(e *protos.HistoryEvent) *task {
	if x := e.GetTaskCompleted(); x != nil {
		return m.tasks[x.TaskScheduledId]
	}
	if x := e.GetTaskFailed(); x != nil {
		return m.tasks[x.TaskScheduledId]
	}
	return nil
}

func (t *turn) add(e *protos.HistoryEvent, b []byte) {
	if b == nil {
		b = encode(e)
	}
	t.events, t.encoded = append(t.events, e), append(t.encoded, b)
}

// abort takes a turn back from its worker, because the instance is to end.
func (h *Hub) abort(l *live) {
	t := l.turn
	t.item.kill()
	h.fill(l, t)
	if t.ends == nil {
		panic("taskhub: a turn is aborted without a reason")
	}
	h.end(l)
}

// end ends an instance that was terminated. No worker has a say in that.
func (h *Hub) end(l *live) {
	t := l.turn
	t.answered = true
	if l.started == nil { // it was never begun, so that there is no start in its history
		l.started = &protos.ExecutionStartedEvent{}
	}
	o := h.apply(l, t, &protos.WorkflowResponse{InstanceId: l.key.ID, Actions: []*protos.WorkflowAction{{Id: l.highest + 1,
		WorkflowActionType: &protos.WorkflowAction_CompleteWorkflow{CompleteWorkflow: &protos.CompleteWorkflowAction{
			WorkflowStatus: protos.OrchestrationStatus_ORCHESTRATION_STATUS_TERMINATED, Result: t.ends.Input}}}}})
	if t.ends.Recurse {
		for _, c := range l.children {
			o.others = append(o.others, flow.Change{WorkflowKey: c.key, Lenient: true, Message: encode(&protos.HistoryEvent{
				EventId: -1, Timestamp: timestamppb.New(h.o.Clock.Now()), EventType: &protos.HistoryEvent_ExecutionTerminated{ExecutionTerminated: t.ends}})})
		}
	}
	h.commitLater(l, t, o)
}

// commitLater commits in another goroutine: its caller holds the lock, or applies a record.
func (h *Hub) commitLater(l *live, t *turn, o *outcome) {
	h.spawn(func() { _ = h.commit(l, t, o) }) // what went wrong was dealt with, and nobody waits for it
}

// answer is what a worker says about a turn.
func (h *Hub) answer(k quipu.WorkflowKey, r *protos.WorkflowResponse) error {
	h.mu.Lock()
	if !h.enter() {
		h.mu.Unlock()
		return errStopping
	}
	defer h.tasks.Done()
	l := h.live[k]
	if l == nil || l.turn == nil || l.turn.answered || h.stale(l, r) {
		h.mu.Unlock()
		return unknownInstance(k.ID)
	}
	t := l.turn
	t.answered = true
	t.item.kill()
	// A late answer to an earlier turn may lack what this one would say; code that runs again says it.
	l.confirm = l.doubtful && len(r.Actions) == 0 && !t.confirms
	h.mu.Unlock()
	return h.commit(l, t, h.apply(l, t, r))
}

// stale tells an answer to an earlier turn: by its token, if the SDK sends tokens back, or because it does again what was done. In
// the latter case the turn is given to a worker once more, in case that the code is to blame.
func (h *Hub) stale(l *live, r *protos.WorkflowResponse) bool {
	t := l.turn
	if r.CompletionToken != "" {
		return r.CompletionToken != t.item.token
	}
	if !l.doubtful || t.doubts == doubtsMax || l.repeated(r.Actions) == nil {
		return false
	}
	t.doubts++
	if t.item.stream != nil {
		t.item.leave()
		h.enqueue(t.item)
	}
	return true
}

// repeated is an action that the history has already, of one that goes on; nil if there is none. Terminating another instance
// leaves no trace in the history, so SDKs ask for it in each turn.
func (m *memory) repeated(actions []*protos.WorkflowAction) *protos.WorkflowAction {
	for _, a := range actions {
		if a.GetCompleteWorkflow() != nil {
			return nil
		}
	}
	i := slices.IndexFunc(actions, func(a *protos.WorkflowAction) bool { return a.GetTerminateWorkflow() == nil && m.repeats(a.Id) })
	if i < 0 {
		return nil
	}
	return actions[i]
}

// commit makes a turn durable and goes on with the instance.
func (h *Hub) commit(l *live, t *turn, o *outcome) error {
	if l.start != nil {
		<-l.start.done
		if l.start.err != nil {
			return l.start.err
		}
	}
	if t.intake != nil {
		<-t.intake.done
		if t.intake.err != nil {
			return t.intake.err
		}
	}
	later, silent := o.follows(l, t), o.silent(l, t)
	var err error
	if !later && !silent {
		if err = h.store(l, t, o); isOverLimit(err) {
			o = h.failed(l, t, err)
			err = h.store(l, t, o)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil:
		h.refuse(l, err)
		return err
	case silent:
		t.encoded = nil
	case !later:
		l.rev++
		l.unsaved = nil
	case len(o.change.Events) > 0:
		l.unsaved = o.change.Events
		h.saveLater(l)
	}
	h.committed(l, t, o)
	return nil
}

// refuse gives up a turn that could not be committed. What is durable is read again.
func (h *Hub) refuse(l *live, err error) {
	if h.ctx.Err() == nil && quipu.CodeOf(err) != quipu.CodeWorkflowStale {
		h.o.Logger.Error("a turn of a workflow was not kept", "app", l.key.App, "workflow", l.key.ID, "err", err)
	}
	was := l.dead
	h.drop(l, err)
	if !was {
		h.want(l.key)
	}
}

// store commits an outcome. Children whose ids are taken are told to have failed.
func (h *Hub) store(l *live, t *turn, o *outcome) error {
	for {
		err := h.o.Store.Commit(h.ctxOfCommits(), o.record(l, t))
		if quipu.CodeOf(err) != quipu.CodeWorkflowExists || !h.giveUpChildren(l, o) {
			return err
		}
	}
}

// committed goes on after a turn.
func (h *Hub) committed(l *live, t *turn, o *outcome) {
	h.o.Observe(l.key.App, h.o.Clock.Now().Sub(t.item.since))
	for _, r := range t.results {
		r.finish(nil)
	}
	l.turn = nil
	if l.dead {
		return
	}
	l.inbox = slices.Clone(l.inbox[t.took:])
	l.status, l.lastKind = o.change.Status, o.stall
	if o.change.Custom != nil {
		l.custom = *o.change.Custom
	}
	switch {
	case o.change.Status.Ended():
		h.drop(l, nil)
		return
	case o.reload:
		h.drop(l, errGone)
		if slices.ContainsFunc(l.inbox, func(m message) bool { return isTermination(m.bytes) }) {
			h.want(l.key)
		}
		return
	case o.change.Again:
		for _, one := range l.tasks {
			h.forget(one)
		}
		l.memory, l.past, t.encoded = newMemory(), nil, nil
	}
	for _, list := range [...][][]byte{t.encoded, o.change.Events} {
		for _, b := range list {
			l.past = appendEvent(l.past, requestPast, b)
		}
	}
	for _, e := range o.fresh {
		l.add(l.key.App, e)
		if one := l.tasks[e.EventId]; e.GetTaskScheduled() != nil && one != nil {
			h.begin(l, one)
		}
	}
	h.kick(l)
}

// patched tells why code cannot go on with a history: the patches it has seen must be the first ones of those now.
func patched(history, now []string) (mismatch string) {
	if len(history) == 0 || len(now) >= len(history) && slices.Equal(history, now[:len(history)]) {
		return ""
	}
	return fmt.Sprintf("Patch mismatch. History patches: [%s], current patches: [%s]. ", strings.Join(history, ", "), strings.Join(now, ", "))
}
