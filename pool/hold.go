package pool

import (
	"context"
	"slices"
	"time"

	"github.com/quipu-run/quipu"
)

// boundMax is how many calls of a revision may wait for places in certain instances.
const boundMax = 10_000

// Hold keeps an instance that serves from being stopped for idleness, until release is called: something lives in it. If the
// instance has to go all the same, since its revision is retired or the function removed, it takes no calls but those of AcquireAt,
// Options.Leaving is called, and it is stopped after release. ok is false if it does not serve. A hold keeps no instance that is
// killed.
func (p *Pool) Hold(fn quipu.Function, instance string) (release func(), ok bool) {
	k := p.keeperOf(fn)
	if k == nil {
		return nil, false
	}
	var unit int64
	k.update(func(time.Time) {
		if m := k.memberOf(instance); m != nil {
			if u := k.plan.unit(m.unit); u != nil && u.state == Ready {
				u.held++
				unit, ok = u.id, true
			}
		}
	})
	if !ok {
		return nil, false
	}
	return func() {
		k.update(func(now time.Time) {
			if u := k.plan.unit(unit); u != nil {
				u.held--
				u.used = now
			}
		})
	}, true
}

// Serving lists the instances of a revision that take calls, in order of their start.
func (p *Pool) Serving(fn quipu.Function) (ids []string) {
	k := p.keeperOf(fn)
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range k.plan.units {
		if u.state == Ready {
			ids = append(ids, k.members[u.id].id)
		}
	}
	return ids
}

// AcquireAt waits for a place in one instance that serves or is held. A call within another does not wait for a place in it: those who
// have all of them may wait for that call. CodeNoActorHost if the instance takes no calls any more, CodeBusy, CodeTimeout.
func (p *Pool) AcquireAt(ctx context.Context, fn quipu.Function, instance string, within bool) (*Lease, error) {
	k := p.keeperOf(fn)
	if k == nil {
		return nil, gone(instance)
	}
	return k.await(ctx, false, func(_ time.Time, waiter int64) (*member, error) {
		m := k.memberOf(instance)
		if m == nil {
			return nil, gone(instance)
		}
		granted, err := k.plan.acquireAt(waiter, m.unit, within)
		if !granted || err != nil {
			return nil, err
		}
		return m, nil
	})
}

func gone(instance string) error {
	return &quipu.Error{Code: quipu.CodeNoActorHost, Op: "instance.acquire", Text: "instance " + instance + " takes no calls any more"}
}

// keeperOf is that of a revision, also of a function that is being removed; nil if there is none.
func (p *Pool) keeperOf(fn quipu.Function) *keeper {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.keepers[keyOf(fn)]; k != nil {
		return k
	}
	for k := range p.leaving {
		if k.name == fn.Name && k.revision == fn.Revision {
			return k
		}
	}
	return nil
}

// memberOf finds an instance by its id. The caller holds mu.
func (k *keeper) memberOf(instance string) *member {
	for _, m := range k.members {
		if m.id == instance {
			return m
		}
	}
	return nil
}

// tell calls Leaving. The caller holds mu.
func (k *keeper) tell(m *member) {
	if leaving := k.pool.o.Leaving; leaving != nil {
		k.running.Go(func() { leaving(m.fn, m.id) })
	}
}

// keeps tells whether a unit stays although it has no calls, because it is held and its revision has not ended.
func (p *plan) keeps(u *unit) bool { return u.held > 0 && p.role != Retired }

// acquireAt grants a place in a unit, or queues the waiter for one.
func (p *plan) acquireAt(id, unit int64, within bool) (granted bool, err error) {
	u := p.unit(unit)
	if u == nil || !u.takes() {
		return false, &quipu.Error{Code: quipu.CodeNoActorHost, Op: "instance.acquire", Text: "the instance takes no calls any more"}
	}
	if (within || u.inflight < slots(p.fn) && !p.isAwaited(unit)) && p.bounds.mayRun(within) {
		u.inflight++
		return true, nil
	}
	if len(p.bound) >= boundMax {
		return false, &quipu.Error{Code: quipu.CodeBusy, Op: "instance.acquire", Text: "too many calls wait for instances of function " + p.fn.Name}
	}
	p.bound = append(p.bound, waiter{id: id, unit: unit, joined: within})
	return false, nil
}

// isAwaited tells whether somebody waits for a place in the unit already.
func (p *plan) isAwaited(unit int64) bool {
	return slices.ContainsFunc(p.bound, func(w waiter) bool { return w.unit == unit })
}

func (p *plan) cancelBound(id int64) bool {
	before := len(p.bound)
	p.bound = slices.DeleteFunc(p.bound, func(w waiter) bool { return w.id == id })
	return len(p.bound) < before
}

// grantBound gives places to those who want them in certain units. Those whose unit is gone, or goes, are refused.
func (p *plan) grantBound(todo []action) []action {
	p.bound = slices.DeleteFunc(p.bound, func(w waiter) bool {
		u := p.unit(w.unit)
		switch {
		case u == nil || !u.takes():
			todo = append(todo, action{kind: doFail, waiter: w.id, err: &quipu.Error{Code: quipu.CodeNoActorHost, Op: "instance.acquire", Text: "the instance takes no calls any more"}})
			return true
		case !w.joined && u.inflight >= slots(p.fn) || !p.bounds.mayRun(w.joined):
			return false
		}
		u.inflight++
		todo = append(todo, action{kind: doGrant, unit: u.id, waiter: w.id})
		return true
	})
	return todo
}

// tell lets those who hold units that drain know it, once.
func (p *plan) tell(todo []action) []action {
	for _, u := range p.units {
		if u.state == Draining && u.held > 0 && !u.told && !u.ending {
			u.told = true
			todo = append(todo, action{kind: doTell, unit: u.id})
		}
	}
	return todo
}
