package server

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quipu-run/quipu"
)

// takesItsTime answers what it was sent with, after as long as it takes to need several instances.
const takesItsTime = `
import lib, time
def handle(r):
    time.sleep(0.02)
    r.answer(200, "VERSION " + r.body.decode())
lib.serve(handle)`

// crowd sends requests without pause, and sees that each is answered, with what was sent.
type crowd struct {
	n       *node
	stop    chan struct{}
	callers sync.WaitGroup
	sent    atomic.Int64
	lost    atomic.Int64
}

func (n *node) crowd(callers int) *crowd {
	c := &crowd{n: n, stop: make(chan struct{})}
	for who := range callers {
		c.callers.Go(func() {
			for {
				select {
				case <-c.stop:
					return
				default:
					c.call(fmt.Sprint(who, "-", c.sent.Add(1)))
				}
			}
		})
	}
	return c
}

func (c *crowd) call(what string) {
	a := c.n.post("/f/", what)
	if a.status != 200 || !strings.HasSuffix(a.body, " "+what) {
		if c.lost.Add(1) <= 5 {
			c.n.t.Errorf("request %s: %d %.200q", what, a.status, a.body)
		}
	}
}

func (c *crowd) leave() {
	close(c.stop)
	c.callers.Wait()
}

// states counts the instances.
func (n *node) states() (ready, all int) {
	n.t.Helper()
	list, err := n.client.Instances(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, i := range list {
		if i.State == "ready" {
			ready++
		}
	}
	return ready, len(list)
}

// From nothing to several instances and back, with new revisions and a roll-back at the height of the load: each request that
// is sent is answered, and by the function; also where the namespace has less room than the load wants.
func TestNoRequestIsLostFromZeroToManyAndBackWithDeploysUnderLoad(t *testing.T) {
	t.Run("with room", func(t *testing.T) { start(t).wave(3) })
	t.Run("in a full namespace", func(t *testing.T) {
		start(t, func(c *Config) { c.CallsMax, c.InstancesMax = 6, 3 }).wave(2)
	})
}

// wave is cycles of load and none.
func (n *node) wave(cycles int) {
	n.t.Helper()
	version := 0
	deploy := func() {
		version++
		n.python(strings.Replace(takesItsTime, "VERSION", fmt.Sprint("v", version), 1), "concurrency: 4", "scale: {max: 4, idle: 200ms}")
	}
	deploy()
	var sent, lost int64
	for range cycles {
		eventually(n.t, "there is no instance", func() bool { _, all := n.states(); return all == 0 })
		c := n.crowd(12)
		eventually(n.t, "there are several instances", func() bool { ready, _ := n.states(); return ready > 1 })
		deploy()
		deploy()
		n.rollback("")
		from := c.sent.Load()
		eventually(n.t, "the load goes on", func() bool { return c.sent.Load() > from+100 })
		c.leave()
		sent, lost = sent+c.sent.Load(), lost+c.lost.Load()
	}
	eventually(n.t, "all is idle again", func() bool { _, all := n.states(); return all == 0 })
	n.t.Logf("%d requests in %d cycles with %d revisions, %d lost", sent, cycles, version, lost)
	n.wantColdStarts()
}

// wantColdStarts compares the figures of starts with each other.
func (n *node) wantColdStarts() {
	n.t.Helper()
	page := n.get("/-/metrics").body
	figure := func(line string) int {
		found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(line) + ` (\d+)$`).FindStringSubmatch(page)
		if found == nil {
			n.t.Fatalf("no %s among the metrics", line)
		}
		value, err := strconv.Atoi(found[1])
		if err != nil {
			n.t.Fatal(err)
		}
		return value
	}
	const of = `{function="f",namespace="default",`
	ready := figure(`quipu_cold_starts_total` + of + `outcome="ready"}`)
	for _, phase := range []string{"start", "init"} {
		if got := figure(`quipu_cold_start_seconds_count` + of + `phase="` + phase + `"}`); got != ready {
			n.t.Errorf("%d figures of phase %s for %d starts", got, phase, ready)
		}
	}
	if got := figure(`quipu_cold_start_seconds_count` + of + `phase="wait"}`); got == 0 || got > ready {
		n.t.Errorf("calls waited for %d of %d starts", got, ready)
	}
}

func TestBeyondItsQueueAFunctionAnswers429WithRetryAfter(t *testing.T) {
	n := start(t, unconfined)
	n.python(slow, "concurrency: 1", "scale: {max: 1, queue: 1}")
	folder := t.TempDir()
	first := n.begin(folder)
	others := make(chan answer, 3)
	for range cap(others) {
		go func() { others <- n.get("/f/quick") }()
	}
	for range cap(others) - 1 { // one waits, in the queue
		a := <-others
		a.wantCode(t, quipu.CodeBusy)
		if a.header.Get("Retry-After") == "" {
			t.Error("it does not say when to come again")
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	(<-first).want(t, 200, "slow")
	(<-others).want(t, 200, "quick")
}

func TestReservationsLeaveSomethingToOthers(t *testing.T) {
	n := start(t, func(c *Config) { c.CallsMax = 20 })
	n.python(takesItsTime, "scale: {reserved: 18}")
	_, err := n.client.Deploy(t.Context(), "greedy", files{
		"quipu.yaml": function("g", "g.py", "python", "scale: {reserved: 1}"), "g.py": takesItsTime}.pack(t))
	if quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), "function g") {
		t.Fatal(err)
	}
	n.post("/f/", "7").want(t, 200, "VERSION 7")
}
