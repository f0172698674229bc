package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quipu-run/quipu/internal/bundle"
)

// benchEvents publishes through Dapr's HTTP API, measures how long events are on their way to warm functions, and how
// fast a backlog is consumed.
func benchEvents(r *runner) error {
	for _, part := range []func(context.Context, *node) error{r.publish, r.delivery, r.backlog, r.fanOut} {
		if err := r.withNode(part); err != nil {
			return err
		}
	}
	return nil
}

const eventBytes = 128 // of data

func (n *node) publishURL(topic string) string {
	return "http://" + n.info.DaprHTTP + "/v1.0/publish/pubsub/" + topic
}

// publish has nobody subscribed.
func (r *runner) publish(_ context.Context, n *node) error {
	body := `{"left":0,"pad":"` + strings.Repeat("x", eventBytes) + `"}`
	for _, conc := range connections {
		c := caller()
		r.print(measured(figure{Peer: "quipu", Bench: "publish", Variant: "Dapr HTTP, 128 B", Durable: "on disk"}, conc, r.d,
			func(ctx context.Context, _, _ int) error { return call(ctx, c, "POST", n.publishURL("load"), body) }))
	}
	return nil
}

// sink is a function that takes events of a topic; all functions of one bench are one application.
func sink(name, topic, path string, atomic bool, batch int, more ...string) string {
	return fmt.Sprintf(`apiVersion: quipu.dev/v1
kind: Function
metadata: {name: %s}
spec:
  source: ./sink
  runtime: go
  atomic: %t
  scale: {min: 1, max: 10}
  triggers:
    - topic: {name: %s, path: %s, batch: %d, from: earliest%s}
    - http: {path: /seen/%s}
---
`, name, atomic, topic, path, batch, strings.Join(more, ""), name)
}

// deploySinks deploys functions from the sources of this folder.
func (n *node) deploySinks(ctx context.Context, dir string, manifest string) error {
	app, err := os.MkdirTemp(dir, "sinks-")
	if err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(app, "sink"), os.DirFS(filepath.Join(folder(), "app", "sink"))); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(app, "quipu.yaml"), []byte(manifest), 0o600); err != nil {
		return err
	}
	packed, err := bundle.Pack(ctx, app)
	if err != nil {
		return err
	}
	_, err = n.client.Deploy(ctx, "sinks", packed)
	return err
}

// seen is what a sink says.
type seen struct {
	Events, Calls int
	First, Last   time.Time
	Micros        []float64
}

func (n *node) seen(ctx context.Context, name string) (s seen, err error) {
	answer, err := fetch(ctx, caller(), "http://"+n.info.HTTP+"/seen/"+name)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(answer, &s)
}

// lag is how many events the subscriptions of a topic have not done yet.
func (n *node) lag(ctx context.Context, topic string) (lag uint64, err error) {
	info, err := n.client.Topic(ctx, topic)
	for _, s := range info.Subscriptions {
		lag += s.Lag
	}
	return lag, err
}

// drained waits until the subscriptions of a topic have nothing left.
func (n *node) drained(ctx context.Context, topic string) error {
	for start := time.Now(); time.Since(start) < drainedMax; time.Sleep(2 * time.Millisecond) {
		if lag, err := n.lag(ctx, topic); err != nil || lag == 0 {
			return err
		}
	}
	return errors.New("the backlog of topic " + topic + " was not consumed in time")
}

const drainedMax = 2 * time.Minute

// delivery measures the way of single events to a warm function.
func (r *runner) delivery(ctx context.Context, n *node) error {
	kinds := []struct {
		name, path string
		atomic     bool
	}{{"plain", "/events", false}, {"atomic", "/add", true}}
	manifest := ""
	for _, k := range kinds {
		manifest += sink(k.name, k.name, k.path, k.atomic, 1)
	}
	if err := n.deploySinks(ctx, r.dir, manifest); err != nil {
		return err
	}
	for _, k := range kinds {
		c := caller()
		until := time.Now().Add(r.d)
		for time.Now().Before(until) {
			if err := call(ctx, c, "POST", n.publishURL(k.name), fmt.Sprintf(`{"left":%d}`, time.Now().UnixNano())); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond) // one at a time: this measures the way, not a queue
		}
		if err := n.drained(ctx, k.name); err != nil {
			return err
		}
		s, err := n.seen(ctx, k.name)
		if err != nil {
			return err
		}
		r.print(ofMicros(figure{Peer: "quipu", Bench: "delivery", Variant: k.name + ", publish to function", Durable: "on disk", Conc: 1}, s.Micros, r.d))
	}
	return nil
}

// ofMicros makes a figure of latencies that were measured elsewhere.
func ofMicros(f figure, micros []float64, took time.Duration) figure {
	latencies := make([]time.Duration, len(micros))
	for i, us := range micros {
		latencies[i] = time.Duration(us * 1e3)
	}
	return f.Summed(latencies, took)
}

const backlogEvents = 50_000

// fill publishes a backlog in bulk.
func (n *node) fill(ctx context.Context, topic string, events int) error {
	const at = 500
	var batch bytes.Buffer
	batch.WriteByte('[')
	for i := range at {
		if i > 0 {
			batch.WriteByte(',')
		}
		fmt.Fprintf(&batch, `{"entryId":"%d","contentType":"application/json","event":{"left":0,"pad":"%s"}}`, i, strings.Repeat("x", eventBytes))
	}
	batch.WriteByte(']')
	c := caller()
	for range events / at {
		url := "http://" + n.info.DaprHTTP + "/v1.0/publish/bulk/pubsub/" + topic
		if err := call(ctx, c, "POST", url, batch.String()); err != nil {
			return err
		}
	}
	return nil
}

// backlog measures how fast events that wait are consumed, from when the function is deployed and most still do.
func (r *runner) backlog(ctx context.Context, n *node) error {
	for _, k := range []struct {
		name, path string
		atomic     bool
		batch      int
		events     int
	}{
		{"plain-1", "/events", false, 1, backlogEvents / 5}, {"atomic-1", "/add", true, 1, backlogEvents / 20},
		{"plain-100", "/events", false, 100, 4 * backlogEvents}, {"atomic-100", "/add", true, 100, 4 * backlogEvents},
	} {
		if err := n.fill(ctx, k.name, k.events); err != nil {
			return err
		}
		if err := n.deploySinks(ctx, r.dir, sink(k.name, k.name, k.path, k.atomic, k.batch)); err != nil {
			return err
		}
		start := time.Now()
		waiting, err := n.lag(ctx, k.name)
		if err == nil {
			err = n.drained(ctx, k.name)
		}
		if err != nil {
			return err
		}
		took := time.Since(start)
		r.print(figure{Peer: "quipu", Bench: "consume", Variant: strings.ReplaceAll(k.name, "-", ", batch "), Durable: "acknowledged on disk",
			Conc: 1, N: int(waiting), Seconds: took.Seconds(), OpsPerS: float64(waiting) / took.Seconds()})
	}
	return nil
}

// fanOut measures from the first publish until all subscriptions have everything.
func (r *runner) fanOut(ctx context.Context, n *node) error {
	for _, subscriptions := range []int{1, 10} {
		topic, manifest := fmt.Sprintf("fan-%d", subscriptions), ""
		for i := range subscriptions {
			manifest += sink(fmt.Sprintf("fan-%d-%d", subscriptions, i), topic, "/events", false, 100)
		}
		if err := n.deploySinks(ctx, r.dir, manifest); err != nil {
			return err
		}
		start := time.Now()
		if err := n.fill(ctx, topic, backlogEvents); err != nil {
			return err
		}
		if err := n.drained(ctx, topic); err != nil {
			return err
		}
		took := time.Since(start)
		events := backlogEvents * subscriptions
		r.print(figure{Peer: "quipu", Bench: "fan_out", Variant: fmt.Sprintf("%d subscriptions, batch 100", subscriptions), Durable: "on disk",
			Conc: 1, N: events, Seconds: took.Seconds(), OpsPerS: float64(events) / took.Seconds()})
	}
	return nil
}
