package server

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// refused deploys function f in Python, which must be refused with words that all have to be there.
func (n *node) refused(code string, more string, words ...string) {
	n.t.Helper()
	_, err := n.client.Deploy(n.t.Context(), "app", files{"quipu.yaml": function("f", "f.py", "python", more), "f.py": code}.pack(n.t))
	if quipu.CodeOf(err) != quipu.CodeRefused {
		n.t.Fatalf("%v, want %s", err, quipu.CodeRefused)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			n.t.Errorf("no %q in %q", word, err)
		}
	}
}

// traffic gives parts to revisions: number and percent by turns.
func (n *node) traffic(parts ...int) {
	n.t.Helper()
	var split []quipu.Part
	for i := 0; i+1 < len(parts); i += 2 {
		split = append(split, quipu.Part{Revision: strconv.Itoa(parts[i]), Percent: parts[i+1]})
	}
	if _, err := n.client.Split(n.t.Context(), "f", split); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) rollback(to string) {
	n.t.Helper()
	if _, err := n.client.Rollback(n.t.Context(), "f", to); err != nil {
		n.t.Fatal(err)
	}
}

// wantTraffic is "number=percent", the newest first, of those that have any.
func (n *node) wantTraffic(want string) {
	n.t.Helper()
	list, err := n.client.Revisions(n.t.Context(), "f")
	if err != nil {
		n.t.Fatal(err)
	}
	var got []string
	for _, r := range list {
		if r.Percent > 0 {
			got = append(got, fmt.Sprintf("%d=%d", r.Number, r.Percent))
		}
	}
	if strings.Join(got, " ") != want {
		n.t.Fatalf("traffic %v, want %s", got, want)
	}
}

// Where a start fails by its time alone.
const quick = "startTimeout: 2500ms"

// However a new revision fails to come up, it is refused with what it printed, and leaves nothing; the old one goes on, also
// when it was idle meanwhile and has to start again.
func TestABadRevisionNeverTakesTraffic(t *testing.T) {
	t.Parallel() // much of it is waiting
	n := start(t)
	n.refused("import sys\nprint('no oven')\nsys.exit(3)", "", "exit status 3", "no oven")
	if list, err := n.client.Functions(t.Context()); err != nil || len(list) > 0 {
		t.Fatalf("deployed all the same: %v, %v", list, err)
	}
	n.noneLeft()
	n.python(versioned(1), "scale: {idle: 100ms}")
	n.get("/f/").want(t, 200, "1")
	n.refused("import sys\nprint('first line')\nprint('no flour', file=sys.stderr)\nsys.exit(4)", "", "exit status 4", "first line", "no flour")
	n.refused("print('\\x1b[31mred' + 'x' * 100000)\nraise SystemExit(4)", "", "·[31mredxxx", "xxx…")
	n.refused("import time\nprint('thinking', flush=True)\ntime.sleep(1000)", quick, "startTimeout of 2.5s", "thinking")
	n.refused("import lib\nlib.serve(lambda r: r.answer(503, 'x'))", quick+"\n  health: /f/health", "startTimeout of 2.5s", "GET /f/health answered 503")
	n.refused("import lib, time\nlib.serve(lambda r: time.sleep(1000))", quick+"\n  health: /f/health", "GET /f/health was not answered")
	n.refused("import lib, os\nlib.serve(lambda r: os._exit(5))", "health: /f/health", "ended")
	eventually(t, "the old revision has no instance", func() bool { return len(n.processes()) == 0 })
	n.get("/f/").want(t, 200, "1")
	n.wantTraffic("1=100")
	n.python(versioned(2), "health: /f/")
	n.get("/f/").want(t, 200, "2")
}

const becomesHealthy = `
import lib, os
asked = 0
def handle(r):
    global asked
    if r.path == "/f/health":
        asked += 1
        return r.answer(204 if asked > 3 else 503, "")
    r.answer(200, "%d %d" % (os.getpid(), asked))
lib.serve(handle)`

// No instance is called before it is healthy, and that which was looked at at the deploy is the one that gets the first call.
func TestTheInstanceOfADeployTakesTheFirstCalls(t *testing.T) {
	n := start(t, unconfined)
	n.python(becomesHealthy, "health: /f/health")
	pid := n.pid()
	n.get("/f/").want(t, 200, fmt.Sprintf("%d 4", pid))
	kill(t, pid)
	eventually(t, "another is healthy", func() bool {
		a := n.get("/f/") // the instance may not be known to be gone
		return a.status == 200 && strings.HasSuffix(a.body, " 4") && !strings.HasPrefix(a.body, strconv.Itoa(pid)+" ")
	})
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// A call that runs while the traffic moves, and one that waits for an instance, get the answer of their revision.
func TestACallFinishesOnItsRevision(t *testing.T) {
	n := start(t, unconfined)
	slow := func(version string) string {
		return "import lib, os, time\ndef handle(r):\n    if r.path == '/f/wait':\n        open(r.headers['Mark'], 'w').close()\n        while os.path.exists(r.headers['Mark']): time.sleep(.01)\n    r.answer(200, '" + version + "')\nlib.serve(handle)"
	}
	n.python(slow("one"), "concurrency: 1", "scale: {max: 1}")
	mark := t.TempDir() + "/mark"
	replies := make(chan answer, 2)
	go func() { replies <- n.get("/f/wait", "Mark", mark) }()
	eventually(t, "it runs", func() bool {
		_, err := os.Stat(mark)
		return err == nil
	})
	go func() { // it waits for the one place of revision 1
		replies <- ask("GET", "http://"+n.info.HTTP+"/-/v1/functions/f/call/f/next", "", quipu.HeaderRevision, "1")
	}()
	n.python(slow("two"), "concurrency: 1", "scale: {max: 1}")
	n.get("/f/").want(t, 200, "two")
	n.rollback("")
	n.traffic(2, 100)
	n.get("/f/").want(t, 200, "two")
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		(<-replies).want(t, 200, "one")
	}
	eventually(t, "revision 1 ends after its calls", func() bool {
		list, err := n.client.Instances(t.Context())
		return err == nil && len(list) == 1
	})
}

// Eight clients ask without a pause while revisions are deployed, split, named and rolled back. Each request is answered, by
// a revision that had traffic at some moment of the request.
func TestMovingTrafficDropsNoRequest(t *testing.T) {
	n := start(t)
	n.python(versioned(1))
	clients := n.load(8)
	for v := 2; v <= 4; v++ {
		n.python(versioned(v))
		n.get("/f/").want(t, 200, strconv.Itoa(v)) // the deploy is over, so it has the traffic
		n.traffic(v, 10, v-1, 90)
		n.rollback("")
		n.get("/f/").want(t, 200, strconv.Itoa(v-1))
		n.rollback(strconv.Itoa(v))
		n.get("/f/").want(t, 200, strconv.Itoa(v))
		n.refused("raise SystemExit(1)", "")
	}
	clients.end(t)
}

// clients ask for /f/ as fast as they can.
type clients struct {
	over    chan struct{}
	running sync.WaitGroup
	asked   atomic.Int64
	mu      sync.Mutex
	bad     []answer // the first few
}

func (n *node) load(count int) *clients {
	c := &clients{over: make(chan struct{})}
	for range count {
		c.running.Go(func() {
			for {
				select {
				case <-c.over:
					return
				default:
				}
				a := n.get("/f/")
				c.asked.Add(1)
				if _, err := strconv.Atoi(a.body); a.status != 200 || err != nil || a.header.Get(quipu.HeaderRevision) == "" {
					c.mu.Lock()
					c.bad = append(c.bad, a)
					c.mu.Unlock()
					return
				}
			}
		})
	}
	return c
}

func (c *clients) end(t *testing.T) {
	t.Helper()
	close(c.over)
	c.running.Wait()
	for _, a := range c.bad {
		t.Errorf("got %d %s", a.status, a.body)
	}
	t.Logf("%d requests", c.asked.Load())
}

func TestASplitIsKeptAndCanBeOverruledByName(t *testing.T) {
	n := start(t)
	for v := 1; v <= 3; v++ {
		n.python(versioned(v))
	}
	n.traffic(3, 50, 2, 50)
	seen, keys := map[string]int{}, map[string]string{}
	for i := range 200 {
		a := n.get("/f/")
		seen[a.body]++
		key := strconv.Itoa(i % 20)
		b := n.post("/f/", "", quipu.HeaderIdempotency, "key-"+key)
		if keys[key] != "" && keys[key] != b.header.Get(quipu.HeaderRevision) {
			t.Errorf("key %s went to two revisions", key)
		}
		keys[key] = b.header.Get(quipu.HeaderRevision)
	}
	if seen["2"] < 60 || seen["3"] < 60 || seen["2"]+seen["3"] != 200 {
		t.Errorf("half and half: %v", seen)
	}
	n.get("/f/", quipu.HeaderRevision, "1").wantCode(t, quipu.CodeNoRevision)
	if err := n.client.SetAlias(t.Context(), "f", "first", "1"); err != nil {
		t.Fatal(err)
	}
	for which, want := range map[string]string{"first": "1", "1": "1", "2": "2", "3": "3"} {
		n.get("/f/", quipu.HeaderRevision, which).want(t, 200, want)
	}
	n.get("/f/", quipu.HeaderRevision, "4").wantCode(t, quipu.CodeNoRevision)
	if err := n.client.SetAlias(t.Context(), "f", "first", ""); err != nil {
		t.Fatal(err)
	}
	n.get("/f/", quipu.HeaderRevision, "first").wantCode(t, quipu.CodeNoRevision)
	ask("GET", "http://"+n.info.HTTP+"/-/v1/functions/f/call/", "", quipu.HeaderRevision, "1").want(t, 200, "1") // from inside
	calls, err := n.client.Calls(t.Context(), "f", 1)
	list, listErr := n.client.Revisions(t.Context(), "f")
	if err != nil || listErr != nil || calls[0].Revision != list[2].Revision {
		t.Errorf("the call is remembered with revision %v, %v, %v", calls, err, listErr)
	}
}

const asksOther = `
import http.client, lib, os
def handle(r):
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    headers = {"dapr-api-token": os.environ["DAPR_API_TOKEN"]}
    if r.headers["Which"]:
        headers["Quipu-Revision"] = r.headers["Which"]
    door.request("GET", "/v1.0/invoke/f/method/", None, headers)
    reply = door.getresponse()
    r.answer(200, reply.read() if reply.status == 200 else str(reply.status))
lib.serve(handle)`

func TestAFunctionChoosesTheRevisionItInvokes(t *testing.T) {
	for _, kind := range []string{"atomic: false", "atomic: true"} {
		t.Run(kind, func(t *testing.T) {
			n := start(t)
			for v := 1; v <= 2; v++ {
				n.deploy(files{"quipu.yaml": function("f", "f.py", "python", kind) + function("g", "g.py", "python", kind), "f.py": versioned(v), "g.py": asksOther})
			}
			n.get("/g/").want(t, 200, "2")
			n.get("/g/", "Which", "1").want(t, 200, "1")
			n.get("/g/", "Which", "7").want(t, 200, "404")
		})
	}
}

// An event that one revision cannot take comes to the other at a later attempt: each attempt is a call of its own. So a bad
// new revision with a part of the traffic delays events, and loses none.
func TestEventsOutliveABadRevisionWithAPart(t *testing.T) {
	n := start(t)
	trigger := "{topic: {name: t, retry: {max: 100, backoff: 1ms}}}"
	consumer := func(status int) string {
		return fmt.Sprintf("import lib\nlib.serve(lambda r: r.answer(%d, 'x'))", status)
	}
	deploy := func(status int) {
		manifest := strings.Replace(function("f", "f.py", "python"), "{http: {path: /f/}}", trigger, 1)
		n.deploy(files{"quipu.yaml": manifest, "f.py": consumer(status)})
	}
	deploy(200)
	deploy(500)
	n.traffic(2, 50, 1, 50)
	for i := range 20 {
		n.publish("t", fmt.Sprint("e", i), map[string]string{})
	}
	n.settled("t")
	if _, err := n.client.Topic(t.Context(), "f-dead"); quipu.CodeOf(err) != quipu.CodeNoTopic {
		t.Errorf("there are dead letters: %v", err)
	}
	answered := map[int]int{}
	calls, err := n.client.Calls(t.Context(), "f", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		answered[c.Status]++
	}
	if answered[200] != 20 || answered[500] == 0 {
		t.Errorf("answers %v; each event is acknowledged once, and the bad revision had its part", answered)
	}
}

// What a reply says depends on the contract of who said it: RETRY in a reply of 200 is a word of Dapr's, and the newest
// revision speaks plain HTTP.
func TestAReplyToAnEventIsJudgedByTheContractOfItsRevision(t *testing.T) {
	n := start(t)
	trigger := "{topic: {name: t, retry: {max: 100, backoff: 1ms}}}"
	deploy := func(code string, more ...string) {
		manifest := strings.Replace(function("f", "f.py", "python", more...), "{http: {path: /f/}}", trigger, 1)
		n.deploy(files{"quipu.yaml": manifest, "f.py": code})
	}
	deploy(`
import lib
def handle(r):
    if r.path == "/dapr/subscribe":
        return r.answer(404, "")
    r.answer(200, '{"status": "RETRY"}', "application/json")
lib.serve(handle)`, "contract: dapr")
	deploy(`
import json, lib
def handle(r):
    lib.state("POST", "shared/", json.dumps([{"key": json.loads(r.body)["id"], "value": 1}]))
    r.answer(200, "ok")
lib.serve(handle)`)
	n.traffic(2, 50, 1, 50)
	for i := range 20 {
		n.publish("t", fmt.Sprint("e", i), map[string]string{})
	}
	n.settled("t")
	for i := range 20 {
		if n.state(fmt.Sprint("e", i)) != "1" {
			t.Errorf("event %d was acknowledged by a revision that asked for it again", i)
		}
	}
	revisions := map[string]bool{}
	calls, err := n.client.Calls(t.Context(), "f", 1000)
	for _, c := range calls {
		revisions[c.Revision] = true
	}
	if err != nil || len(revisions) != 2 {
		t.Errorf("calls went to %d revisions, %v", len(revisions), err)
	}
}

const subscribes = `
import http.client, json, lib, os
def metadata():
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    door.request("GET", "/v1.0/metadata", None, {"dapr-api-token": os.environ["DAPR_API_TOKEN"]})
    return door.getresponse().read()
def handle(r):
    if r.path == "/dapr/subscribe":
        return r.answer(200, '[{"pubsubname": "pubsub", "topic": "orders", "route": "/order"}]', "application/json")
    if r.path == "/order":
        lib.state("POST", "shared/", json.dumps([{"key": "pid", "value": os.getpid()}]))
        return r.answer(200, "")
    r.answer(200, metadata())
lib.serve(handle)`

// The instance that was asked for its subscriptions gets the first event, and knows what it subscribes to.
func TestADaprApplicationIsAskedInItsFirstInstance(t *testing.T) {
	n := start(t, unconfined)
	n.python(subscribes, "contract: dapr")
	pid := n.pid()
	n.publish("orders", "o1", map[string]string{})
	n.settled("orders")
	if got := n.state("pid"); got != strconv.Itoa(pid) {
		t.Errorf("process %s got the event, %d was asked", got, pid)
	}
	if a := n.get("/f/"); !strings.Contains(a.body, `"orders"`) {
		t.Errorf("it does not know its subscription: %s", a.body)
	}
}

// A revision is tried by name before it gets a part, and then all, of the traffic.
func TestARevisionCanBeTriedBeforeItHasTraffic(t *testing.T) {
	n := start(t)
	n.python(versioned(1))
	next := files{"quipu.yaml": function("f", "f.py", "python"), "f.py": versioned(2)}.pack(t)
	list, err := n.client.DeployWith(t.Context(), "app", next, quipu.DeployOptions{NoTraffic: true})
	if err != nil || list[0].Number != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	n.get("/f/").want(t, 200, "1")
	eventually(t, "the instance of the deploy is gone, for nobody calls it", func() bool { return len(n.processes()) == 1 })
	ask("GET", "http://"+n.info.HTTP+"/-/v1/functions/f/call/", "", quipu.HeaderRevision, "2").want(t, 200, "2")
	n.get("/f/", quipu.HeaderRevision, "2").wantCode(t, quipu.CodeNoRevision)
	n.traffic(2, 1, 1, 99)
	n.get("/f/", quipu.HeaderRevision, "2").want(t, 200, "2")
	n.rollback("")
	n.get("/f/").want(t, 200, "1")
	n.traffic(2, 100)
	n.get("/f/").want(t, 200, "2")
}

// The triggers are those of the newest revision that has traffic: routes come and go with a roll-back.
func TestRoutesAreThoseOfTheNewestWithTraffic(t *testing.T) {
	n := start(t)
	n.python(versioned(1))
	n.deploy(files{"quipu.yaml": strings.Replace(function("f", "f.py", "python"), "/f/", "/g/", 1), "f.py": versioned(2)})
	n.get("/f/").wantCode(t, quipu.CodeNoRoute)
	n.get("/g/").want(t, 200, "2")
	n.rollback("")
	n.get("/g/").wantCode(t, quipu.CodeNoRoute)
	n.get("/f/").want(t, 200, "1")
	other := strings.Replace(function("h", "f.py", "python"), "/h/", "/g/", 1)
	if _, err := n.client.Deploy(t.Context(), "other", files{"quipu.yaml": other, "f.py": versioned(3)}.pack(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.client.Rollback(t.Context(), "f", "2"); quipu.CodeOf(err) != quipu.CodeRoute {
		t.Errorf("two functions have one route: %v", err)
	}
	n.get("/g/").want(t, 200, "3")
}

// A node is killed again and again, with deploys under way, while clients ask and the traffic is moved. What was acknowledged
// is so after the restart, without being looked at again, and nobody gets an answer from what never had traffic.
func TestAKillLosesNoChangeOfTraffic(t *testing.T) {
	data := t.TempDir()
	k := spawn(t, data, "serve")
	k.python(versioned(1))
	k.python(versioned(2))
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 3 {
		percent := 1 + random.IntN(99)
		k.traffic(1, percent, 2, 100-percent)
		late := files{"quipu.yaml": function("f", "f.py", "python"), "f.py": fmt.Sprintf("import lib, time\n%d\ntime.sleep(1000)", round)}.pack(t)
		deployed := make(chan error, 1)
		go func() {
			_, err := k.client.Deploy(t.Context(), "app", late)
			deployed <- err
		}()
		eventually(t, "the deploy has started its instance", func() bool {
			list, err := k.client.Instances(t.Context())
			return err == nil && slices.ContainsFunc(list, func(i sdk.Instance) bool { return i.State == "starting" })
		})
		clients := k.load(4)
		for clients.asked.Load() < 100 {
			k.get("/f/")
		}
		k.kill()
		close(clients.over)
		clients.running.Wait()
		for _, a := range clients.bad {
			if a.status != 0 { // its connection broke
				t.Errorf("got %d %s", a.status, a.body)
			}
		}
		if err := <-deployed; err == nil {
			t.Error("a deploy was acknowledged that never ended")
		}
		k.up()
		k.wantTraffic(fmt.Sprintf("2=%d 1=%d", 100-percent, percent))
		if list, err := k.client.Instances(t.Context()); err != nil || len(list) > 0 {
			t.Errorf("what was live was looked at again: %v, %v", list, err)
		}
		if folders, err := os.ReadDir(data + "/apps/default"); err != nil || len(folders) != 2 {
			t.Errorf("built sources of a deploy that never was are left: %v, %v", folders, err)
		}
		k.get("/f/", quipu.HeaderRevision, "1").want(t, 200, "1")
		k.get("/f/", quipu.HeaderRevision, "2").want(t, 200, "2")
	}
	k.rollback("")
	k.kill()
	k.up()
	k.wantTraffic("1=100")
	k.get("/f/").want(t, 200, "1")
}
