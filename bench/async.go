package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quipu-run/quipu"
)

// asyncCalls are asked for at once; a queue takes quipu.AsyncQueueMax.
const asyncCalls = 8000

// benchAsync asks for calls that nobody waits for, and measures how fast they are accepted and, from the first request on,
// how fast all of them are made: of a plain function, and of an atomic one with a key for each call.
func benchAsync(r *runner) error {
	return r.withNode(func(ctx context.Context, n *node) error {
		for _, k := range []struct{ name, path, function string }{{"plain", "/hello", "hello"}, {"atomic, 1,000 keys", "/counts/k%d", "counters"}} {
			if err := r.async(ctx, n, k.name, "http://"+n.info.HTTP+k.path, k.function); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
		}
		return nil
	})
}

func (r *runner) async(ctx context.Context, n *node, name, url, function string) error {
	const callers = 64
	c, begin := caller(), time.Now()
	var asked atomic.Int64
	took := make([]time.Duration, asyncCalls)
	var failed error
	var once sync.Once
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := asked.Add(1); i <= asyncCalls; i = asked.Add(1) {
				start := time.Now()
				if err := askAsync(ctx, c, url, int(i%1000)); err != nil {
					once.Do(func() { failed = err })
					return
				}
				took[i-1] = time.Since(start)
			}
		})
	}
	all.Wait()
	accepted := time.Since(begin)
	if failed != nil {
		return failed
	}
	if err := n.allCalled(ctx, function); err != nil {
		return err
	}
	done := time.Since(begin)
	f := figure{Peer: "quipu", Bench: "async_accept", Variant: name, Durable: "accepted, on disk", Conc: callers, N: asyncCalls}
	r.print(f.Summed(took, accepted))
	f.Bench, f.Durable = "async_done", "result on disk"
	f.Seconds, f.OpsPerS = done.Seconds(), asyncCalls/done.Seconds()
	r.print(f)
	return nil
}

func askAsync(ctx context.Context, c *http.Client, url string, key int) error {
	if strings.Contains(url, "%d") {
		url = fmt.Sprintf(url, key)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	q.Header.Set(quipu.HeaderPrefer, quipu.PreferAsync)
	_, err = answerOf(c, q)
	return err
}

// allCalled waits until no call of a function waits. Those that do come first in a listing, or are younger than all that
// have ended.
func (n *node) allCalled(ctx context.Context, function string) error {
	for start := time.Now(); time.Since(start) < drainedMax; time.Sleep(2 * time.Millisecond) {
		calls, err := n.client.Calls(ctx, function, 1000)
		if err != nil {
			return err
		}
		pending := false
		for _, call := range calls {
			pending = pending || call.State.Pending()
		}
		if !pending {
			return nil
		}
		time.Sleep(20 * time.Millisecond) // a listing costs
	}
	return errors.New("calls of " + function + " were not made in time")
}
