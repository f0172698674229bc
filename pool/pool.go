// Package pool keeps the instances of functions: it starts them when calls come, holds the calls
// meanwhile, lets as many calls into an instance as its concurrency allows, and stops what is idle.
//
// What to do is decided by plan, which is values in and values out and runs on virtual time in its
// tests; this file and keeper.go only do it. Every Acquire ends with an instance or a coded error: the queue is
// bounded, starts have a timeout, and failures are repeated with a growing pause.
//
// A new revision replaces the old one without a gap: the old one serves until an instance of the new one
// is ready, then it takes no new calls and is stopped when its last one ends.
//
// Nothing here is durable. After a crash of the node package process has ended the instances, and the
// pool starts from nothing with the functions it is given by Replace.
package pool

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
)

// Options of a pool. Runtime and Prepare are required.
type Options struct {
	Runtime quipu.Runtime
	// Prepare says how to start an instance of fn; release is called once when it is gone, and may be
	// nil. Its time counts as start time.
	Prepare func(ctx context.Context, fn quipu.Function, instance string) (spec quipu.InstanceSpec, release func(), err error)
	Clock   quipu.Clock   // nil means the system's
	Grace   time.Duration // between asking an instance to end and killing it; 0 means 5 s
	Logger  *slog.Logger  // nil means none
}

// Pool holds the instances of all functions of a node.
type Pool struct {
	o Options

	mu      sync.Mutex // guards the fields below
	keepers map[string]*keeper
	leaving map[*keeper]bool // of removed functions, until their last instance is gone
	closed  bool

	work sync.WaitGroup // goroutines of keepers
}

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
	return &Pool{o: o, keepers: map[string]*keeper{}, leaving: map[*keeper]bool{}}
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Replace makes fn the revision of its function that new calls get, and starts scale.min instances. It
// must be called for every function before it can be acquired. Nothing happens after Close.
func (p *Pool) Replace(fn quipu.Function) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	k := p.keepers[fn.Name]
	if k == nil {
		k = newKeeper(p, fn)
		p.keepers[fn.Name] = k
		p.work.Go(func() { p.keep(k) })
	}
	k.update(func(time.Time) { k.plan.replace(fn) })
}

// keep runs a keeper to its end.
func (p *Pool) keep(k *keeper) {
	k.run()
	p.mu.Lock()
	delete(p.leaving, k)
	p.mu.Unlock()
}

// Remove ends a function: waiting calls get CodeNoFunction, calls under way finish.
func (p *Pool) Remove(name string) {
	p.mu.Lock()
	k := p.keepers[name]
	delete(p.keepers, name)
	if k != nil {
		p.leaving[k] = true
	}
	p.mu.Unlock()
	if k != nil {
		k.update(func(time.Time) { k.plan.removed = true })
	}
}

// Acquire waits for a free place in an instance of a function, and starts one if needed.
// CodeNoFunction, CodeStart, CodeBusy, CodeStopping; CodeTimeout at ctx's deadline, ctx's error if it is cancelled.
func (p *Pool) Acquire(ctx context.Context, function string) (*Lease, error) {
	return p.acquire(ctx, function, false)
}

// AcquireJoined is Acquire for a call that is part of another: it goes before others and may get an instance
// beyond scale.max, since those who hold all instances may wait for the call that it is part of.
func (p *Pool) AcquireJoined(ctx context.Context, function string) (*Lease, error) {
	return p.acquire(ctx, function, true)
}

func (p *Pool) acquire(ctx context.Context, function string, joined bool) (*Lease, error) {
	p.mu.Lock()
	k, closed := p.keepers[function], p.closed
	p.mu.Unlock()
	switch {
	case closed:
		return nil, &quipu.Error{Code: quipu.CodeStopping, Op: "instance.acquire"}
	case k == nil:
		return nil, noFunction(function)
	}
	return k.acquire(ctx, joined)
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
	return infos
}

// all lists the keepers by name. The caller holds mu.
func (p *Pool) all() []*keeper {
	var all []*keeper
	for _, k := range p.keepers {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *keeper) int { return strings.Compare(a.name, b.name) })
	return all
}

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

// Release gives the place back.
func (l *Lease) Release() {
	l.once.Do(func() {
		l.keeper.update(func(now time.Time) {
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
