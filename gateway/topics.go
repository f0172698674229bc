package gateway

import (
	"encoding/json"
	"math"
	"net/http"
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
			body: jsonType, takes: sdk.SeekTo{}, status: 204, codes: append(missingSub, quipu.CodeBadJSON), serve: seek},
		{id: "redrive", method: "POST", path: "/topics/{topic}/redrive", summary: "Publish dead letters again, each to the subscription that gave it up. The topic is the dead-letter topic, or one whose subscriptions have such.",
			status: 200, reply: jsonType, shape: sdk.Redriven{}, codes: missing, serve: redrive},
	}
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
	if err := decodeStrict(body, &to); err != nil {
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
