package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	batchDefault = 100
	senders      = 4
	// patience is how long one batch is tried again, through kills of instances and of the node.
	patience   = 60 * time.Second
	pauseFirst = 5 * time.Millisecond
	pauseMax   = 200 * time.Millisecond
)

// feed sends flights in batches, each until it was answered with success. Each has a key, so that the platform
// knows a batch that it counted before its answer was lost.
type feed struct {
	host    string // of the node
	run     string // makes keys of this run its own
	batch   int    // flights in one request
	client  *http.Client
	sent    atomic.Int64 // flights acknowledged
	retries atomic.Int64 // requests that had to be made again
}

func newFeed(n *node, run string, batch int) *feed {
	return &feed{host: "http://" + n.info.HTTP, run: run, batch: batch,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}}
}

// all sends everything with a few senders at a time; after each batch it calls done.
func (f *feed) all(ctx context.Context, flights []Flight, done func(sent int)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches := make(chan int)
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for from := range batches {
				batch := flights[from:min(from+f.batch, len(flights))]
				if err := f.sendFlights(ctx, from, batch); err != nil {
					cancel(err)
					return
				}
				done(int(f.sent.Add(int64(len(batch)))))
			}
		})
	}
	for from := 0; from < len(flights) && ctx.Err() == nil; from += f.batch {
		select {
		case batches <- from:
		case <-ctx.Done():
		}
	}
	close(batches)
	wg.Wait()
	return context.Cause(ctx)
}

func (f *feed) sendFlights(ctx context.Context, from int, flights []Flight) error {
	body, err := json.Marshal(flights)
	if err != nil {
		return err
	}
	return f.send(ctx, "/flights", fmt.Sprintf("%s-%d", f.run, from), body)
}

// send sends one request under its key until it is acknowledged.
func (f *feed) send(ctx context.Context, path, key string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for pause := pauseFirst; ; pause = min(2*pause, pauseMax) {
		if last = f.post(ctx, path, key, body); last == nil {
			return nil
		}
		f.retries.Add(1)
		select {
		case <-ctx.Done():
			return fmt.Errorf("POST %s as %s: %w", path, key, last)
		case <-time.After(pause):
		}
	}
}

func (f *feed) post(ctx context.Context, path, key string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, "POST", f.host+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	resp, err := f.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(answer))
	}
	return err
}
