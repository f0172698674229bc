package pluggable

import (
	"context"
	"errors"
	"fmt"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/quipu-run/quipu/internal/component"
	"google.golang.org/grpc"
)

// foreignPubSub is a pub/sub of a program.
type foreignPubSub struct {
	*link
	client   proto.PubSubClient
	features []string
}

func pubSubFactory(socket string) component.Factory {
	return func(ctx context.Context, h component.Host, s component.Spec) (any, error) {
		l, err := open(ctx, socket, h, s, func(ctx context.Context, conn grpc.ClientConnInterface) error {
			_, err := proto.NewPubSubClient(conn).Init(ctx, &proto.PubSubInitRequest{Metadata: &proto.MetadataRequest{Properties: s.Metadata}})
			return err
		})
		if err != nil {
			return nil, err
		}
		f := &foreignPubSub{link: l, client: proto.NewPubSubClient(l.conn)}
		reply, err := f.client.Features(ctx, &proto.FeaturesRequest{})
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f.features = reply.GetFeatures()
		return component.PubSub{Topics: s.Name + "/", Foreign: f, Consumer: s.Metadata.Get("consumerID")}, nil
	}
}

// Features is component.ForeignPubSub.
func (f *foreignPubSub) Features() []string { return f.features }

// Publish is component.ForeignPubSub.
func (f *foreignPubSub) Publish(ctx context.Context, m component.ForeignMessage) error {
	_, err := f.client.Publish(ctx, &proto.PublishRequest{Topic: m.Topic, PubsubName: f.spec.Name, Data: m.Data, Metadata: m.Metadata, ContentType: m.ContentType})
	return err
}

// Subscribe is component.ForeignPubSub. Messages come one after the other. A message under way when ctx ends is not answered, so
// that the program gives it to somebody else.
func (f *foreignPubSub) Subscribe(ctx context.Context, topic string, metadata map[string]string, deliver func(context.Context, component.ForeignMessage) error) error {
	return f.again(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := f.client.PullMessages(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&proto.PullMessagesRequest{Topic: &proto.Topic{Name: topic, Metadata: metadata}}); err != nil {
			return received(stream, err)
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("pull messages of topic %.80q: %w", topic, err)
			}
			failed := deliver(stream.Context(), component.ForeignMessage{Topic: m.GetTopicName(), ContentType: m.GetContentType(), Data: m.GetData(), Metadata: m.GetMetadata()})
			if stream.Context().Err() != nil {
				continue // Recv has the reason
			}
			answer := &proto.PullMessagesRequest{AckMessageId: m.GetId()}
			if failed != nil {
				answer.AckError = &proto.AckMessageError{Message: failed.Error()}
			}
			if err := stream.Send(answer); err != nil {
				return received(stream, err)
			}
		}
	})
}

// received is why a stream cannot be sent to: Recv knows.
func received[Q, A any](stream grpc.BidiStreamingClient[Q, A], err error) error {
	for {
		if _, why := stream.Recv(); why != nil {
			return errors.Join(why, err)
		}
	}
}
