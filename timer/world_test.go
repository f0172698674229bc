package timer_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/test/booktest"
	"github.com/quipu-run/quipu/timer"
	"github.com/quipu-run/quipu/view"
)

var noon = booktest.Noon

// world is a log, the view of timers on it, and a runner whose handlers belong to the test.
type world struct {
	*booktest.World
	view   *timer.View
	runner *timer.Runner
	handle func(ctx context.Context, w *world, t timers.Timer)
}

// effects is a view that counts what handlers did, by id of the timer.
type effects struct{ view.Machine }

func (effects) Name() string { return "effects" }

func (effects) Apply(b *view.Batch, op []byte, at view.At) error {
	return b.Set("effects", string(op)+"/"+at.Seq.String(), nil)
}

func newWorld(t testing.TB, handle func(ctx context.Context, w *world, t timers.Timer)) *world {
	w := &world{World: booktest.New(t), handle: handle}
	w.Run(w.start, w.stop)
	return w
}

func (w *world) start() {
	w.view = timer.New()
	w.Open(w.view, effects{})
	handler := func(ctx context.Context, t timers.Timer) { w.handle(ctx, w, t) }
	w.runner = timer.NewRunner(timer.Options{Book: w.Book, View: w.view, Clock: w.Clock,
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handlers: map[string]timer.Handler{"job": handler, "workflow": handler}})
	w.runner.Start()
}

func (w *world) stop() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = w.runner.Close(over) // what handlers are at is cut off, as by a crash
	w.Close()
	w.runner.Wait()
}

func key(id string) timers.Key { return timers.Key{Kind: "job", Owner: "app", ID: id} }

func (w *world) set(k timers.Key, due time.Time) {
	w.T.Helper()
	w.Commit(func(tx *view.Tx) error { return w.view.Set(tx, timers.Timer{Key: k, Due: due, Body: []byte(k.ID)}) })
}

// done tells how often each timer took effect.
func (w *world) done() map[string]int {
	w.T.Helper()
	done := map[string]int{}
	tx := w.Book.Look()
	defer tx.Close()
	err := tx.Scan("effects", "", "", func(key string, _ []byte) bool {
		done[key[:len(key)-17]]++
		return true
	})
	if err != nil {
		w.T.Fatal(err)
	}
	return done
}

// once is the handler that does what it is for: it takes effect, and the timer is gone, in one record.
func once(ctx context.Context, w *world, t timers.Timer) {
	_, _ = w.Book.Change(ctx, func(tx *view.Tx) error {
		now, ok, err := w.view.Get(tx, t.Key)
		if err != nil || !ok || now.Seq != t.Seq {
			return err
		}
		if _, err := w.view.Cancel(tx, t.Key); err != nil {
			return err
		}
		return tx.Do(quipu.Op{View: "effects", Body: []byte(t.ID)})
	})
}
