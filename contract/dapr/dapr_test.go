package dapr

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resource"
)

// plainApp is an HTTP application in memory.
type plainApp struct{ http.Handler }

func (a plainApp) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w.Result(), nil
}

// says is an application whose every GET answers the same.
func says(status int, body string) plainApp {
	return plainApp{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || r.URL.Path != "/dapr/subscribe" && r.URL.Path != "/dapr/config" {
			panic(r.Method + r.URL.Path)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	})}
}

func TestAnApplicationSaysWhatItSubscribesTo(t *testing.T) {
	got, err := Subscriptions(t.Context(), says(200, `[
		{"pubsubname":"pubsub","topic":"a","route":"/orders"},
		{"pubsubname":"pubsub","topic":"b/c","route":"orders b","metadata":{"rawPayload":"true"},"deadLetterTopic":"dead"},
		{"pubsubname":"pubsub","topic":"d","routes":{"rules":[{"match":"event.type == \"x\"","path":"/x"},{"match":" event.data.n > 5 ","path":"big"}],"default":"/rest"}},
		{"pubsubname":"pubsub","topic":"e","routes":{"rules":[{"match":"event.type == \"x\"","path":"/x"}]}},
		{"pubsubname":"pubsub","topic":"f","routes":{"rules":[{"match":"","path":"/all"},{"match":"never","path":"/never"}]}},
		{"pubsubname":"pubsub","topic":"g","route":"/g","bulkSubscribe":{"enabled":true,"maxMessagesCount":20,"maxAwaitDurationMs":40}},
		{"pubsubname":"pubsub","topic":"h","route":"/h","bulkSubscribe":{"enabled":true}},
		{"pubsubname":"pubsub","topic":"i","route":"/i","bulkSubscribe":{"enabled":true,"maxMessagesCount":1000000}},
		{"pubsubname":"pubsub","topic":"nowhere"}]`))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range got {
		lines = append(lines, fmt.Sprintf("%s %s %v raw=%v dead=%s batch=%d retries=%d", s.Name, s.Path, s.Routes, s.Raw, s.DeadLetter, s.Batch, s.Retry.Max))
	}
	want := `a /orders [] raw=false dead= batch=1 retries=10
b/c /orders%20b [] raw=true dead=dead batch=1 retries=10
d /rest [{event.type == "x" /x} {event.data.n > 5 /big}] raw=false dead= batch=1 retries=10
e  [{event.type == "x" /x}] raw=false dead= batch=1 retries=10
f /all [] raw=false dead= batch=1 retries=10
g /g [] raw=false dead= batch=20 retries=10
h /h [] raw=false dead= batch=100 retries=10
i /i [] raw=false dead= batch=1000 retries=10`
	if strings.Join(lines, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), want)
	}
}

func TestAnApplicationMayHaveNothingToSay(t *testing.T) {
	for _, app := range []plainApp{says(404, "nope"), says(405, ""), says(501, ""), says(200, ""), says(200, " \n"), says(200, "[]"), says(200, "null")} {
		if got, err := Subscriptions(t.Context(), app); err != nil || len(got) != 0 {
			t.Errorf("%v %v", got, err)
		}
	}
	if c, err := Configuration(t.Context(), says(404, "")); err != nil || c.Entities != nil {
		t.Errorf("%v %v", c, err)
	}
	if c, err := Configuration(t.Context(), says(200, `{"entities":["cat"],"actorIdleTimeout":"1h"}`)); err != nil || len(c.Entities) != 1 {
		t.Errorf("%v %v", c, err)
	}
}

func TestGarbageIsRefusedAtDeploy(t *testing.T) {
	many := `[` + strings.Repeat(`{"pubsubname":"pubsub","topic":"a","route":"/"},`, subscriptionsMax) + `{}]`
	rules := strings.Repeat(`{"match":"true","path":"/"},`, rulesMax) + `{"match":"true","path":"/"}`
	for body, want := range map[string]string{
		`hello`:           "not what it should be",
		`<html>`:          "not what it should be",
		`{"topic":"a"}`:   "not what it should be",
		`[{"topic":5}]`:   "not what it should be",
		`[{"route":"/"}]`: "names no topic",
		`[{"pubsubname":"pubsub","topic":"a","route":"/","metadata":{"rawPayload":"maybe"}}]`:                                 "neither true nor false",
		`[{"pubsubname":"pubsub","topic":"a","route":"/"},{"pubsubname":"pubsub","topic":"a","route":"/b"}]`:                  `topic "a" twice`,
		`[{"pubsubname":"pubsub","topic":"a","routes":{"rules":[{"match":"event.type ==","path":"/"}]}}]`:                     "cannot be used",
		`[{"pubsubname":"pubsub","topic":"a","routes":{"rules":[{"match":"'text'","path":"/"}]}}]`:                            "not true or false",
		`[{"pubsubname":"pubsub","topic":"a","routes":{"rules":[{"match":"evnt.type == 'x'","path":"/"}]}}]`:                  "undeclared reference to 'evnt'",
		`[{"pubsubname":"pubsub","topic":"a","routes":{"rules":[{"match":"` + strings.Repeat("x", 5000) + `","path":"/"}]}}]`: "it has 5000 bytes",
		`[{"pubsubname":"pubsub","topic":"a","routes":{"rules":[` + rules + `]}}]`:                                            "101 rules",
		`[{"pubsubname":"pubsub","topic":"a","routes":{"rules":[{"match":"true"}]}}]`:                                         "rule without a path",
		many:                               "1001 topics",
		strings.Repeat(" ", sayBytesMax+1): "more than 1048576 bytes",
	} {
		if _, err := Subscriptions(t.Context(), says(200, body)); quipu.CodeOf(err) != quipu.CodeAppCallback || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: %v, want %s", body, err, want)
		}
	}
	if _, err := Subscriptions(t.Context(), says(500, "")); quipu.CodeOf(err) != quipu.CodeAppCallback || !strings.Contains(err.Error(), "status 500") {
		t.Error(err)
	}
	two := `[{"pubsubname":"kafka","topic":"a","route":"/"},{"pubsubname":"pubsub","topic":"a","route":"/"}]` // whether there is a kafka is not known here
	if all, err := Subscriptions(t.Context(), says(200, two)); err != nil || len(all) != 2 || all[0].PubSub != "kafka" || all[1].PubSub != "" {
		t.Error(all, err)
	}
}

func TestTheFirstRuleThatIsTrueHasTheEvent(t *testing.T) {
	r, err := NewRouter(quipu.TopicTrigger{Path: "/rest", Routes: []quipu.Route{
		{Match: `event.type == "widget" && event.data.price > 10`, Path: "/dear"},
		{Match: `event.type == "widget"`, Path: "/widgets"},
		{Match: `has(event.data) && has(event.data.tags) && "x" in event.data.tags`, Path: "/tagged"},
		{Match: `event.data.deep.er == 1`, Path: "/deep"},
		{Match: `event.data.answer`, Path: "/answer"},
		{Match: `event.data.list.all(a, event.data.list.all(b, event.data.list.all(c, a + b + c >= 0)))`, Path: "/costly"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.TrimSuffix(strings.Repeat("1,", 500), ",")
	for event, want := range map[string]string{
		`{"type":"widget","data":{"price":10.5}}`:     "/dear",
		`{"type":"widget","data":{"price":10}}`:       "/widgets",
		`{"type":"widget"}`:                           "/widgets", // the first rule fails, which is not true
		`{"type":"a","data":{"tags":["x","y"]}}`:      "/tagged",
		`{"type":"a","data":{"deep":{"er":1}}}`:       "/deep",
		`{"type":"a","data":{"answer":true}}`:         "/answer",
		`{"type":"a","data":{"answer":42}}`:           "/rest",
		`{"type":"a","data":{"list":[1]}}`:            "/costly",
		`{"type":"a","data":{"list":[` + long + `]}}`: "/rest", // it takes too long
		`{"type":"a","data":"text"}`:                  "/rest",
		`{}`:                                          "/rest",
		`garbage`:                                     "/rest",
	} {
		if got, ok := r.Path([]byte(event)); got != want || !ok {
			t.Errorf("%.60s goes to %q, want %q", event, got, want)
		}
	}
	r, err = NewRouter(quipu.TopicTrigger{Routes: []quipu.Route{{Match: `event.type == "x"`, Path: "/x"}}})
	if err != nil {
		t.Fatal(err)
	}
	if path, ok := r.Path([]byte(`{"type":"y"}`)); ok {
		t.Errorf("without a default it goes to %q", path)
	}
}

func TestAnswersAreReadAsDaprReadsThem(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   quipu.Outcome
	}{
		{200, ``, quipu.Ack}, {204, ``, quipu.Ack}, {299, `x`, quipu.Ack}, {200, `OK`, quipu.Ack}, {200, `<html>`, quipu.Ack}, {200, `[1]`, quipu.Ack},
		{200, `{}`, quipu.Ack}, {200, `{"status":""}`, quipu.Ack}, {200, `{"status":"SUCCESS"}`, quipu.Ack}, {201, `{"status":5}`, quipu.Ack},
		{200, `{"status":"RETRY"}`, quipu.Retry}, {200, `{"status":"DROP"} trailing`, quipu.Drop}, {200, `{"status":"success"}`, quipu.Retry},
		{200, `{"status":"WHATEVER"}`, quipu.Retry}, {404, ``, quipu.Drop}, {404, `{"status":"SUCCESS"}`, quipu.Drop}, {500, `{"status":"SUCCESS"}`, quipu.Retry},
		{400, ``, quipu.Retry}, {302, ``, quipu.Retry}, {429, ``, quipu.Retry}, {100, ``, quipu.Retry},
	} {
		if got := Judge(c.status, []byte(c.body)); got != c.want {
			t.Errorf("%d %s is %v, want %v", c.status, c.body, got, c.want)
		}
	}
}

func batch(t *testing.T, n int) *http.Request {
	var events []string
	for i := range n {
		events = append(events, fmt.Sprintf(`{"specversion":"1.0","id":"same","source":"s","type":"t","topic":"orders","pubsubname":"pubsub","datacontenttype":"application/json","data":{"n": %d}}`, i))
	}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/orders", strings.NewReader("["+strings.Join(events, ",")+"]"))
	r.Header.Set("Content-Type", quipu.MediaCloudBatch)
	r.Header.Set(quipu.HeaderTrigger, "topic orders")
	return r
}

func TestABatchGoesInDaprsBulkEnvelope(t *testing.T) {
	answers := ""
	app := HTTP{Token: "app-secret", App: plainApp{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		want := `{"entries":[{"entryId":"0","event":{"specversion":"1.0","id":"same","source":"s","type":"t","topic":"orders","pubsubname":"pubsub","datacontenttype":"application/json","data":{"n":0}},"metadata":null,"contentType":"application/cloudevents+json"},`
		if !strings.HasPrefix(string(body), want) || !strings.HasSuffix(string(body), `"metadata":{"pubsubName":"pubsub"},"pubsubname":"pubsub","topic":"orders","type":"com.dapr.event.sent.bulk"}`) ||
			r.Header.Get("dapr-api-token") != "app-secret" || r.Header.Get("Content-Type") != "application/json" || r.ContentLength != int64(len(body)) {
			t.Errorf("%v %s", r.Header, body)
		}
		io.WriteString(w, answers)
	})}}
	for body, want := range map[string]quipu.Outcome{
		`{"statuses":[{"entryId":"0","status":"SUCCESS"},{"entryId":"1","status":"SUCCESS"}]}`: quipu.Ack,
		`{"statuses":[{"entryId":"1","status":"DROP"},{"entryId":"0","status":"DROP"}]}`:       quipu.Drop,
		`{"statuses":[{"entryId":"0","status":"SUCCESS"},{"entryId":"1","status":"RETRY"}]}`:   quipu.Retry,
		`{"statuses":[{"entryId":"0","status":"SUCCESS"},{"entryId":"1","status":"DROP"}]}`:    quipu.Retry,
		`{"statuses":[{"entryId":"0","status":"SUCCESS"},{"entryId":"1","status":""}]}`:        quipu.Retry,
		`{"statuses":[{"entryId":"0","status":"SUCCESS"}]}`:                                    quipu.Retry,
		`{"statuses":[]}`: quipu.Retry, ``: quipu.Retry, `OK`: quipu.Retry,
	} {
		answers = body
		resp, err := app.Do(batch(t, 2))
		if err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(resp.Body)
		if got := Judge(resp.StatusCode, said); err != nil || got != want {
			t.Errorf("%s is %v, want %v", body, got, want)
		}
	}
	app.App = plainApp{http.NotFoundHandler()}
	if resp, err := app.Do(batch(t, 2)); err != nil || Judge(resp.StatusCode, nil) != quipu.Drop {
		t.Errorf("404 of a bulk: %v", err)
	}
	bad := batch(t, 0)
	bad.Body = io.NopCloser(strings.NewReader("nothing"))
	if _, err := app.Do(bad); quipu.CodeOf(err) != quipu.CodeCloudEvent {
		t.Error(err)
	}
}

const files = `apiVersion: quipu.dev/v1
kind: Function
metadata: {name: shop}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec:
  pubsubname: pubsub
  topic: orders
  routes:
    rules:
      - match: event.type == "widget"
        path: /widgets
    default: /orders
  deadLetterTopic: poison
  bulkSubscribe: {enabled: true, maxMessagesCount: 7}
scopes: [shop]
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: raw}
spec: {pubsubname: pubsub, topic: raw, route: /raw, metadata: {rawPayload: "true"}}
---
`

func declaredBy(fsys fs.FS) ([]Declared, error) {
	set, err := resource.ReadFS(fsys, resource.Folders...)
	if err != nil {
		return nil, err
	}
	return Declare(set.Subscriptions)
}

func TestFilesDeclareSubscriptions(t *testing.T) {
	fsys := fstest.MapFS{"quipu.yaml": {Data: []byte(files)}, "other.txt": {Data: []byte("apiVersion: dapr.io/v1")}, "helm.yaml": {Data: []byte("{{ not: yaml")},
		"resources/a.yml": {Data: []byte("apiVersion: dapr.io/v1alpha1\nkind: Subscription\nspec: {pubsubname: pubsub, topic: a, route: a}\nscopes: [other]")},
		"deep/er/b.yaml":  {Data: []byte("apiVersion: dapr.io/v1alpha1\nkind: Subscription")}}
	all, err := declaredBy(fsys)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range all {
		lines = append(lines, fmt.Sprintf("%s:%d %s %v %s %s %v %d %v", d.File, d.Line, d.Name, d.Scopes, d.Trigger.Name, d.Trigger.Path, d.Trigger.Routes, d.Trigger.Batch, d.Trigger.Raw))
	}
	want := `quipu.yaml:5 orders [shop] orders /orders [{event.type == "widget" /widgets}] 7 false
quipu.yaml:20 raw [] raw /raw [] 1 true
resources/a.yml:1  [other] a /a [] 1 false`
	if strings.Join(lines, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), want)
	}

	merged, err := Merge("shop", []quipu.TopicTrigger{{Name: "raw", Path: "/own"}}, all)
	if err != nil || len(merged) != 2 || merged[0].Path != "/own" || merged[1].Name != "orders" || merged[1].DeadLetter != "poison" {
		t.Errorf("what the application says comes first: %v %+v", err, merged)
	}
	if merged, err = Merge("stats", nil, all); err != nil || len(merged) != 1 || merged[0].Name != "raw" {
		t.Errorf("scopes: %v %+v", err, merged)
	}
	if _, err = Merge("stats", nil, append(all, all[1])); quipu.CodeOf(err) != quipu.CodeManifest || !strings.Contains(err.Error(), "quipu.yaml:20: function stats subscribes to topic \"raw\" twice") {
		t.Error(err)
	}
}

func TestAFileThatCannotBeReadIsToldByItsLine(t *testing.T) {
	const head = "# comment\napiVersion: dapr.io/"
	for text, want := range map[string]string{
		head + "v1alpha1\nkind: Subscription\nspec: {pubsubname: pubsub, topic: a}":            "x.yaml:2: Subscription \"\" of dapr.io/v1alpha1 has no route",
		head + "v2alpha1\nkind: Subscription\nspec: {pubsubname: pubsub, topic: a, route: /a}": "x.yaml:2: Subscription \"\" of dapr.io/v2alpha1 has no routes",
		head + "v9\nkind: Subscription":                                                                                       "x.yaml:2: Subscription \"\" is of apiVersion dapr.io/v9",
		head + "v1alpha1\nkind: Subscription\nspec:\n  route: [1]":                                                            "line 5: cannot unmarshal",
		head + "v1alpha1\nkind: Subscription\nscopes: 5":                                                                      "line 4: cannot unmarshal",
		head + "v1alpha1\nkind: [":                                                                                            "x.yaml: line 3",
		head + "v1alpha1\nkind: Subscription\nspec: {pubsubname: pubsub, route: /a}":                                          "x.yaml:2: a subscription names no topic",
		head + "v1alpha1\nkind: Subscription\nspec: {topic: a, route: /a}":                                                    "x.yaml:2: the subscription to topic \"a\" names no pub/sub component",
		head + "v2alpha1\nkind: Subscription\nspec: {pubsubname: pubsub, topic: a, routes: {rules: [{match: '(', path: /}]}}": "x.yaml:2: the subscription to topic \"a\" has a match",
		head + strings.Repeat("x", 1<<20):                                                                                     "x.yaml has more than 1048576 bytes",
	} {
		_, err := declaredBy(fstest.MapFS{"x.yaml": {Data: []byte(text)}})
		if err == nil || quipu.CodeOf(err) == quipu.CodeInternal || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, want %s", text, err, want)
		}
	}
}

func TestAnApplicationThatCannotBeReachedIsNotOneWithoutSubscriptions(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Subscriptions(ctx, broken{}); err == nil {
		t.Error("no error")
	}
}

type broken struct{}

func (broken) Do(r *http.Request) (*http.Response, error) { return nil, r.Context().Err() }
