package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// outsideApp is a Dapr application that runs by itself, here in the test's process.
type outsideApp struct {
	port int
	mux  *http.ServeMux
	mu   sync.Mutex
	ids  []string
}

// newOutsideApp listens, subscribes to topic, and notes the events that come.
func newOutsideApp(t *testing.T, topic string) *outsideApp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &outsideApp{port: l.Addr().(*net.TCPAddr).Port}
	mux := http.NewServeMux()
	a.mux = mux
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `[{"pubsubname":"pubsub","topic":%q,"route":"/take"}]`, topic)
	})
	mux.HandleFunc("POST /take", func(w http.ResponseWriter, r *http.Request) {
		var e struct{ ID string }
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.ids = append(a.ids, e.ID)
		fmt.Fprint(w, `{"status":"SUCCESS"}`)
	})
	mux.HandleFunc("POST /hello", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // it is the test's
		fmt.Fprintf(w, "hello %s from %d", body, a.port)
	})
	s := &http.Server{Handler: mux}
	go func() { _ = s.Serve(l) }() // it ends with Close
	t.Cleanup(func() { _ = s.Close() })
	return a
}

func (a *outsideApp) got() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.ids)
}

// attach returns when the application is heard, with what it was told and how to detach it.
func (n *node) attach(id string, a sdk.Attachment) (open sdk.Attached, detach func()) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	told, done := make(chan sdk.Attached, 100), make(chan error, 1)
	go func() {
		defer close(done)
		for now, err := range n.client.Attach(ctx, id, a) {
			if err != nil {
				done <- err
				return
			}
			told <- now
		}
	}()
	for heard := false; !heard; {
		select {
		case now := <-told:
			if now.State == sdk.AttachedOpen {
				open = now
			}
			heard = now.State == sdk.AttachedListening
		case err := <-done:
			n.t.Fatalf("not attached: %v", err)
		}
	}
	detach = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	n.t.Cleanup(detach)
	return open, detach
}

// An application that runs by itself is called, gets events, and has state under its own name; what is published while
// it is away waits for it; two instances of it share.
func TestAnApplicationIsAttachedLeavesAndComesBack(t *testing.T) {
	n := start(t)
	app := newOutsideApp(t, "orders")
	open, detach := n.attach("shop", sdk.Attachment{Port: app.port, Protocol: "http"})
	n.publish("orders", "first", map[string]string{})
	eventually(t, "it has the first", func() bool { return len(app.got()) == 1 })

	door := "http://127.0.0.1:" + open.DaprHTTP + "/v1.0"
	token := []string{"dapr-api-token", open.Token, "Content-Type", "application/json"}
	ask("POST", door+"/state/statestore", `[{"key":"k","value":1}]`, token...).want(t, 204, "")
	ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/invoke/shop/method/hello", "you").want(t, 200, "hello you from "+strconv.Itoa(app.port))
	if item, err := n.client.State(quipu.StoreDefault, "shop").Get(t.Context(), "k"); err != nil || string(item.Value) != "1" {
		t.Errorf("its state is %q, %v", item.Value, err)
	}

	detach()
	eventually(t, "it is gone", func() bool {
		return ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/invoke/shop/method/hello", "you").status == 500
	})
	n.publish("orders", "second", map[string]string{})
	if got := app.got(); len(got) != 1 {
		t.Fatalf("it got %v while it was away", got)
	}
	n.attach("shop", sdk.Attachment{Port: app.port, Protocol: "http"})
	eventually(t, "it has the second", func() bool { return slices.Equal(app.got(), []string{"first", "second"}) })

	other := newOutsideApp(t, "orders")
	n.attach("shop", sdk.Attachment{Port: other.port, Protocol: "http"})
	for i := range 100 {
		n.publish("orders", fmt.Sprint("more", i), map[string]string{})
	}
	eventually(t, "both have all of it together", func() bool { return len(app.got())+len(other.got()) == 102 })
	n.settled("orders")
}

// Instances of one app id are called by turns, however often the platform looks at them in between.
func TestAttachedInstancesTakeTurns(t *testing.T) {
	n := start(t)
	for range 2 {
		n.attach("shop", sdk.Attachment{Port: newOutsideApp(t, "unused").port, Protocol: "http"})
	}
	by := map[string]int{}
	for range 10 {
		by[ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/invoke/shop/method/hello", "you").body]++
	}
	for who, calls := range by {
		if len(by) != 2 || calls != 5 {
			t.Errorf("%q %d times, of %d instances", who, calls, len(by))
		}
	}
}

// One that declares its subscriptions in files, as those of --resources-path, needs to say nothing itself.
func TestAnAttachedApplicationMayDeclareItsSubscriptions(t *testing.T) {
	n := start(t)
	app := newOutsideApp(t, "unused")
	n.attach("shop", sdk.Attachment{Port: app.port, Protocol: "http", Resources: map[string]string{"sub.yaml": `
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: s}
spec:
  pubsubname: pubsub
  topic: declared
  routes: {default: /take}
scopes: [shop]
`}})
	n.publish("declared", "one", map[string]string{})
	eventually(t, "it has it", func() bool { return slices.Equal(app.got(), []string{"one"}) })
}

// A web application that knows nothing of Dapr, and answers every path with a page, is attached all the same.
func TestAnyWebApplicationCanBeAttached(t *testing.T) {
	n := start(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>"+r.URL.Path) }))
	t.Cleanup(page.Close)
	n.attach("web", sdk.Attachment{Port: page.Listener.Addr().(*net.TCPAddr).Port, Protocol: "http"})
	ask("GET", "http://"+n.info.DaprHTTP+"/v1.0/invoke/web/method/home", "").want(t, 200, "<html>/home")
}

func TestWhatCannotBeAttachedIsRefused(t *testing.T) {
	n := start(t)
	n.python("import lib\nlib.serve(lambda r: r.answer(200, 'ok'))")
	for why, c := range map[string]struct {
		id string
		a  sdk.Attachment
	}{
		"the name of a function": {"f", sdk.Attachment{Port: 1, Protocol: "http"}},
		"a name with a dot":      {"a.b", sdk.Attachment{Port: 1, Protocol: "http"}},
		"an odd protocol":        {"a", sdk.Attachment{Port: 1, Protocol: "smoke"}},
		"a port that is none":    {"a", sdk.Attachment{Port: 70000, Protocol: "http"}},
	} {
		for _, err := range n.client.Attach(t.Context(), c.id, c.a) {
			if quipu.CodeOf(err) != quipu.CodeUsage {
				t.Errorf("%s: %v", why, err)
			}
			break
		}
	}
}

// A deployed Dapr application says in a file beside it what it subscribes to; the file of an older version works too.
// Its routes are chosen by expressions, and what it drops goes to the dead-letter topic that it names.
func TestADeployedDaprApplicationMayDeclareItsSubscriptions(t *testing.T) {
	n := start(t)
	n.deploy(files{"f.py": `
import json, lib
def handle(r):
    if r.command == "GET":
        return r.answer(404, "")
    e = json.loads(r.body)
    lib.state("POST", "shared/", json.dumps([{"key": e["id"], "value": r.path}]))
    r.answer(200, json.dumps({"status": "DROP" if r.path == "/other" else "SUCCESS"}), "application/json")
lib.serve(handle)`,
		"quipu.yaml": strings.Replace(function("f", "f.py", "python", "contract: dapr"), "triggers: [{http: {path: /f/}}]", "", 1),
		"subscriptions.yaml": `
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: routed}
spec:
  pubsubname: pubsub
  topic: orders
  routes:
    rules: [{match: 'event.type == "big"', path: /big}]
    default: /other
  deadLetterTopic: unwanted
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: old}
spec: {pubsubname: pubsub, topic: older, route: /older}
`})
	for topic, typ := range map[string]string{"orders": "big", "older": "any"} {
		if _, err := n.client.Publish(t.Context(), topic, sdk.Publication{ID: topic, Type: typ, ContentType: "application/json", Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.client.Publish(t.Context(), "orders", sdk.Publication{ID: "small", Type: "small", ContentType: "application/json", Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	n.settled("orders")
	n.settled("older")
	for id, want := range map[string]string{"orders": `"/big"`, "older": `"/older"`, "small": `"/other"`} {
		if got := n.state(id); got != want {
			t.Errorf("event %s went to %s, want %s", id, got, want)
		}
	}
	if info := n.topic("unwanted"); info.DeadLetters != 1 {
		t.Errorf("the dead-letter topic is %+v", info)
	}
}
