package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/sdk"
)

var publishParams = []param{
	{"id", "string", "of the event; default: a new one"},
	{"type", "string", "of the event; default: " + cloudevent.TypeDefault},
	{"source", "string", "of the event; default: quipu"},
	{"subject", "string", "of the event"},
	{"extension", "string", "name=value, another attribute of the event; may be repeated"},
	{"ttl", "string", "a duration, as 90s or 7d, after which it is not delivered any more"},
	{"delay", "string", "a duration before which it is not delivered"},
	{"raw", "boolean", "no envelope: the body is delivered as it is"},
}

// publication is how the request says its body is to be published.
type publication struct {
	message    quipu.Message // but for id and data
	media      string
	raw        bool
	attributes cloudevent.Attributes
}

func publish(a *ask) error {
	p, err := publicationOf(a)
	if err != nil {
		return err
	}
	body, err := a.readBody()
	if err != nil {
		return err
	}
	ms, err := p.messages(body)
	if err != nil {
		return err
	}
	if len(ms) > 0 {
		if err := a.ns.Publish(a.Context(), ms); err != nil {
			return err
		}
	}
	if p.media != quipu.MediaCloudBatch {
		return a.reply(sdk.Published{ID: ms[0].ID})
	}
	ids := make([]string, len(ms))
	for i, m := range ms {
		ids[i] = m.ID
	}
	return a.reply(sdk.Published{IDs: ids})
}

func publicationOf(a *ask) (p publication, err error) {
	p.message = quipu.Message{Topic: a.values["topic"], ContentType: a.Request.Header.Get("Content-Type")}
	p.media = mediaType(p.message.ContentType)
	if p.raw, err = a.boolean("raw"); err != nil {
		return p, err
	}
	structured := p.media == quipu.MediaCloudEvent || p.media == quipu.MediaCloudBatch
	if p.raw && structured {
		return p, usage("raw asks for no envelope, and %s is one", p.media)
	}
	if p.media == quipu.MediaCloudBatch && a.query.Has("id") {
		return p, usage("id is given, but a batch has several events, which have theirs")
	}
	if p.message.TTL, err = a.duration("ttl", quipu.CodeTTL); err != nil {
		return p, err
	}
	if p.message.Delay, err = a.duration("delay", quipu.CodeDelay); err != nil {
		return p, err
	}
	p.attributes = cloudevent.Attributes{DataContentType: p.message.ContentType, Topic: p.message.Topic, PubSub: quipu.PubSubDefault,
		TraceParent: a.Request.Header.Get("Traceparent"), TraceState: a.Request.Header.Get("Tracestate")}
	if p.message.TTL > 0 {
		p.attributes.Expiration = time.Now().Add(p.message.TTL)
	}
	given, err := extensionsOf(a.query)
	if err != nil {
		return p, err
	}
	p.attributes.Extensions = given
	if structured || p.raw || a.Request.Header.Get(binaryPrefix+"Specversion") == "" {
		return p, nil
	}
	p.attributes.Extensions, err = binaryMode(a.Request.Header)
	maps.Copy(p.attributes.Extensions, given)
	return p, err
}

// binaryPrefix starts the headers of a CloudEvent in binary mode: attributes in headers, data in the body. SDKs of
// CloudEvents send them so by default.
const binaryPrefix = "Ce-"

// binaryMode reads the attributes of an event in binary mode. CodeCloudEvent.
func binaryMode(h http.Header) (map[string]string, error) {
	all := map[string]string{}
	for name, values := range h {
		attribute, ok := strings.CutPrefix(name, binaryPrefix)
		if !ok {
			continue
		}
		attribute = strings.ToLower(attribute)
		value, err := url.PathUnescape(values[0])
		if err != nil || !isAttribute(attribute) {
			return all, malformed("the header %s is no attribute", quote(name))
		}
		all[attribute] = value
	}
	if all["specversion"] != "1.0" {
		return all, malformed("its specversion is %s, not 1.0", quote(all["specversion"]))
	}
	for _, name := range []string{"id", "source", "type"} {
		if all[name] == "" {
			return all, malformed("it has no header ce-%s", name)
		}
	}
	if at, ok := all["time"]; ok {
		if _, err := time.Parse(time.RFC3339, at); err != nil {
			return all, malformed("its time is %s", quote(at))
		}
	}
	delete(all, "specversion")
	return all, nil
}

func malformed(format string, args ...any) error {
	return &quipu.Error{Code: quipu.CodeCloudEvent, Text: "the CloudEvent cannot be used: " + fmt.Sprintf(format, args...)}
}

// mediaType is a content type without its parameters.
func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// duration reads a parameter; 0 only if it is not there.
func (a *ask) duration(name string, code quipu.Code) (time.Duration, error) {
	if !a.query.Has(name) {
		return 0, nil
	}
	var d quipu.Duration
	if err := d.UnmarshalText([]byte(a.query.Get(name))); err != nil || d == 0 {
		return 0, &quipu.Error{Code: code, Text: name + " is " + quote(a.query.Get(name)) + "; it must be a duration above 0", Hint: "write 200ms, 30s, 5m, 24h or 7d"}
	}
	return d.Std(), nil
}

// extensionsOf are the attributes that the query gives the event, over what the event says itself.
func extensionsOf(query url.Values) (map[string]string, error) {
	all := map[string]string{}
	for _, text := range query["extension"] {
		name, value, ok := strings.Cut(text, "=")
		if !ok || !isExtension(name) {
			return nil, usage("extension is %s; it must be name=value with a name of a-z and 0-9 that CloudEvents has no other use for", quote(text))
		}
		all[name] = value
	}
	for _, name := range []string{"id", "type", "source", "subject"} {
		if value := query.Get(name); value != "" {
			all[name] = value
		}
	}
	return all, nil
}

func isExtension(name string) bool {
	switch name {
	case "id", "type", "source", "subject", "time", "specversion", "datacontenttype", "dataschema", "data":
		return false
	}
	return isAttribute(name)
}

func isAttribute(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// messages makes the body what is published.
func (p publication) messages(body []byte) ([]quipu.Message, error) {
	switch {
	case p.media == quipu.MediaCloudBatch:
		return p.batch(body)
	case p.raw:
		m := p.message
		m.ID, m.Data = p.attributes.Extensions["id"], body
		if m.ID == "" {
			m.ID = cloudevent.NewID()
		}
		return []quipu.Message{m}, nil
	}
	envelope := cloudevent.Wrap
	if p.media == quipu.MediaCloudEvent {
		envelope = cloudevent.Complete
	} else if cloudevent.IsJSON(p.media) && !json.Valid(body) {
		return nil, &quipu.Error{Code: quipu.CodeBadJSON, Text: "the body is not " + p.media, Hint: "send JSON, or name what it is in Content-Type"}
	}
	id, event, err := envelope(p.attributes, body)
	if err != nil {
		return nil, err
	}
	return []quipu.Message{p.event(id, event)}, nil
}

func (p publication) event(id string, event []byte) quipu.Message {
	m := p.message
	m.ID, m.Data, m.ContentType = id, event, quipu.MediaCloudEvent
	return m
}

// batch takes its events apart; one that cannot be used makes all of it so.
func (p publication) batch(body []byte) ([]quipu.Message, error) {
	in := json.NewDecoder(bytes.NewReader(body))
	if start, err := in.Token(); err != nil || start != json.Delim('[') {
		return nil, &quipu.Error{Code: quipu.CodeCloudEvent, Text: "the batch is no JSON array"}
	}
	ms := []quipu.Message{}
	for in.More() {
		if len(ms) == quipu.PublishMax {
			return nil, &quipu.Error{Code: quipu.CodeTooMany, Text: "the batch has more than " + strconv.Itoa(quipu.PublishMax) + " events", Hint: "send several batches"}
		}
		var one json.RawMessage
		if err := in.Decode(&one); err != nil {
			return nil, inBatch(len(ms)+1, err)
		}
		id, event, err := cloudevent.Complete(p.attributes, one)
		if err != nil {
			return nil, inBatch(len(ms)+1, err)
		}
		ms = append(ms, p.event(id, event))
	}
	_, err := in.Token() // the ]
	if _, more := in.Token(); err != nil || !errors.Is(more, io.EOF) {
		return nil, inBatch(len(ms)+1, errors.New("the array does not end well"))
	}
	return ms, nil
}

// inBatch names the event that is wrong, from 1.
func inBatch(n int, err error) error {
	text := err.Error()
	var e *quipu.Error
	if errors.As(err, &e) {
		text = e.Text
	}
	return &quipu.Error{Code: quipu.CodeCloudEvent, Text: fmt.Sprintf("event %d of the batch: %s", n, clip(text))}
}
