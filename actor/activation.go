package actor

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
)

const leasePrefix = "actor/"

// LeaseName is the name of the lease of an actor.
func LeaseName(k quipu.ActorKey) string { return leasePrefix + url.PathEscape(k.Type) + "/" + k.ID }

// activation is an actor that lives in an instance, or will.
type activation struct {
	key   quipu.ActorKey
	ready chan struct{} // closed when the fields below are set
	err   error         // why it did not become active

	of       quipu.ActorType
	f        quipu.Function
	instance string
	lease    quipu.Lease
	since    time.Time
	lock     *lock

	ctx    context.Context // of its turns; ends when they have to
	cancel context.CancelFunc
	gone   chan struct{} // closed when it does not live here any more
	leave  sync.Once
	met    atomic.Bool  // the instance may know of it
	stale  atomic.Bool  // what the instance has of it in memory does not count
	used   atomic.Int64 // when a turn began or ended, Unix nanoseconds
	idle   *item        // guarded by agenda.mu
}

// find answers an active actor, which it makes active if need be.
func (e *Engine) find(ctx context.Context, k quipu.ActorKey) (*activation, error) {
	a, err := e.entry(k)
	if err != nil {
		return nil, err
	}
	select {
	case <-a.ready:
		return a, a.err
	default:
	}
	select {
	case <-a.ready:
		return a, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *Engine) entry(k quipu.ActorKey) (*activation, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if a := e.active[k]; a != nil {
		return a, nil
	}
	switch {
	case e.closed:
		return nil, &quipu.Error{Code: quipu.CodeStopping, Op: "actor.call"}
	case len(e.active) >= quipu.ActorsActiveMax:
		return nil, &quipu.Error{Code: quipu.CodeBusy, Op: "actor.call", Text: fmt.Sprintf("%d actors are active, which is the most", quipu.ActorsActiveMax)}
	}
	a := &activation{key: k, ready: make(chan struct{}), gone: make(chan struct{})}
	a.ctx, a.cancel = context.WithCancel(e.ctx)
	e.active[k] = a
	e.tasks.Go(func() { e.begin(a) })
	return a, nil
}

// begin makes an actor active. It does not depend on who called first: others wait for it too.
func (e *Engine) begin(a *activation) {
	ctx, cancel := context.WithTimeout(e.ctx, startMax)
	defer cancel()
	defer close(a.ready)
	if a.err = e.settle(ctx, a); a.err != nil {
		e.mu.Lock()
		delete(e.active, a.key)
		e.mu.Unlock()
		a.cancel()
		close(a.gone)
	}
}

// settle finds an instance for an actor, and takes its lease for it.
func (e *Engine) settle(ctx context.Context, a *activation) error {
	if err := e.house(ctx, a); err != nil {
		return err
	}
	var err error
	if a.lease, err = e.take(ctx, a); err != nil {
		e.unhouse(a)
		return err
	}
	a.lock = newLock(a.of.Depth)
	a.since = e.o.Clock.Now()
	a.used.Store(a.since.UnixNano())
	a.idle = &item{due: func() { e.expire(a) }}
	e.agenda.set(a.idle, a.since.Add(a.of.Idle.Std()))
	e.count(a.key.Type, func(c *Count) { c.Active++; c.Activations++ })
	return nil
}

// house finds an instance that takes the actor in.
func (e *Engine) house(ctx context.Context, a *activation) error {
	for range movesMax {
		h, err := e.o.Find(a.key.Type)
		if err != nil {
			return err
		}
		instance := choose(h.Instances, a.key)
		if instance == "" {
			if instance, err = e.o.Wake(ctx, h.Function); err != nil {
				return err
			}
		}
		a.of, a.f, a.instance = h.Type, h.Function, instance
		if e.moveIn(a) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return noHost(a.key, "its instances end as soon as they are chosen")
}

// moveIn notes the actor with its instance, which is held while any actor lives in it.
func (e *Engine) moveIn(a *activation) bool {
	release, ok := e.o.Hold(a.f, a.instance)
	if !ok {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.hosts[a.instance]
	if h == nil {
		h = &host{release: release, actors: map[*activation]bool{}}
		e.hosts[a.instance] = h
	} else {
		defer release() // it is held already
	}
	h.actors[a] = true
	return true
}

func (e *Engine) unhouse(a *activation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.hosts[a.instance]
	if h == nil || !h.actors[a] {
		return
	}
	if delete(h.actors, a); len(h.actors) == 0 {
		delete(e.hosts, a.instance)
		defer h.release()
	}
}

// choose is rendezvous hashing: an actor goes to the same instance for as long as that is there, whatever others come and go.
func choose(instances []string, k quipu.ActorKey) (best string) {
	var most uint64
	for _, one := range instances {
		h := fnv.New64a()
		h.Write([]byte(one + "\x00" + k.Type + "\x00" + k.ID))
		if weight := mix(h.Sum64()); best == "" || weight > most || weight == most && one < best {
			best, most = one, weight
		}
	}
	return best
}

// mix is the finalizer of MurmurHash3: FNV alone hardly moves its upper bits for what differs at the end.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func noHost(k quipu.ActorKey, why string) error {
	return &quipu.Error{Code: quipu.CodeNoActorHost, Op: "actor.call", Text: fmt.Sprintf("actor %s has no instance to live in: %s", k, why), Hint: quipu.Codes[quipu.CodeNoActorHost].Next}
}

// owner names an instance of this run.
func (e *Engine) owner(instance string) string { return instance + "@" + e.run }

func (e *Engine) owns(l quipu.Lease) bool { return strings.HasSuffix(l.Owner, "@"+e.run) }

// take takes the lease. Another that holds it is not there any more: an actor lives in one place at a time, and this is it.
func (e *Engine) take(ctx context.Context, a *activation) (l quipu.Lease, err error) {
	for range takesMax {
		l, err = e.o.Leases.TakeLease(ctx, LeaseName(a.key), e.owner(a.instance), 0)
		if quipu.CodeOf(err) != quipu.CodeLeaseLost {
			return l, err
		}
		if err := e.o.Leases.ReleaseLease(ctx, l); err != nil {
			return l, err
		}
	}
	return l, err
}

// expire has an actor leave that has had no turn for the time of its type.
func (e *Engine) expire(a *activation) {
	until := time.Unix(0, a.used.Load()).Add(a.of.Idle.Std())
	if busy, _ := a.lock.state(); busy {
		until = e.o.Clock.Now().Add(a.of.Idle.Std())
	}
	if until.After(e.o.Clock.Now()) {
		e.agenda.set(a.idle, until)
		return
	}
	e.tasks.Go(func() { e.deactivate(e.ctx, a) })
}

func (e *Engine) leaveAll(ctx context.Context, all []*activation) {
	places := make(chan struct{}, drainsAtOnce)
	var leaving sync.WaitGroup
	for _, a := range all {
		places <- struct{}{}
		leaving.Go(func() {
			e.deactivate(ctx, a)
			<-places
		})
	}
	leaving.Wait()
}

// deactivate lets the turn under way end, tells the instance, and gives the lease back. It returns when the actor is gone, whoever
// does that. An instance that does not answer loses the actor all the same.
func (e *Engine) deactivate(ctx context.Context, a *activation) {
	<-a.ready
	if a.err != nil {
		return
	}
	a.leave.Do(func() {
		a.lock.close()
		e.await(ctx, a)
		select {
		case <-a.gone: // with its instance
			return
		default:
		}
		if a.met.Load() {
			e.forget(ctx, a)
		}
		if err := e.o.Leases.ReleaseLease(ctx, a.lease); err != nil && ctx.Err() == nil {
			e.o.Logger.Warn("the lease of an actor was not given back", "actor", a.key.String(), "err", err)
		}
		e.remove(a)
	})
}

// await lets a turn under way end, within the time of the type, and then cuts it.
func (e *Engine) await(ctx context.Context, a *activation) {
	if a.of.Drain > 0 {
		select {
		case <-a.lock.idle:
			return
		case <-ctx.Done():
		case <-e.o.Clock.After(a.of.Drain.Std()):
		}
	}
	a.cancel()
	select {
	case <-a.lock.idle:
	case <-ctx.Done():
	case <-e.o.Clock.After(drainGrace):
	}
}

// forget tells the instance that the actor does not live in it.
func (e *Engine) forget(ctx context.Context, a *activation) {
	ctx, cancel := context.WithTimeout(ctx, forgetMax)
	defer cancel()
	if err := e.o.Forget(ctx, a.f, a.instance, a.key); err != nil && !errors.Is(err, context.Canceled) {
		e.o.Logger.Warn("an application did not deactivate an actor", "fn", a.f.Name, "actor", a.key.String(), "err", err)
	}
}

// remove takes the actor, and its timers, out of all lists.
func (e *Engine) remove(a *activation) {
	e.mu.Lock()
	if e.active[a.key] != a {
		e.mu.Unlock()
		return
	}
	delete(e.active, a.key)
	e.dropTimers(a.key)
	e.mu.Unlock()
	e.agenda.drop(a.idle)
	e.unhouse(a)
	a.cancel()
	e.count(a.key.Type, func(c *Count) { c.Active--; c.Deactivations++ })
	close(a.gone)
}

func (e *Engine) count(actorType string, change func(*Count)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.counts[actorType]
	change(&c)
	e.counts[actorType] = c
}
