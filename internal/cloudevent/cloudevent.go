// Package cloudevent writes the envelope that events travel in: CloudEvents 1.0 in structured JSON, with the
// attributes that Dapr adds (topic, pubsubname, traceid, traceparent, tracestate, expiration).
package cloudevent

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
	"github.com/quipu-run/quipu"
)

// Defaults of what an event does not say.
const (
	TypeDefault        = "com.dapr.event.sent"
	TypeTick           = "dev.quipu.tick"
	TypeCallSucceeded  = "dev.quipu.call.succeeded"
	TypeCallFailed     = "dev.quipu.call.failed"
	TypeBudget         = "dev.quipu.budget"
	contentTypeDefault = "text/plain"
)

// Attributes of an event. Zero ones get defaults, or are left out where CloudEvents allows it.
type Attributes struct {
	ID, Source, Type, Subject string
	Time                      time.Time // zero: now
	DataContentType           string    // "" means text/plain
	DataSchema                string
	Topic, PubSub             string
	TraceParent, TraceState   string
	Expiration                time.Time         // zero: never
	Extensions                map[string]string // more attributes, and overrides of those above, by their names
	// Fill lets Complete add what an event should have said itself, as Dapr does: id, source, type, specversion, time.
	Fill bool
}

// NewID makes an id that no other event has.
func NewID() string { return ulid.Make().String() }

// Wrap puts data into an envelope: JSON as it is, text as a string, bytes as data_base64, by their content type. It is
// on the way of every event that is published, so it writes the JSON itself.
func Wrap(a Attributes, data []byte) (id string, event []byte, err error) {
	a.defaults()
	event = make([]byte, 0, len(data)+len(data)/3+512)
	event = append(event, `{"specversion":"1.0"`...)
	for _, f := range [...]struct{ name, value string }{
		{"id", a.ID}, {"source", a.Source}, {"type", a.Type}, {"time", a.Time.UTC().Format(time.RFC3339Nano)},
		{"datacontenttype", a.DataContentType}, {"subject", a.Subject}, {"dataschema", a.DataSchema}, {"topic", a.Topic},
		{"pubsubname", a.PubSub}, {"traceid", a.TraceParent}, {"traceparent", a.TraceParent}, {"tracestate", a.TraceState},
		{"expiration", a.expiration()},
	} {
		if _, overridden := a.Extensions[f.name]; f.value != "" && !overridden {
			event = appendField(event, f.name, f.value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Extensions)) {
		if !isReserved(name) {
			event = appendField(event, name, a.Extensions[name])
		}
	}
	if own, ok := a.Extensions["id"]; ok {
		a.ID = own
	}
	return a.ID, append(appendData(event, a.DataContentType, data), '}'), nil
}

func appendField(to []byte, name, value string) []byte {
	return appendString(append(appendString(append(to, ','), name), ':'), value)
}

// appendString writes a JSON string.
func appendString(to []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			text, _ := json.Marshal(s) // a string always marshals
			return append(to, text...)
		}
	}
	return append(append(append(to, '"'), s...), '"')
}

func appendData(to []byte, contentType string, data []byte) []byte {
	switch {
	case !IsBinary(contentType) && IsJSON(contentType) && json.Valid(data):
		return append(append(to, `,"data":`...), data...)
	case !IsBinary(contentType) && utf8.Valid(data):
		return appendString(append(to, `,"data":`...), string(data))
	}
	to = append(to, `,"data_base64":"`...)
	return append(base64.StdEncoding.AppendEncode(to, data), '"')
}

// isReserved tells whether an attribute is none that can be overridden.
func isReserved(name string) bool {
	return name == "data" || name == "data_base64" || name == "specversion"
}

func (a *Attributes) expiration() string {
	if a.Expiration.IsZero() {
		return ""
	}
	return a.Expiration.UTC().Format(time.RFC3339)
}

// Complete takes an event that is one already, checks it, and adds the attributes of Dapr: topic and pubsubname say
// where it is, whatever it says, and the others are kept if they are there. CodeCloudEvent.
func Complete(a Attributes, event []byte) (id string, completed []byte, err error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(event, &raw); err != nil {
		return "", nil, malformed("it is no JSON object: %v", err)
	}
	if raw == nil {
		return "", nil, malformed("it is null")
	}
	if a.Fill {
		a.fill(raw)
	}
	e := make(map[string]any, len(raw)+4)
	for name, value := range raw {
		if name != "topic" && name != "pubsubname" {
			e[name] = value
		}
	}
	for _, name := range []string{"id", "source", "type", "specversion"} {
		text := ""
		if err := json.Unmarshal(raw[name], &text); err != nil || text == "" {
			return "", nil, malformed("it has no %s, or one that is no text", name)
		}
		if name == "specversion" && text != "1.0" {
			return "", nil, malformed("its specversion is %q, not 1.0", text)
		}
		if name == "id" {
			a.ID = text
		}
	}
	return a.finish(e)
}

// fill adds what is missing. What is there but wrong stays, to be found wrong.
func (a Attributes) fill(raw map[string]json.RawMessage) {
	a.defaults()
	for name, value := range map[string]string{"id": a.ID, "source": a.Source, "type": a.Type, "specversion": "1.0",
		"time": a.Time.UTC().Format(time.RFC3339Nano)} {
		if old, there := raw[name]; !there || string(old) == "null" {
			raw[name], _ = json.Marshal(value) // a string always marshals
		}
	}
}

func malformed(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeCloudEvent, Op: "event.read", Text: "the CloudEvent cannot be used: " + fmt.Sprintf(format, args...),
		Hint: quipu.Codes[quipu.CodeCloudEvent].Next}
}

func (a *Attributes) defaults() {
	if a.ID == "" {
		a.ID = NewID()
	}
	if a.Source == "" {
		a.Source = "quipu"
	}
	if a.Type == "" {
		a.Type = TypeDefault
	}
	if a.Time.IsZero() {
		a.Time = time.Now()
	}
	if a.DataContentType == "" {
		a.DataContentType = contentTypeDefault
	}
}

// finish adds what Dapr adds and writes the event.
func (a *Attributes) finish(e map[string]any) (string, []byte, error) {
	own := map[string]string{"topic": a.Topic, "pubsubname": a.PubSub, "traceid": a.TraceParent, "traceparent": a.TraceParent,
		"tracestate": a.TraceState, "expiration": a.expiration()}
	for name, value := range own {
		if _, there := e[name]; !there && value != "" {
			e[name] = value
		}
	}
	for name, value := range a.Extensions {
		if isReserved(name) {
			continue
		}
		e[name] = value
		if name == "id" {
			a.ID = value
		}
	}
	event, err := json.Marshal(e)
	if err != nil {
		return "", nil, malformed("%v", err)
	}
	return a.ID, event, nil
}

// IsJSON tells whether a content type says that data is JSON.
func IsJSON(contentType string) bool {
	media := mediaType(contentType)
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

// IsText tells whether a content type says that data is text.
func IsText(contentType string) bool {
	media := mediaType(contentType)
	return strings.HasPrefix(media, "text/") || media == "application/xml"
}

// IsBinary tells whether a content type says that data is bytes, which go as base64.
func IsBinary(contentType string) bool {
	media := mediaType(contentType)
	return media == "application/octet-stream" || media == "application/x-protobuf"
}

// IsCloudEvent tells whether a content type says that data is an event in structured form.
func IsCloudEvent(contentType string) bool { return mediaType(contentType) == quipu.MediaCloudEvent }

func mediaType(contentType string) string {
	if !strings.ContainsAny(contentType, "; ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		return contentType // as it nearly always is
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media, _, _ = strings.Cut(contentType, ";")
	}
	return strings.ToLower(strings.TrimSpace(media))
}

// Of is a stored event as consumers get it: as it was published, if that was a CloudEvent, else wrapped, with the same
// id each time. raw wraps the bytes of a CloudEvent too; the envelope says that the event is of pubsub.
func Of(e quipu.Event, pubsub string, raw bool) ([]byte, error) {
	if !raw && IsCloudEvent(e.ContentType) {
		return e.Data, nil
	}
	a := Attributes{ID: e.ID, Source: "quipu", Time: e.Time, DataContentType: e.ContentType, Topic: e.Topic, PubSub: pubsub}
	if raw || a.DataContentType == "" {
		a.DataContentType = "application/octet-stream"
	}
	_, event, err := Wrap(a, e.Data)
	return event, err
}
