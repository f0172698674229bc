package dapr

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"github.com/quipu-run/quipu/internal/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Limits of a connection to an application.
const (
	messageBytesMaxDefault = 64 << 20
	headerBytesMax         = 64 << 10
	idleMax                = time.Minute
)

// Options of a Client.
type Options struct {
	Dial  func(ctx context.Context) (net.Conn, error) // required
	Token string                                      // APP_API_TOKEN of the application; "" sends none
	// MessageBytesMax bounds a callback's message; 0 means 64 MiB.
	MessageBytesMax int
}

// Client talks to one instance of an application that speaks gRPC, over HTTP/2 without TLS. Its methods may be
// called concurrently.
type Client struct {
	o         Options
	transport *http.Transport

	mu     sync.Mutex        // guards routes
	routes map[string]string // by our path, as the application wrote them; nil until it was asked
}

// NewClient makes a client without a connection; it is opened as requests need it.
func NewClient(o Options) *Client {
	if o.MessageBytesMax == 0 {
		o.MessageBytesMax = messageBytesMaxDefault
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &Client{o: o, transport: &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return o.Dial(ctx) },
		Protocols:              protocols,
		DisableCompression:     true,
		MaxResponseHeaderBytes: headerBytesMax,
		IdleConnTimeout:        idleMax,
		// No pings: servers of gRPC take a connection away from who asks more often than every five minutes, and a
		// process that ends breaks its connections anyway.
	}}
}

// Close drops connections that are idle, now and once they are.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Do makes of a request what the application understands, and of its answer a reply of HTTP:
//
//   - a call of gRPC (Content-Type application/grpc) goes through byte for byte, trailers included;
//   - an event (Quipu-Trigger starts with "topic") is OnTopicEvent, or OnBulkTopicEvent for a batch, and the answer
//     is what Judge reads;
//   - an event of an input binding (Quipu-Trigger starts with "binding/") is OnBindingEvent;
//   - a job (Quipu-Trigger is TriggerJob) is OnJobEvent;
//   - everything else is OnInvoke, and an error's code becomes a status as Dapr maps them; Grpc-Status keeps it.
//
// The request reaches the application at most once: HTTP/2 repeats only what the other side says it has not looked at.
// CodeCrashed: the connection broke before the answer. CodeReply: what came is no gRPC. A request whose context ended
// answers the context's error. The caller closes the reply's body, and finds trailers once it has read it.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	trigger := r.Header.Get(quipu.HeaderTrigger)
	switch {
	case grpcwire.Is(r.Header.Get("Content-Type")):
		return c.through(r)
	case strings.HasPrefix(trigger, "topic") && strings.HasPrefix(r.Header.Get("Content-Type"), quipu.MediaCloudBatch):
		return c.bulk(r)
	case strings.HasPrefix(trigger, "topic"):
		return c.event(r)
	case strings.HasPrefix(trigger, quipu.TriggerBinding):
		return c.binding(r, strings.TrimPrefix(trigger, quipu.TriggerBinding))
	case trigger == TriggerJob:
		return c.job(r)
	}
	return c.invoke(r)
}

// through sends a call of gRPC as it is.
func (c *Client) through(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "http", "app", "app"
	out.RequestURI = ""
	out.Header.Set("Te", "trailers")
	if c.o.Token != "" {
		out.Header.Set(tokenHeader, c.o.Token)
	}
	if old := trace.Binary(out.Header.Get(quipu.HeaderTraceparent)); old != nil { // Dapr sends both
		out.Header.Set("Grpc-Trace-Bin", base64.RawStdEncoding.EncodeToString(old))
	}
	resp, err := c.transport.RoundTrip(out)
	if err != nil {
		return nil, failure(r.Context(), err)
	}
	if resp.Trailer == nil {
		resp.Trailer = http.Header{} // what comes later goes in here, for whoever has taken the map
	}
	// A reply without a body has its status among the headers; here it is always in the same place.
	for name, values := range resp.Header {
		if strings.HasPrefix(name, grpcwire.HeaderStatus) || name == grpcwire.HeaderMessage {
			resp.Trailer[name] = values
			delete(resp.Header, name)
		}
	}
	return resp, nil
}

const tokenHeader = "dapr-api-token"

// call is one call of a method with one message each way. The error is one of ours; what the application says is
// in the status.
func (c *Client) call(ctx context.Context, method string, md metadata.MD, in, out proto.Message) (http.Header, *status.Status, error) {
	message, err := proto.Marshal(in)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a message for %s: %w", method, err)
	}
	wire := grpcwire.Append(make([]byte, 0, len(message)+8), message)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://app"+method, bytes.NewReader(wire))
	if err != nil {
		return nil, nil, err
	}
	r.Header = grpcwire.Headers(md)
	r.Header.Set("Content-Type", grpcwire.ContentType)
	resp, err := c.through(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound { // how servers of more than gRPC say that they do not have a method
		return resp.Header, status.New(codes.Unimplemented, "the application does not have the method "+method), nil
	}
	if resp.StatusCode != http.StatusOK || !grpcwire.Is(resp.Header.Get("Content-Type")) {
		return nil, nil, &quipu.Error{Code: quipu.CodeReply, Op: "instance.request", Text: "the instance answers with something that is not gRPC",
			Hint: "protocol: grpc is for applications that serve Dapr's AppCallback; quipu logs NAME shows its output"}
	}
	s, err := c.answer(ctx, resp, out)
	return resp.Header, s, err
}

// answer reads the message, if there is one, and the status.
func (c *Client) answer(ctx context.Context, resp *http.Response, out proto.Message) (*status.Status, error) {
	message, err := grpcwire.Read(resp.Body, c.o.MessageBytesMax)
	if err == nil {
		if err = proto.Unmarshal(message, out); err == nil {
			_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, int64(c.o.MessageBytesMax))) // trailers follow the end
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, failure(ctx, err)
	}
	s := grpcwire.Status(resp.Trailer)
	if errors.Is(err, io.EOF) && s.Code() == codes.OK {
		return nil, failure(ctx, io.ErrUnexpectedEOF)
	}
	return s, nil
}

// failure gives an error its code.
func failure(ctx context.Context, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	return &quipu.Error{Code: quipu.CodeCrashed, Op: "instance.request", Text: "the instance broke the connection before it answered",
		Err: err, Hint: quipu.Codes[quipu.CodeCrashed].Next}
}

// subscriptions asks over gRPC. One without a route is delivered all the same, unlike over HTTP.
func (c *Client) subscriptions(ctx context.Context) ([]declared, error) {
	var reply rtv1.ListTopicSubscriptionsResponse
	_, s, err := c.call(ctx, rtv1.AppCallback_ListTopicSubscriptions_FullMethodName, nil, &emptypb.Empty{}, &reply)
	if err != nil {
		return nil, err
	}
	switch s.Code() {
	case codes.OK:
	case codes.Unimplemented:
		return nil, nil
	default:
		return nil, callback("ListTopicSubscriptions: the application answers %s: %.200s", s.Code(), s.Message())
	}
	var all []declared
	for _, t := range reply.GetSubscriptions() {
		d := declared{PubSub: t.GetPubsubName(), Topic: t.GetTopic(), Metadata: t.GetMetadata(), DeadLetter: t.GetDeadLetterTopic(),
			Bulk:   bulk{Enabled: t.GetBulkSubscribe().GetEnabled(), Max: int(t.GetBulkSubscribe().GetMaxMessagesCount())},
			Routes: routes{Default: t.GetRoutes().GetDefault()}}
		for _, r := range t.GetRoutes().GetRules() {
			d.Routes.Rules = append(d.Routes.Rules, rule{r.GetMatch(), r.GetPath()})
		}
		if d.Routes.Default == "" { // gRPC always has a default route in Dapr
			d.Routes.Default = "/"
		}
		all = append(all, d)
	}
	c.remember(reply.GetSubscriptions())
	return all, nil
}

// remember keeps routes as the application wrote them: it compares them byte for byte.
func (c *Client) remember(all []*rtv1.TopicSubscription) {
	known := map[string]string{"/": ""}
	for _, t := range all {
		for _, r := range t.GetRoutes().GetRules() {
			known[pathOf(r.GetPath())] = r.GetPath()
		}
		if d := t.GetRoutes().GetDefault(); d != "" {
			known[pathOf(d)] = d
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routes = known
}

// route is how the application wrote a path; it is asked with the first event. A path it does not know, of a
// subscription in a file, stays as it is.
func (c *Client) route(ctx context.Context, path string) (string, error) {
	c.mu.Lock()
	asked := c.routes != nil
	c.mu.Unlock()
	if !asked {
		if _, err := c.subscriptions(ctx); err != nil && quipu.CodeOf(err) != quipu.CodeAppCallback {
			return "", err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.routes == nil {
		c.routes = map[string]string{}
	}
	if exact, ok := c.routes[path]; ok {
		return exact, nil
	}
	if plain, err := url.PathUnescape(path); err == nil {
		return plain, nil
	}
	return path, nil
}
