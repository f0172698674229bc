package timer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
)

// Handler does what a timer is for. It changes the timer in the transaction of what it does, after a Get there that shows
// the same Seq still. If it returns and the timer stands as it was, it is called again after a back-off. There is one call for a
// key at a time. ctx ends when the runner is closed and its patience is over.
type Handler func(ctx context.Context, t timers.Timer)

// Options of a Runner. All are required but Observe.
type Options struct {
	Book   *view.Book
	View   *View
	Clock  quipu.Clock
	Logger *slog.Logger
	// Handlers by kind. Timers of other kinds are kept and never due.
	Handlers map[string]Handler
	// Observe, if set, is told of each timer that was handled and how late that began.
	Observe func(kind string, late time.Duration)
}

// Runner calls the handlers of timers that are due.
type Runner struct {
	o    Options
	ctx  context.Context // ends with Stop
	stop context.CancelFunc
	work context.Context // of handlers
	cut  context.CancelFunc
	all  sync.WaitGroup
	wake chan struct{} // has one when the plan may have something new

	mu      sync.Mutex
	plan    *plan
	follows bool // the plan hears of records
}

// NewRunner makes a runner; Start starts it. It must be made before the first commit to the book.
func NewRunner(o Options) *Runner {
	if o.Observe == nil {
		o.Observe = func(string, time.Duration) {}
	}
	r := &Runner{o: o, plan: newPlan(), wake: make(chan struct{}, 1)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.work, r.cut = context.WithCancel(context.Background())
	o.View.takeNews() // by replay: Start asks what there is
	o.Book.OnApply(Name, r.applied)
	return r
}

// applied follows the view.
func (r *Runner) applied() error {
	all := r.o.View.takeNews()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.follows {
		return nil
	}
	for _, n := range all {
		if r.o.Handlers[n.key.Kind] != nil {
			r.plan.hear(n)
		}
	}
	r.notify()
	return nil
}

func (r *Runner) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Start begins to handle what is due.
func (r *Runner) Start() {
	r.mu.Lock()
	r.follows = true
	r.mu.Unlock()
	r.all.Go(r.run)
}

// Hasten has timers that failed handled again at once: what they need is there again.
func (r *Runner) Hasten(kind, owner string) {
	r.mu.Lock()
	r.plan.hasten(laneKey{kind, owner})
	r.mu.Unlock()
	r.notify()
}

// Stop begins to handle nothing more. It does not wait.
func (r *Runner) Stop() { r.stop() }

// Close stops and waits until handlers under way are over, or ctx ends and cuts them off; Wait waits for the rest.
func (r *Runner) Close(ctx context.Context) error {
	r.Stop()
	defer r.cut()
	done := make(chan struct{})
	go func() {
		r.all.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait waits until nothing of a closed runner runs any more.
func (r *Runner) Wait() { r.all.Wait() }

// Times of the runner.
const (
	lookEvery  = 30 * time.Second // at the clock, which may be set
	retryAfter = time.Second      // when something failed that only an operator can mend
)

func (r *Runner) run() {
	for !r.list() {
		if !r.sleep(retryAfter) {
			return
		}
	}
	for r.ctx.Err() == nil {
		now := r.o.Clock.Now()
		r.mu.Lock()
		reads, flights, next := r.plan.step(now.UnixNano())
		r.mu.Unlock()
		for _, d := range reads {
			r.all.Go(func() { r.read(d) })
		}
		for _, f := range flights {
			r.all.Go(func() { r.fly(f, now) })
		}
		r.rest(now, next)
	}
}

// rest waits for the next time, or news.
func (r *Runner) rest(now time.Time, next int64) {
	var timer <-chan time.Time
	if next != 0 {
		timer = r.o.Clock.After(max(0, min(lookEvery, time.Duration(next-now.UnixNano()))))
		if r.o.Clock.Now().UnixNano() >= next { // the clock was moved before the wait began
			return
		}
	}
	select {
	case <-r.wake:
	case <-timer:
	case <-r.ctx.Done():
	}
}

// sleep answers false when the runner stops.
func (r *Runner) sleep(d time.Duration) bool {
	select {
	case <-r.o.Clock.After(d):
	case <-r.ctx.Done():
	}
	return r.ctx.Err() == nil
}

// list finds the lanes that are on disk, and tells whether it could.
func (r *Runner) list() bool {
	tx := r.o.Book.Look()
	var lanes []laneKey
	var err error
	for kind := range r.o.Handlers {
		var some []laneKey
		some, err = lanesOf(tx, kind)
		if lanes = append(lanes, some...); err != nil {
			break
		}
	}
	if err = errors.Join(err, tx.Close()); err != nil {
		r.o.Logger.Error("timers cannot be read; it is tried again", "err", err)
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range lanes {
		r.plan.add(k)
	}
	r.plan.listed = true
	return true
}

// lanesOf finds the lanes of a kind, with a look at the first timer of each.
func lanesOf(tx *view.Tx, kind string) (lanes []laneKey, err error) {
	from, to := byDue+kind+"\x00", byDue+kind+"\x01"
	for {
		found := false
		var owner string
		err := tx.Peek(Name, from, to, func(key string, _ []byte) bool {
			owner, _, found = strings.Cut(key[len(byDue)+len(kind)+1:], "\x00")
			return false
		})
		if err != nil || !found {
			return lanes, err
		}
		lanes = append(lanes, laneKey{kind, owner})
		from = byDue + kind + "\x00" + owner + "\x01"
	}
}

// read reads the next page of a lane.
func (r *Runner) read(d reading) {
	tx := r.o.Book.Look()
	pg, err := readPage(tx, d.lane.laneKey, d.after)
	if err = errors.Join(err, tx.Close()); err != nil {
		r.o.Logger.Error("timers cannot be read; it is tried again", "err", err)
		r.sleep(retryAfter)
	}
	r.mu.Lock()
	r.plan.read(d.lane, pg, err)
	r.mu.Unlock()
	r.notify()
}

func readPage(tx *view.Tx, k laneKey, after place) (pg page, err error) {
	lane := byDue + name(timers.Key{Kind: k.kind, Owner: k.owner})
	from := indexKey(timers.Key{Kind: k.kind, Owner: k.owner, ID: after.id + "\x00"}, after.due)
	var bad error
	pg.to = everything
	err = tx.Peek(Name, from, view.After(lane), func(key string, value []byte) bool {
		var n news
		if n, bad = parseIndex(k, key[len(lane):], value); bad != nil {
			return false
		}
		pg.timers = append(pg.timers, n)
		if len(pg.timers) == pageMax {
			pg.to = place{n.due, n.key.ID}
		}
		return len(pg.timers) < pageMax
	})
	return pg, errors.Join(err, bad)
}

// parseIndex takes an entry of the index apart: key is what follows its lane.
func parseIndex(k laneKey, key string, value []byte) (n news, err error) {
	if len(key) < 8 || len(value) != 8 {
		return n, fmt.Errorf("timer index of %q: entry of %d and %d bytes", k.owner, len(key), len(value))
	}
	return news{key: timers.Key{Kind: k.kind, Owner: k.owner, ID: key[8:]},
		due: int64(binary.BigEndian.Uint64([]byte(key[:8]))), seq: quipu.Seq(binary.BigEndian.Uint64(value))}, nil
}

// fly hands a timer to its handler, unless it is another one meanwhile.
func (r *Runner) fly(f flight, now time.Time) {
	t, ok, err := r.load(f)
	if err != nil {
		r.o.Logger.Error("a timer cannot be read; it is tried again", "kind", f.key.Kind, "owner", f.key.Owner, "err", err)
	} else if ok {
		r.o.Handlers[t.Kind](r.work, t)
	}
	r.mu.Lock()
	changed := r.plan.returned(f, r.o.Clock.Now().UnixNano())
	r.mu.Unlock()
	r.notify()
	if changed && ok {
		r.o.Observe(t.Kind, now.Sub(t.Due))
	}
}

func (r *Runner) load(f flight) (timers.Timer, bool, error) {
	tx := r.o.Book.Look()
	t, ok, err := r.o.View.Get(tx, f.key)
	return t, ok && t.Seq == f.seq, errors.Join(err, tx.Close())
}
