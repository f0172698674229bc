package timer_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/view"
)

func TestATimerIsHandledWhenItIsDue(t *testing.T) {
	w := newWorld(t, once)
	w.set(key("past"), noon.Add(-time.Hour))
	w.Eventually("what was due before is handled", func() bool { return w.done()["past"] == 1 })
	w.set(key("later"), noon.Add(time.Hour))
	w.set(key("soon"), noon.Add(time.Minute))
	w.Clock.Move(time.Minute - time.Nanosecond)
	w.set(key("past"), noon)
	w.Eventually("another one of the key", func() bool { return w.done()["past"] == 2 })
	if done := w.done(); done["soon"] > 0 {
		t.Error("it came early")
	}
	w.Clock.Move(time.Nanosecond)
	w.Eventually("the minute", func() bool { return w.done()["soon"] == 1 })
	w.Clock.Move(time.Hour)
	w.Eventually("the hour", func() bool { return w.done()["later"] == 1 })
	if n := w.view.Count("job"); n != 0 {
		t.Errorf("%d timers are left", n)
	}
}

func TestWhatIsCancelledOrMovedIsNotDue(t *testing.T) {
	w := newWorld(t, once)
	for _, id := range []string{"a", "b", "c"} {
		w.set(key(id), noon.Add(time.Minute))
	}
	w.Commit(func(tx *view.Tx) error {
		if ok, err := w.view.Cancel(tx, key("none")); ok || err != nil {
			t.Errorf("cancelled what is not there: %v, %v", ok, err)
		}
		ok, err := w.view.Cancel(tx, key("a"))
		if !ok {
			t.Error("it was not there")
		}
		return err
	})
	w.set(key("b"), noon.Add(time.Hour))
	w.Clock.Move(time.Minute)
	w.Eventually("c", func() bool { return w.done()["c"] == 1 })
	w.Clock.Move(59 * time.Minute)
	w.Eventually("b", func() bool { return w.done()["b"] == 1 })
	if done := w.done(); len(done) != 2 {
		t.Errorf("done: %v", done)
	}
}

// Each of hundreds of timers takes effect once, while the node is killed again and again.
func TestEachTimeTakesEffectOnceAcrossCrashes(t *testing.T) {
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var failing atomic.Bool
		failing.Store(true)
		w := newWorld(t, func(ctx context.Context, w *world, t timers.Timer) {
			if failing.Load() && len(t.ID)%3 == 0 {
				return // it did nothing, so it comes again
			}
			once(ctx, w, t)
		})
		const n = 600
		for i := range n {
			k := timers.Key{Kind: []string{"job", "workflow"}[i%2], Owner: fmt.Sprint("app", i%5), ID: fmt.Sprint(i)}
			w.set(k, noon.Add(time.Duration(rng.IntN(600))*time.Second))
			if rng.IntN(100) == 0 {
				w.Crash(rng)
			}
		}
		for range 10 {
			w.Clock.Move(time.Duration(rng.IntN(60)) * time.Second)
			w.Crash(rng)
		}
		failing.Store(false)
		w.Passing(10*time.Second, "all are done", func() bool { return len(w.done()) == n })
		for id, times := range w.done() {
			if times != 1 {
				t.Errorf("seed %d: timer %s took effect %d times", seed, id, times)
			}
		}
	}
}

// Many sleep on disk; those that are due come in the order of their times.
func TestTimersOfALaneComeInTheirOrder(t *testing.T) {
	var mu sync.Mutex
	var order []string
	w := newWorld(t, func(ctx context.Context, w *world, t timers.Timer) {
		once(ctx, w, t)
		mu.Lock()
		defer mu.Unlock()
		order = append(order, t.ID)
	})
	const n = 3000
	rng := rand.New(rand.NewPCG(1, 1))
	w.Commit(func(tx *view.Tx) error {
		for _, i := range rng.Perm(n) {
			tm := timers.Timer{Key: key(fmt.Sprintf("%06d", i)), Due: noon.Add(time.Duration(i) * time.Minute)}
			if err := w.view.Set(tx, tm); err != nil {
				return err
			}
		}
		return nil
	})
	w.Crash(rng)
	for i := range 300 {
		w.Clock.Move(10 * time.Minute)
		w.Eventually("those of ten minutes", func() bool { mu.Lock(); defer mu.Unlock(); return len(order) >= min(n, (i+1)*10+1) })
	}
	for i, id := range order {
		if want := i / 10 * 10; id < fmt.Sprintf("%06d", max(0, want-10)) || id > fmt.Sprintf("%06d", want+20) {
			t.Fatalf("timer %s came as number %d", id, i)
		}
	}
}

// An owner whose handlers hang has its room, and others theirs.
func TestAnOwnerThatHangsHoldsUpNobodyElse(t *testing.T) {
	release := make(chan struct{})
	var flying, most atomic.Int64
	w := newWorld(t, func(ctx context.Context, w *world, t timers.Timer) {
		if t.Owner == "app" {
			once(ctx, w, t)
			return
		}
		if n := flying.Add(1); n > most.Load() {
			most.Store(n)
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		flying.Add(-1)
		once(ctx, w, t)
	})
	const owners, each = 40, 100
	w.Commit(func(tx *view.Tx) error {
		for o := range owners {
			for i := range each {
				k := timers.Key{Kind: "job", Owner: fmt.Sprint("down", o), ID: fmt.Sprintf("%d/%d", o, i)}
				if err := w.view.Set(tx, timers.Timer{Key: k, Due: noon}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	w.Eventually("those that hang take their room", func() bool { return flying.Load() > 500 })
	for i := range 20 {
		id := fmt.Sprint("up", i)
		w.set(key(id), noon)
		w.Eventually("one of another owner", func() bool { return w.done()[id] == 1 })
	}
	close(release)
	w.Passing(time.Second, "all are done", func() bool { return len(w.done()) == owners*each+20 })
	if most.Load() > 1024+owners {
		t.Errorf("%d at once", most.Load())
	}
}

// The clock jumps ahead, and what it jumped over is due, once; it is set back, and nothing comes twice.
func TestTheClockJumps(t *testing.T) {
	w := newWorld(t, once)
	w.set(key("a"), noon.Add(time.Hour))
	w.set(key("b"), noon.Add(2*time.Hour))
	w.Clock.Move(90 * time.Minute)
	w.Eventually("a", func() bool { return w.done()["a"] == 1 })
	w.Clock.Move(-90 * time.Minute)
	w.Crash(rand.New(rand.NewPCG(1, 1)))
	w.set(key("c"), noon)
	w.Eventually("c", func() bool { return w.done()["c"] == 1 })
	w.Clock.Move(2 * time.Hour)
	w.Eventually("b", func() bool { return w.done()["b"] == 1 })
	if done := w.done(); done["a"] != 1 {
		t.Errorf("a took effect %d times", done["a"])
	}
}
