package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/sdk"
)

func (g *Gateway) topicRoutes() []adminRoute {
	missing := []quipu.Code{quipu.CodeNoTopic}
	missingSub := []quipu.Code{quipu.CodeNoSubscription}
	return []adminRoute{
		{id: "listTopics", method: "GET", path: "/topics", summary: "Topics by name, with their subscriptions.",
			status: 200, reply: jsonType, shape: sdk.Page[quipu.TopicInfo]{}, serve: listTopics},
		{id: "getTopic", method: "GET", path: "/topics/{topic}", summary: "One topic: lag, retries and dead letters of its subscriptions.",
			status: 200, reply: jsonType, shape: quipu.TopicInfo{}, codes: missing, serve: getTopic},
		{id: "removeTopic", method: "DELETE", path: "/topics/{topic}", summary: "Remove a topic with its events and subscriptions.",
			status: 204, codes: missing, serve: removeTopic},
		{id: "publish", method: "POST", path: "/topics/{topic}/events",
			summary: "Publish the body, durable on return. Data of any content type gets an envelope; " + quipu.MediaCloudEvent + " is one; " + quipu.MediaCloudBatch + " is several, all or none.",
			query:   publishParams, body: "*/*", bodyMax: quipu.TxBytesMax, status: 200, reply: jsonType, shape: sdk.Published{},
			codes: []quipu.Code{quipu.CodeTopicName, quipu.CodeEventSize, quipu.CodeCloudEvent, quipu.CodeBadJSON, quipu.CodeTTL, quipu.CodeDelay, quipu.CodeTooMany, quipu.CodeTxSize, quipu.CodeBodySize}, serve: publish},
		{id: "readTopic", method: "GET", path: "/topics/{topic}/events", summary: "Events in order, a line of JSON for each. Nothing is acknowledged. A topic that does not exist is empty.",
			query: []param{{"from", "string", positionForms + "; default: end with follow, earliest without"},
				{"follow", "boolean", "go on with new events"}, {"limit", "integer", "end after so many"}},
			status: 200, reply: jsonLinesType, shape: sdk.Event{}, serve: g.readTopic},
		{id: "cancelDelayed", method: "DELETE", path: "/topics/{topic}/delayed/{id}", summary: "Take back a delayed message that is not due yet.",
			status: 204, codes: []quipu.Code{quipu.CodeNotFound}, serve: cancelDelayed},
		{id: "unsubscribe", method: "DELETE", path: "/topics/{topic}/subscriptions/{subscription}", summary: "Remove a durable subscription.",
			status: 204, codes: missingSub, serve: unsubscribe},
		{id: "seek", method: "POST", path: "/topics/{topic}/subscriptions/{subscription}/seek", summary: "Move a subscription: what comes from the position on is delivered, again if need be. from: " + positionForms + ".",
			body: jsonType, status: 204, codes: append(missingSub, quipu.CodeBadJSON), serve: seek},
		{id: "redrive", method: "POST", path: "/topics/{topic}/redrive", summary: "Publish dead letters again, each to the subscription that gave it up. The topic is the dead-letter topic, or one whose subscriptions have such.",
			status: 200, reply: jsonType, shape: sdk.Redriven{}, codes: missing, serve: redrive},
	}
}

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

func listTopics(a *ask) error {
	topics, err := a.ns.Topics(a.Context())
	if err != nil {
		return err
	}
	for i := range topics {
		topics[i] = described(topics[i])
	}
	return a.reply(page(topics))
}

func getTopic(a *ask) error {
	info, err := a.ns.Topic(a.Context(), a.values["topic"])
	if err != nil {
		return err
	}
	return a.reply(described(info))
}

// described has [] and not null.
func described(info quipu.TopicInfo) quipu.TopicInfo {
	if info.Subscriptions == nil {
		info.Subscriptions = []quipu.SubscriptionInfo{}
	}
	return info
}

func removeTopic(a *ask) error {
	return a.done(a.ns.DeleteTopic(a.Context(), a.values["topic"]))
}

func cancelDelayed(a *ask) error {
	return a.done(a.ns.Cancel(a.Context(), a.values["topic"], a.values["id"]))
}

func unsubscribe(a *ask) error {
	return a.done(a.ns.Unsubscribe(a.Context(), a.values["topic"], a.values["subscription"]))
}

// done answers without a body.
func (a *ask) done(err error) error {
	if err != nil {
		return err
	}
	a.WriteHeader(http.StatusNoContent)
	return nil
}

func redrive(a *ask) error {
	n, err := a.ns.Redrive(a.Context(), a.values["topic"])
	if err != nil {
		return err
	}
	return a.reply(sdk.Redriven{Redriven: n})
}

func seek(a *ask) error {
	body, err := a.readBody()
	if err != nil {
		return err
	}
	var to sdk.SeekTo
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	err = in.Decode(&to)
	if err == nil && in.More() {
		err = errors.New("something follows the object")
	}
	if err != nil {
		return &quipu.Error{Code: quipu.CodeBadJSON, Text: "the body is not {\"from\": …}: " + clip(err.Error())}
	}
	from, err := positionOf(to.From, time.Now())
	if err != nil {
		return err
	}
	return a.done(a.ns.Seek(a.Context(), a.values["topic"], a.values["subscription"], from))
}

// readTopic finds the end of the topic before the stream begins: who has seen it begin misses nothing that is
// published afterwards.
func (g *Gateway) readTopic(a *ask) error {
	follow, err := a.boolean("follow")
	if err != nil {
		return err
	}
	limit, err := a.integer("limit", math.MaxInt32, math.MaxInt32)
	if err != nil {
		return err
	}
	from, err := a.startOf(follow)
	if err != nil {
		return err
	}
	out := &stream{ask: a, out: http.NewResponseController(a.ResponseWriter)}
	if err := out.begin(jsonLinesType); err != nil {
		return out.unlessLeft(err)
	}
	ctx := a.Context()
	if follow {
		over, end := g.untilDrain(ctx)
		defer end()
		ctx = over
	}
	for e, err := range a.ns.Events(ctx, a.values["topic"], from, follow) {
		if err != nil && ctx.Err() != nil {
			return nil // the client left, or the node stops
		}
		if err == nil {
			err = out.line(eventOf(e))
		}
		if err != nil {
			return out.unlessLeft(err)
		}
		if limit--; limit == 0 {
			break
		}
	}
	return nil
}

// startOf reads the parameter from; the end becomes the offset that the next event will have.
func (a *ask) startOf(follow bool) (quipu.Position, error) {
	text := a.query.Get("from")
	if text == "" {
		text = map[bool]string{true: "end", false: "earliest"}[follow]
	}
	from, err := positionOf(text, time.Now())
	if err != nil {
		return from, err
	}
	info, err := a.ns.Topic(a.Context(), a.values["topic"])
	if err != nil && quipu.CodeOf(err) != quipu.CodeNoTopic {
		return from, err
	}
	if from == (quipu.Position{}) {
		from.Offset = info.Last + 1
	}
	return from, nil
}

const positionForms = "end, earliest, an offset, a seq (16 hexadecimal digits), a time (RFC 3339) or -1h, a duration ago"

// positionOf reads a place in a topic. Sixteen digits are a seq: no topic has so many events.
func positionOf(text string, now time.Time) (quipu.Position, error) {
	switch text {
	case "end", "latest":
		return quipu.Position{}, nil
	case "earliest":
		return quipu.Position{Earliest: true}, nil
	}
	var p quipu.Position
	if len(text) == 16 {
		if seq, err := quipu.ParseSeq(text); err == nil {
			p.Seq = seq
			return orEarliest(p), nil
		}
	}
	if offset, err := strconv.ParseUint(text, 10, 64); err == nil {
		p.Offset = offset
		return orEarliest(p), nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		p.Time = at
		return orEarliest(p), nil
	}
	var ago quipu.Duration
	if back, ok := strings.CutPrefix(text, "-"); ok && ago.UnmarshalText([]byte(back)) == nil {
		p.Time = now.Add(-ago.Std())
		return orEarliest(p), nil
	}
	return p, &quipu.Error{Code: quipu.CodeUsage, Text: "from is " + quote(text) + ", which is no place in a topic", Hint: "it may be " + positionForms}
}

// orEarliest keeps offset 0 and its like from meaning the end, as the zero Position does.
func orEarliest(p quipu.Position) quipu.Position {
	if p == (quipu.Position{}) {
		p.Earliest = true
	}
	return p
}

func eventOf(e quipu.Event) sdk.Event {
	out := sdk.Event{Topic: e.Topic, Offset: e.Offset, ID: e.Seq.String() + "." + strconv.Itoa(e.N), Time: e.Time.UTC(), Dead: e.Dead, Only: e.Only}
	if !e.Expires.IsZero() {
		out.Expires = e.Expires.UTC()
	}
	if cloudevent.IsCloudEvent(e.ContentType) && json.Valid(e.Data) {
		out.Event = e.Data
		return out
	}
	out.MessageID, out.ContentType = e.ID, e.ContentType
	out.Data, out.DataBase64 = jsonOrBytes(e.Data, cloudevent.IsJSON(e.ContentType))
	return out
}

// jsonOrBytes is data as a JSON value: JSON as it is, text as a string; or else its bytes.
func jsonOrBytes(data []byte, isJSON bool) (value json.RawMessage, bytes []byte) {
	if isJSON && json.Valid(data) {
		return data, nil
	}
	if !utf8.Valid(data) {
		return nil, data
	}
	value, err := json.Marshal(string(data))
	if err != nil {
		return nil, data // a string always marshals
	}
	return value, nil
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
	p.attributes.Extensions, err = extensionsOf(a.query)
	return p, err
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
