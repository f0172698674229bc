package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

type natsBroker struct{ js jetstream.JetStream }

func openNATS(address string) (broker, error) {
	nc, err := nats.Connect("nats://"+address, nats.Timeout(5*time.Second))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	return &natsBroker{js}, err
}

func (b *natsBroker) create(ctx context.Context, stream string) error {
	_ = b.js.DeleteStream(ctx, stream) // it may not be there
	_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{Name: stream, Subjects: []string{stream}, Storage: jetstream.FileStorage})
	return err
}

func (b *natsBroker) publish(ctx context.Context, stream string, data []byte) error {
	_, err := b.js.Publish(ctx, stream, data)
	return err
}

func (b *natsBroker) fill(ctx context.Context, stream string, data []byte, n int) error {
	for range n {
		for {
			_, err := b.js.PublishAsync(stream, data)
			if err == nil {
				break
			}
			if !errors.Is(err, jetstream.ErrTooManyStalledMsgs) {
				return err
			}
		}
	}
	select {
	case <-b.js.PublishAsyncComplete():
		return nil
	case <-time.After(2 * time.Minute):
		return errors.New("the backlog was not published in time")
	}
}

func (b *natsBroker) consume(ctx context.Context, stream, name string, batch int, take func([][]byte)) error {
	c, err := b.js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		got, err := c.Fetch(batch, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return err
		}
		var events [][]byte
		for m := range got.Messages() {
			events = append(events, m.Data())
			if err := m.Ack(); err != nil {
				return err
			}
		}
		if len(events) > 0 {
			take(events)
		}
	}
	return ctx.Err()
}
