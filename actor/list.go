package actor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/quipu-run/quipu"
)

// Actors lists what is active, by type and id.
func (e *Engine) Actors(_ context.Context, l quipu.ActorList) (page quipu.ActorPage, err error) {
	if l.Limit < 0 || l.Limit > quipu.ActorsListMax {
		return page, &quipu.Error{Code: quipu.CodeUsage, Op: "actor.list", Text: fmt.Sprintf("a page has 1 to %d actors", quipu.ActorsListMax)}
	}
	limit := cmp.Or(l.Limit, quipu.ActorsListMax)
	page.Actors = []quipu.ActorInfo{}
	all := e.settled(l)
	for i, a := range all {
		if i == limit {
			last := all[i-1].key
			page.Next = &last
			break
		}
		page.Actors = append(page.Actors, e.info(a))
	}
	return page, nil
}

// settled are those that a list asks for, in order.
func (e *Engine) settled(l quipu.ActorList) (all []*activation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, a := range e.active {
		if (l.Type == "" || k.Type == l.Type) && compare(k, l.After) > 0 && isClosed(a.ready) && a.err == nil {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *activation) int { return compare(a.key, b.key) })
	return all
}

func compare(a, b quipu.ActorKey) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.ID, b.ID))
}

func (e *Engine) info(a *activation) quipu.ActorInfo {
	i := quipu.ActorInfo{ActorKey: a.key, Function: a.f.Name, Instance: a.instance, Since: a.since, Token: a.lease.Token}
	i.Busy, i.Waiting = a.lock.state()
	e.mu.Lock()
	defer e.mu.Unlock()
	i.Timers = len(e.timers[a.key])
	return i
}

// Lease is that of an actor which lives in an instance. CodeNoActorHost if it does not.
func (e *Engine) Lease(instance string, k quipu.ActorKey) (quipu.Lease, error) {
	e.mu.Lock()
	a := e.active[k]
	e.mu.Unlock()
	if a == nil || !isClosed(a.ready) || a.err != nil || a.instance != instance {
		return quipu.Lease{}, &quipu.Error{Code: quipu.CodeNoActorHost, Op: "actor.state", Text: fmt.Sprintf("actor %s does not live in instance %s", k, instance)}
	}
	return a.lease, nil
}

// Active counts the actors in an instance, by type.
func (e *Engine) Active(instance string) map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := map[string]int{}
	if h := e.hosts[instance]; h != nil {
		for a := range h.actors {
			counts[a.key.Type]++
		}
	}
	return counts
}

// Counts are what is known of each type.
func (e *Engine) Counts() map[string]Count {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.counts)
}

// Plus adds two counts up.
func (c Count) Plus(o Count) Count {
	return Count{Active: c.Active + o.Active, Timers: c.Timers + o.Timers, Activations: c.Activations + o.Activations, Deactivations: c.Deactivations + o.Deactivations,
		TurnsOfTimers: c.TurnsOfTimers + o.TurnsOfTimers, FailedTimers: c.FailedTimers + o.FailedTimers}
}
