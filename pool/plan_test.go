package pool

import (
	"errors"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

func function(rev string, concurrency, low, high int) quipu.Function {
	return quipu.Function{Name: "f", Revision: rev, Spec: quipu.Spec{
		Concurrency: concurrency, StartTimeout: quipu.Duration(30 * time.Second),
		Scale: quipu.Scale{Min: low, Max: high, Idle: quipu.Duration(time.Minute)},
	}}
}

// kindsOf counts what a step asks for.
func kindsOf(todo []action) map[kind]int {
	n := map[kind]int{}
	for _, a := range todo {
		n[a.kind]++
	}
	return n
}

func TestTheFirstCallStartsAnInstanceAndIdlenessStopsIt(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{fn: function("1", 1, 0, 2)}
	if u, err := p.acquire(now, 1, false); u != nil || err != nil {
		t.Fatal(u, err)
	}
	if n := kindsOf(p.step(now)); n[doStart] != 1 {
		t.Fatal(n)
	}
	p.readied(now, 1)
	if n := kindsOf(p.step(now)); n[doGrant] != 1 || len(n) != 1 {
		t.Fatal(n)
	}
	p.release(now, 1)
	if n := kindsOf(p.step(now.Add(59 * time.Second))); len(n) != 0 {
		t.Fatal("stopped early: ", n)
	}
	if p.wake() != now.Add(time.Minute) {
		t.Fatal("wakes at ", p.wake())
	}
	if n := kindsOf(p.step(now.Add(time.Minute))); n[doStop] != 1 {
		t.Fatal(n)
	}
}

func TestFailuresBackOffAndFailWaitersFast(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{fn: function("1", 1, 0, 2)}
	for n, pause := 0, 100*time.Millisecond; n < 12; n, pause = n+1, min(2*pause, 30*time.Second) {
		if _, err := p.acquire(now, 1, false); err != nil {
			t.Fatal(err)
		}
		if got := kindsOf(p.step(now)); got[doStart] != 1 {
			t.Fatalf("try %d: %v", n, got)
		}
		p.exited(now, p.nextUnit, errors.New("exit status 1"))
		todo := p.step(now)
		if len(todo) != 1 || todo[0].kind != doFail || quipu.CodeOf(todo[0].err) != quipu.CodeStart {
			t.Fatalf("try %d: %v", n, todo)
		}
		if p.retryAt.Sub(now) != pause {
			t.Fatalf("try %d: pause %v, not %v", n, p.retryAt.Sub(now), pause)
		}
		now = p.retryAt
	}
}

// What was given to a revision is done by it, whatever the traffic does: also what still waits.
func TestARetiredRevisionEndsAfterItsCalls(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{fn: function("1", 2, 1, 2)}
	p.acquire(now, 1, false)
	p.step(now)
	p.readied(now, 1)
	p.step(now)
	p.assign(p.fn, Retired, estate{})
	if n := kindsOf(p.step(now)); len(n) != 0 {
		t.Fatal("it was ended under its calls: ", n)
	}
	if u, _ := p.acquire(now, 2, false); u == nil || u.id != 1 {
		t.Fatal("a call that was on its way got ", u)
	}
	p.release(now, 1)
	p.release(now, 1)
	if n := kindsOf(p.step(now)); len(n) != 0 || p.wake() != now.Add(lingerMax) {
		t.Fatalf("it does not wait for late calls: %v, wakes at %v", n, p.wake())
	}
	now = now.Add(lingerMax)
	if todo := p.step(now); len(todo) != 1 || todo[0].kind != doStop || todo[0].unit != 1 {
		t.Fatal(todo)
	}
	p.exited(now, 1, nil)
	if n := kindsOf(p.step(now)); len(n) != 0 {
		t.Fatal("scale.min counts for what has no traffic: ", n)
	}
	p.acquire(now, 3, false)
	if n := kindsOf(p.step(now)); n[doStart] != 1 {
		t.Fatal("a call that comes later still has to be answered: ", n)
	}
}

func TestAStartThatNobodyWaitsForEndsWithTheTraffic(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{fn: function("1", 1, 1, 2)}
	if n := kindsOf(p.step(now)); n[doStart] != 1 {
		t.Fatal(n)
	}
	p.assign(p.fn, Retired, estate{})
	if n := kindsOf(p.step(now)); n[doKill] != 1 {
		t.Fatal(n)
	}
}

// A trial keeps its one instance for as long as it takes, and the revision starts its life with it.
func TestATrialIsTheFirstWarmInstance(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{fn: function("1", 1, 0, 2), role: Trial}
	if n := kindsOf(p.step(now)); n[doStart] != 1 {
		t.Fatal(n)
	}
	p.readied(now, 1)
	now = now.Add(time.Hour)
	if n := kindsOf(p.step(now)); len(n) != 0 {
		t.Fatal("the deploy took long, and lost its instance: ", n)
	}
	p.assign(p.fn, Live, estate{serving: true})
	if u, _ := p.acquire(now, 1, false); u == nil {
		t.Fatal("the first call waits")
	}
	if n := kindsOf(p.step(now)); len(n) != 0 {
		t.Fatal("a second instance: ", n)
	}
}

// Who takes over from others does not wait for its first call, nor for the pause after failures of long ago.
func TestARevisionThatTakesOverStartsAtOnce(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{fn: function("1", 1, 0, 2), role: Retired}
	p.failed(now, errors.New("exit status 1"))
	p.assign(p.fn, Live, estate{serving: true})
	if n := kindsOf(p.step(now)); n[doStart] != 1 {
		t.Fatal(n)
	}
	p.readied(now, 1)
	p.step(now)
	if p.wake() != now.Add(provenAfter) {
		t.Fatal("wakes at ", p.wake())
	}
	if n := kindsOf(p.step(now.Add(time.Minute))); n[doStop] != 1 {
		t.Fatal("it stays for ever: ", n)
	}
}

func TestARevisionThatTakesOverALoadStartsWhatItNeeds(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{fn: function("1", 10, 0, 8), role: Trial}
	p.step(now)
	p.readied(now, 1)
	p.assign(p.fn, Live, estate{serving: true, calls: 45})
	if n := kindsOf(p.step(now)); n[doStart] != 4 {
		t.Fatal("for 45 calls, with one instance there: ", n)
	}
	p.readied(now, 2)
	if n := kindsOf(p.step(now)); len(n) != 0 {
		t.Fatal(n)
	}
	for id := range int64(5) {
		p.readied(now, id+1)
	}
	if n := kindsOf(p.step(now.Add(time.Minute))); n[doStop] != 5 {
		t.Fatal("nobody came, and they stay: ", n)
	}
}

func TestTheQueueIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{fn: function("1", 1, 0, 1)}
	for n := range waitersMax {
		if _, err := p.acquire(now, int64(n), false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.acquire(now, -1, false); quipu.CodeOf(err) != quipu.CodeBusy {
		t.Fatal(err)
	}
}

func TestAStartThatTakesTooLongIsKilled(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{fn: function("1", 1, 0, 1)}
	p.acquire(now, 1, false)
	p.step(now)
	if n := kindsOf(p.step(now.Add(30 * time.Second))); n[doKill] != 1 || n[doFail] != 1 {
		t.Fatal(n)
	}
}

// Those who hold all instances may wait for the call that a joined one is part of, so it never waits for them.
func TestJoinedCallGetsAnInstanceBeyondTheMost(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &plan{fn: quipu.Function{Name: "f", Revision: "a", Spec: quipu.Spec{Concurrency: 1, Scale: quipu.Scale{Max: 1}}}}
	p.acquire(now, 1, false)
	p.step(now)
	p.readied(now, 1)
	p.step(now) // waiter 1 has the only instance
	p.acquire(now, 2, false)
	if todo := p.step(now); len(todo) > 0 {
		t.Fatalf("a call of its own made %+v", todo)
	}
	p.acquire(now, 3, true)
	todo := p.step(now)
	if len(todo) != 1 || todo[0].kind != doStart {
		t.Fatalf("a joined call made %+v", todo)
	}
	p.readied(now, todo[0].unit)
	todo = p.step(now)
	if len(todo) != 1 || todo[0].kind != doGrant || todo[0].waiter != 3 {
		t.Fatalf("the new instance went elsewhere: %+v", todo)
	}
	p.part(true)
	p.release(now, todo[0].unit)
	if todo := p.step(now); len(todo) != 1 || todo[0].waiter != 2 || p.wanted(now) != 1 {
		t.Fatalf("afterwards: %+v, wanted %d", todo, p.wanted(now))
	}
}
