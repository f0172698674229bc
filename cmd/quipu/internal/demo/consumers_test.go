package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/bundle"
	"github.com/quipu-run/quipu/sdk"
)

// knot is an event of testdata/consumers: the n-th of a cord, from 1.
type knot struct {
	ID   string `json:"id"`
	Cord string `json:"cord"`
	N    int    `json:"n"`
}

const (
	knotsTopic  = "knots"
	cordsOfEach = 8  // of a sender, so that the knots of a cord are published in order
	knotsAtOnce = 10 // in one request

	knotKillsWhile = 12 // of the node, while knots are published,
	knotKillsAfter = 4  // and when all are published
)

// consumers is how many functions subscribe to knots.
const consumers = 4

// Events go through kill -9 of the node and of instances, at random. What an atomic consumer does with an event
// happens exactly once; a plain consumer gets it at least once; with a key, each gets the events of a key in order.
func TestKillsLoseNoEventAndKeepTheOrderOfKeys(t *testing.T) {
	total := 20_000
	if testing.Short() {
		total = 2_000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	rng := rand.New(rand.NewPCG(seed, 0))
	w := newWeave(t, ctx, total)
	k := newKiller(t, cancel, w.node, w.client, rng)
	go k.run(ctx)
	w.publish(ctx, k)
	enough := k.kills() + knotKillsAfter
	w.must(until(ctx, "the node is killed", func(context.Context) (bool, error) { return k.kills() >= enough, nil }))
	close(k.stop)
	<-k.done
	w.settle(ctx)

	w.onceEach(ctx)
	w.inOrder(ctx)
	again := w.atLeastOnce("least") + w.atLeastOnce("lined")
	w.firstInOrder("lined")
	w.nothingGivenUp(ctx)
	t.Logf("%d events, %d kills of the node, %d of instances, %d requests sent again, %d events delivered again to plain consumers",
		total, k.kills(), k.instances.Load(), w.feed.retries.Load(), again)
	if err := w.node.stop(); err != nil {
		t.Errorf("the node did not end well: %v", err)
	}
	noneLeft(t, w.node.data)
}

// weave is a node with consumers and the knots they are to get.
type weave struct {
	t        *testing.T
	node     *node
	client   *sdk.Client
	feed     *feed
	dapr     string // address of the node's Dapr API
	evidence string // folder of what plain consumers wrote
	knots    [senders][]knot
	total    int
}

func newWeave(t *testing.T, ctx context.Context, total int) *weave {
	t.Helper()
	w := &weave{t: t, evidence: t.TempDir(), total: total}
	output, err := os.Create(filepath.Join(t.TempDir(), "node.log"))
	w.must(err)
	t.Cleanup(func() { showEnd(t, output) })
	w.node = &node{program: program(t), data: t.TempDir(), ports: Ports{Host: "127.0.0.1"}, output: output,
		flags: []string{"--sandbox=off"}} // its plain consumers leave evidence in a folder of the test
	w.must(w.node.start(ctx))
	w.client, err = sdk.New(sdk.Options{URL: w.node.info.HTTP})
	w.must(err)
	w.feed, w.dapr = newFeed(w.node, "", knotsAtOnce), "http://"+w.node.info.DaprHTTP
	w.deploy(ctx)
	for i := range total {
		s := i % senders
		cord := fmt.Sprintf("cord-%d-%d", s, i/senders%cordsOfEach)
		w.knots[s] = append(w.knots[s], knot{fmt.Sprintf("knot-%05d", i), cord, i/senders/cordsOfEach + 1})
	}
	return w
}

// showEnd shows the last of what a node printed, if the test failed.
func showEnd(t *testing.T, output *os.File) {
	defer output.Close()
	if text, err := os.ReadFile(output.Name()); err == nil && t.Failed() {
		t.Logf("the node printed last:\n%s", text[max(0, len(text)-4<<10):])
	}
}

func (w *weave) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *weave) deploy(ctx context.Context) {
	w.t.Helper()
	dir := w.t.TempDir()
	w.must(os.CopyFS(dir, os.DirFS("testdata/consumers")))
	manifest := filepath.Join(dir, "quipu.yaml")
	text, err := os.ReadFile(manifest)
	w.must(err)
	w.must(os.WriteFile(manifest, bytes.ReplaceAll(text, []byte("EVIDENCE/"), []byte(w.evidence+"/")), 0o600))
	packed, err := bundle.Pack(ctx, dir)
	w.must(err)
	_, err = w.client.Deploy(ctx, "consumers", packed)
	w.must(err)
}

// publish has each sender publish its knots in order. It goes on as the node is killed, so that each part of the knots
// sees kills.
func (w *weave) publish(ctx context.Context, k *randomKiller) {
	w.t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, senders)
	for s := range senders {
		wg.Go(func() { errs[s] = w.publishAs(ctx, s, k) })
	}
	wg.Wait()
	for _, err := range errs {
		w.must(err)
	}
}

func (w *weave) publishAs(ctx context.Context, sender int, k *randomKiller) error {
	all := w.knots[sender]
	for from := 0; from < len(all); from += knotsAtOnce {
		due := int64(knotKillsWhile * from / len(all))
		if err := until(ctx, "the node is killed", func(context.Context) (bool, error) { return k.kills() >= due, nil }); err != nil {
			return err
		}
		batch := all[from:min(from+knotsAtOnce, len(all))]
		body, err := json.Marshal(batch)
		if err != nil {
			return err
		}
		if err := w.feed.send(ctx, "/publish", batch[0].ID, body); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until every consumer has done every event.
func (w *weave) settle(ctx context.Context) {
	w.t.Helper()
	w.must(until(ctx, "all events are done", func(ctx context.Context) (bool, error) {
		topic, err := w.client.Topic(ctx, knotsTopic)
		if err != nil {
			return false, err
		}
		if n := len(topic.Subscriptions); n != consumers {
			return false, fmt.Errorf("%d functions subscribe, want %d", n, consumers)
		}
		lag, err := lagOf(topic)
		return lag == 0, err
	}))
}

// onceEach looks at what the atomic consumer counted for each event.
func (w *weave) onceEach(ctx context.Context) {
	w.t.Helper()
	counts := w.state(ctx, "once/")
	if len(counts) != w.total {
		w.t.Errorf("the atomic consumer counted %d events, want %d", len(counts), w.total)
	}
	for key, n := range counts {
		if n != 1 {
			w.t.Errorf("the effects of %s happened %d times, want once", key, n)
		}
	}
}

// inOrder looks at what the atomic consumer with a key saw of each cord.
func (w *weave) inOrder(ctx context.Context) {
	w.t.Helper()
	if wrong := w.state(ctx, "wrong/"); len(wrong) > 0 {
		w.t.Errorf("events that did not follow the one before in their key: %v", wrong)
	}
	last := w.state(ctx, "last/")
	for cord, knots := range w.cords() {
		if got, want := last["last/"+cord], len(knots); got != want {
			w.t.Errorf("the last event of %s is number %d, want %d", cord, got, want)
		}
	}
}

func (w *weave) cords() map[string][]knot {
	cords := map[string][]knot{}
	for _, knots := range w.knots {
		for _, k := range knots {
			cords[k.Cord] = append(cords[k.Cord], k)
		}
	}
	return cords
}

// atLeastOnce looks at what a plain consumer wrote, and answers how many events came again.
func (w *weave) atLeastOnce(name string) (again int) {
	w.t.Helper()
	times := map[string]int{}
	for _, k := range w.written(name) {
		times[k.ID]++
	}
	for _, knots := range w.knots {
		for _, k := range knots {
			if times[k.ID] == 0 {
				w.t.Errorf("%s never got %s", name, k.ID)
			}
			again += max(0, times[k.ID]-1)
		}
	}
	if len(times) > w.total {
		w.t.Errorf("%s got %d events, more than were published", name, len(times))
	}
	return again
}

// firstInOrder checks that an event came first only after all before it in its key: what comes again may go back, but
// nothing is skipped.
func (w *weave) firstInOrder(name string) {
	w.t.Helper()
	highest := map[string]int{}
	for _, k := range w.written(name) {
		if k.N > highest[k.Cord]+1 {
			w.t.Errorf("%s got number %d of %s right after number %d", name, k.N, k.Cord, highest[k.Cord])
		}
		highest[k.Cord] = max(highest[k.Cord], k.N)
	}
}

// written reads what a plain consumer wrote. A line that was cut by a kill is none.
func (w *weave) written(name string) (knots []knot) {
	w.t.Helper()
	f, err := os.Open(filepath.Join(w.evidence, name))
	w.must(err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var k knot
		if _, err := fmt.Sscanf(lines.Text(), "%s %s %d", &k.ID, &k.Cord, &k.N); err == nil {
			knots = append(knots, k)
		}
	}
	w.must(lines.Err())
	return knots
}

// nothingGivenUp checks that all was published once, and nothing became a dead letter.
func (w *weave) nothingGivenUp(ctx context.Context) {
	w.t.Helper()
	topics, err := w.client.Topics(ctx)
	w.must(err)
	for _, topic := range topics {
		if topic.Name == knotsTopic && topic.Last != uint64(w.total) {
			w.t.Errorf("%d events were published, want %d", topic.Last, w.total)
		}
		if topic.DeadLetters > 0 {
			w.t.Errorf("%d events were given up to %s", topic.DeadLetters, topic.Name)
		}
	}
	if !slices.ContainsFunc(topics, func(i quipu.TopicInfo) bool { return i.Name == knotsTopic }) {
		w.t.Errorf("there is no topic %s", knotsTopic)
	}
}

// state reads all keys with a prefix, as numbers.
func (w *weave) state(ctx context.Context, prefix string) map[string]int {
	w.t.Helper()
	all := map[string]int{}
	for next := ""; ; {
		page, err := w.client.State("shared", "").List(ctx, quipu.ListRequest{Prefix: prefix, After: next})
		w.must(err)
		keys := make([]string, len(page.Items))
		for i, item := range page.Items {
			keys[i] = item.Key
		}
		w.read(ctx, keys, all)
		if next = page.Next; next == "" {
			return all
		}
	}
}

// read reads keys in one request.
func (w *weave) read(ctx context.Context, keys []string, into map[string]int) {
	w.t.Helper()
	body, err := json.Marshal(map[string]any{"keys": keys})
	w.must(err)
	r, err := http.NewRequestWithContext(ctx, "POST", w.dapr+"/v1.0/state/shared/bulk", bytes.NewReader(body))
	w.must(err)
	r.Header.Set("Content-Type", "application/json")
	resp, err := w.feed.client.Do(r)
	w.must(err)
	defer resp.Body.Close()
	var items []struct {
		Key  string `json:"key"`
		Data int    `json:"data"`
	}
	w.must(json.NewDecoder(resp.Body).Decode(&items))
	for _, item := range items {
		into[item.Key] = item.Data
	}
}
