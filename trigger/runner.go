package trigger

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// runner delivers the events of one subscription.
type runner struct {
	e        *Engine
	sub      delivery.Subscription
	revision string // of the function
	dead     string // topic for what is given up
	ctx      context.Context
	stop     context.CancelFunc
	wake     chan struct{} // has one when the plan may have something new
	settle   chan struct{} // has one when there is something to settle
	calls    sync.WaitGroup

	mu        sync.Mutex
	plan      *plan
	consumers []*consumer
	more      bool // there may be events after those loaded
	settling  outcomes
	advanced  uint64          // the floor that the view has
	marks     map[uint64]bool // the events above it that the view has as done
	raising   bool            // a settlement that raises it is under way
	carried   sync.Cond       // an item is no longer being parked
	lastError string
}

// consumer takes groups of events.
type consumer struct {
	calls, max int
	deliver    func(ctx context.Context, g *group) result
}

// result is what came of a group.
type result struct {
	each    []quipu.Outcome // of the items, in order; nil if the call failed as a whole
	cause   string          // of what is not acknowledged
	lost    int
	settled bool // the acknowledgement is durable already
	missed  bool // the call did not reach its consumer: no attempt
	gone    bool // the consumer left: no attempt, and nobody's fault
	over    bool // the subscription was moved or removed: the outcome does not count
}

// outcomes wait to be settled.
type outcomes struct {
	done []*item
	setback
}

func (o *outcomes) isEmpty() bool { return len(o.done)+len(o.parked)+len(o.ends) == 0 }

func (o *outcomes) add(s setback) {
	o.parked, o.groups, o.ends = append(o.parked, s.parked...), append(o.groups, s.groups...), append(o.ends, s.ends...)
}

// newRunner takes a subscription up where the view has it.
func (e *Engine) newRunner(s delivery.State) (*runner, error) {
	tx := e.o.Book.Look()
	state, err := e.o.Store.State(tx, s.Topic, s.Name)
	tx.Close()
	if err != nil {
		return nil, err
	}
	r := &runner{e: e, sub: state.Subscription, revision: e.revision(s), wake: make(chan struct{}, 1),
		settle: make(chan struct{}, 1), more: true,
		advanced: state.Floor, marks: map[uint64]bool{}, dead: quipu.DeadLetterTopic(s.Name)}
	r.carried.L = &r.mu
	r.ctx, r.stop = context.WithCancel(e.ctx)
	o := planOptions{name: s.Name, batch: 1, retry: quipu.RetrySpec{Max: quipu.RetriesDefault, Backoff: quipu.Duration(quipu.BackoffDefault)}}
	if s.Function != "" {
		if err := e.serve(r, s.Function, &o); err != nil {
			return nil, err
		}
	}
	r.plan = newPlan(o, state)
	for _, offset := range state.Done {
		r.marks[offset] = true
	}
	if err := r.takeParked(state.Parked); err != nil {
		return nil, err
	}
	return r, nil
}

// takeParked loads the events that wait for another attempt.
func (r *runner) takeParked(parked []delivery.Parked) error {
	for _, p := range parked {
		events, err := r.e.o.Store.Read(r.sub.Topic, p.Offset, 1)
		if err != nil {
			return err
		}
		if len(events) == 1 && events[0].Offset == p.Offset {
			r.plan.park(events[0], p)
		}
	}
	return nil
}

// run delivers until stop, then waits for the calls under way and settles them.
func (r *runner) run(ended func(*runner)) {
	settled := make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(settled)
		r.keepSettling(over)
	}()
	for news := r.e.o.Store.Wait(r.sub.Topic); ; {
		next := r.step()
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = r.e.o.Clock.After(max(time.Millisecond, next.Sub(r.e.o.Clock.Now())))
		}
		select {
		case <-news:
			news = r.e.o.Store.Wait(r.sub.Topic)
			r.mu.Lock()
			r.more = true
			r.mu.Unlock()
		case <-r.wake:
		case <-timer:
		case <-r.ctx.Done():
			r.calls.Wait()
			close(over)
			<-settled
			ended(r)
			return
		}
	}
}

func (r *runner) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// step loads events and starts calls, as many as there can be, and answers when to look again by itself.
func (r *runner) step() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.ctx.Err() == nil {
		loaded, err := r.load()
		if err != nil {
			r.lastError = err.Error()
			return r.e.o.Clock.Now().Add(retryAfter)
		}
		r.plan.setPlaces(r.free())
		now := r.e.o.Clock.Now()
		g, ends := r.plan.next(now)
		if len(ends) > 0 {
			r.settling.ends = append(r.settling.ends, ends...)
			r.kickSettling()
		}
		if g == nil {
			if loaded || len(ends) > 0 && r.more {
				continue // what was loaded may all be done already, or wait for its key; what follows need not
			}
			return r.wakeAt(now)
		}
		r.start(g)
	}
	return time.Time{}
}

// wakeAt is when the plan has something by itself; a time that has come already waits for a call to end instead.
func (r *runner) wakeAt(now time.Time) time.Time {
	if at := r.plan.wake(); at.After(now) {
		return at
	}
	return time.Time{}
}

// loadAhead is how many fresh events are kept ready for each call that may run.
const loadAhead = 2

// load reads events if the fresh ones may run out, and tells whether there were any. mu is held.
func (r *runner) load() (bool, error) {
	want := max(64, loadAhead*r.plan.o.batch*max(1, r.plan.limit()))
	expiring := r.plan.loaded < r.plan.expiry
	if !r.more || len(r.plan.fresh) >= want/2 || len(r.consumers) == 0 && !expiring {
		return false, nil
	}
	limit := min(want, r.plan.room())
	if limit <= 0 {
		return false, nil
	}
	events, err := r.e.o.Store.Read(r.sub.Topic, r.plan.loaded+1, limit)
	if err != nil {
		return false, err
	}
	r.more = len(events) > 0
	r.plan.load(events)
	r.kickSettling()
	return r.more, nil
}

// free is how many more calls consumers can take. mu is held.
func (r *runner) free() (n int) {
	for _, c := range r.consumers {
		n += c.max - c.calls
	}
	return n
}

// start hands a group to the consumer that has most room. mu is held.
func (r *runner) start(g *group) {
	c := slices.MaxFunc(r.consumers, func(a, b *consumer) int { return (a.max - a.calls) - (b.max - b.calls) })
	c.calls++
	r.calls.Go(func() {
		res := c.deliver(context.WithoutCancel(r.ctx), g)
		r.mu.Lock()
		c.calls--
		r.finish(g, res)
		r.mu.Unlock()
		r.notify()
	})
}

// finish takes in what came of a group. mu is held.
func (r *runner) finish(g *group, res result) {
	now := r.e.o.Clock.Now()
	r.plan.returned(res.lost)
	for _, it := range g.items {
		it.settling = false
	}
	r.noted(settledIn(g), res.settled, g.floor)
	g.floor = 0
	if res.cause != "" {
		r.lastError = res.cause
	}
	switch {
	case res.over:
		r.stop()
	case res.gone:
		g.due = now
		r.plan.again(g)
	case res.missed:
		r.plan.stalled(g, now)
	case res.settled:
		r.plan.settled(g.items)
		r.e.o.Observe(r.sub.Name, FateDone, len(g.items))
	case res.each == nil:
		r.settling.add(r.plan.failed(g, res.cause, now))
	default:
		r.finishEach(g, res, now)
	}
	r.kickSettling()
}

// finishEach takes in outcomes that differ from event to event.
func (r *runner) finishEach(g *group, res result, now time.Time) {
	for i, it := range g.items {
		switch res.each[i] {
		case quipu.Ack:
			it.settling = true
			r.settling.done = append(r.settling.done, it)
		case quipu.Drop:
			it.settling = true
			r.settling.ends = append(r.settling.ends, end{it, causeDropped, r.plan.o.keepDead})
		default:
			r.settling.add(r.plan.failedAlone(it, res.cause, now))
		}
	}
}

// expire has the runner give up what is not delivered yet up to an offset, and answers the lowest one it still needs.
func (r *runner) expire(upto uint64) (needed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if upto > r.plan.expiry {
		r.plan.expiry, r.more = upto, true
		r.notify()
	}
	return r.plan.needed()
}

// attach adds a consumer.
func (r *runner) attach(c *consumer) {
	r.mu.Lock()
	r.consumers = append(r.consumers, c)
	r.mu.Unlock()
	r.notify()
}

func (r *runner) detach(c *consumer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.consumers = slices.DeleteFunc(r.consumers, func(x *consumer) bool { return x == c })
}

// settleIn adds the acknowledgement of a group to a transaction. An item that is being parked must be so first: else
// it could be parked after it was done.
func (r *runner) settleIn(tx *view.Tx, g *group) error {
	r.mu.Lock()
	for slices.ContainsFunc(g.items, func(it *item) bool { return it.carrying }) {
		r.carried.Wait()
	}
	for _, it := range g.items {
		it.settling = true
	}
	if g.floor > 0 { // it lost to another commit, and is run again
		r.raising, g.floor = false, 0
	}
	s := r.settlement(g.items, nil)
	g.floor = s.Floor
	r.mu.Unlock()
	return r.e.o.Store.Settle(tx, r.sub, s)
}
