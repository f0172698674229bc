package server

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// worker is an atomic function that counts under the key that its body is, and misbehaves as X-How says: once, if X-Once
// names a file that is not there yet, else always.
const worker = `
import json, lib, os, time, http.client
def invoke(function, body, prefer):
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    door.request("POST", "/v1.0/invoke/%s/method/" % function, body, {"dapr-api-token": os.environ["DAPR_API_TOKEN"], "Prefer": prefer})
    reply = door.getresponse()
    return reply.status, json.loads(reply.read())
def handle(r):
    how, once = r.headers.get("X-How"), r.headers.get("X-Once")
    if once and os.path.exists(once):
        how = None
    elif once:
        open(once, "w").close()
    key = r.body.decode()
    if r.path.endswith("/delegate"):
        status, reply = invoke("f", key, "respond-async")
        if status != 202:
            return r.answer(500, reply)
        key = reply["id"]
    else:
        n = int(lib.state("GET", "shared/" + key)[1] or 0) + 1
        lib.state("POST", "shared/", json.dumps([{"key": key, "value": n}]))
    if how == "crash":
        os._exit(7)
    if how == "hang":
        time.sleep(600)
    r.answer(int(how or 200), key)
lib.serve(handle)`

func (n *node) worker(more ...string) {
	n.t.Helper()
	n.python(worker, append([]string{"atomic: true", "async: {retry: {backoff: 50ms}, onSuccess: {topic: ends}}"}, more...)...)
}

// async asks for a call of f and answers its id.
func (n *node) async(body string, header ...string) string {
	n.t.Helper()
	a := n.post("/f/", body, append(header, quipu.HeaderPrefer, quipu.PreferAsync)...)
	if a.status != http.StatusAccepted {
		n.t.Fatalf("%d %s", a.status, a.body)
	}
	return a.header.Get(quipu.HeaderCallID)
}

// ended waits for a call.
func (n *node) ended(id string) quipu.CallInfo {
	n.t.Helper()
	var info quipu.CallInfo
	if !poll(func() bool {
		var err error
		info, err = n.client.Call(n.t.Context(), id)
		return err == nil && !info.State.Pending()
	}) {
		n.t.Fatalf("after %s the call is %+v", patience, info)
	}
	return info
}

// ends counts the events about ends of calls in a topic, by call; a topic that is not there has none.
func (n *node) ends(topic string) map[string]int {
	n.t.Helper()
	told := map[string]int{}
	for e, err := range n.client.Events(n.t.Context(), topic, sdk.EventsRequest{From: "earliest"}) {
		if err != nil {
			n.t.Fatal(err)
		}
		var event struct{ Data struct{ Call string } }
		if err := json.Unmarshal(e.Event, &event); err != nil {
			n.t.Fatalf("%s: %v", e.Event, err)
		}
		told[event.Data.Call]++
	}
	return told
}

// Whatever door a call comes through, it wakes a function that has no instance, and its result can be asked for.
func TestACallThatNobodyWaitsForWakesItsFunction(t *testing.T) {
	n := start(t)
	n.worker("scale: {idle: 50ms}")
	for i, url := range []string{
		"http://" + n.info.HTTP + "/f/",
		"http://" + n.info.HTTP + "/-/v1/functions/f/call/",
		"http://" + n.info.DaprHTTP + "/v1.0/invoke/f/method/",
	} {
		eventually(t, "no instance is left", func() bool {
			list, err := n.client.Instances(t.Context())
			return err == nil && len(list) == 0
		})
		key := fmt.Sprintf("door-%d", i)
		a := ask("POST", url, key, quipu.HeaderPrefer, quipu.PreferAsync)
		var said sdk.Accepted
		if err := json.Unmarshal([]byte(a.body), &said); err != nil || a.status != 202 || said.ID == "" {
			t.Fatalf("%s: %d %s", url, a.status, a.body)
		}
		if info := n.ended(said.ID); info.State != quipu.CallSucceeded || info.Attempts != 1 {
			t.Errorf("%s: it ended as %+v", url, info)
		}
		result := n.get(a.header.Get("Location") + "/result")
		result.want(t, 200, key)
		if result.header.Get(quipu.HeaderCallID) != said.ID || n.state(key) != "1" {
			t.Errorf("%s: %v, counted %s", url, result.header, n.state(key))
		}
	}
}

// However the first attempt fails, the call has its effect once; how the last one fails is how the call ends.
func TestACallIsTriedAgainUntilItSucceedsOrHasUsedItsRetries(t *testing.T) {
	n := start(t, unconfined)
	n.worker("timeout: 1s")
	dir := t.TempDir()
	for _, how := range []string{"crash", "hang", "500", "429"} {
		id := n.async(how, "X-How", how, "X-Once", filepath.Join(dir, how))
		if info := n.ended(id); info.State != quipu.CallSucceeded || info.Attempts != 2 || n.state(how) != "1" {
			t.Errorf("%s once: %+v, counted %q", how, info, n.state(how))
		}
	}
	for how, want := range map[string]quipu.CallInfo{
		"crash": {State: quipu.CallFailed, Attempts: 4, Error: quipu.CodeCrashed, Status: 502},
		"503":   {State: quipu.CallFailed, Attempts: 4, Status: 503},
		"404":   {State: quipu.CallFailed, Attempts: 1, Status: 404},
	} {
		id := n.async("always-"+how, "X-How", how)
		info := n.ended(id)
		if info.State != want.State || info.Attempts != want.Attempts || info.Error != want.Error || info.Status != want.Status {
			t.Errorf("%s always: %+v", how, info)
		}
		if n.state("always-"+how) != "" || n.ends("f-dead")[id] != 1 {
			t.Errorf("%s always: counted %q, told %v", how, n.state("always-"+how), n.ends("f-dead"))
		}
		if got := n.get("/-/v1/calls/" + id + "/result"); got.status != want.Status {
			t.Errorf("%s always: the result is %d %s", how, got.status, got.body)
		}
	}
	if told := n.ends("ends"); len(told) != 4 {
		t.Errorf("4 calls succeeded, %d were told of", len(told))
	}
	figures := n.get("/-/metrics").body
	for state, want := range map[quipu.CallState]int{quipu.CallSucceeded: 4, quipu.CallFailed: 3} {
		if line := fmt.Sprintf("quipu_async_calls_total{function=%q,namespace=%q,state=%q} %d\n", "f", "default", state, want); !strings.Contains(figures, line) {
			t.Errorf("the figures lack %s", line)
		}
	}
}

// A call that an atomic function asks for is part of what the function does: a failure of it, also after the door has said
// 202, leaves no call behind.
func TestACallAskedForByAnAtomicFunctionIsThereWhenThatCommits(t *testing.T) {
	n := start(t)
	n.worker()
	for _, how := range []string{"crash", "500"} {
		n.post("/f/delegate", "lost-"+how, "X-How", how)
	}
	a := n.post("/f/delegate", "kept")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	n.ended(a.body)
	if got := n.state("kept"); got != "1" {
		t.Errorf("the call counted %q", got)
	}
	calls, err := n.client.Calls(t.Context(), "f", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		if c.State != "" && c.ID != a.body {
			t.Errorf("there is another: %+v", c)
		}
	}
	for _, key := range []string{"lost-crash", "lost-500"} {
		if got := n.state(key); got != "" {
			t.Errorf("%s counted %s", key, got)
		}
	}
}

// A cancel cuts the attempt with its process, of an atomic function nothing is left of it, and calls behind it go on.
func TestACancelEndsARunningCall(t *testing.T) {
	n := start(t)
	n.worker("scale: {max: 1}")
	first := n.async("hangs", "X-How", "hang")
	second := n.async("waits")
	eventually(t, "it hangs", func() bool {
		info, err := n.client.Call(t.Context(), first)
		return err == nil && info.State == quipu.CallRunning && len(n.processes()) > 0
	})
	n.on("calls", "cancel", first).wantExit(0)
	n.on("calls", "cancel", first).wantErr(string(quipu.CodeCallEnded))
	if info := n.ended(second); info.State != quipu.CallSucceeded {
		t.Errorf("the one behind it ended as %+v", info)
	}
	n.get("/-/v1/calls/"+first+"/result").wantCode(t, quipu.CodeCallCancelled)
	if got := n.state("hangs") + n.state("waits"); got != "1" {
		t.Errorf("the two counted %q", got)
	}
}

// Calls of a function that is removed end with a code and are told to its dead letters; what runs finishes.
func TestCallsOfARemovedFunctionEnd(t *testing.T) {
	n := start(t)
	n.worker("scale: {max: 1}")
	n.async("hangs", "X-How", "hang")
	var ids []string
	for i := range 5 {
		ids = append(ids, n.async(fmt.Sprintf("waits-%d", i)))
	}
	if err := n.client.Remove(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if info := n.ended(id); info.State != quipu.CallFailed || info.Error != quipu.CodeNoFunction || n.ends("f-dead")[id] != 1 {
			t.Errorf("it ended as %+v", info)
		}
	}
}

// The queue has an end: who comes then is told when to come again, and what was accepted is there.
func TestTheQueueOfAFunctionHasAnEnd(t *testing.T) {
	n := start(t)
	n.worker("scale: {max: 1}", "timeout: 10m")
	n.async("hangs", "X-How", "hang")
	var accepted, refused atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for refused.Load() == 0 {
				a := n.post("/f/", "x", quipu.HeaderPrefer, quipu.PreferAsync)
				switch {
				case a.status == 202:
					accepted.Add(1)
				case a.status == 429 && a.code() == quipu.CodeCallQueue && a.header.Get("Retry-After") != "":
					refused.Add(1)
				default:
					t.Errorf("%d %s", a.status, a.body)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := accepted.Load(); got > quipu.AsyncQueueMax-1 || got < quipu.AsyncQueueMax-100 {
		t.Errorf("%d were accepted besides the first, the most is %d in all", got, quipu.AsyncQueueMax)
	}
	if line := fmt.Sprintf("quipu_async_calls_waiting{function=%q,namespace=%q} %d\n", "f", "default", accepted.Load()+1); !strings.Contains(n.get("/-/metrics").body, line) {
		t.Errorf("the figures lack %s", line)
	}
	n.post("/f/", strings.Repeat("x", quipu.AsyncBodyMax+1), quipu.HeaderPrefer, quipu.PreferAsync).wantCode(t, quipu.CodeBodySize)
}

// Eight clients ask for calls, each with a key and again until it is accepted, while the node is killed ten times at random
// points. Every accepted call of the atomic function counts once, and its end is told once.
func TestANodeKilledAtRandomMakesEveryAcceptedCallOnce(t *testing.T) {
	const kills, clients = 10, 8
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := spawn(t, t.TempDir(), "serve")
	k.worker("scale: {max: 4}")
	url := "http://" + k.info.HTTP + "/f/"
	var accepted sync.Map // key -> call
	over := make(chan struct{})
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := 0; i < 60; i++ {
				select {
				case <-over:
					return
				default:
				}
				key := fmt.Sprintf("%d-%d", c, i)
				if !poll(func() bool {
					a := ask("POST", url, key, quipu.HeaderPrefer, quipu.PreferAsync, quipu.HeaderIdempotency, key)
					if a.status == 202 {
						accepted.Store(key, a.header.Get(quipu.HeaderCallID))
					}
					return a.status == 202
				}) {
					t.Errorf("request %s was not accepted within %s", key, patience)
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for range kills {
		<-time.After(time.Duration(rng.IntN(400)) * time.Millisecond) // the random point
		k.kill()
		k.up()
	}
	close(over)
	wg.Wait()
	k.allOnce(&accepted)
	if err := k.term(); err != nil {
		t.Errorf("the node did not end well: %v", err)
	}
	if t.Failed() {
		t.Log(k.output.String())
	}
}

// allOnce checks that every call of a map from keys succeeded, counted once and was told once.
func (n *node) allOnce(accepted *sync.Map) {
	n.t.Helper()
	calls := 0
	accepted.Range(func(key, id any) bool {
		calls++
		if info := n.ended(id.(string)); info.State != quipu.CallSucceeded {
			n.t.Errorf("call %s ended as %+v", key, info)
		}
		if got := n.state(key.(string)); got != "1" {
			n.t.Errorf("call %s counted %q", key, got)
		}
		return true
	})
	for id, times := range n.ends("ends") {
		if times != 1 {
			n.t.Errorf("the end of call %s was told %d times", id, times)
		}
	}
	if told := n.ends("ends"); len(told) != calls || calls == 0 {
		n.t.Errorf("%d calls were accepted, and %d ends told", calls, len(told))
	}
	n.t.Logf("%d calls", calls)
}

// A killed node knows how far a call was: its attempts go on from there, and what was accepted is found by its id.
func TestAttemptsAndResultsOutliveAKill(t *testing.T) {
	k := spawn(t, t.TempDir(), "serve")
	k.python(worker, "atomic: true", "async: {retry: {max: 1, backoff: 30s}}")
	done := k.async("done")
	k.ended(done)
	fails := k.async("fails", "X-How", "500")
	eventually(t, "its first attempt has failed", func() bool {
		info, err := k.client.Call(t.Context(), fails)
		return err == nil && info.State == quipu.CallWaiting
	})
	before, err := k.client.Call(t.Context(), fails)
	if err != nil {
		t.Fatal(err)
	}
	k.kill()
	k.up()
	after, err := k.client.Call(t.Context(), fails)
	if err != nil || after.State != quipu.CallWaiting || after.Attempts != 1 || !after.Next.Equal(before.Next) || after.Cause != before.Cause {
		t.Errorf("before the kill %+v, after it %+v, %v", before, after, err)
	}
	k.get("/-/v1/calls/"+done+"/result").want(t, 200, "done")
	resp, err := k.client.CallResult(t.Context(), done)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "done" {
		t.Errorf("the result is %q, %v", body, err)
	}
	if _, err := k.client.CallResult(t.Context(), fails); quipu.CodeOf(err) != quipu.CodeCallPending {
		t.Errorf("it has a result before its end: %v", err)
	}
	out := k.on("call", "f", "--async", "-d", "from-the-command-line")
	out.wantExit(0)
	if info := k.ended(strings.TrimSpace(out.out)); info.State != quipu.CallSucceeded || k.state("from-the-command-line") != "1" {
		t.Errorf("it ended as %+v", info)
	}
}
