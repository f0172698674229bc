package dapr

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/test/fake"
)

const pub = "POST /v1.0/publish/pubsub/"

// published are the events of a topic.
func (h *house) published(topic string) []quipu.Event {
	h.t.Helper()
	var all []quipu.Event
	for e, err := range h.ns.Events(h.t.Context(), topic, quipu.Position{Earliest: true}, false) {
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// newest is the last event of a topic, and its envelope.
func (h *house) newest(topic string) (quipu.Event, map[string]any) {
	h.t.Helper()
	all := h.published(topic)
	if len(all) == 0 {
		h.t.Fatalf("nothing was published to %q", topic)
	}
	last := all[len(all)-1]
	var e map[string]any
	if err := json.Unmarshal(last.Data, &e); err != nil && last.ContentType == quipu.MediaCloudEvent {
		h.t.Fatalf("%v: %s", err, last.Data)
	}
	return last, e
}

func (h *house) wantFields(topic string, want map[string]any) {
	h.t.Helper()
	last, e := h.newest(topic)
	for name, value := range want {
		if fmt.Sprint(e[name]) != fmt.Sprint(value) {
			h.t.Errorf("%s is %v, want %v, in %s", name, e[name], value, last.Data)
		}
	}
}

func TestWhatIsPublishedComesInAnEnvelope(t *testing.T) {
	h := open(t)
	h.want(204, "", pub+"orders", `{"n":1}`, "Content-Type: application/json", "dapr-caller-app-id: shop",
		"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate: a=b")
	last, e := h.newest("orders")
	if last.ContentType != quipu.MediaCloudEvent || last.ID == "" || e["id"] != last.ID {
		t.Errorf("%s %s: %s", last.ContentType, last.ID, last.Data)
	}
	h.wantFields("orders", map[string]any{"specversion": "1.0", "time": "2026-01-02T03:04:05Z", "source": "shop", "type": "com.dapr.event.sent", "topic": "orders", "pubsubname": "pubsub",
		"datacontenttype": "application/json", "data": map[string]any{"n": 1}, "tracestate": "a=b",
		"traceid": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
	h.want(204, "", "PUT /v1.0/publish/pubsub/orders", "text")
	h.wantFields("orders", map[string]any{"data": "text", "datacontenttype": "text/plain", "source": "default"})
	h.want(204, "", pub+"orders", "\x00\x01", "Content-Type: application/octet-stream")
	h.wantFields("orders", map[string]any{"data_base64": "AAE="})
	h.want(204, "", pub+"orders", "")
	h.wantFields("orders", map[string]any{"data": ""})
}

func TestTopicsMayHaveSlashesAndAnyLetters(t *testing.T) {
	h := open(t)
	for path, topic := range map[string]string{"a/b": "a/b", "a%2Fb%20c": "a/b c", "caf%C3%A9": "café", "bulk": "bulk", "trailing/": "trailing", "a//b": "a//b", "x%3Fy": "x?y"} {
		h.want(204, "", pub+path, "1")
		h.wantFields(topic, map[string]any{"topic": topic})
	}
}

func TestMetadataChoosesAttributes(t *testing.T) {
	h := open(t)
	h.want(204, "", pub+"t?metadata.cloudevent.id=7&metadata.cloudevent.source=me&metadata.cloudevent.TYPE=x.y&metadata.cloudevent.subject=who"+
		"&metadata.cloudevent.traceid=tid&metadata.cloudevent.tracestate=st&metadata.cloudevent.topic=no&metadata.cloudevent.data=no", "x")
	h.wantFields("t", map[string]any{"id": "7", "source": "me", "type": "x.y", "subject": "who", "traceid": "tid", "traceparent": "tid", "tracestate": "st", "topic": "t", "data": "x"})
	if last, _ := h.newest("t"); last.ID != "7" {
		t.Errorf("the event's id is %q", last.ID)
	}
}

func TestTimeToLiveAndDelayOfEvents(t *testing.T) {
	h := open(t)
	for query, want := range map[string]time.Duration{"metadata.ttlInSeconds=60": time.Minute, "metadata.TTLInSeconds=2m": 2 * time.Minute, "metadata.ttl=30": 30 * time.Second} {
		h.want(204, "", pub+"t?"+query, "x")
		last, e := h.newest("t")
		if got := last.Expires.Sub(last.Time); got != want || e["expiration"] != fake.Epoch.Add(want).Format(time.RFC3339) {
			t.Errorf("%s lives %v, want %v: %s", query, got, want, last.Data)
		}
	}
	before := len(h.published("t"))
	h.want(204, "", pub+"t?metadata.delaySeconds=60&metadata.cloudevent.id=late", "x")
	h.want(204, "", pub+"t?metadata.delay=1h30m&metadata.cloudevent.id=later", "x")
	if got := len(h.published("t")); got != before {
		t.Error("a delayed event was published at once")
	}
	for _, id := range []string{"late", "later"} {
		if err := h.ns.Cancel(t.Context(), "t", id); err != nil {
			t.Errorf("%s is not waiting: %v", id, err)
		}
	}
	for _, query := range []string{"metadata.ttlInSeconds=soon", "metadata.ttlInSeconds=0", "metadata.ttlInSeconds=-5", "metadata.delaySeconds=-1s", "metadata.rawPayload=maybe"} {
		h.want(400, `"errorCode":"ERR_PUBSUB_REQUEST_METADATA","message":"failed deserializing metadata`, pub+"bad?"+query, "x")
	}
	if len(h.published("bad")) != 0 {
		t.Error("something was published")
	}
}

func TestARawPayloadStaysAsItIs(t *testing.T) {
	h := open(t)
	h.want(204, "", pub+"t?metadata.rawPayload=true", `{"a": 1}`, "Content-Type: application/json")
	if last, _ := h.newest("t"); string(last.Data) != `{"a": 1}` || last.ContentType != "application/json" || last.ID == "" {
		t.Errorf("%+v", last)
	}
	own := `{"specversion":"1.0", "id":"1","source":"s","type":"t"}`
	h.want(204, "", pub+"t?metadata.rawPayload=true", own, "Content-Type: application/cloudevents+json")
	if last, _ := h.newest("t"); string(last.Data) != own || last.ContentType != quipu.MediaCloudEvent || last.ID != "1" {
		t.Errorf("%+v", last)
	}
}

func TestACloudEventIsCompleted(t *testing.T) {
	h := open(t)
	h.want(204, "", pub+"t?metadata.ttlInSeconds=5", `{"specversion":"1.0","id":"1","source":"s","type":"x","data":{"n":1},"topic":"lie"}`, "Content-Type: application/cloudevents+json; charset=utf-8", "traceparent: tp")
	h.wantFields("t", map[string]any{"id": "1", "source": "s", "type": "x", "topic": "t", "pubsubname": "pubsub", "traceid": "tp"})
	if _, e := h.newest("t"); e["expiration"] == nil {
		t.Error("it does not expire")
	}
	h.want(204, "", pub+"t", `{"data":1}`, "Content-Type: application/cloudevents+json", "dapr-caller-app-id: shop")
	h.wantFields("t", map[string]any{"source": "shop", "type": "com.dapr.event.sent", "specversion": "1.0"})
	for _, bad := range []string{`not json`, `[]`, `{"specversion":"0.3","id":"1","source":"s","type":"x"}`, `{"id":5}`} {
		for _, raw := range []string{"", "?metadata.rawPayload=true"} {
			h.want(400, `"errorCode":"ERR_PUBSUB_CLOUD_EVENTS_SER","message":"cannot create cloudevent: `, pub+"bad"+raw, bad, "Content-Type: application/cloudevents+json")
		}
	}
	if len(h.published("bad")) != 0 {
		t.Error("something was published")
	}
}

func TestAPublishThatCannotBeIsToldInDaprsWords(t *testing.T) {
	h := open(t)
	h.opt.BodyBytesMax = 4 << 20
	_, body, _ := h.ask("POST /v1.0/publish/other/t?metadata.a=b", "x")
	if want := `{"errorCode":"ERR_PUBSUB_NOT_FOUND","message":"pubsub other is not found","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":{"a":"b"},"reason":"DAPR_PUBSUB_NOT_FOUND"}]}`; body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	_, body, _ = h.ask("POST /v1.0/publish/pubsub/", "x")
	if want := `{"errorCode":"ERR_TOPIC_NAME_EMPTY","message":"topic is empty in pubsub pubsub","details":[{"@type":"type.googleapis.com/google.rpc.ResourceInfo","description":"topic is empty in pubsub pubsub","owner":"","resource_name":"pubsub","resource_type":"pubsub"},{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":{},"reason":"DAPR_PUBSUB_TOPIC_NAME_EMPTY"}]}`; body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	for _, c := range []struct {
		status              int
		code, request, body string
	}{
		{404, "ERR_PUBSUB_NOT_FOUND", "POST /v1.0/publish/other/t", "x"},
		{404, "ERR_TOPIC_NAME_EMPTY", "POST /v1.0/publish/pubsub", "x"},
		{404, "ERR_TOPIC_NAME_EMPTY", "POST /v1.0/publish/pubsub//", "x"},
		{404, "ERR_PUBSUB_EMPTY", "POST /v1.0/publish//t", "x"},
		{404, "ERR_PUBSUB_NOT_FOUND", "POST /v1.0/publish/bulk/other/t", "[]"},
		{404, "ERR_TOPIC_NAME_EMPTY", "POST /v1.0/publish/bulk/pubsub", "[]"},
		{405, "", "GET /v1.0/publish/pubsub/t", ""},
		{405, "", "DELETE /v1.0/publish/bulk/pubsub/t", ""},
		{400, "Q0701", pub + "$platform", "x"},
		{400, "Q0701", pub + strings.Repeat("x", quipu.TopicNameMax+1), "x"},
		{413, "Q0702", pub + "t", strings.Repeat("x", quipu.EventBytesMax+1)},
		{413, "Q0702", pub + "t", strings.Repeat("x", quipu.EventBytesMax)}, // its envelope counts too
		{400, "DAPR_PUBSUB_UNMARSHAL_EVENTS", "POST /v1.0/publish/bulk/pubsub/t", `{"entryId":"1"}`},
		{400, "DAPR_PUBSUB_MARSHAL_EVENTS", "POST /v1.0/publish/bulk/pubsub/t", `[{"event":"x","contentType":"text/plain"}]`},
		{400, "entryId is duplicated", "POST /v1.0/publish/bulk/pubsub/t", `[{"entryId":"1","event":"x","contentType":"text/plain"},{"entryId":"1","event":"x","contentType":"text/plain"}]`},
		{400, "mismatch between contentType and event", "POST /v1.0/publish/bulk/pubsub/t", `[{"entryId":"1","event":{},"contentType":"text/plain"}]`},
		{400, "mismatch between contentType and event", "POST /v1.0/publish/bulk/pubsub/t", `[{"entryId":"1","event":"x"}]`},
		{400, "unable to decode base64", "POST /v1.0/publish/bulk/pubsub/t", `[{"entryId":"1","event":"?","contentType":"application/octet-stream"}]`},
		{400, "Q0708", "POST /v1.0/publish/bulk/pubsub/t", tooMany()},
	} {
		h.want(c.status, c.code, c.request, c.body)
	}
	if len(h.published("t")) != 0 {
		t.Error("something was published")
	}
	h.opt.BodyBytesMax = 100
	h.want(413, "ERR_BODY_READ", "POST /v1.0/publish/bulk/pubsub/t", `[`+strings.Repeat(" ", 200)+`]`)
	h.opt.Session = func(*http.Request) (quipu.Session, error) {
		return nil, &quipu.Error{Code: quipu.CodeNoCall, Text: "no call is open"}
	}
	h.want(409, "Q0507", pub+"t", "x")
}

func tooMany() string {
	all := make([]string, quipu.PublishMax+1)
	for i := range all {
		all[i] = fmt.Sprintf(`{"entryId":"%d","event":"x","contentType":"text/plain"}`, i)
	}
	return "[" + strings.Join(all, ",") + "]"
}

func TestABulkIsPublishedTogetherOrNotAtAll(t *testing.T) {
	h := open(t)
	bulk := `[{"entryId":"a","event":{"n":12345678901234567890},"contentType":"application/json","metadata":{"ttlInSeconds":"5"}},
		{"entryId":"b","event":"text","contentType":"text/plain"},{"entryId":"c","event":"AAE=","contentType":"application/octet-stream"},
		{"entryId":"d","event":{"specversion":"1.0","id":"4","source":"s","type":"t"},"contentType":"application/cloudevents+json"}]`
	for _, path := range []string{"/v1.0/publish/bulk/pubsub/many?metadata.ttlInSeconds=60", "/v1.0-alpha1/publish/bulk/pubsub/alpha"} {
		h.want(204, "", "POST "+path, bulk)
	}
	for _, topic := range []string{"many", "alpha"} {
		all := h.published(topic)
		if len(all) != 4 || all[0].Seq != all[3].Seq || all[3].ID != "4" || !strings.Contains(string(all[0].Data), `"data":{"n":12345678901234567890}`) || !strings.Contains(string(all[2].Data), `"data_base64":"AAE="`) {
			t.Fatalf("%s: %d events: %+v", topic, len(all), all)
		}
		if got := all[0].Expires.Sub(all[0].Time); got != 5*time.Second {
			t.Errorf("an entry's own ttl: %v", got)
		}
	}
	if e := h.published("many")[1]; e.Expires.Sub(e.Time) != time.Minute {
		t.Errorf("the request's ttl: %v", e.Expires)
	}
	h.want(204, "", "POST /v1.0/publish/bulk/pubsub/none", `[]`)
	h.opt.BodyBytesMax = 4 << 20
	h.want(413, `{"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE","failedEntries":[{"entryId":"a","error":"error when publishing to topic half in pubsub pubsub: `,
		"POST /v1.0/publish/bulk/pubsub/half", `[{"entryId":"a","event":"x","contentType":"text/plain"},{"entryId":"b","event":"`+strings.Repeat("x", quipu.EventBytesMax)+`","contentType":"text/plain"}]`)
	if len(h.published("half")) != 0 {
		t.Error("half a bulk was published")
	}
}

func TestSecretsAreReadAndNeverToldInErrors(t *testing.T) {
	h := open(t)
	h.want(500, `{"errorCode":"ERR_SECRET_STORES_NOT_CONFIGURED","message":"secret store is not configured"}`, "GET /v1.0/secrets/secretstore/A", "")
	h.secrets(func() (map[string]string, error) {
		return map[string]string{"A": "hunter2", "B/C": "2"}, nil
	})
	h.want(200, `{"A":"hunter2"}`, "GET /v1.0/secrets/secretstore/A", "")
	h.want(200, `{"B/C":"2"}`, "GET /v1.0/secrets/secretstore/B%2FC?metadata.version_id=1", "")
	h.want(200, `{"A":{"A":"hunter2"},"B/C":{"B/C":"2"}}`, "GET /v1.0/secrets/secretstore/bulk", "")
	h.want(204, "", "GET /v1.0/secrets/secretstore/missing", "")
	h.want(401, `{"errorCode":"ERR_SECRET_STORE_NOT_FOUND","message":"failed finding secret store with key vault"}`, "GET /v1.0/secrets/vault/A", "")
	h.want(405, "", "POST /v1.0/secrets/secretstore/A", "")
	h.want(404, "ERR_DIRECT_INVOKE", "GET /v1.0/secrets/secretstore", "")
	h.secrets(func() (map[string]string, error) { return nil, errors.New("hunter2 cannot be read") })
	if status, body, _ := h.ask("GET /v1.0/secrets/secretstore/A", ""); status != 500 || strings.Contains(body, "hunter2") || !strings.Contains(body, "ERR_SECRET_GET") {
		t.Errorf("%d %s", status, body)
	}
}

func TestMetadataTellsComponentsAndSubscriptions(t *testing.T) {
	h := open(t)
	h.secrets(func() (map[string]string, error) { return nil, nil })
	h.opt.AppID = func(*http.Request) string { return "shop" }
	h.opt.Subscriptions = func(*http.Request) []quipu.TopicTrigger {
		return []quipu.TopicTrigger{{Name: "orders", Path: "/all", Routes: []quipu.Route{{Match: "event.type == 'x'", Path: "/x"}}, DeadLetter: "dead"}, {Name: "raw", Path: "/", Raw: true}}
	}
	_, body, _ := h.ask("GET /v1.0/metadata", "")
	var m metadataReply
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range m.Components {
		names = append(names, c.Name+" "+c.Type)
	}
	if !slices.Equal(names, []string{"pubsub pubsub.quipu", "secretstore secretstores.quipu", "shared state.quipu", "statestore state.quipu"}) {
		t.Errorf("components %q", names)
	}
	if m.ID != "shop" || len(m.Subscriptions) != 2 || fmt.Sprint(m.Subscriptions[0].Rules) != "[{event.type == 'x' /x} { /all}]" ||
		m.Subscriptions[0].DeadLetter != "dead" || m.Subscriptions[1].Metadata["rawPayload"] != "true" {
		t.Errorf("%+v", m)
	}
}
