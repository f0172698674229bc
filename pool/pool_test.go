package pool

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
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

func TestEveryAcquireGetsAnInstanceOrACodeUnderStress(t *testing.T) {
	rt := &fake{}
	p := New(Options{Runtime: rt, Prepare: func(_ context.Context, fn quipu.Function, id string) (quipu.InstanceSpec, func(), error) {
		return quipu.InstanceSpec{ID: id, Function: fn.Name}, nil, nil
	}})
	const slots = 3
	p.Replace(function("0", slots, 0, 4))
	var callers sync.WaitGroup
	for n := range 16 {
		callers.Go(func() {
			for range 300 {
				l, err := p.Acquire(t.Context(), "f")
				if err != nil {
					if quipu.CodeOf(err) != quipu.CodeStart {
						t.Error(err)
					}
					continue
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
					p.Replace(function(string(rune('a'+n)), slots, 0, 4))
					l.Release()
				default:
					l.Release()
				}
			}
		})
	}
	callers.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := rt.alive.Load(); n != 0 {
		t.Errorf("%d instances are left", n)
	}
	if _, err := p.Acquire(t.Context(), "f"); quipu.CodeOf(err) != quipu.CodeStopping {
		t.Error(err)
	}
}

func TestReplacingFailsNoCall(t *testing.T) {
	p := New(Options{Runtime: &fake{}, Prepare: func(_ context.Context, fn quipu.Function, id string) (quipu.InstanceSpec, func(), error) {
		return quipu.InstanceSpec{ID: id, Function: fn.Name}, nil, nil
	}})
	p.Replace(function("0", 2, 0, 3))
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
				l, err := p.Acquire(t.Context(), "f")
				if err != nil {
					t.Error(err)
					return
				}
				l.Release()
			}
		})
	}
	for n := range 50 {
		p.Replace(function(string(rune('a'+n)), 2, 0, 3))
		for newest := false; !newest && !t.Failed(); { // until a call reaches it
			l, err := p.Acquire(t.Context(), "f")
			if err != nil {
				t.Fatal(err)
			}
			newest = l.Function().Revision == string(rune('a'+n))
			l.Release()
		}
	}
	close(stop)
	callers.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A function that was removed while a call of it hangs does not hold up the end of the node.
func TestCloseEndsCallsOfRemovedFunctions(t *testing.T) {
	rt := &fake{}
	p := New(Options{Runtime: rt, Prepare: func(_ context.Context, fn quipu.Function, id string) (quipu.InstanceSpec, func(), error) {
		return quipu.InstanceSpec{ID: id, Function: fn.Name}, nil, nil
	}})
	p.Replace(function("a", 1, 0, 1))
	if _, err := p.Acquire(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	p.Remove("f")
	if _, err := p.Acquire(t.Context(), "f"); quipu.CodeOf(err) != quipu.CodeNoFunction {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || rt.alive.Load() != 0 {
		t.Errorf("%v, %d instances are left", err, rt.alive.Load())
	}
}
