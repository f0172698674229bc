package dapr

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/internal/component"
	"github.com/quipu-run/quipu/internal/daprevent"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// inFlightMax is how many events of a stream wait for their outcome at once.
const inFlightMax = 100

var errClosing = status.Error(codes.Unavailable, "the node is stopping, or the instance is")

// SubscribeTopicEventsAlpha1 delivers the events of a topic to a client, and takes their outcomes, until one of the
// two ends the stream. The subscription has the app's id and outlives the stream: what comes meanwhile is
// delivered to the next one. An event without an outcome at the end is delivered again.
func (s *runtime) SubscribeTopicEventsAlpha1(stream rtv1.Dapr_SubscribeTopicEventsAlpha1Server) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	r := requestOf(stream.Context())
	ask, err := s.d.streamOf(r, first.GetInitialRequest())
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	defer context.AfterFunc(s.d.closing, func() { end(errClosing) })()
	e := &eventStream{stream: stream, streamRequest: ask, waiting: map[string][]chan quipu.Outcome{}}
	ready := func() {
		if err := e.send(initial); err != nil {
			end(err)
		}
	}
	go func() { end(e.receive()) }() // Recv ends with the stream, which is when this method returns
	if ask.Foreign != nil {
		ready()
		err = e.subscribeAway(ctx)
	} else {
		ask.SubscribeRequest.Ready = ready
		err = s.d.opt.Subscribe(r.WithContext(ctx), ask.SubscribeRequest, e.deliver)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return s.d.endOf(r, err)
}

// endOf is how the client is told why its stream ended.
func (d *Door) endOf(r *http.Request, err error) error {
	if errors.Is(err, io.EOF) { // it has said itself that it wants no more
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return d.problem(r, "ERR_PUBSUB_SUBSCRIBE", "", err)
}

// initial tells the client that the subscription is there.
var initial = &rtv1.SubscribeTopicEventsResponseAlpha1{SubscribeTopicEventsResponseType: &rtv1.SubscribeTopicEventsResponseAlpha1_InitialResponse{
	InitialResponse: &rtv1.SubscribeTopicEventsResponseInitialAlpha1{}}}

// streamRequest is what a client asks for, checked.
type streamRequest struct {
	destination
	component.PubSub
	quipu.SubscribeRequest
	raw      bool
	metadata map[string]string
}

// streamOf checks what a client asks for.
func (d *Door) streamOf(r *http.Request, in *rtv1.SubscribeTopicEventsRequestInitialAlpha1) (streamRequest, error) {
	if in == nil {
		return streamRequest{}, status.Error(codes.InvalidArgument, "initial request is required")
	}
	to := destination{in.GetPubsubName(), in.GetTopic()}
	c, err := d.pubsub(r, to, in.GetMetadata())
	if err != nil {
		return streamRequest{}, err
	}
	raw, err := isRaw(in.GetMetadata())
	if err != nil {
		return streamRequest{}, to.metadataProblem(in.GetMetadata(), err)
	}
	app, err := d.appID(r)
	if err != nil {
		return streamRequest{}, d.problem(r, "ERR_PUBSUB_SUBSCRIBE", "", err)
	}
	if app == "" || d.opt.Subscribe == nil && c.Foreign == nil {
		return streamRequest{}, status.Error(codes.FailedPrecondition, "events cannot be streamed here")
	}
	if !c.Scopes.MaySubscribe(app, to.topic) {
		return streamRequest{}, status.Errorf(codes.PermissionDenied, "subscription to topic '%s' on pubsub '%s' is not allowed", to.topic, to.pubsub)
	}
	ask := quipu.SubscribeRequest{Topic: c.Topics + to.topic, Name: app, InFlight: inFlightMax, Earliest: c.Earliest,
		Retry: quipu.RetrySpec{Max: quipu.RetriesDefault, Backoff: quipu.Duration(quipu.BackoffDefault)}}
	if c.Consumer != "" {
		ask.Name = c.Consumer
	}
	if dead := in.GetDeadLetterTopic(); dead != "" {
		ask.DeadLetter = c.Topics + dead
	}
	return streamRequest{to, c, ask, raw, in.GetMetadata()}, nil
}

// eventStream is an open stream of events.
type eventStream struct {
	stream rtv1.Dapr_SubscribeTopicEventsAlpha1Server
	streamRequest

	sending sync.Mutex // one message at a time

	mu      sync.Mutex                      // guards waiting
	waiting map[string][]chan quipu.Outcome // by id of the event, which two may share; in order of sending
}

func (e *eventStream) send(m *rtv1.SubscribeTopicEventsResponseAlpha1) error {
	e.sending.Lock()
	defer e.sending.Unlock()
	return e.stream.Send(m)
}

// deliver sends an event and waits for its outcome.
func (e *eventStream) deliver(ctx context.Context, event quipu.Event) quipu.Outcome {
	m, err := daprevent.FromEvent(event, e.raw)
	if err != nil {
		return quipu.Drop // it will never be one that can be told
	}
	m.Path = "/"
	e.name(m)
	done := make(chan quipu.Outcome, 1)
	e.mu.Lock()
	e.waiting[m.Id] = append(e.waiting[m.Id], done)
	e.mu.Unlock()
	err = e.send(&rtv1.SubscribeTopicEventsResponseAlpha1{SubscribeTopicEventsResponseType: &rtv1.SubscribeTopicEventsResponseAlpha1_EventMessage{EventMessage: m}})
	if err != nil {
		return quipu.Retry // the stream is broken, so nobody looks at waiting any more
	}
	select {
	case outcome := <-done:
		return outcome
	case <-ctx.Done():
		return quipu.Retry
	}
}

// name tells the topic and the pub/sub by the names that the application knows.
func (e *eventStream) name(m *rtv1.TopicEventRequest) {
	m.Topic, m.PubsubName = e.topic, e.pubsub
	for name, value := range map[string]string{"topic": e.topic, "pubsubname": e.pubsub} {
		if m.GetExtensions().GetFields()[name] != nil {
			m.Extensions.Fields[name] = structpb.NewStringValue(value)
		}
	}
}

var errRetry = errors.New("the application asked for the event again")

// subscribeAway takes events from where the topics of a component are. What is given up goes to the dead-letter topic, if there
// is one.
func (e *eventStream) subscribeAway(ctx context.Context) error {
	return e.Foreign.Subscribe(ctx, e.topic, e.metadata, func(ctx context.Context, m component.ForeignMessage) error {
		event := quipu.Event{Topic: e.topic, ID: cloudevent.NewID(), ContentType: m.ContentType, Data: m.Data}
		if p, err := daprevent.Parse(m.Data); err == nil && p.GetId() != "" && p.GetSpecVersion() != "" && !e.raw {
			event.ContentType = quipu.MediaCloudEvent // brokers forget content types
		}
		switch e.deliver(ctx, event) {
		case quipu.Ack:
			return nil
		case quipu.Drop:
			if e.DeadLetter == "" {
				return nil
			}
			m.Topic = e.DeadLetter
			return e.Foreign.Publish(ctx, m)
		}
		return errRetry
	})
}

// receive takes outcomes until the client ends the stream.
func (e *eventStream) receive() error {
	for {
		in, err := e.stream.Recv()
		if err != nil {
			return err
		}
		done := in.GetEventProcessed()
		if done == nil {
			return status.Error(codes.InvalidArgument, "duplicate initial request received")
		}
		e.settle(done.GetId(), outcomeOf(done.GetStatus().GetStatus()))
	}
}

// settle gives an outcome to the oldest event of an id. One for an event that nobody waits for means nothing.
func (e *eventStream) settle(id string, o quipu.Outcome) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.waiting[id]
	if len(all) == 0 {
		return
	}
	all[0] <- o
	if e.waiting[id] = all[1:]; len(all) == 1 {
		delete(e.waiting, id)
	}
}

// outcomeOf takes what it does not know for a failure.
func outcomeOf(s rtv1.TopicEventResponse_TopicEventResponseStatus) quipu.Outcome {
	switch s {
	case rtv1.TopicEventResponse_SUCCESS:
		return quipu.Ack
	case rtv1.TopicEventResponse_DROP:
		return quipu.Drop
	}
	return quipu.Retry
}
