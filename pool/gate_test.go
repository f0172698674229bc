package pool

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/xtest"
	"pgregory.net/rapid"
)

// stands of functions a, b, …, each by its name.
func standsOf(g *gate, names ...string) map[string]*stand {
	all := map[string]*stand{}
	for _, name := range names {
		all[name] = g.stand(name, func() {})
	}
	return all
}

func TestPlacesGoRoundTheFunctionsThatWait(t *testing.T) {
	g := newGate(2)
	s := standsOf(g, "a", "b", "c")
	for _, who := range []string{"a", "a", "a", "b", "c"} { // a had them all, and wants more
		s[who].take(false)
	}
	var order []string
	for range 4 {
		holder := s["a"]
		for _, c := range s {
			if c.claim.taken > 0 {
				holder = c
			}
		}
		holder.give(1, 0)
		for name, c := range s {
			if c.offered.Swap(0) == 1 {
				order = append(order, name)
				c.take(false) // it has one more that waits
			}
		}
	}
	if first := order[:3]; !slices.Equal(first, []string{"a", "b", "c"}) {
		t.Errorf("the turns were %v", order)
	}
}

func TestAReservedPlaceIsForItsFunctionOnly(t *testing.T) {
	g := newGate(3)
	g.reserve("b", 2)
	s := standsOf(g, "a", "b")
	if !s["a"].take(false) || s["a"].take(false) {
		t.Fatal("a has one place that is not reserved")
	}
	for n := range 3 {
		if got := s["b"].take(false); got != (n < 2) {
			t.Fatalf("b has its two, and no more; place %d: %v", n+1, got)
		}
	}
	s["b"].give(1, 0)
	if s["a"].offered.Load() != 0 || s["b"].offered.Load() != 1 {
		t.Error("what was reserved went to somebody else")
	}
	g.reserve("b", 0)
	s["b"].give(1, 0)
	if s["a"].offered.Load() != 1 {
		t.Error("a still waits though nothing is reserved")
	}
}

func TestWhoLeavesTheLineHoldsNobodyUp(t *testing.T) {
	g := newGate(1)
	s := standsOf(g, "a", "b", "c")
	s["a"].take(false)
	s["b"].take(false)
	s["c"].take(false)
	s["a"].give(1, 0) // b is offered it, and goes
	s["b"].leave()
	if s["c"].offered.Load() != 1 {
		t.Error("the place is lost")
	}
	s["c"].leave()
	s["a"].leave()
	if len(g.of) != 0 || g.taken != 0 || g.kept != 0 || len(g.stands) != 0 {
		t.Errorf("it is not empty: %+v", g)
	}
}

// Whatever is taken, given, reserved and left: nobody waits while there is a place for it, places are not made up, and
// what a function reserved it can have.
func TestAGateKeepsItsBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGate(rapid.IntRange(1, 8).Draw(t, "most"))
		names := []string{"a", "b", "c"}
		s := standsOf(g, names...)
		held := map[string]int{}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				who := rapid.SampledFrom(names).Draw(t, "who")
				if s[who].take(rapid.IntRange(0, 9).Draw(t, "force") == 0) {
					held[who]++
				}
			},
			"give": func(t *rapid.T) {
				who := rapid.SampledFrom(names).Draw(t, "who")
				held[who] += int(s[who].offered.Swap(0))
				if held[who] > 0 {
					held[who]--
					s[who].give(1, 0)
				}
			},
			"reserve": func(t *rapid.T) {
				g.reserve(rapid.SampledFrom(names).Draw(t, "who"), rapid.IntRange(0, 2).Draw(t, "places"))
			},
			"": func(t *rapid.T) { g.audit(t, held, s) },
		})
	})
}

func (g *gate) audit(t *rapid.T, held map[string]int, s map[string]*stand) {
	taken, kept := 0, 0
	for name, one := range s {
		c := one.claim
		if c.taken != held[name]+int(one.offered.Load()) {
			t.Fatalf("%s has %d places, not %d", name, held[name], c.taken)
		}
		taken, kept = taken+c.taken, kept+max(0, c.reserved-c.taken)
		if one.inLine && (c.taken < c.reserved || g.taken+g.kept < g.most) {
			t.Fatalf("%s waits though there is a place", name)
		}
	}
	if taken != g.taken || kept != g.kept {
		t.Fatalf("%d taken and %d kept, not %d and %d", g.taken, g.kept, taken, kept)
	}
}

func named(name string, concurrency, high int) quipu.Function {
	fn := function("1", concurrency, 0, high)
	fn.Name = name
	return fn
}

// Twenty calls of one function wait, and then one of another: it has the second place that becomes free.
func TestABusyFunctionLeavesTurnsToOthers(t *testing.T) {
	p := newPool(&fake{}, func(o *Options) { o.CallsMax = 2 })
	greedy, modest := named("greedy", 50, 1), named("modest", 50, 1)
	p.Set("greedy", []quipu.Function{greedy}, nil)
	p.Set("modest", []quipu.Function{modest}, nil)
	var held []*Lease
	for range 2 {
		l, err := p.Acquire(t.Context(), greedy)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
	}
	granted := make(chan *Lease)
	wait := func(fn quipu.Function, calls int) {
		for range calls {
			go func() {
				l, err := p.Acquire(t.Context(), fn)
				if err != nil {
					t.Error(err)
				}
				granted <- l
			}()
		}
		for p.waiting(fn) < calls {
			runtime.Gosched()
		}
	}
	wait(greedy, 20)
	wait(modest, 1) // with an instance that has to start first
	for !p.inLine(modest) {
		runtime.Gosched()
	}
	var order []string
	for range 21 {
		held[0].Release()
		l := <-granted
		order = append(order, l.Function().Name)
		held = append(held[1:], l)
	}
	if !slices.Equal(order[:3], []string{"greedy", "modest", "greedy"}) {
		t.Errorf("the turns were %v", order)
	}
	for _, l := range held {
		l.Release()
	}
	closeEmpty(t, p)
}

// waiting is how many calls of a revision wait.
func (p *Pool) waiting(fn quipu.Function) int {
	p.mu.Lock()
	k := p.keepers[keyOf(fn)]
	p.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.plan.queue)
}

// inLine tells whether a revision waits for a place.
func (p *Pool) inLine(fn quipu.Function) bool {
	p.mu.Lock()
	k := p.keepers[keyOf(fn)]
	p.mu.Unlock()
	p.places.mu.Lock()
	defer p.places.mu.Unlock()
	return k.places.inLine
}

// closeEmpty closes a pool, of which nothing may be left.
func closeEmpty(t *testing.T, p *Pool) {
	t.Helper()
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, g := range []*gate{p.places, p.rooms} {
		if g.taken != 0 || len(g.line) != 0 || g.yielding != 0 || len(g.stands) != 0 {
			t.Errorf("places are left: %+v", g)
		}
	}
}

// With room for two instances, five functions still get their calls: an instance without calls makes room.
func TestIdleInstancesMakeRoomForOtherFunctions(t *testing.T) {
	rt := &fake{}
	p := newPool(rt, func(o *Options) { o.InstancesMax = 2 })
	names := []string{"a", "b", "c", "d", "e"}
	for _, name := range names {
		p.Set(name, []quipu.Function{named(name, 1, 5)}, nil)
	}
	var callers sync.WaitGroup
	for _, name := range names {
		callers.Go(func() {
			for range 100 {
				l, err := p.Acquire(t.Context(), named(name, 1, 5))
				if err != nil {
					t.Error(err)
					return
				}
				if n := rt.alive.Load(); n > 2 {
					t.Errorf("%d instances", n)
				}
				l.Release()
			}
		})
	}
	callers.Wait()
	closeEmpty(t, p)
}

// Who stood in line for an instance that is not needed any more does not keep its idle ones from others.
func TestAWishThatIsOverHoldsNobodyUp(t *testing.T) {
	p := newPool(&fake{}, func(o *Options) { o.InstancesMax = 1 })
	a, b := named("a", 1, 2), named("b", 1, 1)
	p.Set("a", []quipu.Function{a}, nil)
	p.Set("b", []quipu.Function{b}, nil)
	l, err := p.Acquire(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Acquire(ctx, a); quipu.CodeOf(err) != quipu.CodeTimeout { // it wanted a second instance
		t.Fatal(err)
	}
	l.Release()
	if l, err = p.Acquire(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	l.Release()
	closeEmpty(t, p)
}

// All places are held by calls that wait for the one that is part of them.
func TestAPartOfACallGoesBeyondTheBounds(t *testing.T) {
	p := newPool(&fake{}, func(o *Options) { o.CallsMax, o.InstancesMax = 1, 1 })
	p.Set("a", []quipu.Function{named("a", 1, 1)}, nil)
	p.Set("b", []quipu.Function{named("b", 1, 1)}, nil)
	whole, err := p.Acquire(t.Context(), named("a", 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	part, err := p.AcquireJoined(t.Context(), named("b", 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	part.Release()
	whole.Release()
	closeEmpty(t, p)
}

func TestACallThatGivesUpInLineLeavesNoTrace(t *testing.T) {
	p := newPool(&fake{}, func(o *Options) { o.CallsMax = 1 })
	p.Set("a", []quipu.Function{named("a", 2, 1)}, nil)
	l, err := p.Acquire(t.Context(), named("a", 2, 1))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Acquire(ctx, named("a", 2, 1)); quipu.CodeOf(err) != quipu.CodeTimeout {
		t.Error("a second call got a place: ", err)
	}
	l.Release()
	if l, err = p.Acquire(t.Context(), named("a", 2, 1)); err != nil {
		t.Fatal(err)
	}
	l.Release()
	closeEmpty(t, p)
}

func TestTheQueueOfAFunctionIsItsOwn(t *testing.T) {
	p := plan{fn: function("1", 1, 0, 1)}
	p.fn.Spec.Scale.Queue = 3
	for n := range int64(3) {
		if _, err := p.acquire(time.Unix(1000, 0), n, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.acquire(time.Unix(1000, 0), 4, false); quipu.CodeOf(err) != quipu.CodeBusy {
		t.Fatal(err)
	}
}

func TestADeployIsNotHeldUpByAFullNamespace(t *testing.T) {
	p := newPool(&fake{}, func(o *Options) { o.InstancesMax, o.CallsMax = 1, 2 })
	p.Set("a", []quipu.Function{named("a", 1, 1)}, nil)
	busy, err := p.Acquire(t.Context(), named("a", 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Try(t.Context(), named("b", 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	busy.Release()
	p.Settle(named("b", 1, 1))
	closeEmpty(t, p)
}

// Starts are told once each, with what they took, and those that failed as such.
func TestEachStartIsMeasured(t *testing.T) {
	clock := xtest.NewClock(time.Unix(1000, 0))
	told := make(chan ColdStart, 2)
	p := newPool(&fake{}, func(o *Options) {
		o.Clock = clock
		o.Prepare = func(_ context.Context, fn quipu.Function, id string) (quipu.InstanceSpec, func(), error) {
			clock.Move(30 * time.Millisecond)
			return quipu.InstanceSpec{ID: id, Function: fn.Name}, nil, nil
		}
		o.Healthy = func(_ context.Context, fn quipu.Function, _ string, _ quipu.Instance) error {
			clock.Move(50 * time.Millisecond)
			if fn.Name == "sick" {
				return errors.New("503")
			}
			return nil
		}
		o.Started = func(fn quipu.Function, c ColdStart, failed bool) {
			if failed != (fn.Name == "sick") {
				t.Errorf("%s failed: %v", fn.Name, failed)
			}
			told <- c
		}
	})
	for _, name := range []string{"a", "sick"} {
		p.Set(name, []quipu.Function{named(name, 1, 1)}, nil)
		if l, err := p.Acquire(t.Context(), named(name, 1, 1)); err == nil {
			l.Release()
		}
	}
	if c := <-told; c != (ColdStart{Start: 30 * time.Millisecond, Init: 50 * time.Millisecond}) {
		t.Errorf("it took %+v", c)
	}
	<-told
	closeEmpty(t, p)
}
