package taskhub

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// An instance is held from the first work item on until there was none for a while, however many there are meanwhile.
func TestAnInstanceIsKeptWhileItsWorkerHasWork(t *testing.T) {
	w := newWorld(t)
	var holds, held atomic.Int64
	k := w.workerOf("shop", Worker{ID: "one", Hold: func() (func(), bool) {
		holds.Add(1)
		held.Add(1)
		return func() { held.Add(-1) }, true
	}})
	if held.Load() != 0 {
		t.Fatal("it has nothing to do, and is held")
	}
	w.start("shop", "1")
	k.turn()
	if held.Load() != 1 {
		t.Fatal("it has a turn, and is not held")
	}
	k.answer("1", schedule(0, "a"))
	k.activity()
	done := k.completing("1", 0, "2")
	k.turn()
	k.answer("1", completes(1, "3"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if holds.Load() != 1 {
		t.Errorf("it was held %d times in one go", holds.Load())
	}
	eventually(t, "it is idle, and let go", func() bool { return held.Load() == 0 })
	w.start("shop", "2")
	k.turn()
	if held.Load() != 1 {
		t.Error("it is not held again")
	}
	k.gone()
	if held.Load() != 0 {
		t.Error("its worker has gone, and it is held")
	}
}

// An instance that could not be held when its work came, since it did not serve yet, is held as soon as it can be.
func TestAnInstanceThatCannotBeKeptYetIsKeptLater(t *testing.T) {
	w := newWorld(t)
	var serves, held atomic.Bool
	k := w.workerOf("shop", Worker{ID: "one", Hold: func() (func(), bool) {
		if !serves.Load() {
			return nil, false
		}
		held.Store(true)
		return func() { held.Store(false) }, true
	}})
	w.start("shop", "1")
	k.turn()
	serves.Store(true)
	eventually(t, "it is held", held.Load)
}

// A worker whose instance has to go finishes what it has begun and gets nothing new: others do that, and are woken for it.
func TestAWorkerThatHasToGoFinishesWhatItHasBegun(t *testing.T) {
	w := newWorld(t)
	leaving := make(chan struct{})
	old := w.workerOf("shop", Worker{ID: "old", Leaving: leaving})
	w.start("shop", "1")
	old.turn()
	close(leaving)
	eventually(t, "it counts no more", func() bool { return w.hub.Stats()["shop"].Workers == 0 })
	for len(w.woken) > 0 {
		<-w.woken
	}
	w.start("shop", "2")
	if app := <-w.woken; app != "shop" {
		t.Error(app)
	}
	old.answer("1", schedule(0, "a")) // it may
	if err := <-old.done; status.Code(err) != codes.Unavailable {
		t.Errorf("its stream ended with %v", err)
	}
	if len(old.items) != 0 {
		t.Error("it got something new")
	}
	if err := w.hub.work(t.Context(), "shop", Worker{ID: "old", Leaving: leaving}, old); status.Code(err) != codes.Unavailable {
		t.Errorf("it came again, and was told %v", err)
	}
	fresh := w.worker("shop")
	a, b := fresh.next(), fresh.next() // in any order
	if a.GetActivityRequest() == nil {
		a, b = b, a
	}
	if a.GetActivityRequest().GetName() != "a" || b.GetWorkflowRequest().GetInstanceId() != "2" {
		t.Errorf("another worker got %v and %v", a, b)
	}
}

func TestWhoBringsAWorkerHearsThatItHasCome(t *testing.T) {
	w := newWorld(t)
	soon, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if err := w.hub.AwaitWorker(soon, "shop"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	came := make(chan error, 1)
	go func() { came <- w.hub.AwaitWorker(w.ctx, "shop") }()
	w.worker("other")
	k := w.worker("shop")
	if err := <-came; err != nil {
		t.Fatal(err)
	}
	k.gone()
}
