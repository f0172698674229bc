// Package workflow is the view of workflow instances: their histories, the messages that they have not taken, and how they stand. It
// runs nothing. Who does (the door of the durable task protocol, functions with a journal) writes and reads the
// bytes of events and messages, which are opaque here.
//
// An instance is a head, which every change reads and writes, and parts that are only added: each turn appends its events
// to the history as one part, and each message gets the next number of the inbox. A record has what is new and nothing
// else, so a step costs the same in the first turn and in the thousandth. What one turn does, messages to other instances, timers
// and the end included, is one record: after a crash all of it happened, or nothing.
//
// Two runners of one instance cannot both go on with it: a turn names the revision that it was made on, and loses if that is
// not the instance's any more.
//
// What it does not do: it keeps the history of the current generation only, and payloads up to quipu.WorkflowPayloadMax lie in the
// records themselves. Instances that ended are forgotten by Sweep after a while.
package workflow

import (
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/clock"
	"github.com/quipu-run/quipu/internal/flow"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
)

// Name is the name of the view.
const Name = "workflow"

// TimerKind is the kind of the view's timers.
const TimerKind = "workflow"

// Timers is where timers of instances are kept. All of it is part of the transaction.
type Timers interface {
	// Get tells whether there is such a timer.
	Get(tx *view.Tx, k timers.Key) (timers.Timer, bool, error)
	// Set puts a timer in the place of that of its key.
	Set(tx *view.Tx, t timers.Timer) error
	// Cancel tells whether there was one.
	Cancel(tx *view.Tx, k timers.Key) (bool, error)
}

// Options are checked by New.
type Options struct {
	Timers Timers      // required
	Clock  quipu.Clock // nil means the machine's
	// Languages are those of the runners, by kind. Required.
	Languages map[string]flow.Language
	// KindOf tells who runs the instances of an application or function. nil means flow.KindDapr.
	KindOf func(app string) string
	// Live adds to a description what only the runner knows: who has its turn, say. nil adds nothing.
	Live func(kind string, info *quipu.WorkflowInfo)
	// Ended is told of the end of an instance that AwaitEnd was called for, as a part of the transaction that ends or purges it. nil
	// ignores it.
	Ended func(tx *view.Tx, e flow.End) error
	// Kept is how long an instance is kept after its end; 0 means quipu.WorkflowKeptDefault.
	Kept time.Duration
}

// View is the view. Its methods work inside a transaction; Store's make transactions of their own.
type View struct {
	o      Options
	watch  watchers
	counts counts
}

// New panics without Timers.
func New(o Options) *View {
	if o.Timers == nil {
		panic("workflow: Timers is required")
	}
	if o.KindOf == nil {
		o.KindOf = func(string) string { return flow.KindDapr }
	}
	if o.Clock == nil {
		o.Clock = &clock.Wall{}
	}
	if o.Ended == nil {
		o.Ended = func(*view.Tx, flow.End) error { return nil }
	}
	if o.Kept == 0 {
		o.Kept = quipu.WorkflowKeptDefault
	}
	return &View{o: o, watch: watchers{waiting: map[quipu.WorkflowKey]*waiters{}}, counts: counts{of: map[string]int64{}, busy: map[busyAt]int64{}}}
}

// Name implements view.Machine.
func (v *View) Name() string { return Name }
