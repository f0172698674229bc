package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/meter"
	"github.com/quipu-run/quipu/sdk"
)

// doubles is a plain function whose reply is twice the request; under /fail it fails, and the first attempt of a call under
// /later too.
const doubles = `
import lib

def handle(r):
    failed = r.path.endswith("/fail") or r.path.endswith("/later") and r.headers["Quipu-Attempt"] == "1"
    r.answer(500 if failed else 200, r.body + r.body)

lib.serve(handle)
`

// marks is an atomic function that writes the key of its path, reading it before.
const marks = `
import json, lib

def handle(r):
    key = r.path.rsplit("/", 1)[1]
    lib.state("GET", "shared/" + key)
    status, _ = lib.state("POST", "shared", json.dumps([{"key": key, "value": len(r.body)}]))
    r.answer(200 if status == 204 else 500, r.body + b"!")

lib.serve(handle)
`

// load is what a load generator sent and got, by function.
type load struct {
	mu   sync.Mutex
	sent map[string]quipu.Usage
}

// note counts a call that went right, or was meant to fail.
func (l *load) note(function string, in, out, errors int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.sent[function]
	u.Add(quipu.Usage{Calls: 1, BytesIn: int64(in), BytesOut: int64(out), Errors: int64(errors)})
	l.sent[function] = u
}

// usageOf is a function's in this month's bill.
func (n *node) usageOf(function string) quipu.Usage {
	n.t.Helper()
	b, err := n.client.Bill(n.t.Context(), "", "")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, row := range b.Rows {
		if row.Key == function {
			return row.Usage
		}
	}
	return quipu.Usage{}
}

// ofCalls is what the calls of a function say that they took.
func (n *node) ofCalls(function string) (sum quipu.Usage) {
	n.t.Helper()
	list, err := n.client.Calls(n.t.Context(), function, 1000)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, c := range list {
		sum.Add(c.Usage)
	}
	return sum
}

// ofEachCall leaves what is not of single calls: starts, processor time between calls, records outside of them.
func ofEachCall(u quipu.Usage) quipu.Usage {
	u.Starts, u.StartMillis, u.InitMillis, u.CPUMicros, u.LogAppends, u.StoredByteHours = 0, 0, 0, 0, 0, 0
	return u
}

func deployMetered(t *testing.T, n *node) {
	t.Helper()
	n.deploy(files{"quipu.yaml": function("plain", "doubles.py", "python", "memory: 200M", "async: {retry: {max: 3, backoff: 10ms}}") +
		function("atomic", "marks.py", "python", "atomic: true", "scale: {max: 4}") +
		"apiVersion: quipu.dev/v1\nkind: Function\nmetadata: {name: hears}\nspec: {source: ./marks.py, runtime: python, atomic: true, triggers: [{topic: {name: news, path: /told}}]}\n",
		"doubles.py": doubles, "marks.py": marks})
}

// What calls say that they took, what the bill says, and what was sent are the same.
func TestRecordsAreTheBillAreWhatTheLoadGeneratorSent(t *testing.T) {
	const each = 25
	n := start(t)
	deployMetered(t, n)
	l := &load{sent: map[string]quipu.Usage{}}
	check := func(function string, a answer, status, in, errors int) {
		if a.status != status {
			t.Errorf("%s: %d %.200s, want %d", function, a.status, a.body, status)
		}
		l.note(function, in, len(a.body), errors)
	}
	var all sync.WaitGroup
	for w := range 4 {
		body := strings.Repeat("b", 100*w+1)
		all.Go(func() {
			for i := range each {
				check("plain", n.post("/plain/x", body), 200, len(body), 0)
				check("plain", n.post("/plain/fail", body), 500, len(body), 1)
				check("atomic", n.post(fmt.Sprintf("/atomic/own%d-%d", w, i), body), 200, len(body), 0)
				check("atomic", n.post("/atomic/hot", body), 200, len(body), 0) // they lose to each other
			}
		})
		all.Go(func() {
			key := fmt.Sprint("key", w)
			for range 3 { // the same call, once
				n.post("/plain/keyed", body, quipu.HeaderIdempotency, key).want(t, 200, body+body)
			}
			l.note("plain", len(body), 2*len(body), 0)
			for _, path := range []string{"/plain/later", "/atomic/later"} {
				if a := n.post(path, body, quipu.HeaderPrefer, quipu.PreferAsync); a.status != http.StatusAccepted {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
			l.note("plain", len(body), 2*len(body), 1) // it fails once
			l.note("plain", len(body), 2*len(body), 0)
			l.note("atomic", len(body), len(body)+1, 0)
			if _, err := n.client.Publish(t.Context(), "news", sdk.Publication{Data: []byte(body)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, function := range []string{"plain", "atomic"} {
		want := l.sent[function]
		eventually(t, "the bill has all calls of "+function, func() bool { return n.usageOf(function).Calls >= want.Calls })
		got := n.usageOf(function)
		if got.Calls != want.Calls || got.BytesIn != want.BytesIn || got.BytesOut != want.BytesOut || got.Errors != want.Errors {
			t.Errorf("the bill of %s has %+v, sent was %+v", function, got, want)
		}
	}
	eventually(t, "the bill has the deliveries", func() bool { return n.usageOf("hears").Calls == 4 })
	for function, memory := range map[string]int64{"plain": 191, "atomic": quipu.MemoryMBDefault, "hears": quipu.MemoryMBDefault} {
		bill, calls := n.usageOf(function), n.ofCalls(function)
		if ofEachCall(bill) != ofEachCall(calls) {
			t.Errorf("the bill of %s has %+v, its calls %+v", function, bill, calls)
		}
		if bill.MemoryMB != memory || bill.MemoryMBMillis != memory*bill.BilledMillis || bill.BilledMillis < bill.Runs || bill.Starts < 1 || bill.InitMillis < 1 {
			t.Errorf("the bill of %s cannot be: %+v", function, bill)
		}
	}
	if u := n.usageOf("atomic"); u.LogAppends != u.Calls+4 || u.CPUMicros < u.Runs { // 4 were accepted before they were made
		t.Errorf("%d calls with effects made %d records in %d µs", u.Calls, u.LogAppends, u.CPUMicros)
	}
}

// A call says itself what it took, and its record has the same.
func TestACallShowsWhatItTook(t *testing.T) {
	n := start(t)
	deployMetered(t, n)
	a := n.post("/atomic/k", "hello")
	a.want(t, 200, "hello!")
	c, err := n.client.Call(t.Context(), a.header.Get(quipu.HeaderCallID))
	if err != nil {
		t.Fatal(err)
	}
	want := quipu.Usage{Calls: 1, Runs: 1, BilledMillis: c.Usage.BilledMillis, MemoryMB: 128, MemoryMBMillis: 128 * c.Usage.BilledMillis,
		CPUMicros: c.Usage.CPUMicros, BytesIn: 5, BytesOut: 6, LogAppends: 1}
	if c.Usage != want || c.Usage.BilledMillis < 1 || c.Usage.CPUMicros < 1 {
		t.Errorf("it took %+v", c.Usage)
	}
	n.on("calls", "get", c.ID).wantExit(0)
}

// generator of load calls a node that is killed now and then.
type generator struct {
	*killable
	address  string // the same after each start
	over     chan struct{}
	all      sync.WaitGroup
	keyed    atomic.Int64 // calls with a record, each asked until it was answered
	bytes    atomic.Int64 // of their requests
	sent     atomic.Int64 // calls without one
	answered atomic.Int64 // of those
	gate     sync.RWMutex // held by those, and by the test while there are to be none
}

// repeat asks each of its calls until it is answered.
func (c *generator) repeat(w int) {
	for i := 0; !c.isOver(); i++ {
		url, key, body := fmt.Sprintf("http://%s/atomic/w%d", c.address, w), fmt.Sprintf("w%d-%d", w, i), strings.Repeat("x", i%50)
		var a answer
		if !poll(func() bool { a = ask("POST", url, body, quipu.HeaderIdempotency, key); return a.status == 200 }) {
			c.t.Errorf("call %s was never answered but with %+v", key, a)
			return
		}
		c.keyed.Add(1)
		c.bytes.Add(int64(len(body)))
	}
}

// try asks once.
func (c *generator) try() {
	for !c.isOver() {
		c.gate.RLock()
		c.sent.Add(1)
		if ask("POST", "http://"+c.address+"/plain/x", "p").status == 200 {
			c.answered.Add(1)
		}
		c.gate.RUnlock()
	}
}

func (c *generator) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// crash lets some calls be made and get into the bill, and kills the node while more are. What the bill had it must have
// again. It answers how much that is at least.
func (c *generator) crash(base int64) (after int64) {
	keyed, answered := c.keyed.Load(), c.answered.Load()
	eventually(c.t, "the load goes on", func() bool { return c.keyed.Load() > keyed+50 && c.answered.Load() > answered+50 })
	had := base + c.answered.Load() - answered
	eventually(c.t, "what was answered is in the bill", func() bool { return c.usageOf("plain").Calls >= had })
	c.kill()
	c.gate.Lock()
	defer c.gate.Unlock()
	c.up()
	after = c.usageOf("plain").Calls
	if after < had {
		c.t.Errorf("%d calls were in the bill before a kill, %d after it", had, after)
	}
	return after
}

// After kill -9 calls with a record are in the bill exactly, and of those without one nothing is missing that was there. How
// much may not be there yet, a second, is a test of package meter, which has a clock.
func TestAfterKillsTheBillLacksTheLastSecondAndNothingElse(t *testing.T) {
	c := &generator{killable: spawn(t, t.TempDir(), "serve"), over: make(chan struct{})}
	c.address = c.info.HTTP
	deployMetered(t, &c.node)
	for w := range 2 {
		c.all.Go(func() { c.repeat(w) })
		c.all.Go(c.try)
	}
	plain := int64(0)
	for range 3 {
		plain = c.crash(plain)
	}
	close(c.over)
	c.all.Wait()
	if err := c.term(); err != nil { // which records the rest
		t.Fatal(err)
	}
	c.up()
	got := c.usageOf("atomic")
	if calls := got.Calls - got.Errors; calls != c.keyed.Load() || got.BytesIn < c.bytes.Load() || got.LogAppends != c.keyed.Load() {
		t.Errorf("%d calls with %d bytes have a record; the bill has %+v", c.keyed.Load(), c.bytes.Load(), got)
	}
	if calls := c.usageOf("plain").Calls; calls < plain || calls > c.sent.Load() {
		t.Errorf("%d calls were in the bill and %d were sent in all; the bill has %d", plain, c.sent.Load(), calls)
	}
	if calls := c.ofCalls("atomic"); c.keyed.Load() <= 1000 && calls.BytesOut != c.bytes.Load()+c.keyed.Load() {
		t.Errorf("the records of %d calls with %d bytes have %+v", c.keyed.Load(), c.bytes.Load(), calls)
	}
	if t.Failed() {
		t.Logf("%s", c.output.String())
	}
}

// A budget that is used up refuses who waits for an answer, and keeps what nobody waits for until there is money again.
func TestAStoppedFunctionRefusesCallsAndKeepsWhatNobodyWaitsFor(t *testing.T) {
	n := start(t)
	deployMetered(t, n)
	n.post("/plain/x", "b").want(t, 200, "bb")
	eventually(t, "the call is in the bill", func() bool { return n.usageOf("plain").Calls == 1 })
	if err := n.client.SetPrices(t.Context(), quipu.Prices{Currency: "EUR", PerMillionCalls: "1000000"}); err != nil {
		t.Fatal(err)
	}
	n.on("budget", "set", "--amount", "1.00", "--stop").wantExit(0)
	a := n.post("/plain/x", "b")
	a.wantCode(t, quipu.CodeBudget)
	if wait := a.header.Get("Retry-After"); wait == "" || wait == "1" {
		t.Errorf("Retry-After is %q, want what is left of the month, up to an hour", wait)
	}
	accepted := n.post("/plain/x", "later", quipu.HeaderPrefer, quipu.PreferAsync)
	if accepted.status != http.StatusAccepted {
		t.Fatalf("%d %s", accepted.status, accepted.body)
	}
	if _, err := n.client.Publish(t.Context(), "news", sdk.Publication{Data: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	id := accepted.header.Get(quipu.HeaderCallID)
	eventually(t, "the call that nobody waits for says why it waits", func() bool {
		c, err := n.client.Call(t.Context(), id)
		return err == nil && c.State.Pending() && c.Error == quipu.CodeBudget
	})
	n.on("bill").wantErr("stopped")
	eventually(t, "the budget tells so", func() bool {
		info, err := n.client.Topic(t.Context(), quipu.TopicBudgets)
		return err == nil && info.Last == 2
	})
	if err := n.stop(); err != nil { // it is stopped after a restart, too
		t.Fatal(err)
	}
	n.run()
	n.post("/plain/x", "b").wantCode(t, quipu.CodeBudget)
	n.on("budget", "set", "--amount", "1000", "--stop").wantExit(0)
	n.post("/plain/x", "b").want(t, 200, "bb")
	eventually(t, "what nobody waits for is done", func() bool {
		c, err := n.client.Call(t.Context(), id)
		return err == nil && c.State == quipu.CallSucceeded && n.usageOf("hears").Calls == 1
	})
	info, err := n.client.Topic(t.Context(), quipu.TopicBudgets)
	if err != nil || info.Last != 2 {
		t.Errorf("the budget told %+v, %v; want two events, of 80 and of 100 percent", info, err)
	}
}

func TestPricesAreAFileThatCanBeChangedAndSet(t *testing.T) {
	n := start(t)
	r := n.on("bill", "prices", "-o", "json")
	r.wantExit(0)
	var p quipu.Prices
	if err := json.Unmarshal([]byte(r.out), &p); err != nil || p != meter.DefaultPrices() {
		t.Fatalf("a new namespace has the prices %s, %v", r.out, err)
	}
	file := t.TempDir() + "/prices.yaml"
	if err := os.WriteFile(file, []byte(n.on("bill", "prices").out), 0o600); err != nil { // what is printed can be set
		t.Fatal(err)
	}
	n.on("bill", "prices", "set", file).wantExit(0)
	if again, err := n.client.Prices(t.Context()); err != nil || again != p {
		t.Fatalf("the prices that were printed are set as %+v, %v", again, err)
	}
	for _, c := range []struct {
		text string
		exit int
	}{{"currency: CHF\nperMillionCalls: 1000000.00\n", 0}, {"currency: CHF\nperCall: 1\n", 2}, {"currency: CHF\nperGBIn: free\n", 2}, {"", 2}} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		n.on("bill", "prices", "set", file).wantExit(c.exit)
	}
	n.python(doubles)
	n.post("/f/", "b").want(t, 200, "bb")
	eventually(t, "the bill has the call at the new price", func() bool {
		b, err := n.client.Bill(t.Context(), "", quipu.ByDay)
		return err == nil && b.Total == 1_000_000 && b.Currency == "CHF"
	})
}
