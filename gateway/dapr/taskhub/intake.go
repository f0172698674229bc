package taskhub

import (
	"slices"
	"time"

	"github.com/dapr/durabletask-go/api/protos"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
)

// While a worker makes a turn, what the turn takes in goes to the log: results of activities, messages, and the time of the turn, as the
// worker has them. What the worker decides follows from that, as code of workflows is deterministic. So activities that it schedules begin as
// soon as the intake is durable, and the decision itself goes with the next record of the instance, or by itself saveAfter later. After a crash in between a
// worker is given the same history, and decides the same.
//
// A turn that decides anything else (a timer, a message, the end, another version of the code) is durable before any of it happens.

const (
	saveAfter    = 50 * time.Millisecond
	decisionsMax = 1 << 20                      // bytes of a decision that may be saved later
	decidedMax   = quipu.WorkflowHistoryMax / 8 // actions of an instance whose decisions may: a history that is full says so before anything begins
)

// intake is what goes to the log ahead of a turn's end.
type intake struct {
	took    int      // messages of the inbox
	lead    [][]byte // earlier decisions, which go along
	events  int      // of the turn
	results []*result
	done    chan struct{} // closed when all above and err are final
	err     error
}

// takeIn begins with the intake of a turn that is given to a worker. One without results has only what is durable already.
func (h *Hub) takeIn(l *live, t *turn) {
	if len(t.results) == 0 {
		return
	}
	in := &intake{took: t.took, lead: l.unsaved, events: len(t.encoded), results: t.results, done: make(chan struct{})}
	change := flow.Turn{Rev: l.rev, Took: in.took, Events: slices.Concat(in.lead, t.encoded), Status: l.running(), Open: true}
	t.intake, l.unsaved = in, nil
	h.spawn(func() {
		err := h.o.Store.Commit(h.ctxOfCommits(), []flow.Change{{WorkflowKey: l.key, Turn: &change}})
		h.mu.Lock()
		defer h.mu.Unlock()
		h.tookIn(l, t, err)
	})
}

// running is the status of an instance that goes on.
func (l *live) running() quipu.WorkflowStatus {
	if l.suspended {
		return quipu.WorkflowSuspended
	}
	return quipu.WorkflowRunning
}

func (h *Hub) tookIn(l *live, t *turn, err error) {
	in := t.intake
	defer close(in.done)
	switch {
	case err == nil:
		l.rev++
		for _, r := range in.results {
			r.finish(nil)
		}
	case isOverLimit(err): // which the turn's own record is too, and that is dealt with
		l.unsaved, in.lead, in.took, in.events = in.lead, nil, 0, 0
	default:
		in.err = err
		h.refuse(l, err)
	}
}

// isOverLimit tells whether a record can never be written.
func isOverLimit(err error) bool {
	switch quipu.CodeOf(err) {
	case quipu.CodeWorkflowSize, quipu.CodeTxSize, quipu.CodeWorkflowID, quipu.CodeTooMany:
		return true
	}
	return false
}

// record is what the log does not have of a turn and its outcome.
func (o *outcome) record(l *live, t *turn) []flow.Change {
	c, in := o.change, t.intake
	if in == nil {
		in = &intake{}
	}
	c.Rev = l.rev
	switch {
	case c.Again || o.full: // the history is gone, or full
		c.Took = t.took - in.took
	case o.stall != "":
		c.Events = slices.Concat(l.unsaved, c.Events)
	case t.versioned && in.events > 0: // the beginning of the turn says which code made it
		c.Took, c.Redo = t.took-in.took, len(in.lead)+in.events
		c.Events = slices.Concat(in.lead, t.encoded, c.Events)
	default:
		c.Took, c.Events = t.took-in.took, slices.Concat(l.unsaved, t.encoded[in.events:], c.Events)
	}
	all := append([]flow.Change{{WorkflowKey: l.key, Turn: &c}}, o.others...)
	if o.stall != "" && in.events == 0 {
		for _, r := range t.results { // the turn is made again, and needs them
			all = append(all, flow.Change{WorkflowKey: l.key, Message: r.bytes, Lenient: true})
		}
	}
	return all
}

// follows tells whether all that a turn decides is which activities come next, which its intake implies.
func (o *outcome) follows(l *live, t *turn) bool {
	c, size := &o.change, 0
	if t.intake == nil || t.intake.events < len(t.encoded) || t.versioned || !c.Open || c.Status != l.status || c.Again || c.Custom != nil ||
		len(c.Set)+len(c.Cancel)+len(o.others) > 0 || o.stall != "" || o.full || l.highest > decidedMax {
		return false
	}
	for i, e := range o.fresh {
		size += len(c.Events[i])
		if e.GetTaskScheduled() == nil || size > decisionsMax {
			return false
		}
	}
	return true
}

// silent tells whether a turn that was made without anything new came to nothing: the log need not know of it.
func (o *outcome) silent(l *live, t *turn) bool {
	c := &o.change
	return t.confirms && !t.versioned && c.Open && c.Status == l.status && c.Custom == nil && len(c.Events)+len(o.others) == 0 && o.stall == ""
}

// decision is one that the log does not have yet.
type decision struct {
	live *live
	turn int // that it was made in
	due  time.Time
}

// saveLater has the decisions of an instance saved, unless its next record is sooner.
func (h *Hub) saveLater(l *live) {
	h.decisions = append(h.decisions, decision{l, l.turns, time.Now().Add(saveAfter)})
	if len(h.decisions) == 1 {
		h.spawn(h.saveAll)
	}
}

// saveAll saves decisions as they are due, until there are none.
func (h *Hub) saveAll() {
	for {
		h.mu.Lock()
		now := time.Now()
		for len(h.decisions) > 0 && !h.decisions[0].due.After(now) {
			h.save(h.decisions[0])
			h.decisions = h.decisions[1:]
		}
		if len(h.decisions) == 0 {
			h.mu.Unlock()
			return
		}
		wait := h.decisions[0].due.Sub(now)
		h.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-h.ctx.Done():
			return // the next hub decides the same
		}
	}
}

func (h *Hub) save(d decision) {
	l := d.live
	if l.dead || l.turn != nil || l.turns != d.turn || len(l.unsaved) == 0 {
		return
	}
	l.turn = &turn{answered: true, item: &item{app: h.app(l.key.App), live: l, since: h.o.Clock.Now()}}
	h.commitLater(l, l.turn, &outcome{change: flow.Turn{Status: l.status, Open: true}})
}

// undecided tells whether a history ends with what a turn took in: its decision, if it made one, was not saved.
func undecided(last *protos.HistoryEvent) bool {
	switch last.GetEventType().(type) {
	case *protos.HistoryEvent_WorkflowStarted, *protos.HistoryEvent_TaskCompleted, *protos.HistoryEvent_TaskFailed, *protos.HistoryEvent_TimerFired,
		*protos.HistoryEvent_ChildWorkflowInstanceCompleted, *protos.HistoryEvent_ChildWorkflowInstanceFailed, *protos.HistoryEvent_EventRaised,
		*protos.HistoryEvent_ExecutionSuspended, *protos.HistoryEvent_ExecutionResumed, *protos.HistoryEvent_ExecutionStalled:
		return true
	}
	return false
}
