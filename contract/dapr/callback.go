package dapr

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/daprevent"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
)

// invoke is OnInvoke.
func (c *Client) invoke(r *http.Request) (*http.Response, error) {
	body, err := c.read(r)
	if err != nil {
		return nil, err
	}
	in := &commonv1.InvokeRequest{Method: strings.TrimPrefix(r.URL.Path, "/"), Data: &anypb.Any{Value: body}, ContentType: r.Header.Get("Content-Type"),
		HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_Verb(commonv1.HTTPExtension_Verb_value[r.Method]), Querystring: r.URL.RawQuery}}
	var reply commonv1.InvokeResponse
	header, s, err := c.call(r.Context(), rtv1.AppCallback_OnInvoke_FullMethodName, grpcwire.HTTPMetadata(r.Header), in, &reply)
	if err != nil {
		return nil, err
	}
	h := grpcwire.Headers(grpcwire.Metadata(header))
	if s.Code() != codes.OK {
		return failed(r, h, s), nil
	}
	if reply.GetContentType() != "" {
		h.Set("Content-Type", reply.GetContentType())
	}
	return response(r, http.StatusOK, h, reply.GetData().GetValue()), nil
}

// failed is Dapr's reply for an error of gRPC: the status as JSON.
func failed(r *http.Request, h http.Header, s *status.Status) *http.Response {
	body, err := protojson.Marshal(s.Proto())
	if err != nil { // details of types that nobody here knows
		body, _ = protojson.Marshal(status.New(s.Code(), s.Message()).Proto())
	}
	grpcwire.SetStatus(h, s)
	h.Set("Content-Type", "application/json")
	return response(r, statusOf(s.Code()), h, body)
}

// event is OnTopicEvent. An application without it drops every event, as in Dapr.
func (c *Client) event(r *http.Request) (*http.Response, error) {
	body, err := c.read(r)
	if err != nil {
		return nil, err
	}
	in, err := daprevent.Parse(body)
	if err != nil {
		return nil, err
	}
	if in.Topic == "" {
		in.Topic = topicOf(r)
	}
	if in.Path, err = c.route(r.Context(), r.URL.EscapedPath()); err != nil {
		return nil, err
	}
	var reply rtv1.TopicEventResponse
	_, s, err := c.call(r.Context(), rtv1.AppCallback_OnTopicEvent_FullMethodName, grpcwire.HTTPMetadata(r.Header), in, &reply)
	if err != nil {
		return nil, err
	}
	switch s.Code() {
	case codes.OK:
		return judged(r, outcomeOf(reply.GetStatus())), nil
	case codes.Unimplemented:
		return judged(r, quipu.Drop), nil
	}
	return refused(r, s), nil
}

// topicOf is the topic that the trigger names, for an event in an envelope that was not made here.
func topicOf(r *http.Request) string {
	return strings.TrimLeft(strings.TrimPrefix(r.Header.Get(quipu.HeaderTrigger), "topic"), " :/=")
}

// refused is an error as an answer to an event. No code means that nobody wants it, as 404 does over HTTP.
func refused(r *http.Request, s *status.Status) *http.Response {
	resp := failed(r, http.Header{}, s)
	if resp.StatusCode == http.StatusNotFound {
		resp.StatusCode, resp.Status = http.StatusInternalServerError, "500 Internal Server Error"
	}
	return resp
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

// bulk is OnBulkTopicEvent, or the name it had before.
func (c *Client) bulk(r *http.Request) (*http.Response, error) {
	in, err := c.readBulk(r)
	if err != nil {
		return nil, err
	}
	var reply rtv1.TopicEventBulkResponse
	var s *status.Status
	for _, method := range []string{rtv1.AppCallback_OnBulkTopicEvent_FullMethodName, rtv1.AppCallbackAlpha_OnBulkTopicEventAlpha1_FullMethodName} {
		if _, s, err = c.call(r.Context(), method, grpcwire.HTTPMetadata(r.Header), in, &reply); err != nil {
			return nil, err
		}
		if s.Code() != codes.Unimplemented {
			break
		}
	}
	switch s.Code() {
	case codes.OK:
	case codes.Unimplemented:
		return judged(r, quipu.Drop), nil
	default:
		return refused(r, s), nil
	}
	said := map[string]quipu.Outcome{}
	for _, one := range reply.GetStatuses() {
		said[one.GetEntryId()] = outcomeOf(one.GetStatus())
	}
	return judged(r, together(said, len(in.Entries))), nil
}

func (c *Client) readBulk(r *http.Request) (*rtv1.TopicEventBulkRequest, error) {
	body, err := c.read(r)
	if err != nil {
		return nil, err
	}
	var events []json.RawMessage
	if err := json.Unmarshal(body, &events); err != nil {
		return nil, &quipu.Error{Code: quipu.CodeCloudEvent, Op: "event.read", Text: "a batch to be delivered is no JSON list", Err: err}
	}
	in := &rtv1.TopicEventBulkRequest{Id: r.Header.Get(quipu.HeaderCallID), Type: bulkType, PubsubName: quipu.PubSubDefault}
	for i, event := range events {
		e, err := daprevent.Parse(event)
		if err != nil {
			return nil, err
		}
		if in.Topic, in.PubsubName = e.Topic, e.PubsubName; in.Topic == "" {
			in.Topic = topicOf(r)
		}
		in.Entries = append(in.Entries, daprevent.Entry(strconv.Itoa(i), e))
	}
	in.Path, err = c.route(r.Context(), r.URL.EscapedPath())
	return in, err
}

const bulkType = "com.dapr.event.sent.bulk"

// together is one outcome for a batch: that of all its events if they agree. If not, the batch is tried again,
// smaller each time, until each event has its own outcome. What is not mentioned failed.
func together(said map[string]quipu.Outcome, n int) quipu.Outcome {
	var all []quipu.Outcome
	for i := range n {
		all = append(all, said[strconv.Itoa(i)])
	}
	if all = slices.Compact(all); len(all) == 1 {
		return all[0]
	}
	return quipu.Retry
}

// read takes the whole body, since a message of gRPC has its length before it.
func (c *Client) read(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(c.o.MessageBytesMax)+1))
	if err == nil && len(body) > c.o.MessageBytesMax {
		err = &quipu.Error{Code: quipu.CodeBodySize, Op: "instance.request", Text: "the body is larger than a message to the application may be"}
	}
	return body, err
}

// judged is the reply that Judge reads back as o.
func judged(r *http.Request, o quipu.Outcome) *http.Response {
	return response(r, http.StatusOK, http.Header{"Content-Type": {"application/json"}}, []byte(`{"status":"`+wordOf(o)+`"}`))
}

func response(r *http.Request, status int, h http.Header, body []byte) *http.Response {
	return &http.Response{Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status, Proto: "HTTP/2.0", ProtoMajor: 2, Header: h,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Trailer: http.Header{}, Request: r}
}

// statusOf is the status of HTTP that Dapr gives a code of gRPC.
func statusOf(code codes.Code) int {
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.Canceled:
		return http.StatusRequestTimeout
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
