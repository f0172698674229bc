package trigger

import (
	"context"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/view"
)

// Bounds of one record of settlements.
const (
	settleMax      = 2000
	settleDeadMax  = 256
	settleBytesMax = 8 << 20
	advanceEvery   = 1024        // the view's floor follows when it lags so far,
	advanceIdle    = time.Second // or after so long
)

// kickSettling wakes the settler if it has anything to do. mu is held.
func (r *runner) kickSettling() {
	if r.settling.isEmpty() && r.plan.floor == r.advanced {
		return
	}
	select {
	case r.settle <- struct{}{}:
	default:
	}
}

// keepSettling commits outcomes as they come, together what came meanwhile, until over; then what is left. One
// record at a time, so that the floor only rises. The floor alone is no hurry.
func (r *runner) keepSettling(over <-chan struct{}) {
	var idle <-chan time.Time
	for {
		last, due := false, false
		select {
		case <-r.settle:
		case <-idle:
			idle, due = nil, true
		case <-over:
			last = true
		}
		if !last && !due && !r.isUrgent() {
			if idle == nil {
				idle = r.e.o.Clock.After(advanceIdle)
			}
			continue
		}
		for r.settleOnce(last) {
		}
		if last {
			return
		}
	}
}

func (r *runner) isUrgent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.settling.isEmpty() || r.plan.floor >= r.advanced+advanceEvery
}

// settleOnce commits one record's worth and answers whether there is more.
func (r *runner) settleOnce(last bool) (more bool) {
	r.mu.Lock()
	r.settling.parked = append(r.settling.parked, r.plan.carry(r.e.o.Clock.Now())...)
	part := r.settling.take()
	floor := r.plan.floor
	r.mu.Unlock()
	if part.isEmpty() && floor == r.advanced {
		return false
	}
	ctx := context.Background() // what was delivered is to be settled even when the engine stops
	_, err := r.e.o.Book.Change(ctx, func(tx *view.Tx) error { return r.commit(tx, part, floor) })
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case quipu.CodeOf(err) == quipu.CodeSuperseded || quipu.CodeOf(err) == quipu.CodeNoSubscription:
		r.settling = outcomes{} // what they were the outcomes of is not delivered any more
		r.plan.notCarried()
		r.carried.Broadcast()
		r.stop()
		return false
	case err != nil:
		r.lastError = err.Error()
		r.settling.putBack(part)
		if last || !r.pauseSettling() {
			r.plan.notCarried() // the node stops; the events are delivered again after the next start
			r.carried.Broadcast()
			return false
		}
		return true
	}
	r.settledDurably(part, floor)
	return !r.settling.isEmpty()
}

// pauseSettling waits after a failure such as a full disk. mu is held, and let go meanwhile.
func (r *runner) pauseSettling() bool {
	r.mu.Unlock()
	defer r.mu.Lock()
	return r.e.sleep(retryAfter, nil)
}

func (r *runner) settledDurably(part outcomes, floor uint64) {
	r.advanced = max(r.advanced, floor)
	items := part.done
	for _, e := range part.ends {
		items = append(items, e.item)
	}
	r.plan.parkedDurably(part.parked, part.groups)
	r.plan.settled(items)
	r.carried.Broadcast()
	r.kickSettling()
	r.notify()
}

// commit adds what was settled to a transaction: dead letters and their acknowledgement in one record.
func (r *runner) commit(tx *view.Tx, part outcomes, floor uint64) error {
	items := slices.Clone(part.done)
	for _, e := range part.ends {
		items = append(items, e.item)
		if !e.keep {
			continue
		}
		err := r.e.o.Store.DeadLetter(tx, r.dead, e.item.event, quipu.DeadLetter{Topic: r.sub.Topic, Subscription: r.sub.Name,
			Offset: e.item.event.Offset, Cause: e.cause, Attempts: e.item.attempts})
		if err != nil {
			return err
		}
	}
	if !part.isEmpty() {
		s := settlement(items)
		s.Parked = part.parked
		if err := r.e.o.Store.Settle(tx, r.sub, s); err != nil {
			return err
		}
	}
	if floor == r.advanced {
		return nil
	}
	return r.e.o.Store.Advance(tx, r.sub, floor)
}

// take takes out what fits into one record. Groups go with the last of the parked.
func (o *outcomes) take() (part outcomes) {
	part.done, o.done = cut(o.done, settleMax)
	part.parked, o.parked = cut(o.parked, settleMax)
	if len(o.parked) == 0 {
		part.groups, o.groups = o.groups, nil
	}
	size := 0
	for len(o.ends) > 0 && len(part.ends) < settleDeadMax && size < settleBytesMax {
		size += len(o.ends[0].item.event.Data)
		part.ends, o.ends = append(part.ends, o.ends[0]), o.ends[1:]
	}
	return part
}

// putBack is the reverse of take.
func (o *outcomes) putBack(part outcomes) {
	later := o.setback
	o.done, o.setback = append(part.done, o.done...), part.setback
	o.add(later)
}

func cut[T any](list []T, most int) (head, tail []T) {
	n := min(most, len(list))
	return list[:n:n], list[n:]
}
