package daprevent

import (
	"testing"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
)

func TestWhatWasPublishedComesOutAgain(t *testing.T) {
	for _, c := range []struct{ contentType, data, want string }{
		{"application/json", `{"n": 12345678901234567890}`, `{"n": 12345678901234567890}`},
		{"application/json", `"text"`, `"text"`},
		{"text/plain", "schön", "schön"},
		{"application/octet-stream", "\x00\xff", "\x00\xff"},
		{"application/x-own", "text", "text"},
		{"application/x-own", "\xff", "\xff"},
	} {
		_, event, err := cloudevent.Wrap(cloudevent.Attributes{ID: "1", Source: "s", DataContentType: c.contentType, Topic: "t", PubSub: "pubsub", TraceParent: "tp"}, []byte(c.data))
		if err != nil {
			t.Fatal(err)
		}
		r, err := FromEvent(quipu.Event{Topic: "t", ContentType: quipu.MediaCloudEvent, Data: event}, false)
		if err != nil || string(r.Data) != c.want || r.Id != "1" || r.Source != "s" || r.Type != cloudevent.TypeDefault || r.Topic != "t" || r.PubsubName != "pubsub" ||
			r.DataContentType != c.contentType || r.Extensions.Fields["traceparent"].GetStringValue() != "tp" || r.Extensions.Fields["data"] != nil {
			t.Errorf("%s: %v %v", c.contentType, err, r)
		}
	}
}

func TestARawEventComesAsBytes(t *testing.T) {
	r, err := FromEvent(quipu.Event{Topic: "t", ID: "7", ContentType: "application/json", Data: []byte(`{"a": 1}`)}, false)
	if err != nil || string(r.Data) != `{"a": 1}` || r.DataContentType != "application/json" || r.Id != "7" || r.SpecVersion != "1.0" {
		t.Errorf("%v %v", err, r)
	}
	whole := `{"specversion":"1.0","id":"1","source":"s","type":"t"}`
	r, err = FromEvent(quipu.Event{Topic: "t", ID: "7", ContentType: quipu.MediaCloudEvent, Data: []byte(whole)}, true)
	if err != nil || string(r.Data) != whole || r.DataContentType != "application/octet-stream" || r.Topic != "t" {
		t.Errorf("%v %v", err, r)
	}
}

func TestGarbageIsAnError(t *testing.T) {
	for _, event := range []string{``, `null`, `[]`, `{"data_base64":"?"}`, `{"data_base64":5}x`} {
		if _, err := Parse([]byte(event)); quipu.CodeOf(err) != quipu.CodeCloudEvent {
			t.Errorf("%s: %v", event, err)
		}
	}
	if r, err := Parse([]byte(`{"id":5,"data":{"a":1}}`)); err != nil || r.Id != "" || string(r.Data) != `{"a":1}` || r.PubsubName != "pubsub" {
		t.Errorf("%v %v", err, r)
	}
}
