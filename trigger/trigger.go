// Package trigger turns what happens into calls: events of topics, ticks of schedules, and whatever else becomes an
// event of a platform topic. There is one mechanism for all of them, the delivery: an event that a durable
// subscription has not done yet.
//
// A subscription has one runner. It reads events, decides by a plan (which is pure) what goes together in a call and
// when, and settles outcomes. For an atomic function the acknowledgement is part of the call's transaction, so the
// event's effects happen exactly once; for anything else it is a record of its own after the call, so they happen at
// least once. Losing a commit to others, a full queue or a function that does not start are no attempts. A batch that
// fails is halved; an event alone that has used its retries becomes a dead letter and is acknowledged, in one record.
//
// After a crash a runner starts from what the topic view has: what was acknowledged is not delivered again, what was
// under way is. Attempts count across restarts.
package trigger

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
)

// Store is what the topic view does for deliveries.
type Store interface {
	DeadLetter(tx *view.Tx, topic string, e quipu.Event, d quipu.DeadLetter) error
	Again(tx *view.Tx, e quipu.Event) error
	Subscribe(tx *view.Tx, topic, name, function string, from quipu.Position) error
	Unsubscribe(tx *view.Tx, topic, name string) error
	Seek(tx *view.Tx, topic, name string, to quipu.Position) error
	Settle(tx *view.Tx, s delivery.Subscription, o delivery.Settlement) error
	State(tx *view.Tx, topic, name string) (delivery.State, error)
	Subscriptions(tx *view.Tx, topic string) ([]delivery.State, error)
	Info(tx *view.Tx, topic string) (quipu.TopicInfo, error)
	DeadAfter(tx *view.Tx, topic string, offset uint64) (uint64, error)
	Names(tx *view.Tx, all bool) ([]string, error)
	Over(tx *view.Tx, topic string, now time.Time) (uint64, error)
	Trim(tx *view.Tx, topic string, upto uint64) error
	Delete(tx *view.Tx, topic string) error
	Read(topic string, from uint64, limit int) ([]quipu.Event, error)
	Find(topic string, p quipu.Position) (uint64, error)
	Wait(topic string) <-chan struct{}
	Release(ctx context.Context) (n int, next time.Time, err error)
	Delayed() <-chan struct{}
}

// Call is one delivery to a function.
type Call struct {
	quipu.CallRequest
	Accept func(f quipu.Function, status int, body []byte) bool
	Settle func(tx *view.Tx) error
}

// Reply is what came of a Call.
type Reply struct {
	Function quipu.Function // at the revision that answered: its word means what its contract says
	Status   int
	Body     []byte
	Lost     int  // to other commits, before it was over
	Settled  bool // with its effects
}

// Options of an Engine. All are required but Observe.
type Options struct {
	Book     *view.Book
	Store    Store
	Clock    quipu.Clock
	Logger   *slog.Logger
	Call     func(ctx context.Context, c Call) (Reply, error)
	Function func(name string) (quipu.Function, error)
	// Judge tells what a function's reply means for what was delivered.
	Judge func(f quipu.Function, status int, body []byte) quipu.Outcome
	// Route makes the choice of a path for each event, if a trigger has routes.
	Route func(t quipu.TopicTrigger) (func(event []byte) (path string), error)
	// Publish is where events from outside go.
	Publish quipu.Publisher
	// Observe, if set, is told what became of deliveries, once that is durable.
	Observe func(subscription string, what Fate, events int)
}

// Fate is what became of events.
type Fate string

// Fates.
const (
	FateDone    Fate = "done"
	FateRetried Fate = "retried"
	FateDead    Fate = "dead" // a dead letter
	FateDropped Fate = "dropped"
)

// Engine delivers the events of a namespace, and is its quipu.Topics.
type Engine struct {
	quipu.Publisher
	o    Options
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	all  sync.WaitGroup

	kick chan struct{} // has one when runners are to be compared with what is subscribed

	mu      sync.Mutex
	runners map[key]*runner
	changed chan struct{} // closed and replaced when runners changes
}

// key names a subscription.
type key struct{ topic, name string }

// New makes an engine; Start starts it.
func New(o Options) *Engine {
	if o.Observe == nil {
		o.Observe = func(string, Fate, int) {}
	}
	e := &Engine{Publisher: o.Publish, o: o, kick: make(chan struct{}, 1), runners: map[key]*runner{}, changed: make(chan struct{})}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// Start begins to deliver.
func (e *Engine) Start() {
	e.Sync()
	for _, task := range []func(){e.keepRunners, e.keepReleasing, e.keepTrimming} {
		e.all.Go(task)
	}
}

// Sync has the engine look again at what is subscribed and what functions say about it. It does not wait.
func (e *Engine) Sync() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// Stop stops delivering: no further call is made, and who reads along is told. It does not wait.
func (e *Engine) Stop() { e.stop() }

// Close stops delivering and waits until calls under way are over, or ctx ends; Wait waits for the rest.
func (e *Engine) Close(ctx context.Context) error {
	e.stop()
	done := make(chan struct{})
	go func() {
		e.all.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait waits until nothing of a closed engine runs any more.
func (e *Engine) Wait() { e.all.Wait() }

// retryAfter is how long a task of the engine waits when something failed that it cannot mend, like a full disk.
const retryAfter = time.Second

// sleep waits for a time, an event, or the end of the engine, which it answers false for.
func (e *Engine) sleep(d time.Duration, event <-chan struct{}) bool {
	select {
	case <-e.o.Clock.After(d):
	case <-event:
	case <-e.ctx.Done():
		return false
	}
	return e.ctx.Err() == nil
}

// keepRunners makes the runners those of the subscriptions.
func (e *Engine) keepRunners() {
	for {
		select {
		case <-e.kick:
		case <-e.ctx.Done():
			return
		}
		if err := e.sync(); err != nil {
			e.o.Logger.Error("subscriptions cannot be read", "err", err)
			if !e.sleep(retryAfter, nil) {
				return
			}
			e.Sync()
		}
	}
}

func (e *Engine) sync() error {
	tx := e.o.Book.Look()
	subs, err := e.o.Store.Subscriptions(tx, "")
	tx.Close()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.runners {
		same := func(s delivery.State) bool { return s.Subscription == r.sub && e.revision(s) == r.revision }
		if !slices.ContainsFunc(subs, same) {
			r.stop() // it leaves runners when its calls are over; then another may follow
		}
	}
	for _, s := range subs {
		k := key{s.Topic, s.Name}
		if e.runners[k] != nil || s.Name == redriver {
			continue
		}
		r, err := e.newRunner(s)
		if err != nil {
			return err
		}
		e.runners[k] = r
		e.all.Go(func() { r.run(e.ended) })
	}
	close(e.changed)
	e.changed = make(chan struct{})
	return nil
}

// ended takes a runner off the list; another may follow it.
func (e *Engine) ended(r *runner) {
	e.mu.Lock()
	delete(e.runners, key{r.sub.Topic, r.sub.Name})
	e.mu.Unlock()
	if e.ctx.Err() == nil {
		e.Sync()
	}
}

// revision tells versions of the function behind a subscription apart; "" if it has none.
func (e *Engine) revision(s delivery.State) string {
	if s.Function == "" {
		return ""
	}
	f, err := e.o.Function(s.Function)
	if err != nil {
		return ""
	}
	return f.Revision
}

// runner finds the runner of a subscription; nil if there is none.
func (e *Engine) runner(topic, name string) *runner {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runners[key{topic, name}]
}

// keepReleasing publishes delayed messages when they are due.
func (e *Engine) keepReleasing() {
	for {
		n, next, err := e.o.Store.Release(e.ctx)
		wait := time.Hour
		switch {
		case e.ctx.Err() != nil:
			return
		case err != nil:
			e.o.Logger.Error("delayed messages cannot be published", "err", err)
			wait = retryAfter
		case n > 0:
			continue
		case !next.IsZero():
			wait = min(wait, max(0, next.Sub(e.o.Clock.Now())))
		}
		if !e.sleep(wait, e.o.Store.Delayed()) {
			return
		}
	}
}

// trimEvery is how often topics are compared with what they are to keep.
const trimEvery = 10 * time.Second

// keepTrimming removes events that are older, or more, than their topics keep.
func (e *Engine) keepTrimming() {
	for e.sleep(trimEvery, nil) {
		if err := e.trim(); err != nil && e.ctx.Err() == nil {
			e.o.Logger.Error("topics cannot be trimmed", "err", err)
		}
	}
}

func (e *Engine) trim() error {
	tx := e.o.Book.Look()
	names, err := e.o.Store.Names(tx, true)
	tx.Close()
	if err != nil {
		return err
	}
	for _, topic := range names {
		if err := e.trimTopic(topic); err != nil {
			return err
		}
	}
	return nil
}

// trimTopic has subscriptions give up what the topic no longer keeps, and removes what they are done with.
func (e *Engine) trimTopic(topic string) error {
	tx := e.o.Book.Look()
	over, err := e.o.Store.Over(tx, topic, e.o.Clock.Now())
	tx.Close()
	if err != nil || over == 0 {
		return err
	}
	for _, r := range e.runnersOf(topic) {
		over = min(over, r.expire(over)-1)
	}
	if over == 0 {
		return nil
	}
	_, err = e.o.Book.Change(e.ctx, func(tx *view.Tx) error { return e.o.Store.Trim(tx, topic, over) })
	return err
}

func (e *Engine) runnersOf(topic string) (list []*runner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, r := range e.runners {
		if k.topic == topic {
			list = append(list, r)
		}
	}
	return list
}
