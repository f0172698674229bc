package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// recorder is an application that notes what it is asked for, by method and path.
type recorder struct {
	port int
	mu   sync.Mutex
	got  map[string][]string // bodies
}

func newRecorder(t *testing.T, subscriptions string, handles ...string) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &recorder{port: l.Addr().(*net.TCPAddr).Port, got: map[string][]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, subscriptions) })
	for _, path := range handles {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body) // it is the platform's
			a.mu.Lock()
			defer a.mu.Unlock()
			a.got[r.Method+" "+r.URL.Path] = append(a.got[r.Method+" "+r.URL.Path], string(body))
		})
	}
	s := &http.Server{Handler: mux}
	go func() { _ = s.Serve(l) }() // it ends with Close
	t.Cleanup(func() { _ = s.Close() })
	return a
}

func (a *recorder) bodies(of string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string{}, a.got[of]...)
}

// localFiles are what an application has that was developed with Redis on a laptop.
const localFiles = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: orders}
spec:
  type: state.redis
  version: v1
  metadata:
    - {name: redisHost, value: "localhost:6379"}
    - {name: redisPassword, secretKeyRef: {name: REDIS, key: REDIS}}
    - {name: keyPrefix, value: name}
auth: {secretStore: passwords}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: messages}
spec:
  type: pubsub.redis
  version: v1
  metadata: [{name: redisHost, value: "localhost:6379"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: passwords}
spec:
  type: secretstores.local.env
  version: v1
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: tick}
spec:
  type: bindings.cron
  version: v1
  metadata: [{name: schedule, value: "@every 1s"}, {name: direction, value: input}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: elsewhere}
spec:
  type: state.azure.cosmosdb
  version: v1
  ignoreErrors: true
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: own}
spec:
  secrets: {scopes: [{storeName: passwords, defaultAccess: deny, allowedSecrets: [REDIS]}]}
  accessControl:
    defaultAction: allow
    policies: [{appId: stranger, defaultAction: deny}]
`

// An application that was developed with Redis runs with its files as they are: its keys, topics, secrets and schedules are those
// of the log, and what its Configuration forbids is forbidden.
func TestTheFilesOfAnApplicationAreInUse(t *testing.T) {
	n := start(t)
	app := newRecorder(t, `[{"pubsubname":"messages","topic":"news","route":"/news"}]`, "POST /news", "/tick", "/hello")
	open, _ := n.attach("shop", sdk.Attachment{Port: app.port, Protocol: "http", Resources: map[string]string{"local.yaml": localFiles},
		Env: map[string]string{"REDIS": "secret", "OTHER": "hidden"}})
	door := "http://127.0.0.1:" + open.DaprHTTP + "/v1.0"
	token := []string{"dapr-api-token", open.Token, "Content-Type", "application/json"}

	ask("POST", door+"/state/orders", `[{"key":"k","value":{"n":1}}]`, token...).want(t, 204, "")
	ask("GET", door+"/state/orders/k", "", token...).want(t, 200, `{"n":1}`)
	if item, err := n.client.State("state:orders:orders", "").Get(t.Context(), "k"); err != nil || string(item.Value) != `{"n":1}` {
		t.Errorf("on the log: %q, %v", item.Value, err)
	}
	ask("GET", door+"/state/statestore/k", "", token...).want(t, 204, "")
	if got := ask("GET", door+"/state/elsewhere/k", "", token...); got.status != 400 {
		t.Errorf("a component that was left out answers %d", got.status)
	}

	ask("POST", door+"/publish/messages/news", `{"a":1}`, token...).want(t, 204, "")
	ask("POST", door+"/publish/pubsub/news", `{"a":2}`, token...).want(t, 204, "") // another topic
	eventually(t, "the event has come", func() bool { return len(app.bodies("POST /news")) == 1 })
	var event struct{ PubSubName, Topic string }
	if err := json.Unmarshal([]byte(app.bodies("POST /news")[0]), &event); err != nil || event.PubSubName != "messages" || event.Topic != "news" {
		t.Errorf("the event is %+v, %v", event, err)
	}

	eventually(t, "it ticks", func() bool { return len(app.bodies("POST /tick")) >= 2 })

	ask("GET", door+"/secrets/passwords/REDIS", "", token...).want(t, 200, `{"REDIS":"secret"}`)
	if got := ask("GET", door+"/secrets/passwords/OTHER", "", token...); got.status != 403 {
		t.Errorf("a secret out of scope: %d", got.status)
	}

	stranger, _ := n.attach("stranger", sdk.Attachment{Port: newRecorder(t, "").port, Protocol: "http"})
	friend, _ := n.attach("friend", sdk.Attachment{Port: newRecorder(t, "").port, Protocol: "http"})
	for who, c := range map[string]struct {
		by   sdk.Attached
		want int
	}{"a stranger": {stranger, 403}, "a friend": {friend, 200}} {
		if got := ask("POST", "http://127.0.0.1:"+c.by.DaprHTTP+"/v1.0/invoke/shop/method/hello", "", "dapr-api-token", c.by.Token); got.status != c.want {
			t.Errorf("%s gets %d, want %d: %s", who, got.status, c.want, got.body)
		}
	}
}

// The same files beside a deployed application do the same; what cannot start refuses the deploy, and is named.
func TestFilesBesideADeployedApplicationAreInUse(t *testing.T) {
	n := start(t)
	app := files{"f.py": `
import json, lib
def handle(r):
    if r.path == "/dapr/subscribe":
        return r.answer(200, json.dumps([{"pubsubname": "messages", "topic": "news", "route": "/news"}]), "application/json")
    if r.path in ("/news", "/tick"):
        lib.state("POST", "orders", json.dumps([{"key": r.path[1:], "value": 1}]))
    r.answer(200, "ok")
lib.serve(handle)`, "lib.py": lib, "quipu.yaml": function("f", "f.py", "python", "contract: dapr"),
		"local.yaml": strings.Replace(localFiles, "secretKeyRef: {name: REDIS, key: REDIS}", "value: none", 1)}
	n.deploy(app)
	ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/publish/messages/news", `{"a":1}`, "dapr-caller-app-id", "f", "Content-Type", "application/json").want(t, 204, "")
	for _, key := range []string{"news", "tick"} {
		eventually(t, key+" has come", func() bool {
			item, err := n.client.State("state:orders:orders", "").Get(t.Context(), key)
			return err == nil && string(item.Value) == "1"
		})
	}

	good := app["local.yaml"]
	for _, name := range []string{"cats", "dogs"} {
		app["local.yaml"] += "\n---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " + name + "}\nspec: {type: state.redis, version: v1, metadata: [{name: actorStateStore, value: 'true'}]}\n"
	}
	_, err := n.client.Deploy(t.Context(), "app", app.pack(t))
	if quipu.CodeOf(err) != quipu.CodeComponent || !strings.Contains(err.Error(), "component dogs (state.redis) cannot start: actorStateStore is true of component cats, too") {
		t.Errorf("two stores for actors: %v", err)
	}

	app["local.yaml"] = strings.Replace(good, "ignoreErrors: true", "ignoreErrors: false", 1)
	_, err = n.client.Deploy(t.Context(), "app", app.pack(t))
	if quipu.CodeOf(err) == "" || !strings.Contains(err.Error(), "elsewhere") || !strings.Contains(err.Error(), "state.azure.cosmosdb") {
		t.Errorf("a component that cannot be: %v", err)
	}
}

// onceLocal are the files of an application that pays over HTTP.
const onceLocal = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: orders}
spec: {type: state.redis, version: v1, metadata: [{name: keyPrefix, value: none}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: messages}
spec: {type: pubsub.redis, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bank}
spec: {type: bindings.http, version: v1, metadata: [{name: url, value: "%s"}]}
`

// An application that is atomic and speaks plain Dapr does all that it does on the platform once, although it dies at the end of its first
// attempt: state, events, and what it invokes. What leaves the platform happens in each attempt, under one name.
func TestAnAtomicDaprApplicationCommitsOnce(t *testing.T) {
	bank := make(chan string, 10)
	payments := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { bank <- r.Header.Get("Idempotency-Key") }))
	t.Cleanup(payments.Close)
	n := start(t)
	n.deploy(files{"lib.py": lib, "local.yaml": fmt.Sprintf(onceLocal, payments.URL),
		"f.py": `
import http.client, json, lib, os
def dapr(path, body):
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    door.request("POST", "/v1.0/" + path, json.dumps(body), {"Content-Type": "application/json", "dapr-api-token": os.environ["DAPR_API_TOKEN"]})
    reply = door.getresponse()
    reply.read()
    assert reply.status < 300, (path, reply.status)
def handle(r):
    if r.path == "/dapr/subscribe":
        return r.answer(200, json.dumps([{"pubsubname": "messages", "topic": "new", "route": "/new"}]), "application/json")
    order = json.loads(r.body)["data"]
    count = int(lib.state("GET", "orders/count")[1] or 0)
    dapr("state/orders", [{"key": "count", "value": count + 1}])
    dapr("publish/messages/done", order)
    dapr("invoke/g/method/add", order)
    dapr("bindings/bank", {"operation": "post", "data": order})
    if r.headers["Quipu-Attempt"] == "1":
        os._exit(1)
    r.answer(200, "")
lib.serve(handle)`,
		"g.py": `
import http.client, json, lib, os
def handle(r):
    if r.path == "/dapr/subscribe":
        return r.answer(404, "")
    lib.state("POST", "orders", json.dumps([{"key": "g", "value": int(lib.state("GET", "orders/g")[1] or 0) + 1}]))
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    door.request("POST", "/v1.0/bindings/bank", '{"operation": "post", "data": 1}', {"Content-Type": "application/json", "dapr-api-token": os.environ["DAPR_API_TOKEN"]})
    assert door.getresponse().status < 300
    r.answer(200, "")
lib.serve(handle)`,
		"quipu.yaml": function("f", "f.py", "python", "contract: dapr", "atomic: true") + "---\n" + function("g", "g.py", "python", "contract: dapr", "atomic: true")})
	ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/publish/messages/new", `{"id":1}`, "dapr-caller-app-id", "f", "Content-Type", "application/json").want(t, 204, "")

	first := []string{<-bank, <-bank} // by g, then by f
	if second := []string{<-bank, <-bank}; first[0] == "" || first[1] == "" || first[0] == first[1] || !slices.Equal(first, second) {
		t.Errorf("the bank was asked as %q and as %q", first, second)
	}
	n.settled("messages/new")
	for key, want := range map[string]string{"count": "1", "g": "1"} {
		if item, err := n.client.State("state:orders", "").Get(t.Context(), key); err != nil || string(item.Value) != want {
			t.Errorf("%s is %q, %v", key, item.Value, err)
		}
	}
	if topic, err := n.client.Topic(t.Context(), "messages/done"); err != nil || topic.Last != 1 {
		t.Errorf("%d events were published, %v", topic.Last, err)
	}
	select {
	case again := <-bank:
		t.Errorf("the bank was asked once more, as %q", again)
	default:
	}
}

// resilientFiles bound what is asked of an application and of a binding.
const resilientFiles = `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: own}
spec:
  policies:
    retries:
      often: {policy: constant, duration: 1ms, maxRetries: 4}
    circuitBreakers:
      soon: {maxRequests: 1, timeout: 60s, trip: consecutiveFailures >= 3}
  targets:
    apps: {callee: {retry: often}}
    components:
      out: {outbound: {circuitBreaker: soon}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: out}
spec: {type: bindings.http, version: v1, metadata: [{name: url, value: "%s"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: own}
spec:
  api:
    denied: [{name: secrets, version: v1.0, protocol: http}]
`

// A Resiliency resource has an application that fails asked again, and a binding that fails not asked any more; a Configuration hides
// a part of the API.
func TestPoliciesAreKeptTo(t *testing.T) {
	var asked, bound atomic.Int64
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		bound.Add(1)
		w.WriteHeader(500)
	}))
	t.Cleanup(broken.Close)
	flaky := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/work" {
			w.WriteHeader(404)
			return
		}
		if body, _ := io.ReadAll(r.Body); asked.Add(1) < 4 || string(body) != "task" {
			w.WriteHeader(503)
		}
	}))
	t.Cleanup(flaky.Close)
	n := start(t)
	n.attach("callee", sdk.Attachment{Port: flaky.Listener.Addr().(*net.TCPAddr).Port, Protocol: "http"})
	open, _ := n.attach("caller", sdk.Attachment{Port: newRecorder(t, "").port, Protocol: "http", Resources: map[string]string{"r.yaml": fmt.Sprintf(resilientFiles, broken.URL)}})
	door, token := "http://127.0.0.1:"+open.DaprHTTP+"/v1.0", []string{"dapr-api-token", open.Token, "Content-Type", "application/json"}

	ask("POST", door+"/invoke/callee/method/work", "task", token...).want(t, 200, "")
	if n := asked.Load(); n != 4 {
		t.Errorf("it was asked %d times, want 4", n)
	}
	for range 6 {
		if got := ask("POST", door+"/bindings/out", `{"operation":"get"}`, token...); got.status != 500 {
			t.Errorf("the binding answers %d", got.status)
		}
	}
	if n := bound.Load(); n != 3 {
		t.Errorf("the broken binding was asked %d times, want 3", n)
	}
	if got := ask("GET", door+"/secrets/secretstore/x", "", token...); got.status != 404 {
		t.Errorf("a part of the API that is denied answers %d", got.status)
	}
}

const pipedFiles = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: loud}
spec: {type: middleware.http.uppercase, version: v1, metadata: [{name: direction, value: response}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: checker}
spec: {type: middleware.http.routerchecker, version: v1, metadata: [{name: rule, value: "^[A-Za-z0-9/._-]+$"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: own}
spec:
  httpPipeline: {handlers: [{name: checker, type: middleware.http.routerchecker}]}
  appHttpPipeline: {handlers: [{name: loud, type: middleware.http.uppercase}]}
`

// Requests go through the pipelines of a Configuration, on their way to Dapr's API and to the application.
func TestRequestsGoThroughPipelines(t *testing.T) {
	n := start(t)
	n.deploy(files{"local.yaml": pipedFiles, "lib.py": lib, "quipu.yaml": function("f", "f.py", "python", "contract: dapr"), "f.py": `
import http.client, lib, os
def handle(r):
    if r.path.startswith("/ask"):
        door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
        door.request("GET", "/v1.0/state/statestore/" + r.path[4:], headers={"dapr-api-token": os.environ["DAPR_API_TOKEN"]})
        return r.answer(200, door.getresponse().status)
    r.answer(200 if r.path == "/hello" else 404, "hello")
lib.serve(handle)`})
	door := "http://" + n.info.DaprHTTP + "/v1.0/invoke/f/method"
	ask("GET", door+"/hello", "").want(t, 200, "HELLO")
	ask("GET", door+"/ask1", "").want(t, 200, "204")
	ask("GET", door+"/ask1;2", "").want(t, 200, "400")

	_, err := n.client.Deploy(t.Context(), "app", files{"quipu.yaml": function("f", "f.py", "python"), "f.py": "import lib", "lib.py": lib,
		"local.yaml": pipedFiles[strings.LastIndex(pipedFiles, "---"):]}.pack(t))
	if quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), `"checker"`) {
		t.Errorf("a pipeline of what is not there: %v", err)
	}
}

// Who may not invoke an application may not do so either after a restart of the node, with the folder of what was built gone.
func TestAccessControlOutlivesTheBuiltFiles(t *testing.T) {
	n := start(t)
	n.deploy(files{"quipu.yaml": function("f", "f.py", "python", "contract: dapr"), "lib.py": lib, "f.py": "import lib\nlib.serve(lambda r: r.answer(200, ''))", "local.yaml": `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: own}
spec: {accessControl: {defaultAction: deny}}
`})
	for range 2 {
		if got := ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/invoke/f/method/x", ""); got.status != 403 {
			t.Errorf("a client from outside gets %d: %s", got.status, got.body)
		}
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(n.data, "apps")); err != nil {
			t.Fatal(err)
		}
		n.run()
	}
}
