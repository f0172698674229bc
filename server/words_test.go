package server

import (
	"testing"

	"github.com/quipu-run/quipu/alarm"
	ownership "github.com/quipu-run/quipu/lease"
	"github.com/quipu-run/quipu/timer"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/workflow"
)

// What views have in a record is shown in words, the ends of listings too.
func TestKeysOfViewsAreShownInWords(t *testing.T) {
	for name, keys := range map[string]map[string]string{
		timer.Name:     {"tjob\x00f\x00nightly": `timer job f "nightly"`, "tjob\x00f\x00": "timers job f", view.After("t"): ""},
		alarm.Name:     {"job\x00f\x00nightly": "job f nightly", "job\x00f\x00": "job f"},
		ownership.Name: {"lactor/a/1": `lease "actor/a/1"`},
		workflow.Name:  {"i/f\x007": "workflow 7 of f"},
	} {
		for key, want := range keys {
			if got := words[name].Key(key); got != want {
				t.Errorf("key %q of view %s is %q, want %q", key, name, got, want)
			}
		}
		if text := words[name].Op([]byte{1}); text == "" {
			t.Errorf("view %s has no words for an operation that it does not know", name)
		}
	}
}

// The record of an atomic function that starts a workflow says so.
func TestASliceSaysWhichWorkflowWasStarted(t *testing.T) {
	n := start(t)
	n.python(`
import lib, os, http.client
def handle(r):
    door = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
    door.request("POST", "/v1.0/workflows/dapr/order/start?instanceID=7", "1", {"dapr-api-token": os.environ["DAPR_API_TOKEN"]})
    r.answer(200, door.getresponse().status)
lib.serve(handle)`, "atomic: true")
	a := n.post("/f/", "{}")
	a.want(t, 200, "202")
	s, err := n.client.CallSlice(t.Context(), a.header.Get("Quipu-Call-Id"))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, op := range s.Ops {
		found = found || op.View == workflow.Name && op.Text == "start workflow 7 of f"
	}
	written := false
	for _, k := range s.Written {
		written = written || k.View == workflow.Name && k.Key == "workflow 7 of f"
	}
	if !found || !written {
		t.Errorf("operations %+v, written %+v", s.Ops, s.Written)
	}
}
