package call

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// dispatcher makes the calls that nobody waits for. The queue decides; what becomes of a call is in the view before it
// counts here.
type dispatcher struct {
	c    *Caller
	ctx  context.Context // ends with Stop
	stop context.CancelFunc
	all  sync.WaitGroup // attempts, and run
	wake chan struct{}  // has one when the queue may have something new

	mu    sync.Mutex
	queue *queue
}

func newDispatcher(c *Caller) *dispatcher {
	d := &dispatcher{c: c, queue: newQueue(), wake: make(chan struct{}, 1)}
	d.ctx, d.stop = context.WithCancel(context.Background())
	c.o.Results.takeNews() // by replay: Start asks what there is
	c.o.Book.OnApply(Name, d.applied)
	return d
}

// applied follows the view.
func (d *dispatcher) applied() error {
	all, ends := d.c.o.Results.takeNews()
	d.mu.Lock()
	for _, news := range all {
		news(d.queue)
	}
	d.mu.Unlock()
	for _, info := range ends {
		d.c.o.Ended(info)
	}
	d.notify()
	return nil
}

func (d *dispatcher) notify() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Start begins to make the calls that wait. What is deployed must be known by then: calls of other functions end.
func (c *Caller) Start() error {
	d := c.waits
	tx := c.o.Book.Look()
	err := c.o.Results.eachWaiting(tx, func(p *pending) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if p.Execution == "" {
			d.queue.add(newWaiting(p))
		}
		return nil
	})
	if err = errors.Join(err, tx.Close()); err != nil {
		return fmt.Errorf("calls that wait: %w", err)
	}
	d.all.Go(d.run)
	return nil
}

// Sync has calls that wait looked at again, after a change of what is deployed. It does not wait.
func (c *Caller) Sync() { c.waits.notify() }

// Stop begins no further attempt of a call that nobody waits for. It does not wait.
func (c *Caller) Stop() { c.waits.stop() }

// Close stops and waits until attempts under way are over, or ctx ends; Wait waits for the rest.
func (c *Caller) Close(ctx context.Context) error {
	c.Stop()
	done := make(chan struct{})
	go func() {
		c.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait waits until nothing of a closed Caller runs any more.
func (c *Caller) Wait() { c.waits.all.Wait() }

// retryAfter is how long it takes until something is tried again that failed for reasons of the node, like a full disk.
const retryAfter = time.Second

func (d *dispatcher) run() {
	for d.ctx.Err() == nil {
		next, ends := d.step()
		if d.endAll(ends) {
			continue
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = d.c.o.Clock.After(max(time.Millisecond, next.Sub(d.c.o.Clock.Now())))
		}
		select {
		case <-d.wake:
		case <-timer:
		case <-d.ctx.Done():
		}
	}
}

// endsMax bounds the calls that end in one record without another attempt; each may bring an event of 128 KiB.
const endsMax = 50

// ends are calls to end without another attempt.
type ends struct{ expired, gone []*waiting }

// step starts what is to be tried now, as much as there can be, and answers when to look again by itself and what is to end.
func (d *dispatcher) step() (next time.Time, all []ends) {
	rooms := d.rooms()
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.c.o.Clock.Now()
	for function, r := range rooms {
		if expired, gone := d.queue.over(function, r, now, endsMax); len(expired)+len(gone) > 0 {
			all = append(all, ends{expired, gone})
		}
		for w := d.queue.next(function, r, now); w != nil; w = d.queue.next(function, r, now) {
			d.start(w, r)
		}
		if at := d.queue.wake(function, r, now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, all
}

// rooms is how the functions of calls that wait take calls now. It is asked without mu: who answers may wait for a record
// to be applied.
func (d *dispatcher) rooms() map[string]room {
	d.mu.Lock()
	rooms := make(map[string]room, len(d.queue.lanes))
	for function := range d.queue.lanes {
		rooms[function] = room{}
	}
	d.mu.Unlock()
	for function := range rooms {
		rooms[function] = d.room(function)
	}
	return rooms
}

func (d *dispatcher) room(function string) room {
	f, err := d.c.o.Find(quipu.CallRequest{Function: function}, "")
	if err != nil {
		return room{gone: quipu.CodeOf(err) == quipu.CodeNoFunction}
	}
	return room{calls: max(1, min(quipu.AsyncCallsMax, f.Spec.Concurrency*max(1, f.Spec.Scale.Max))), adaptive: f.Spec.Atomic}
}

// start tries a call. mu is held.
func (d *dispatcher) start(w *waiting, r room) {
	ctx, cut := context.WithCancel(context.Background()) // an attempt is ended by cancelling the call, and by nothing else
	a := w.attempt
	a.cut = cut
	d.all.Go(func() {
		defer cut()
		lost := d.try(ctx, w)
		d.mu.Lock()
		d.queue.returned(w, a, r, lost)
		d.mu.Unlock()
		d.notify()
	})
}

// try makes one attempt and settles it; lost is how often it lost to other commits.
func (d *dispatcher) try(ctx context.Context, w *waiting) (lost int) {
	p, err := d.c.load(w.id)
	if p == nil && err == nil {
		return 0 // it was cancelled meanwhile
	}
	var f quipu.Function
	if err == nil {
		f, err = d.c.o.Find(quipu.CallRequest{Function: w.function, Revision: p.Revision, IdempotencyKey: p.Key}, w.id)
	}
	if err == nil {
		err = d.c.o.Meter.Allow(f.Name)
	}
	if err != nil { // a function that is gone is found to be so in the next step
		d.again(w, err)
		return 0
	}
	q := d.c.deferred(p, f)
	reply, err := d.c.run(ctx, q)
	d.settle(ctx, w, q, reply, err)
	d.c.rest(q)
	return max(0, q.info.Runs-1)
}

// load reads a call that waits; nil if it does not any more.
func (c *Caller) load(id string) (*pending, error) {
	tx := c.o.Book.Look()
	p, err := c.o.Results.waiting(tx, id)
	if err = errors.Join(err, tx.Close()); err != nil || p == nil {
		return nil, err
	}
	return p, c.o.Results.fill(p)
}

// again has a call wait whose attempt did not reach the function.
func (d *dispatcher) again(w *waiting, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.why = why
	d.queue.stalled(w, d.c.o.Clock.Now())
}

// settle makes durable what came of an attempt, unless it is so already, with the call's effects.
func (d *dispatcher) settle(ctx context.Context, w *waiting, q *request, reply *quipu.CallReply, failure error) {
	var h *held
	if reply != nil {
		defer reply.Body.Close()
		h = &held{status: reply.Status, header: reply.Header, tail: reply.Trailer}
		body, err := io.ReadAll(reply.Body) // which is in memory
		h.body, failure = body, errors.Join(failure, err)
	}
	if q.execution != "" && failure == nil { // also of a call that was cancelled meanwhile
		now := d.c.o.Clock.Now()
		d.durably(q, func(tx *view.Tx) error { return d.c.handOver(tx, q, now) })
		return
	}
	switch {
	case q.settled: // its end has cut ctx
	case ctx.Err() != nil || quipu.CodeOf(failure) == quipu.CodeCallCancelled:
		return
	case failure != nil && (delivery.Missed(failure) || d.ctx.Err() != nil): // also what the end of the node cut off
		d.again(w, failure)
		return
	}
	d.mu.Lock()
	w.why = nil
	d.queue.reached(w.function)
	d.mu.Unlock()
	if q.settled {
		return
	}
	now := d.c.o.Clock.Now()
	if d.durably(q, func(tx *view.Tx) error { return d.c.settle(tx, q, h, failure, now) }) {
		q.counted()
	}
}

// durably commits a change, again until it is or the dispatcher stops: then the call is tried again after the next start. It
// tells whether the change is in the log, or may be.
func (d *dispatcher) durably(q *request, change func(tx *view.Tx) error) bool {
	for maybe := false; ; {
		_, err := d.c.o.Book.Change(context.Background(), change)
		if maybe = maybe || quipu.CodeOf(err) == quipu.CodeUnknown; err == nil {
			return true
		}
		if quipu.CodeOf(err) == quipu.CodeCallCancelled {
			return maybe
		}
		d.c.o.Logger.Error("what came of a call cannot be recorded; it is tried again", "call", q.id, "fn", q.f.Name, "err", err)
		if !d.sleep(retryAfter) {
			return maybe
		}
	}
}

// sleep answers false when the dispatcher stops.
func (d *dispatcher) sleep(t time.Duration) bool {
	select {
	case <-d.c.o.Clock.After(t):
	case <-d.ctx.Done():
	}
	return d.ctx.Err() == nil
}

// settle adds what came of an attempt to a transaction: its end, or that it waits for another. CodeCallCancelled.
func (c *Caller) settle(tx *view.Tx, q *request, h *held, failure error, now time.Time) error {
	if err := c.stillWaits(tx, q.id); err != nil {
		return err
	}
	if err := c.ride(tx, q); err != nil {
		return err
	}
	if h != nil && failure == nil && q.accepts(h) {
		return c.end(tx, q.deferred, q.ending(quipu.CallSucceeded, h))
	}
	status, cause := q.info.Status, ""
	if failure != nil {
		h, cause = nil, quipu.AsError(failure).Text
	} else {
		status, cause = h.status, fmt.Sprintf("status %d: %s", h.status, bytes.TrimSpace(h.body[:min(len(h.body), delivery.CauseBytesMax)]))
	}
	t, state := q.deferred.verdict(status, failure, cause, now)
	if state == quipu.CallWaiting {
		t.Usage.Add(q.info.Usage)
		return c.o.Results.park(tx, t)
	}
	e := q.ending(state, h)
	e.info.Cause = cause
	return c.end(tx, q.deferred, e)
}

// endAll ends calls without another attempt, and tells whether there were any.
func (d *dispatcher) endAll(all []ends) bool {
	for _, e := range all {
		d.endSome(e.expired, quipu.CallExpired, quipu.CodeCallExpired)
		d.endSome(e.gone, quipu.CallFailed, quipu.CodeNoFunction)
	}
	return len(all) > 0
}

// endSome ends calls in one record.
func (d *dispatcher) endSome(list []*waiting, state quipu.CallState, why quipu.Code) {
	if len(list) == 0 {
		return
	}
	now := d.c.o.Clock.Now()
	_, err := d.c.o.Book.Change(d.ctx, func(tx *view.Tx) error {
		for _, w := range list {
			if err := d.c.endWaiting(tx, w.id, state, why, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil || d.ctx.Err() != nil {
		return
	}
	d.c.o.Logger.Error("calls that are over cannot be recorded; it is tried again", "err", err)
	d.mu.Lock()
	for _, w := range list {
		d.queue.stalled(w, now)
	}
	d.mu.Unlock()
	d.sleep(retryAfter)
}

// endWaiting adds the end of a call that is not tried again to a transaction, unless it has ended.
func (c *Caller) endWaiting(tx *view.Tx, id string, state quipu.CallState, why quipu.Code, now time.Time) error {
	p, err := c.o.Results.waiting(tx, id)
	if err != nil || p == nil {
		return err
	}
	if err := c.o.Results.fill(p); err != nil {
		return err
	}
	e := p.ended(state, now)
	if why == quipu.CodeNoFunction || e.info.Cause == "" {
		e.info.Cause = quipu.Codes[why].Title
	}
	e.info.Error, e.info.Status = why, quipu.Codes[why].Status
	return c.end(tx, p, e)
}

// reserve makes sure of a place in the queue until done. CodeCallQueue.
func (d *dispatcher) reserve(function string) (done func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.queue.reserve(function, quipu.AsyncQueueMax); err != nil {
		return nil, err
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.queue.unreserve(function)
	}, nil
}

// Waiting counts the calls that nobody waits for which have not ended, by function.
func (c *Caller) Waiting() map[string]int {
	d := c.waits
	d.mu.Lock()
	defer d.mu.Unlock()
	sizes := make(map[string]int, len(d.queue.lanes))
	for function, l := range d.queue.lanes {
		sizes[function] = l.size
	}
	return sizes
}

// Bound lists the revisions of a function that calls which wait have named: they must stay.
func (c *Caller) Bound(function string) (revisions []string) {
	d := c.waits
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.queue.calls {
		if w.function == function && w.revision != "" && !slices.Contains(revisions, w.revision) {
			revisions = append(revisions, w.revision)
		}
	}
	return revisions
}

func (d *dispatcher) isRunning(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.queue.calls[id]
	return w != nil && w.attempt != nil
}

// standing is a call that waits, with what only this node knows of it.
func (d *dispatcher) standing(p *pending) quipu.CallInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.queue.calls[p.Info.ID]
	if w == nil {
		return p.info(false)
	}
	i := p.info(w.attempt != nil || w.due.After(p.due())) // an attempt that has been recorded since p was read ran then
	if l := d.queue.lanes[w.function]; w.why != nil && w.attempt == nil {
		i.Error, i.Cause = quipu.CodeOf(w.why), quipu.AsError(w.why).Text
		if l.pause.After(i.Next) {
			i.Next = l.pause
		}
	}
	return i
}

// newest lists calls that wait, of one function unless it is "".
func (d *dispatcher) newest(function string, limit int) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queue.newest(function, limit)
}
