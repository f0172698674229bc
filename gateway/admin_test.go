package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

// furnished is a house with something behind every operation.
func furnished(t *testing.T) *house {
	t.Helper()
	h := open(t, "")
	h.add(fake.HTTP("hello", "/hello/{$}", "GET", "POST"), fake.Echo)
	h.ask("GET", "/hello/", "")
	h.ask("POST", "/hello/", "later", "Prefer: respond-async")
	h.ns.Running = []sdk.Instance{{ID: "i1", Function: "hello", Revision: "r1", PID: 7, State: "ready", Started: fake.Epoch}}
	h.ns.Lines = []sdk.LogLine{{Time: fake.Epoch, Function: "hello", Instance: "i1", Stream: "stdout", Text: "one"}, {Time: fake.Epoch, Function: "hello", Instance: "i1", Stream: "stderr", Text: "two"}}
	for i := range 5 {
		h.ns.Book.Put("quipu/default", fmt.Sprintf("record %d", i), []string{"even", "odd"}[i%2])
	}
	for i := range 3 {
		h.ns.Book.Put(oddBook, fmt.Sprintf(`{"n":%d}`, i), "a=b")
	}
	book, err := h.ns.Log().OpenBook(t.Context(), oddBook)
	h.must(err)
	h.must(h.ns.Log().SetAux(t.Context(), book, oddRecord, []byte("hint")))
	h.must(h.ns.State("hello").Apply(t.Context(), quipu.StoreDefault, []quipu.Change{{Key: "n", Value: []byte("1"), TTL: time.Minute}}))
	h.must(h.ns.State("").Apply(t.Context(), quipu.StoreShared, []quipu.Change{{Key: "a/b//c", Value: []byte("v")}}))
	h.must(h.ns.Publish(t.Context(), []quipu.Message{
		{Topic: oddTopic, ID: "1", ContentType: quipu.MediaCloudEvent, Data: []byte(`{"specversion":"1.0","id":"1","data":{"a":[1]}}`), TTL: time.Hour},
		{Topic: oddTopic, ID: "2", ContentType: "image/png", Data: []byte{0xff, 0}},
		{Topic: oddTopic, ID: "3", ContentType: "text/plain", Data: []byte("<plain>")},
		{Topic: oddTopic, ID: "later", Delay: time.Hour},
	}))
	h.ns.PutDead("mailer-dead", `{"id":"1"}`, quipu.DeadLetter{Topic: oddTopic, Subscription: "mailer", Offset: 1, Cause: "500", Attempts: 11})
	h.ns.PutSubscription(oddTopic, "mail/er")
	h.must(h.ns.SetBudget(t.Context(), quipu.Budget{Function: "hello", Amount: 1, Warn: 80}))
	h.ns.Alarms = &fake.Alarms{}
	h.must(h.ns.Alarms.SetAlarm(t.Context(), quipu.Alarm{AlarmKey: quipu.AlarmKey{Kind: quipu.AlarmJob, App: "hello", Name: "clean up"}, Schedule: "@daily", Data: []byte("{}")}))
	h.must(h.ns.SetAlias(t.Context(), "hello", "stable", "r1"))
	h.ask("POST", adminPrefix+"/functions/hello/call/", "", "Traceparent: "+oddTrace, quipu.HeaderTrace+": "+quipu.TraceKeep)
	return h
}

const (
	oddTopic = "orders/eu é"
	oddBook  = "raw/é"
	oddPath  = "/books/raw%2F%C3%A9"
)

// oddTrace is the parent of a call that was recorded.
const oddTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// oddRecord is the second of oddBook.
var oddRecord = quipu.MakeSeq(0, 9)

// samples has, for every operation, a request that succeeds.
var samples = map[string]struct{ method, path, body, header string }{
	"getNode":            {"GET", "/node", "", ""},
	"getOpenAPI":         {"GET", "/openapi.json", "", ""},
	"listRoutes":         {"GET", "/routes", "", ""},
	"listInstances":      {"GET", "/instances", "", ""},
	"listCalls":          {"GET", "/calls?function=hello&limit=1", "", ""},
	"getCall":            {"GET", "/calls/call-1", "", ""},
	"getCallSlice":       {"GET", "/calls/call-1/slice", "", ""},
	"getCallResult":      {"GET", "/calls/call-1/result", "", ""},
	"cancelCall":         {"POST", "/calls/call-2/cancel", "", ""},
	"deploy":             {"POST", "/deploys?app=shop", "BUNDLE", "Content-Type: application/gzip"},
	"listFunctions":      {"GET", "/functions", "", ""},
	"getFunction":        {"GET", "/functions/hello", "", ""},
	"removeFunction":     {"DELETE", "/functions/hello", "", ""},
	"listAllRevisions":   {"GET", "/revisions", "", ""},
	"listRevisions":      {"GET", "/functions/hello/revisions", "", ""},
	"splitTraffic":       {"PUT", "/functions/hello/traffic", `{"parts":[{"revision":"r1","percent":100}]}`, ""},
	"rollback":           {"POST", "/functions/hello/rollback", `{"revision":"r1"}`, ""},
	"putAlias":           {"PUT", "/functions/hello/aliases/new", `{"revision":"r1"}`, ""},
	"removeAlias":        {"DELETE", "/functions/hello/aliases/stable", "", ""},
	"getLogs":            {"GET", "/functions/hello/logs?tail=1", "", ""},
	"getAllLogs":         {"GET", "/logs?function=hello&tail=1&since=2026-01-02T03:04:05Z&after=hello:1.0", "", ""},
	"call":               {"PATCH", "/functions/hello/call/a%2Fb//c?x=1", "body", ""},
	"listState":          {"GET", "/state/statestore?as=hello", "", ""},
	"getState":           {"GET", "/state/shared/a/b//c", "", ""},
	"putState":           {"PUT", "/state/shared/x%2F..%2Fy?ttl=5", "value", "If-None-Match: *"},
	"deleteState":        {"DELETE", "/state/shared/a/b//c", "", ""},
	"listTopics":         {"GET", "/topics", "", ""},
	"getTopic":           {"GET", "/topics/orders%2Feu%20%C3%A9", "", ""},
	"removeTopic":        {"DELETE", "/topics/orders%2Feu%20%C3%A9", "", ""},
	"publish":            {"POST", "/topics/orders%2Feu%20%C3%A9/events?type=t&ttl=1h&extension=tenant%3Da", `{"n":1}`, "Content-Type: application/json"},
	"readTopic":          {"GET", "/topics/orders%2Feu%20%C3%A9/events?from=earliest&limit=9", "", ""},
	"cancelDelayed":      {"DELETE", "/topics/orders%2Feu%20%C3%A9/delayed/later", "", ""},
	"unsubscribe":        {"DELETE", "/topics/orders%2Feu%20%C3%A9/subscriptions/mail%2Fer", "", ""},
	"seek":               {"POST", "/topics/orders%2Feu%20%C3%A9/subscriptions/mail%2Fer/seek", `{"from":"earliest"}`, ""},
	"redrive":            {"POST", "/topics/mailer-dead/redrive", "", ""},
	"attach":             {"POST", "/apps/brief/attach", `{"port":7000,"protocol":"grpc"}`, ""},
	"reloadAttached":     {"PUT", "/apps/brief/attached/1/resources", `{"resources":{"a.yaml":""}}`, ""},
	"listBooks":          {"GET", "/books", "", ""},
	"readBook":           {"GET", "/books/quipu%2Fdefault/records?limit=2", "", ""},
	"createBook":         {"POST", "/books", `{"name":"new","options":{"maxAge":"7d","maxBytes":"1Gi","quota":"10GiB"}}`, ""},
	"getBook":            {"GET", oddPath, "", ""},
	"changeBook":         {"PATCH", oddPath, `{"options":{"quota":"1Mi"}}`, ""},
	"deleteBook":         {"DELETE", oddPath, "", ""},
	"trimBook":           {"POST", oddPath + "/trim", `{"upto":"0000000000000008","tag":"a=b"}`, ""},
	"getProducer":        {"GET", oddPath + "/producers/18446744073709551615", "", ""},
	"getLogStats":        {"GET", "/log/stats", "", ""},
	"appendRecord":       {"POST", oddPath + "/records?tag=a%3Db&tag=c&if-last=a%3Db%3D" + quipu.MakeSeq(0, 10).String() + "&producer=7.1.1", "\x00 anything", ""},
	"appendBatch":        {"POST", oddPath + "/batch", `{"records":[{"tags":["t"],"text":"x","cond":{"tag":"none","last":"0000000000000000"}},{"json":{"n":[1]}},{"data":"AAE="},{}],"producer":{"id":7,"epoch":1,"n":1}}`, ""},
	"getRecord":          {"GET", oddPath + "/records/9?as=json", "", ""},
	"getRecordData":      {"GET", oddPath + "/records/9/data", "", ""},
	"getAux":             {"GET", oddPath + "/records/9/aux", "", ""},
	"putAux":             {"PUT", oddPath + "/records/9/aux", "new hint", ""},
	"tailBook":           {"GET", "/books/quipu%2Fdefault/tail?from=0", "", ""},
	"getTrace":           {"GET", "/traces/" + oddTrace[3:35], "", ""},
	"backup":             {"POST", "/backup", "", ""},
	"listNamespaces":     {"GET", "/namespaces", "", ""},
	"forkNamespace":      {"POST", "/forks", `{"name":"preview"}`, ""},
	"resumeFork":         {"POST", "/namespaces/fork/resume", "", ""},
	"removeNamespace":    {"DELETE", "/namespaces/fork", "", ""},
	"replayCall":         {"POST", "/calls/call-1/replay", `{}`, ""},
	"listUsage":          {"GET", "/usage?from=2026-01-01&to=2026-01-31", "", ""},
	"getBill":            {"GET", "/bill?month=2026-01&by=function", "", ""},
	"getPrices":          {"GET", "/prices", "", ""},
	"setPrices":          {"PUT", "/prices", `{"currency":"EUR","perMillionCalls":"0.20"}`, ""},
	"listBudgets":        {"GET", "/budgets", "", ""},
	"setBudget":          {"PUT", "/budgets", `{"function":"hello","amount":"10.50","warn":90,"stop":true}`, ""},
	"removeBudget":       {"DELETE", "/budgets?function=hello", "", ""},
	"listWorkflows":      {"GET", "/workflows?app=shop&status=RUNNING&limit=5", "", ""},
	"startWorkflow":      {"POST", "/workflows", `{"app":"shop","id":"w2","name":"order","input":"1"}`, ""},
	"purgeWorkflows":     {"POST", "/workflows/purge", `{"app":"shop","before":"2026-01-02T03:04:05Z"}`, ""},
	"getWorkflow":        {"GET", "/workflows/shop/w1?wait=true", "", ""},
	"getWorkflowHistory": {"GET", "/workflows/shop/w1/history", "", ""},
	"raiseWorkflow":      {"POST", "/workflows/shop/w1/raise", `{"event":"paid","data":"5"}`, ""},
	"suspendWorkflow":    {"POST", "/workflows/shop/w1/suspend", `{"reason":"lunch"}`, ""},
	"resumeWorkflow":     {"POST", "/workflows/shop/w1/resume", `{}`, ""},
	"terminateWorkflow":  {"POST", "/workflows/shop/w1/terminate", `{"output":"x","alone":true}`, ""},
	"rerunWorkflow":      {"POST", "/workflows/shop/w1/rerun", `{"event":1,"to":"w3","input":"2"}`, ""},
	"purgeWorkflow":      {"POST", "/workflows/shop/w1/purge", `{"recursive":true,"force":true}`, ""},
	"verifyBook":         {"POST", "/books/quipu%2Fdefault/verify", "", ""},
	"listActors":         {"GET", "/actors?type=cat&afterType=cat&afterId=a%2Fb&limit=9", "", ""},
	"listLeases":         {"GET", "/leases?prefix=actor%2F&after=actor%2Fcat%2Ftom&limit=9", "", ""},
	"listJobs":           {"GET", "/jobs?app=hello&prefix=clean&limit=5", "", ""},
	"getJob":             {"GET", "/apps/hello/jobs/clean%20up", "", ""},
	"removeJob":          {"DELETE", "/apps/hello/jobs/clean%20up", "", ""},
}

func TestEveryOperationAnswersAsItsDocumentSays(t *testing.T) {
	doc := document(t)
	for _, op := range open(t, "").gw.admin {
		sample, ok := samples[op.id]
		if !ok {
			t.Errorf("operation %s has no sample", op.id)
			continue
		}
		t.Run(op.id, func(t *testing.T) {
			h := furnished(t)
			if sample.body == "BUNDLE" {
				sample.body = appBundle(t)
			}
			r := h.ask(sample.method, adminPrefix+sample.path, sample.body, sample.header)
			if r.StatusCode != op.status {
				t.Fatalf("status %d, want %d: %s", r.StatusCode, op.status, text(t, r))
			}
			if kind := r.Header.Get("Content-Type"); op.reply != "*/*" && kind != op.reply {
				t.Errorf("content type %q, want %q", kind, op.reply)
			}
			for _, v := range values(t, op, r) {
				doc.check(t, op.id, doc.replySchema(t, op), v)
			}
			if op.takes != nil {
				var body any
				h.must(json.Unmarshal([]byte(sample.body), &body))
				doc.check(t, op.id+" request", doc.bodySchema(op), body)
			}
		})
	}
}

// values are the JSON values in a reply: one, or one a line, or the first of a stream of events.
func values(t *testing.T, op adminRoute, r *http.Response) []any {
	t.Helper()
	if op.shape == nil {
		return nil
	}
	var out []any
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		line := lines.Text()
		data, event := strings.CutPrefix(line, "data: ")
		if op.reply == eventsType && !event {
			continue
		}
		var v any
		if err := json.Unmarshal([]byte(data), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, v)
		if event {
			break
		}
	}
	if len(out) == 0 {
		t.Fatal("no value in the reply")
	}
	return out
}

func TestTheDocumentHasEveryOperationAndNoOther(t *testing.T) {
	doc := document(t)
	documented := map[string]bool{}
	for path, item := range doc["paths"].(object) {
		for method := range item.(object) {
			documented[strings.ToUpper(method)+" "+path] = true
		}
	}
	for _, op := range open(t, "").gw.admin {
		for _, m := range methodsOf(op) {
			key := m + " " + adminPrefix + strings.ReplaceAll(op.path, "...}", "}")
			if !documented[key] {
				t.Errorf("%s is not documented", key)
			}
			delete(documented, key)
		}
	}
	for key := range documented {
		t.Errorf("%s is documented but not there", key)
	}
}

const (
	batchHeader = "Content-Type: application/cloudevents-batch+json"
	goodEvent   = `{"specversion":"1.0","id":"1","source":"s","type":"t"}`
)

// badRequests are mistakes at every operation, and what each gets.
var badRequests = []struct {
	request string
	body    string
	header  string
	code    quipu.Code
}{
	{"GET /nothing", "", "", quipu.CodeNoRoute},
	{"GET /functions/", "", "", quipu.CodeNoRoute},
	{"PUT /node", "", "", quipu.CodeMethod},
	{"POST /routes", "", "", quipu.CodeMethod},
	{"DELETE /openapi.json", "", "", quipu.CodeMethod},
	{"PUT /instances", "", "", quipu.CodeMethod},
	{"GET /node?namespace=other", "", "", quipu.CodeNotFound},
	{"GET /functions?a=%zz", "", "", quipu.CodeUsage},
	{"GET /functions", "", "Quipu-Namespace: other", quipu.CodeNotFound},
	{"GET /calls?limit=0", "", "", quipu.CodeUsage},
	{"GET /calls?limit=1001", "", "", quipu.CodeUsage},
	{"GET /calls?limit=many", "", "", quipu.CodeUsage},
	{"GET /calls/nobody", "", "", quipu.CodeNotFound},
	{"GET /calls/nobody/slice", "", "", quipu.CodeNotFound},
	{"GET /calls/nobody/result", "", "", quipu.CodeNotFound},
	{"POST /calls/nobody/cancel", "", "", quipu.CodeNotFound},
	{"POST /calls/call-1/cancel", "", "", quipu.CodeCallEnded},
	{"GET /calls/call-1/cancel", "", "", quipu.CodeMethod},
	{"POST /functions/none/call/", "", "Prefer: respond-async", quipu.CodeNoFunction},
	{"POST /functions/hello/call/", strings.Repeat("x", 1001), "Prefer: respond-async", quipu.CodeBodySize},
	{"POST /deploys", "x", "Content-Type: application/gzip", quipu.CodeUsage},
	{"POST /deploys?app=a", "x", "Content-Type: text/plain", quipu.CodeBadJSON},
	{"POST /deploys?app=a", "no gzip", "Content-Type: application/gzip", quipu.CodeBadJSON},
	{"GET /functions/none", "", "", quipu.CodeNoFunction},
	{"DELETE /functions/none", "", "", quipu.CodeNoFunction},
	{"GET /functions/none/logs", "", "", quipu.CodeNoFunction},
	{"POST /deploys?app=a&traffic=some", "x", "Content-Type: application/gzip", quipu.CodeUsage},
	{"POST /revisions", "", "", quipu.CodeMethod},
	{"GET /functions/none/revisions", "", "", quipu.CodeNoFunction},
	{"PUT /functions/none/traffic", `{"parts":[{"revision":"r1","percent":100}]}`, "", quipu.CodeNoFunction},
	{"PUT /functions/hello/traffic", `{"parts":[{"revision":"r1","percent":99}]}`, "", quipu.CodeSplit},
	{"PUT /functions/hello/traffic", `{"parts":[{"revision":"r1","percent":99.5}]}`, "", quipu.CodeBadJSON},
	{"PUT /functions/hello/traffic", `{"parts":[{"revision":"r2","percent":100}]}`, "", quipu.CodeNoRevision},
	{"PUT /functions/hello/traffic", `[]`, "", quipu.CodeBadJSON},
	{"POST /functions/hello/rollback", `{}`, "", quipu.CodeNoFormer},
	{"POST /functions/hello/rollback", `{"revision":"r2"}`, "", quipu.CodeNoRevision},
	{"POST /functions/hello/rollback", `{"to":"r2"}`, "", quipu.CodeBadJSON},
	{"PUT /functions/hello/aliases/a", `{"revision":"r2"}`, "", quipu.CodeNoRevision},
	{"PUT /functions/hello/aliases/a", `{}`, "", quipu.CodeUsage},
	{"PUT /functions/hello/aliases/", `{"revision":"r1"}`, "", quipu.CodeNoRoute},
	{"DELETE /functions/hello/aliases/none", "", "", quipu.CodeNoRevision},
	{"POST /functions/hello/call/", "", "Quipu-Revision: r2", quipu.CodeNoRevision},
	{"GET /functions/hello/logs?tail=-1", "", "", quipu.CodeUsage},
	{"GET /functions/hello/logs?follow=maybe", "", "", quipu.CodeUsage},
	{"POST /functions/none/call/", "", "", quipu.CodeNoFunction},
	{"POST /functions/hello/call/", strings.Repeat("x", 1001), "", quipu.CodeBodySize},
	{"GET /state/statestore", "", "", quipu.CodeUsage},
	{"GET /state/nostore", "", "", quipu.CodeNoStore},
	{"GET /state/shared?limit=x", "", "", quipu.CodeUsage},
	{"GET /state/shared/none", "", "", quipu.CodeNotFound},
	{"GET /state/shared/a%7C%7Cb", "", "", quipu.CodeKey},
	{"PUT /state/shared/" + strings.Repeat("k", quipu.KeyBytesMax+1), "v", "", quipu.CodeKey},
	{"PUT /state/shared/", "v", "", quipu.CodeKey},
	{"PUT /state/shared/k?ttl=-1", "v", "", quipu.CodeTTL},
	{"PUT /state/shared/k?ttl=soon", "v", "", quipu.CodeTTL},
	{"PUT /state/shared/k", "v", "If-Match: zzz", quipu.CodeETagForm},
	{"PUT /state/shared/k", "v", "If-Match: 00000000000000ff", quipu.CodeETag},
	{"PUT /state/shared/k", "v", "If-None-Match: 123", quipu.CodeUsage},
	{"PUT /state/shared/a/b//c", "v", "If-None-Match: *", quipu.CodeETag},
	{"PUT /state/shared/big", strings.Repeat("v", quipu.ValueBytesMax+1), "", quipu.CodeBodySize},
	{"DELETE /state/shared/a/b//c", "", "If-Match: 00000000000000ff", quipu.CodeETag},
	{"GET /topics/none", "", "", quipu.CodeNoTopic},
	{"GET /topics/", "", "", quipu.CodeNoRoute},
	{"DELETE /topics/none", "", "", quipu.CodeNoTopic},
	{"POST /topics/none", "", "", quipu.CodeMethod},
	{"POST /topics//events", "x", "", quipu.CodeNoRoute},
	{"POST /topics/$dead/events", "x", "", quipu.CodeTopicName},
	{"POST /topics/" + strings.Repeat("t", quipu.TopicNameMax+1) + "/events", "x", "", quipu.CodeTopicName},
	{"POST /topics/line%0Abreak/events", "x", "", quipu.CodeTopicName},
	{"POST /topics/not%FFutf8/events", "x", "", quipu.CodeTopicName},
	{"POST /topics/t/events", strings.Repeat("x", quipu.EventBytesMax), "", quipu.CodeEventSize},
	{"POST /topics/t/events?raw", strings.Repeat("x", quipu.EventBytesMax+1), "", quipu.CodeEventSize},
	{"POST /topics/t/events", strings.Repeat("x", quipu.TxBytesMax+1), "", quipu.CodeBodySize},
	{"POST /topics/t/events", "{", "Content-Type: application/json", quipu.CodeBadJSON},
	{"POST /topics/t/events", "", "Content-Type: application/vnd.x+json", quipu.CodeBadJSON},
	{"POST /topics/t/events", "{", "Content-Type: application/cloudevents+json", quipu.CodeCloudEvent},
	{"POST /topics/t/events", `{"specversion":"1.0","id":"1","source":"s"}`, "Content-Type: application/cloudevents+json; charset=UTF-8", quipu.CodeCloudEvent},
	{"POST /topics/t/events", `{"specversion":"0.3","id":"1","source":"s","type":"t"}`, "Content-Type: application/cloudevents+json", quipu.CodeCloudEvent},
	{"POST /topics/t/events", "", batchHeader, quipu.CodeCloudEvent},
	{"POST /topics/t/events", "{}", batchHeader, quipu.CodeCloudEvent},
	{"POST /topics/t/events", "[null]", batchHeader, quipu.CodeCloudEvent},
	{"POST /topics/t/events", "[" + goodEvent, batchHeader, quipu.CodeCloudEvent},
	{"POST /topics/t/events", "[" + goodEvent + "] x", batchHeader, quipu.CodeCloudEvent},
	{"POST /topics/t/events", "[" + goodEvent + `,{"id":"2"}]`, batchHeader, quipu.CodeCloudEvent},
	{"POST /topics/t/events", "[" + strings.Repeat(goodEvent+",", quipu.PublishMax) + goodEvent + "]", batchHeader, quipu.CodeTooMany},
	{"POST /topics/t/events", "x", "Ce-Specversion: 1.0", quipu.CodeCloudEvent},
	{"POST /topics/t/events?id=1&source=s&type=t", "x", "Ce-Specversion: 0.3", quipu.CodeCloudEvent},
	{"POST /topics/t/events?id=1", "[" + goodEvent + "]", batchHeader, quipu.CodeUsage},
	{"POST /topics/t/events?raw=true", goodEvent, "Content-Type: application/cloudevents+json", quipu.CodeUsage},
	{"POST /topics/t/events?raw=maybe", "x", "", quipu.CodeUsage},
	{"POST /topics/t/events?ttl=0", "x", "", quipu.CodeTTL},
	{"POST /topics/t/events?ttl=-5s", "x", "", quipu.CodeTTL},
	{"POST /topics/t/events?ttl=soon", "x", "", quipu.CodeTTL},
	{"POST /topics/t/events?delay=", "x", "", quipu.CodeDelay},
	{"POST /topics/t/events?delay=367d", "x", "", quipu.CodeDelay},
	{"POST /topics/t/events?extension=specversion%3D2", "x", "", quipu.CodeUsage},
	{"POST /topics/t/events?extension=a-b%3D2", "x", "", quipu.CodeUsage},
	{"POST /topics/t/events?extension=a", "x", "", quipu.CodeUsage},
	{"DELETE /topics/t/delayed/none", "", "", quipu.CodeNotFound},
	{"GET /topics/t/events?from=yesterday", "", "", quipu.CodeUsage},
	{"GET /topics/t/events?from=-1y", "", "", quipu.CodeUsage},
	{"GET /topics/t/events?from=--1h", "", "", quipu.CodeUsage},
	{"GET /topics/t/events?from=99999999999999999999999", "", "", quipu.CodeUsage},
	{"GET /topics/t/events?limit=0", "", "", quipu.CodeUsage},
	{"GET /topics/t/events?follow=x", "", "", quipu.CodeUsage},
	{"DELETE /topics/t/subscriptions/none", "", "", quipu.CodeNoSubscription},
	{"POST /topics/t/subscriptions/none/seek", `{"from":"end"}`, "", quipu.CodeNoSubscription},
	{"POST /topics/" + url.PathEscape(oddTopic) + "/subscriptions/mail%2Fer/seek", `{"from":""}`, "", quipu.CodeUsage},
	{"POST /topics/" + url.PathEscape(oddTopic) + "/subscriptions/mail%2Fer/seek", `{"to":"end"}`, "", quipu.CodeBadJSON},
	{"POST /topics/" + url.PathEscape(oddTopic) + "/subscriptions/mail%2Fer/seek", `{"from":"end"}{}`, "", quipu.CodeBadJSON},
	{"POST /topics/none/redrive", "", "", quipu.CodeNoTopic},
	{"GET /books/none/records", "", "", quipu.CodeNoBook},
	{"GET /books/quipu%2Fdefault/records?from=xyz", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/records?limit=-4", "", "", quipu.CodeUsage},
	{"GET /books/none/tail", "", "", quipu.CodeNoBook},
	{"GET /books/quipu%2Fdefault/tail", "", "Last-Event-ID: ?", quipu.CodeUsage},
	{"POST /books/none/verify", "", "", quipu.CodeNoBook},
	{"GET /books/quipu%2Fdefault/records?to=xyz", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/records?from=1&after=1", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/records?after=ffffffffffffffff", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/records?as=xml", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/records?wait=1h", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/records?wait=soon", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/records?reverse=maybe", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/records?reverse&wait=1s", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/tail?as=xml", "", "", quipu.CodeUsage},
	{"GET /books/quipu%2Fdefault/tail?from=0", "", "Last-Event-ID: ffffffffffffffff", quipu.CodeUsage},
	{"GET /books/none", "", "", quipu.CodeNoBook},
	{"PUT /books", "", "", quipu.CodeMethod},
	{"POST /books", "", "", quipu.CodeBadJSON},
	{"POST /books", `{"name":""}`, "", quipu.CodeUsage},
	{"POST /books", `{"name":"line\nbreak"}`, "", quipu.CodeUsage},
	{"POST /books", `{"name":"` + strings.Repeat("n", quipu.BookNameMax+1) + `"}`, "", quipu.CodeUsage},
	{"POST /books", `{"name":"x","options":{"maxAge":"soon"}}`, "", quipu.CodeBadJSON},
	{"POST /books", `{"name":"x","options":{"quota":-1}}`, "", quipu.CodeBadJSON},
	{"POST /books", `{"name":"x","retention":"7d"}`, "", quipu.CodeBadJSON},
	{"POST /books", `{"name":"` + oddBook + `"}`, "", quipu.CodeBookExists},
	{"POST /books", `{"name":"quipu/mine"}`, "", quipu.CodeBookLocked},
	{"PATCH /books/none", `{"options":{}}`, "", quipu.CodeNoBook},
	{"PATCH /books/quipu%2Fdefault", `{"options":{"quota":"1"}}`, "", quipu.CodeBookLocked},
	{"PATCH " + oddPath, `{"quota":"1"}`, "", quipu.CodeBadJSON},
	{"DELETE /books/none", "", "", quipu.CodeNoBook},
	{"DELETE /books/quipu%2Fdefault", "", "", quipu.CodeBookLocked},
	{"POST /books/none/trim", `{"upto":"1"}`, "", quipu.CodeNoBook},
	{"POST /books/quipu%2Fdefault/trim", `{"upto":"1"}`, "", quipu.CodeBookLocked},
	{"POST " + oddPath + "/trim", `{}`, "", quipu.CodeUsage},
	{"POST " + oddPath + "/trim", `{"upto":9}`, "", quipu.CodeBadJSON},
	{"POST " + oddPath + "/trim", `{"upto":"ff"}`, "", quipu.CodeUsage},
	{"POST " + oddPath + "/trim", `{"upto":"9","tag":"` + strings.Repeat("t", quipu.TagBytesMax+1) + `"}`, "", quipu.CodeUsage},
	{"GET " + oddPath + "/producers/x", "", "", quipu.CodeUsage},
	{"GET /books/none/producers/1", "", "", quipu.CodeNoBook},
	{"POST /books/none/records", "x", "", quipu.CodeNoBook},
	{"POST /books/quipu%2Fdefault/records", "x", "", quipu.CodeBookLocked},
	{"POST " + oddPath + "/records", strings.Repeat("x", quipu.DataBytesMax+1), "", quipu.CodeBodySize},
	{"POST " + oddPath + "/records?tag=", "x", "", quipu.CodeRecord},
	{"POST " + oddPath + "/records?tag=" + strings.Repeat("t", quipu.TagBytesMax+1), "x", "", quipu.CodeRecord},
	{"POST " + oddPath + "/records?" + strings.Repeat("tag=t&", quipu.TagsMax+1), "x", "", quipu.CodeRecord},
	{"POST " + oddPath + "/records?tag=%FF", "x", "", quipu.CodeRecord},
	{"POST " + oddPath + "/records?if-last=t", "x", "", quipu.CodeUsage},
	{"POST " + oddPath + "/records?if-last=t%3Dzz", "x", "", quipu.CodeUsage},
	{"POST " + oddPath + "/records?producer=1", "x", "", quipu.CodeUsage},
	{"POST " + oddPath + "/records?producer=1.1.0", "x", "", quipu.CodeUsage},
	{"POST " + oddPath + "/records?producer=0.1.1", "x", "", quipu.CodeUsage},
	{"POST " + oddPath + "/records?producer=1.4294967296.1", "x", "", quipu.CodeUsage},
	{"POST " + oddPath + "/records?producer=1.1.3", "x", "", quipu.CodeFenced},
	{"POST /books/none/batch", `{"records":[{}]}`, "", quipu.CodeNoBook},
	{"POST /books/quipu%2Fdefault/batch", `{"records":[{}]}`, "", quipu.CodeBookLocked},
	{"POST " + oddPath + "/batch", `{"records":[]}`, "", quipu.CodeRecord},
	{"POST " + oddPath + "/batch", `{"records":[` + strings.Repeat("{},", quipu.BatchMax) + `{}]}`, "", quipu.CodeRecord},
	{"POST " + oddPath + "/batch", `[{}]`, "", quipu.CodeBadJSON},
	{"POST " + oddPath + "/batch", `{"records":[{}]}{}`, "", quipu.CodeBadJSON},
	{"POST " + oddPath + "/batch", `{"records":[{"data":"?"}]}`, "", quipu.CodeBadJSON},
	{"POST " + oddPath + "/batch", `{"records":[{"text":"a","json":1}]}`, "", quipu.CodeBadJSON},
	{"POST " + oddPath + "/batch", `{"records":[{"producer":{"id":1,"epoch":1,"n":1}}]}`, "", quipu.CodeBadJSON},
	{"POST " + oddPath + "/batch", `{"records":[{}],"producer":{"id":1}}`, "", quipu.CodeUsage},
	{"POST " + oddPath + "/batch", `{"records":[{"text":"a"},{"tags":[""]}]}`, "", quipu.CodeRecord},
	{"POST " + oddPath + "/batch", `{"records":[{"text":"` + strings.Repeat("x", batchBodyMax) + `"}]}`, "", quipu.CodeBodySize},
	{"GET " + oddPath + "/records/zz", "", "", quipu.CodeUsage},
	{"GET " + oddPath + "/records/1", "", "", quipu.CodeNotFound},
	{"GET " + oddPath + "/records/ff", "", "", quipu.CodeNotFound},
	{"GET " + oddPath + "/records/9?as=xml", "", "", quipu.CodeUsage},
	{"GET " + oddPath + "/records/1/data", "", "", quipu.CodeNotFound},
	{"GET /books/none/records/1/data", "", "", quipu.CodeNoBook},
	{"GET " + oddPath + "/records/1/aux", "", "", quipu.CodeNotFound},
	{"PUT " + oddPath + "/records/zz/aux", "x", "", quipu.CodeUsage},
	{"PUT /books/quipu%2Fdefault/records/1/aux", "x", "", quipu.CodeBookLocked},
	{"PUT " + oddPath + "/records/9/aux", strings.Repeat("x", adminBytesMax+1), "", quipu.CodeBodySize},
	{"GET x/node", "", "", quipu.CodeNoRoute},
	{"GET /node/", "", "", quipu.CodeNoRoute},
	{"GET //node", "", "", quipu.CodeNoRoute},
	{"GET /calls/", "", "", quipu.CodeNoRoute},
}

func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	h := furnished(t)
	before := contents(t, h)
	for _, c := range badRequests {
		t.Run(clip(c.request), func(t *testing.T) {
			h.t = t
			method, path, _ := strings.Cut(c.request, " ")
			refused(t, h.ask(method, adminPrefix+path, c.body, c.header), c.code)
		})
	}
	h.t = t
	if after := contents(t, h); after != before {
		t.Errorf("something changed:\n%s\n%s", before, after)
	}
}

func contents(t *testing.T, h *house) string {
	t.Helper()
	var all []string
	for _, path := range []string{"/functions", "/state/shared", "/state/statestore?as=hello", "/books", oddPath + "/records", oddPath + "/records/9/aux", "/topics", "/topics/" + url.PathEscape(oddTopic) + "/events"} {
		all = append(all, text(t, h.ask("GET", adminPrefix+path, "")))
	}
	return strings.Join(all, "")
}

func TestHeadComesWithGetWhereTheReplyHasAnEnd(t *testing.T) {
	h := furnished(t)
	for path, want := range map[string]int{"/node": 200, "/state/shared/a/b//c": 200, "/books/quipu%2Fdefault/tail": 405, "/functions/hello/logs?follow": 405} {
		if r := h.ask("HEAD", adminPrefix+path, ""); r.StatusCode != want {
			t.Errorf("HEAD %s: %d, want %d", path, r.StatusCode, want)
		}
	}
}

func TestStateIsReadAsItWasWritten(t *testing.T) {
	h := furnished(t)
	path := adminPrefix + "/state/shared/dir/..//k%2Fé"
	if r := h.ask("PUT", path+"?ttl=60", "\x00\xff", ""); r.StatusCode != 204 {
		t.Fatalf("put: %d %s", r.StatusCode, text(t, r))
	}
	r := h.ask("GET", path, "")
	if got := text(t, r); got != "\x00\xff" || r.Header.Get(sdk.HeaderExpires) != "2026-01-02T03:05:05Z" {
		t.Errorf("got %q, expires %q", got, r.Header.Get(sdk.HeaderExpires))
	}
	if r := h.ask("PUT", path, "new", "If-Match: "+r.Header.Get("ETag")); r.StatusCode != 204 {
		t.Errorf("put with the etag just read: %d %s", r.StatusCode, text(t, r))
	}
	list := text(t, h.ask("GET", adminPrefix+"/state/shared?prefix=dir/", ""))
	if !strings.Contains(list, `"key":"dir/..//k/é"`) {
		t.Errorf("the key is listed as %s", list)
	}
}

func TestABookIsReadPageByPage(t *testing.T) {
	h := furnished(t)
	var got []string
	for next := "0"; next != ""; {
		var p sdk.Page[sdk.Record]
		h.must(json.Unmarshal([]byte(text(t, h.ask("GET", adminPrefix+"/books/quipu%2Fdefault/records?tag=even&limit=2&from="+next, ""))), &p))
		for _, r := range p.Items {
			got = append(got, string(r.Data))
		}
		next = p.Next
	}
	if want := []string{"record 0", "record 2", "record 4"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
}

func TestATailGoesOnWhereItWasCut(t *testing.T) {
	h := furnished(t)
	last := h.ns.Book.Put("quipu/default", "seen")
	r := h.ask("GET", adminPrefix+"/books/quipu%2Fdefault/tail?from=0", "", "Last-Event-ID: "+last.String())
	seq := h.ns.Book.Put("quipu/default", "fresh")
	lines := bufio.NewScanner(r.Body)
	if !lines.Scan() || lines.Text() != "id: "+seq.String() {
		t.Errorf("got %q, want the record after the last event", lines.Text())
	}
}

func TestVerifyEndsWithItsVerdict(t *testing.T) {
	h := furnished(t)
	h.ns.OnVerify = &quipu.Error{Code: quipu.CodeCorrupt, Text: "segment 3 is wrong at 4096"}
	got := strings.Split(strings.TrimSpace(text(t, h.ask("POST", adminPrefix+"/books/quipu%2Fdefault/verify", ""))), "\n")
	if last := got[len(got)-1]; len(got) != 3 || !strings.Contains(last, "Q0206") || !strings.Contains(last, "4096") || strings.Contains(last, `"ok"`) {
		t.Errorf("got %q", got)
	}
}

// docTree is the OpenAPI document, with as much of JSON schema as it uses.
type docTree object

func document(t *testing.T) docTree {
	t.Helper()
	var doc docTree
	if err := json.Unmarshal(open(t, "").gw.openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func (d docTree) operation(op adminRoute) object {
	item := d["paths"].(object)[adminPrefix+strings.ReplaceAll(op.path, "...}", "}")].(object)
	return item[strings.ToLower(op.method)].(object)
}

func (d docTree) bodySchema(op adminRoute) object {
	return d.operation(op)["requestBody"].(object)["content"].(object)[op.body].(object)["schema"].(object)
}

func (d docTree) replySchema(t *testing.T, op adminRoute) object {
	t.Helper()
	reply := d.operation(op)["responses"].(object)[fmt.Sprint(op.status)].(object)
	return reply["content"].(object)[op.reply].(object)["schema"].(object)
}

func (d docTree) check(t *testing.T, at string, schema object, v any) {
	t.Helper()
	if ref, ok := schema["$ref"].(string); ok {
		schema = d["components"].(object)["schemas"].(object)[strings.TrimPrefix(ref, "#/components/schemas/")].(object)
	}
	if len(schema) == 0 {
		return // any value
	}
	switch want := schema["type"]; v := v.(type) {
	case object:
		d.checkObject(t, at, schema, v)
	case []any:
		for i, e := range v {
			d.check(t, fmt.Sprintf("%s[%d]", at, i), schema["items"].(object), e)
		}
	case string:
		pattern, _ := schema["pattern"].(string)
		if want != "string" || !regexp.MustCompile(pattern).MatchString(v) {
			t.Errorf("%s: %q is no %v %s", at, v, want, pattern)
		}
	case float64:
		if want != "integer" {
			t.Errorf("%s: %v is no %v", at, v, want)
		}
	case bool:
		if want != "boolean" {
			t.Errorf("%s: %v is no %v", at, v, want)
		}
	default:
		t.Errorf("%s: %v is no %v", at, v, want)
	}
}

func (d docTree) checkObject(t *testing.T, at string, schema, v object) {
	t.Helper()
	properties, _ := schema["properties"].(object)
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			t.Errorf("%s lacks %s", at, name)
		}
	}
	for name, e := range v {
		if p, ok := properties[name].(object); ok {
			d.check(t, at+"."+name, p, e)
		} else if more, ok := schema["additionalProperties"].(object); ok {
			d.check(t, at+"."+name, more, e)
		} else {
			t.Errorf("%s has %s, which is not in its schema", at, name)
		}
	}
}
