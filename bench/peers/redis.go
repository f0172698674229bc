package main

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

type redisBroker struct{ c *redis.Client }

func openRedis(address string) (broker, error) {
	c := redis.NewClient(&redis.Options{Addr: address, PoolSize: 128})
	return &redisBroker{c}, c.Ping(context.Background()).Err()
}

func (b *redisBroker) create(ctx context.Context, stream string) error {
	return b.c.Del(ctx, stream).Err()
}

func entry(stream string, data []byte) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: stream, Values: []any{"d", data}}
}

func (b *redisBroker) publish(ctx context.Context, stream string, data []byte) error {
	return b.c.XAdd(ctx, entry(stream, data)).Err()
}

func (b *redisBroker) fill(ctx context.Context, stream string, data []byte, n int) error {
	const at = 500
	for range n / at {
		_, err := b.c.Pipelined(ctx, func(p redis.Pipeliner) error {
			for range at {
				p.XAdd(ctx, entry(stream, data))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *redisBroker) consume(ctx context.Context, stream, name string, batch int, take func([][]byte)) error {
	if err := b.c.XGroupCreateMkStream(ctx, stream, name, "0").Err(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		read, err := b.c.XReadGroup(ctx, &redis.XReadGroupArgs{Group: name, Consumer: "one", Streams: []string{stream, ">"},
			Count: int64(batch), Block: time.Second}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return err
		}
		var events [][]byte
		var ids []string
		for _, m := range read[0].Messages {
			text, _ := m.Values["d"].(string) // it was published so
			events, ids = append(events, []byte(text)), append(ids, m.ID)
		}
		if err := b.c.XAck(ctx, stream, name, ids...).Err(); err != nil {
			return err
		}
		take(events)
	}
	return ctx.Err()
}
