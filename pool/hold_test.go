package pool

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quipu-run/quipu"
)

// serving is a pool of one revision with one instance that has no calls.
func serving(t *testing.T, fn quipu.Function, change ...func(*Options)) (p *Pool, rt *fake, instance string) {
	t.Helper()
	rt = &fake{}
	p = newPool(rt, change...)
	live(p, fn)
	l, err := p.Acquire(t.Context(), fn)
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	return p, rt, l.ID()
}

// An instance that is held is not stopped for idleness; once nobody holds it, idleness begins.
func TestAHeldInstanceIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn := function("a", 1, 0, 1) // idle after a minute
		p, rt, instance := serving(t, fn)
		first, ok := p.Hold(fn, instance)
		second, too := p.Hold(fn, instance)
		if !ok || !too {
			t.Fatal("it serves, and cannot be held")
		}
		time.Sleep(time.Hour)
		first()
		time.Sleep(time.Hour)
		if rt.alive.Load() != 1 {
			t.Fatal("it was stopped while somebody held it")
		}
		second()
		time.Sleep(59 * time.Second)
		if rt.alive.Load() != 1 {
			t.Fatal("it was stopped before its time")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if rt.alive.Load() != 0 {
			t.Error("it stays for ever")
		}
		if _, ok := p.Hold(fn, instance); ok {
			t.Error("what has ended can be held")
		}
		if _, ok := p.Hold(function("other", 1, 0, 1), instance); ok {
			t.Error("a revision that there is not can be held")
		}
		closeEmpty(t, p)
	})
}

// A held instance of a revision that has no traffic any more is told to be left. It takes the calls of those that live in it, no others,
// and ends when it is let go of.
func TestAHeldInstanceThatHasToGoIsLeftFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := function("old", 1, 0, 1), function("new", 1, 0, 1)
		told := make(chan string, 10)
		p, rt, instance := serving(t, old, func(o *Options) { o.Leaving = func(_ quipu.Function, id string) { told <- id } })
		release, _ := p.Hold(old, instance)
		live(p, fresh)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(told) != 1 || <-told != instance {
			t.Error("who holds it was not told, once")
		}
		if ids := p.Serving(old); len(ids) != 0 {
			t.Errorf("%v serve", ids)
		}
		if _, ok := p.Hold(old, instance); ok {
			t.Error("somebody may still move in")
		}
		l, err := p.AcquireAt(t.Context(), old, instance, false)
		if err != nil || l.ID() != instance || rt.alive.Load() != 1 {
			t.Fatalf("who lives in it cannot finish: %v", err)
		}
		release()
		synctest.Wait()
		if rt.alive.Load() != 1 {
			t.Error("it was stopped under its last call")
		}
		l.Release()
		synctest.Wait()
		if rt.alive.Load() != 0 {
			t.Error("it stays")
		}
		if _, err := p.AcquireAt(t.Context(), old, instance, false); quipu.CodeOf(err) != quipu.CodeNoActorHost {
			t.Error(err)
		}
		closeEmpty(t, p)
	})
}

// Who wants one instance waits for a place in that one, in order, though others are free; a call within another does not wait.
func TestAPlaceInOneInstanceIsWaitedFor(t *testing.T) {
	fn := function("a", 1, 0, 2)
	p, _, _ := serving(t, fn)
	var both [2]*Lease
	for i := range both {
		l, err := p.Acquire(t.Context(), fn)
		if err != nil {
			t.Fatal(err)
		}
		both[i] = l
	}
	busy, free := both[0], both[1]
	free.Release()
	got := make(chan int, 2)
	for i := range 2 {
		go func() {
			l, err := p.AcquireAt(t.Context(), fn, busy.ID(), false)
			if err != nil || l.ID() != busy.ID() {
				t.Errorf("%v", err)
				got <- -1
				return
			}
			got <- i
			l.Release()
		}()
		for p.bound(fn) <= i {
			runtime.Gosched()
		}
	}
	within, err := p.AcquireAt(t.Context(), fn, busy.ID(), true)
	if err != nil || within.ID() != busy.ID() {
		t.Fatalf("a call within another: %v", err)
	}
	within.Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.AcquireAt(ctx, fn, busy.ID(), false); err == nil {
		t.Error("who has gone got a place")
	}
	if len(got) != 0 || p.bound(fn) != 2 {
		t.Errorf("%d came before their turn, %d wait", len(got), p.bound(fn))
	}
	busy.Release()
	if first, second := <-got, <-got; first != 0 || second != 1 {
		t.Errorf("%d came before %d", first, second)
	}
	closeEmpty(t, p)
}

// bound is how many wait for places in certain instances.
func (p *Pool) bound(fn quipu.Function) int {
	k := p.keeperOf(fn)
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.plan.bound)
}

// Those who wait for an instance that is killed are told so, and of those who wait there are not more than a certain number.
func TestWhoWaitsForAnInstanceThatDiesIsTold(t *testing.T) {
	fn := function("a", 1, 0, 1)
	p, _, instance := serving(t, fn)
	l, err := p.Acquire(t.Context(), fn)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := p.AcquireAt(t.Context(), fn, instance, false)
		failed <- err
	}()
	for p.bound(fn) == 0 {
		runtime.Gosched()
	}
	l.Kill()
	if err := <-failed; quipu.CodeOf(err) != quipu.CodeNoActorHost {
		t.Error(err)
	}
	closeEmpty(t, p)

	full := plan{fn: fn}
	now := time.Unix(1000, 0)
	if _, err := full.acquire(now, 1, false); err != nil {
		t.Fatal(err)
	}
	full.step(now)
	full.readied(now, 1)
	full.step(now) // the place is taken
	for id := range int64(boundMax) {
		if granted, err := full.acquireAt(id+2, 1, false); granted || err != nil {
			t.Fatal(granted, err)
		}
	}
	if _, err := full.acquireAt(boundMax+2, 1, false); quipu.CodeOf(err) != quipu.CodeBusy {
		t.Error(err)
	}
	if !full.cancelBound(2) || full.cancelBound(2) {
		t.Error("who goes leaves the line, once")
	}
}
