// Package actor lets actors of Dapr live in instances of applications: which instance, one turn at a time, until they are idle or
// the instance goes. There is no placement service. Where an actor lives is a lease on the log, taken when it becomes active and given
// back when it leaves; what a turn does under that lease counts only while it is held, so that an instance from which an actor was
// taken can change nothing more, whatever it believes.
//
// A turn is a call as any other, bound to the actor's instance. If that is of an atomic function, what the turn does commits once, when
// the method succeeds. An actor has state in memory, too: after a run that did not count, the instance is told to forget the actor before
// its next turn, and nobody else has a turn before it is known whether one counts.
//
// After a crash no actor is active: the first call of one takes the lease over and has it made anew from its state. Timers and what
// waited for a turn are gone; reminders are alarms on the log, and stay. Nothing moves an actor while its instance is there: new
// instances get new actors.
package actor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
)

// Limits.
const (
	movesMax      = 10               // instances that a call looks for its actor in
	startMax      = 2 * time.Minute  // for an actor to get its instance and its lease
	forgetMax     = 10 * time.Second // for an instance to answer that it has forgotten an actor
	drainGrace    = time.Second      // for a turn that was cut to end
	drainsAtOnce  = 64
	takesMax      = 5
	replyBytesMax = 64 << 20
)

// Hosting is who hosts a type of actors.
type Hosting struct {
	Function quipu.Function
	Type     quipu.ActorType
	// Instances take calls now. None have one woken.
	Instances []string
}

// Options of an Engine. All functions but Held and Within are required.
type Options struct {
	// Find is who hosts a type. CodeNoActorHost.
	Find func(actorType string) (Hosting, error)
	// Wake starts an instance, or finds one that was started meanwhile.
	Wake func(ctx context.Context, f quipu.Function) (instance string, err error)
	// Hold keeps an instance until release; ok is false if it takes no calls any more.
	Hold func(f quipu.Function, instance string) (release func(), ok bool)
	// Forget tells an instance that an actor does not live in it any more.
	Forget func(ctx context.Context, f quipu.Function, instance string, k quipu.ActorKey) error
	// Invoke makes a call that belongs to nobody, for timers.
	Invoke func(ctx context.Context, r quipu.CallRequest) (*quipu.CallReply, error)
	// Within runs a turn of an actor within what its host's policies say of it; nil runs it as it is. The time that the turn was waited
	// for is no part of it.
	Within func(ctx context.Context, f quipu.Function, instance, actorType string, turn func(context.Context) error) error
	Leases quipu.Leases
	// Held visits the leases whose names start with a prefix. nil leaves those of an earlier node until their actors are called.
	Held   func(ctx context.Context, prefix string, visit func(quipu.Lease) bool) error
	Clock  quipu.Clock
	Logger *slog.Logger // nil means none
}

// Engine has the actors of a namespace.
type Engine struct {
	o      Options
	run    string // tells owners of this Engine from those of an earlier one
	agenda *agenda
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	active map[quipu.ActorKey]*activation
	hosts  map[string]*host // by instance
	timers map[quipu.ActorKey]map[string]*timer
	ticks  int // timers
	closed bool
	counts map[string]Count
}

// host is an instance that actors live in.
type host struct {
	release func()
	actors  map[*activation]bool
}

// Count is what is known of a type of actors.
type Count struct {
	Active, Timers              int
	Activations, Deactivations  int64
	TurnsOfTimers, FailedTimers int64
}

// New makes an engine, which does nothing by itself before Start.
func New(o Options) *Engine {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Within == nil {
		o.Within = func(ctx context.Context, _ quipu.Function, _, _ string, turn func(context.Context) error) error {
			return turn(ctx)
		}
	}
	e := &Engine{o: o, run: newRun(), active: map[quipu.ActorKey]*activation{}, hosts: map[string]*host{},
		timers: map[quipu.ActorKey]map[string]*timer{}, counts: map[string]Count{}}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.agenda = newAgenda(o.Clock)
	return e
}

func newRun() string {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Start begins what goes on by itself: idle actors leave, timers fire, and leases of an earlier run are given back.
func (e *Engine) Start() {
	e.tasks.Go(func() { e.agenda.run(e.ctx) })
	if e.o.Held != nil {
		e.tasks.Go(e.inherit)
	}
}

// Close has all actors leave their instances, until ctx ends. No turn begins any more.
func (e *Engine) Close(ctx context.Context) {
	e.mu.Lock()
	e.closed = true
	var all []*activation
	for _, a := range e.active {
		all = append(all, a)
	}
	e.mu.Unlock()
	done := make(chan struct{})
	e.tasks.Go(func() {
		defer close(done)
		e.leaveAll(ctx, all)
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
	e.stop()
}

// Wait returns when nothing of the engine runs any more; call it when what it called has ended.
func (e *Engine) Wait() { e.tasks.Wait() }

// Leave has all actors leave an instance, which has to go: turns under way have the time of their type. It returns when they have.
func (e *Engine) Leave(instance string) {
	e.leaveAll(e.ctx, e.actorsOf(instance))
}

// Gone says that an instance has ended, and with it the actors that lived there.
func (e *Engine) Gone(instance string) {
	all := e.actorsOf(instance)
	for _, a := range all {
		a.lock.close()
		a.cancel()
		e.remove(a)
	}
	e.giveBack(all)
}

// giveBack releases leases of actors that are gone. Until it has, who takes one over finds that its owner is not there.
func (e *Engine) giveBack(all []*activation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(all) == 0 || e.closed {
		return
	}
	e.tasks.Go(func() {
		for _, a := range all {
			if err := e.o.Leases.ReleaseLease(e.ctx, a.lease); err != nil && e.ctx.Err() == nil {
				e.o.Logger.Warn("the lease of an actor was not given back", "actor", a.key.String(), "err", err)
			}
		}
	})
}

func (e *Engine) actorsOf(instance string) (all []*activation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.hosts[instance]
	if h == nil {
		return nil
	}
	for a := range h.actors {
		all = append(all, a)
	}
	return all
}

// inherit gives back the leases of an earlier run: whatever held them is gone.
func (e *Engine) inherit() {
	var old []quipu.Lease
	err := e.o.Held(e.ctx, leasePrefix, func(l quipu.Lease) bool {
		if !e.owns(l) {
			old = append(old, l)
		}
		return len(old) < quipu.ActorsActiveMax
	})
	for _, l := range old {
		if err == nil {
			err = e.o.Leases.ReleaseLease(e.ctx, l)
		}
	}
	if err != nil && e.ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		e.o.Logger.Warn("leases of actors that were active before were not given back", "err", err)
	}
}
