// Package pool keeps the instances of functions: it starts them when calls come, holds the calls
// meanwhile, lets as many calls into an instance as its concurrency allows, and stops what is idle.
//
// What to do is decided by plan, which is values in and values out and runs on virtual time in its
// tests; this file and keeper.go only do it. Every Acquire ends with an instance or a coded error: the queue is
// bounded, starts have a timeout, and failures are repeated with a growing pause.
//
// Each revision of a function has instances of its own, and a call says which revision it is for: calls under way and
// those that wait finish on theirs, whatever Set says meanwhile. Try starts an instance of a revision that has no
// traffic yet, and keeps it as the first warm one. scale.max bounds the instances of one revision that serve or start;
// those that are being stopped come on top, so that no call waits for the end of another. Where an instance takes many calls
// at a time, package internal/autoscale says how many are wanted (load.go).
//
// The functions of a pool share a bound of calls that run and one of instances. Beyond, they take turns (gate.go).
//
// Nothing here is durable. After a crash of the node package process has ended the instances, and the
// pool starts from nothing with the functions it is given by Set.
package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
)

// Options of a pool. Runtime and Prepare are required.
type Options struct {
	Runtime quipu.Runtime
	// Prepare says how to start an instance of fn; release is called once when it is gone, and may be
	// nil. Its time counts as start time.
	Prepare func(ctx context.Context, fn quipu.Function, instance string) (spec quipu.InstanceSpec, release func(), err error)
	// Healthy waits until an instance that listens may be called; nil means that it may. Its time counts as start time.
	Healthy func(ctx context.Context, fn quipu.Function, instance string, i quipu.Instance) error
	// Bounds of all functions together. Calls that are part of others go beyond.
	CallsMax     int // that run at a time; 0 means CallsMaxDefault
	InstancesMax int // that start, serve or end; 0 means InstancesMaxDefault
	// Started hears of each start of an instance; failed ones have not taken a call. It must not block.
	Started func(fn quipu.Function, c ColdStart, failed bool)
	// Leaving hears of a held instance that has to go (see Hold). It is called in a goroutine of its own; nil means that nobody cares.
	Leaving func(fn quipu.Function, instance string)
	Clock   quipu.Clock   // nil means the system's
	Grace   time.Duration // between asking an instance to end and killing it; 0 means 5 s
	Logger  *slog.Logger  // nil means none
}

// ColdStart is what a start took: Wait until it was begun, of the call that waited longest for it, 0 if none did; Start
// until the instance ran, with what had to be made for it; Init until it listened and was healthy.
type ColdStart struct{ Wait, Start, Init time.Duration }

// Defaults of Options.
const (
	CallsMaxDefault     = 10_000
	InstancesMaxDefault = 1000
)

// Pool holds the instances of all functions of a node.
type Pool struct {
	o Options

	started atomic.Int64 // instances, for their names
	places  *gate        // of calls
	rooms   *gate        // of instances

	mu        sync.Mutex // guards the fields below
	functions map[string]bool
	keepers   map[key]*keeper
	leaving   map[*keeper]bool // of removed functions, until their last instance is gone
	closed    bool

	work sync.WaitGroup // goroutines of keepers
}

// key names a revision.
type key struct{ function, revision string }

func keyOf(fn quipu.Function) key { return key{fn.Name, fn.Revision} }

// New makes an empty pool.
func New(o Options) *Pool {
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Grace == 0 {
		o.Grace = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Started == nil {
		o.Started = func(quipu.Function, ColdStart, bool) {}
	}
	if o.Healthy == nil {
		o.Healthy = func(context.Context, quipu.Function, string, quipu.Instance) error { return nil }
	}
	rooms := newGate(cmp.Or(o.InstancesMax, InstancesMaxDefault))
	rooms.rallying = true
	return &Pool{o: o, places: newGate(cmp.Or(o.CallsMax, CallsMaxDefault)), rooms: rooms, functions: map[string]bool{}, keepers: map[key]*keeper{}, leaving: map[*keeper]bool{}}
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Set says which revisions of a function have traffic, and which have a name besides; others are retired: their
// instances end with their calls. It must be called for every function before it can be acquired. Instances that
// scale.min asks for start, and of a revision that takes over from another those that the other's calls need. Nothing happens after Close.
func (p *Pool) Set(name string, live, named []quipu.Function) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.functions[name] = true
	roles, left := map[string]bool{}, p.estate(name, live)
	assign := func(fn quipu.Function, role Role) {
		roles[fn.Revision] = true
		for !p.keeper(fn).assign(fn, role, left) {
		}
	}
	reserved := 0
	for _, fn := range live {
		assign(fn, Live)
		reserved = max(reserved, fn.Spec.Scale.Reserved)
	}
	p.places.reserve(name, reserved)
	for _, fn := range named {
		assign(fn, Named)
	}
	for _, k := range p.of(name) {
		if role := k.role(); !roles[k.revision] && role != Trial {
			k.retire("")
		}
	}
}

// estate is what each revision of live gets of those that it takes over from. The caller holds mu.
func (p *Pool) estate(name string, live []quipu.Function) (e estate) {
	heirs := len(live)
	for _, k := range p.of(name) {
		stays := slices.ContainsFunc(live, func(fn quipu.Function) bool { return fn.Revision == k.revision })
		left := k.estate(stays)
		e.serving, e.calls = e.serving || left.serving, e.calls+left.calls
		if stays && k.role() == Live {
			heirs--
		}
	}
	e.calls /= max(1, heirs)
	return e
}

// keeper is that of a revision; it makes one if there is none that has not ended. The caller holds mu.
func (p *Pool) keeper(fn quipu.Function) *keeper {
	k := p.keepers[keyOf(fn)]
	if k == nil || k.hasEnded() {
		k = newKeeper(p, fn)
		p.keepers[keyOf(fn)] = k
		p.work.Go(func() { p.keep(k) })
	}
	return k
}

// keep runs a keeper to its end.
func (p *Pool) keep(k *keeper) {
	k.run()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(k)
}

// of is the keepers of a function. The caller holds mu.
func (p *Pool) of(name string) (all []*keeper) {
	for of, k := range p.keepers {
		if of.function == name {
			all = append(all, k)
		}
	}
	return all
}

// Try starts an instance of a revision that has no traffic, unless one runs, and answers with a place in it when it may
// be called. It stays until Settle, with traffic or without. The error of one that does not start is the cause, with
// CodeStart at the start timeout; the instance is gone by then, unless it holds out longer than Grace.
func (p *Pool) Try(ctx context.Context, fn quipu.Function) (*Lease, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, &quipu.Error{Code: quipu.CodeStopping, Op: "instance.try"}
	}
	k := p.keeper(fn)
	for !k.try(fn) {
		k = p.keeper(fn)
	}
	p.mu.Unlock()
	l, err := k.acquire(ctx, false)
	if err == nil {
		return l, nil
	}
	k.retire(Trial)
	select {
	case <-k.gone: // it was killed, or has ended by itself
	case <-p.o.Clock.After(p.o.Grace): // or others call the revision by its name
	}
	return nil, cause(err, k.lastError())
}

// cause is why a start failed: what the plan was told, and what the instance said when it was stopped for it.
func cause(err, last error) error {
	var e *quipu.Error
	if !errors.As(err, &e) || e.Code != quipu.CodeStart || e.Err == nil {
		return err
	}
	if last == nil || errors.Is(e.Err, last) {
		return e.Err
	}
	return fmt.Errorf("%w: %w", e.Err, last)
}

// Settle ends what Try began: unless Set gave the revision traffic or a name meanwhile, its instance ends.
func (p *Pool) Settle(fn quipu.Function) {
	p.mu.Lock()
	k := p.keepers[keyOf(fn)]
	p.mu.Unlock()
	if k != nil {
		k.retire(Trial)
	}
}

// Remove ends a function: waiting calls get CodeNoFunction, calls under way finish.
func (p *Pool) Remove(name string) {
	p.mu.Lock()
	delete(p.functions, name)
	leaving := p.of(name)
	for _, k := range leaving {
		delete(p.keepers, key{k.name, k.revision})
		p.leaving[k] = true
	}
	p.mu.Unlock()
	p.places.reserve(name, 0)
	for _, k := range leaving {
		k.update(func(time.Time) { k.plan.removed = true })
	}
}

// Busy lists the revisions of a function that have instances, or calls that wait for one, also if it was removed.
func (p *Pool) Busy(name string) (revisions []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.of(name)
	for k := range p.leaving {
		if k.name == name {
			all = append(all, k)
		}
	}
	for _, k := range all {
		if !k.hasEnded() {
			revisions = append(revisions, k.revision)
		}
	}
	return revisions
}

// Acquire waits for a free place in an instance of a revision, and starts one if needed.
// CodeNoFunction, CodeStart, CodeBusy, CodeStopping; CodeTimeout at ctx's deadline, ctx's error if it is cancelled.
func (p *Pool) Acquire(ctx context.Context, fn quipu.Function) (*Lease, error) {
	return p.acquire(ctx, fn, false)
}

// AcquireJoined is Acquire for a call that is part of another: it goes before others and may get an instance
// beyond scale.max, since those who hold all instances may wait for the call that it is part of.
func (p *Pool) AcquireJoined(ctx context.Context, fn quipu.Function) (*Lease, error) {
	return p.acquire(ctx, fn, true)
}

func (p *Pool) acquire(ctx context.Context, fn quipu.Function, joined bool) (*Lease, error) {
	for {
		k, err := p.serving(fn)
		if err != nil {
			return nil, err
		}
		if l, err := k.acquire(ctx, joined); !errors.Is(err, errEnded) {
			return l, err
		}
		p.mu.Lock()
		p.drop(k)
		p.mu.Unlock()
	}
}

// serving is the keeper of a revision that is called; it may have ended meanwhile. This is on the way of every call.
func (p *Pool) serving(fn quipu.Function) (*keeper, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, &quipu.Error{Code: quipu.CodeStopping, Op: "instance.acquire"}
	case !p.functions[fn.Name]:
		return nil, noFunction(fn.Name)
	}
	if k := p.keepers[keyOf(fn)]; k != nil {
		return k, nil
	}
	return p.keeper(fn), nil
}

// drop forgets a keeper that has ended. The caller holds mu.
func (p *Pool) drop(k *keeper) {
	delete(p.leaving, k)
	if of := (key{k.name, k.revision}); p.keepers[of] == k {
		delete(p.keepers, of)
	}
}

// Close refuses new calls, waits for those under way until ctx ends, stops all instances, and
// returns when they are gone: ctx's error if some calls were cut off.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	keepers := p.all()
	for k := range p.leaving {
		keepers = append(keepers, k)
	}
	p.mu.Unlock()
	for _, k := range keepers {
		k.update(func(time.Time) { k.plan.stopping = true })
	}
	gone := make(chan struct{})
	go func() {
		p.work.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	for _, k := range keepers {
		k.killAll()
	}
	<-gone
	return ctx.Err()
}

// Info is an instance as the admin API shows it.
type Info struct {
	Function string    `json:"function"`
	Revision string    `json:"revision"`
	ID       string    `json:"id"`
	PID      int       `json:"pid"`
	State    State     `json:"state"`
	Inflight int       `json:"inflight"`
	Started  time.Time `json:"started"`
	Cold     ColdStart `json:"-"` // as far as it is over
}

// Snapshot lists the instances of functions that are deployed, by function and age.
func (p *Pool) Snapshot() []Info {
	p.mu.Lock()
	keepers := p.all()
	p.mu.Unlock()
	infos := []Info{}
	for _, k := range keepers {
		infos = append(infos, k.snapshot()...)
	}
	slices.SortFunc(infos, func(a, b Info) int {
		return cmp.Or(strings.Compare(a.Function, b.Function), a.Started.Compare(b.Started))
	})
	return infos
}

// Waiting counts the calls that wait for a place, by function that is deployed.
func (p *Pool) Waiting() map[string]int {
	p.mu.Lock()
	keepers := p.all()
	p.mu.Unlock()
	sizes := map[string]int{}
	for _, k := range keepers {
		k.mu.Lock()
		sizes[k.name] += len(k.plan.queue)
		k.mu.Unlock()
	}
	return sizes
}

// all lists the keepers. The caller holds mu.
func (p *Pool) all() []*keeper { return slices.Collect(maps.Values(p.keepers)) }

// Lease is one call's place in an instance. Exactly one of Release and Kill counts, the first.
type Lease struct {
	keeper *keeper
	member *member
	joined bool
	once   sync.Once
}

// Instance is where the call goes.
func (l *Lease) Instance() quipu.Instance { return l.member.instance }

// ID is the instance's.
func (l *Lease) ID() string { return l.member.id }

// Function is the revision that the instance runs.
func (l *Lease) Function() quipu.Function { return l.member.fn }

// Started tells when the start of the instance was begun, when it ran, and when it could be called.
func (l *Lease) Started() (begun, ran, ready time.Time) {
	m := l.member
	return m.begun, m.begun.Add(m.cold.Start), m.ready
}

// Release gives the place back.
func (l *Lease) Release() {
	l.once.Do(func() {
		l.keeper.update(func(now time.Time) {
			l.keeper.places.give(1, 0)
			l.keeper.plan.part(l.joined)
			l.keeper.plan.release(now, l.member.unit)
		})
	})
}

// Kill gives the place back and ends the instance, which is broken or did not answer in time.
// Other calls in it break.
func (l *Lease) Kill() {
	l.once.Do(func() {
		l.keeper.update(func(time.Time) {
			l.keeper.places.give(1, 0)
			l.keeper.plan.part(l.joined)
			l.keeper.plan.condemn(l.member.unit)
			l.keeper.kill(l.member)
		})
	})
}

// acquireEnded maps the end of a caller's context.
func acquireEnded(ctx context.Context, function string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &quipu.Error{
			Code: quipu.CodeTimeout, Op: "instance.acquire", Err: ctx.Err(),
			Text: "no instance of function " + function + " became free in time",
		}
	}
	return ctx.Err()
}
