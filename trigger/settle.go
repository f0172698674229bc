package trigger

import (
	"context"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
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
	s := r.settlement(part.items(), part.parked)
	r.mu.Unlock()
	if part.isEmpty() && s.Floor == 0 {
		return false
	}
	ctx := context.Background() // what was delivered is to be settled even when the engine stops
	_, err := r.e.o.Book.Change(ctx, func(tx *view.Tx) error { return r.commit(tx, part, s) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noted(s.Done, err == nil, s.Floor)
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
	r.settledDurably(part)
	return !r.settling.isEmpty()
}

// pauseSettling waits after a failure such as a full disk. mu is held, and let go meanwhile.
func (r *runner) pauseSettling() bool {
	r.mu.Unlock()
	defer r.mu.Lock()
	return r.e.sleep(retryAfter, nil)
}

// settlement is the form in which the view takes items that are done, or given up, and parked ones. It raises the
// floor as far as it then can, unless another that does so is under way. mu is held.
func (r *runner) settlement(items []*item, parked []delivery.Parked) (s delivery.Settlement) {
	now := make(map[uint64]bool, len(items)+len(parked))
	s.Parked = parked
	for _, p := range parked {
		now[p.Offset] = true
	}
	for _, it := range items {
		now[it.event.Offset] = true
		s.Open = append(s.Open, it.event.Offset)
		if it.attempts > 0 || it.parked {
			s.Forget = append(s.Forget, it.event.Offset)
		}
	}
	if floor := r.plan.floorWith(now); !r.raising && floor > r.advanced {
		r.raising, s.Floor = true, floor
		for offset := range r.marks {
			if offset <= floor {
				s.Clear = append(s.Clear, offset)
			}
		}
	}
	for _, it := range items {
		if it.event.Offset > max(s.Floor, r.advanced) {
			s.Done = append(s.Done, it.event.Offset)
		}
	}
	for _, list := range [][]uint64{s.Open, s.Done, s.Forget, s.Clear} {
		slices.Sort(list)
	}
	return s
}

// noted remembers what a settlement has made of the view. mu is held.
func (r *runner) noted(done []uint64, settled bool, floor uint64) {
	if floor > 0 {
		r.raising = false
	}
	if !settled {
		return
	}
	if floor > 0 {
		r.advanced = floor
	}
	for _, offset := range done {
		if offset > r.advanced {
			r.marks[offset] = true
		}
	}
	if floor == 0 {
		return
	}
	for offset := range r.marks {
		if offset <= floor {
			delete(r.marks, offset)
		}
	}
}

// settledIn are the offsets of a group that its settlement marked as done.
func settledIn(g *group) (done []uint64) {
	for _, it := range g.items {
		if it.event.Offset > g.floor {
			done = append(done, it.event.Offset)
		}
	}
	return done
}

func (r *runner) settledDurably(part outcomes) {
	r.observe(part)
	r.plan.parkedDurably(part.parked, part.groups)
	r.plan.settled(part.items())
	r.carried.Broadcast()
	r.kickSettling()
	r.notify()
}

// observe tells what became of events, but of those that an atomic function settled itself.
func (r *runner) observe(part outcomes) {
	dead := 0
	for _, e := range part.ends {
		if e.keep {
			dead++
		}
	}
	for what, n := range map[Fate]int{FateDone: len(part.done), FateRetried: len(part.parked), FateDead: dead, FateDropped: len(part.ends) - dead} {
		if n > 0 {
			r.e.o.Observe(r.sub.Name, what, n)
		}
	}
}

// commit adds what was settled to a transaction: dead letters and their acknowledgement in one record.
func (r *runner) commit(tx *view.Tx, part outcomes, s delivery.Settlement) error {
	for _, e := range part.ends {
		if !e.keep {
			continue
		}
		err := r.e.o.Store.DeadLetter(tx, r.dead, e.item.event, quipu.DeadLetter{Topic: r.sub.Topic, Subscription: r.sub.Name,
			Offset: e.item.event.Offset, Cause: e.cause, Attempts: e.item.attempts})
		if err != nil {
			return err
		}
	}
	return r.e.o.Store.Settle(tx, r.sub, s)
}

// items are those that are done or given up.
func (o *outcomes) items() []*item {
	items := slices.Clone(o.done)
	for _, e := range o.ends {
		items = append(items, e.item)
	}
	return items
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
