package timer_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/timers"
	"github.com/quipu-run/quipu/timer"
	"github.com/quipu-run/quipu/view"
	"github.com/quipu-run/quipu/xtest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a log, the view of timers on it, and a runner whose handlers belong to the test.
type world struct {
	t      testing.TB
	clock  *xtest.Clock
	log    *xtest.Model
	id     quipu.Book
	fs     *vfs.MemFS
	store  *view.Store
	book   *view.Book
	view   *timer.View
	runner *timer.Runner
	quiet  bool // the runner is not started

	handle func(ctx context.Context, w *world, t timers.Timer)
}

// effects is a view that counts what handlers did, by id of the timer.
type effects struct{ view.Machine }

func (effects) Name() string { return "effects" }

func (effects) Apply(b *view.Batch, op []byte, at view.At) error {
	return b.Set("effects", string(op)+"/"+at.Seq.String(), nil)
}

func newWorld(t testing.TB, handle func(ctx context.Context, w *world, t timers.Timer)) *world {
	w := &world{t: t, clock: xtest.NewClock(noon), fs: vfs.NewCrashableMem(), handle: handle}
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
	w.view = timer.New()
	if w.book, err = view.OpenBook(context.Background(), w.store, w.log, w.id, w.clock, w.view, effects{}); err != nil {
		w.t.Fatal(err)
	}
	handler := func(ctx context.Context, t timers.Timer) { w.handle(ctx, w, t) }
	w.runner = timer.NewRunner(timer.Options{Book: w.book, View: w.view, Clock: w.clock,
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handlers: map[string]timer.Handler{"job": handler, "workflow": handler}})
	if !w.quiet {
		w.runner.Start()
	}
}

func (w *world) close() {
	w.t.Helper()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = w.runner.Close(over) // what handlers are at is cut off, as by a crash
	if err := w.book.Close(); err != nil {
		w.t.Error(err)
	}
	w.runner.Wait()
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

// crash loses what the view had not written to disk, and starts again.
func (w *world) crash(rng *rand.Rand) {
	w.t.Helper()
	crashed := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng})
	w.close()
	w.fs = crashed
	w.open()
}

func (w *world) commit(change func(tx *view.Tx) error) {
	w.t.Helper()
	if _, err := w.book.Change(context.Background(), change); err != nil {
		w.t.Fatal(err)
	}
}

func key(id string) timers.Key { return timers.Key{Kind: "job", Owner: "app", ID: id} }

func (w *world) set(k timers.Key, due time.Time) {
	w.t.Helper()
	w.commit(func(tx *view.Tx) error { return w.view.Set(tx, timers.Timer{Key: k, Due: due, Body: []byte(k.ID)}) })
}

// done tells how often each timer took effect.
func (w *world) done() map[string]int {
	w.t.Helper()
	done := map[string]int{}
	tx := w.book.Look()
	defer tx.Close()
	err := tx.Scan("effects", "", "", func(key string, _ []byte) bool {
		done[key[:len(key)-17]]++
		return true
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not in time: %s", what)
		}
	}
}

// passing has time pass in steps until something is so.
func (w *world) passing(step time.Duration, what string, is func() bool) {
	w.t.Helper()
	w.eventually(what, func() bool {
		w.clock.Move(step)
		return is()
	})
}

// once is the handler that does what it is for: it takes effect, and the timer is gone, in one record.
func once(ctx context.Context, w *world, t timers.Timer) {
	_, _ = w.book.Change(ctx, func(tx *view.Tx) error {
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
