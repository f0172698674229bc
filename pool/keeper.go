package pool

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
)

// errEnded says that a keeper is not there any more: ask the pool for another.
var errEnded = errors.New("the keeper has ended")

// keeper carries out the plan of one revision.
type keeper struct {
	pool     *Pool
	name     string
	revision string
	gone     chan struct{} // closed at the end of run
	poke     chan struct{} // capacity 1: run has to look at once, or earlier than it meant to
	turn     chan struct{} // capacity 1: the namespace has a place for this revision, or wants one from it
	places   *stand        // for calls
	rooms    *stand        // for instances

	mu         sync.Mutex // guards the fields below
	armed      time.Time  // when run looks again; zero for never
	plan       plan
	offered    int  // places for calls that were offered, while update runs
	lacking    bool // it stands in line for a room
	born       bool // something was asked of it
	ended      bool // run is over: nobody acts for the plan
	members    map[int64]*member
	waiters    map[int64]chan verdict
	nextWaiter int64
	last       error          // why the newest one that ended without being asked to did so
	running    sync.WaitGroup // one per member; Add only by run's update or before run ends
}

// member is an instance, or what will be one.
type member struct {
	unit     int64
	id       string
	fn       quipu.Function
	instance quipu.Instance // nil until it was started
	cold     ColdStart      // guarded by keeper.mu, as instance
	begun    time.Time      // of its start; set before it serves, as ready
	ready    time.Time
	cancel   context.CancelFunc // of its start
	killed   chan struct{}      // closed: end it at once
	stopped  chan struct{}      // closed: ask it to end
}

// verdict is what a waiter gets: a member or an error.
type verdict struct {
	member *member
	err    error
}

func newKeeper(p *Pool, fn quipu.Function) *keeper {
	k := &keeper{
		pool: p, name: fn.Name, revision: fn.Revision, poke: make(chan struct{}, 1), turn: make(chan struct{}, 1), gone: make(chan struct{}),
		plan: plan{fn: fn, role: Retired}, members: map[int64]*member{}, waiters: map[int64]chan verdict{},
	}
	k.places, k.rooms = p.places.stand(fn.Name, k.look), p.rooms.stand(fn.Name, k.look)
	k.plan.bounds = bounds{place: k.place, room: k.room, press: k.rooms.isPressed, yield: k.rooms.yield}
	return k
}

// look makes run look what the namespace offers, or wants. It takes no lock.
func (k *keeper) look() {
	select {
	case k.turn <- struct{}{}:
	default: // it will look anyway
	}
}

// room is one for an instance. The caller holds mu.
func (k *keeper) room(force bool) bool {
	ok := k.rooms.take(force)
	k.lacking = k.lacking || !ok
	return ok
}

// place is one for a call. The caller holds mu.
func (k *keeper) place(force bool) bool {
	if k.offered > 0 {
		k.offered--
		return true
	}
	return k.places.take(force)
}

// run wakes the plan when its time comes, until it has nothing left to do.
func (k *keeper) run() {
	defer close(k.gone)
	for {
		k.mu.Lock()
		over := k.over()
		k.ended = over
		at := k.plan.wake()
		k.armed = at
		k.mu.Unlock()
		if over {
			break
		}
		var timer <-chan time.Time
		if !at.IsZero() {
			timer = k.pool.o.Clock.After(at.Sub(k.pool.o.Clock.Now()))
		}
		select {
		case <-timer:
			k.update(func(time.Time) {})
		case <-k.turn:
			k.update(func(time.Time) {})
		case <-k.poke:
		}
	}
	k.running.Wait()
	k.places.leave()
	k.rooms.leave()
}

// update lets an event change the plan, and does what follows from it.
func (k *keeper) update(event func(now time.Time)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.pool.o.Clock.Now()
	event(now)
	k.offered, k.plan.rooms = k.places.accept(), k.rooms.accept()
	for _, a := range k.plan.step(now) {
		k.do(a)
	}
	k.places.give(k.offered, 0) // what it has no use for
	k.rooms.give(k.plan.rooms, 0)
	k.offered, k.plan.rooms = 0, 0
	if k.lacking && k.plan.wanted(now) <= k.plan.current() {
		k.rooms.withdraw()
		k.lacking = false
	}
	at := k.plan.wake()
	earlier := !at.IsZero() && (k.armed.IsZero() || at.Before(k.armed))
	if !earlier && !k.over() {
		return // when run wakes too early it just looks again: a warm call must not cost a switch of goroutines
	}
	select {
	case k.poke <- struct{}{}:
	default: // run will look anyway
	}
}

// over tells whether nothing is left to do: the revision is to end, and nobody waits for it. The caller holds mu.
func (k *keeper) over() bool {
	last := k.plan.removed || k.plan.stopping || k.born && k.plan.role == Retired && len(k.plan.queue) == 0
	return last && len(k.members) == 0
}

// do never blocks: starting and ending happen in the member's goroutine. The caller holds mu.
func (k *keeper) do(a action) {
	switch a.kind {
	case doStart:
		k.start(a)
	case doStop:
		closeOnce(k.members[a.unit].stopped)
	case doKill:
		k.kill(k.members[a.unit])
	case doGrant:
		k.waiters[a.waiter] <- verdict{member: k.members[a.unit]}
		delete(k.waiters, a.waiter)
	case doTell:
		k.tell(k.members[a.unit])
	case doFail:
		k.waiters[a.waiter] <- verdict{err: a.err}
		delete(k.waiters, a.waiter)
	default:
		panic(fmt.Sprintf("action %q", a.kind))
	}
}

// closeOnce closes a channel that only the holder of mu closes.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// kill ends a member at once, whether it starts or runs. The caller holds mu.
func (k *keeper) kill(m *member) {
	m.cancel()
	closeOnce(m.killed)
	if u := k.plan.unit(m.unit); u != nil {
		u.state, u.ending = Draining, true
	}
}

// assign gives the revision a role; false if the keeper has ended.
func (k *keeper) assign(fn quipu.Function, role Role, e estate) (ok bool) {
	k.update(func(time.Time) {
		if ok = !k.ended; ok {
			k.born = true
			k.plan.assign(fn, role, e)
		}
	})
	return ok
}

// retire ends the revision, once its calls are over; from is what role it must have, or "" for any.
func (k *keeper) retire(from Role) {
	k.update(func(time.Time) {
		k.born = true
		if from == "" || k.plan.role == from {
			k.plan.assign(k.plan.fn, Retired, estate{})
		}
	})
}

// try makes a revision that nobody else may be using a trial; false if the keeper has ended.
func (k *keeper) try(fn quipu.Function) bool {
	if role := k.role(); role == Live || role == Named {
		return true
	}
	return k.assign(fn, Trial, estate{})
}

func (k *keeper) role() Role {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.plan.role
}

func (k *keeper) lastError() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

func (k *keeper) hasEnded() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ended
}

// estate is what another revision would take over; of one that stays live, its calls stay its own.
func (k *keeper) estate(stays bool) (e estate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e.serving = k.plan.ready() > 0
	if !stays && k.plan.isLive() {
		e.calls = k.plan.calls()
	}
	return e
}

func (k *keeper) killAll() {
	k.update(func(time.Time) {
		for _, m := range k.members {
			k.kill(m)
		}
	})
}

func (k *keeper) start(a action) {
	ctx, cancel := context.WithCancel(context.Background())
	fn := k.plan.fn
	m := &member{
		unit: a.unit, fn: fn, id: k.name + "-" + fn.Revision[:min(len(fn.Revision), 8)] + "-" + strconv.FormatInt(k.pool.started.Add(1), 10),
		cold:   ColdStart{Wait: a.waited},
		cancel: cancel, killed: make(chan struct{}), stopped: make(chan struct{}),
	}
	k.members[a.unit] = m
	k.running.Go(func() {
		defer cancel()
		err := k.live(ctx, m)
		if err != nil {
			k.pool.o.Logger.Warn("instance ended", "fn", k.name, "instance", m.id, "err", err)
		}
		k.update(func(now time.Time) {
			delete(k.members, m.unit)
			k.vacate(m.unit)
			k.plan.exited(now, m.unit, err)
			if err != nil {
				k.last = err
			}
		})
	})
}

// vacate gives back the room of an instance that is gone. The caller holds mu.
func (k *keeper) vacate(unit int64) {
	yielded := 0
	if u := k.plan.unit(unit); u != nil && u.yielded {
		yielded = 1
	}
	k.rooms.give(1, yielded)
}

// live is the life of an instance from preparation to its end. The error says why it ended, nil if it
// was asked to.
func (k *keeper) live(ctx context.Context, m *member) error {
	inst, release, err := k.bring(ctx, m)
	if release != nil {
		defer release()
	}
	k.pool.o.Started(m.fn, m.cold, err != nil)
	if err != nil {
		return err
	}
	k.update(func(now time.Time) { k.plan.readied(now, m.unit) })
	return k.serve(m, inst)
}

// bring makes an instance that may be called. What release ends is there also if there is an error.
func (k *keeper) bring(ctx context.Context, m *member) (_ quipu.Instance, release func(), _ error) {
	begun := k.pool.o.Clock.Now()
	spec, release, err := k.pool.o.Prepare(ctx, m.fn, m.id)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare instance %s: %w", m.id, err)
	}
	inst, err := k.pool.o.Runtime.Start(ctx, spec)
	if err != nil {
		return nil, release, fmt.Errorf("start instance %s: %w", m.id, err)
	}
	up := k.pool.o.Clock.Now()
	k.mu.Lock()
	m.instance, m.cold.Start = inst, up.Sub(begun)
	k.mu.Unlock()
	if err = inst.Ready(ctx); err == nil {
		err = k.pool.o.Healthy(ctx, m.fn, m.id, inst)
	}
	if err != nil {
		inst.Stop(0)
		return nil, release, fmt.Errorf("start instance %s: %w", m.id, err)
	}
	k.mu.Lock()
	m.begun, m.ready = begun, k.pool.o.Clock.Now()
	m.cold.Init = m.ready.Sub(up)
	k.mu.Unlock()
	return inst, release, nil
}

// serve waits until a ready instance ends, by itself or because it must.
func (k *keeper) serve(m *member, inst quipu.Instance) error {
	select {
	case <-inst.Done():
	case <-m.killed:
		inst.Stop(0)
		return nil
	case <-m.stopped:
		k.stop(m, inst)
		return nil
	}
	return fmt.Errorf("instance %s ended: %s", m.id, inst.Exit())
}

// stop asks, and kills at once if that is wanted meanwhile.
func (k *keeper) stop(m *member, inst quipu.Instance) {
	stopped := make(chan struct{})
	go func() {
		inst.Stop(k.pool.o.Grace)
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-m.killed:
		inst.Stop(0)
		<-stopped
	}
}

func (k *keeper) acquire(ctx context.Context, joined bool) (*Lease, error) {
	return k.await(ctx, joined, func(now time.Time, waiter int64) (*member, error) {
		u, err := k.plan.acquire(now, waiter, joined)
		if u == nil || err != nil {
			return nil, err
		}
		return k.members[u.id], nil
	})
}

// await takes a place as take says, or waits for one. take is called with mu held.
func (k *keeper) await(ctx context.Context, joined bool, take func(now time.Time, waiter int64) (*member, error)) (*Lease, error) {
	m, waiter, answer, err := k.ask(take)
	switch {
	case err != nil:
		return nil, err
	case m != nil:
		return &Lease{keeper: k, member: m, joined: joined}, nil
	}
	select {
	case v := <-answer:
		if v.err != nil {
			return nil, v.err
		}
		return &Lease{keeper: k, member: v.member, joined: joined}, nil
	case <-ctx.Done():
	}
	k.mu.Lock()
	waiting := k.plan.cancel(waiter)
	delete(k.waiters, waiter)
	k.mu.Unlock()
	if waiting {
		k.update(func(time.Time) {}) // it may have been the last
	}
	if v := <-late(waiting, answer); v.member != nil { // the verdict was first; what it granted is given back
		k.update(func(now time.Time) {
			k.places.give(1, 0)
			k.plan.giveBack(now, v.member.unit)
			k.plan.part(joined)
		})
	}
	return nil, acquireEnded(ctx, k.name)
}

// late is the verdict of a waiter that gave up: none if it still waited.
func late(waiting bool, answer chan verdict) <-chan verdict {
	if waiting {
		close(answer)
	}
	return answer
}

// ask takes a free place or a place in the queue.
func (k *keeper) ask(take func(now time.Time, waiter int64) (*member, error)) (m *member, waiter int64, answer chan verdict, err error) {
	k.mu.Lock()
	if k.ended {
		k.mu.Unlock()
		return nil, 0, nil, errEnded
	}
	k.born = true
	k.nextWaiter++
	waiter = k.nextWaiter
	now := k.pool.o.Clock.Now()
	m, err = take(now, waiter)
	if err != nil || m != nil {
		spare := true
		if m != nil {
			spare = k.plan.current() >= k.plan.wanted(now)
		}
		k.mu.Unlock()
		if !spare { // a warm one was taken: start another
			k.update(func(time.Time) {})
		}
		return m, 0, nil, err
	}
	answer = make(chan verdict, 1)
	k.waiters[waiter] = answer
	k.mu.Unlock()
	k.update(func(time.Time) {})
	return nil, waiter, answer, nil
}

func (k *keeper) snapshot() []Info {
	k.mu.Lock()
	defer k.mu.Unlock()
	var infos []Info
	for _, u := range k.plan.units {
		m := k.members[u.id]
		info := Info{
			Function: k.name, Revision: m.fn.Revision, ID: m.id,
			State: u.state, Inflight: max(u.inflight, 0), Started: u.started, Cold: m.cold,
		}
		if m.instance != nil {
			info.PID = m.instance.PID()
		}
		infos = append(infos, info)
	}
	return infos
}
