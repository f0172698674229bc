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
	p := plan{target: function("1", 1, 0, 2)}
	if u, err := p.acquire(1); u != nil || err != nil {
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
	p := plan{target: function("1", 1, 0, 2)}
	for n, pause := 0, 100*time.Millisecond; n < 12; n, pause = n+1, min(2*pause, 30*time.Second) {
		if _, err := p.acquire(1); err != nil {
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

func TestAnOldRevisionServesUntilTheNewOneIsReady(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{target: function("1", 2, 0, 2)}
	p.acquire(1)
	p.step(now)
	p.readied(now, 1)
	p.step(now)
	p.replace(function("2", 2, 0, 2))
	if n := kindsOf(p.step(now)); n[doStart] != 1 || len(n) != 1 {
		t.Fatal(n)
	}
	if u, _ := p.acquire(2); u == nil || u.id != 1 {
		t.Fatal("the old one does not serve: ", u)
	}
	p.readied(now, 2)
	if n := kindsOf(p.step(now)); len(n) != 0 {
		t.Fatal("the old one was ended under its calls: ", n)
	}
	if u, _ := p.acquire(3); u == nil || u.id != 2 {
		t.Fatal("a new call went to ", u)
	}
	p.release(now, 1)
	p.release(now, 1)
	if todo := p.step(now); len(todo) != 1 || todo[0].kind != doStop || todo[0].unit != 1 {
		t.Fatal(todo)
	}
}

func TestTheQueueIsBounded(t *testing.T) {
	p := plan{target: function("1", 1, 0, 1)}
	for n := range waitersMax {
		if _, err := p.acquire(int64(n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.acquire(-1); quipu.CodeOf(err) != quipu.CodeBusy {
		t.Fatal(err)
	}
}

func TestAStartThatTakesTooLongIsKilled(t *testing.T) {
	now := time.Unix(1000, 0)
	p := plan{target: function("1", 1, 0, 1)}
	p.acquire(1)
	p.step(now)
	if n := kindsOf(p.step(now.Add(30 * time.Second))); n[doKill] != 1 || n[doFail] != 1 {
		t.Fatal(n)
	}
}
