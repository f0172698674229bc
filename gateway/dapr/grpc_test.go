package dapr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/test/fake"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// callSide is the house seen over gRPC.
type callSide struct {
	*house
	rtv1.DaprClient
	conn *grpc.ClientConn
	door *Door
}

func (h *house) grpc(options ...grpc.DialOption) *callSide {
	h.t.Helper()
	door := New(h.opt)
	s, l := door.GRPC(), bufconn.Listen(1<<20)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("127.0.0.1:50001"),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })}, options...)
	conn, err := grpc.NewClient("passthrough:///door", options...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = conn.Close()
		door.Close()
		s.GracefulStop()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
	return &callSide{h, rtv1.NewDaprClient(conn), conn, door}
}

// as speaks for an app.
func (c *callSide) as(app string, more ...string) context.Context {
	return metadata.AppendToOutgoingContext(c.t.Context(), append([]string{"dapr-caller-app-id", app}, more...)...)
}

// fails checks an error's code, its words and the reason in its ErrorInfo.
func (c *callSide) fails(err error, code codes.Code, reason, says string) {
	c.t.Helper()
	s, got := status.Convert(err), ""
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "dapr.io" {
			got = info.GetReason()
		}
	}
	if s.Code() != code || got != reason || !strings.Contains(s.Message(), says) {
		c.t.Errorf("%v (%s), want %s (%s) with %q", err, got, code, reason, says)
	}
}

func item(key, value string) *commonv1.StateItem {
	return &commonv1.StateItem{Key: key, Value: []byte(value)}
}

func TestStateOverGRPCIsTheStateOverHTTP(t *testing.T) {
	h := open(t)
	c := h.grpc()
	ctx := c.as("shop")
	if _, err := c.SaveState(ctx, &rtv1.SaveStateRequest{StoreName: "statestore", States: []*commonv1.StateItem{item("a", `{"n": 1}`), item("bytes", "\x00\xff"), item("empty", "")}}); err != nil {
		t.Fatal(err)
	}
	h.want(200, `{"n": 1}`, "GET "+store+"/a", "", "dapr-caller-app-id: shop")
	h.want(204, "", "GET "+store+"/a", "", "dapr-caller-app-id: other")
	h.want(204, "", "POST "+store, `[{"key":"http","value":"x","metadata":{"ttlInSeconds":"60"}}]`, "dapr-caller-app-id: shop")
	for key, want := range map[string]string{"a": `{"n": 1}`, "bytes": "\x00\xff", "empty": "", "http": `"x"`, "missing": ""} {
		got, err := c.GetState(ctx, &rtv1.GetStateRequest{StoreName: "statestore", Key: key})
		if err != nil || string(got.GetData()) != want || (got.GetEtag() == "") != (key == "missing") {
			t.Errorf("%s: %v %v", key, err, got)
		}
		if got.GetMetadata()["ttlExpireTime"] != map[bool]string{true: "2026-01-02T03:05:05Z"}[key == "http"] {
			t.Errorf("%s expires: %v", key, got.GetMetadata())
		}
	}
	bulk, err := c.GetBulkState(ctx, &rtv1.GetBulkStateRequest{StoreName: "statestore", Keys: []string{"bytes", "missing", "a"}, Parallelism: 5})
	if err != nil || len(bulk.GetItems()) != 3 || string(bulk.GetItems()[0].GetData()) != "\x00\xff" || bulk.GetItems()[1].GetEtag() != "" || bulk.GetItems()[2].GetKey() != "a" {
		t.Errorf("%v %v", err, bulk)
	}
	if _, err := c.DeleteState(ctx, &rtv1.DeleteStateRequest{StoreName: "statestore", Key: "a"}); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteBulkState(ctx, &rtv1.DeleteBulkStateRequest{StoreName: "statestore", States: []*commonv1.StateItem{item("bytes", ""), item("missing", "")}}); err != nil {
		t.Error(err)
	}
	h.want(204, "", "GET "+store+"/a", "", "dapr-caller-app-id: shop")
	h.want(204, "", "GET "+store+"/bytes", "", "dapr-caller-app-id: shop")
}

func TestETagsOverGRPC(t *testing.T) {
	c := open(t).grpc()
	save := func(s *commonv1.StateItem) error {
		_, err := c.SaveState(t.Context(), &rtv1.SaveStateRequest{StoreName: "statestore", States: []*commonv1.StateItem{s}})
		return err
	}
	if err := save(item("k", "1")); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetState(t.Context(), &rtv1.GetStateRequest{StoreName: "statestore", Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	wrong, first, last := &commonv1.Etag{Value: "00000000000000ff"}, &commonv1.StateOptions{Concurrency: commonv1.StateOptions_CONCURRENCY_FIRST_WRITE}, &commonv1.StateOptions{Concurrency: commonv1.StateOptions_CONCURRENCY_LAST_WRITE}
	const says = "failed saving state in state store statestore: "
	c.fails(save(&commonv1.StateItem{Key: "k", Etag: wrong}), codes.Aborted, "ERR_STATE_SAVE", says+"possible etag mismatch")
	c.fails(save(&commonv1.StateItem{Key: "k", Etag: &commonv1.Etag{Value: "bad"}}), codes.InvalidArgument, "ERR_STATE_SAVE", says+"invalid etag value")
	c.fails(save(&commonv1.StateItem{Key: "k", Options: first}), codes.Aborted, "ERR_STATE_SAVE", says)
	_, err = c.DeleteState(t.Context(), &rtv1.DeleteStateRequest{StoreName: "statestore", Key: "k", Etag: wrong})
	c.fails(err, codes.Aborted, "ERR_STATE_DELETE", "failed deleting state with key k: possible etag mismatch")
	_, err = c.DeleteBulkState(t.Context(), &rtv1.DeleteBulkStateRequest{StoreName: "statestore", States: []*commonv1.StateItem{{Key: "k", Etag: wrong}}})
	c.fails(err, codes.Aborted, "ERR_STATE_BULK_DELETE", "failed deleting state in state store statestore: ")
	if err := save(&commonv1.StateItem{Key: "k", Value: []byte("2"), Etag: wrong, Options: last}); err != nil {
		t.Errorf("last write: %v", err)
	}
	c.fails(save(&commonv1.StateItem{Key: "k", Etag: &commonv1.Etag{Value: got.GetEtag()}}), codes.Aborted, "ERR_STATE_SAVE", says)
}

func TestATransactionOverGRPCHappensWholeOrNotAtAll(t *testing.T) {
	c := open(t).grpc()
	do := func(ops ...*rtv1.TransactionalStateOperation) error {
		_, err := c.ExecuteStateTransaction(t.Context(), &rtv1.ExecuteStateTransactionRequest{StoreName: "statestore", Operations: ops})
		return err
	}
	op := func(kind string, i *commonv1.StateItem) *rtv1.TransactionalStateOperation {
		return &rtv1.TransactionalStateOperation{OperationType: kind, Request: i}
	}
	if err := do(op("upsert", item("a", "1")), op("upsert", item("b", "2"))); err != nil {
		t.Fatal(err)
	}
	err := do(op("delete", item("a", "")), op("upsert", &commonv1.StateItem{Key: "b", Etag: &commonv1.Etag{Value: "00000000000000ff"}}))
	c.fails(err, codes.Internal, "ERR_STATE_TRANSACTION", "error while executing state transaction: possible etag mismatch")
	c.want(200, "1", "GET "+store+"/a", "")
	c.fails(do(op("incr", item("a", ""))), codes.Unimplemented, "ERR_NOT_SUPPORTED_STATE_OPERATION", "operation type incr not supported")
	c.fails(do(op("upsert", item("a||b", ""))), codes.InvalidArgument, "DAPR_STATE_ILLEGAL_KEY", "can't contain '||'")
	if err := do(op("delete", item("a", "")), op("upsert", item("b", "3"))); err != nil {
		t.Fatal(err)
	}
	c.want(204, "", "GET "+store+"/a", "")
	c.want(200, "3", "GET "+store+"/b", "")
}

func TestBadInputOverGRPC(t *testing.T) {
	h := open(t)
	small := h.grpc()
	h.opt.BodyBytesMax = 1 << 20
	c := h.grpc()
	ctx := t.Context()
	_, err := c.GetState(ctx, &rtv1.GetStateRequest{StoreName: "nope", Key: "k"})
	c.fails(err, codes.InvalidArgument, "DAPR_STATE_NOT_FOUND", "state store nope is not found")
	_, err = c.GetState(ctx, &rtv1.GetStateRequest{StoreName: "statestore", Key: "a||b"})
	c.fails(err, codes.InvalidArgument, "DAPR_STATE_ILLEGAL_KEY", "can't contain '||'")
	_, err = c.SaveState(ctx, &rtv1.SaveStateRequest{StoreName: "statestore", States: []*commonv1.StateItem{item("ok", "1"), item("", "1")}})
	c.fails(err, codes.InvalidArgument, "", "required field")
	_, err = c.SaveState(ctx, &rtv1.SaveStateRequest{StoreName: "statestore", States: []*commonv1.StateItem{{Key: "k", Metadata: map[string]string{"ttlInSeconds": "soon"}}}})
	c.fails(err, codes.InvalidArgument, "ERR_STATE_SAVE", "Q0307")
	_, err = c.GetBulkState(ctx, &rtv1.GetBulkStateRequest{StoreName: "statestore", Keys: make([]string, bulkKeysMax+1)})
	c.fails(err, codes.InvalidArgument, "", "the most is 10000")
	_, err = small.SaveState(ctx, &rtv1.SaveStateRequest{StoreName: "statestore", States: []*commonv1.StateItem{item("k", strings.Repeat("x", 5000))}})
	c.fails(err, codes.ResourceExhausted, "", "larger than max")
	_, err = c.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "kafka", Topic: "t"})
	c.fails(err, codes.InvalidArgument, "DAPR_PUBSUB_NOT_FOUND", "pubsub kafka is not found")
	_, err = c.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "pubsub"})
	c.fails(err, codes.InvalidArgument, "DAPR_PUBSUB_TOPIC_NAME_EMPTY", "topic is empty in pubsub pubsub")
	_, err = c.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "pubsub", Topic: "$x"})
	c.fails(err, codes.InvalidArgument, "DAPR_PUBSUB_PUBLISH_MESSAGE", "error when publishing to topic $x in pubsub pubsub: ")
	_, err = c.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "pubsub", Topic: "t", DataContentType: "application/cloudevents+json", Data: []byte("x")})
	c.fails(err, codes.InvalidArgument, "DAPR_PUBSUB_CLOUD_EVENT_CREATION", "cannot create cloudevent")
	_, err = c.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "pubsub", Topic: "t", Metadata: map[string]string{"rawPayload": "maybe"}})
	c.fails(err, codes.InvalidArgument, "DAPR_PUBSUB_METADATA_DESERIALIZATION", "rawPayload value must be a valid boolean")
	_, err = c.BulkPublishEvent(ctx, &rtv1.BulkPublishRequest{PubsubName: "pubsub", Topic: "t", Entries: []*rtv1.BulkPublishRequestEntry{{EntryId: "1"}, {EntryId: "1"}}})
	c.fails(err, codes.InvalidArgument, "DAPR_PUBSUB_MARSHAL_EVENTS", "entryId is duplicated")
	_, err = c.Shutdown(ctx, &rtv1.ShutdownRequest{})
	c.fails(err, codes.PermissionDenied, "", "the platform starts and stops")
	page, err := h.ns.State("default").List(ctx, quipu.StoreDefault, quipu.ListRequest{Limit: 10})
	if err != nil || len(page.Items) != 0 || len(h.published("t")) != 0 {
		t.Errorf("something was written: %v %v", page, err)
	}
}

func TestPublishOverGRPC(t *testing.T) {
	h := open(t)
	c := h.grpc()
	if _, err := c.PublishEvent(c.as("shop", "traceparent", "tp"), &rtv1.PublishEventRequest{PubsubName: "pubsub", Topic: "a/b", Data: []byte(`{"n":1}`), DataContentType: "application/json",
		Metadata: map[string]string{"cloudevent.type": "x", "ttlInSeconds": "5"}}); err != nil {
		t.Fatal(err)
	}
	h.wantFields("a/b", map[string]any{"source": "shop", "type": "x", "data": map[string]any{"n": 1}, "traceparent": "tp"})
	//lint:ignore SA1019 older clients call it
	old := c.BulkPublishEventAlpha1
	for _, publish := range []func(context.Context, *rtv1.BulkPublishRequest, ...grpc.CallOption) (*rtv1.BulkPublishResponse, error){c.BulkPublishEvent, old} {
		got, err := publish(t.Context(), &rtv1.BulkPublishRequest{PubsubName: "pubsub", Topic: "many", Entries: []*rtv1.BulkPublishRequestEntry{
			{EntryId: "1", Event: []byte("x"), ContentType: "text/plain"}, {EntryId: "2", Event: []byte("\xff"), ContentType: "application/octet-stream"}}})
		if err != nil || len(got.GetFailedEntries()) != 0 {
			t.Errorf("%v %v", got, err)
		}
	}
	if all := h.published("many"); len(all) != 4 || all[0].Seq != all[1].Seq {
		t.Errorf("%+v", all)
	}
}

func TestSecretsAndMetadataOverGRPC(t *testing.T) {
	h := open(t)
	_, err := h.grpc().GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: "secretstore", Key: "A"})
	(&callSide{house: h}).fails(err, codes.FailedPrecondition, "", "secret store is not configured")
	h.secrets(func() (map[string]string, error) {
		return map[string]string{"A": "hunter2", "B": "2"}, nil
	})
	h.opt.Subscriptions = func(*http.Request) []quipu.TopicTrigger {
		return []quipu.TopicTrigger{{Name: "orders", Path: "/o"}}
	}
	h.opt.BodyBytesMax = 1 << 20
	c := h.grpc()
	if got, err := c.GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: "secretstore", Key: "A"}); err != nil || got.GetData()["A"] != "hunter2" {
		t.Errorf("%v %v", got, err)
	}
	if got, err := c.GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: "secretstore", Key: "missing"}); err != nil || len(got.GetData()) != 0 {
		t.Errorf("%v %v", got, err)
	}
	if got, err := c.GetBulkSecret(t.Context(), &rtv1.GetBulkSecretRequest{StoreName: "secretstore"}); err != nil || got.GetData()["B"].GetSecrets()["B"] != "2" {
		t.Errorf("%v %v", got, err)
	}
	_, err = c.GetSecret(t.Context(), &rtv1.GetSecretRequest{StoreName: "vault"})
	c.fails(err, codes.InvalidArgument, "", "failed finding secret store with key vault")

	if _, err := c.SetMetadata(t.Context(), &rtv1.SetMetadataRequest{Key: "color", Value: "blue"}); err != nil {
		t.Error(err)
	}
	m, err := c.GetMetadata(c.as("shop"), &rtv1.GetMetadataRequest{})
	if err != nil || m.GetId() != "shop" || m.GetExtendedMetadata()["color"] != "blue" || len(m.GetRegisteredComponents()) != 4 || m.GetRuntimeVersion() != RuntimeVersion ||
		m.GetSubscriptions()[0].GetTopic() != "orders" || m.GetSubscriptions()[0].GetRules().GetRules()[0].GetPath() != "/o" {
		t.Errorf("%v %v", m, err)
	}
	_, err = c.SetMetadata(t.Context(), &rtv1.SetMetadataRequest{Key: "big", Value: strings.Repeat("x", extendedBytesMax)})
	c.fails(err, codes.InvalidArgument, "", "4096 bytes")
}

func TestTheTokenAndTheHostAreCheckedOverGRPC(t *testing.T) {
	h := open(t)
	foreign := h.grpc(grpc.WithAuthority("evil.example:50001"))
	_, err := foreign.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
	foreign.fails(err, codes.PermissionDenied, permissionDenied, "not loopback")
	h.opt.Token, h.opt.RequireToken = "secret", true
	c := h.grpc(grpc.WithAuthority("evil.example:50001"))
	for token, want := range map[string]codes.Code{"": codes.Unauthenticated, "wrong": codes.Unauthenticated, "secret": codes.OK} {
		ctx := t.Context()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "dapr-api-token", token)
		}
		if _, err := c.GetMetadata(ctx, &rtv1.GetMetadataRequest{}); status.Code(err) != want {
			t.Errorf("token %q: %v", token, err)
		}
		s, err := c.SubscribeTopicEventsAlpha1(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); (status.Code(err) == codes.Unauthenticated) != (want == codes.Unauthenticated) {
			t.Errorf("stream, token %q: %v", token, err)
		}
	}
}

func TestInvokeOverGRPC(t *testing.T) {
	h := open(t)
	h.ns.Add(fake.HTTP("teapot", "/"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, strings.Repeat("no coffee ", 10), 404)
	}))
	var seen http.Header
	h.ns.Add(fake.HTTP("look", "/"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen = r.Header; w.Header().Set("X-Own", "1") }))
	c := h.grpc()
	invoke := func(id, method, body string, x *commonv1.HTTPExtension, options ...grpc.CallOption) (*commonv1.InvokeResponse, error) {
		return c.InvokeService(c.as("shop", "x-mine", "1", "quipu-call-id", "c1"), &rtv1.InvokeServiceRequest{Id: id, Message: &commonv1.InvokeRequest{Method: method, ContentType: "text/own",
			Data: &anypb.Any{Value: []byte(body)}, HttpExtension: x}}, options...)
	}
	for method, want := range map[string]string{"a/b c": "PUT /a/b%20c?q=1 hi", "/slash": "PUT /slash?q=1 hi"} {
		got, err := invoke("callee", method, "hi", &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_PUT, Querystring: "q=1"})
		if err != nil || string(got.GetData().GetValue()) != want || got.GetContentType() != "text/plain" {
			t.Errorf("%v %v, want %s", err, got, want)
		}
	}
	if got, err := invoke("callee.default", "x?q=2", "", nil); err != nil || string(got.GetData().GetValue()) != "POST /x?q=2 " {
		t.Errorf("%v %v", err, got)
	}
	var header metadata.MD
	if _, err := invoke("look", "x", "", nil, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if seen.Get("X-Mine") != "1" || seen.Get("Content-Type") != "text/own" || seen.Get("dapr-caller-app-id") != "shop" || seen.Get(quipu.HeaderCallID) != "" || seen.Get("dapr-api-token") != "" {
		t.Errorf("the function sees %v", seen)
	}
	if header.Get("x-own")[0] != "1" || header.Get("dapr-http-status")[0] != "200" || header.Get("quipu-call-id")[0] == "" {
		t.Errorf("the caller sees %v", header)
	}
	if header.Get("quipu-revision")[0] != "r1" {
		t.Errorf("the caller does not see which revision answered: %v", header)
	}
	_, err := c.InvokeService(c.as("shop", "quipu-revision", "r2"), &rtv1.InvokeServiceRequest{Id: "callee", Message: &commonv1.InvokeRequest{Method: "x"}})
	c.fails(err, codes.NotFound, "", "r2")
	_, err = invoke("teapot", "x", "", nil)
	c.fails(err, codes.NotFound, "Not Found", "Not Found")
	if info := status.Convert(err).Details()[0].(*errdetails.ErrorInfo); info.GetMetadata()["http.code"] != "404" || len(info.GetMetadata()["http.error_message"]) != 63 {
		t.Errorf("%v", info)
	}
	_, err = invoke("nobody", "x", "", nil)
	c.fails(err, codes.Internal, "", "failed to invoke, id: nobody, err: ")
	_, err = invoke("", "x", "", nil)
	c.fails(err, codes.InvalidArgument, "", "no app id")
	h.ns.Add(fake.HTTP("long", "/"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 5000)) }))
	_, err = invoke("long", "x", "", nil)
	c.fails(err, codes.Internal, "", "more than 4000 bytes")
}

// callee is a function that speaks gRPC: any service will do.
type callee struct {
	rtv1.UnimplementedAppCallbackServer
	rtv1.UnimplementedDaprServer
	seen metadata.MD
}

func (s *callee) OnTopicEvent(ctx context.Context, in *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
	s.seen, _ = metadata.FromIncomingContext(ctx)
	if in.GetId() == "fail" {
		rich, _ := status.New(codes.DataLoss, "schlimm: ü").WithDetails(&errdetails.ErrorInfo{Reason: "WHY", Domain: "dapr.io"})
		return nil, rich.Err()
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-own", "1")); err != nil {
		return nil, err
	}
	if err := grpc.SetTrailer(ctx, metadata.Pairs("x-after", "2", "x-bin", "\x00")); err != nil {
		return nil, err
	}
	return &rtv1.TopicEventResponse{Status: rtv1.TopicEventResponse_DROP}, nil
}

func (s *callee) OnBulkTopicEvent(_ context.Context, in *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
	return &rtv1.TopicEventBulkResponse{Statuses: []*rtv1.TopicEventBulkResponseEntry{{EntryId: in.GetId()}}}, nil
}

func TestAnyMethodIsProxiedToTheAppItNames(t *testing.T) {
	h := open(t)
	h.opt.BodyBytesMax = 4 << 20
	backend, service := grpc.NewServer(), &callee{}
	rtv1.RegisterAppCallbackServer(backend, service)
	h.ns.Add(fake.HTTP("greeter", "/"), backend)
	c := h.grpc()
	app := rtv1.NewAppCallbackClient(c.conn)
	to := c.as("shop", "dapr-app-id", "greeter.default", "x-mine", "1", "y-bin", "\x01")
	var header, trailer metadata.MD
	got, err := app.OnTopicEvent(to, &rtv1.TopicEventRequest{Id: "1"}, grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil || got.GetStatus() != rtv1.TopicEventResponse_DROP || header.Get("x-own")[0] != "1" || trailer.Get("x-after")[0] != "2" || trailer.Get("x-bin")[0] != "\x00" || header.Get("quipu-call-id")[0] == "" {
		t.Errorf("%v %v %v %v", err, got, header, trailer)
	}
	if s := service.seen; s.Get("x-mine")[0] != "1" || s.Get("y-bin")[0] != "\x01" || s.Get("dapr-caller-app-id")[0] != "shop" || len(s.Get("dapr-app-id")) != 0 {
		t.Errorf("the function sees %v", s)
	}
	_, err = app.OnTopicEvent(to, &rtv1.TopicEventRequest{Id: "fail"})
	c.fails(err, codes.DataLoss, "WHY", "schlimm: ü")
	_, err = app.ListTopicSubscriptions(to, &emptypb.Empty{})
	c.fails(err, codes.Unimplemented, "", "ListTopicSubscriptions")
	big := strings.Repeat("x", 1<<20)
	if got, err := app.OnBulkTopicEvent(to, &rtv1.TopicEventBulkRequest{Id: big}); err != nil || got.GetStatuses()[0].GetEntryId() != big {
		t.Errorf("a large message: %v", err)
	}
	_, err = app.OnTopicEvent(c.as("shop", "dapr-app-id", "nobody"), &rtv1.TopicEventRequest{})
	c.fails(err, codes.Internal, "", "failed to invoke, id: nobody, err: ")
	_, err = app.OnTopicEvent(c.as("shop"), &rtv1.TopicEventRequest{})
	c.fails(err, codes.Unimplemented, "", "required metadata dapr-callee-app-id or dapr-app-id not found")
	_, err = app.OnTopicEvent(c.as("shop", "dapr-app-id", "callee"), &rtv1.TopicEventRequest{})
	c.fails(err, codes.Internal, "", "not gRPC")
}

// chat answers each message before the next one comes.
func chat(_ any, s grpc.ServerStream) error {
	for {
		var f frame
		if err := s.RecvMsg(&f); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(&frame{append([]byte("re: "), f.data...)}); err != nil {
			return err
		}
	}
}

func TestAProxiedStreamGoesBothWaysAtOnce(t *testing.T) {
	h := open(t)
	raw := rawCodec{encoding.GetCodecV2("proto")}
	h.ns.Add(fake.HTTP("chat", "/"), grpc.NewServer(grpc.ForceServerCodecV2(raw), grpc.UnknownServiceHandler(chat)))
	c := h.grpc()
	s, err := c.conn.NewStream(c.as("shop", "dapr-app-id", "chat"), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/own.Chat/Talk", grpc.ForceCodecV2(raw))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := s.SendMsg(&frame{fmt.Appendf(nil, "m%d", i)}); err != nil {
			t.Fatal(err)
		}
		var f frame
		if err := s.RecvMsg(&f); err != nil || string(f.data) != fmt.Sprintf("re: m%d", i) {
			t.Fatalf("%q %v", f.data, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(&frame{}); err != io.EOF {
		t.Error(err)
	}
}

func TestAnOperationOverGRPCNamesItsCall(t *testing.T) {
	h := open(t)
	outside := h.opt.Session
	h.opt.Session = func(r *http.Request) (quipu.Session, error) {
		if r.Header.Get(quipu.HeaderCallID) != "c7" {
			return nil, &quipu.Error{Code: quipu.CodeNoCall, Text: "no call is open"}
		}
		return outside(r)
	}
	c := h.grpc()
	_, err := c.GetState(t.Context(), &rtv1.GetStateRequest{StoreName: "statestore", Key: "k"})
	c.fails(err, codes.FailedPrecondition, "ERR_STATE_GET", "no call is open [Q0507]")
	_, err = c.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "pubsub", Topic: "t"})
	c.fails(err, codes.FailedPrecondition, "ERR_PUBSUB_PUBLISH_MESSAGE", "Q0507")
	_, err = c.InvokeService(t.Context(), &rtv1.InvokeServiceRequest{Id: "callee"})
	c.fails(err, codes.FailedPrecondition, "", "Q0507")
	if _, err = c.GetState(c.as("shop", "quipu-call-id", "c7"), &rtv1.GetStateRequest{StoreName: "statestore", Key: "k"}); err != nil {
		t.Error(err)
	}
	if m, err := c.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{}); err != nil || m.GetRuntimeVersion() == "" {
		t.Errorf("metadata needs no call: %v", err)
	}
}
