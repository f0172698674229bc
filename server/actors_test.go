package server

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

// actorApp is an application that hosts actors of type cat and runs in the test's process. Methods are functions of their name.
type actorApp struct {
	*outsideApp
	t    *testing.T
	door string // of the application, once it is attached
	head []string

	mu      sync.Mutex
	happens []string // what it was asked, in order
}

func newActorApp(t *testing.T, config string, methods map[string]func(a *actorApp, id string, r *http.Request) (int, string)) *actorApp {
	t.Helper()
	a := &actorApp{outsideApp: newOutsideApp(t, "unused"), t: t}
	a.mux.HandleFunc("GET /dapr/config", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, config) })
	a.mux.HandleFunc("PUT /actors/cat/{id}/method/{method...}", func(w http.ResponseWriter, r *http.Request) {
		id, method := r.PathValue("id"), r.PathValue("method")
		a.note(method + " " + id)
		do := methods[method]
		if do == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		status, body := do(a, id, r)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
	a.mux.HandleFunc("DELETE /actors/cat/{id}", func(_ http.ResponseWriter, r *http.Request) { a.note("DELETE " + r.PathValue("id")) })
	return a
}

func (a *actorApp) note(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.happens = append(a.happens, what)
}

func (a *actorApp) happened() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.happens)
}

// attachTo attaches the application, and answers how to detach it.
func (a *actorApp) attachTo(n *node, id string) (detach func()) {
	open, detach := n.attach(id, sdk.Attachment{Port: a.port, Protocol: "http"})
	a.door, a.head = "http://127.0.0.1:"+open.DaprHTTP+"/v1.0/actors/", []string{"dapr-api-token", open.Token, "Content-Type", "application/json"}
	return detach
}

func (a *actorApp) ask(method, path, body string) answer {
	return ask(method, a.door+path, body, a.head...)
}

func (n *node) actor(path, body string, header ...string) answer {
	return ask("POST", "http://"+n.info.DaprHTTP+"/v1.0/actors/"+path, body, header...)
}

const catConfig = `{"entities":["cat"],"reentrancy":{"enabled":true,"maxStackDepth":3}}`

// An actor of an application that runs by itself answers whoever asks, has state that no other application sees, and is told when it leaves.
func TestAnActorAnswersHasStateAndLeaves(t *testing.T) {
	n := start(t)
	app := newActorApp(t, catConfig, map[string]func(*actorApp, string, *http.Request) (int, string){
		"feed": func(a *actorApp, id string, r *http.Request) (int, string) {
			body, _ := io.ReadAll(r.Body)
			if got := a.ask("POST", "cat/"+id+"/state", `[{"operation":"upsert","request":{"key":"food","value":`+string(body)+`}},{"operation":"upsert","request":{"key":"old","value":1,"metadata":{"ttlInSeconds":"60"}}}]`); got.status != 204 {
				return 500, got.body
			}
			return 200, "ok " + r.URL.RawQuery + " " + r.Method
		},
		"broken": func(*actorApp, string, *http.Request) (int, string) { return 500, "no" },
	})
	detach := app.attachTo(n, "zoo")
	n.actor("cat/tom/method/feed?spoon=1", `"fish"`).want(t, 200, "ok spoon=1 PUT")
	app.ask("GET", "cat/tom/state/food", "").want(t, 200, `"fish"`)
	if got := app.ask("GET", "cat/tom/state/old", ""); got.header.Get("metadata.ttlExpireTime") == "" {
		t.Errorf("no time to live in %v", got.header)
	}
	app.ask("GET", "cat/tom/state/none", "").want(t, 204, "")
	if got := n.actor("cat/tom/state", `[]`); got.status != 400 || !strings.Contains(got.body, "ERR_ACTOR_INSTANCE_MISSING") {
		t.Errorf("state from outside: %+v", got)
	}
	for path, want := range map[string]string{
		"cat/tom/method/broken": `error invoke actor method: error from actor service: (500) no`,
		"cat/tom/method/none":   `error invoke actor method: actor method not found: actors/cat/tom/method/none`,
		"dog/rex/method/x":      `error invoke actor method: failed to lookup actor: did not find address for actor 'dog||rex'`,
	} {
		if got := n.actor(path, ""); got.status != 500 || !strings.Contains(got.body, "ERR_ACTOR_INVOKE_METHOD") || !strings.Contains(got.body, want) {
			t.Errorf("%s: %+v", path, got)
		}
	}
	detach()
	eventually(t, "it is told that the actor leaves", func() bool { return slices.Contains(app.happened(), "DELETE tom") })
	if got := n.actor("cat/tom/method/feed", `1`); got.status != 500 || !strings.Contains(got.body, "did not find address") {
		t.Errorf("%+v", got)
	}
}

// A chain of calls comes back to the actor that it began with, as deep as the type allows, and nobody else gets in between.
func TestACallComesBackToItsActor(t *testing.T) {
	n := start(t)
	app := newActorApp(t, catConfig, map[string]func(*actorApp, string, *http.Request) (int, string){
		"down": func(a *actorApp, id string, r *http.Request) (int, string) {
			body, _ := io.ReadAll(r.Body)
			if string(body) == "." {
				return 200, "end"
			}
			got := ask("POST", a.door+"cat/"+id+"/method/down", string(body[1:]), append(a.head, "Dapr-Reentrancy-Id", r.Header.Get("Dapr-Reentrancy-Id"))...)
			if got.status != 200 {
				return 500, got.body
			}
			return 200, got.body + string(body[:1])
		},
	})
	app.attachTo(n, "zoo")
	n.actor("cat/tom/method/down", "ab.").want(t, 200, "endba")
	if got := n.actor("cat/tom/method/down", "abc."); got.status != 500 || !strings.Contains(got.body, "ERR_ACTOR_STACK_DEPTH") {
		t.Errorf("%+v", got)
	}
}

// The actors of an application with two instances live in one of them each, and in the other when theirs has gone.
func TestActorsMoveWhenTheirInstanceGoes(t *testing.T) {
	n := start(t)
	var apps [2]*actorApp
	var detach [2]func()
	for i := range apps {
		apps[i] = newActorApp(t, catConfig, map[string]func(*actorApp, string, *http.Request) (int, string){
			"where": func(*actorApp, string, *http.Request) (int, string) { return 200, fmt.Sprint(i) },
		})
		detach[i] = apps[i].attachTo(n, "zoo")
	}
	at := map[string]string{}
	count := map[string]int{}
	for i := range 40 {
		id := fmt.Sprint("c", i)
		at[id] = n.actor("cat/"+id+"/method/where", "").body
		count[at[id]]++
	}
	if count["0"] < 5 || count["1"] < 5 {
		t.Errorf("not spread: %v", count)
	}
	for id, where := range at {
		n.actor("cat/"+id+"/method/where", "").want(t, 200, where)
	}
	detach[0]()
	eventually(t, "those of the first are told to leave", func() bool {
		return len(slices.DeleteFunc(apps[0].happened(), func(s string) bool { return !strings.HasPrefix(s, "DELETE") })) == count["0"]
	})
	for id := range at {
		n.actor("cat/"+id+"/method/where", "").want(t, 200, "1")
	}
	page, err := n.client.Actors(t.Context(), quipu.ActorList{})
	if err != nil || len(page.Actors) != 40 || page.Actors[0].Function != "zoo" || page.Actors[0].Token == 0 {
		t.Fatalf("%d actors, %v", len(page.Actors), err)
	}
	held, err := n.client.Leases(t.Context(), quipu.LeaseList{Prefix: "actor/cat/", Limit: 1})
	if err != nil || len(held.Leases) != 1 || held.Next == "" {
		t.Fatalf("%+v, %v", held, err)
	}
	first, lease := page.Actors[0], held.Leases[0]
	if lease.Name != "actor/cat/"+first.ID || !strings.HasPrefix(lease.Owner, first.Instance+"@") || lease.Token != first.Token || lease.Since.IsZero() {
		t.Errorf("the lease of %+v is %+v", first, lease)
	}
}

// Policies of who calls, in which an actor is asked again, and not at all once it failed too often; and of the actor's host, whose turns
// may not take for ever.
const (
	callerPolicies = `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: caller}
spec:
  policies:
    retries: {often: {policy: constant, duration: 1ms, maxRetries: 4}}
    circuitBreakers: {fuse: {timeout: 1h, trip: consecutiveFailures >= 5}}
  targets:
    actors: {cat: {retry: often, circuitBreaker: fuse, circuitBreakerScope: id}}
`
	hostPolicies = `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: host}
spec:
  policies: {timeouts: {short: 300ms}}
  targets:
    actors: {cat: {timeout: short}}
`
)

func TestPoliciesOfActorsAreKeptTo(t *testing.T) {
	n := start(t)
	var failures atomic.Int64
	zoo := newActorApp(t, catConfig, map[string]func(*actorApp, string, *http.Request) (int, string){
		"flaky": func(_ *actorApp, _ string, r *http.Request) (int, string) {
			body, _ := io.ReadAll(r.Body)
			if failures.Add(1) <= 3 {
				return 503, "not yet"
			}
			return 200, string(body)
		},
		"broken":   func(*actorApp, string, *http.Request) (int, string) { return 500, "no" },
		"purr":     func(*actorApp, string, *http.Request) (int, string) { return 200, "" },
		"dawdle":   func(_ *actorApp, _ string, r *http.Request) (int, string) { <-r.Context().Done(); return 200, "" },
		"timer/t":  func(_ *actorApp, _ string, r *http.Request) (int, string) { <-r.Context().Done(); return 200, "" },
		"remind/r": func(_ *actorApp, _ string, r *http.Request) (int, string) { <-r.Context().Done(); return 200, "" },
	})
	open, _ := n.attach("zoo", sdk.Attachment{Port: zoo.port, Protocol: "http", Resources: map[string]string{"r.yaml": hostPolicies}})
	zoo.door, zoo.head = "http://127.0.0.1:"+open.DaprHTTP+"/v1.0/actors/", []string{"dapr-api-token", open.Token, "Content-Type", "application/json"}
	caller := newActorApp(t, `{}`, nil)
	open, _ = n.attach("caller", sdk.Attachment{Port: caller.port, Protocol: "http", Resources: map[string]string{"r.yaml": callerPolicies}})
	caller.door, caller.head = "http://127.0.0.1:"+open.DaprHTTP+"/v1.0/actors/", []string{"dapr-api-token", open.Token}
	times := func(what string) (times int) {
		for _, one := range zoo.happened() {
			if one == what {
				times++
			}
		}
		return times
	}

	caller.ask("POST", "cat/tom/method/flaky", "milk").want(t, 200, "milk")
	if got := times("flaky tom"); got != 4 {
		t.Errorf("a method that fails three times was asked %d times", got)
	}
	if got := caller.ask("POST", "cat/tom/method/none", ""); got.status != 500 || times("none tom") != 1 {
		t.Errorf("a method that is not there: %+v, after %d times", got, times("none tom"))
	}
	if got := caller.ask("POST", "cat/tom/method/broken", ""); got.status != 500 || !strings.Contains(got.body, "(500) no") {
		t.Errorf("%+v", got)
	}
	if got := times("broken tom"); got != 4 { // none was the first failure
		t.Errorf("an actor that fails was asked %d times", got)
	}
	if got := caller.ask("POST", "cat/tom/method/purr", ""); got.status != 500 || !strings.Contains(got.body, string(quipu.CodeBreakerOpen)) {
		t.Errorf("an actor that failed too often: %+v", got)
	}
	caller.ask("POST", "cat/kit/method/purr", "").want(t, 200, "")
	n.actor("cat/tom/method/purr", "").want(t, 200, "") // a client from outside has no policies

	if got := n.actor("cat/tom/method/dawdle", ""); got.status != 500 || !strings.Contains(got.body, "no answer within 300ms") {
		t.Errorf("a turn that takes too long: %+v", got)
	}
	n.actor("cat/tom/method/purr", "").want(t, 200, "") // and the actor is free
	zoo.ask("POST", "cat/tom/timers/t", `{"dueTime":"0s","period":"1ms"}`).want(t, 204, "")
	zoo.ask("POST", "cat/kit/reminders/r", `{"dueTime":"0s","period":"1ms"}`).want(t, 204, "")
	eventually(t, "turns of timers and reminders end, too", func() bool { return times("timer/t tom") > 1 && times("remind/r kit") > 1 })
}
