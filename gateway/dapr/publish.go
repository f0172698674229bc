package dapr

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
)

// destination of a publication. Its errors are Dapr's words.
type destination struct{ pubsub, topic string }

// publication is one event as a client sends it, whatever protocol it came by.
type publication struct {
	entry       string // of a bulk
	contentType string
	data        []byte
	metadata    map[string]string
}

// place is a destination that there is, and that a request may publish to.
type place struct {
	destination
	component.PubSub
	session quipu.Session
}

// placeOf opens a destination for publishing.
func (d *Door) placeOf(r *http.Request, to destination, metadata map[string]string) (place, error) {
	session, err := d.opt.Session(r)
	if err != nil {
		return place{}, d.problem(r, "ERR_PUBSUB_PUBLISH_MESSAGE", "", err)
	}
	c, err := d.pubsub(r, to, metadata)
	if err != nil {
		return place{}, err
	}
	if app := session.Function(); !c.Scopes.MayPublish(app, to.topic) {
		return place{}, to.forbidden(app)
	}
	return place{to, c, session}, nil
}

// pubsub finds out whether there is such a place.
func (d *Door) pubsub(r *http.Request, to destination, metadata map[string]string) (component.PubSub, error) {
	set, err := d.set(r)
	if err != nil {
		return component.PubSub{}, d.problem(r, "ERR_PUBSUB_PUBLISH_MESSAGE", "", err)
	}
	c, ok := component.Of[component.PubSub](set, to.pubsub)
	return c, to.check(ok, metadata)
}

// failedEntry is one of a bulk that was not published.
type failedEntry struct {
	EntryID string `json:"entryId"`
	Error   string `json:"error,omitempty"`
}

// publishAll makes events of publications and publishes them together. Only a pub/sub that is not on the log may publish some
// of them and not others, which it answers.
func (d *Door) publishAll(r *http.Request, to place, ps []publication) ([]failedEntry, error) {
	if len(ps) > quipu.PublishMax {
		return nil, d.publishProblem(r, to.destination, &quipu.Error{Code: quipu.CodeTooMany, Text: fmt.Sprintf("there are %d events; the most at once is %d", len(ps), quipu.PublishMax)})
	}
	ms := make([]quipu.Message, 0, len(ps))
	for _, p := range ps {
		m, err := d.message(r, to.session.Function(), to.destination, p)
		if err != nil {
			return nil, err
		}
		m.Topic = to.Topics + m.Topic
		ms = append(ms, m)
	}
	if len(ms) == 0 {
		return nil, nil
	}
	if to.Foreign != nil {
		return d.publishAway(r, to, ps, ms)
	}
	if err := to.Guard.Run(r.Context(), func(ctx context.Context) error { return to.session.Publish(ctx, ms) }); err != nil {
		return nil, d.publishProblem(r, to.destination, err)
	}
	return nil, nil
}

// publishAway publishes one event after the other to where the topics of a component are.
func (d *Door) publishAway(r *http.Request, to place, ps []publication, ms []quipu.Message) (failed []failedEntry, err error) {
	for i, m := range ms {
		message := component.ForeignMessage{Topic: to.topic, ContentType: m.ContentType, Data: m.Data, Metadata: ps[i].metadata}
		e := to.Guard.Run(r.Context(), func(ctx context.Context) error { return to.Foreign.Publish(ctx, message) })
		if e == nil {
			continue
		}
		err = d.publishProblem(r, to.destination, e)
		failed = append(failed, failedEntry{ps[i].entry, err.Error()})
	}
	return failed, err
}

// message is a publication on its way to a topic, in its envelope unless it asks to be raw.
func (d *Door) message(r *http.Request, appID string, to destination, p publication) (quipu.Message, error) {
	m := quipu.Message{Topic: to.topic, ContentType: p.contentType, Data: p.data}
	raw, err := isRaw(p.metadata)
	if err == nil {
		m.TTL, err = ttlOf(p.metadata)
	}
	if err == nil {
		m.Delay, err = delayOf(p.metadata)
	}
	if err != nil {
		return m, to.metadataProblem(p.metadata, err)
	}
	if raw && !cloudevent.IsCloudEvent(p.contentType) {
		m.ID = cloudevent.NewID()
		return m, nil
	}
	a := attributes(r.Header, appID, to, p)
	a.Time = d.opt.Clock.Now()
	if m.TTL > 0 {
		a.Expiration = a.Time.Add(m.TTL)
	}
	var event []byte
	if cloudevent.IsCloudEvent(p.contentType) {
		m.ID, event, err = cloudevent.Complete(a, p.data)
	} else {
		m.ID, event, err = cloudevent.Wrap(a, p.data)
	}
	if err != nil {
		return m, to.eventProblem(appID, err)
	}
	if !raw { // what is raw was only checked
		m.Data = event
	}
	m.ContentType = quipu.MediaCloudEvent
	return m, nil
}

// attributes are what Dapr puts around data; some can be chosen in metadata, under any case.
func attributes(h http.Header, appID string, to destination, p publication) cloudevent.Attributes {
	a := cloudevent.Attributes{Source: appID, Type: cloudevent.TypeDefault, Fill: true, DataContentType: p.contentType, Topic: to.topic, PubSub: to.pubsub,
		TraceParent: h.Get(quipu.HeaderTraceparent), TraceState: h.Get(quipu.HeaderTracestate)}
	for name, value := range p.metadata {
		switch strings.ToLower(name) {
		case "cloudevent.id":
			a.ID = value
		case "cloudevent.source":
			a.Source = value
		case "cloudevent.type":
			a.Type = value
		case "cloudevent.subject":
			a.Subject = value
		case "cloudevent.tracestate":
			a.TraceState = value
		}
	}
	// Dapr gives both the same value; the newer name wins.
	if parent := get(p.metadata, "cloudevent.traceparent", "cloudevent.traceid"); parent != "" {
		a.TraceParent = parent
	}
	return a
}

// rawKey is an exact name in Dapr, unlike others.
const rawKey = "rawPayload"

func isRaw(metadata map[string]string) (bool, error) {
	value := metadata[rawKey]
	if value == "" {
		return false, nil
	}
	raw, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s value must be a valid boolean: actual is '%.40s'", rawKey, value)
	}
	return raw, nil
}

// get finds a value under one of its names in any case.
func get(metadata map[string]string, names ...string) string {
	for _, name := range names {
		for key, value := range metadata {
			if strings.EqualFold(key, name) && value != "" {
				return value
			}
		}
	}
	return ""
}

// ttlOf is a duration or seconds, more than none.
func ttlOf(metadata map[string]string) (time.Duration, error) {
	ttl, err := seconds(get(metadata, "ttl", "ttlInSeconds"))
	if err != nil {
		return 0, fmt.Errorf("ttlInSeconds %w", err)
	}
	return ttl, nil
}

// delayOf is ours: Dapr has no delayed events.
func delayOf(metadata map[string]string) (time.Duration, error) {
	delay, err := seconds(get(metadata, "delay", "delaySeconds"))
	if err != nil {
		return 0, fmt.Errorf("delaySeconds %w", err)
	}
	return delay, nil
}

// seconds reads whole seconds or a duration like 1m30s; "" is none.
func seconds(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	v, err := time.ParseDuration(text)
	if n, intErr := strconv.ParseInt(text, 10, 32); intErr == nil {
		v, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || v <= 0 {
		return 0, fmt.Errorf("must be a number of seconds above 0, or a duration like 1m30s: actual is '%.40s' [%s]", text, quipu.CodeTTL)
	}
	return v, nil
}

// check words what is wrong with a place; ok tells whether there is a component of that name.
func (to destination) check(ok bool, metadata map[string]string) error {
	if ok && to.pubsub != "" && to.topic != "" {
		return nil
	}
	if metadata == nil {
		metadata = map[string]string{} // which Dapr tells, too
	}
	p := &problem{status: http.StatusNotFound, code: codes.InvalidArgument, metadata: metadata}
	switch {
	case to.pubsub == "":
		p.tag, p.reason, p.message = "ERR_PUBSUB_EMPTY", "DAPR_PUBSUB_NAME_EMPTY", "pubsub name is empty"
	case !ok:
		p.tag, p.reason, p.message = "ERR_PUBSUB_NOT_FOUND", "DAPR_PUBSUB_NOT_FOUND", "pubsub "+to.pubsub+" is not found"
		return p
	default:
		p.tag, p.reason, p.message = "ERR_TOPIC_NAME_EMPTY", "DAPR_PUBSUB_TOPIC_NAME_EMPTY", "topic is empty in pubsub "+to.pubsub
	}
	return to.about(p)
}

// forbidden is of a topic that is out of the scopes of an app.
func (to destination) forbidden(app string) error {
	text := fmt.Sprintf("topic %s is not allowed for app id %s", to.topic, app)
	return to.about(&problem{status: http.StatusForbidden, tag: "ERR_PUBSUB_FORBIDDEN", reason: "DAPR_PUBSUB_FORBIDDEN", message: text,
		metadata: map[string]string{"topic": to.topic, "error": text}})
}

// about names the pub/sub component in a problem, as Dapr does.
func (to destination) about(p *problem) *problem {
	p.resource = &errdetails.ResourceInfo{ResourceType: "pubsub", ResourceName: to.pubsub, Description: p.message}
	return p
}

func (to destination) metadataProblem(metadata map[string]string, err error) error {
	return to.about(&problem{status: http.StatusBadRequest, tag: "ERR_PUBSUB_REQUEST_METADATA", reason: "DAPR_PUBSUB_METADATA_DESERIALIZATION",
		metadata: metadata, message: fmt.Sprintf("failed deserializing metadata. Error: %v", err)})
}

func (to destination) eventProblem(appID string, err error) error {
	e := quipu.AsError(err)
	return to.about(&problem{status: http.StatusBadRequest, tag: "ERR_PUBSUB_CLOUD_EVENTS_SER", reason: "DAPR_PUBSUB_CLOUD_EVENT_CREATION",
		metadata: map[string]string{"appID": appID, "error": e.Text}, message: "cannot create cloudevent: " + text(e.Text, e.Code)})
}

// bulkProblem is of a bulk whose parts cannot be read; reason tells at which step.
func (to destination) bulkProblem(reason, format string, err error) error {
	return to.about(&problem{status: http.StatusBadRequest, tag: "ERR_PUBSUB_EVENTS_SER", reason: reason,
		metadata: map[string]string{"error": err.Error()}, message: fmt.Sprintf(format, to.topic, to.pubsub, err)})
}

func (d *Door) publishProblem(r *http.Request, to destination, err error) error {
	p := d.problem(r, "ERR_PUBSUB_PUBLISH_MESSAGE", fmt.Sprintf("error when publishing to topic %s in pubsub %s: ", to.topic, to.pubsub), err)
	p.terse, p.reason = false, "DAPR_PUBSUB_PUBLISH_MESSAGE"
	p.metadata = map[string]string{"topic": to.topic, "error": quipu.Codes[quipu.CodeOf(err)].Title}
	return to.about(p)
}

// distinct checks that each entry of a bulk can be told from the others.
func (to destination) distinct(ps []publication) error {
	seen := make(map[string]bool, len(ps))
	for _, p := range ps {
		if p.entry == "" || seen[p.entry] {
			return to.bulkProblem("DAPR_PUBSUB_MARSHAL_EVENTS", "error marshaling events to bytes for topic %s pubsub %s. error: %v",
				errors.New("entryId is duplicated or not present for entry"))
		}
		seen[p.entry] = true
	}
	return nil
}

// merged is the metadata of a request with an entry's own over it.
func merged(request, entry map[string]string) map[string]string {
	out := make(map[string]string, len(request)+len(entry))
	for _, from := range []map[string]string{request, entry} {
		for name, value := range from {
			out[name] = value
		}
	}
	return out
}
