package server

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// order takes from a stock that others fill and empty, and tells of it.
const order = `
import json, lib, os, socket, urllib.request
def door(method, path, body=None):
    r = urllib.request.Request("http://127.0.0.1:" + os.environ["DAPR_HTTP_PORT"] + path, body, {
        "Content-Type": "application/json", "dapr-api-token": os.environ["DAPR_API_TOKEN"]}, method=method)
    return urllib.request.urlopen(r).read()
def handle(r):
    want = json.loads(r.body)
    left = json.loads(lib.state("GET", "shared/stock")[1] or b"10") - want["n"] * PRICE
    if "KIND" and r.headers["Content-Type"] != "application/json":
        return r.answer(415, "what is this?")
    lib.state("POST", "shared/", json.dumps([{"key": "stock", "value": left}]))
    door("POST", "/v1.0/publish/pubsub/orders", json.dumps({"left": left}).encode())
    if want.get("outside"):
        try:
            socket.create_connection(("127.0.0.1", int(want["outside"])), 2).close()
            left = "reached"
        except OSError as e:
            left = "not reached"
    r.answer(200, left)
lib.serve(handle)`

func orderWith(price int, kind string) string {
	return strings.NewReplacer("PRICE", fmt.Sprint(price), "KIND", kind).Replace(order)
}

func (n *node) order(body string) string {
	n.t.Helper()
	a := n.post("/f/", body, "Content-Type", "application/json")
	if a.status != 200 {
		n.t.Fatalf("%d %s", a.status, a.body)
	}
	return a.header.Get(quipu.HeaderCallID)
}

func (n *node) replay(id string, o sdk.ReplayOptions) quipu.CallReplay {
	n.t.Helper()
	r, err := n.client.Replay(n.t.Context(), id, o)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// A call that is made again on what it had read does the same, whatever was written since; nothing of that stays.
func TestAReplayReadsWhatTheCallHadRead(t *testing.T) {
	n := start(t)
	n.python(orderWith(1, "json"), "atomic: true")
	first := n.order(`{"n":2}`)
	second := n.order(`{"n":3}`)
	n.putState("stock", "all gone")
	before := n.records()
	for _, id := range []string{first, second} {
		if r := n.replay(id, sdk.ReplayOptions{}); !r.Same || len(r.Differences) > 0 || r.Call.ID != id || r.Again.Seq == 0 {
			t.Errorf("%+v", r)
		}
	}
	if list, err := n.client.Namespaces(t.Context()); err != nil || len(list) != 1 || n.records() != before {
		t.Errorf("it left %v, %v", list, err)
	}
	if got := n.state("stock"); got != `"all gone"` {
		t.Errorf("the stock is %s", got)
	}
}

// With another revision it shows what that one would have done.
func TestAReplayWithAnotherRevisionShowsTheDifference(t *testing.T) {
	n := start(t)
	n.python(orderWith(1, "json"), "atomic: true")
	id := n.order(`{"n":2}`)
	n.python(orderWith(2, "json"), "atomic: true")
	if r := n.replay(id, sdk.ReplayOptions{}); !r.Same || r.Again.Revision != r.Call.Revision {
		t.Errorf("with its own revision: %+v", r)
	}
	r := n.replay(id, sdk.ReplayOptions{Revision: "2"})
	got := map[string]string{}
	for _, d := range r.Differences {
		got[d.What] = d.Was + " -> " + d.Is
	}
	if len(got) != 3 || got["reply"] != "8 -> 6" || got["set shared/stock"] != "8 -> 6" || !strings.Contains(got["publish to orders"], `"left":6`) || r.Same {
		t.Errorf("%v", got)
	}
	if _, err := n.client.Replay(t.Context(), id, sdk.ReplayOptions{Revision: "7"}); quipu.CodeOf(err) != quipu.CodeNoRevision {
		t.Errorf("a revision that is not there: %v", err)
	}
}

// A replay reaches nothing outside, unless it is let.
func TestAReplayReachesNothingOutside(t *testing.T) {
	n := start(t)
	n.python(orderWith(1, "json"), "atomic: true")
	if _, err := n.client.Replay(t.Context(), n.order(`{"n":1}`), sdk.ReplayOptions{}); quipu.CodeOf(err) == quipu.CodeSandbox {
		t.Skip("this machine cannot keep the network away")
	}
	id := n.order(fmt.Sprintf(`{"n":1,"outside":%d}`, listener(t)))
	r := n.replay(id, sdk.ReplayOptions{})
	if len(r.Differences) != 1 || r.Differences[0] != (quipu.CallDifference{What: "reply", Was: "reached", Is: "not reached"}) {
		t.Errorf("%+v", r.Differences)
	}
	if r := n.replay(id, sdk.ReplayOptions{Outside: true}); !r.Same {
		t.Errorf("let out: %+v", r.Differences)
	}
}

func TestCallsThatCannotBeMadeAgainAreRefused(t *testing.T) {
	n := start(t)
	n.python(orderWith(1, "json"), "atomic: true")
	large := n.order(fmt.Sprintf(`{"n":1,"x":%q}`, strings.Repeat("x", quipu.CallBodyKept)))
	nothing := n.post("/f/", `{"n":1}`, "Content-Type", "text/plain").header.Get(quipu.HeaderCallID) // it failed, so nothing of it was kept
	for id, want := range map[string]quipu.Code{large: quipu.CodeUsage, nothing: quipu.CodeNotFound, "01HZZZZZZZZZZZZZZZZZZZZZZZ": quipu.CodeNotFound} {
		if _, err := n.client.Replay(t.Context(), id, sdk.ReplayOptions{}); quipu.CodeOf(err) != want {
			t.Errorf("call %s: %v, want %s", id, err, want)
		}
	}
}

// Of a plain function's call under a key only the reply is recorded, and compared; of one that nobody waited for all that it did.
func TestAReplayOfOtherKindsOfCalls(t *testing.T) {
	n := start(t)
	n.python(orderWith(1, "json"))
	a := n.post("/f/", `{"n":4}`, "Content-Type", "application/json", quipu.HeaderIdempotency, "k")
	a.want(t, 200, "6")
	if r := n.replay(a.header.Get(quipu.HeaderCallID), sdk.ReplayOptions{}); !r.Same || r.Note == "" {
		t.Errorf("plain: %+v", r)
	}
	n.python(orderWith(1, "json"), "atomic: true", "async: {onSuccess: {topic: done}}")
	info := n.ended(n.post("/f/", `{"n":1}`, "Content-Type", "application/json", quipu.HeaderPrefer, quipu.PreferAsync).header.Get(quipu.HeaderCallID))
	n.putState("stock", "all gone")
	if r := n.replay(info.ID, sdk.ReplayOptions{}); !r.Same || r.Note != "" {
		t.Errorf("async: %+v", r)
	}
}

// listener takes connections on loopback until the test ends.
func listener(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // nobody uses it any more
	return l.Addr().(*net.TCPAddr).Port
}
