package server

import (
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/quipu-run/quipu/sdk"
)

// An application without a port hosts actors on a stream that it opens: calls go out on it, errors of actors come back as such, and when
// it ends nobody hosts them.
func TestAStreamHostsActors(t *testing.T) {
	n := start(t)
	open := n.attachSilent("zoo", sdk.Attachment{Protocol: "grpc"})
	conn, err := grpc.NewClient("127.0.0.1:"+open.DaprGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-api-token", open.Token)
	stream, err := rtv1.NewDaprClient(conn).SubscribeActorEventsAlpha1(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first := &rtv1.SubscribeActorEventsRequestAlpha1{RequestType: &rtv1.SubscribeActorEventsRequestAlpha1_InitialRequest{
		InitialRequest: &rtv1.SubscribeActorEventsRequestInitialAlpha1{Entities: []string{"cat"}}}}
	if err := stream.Send(first); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetInitialResponse() == nil {
		t.Fatal(m, err)
	}
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return // the test has ended it
			}
			in := m.GetInvokeRequest()
			out := &rtv1.SubscribeActorEventsRequestInvokeResponseAlpha1{Id: in.GetId(), Data: []byte(in.GetMethod() + " " + in.GetActorId() + " " + string(in.GetData())), Error: in.GetMethod() == "fail"}
			if err := stream.Send(&rtv1.SubscribeActorEventsRequestAlpha1{RequestType: &rtv1.SubscribeActorEventsRequestAlpha1_InvokeResponse{InvokeResponse: out}}); err != nil {
				return
			}
		}
	}()
	n.actor("cat/tom/method/feed", "fish").want(t, 200, "feed tom fish")
	failed := n.actor("cat/tom/method/fail", "x")
	failed.want(t, 200, "fail tom x")
	if failed.header.Get("X-DaprErrorResponseHeader") == "" {
		t.Errorf("the error is not told: %v", failed.header)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody hosts them", func() bool {
		return strings.Contains(n.actor("cat/tom/method/feed", "x").body, "did not find address")
	})
}

// attachSilent attaches an application without a port, which is never heard to listen.
func (n *node) attachSilent(id string, a sdk.Attachment) sdk.Attached {
	n.t.Helper()
	told := make(chan sdk.Attached, 10)
	go func() {
		for now, err := range n.client.Attach(n.t.Context(), id, a) {
			if err != nil {
				return // with the test
			}
			told <- now
		}
	}()
	return <-told
}
