package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/gateway"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/test/fake"
)

const topic = "orders/eu é?#"

func TestWhatIsPublishedThroughTheClientIsReadThroughIt(t *testing.T) {
	c, _ := open(t, "secret")
	id, err := c.Publish(t.Context(), topic, sdk.Publication{Data: []byte(`{"n":1}`), ContentType: "application/json", Type: "sold",
		Extensions: map[string]string{"tenant": "a=b&c"}, TTL: 90 * time.Second})
	must(t, err)
	ids, err := c.PublishBatch(t.Context(), topic, []json.RawMessage{[]byte(`{"specversion":"1.0","id":"x","source":"s","type":"t"}`)}, sdk.Publication{})
	must(t, err)
	_, err = c.Publish(t.Context(), topic, sdk.Publication{Data: []byte{0xff}, Raw: true, ID: "mine"})
	must(t, err)
	var got []sdk.Event
	for e, err := range c.Events(t.Context(), topic, sdk.EventsRequest{}) {
		must(t, err)
		got = append(got, e)
	}
	if len(got) != 3 || got[0].Topic != topic || got[2].Offset != 3 || got[2].MessageID != "mine" || string(got[2].DataBase64) != "\xff" {
		t.Fatalf("read %+v", got)
	}
	var e struct {
		ID, Type, Tenant string
		Data             struct{ N int }
	}
	must(t, json.Unmarshal(got[0].Event, &e))
	if e.ID != id || e.Type != "sold" || e.Tenant != "a=b&c" || e.Data.N != 1 || !slices.Equal(ids, []string{"x"}) {
		t.Errorf("read %+v; ids %q, %q", e, id, ids)
	}
}

func TestTopicsAreCaredForThroughTheClient(t *testing.T) {
	c, ns := open(t, "secret")
	_, err := c.Publish(t.Context(), topic, sdk.Publication{})
	must(t, err)
	_, err = c.Publish(t.Context(), topic, sdk.Publication{ID: "later/1", Delay: time.Hour})
	must(t, err)
	must(t, c.CancelDelayed(t.Context(), topic, "later/1"))
	ns.PutSubscription(topic, "a/b")
	must(t, c.Seek(t.Context(), topic, "a/b", "end"))
	info, err := c.Topic(t.Context(), topic)
	must(t, err)
	if info.Name != topic || info.Subscriptions[0].Name != "a/b" || info.Subscriptions[0].Lag != 0 || info.Retention.Std() != quipu.TopicKept {
		t.Errorf("described as %+v", info)
	}
	must(t, c.Unsubscribe(t.Context(), topic, "a/b"))
	ns.PutDead("dead", "{}", quipu.DeadLetter{})
	if n, err := c.Redrive(t.Context(), "dead"); n != 1 || err != nil {
		t.Errorf("redriven %d, %v", n, err)
	}
	must(t, c.RemoveTopic(t.Context(), topic))
	if all, err := c.Topics(t.Context()); len(all) != 1 || all[0].Name != "dead" || err != nil {
		t.Errorf("left %+v, %v", all, err)
	}
	for _, err := range []error{c.CancelDelayed(t.Context(), topic, "later/1"), c.RemoveTopic(t.Context(), topic), c.Unsubscribe(t.Context(), topic, "a/b")} {
		if quipu.Codes[quipu.CodeOf(err)].Status != http.StatusNotFound {
			t.Errorf("a second time: %v", err)
		}
	}
	if err := c.Seek(t.Context(), topic, "", "end"); quipu.CodeOf(err) != quipu.CodeTopicName {
		t.Errorf("no name: %v", err)
	}
}

func TestEventsAreYieldedAsTheyComeUntilTheContextEnds(t *testing.T) {
	c, _ := open(t, "secret")
	publish := func() { _, err := c.Publish(t.Context(), topic, sdk.Publication{}); must(t, err) }
	publish()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for _, err := range c.Events(ctx, topic, sdk.EventsRequest{Follow: true, From: "earliest"}) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
			break
		}
		if n++; n < 3 {
			publish()
		} else {
			cancel()
		}
	}
	if n != 3 {
		t.Errorf("%d events", n)
	}
}

// A follower must not take the end of the node for the end of the topic.
func TestAFollowerIsToldThatTheNodeStoppedAndWhereToGoOn(t *testing.T) {
	ns := fake.New()
	gw := gateway.New(gateway.Options{Node: func() sdk.Node { return sdk.Node{} }, Namespaces: func(string) (gateway.Namespace, error) { return ns, nil }})
	srv := httptest.NewServer(gw)
	defer srv.Close()
	c, err := sdk.New(sdk.Options{URL: srv.URL})
	must(t, err)
	_, err = c.Publish(t.Context(), topic, sdk.Publication{})
	must(t, err)
	last := error(nil)
	for _, err := range c.Events(t.Context(), topic, sdk.EventsRequest{Follow: true, From: "1"}) {
		last = err
		gw.Drain()
	}
	if quipu.CodeOf(last) != quipu.CodeNoNode || !strings.HasSuffix(quipu.AsError(last).Hint, "--from 2") {
		t.Errorf("ended with %v", last)
	}
	for _, err := range c.Events(t.Context(), topic, sdk.EventsRequest{Limit: 1}) {
		must(t, err)
	}
}
