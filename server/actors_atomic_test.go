package server

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/quipu-run/quipu"
)

// counters hosts actors that count in memory and save what they have counted, as actors of Dapr's SDKs do. A turn whose effects did
// not count must not be seen in what is counted later. touch adds to a key that others write, too.
const counters = `
import http.client, json, lib, os, time

memory = {}

def door(method, path, body=None):
    c = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    c.request(method, "/v1.0/" + path, json.dumps(body) if body is not None else None,
              {"Content-Type": "application/json", "dapr-api-token": os.environ["DAPR_API_TOKEN"]})
    r = c.getresponse()
    text = r.read()
    if r.status >= 300:
        raise OSError("%d %s" % (r.status, text))
    return json.loads(text) if text else None

def count(me):
    if me not in memory:
        memory[me] = door("GET", "actors/counter/%s/state/n" % me) or 0
    memory[me] += 1
    door("POST", "actors/counter/%s/state" % me, [{"operation": "upsert", "request": {"key": "n", "value": memory[me]}}])
    return memory[me]

def add(key):
    n = (door("GET", "state/shared/" + key) or 0) + 1
    door("POST", "state/shared", [{"key": key, "value": n}])

def handle(r):
    parts = r.path.strip("/").split("/")
    if r.path == "/dapr/config":
        return r.answer(200, '{"entities":["counter"]}')
    if parts[0] != "actors":
        return r.answer(404, "")
    me = parts[2]
    if r.command == "DELETE":
        memory.pop(me, None)
        return r.answer(200, "")
    method = parts[4]
    if method == "remind":
        count(me)
        add("done-" + parts[5])
        return r.answer(200, "")
    if method == "count":
        return r.answer(200, count(me))
    if method == "fail":
        return r.answer(500, count(me))
    if method == "touch":
        add("hot")
        time.sleep(0.01)
        return r.answer(200, count(me))
    if method == "twice": # two other actors, in one transaction with this one; "fail" after both
        for other in ("a", "b"):
            door("POST", "actors/counter/%s/method/count" % other)
        return r.answer(500 if r.body == b"fail" else 200, count(me))
    if method == "plan":
        for name in json.loads(r.body):
            door("POST", "actors/counter/%s/reminders/%s" % (me, name["name"]), {"dueTime": name["due"]})
        return r.answer(200, "")
    r.answer(404, "")
lib.serve(handle)`

func deployCounters(n *node) {
	n.t.Helper()
	n.deploy(files{"quipu.yaml": function("f", "f.py", "python", "contract: dapr", "atomic: true", "scale: {max: 3, idle: 1s}"), "f.py": counters})
}

// counted is what is in the state of a counter.
func (n *node) counted(id string) string {
	n.t.Helper()
	item, err := n.client.State(quipu.StoreActors+":"+quipu.StoreDefault+":f||counter||"+id, "f").Get(n.t.Context(), "n")
	if err != nil && quipu.CodeOf(err) != quipu.CodeNotFound {
		n.t.Fatal(err)
	}
	return string(item.Value)
}

// A turn of an atomic function commits when its method succeeds, and what an actor has in memory is never ahead of it: not after a
// method that failed, not after a run that lost to another commit.
func TestATurnOfAnAtomicFunctionCountsOnceOrNotAtAll(t *testing.T) {
	n := start(t)
	deployCounters(n)
	n.actor("counter/x/method/count", "").want(t, 200, "1")
	if got := n.actor("counter/x/method/fail", ""); got.status != 500 || !strings.Contains(got.body, "error from actor service: (500) 2") {
		t.Errorf("%+v", got)
	}
	n.actor("counter/x/method/count", "").want(t, 200, "2")
	if got := n.counted("x"); got != "2" {
		t.Errorf("the state has %s", got)
	}
	var all sync.WaitGroup
	for i := range 4 { // actors in several instances, all of which write one key
		all.Go(func() {
			for range 10 {
				if got := n.actor(fmt.Sprintf("counter/hot%d/method/touch", i), ""); got.status != 200 {
					t.Errorf("%+v", got)
				}
			}
		})
	}
	all.Wait()
	if got := n.state("hot"); got != "40" {
		t.Errorf("the key that all write is %s", got)
	}
	for i := range 4 {
		if got := n.counted(fmt.Sprint("hot", i)); got != "10" {
			t.Errorf("actor %d has counted %s", i, got)
		}
	}
}

// An actor that calls others makes one commit with them, or none, and none of them remembers what did not count.
func TestActorsThatCallEachOtherCommitTogether(t *testing.T) {
	n := start(t)
	deployCounters(n)
	n.actor("counter/boss/method/twice", "").want(t, 200, "1")
	if got := n.actor("counter/boss/method/twice", "fail"); got.status != 500 {
		t.Errorf("%+v", got)
	}
	for _, id := range []string{"boss", "a", "b"} {
		n.actor("counter/"+id+"/method/count", "").want(t, 200, "2")
	}
}

// Actors that are idle leave, their function scales to zero, and a call wakes both; a new revision takes its actors over with their state.
func TestActorsSleepWakeAndSurviveADeploy(t *testing.T) {
	n := start(t)
	short := strings.Replace(counters, `{"entities":["counter"]}`, `{"entities":["counter"],"actorIdleTimeout":"300ms"}`, 1)
	deploy := func(code string) {
		n.deploy(files{"quipu.yaml": function("f", "f.py", "python", "contract: dapr", "atomic: true", "scale: {max: 3, idle: 100ms}"), "f.py": code})
	}
	deploy(short)
	n.actor("counter/x/method/count", "").want(t, 200, "1")
	eventually(t, "all of it sleeps", func() bool {
		list, err := n.client.Instances(t.Context())
		return err == nil && len(list) == 0
	})
	n.actor("counter/x/method/count", "").want(t, 200, "2")
	deploy(counters) // actors stay for an hour
	n.actor("counter/x/method/count", "").want(t, 200, "3")
	before, err := n.client.Instances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deploy(counters + "\n# another revision")
	n.actor("counter/x/method/count", "").want(t, 200, "4")
	eventually(t, "the former instances are gone", func() bool {
		now, err := n.client.Instances(t.Context())
		return err == nil && len(now) > 0 && now[0].Revision != before[0].Revision && len(now) == 1
	})
	n.actor("counter/x/method/count", "").want(t, 200, "5")
}

// Actors that are all woken at once, as by reminders after a restart, have one instance started, not one each.
func TestActorsThatWakeTogetherDoNotEachStartAnInstance(t *testing.T) {
	n := start(t)
	deployCounters(n)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.run()
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			if got := n.actor(fmt.Sprintf("counter/w%d/method/count", i), ""); got.status != 200 || got.body != "1" {
				t.Errorf("%+v", got)
			}
		})
	}
	all.Wait()
	list, err := n.client.Instances(t.Context())
	if err != nil || len(list) > 3 {
		t.Errorf("%d instances, and scale.max is 3: %v", len(list), err)
	}
}
