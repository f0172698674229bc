package trigger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/topic"
	"github.com/quipu-run/quipu/trigger"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a log, the views of events on it, and an engine that calls functions of the test.
type world struct {
	t      testing.TB
	clock  *xtest.Clock
	log    *xtest.Model
	id     quipu.Book
	fs     *vfs.MemFS
	store  *view.Store
	book   *view.Book
	topics *topic.View
	ticker *trigger.Ticker
	engine *trigger.Engine
	stop   context.CancelFunc
	ticks  sync.WaitGroup

	mu        sync.Mutex
	functions []quipu.Function
	handle    map[string]func(events []event, attempt int) int // by function: the status
	effects   *effects
}

// event is what a function sees.
type event struct {
	ID   string          `json:"id"`
	Type string          `json:"type"`
	Time time.Time       `json:"time"`
	Data json.RawMessage `json:"data"`
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, clock: xtest.NewClock(noon), fs: vfs.NewCrashableMem(), handle: map[string]func([]event, int) int{}, effects: &effects{}}
	w.log = xtest.NewModel(w.clock)
	var err error
	if w.id, err = w.log.CreateBook(t.Context(), "quipu/default", quipu.BookOptions{}); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(func() { w.close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = view.OpenStore(view.Options{Dir: "/views", FS: w.fs}); err != nil {
		w.t.Fatal(err)
	}
	w.topics = topic.New()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	w.ticker = trigger.NewTicker(trigger.TickerOptions{Clock: w.clock, Logger: logger, Functions: w.all, Put: w.topics.Put})
	w.effects = &effects{}
	w.book, err = view.OpenBook(context.Background(), w.store, w.log, w.id, w.clock, w.topics, w.ticker, w.effects)
	if err != nil {
		w.t.Fatal(err)
	}
	w.engine = trigger.New(trigger.Options{Book: w.book, Store: w.topics, Clock: w.clock, Logger: logger,
		Call: w.call, Function: w.function, Publish: topic.Outside{View: w.topics, Book: w.book},
		Judge: func(_ quipu.Function, status int, _ []byte) quipu.Outcome {
			switch {
			case status == 404:
				return quipu.Drop
			case status < 300:
				return quipu.Ack
			}
			return quipu.Retry
		}})
	w.topics.Start(w.book, func(s subscription) { w.engine.Sync() })
	w.engine.Start()
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.ticks.Go(func() { w.ticker.Run(ctx, w.book) })
}

func (w *world) close() {
	w.t.Helper()
	w.stop()
	w.ticks.Wait()
	if err := w.engine.Close(context.Background()); err != nil {
		w.t.Error(err)
	}
	if err := w.book.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

// crash loses what the views had not written to disk, and starts again.
func (w *world) crash(rng *rand.Rand) {
	w.t.Helper()
	crashed := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng})
	w.close()
	w.fs = crashed
	w.open()
}

func (w *world) all() []quipu.Function {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]quipu.Function(nil), w.functions...)
}

func (w *world) function(name string) (quipu.Function, error) {
	for _, f := range w.all() {
		if f.Name == name {
			return f, nil
		}
	}
	return quipu.Function{}, &quipu.Error{Code: quipu.CodeNoFunction}
}

// deploy adds or replaces a function with its triggers, in one record as a deploy does.
func (w *world) deploy(f quipu.Function, handle func(events []event, attempt int) int) {
	w.t.Helper()
	if f.Spec.Concurrency == 0 {
		f.Spec.Concurrency, f.Spec.Scale.Max = 1, 4
	}
	w.mu.Lock()
	kept := w.functions[:0:0]
	for _, old := range w.functions {
		if old.Name != f.Name {
			kept = append(kept, old)
		}
	}
	w.functions = append(kept, f)
	w.handle[f.Name] = handle
	w.mu.Unlock()
	w.commit(func(tx *view.Tx) error { return w.topics.SetFunctions(tx, trigger.Wanted(w.all())) })
	w.engine.Sync()
	w.ticker.Sync()
}

func (w *world) commit(change func(tx *view.Tx) error) {
	w.t.Helper()
	if _, err := w.book.Change(context.Background(), change); err != nil {
		w.t.Fatal(err)
	}
}

// on is a function that takes the events of a topic.
func on(name string, t quipu.TopicTrigger) quipu.Function {
	if t.Path == "" {
		t.Path = "/"
	}
	if t.Retry == (quipu.RetrySpec{}) {
		t.Retry = quipu.RetrySpec{Max: 3, Backoff: quipu.Duration(time.Second)}
	}
	return quipu.Function{Name: name, Revision: "1", Spec: quipu.Spec{Triggers: []quipu.Trigger{{Topic: &t}}}}
}

func atomically(f quipu.Function) quipu.Function {
	f.Spec.Atomic = true
	return f
}

// call does what package call does: an atomic function's effects and their acknowledgement are one record.
func (w *world) call(ctx context.Context, c trigger.Call) (reply trigger.Reply, err error) {
	f, err := w.function(c.Function)
	if err != nil {
		return reply, err
	}
	w.mu.Lock()
	handle := w.handle[f.Name]
	w.mu.Unlock()
	body, err := io.ReadAll(c.Body)
	if err != nil {
		return reply, err
	}
	events, err := parse(c.Header.Get("Content-Type"), body)
	if err != nil {
		return reply, err
	}
	if reply.Status = handle(events, c.Attempt); reply.Status >= 300 || !f.Spec.Atomic {
		return reply, nil
	}
	_, err = w.book.Change(ctx, func(tx *view.Tx) error {
		for _, e := range events {
			if err := tx.Do(quipu.Op{View: effectsName, Body: []byte(e.ID)}); err != nil {
				return err
			}
		}
		return c.Settle(tx)
	})
	reply.Settled = err == nil
	return reply, err
}

func parse(contentType string, body []byte) (events []event, err error) {
	if contentType == quipu.MediaCloudBatch {
		err = json.Unmarshal(body, &events)
		return events, err
	}
	events = make([]event, 1)
	return events, json.Unmarshal(body, &events[0])
}

// effects is a view that counts how often each event had its effect.
type effects struct {
	mu   sync.Mutex
	seen map[string]int
}

const effectsName = "effects"

func (e *effects) Name() string { return effectsName }

// Load takes up what the store has.
func (e *effects) Load(r view.Reader) error {
	e.seen = map[string]int{}
	return r.Scan(effectsName, "", func(key string, value []byte) error {
		e.seen[key] = int(value[0])
		return nil
	})
}

func (e *effects) Apply(b *view.Batch, op []byte, _ view.At) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen[string(op)]++
	return b.Set(effectsName, string(op), []byte{byte(e.seen[string(op)])})
}

func (e *effects) count() (all, twice int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.seen {
		if n > 1 {
			twice++
		}
	}
	return len(e.seen), twice
}

// publish publishes JSON data under the ids.
func (w *world) publish(topic string, ids ...string) {
	w.t.Helper()
	w.publishWith(topic, func(*quipu.Message) {}, ids...)
}

func (w *world) publishWith(topic string, change func(*quipu.Message), ids ...string) {
	w.t.Helper()
	var ms []quipu.Message
	for _, id := range ids {
		_, data, err := cloudevent.Wrap(cloudevent.Attributes{ID: id, Time: w.clock.Now(), DataContentType: "application/json"}, fmt.Appendf(nil, `{"key":%q}`, id[:1]))
		if err != nil {
			w.t.Fatal(err)
		}
		m := quipu.Message{Topic: topic, ID: id, ContentType: quipu.MediaCloudEvent, Data: data}
		change(&m)
		ms = append(ms, m)
	}
	if err := w.engine.Publish(context.Background(), ms); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) info(topic string) quipu.TopicInfo {
	w.t.Helper()
	info, err := w.engine.Topic(context.Background(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// patience is how long a test waits for what other goroutines do.
const patience = 20 * time.Second

// eventually waits until holds; the clock of the world may be moved in it.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("not after %s: %s", patience, what)
		}
	}
}

// passing is eventually while time passes.
func (w *world) passing(step time.Duration, what string, holds func() bool) {
	w.t.Helper()
	w.eventually(what, func() bool {
		if holds() {
			return true
		}
		w.clock.Move(step)
		return false
	})
}
