package dapr

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/internal/component"
)

// Metadata of an operation that is about its event. Everything else of it becomes an attribute of the event, as in Dapr.
const (
	projectionKey  = "outbox.projection" // true: the value is that of the event, and is not kept
	contentTypeKey = "contentType"
)

// transactWithOutbox does all operations and publishes an event for each key that is written: one commit, where Dapr needs an
// internal topic and a marker in the store.
func (s *stateStore) transactWithOutbox(operations []operation, changes []quipu.Change, query map[string]string) error {
	ms, kept, err := s.events(operations, changes, query)
	if err != nil {
		return s.outboxProblem(err)
	}
	var notPublished error
	err = s.session.Together(s.r.Context(), func(g quipu.Group) error {
		notPublished = nil
		if err := g.Apply(s.r.Context(), s.store, kept); err != nil {
			return err
		}
		if len(ms) > 0 {
			notPublished = g.Publish(s.r.Context(), ms)
		}
		return notPublished
	})
	switch {
	case err == nil:
		return nil
	case notPublished != nil:
		return s.outboxProblem(notPublished)
	}
	return s.problem("ERR_STATE_TRANSACTION", "error while executing state transaction: ", err)
}

// events are what is published for changes, which are of operations in the same order, and the changes without projections.
func (s *stateStore) events(operations []operation, changes []quipu.Change, query map[string]string) (ms []quipu.Message, kept []quipu.Change, err error) {
	c, ok := component.Of[component.PubSub](s.set, s.outbox.PubSub)
	if !ok {
		return nil, nil, wrongOutbox("there is no pubsub " + s.outbox.PubSub)
	}
	if c.Foreign != nil || s.foreign {
		return nil, nil, wrongOutbox("an outbox needs a state store and a pubsub that are on the log")
	}
	projections := map[string]operation{}
	for _, o := range operations {
		if isProjection(o) {
			projections[o.Request.Key] = o
		}
	}
	for i, o := range operations {
		if isProjection(o) {
			continue
		}
		kept = append(kept, changes[i])
		if o.Operation != "upsert" {
			continue
		}
		m, err := s.event(o.Request, projections[o.Request.Key].Request, query)
		if err != nil {
			return nil, nil, err
		}
		m.Topic = c.Topics + m.Topic
		ms = append(ms, m)
	}
	return ms, kept, nil
}

func isProjection(o operation) bool {
	return o.Operation == "upsert" && isTruthy(o.Request.Metadata[projectionKey])
}

// event is of what is written, with the value of its projection if there is one.
func (s *stateStore) event(written, projection change, query map[string]string) (quipu.Message, error) {
	shown := written
	if projection.Key != "" {
		shown = projection
	}
	contentType, data := shown.content()
	metadata := merged(written.Metadata, query)
	to := destination{s.outbox.PubSub, s.outbox.Topic}
	a := attributes(s.r.Header, s.session.Function(), to, publication{contentType: contentType, metadata: metadata})
	a.Time, a.Extensions = s.d.opt.Clock.Now(), extensions(metadata)
	id, event, err := cloudevent.Wrap(a, data)
	return quipu.Message{Topic: to.topic, ID: id, ContentType: quipu.MediaCloudEvent, Data: event}, err
}

// content is a value as data of an event. A value without a content type is text if it is a text, number or flag, as in Dapr, and
// JSON if it is more, which Dapr would tell in a form that nobody reads.
func (c change) content() (contentType string, data []byte) {
	contentType = get(c.Metadata, contentTypeKey)
	data = c.Value
	text := ""
	isText := json.Unmarshal(data, &text) == nil && len(data) > 0 && data[0] == '"'
	switch {
	case contentType == "" && json.Valid(data) && (data[0] == '{' || data[0] == '['):
		return "application/json", data
	case isText && !cloudevent.IsJSON(contentType):
		return contentType, []byte(text)
	}
	return contentType, data
}

// extensions are the attributes that metadata sets by their own names.
func extensions(metadata map[string]string) map[string]string {
	out := map[string]string{}
	for name, value := range metadata {
		switch lower := strings.ToLower(name); {
		case strings.HasPrefix(lower, "cloudevent."), strings.HasPrefix(lower, "outbox."), strings.EqualFold(name, contentTypeKey), lower == "ttlinseconds":
		case lower == "id", lower == "topic", lower == "pubsubname", lower == "data", lower == "data_base64":
		default:
			out[name] = value
		}
	}
	return out
}

func wrongOutbox(text string) error {
	return &problem{status: http.StatusInternalServerError, message: text}
}

func (s *stateStore) outboxProblem(err error) error {
	const tag = "ERR_PUBLISH_OUTBOX"
	p := s.d.problem(s.r, tag, "", err)
	p.message, p.tag, p.reason, p.terse = "error while publishing outbox message: "+p.message, tag, "DAPR_PUBSUB_OUTBOX", false
	p.metadata = map[string]string{"appID": s.session.Function(), "error": p.message}
	return p
}
