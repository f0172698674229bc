// Package daprevent turns an event in its envelope, CloudEvents JSON, into what Dapr sends to applications over
// gRPC: of a callback, of a stream, or as one of a bulk.
package daprevent

import (
	"encoding/json"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// bare are the attributes that have fields of their own. Everything else is an extension.
var bare = []string{"id", "source", "type", "specversion", "datacontenttype", "data", "data_base64"}

// FromEvent is an event of a topic for who takes it over gRPC. Raw events come without regard to the envelope they
// were published in, as bytes; others get an envelope if they have none.
func FromEvent(e quipu.Event, raw bool) (*rtv1.TopicEventRequest, error) {
	if !raw && cloudevent.IsCloudEvent(e.ContentType) {
		r, err := Parse(e.Data)
		if err == nil {
			r.Topic = e.Topic
		}
		return r, err
	}
	contentType := e.ContentType
	if raw {
		contentType = "application/octet-stream"
	}
	return &rtv1.TopicEventRequest{Id: e.ID, Source: "quipu", Type: cloudevent.TypeDefault, SpecVersion: "1.0", DataContentType: contentType,
		Data: e.Data, Topic: e.Topic, PubsubName: quipu.PubSubDefault,
		Extensions: &structpb.Struct{Fields: map[string]*structpb.Value{"topic": structpb.NewStringValue(e.Topic), "pubsubname": structpb.NewStringValue(quipu.PubSubDefault)}}}, nil
}

// Parse reads an envelope. CodeCloudEvent.
func Parse(event []byte) (*rtv1.TopicEventRequest, error) {
	var e map[string]json.RawMessage
	if err := json.Unmarshal(event, &e); err != nil || e == nil {
		return nil, &quipu.Error{Code: quipu.CodeCloudEvent, Op: "event.read", Text: "an event to be delivered is no JSON object", Err: err}
	}
	r := &rtv1.TopicEventRequest{Id: text(e["id"]), Source: text(e["source"]), Type: text(e["type"]), SpecVersion: text(e["specversion"]),
		DataContentType: text(e["datacontenttype"]), Topic: text(e["topic"]), PubsubName: text(e["pubsubname"])}
	if r.PubsubName == "" {
		r.PubsubName = quipu.PubSubDefault
	}
	var err error
	if r.Data, err = cloudevent.Data(e, r.DataContentType); err != nil {
		return nil, err
	}
	for _, name := range bare {
		delete(e, name)
	}
	rest, err := json.Marshal(e)
	if err == nil {
		r.Extensions = &structpb.Struct{}
		err = protojson.Unmarshal(rest, r.Extensions)
	}
	if err != nil {
		return nil, &quipu.Error{Code: quipu.CodeCloudEvent, Op: "event.read", Text: "an event to be delivered has attributes that cannot be told", Err: err}
	}
	return r, nil
}

// text is "" for what is no string.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// Entry is an event as one of a bulk.
func Entry(id string, r *rtv1.TopicEventRequest) *rtv1.TopicEventBulkRequestEntry {
	return &rtv1.TopicEventBulkRequestEntry{EntryId: id, ContentType: quipu.MediaCloudEvent,
		Event: &rtv1.TopicEventBulkRequestEntry_CloudEvent{CloudEvent: &rtv1.TopicEventCERequest{Id: r.Id, Source: r.Source, Type: r.Type,
			SpecVersion: r.SpecVersion, DataContentType: r.DataContentType, Data: r.Data, Extensions: r.Extensions}}}
}
