package server

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

// twice adds one to two keys, in two writes, and kills itself once at the step that X-Die names.
const twice = `
import json, lib, os
def handle(r):
    def step(name):
        once = r.headers.get("X-Once")
        if r.headers.get("X-Die") == name and not os.path.exists(once):
            open(once, "w").close()
            os.kill(os.getpid(), 9)
    def add(key):
        n = int(lib.state("GET", "shared/" + key)[1] or 0) + 1
        step("between read and write of " + key)
        status, text = lib.state("POST", "shared/", json.dumps([{"key": key, "value": n}]))
        if status != 204:
            raise OSError(text)
        return n
    step("before the first read")
    add("a")
    step("between the writes")
    n = add("b")
    step("before the reply")
    r.answer(200, n)
    step("after the reply")
lib.serve(handle)`

// Wherever a function is killed, both of its writes are there or none, and to ask again with the same key
// gives the effect once.
func TestAFunctionKilledAtAnyStepActsOnceOrNotAtAll(t *testing.T) {
	n := start(t, unconfined)
	n.python(twice, "atomic: true")
	for i, step := range []string{"before the first read", "between read and write of a", "between the writes",
		"between read and write of b", "before the reply", "after the reply"} {
		t.Run(step, func(t *testing.T) {
			done := strconv.Itoa(i + 1)
			header := []string{"X-Die", step, "X-Once", filepath.Join(t.TempDir(), "died"), quipu.HeaderIdempotency, step}
			first := n.post("/f/", "", header...)
			if step == "after the reply" {
				first.want(t, 200, done)
			} else {
				first.wantCode(t, quipu.CodeCrashed)
				if a, b := n.state("a"), n.state("b"); a != b || a == done {
					t.Errorf("after the kill a is %q and b is %q", a, b)
				}
			}
			for range 2 { // again, and once more: the recorded result
				n.post("/f/", "", header...).want(t, 200, done)
			}
			if a, b := n.state("a"), n.state("b"); a != done || b != done {
				t.Errorf("in the end a is %q and b is %q, want %s", a, b, done)
			}
		})
	}
}

func TestACallIsOneRecordAndOneWithoutEffectsIsNone(t *testing.T) {
	n := start(t)
	n.python(twice, "atomic: true")
	before := n.records()
	for range 5 {
		if a := n.post("/f/", ""); a.status != 200 {
			t.Fatal(a)
		}
	}
	if got := n.records() - before; got != 5 {
		t.Errorf("5 calls with two writes each made %d records", got)
	}
	n.python(keeps, "atomic: true")
	eventually(t, "the function that reads answers", func() bool { return n.get("/f/").body == "" })
	before = n.records()
	for range 5 {
		n.get("/f/").want(t, 200, "")
	}
	if got := n.records() - before; got != 0 {
		t.Errorf("5 calls that only read made %d records", got)
	}
}

// counter deploys an atomic counter in Go, so that it starts fast.
func (n *node) counter() {
	n.t.Helper()
	packed, err := packFolder(n.t, filepath.Join("..", "bench", "app"))
	if err == nil {
		_, err = n.client.Deploy(n.t.Context(), "bench", packed)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func TestSixtyFourCallersOfOneKeyAllSucceedAndTheSumIsExact(t *testing.T) {
	const callers, each = 64, 5
	n := start(t)
	n.counter()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				if a := n.post("/count/k", ""); a.status != 200 {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
		})
	}
	wg.Wait()
	if got := n.state("bench-k"); got != strconv.Itoa(callers*each) {
		t.Errorf("%d calls counted %s", callers*each, got)
	}
	calls, err := n.client.Calls(t.Context(), "counter", callers*each)
	if err != nil || len(calls) != callers*each {
		t.Fatalf("%d calls are remembered, %v", len(calls), err)
	}
	runs := 0
	for _, c := range calls {
		runs += c.Runs
	}
	t.Logf("%.2f runs per commit", float64(runs)/float64(callers*each))
}

// Eight clients count, each request with a key and repeated until it is acknowledged, while the node is killed
// ten times at random points. The counter is the number of acknowledged keys.
func TestANodeKilledAtRandomCountsEveryAcknowledgedKeyOnce(t *testing.T) {
	const kills, clients = 10, 8
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := spawn(t, t.TempDir(), "serve")
	k.counter()
	url := "http://" + k.info.HTTP + "/count/k"
	var acknowledged, retries atomic.Int64
	over := make(chan struct{})
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				if last, ok := acknowledge(url, fmt.Sprintf("%d-%d", c, i), &retries); !ok {
					t.Errorf("request %d of client %d was not acknowledged within %s: at last %d %s", i, c, patience, last.status, last.body)
					return
				}
				acknowledged.Add(1)
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for range kills {
		<-time.After(time.Duration(rng.IntN(300)) * time.Millisecond) // the random point
		k.kill()
		k.up()
	}
	close(over)
	wg.Wait()
	if got := k.state("bench-k"); got != strconv.FormatInt(acknowledged.Load(), 10) {
		t.Errorf("%d keys were acknowledged, %s counted", acknowledged.Load(), got)
	}
	t.Logf("%d keys, %d requests made again", acknowledged.Load(), retries.Load())
	if err := k.term(); err != nil {
		t.Errorf("the node did not end well: %v", err)
	}
	if t.Failed() {
		t.Log(k.output.String())
	}
}

// acknowledge repeats a request until it is answered with success.
func acknowledge(url, key string, retries *atomic.Int64) (last answer, ok bool) {
	ok = poll(func() bool {
		if last = ask(http.MethodPost, url, "", quipu.HeaderIdempotency, key); last.status == 200 {
			return true
		}
		retries.Add(1)
		return false
	})
	return last, ok
}
