package dapr

import (
	"encoding/json"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc/codes"
)

func TestTopicsOfAComponentHaveItsPrefixOnTheLogAndNotInTheEnvelope(t *testing.T) {
	h := open(t)
	h.streaming()
	h.with(loaded("orders", "pubsub.redis", component.PubSub{Topics: "orders/", Consumer: "group"}))
	h.want(204, "", "POST /v1.0/publish/orders/new", `{"n":1}`, "Content-Type: application/json")
	h.wantFields("orders/new", map[string]any{"topic": "new", "pubsubname": "orders"})
	h.want(204, "", "POST /v1.0/publish/bulk/orders/new", `[{"entryId":"1","event":"x","contentType":"text/plain"}]`)
	if n := len(h.published("new")); n != 0 {
		t.Errorf("%d events are in the topic of another component", n)
	}
	c := h.grpc()
	s, err := c.SubscribeTopicEventsAlpha1(t.Context())
	if err == nil {
		err = s.Send(begin("orders", "new", map[string]string{"rawPayload": "true"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	if first, err := s.Recv(); err != nil || first.GetInitialResponse() == nil {
		t.Fatalf("%v %v", first, err)
	}
	h.want(204, "", "POST /v1.0/publish/orders/new?metadata.rawPayload=true", "raw")
	e := c.next(s)
	if e.GetTopic() != "new" || e.GetPubsubName() != "orders" || e.GetExtensions().AsMap()["topic"] != "new" || e.GetExtensions().AsMap()["pubsubname"] != "orders" || string(e.GetData()) != "raw" {
		t.Errorf("%v", e)
	}
	info, err := h.ns.Topic(t.Context(), "orders/new")
	if err != nil || len(info.Subscriptions) != 1 || info.Subscriptions[0].Name != "group" {
		t.Errorf("%+v %v", info, err)
	}
}

func TestScopesAreThoseOfDapr(t *testing.T) {
	for _, c := range []struct {
		scopes component.Scopes
		allow  string // topics of a, b and c that the app "default" may publish to
	}{
		{component.Scopes{}, "abc"},
		{component.Scopes{Allowed: []string{"a", "b"}}, "ab"},
		{component.Scopes{Protected: []string{"a"}}, "bc"},
		{component.Scopes{Publish: map[string][]string{"default": {"a"}}}, "a"},
		{component.Scopes{Publish: map[string][]string{"other": {"a"}}}, "abc"},
		{component.Scopes{Publish: map[string][]string{"default": {}}}, ""},
		{component.Scopes{Publish: map[string][]string{"default": {"a", "c"}}, Allowed: []string{"a", "b"}}, "a"},
		{component.Scopes{Publish: map[string][]string{"default": {"a"}}, Protected: []string{"a", "b"}}, "a"},
		{component.Scopes{Subscribe: map[string][]string{"default": {"a"}}}, "abc"},
	} {
		h := open(t)
		h.with(loaded("ps", "pubsub.redis", component.PubSub{Topics: "ps/", Scopes: c.scopes}))
		for _, topic := range []string{"a", "b", "c"} {
			if strings.Contains(c.allow, topic) {
				h.want(204, "", "POST /v1.0/publish/ps/"+topic, "x")
				continue
			}
			h.want(403, "ERR_PUBSUB_FORBIDDEN", "POST /v1.0/publish/ps/"+topic, "x")
			h.want(403, "topic "+topic+" is not allowed for app id default", "POST /v1.0/publish/bulk/ps/"+topic, "[]")
		}
	}
}

func TestScopesHoldOverGRPCToo(t *testing.T) {
	h := open(t)
	h.streaming()
	h.with(loaded("ps", "pubsub.redis", component.PubSub{Scopes: component.Scopes{Protected: []string{"a"}}}))
	c := h.grpc()
	_, err := c.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "ps", Topic: "a"})
	c.fails(err, codes.PermissionDenied, "DAPR_PUBSUB_FORBIDDEN", "topic a is not allowed for app id default")
	_, err = c.BulkPublishEvent(t.Context(), &rtv1.BulkPublishRequest{PubsubName: "ps", Topic: "a"})
	c.fails(err, codes.PermissionDenied, "DAPR_PUBSUB_FORBIDDEN", "topic a is not allowed for app id default")
	s, err := c.SubscribeTopicEventsAlpha1(t.Context())
	if err == nil {
		err = s.Send(begin("ps", "a", nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	c.fails(err, codes.PermissionDenied, "", "subscription to topic 'a' on pubsub 'ps' is not allowed")
}

func TestTopicsElsewhereArePublishedToAndStreamed(t *testing.T) {
	h, away := open(t), newElsewhere()
	away.refuse = "bad"
	h.with(loaded("mqtt", "pubsub.other", component.PubSub{Foreign: away}))
	c := h.grpc()
	s, err := c.SubscribeTopicEventsAlpha1(t.Context())
	if err == nil {
		err = s.Send(begin("mqtt", "t", nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	if first, err := s.Recv(); err != nil || first.GetInitialResponse() == nil {
		t.Fatalf("%v %v", first, err)
	}
	h.want(204, "", "POST /v1.0/publish/mqtt/t", `{"n":1}`, "Content-Type: application/json")
	for _, outcome := range []rtv1.TopicEventResponse_TopicEventResponseStatus{rtv1.TopicEventResponse_RETRY, rtv1.TopicEventResponse_SUCCESS} {
		e := c.next(s)
		if string(e.GetData()) != `{"n":1}` || e.GetTopic() != "t" || e.GetPubsubName() != "mqtt" || e.GetSource() != "default" {
			t.Errorf("%v", e)
		}
		c.settle(s, e.GetId(), outcome)
	}
	h.want(500, `"failedEntries":[{"entryId":"2","error":"error when publishing to topic t in pubsub mqtt: internal error`, "POST /v1.0/publish/bulk/mqtt/t",
		`[{"entryId":"1","event":"good","contentType":"text/plain"},{"entryId":"2","event":"bad","contentType":"text/plain"}]`)
	if e := c.next(s); string(e.GetData()) != "good" {
		t.Errorf("%v", e)
	}
	status, body, _ := h.ask("POST /v1.0/publish/mqtt/bad", "x")
	if status != 500 || strings.Contains(body, "hunter2") {
		t.Errorf("%d %s", status, body)
	}
	got, err := c.BulkPublishEvent(t.Context(), &rtv1.BulkPublishRequest{PubsubName: "mqtt", Topic: "u", Entries: []*rtv1.BulkPublishRequestEntry{{EntryId: "7", Event: []byte("bad"), ContentType: "text/plain"}}})
	if err != nil || len(got.GetFailedEntries()) != 1 || got.GetFailedEntries()[0].GetEntryId() != "7" {
		t.Errorf("%v %v", got, err)
	}
}

func (h *house) outbox() {
	h.with(loaded("shop", "state.redis", component.State{Store: "state:shop", Outbox: &component.Outbox{PubSub: "pubsub", Topic: "changes"}}))
}

func TestWhatATransactionWritesIsPublished(t *testing.T) {
	h := open(t)
	h.outbox()
	const to = "POST /v1.0/state/shop/transaction"
	h.want(204, "", to, `{"operations":[{"operation":"upsert","request":{"key":"a","value":{"n":1}}},{"operation":"delete","request":{"key":"b"}}]}`)
	h.wantFields("changes", map[string]any{"data": map[string]any{"n": 1}, "source": "default", "type": "com.dapr.event.sent", "topic": "changes", "pubsubname": "pubsub", "datacontenttype": "application/json"})
	if n := len(h.published("changes")); n != 1 {
		t.Errorf("%d events: a delete has none", n)
	}
	h.want(204, "", to, `{"operations":[{"operation":"upsert","request":{"key":"a","value":"text","metadata":{"cloudevent.type":"changed","cloudevent.id":"7","mine":"own","ttlInSeconds":"60","data":"no"}}}]}`)
	h.wantFields("changes", map[string]any{"data": "text", "type": "changed", "id": "7", "mine": "own", "datacontenttype": "text/plain", "ttlInSeconds": nil})
	h.want(204, "", to, `{"operations":[{"operation":"upsert","request":{"key":"a","value":2}},
		{"operation":"upsert","request":{"key":"a","value":{"shown":true},"metadata":{"outbox.projection":"true","contentType":"application/json"}}}]}`)
	h.wantFields("changes", map[string]any{"data": map[string]any{"shown": true}})
	h.want(200, "2", "GET /v1.0/state/shop/a", "")
	if n := len(h.published("changes")); n != 3 {
		t.Errorf("%d events", n)
	}
	h.want(204, "", "POST /v1.0/state/shop", `[{"key":"c","value":1}]`)
	h.want(500, "ERR_STATE_TRANSACTION", to, `{"operations":[{"operation":"upsert","request":{"key":"c","value":9,"etag":"00000000000000ff"}}]}`)
	if n := len(h.published("changes")); n != 3 {
		t.Errorf("%d events: neither a plain save nor a failed transaction has one", n)
	}
}

func TestATransactionThatCannotBePublishedFails(t *testing.T) {
	h := open(t)
	const to, body = "POST /v1.0/state/shop/transaction", `{"operations":[{"operation":"upsert","request":{"key":"a","value":1}}]}`
	box := &component.Outbox{PubSub: "nope", Topic: "t"}
	h.with(loaded("shop", "state.redis", component.State{Store: "state:shop", Outbox: box}))
	h.want(500, "error while publishing outbox message: there is no pubsub nope", to, body)
	box.PubSub = "away"
	h.with(loaded("shop", "state.redis", component.State{Store: "state:shop", Outbox: box}), loaded("away", "pubsub.other", component.PubSub{Foreign: newElsewhere()}))
	h.want(500, "ERR_PUBLISH_OUTBOX", to, body)
	h.outbox()
	h.opt.BodyBytesMax = 2 << 20
	big, err := json.Marshal(strings.Repeat("x", quipu.EventBytesMax))
	if err != nil {
		t.Fatal(err)
	}
	h.want(413, "Q0702", to, `{"operations":[{"operation":"upsert","request":{"key":"b","value":`+string(big)+`}}]}`)
	c := h.grpc()
	_, err = c.ExecuteStateTransaction(t.Context(), &rtv1.ExecuteStateTransactionRequest{StoreName: "shop", Operations: []*rtv1.TransactionalStateOperation{{OperationType: "upsert", Request: item("b", string(big))}}})
	c.fails(err, codes.ResourceExhausted, "DAPR_PUBSUB_OUTBOX", "Q0702")
}
