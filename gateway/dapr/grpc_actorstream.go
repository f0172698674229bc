package dapr

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// actorRequestsMax is how many requests of a stream wait for their answers at once.
const actorRequestsMax = 10_000

// SubscribeActorEventsAlpha1 lets an application host actors without a port of its own: requests to them go out on the stream, and
// answers come in, in any order. When it ends, the actors that live there leave it.
func (s *runtime) SubscribeActorEventsAlpha1(stream rtv1.Dapr_SubscribeActorEventsAlpha1Server) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetInitialRequest() == nil {
		return status.Error(codes.InvalidArgument, "first message must be SubscribeActorEventsRequestInitialAlpha1")
	}
	types, err := typesOf(first.GetInitialRequest())
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	defer context.AfterFunc(s.d.closing, func() { end(errClosing) })()
	h := &actorStream{stream: stream, over: ctx, waiting: map[string]chan *rtv1.SubscribeActorEventsRequestAlpha1{}}
	leave, err := s.d.actorsOf(requestOf(stream.Context())).Serve(types, h.do)
	if err != nil {
		return status.Errorf(codes.Internal, "failed to register hosted actors: %s", quipu.AsError(err).Error())
	}
	go func() { end(h.receive()) }() // Recv ends with the stream, which is when this method returns
	if err := h.send(registeredActors); err != nil {
		end(err)
	}
	<-ctx.Done()
	leave()
	return s.d.endOf(requestOf(stream.Context()), context.Cause(ctx))
}

// registeredActors tells the application that it hosts now.
var registeredActors = &rtv1.SubscribeActorEventsResponseAlpha1{ResponseType: &rtv1.SubscribeActorEventsResponseAlpha1_InitialResponse{
	InitialResponse: &rtv1.SubscribeActorEventsResponseInitialAlpha1{}}}

// typesOf is what the first message says: what holds for a type by itself, or else for all.
func typesOf(in *rtv1.SubscribeActorEventsRequestInitialAlpha1) (all []quipu.ActorType, err error) {
	if len(in.GetEntities()) > quipu.ActorTypesMax {
		return nil, status.Errorf(codes.InvalidArgument, "there may be %d types of actors", quipu.ActorTypesMax)
	}
	seen := map[string]bool{}
	for _, name := range in.GetEntities() {
		if name == "" || len(name) > quipu.ActorTypeMax || strings.HasPrefix(name, reservedActors) {
			return nil, status.Errorf(codes.InvalidArgument, "%.80q cannot be a type of actors", name)
		}
		if !seen[name] {
			all = append(all, typeOf(in, name))
		}
		seen[name] = true
	}
	return all, nil
}

func typeOf(in *rtv1.SubscribeActorEventsRequestInitialAlpha1, name string) quipu.ActorType {
	idle, drain, reentrancy := in.GetActorIdleTimeout(), in.GetDrainOngoingCallTimeout(), in.GetReentrancy()
	for _, e := range in.GetEntitiesConfig() {
		for _, entity := range e.GetEntities() {
			if entity == name {
				idle, reentrancy = e.GetActorIdleTimeout(), e.GetReentrancy()
				if e.GetDrainOngoingCallTimeout() != nil {
					drain = e.GetDrainOngoingCallTimeout()
				}
			}
		}
	}
	t := quipu.ActorType{Type: name, Idle: durationOf(idle, quipu.Duration(quipu.ActorIdleDefault)), Drain: durationOf(drain, quipu.Duration(quipu.ActorDrainDefault)),
		Reentrant: reentrancy.GetEnabled(), Depth: quipu.ActorDepthDefault}
	if reentrancy != nil && reentrancy.MaxStackDepth != nil {
		t.Depth = int(reentrancy.GetMaxStackDepth())
	}
	if in.DrainRebalancedActors != nil && !in.GetDrainRebalancedActors() {
		t.Drain = 0
	}
	return t
}

func durationOf(d *durationpb.Duration, or quipu.Duration) quipu.Duration {
	if d == nil || d.AsDuration() < 0 {
		return or
	}
	return quipu.Duration(d.AsDuration())
}

// actorStream is an application that answers requests to its actors on a stream.
type actorStream struct {
	stream rtv1.Dapr_SubscribeActorEventsAlpha1Server
	over   context.Context // ends with the stream

	sending sync.Mutex // one message at a time

	mu      sync.Mutex // guards the fields below
	next    uint64
	waiting map[string]chan *rtv1.SubscribeActorEventsRequestAlpha1
}

func (h *actorStream) send(m *rtv1.SubscribeActorEventsResponseAlpha1) error {
	h.sending.Lock()
	defer h.sending.Unlock()
	return h.stream.Send(m)
}

// do is the request of a turn, or that an actor leaves, as a message, and its answer as a reply of HTTP.
func (h *actorStream) do(r *http.Request) (*http.Response, error) {
	body, err := readAll(r)
	if err != nil {
		return nil, err
	}
	id, answer, err := h.enlist()
	if err != nil {
		return nil, err
	}
	defer h.strike(id)
	m, err := actorMessage(id, r, body)
	if err != nil {
		return nil, err
	}
	if err := h.send(m); err != nil {
		return nil, h.broke(err)
	}
	select {
	case a := <-answer:
		return actorResponse(r, a), nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-h.over.Done():
		return nil, h.broke(context.Cause(h.over))
	}
}

func readAll(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

func (h *actorStream) broke(err error) error {
	return &quipu.Error{Code: quipu.CodeCrashed, Op: "instance.request", Text: "the stream of the actors' host ended before it answered", Err: err}
}

func (h *actorStream) enlist() (id string, answer chan *rtv1.SubscribeActorEventsRequestAlpha1, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) >= actorRequestsMax {
		return "", nil, &quipu.Error{Code: quipu.CodeBusy, Op: "instance.request", Text: fmt.Sprintf("%d requests wait for the answer of the actors' host", actorRequestsMax)}
	}
	h.next++
	id, answer = strconv.FormatUint(h.next, 10), make(chan *rtv1.SubscribeActorEventsRequestAlpha1, 1)
	h.waiting[id] = answer
	return id, answer, nil
}

func (h *actorStream) strike(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiting, id)
}

// receive takes answers until the application ends the stream. One that nobody waits for means nothing.
func (h *actorStream) receive() error {
	for {
		in, err := h.stream.Recv()
		if err != nil {
			return err
		}
		h.mu.Lock()
		answer := h.waiting[answerID(in)]
		delete(h.waiting, answerID(in))
		h.mu.Unlock()
		if answer != nil {
			answer <- in
		}
	}
}

// answerID is the id of the request that a message answers, "" if it answers none.
func answerID(in *rtv1.SubscribeActorEventsRequestAlpha1) string {
	switch v := in.GetRequestType().(type) {
	case *rtv1.SubscribeActorEventsRequestAlpha1_InvokeResponse:
		return v.InvokeResponse.GetId()
	case *rtv1.SubscribeActorEventsRequestAlpha1_ReminderResponse:
		return v.ReminderResponse.GetId()
	case *rtv1.SubscribeActorEventsRequestAlpha1_TimerResponse:
		return v.TimerResponse.GetId()
	case *rtv1.SubscribeActorEventsRequestAlpha1_DeactivateResponse:
		return v.DeactivateResponse.GetId()
	case *rtv1.SubscribeActorEventsRequestAlpha1_RequestFailed:
		return v.RequestFailed.GetId()
	}
	return ""
}

// actorMessage is a request below /actors/TYPE/ID as a message.
func actorMessage(id string, r *http.Request, body []byte) (*rtv1.SubscribeActorEventsResponseAlpha1, error) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/", 5)
	if len(parts) < 3 {
		return nil, fmt.Errorf("dapr: %s is no path of an actor", r.URL.Path)
	}
	actorType, actorID := unescape(parts[1]), unescape(parts[2])
	out := &rtv1.SubscribeActorEventsResponseAlpha1{}
	if r.Method == http.MethodDelete || len(parts) < 5 {
		out.ResponseType = &rtv1.SubscribeActorEventsResponseAlpha1_DeactivateRequest{DeactivateRequest: &rtv1.SubscribeActorEventsResponseDeactivateRequestAlpha1{
			Id: id, ActorType: actorType, ActorId: actorID}}
		return out, nil
	}
	what, name, _ := strings.Cut(parts[4], "/")
	trigger, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get(quipu.HeaderTrigger), "actor/"), "/")
	if name == "" || trigger != "reminder" && trigger != "timer" {
		out.ResponseType = &rtv1.SubscribeActorEventsResponseAlpha1_InvokeRequest{InvokeRequest: &rtv1.SubscribeActorEventsResponseInvokeRequestAlpha1{
			Id: id, ActorType: actorType, ActorId: actorID, Method: unescape(parts[4]), Data: body, Metadata: firstValues(r.Header)}}
		return out, nil
	}
	var in struct {
		Callback string          `json:"callback"`
		Data     json.RawMessage `json:"data"`
		DueTime  string          `json:"dueTime"`
		Period   string          `json:"period"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	data, err := anyOf(in.Data, r.Header.Get("Quipu-Data-Type"))
	if err != nil {
		return nil, err
	}
	if what == "timer" {
		out.ResponseType = &rtv1.SubscribeActorEventsResponseAlpha1_TimerRequest{TimerRequest: &rtv1.SubscribeActorEventsResponseTimerRequestAlpha1{
			Id: id, ActorType: actorType, ActorId: actorID, Name: unescape(name), DueTime: in.DueTime, Period: in.Period, Callback: in.Callback, Data: data}}
		return out, nil
	}
	out.ResponseType = &rtv1.SubscribeActorEventsResponseAlpha1_ReminderRequest{ReminderRequest: &rtv1.SubscribeActorEventsResponseReminderRequestAlpha1{
		Id: id, ActorType: actorType, ActorId: actorID, Name: unescape(name), DueTime: in.DueTime, Period: in.Period, Data: data}}
	return out, nil
}

func firstValues(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		if len(values) > 0 {
			out[name] = values[0]
		}
	}
	return out
}

// actorResponse is an answer as a reply of HTTP.
func actorResponse(r *http.Request, in *rtv1.SubscribeActorEventsRequestAlpha1) *http.Response {
	h, code, body := http.Header{}, http.StatusOK, []byte{}
	switch v := in.GetRequestType().(type) {
	case *rtv1.SubscribeActorEventsRequestAlpha1_InvokeResponse:
		for name, value := range v.InvokeResponse.GetMetadata() {
			h.Set(name, value)
		}
		if body = v.InvokeResponse.GetData(); v.InvokeResponse.GetError() {
			h.Set(actorError, "true")
		}
	case *rtv1.SubscribeActorEventsRequestAlpha1_ReminderResponse:
		cancelled(h, v.ReminderResponse.GetCancel())
	case *rtv1.SubscribeActorEventsRequestAlpha1_TimerResponse:
		cancelled(h, v.TimerResponse.GetCancel())
	case *rtv1.SubscribeActorEventsRequestAlpha1_RequestFailed:
		code, body = http.StatusInternalServerError, []byte(v.RequestFailed.GetMessage())
		if codes.Code(v.RequestFailed.GetCode()) == codes.NotFound {
			code = http.StatusNotFound
		}
	}
	return &http.Response{Status: strconv.Itoa(code) + " " + http.StatusText(code), StatusCode: code, Proto: "HTTP/2.0", ProtoMajor: 2, Header: h,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r}
}

func cancelled(h http.Header, yes bool) {
	if yes {
		h.Set(actorCancel, "true")
	}
}
