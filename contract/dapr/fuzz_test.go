package dapr

import (
	"encoding/json"
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/resource"
)

// What outsiders write never brings the node down, and what is accepted can be used.

func FuzzFilesOfOthers(f *testing.F) {
	f.Add([]byte(files))
	f.Add([]byte("apiVersion: dapr.io/v1alpha1\nkind: Subscription\nspec: &a {pubsubname: pubsub, topic: *a, route: a}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := resource.ReadFiles(map[string]string{"x.yaml": string(text)})
		var all []Declared
		if err == nil {
			all, err = Declare(set.Subscriptions)
		}
		if err != nil {
			if quipu.CodeOf(err) == quipu.CodeInternal {
				t.Fatal(err)
			}
			return
		}
		for _, d := range all {
			if d.Trigger.Name == "" || d.Trigger.Batch < 1 || d.Line < 1 {
				t.Fatalf("%+v", d)
			}
			usable(t, d.Trigger)
		}
	})
}

func FuzzSubscriptionsOfOthers(f *testing.F) {
	f.Add([]byte(`[{"pubsubname":"pubsub","topic":"d","routes":{"rules":[{"match":"event.type == \"x\"","path":"/x"}],"default":"rest"},"bulkSubscribe":{"enabled":true,"maxMessagesCount":-5}}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var all []declared
		if json.Unmarshal(text, &all) != nil {
			return
		}
		for _, d := range all {
			if trigger, err := d.trigger(); err == nil {
				usable(t, trigger)
			} else if quipu.CodeOf(err) == quipu.CodeInternal {
				t.Fatal(err)
			}
		}
	})
}

func usable(t *testing.T, trigger quipu.TopicTrigger) {
	r, err := NewRouter(trigger)
	if err != nil {
		t.Fatal(err)
	}
	if path, ok := r.Path([]byte(`{"type":"x","data":{"n":1}}`)); ok && (path == "" || path[0] != '/') {
		t.Fatalf("%q is no path", path)
	}
}
