package dapr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"google.golang.org/grpc/codes"
)

type events = rtv1.Dapr_SubscribeTopicEventsAlpha1Client

// streaming lets the door subscribe at the house's broker. What it answers tells when a subscription ends.
func (h *house) streaming() <-chan error {
	ended := make(chan error, 10)
	h.opt.Subscribe = func(r *http.Request, s quipu.SubscribeRequest, deliver func(context.Context, quipu.Event) quipu.Outcome) error {
		err := h.ns.Subscribe(r.Context(), s, deliver)
		ended <- err
		return err
	}
	return ended
}

func begin(pubsub, topic string, metadata map[string]string) *rtv1.SubscribeTopicEventsRequestAlpha1 {
	return &rtv1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_InitialRequest{
		InitialRequest: &rtv1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: pubsub, Topic: topic, Metadata: metadata}}}
}

// subscribe opens a stream and waits until the subscription is there.
func (c *callSide) subscribe(ctx context.Context, topic string, metadata map[string]string) events {
	c.t.Helper()
	s, err := c.SubscribeTopicEventsAlpha1(ctx)
	if err == nil {
		err = s.Send(begin("pubsub", topic, metadata))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	first, err := s.Recv()
	if err != nil || first.GetInitialResponse() == nil {
		c.t.Fatalf("%v %v", err, first)
	}
	return s
}

func (c *callSide) next(s events) *rtv1.TopicEventRequest {
	c.t.Helper()
	m, err := s.Recv()
	if err != nil || m.GetEventMessage() == nil {
		c.t.Fatalf("%v %v", err, m)
	}
	return m.GetEventMessage()
}

func (c *callSide) settle(s events, id string, o rtv1.TopicEventResponse_TopicEventResponseStatus) {
	c.t.Helper()
	if err := s.Send(&rtv1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_EventProcessed{
		EventProcessed: &rtv1.SubscribeTopicEventsRequestProcessedAlpha1{Id: id, Status: &rtv1.TopicEventResponse{Status: o}}}}); err != nil {
		c.t.Fatal(err)
	}
}

func TestEventsAreStreamedAndTheirOutcomesCount(t *testing.T) {
	h := open(t)
	ended := h.streaming()
	c := h.grpc()
	s := c.subscribe(c.as("shop"), "orders", nil)
	for i := range 3 {
		h.want(204, "", fmt.Sprintf("%sorders?metadata.cloudevent.id=e%d", pub, i), fmt.Sprintf(`{"n":%d}`, i), "Content-Type: application/json", "traceparent: tp")
	}
	e := c.next(s)
	if e.GetId() != "e0" || string(e.GetData()) != `{"n":0}` || e.GetTopic() != "orders" || e.GetPubsubName() != "pubsub" || e.GetType() != "com.dapr.event.sent" || e.GetPath() != "/" ||
		e.GetExtensions().GetFields()["traceparent"].GetStringValue() != "tp" {
		t.Errorf("%v", e)
	}
	c.settle(s, "nobody knows", rtv1.TopicEventResponse_SUCCESS)
	c.settle(s, "e0", rtv1.TopicEventResponse_RETRY)
	if e = c.next(s); e.GetId() != "e0" {
		t.Errorf("after RETRY comes %s", e.GetId())
	}
	c.settle(s, "e0", rtv1.TopicEventResponse_SUCCESS)
	if e = c.next(s); e.GetId() != "e1" {
		t.Errorf("after SUCCESS comes %s", e.GetId())
	}
	c.settle(s, "e1", rtv1.TopicEventResponse_DROP)
	if e = c.next(s); e.GetId() != "e2" {
		t.Errorf("after DROP comes %s", e.GetId())
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end that the client asked for: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the subscription: %v", err)
	}
	if info, err := h.ns.Topic(t.Context(), "orders"); err != nil || info.Subscriptions[0].Name != "shop" || info.Subscriptions[0].Lag != 1 {
		t.Errorf("e2 had no outcome: %v %+v", err, info)
	}
	again := c.subscribe(c.as("shop"), "orders", nil)
	if e = c.next(again); e.GetId() != "e2" {
		t.Errorf("a new stream goes on with %s", e.GetId())
	}
}

func TestASubscriptionIsToldAndRaw(t *testing.T) {
	h := open(t)
	var asked quipu.SubscribeRequest
	h.opt.AppID = func(*http.Request) string { return "own" }
	h.opt.Subscribe = func(r *http.Request, s quipu.SubscribeRequest, deliver func(context.Context, quipu.Event) quipu.Outcome) error {
		asked = s
		return h.ns.Subscribe(r.Context(), s, deliver)
	}
	c := h.grpc()
	s := c.subscribe(t.Context(), "raw", map[string]string{"rawPayload": "true"})
	if asked.Name != "own" || asked.Topic != "raw" || asked.InFlight != inFlightMax || asked.Retry.Max != quipu.RetriesDefault {
		t.Errorf("%+v", asked)
	}
	h.want(204, "", pub+"raw?metadata.rawPayload=true", "\x00\x01", "Content-Type: application/x-own")
	if e := c.next(s); string(e.GetData()) != "\x00\x01" || e.GetDataContentType() != "application/octet-stream" || e.GetId() == "" {
		t.Errorf("%v", e)
	}
}

func TestSeveralEventsWaitForTheirOutcomesAtOnceEvenWithOneID(t *testing.T) {
	h := open(t)
	outcomes := make(chan string, 4)
	h.opt.Subscribe = func(r *http.Request, s quipu.SubscribeRequest, deliver func(context.Context, quipu.Event) quipu.Outcome) error {
		s.Ready()
		for _, id := range []string{"a", "b", "same", "same"} {
			go func() {
				outcomes <- fmt.Sprintf("%s %d", id, deliver(r.Context(), quipu.Event{ID: id, Topic: s.Topic, ContentType: "text/plain"}))
			}()
		}
		<-r.Context().Done()
		return r.Context().Err()
	}
	c := h.grpc()
	s := c.subscribe(c.as("shop"), "t", nil)
	var ids []string
	for range 4 {
		ids = append(ids, c.next(s).GetId())
	}
	if slices.Sort(ids); !slices.Equal(ids, []string{"a", "b", "same", "same"}) {
		t.Fatalf("%q", ids)
	}
	c.settle(s, "b", rtv1.TopicEventResponse_DROP)
	if got := <-outcomes; got != fmt.Sprintf("b %d", quipu.Drop) {
		t.Errorf("%s", got)
	}
	c.settle(s, "a", rtv1.TopicEventResponse_SUCCESS)
	if got := <-outcomes; got != fmt.Sprintf("a %d", quipu.Ack) {
		t.Errorf("%s", got)
	}
	c.settle(s, "same", 99) // which nobody knows, so it failed
	c.settle(s, "same", rtv1.TopicEventResponse_SUCCESS)
	got := []string{<-outcomes, <-outcomes}
	if slices.Sort(got); !slices.Equal(got, []string{fmt.Sprintf("same %d", quipu.Retry), fmt.Sprintf("same %d", quipu.Ack)}) {
		t.Errorf("%q", got)
	}
}

func TestAStreamThatCannotBeIsRefused(t *testing.T) {
	h := open(t)
	none := h.grpc()
	h.opt.Subscribe = func(*http.Request, quipu.SubscribeRequest, func(context.Context, quipu.Event) quipu.Outcome) error {
		return &quipu.Error{Code: quipu.CodeSubscribed, Text: "function shop has it"}
	}
	c := h.grpc()
	h.opt.Session = func(*http.Request) (quipu.Session, error) { return nil, &quipu.Error{Code: quipu.CodeNoCall} }
	nobody := h.grpc()
	done := &rtv1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_EventProcessed{}}
	for _, x := range []struct {
		door         *callSide
		first        *rtv1.SubscribeTopicEventsRequestAlpha1
		code         codes.Code
		reason, says string
	}{
		{c, done, codes.InvalidArgument, "", "initial request is required"},
		{c, begin("", "t", nil), codes.InvalidArgument, "DAPR_PUBSUB_NAME_EMPTY", "pubsub name is empty"},
		{c, begin("kafka", "t", nil), codes.InvalidArgument, "DAPR_PUBSUB_NOT_FOUND", "pubsub kafka is not found"},
		{c, begin("pubsub", "", nil), codes.InvalidArgument, "DAPR_PUBSUB_TOPIC_NAME_EMPTY", "topic is empty"},
		{c, begin("pubsub", "t", map[string]string{"rawPayload": "maybe"}), codes.InvalidArgument, "DAPR_PUBSUB_METADATA_DESERIALIZATION", "valid boolean"},
		{c, begin("pubsub", "t", nil), codes.AlreadyExists, "ERR_PUBSUB_SUBSCRIBE", "function shop has it [Q0706]"},
		{none, begin("pubsub", "t", nil), codes.FailedPrecondition, "", "cannot be streamed"},
		{nobody, begin("pubsub", "t", nil), codes.FailedPrecondition, "", "cannot be streamed"},
	} {
		s, err := x.door.SubscribeTopicEventsAlpha1(x.door.as("shop"))
		if err == nil {
			err = s.Send(x.first)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		x.door.fails(err, x.code, x.reason, x.says)
	}
}

func TestASecondBeginningEndsTheStream(t *testing.T) {
	h := open(t)
	h.streaming()
	c := h.grpc()
	s := c.subscribe(c.as("shop"), "t", nil)
	if err := s.Send(begin("pubsub", "t", nil)); err != nil {
		t.Fatal(err)
	}
	_, err := s.Recv()
	c.fails(err, codes.InvalidArgument, "", "duplicate initial request received")
}

func TestADoorThatClosesEndsItsStreams(t *testing.T) {
	h := open(t)
	ended := h.streaming()
	c := h.grpc()
	s := c.subscribe(c.as("shop"), "t", nil)
	c.door.Close()
	_, err := s.Recv()
	c.fails(err, codes.Unavailable, "", "stopping")
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	late, err := c.SubscribeTopicEventsAlpha1(c.as("shop"))
	if err == nil {
		err = late.Send(begin("pubsub", "t", nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	for err == nil { // a greeting may come before the end
		_, err = late.Recv()
	}
	c.fails(err, codes.Unavailable, "", "stopping")
}
