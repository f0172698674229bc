package step

import (
	"context"
	"sync"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
)

// execution is one that this node has in memory, because it is being driven. What it knows may be ahead of the log: journal and turn
// change together, and durable tells how far the log has come. If a turn cannot be committed, it is broken, and forgotten.
type execution struct {
	key   quipu.WorkflowKey
	fresh bool // started here

	mu      sync.Mutex // guards the fields below
	j       *journal
	f       quipu.Function
	pinned  bool // to the revision of f, in the log
	input   []byte
	output  []byte
	ended   quipu.WorkflowStatus
	parent  *quipu.WorkflowKey
	rev     uint64
	next    uint64 // number of the next message that arrives
	loading bool
	early   []flow.Arrival // while it loads
	turn    turn
	durable int   // events in the log
	broken  error // why it is not to be used any more
	again   bool  // another of its id was begun meanwhile, or its revision may have come
	token   string
	cut     context.CancelFunc // of the run
	paused  bool               // it was suspended for a time while the run was under way
	refused error              // what a run got that cannot go on
	news    chan struct{}      // closed when more is durable, or it is broken; nil if nobody waits
}

// turn is what the log does not have yet.
type turn struct {
	start  *flow.Start
	events []pendingEvent
	set    []timers.Timer
	cancel []string
	extra  []flow.Change
	fail   *quipu.WorkflowFailure
	urgent bool // there is more than what came with the start
	queued bool // for a commit
	done   []chan error
}

type pendingEvent struct {
	bytes   []byte
	message bool // from the inbox
	step    bool // the result of one
}

// turnBytesMax is how many bytes of events one turn takes, if there is more than one.
const turnBytesMax = 4 << 20

// add has an event happen. mu is held, as for what follows.
func (x *execution) add(e *event) {
	x.turn.cancel = append(x.turn.cancel, x.j.apply(e)...)
	x.turn.events = append(x.turn.events, pendingEvent{bytes: e.encode(), step: e.Event == evEntry && e.Kind == kindStep})
	x.turn.urgent = true
}

// take takes messages out of the inbox. What comes after the end is nobody's.
func (x *execution) take(messages [][]byte) error {
	if x.j.end != nil {
		return nil
	}
	for _, m := range messages {
		e, err := decodeEvent(m)
		if err != nil {
			return err
		}
		x.turn.cancel = append(x.turn.cancel, x.j.apply(e)...)
		x.turn.events = append(x.turn.events, pendingEvent{bytes: m, message: true})
		x.turn.urgent = true
	}
	return nil
}

// arrive takes in what a record brought.
func (x *execution) arrive(a flow.Arrival) {
	switch {
	case x.broken != nil:
	case x.loading:
		x.early = append(x.early, a)
	case a.Purged:
		x.breakOff(&quipu.Error{Code: quipu.CodeNoWorkflow, Op: "step", Text: "the execution was purged"})
	case a.Started && x.fresh && x.next == 0:
		x.next = a.First + uint64(len(a.Messages)) // which it was made of
	case a.Started:
		x.again = true
	default:
		messages := a.Messages
		if seen := int64(x.next) - int64(a.First); seen > 0 {
			messages = messages[min(int(seen), len(messages)):]
		}
		x.next = max(x.next, a.First+uint64(len(a.Messages)))
		if err := x.take(messages); err != nil {
			x.breakOff(err)
		}
		x.paused = x.paused || x.j.suspended
		if x.j.terminate != nil && x.cut != nil {
			x.cut()
		}
	}
}

// breakOff ends what is done with the execution here. The log is right.
func (x *execution) breakOff(err error) {
	if x.broken != nil {
		return
	}
	x.broken = err
	for _, ch := range x.turn.done {
		ch <- err
	}
	x.turn = turn{queued: x.turn.queued}
	if x.cut != nil {
		x.cut()
	}
	x.tell()
}

func (x *execution) tell() {
	if x.news != nil {
		close(x.news)
		x.news = nil
	}
}

// listen answers a channel that is closed with the next news.
func (x *execution) listen() <-chan struct{} {
	if x.news == nil {
		x.news = make(chan struct{})
	}
	return x.news
}

// ready tells whether there is something to commit that should not wait.
func (x *execution) ready() bool {
	return x.broken == nil && (x.turn.start != nil || x.turn.urgent || len(x.turn.done) > 0)
}

// cutTurn takes what one commit can do out of the pending turn.
func (x *execution) cutTurn() (f flight, bytes int) {
	t := &x.turn
	f = flight{x: x, seen: Observation{Function: x.key.App, Turn: true}}
	if t.start != nil {
		f.changes = []flow.Change{{WorkflowKey: x.key, Start: t.start}}
		bytes = len(t.start.Input)
		t.start = nil
		f.done, t.done = t.done, nil
		return f, bytes
	}
	took := 0
	for f.events < len(t.events) && (f.events == 0 || bytes+len(t.events[f.events].bytes) <= turnBytesMax) {
		one := t.events[f.events]
		bytes += len(one.bytes)
		if one.message {
			took++
		}
		if one.step {
			f.seen.Steps++
		}
		f.events++
	}
	change := &flow.Turn{Rev: x.rev, Took: took, Status: x.j.status(), Open: x.j.next() != rest && x.j.next() != isOver}
	for _, e := range t.events[:f.events] {
		change.Events = append(change.Events, e.bytes)
	}
	if !x.pinned {
		change.Version, x.pinned = &x.f.Revision, x.f.Revision != ""
	}
	f.changes = []flow.Change{{WorkflowKey: x.key, Turn: change}}
	if rest := t.events[f.events:]; len(rest) > 0 { // what ends it, sets timers or tells others comes with the last of them
		change.Open = true
		change.Status = quipu.WorkflowRunning
		t.events = rest
		return f, bytes
	}
	change.Set, change.Cancel = t.set, t.cancel
	if x.ended != "" {
		change.Status, change.Output, change.Failure, change.Open = x.ended, x.output, t.fail, false
		bytes += len(x.output)
		f.seen.Ended = x.ended
	}
	f.done = t.done
	f.changes = append(f.changes, t.extra...)
	*t = turn{queued: true}
	return f, bytes
}
