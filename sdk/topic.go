package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/quipu-run/quipu"
)

// Publication is data on its way to a topic, with what its envelope is to say. Zero fields get defaults.
type Publication struct {
	Data        []byte
	ContentType string // quipu.MediaCloudEvent is an event already; "" is text

	ID, Type, Source, Subject string
	Extensions                map[string]string // more attributes of the event, by name

	TTL   time.Duration // after which it is not delivered any more
	Delay time.Duration // before which it is not delivered
	Raw   bool          // without an envelope
}

func (p Publication) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"id": p.ID, "type": p.Type, "source": p.Source, "subject": p.Subject} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, value := range map[string]time.Duration{"ttl": p.TTL, "delay": p.Delay} {
		if value != 0 {
			q.Set(name, value.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Extensions)) {
		q.Add("extension", name+"="+p.Extensions[name])
	}
	if p.Raw {
		q.Set("raw", "true")
	}
	return q
}

func topicPath(topic string, more ...string) (string, error) {
	path := "/topics"
	for _, name := range append([]string{topic}, more...) {
		if name == "" { // it would be another path
			return "", &quipu.Error{Code: quipu.CodeTopicName, Text: "the name of a topic, of a subscription or of a message is empty", Hint: "give its name"}
		}
		path += "/" + url.PathEscape(name)
	}
	return path, nil
}

// Publish publishes one event and answers its id; the event is durable then. The errors of quipu.Publisher, and
// CodeCloudEvent, CodeBadJSON, CodeBodySize.
func (c *Client) Publish(ctx context.Context, topic string, p Publication) (string, error) {
	out, err := c.publish(ctx, topic, p)
	return out.ID, err
}

// PublishBatch publishes CloudEvents in structured JSON, all or none, and answers their ids in order.
func (c *Client) PublishBatch(ctx context.Context, topic string, events []json.RawMessage, p Publication) ([]string, error) {
	data, err := json.Marshal(events)
	if err != nil {
		return nil, &quipu.Error{Code: quipu.CodeCloudEvent, Text: "an event of the batch is not JSON", Err: err}
	}
	p.Data, p.ContentType = data, quipu.MediaCloudBatch
	out, err := c.publish(ctx, topic, p)
	return out.IDs, err
}

func (c *Client) publish(ctx context.Context, topic string, p Publication) (Published, error) {
	path, err := topicPath(topic)
	if err != nil {
		return Published{}, err
	}
	header := http.Header{}
	if p.ContentType != "" {
		header.Set("Content-Type", p.ContentType)
	}
	return read[Published](ctx, c, request{method: http.MethodPost, path: path + "/events", query: p.query(), header: header, body: bytes.NewReader(p.Data)})
}

// CancelDelayed takes back a delayed message that is not due yet. CodeNotFound.
func (c *Client) CancelDelayed(ctx context.Context, topic, id string) error {
	path, err := topicPath(topic, "delayed", id)
	if err != nil {
		return err
	}
	return c.done(ctx, request{method: http.MethodDelete, path: path})
}

// Topics lists topics by name, with their subscriptions.
func (c *Client) Topics(ctx context.Context) ([]quipu.TopicInfo, error) {
	p, err := read[Page[quipu.TopicInfo]](ctx, c, c.get("/topics", nil))
	return p.Items, err
}

// Topic describes one. CodeNoTopic.
func (c *Client) Topic(ctx context.Context, name string) (quipu.TopicInfo, error) {
	path, err := topicPath(name)
	if err != nil {
		return quipu.TopicInfo{}, err
	}
	return read[quipu.TopicInfo](ctx, c, c.get(path, nil))
}

// RemoveTopic removes a topic with its events and subscriptions. CodeNoTopic.
func (c *Client) RemoveTopic(ctx context.Context, name string) error {
	path, err := topicPath(name)
	if err != nil {
		return err
	}
	return c.done(ctx, request{method: http.MethodDelete, path: path})
}

// Unsubscribe removes a durable subscription. CodeNoSubscription.
func (c *Client) Unsubscribe(ctx context.Context, topic, subscription string) error {
	path, err := topicPath(topic, "subscriptions", subscription)
	if err != nil {
		return err
	}
	return c.done(ctx, request{method: http.MethodDelete, path: path})
}

// Seek moves a subscription; from is as in EventsRequest. CodeNoSubscription.
func (c *Client) Seek(ctx context.Context, topic, subscription, from string) error {
	path, err := topicPath(topic, "subscriptions", subscription)
	if err != nil {
		return err
	}
	body, err := json.Marshal(SeekTo{From: from})
	if err != nil {
		return fmt.Errorf("seek: %w", err)
	}
	return c.done(ctx, request{method: http.MethodPost, path: path + "/seek", body: bytes.NewReader(body),
		header: http.Header{"Content-Type": {"application/json"}}})
}

// Redrive publishes dead letters again and answers how many. CodeNoTopic.
func (c *Client) Redrive(ctx context.Context, topic string) (int, error) {
	path, err := topicPath(topic)
	if err != nil {
		return 0, err
	}
	out, err := read[Redriven](ctx, c, request{method: http.MethodPost, path: path + "/redrive"})
	return out.Redriven, err
}

// EventsRequest says which events of a topic.
type EventsRequest struct {
	// From is end, earliest, an offset, a seq, a time in RFC 3339 or a duration ago as -1h; "" is end with Follow
	// and earliest without.
	From   string
	Follow bool // go on with new events
	Limit  int  // end after so many; 0 never
}

func (r EventsRequest) query() url.Values {
	q := url.Values{"follow": {strconv.FormatBool(r.Follow)}}
	if r.From != "" {
		q.Set("from", r.From)
	}
	if r.Limit > 0 {
		q.Set("limit", strconv.Itoa(r.Limit))
	}
	return q
}

// Events yields events of a topic and acknowledges nothing. An error, if any, comes last: CodeNoNode if the node
// stopped before the end, and then its hint says where to go on.
func (c *Client) Events(ctx context.Context, topic string, r EventsRequest) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		path, err := topicPath(topic)
		if err != nil {
			yield(Event{}, err)
			return
		}
		resp, err := c.send(ctx, c.get(path+"/events", r.query()))
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer resp.Body.Close()
		seen, next := 0, r.From
		for e, err := range func(yield func(Event, error) bool) { decodeLines(resp.Body, yield) } {
			if err != nil {
				yield(Event{}, c.brokeOff(ctx, "events", next, err))
				return
			}
			seen, next = seen+1, strconv.FormatUint(e.Offset+1, 10)
			if !yield(e, nil) {
				return
			}
		}
		if r.Follow && (r.Limit == 0 || seen < r.Limit) {
			yield(Event{}, c.brokeOff(ctx, "events", next, nil))
		}
	}
}

// brokeOff is why a stream ended before its time.
func (c *Client) brokeOff(ctx context.Context, what, next string, cause error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &quipu.Error{Code: quipu.CodeNoNode, Text: fmt.Sprintf("the node at %s ended the stream of %s", c.Address(), what), Err: cause}
	if next != "" {
		e.Hint = "when it is back, go on with --from " + next
	}
	return e
}
