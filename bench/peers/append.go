package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"github.com/quipu-run/quipu/bench/load"
)

const (
	appendConnections = 64
	appendsInFlight   = 64 // of each connection, when pipelined
	appendsKept       = 1 << 16
)

// stream is one connection that appends to one stream.
type stream interface {
	one(ctx context.Context, data []byte) error
	// many has n on their way at once, and waits for all.
	many(ctx context.Context, data []byte, n int) error
}

// appends measures durable appends from many connections, with one or many on their way each. A pipelined figure counts
// appends; its times are of whole pipelines.
func appends(peer, address, durable string, d time.Duration) error {
	open := redisStream
	if strings.HasPrefix(peer, "nats") {
		open = natsStream
	}
	conns := make([]stream, appendConnections)
	for i := range conns {
		var err error
		if conns[i], err = open(address, i == 0); err != nil {
			return err
		}
	}
	for _, size := range []int{128, 1024} {
		data := make([]byte, size)
		f := load.Figure{Peer: peer, Bench: "append", Durable: durable, Variant: fmt.Sprintf("%d B, 1 in flight", size)}
		show(load.Run(f, appendConnections, d, func(ctx context.Context, worker, _ int) error { return conns[worker].one(ctx, data) }))
		f.Variant = fmt.Sprintf("%d B, %d in flight", size, appendsInFlight)
		f = load.Run(f, appendConnections, d, func(ctx context.Context, worker, _ int) error {
			return conns[worker].many(ctx, data, appendsInFlight)
		})
		f.N, f.OpsPerS = f.N*appendsInFlight, f.OpsPerS*appendsInFlight
		show(f)
	}
	return nil
}

// Redis: one connection is a client with a pool of one; a pipeline is written, and then its answers are read.
type redisConn struct{ c *redis.Client }

func redisStream(address string, _ bool) (stream, error) {
	c := redis.NewClient(&redis.Options{Addr: address, PoolSize: 1, MinIdleConns: 1})
	return redisConn{c}, c.Ping(context.Background()).Err()
}

func (r redisConn) one(ctx context.Context, data []byte) error {
	return r.c.XAdd(ctx, kept(data)).Err()
}

// kept is an entry of a stream that keeps about the newest ones.
func kept(data []byte) *redis.XAddArgs {
	e := entry("log", data)
	e.MaxLen, e.Approx = appendsKept, true
	return e
}

func (r redisConn) many(ctx context.Context, data []byte, n int) error {
	_, err := r.c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for range n {
			p.XAdd(ctx, kept(data))
		}
		return nil
	})
	return err
}

// NATS: publishes of one connection are acknowledged one by one.
type natsConn struct{ js jetstream.JetStream }

func natsStream(address string, first bool) (stream, error) {
	nc, err := nats.Connect("nats://"+address, nats.Timeout(5*time.Second))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(2*appendsInFlight))
	if err == nil && first {
		_, err = js.CreateStream(context.Background(), jetstream.StreamConfig{Name: "log", Subjects: []string{"log"}, Storage: jetstream.FileStorage,
			MaxMsgs: appendsKept})
	}
	return natsConn{js}, err
}

func (n natsConn) one(ctx context.Context, data []byte) error {
	_, err := n.js.Publish(ctx, "log", data)
	return err
}

func (n natsConn) many(ctx context.Context, data []byte, count int) error {
	for range count {
		if _, err := n.js.PublishAsync("log", data); err != nil {
			return err
		}
	}
	select {
	case <-n.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return errors.Join(ctx.Err(), errors.New("publishes were not acknowledged"))
	}
}
