package cloudevent

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
)

func fields(t *testing.T, event []byte) map[string]any {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(event, &e); err != nil {
		t.Fatalf("%v: %s", err, event)
	}
	return e
}

func TestDataGoesByItsContentType(t *testing.T) {
	for _, c := range []struct{ contentType, data, want string }{
		{"application/json", `{"n": 12345678901234567890}`, `"data":{"n": 12345678901234567890}`},
		{"application/json; charset=utf-8", `[1]`, `"data":[1]`},
		{"application/vnd.x+json", `1`, `"data":1`},
		{"application/json", `{broken`, `"data":"{broken"`},
		{"", "text", `"data":"text"`},
		{"text/xml", "<a/>", `"data":"<a/>"`},
		{"application/octet-stream", "ab", `"data_base64":"YWI="`},
		{"text/plain", "\xff", `"data_base64":"/w=="`},
	} {
		_, event, err := Wrap(Attributes{DataContentType: c.contentType}, []byte(c.data))
		if err != nil || !strings.Contains(string(event), c.want) {
			t.Errorf("%s: %v %s, want %s", c.contentType, err, event, c.want)
		}
	}
}

func TestWhatIsNotSaidHasDefaultsAndWhatIsSaidIsKept(t *testing.T) {
	id, event, err := Wrap(Attributes{}, nil)
	e := fields(t, event)
	if err != nil || id == "" || e["id"] != id || e["type"] != TypeDefault || e["source"] != "quipu" || e["specversion"] != "1.0" || e["datacontenttype"] != "text/plain" {
		t.Errorf("%v %s", err, event)
	}
	if _, there := e["topic"]; there {
		t.Error("an empty attribute is there")
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	id, event, err = Wrap(Attributes{ID: "7", Source: "s", Subject: "who", Time: at, Topic: "t", PubSub: "p", TraceParent: "tp", TraceState: "ts",
		Expiration: at, Extensions: map[string]string{"color": "blue", "data": "no", "id": "8"}}, []byte("x"))
	e = fields(t, event)
	for name, want := range map[string]any{"id": "8", "subject": "who", "time": "2026-01-02T03:04:05Z", "topic": "t", "pubsubname": "p", "traceid": "tp",
		"traceparent": "tp", "tracestate": "ts", "expiration": "2026-01-02T03:04:05Z", "color": "blue", "data": "x"} {
		if e[name] != want {
			t.Errorf("%s is %v, want %v", name, e[name], want)
		}
	}
	if err != nil || id != "8" {
		t.Errorf("id %s: %v", id, err)
	}
}

func TestAnEventIsCompletedAndItsPlaceIsOurs(t *testing.T) {
	given := `{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"n":1.0},"topic":"lie","pubsubname":"lie","tracestate":"own"}`
	id, event, err := Complete(Attributes{Topic: "real", PubSub: "pubsub", TraceParent: "tp", TraceState: "other"}, []byte(given))
	e := fields(t, event)
	if err != nil || id != "1" || e["topic"] != "real" || e["pubsubname"] != "pubsub" || e["traceparent"] != "tp" || e["tracestate"] != "own" || !strings.Contains(string(event), `"data":{"n":1.0}`) {
		t.Errorf("%v %s", err, event)
	}
	id, event, err = Complete(Attributes{Fill: true, Source: "app"}, []byte(`{"data":1,"type":null}`))
	e = fields(t, event)
	if err != nil || id == "" || e["id"] != id || e["source"] != "app" || e["type"] != TypeDefault || e["specversion"] != "1.0" || e["time"] == nil {
		t.Errorf("not filled: %v %s", err, event)
	}
}

func TestAMalformedEventIsRefused(t *testing.T) {
	for _, fill := range []bool{false, true} {
		for _, event := range []string{``, `null`, `[]`, `"x"`, `{`, `{"specversion":"0.3","id":"1","source":"s","type":"t"}`,
			`{"specversion":"1.0","id":7,"source":"s","type":"t"}`, `{"specversion":"1.0","id":"1","source":"","type":"t"}`} {
			if _, _, err := Complete(Attributes{Fill: fill}, []byte(event)); quipu.CodeOf(err) != quipu.CodeCloudEvent {
				t.Errorf("%s, fill %v: %v", event, fill, err)
			}
		}
	}
	if _, _, err := Complete(Attributes{}, []byte(`{"specversion":"1.0","source":"s","type":"t"}`)); quipu.CodeOf(err) != quipu.CodeCloudEvent {
		t.Errorf("without an id: %v", err)
	}
}
