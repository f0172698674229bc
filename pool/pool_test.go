package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/xtest"
)

// fake is a runtime whose instances are channels.
type fake struct{ alive atomic.Int64 }

type fakeInstance struct {
	rt       *fake
	once     sync.Once
	done     chan struct{}
	inflight atomic.Int64
}

func (f *fake) Start(context.Context, quipu.InstanceSpec) (quipu.Instance, error) {
	f.alive.Add(1)
	return &fakeInstance{rt: f, done: make(chan struct{})}, nil
}
func (f *fake) Close() error                                   { return nil }
func (i *fakeInstance) PID() int                               { return 1 }
func (i *fakeInstance) Ready(context.Context) error            { return nil }
func (i *fakeInstance) Dial(context.Context) (net.Conn, error) { return nil, errors.New("no") }
func (i *fakeInstance) Done() <-chan struct{}                  { return i.done }
func (i *fakeInstance) Exit() string                           { return "ended" }
func (i *fakeInstance) Stop(time.Duration) {
	i.once.Do(func() {
		i.rt.alive.Add(-1)
		close(i.done)
	})
}

func newPool(rt quipu.Runtime, change ...func(*Options)) *Pool {
	o := Options{Runtime: rt, Prepare: func(_ context.Context, fn quipu.Function, id string) (quipu.InstanceSpec, func(), error) {
		return quipu.InstanceSpec{ID: id, Function: fn.Name}, nil, nil
	}}
	for _, c := range change {
		c(&o)
	}
	return New(o)
}

func live(p *Pool, fns ...quipu.Function) { p.Set("f", fns, nil) }

// Callers choose any of four revisions, while the traffic goes from one to the next, instances crash and calls kill them.
func TestEveryAcquireGetsAnInstanceOrACodeUnderStress(t *testing.T) {
	rt := &fake{}
	p := newPool(rt, func(o *Options) { o.CallsMax, o.InstancesMax = 5, 4 })
	const slots = 3
	revision := func(n int) quipu.Function { return function(string(rune('a'+n%4)), slots, 0, 4) }
	live(p, revision(0))
	var callers sync.WaitGroup
	for n := range 16 {
		callers.Go(func() {
			for range 300 {
				fn := revision(rand.IntN(4))
				l, err := p.Acquire(t.Context(), fn)
				if err != nil {
					if quipu.CodeOf(err) != quipu.CodeStart {
						t.Error(err)
					}
					continue
				}
				if l.Function().Revision != fn.Revision {
					t.Errorf("a call of %s got %s", fn.Revision, l.Function().Revision)
				}
				inst := l.Instance().(*fakeInstance)
				if got := inst.inflight.Add(1); got > slots {
					t.Errorf("%d calls in one instance", got)
				}
				p.Snapshot()
				inst.inflight.Add(-1)
				switch rand.IntN(20) {
				case 0:
					l.Kill()
				case 1:
					inst.Stop(0) // a crash
					l.Release()
				case 2:
					live(p, revision(n), revision(n+1))
					l.Release()
				default:
					l.Release()
				}
			}
		})
	}
	callers.Wait()
	closeEmpty(t, p)
	if n := rt.alive.Load(); n != 0 {
		t.Errorf("%d instances are left", n)
	}
	if _, err := p.Acquire(t.Context(), function("a", 1, 0, 1)); quipu.CodeOf(err) != quipu.CodeStopping {
		t.Error(err)
	}
}

func TestMovingTrafficFailsNoCall(t *testing.T) {
	rt := &fake{}
	p := newPool(rt)
	var newest atomic.Int64
	revision := func(n int64) quipu.Function { return function(fmt.Sprint("r", n), 2, 0, 3) }
	live(p, revision(0))
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				l, err := p.Acquire(t.Context(), revision(newest.Load()))
				if err != nil {
					t.Error(err)
					return
				}
				l.Release()
			}
		})
	}
	for n := range int64(50) {
		l, err := p.Try(t.Context(), revision(n+1))
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
		live(p, revision(n+1))
		p.Settle(revision(n + 1))
		newest.Store(n + 1)
	}
	close(stop)
	callers.Wait()
	closeEmpty(t, p)
	if n := rt.alive.Load(); n != 0 {
		t.Errorf("%d instances are left", n)
	}
}

func TestATrialThatIsGivenUpLeavesNothing(t *testing.T) {
	rt := &fake{}
	p := newPool(rt)
	l, err := p.Try(t.Context(), function("a", 1, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	done := l.Instance().Done()
	l.Kill()
	p.Settle(function("a", 1, 0, 1))
	<-done
	if err := p.Close(t.Context()); err != nil || rt.alive.Load() != 0 {
		t.Fatal(err, rt.alive.Load())
	}
}

// An instance that does not become healthy is ended, and who tried it learns why; others go on.
func TestAnUnhealthyRevisionFailsItsTrialOnly(t *testing.T) {
	rt, sick := &fake{}, errors.New("GET /healthz answered 503")
	p := newPool(rt, func(o *Options) {
		o.Healthy = func(_ context.Context, fn quipu.Function, _ string, _ quipu.Instance) error {
			if fn.Revision == "bad" {
				return sick
			}
			return nil
		}
	})
	live(p, function("a", 1, 0, 1))
	if _, err := p.Try(t.Context(), function("bad", 1, 0, 1)); !errors.Is(err, sick) {
		t.Fatal(err)
	}
	if busy := p.Busy("f"); slices.Contains(busy, "bad") || rt.alive.Load() != 0 {
		t.Errorf("%v are left, %d instances", busy, rt.alive.Load())
	}
	l, err := p.Acquire(t.Context(), function("a", 1, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A revision that only its callers' wish keeps going is gone, goroutine and all, when they are.
func TestARevisionWithoutTrafficIsServedAndThenForgotten(t *testing.T) {
	clock := xtest.NewClock(time.Unix(1000, 0))
	p := newPool(&fake{}, func(o *Options) { o.Clock = clock })
	live(p, function("a", 1, 0, 1))
	l, err := p.Acquire(t.Context(), function("old", 1, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	k := p.keepers[key{"f", "old"}]
	p.mu.Unlock()
	l.Release()
	for ended := false; !ended; { // its timer may not be set yet
		clock.Move(lingerMax)
		select {
		case <-k.gone:
			ended = true
		default:
			runtime.Gosched()
		}
	}
	if busy := p.Busy("f"); slices.Contains(busy, "old") {
		t.Error(busy)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A function that was removed while a call of it hangs does not hold up the end of the node.
func TestCloseEndsCallsOfRemovedFunctions(t *testing.T) {
	rt := &fake{}
	p := newPool(rt)
	live(p, function("a", 1, 0, 1))
	if _, err := p.Acquire(t.Context(), function("a", 1, 0, 1)); err != nil {
		t.Fatal(err)
	}
	p.Remove("f")
	if _, err := p.Acquire(t.Context(), function("a", 1, 0, 1)); quipu.CodeOf(err) != quipu.CodeNoFunction {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || rt.alive.Load() != 0 {
		t.Errorf("%v, %d instances are left", err, rt.alive.Load())
	}
}
