package trigger

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/internal/delivery"
	"github.com/quipu-run/quipu/view"
	"github.com/tidwall/gjson"
)

// callsMax bounds the calls that one subscription makes at once.
const callsMax = 1000

// serve makes a function the consumer of its subscription, in the way that its trigger says.
func (e *Engine) serve(r *runner, name string, o *planOptions) error {
	f, err := e.o.Function(name)
	if err != nil {
		return nil // it is being removed, and its subscription with it
	}
	t, ok := triggerFor(f, r.sub.Topic)
	if !ok {
		return nil
	}
	c := &functionConsumer{r: r, f: f, t: t}
	*o, err = e.optionsFor(c)
	o.name = r.sub.Name
	if r.dead = t.DeadLetter; r.dead == "" {
		r.dead = quipu.DeadLetterTopic(f.Name)
	}
	r.consumers = []*consumer{{max: o.calls, deliver: c.deliver}}
	return err
}

// optionsFor is how a function wants its events, with the choice of their paths.
func (e *Engine) optionsFor(c *functionConsumer) (o planOptions, err error) {
	o = planOptions{batch: max(1, c.t.Batch), retry: c.t.Retry, adaptive: c.f.Spec.Atomic, keepDead: c.t.DeadLetter != "",
		calls: min(callsMax, c.f.Spec.Concurrency*c.f.Spec.Scale.Max)}
	if c.t.Key != "" {
		path := keyPath(c.t.Key)
		o.key = func(ev quipu.Event) string { return keyOf(ev, path) }
	}
	if len(c.t.Routes) > 0 {
		o.batch = 1 // each event may go elsewhere
		c.route, err = e.o.Route(c.t)
	}
	return o, err
}

// triggerFor finds what a function says about a topic, or about one of its schedules.
func triggerFor(f quipu.Function, topic string) (quipu.TopicTrigger, bool) {
	for _, t := range Topics(f) {
		if t.Name == topic {
			return t, true
		}
	}
	return quipu.TopicTrigger{}, false
}

// keyPath is a key of a trigger as gjson reads it: names with dots between them, nothing else is special.
func keyPath(key string) string {
	return strings.NewReplacer("*", `\*`, "?", `\?`, "|", `\|`, "#", `\#`, "@", `\@`, "!", `\!`).Replace(key)
}

// keyOf is the value of an event's key as text. Events without it have no order.
func keyOf(e quipu.Event, path string) string {
	if !cloudevent.IsCloudEvent(e.ContentType) {
		return ""
	}
	value := gjson.GetBytes(e.Data, path)
	if !value.Exists() || value.Type == gjson.Null {
		return ""
	}
	return value.Type.String() + value.String()
}

// functionConsumer calls a function with events.
type functionConsumer struct {
	r     *runner
	f     quipu.Function
	t     quipu.TopicTrigger
	route func(event []byte) string
}

func (c *functionConsumer) deliver(ctx context.Context, g *group) result {
	request, err := c.request(g)
	if err != nil {
		return result{cause: err.Error()}
	}
	if request.Path == "" { // no route matches: the app asked for something else
		return result{each: slices.Repeat([]quipu.Outcome{quipu.Ack}, len(g.items))}
	}
	call := Call{CallRequest: request,
		Accept: func(f quipu.Function, status int, body []byte) bool {
			return c.r.e.o.Judge(f, status, body) == quipu.Ack
		},
		Settle: func(tx *view.Tx) error { return c.r.settleIn(tx, g) }}
	reply, err := c.r.e.o.Call(ctx, call)
	if err != nil {
		return failure(err, reply.Lost)
	}
	res := result{lost: reply.Lost, settled: reply.Settled}
	if res.settled {
		return res
	}
	outcome := c.r.e.o.Judge(reply.Function, reply.Status, reply.Body)
	if outcome == quipu.Retry {
		res.cause = delivery.Cause(fmt.Sprintf("status %d: %s", reply.Status, bytes.TrimSpace(reply.Body)))
		return res
	}
	res.each = slices.Repeat([]quipu.Outcome{outcome}, len(g.items))
	return res
}

// failure tells what an error of a call means. What did not get as far as the function's code is no attempt.
func failure(err error, lost int) result {
	res := result{lost: lost, cause: delivery.Cause(err.Error())}
	switch code := quipu.CodeOf(err); {
	case code == quipu.CodeSuperseded || code == quipu.CodeNoSubscription:
		res.over = true
	case delivery.Missed(err):
		res.missed = true
	}
	return res
}

// request is the call for a group of events: one event in structured form, or an array of them if the trigger asks
// for batches.
func (c *functionConsumer) request(g *group) (quipu.CallRequest, error) {
	r := quipu.CallRequest{Function: c.f.Name, Method: http.MethodPost, Path: c.t.Path, Trigger: "topic/" + c.t.Name,
		Attempt: g.attempt(), Cause: c.cause(g), Header: http.Header{}}
	if strings.HasPrefix(c.t.Name, quipu.PlatformTopicStart) {
		r.Trigger = "schedule"
	}
	if c.t.Binding != "" {
		return c.bound(r, g.items[0].event)
	}
	var body []byte
	media := quipu.MediaCloudEvent
	if c.t.Batch > 1 {
		media, body = quipu.MediaCloudBatch, append(body, '[')
	}
	for i, it := range g.items {
		event, err := c.envelope(it.event)
		if err != nil {
			return r, err
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, event...)
		if i > 0 {
			continue
		}
		if c.route != nil {
			r.Path = c.route(event)
		}
		traced(r.Header, event)
	}
	if c.t.Batch > 1 {
		body = append(body, ']')
	}
	r.Header.Set("Content-Type", media)
	r.Body, r.ContentLength = bytes.NewReader(body), int64(len(body))
	return r, nil
}

// cause names the events of a group. After a failure a batch is halved, and its halves have other names.
func (c *functionConsumer) cause(g *group) string {
	name := c.t.Name + "/" + strconv.FormatUint(g.items[0].event.Offset, 10)
	if n := len(g.items); n > 1 {
		name += "+" + strconv.Itoa(n-1)
	}
	return name
}

// envelope is an event as the function gets it. Topics of other pub/subs of Dapr are below their names on the log.
func (c *functionConsumer) envelope(e quipu.Event) ([]byte, error) {
	pubsub := quipu.PubSubDefault
	if c.t.PubSub != "" {
		pubsub, e.Topic = c.t.PubSub, strings.TrimPrefix(e.Topic, c.t.PubSub+"/")
	}
	return cloudevent.Of(e, pubsub, c.t.Raw)
}

// bound is the call for an event that comes in by a binding of Dapr: its data alone, and attributes as headers.
func (c *functionConsumer) bound(r quipu.CallRequest, e quipu.Event) (quipu.CallRequest, error) {
	contentType, body := e.ContentType, e.Data
	if cloudevent.IsCloudEvent(e.ContentType) {
		var err error
		if contentType, body, err = cloudevent.Content(e.Data); err != nil {
			return r, err
		}
		traced(r.Header, e.Data)
	}
	r.Trigger = quipu.TriggerBinding + c.t.Binding
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Readtimeutc", e.Time.UTC().Format(time.RFC3339)) // Dapr's name for it is readTimeUTC
	r.Body, r.ContentLength = bytes.NewReader(body), int64(len(body))
	return r, nil
}

// traced goes on with the trace that an event was published in.
func traced(h http.Header, event []byte) {
	trace := gjson.GetBytes(event, "traceparent")
	if trace.Type != gjson.String {
		return
	}
	h.Set(quipu.HeaderTraceparent, trace.String())
	if state := gjson.GetBytes(event, "tracestate"); state.Type == gjson.String {
		h.Set(quipu.HeaderTracestate, state.String())
	}
}
