package server

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"

	"github.com/quipu-run/quipu/sdk"
)

// broker is a program of somebody else, which has a pub/sub and an input binding.
type broker struct {
	messages chan *proto.PullMessagesResponse
	events   chan *proto.ReadResponse
	acks     chan string // ids, with what went wrong
}

// newBroker serves one at mine.sock, where a node looks.
func newBroker(t *testing.T) *broker {
	t.Helper()
	dir, err := os.MkdirTemp("", "q") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("DAPR_COMPONENTS_SOCKETS_FOLDER", dir)
	l, err := net.Listen("unix", filepath.Join(dir, "mine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{messages: make(chan *proto.PullMessagesResponse, 10), events: make(chan *proto.ReadResponse, 10), acks: make(chan string, 10)}
	s := grpc.NewServer()
	proto.RegisterPubSubServer(s, brokerTopics{broker: b})
	proto.RegisterInputBindingServer(s, brokerInput{broker: b})
	reflection.Register(s)
	go func() { _ = s.Serve(l) }() // it ends with Stop
	t.Cleanup(s.Stop)
	return b
}

type brokerTopics struct {
	proto.UnimplementedPubSubServer
	*broker
}

func (brokerTopics) Init(context.Context, *proto.PubSubInitRequest) (*proto.PubSubInitResponse, error) {
	return &proto.PubSubInitResponse{}, nil
}

func (brokerTopics) Features(context.Context, *proto.FeaturesRequest) (*proto.FeaturesResponse, error) {
	return &proto.FeaturesResponse{}, nil
}

// Publish is what comes back to who subscribes.
func (b brokerTopics) Publish(_ context.Context, r *proto.PublishRequest) (*proto.PublishResponse, error) {
	b.messages <- &proto.PullMessagesResponse{Data: r.GetData(), TopicName: r.GetTopic(), ContentType: r.GetContentType(), Id: "published"}
	return &proto.PublishResponse{}, nil
}

func (b brokerTopics) PullMessages(stream proto.PubSub_PullMessagesServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	go func() {
		for {
			ack, err := stream.Recv()
			if err != nil {
				return
			}
			b.acks <- ack.GetAckMessageId() + ack.GetAckError().GetMessage()
		}
	}()
	for {
		select {
		case m := <-b.messages:
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

type brokerInput struct {
	proto.UnimplementedInputBindingServer
	*broker
}

func (brokerInput) Init(context.Context, *proto.InputBindingInitRequest) (*proto.InputBindingInitResponse, error) {
	return &proto.InputBindingInitResponse{}, nil
}

func (b brokerInput) Read(stream proto.InputBinding_ReadServer) error {
	go func() {
		for {
			ack, err := stream.Recv()
			if err != nil {
				return
			}
			b.acks <- ack.GetMessageId() + ack.GetResponseError().GetMessage()
		}
	}()
	for {
		select {
		case e := <-b.events:
			if err := stream.Send(e); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

const brokerFiles = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: elsewhere}
spec: {type: pubsub.mine, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: in}
spec: {type: bindings.mine, version: v1, metadata: [{name: direction, value: input}]}
`

// What a broker on a socket has comes to an application by the log, and the broker is told when it is durable there.
func TestABrokerOnASocketFeedsAnApplication(t *testing.T) {
	b := newBroker(t)
	n := start(t)
	app := newRecorder(t, `[{"pubsubname":"elsewhere","topic":"news","route":"/news"}]`, "POST /news", "POST /in")
	open, _ := n.attach("shop", sdk.Attachment{Port: app.port, Protocol: "http", Resources: map[string]string{"mine.yaml": brokerFiles}})
	door, token := "http://127.0.0.1:"+open.DaprHTTP+"/v1.0", []string{"dapr-api-token", open.Token, "Content-Type", "application/json"}

	ask("POST", door+"/publish/elsewhere/news", `{"a":1}`, token...).want(t, 204, "")
	b.events <- &proto.ReadResponse{Data: []byte("plain"), MessageId: "read"}
	for range 2 {
		select {
		case id := <-b.acks:
			if id != "published" && id != "read" {
				t.Errorf("the broker was told %q", id)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the broker was not told")
		}
	}
	eventually(t, "both have come", func() bool { return len(app.bodies("POST /news")) == 1 && len(app.bodies("POST /in")) == 1 })
	if got := app.bodies("POST /in")[0]; got != "plain" {
		t.Errorf("the binding brought %q", got)
	}
}
