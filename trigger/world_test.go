package trigger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/cloudevent"
	"github.com/quipu-run/quipu/test/booktest"
	"github.com/quipu-run/quipu/topic"
	"github.com/quipu-run/quipu/trigger"
	"github.com/quipu-run/quipu/view"
)

var noon = booktest.Noon

// world is a log, the views of events on it, and an engine that calls functions of the test.
type world struct {
	*booktest.World
	topics *topic.View
	ticker *trigger.Ticker
	engine *trigger.Engine
	quiet  context.CancelFunc // ends ticks
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
	w := &world{World: booktest.New(t), handle: map[string]func([]event, int) int{}, effects: &effects{}}
	w.Run(w.start, w.stop)
	return w
}

func (w *world) start() {
	w.topics = topic.New()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	w.ticker = trigger.NewTicker(trigger.TickerOptions{Clock: w.Clock, Logger: logger, Functions: w.all, Put: w.topics.Put})
	w.effects = &effects{}
	w.Open(w.topics, w.ticker, w.effects)
	w.engine = trigger.New(trigger.Options{Book: w.Book, Store: w.topics, Clock: w.Clock, Logger: logger,
		Call: w.call, Function: w.function, Publish: topic.Outside{View: w.topics, Book: w.Book},
		Judge: func(_ quipu.Function, status int, _ []byte) quipu.Outcome {
			switch {
			case status == 404:
				return quipu.Drop
			case status < 300:
				return quipu.Ack
			}
			return quipu.Retry
		}})
	w.topics.Start(w.Book, func(s subscription) { w.engine.Sync() })
	w.engine.Start()
	ctx, quiet := context.WithCancel(context.Background())
	w.quiet = quiet
	w.ticks.Go(func() { w.ticker.Run(ctx, w.Book) })
}

func (w *world) stop() {
	w.quiet()
	w.ticks.Wait()
	if err := w.engine.Close(context.Background()); err != nil {
		w.T.Error(err)
	}
	w.Close()
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
	w.T.Helper()
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
	w.Commit(func(tx *view.Tx) error { return w.topics.SetFunctions(tx, trigger.Wanted(w.all())) })
	w.engine.Sync()
	w.ticker.Sync()
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
	_, err = w.Book.Change(ctx, func(tx *view.Tx) error {
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
	w.T.Helper()
	w.publishWith(topic, func(*quipu.Message) {}, ids...)
}

func (w *world) publishWith(topic string, change func(*quipu.Message), ids ...string) {
	w.T.Helper()
	var ms []quipu.Message
	for _, id := range ids {
		_, data, err := cloudevent.Wrap(cloudevent.Attributes{ID: id, Time: w.Clock.Now(), DataContentType: "application/json"}, fmt.Appendf(nil, `{"key":%q}`, id[:1]))
		if err != nil {
			w.T.Fatal(err)
		}
		m := quipu.Message{Topic: topic, ID: id, ContentType: quipu.MediaCloudEvent, Data: data}
		change(&m)
		ms = append(ms, m)
	}
	if err := w.engine.Publish(context.Background(), ms); err != nil {
		w.T.Fatal(err)
	}
}

func (w *world) info(topic string) quipu.TopicInfo {
	w.T.Helper()
	info, err := w.engine.Topic(context.Background(), topic)
	if err != nil {
		w.T.Fatal(err)
	}
	return info
}
