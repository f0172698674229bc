// Peers measures on a running NATS or Redis what bench measures on Quipu with events: publish, the way to a consumer,
// consuming a backlog, fan-out; and with -part append what it measures on
// the log's door. It is a module of its own, so that their clients are no dependency of ours.
//
//	go run . [-part append] -peer nats-always -address 127.0.0.1:4222 -durable "fsync before ack" -d 2s
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu/bench/load"
)

// broker is what is measured of a peer.
type broker interface {
	// create makes an empty stream.
	create(ctx context.Context, stream string) error
	publish(ctx context.Context, stream string, data []byte) error
	// fill publishes many, as fast as it can.
	fill(ctx context.Context, stream string, data []byte, n int) error
	// consume hands events of a durable consumer to take, up to batch at a time, and acknowledges each batch, until ctx
	// ends.
	consume(ctx context.Context, stream, name string, batch int, take func(events [][]byte)) error
}

const (
	eventBytes = 128
	backlog    = 100_000
)

func main() {
	peer := flag.String("peer", "", "nats… or redis…")
	address := flag.String("address", "", "where it listens")
	durable := flag.String("durable", "", "what an answer of it means")
	part := flag.String("part", "events", "what is measured: events or append")
	d := flag.Duration("d", 2*time.Second, "time of each figure")
	flag.Parse()
	if err := run(*part, *peer, *address, *durable, *d); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(part, peer, address, durable string, d time.Duration) error {
	if part == "append" {
		return appends(peer, address, durable, d)
	}
	open := openRedis
	if strings.HasPrefix(peer, "nats") {
		open = openNATS
	}
	b, err := open(address)
	if err != nil {
		return err
	}
	ctx := context.Background()
	base := load.Figure{Peer: peer, Durable: durable}
	for _, part := range []func(context.Context, broker, load.Figure, time.Duration) error{publish, delivery, consume, fanOut} {
		if err := part(ctx, b, base, d); err != nil {
			return err
		}
	}
	return nil
}

func show(f load.Figure) {
	line, err := json.Marshal(f)
	if err != nil {
		panic(err) // numbers and strings
	}
	fmt.Printf("%s\n", line)
}

var payload = []byte(`{"pad":"` + strings.Repeat("x", eventBytes) + `"}`)

func publish(ctx context.Context, b broker, f load.Figure, d time.Duration) error {
	if err := b.create(ctx, "load"); err != nil {
		return err
	}
	f.Bench, f.Variant = "publish", "its own protocol, 128 B"
	for _, conc := range []int{1, 16, 64} {
		show(load.Run(f, conc, d, func(ctx context.Context, _, _ int) error { return b.publish(ctx, "load", payload) }))
	}
	return nil
}

// delivery measures the way of single events to a consumer that waits.
func delivery(ctx context.Context, b broker, f load.Figure, d time.Duration) error {
	if err := b.create(ctx, "way"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var took []time.Duration
	ended := make(chan error, 1)
	go func() {
		ended <- b.consume(ctx, "way", "one", 1, func(events [][]byte) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				var left int64
				if _, err := fmt.Sscan(string(e), &left); err == nil {
					took = append(took, time.Duration(time.Now().UnixNano()-left))
				}
			}
		})
	}()
	time.Sleep(500 * time.Millisecond) // it is there by then
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(2 * time.Millisecond) {
		if err := b.publish(ctx, "way", fmt.Append(nil, time.Now().UnixNano())); err != nil {
			cancel()
			return err
		}
	}
	time.Sleep(500 * time.Millisecond) // the last are on their way
	cancel()
	<-ended
	f.Bench, f.Variant, f.Conc = "delivery", "publish to client", 1
	show(f.Summed(took, d))
	return nil
}

// consume measures a backlog.
func consume(ctx context.Context, b broker, f load.Figure, _ time.Duration) error {
	for _, batch := range []int{1, 100} {
		stream, n := fmt.Sprintf("backlog-%d", batch), backlog
		if batch == 1 {
			n /= 5
		}
		if err := b.create(ctx, stream); err != nil {
			return err
		}
		if err := b.fill(ctx, stream, payload, n); err != nil {
			return err
		}
		start := time.Now()
		if err := all(ctx, b, stream, 1, batch, n); err != nil {
			return err
		}
		took := time.Since(start)
		f.Bench, f.Variant, f.Conc, f.N, f.Seconds, f.OpsPerS = "consume", fmt.Sprintf("batch %d", batch), 1, n, took.Seconds(), float64(n)/took.Seconds()
		show(f)
	}
	return nil
}

// all consumes n events under each of some names, side by side.
func all(ctx context.Context, b broker, stream string, names, batch, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, names)
	for i := range names {
		wg.Go(func() {
			own, stop := context.WithCancel(ctx)
			defer stop()
			var got atomic.Int64
			err := b.consume(own, stream, fmt.Sprintf("c%d", i), batch, func(events [][]byte) {
				if got.Add(int64(len(events))) >= int64(n) {
					stop()
				}
			})
			if own.Err() == nil || got.Load() < int64(n) {
				errs <- fmt.Errorf("consumer %d got %d of %d: %w", i, got.Load(), n, err)
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func fanOut(ctx context.Context, b broker, f load.Figure, _ time.Duration) error {
	for _, names := range []int{1, 10} {
		stream, n := fmt.Sprintf("fan-%d", names), backlog/2
		if err := b.create(ctx, stream); err != nil {
			return err
		}
		start := time.Now()
		if err := b.fill(ctx, stream, payload, n); err != nil {
			return err
		}
		if err := all(ctx, b, stream, names, 100, n); err != nil {
			return err
		}
		took := time.Since(start)
		f.Bench, f.Variant, f.Conc, f.N = "fan_out", fmt.Sprintf("%d subscriptions, batch 100", names), 1, n*names
		f.Seconds, f.OpsPerS = took.Seconds(), float64(n*names)/took.Seconds()
		show(f)
	}
	return nil
}
