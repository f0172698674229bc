package pool

import (
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/autoscale"
)

// crowd is a plan with calls, on virtual time: what step asks for happens at once.
type crowd struct {
	*plan
	now    time.Time
	places []int64 // units of the calls that run
	next   int64
	starts int
	stops  int
}

func newCrowd(concurrency, low, high int) *crowd {
	return &crowd{plan: &plan{fn: function("1", concurrency, low, high)}, now: time.Unix(1000, 0)}
}

// act does what step says, until nothing is to be done.
func (c *crowd) act() {
	for todo := c.step(c.now); len(todo) > 0; todo = c.step(c.now) {
		for _, a := range todo {
			switch a.kind {
			case doStart:
				c.starts++
				c.readied(c.now, a.unit)
			case doStop, doKill:
				c.stops++
				c.exited(c.now, a.unit, nil)
			case doGrant:
				c.places = append(c.places, a.unit)
			}
		}
	}
}

// come makes so many calls arrive.
func (c *crowd) come(calls int) {
	for range calls {
		c.next++
		if u, err := c.acquire(c.now, c.next, false); err != nil {
			panic(err)
		} else if u != nil {
			c.places = append(c.places, u.id)
		}
	}
	c.act()
}

// leave ends the oldest calls.
func (c *crowd) leave(calls int) {
	for _, id := range c.places[:calls] {
		c.release(c.now, id)
	}
	c.places = c.places[calls:]
	c.act()
}

// pass lets time go by, and wakes the plan when it wants to.
func (c *crowd) pass(d time.Duration) (wakes int) {
	end := c.now.Add(d)
	for at := c.wake(); !at.IsZero() && !at.After(end); at = c.wake() {
		c.now = later(at, c.now)
		c.act()
		wakes++
	}
	c.now = end
	return wakes
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func TestABurstOfShortCallsStartsOneInstance(t *testing.T) {
	c := newCrowd(10, 0, 100)
	c.come(500)
	for len(c.places) > 0 { // 10 at a time, 2 ms each
		c.pass(2 * time.Millisecond)
		c.leave(len(c.places))
	}
	if c.starts != 1 || len(c.queue) != 0 {
		t.Fatalf("%d instances were started, %d calls wait", c.starts, len(c.queue))
	}
}

func TestNoCallWaitsLongerThanItsPatienceForAStart(t *testing.T) {
	c := newCrowd(10, 0, 100)
	c.come(500)
	c.pass(patienceMax)
	if c.starts != 50 || len(c.places) != 500 {
		t.Fatalf("%d instances were started, %d calls run", c.starts, len(c.places))
	}
}

// Ten calls a second of a second each, in one instance that could take them all, get some air after a while.
func TestALoadOverTheTargetGetsAnotherInstance(t *testing.T) {
	c := newCrowd(10, 0, 100)
	c.come(9)
	for range 30 {
		c.pass(time.Second)
		c.leave(9)
		c.come(9)
	}
	if n := c.current(); n != 2 || c.starts != 2 {
		t.Fatalf("%d instances for 9 calls at a time, of which each should have 7; %d starts", n, c.starts)
	}
	if a, b := c.units[0].inflight, c.units[1].inflight; max(a, b) > 7 {
		t.Errorf("the calls are %d and %d", a, b)
	}
}

// What a load needed stays for a minute while it comes and goes. By idle alone each wave would start its 20 instances again.
func TestWavesOfLoadReuseTheirInstances(t *testing.T) {
	c := newCrowd(10, 0, 100)
	c.fn.Spec.Scale.Idle = quipu.Duration(5 * time.Second)
	for range 20 {
		c.come(200)
		c.pass(3 * time.Second)
		c.leave(199)
		c.pass(8 * time.Second) // longer than idle
		c.leave(1)
	}
	if c.starts > 20*20/4 {
		t.Errorf("20 waves made %d starts and %d stops", c.starts, c.stops)
	}
}

// Windows remember for a minute, and a panic longer; idle is a promise all the same.
func TestAFunctionWithoutCallsGoesToZeroAfterIdle(t *testing.T) {
	c := newCrowd(10, 0, 100)
	c.come(300)
	c.pass(10 * time.Second)
	c.leave(300)
	if c.stops != 0 {
		t.Fatal("stopped at once")
	}
	c.pass(time.Minute - 1)
	if c.current() < 30 {
		t.Fatal("of those that had calls, stopped early; left: ", c.current())
	}
	c.pass(1)
	if c.current() != 0 {
		t.Fatal("left: ", c.current())
	}
	if wakes := c.pass(time.Hour); wakes != 0 {
		t.Errorf("with nothing to do it woke %d times", wakes)
	}
}

func TestMinStaysAndMaxHoldsWhateverTheWindowsSay(t *testing.T) {
	c := newCrowd(10, 3, 5)
	c.act()
	c.come(900)
	c.pass(time.Minute)
	if c.current() != 5 {
		t.Errorf("%d instances, the most is 5", c.current())
	}
	for len(c.places) > 0 {
		c.leave(len(c.places))
	}
	c.pass(time.Hour)
	if c.current() != 3 {
		t.Errorf("%d instances, the least is 3", c.current())
	}
}

func TestOneCallPerInstanceStartsAtOnceForEach(t *testing.T) {
	c := newCrowd(1, 0, 100)
	c.come(40)
	if c.starts != 40 || len(c.places) != 40 {
		t.Fatalf("%d starts, %d calls run", c.starts, len(c.places))
	}
}

func TestTheShareIsTheTargetInWholeCalls(t *testing.T) {
	for n := 1; n <= 10_000; n++ {
		if got, target := float64(share(n)), autoscale.Target(n); got < target-1e-9 || got >= target+1-1e-9 {
			t.Fatalf("of %d calls the share is %v, the target %v", n, got, target)
		}
	}
}

func TestCallsAreSpreadBeyondTheShare(t *testing.T) {
	c := newCrowd(10, 2, 2)
	c.act()
	c.come(7)
	if a, b := c.units[0].inflight, c.units[1].inflight; a*b != 0 {
		t.Errorf("7 calls are spread: %d and %d", a, b)
	}
	c.come(9)
	if a, b := c.units[0].inflight, c.units[1].inflight; a != 8 || b != 8 {
		t.Errorf("16 calls are not: %d and %d", a, b)
	}
}
