package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/dapr/components-contrib/pubsub"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
)

// contentType is of what the suite publishes: texts.
const contentType = "text/plain"

// publisher is what both pub/sub adapters have. A bulk subscription is an application of its own, since only those may have
// one, and so is every subscription over HTTP.
type publisher struct {
	component
	properties map[string]string
	subscriber atomic.Int32 // number of the last
	turn       sync.Mutex   // of a handler: those of the suite share what they count
}

// inTurn calls a handler when no other one runs.
func (p *publisher) inTurn(handle func()) {
	p.turn.Lock()
	defer p.turn.Unlock()
	handle()
}

func (p *publisher) Init(_ context.Context, m pubsub.Metadata) error {
	p.properties = m.Properties
	return p.declare(m.Properties)
}

// Features are the capabilities that the node tells of.
func (p *publisher) Features() (all []pubsub.Feature) {
	told, err := p.capabilities(p.t.Context())
	if err != nil {
		p.t.Error(err)
	}
	for _, one := range told {
		all = append(all, pubsub.Feature(one))
	}
	return all
}

// subscribe makes an application that is subscribed to a topic, in a file, until ctx ends.
func (p *publisher) subscribe(ctx context.Context, is program, r pubsub.SubscribeRequest, bulk bool) error {
	resources := p.resources(p.properties)
	spec := map[string]any{"pubsubname": p.name, "topic": r.Topic, "metadata": r.Metadata, "routes": map[string]string{"default": "/events"}}
	if bulk {
		spec["bulkSubscribe"] = map[string]any{"enabled": true, "maxMessagesCount": r.BulkSubscribeConfig.MaxMessagesCount, "maxAwaitDurationMs": r.BulkSubscribeConfig.MaxAwaitDurationMs}
	}
	resources["subscription.yaml"] = document(map[string]any{"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription",
		"metadata": map[string]string{"name": "suite"}, "spec": spec})
	a, err := attach(p.t, p.node, fmt.Sprintf("%s-%d", p.name, p.subscriber.Add(1)), is, resources, "")
	if err == nil {
		context.AfterFunc(ctx, a.gone)
	}
	return err
}

// streams is a pub/sub over gRPC: a subscription is a stream.
type streams struct{ publisher }

func (p *streams) Publish(ctx context.Context, r *pubsub.PublishRequest) error {
	_, err := p.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: p.name, Topic: r.Topic, Data: r.Data, DataContentType: contentType, Metadata: r.Metadata})
	return err
}

func (p *streams) BulkPublish(ctx context.Context, r *pubsub.BulkPublishRequest) (out pubsub.BulkPublishResponse, err error) {
	in := &rtv1.BulkPublishRequest{PubsubName: p.name, Topic: r.Topic, Metadata: r.Metadata}
	for _, e := range r.Entries {
		in.Entries = append(in.Entries, &rtv1.BulkPublishRequestEntry{EntryId: e.EntryId, Event: e.Event, ContentType: e.ContentType, Metadata: e.Metadata})
	}
	got, err := p.BulkPublishEvent(ctx, in)
	for _, e := range got.GetFailedEntries() {
		out.FailedEntries = append(out.FailedEntries, pubsub.BulkPublishResponseFailedEntry{EntryId: e.GetEntryId(), Error: errors.New(e.GetError())})
	}
	return out, err
}

// Subscribe returns when the stream is known to the node.
func (p *streams) Subscribe(ctx context.Context, r pubsub.SubscribeRequest, handle pubsub.Handler) error {
	stream, err := p.SubscribeTopicEventsAlpha1(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&rtv1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_InitialRequest{
		InitialRequest: &rtv1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: p.name, Topic: r.Topic, Metadata: r.Metadata}}})
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil { // what it begins with
		return err
	}
	var taking sync.WaitGroup
	p.t.Cleanup(taking.Wait)
	taking.Go(func() {
		for {
			got, err := stream.Recv()
			if err != nil {
				if ctx.Err() == nil {
					p.t.Errorf("the stream of %s: %v", r.Topic, err)
				}
				return
			}
			e := got.GetEventMessage()
			var judged error
			p.inTurn(func() { judged = handle(ctx, messageOf(e)) })
			if err := stream.Send(answer(e.GetId(), judged)); err != nil && ctx.Err() == nil {
				p.t.Errorf("answer an event of %s: %v", r.Topic, err)
			}
		}
	})
	return nil
}

func messageOf(e *rtv1.TopicEventRequest) *pubsub.NewMessage {
	kind := e.GetDataContentType()
	return &pubsub.NewMessage{Topic: e.GetTopic(), Data: e.GetData(), ContentType: &kind}
}

func answer(id string, err error) *rtv1.SubscribeTopicEventsRequestAlpha1 {
	return &rtv1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_EventProcessed{
		EventProcessed: &rtv1.SubscribeTopicEventsRequestProcessedAlpha1{Id: id, Status: &rtv1.TopicEventResponse{Status: outcome(err)}}}}
}

func outcome(err error) rtv1.TopicEventResponse_TopicEventResponseStatus {
	if err != nil {
		return rtv1.TopicEventResponse_RETRY
	}
	return rtv1.TopicEventResponse_SUCCESS
}

// BulkSubscribe is an application over gRPC.
func (p *streams) BulkSubscribe(ctx context.Context, r pubsub.SubscribeRequest, handle pubsub.BulkHandler) error {
	return p.subscribe(ctx, rpc(p.t, func(s *grpc.Server) { rtv1.RegisterAppCallbackServer(s, &bulkTaker{handle: handle, p: &p.publisher}) }), r, true)
}

type bulkTaker struct {
	rtv1.UnimplementedAppCallbackServer
	handle pubsub.BulkHandler
	p      *publisher
}

func (b *bulkTaker) OnBulkTopicEvent(ctx context.Context, in *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
	m := &pubsub.BulkMessage{Topic: in.GetTopic(), Metadata: in.GetMetadata()}
	for _, e := range in.GetEntries() {
		data := e.GetBytes()
		if c := e.GetCloudEvent(); c != nil {
			data = c.GetData()
		}
		m.Entries = append(m.Entries, pubsub.BulkMessageEntry{EntryId: e.GetEntryId(), Event: data, ContentType: e.GetContentType(), Metadata: e.GetMetadata()})
	}
	out := &rtv1.TopicEventBulkResponse{}
	var said []pubsub.BulkSubscribeResponseEntry
	b.p.inTurn(func() { said, _ = b.handle(ctx, m) }) // each outcome is told
	for _, one := range said {
		out.Statuses = append(out.Statuses, &rtv1.TopicEventBulkResponseEntry{EntryId: one.EntryId, Status: outcome(one.Error)})
	}
	return out, nil
}

// posts is a pub/sub over HTTP: a subscription is an application.
type posts struct{ publisher }

func (p *posts) Publish(ctx context.Context, r *pubsub.PublishRequest) error {
	_, _, err := p.do(ctx, http.MethodPost, "/v1.0/publish/"+p.name+"/"+url.PathEscape(r.Topic)+about(r.Metadata), http.Header{"Content-Type": {contentType}}, r.Data)
	return err
}

func (p *posts) BulkPublish(ctx context.Context, r *pubsub.BulkPublishRequest) (out pubsub.BulkPublishResponse, err error) {
	type entry struct {
		EntryID     string            `json:"entryId"`
		Event       string            `json:"event"`
		ContentType string            `json:"contentType"`
		Metadata    map[string]string `json:"metadata,omitempty"`
	}
	var in []entry
	for _, e := range r.Entries {
		in = append(in, entry{e.EntryId, string(e.Event), e.ContentType, e.Metadata})
	}
	return out, p.ask(ctx, http.MethodPost, "/v1.0/publish/bulk/"+p.name+"/"+url.PathEscape(r.Topic)+about(r.Metadata), in, nil)
}

// cloudEvent is what an application gets.
type cloudEvent struct {
	Data            string `json:"data"`
	DataContentType string `json:"datacontenttype"`
}

func (p *posts) Subscribe(ctx context.Context, r pubsub.SubscribeRequest, handle pubsub.Handler) error {
	return p.subscribe(ctx, web(p.t, events(func(w http.ResponseWriter, in *http.Request, e cloudEvent) {
		var err error
		p.inTurn(func() {
			err = handle(in.Context(), &pubsub.NewMessage{Topic: r.Topic, Data: []byte(e.Data), ContentType: &e.DataContentType})
		})
		fmt.Fprintf(w, `{"status":"%s"}`, outcome(err))
	})), r, false)
}

// bulkEvent is what an application with a bulk subscription gets.
type bulkEvent struct {
	Topic   string `json:"topic"`
	Entries []struct {
		EntryID     string     `json:"entryId"`
		Event       cloudEvent `json:"event"`
		ContentType string     `json:"contentType"`
	} `json:"entries"`
}

func (p *posts) BulkSubscribe(ctx context.Context, r pubsub.SubscribeRequest, handle pubsub.BulkHandler) error {
	return p.subscribe(ctx, web(p.t, events(func(w http.ResponseWriter, in *http.Request, b bulkEvent) {
		m := &pubsub.BulkMessage{Topic: b.Topic}
		for _, e := range b.Entries {
			m.Entries = append(m.Entries, pubsub.BulkMessageEntry{EntryId: e.EntryID, Event: []byte(e.Event.Data), ContentType: e.ContentType})
		}
		type status struct {
			EntryID string `json:"entryId"`
			Status  string `json:"status"`
		}
		var out struct {
			Statuses []status `json:"statuses"`
		}
		var said []pubsub.BulkSubscribeResponseEntry
		p.inTurn(func() { said, _ = handle(in.Context(), m) }) // each outcome is told
		for _, one := range said {
			out.Statuses = append(out.Statuses, status{one.EntryId, outcome(one.Error).String()})
		}
		_ = json.NewEncoder(w).Encode(out) // the node asks again if it does not hear
	})), r, true)
}

// events serves /events, and nothing else.
func events[Event any](take func(http.ResponseWriter, *http.Request, Event)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /events", func(w http.ResponseWriter, r *http.Request) {
		var e Event
		body, err := io.ReadAll(io.LimitReader(r.Body, replyBytesMax))
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		take(w, r, e)
	})
	return mux
}
