package dapr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/grpcwire"
	"github.com/quipu-run/quipu/internal/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// app is an application that speaks gRPC.
type app struct {
	rtv1.UnimplementedAppCallbackServer
	onInvoke func(context.Context, *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error)
	onEvent  func(context.Context, *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error)
	lists    atomic.Int32
}

func (a *app) OnInvoke(ctx context.Context, in *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
	return a.onInvoke(ctx, in)
}

func (a *app) OnTopicEvent(ctx context.Context, in *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
	if a.onEvent == nil {
		return nil, status.Error(codes.Unimplemented, "no events")
	}
	return a.onEvent(ctx, in)
}

func (a *app) ListTopicSubscriptions(context.Context, *emptypb.Empty) (*rtv1.ListTopicSubscriptionsResponse, error) {
	a.lists.Add(1)
	return &rtv1.ListTopicSubscriptionsResponse{Subscriptions: []*rtv1.TopicSubscription{
		{PubsubName: "pubsub", Topic: "orders", Routes: &rtv1.TopicRoutes{Rules: []*rtv1.TopicRule{{Match: `event.type == "x"`, Path: "x"}}, Default: "orders b"}},
		{PubsubName: "pubsub", Topic: "bare", DeadLetterTopic: "dead", Metadata: map[string]string{"rawPayload": "true"}, BulkSubscribe: &rtv1.BulkSubscribeConfig{Enabled: true, MaxMessagesCount: 5}},
	}}, nil
}

// serve starts a server and answers a client of it.
func serve(t *testing.T, register func(*grpc.Server)) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c := NewClient(Options{Token: "app-secret", Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}})
	t.Cleanup(func() {
		c.Close()
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func serveApp(t *testing.T, a *app) *Client {
	return serve(t, func(s *grpc.Server) { rtv1.RegisterAppCallbackServer(s, a) })
}

// do sends a request and reads its reply.
func do(t *testing.T, c *Client, request, body string, headers ...string) (int, string, *http.Response) {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got), resp
}

func TestARequestIsAnInvocationOverGRPC(t *testing.T) {
	c := serveApp(t, &app{onInvoke: func(ctx context.Context, in *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if md.Get("dapr-api-token")[0] != "app-secret" || md.Get("quipu-call-id")[0] != "c1" || md.Get("dapr-accept")[0] != "a/b" || len(md.Get("accept")) != 0 {
			t.Errorf("metadata %v", md)
		}
		if err := grpc.SetHeader(ctx, metadata.Pairs("x-own", "1", "y-bin", in.GetMethod()+md.Get("z-bin")[0])); err != nil {
			t.Error(err)
		}
		text := fmt.Sprintf("%s %s?%s %s %s", in.GetHttpExtension().GetVerb(), in.GetMethod(), in.GetHttpExtension().GetQuerystring(), in.GetContentType(), in.GetData().GetValue())
		return &commonv1.InvokeResponse{Data: &anypb.Any{Value: []byte(text)}, ContentType: "text/own"}, nil
	}})
	status, body, resp := do(t, c, "PUT /a/b?x=1", "hello", "Content-Type: text/plain", "Quipu-Call-Id: c1", "Accept: a/b", "Z-Bin: AP8=")
	if status != 200 || body != "PUT a/b?x=1 text/plain hello" || resp.Header.Get("Content-Type") != "text/own" || resp.Header.Get("X-Own") != "1" || resp.Header.Get("Y-Bin") != "YS9iAP8" {
		t.Errorf("%d %s %v", status, body, resp.Header)
	}
}

// Dapr tells a trace in both ways; OpenCensus reads the older.
func TestAnApplicationGetsItsTraceInBothForms(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	c := serveApp(t, &app{onInvoke: func(ctx context.Context, _ *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		old := md.Get("grpc-trace-bin")
		if md.Get("traceparent")[0] != parent || len(old) != 1 || trace.FromBinary([]byte(old[0])) != parent {
			t.Errorf("metadata %v", md)
		}
		return &commonv1.InvokeResponse{}, nil
	}})
	if status, body, _ := do(t, c, "POST /x", "", "Traceparent: "+parent); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

func TestAnErrorOfGRPCHasTheStatusThatDaprGivesIt(t *testing.T) {
	var failure error
	c := serveApp(t, &app{onInvoke: func(context.Context, *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
		return nil, failure
	}})
	want := []int{codes.Canceled: 408, codes.Unknown: 500, codes.InvalidArgument: 400, codes.DeadlineExceeded: 504, codes.NotFound: 404, codes.AlreadyExists: 409,
		codes.PermissionDenied: 403, codes.ResourceExhausted: 429, codes.FailedPrecondition: 400, codes.Aborted: 409, codes.OutOfRange: 400, codes.Unimplemented: 501,
		codes.Internal: 500, codes.Unavailable: 503, codes.DataLoss: 500, codes.Unauthenticated: 401}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		rich, err := status.New(code, "went wröng").WithDetails(&errdetails.ErrorInfo{Reason: "WHY"})
		if err != nil {
			t.Fatal(err)
		}
		failure = rich.Err()
		got, body, resp := do(t, c, "POST /x", "", "Quipu-Call-Id: c1", "Accept: a/b")
		if got != want[code] || !strings.Contains(body, "went wröng") || !strings.Contains(body, "WHY") || !proto.Equal(grpcwire.Status(resp.Header).Proto(), rich.Proto()) {
			t.Errorf("%s: %d %s %v", code, got, body, resp.Header)
		}
	}
}

const envelope = `{"specversion":"1.0","id":"7","source":"s","type":"t","topic":"orders","pubsubname":"pubsub","datacontenttype":"application/json","data":{"n":1},"traceparent":"tp"}`

func TestAnEventIsACallback(t *testing.T) {
	var got *rtv1.TopicEventRequest
	var answer rtv1.TopicEventResponse_TopicEventResponseStatus
	var failure error
	a := &app{onEvent: func(_ context.Context, in *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
		got = in
		return &rtv1.TopicEventResponse{Status: answer}, failure
	}}
	c := serveApp(t, a)
	deliver := func(path string) quipu.Outcome {
		status, body, _ := do(t, c, "POST "+path, envelope, "Content-Type: application/cloudevents+json", "Quipu-Trigger: topic orders")
		return Judge(status, []byte(body))
	}
	for path, exact := range map[string]string{"/orders%20b": "orders b", "/x": "x", "/": "", "/un%20known": "/un known"} {
		if outcome := deliver(path); outcome != quipu.Ack || got.GetPath() != exact {
			t.Errorf("%s came as %q: %v", path, got.GetPath(), outcome)
		}
	}
	if a.lists.Load() != 1 {
		t.Errorf("it was asked for its routes %d times", a.lists.Load())
	}
	if got.GetId() != "7" || got.GetTopic() != "orders" || got.GetPubsubName() != "pubsub" || string(got.GetData()) != `{"n":1}` || got.GetExtensions().GetFields()["traceparent"].GetStringValue() != "tp" {
		t.Errorf("%v", got)
	}
	for status, want := range map[rtv1.TopicEventResponse_TopicEventResponseStatus]quipu.Outcome{
		rtv1.TopicEventResponse_RETRY: quipu.Retry, rtv1.TopicEventResponse_DROP: quipu.Drop, 99: quipu.Retry} {
		if answer = status; deliver("/x") != want {
			t.Errorf("%v", status)
		}
	}
	for code, want := range map[codes.Code]quipu.Outcome{codes.Unimplemented: quipu.Drop, codes.NotFound: quipu.Retry, codes.Unknown: quipu.Retry} {
		if failure = status.Error(code, "no"); deliver("/x") != want {
			t.Errorf("%v", code)
		}
	}
	answer, failure = rtv1.TopicEventResponse_SUCCESS, nil
	do(t, c, "POST /x", `{"specversion":"1.0","id":"1","source":"s","type":"t"}`, "Quipu-Trigger: topic from/elsewhere")
	if got.GetTopic() != "from/elsewhere" || got.GetPubsubName() != "pubsub" {
		t.Errorf("an event that does not say where it is: %v", got)
	}
	r := httptest.NewRequest("POST", "/x", strings.NewReader("garbage"))
	r.Header.Set("Quipu-Trigger", "topic orders")
	if _, err := c.Do(r); quipu.CodeOf(err) != quipu.CodeCloudEvent {
		t.Error(err)
	}
}

// oldBulk knows a bulk under the name it had in Dapr 1.14.
type oldBulk struct {
	rtv1.UnimplementedAppCallbackAlphaServer
	got *rtv1.TopicEventBulkRequest
}

func (o *oldBulk) OnBulkTopicEventAlpha1(_ context.Context, in *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
	o.got = in
	out := &rtv1.TopicEventBulkResponse{}
	for _, e := range in.GetEntries() {
		out.Statuses = append(out.Statuses, &rtv1.TopicEventBulkResponseEntry{EntryId: e.GetEntryId(), Status: rtv1.TopicEventResponse_DROP})
	}
	return out, nil
}

func TestABatchIsABulkCallback(t *testing.T) {
	old := &oldBulk{}
	c := serve(t, func(s *grpc.Server) { rtv1.RegisterAppCallbackAlphaServer(s, old) })
	resp, err := c.Do(batch(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || Judge(resp.StatusCode, body) != quipu.Drop || len(old.got.GetEntries()) != 3 || old.got.GetTopic() != "orders" ||
		string(old.got.GetEntries()[2].GetCloudEvent().GetData()) != `{"n": 2}` || old.got.GetEntries()[2].GetEntryId() != "2" {
		t.Errorf("%v %s %v", err, body, old.got)
	}
	none := serve(t, func(s *grpc.Server) {})
	if resp, err = none.Do(batch(t, 1)); err != nil {
		t.Fatal(err)
	}
	if body, err = io.ReadAll(resp.Body); err != nil || Judge(resp.StatusCode, body) != quipu.Drop {
		t.Errorf("an application without bulk: %v %s", err, body)
	}
}

func TestSubscriptionsOverGRPC(t *testing.T) {
	got, err := Subscriptions(t.Context(), serveApp(t, &app{}))
	if err != nil || len(got) != 2 {
		t.Fatalf("%v %v", got, err)
	}
	if got[0].Path != "/orders%20b" || got[0].Routes[0].Path != "/x" || got[1].Path != "/" || !got[1].Raw || got[1].Batch != 5 || got[1].DeadLetter != "dead" {
		t.Errorf("%+v", got)
	}
	if got, err := Subscriptions(t.Context(), serve(t, func(*grpc.Server) {})); err != nil || len(got) != 0 {
		t.Errorf("without AppCallback: %v %v", got, err)
	}
}

// relay serves requests as the platform does, with Do in the middle.
func relay(t *testing.T, c *Client) *grpc.ClientConn {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := c.Do(r)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		trailer := resp.Trailer // taken before the body was read, as a CallReply does
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		out := http.NewResponseController(w)
		buf := make([]byte, 1000)
		for {
			n, err := resp.Body.Read(buf)
			if _, werr := w.Write(buf[:n]); werr != nil || out.Flush() != nil {
				return
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		for name, values := range trailer {
			w.Header()[http.TrailerPrefix+name] = values
		}
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = s.Close()
		<-done
	})
	return conn
}

// streams answers each message of a stream before it takes the next.
type streams struct{ rtv1.UnimplementedDaprServer }

func (streams) SubscribeTopicEventsAlpha1(s rtv1.Dapr_SubscribeTopicEventsAlpha1Server) error {
	s.SetTrailer(metadata.Pairs("x-trailer", "t", "y-bin", "\x00\xff"))
	for {
		in, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.DataLoss, "that was all")
		}
		if err != nil {
			return err
		}
		if err := s.Send(&rtv1.SubscribeTopicEventsResponseAlpha1{SubscribeTopicEventsResponseType: &rtv1.SubscribeTopicEventsResponseAlpha1_EventMessage{
			EventMessage: &rtv1.TopicEventRequest{Id: in.GetEventProcessed().GetId()}}}); err != nil {
			return err
		}
	}
}

func TestACallOfGRPCGoesThroughByteForByteBothWays(t *testing.T) {
	conn := relay(t, serve(t, func(s *grpc.Server) { rtv1.RegisterDaprServer(s, streams{}) }))
	stream, err := rtv1.NewDaprClient(conn).SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 { // each answer comes before the next question is asked
		id := fmt.Sprint(i, strings.Repeat("x", 40_000))
		if err := stream.Send(&rtv1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_EventProcessed{
			EventProcessed: &rtv1.SubscribeTopicEventsRequestProcessedAlpha1{Id: id}}}); err != nil {
			t.Fatal(err)
		}
		if got, err := stream.Recv(); err != nil || got.GetEventMessage().GetId() != id {
			t.Fatalf("%v %.20s", err, got.GetEventMessage().GetId())
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.DataLoss || status.Convert(err).Message() != "that was all" {
		t.Error(err)
	}
	if got := stream.Trailer(); got.Get("x-trailer")[0] != "t" || got.Get("y-bin")[0] != "\x00\xff" {
		t.Errorf("trailers %v", got)
	}
	if _, err := rtv1.NewDaprClient(conn).GetMetadata(t.Context(), &rtv1.GetMetadataRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a status without a body: %v", err)
	}
}

func TestWhatIsNoGRPCAndWhatBreaksAreToldApart(t *testing.T) {
	plain := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != rtv1.AppCallback_OnInvoke_FullMethodName {
			http.NotFound(w, r)
		}
	}))
	plain.Config.Protocols = new(http.Protocols)
	plain.Config.Protocols.SetUnencryptedHTTP2(true)
	plain.Start()
	defer plain.Close()
	dial := func(ctx context.Context) (net.Conn, error) { return net.Dial("tcp", plain.Listener.Addr().String()) }
	none := NewClient(Options{Dial: dial})
	if status, body, _ := do(t, none, "POST /x", envelope, "Quipu-Trigger: topic"); Judge(status, []byte(body)) != quipu.Drop {
		t.Errorf("a server of more than gRPC that has no such method: %d %s", status, body)
	}
	none.Close()
	for name, c := range map[string]struct {
		dial func(context.Context) (net.Conn, error)
		want quipu.Code
	}{
		"a server of HTTP": {dial, quipu.CodeReply},
		"a closed connection": {func(context.Context) (net.Conn, error) {
			a, b := net.Pipe()
			return a, b.Close()
		}, quipu.CodeCrashed},
		"no connection": {func(context.Context) (net.Conn, error) { return nil, net.ErrClosed }, quipu.CodeCrashed},
	} {
		client := NewClient(Options{Dial: c.dial})
		_, err := client.Do(httptest.NewRequest("POST", "/x", nil))
		if quipu.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		client.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	hang := serveApp(t, &app{onInvoke: func(ctx context.Context, _ *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if _, err := hang.Do(httptest.NewRequestWithContext(ctx, "POST", "/x", nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("a request whose context ended: %v", err)
	}
	small := NewClient(Options{MessageBytesMax: 10, Dial: func(context.Context) (net.Conn, error) { return nil, net.ErrClosed }})
	if _, err := small.Do(httptest.NewRequest("POST", "/x", strings.NewReader("more than ten"))); quipu.CodeOf(err) != quipu.CodeBodySize {
		t.Error(err)
	}
}

type connKey struct{}

func TestARequestReachesTheApplicationAtMostOnce(t *testing.T) {
	var calls atomic.Int32
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	breaking := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) > 1 { // the connection is an old one, which is where transports like to repeat
			if err := r.Context().Value(connKey{}).(net.Conn).Close(); err != nil {
				t.Error(err)
			}
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", grpcwire.ContentType)
		w.Header().Set(grpcwire.HeaderStatus, "5")
	}))
	breaking.Config.Protocols = protocols
	breaking.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	breaking.Start()
	defer breaking.Close()
	dials := 0
	c := NewClient(Options{Dial: func(context.Context) (net.Conn, error) {
		dials++
		return net.Dial("tcp", breaking.Listener.Addr().String())
	}})
	defer c.Close()
	if status, _, _ := do(t, c, "GET /x", ""); status != 404 {
		t.Fatalf("the first request: %d", status)
	}
	for name, r := range map[string]*http.Request{"an invocation": httptest.NewRequest("GET", "/x", nil), "a call of gRPC": httptest.NewRequest("POST", "/own.Service/Method", strings.NewReader("\x00\x00\x00\x00\x00"))} {
		calls.Store(1)
		if name == "a call of gRPC" {
			r.Header.Set("Content-Type", grpcwire.ContentType)
		}
		if _, err := c.Do(r); quipu.CodeOf(err) != quipu.CodeCrashed {
			t.Errorf("%s: %v", name, err)
		}
		if calls.Load() != 2 {
			t.Errorf("%s came %d times", name, calls.Load()-1)
		}
	}
	if dials > 2 {
		t.Errorf("%d connections were opened", dials)
	}
}
