package pool

import (
	"slices"
	"time"

	"github.com/quipu-run/quipu/internal/autoscale"
)

// load is what the plan of a function whose instances take many calls at a time knows of the past. The zero load knows
// nothing.
type load struct {
	scaler *autoscale.Scaler
	meter  autoscale.Meter
	wish   int       // instances that the windows ask for
	next   time.Time // when they are asked again; zero if they have nothing to say
	busy   time.Time // when there was a call last
}

// isShared tells whether instances take many calls at a time, so that the past says how many are worth their start. With
// one call each there is an instance per call, and one of a retired revision only ends what it has.
func (p *plan) isShared() bool { return slots(p.fn) > 1 && p.role != Retired }

// calls is how many wait or run.
func (p *plan) calls() int {
	n := 0
	if !p.crowded { // else they wait for others than their own
		n = len(p.queue)
	}
	for _, u := range p.units {
		n += u.inflight
	}
	return n
}

// observe notes how many calls there are from now on. It is on the way of every call.
func (p *plan) observe(now time.Time) (calls int) {
	if !p.isShared() {
		return 0
	}
	calls = p.calls()
	if p.load.scaler == nil && calls == 0 {
		return 0
	}
	if p.load.scaler == nil {
		window := p.fn.Spec.Scale.Window.Std()
		if window == 0 {
			window = autoscale.WindowDefault
		}
		p.load.scaler = autoscale.New(slots(p.fn), window)
		p.load.meter.To = p.load.scaler
	}
	if calls > 0 {
		p.load.busy = now
	}
	p.load.meter.Set(now, calls)
	return calls
}

// consult asks the windows, each tick, until a function is idle: then they are forgotten, and it goes to zero. Of the ready
// ones only those count that the windows asked for: instances that impatience started in between would hide a surge.
func (p *plan) consult(now time.Time) {
	switch calls := p.observe(now); {
	case !p.isShared():
	case calls == 0 && !now.Before(p.load.busy.Add(p.fn.Spec.Scale.Idle.Std())):
		p.load = load{}
	case !now.Before(p.load.next):
		p.load.wish = p.load.scaler.Want(now, min(p.ready(), p.load.wish))
		p.load.next = now.Add(autoscale.Tick)
	}
}

// consultAt is when consult has something to do; zero for never.
func (p *plan) consultAt() time.Time {
	at := p.load.next
	if idle := p.load.busy.Add(p.fn.Spec.Scale.Idle.Std()); !at.IsZero() && p.calls() == 0 && idle.Before(at) {
		at = idle
	}
	return at
}

// overdue is how many waiters have no patience left. Those of joined calls have none: others may wait for them.
func (p *plan) overdue(now time.Time) int {
	first := p.joinedWaiting()
	late, _ := slices.BinarySearchFunc(p.queue[first:], now.Add(-patienceMax), func(w waiter, limit time.Time) int {
		if w.since.After(limit) {
			return 1
		}
		return -1
	})
	return first + late
}

// impatientAt is when the next waiter loses its patience, if that makes a difference; zero for never.
func (p *plan) impatientAt(now time.Time) time.Time {
	if len(p.queue) == 0 || !p.isShared() || p.crowded || p.current() >= p.most() {
		return time.Time{}
	}
	if n := p.overdue(now); n < len(p.queue) {
		return p.queue[n].since.Add(patienceMax)
	}
	return time.Time{}
}
