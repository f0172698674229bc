package server

import (
	"slices"
	"strings"
	"testing"

	"github.com/quipu-run/quipu/sdk"
)

const brokers = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: old}
spec: {type: pubsub.redis, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: new}
spec: {type: pubsub.in-memory, version: v1}
`

// Applications start side by side. With Redis a subscriber gets what was published before it was there; with others it does not.
func TestASubscriberThatIsLateGetsWhatItWouldFromTheServerOfItsComponent(t *testing.T) {
	n := start(t)
	files := map[string]string{"brokers.yaml": brokers}
	publisher, _ := n.attach("publisher", sdk.Attachment{Port: newRecorder(t, "").port, Protocol: "http", Resources: files})
	publish := func(data string) {
		for _, pubsub := range []string{"old", "new"} {
			ask("POST", "http://127.0.0.1:"+publisher.DaprHTTP+"/v1.0/publish/"+pubsub+"/orders?metadata.rawPayload=true", data, "dapr-api-token", publisher.Token).want(t, 204, "")
		}
	}
	publish("early")
	app := newRecorder(t, `[{"pubsubname":"old","topic":"orders","route":"/old","metadata":{"rawPayload":"true"}},
		{"pubsubname":"new","topic":"orders","route":"/new","metadata":{"rawPayload":"true"}}]`, "POST /old", "POST /new")
	n.attach("subscriber", sdk.Attachment{Port: app.port, Protocol: "http", Resources: files})
	publish("late")
	n.settled("old/orders")
	n.settled("new/orders")
	for path, want := range map[string][]string{"/old": {"ZWFybHk=", "bGF0ZQ=="}, "/new": {"bGF0ZQ=="}} { // early and late
		got := app.bodies("POST " + path)
		if len(got) != len(want) {
			t.Fatalf("%s got %d events, want %d", path, len(got), len(want))
		}
		for _, data := range want {
			if !slices.ContainsFunc(got, func(event string) bool { return strings.Contains(event, data) }) {
				t.Errorf("%s got %q, without %q", path, got, data)
			}
		}
	}
}
